"""A consortium that nobody uses rests: a block every two seconds, one application hash, and proofs all the same."""

import base64
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from faults_consortium import Consortium, engines_missing

from gridpool.agents.load import load_network
from gridpool.contracts import RULES
from gridpool.engines.cometbft_rpc import Rpc
from gridpool.engines.cometbft_trust import trust_steps
from gridpool.engines.network import node_file_at, status_network, write_document
from gridpool.ledger import light
from gridpool.ledger.chain import Ledger
from gridpool.ledger.contract import CLOCK
from gridpool.ledger.execution import IDLE_CLOCK_MS
from gridpool.ledger.proof import state_proof, trust
from gridpool.ledger.types import encode
from gridpool.ledger.view import View

pytestmark = [pytest.mark.engine, pytest.mark.timeout(180)]

REST_S = 5.0
LONG_REST_S = 5


@contextmanager
def rested(consortium: Consortium) -> Iterator[tuple[Ledger, View]]:
    """Read a node's ledger at an idle block."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        with Ledger.open(consortium.home(0) / "ledger", RULES, writable=False) as ledger, ledger.view() as view:
            if view.header(view.height).header.idle:
                yield ledger, view
                return
        time.sleep(0.1)
    raise AssertionError("the consortium does not rest")


def test_consortium_rests_and_proves(consortium: Consortium) -> None:
    time.sleep(2.0)
    before, start = status_network(consortium.folder)[0], time.monotonic()
    time.sleep(REST_S)
    after, elapsed = status_network(consortium.folder)[0], time.monotonic() - start
    assert before.height is not None
    assert after.height is not None
    assert 1 <= after.height - before.height <= elapsed / 2.0 + 2
    node = node_file_at(consortium.home(0))
    assert node is not None
    with rested(consortium) as (ledger, view):
        # The clock moved once at most; its block is followed at once by the one that commits to it.
        headers = [view.header(height).header for height in range(before.height + 1, after.height + 1)]
        assert sum(not header.idle for header in headers) <= REST_S * 1_000 / IDLE_CLOCK_MS + 1
        assert view.proven_height < view.height
        proof, trusted = state_proof(view, CLOCK.encode_key("now")), trust(view)
        rest = view.header(view.height).header
        rpc = Rpc(node.ports.rpc)
        genesis = dict(ledger.genesis.validators)
        steps, later = (
            trust_steps(rpc, ledger.genesis.chain, genesis, height) for height in (view.proven_height, view.height)
        )
        rpc.close()
        assert light.check(proof | {"steps": steps}, trusted)["present"]
        # The validators did sign the hash of the idle height; its header still proves no state, this or another.
        for root in (rest.state_root, b"s" * 32):
            forged = encode(msgspec.structs.replace(rest, state_root=root))
            claim = proof | {"header": base64.b64encode(forged).decode(), "steps": later}
            with pytest.raises(light.Invalid, match="does not follow from its roots"):
                light.check(claim, trusted)
    assert load_network(consortium.folder, rate=20, seconds=2).included > 0
    consortium.assert_sound()


@pytest.mark.slow
def test_node_file_says_how_long_a_consortium_rests_and_when_it_is_out_of_touch(tmp_path: Path) -> None:
    if engines_missing():
        pytest.skip(engines_missing())
    net = Consortium(tmp_path / "net", offset=16, market_clock="ticks")
    for number in range(4):
        file = node_file_at(net.home(number))
        assert file is not None
        write_document(net.home(number) / "node.json", msgspec.structs.replace(file, idle_s=LONG_REST_S))
    try:
        net.start()
        begin = time.monotonic()
        heights = []
        while time.monotonic() - begin < 4 * LONG_REST_S:
            with urllib.request.urlopen(f"http://127.0.0.1:{file.ports.http}/status", timeout=5) as answer:
                status = msgspec.json.decode(answer.read())
            assert not status["stale"]
            heights.append(status["height"])
            time.sleep(0.5)
        assert 2 <= heights[-1] - heights[0] <= 5
    finally:
        net.stop()
