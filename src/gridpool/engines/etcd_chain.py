"""A chain as keys in etcd: one a height, written only if absent, and trimmed once every member has it in its ledger.

etcd keeps what it is given until it is told otherwise and stops at its quota, so blocks go once they are of no more use
there: each member says from time to time which height its ledger has, and what lies well below the lowest of them is
removed. A write names the height up to which the chain was trimmed, so that a member which fell behind that (a ledger
restored from an old copy) cannot decide an old height anew.
"""

import time

from gridpool.engines.etcd_client import EtcdClient
from gridpool.errors import RefusedInput

__all__ = ["EtcdChain"]

TRIM_EVERY = 500
"""A member says how far it is, and trims, at every such height."""
KEPT = 1_000
"""Blocks that stay in etcd below the lowest member's height."""
LOOK_EVERY_S = 10.0
NOTHING_TRIMMED = b"%020d" % 0


class EtcdChain:
    """One member's view of a chain in etcd. Every call raises EtcdUnavailable where no majority answers."""

    def __init__(self, client: EtcdClient, chain: str, member: str) -> None:
        """``member`` is the name that etcd knows this member by."""
        self._client = client
        self._blocks = f"gridpool/{chain}/block/"
        self._progress = f"gridpool/{chain}/member/"
        self._base = f"gridpool/{chain}/base"
        self._member = member
        self._looked = 0.0

    def begin(self, height: int) -> None:
        """Say where this member's ledger stands; raises RefusedInput where the blocks after it are gone from etcd."""
        self._client.create(self._base, NOTHING_TRIMMED)
        self._client.put(self._progress + self._member, b"%020d" % height)
        self._refuse_behind(height)

    def block(self, height: int) -> bytes | None:
        """Return the decided block of a height, None where there is none yet."""
        return self._client.get(self._key(height))

    def offer(self, height: int, block: bytes) -> None:
        """Write the block of a height, unless one was decided; raises RefusedInput where the height was trimmed."""
        if not self._client.create(self._key(height), block, where_below=(self._base, b"%020d" % height)):
            self._refuse_behind(height - 1)

    def rest(self, height: int) -> None:
        """See now and then, while nothing comes, that what comes next was not trimmed; raises RefusedInput."""
        now = time.monotonic()
        if now - self._looked >= LOOK_EVERY_S:
            self._looked = now
            self._refuse_behind(height)

    def carried_out(self, height: int) -> None:
        """Note that this member's ledger holds a height, and remove from etcd what no member needs there any more."""
        if height % TRIM_EVERY:
            return
        self._client.put(self._progress + self._member, b"%020d" % height)
        said = self._client.pairs(self._progress)
        heights = [int(said.get(self._progress + name, NOTHING_TRIMMED)) for name in self._client.members()]
        base = min(heights, default=0) - KEPT
        if base > 0:
            self._client.trim(self._base, b"%020d" % base, self._key(0), self._key(base + 1))

    def trimmed(self) -> int:
        """Return the height up to which blocks are gone from etcd."""
        return int(self._client.get(self._base) or NOTHING_TRIMMED)

    def _refuse_behind(self, height: int) -> None:
        base = self.trimmed()
        if height < base:
            raise RefusedInput(
                f"this member's ledger ends at height {height}, and etcd holds blocks after height {base} only; put a "
                "copy of another member's ledger in its place (POST /backup makes one)"
            )

    def _key(self, height: int) -> str:
        return f"{self._blocks}{height:020d}"
