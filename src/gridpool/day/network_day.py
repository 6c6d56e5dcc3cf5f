"""The same day against a running consortium: its validators order the transactions, its first node's ledger is read.

A block's transactions travel as one bundle of calls that each member has signed, carried by the aggregator; the tick
of market time is its first call. The ledger that comes out is the consortium's own: ``gridpool network replay`` shows
that the embedded core makes the same state of the same transactions.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from gridpool.agents.network_council import council_of
from gridpool.contracts import RULES
from gridpool.contracts.members import MEMBERS
from gridpool.day.cast import Consortium
from gridpool.day.opening import Signed
from gridpool.engines.cometbft_rpc import Rpc
from gridpool.engines.network import node_file_at, read_network
from gridpool.errors import GridpoolError, RefusedInput
from gridpool.ledger.chain import Ledger
from gridpool.ledger.clock import AdvanceClock
from gridpool.ledger.keys import KeyPair, load_key
from gridpool.ledger.transaction import MAX_CALLS, Receipt, Transaction, delegate, sign
from gridpool.ledger.view import View

__all__ = ["ConsortiumLedger", "consortium_of", "finality_text"]

NONCES_A_BLOCK = 1_000_000
NEVER_EXPIRES = 2**62
PATIENCE_S = 60.0
POLL_S = 0.005


class ConsortiumLedger:
    """A running consortium as the day's ledger: hands transactions in and reads the first node's store."""

    def __init__(self, folder: Path, carrier: KeyPair) -> None:
        """``carrier`` signs the bundles. Raises RefusedInput for a network that is stopped or keeps another clock."""
        network = read_network(folder)
        if network.market_clock != "ticks" or network.engine != "cometbft":
            raise RefusedInput(f"{folder} cannot play a day: lay it with --engine cometbft --market-clock ticks")
        self.home = folder / network.nodes[0]
        node = node_file_at(self.home)
        if node is None or not (self.home / "ledger").is_dir():
            raise RefusedInput(f"{folder} does not run yet; start it: gridpool network start {folder}")
        self._carrier = carrier
        self._chain = network.chain
        self._rpc = Rpc(node.ports.rpc)
        self._ledger = Ledger.open(self.home / "ledger", RULES, writable=False)
        with self.view() as view:
            if view.state.get(MEMBERS, carrier.public) is not None:
                raise RefusedInput(f"{folder} has played this day already; take a fresh network")
        self.finality_s: list[float] = []
        """Seconds from handing a transaction in to its receipt."""

    def __enter__(self) -> "ConsortiumLedger":
        return self

    def __exit__(self, *_: object) -> None:
        self._rpc.close()
        self._ledger.close()

    @contextmanager
    def view(self) -> Iterator[View]:
        """Read the first node's ledger as it stands."""
        with self._ledger.view() as view:
            yield view

    def carry_out(self, number: int, signed: Sequence[Signed]) -> None:
        """Have a step's transactions carried out in order; raises GridpoolError where the consortium does not."""
        first = number * NONCES_A_BLOCK
        calls = [(key, call) for key, together in signed for call in together]
        carried = [
            delegate(key, self._chain, first + position, NEVER_EXPIRES, call)
            for position, (key, call) in enumerate(calls, 1)
        ]
        for at in range(0, len(carried), MAX_CALLS):
            bundle = carried[at : at + MAX_CALLS]
            receipt = self._await(sign(self._carrier, self._chain, first + 1 + at, NEVER_EXPIRES, bundle, mode="each"))
            # Members may be refused, as on the embedded engine; without the clock the rest would mean another time.
            for (_, call), result in zip(calls[at : at + MAX_CALLS], receipt.results, strict=True):
                if isinstance(call, AdvanceClock) and result.code != "ok":
                    raise GridpoolError(
                        f"the consortium's clock does not move: {result.code} {result.info}; has it played a day "
                        "already? Take a fresh network"
                    )

    def _await(self, transaction: Transaction) -> Receipt:
        begin = time.monotonic()
        answer = self._rpc.broadcast([transaction.wire])[0]
        if answer.code:
            raise GridpoolError(f"the consortium refuses a transaction of the day: {answer.codespace} {answer.log}")
        while time.monotonic() - begin < PATIENCE_S:
            with self._ledger.view() as view:
                receipt = view.receipt(transaction.id)
            if receipt is not None:
                self.finality_s.append(time.monotonic() - begin)
                if not receipt.ok:
                    raise GridpoolError(f"a transaction of the day failed: {receipt.code} {receipt.info}")
                return receipt
            time.sleep(POLL_S)
        raise GridpoolError(f"no receipt within {PATIENCE_S:g} s: has the consortium lost a third of its votes?")


def consortium_of(folder: Path) -> Consortium:
    """Return the council and clock keys of a network whose homes lie on this machine."""
    keys, threshold = council_of(folder)
    return Consortium(tuple(keys), threshold, load_key(folder / read_network(folder).nodes[0] / "clock.key"))


def finality_text(finality_s: Sequence[float]) -> str:
    """Say how long transactions took from submission to receipt."""
    p50, p99 = np.percentile(finality_s, [50, 99])
    return f"measured from submission to receipt over {len(finality_s)} transactions: p50 {p50:.2f} s, p99 {p99:.2f} s"
