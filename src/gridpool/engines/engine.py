"""What every engine offers, whoever orders the transactions behind it."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import msgspec

from gridpool.ledger.transaction import Receipt
from gridpool.ledger.view import View

__all__ = ["MAX_TRANSACTIONS", "Accepted", "Engine", "Refusal", "Sealed", "Subscription"]

MAX_TRANSACTIONS = 2_000
"""Most transactions that a node puts into a block. A backlog in one block would take long at every node, outlast a
proposal's time, and leave each process with the memory that it took."""


class Accepted(msgspec.Struct, frozen=True):
    """A transaction waits for its block; ``tx_id`` is what ``wait`` takes."""

    tx_id: bytes


class Refusal(msgspec.Struct, frozen=True):
    """A transaction that no block will hold: the code a receipt would have, and why.

    ``overloaded`` is the one code that says to come again later.
    """

    code: str
    info: str


class Sealed(msgspec.Struct, frozen=True):
    """A block that has become durable, as subscribers see it."""

    height: int
    time_ms: int
    app_hash: bytes
    receipts: tuple[Receipt, ...]
    changed: tuple[bytes, ...] | None = None
    """The full keys that the block changed; None where the block is no longer at hand and comes from the store."""


class Subscription(Protocol):
    """Blocks as they become durable; leave the ``with`` block to end it."""

    def __enter__(self) -> "Subscription":
        """Begin."""

    def __exit__(self, *exception: object) -> None:
        """End."""

    def next(self, timeout_s: float) -> Sealed | None:
        """Return the next block, or None where none came in time."""


class Engine(Protocol):
    """An engine with its ledger. All methods may be called from any thread."""

    @property
    def name(self) -> str:
        """``embedded``, ``cometbft`` or ``etcd``."""

    @property
    def height(self) -> int:
        """Height of the last durable block."""

    @property
    def app_hash(self) -> bytes:
        """Application hash of that height."""

    @property
    def waiting(self) -> int:
        """Number of transactions that wait for a block, as far as this node knows."""

    @property
    def failure(self) -> str | None:
        """Why the node has stopped ordering, None while it works."""

    @property
    def stale(self) -> bool:
        """Whether the node has lost touch with those who order, so that what it shows may be out of date."""

    @property
    def closed(self) -> bool:
        """Whether the engine was closed."""

    def submit(self, wire: bytes) -> Accepted | Refusal:
        """Check a transaction and queue it for a block."""

    def wait(self, tx_id: bytes, *, timeout_s: float = 30.0) -> Receipt | None:
        """Return the receipt once its block is durable, or None where it is not in time."""

    def subscribe(self, *, after: int | None = None) -> Subscription:
        """Follow the blocks above height ``after`` (by default: those to come), none left out."""

    def view(self) -> AbstractContextManager[View]:
        """Read the ledger at its present height."""

    def backup(self, folder: Path) -> dict[str, object]:
        """Copy the live ledger into a new folder under ``folder``; returns its ``path``, ``height``, ``app_hash``."""

    def close(self) -> None:
        """Stop ordering and close the ledger."""


def blocks(subscription: Subscription, *, timeout_s: float) -> Iterator[Sealed]:
    """Yield blocks until none comes for ``timeout_s``."""
    with subscription:
        while (sealed := subscription.next(timeout_s)) is not None:
            yield sealed
