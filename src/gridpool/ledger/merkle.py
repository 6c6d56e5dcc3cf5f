"""Merkle trees over lists (the receipts and the transactions of a block), as in RFC 6962, section 2.1."""

from collections.abc import Sequence
from hashlib import sha256

from gridpool.ledger.compiled import native

__all__ = ["audit_path", "list_root", "plain_list_root", "root_from_path"]


def list_root(items: Sequence[bytes]) -> bytes:
    """Return the root over the items: SHA-256 of nothing for none, 0x00 before items, 0x01 before inner nodes."""
    return plain_list_root(items) if native is None else native.list_root(items)


def plain_list_root(items: Sequence[bytes]) -> bytes:
    """Do what ``list_root`` does, in Python: its definition and the oracle of its tests."""
    if not items:
        return sha256(b"").digest()
    level = [sha256(b"\0" + item).digest() for item in items]
    while len(level) > 1:
        level = _level_above(level)
    return level[0]


def audit_path(items: Sequence[bytes], position: int) -> list[bytes]:
    """Return the sibling hashes from the item at ``position`` up to the root."""
    level = [sha256(b"\0" + item).digest() for item in items]
    path = []
    while len(level) > 1:
        if position ^ 1 < len(level):
            path.append(level[position ^ 1])
        level = _level_above(level)
        position >>= 1
    return path


def root_from_path(item: bytes, position: int, count: int, path: Sequence[bytes]) -> bytes | None:
    """Return the root that an audit path leads to, or None where the path has not the right length."""
    if not 0 <= position < count:
        return None
    digest = sha256(b"\0" + item).digest()
    rest = list(path)
    last = count - 1
    while last:
        if position & 1:
            if not rest:
                return None
            digest = sha256(b"\1" + rest.pop(0) + digest).digest()
        elif position < last:
            if not rest:
                return None
            digest = sha256(b"\1" + digest + rest.pop(0)).digest()
        position >>= 1
        last >>= 1
    return None if rest else digest


def _level_above(level: list[bytes]) -> list[bytes]:
    above = [sha256(b"\1" + level[i] + level[i + 1]).digest() for i in range(0, len(level) - 1, 2)]
    if len(level) & 1:
        above.append(level[-1])
    return above
