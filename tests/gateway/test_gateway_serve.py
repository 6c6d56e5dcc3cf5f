"""``gridpool serve`` as a process: it answers, dies at any durable step, and comes back whole."""

import base64
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from gridpool.contracts import RULES
from gridpool.engines.embedded import Embedded
from gridpool.ledger.clock import AdvanceClock
from gridpool.ledger.genesis import Genesis
from gridpool.ledger.keys import KeyPair
from gridpool.ledger.transaction import Transaction, sign
from gridpool.ledger.verification import verify_ledger

KEEPER = KeyPair(bytes([5]) * 32)
GENESIS = Genesis(chain="served", time_ms=0, market_clock="ticks", clock_keeper=KEEPER.public)


def tick(nonce: int) -> Transaction:
    return sign(KEEPER, "served", nonce, 10**9, [AdvanceClock(1_000 * nonce)])


@pytest.fixture
def home(tmp_path: Path) -> Path:
    Embedded.create(tmp_path / "home", GENESIS, RULES, interval_ms=None).close()
    return tmp_path / "home"


@contextmanager
def node(home: Path, *, fail_at: str = "") -> Iterator[tuple[subprocess.Popen[str], str]]:
    environment = os.environ | {"GRIDPOOL_FAIL_AT": fail_at}
    command = [sys.executable, "-m", "gridpool", "serve", "--home", str(home), "--listen", "127.0.0.1:0"]
    process = subprocess.Popen([*command, "--interval-ms", "20"], env=environment, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        found = re.search(r"http://\S+:\d+", line)
        assert found, line + process.stderr.read()
        yield process, found.group()
    finally:
        process.kill()
        process.wait()
        if process.stderr is not None:
            process.stderr.close()


def post(url: str, transaction: Transaction, wait_s: float = 5) -> httpx.Response:
    body = {"transaction": base64.b64encode(transaction.wire).decode()}
    return httpx.post(f"{url}/tx", json=body, params={"wait_s": wait_s}, timeout=20)


def test_a_node_serves_and_stops(home: Path) -> None:
    with node(home) as (process, url):
        assert post(url, tick(1)).json()["receipt"]["code"] == "ok"
        status = httpx.get(f"{url}/status").json()
        assert status["height"] == 1
        assert len(status["app_hash"]) == 64
        assert httpx.get(f"{url}/docs/openapi.json").json()["info"]["title"] == "gridpool node"
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    result = verify_ledger(home, RULES)
    assert result.ok
    assert result.app_hash == status["app_hash"]


@pytest.mark.parametrize(
    "place",
    [
        "store.write.filled",
        pytest.param("engine.executed", marks=pytest.mark.slow),
        pytest.param("store.write.begun", marks=pytest.mark.slow),
        pytest.param("store.write.committed", marks=pytest.mark.slow),
        pytest.param("engine.committed", marks=pytest.mark.slow),
    ],
)
def test_death_at_every_durable_step_leaves_a_whole_height(home: Path, place: str) -> None:
    with node(home, fail_at=f"{place}:3") as (process, url):
        for nonce in range(1, 9):
            try:
                post(url, tick(nonce))
            except httpx.TransportError:
                break
        assert process.wait(20) == -signal.SIGKILL
    result = verify_ledger(home, RULES)
    assert result.ok
    assert result.height == (3 if place in {"store.write.committed", "engine.committed"} else 2)
    with node(home) as (_, url):
        assert post(url, tick(nonce + 1)).json()["receipt"]["code"] == "ok"
    assert verify_ledger(home, RULES).ok


@pytest.mark.slow
def test_kill_loop_loses_nothing_that_was_acknowledged(home: Path) -> None:
    moments = random.Random(7)
    nonce, acknowledged = 0, []
    for _ in range(15):
        with node(home) as (process, url):
            end = time.monotonic() + moments.uniform(0.02, 0.6)
            while time.monotonic() < end:
                nonce += 1
                sent = tick(nonce)
                answer = post(url, sent)
                if answer.json().get("receipt"):
                    acknowledged.append(sent.id)
            process.kill()
        result = verify_ledger(home, RULES)
        assert result.ok
    with Embedded.open(home, RULES, interval_ms=None) as engine, engine.view() as view:
        assert len(acknowledged) > 15
        for tx_id in acknowledged:
            receipt = view.receipt(tx_id)
            assert receipt is not None
            assert receipt.ok


@pytest.mark.parametrize("listen", ["nowhere", "127.0.0.1:99999", "example:1", ":"])
def test_bad_addresses_are_refused(home: Path, listen: str, capsys: pytest.CaptureFixture[str]) -> None:
    from gridpool.cli import main

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as done:
        main(["serve", "--home", str(home), "--listen", listen])
    signal.signal(signal.SIGTERM, before)
    assert done.value.code == 1
    assert capsys.readouterr().err.startswith("gridpool: --listen")


def test_a_folder_without_a_node_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from gridpool.cli import main

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as done:
        main(["serve", "--home", str(tmp_path / "none")])
    signal.signal(signal.SIGTERM, before)
    assert done.value.code == 1
    assert "no node's home" in capsys.readouterr().err
