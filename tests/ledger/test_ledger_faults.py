"""What a ledger survives: cuts, damage, a full disk, a read-only folder, death while it is made. Whole or refused."""

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from test_ledger_chain import grow
from toy_contract import ALICE, GENESIS, NODE, TOY, Add, signed

from gridpool.errors import RefusedInput
from gridpool.ledger.chain import Ledger
from gridpool.ledger.verification import verify_ledger

HERE = Path(__file__).parent


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "ledger"
    with Ledger.create(path, GENESIS, TOY, signer=NODE) as ledger:
        for nonce in range(1, 25):
            grow(ledger, signed(ALICE, nonce, *(Add(f"{nonce}-{i}", 1) for i in range(12))).wire)
    return path


def in_child(
    code: str, *arguments: object, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run code that has the toy contract at hand in a process of its own, which may die without taking us along."""
    head = f"import sys; sys.path.insert(0, {str(HERE)!r})\nfrom pathlib import Path\n"
    head += "from toy_contract import *\nfrom test_ledger_chain import grow\nfrom gridpool.ledger.chain import Ledger\n"
    head += "from gridpool.ledger.verification import verify_ledger\nfrom gridpool.errors import RefusedInput\n"
    command = [sys.executable, "-c", head + code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | (environment or {}), check=False)


LOOK = """
import random, shutil
source, kind, seed, rounds = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
data = (source / "data.mdb").read_bytes()
heights = {}
with Ledger.open(source, TOY) as ledger, ledger.view() as view:
    heights = {view.header(h).header.app_hash.hex(): h for h in range(view.height + 1)}
moments = random.Random(seed)
seen = {"whole": 0, "refused": 0, "fault": 0}
for _ in range(rounds):
    other = source.with_name("other")
    shutil.rmtree(other, ignore_errors=True)
    other.mkdir()
    changed = bytearray(data)
    at = moments.randrange(len(changed))
    if kind == "cut":
        del changed[at:]
    else:
        changed[at] ^= 1 << moments.randrange(8)
    (other / "data.mdb").write_bytes(changed)
    try:
        result = verify_ledger(other, TOY)
    except RefusedInput:
        seen["refused"] += 1
        continue
    seen["whole" if result.ok else "fault"] += 1
    assert not result.ok or result.app_hash in heights
print(seen)
"""


@pytest.mark.parametrize(("kind", "rounds"), [("cut", 60), ("flip", 60)])
def test_cut_or_altered_files_are_whole_refused_or_faulty(folder: Path, kind: str, rounds: int) -> None:
    done = in_child(LOOK, folder, kind, 11, rounds)
    assert done.returncode == 0, done.stderr
    if kind == "cut":
        assert "'refused': 0" not in done.stdout


def test_full_disk_keeps_the_last_whole_height(folder: Path) -> None:
    code = """
import resource, signal
path = Path(sys.argv[1])
with Ledger.open(path, TOY, signer=NODE) as ledger:
    size = (path / "data.mdb").stat().st_size
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 40_000, resource.RLIM_INFINITY))
    for nonce in range(100, 200):
        before = ledger.height
        try:
            grow(ledger, signed(ALICE, nonce, *(Add(f"{nonce}-{i}", 1) for i in range(200))).wire)
        except RefusedInput as refusal:
            assert "cannot be written" in str(refusal), refusal
            assert ledger.height == before
            break
    else:
        raise SystemExit("the disk never was full")
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert verify_ledger(path, TOY).height == before
    grow(ledger, signed(ALICE, nonce, Add("after", 1)).wire)
    print(ledger.height)
"""
    done = in_child(code, folder)
    assert done.returncode == 0, done.stderr + done.stdout
    result = verify_ledger(folder, TOY)
    assert result.ok
    assert result.height == int(done.stdout)


def test_full_disk_while_a_ledger_is_made_leaves_nothing(tmp_path: Path) -> None:
    code = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
try:
    Ledger.create(Path(sys.argv[1]), GENESIS, TOY, signer=NODE)
except RefusedInput as refusal:
    print(refusal)
"""
    done = in_child(code, tmp_path / "ledger")
    assert done.returncode == 0, done.stderr
    assert str(tmp_path) in done.stdout
    assert not (tmp_path / "ledger").exists()
    Ledger.create(tmp_path / "ledger", GENESIS, TOY, signer=NODE).close()
    assert verify_ledger(tmp_path / "ledger", TOY).ok


@pytest.mark.parametrize("place", ["store.write.begun", "store.write.filled", "store.write.committed", "ledger.made"])
def test_death_while_a_ledger_is_made_leaves_none_and_it_can_be_made_again(tmp_path: Path, place: str) -> None:
    code = "Ledger.create(Path(sys.argv[1]), GENESIS, TOY, signer=NODE)"
    done = in_child(code, tmp_path / "ledger", environment={"GRIDPOOL_FAIL_AT": place})
    assert done.returncode == -9
    with pytest.raises(RefusedInput):
        Ledger.open(tmp_path / "ledger", TOY)
    Ledger.create(tmp_path / "ledger", GENESIS, TOY, signer=NODE).close()
    assert verify_ledger(tmp_path / "ledger", TOY).ok


@pytest.mark.slow
def test_random_death_in_the_middle_of_work(folder: Path) -> None:
    code = """
with Ledger.open(Path(sys.argv[1]), TOY, signer=NODE) as ledger:
    for nonce in range(int(sys.argv[2]), int(sys.argv[2]) + 200):
        grow(ledger, signed(ALICE, nonce, *(Add(f"{nonce}-{i}", 1) for i in range(30))).wire)
"""
    moments = random.Random(5)
    height = verify_ledger(folder, TOY).height
    for turn in range(1, 13):
        place = moments.choice(["store.write.begun", "store.write.filled", "store.write.committed"])
        fail_at = f"{place}:{moments.randrange(1, 12)}"
        assert in_child(code, folder, 1_000 * turn, environment={"GRIDPOOL_FAIL_AT": fail_at}).returncode == -9
        result = verify_ledger(folder, TOY)
        assert result.ok
        assert result.height >= height
        height = result.height


def test_read_only_folder_can_be_read_and_not_written(folder: Path) -> None:
    if os.geteuid() == 0:
        done = in_child(
            """
import os
path = Path(sys.argv[1])
for parent in (path, *path.parents[:4]):
    parent.chmod(0o755)
for file in path.iterdir():
    file.chmod(0o444)
os.setuid(65534)
assert verify_ledger(path, TOY).ok
try:
    Ledger.open(path, TOY, signer=NODE)
except RefusedInput as refusal:
    print(refusal)
""",
            folder,
        )
        assert done.returncode == 0, done.stderr
        assert "cannot be opened" in done.stdout
        return
    for file in folder.iterdir():
        file.chmod(0o444)
    folder.chmod(0o555)
    assert verify_ledger(folder, TOY).ok
    with pytest.raises(RefusedInput, match="cannot be opened"):
        Ledger.open(folder, TOY, signer=NODE)
    folder.chmod(0o755)


def test_lock_file_of_a_dead_process_is_no_obstacle(folder: Path) -> None:
    (folder / "lock.mdb").write_bytes(b"\0" * 8_192)
    assert verify_ledger(folder, TOY).ok
    shutil.copytree(folder, folder.with_name("copy"), ignore=shutil.ignore_patterns("lock.mdb"))
    assert verify_ledger(folder.with_name("copy"), TOY).ok
