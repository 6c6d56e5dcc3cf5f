"""``gridpool access`` and ``gridpool device`` as members use them: a ledger at rest, two processes, real sockets."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gridpool.agents.device_issuance import attest_distinct
from gridpool.agents.wallet_keys import load_wallet
from gridpool.agents.wallet_session import open_session
from gridpool.cli import main
from gridpool.contracts.devices import FundPool
from gridpool.errors import RefusedInput

Run = Callable[..., dict[str, Any]]
START = "2026-06-21T10:00:00Z"


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)

    def call(text: str) -> dict[str, Any]:
        main([*text.split(), "--json"])
        return json.loads(capsys.readouterr().out)  # type: ignore[no-any-return]

    return call


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str], run: Run) -> Callable[..., str]:
    def call(text: str, code: int = 1) -> str:
        with pytest.raises(SystemExit) as stop:
            main(text.split())
        error = capsys.readouterr().err
        assert stop.value.code == code, error
        assert error.count("\n") == 1
        return error

    return call


@pytest.fixture
def keys(run: Run) -> dict[str, str]:
    """A grid operator, an aggregator, and Ann and Bob with one wallet each and coins."""
    found = {name: run(f"wallet new {name}.wallet")["certificate"] for name in ("seat", "hub", "dso", "ann", "bob")}
    run(
        "council found home --seat seat.wallet --threshold 1 --clock seat.wallet --member Hub:aggregator:hub.wallet "
        f"--member Grid:utility:dso.wallet --auditor seat.wallet --start {START}"
    )
    for name in ("ann", "bob"):
        run(f"wallet apply {name}.wallet --identity {name} --aggregator {found['hub']} --out {name}.json --home home")
    run(f"council propose admit ann.json bob.json --aggregator {found['hub']} --wallet seat.wallet --home home")
    run("wallet register ann.json bob.json --wallet hub.wallet --home home")
    for name in ("ann", "bob"):
        found[name + "0"] = run(f"wallet show {name}.wallet --home home")["wallets"][0]["address"]
        run(f"council propose mint --to {found[name + '0']} --amount 1000000 --wallet seat.wallet --home home")
    return found


@pytest.fixture
def served(run: Run, keys: dict[str, str], tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Start ``gridpool device serve`` in a process of its own; returns its address."""
    running: list[subprocess.Popen[str]] = []

    def start(arguments: str) -> str:
        command = [sys.executable, "-m", "gridpool", "device", "serve", *arguments.split(), "--port", "0", "--json"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
        running.append(process)
        assert process.stderr is not None
        line = process.stderr.readline()
        assert line.startswith("listening on "), line
        return line.split()[2]

    start.running = running  # type: ignore[attr-defined]
    yield start
    for process in running:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)


def test_rules_are_set_checked_and_taken_back(run: Run, keys: dict[str, str], fails: Callable[..., str]) -> None:
    ask = f"access check feeder/7 --wallet {keys['ann0']} --action read --home home"
    assert run(ask)["allowed"] is False
    made = run("access rule feeder/7 --who role:prosumer --action read --wallet dso.wallet --home home")
    assert (made["number"], made["who"], made["allow"]) == (1, "role:prosumer", True)
    answer = run(ask)
    assert (answer["allowed"], answer["rule"]) == (True, 1)
    assert "rule 1 allows role prosumer to read" in answer["reason"]
    assert run(ask.replace("read", "write"))["allowed"] is False
    run(f"access rule feeder/7 --who wallet:{keys['ann0']} --deny --wallet dso.wallet --home home")
    assert (run(ask)["allowed"], run(ask)["rule"]) == (False, 2)
    assert run(f"access check feeder/7 --wallet {keys['bob0']} --action read --home home")["allowed"] is True
    assert run("access rule feeder/7 --remove 2 --wallet dso.wallet --home home")["removed"] == 2
    assert run(ask)["allowed"] is True
    listed = run("access audit feeder/7 --home home")
    assert [row["number"] for row in listed["resources"][0]["rules"]] == [1]
    assert (listed["batches"], listed["blocks"]) == ([], [])
    assert "not your resource" in fails("access rule feeder/7 --who anyone --wallet hub.wallet --home home")
    assert "public wallet" in fails("access rule mine --who anyone --wallet ann.wallet --home home")
    assert "no role" in fails("access rule feeder/7 --who role:king --wallet dso.wallet --home home")
    assert "--who" in fails("access rule feeder/7 --wallet dso.wallet --home home")
    assert "no resource" in fails("access audit nothing --home home")
    assert "no wallet address" in fails("access check feeder/7 --wallet xyz --action read --home home")


