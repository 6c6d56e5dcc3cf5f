"""A consortium of four loses processes, time and state, and stays one ledger."""

import signal
import time
import urllib.request
from pathlib import Path

import lmdb
import msgspec
import pytest
from faults_consortium import Consortium, Load

from gridpool.agents.consortium import add_validator, remove_validator
from gridpool.agents.load import funded_wallets
from gridpool.agents.network_council import Council
from gridpool.contracts import RULES, coins
from gridpool.contracts.validators import FROZEN, OWNERS
from gridpool.engines.cometbft_evidence import duplicate_vote
from gridpool.engines.cometbft_files import validator_key
from gridpool.engines.cometbft_rpc import Rpc
from gridpool.engines.network import node_file_at
from gridpool.ledger.chain import Ledger
from gridpool.ledger.contract import VALIDATORS

pytestmark = [pytest.mark.engine, pytest.mark.timeout(180)]


def test_killed_engine_and_application_come_back_under_load(consortium: Consortium) -> None:
    load = Load(consortium, rate=60, seconds=8)
    time.sleep(3)
    consortium.send(1, "engine", signal.SIGKILL)
    time.sleep(2)
    consortium.send(2, "application", signal.SIGKILL)
    result = load.result()
    assert result.included > 0
    consortium.assert_sound()
    with Ledger.open(consortium.home(3) / "ledger", RULES, writable=False) as ledger, ledger.view() as view:
        found = sum(len(view.transactions(height)) for height in range(1, view.height + 1))
    assert found >= result.included, "an included transaction was lost"


@pytest.mark.slow
def test_killed_engine_and_application_together(consortium: Consortium) -> None:
    load = Load(consortium, rate=60, seconds=6)
    time.sleep(3)
    consortium.send(1, "engine", signal.SIGKILL)
    consortium.send(1, "application", signal.SIGKILL)
    load.result()
    consortium.assert_sound()


@pytest.mark.slow
def test_killed_supervisor_leaves_no_children(consortium: Consortium) -> None:
    consortium.send(3, "supervisor", signal.SIGKILL)
    end = time.monotonic() + 15
    while consortium.pids(3, "all") and time.monotonic() < end:
        time.sleep(0.1)
    assert consortium.pids(3, "all") == []
    consortium.await_blocks(3, within_s=20, nodes=3)


@pytest.mark.slow
@pytest.mark.parametrize("place", ["abci.init_chain", "abci.finalized:4", "abci.committing:4", "abci.committed:4"])
def test_crash_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    net = Consortium(tmp_path / "net", offset=3)
    monkeypatch.setenv("GRIDPOOL_FAIL_AT", place)
    try:
        net.start()
        net.assert_sound()
    finally:
        net.stop()


@pytest.mark.slow
def test_stopped_engine_catches_up(consortium: Consortium) -> None:
    consortium.send(2, "engine", signal.SIGSTOP)
    consortium.await_blocks(5, within_s=20, nodes=3)
    time.sleep(10)
    consortium.send(2, "engine", signal.SIGCONT)
    consortium.assert_sound()


def test_without_a_quorum_no_block_is_made_and_reads_are_marked_stale(consortium: Consortium) -> None:
    for number in (2, 3):
        consortium.send(number, "supervisor", signal.SIGTERM)
    time.sleep(4)
    before = consortium.heights()
    time.sleep(6)
    after = consortium.heights()
    assert before == after
    assert set(after) == {"node0", "node1"}
    node = node_file_at(consortium.home(0))
    assert node is not None
    with urllib.request.urlopen(f"http://127.0.0.1:{node.ports.http}/status", timeout=5) as answer:
        status = msgspec.json.decode(answer.read())
    assert status["stale"] is True
    with urllib.request.urlopen(f"http://127.0.0.1:{node.ports.http}/query/coins.supply/coins", timeout=5) as answer:
        assert msgspec.json.decode(answer.read())["present"] is True


