"""Commands that make or change files, killed at every durable step or on a full disk: all or nothing, and again."""

import os
import resource
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from test_ledger_chain import grow
from toy_contract import ALICE, GENESIS, NODE, TOY, Add, signed

from gridpool.errors import RefusedInput
from gridpool.ledger import failpoints
from gridpool.ledger.archive import export_ledger, import_ledger, prune_ledger
from gridpool.ledger.chain import Ledger
from gridpool.ledger.snapshots import restore_snapshot, write_snapshot
from gridpool.ledger.verification import verify_ledger


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("sound")
    with Ledger.create(place / "ledger", GENESIS, TOY, signer=NODE) as ledger:
        for nonce in range(1, 13):
            grow(ledger, signed(ALICE, nonce, *(Add(f"{nonce}-{i}", 1) for i in range(40))).wire)
        with ledger.view() as view:
            for name in ("archive.jsonl", "archive.parquet"):
                export_ledger(view, place / name)
            write_snapshot(view, place / "snapshot")
    return place


def export(place: Path, name: str) -> None:
    with Ledger.open(place / "ledger", TOY, writable=False) as ledger, ledger.view() as view:
        if name == "snapshot":
            write_snapshot(view, place / "out" / name)
        else:
            export_ledger(view, place / "out" / name)


def back_up(place: Path) -> None:
    with Ledger.open(place / "ledger", TOY, signer=NODE) as ledger:
        ledger.backup(place / "out")


WORK: dict[str, tuple[Callable[[Path], object], str]] = {
    "export": (lambda place: export(place, "archive.jsonl"), "archive.jsonl"),
    "export parquet": (lambda place: export(place, "archive.parquet"), "archive.parquet"),
    "snapshot": (lambda place: export(place, "snapshot"), "snapshot"),
    "import": (lambda place: import_ledger(place / "archive.jsonl", place / "out", TOY), "ledger"),
    "import parquet": (lambda place: import_ledger(place / "archive.parquet", place / "out", TOY), "ledger"),
    "restore": (lambda place: restore_snapshot(place / "snapshot", place / "out" / "ledger", TOY), "ledger"),
    "backup": (back_up, "height-12"),
    "prune": (lambda place: prune_ledger(place / "ledger", TOY, keep=4), ""),
}
"""What is done, and what stands in ``out`` afterwards."""


def in_fork(task: Callable[[], object]) -> int:
    """Run ``task`` in a child that may die; returns its exit code, or minus the signal that ended it."""
    child = os.fork()
    if child == 0:
        code = 70
        try:
            task()
            code = 0
        except (RefusedInput, OSError):
            code = 1
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def copied(sound: Path, tmp_path: Path) -> Path:
    shutil.copytree(sound, tmp_path / "place")
    (tmp_path / "place" / "out").mkdir()
    return tmp_path / "place"


def holds(place: Path, name: str) -> None:
    """What came out is whole, and the ledger it came from is as it was."""
    made = place / "out" / name
    if name == "ledger" or name.startswith("height"):
        assert verify_ledger(made, TOY).ok
    elif name == "snapshot":
        restore_snapshot(made, place / "again", TOY)
    elif name:
        import_ledger(made, place / "again", TOY)
    result = verify_ledger(place / "ledger", TOY)
    assert result.ok
    assert result.height == 12


@pytest.mark.parametrize(
    ("work", "point"),
    [
        *((work, f"{work.partition(' ')[0]}.{step}") for work in WORK if work != "prune" for step in ("made", "named")),
        *(("import", f"store.write.{step}:{n}") for step in ("begun", "filled", "committed") for n in (1, 7)),
        *(("restore", f"store.write.{step}:{n}") for step in ("begun", "filled", "committed") for n in (1, 3)),
        *(("prune", f"store.write.{step}") for step in ("begun", "filled", "committed")),
    ],
)
def test_killed_work_leaves_all_or_nothing(sound: Path, tmp_path: Path, work: str, point: str) -> None:
    place = copied(sound, tmp_path)
    task, name = WORK[work]

    def doomed() -> None:
        failpoints._name, _, count = point.partition(":")
        failpoints._left = int(count or 1)
        task(place)

    assert in_fork(doomed) == -signal.SIGKILL
    if point.endswith(".named"):
        holds(place, name)
        shutil.rmtree(place / "again", ignore_errors=True)
        shutil.rmtree(place / "out")
        (place / "out").mkdir()
    elif name:
        assert not (place / "out" / name).exists()
    task(place)
    holds(place, name)
    assert {path.name for path in (place / "out").iterdir()} <= {name}, "nothing half-done is left"


@pytest.mark.parametrize("work", WORK)
@pytest.mark.parametrize("room", [0, 30_000, 120_000])
def test_work_on_a_full_disk_is_refused_and_leaves_nothing(sound: Path, tmp_path: Path, work: str, room: int) -> None:
    place = copied(sound, tmp_path)
    task, name = WORK[work]
    most = room + ((place / "ledger" / "data.mdb").stat().st_size if work == "prune" else 0)

    def starved() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))
        task(place)

    code = in_fork(starved)
    assert code in {0, 1}
    if code == 1 and name:
        assert not (place / "out" / name).exists()
    if room == 0 and name:
        assert code == 1
    shutil.rmtree(place / "out")
    (place / "out").mkdir()
    task(place)
    holds(place, name)


@pytest.mark.parametrize("work", [work for work in WORK if work != "prune"])
def test_work_into_a_folder_that_cannot_be_written_is_refused(sound: Path, tmp_path: Path, work: str) -> None:
    place = copied(sound, tmp_path)
    task, name = WORK[work]
    (place / "out").rmdir()
    (place / "out").write_text("a file, where a folder should be")
    with pytest.raises((RefusedInput, OSError)):
        task(place)
    (place / "out").unlink()
    (place / "out").mkdir()
    task(place)
    holds(place, name)