def test_windows_and_places_bound_a_rule(run: Run, keys: dict[str, str]) -> None:
    run(
        "access rule gate --who organisation:Grid --action open --start 2026-06-21T12:00:00Z "
        "--end 2026-06-21T13:00:00Z --place north --wallet dso.wallet --home home"
    )
    ask = f"access check gate --wallet {keys['dso']} --action open --home home"
    assert run(f"{ask} --place north --at 2026-06-21T12:00:00Z")["allowed"] is True
    assert run(f"{ask} --place north --at 2026-06-21T13:00:00Z")["allowed"] is False
    assert run(f"{ask} --place south --at 2026-06-21T12:30:00Z")["allowed"] is False
    assert run(f"{ask} --place north")["allowed"] is False
    bob = f"access check gate --wallet {keys['bob0']} --action open --home home"
    assert run(f"{bob} --place north --at 2026-06-21T12:30:00Z")["allowed"] is False


def test_two_devices_exchange_a_file_and_settle(
    run: Run, keys: dict[str, str], served: Callable[..., str], fails: Callable[..., str]
) -> None:
    content = os.urandom(100_000)
    Path("map.bin").write_bytes(content)
    assert run("device init charger --wallet bob.wallet --home home")["wallet"] == keys["bob0"]
    made = run(f"device init car --wallet ann.wallet --home home --deposit 5000 --payee {keys['bob0']}")
    assert (made["wallet"], made["deposit"], made["roles"]) == (keys["ann0"], 1, ["prosumer"])
    assert Path("car/key").stat().st_mode & 0o077 == 0
    address = served("charger map.bin --price 50 --unit-bytes 10000 --count 3")
    assert "cost more than 0" in fails(f"device fetch car {address} --out map.copy")
    assert "other side ends" in fails(f"device fetch car {address} --out map.copy --item nothing.bin")
    got = run(f"device fetch car {address} --out map.copy --pay-most 1000")
    assert (got["units"], got["total"], got["bytes"], got["peer"]) == (10, 500, 100_000, keys["bob0"])
    assert Path("map.copy").read_bytes() == content
    output, _ = served.running[0].communicate(timeout=30)  # type: ignore[attr-defined]
    summary = json.loads(output)
    assert (summary["exchanges"], summary["units"], summary["refused"] + summary["cut"]) == (1, 10, 2)
    for device, role in (("car", "payer"), ("charger", "payee")):
        (row,) = run(f"device receipts {device}")["receipts"]
        assert (row["role"], row["units"], row["total"], row["co_signed"], row["settled"]) == (
            role,
            10,
            500,
            True,
            False,
        )
    settled = run("device settle charger --home home")
    assert (settled["total"], settled["settled"][0]["units"]) == (500, 10)
    assert run("wallet show bob.wallet --home home")["wallets"][0]["coins"] == 1_000_500
    assert run("wallet show ann.wallet --home home")["wallets"][0]["coins"] == 999_500
    assert run("device settle charger --home home")["settled"] == []
    assert run("device settle car --home home")["settled"] == []
    assert run("ledger verify home")["ok"] is True