def test_two_votes_of_one_key_cost_the_vote_and_freeze_the_organisation(consortium: Consortium) -> None:
    """Evidence as a second instance with the same key would leave it: two precommits of one height and round."""
    culprit = validator_key(consortium.home(3) / "cometbft")
    node = node_file_at(consortium.home(0))
    assert node is not None
    consortium.await_blocks(2, within_s=20)
    rpc = Rpc(node.ports.rpc)
    rpc.call("broadcast_evidence", evidence=duplicate_vote(rpc, consortium.home(3) / "cometbft", node.chain))
    end = time.monotonic() + 30
    power, frozen = 10, None
    while time.monotonic() < end and (power or frozen is None):
        time.sleep(0.3)
        with Ledger.open(consortium.home(0) / "ledger", RULES, writable=False) as ledger, ledger.view() as view:
            held, owner = view.state.get(VALIDATORS, culprit), view.state.get(OWNERS, culprit)
            assert held is not None
            assert owner is not None
            power, frozen = held.power, view.state.get(FROZEN, owner.organisation)
    assert power == 0
    assert frozen is not None
    consortium.await_blocks(4, within_s=20, nodes=3)
    validators = rpc.call("validators")["validators"]
    assert len(validators) == 3
    rpc.close()


def test_altered_state_halts_that_node_alone_and_names_the_key(consortium: Consortium) -> None:
    consortium.await_blocks(2, within_s=20)
    consortium.send(2, "supervisor", signal.SIGTERM)
    end = time.monotonic() + 20
    while consortium.pids(2, "all") and time.monotonic() < end:
        time.sleep(0.1)
    table = coins.SUPPLY
    key = table.encode_key("coins")
    environment = lmdb.open(str(consortium.home(2) / "ledger"), max_dbs=32)
    state = environment.open_db(b"state")
    with environment.begin(write=True) as transaction:
        value = bytearray(transaction.get(key, db=state))
        value[-1] ^= 1
        transaction.put(key, bytes(value), db=state)
    environment.close()
    consortium.restart(2)
    log = consortium.home(2) / "logs" / "application.log"
    end = time.monotonic() + 30
    while consortium.pids(2, "all") and time.monotonic() < end:
        time.sleep(0.2)
    assert consortium.pids(2, "all") == [], "the node went on with altered state"
    assert "coins.supply coins" in log.read_text()
    consortium.await_blocks(3, within_s=20, nodes=3)


def test_altered_state_under_a_running_node_halts_it_before_it_builds_on_it(consortium: Consortium) -> None:
    load = Load(consortium, rate=40, seconds=8)
    consortium.await_blocks(3, within_s=20)
    wallet = funded_wallets(consortium.folder, [])[5].public
    environment = lmdb.open(str(consortium.home(2) / "ledger"), max_dbs=32)
    state = environment.open_db(b"state")
    with environment.begin(write=True) as transaction:
        value = bytearray(transaction.get(coins.ACCOUNTS.encode_key(wallet), db=state))
        value[-1] ^= 1
        transaction.put(coins.ACCOUNTS.encode_key(wallet), bytes(value), db=state)
    environment.close()
    end = time.monotonic() + 30
    while consortium.pids(2, "all") and time.monotonic() < end:
        time.sleep(0.2)
    assert consortium.pids(2, "all") == [], "the node went on with altered state"
    log = (consortium.home(2) / "logs" / "application.log").read_text()
    assert f"coins.account {wallet.hex()}" in log
    result = load.result()
    assert result.included == result.submitted - result.refused
    consortium.await_blocks(3, within_s=20, nodes=3)


def test_validators_come_and_go_through_the_council(consortium: Consortium) -> None:
    name = add_validator(consortium.folder)
    node = node_file_at(consortium.home(0))
    assert node is not None
    rpc = Rpc(node.ports.rpc)
    consortium.await_blocks(4, within_s=30, nodes=5)
    assert len(rpc.call("validators")["validators"]) == 5
    remove_validator(consortium.folder, "node1")
    consortium.await_blocks(4, within_s=30, nodes=5)
    validators = rpc.call("validators")["validators"]
    rpc.close()
    assert len(validators) == 4
    assert name == "node4"
    consortium.assert_sound(nodes=5)
    assert Council(consortium.folder).organisation_of(validator_key(consortium.home(4) / "cometbft"))
