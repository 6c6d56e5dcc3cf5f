"""Which of a network's ledgers is replayed."""

import shutil
from pathlib import Path

import pytest

from gridpool.agents.consortium import Card, consortium_genesis
from gridpool.agents.network_replay import replay_network
from gridpool.contracts import RULES
from gridpool.engines.network import NetworkFile, write_document
from gridpool.errors import RefusedInput
from gridpool.ledger.archive import prune_ledger
from gridpool.ledger.chain import Ledger
from gridpool.ledger.execution import Block
from gridpool.ledger.keys import KeyPair

KEY = KeyPair(bytes(range(32))).public.hex()
GENESIS = consortium_genesis(
    "toy", [Card(organisation="one", council=KEY, validator=KEY, node=KEY, host="127.0.0.1", port=1)], time_ms=1
)


def grow(path: Path, last: int) -> None:
    """Add blocks, one in two with bytes that are no transaction."""
    with Ledger.open(path, RULES) as ledger:
        while ledger.height < last:
            height = ledger.height + 1
            ledger.commit(ledger.execute(Block(height, 1_000 * height, (b"%d" % height,) if height % 2 else ())))


def test_the_longest_whole_chain_is_replayed_though_a_pruned_one_is_longer(tmp_path: Path) -> None:
    write_document(
        tmp_path / "network.json",
        NetworkFile(engine="cometbft", chain="toy", market_clock="block", nodes=("node0", "node1")),
    )
    Ledger.create(tmp_path / "node0" / "ledger", GENESIS, RULES).close()
    grow(tmp_path / "node0" / "ledger", 4)
    shutil.copytree(tmp_path / "node0", tmp_path / "node1")
    grow(tmp_path / "node1" / "ledger", 7)
    prune_ledger(tmp_path / "node1" / "ledger", RULES, keep=1)
    replay = replay_network(tmp_path)
    assert replay.ok
    assert (replay.height, replay.transactions) == (4, 2)
    assert replay.nodes == {"node0": 4, "node1": 4}
    shutil.rmtree(tmp_path / "node0")
    with pytest.raises(RefusedInput, match="from its beginning"):
        replay_network(tmp_path)
