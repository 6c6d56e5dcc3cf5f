"""Engines and rules are replaced while the consortium runs: patch versions side by side, rules at an agreed height."""

import time
from pathlib import Path

import pytest
from faults_consortium import Consortium, Load, other_build

from gridpool.agents.network_council import Council
from gridpool.contracts import RULES
from gridpool.contracts.members_council import SetRules
from gridpool.engines.cometbft_rpc import Rpc
from gridpool.engines.network import node_file_at
from gridpool.ledger.chain import Ledger
from gridpool.ledger.rules import Rules

pytestmark = [pytest.mark.engine, pytest.mark.timeout(180), pytest.mark.slow]

RULES_TWO = Path(__file__).parent / "rules_two"
KNOWN = {1: RULES, 2: Rules(RULES.contracts[1:], version=2)}


def version_of(net: Consortium, number: int) -> str:
    node = node_file_at(net.home(number))
    assert node is not None
    rpc = Rpc(node.ports.rpc, timeout_s=2.0)
    try:
        return str(rpc.call("status")["node_info"]["version"])
    finally:
        rpc.close()


def test_engines_are_upgraded_one_after_the_other_under_load(
    consortium: Consortium, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = version_of(consortium, 0)
    monkeypatch.setenv("GRIDPOOL_COMETBFT", other_build("cometbft-next"))
    load = Load(consortium, rate=30, seconds=25)
    time.sleep(2)
    for number in range(4):
        consortium.end(number)
        consortium.await_blocks(1, within_s=20, nodes=3)
        consortium.restart(number)
        consortium.await_voting(number, within_s=30)
    after = [version_of(consortium, number) for number in range(4)]
    assert len(set(after)) == 1
    assert before != after[0]
    assert before.rpartition(".")[0] == after[0].rpartition(".")[0], "not a patch version"
    result = load.result()
    assert result.included > 0.9 * result.submitted
    consortium.assert_sound()


def test_node_without_the_new_rules_stops_at_their_height_and_goes_on_with_them(
    consortium: Consortium, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Node 0 to 2 get the software that knows version 2; node 3 is forgotten.
    monkeypatch.setenv("PYTHONPATH", str(RULES_TWO))
    for number in range(3):
        consortium.end(number)
        consortium.restart(number)
        consortium.await_voting(number, within_s=30)
    height = max(consortium.heights().values()) + 30
    Council(consortium.folder).decide(SetRules(2, height))
    assert max(consortium.heights().values()) < height, "the rules changed before the council had decided"
    consortium.await_height(height + 3, within_s=40, nodes=3)
    end = time.monotonic() + 20
    while consortium.pids(3, "all"):
        assert time.monotonic() < end, "a node without the rules goes on"
        time.sleep(0.2)
    logs = consortium.home(3) / "logs"
    said = "follows rules version 2, this node knows 1; upgrade gridpool"
    assert f"height {height} {said}" in (logs / "application.log").read_text()
    assert "application halted" in (logs / "node.log").read_text()
    with Ledger.open(consortium.home(3) / "ledger", KNOWN, writable=False) as ledger:
        assert ledger.height == height - 1
    consortium.restart(3)
    consortium.await_blocks(3, within_s=40)
    consortium.stop()
    chains = []
    for number in range(4):
        with Ledger.open(consortium.home(number) / "ledger", KNOWN, writable=False) as ledger, ledger.view() as view:
            headers = [view.header(at).header for at in (height - 1, height, height + 1)]
            assert [header.rules_version for header in headers] == [1, 2, 2]
            chains.append([header.app_hash for header in headers])
    assert len({tuple(chain) for chain in chains}) == 1
