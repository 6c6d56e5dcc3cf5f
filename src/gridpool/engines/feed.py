"""Following an engine's blocks, whichever engine it is."""

from collections import deque
from typing import Protocol

from gridpool.engines.engine import Sealed

__all__ = ["BlockFeed", "RecentBlocks"]

MOST_BLOCKS = 64
MOST_RECEIPTS = 20_000
"""Receipts, and results of calls in them, that are kept at hand: some seconds' worth under full load."""


class RecentBlocks:
    """The last blocks, at hand for those who follow closely. It has no lock of its own."""

    def __init__(self, *, most_receipts: int = MOST_RECEIPTS) -> None:
        """Keep at most 64 blocks with ``most_receipts`` in all, and always the last one."""
        self._most_receipts = most_receipts
        self._blocks: deque[tuple[Sealed, int]] = deque()
        self._receipts = 0

    def add(self, sealed: Sealed) -> None:
        """Add the next block; the oldest give way to it."""
        receipts = sum(1 + len(receipt.results) for receipt in sealed.receipts)
        self._blocks.append((sealed, receipts))
        self._receipts += receipts
        while len(self._blocks) > 1 and (len(self._blocks) > MOST_BLOCKS or self._receipts > self._most_receipts):
            self._receipts -= self._blocks.popleft()[1]

    def find(self, height: int) -> Sealed | None:
        """Return the block of a height, None where it is not at hand."""
        return next((sealed for sealed, _ in self._blocks if sealed.height == height), None)


class Followed(Protocol):
    """What can be followed."""

    def next_block(self, after: int, timeout_s: float) -> Sealed | None:
        """Return the block of height ``after + 1``, waiting for it up to ``timeout_s``."""


class BlockFeed:
    """Durable blocks in order, from the store where they are no longer at hand."""

    def __init__(self, engine: Followed, after: int) -> None:
        self._engine = engine
        self.height = after

    def __enter__(self) -> "BlockFeed":
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def next(self, timeout_s: float) -> Sealed | None:
        """Return the next block, or None where none came in time."""
        sealed = self._engine.next_block(self.height, timeout_s)
        if sealed is not None:
            self.height = sealed.height
        return sealed