def test_sharing_earns_from_a_pool_by_the_aggregators_word(
    run: Run, keys: dict[str, str], served: Callable[..., str], fails: Callable[..., str]
) -> None:
    Path("map.bin").write_bytes(bytes(5_000))
    run(f"council propose mint --to {keys['dso']} --amount 1000 --wallet seat.wallet --home home")
    run("device init charger --wallet bob.wallet --home home")
    run(f"device init car --wallet ann.wallet --home home --deposit 0 --payee {keys['bob0']}")
    address = served("charger map.bin --unit-bytes 1000 --count 1")
    assert run(f"device fetch car {address} --out copy")["units"] == 5
    hub, ann, bob = (
        load_wallet(Path("hub.wallet")).certificate,
        bytes.fromhex(keys["ann0"]),
        bytes.fromhex(keys["bob0"]),
    )
    with open_session(Path("home"), None) as session:
        pool = FundPool("maps", 1_000, 30, 100, session.now + 86_400_000)
        session.submit(load_wallet(Path("dso.wallet")).certificate, pool)
        word = attest_distinct(session.state, session.chain, hub, ann, bob).hex()
        with pytest.raises(RefusedInput, match="one member"):
            attest_distinct(session.state, session.chain, hub, ann, ann)
        with pytest.raises(RefusedInput, match="pool"):
            attest_distinct(session.state, session.chain, hub, ann, hub.public)
    assert "earns nothing" in fails("device settle charger --home home --pool maps")
    assert "128" in fails("device settle charger --home home --pool maps --distinct xy")
    (row,) = run(f"device settle charger --home home --pool maps --distinct {word}")["settled"]
    assert (row["units"], row["total"], row["reward"]) == (5, 0, 150)
    assert run("wallet show bob.wallet --home home")["wallets"][0]["coins"] == 1_000_150


def test_a_device_refuses_what_does_not_fit(run: Run, keys: dict[str, str], fails: Callable[..., str]) -> None:
    assert "--wallet" in fails("device init car --home home")
    assert "belong together" in fails("device init car --wallet ann.wallet --home home --deposit 5")
    deposit = f"device init car --wallet ann.wallet --home home --deposit 5 --payee {keys['bob0']}"
    assert "366 days" in fails(f"{deposit} --days 100000000000000000000")
    assert "not enough coins" in fails(deposit.replace("--deposit 5", "--deposit 50000000"))
    assert "out of range" in fails(deposit.replace("--deposit 5", "--deposit=-5"))
    run("device init car --wallet ann.wallet --home home")
    assert "another wallet" in fails("device init car --wallet bob.wallet --home home")
    assert "no device's folder" in fails("device receipts nowhere")
    assert "HOST:PORT" in fails("device fetch car nonsense --out x")
    assert "no device answers" in fails("device fetch car 127.0.0.1:1 --out x")
    assert "no file" in fails("device serve car nothing.bin")
    trust = json.loads(Path("car/trust.json").read_text())
    Path("car/trust.json").write_text(json.dumps(trust | {"chain": "another"}))
    assert "does not fit together" in fails("device receipts car")
    Path("car/trust.json").write_text("{" * 100_000)
    assert "too large" in fails("device receipts car")


def test_a_revoked_device_is_refused_by_the_renewed_proofs(
    run: Run, keys: dict[str, str], served: Callable[..., str], fails: Callable[..., str]
) -> None:
    Path("map.bin").write_bytes(b"x" * 1000)
    run("device init charger --wallet bob.wallet --home home")
    run("device init car --wallet ann.wallet --home home")
    run(
        f"council propose ban --member {keys['ann']} --until 2026-07-21T10:00:00Z --why test --auditor seat.wallet "
        "--wallet seat.wallet --home home"
    )
    run("device init car --home home")
    address = served("charger map.bin --count 1")
    fails(f"device fetch car {address} --out copy")
    assert not Path("copy").exists()
    output, _ = served.running[0].communicate(timeout=30)  # type: ignore[attr-defined]
    assert json.loads(output)["refused"] == 1


def test_a_device_starts_small_and_soon(run: Run, keys: dict[str, str], served: Callable[..., str]) -> None:
    """Less than 40 MB resident; start compared with a bare interpreter, since the machine may be busy."""
    content = os.urandom(2_000_000)
    Path("map.bin").write_bytes(content)
    run("device init charger --wallet bob.wallet --home home")
    run("device init car --wallet ann.wallet --home home")
    address = served("charger map.bin --count 1")
    script = (
        "import sys; from gridpool.cli import main; main(sys.argv[1:]); "
        "print(*[line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')], file=sys.stderr); "
        "print(sorted({'numpy', 'lmdb', 'scipy', 'rich'} & set(sys.modules)), file=sys.stderr)"
    )
    command = [sys.executable, "-c", script, "device", "fetch", "car", address, "--out", "copy", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    resident_kb, heavy = done.stderr.splitlines()
    assert int(resident_kb) < 40_000
    assert heavy == "[]"
    assert Path("copy").read_bytes() == content
