"""Raw samples outside the ledger: leaves that are good for one place only, their Merkle root, and paths to it."""

import hashlib

__all__ = ["climb", "sample_leaf", "sample_path", "sample_root"]

LEAF, NODE = b"gridpool/slices/sample/1\0", b"gridpool/slices/sample-node/1\0"


def sample_leaf(slice_: str, generation: int, segment: str, interval: int, index: int, sample: bytes) -> bytes:
    """Hash a raw sample into a leaf that is good for one place only."""
    place = f"{slice_}/{generation}/{segment}/{interval}/{index}".encode()
    return hashlib.sha256(LEAF + len(place).to_bytes(4, "big") + place + sample).digest()


def sample_root(leaves: list[bytes]) -> bytes:
    """Return the root over leaves; an odd node rises as it is."""
    level = leaves
    while len(level) > 1:
        level = [_above(level, at) for at in range(0, len(level), 2)]
    return level[0]


def sample_path(leaves: list[bytes], index: int) -> tuple[bytes, ...]:
    """Return the siblings from a leaf up to the root."""
    path = []
    level = leaves
    while len(level) > 1:
        sibling = index ^ 1
        if sibling < len(level):
            path.append(level[sibling])
        level = [_above(level, at) for at in range(0, len(level), 2)]
        index //= 2
    return tuple(path)


def climb(node: bytes, index: int, count: int, path: tuple[bytes, ...]) -> bytes:
    """Return the root that a leaf's path leads to, empty where the path has another length than the tree's."""
    siblings = list(path)
    while count > 1:
        if index ^ 1 < count:
            if not siblings:
                return b""
            sibling = siblings.pop(0)
            pair = sibling + node if index & 1 else node + sibling
            node = hashlib.sha256(NODE + pair).digest()
        index, count = index // 2, (count + 1) // 2
    return b"" if siblings else node


def _above(level: list[bytes], at: int) -> bytes:
    if at + 1 == len(level):
        return level[at]
    return hashlib.sha256(NODE + level[at] + level[at + 1]).digest()
