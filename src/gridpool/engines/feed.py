"""Following an engine's blocks, whichever engine it is."""

from typing import Protocol

from gridpool.engines.engine import Sealed

__all__ = ["BlockFeed"]


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
