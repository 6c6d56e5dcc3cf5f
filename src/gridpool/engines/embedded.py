"""The embedded engine: one process orders, executes and signs.

Live, a thread seals a block every ``interval_ms`` or as soon as ``max_transactions`` wait. By hand (``interval_ms`` =
None) nothing happens until the caller says ``seal(time_ms)``, so that a simulated day is the same on every machine.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO

from gridpool.engines import home as homes
from gridpool.engines.engine import MAX_TRANSACTIONS, Accepted, Refusal, Sealed
from gridpool.engines.feed import BlockFeed, RecentBlocks
from gridpool.errors import RefusedInput
from gridpool.ledger import failpoints
from gridpool.ledger.block import SignedHeader
from gridpool.ledger.chain import Ledger
from gridpool.ledger.contract import DUE, Refused
from gridpool.ledger.execution import Block
from gridpool.ledger.genesis import Genesis
from gridpool.ledger.keys import KeyPair
from gridpool.ledger.transaction import Malformed, Receipt, Transaction, transaction_id
from gridpool.ledger.view import KnownRules, View

__all__ = ["Embedded"]

INTERVAL_MS = 200
MAX_BLOCK_BYTES = 4 << 20
MAX_WAITING = 20_000
MAX_WAITING_BYTES = 64 << 20


class Embedded:
    """An engine in this process. Open it with ``Embedded.create`` or ``Embedded.open``; close it when done."""

    name = "embedded"

    def __init__(
        self,
        ledger: Ledger,
        *,
        interval_ms: int | None = INTERVAL_MS,
        max_transactions: int = MAX_TRANSACTIONS,
        max_waiting: int = MAX_WAITING,
        clock: Callable[[], float] = time.time,
        lock: IO[bytes] | None = None,
    ) -> None:
        """Drive ``ledger``; ``interval_ms`` = None leaves sealing to the caller. ``lock`` is closed with the engine."""
        self.ledger = ledger
        self._lock = lock
        self._interval_s = None if interval_ms is None else interval_ms / 1000
        self._max_transactions = max_transactions
        self._max_waiting = max_waiting
        self._clock = clock
        self._queue: deque[Transaction] = deque()
        self._queued: set[bytes] = set()
        self._nonces: dict[bytes, int] = {}
        self._bytes = 0
        self._news = threading.Condition()
        self._sealing = threading.Lock()
        self._recent = RecentBlocks()
        self._newest = ledger.height
        self._stop = False
        self._failure: BaseException | None = None
        self._thread: threading.Thread | None = None
        if interval_ms is not None:
            self._thread = threading.Thread(target=self._run, name="gridpool-embedded", daemon=True)
            self._thread.start()

    @classmethod
    def create(
        cls,
        home: Path,
        genesis: Genesis,
        known: KnownRules,
        *,
        key: KeyPair | None = None,
        interval_ms: int | None = INTERVAL_MS,
        max_transactions: int = MAX_TRANSACTIONS,
        max_waiting: int = MAX_WAITING,
    ) -> "Embedded":
        """Lay a new home (genesis, node key, ledger) and open it.

        ``key`` is the node key; give it where the same folder must come out the same again. A home whose making was
        interrupted before its ledger was whole is made anew.
        """
        home.mkdir(parents=True, exist_ok=True)
        lock = homes.locked(home)
        try:
            signer = homes.found(home, genesis, key=key)
            ledger = Ledger.create(home / "ledger", genesis, known, signer=signer)
        except BaseException:
            lock.close()
            raise
        return cls(
            ledger, interval_ms=interval_ms, max_transactions=max_transactions, max_waiting=max_waiting, lock=lock
        )

    @classmethod
    def open(
        cls,
        home: Path,
        known: KnownRules,
        *,
        interval_ms: int | None = INTERVAL_MS,
        max_transactions: int = MAX_TRANSACTIONS,
        max_waiting: int = MAX_WAITING,
    ) -> "Embedded":
        """Open the ledger of a home at the height it has."""
        homes.genesis_at(home)
        lock = homes.locked(home)
        try:
            ledger = Ledger.open(home / "ledger", known, signer=homes.node_key_at(home))
        except BaseException:
            lock.close()
            raise
        return cls(
            ledger, interval_ms=interval_ms, max_transactions=max_transactions, max_waiting=max_waiting, lock=lock
        )

    def __enter__(self) -> "Embedded":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def height(self) -> int:
        """Height of the last durable block."""
        return self.ledger.height

    @property
    def app_hash(self) -> bytes:
        """Application hash of that height."""
        return self.ledger.app_hash

    @property
    def waiting(self) -> int:
        """Number of transactions that wait for a block."""
        return len(self._queue)

    @property
    def failure(self) -> str | None:
        """Why the node has stopped ordering, None while it works."""
        return None if self._failure is None else str(self._failure)

    @property
    def stale(self) -> bool:
        """Never: this process orders for itself."""
        return False

    @property
    def closed(self) -> bool:
        """Whether the engine was closed."""
        return self._stop

    def backup(self, folder: Path) -> dict[str, object]:
        """Copy the live ledger into a new folder under ``folder``; returns its ``path``, ``height``, ``app_hash``."""
        return self.ledger.backup(folder)

    def view(self) -> AbstractContextManager[View]:
        """Read the ledger at its present height."""
        return self.ledger.view()

    def submit(self, wire: bytes) -> Accepted | Refusal:
        """Check a transaction and queue it; the same one twice is accepted once."""
        if self._failure is not None:
            return Refusal("stopped", f"the node has stopped: {self._failure}")
        if len(self._queue) >= self._max_waiting or self._bytes >= MAX_WAITING_BYTES:
            return Refusal("overloaded", f"{len(self._queue)} transactions wait; come again later")
        try:
            transaction = self.ledger.check(wire)
        except Malformed as error:
            return Refusal("malformed", str(error))
        except Refused as refusal:
            known = transaction_id(wire[64:])
            with self.view() as view:
                if refusal.code == "stale_nonce" and view.find(known) is not None:
                    return Accepted(known)  # sent again because the first answer was lost; ``wait`` has its receipt
            return Refusal(refusal.code, refusal.info)
        with self._news:
            if transaction.id in self._queued:
                return Accepted(transaction.id)
            pending = self._nonces.get(transaction.body.sender, 0)
            if transaction.body.nonce <= pending:
                return Refusal("stale_nonce", f"the last nonce that waits for a block is {pending}")
            self._nonces[transaction.body.sender] = transaction.body.nonce
            self._queue.append(transaction)
            self._queued.add(transaction.id)
            self._bytes += len(wire)
            if len(self._queue) >= self._max_transactions:
                self._news.notify_all()
        return Accepted(transaction.id)

    def seal(self, time_ms: int) -> Sealed:
        """Seal one block of what waits (all of it, up to the limits of a block), at the given block time.

        The block may be empty. Block time never runs backwards: an earlier ``time_ms`` is refused.
        """
        with self._sealing:
            head = self.ledger.head.header
            if time_ms < head.time_ms:
                raise RefusedInput(f"block time {time_ms} lies before that of height {head.height} ({head.time_ms})")
            batch = self._take()
            return self._carry_out(Block(head.height + 1, time_ms, tuple(tx.wire for tx in batch)), batch)

    def waiting_batch(self, most_bytes: int) -> tuple[bytes, ...]:
        """Return what waits, in order, up to the limits of a block; it goes on waiting."""
        batch: list[bytes] = []
        with self._news:
            for transaction in self._queue:
                most_bytes -= len(transaction.wire)
                if len(batch) == self._max_transactions or (batch and most_bytes < 0):
                    break
                batch.append(transaction.wire)
        return tuple(batch)

    def carry_out(self, block: Block) -> Sealed:
        """Carry out a block that was decided elsewhere; what waits here and stands in it waits no more."""
        with self._sealing:
            held = {transaction_id(wire[64:]) for wire in block.transactions}
            batch = []
            with self._news:
                kept = [tx for tx in self._queue if tx.id not in held]
                if len(kept) < len(self._queue):
                    batch = [tx for tx in self._queue if tx.id in held]
                    self._queue = deque(kept)
                    self._bytes -= sum(len(tx.wire) for tx in batch)
            sealed = self._carry_out(block, batch)
            self._drop_stale(block)
            return sealed

    def _drop_stale(self, block: Block) -> None:
        """Forget waiting transactions that senders of a block have outdated, so that they do not wait for ever."""
        senders = set()
        for wire in block.transactions if self._queue else ():
            with suppress(Malformed):
                senders.add(self.ledger.decode(wire).body.sender)
        with self._news:
            waiting = [transaction for transaction in self._queue if transaction.body.sender in senders]
        for transaction in waiting:
            try:
                self.ledger.check(transaction.wire)
            except (Malformed, Refused):
                with self._news:
                    if transaction in self._queue:
                        self._queue.remove(transaction)
                        self._bytes -= len(transaction.wire)
                        self._forget(transaction)

    def _carry_out(self, block: Block, batch: list[Transaction]) -> Sealed:
        pending = self.ledger.execute(block)
        failpoints.reach("engine.executed")
        signed = self.ledger.commit(pending)
        failpoints.reach("engine.committed")
        sealed = _sealed(signed, pending.executed.receipts, tuple(pending.executed.changes))
        with self._news:
            for transaction in batch:
                self._forget(transaction)
            self._recent.add(sealed)
            self._newest = sealed.height
            self._news.notify_all()
        return sealed

    def _forget(self, transaction: Transaction) -> None:
        self._queued.discard(transaction.id)
        if self._nonces.get(transaction.body.sender) == transaction.body.nonce:
            del self._nonces[transaction.body.sender]

    def wait(self, tx_id: bytes, *, timeout_s: float = 30.0) -> Receipt | None:
        """Return the receipt once its block is durable, or None where it is not in time."""
        end = time.monotonic() + timeout_s
        while True:
            with self._news:
                height = self.height
            with self.view() as view:
                receipt = view.receipt(tx_id)
            if receipt is not None:
                return receipt
            with self._news:
                left = end - time.monotonic()
                if left <= 0 or self._stop:
                    return None
                if self.height == height:
                    self._news.wait(left)

    def subscribe(self, *, after: int | None = None) -> BlockFeed:
        """Follow the blocks above height ``after`` (by default: those to come), none left out."""
        return BlockFeed(self, self.height if after is None else after)

    def close(self) -> None:
        """Seal what waits (live mode), stop, and close the ledger."""
        with self._news:
            self._stop = True
            self._news.notify_all()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.ledger.close()
        if self._lock is not None:
            self._lock.close()

    def next_block(self, after: int, timeout_s: float) -> Sealed | None:
        """Return the block of height ``after + 1``, waiting for it up to ``timeout_s``."""
        with self._news:
            # A block is in the ledger a moment before it is at hand, and from the store it comes without its changes.
            self._news.wait_for(lambda: self._newest > after or self._stop, timeout_s)
            if self._newest <= after or (self._stop and self._thread is None):
                return None
            found = self._recent.find(after + 1)
            if found is not None:
                return found
        with self.view() as view:
            return _sealed(view.header(after + 1), view.receipts(after + 1))

    def _take(self) -> list[Transaction]:
        batch: list[Transaction] = []
        size = 0
        with self._news:
            while self._queue and len(batch) < self._max_transactions:
                size += len(self._queue[0].wire)
                if batch and size > MAX_BLOCK_BYTES:
                    break
                transaction = self._queue.popleft()
                self._bytes -= len(transaction.wire)
                batch.append(transaction)
        return batch

    def work_is_due(self, now: int) -> bool:
        """Tell whether an empty block would carry out deferred work, where blocks move market time."""
        if self.ledger.genesis.market_clock != "block":
            return False
        with self.view() as view:
            return any(at <= now for (at, _, _), _ in view.state.scan(DUE, limit=1))

    def _run(self) -> None:
        interval = self._interval_s or 0.0
        due = time.monotonic() + interval
        while True:
            with self._news:
                self._news.wait_for(
                    lambda: self._stop or len(self._queue) >= self._max_transactions, max(0.0, due - time.monotonic())
                )
                if self._stop and not self._queue:
                    return
                idle = not self._queue
            due = time.monotonic() + interval
            try:
                now = max(int(self._clock() * 1000), self.ledger.head.header.time_ms)
                if not idle or self.work_is_due(now):
                    self.seal(now)
            except BaseException as error:
                with self._news:
                    self._failure, self._stop = error, True
                    self._news.notify_all()
                raise


def _sealed(signed: SignedHeader, receipts: tuple[Receipt, ...], changed: tuple[bytes, ...] | None = None) -> Sealed:
    header = signed.header
    return Sealed(header.height, header.time_ms, header.app_hash, receipts, changed)
