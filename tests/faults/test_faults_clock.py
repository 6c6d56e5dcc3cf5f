"""One validator's clock is five minutes off: block time is the median's, and a node that cannot follow says why."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from faults_consortium import Consortium, Load, engines_missing, other_build

from gridpool.engines.cometbft_files import validator_address, validator_key
from gridpool.engines.cometbft_rpc import Rpc
from gridpool.engines.network import node_file_at

pytestmark = [pytest.mark.engine, pytest.mark.timeout(180), pytest.mark.slow]

OFF_S = 300


@pytest.fixture
def ticking(tmp_path: Path) -> Iterator[Consortium]:
    """Four validators whose engine's genesis lies in the past: a node whose clock is before genesis waits for it."""
    if engines_missing():
        pytest.skip(engines_missing())
    net = Consortium(tmp_path / "net", offset=14, market_clock="ticks")
    try:
        net.start()
        yield net
    finally:
        net.stop()


def moment_of(text: str) -> float:
    return datetime.fromisoformat(text[:19]).replace(tzinfo=UTC).timestamp()


def restart_with_clock(net: Consortium, number: int, off_s: int, monkeypatch: pytest.MonkeyPatch) -> None:
    net.end(number)
    with monkeypatch.context() as patch:
        patch.setenv("GRIDPOOL_COMETBFT", other_build("cometbft-skewed"))
        patch.setenv("COMETBFT_CLOCK_OFFSET", str(off_s))
        net.restart(number)


def test_clock_five_minutes_fast_votes_on_and_moves_no_block(
    consortium: Consortium, monkeypatch: pytest.MonkeyPatch
) -> None:
    restart_with_clock(consortium, 3, OFF_S, monkeypatch)
    consortium.await_blocks(2, within_s=40)
    load = Load(consortium, rate=30, seconds=6)
    consortium.await_blocks(8, within_s=40)
    node = node_file_at(consortium.home(0))
    assert node is not None
    rpc = Rpc(node.ports.rpc)
    address = validator_address(validator_key(consortium.home(3) / "cometbft")).hex().upper()
    top = int(rpc.call("status")["sync_info"]["latest_block_height"])
    ahead, proposed = [], 0
    for height in range(top - 8, top):
        signed = rpc.call("commit", height=str(height))["signed_header"]
        moment = moment_of(signed["header"]["time"])
        assert abs(time.time() - moment) < 60, "the false clock moved block time"
        proposed += signed["header"]["proposer_address"] == address
        votes = {entry["validator_address"]: entry["timestamp"] for entry in signed["commit"]["signatures"]}
        if address in votes:
            ahead.append(moment_of(votes[address]) - moment)
    rpc.close()
    assert ahead, "the validator with the false clock never voted"
    assert min(ahead) > OFF_S - 10, "its clock was not false"
    assert proposed, "its proposals were refused"
    assert load.result().included > 0
    consortium.assert_sound()


def test_clock_five_minutes_slow_stops_that_node_alone_which_says_so_and_comes_back(
    ticking: Consortium, monkeypatch: pytest.MonkeyPatch
) -> None:
    consortium = ticking
    restart_with_clock(consortium, 3, -OFF_S, monkeypatch)
    load = Load(consortium, rate=30, seconds=6)
    log = consortium.home(3) / "logs" / "node.log"
    end = time.monotonic() + 70
    while "too far in the future" not in log.read_text():
        assert time.monotonic() < end, "nobody said that the clock is wrong"
        time.sleep(0.2)
    consortium.await_blocks(5, within_s=30, nodes=3)
    assert load.result().included > 0
    if consortium.pids(3, "supervisor"):
        consortium.end(3)
    consortium.restart(3)
    consortium.assert_sound()
