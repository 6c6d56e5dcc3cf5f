"""Reading a stored ledger at one height, and finding what is needed for it."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec

from gridpool.errors import RefusedInput
from gridpool.ledger.block import SignedHeader
from gridpool.ledger.contract import rules_at
from gridpool.ledger.genesis import Genesis
from gridpool.ledger.rules import Rules
from gridpool.ledger.state import Reader, State
from gridpool.ledger.store import Snapshot
from gridpool.ledger.transaction import Receipt
from gridpool.ledger.types import decode

__all__ = [
    "KnownRules",
    "Place",
    "View",
    "at_place",
    "by_version",
    "height_key",
    "locate",
    "rules_for",
    "stored_genesis",
    "walking_the_tree",
]

KnownRules = Rules | Iterable[Rules] | Mapping[int, Rules]
"""The rules versions that a node can carry out."""


class Place(msgspec.Struct, frozen=True):
    """Where a transaction stands: its block, and its position there."""

    height: int
    position: int


class View:
    """A ledger at one height: its state, blocks and receipts, whatever is committed meanwhile."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.state = State(snapshot)

    @property
    def height(self) -> int:
        """Height of the last block."""
        return int.from_bytes(self.snapshot.read("meta", b"head") or b"", "big")

    @property
    def base(self) -> int:
        """The height up to which transactions and receipts were pruned; 0 where none were."""
        return int.from_bytes(self.snapshot.read("meta", b"base") or b"", "big")

    @property
    def proven_height(self) -> int:
        """Height of the last block that was not idle: its header commits to the present state by its fields."""
        low, high = 0, self.height
        present = self.header(high).header
        if not present.idle:
            return high
        # Every block but an idle one makes a new hash, so the heights with the present one are the last of all.
        while low < high:
            middle = (low + high) // 2
            if self.header(middle).header.app_hash == present.app_hash:
                high = middle
            else:
                low = middle + 1
        return high

    def header(self, height: int) -> SignedHeader:
        """Return the header of a height; raises RefusedInput where there is none."""
        data = self.snapshot.read("header", height_key(height)) if 0 <= height < 2**63 else None
        if data is None:
            raise RefusedInput(f"no height {height} in this ledger; it ends at {self.height}")
        return decode(data, SignedHeader)

    def transactions(self, height: int) -> tuple[bytes, ...]:
        """Return the raw transactions of a block; raises RefusedInput where they were pruned or never were."""
        self.header(height)
        data = self.snapshot.read("body", height_key(height))
        if data is None:
            raise RefusedInput(f"the transactions of height {height} were pruned from this ledger")
        return msgspec.msgpack.decode(data, type=tuple[bytes, ...])

    def receipts(self, height: int) -> tuple[Receipt, ...]:
        """Return the receipts of a block; that of work that fell due, if any, comes last."""
        return tuple(msgspec.msgpack.decode(item, type=Receipt) for item in self.encoded_receipts(height))

    def encoded_receipts(self, height: int) -> tuple[bytes, ...]:
        """Return the receipts of a block as the bytes that the receipts root commits to."""
        self.header(height)
        data = self.snapshot.read("receipt", height_key(height))
        if data is None:
            raise RefusedInput(f"the receipts of height {height} were pruned from this ledger")
        return msgspec.msgpack.decode(data, type=tuple[bytes, ...])

    def find(self, tx_id: bytes) -> Place | None:
        """Return where a transaction stands, or None."""
        data = self.snapshot.read("transaction", tx_id) if len(tx_id) == 32 else None
        return None if data is None else Place(int.from_bytes(data[:8], "big"), int.from_bytes(data[8:], "big"))

    def receipt(self, tx_id: bytes) -> Receipt | None:
        """Return a transaction's receipt, or None."""
        place = self.find(tx_id)
        if place is None:
            return None
        return msgspec.msgpack.decode(at_place(self.encoded_receipts(place.height), place), type=Receipt)


def at_place(items: tuple[bytes, ...], place: Place) -> bytes:
    """Return a block's item at a transaction's place; raises RefusedInput where the index names none."""
    if place.position >= len(items):
        raise RefusedInput(f"the index of this ledger is damaged: height {place.height} has no item {place.position}")
    return items[place.position]


@contextmanager
def walking_the_tree() -> Iterator[None]:
    """Refuse, with the reason, where the nodes of a stored tree prove damaged."""
    try:
        yield
    except RefusedInput:
        raise
    except (ValueError, IndexError, RecursionError) as error:
        raise RefusedInput(
            f"this ledger is damaged ({error}); gridpool ledger verify says where, restore it from a backup or another "
            "node"
        ) from error


def locate(path: Path) -> Path:
    """Return the ledger's folder for a day's folder, a node's home, or the ledger's folder itself."""
    if (path / "data.mdb").exists() or not (path / "ledger").is_dir():
        return path
    return path / "ledger"


def by_version(known: KnownRules) -> dict[int, Rules]:
    """Return rules by version."""
    if isinstance(known, Rules):
        return {known.version: known}
    if isinstance(known, Mapping):
        return dict(known)
    return {rules.version: rules for rules in known}


def height_key(height: int) -> bytes:
    """Return the key of a height in the store's own tables."""
    return height.to_bytes(8, "big")


def stored_genesis(snapshot: Snapshot) -> Genesis:
    """Return the genesis that a store was made from."""
    try:
        return decode(snapshot.read("meta", b"genesis") or b"", Genesis)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RefusedInput(f"the ledger's genesis cannot be read: {error}") from error


def rules_for(known: Mapping[int, Rules], reader: Reader, height: int) -> Rules:
    """Return the rules in force at ``height``; raises RefusedInput where they are not known."""
    version = rules_at(State(reader), height)
    if version not in known:
        have = ", ".join(str(v) for v in sorted(known)) or "none"
        raise RefusedInput(f"height {height} follows rules version {version}, this node knows {have}; upgrade gridpool")
    return known[version]
