"""Validators that lie: two instances vote with one key, a proposer sends what no block may hold."""

import contextlib
import re
import shutil
import time
from pathlib import Path

import msgspec
import pytest
from faults_consortium import Consortium, Load, free_base_port

from gridpool.contracts import RULES
from gridpool.contracts.validators import FROZEN, OWNERS
from gridpool.engines.cometbft_files import Ports, validator_key
from gridpool.engines.cometbft_rpc import Rpc, RpcError
from gridpool.engines.network import node_file_at, spawn_node, write_document
from gridpool.ledger.chain import Ledger
from gridpool.ledger.contract import VALIDATORS

pytestmark = [pytest.mark.engine, pytest.mark.timeout(180), pytest.mark.slow]

KINDS = ("junk", "forged", "duplicate", "oversize", "reordered")


def test_two_instances_with_one_key_are_found_out_and_lose_their_vote(consortium: Consortium) -> None:
    """A copied home runs beside its original: both propose and vote, until their votes contradict each other."""
    consortium.end(3)
    original, twin = consortium.home(3), consortium.folder / "twin"
    shutil.copytree(original, twin, ignore=shutil.ignore_patterns("*.sock", "logs"))
    file = node_file_at(original)
    assert file is not None
    base = free_base_port(3, 17)
    ports = Ports(p2p=base, rpc=base + 1, http=base + 2)
    write_document(twin / "node.json", msgspec.structs.replace(file, ports=ports))
    config = twin / "cometbft" / "config" / "config.toml"
    text = config.read_text().replace(str(original), str(twin))
    for old, new in ((file.ports.p2p, ports.p2p), (file.ports.rpc, ports.rpc)):
        assert text.count(f"127.0.0.1:{old}") == 1
        text = text.replace(f"127.0.0.1:{old}", f"127.0.0.1:{new}")
    # Peers keep one connection a node: the twin takes node2's before the original is back, which has the others'.
    other = node_file_at(consortium.home(2))
    assert other is not None
    text, found = re.subn(
        rf'^persistent_peers = ".*?([0-9a-f]{{40}}@127\.0\.0\.1:{other.ports.p2p}).*?"$',
        r'persistent_peers = "\1"',
        text,
        flags=re.MULTILINE,
    )
    assert found == 1
    config.write_text(text)
    (twin / "logs").mkdir()
    spawned = spawn_node(twin)
    await_peer(ports.rpc)
    consortium.restart(3)
    # Two empty blocks of one height are the same block: twins contradict each other only where there is a choice.
    load = Load(consortium, rate=40, seconds=35)
    culprit = validator_key(original / "cometbft")
    power, frozen, at = 10, None, 0
    end = time.monotonic() + 45
    try:
        while power or frozen is None:
            assert time.monotonic() < end, "two instances with one key went unnoticed"
            time.sleep(0.3)
            with Ledger.open(consortium.home(0) / "ledger", RULES, writable=False) as ledger, ledger.view() as view:
                held, owner = view.state.get(VALIDATORS, culprit), view.state.get(OWNERS, culprit)
                assert held is not None
                assert owner is not None
                power, frozen, at = held.power, view.state.get(FROZEN, owner.organisation), view.height
    finally:
        spawned.terminate()
        spawned.wait(20)
    load.result()
    consortium.await_blocks(4, within_s=40, nodes=3)
    node = node_file_at(consortium.home(0))
    assert node is not None
    rpc = Rpc(node.ports.rpc)
    assert len(rpc.call("validators", height=str(at + 2))["validators"]) == 3
    rpc.close()
    replay = consortium.replay()
    assert replay.ok, replay.fault
    assert consortium.assert_kept() > 0


def await_peer(port: int) -> None:
    """Wait until the engine behind an RPC port has a peer."""
    end = time.monotonic() + 30
    while True:
        with contextlib.suppress(RpcError), contextlib.closing(Rpc(port)) as rpc:
            if int(rpc.call("net_info")["n_peers"]):
                return
        assert time.monotonic() < end, "the twin found no peer"
        time.sleep(0.3)


def test_false_proposals_are_refused_and_reordered_ones_stay_one_chain(
    consortium: Consortium, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = tmp_path / "proposals"
    consortium.end(3)
    with monkeypatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent / "false_proposer"))
        patch.setenv("FALSE_PROPOSALS", str(said))
        consortium.restart(3)
    consortium.await_blocks(1, within_s=40)
    proposed: list[str] = []
    results = []
    end = time.monotonic() + 60
    while {line.split()[0] for line in proposed} != set(KINDS):
        assert time.monotonic() < end, f"only {proposed} were proposed"
        results.append(Load(consortium, rate=40, seconds=8).result())
        proposed = said.read_text().split("\n")[:-1] if said.exists() else []
    assert sum(result.included for result in results) > 0
    consortium.assert_sound()
    with Ledger.open(consortium.home(0) / "ledger", RULES, writable=False) as ledger, ledger.view() as view:
        codes = {receipt.code for height in range(1, view.height + 1) for receipt in view.receipts(height)}
        largest = max(len(wire) for height in range(1, view.height + 1) for wire in view.transactions(height))
    # A nonce that comes after a later one is stale: whoever is put out of order loses, alike on every node.
    assert not codes & {"malformed", "bad_signature"}, codes
    assert largest < 100_000
    assert "rejected" in (consortium.home(0) / "logs" / "engine.log").read_text()
