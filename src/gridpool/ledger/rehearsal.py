"""A ledger in memory that seals a block a submission and checks every invariant: for tests and what-if questions."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, TypeVar

import msgspec

from gridpool.ledger.clock import AdvanceClock
from gridpool.ledger.contract import Refused
from gridpool.ledger.execution import Block, Executed, Executor, market_time
from gridpool.ledger.genesis import Genesis, apply_genesis
from gridpool.ledger.keys import KeyPair
from gridpool.ledger.rules import Rules
from gridpool.ledger.state import MemoryReader, State
from gridpool.ledger.table import Table
from gridpool.ledger.transaction import Delegated, Receipt, Transaction, sign
from gridpool.ledger.types import Call

__all__ = ["BrokenInvariant", "Rehearsal"]

K = TypeVar("K")
V = TypeVar("V")
BLOCK_MS = 1_000


class BrokenInvariant(AssertionError):
    """A contract's promise does not hold after a block."""


class Rehearsal:
    """A chain in memory. Every block is followed by all invariants, and every stored value is decoded again.

    Market time moves by ``advance`` (the rehearsal holds the clock keeper's key, so genesis should say ``ticks``).
    """

    def __init__(self, rules: Rules, genesis: Genesis, *, clock_keeper: KeyPair | None = None) -> None:
        self.rules = rules
        self.genesis = genesis
        self.height = 0
        self.reader = MemoryReader()
        self.receipts: dict[bytes, Receipt] = {}
        self._executor = Executor(rules, genesis)
        self._keeper = clock_keeper
        self._nonces: dict[bytes, int] = {}
        self.reader.apply(apply_genesis(rules, genesis, self.reader).encoded())
        self._inspect()

    @property
    def state(self) -> State:
        """The committed state."""
        return State(self.reader)

    @property
    def now(self) -> int:
        """Market time in milliseconds."""
        return market_time(self.state)

    def get(self, table: Table[K, V], key: K) -> V | None:
        """Return a committed value."""
        return self.state.get(table, key)

    def scan(self, table: Table[K, V], prefix: tuple[Any, ...] = ()) -> Iterator[tuple[K, V]]:
        """Yield committed pairs of a table."""
        return self.state.scan(table, prefix)

    def sign(
        self,
        key: KeyPair,
        *calls: Call | Delegated[Any],
        mode: Literal["atomic", "each"] = "atomic",
        last_valid_height: int = 2**62,
    ) -> Transaction:
        """Sign calls with the wallet's next nonce."""
        nonce = self._nonces[key.public] = self._nonces.get(key.public, 0) + 1
        return sign(key, self.genesis.chain, nonce, last_valid_height, calls, mode=mode)

    def submit(
        self, key: KeyPair, *calls: Call | Delegated[Any], mode: Literal["atomic", "each"] = "atomic"
    ) -> Receipt:
        """Sign calls, seal a block with them alone and return the receipt, refused or not."""
        return self.seal([self.sign(key, *calls, mode=mode)])[0]

    def expect(self, key: KeyPair, *calls: Call) -> Receipt:
        """Submit calls that must succeed; raises Refused with the receipt's code where they do not."""
        receipt = self.submit(key, *calls)
        if not receipt.ok:
            raise Refused(receipt.code, receipt.info)
        return receipt

    def seal(self, transactions: Sequence[Transaction]) -> tuple[Receipt, ...]:
        """Seal one block; returns its receipts (that of due work, if any, comes last)."""
        return self.carry_out([transaction.wire for transaction in transactions]).receipts

    def carry_out(self, wires: Iterable[bytes], *, misbehaving: tuple[bytes, ...] = ()) -> Executed:
        """Seal one block of raw transaction bytes, as a hostile proposer might send them.

        ``misbehaving`` are the validators whose misbehaviour the engine would prove with the block.
        """
        time_ms = self.genesis.time_ms + (self.height + 1) * BLOCK_MS
        executed = self._executor.execute(self.reader, Block(self.height + 1, time_ms, tuple(wires), misbehaving))
        self.reader.apply(executed.changes)
        self.height += 1
        self.receipts.update((receipt.tx, receipt) for receipt in executed.receipts)
        self._inspect()
        return executed

    def advance(self, to: int) -> tuple[Receipt, ...]:
        """Move market time to ``to`` (ms), in steps that genesis allows; returns the last block's receipts."""
        if self._keeper is None:
            raise ValueError("a rehearsal without clock_keeper cannot advance market time")
        receipts: tuple[Receipt, ...] = ()
        while self.now < to:
            step = min(to, self.now + self.genesis.max_step_ms)
            receipts = self.seal([self.sign(self._keeper, AdvanceClock(step))])
            if not receipts[0].ok:
                raise Refused(receipts[0].code, receipts[0].info)
        return receipts

    def _inspect(self) -> None:
        tables = {table.namespace: table for table in self.rules.tables.values()}
        for key, value in self.reader.items():
            table = tables[key[: key.index(b"\0") + 1]]
            if msgspec.msgpack.encode(table.decode_value(value)) != value:
                raise BrokenInvariant(f"{table.name} holds a value that does not survive its codec")
        broken = self.rules.broken_invariants(self.state)
        if broken:
            raise BrokenInvariant(f"at height {self.height}: {', '.join(broken)}")
