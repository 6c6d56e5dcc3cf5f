"""The etcd engine for a private domain: it tolerates crashed members, not lying ones.

The chain is one etcd key a height, written only if it is absent: that write is the decision, so two members that
sequence at once do no harm. Every member carries the blocks out by reading key after key; it never trusts a lock, a
lease or a watch. A member puts what waits with it into the next free height; where another was first, it carries
that block out and tries again. ``etcd_chain`` says what the keys are and when they go.
"""

import shutil
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import msgspec

from gridpool.engines.embedded import Embedded
from gridpool.engines.engine import Accepted, Refusal, Sealed
from gridpool.engines.etcd_chain import EtcdChain
from gridpool.engines.etcd_client import EtcdClient, EtcdUnavailable
from gridpool.engines.feed import BlockFeed
from gridpool.errors import MissingComponent, RefusedInput
from gridpool.ledger.chain import Ledger
from gridpool.ledger.execution import Block
from gridpool.ledger.genesis import Genesis
from gridpool.ledger.transaction import Receipt
from gridpool.ledger.types import Value, decode, encode
from gridpool.ledger.view import KnownRules, View

__all__ = ["Etcd", "find_etcd"]

INTERVAL_MS = 200
POLL_S = 0.02
RETRY_S = 0.2
BLOCK_BYTES = 1 << 20
"""etcd refuses requests of more than 1.5 MiB, and the gateway's base64 costs a third."""


class DecidedBlock(Value):
    """What a key holds."""

    height: int
    time_ms: int
    transactions: tuple[bytes, ...]


def find_etcd() -> Path:
    """Return the etcd binary; raises MissingComponent saying how to get it."""
    found = shutil.which("etcd")
    if found is None:
        raise MissingComponent(
            "etcd is not on this machine; run scripts/install-engines, or apt-get install etcd-server"
        )
    return Path(found)


class Etcd:
    """One member: its ledger, its queue, and the thread that follows and extends the chain. Close it when done."""

    name = "etcd"

    def __init__(
        self,
        home: Path,
        genesis: Genesis,
        known: KnownRules,
        *,
        name: str,
        endpoints: tuple[str, ...],
        interval_ms: int = INTERVAL_MS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Open or make the ledger in ``home/ledger`` and follow the chain at the etcd members ``endpoints``.

        ``name`` is what etcd calls this member.
        """
        path = home / "ledger"
        ledger = Ledger.open(path, known) if path.exists() else Ledger.create(path, genesis, known)
        self._node = Embedded(ledger, interval_ms=None)
        self._client = EtcdClient(endpoints)
        self._chain = EtcdChain(self._client, genesis.chain, name)
        self._interval_s = interval_ms / 1000
        self._clock = clock
        self._stop = threading.Event()
        self._fault: BaseException | None = None
        self._cut_off: str | None = None
        self._thread = threading.Thread(target=self._run, name="gridpool-etcd", daemon=True)
        self._thread.start()

    @property
    def ledger(self) -> Ledger:
        """The ledger."""
        return self._node.ledger

    @property
    def height(self) -> int:
        """Height of the last durable block."""
        return self._node.height

    @property
    def app_hash(self) -> bytes:
        """Application hash of that height."""
        return self._node.app_hash

    @property
    def waiting(self) -> int:
        """Number of transactions that wait for a block."""
        return self._node.waiting

    @property
    def fault(self) -> BaseException | None:
        """The error that stopped the member."""
        return self._fault

    @property
    def failure(self) -> str | None:
        """Why the member has stopped, None while it works (a cluster that does not answer is waited for)."""
        return None if self._fault is None else str(self._fault)

    @property
    def stale(self) -> bool:
        """Whether the cluster does not answer, so that what is read here may be out of date."""
        return self._cut_off is not None

    @property
    def closed(self) -> bool:
        """Whether the engine was closed or has stopped."""
        return self._stop.is_set()

    def view(self) -> AbstractContextManager[View]:
        """Read the ledger at its present height."""
        return self._node.view()

    def submit(self, wire: bytes) -> Accepted | Refusal:
        """Check a transaction and queue it with this member."""
        if self._fault is not None:
            return Refusal("stopped", f"the node has stopped: {self._fault}")
        return self._node.submit(wire)

    def wait(self, tx_id: bytes, *, timeout_s: float = 30.0) -> Receipt | None:
        """Return the receipt once its block is durable, or None where it is not in time."""
        return self._node.wait(tx_id, timeout_s=timeout_s)

    def subscribe(self, *, after: int | None = None) -> BlockFeed:
        """Follow the blocks above height ``after`` (by default: those to come), none left out."""
        return self._node.subscribe(after=after)

    def next_block(self, after: int, timeout_s: float) -> Sealed | None:
        """Return the block of height ``after + 1``, waiting for it up to ``timeout_s``."""
        return self._node.next_block(after, timeout_s)

    def stopped(self, timeout_s: float | None = None) -> bool:
        """Wait until the member has stopped."""
        return self._stop.wait(timeout_s)

    def backup(self, folder: Path) -> dict[str, object]:
        """Copy the live ledger into a new folder under ``folder``; returns its ``path``, ``height``, ``app_hash``."""
        return self._node.backup(folder)

    def close(self) -> None:
        """Stop following and close the ledger; what waits is lost to this member, as after a crash."""
        self._stop.set()
        self._thread.join()
        self._client.close()
        self._node.close()

    def _run(self) -> None:
        tried = 0.0
        begun = False
        try:
            while not self._stop.is_set():
                try:
                    if not begun:
                        self._chain.begin(self.height)
                        begun = True
                    came = self._follow()
                    self._cut_off = None
                    if came:
                        continue
                    due = tried + self._interval_s - time.monotonic()
                    if due <= 0 and (self._node.waiting or self._node.work_is_due(self._now())):
                        tried = time.monotonic()
                        self._extend()
                        continue
                    self._chain.rest(self.height)
                except EtcdUnavailable as error:
                    self._cut_off = str(error)
                    self._stop.wait(RETRY_S)
                self._stop.wait(POLL_S)
        except BaseException as error:
            self._fault = error
            self._stop.set()
            raise

    def _follow(self) -> bool:
        """Carry the next block out if it was decided; tells whether there was one."""
        height = self.height + 1
        data = self._chain.block(height)
        if data is None:
            return False
        try:
            decided = decode(data, DecidedBlock)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise RefusedInput(f"the block of height {height} in etcd cannot be read: {error}") from None
        head = self.ledger.head.header
        if decided.height != height or decided.time_ms < head.time_ms:
            raise RefusedInput(f"the block of height {height} in etcd does not follow this ledger")
        self._node.carry_out(Block(height, decided.time_ms, decided.transactions))
        self._chain.carried_out(height)
        return True

    def _extend(self) -> None:
        """Offer what waits here as the next block; whoever writes the key first decides it."""
        height = self.height + 1
        block = DecidedBlock(height, self._now(), self._node.waiting_batch(BLOCK_BYTES))
        self._chain.offer(height, encode(block))

    def _now(self) -> int:
        return max(int(self._clock() * 1000), self.ledger.head.header.time_ms)
