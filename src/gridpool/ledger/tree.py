"""The authenticated tree: one hash that commits to every key and value of the state.

A key's path is SHA-256(namespace || key). The commitment is the binary radix Merkle tree over paths: below a prefix,

- no key: ``EMPTY`` = SHA-256(0x02);
- one key: its leaf, SHA-256(0x00 || path || SHA-256(value)), wherever it stands;
- more: SHA-256(0x01 || left || right), the next bit of the path choosing the side.

The tree is stored 16-ary: a node covers four bits, keeps the hashes of its small binary tree as a heap (children of
index i at 2i and 2i + 1, slots at 16 to 31), and the full key of each leaf, so that two trees can be compared down to
the keys that differ. The shape depends on the keys alone, never on the order in which they came.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from hashlib import sha256
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

from gridpool.ledger.compiled import native

__all__ = [
    "EMPTY",
    "AlteredLeaf",
    "Branch",
    "Changes",
    "Nodes",
    "ReadNode",
    "branch",
    "difference",
    "inner_hash",
    "leaf_hash",
    "path_of",
    "plain_update",
    "reference_root",
    "root_of",
    "update",
]

EMPTY = sha256(b"\x02").digest()
ROOT = b"/"
"""Prefix of the root: a slash, behind which each nibble adds a byte."""

ReadNode = Callable[[bytes], bytes | None]
"""Gives the stored node at a prefix (a slash and one byte a nibble), or None."""
Nodes = dict[bytes, bytes | None]
"""Changed nodes by prefix; None removes one."""
Changes = Mapping[bytes, bytes | None]
"""What keys hold; None for nothing."""

_Change = tuple[bytes, bytes, bytes | None, bytes | None]
"""(path, key, new leaf hash or None for a deletion, old leaf hash, None for none, or _UNASKED)."""
_UNASKED = b""
_NOTHING, _LEAF, _INNER = 0, 1, 2
_SPARSE = 4
"""Up to this many occupied slots only the slots are stored, and the hashes above them are made again on reading."""
_BLANK = EMPTY * 32
_NIBBLE = tuple(bytes((nibble,)) for nibble in range(16))


class AlteredLeaf(Exception):
    """What a store holds under ``key`` is not what its tree commits to."""

    def __init__(self, key: bytes) -> None:
        super().__init__(key.hex())
        self.key = key


def _covered(index: int) -> int:
    return 1 << index - 16 if index >= 16 else _covered(2 * index) | _covered(2 * index + 1)


_MASK = (0, *(_covered(index) for index in range(1, 32)))


def path_of(key: bytes) -> bytes:
    """Return the path of a key (namespace included): 32 bytes."""
    return sha256(key).digest()


def leaf_hash(path: bytes, value: bytes) -> bytes:
    """Return the hash of a leaf."""
    return sha256(b"\0" + path + sha256(value).digest()).digest()


def inner_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of two subtrees."""
    return sha256(b"\1" + left + right).digest()


def reference_root(pairs: Mapping[bytes, bytes]) -> bytes:
    """Return the root over all pairs by plain sorted recursion: slow, and the oracle of the fast tree."""
    leaves = sorted((path_of(key), value) for key, value in pairs.items())

    def below(low: int, high: int, bit: int) -> bytes:
        if low == high:
            return EMPTY
        if high - low == 1:
            return leaf_hash(*leaves[low])
        middle = low
        while middle < high and not leaves[middle][0][bit >> 3] >> (7 - (bit & 7)) & 1:
            middle += 1
        return inner_hash(below(low, middle, bit + 1), below(middle, high, bit + 1))

    return below(0, len(leaves), 0)


def root_of(read: ReadNode) -> bytes:
    """Return the root of a stored tree."""
    data = read(ROOT)
    return EMPTY if data is None else _encode(_slots(data))[0]


def update(read: ReadNode, changes: Changes, before: Changes | None = None) -> tuple[bytes, Nodes]:
    """Apply changes (key -> value, None deletes); returns the new root and the nodes to write. Stores nothing.

    ``before`` says what each of the keys holds in the store: where the tree has another leaf for one, the store was
    altered, and AlteredLeaf is raised instead of building on it. Raises ValueError where a stored node is damaged or
    lacking. Compiled where the machine could compile it; see ``plain_update``.
    """
    if not changes:
        return root_of(read), {}
    if native is None:
        return plain_update(read, changes, before)
    found = native.update(
        read,
        changes if type(changes) is dict else dict(changes),
        before if before is None or type(before) is dict else dict(before),
    )
    if isinstance(found, bytes):
        raise AlteredLeaf(found)
    return found


def plain_update(read: ReadNode, changes: Changes, before: Changes | None = None) -> tuple[bytes, Nodes]:
    """Do what ``update`` does, in Python: its definition, the oracle of its tests, and slower by ten times or more."""
    work: list[_Change] = []
    for key, value in changes.items():
        path = path_of(key)
        was = _UNASKED if before is None else _leaf(path, before[key])
        work.append((path, key, _leaf(path, value), was))
    work.sort(key=itemgetter(0))
    changed: Nodes = {}
    root = _update(read, changed, ROOT, work)
    return root[1], changed


_Slot = tuple[int, bytes, bytes]
"""(kind, hash, full key of a leaf)."""
_FREE: _Slot = (_NOTHING, EMPTY, b"")


def _slots(data: bytes) -> dict[int, _Slot]:
    """Read a stored node: nibble -> slot, for the occupied ones in order. Raises ValueError where it is no node."""
    if len(data) < 4:
        raise ValueError("a damaged node")
    leaves, inner = data[0] << 8 | data[1], data[2] << 8 | data[3]
    occupied = leaves | inner
    count = occupied.bit_count()
    whole = count > _SPARSE
    ends = 1024 if whole else 4 + 32 * count
    base, start = ends, 2 * leaves.bit_count()
    if leaves & inner or len(data) < base + start:
        raise ValueError("a damaged node")
    at = 4
    slots: dict[int, _Slot] = {}
    while occupied:
        bit = occupied & -occupied
        nibble = bit.bit_length() - 1
        if whole:
            at = 512 + 32 * nibble
        if leaves & bit:
            end = data[ends] << 8 | data[ends + 1]
            if end < start:
                raise ValueError("a damaged node")
            slots[nibble] = (_LEAF, data[at : at + 32], data[base + start : base + end])
            start = end
            ends += 2
        else:
            slots[nibble] = (_INNER, data[at : at + 32], b"")
        at += 32
        occupied ^= bit
    if base + start != len(data):
        raise ValueError("a damaged node")
    return slots


def _encode(slots: dict[int, _Slot]) -> tuple[bytes, bytes]:
    """Return the hash and the stored form of a node: whole (a heap and keys), or sparse (occupied slots and keys)."""
    leaves = inner = 0
    hashes, keys = [], []
    for nibble in sorted(slots):
        kind, digest, key = slots[nibble]
        hashes.append(digest)
        if kind == _LEAF:
            leaves |= 1 << nibble
            keys.append(key)
        else:
            inner |= 1 << nibble
    masks = bytes((leaves >> 8, leaves & 255, inner >> 8, inner & 255))
    values = _fold(leaves, inner, hashes)
    if len(slots) <= _SPARSE:
        return values[-1], b"".join((masks, *hashes, _key_table(keys)))
    heap = bytearray(EMPTY)
    heap[:4] = masks
    heap += bytes(992)
    for index, at in enumerate(_program(leaves, inner)[1], 1):
        heap[32 * index : 32 * index + 32] = values[at]
    return values[-1], bytes(heap) + _key_table(keys)


def _fold(leaves: int, inner: int, hashes: list[bytes]) -> list[bytes]:
    """Hash occupied slots up to their node; the last value is the node's hash."""
    values = [EMPTY, *hashes]
    for left, right in _program(leaves, inner)[0]:
        values.append(sha256(b"\1" + values[left] + values[right]).digest())
    return values


@lru_cache(maxsize=1 << 16)
def _program(leaves: int, inner: int) -> tuple[tuple[tuple[int, int], ...], tuple[int, ...]]:
    """Return how a node of this shape is hashed: pairs of values to hash, and each heap index's value.

    Values are numbered: 0 ``EMPTY``, then the occupied slots in order, then the results of the pairs. Lone leaves move
    up without a hash.
    """
    occupied = leaves | inner
    at = [0] * 32
    number = 0
    for nibble in range(16):
        if occupied >> nibble & 1:
            number += 1
            at[16 + nibble] = number
    steps = []
    for index in range(15, 0, -1):
        mask = _MASK[index]
        below = leaves & mask
        if inner & mask or below & (below - 1):
            number += 1
            steps.append((at[2 * index], at[2 * index + 1]))
            at[index] = number
        else:
            at[index] = at[2 * index] or at[2 * index + 1]
    return tuple(steps), tuple(at[1:])


def _update(read: ReadNode, changed: Nodes, prefix: bytes, work: list[_Change]) -> _Slot:
    """Apply sorted changes below a prefix; returns the slot that the node above must hold."""
    stored = read(prefix)
    if stored is None and prefix != ROOT and read is not _no_node:
        raise ValueError(f"the tree lacks the node at {_place(prefix)}")
    try:
        slots = {} if stored is None else _slots(stored)
    except ValueError:
        raise ValueError(f"the tree holds a damaged node at {_place(prefix)}") from None
    for nibble, group in groupby(work, lambda change: _nibble(change[0], len(prefix) - 1)):
        slot = _changed_slot(read, changed, prefix + _NIBBLE[nibble], slots.get(nibble, _FREE), list(group))
        if slot[0]:
            slots[nibble] = slot
        else:
            slots.pop(nibble, None)
    if len(slots) < 2 and (prefix != ROOT or not slots):
        slot = next(iter(slots.values()), _FREE)
        if slot[0] != _INNER:
            if stored is not None:
                changed[prefix] = None
            return slot
    digest, changed[prefix] = _encode(slots)
    return _INNER, digest, b""


def _changed_slot(read: ReadNode, changed: Nodes, prefix: bytes, old: _Slot, work: list[_Change]) -> _Slot:
    """Return what a slot holds after changes that all fall under it; ``prefix`` is that of the node below it."""
    kind, digest, key = old
    if kind == _INNER:
        return _update(read, changed, prefix, work)
    for _, asked, _, was in work:
        if was not in (_UNASKED, digest if kind == _LEAF and key == asked else None):
            raise AlteredLeaf(asked)
    if kind == _LEAF and all(change[1] != key for change in work):
        work = sorted([*work, (path_of(key), key, digest, _UNASKED)], key=itemgetter(0))
    # What the leaves were is known by now; the nodes below are new.
    live: list[_Change] = [(path, new, leaf, _UNASKED) for path, new, leaf, _ in work if leaf is not None]
    if len(live) > 1:
        return _update(_no_node, changed, prefix, live)
    return (_LEAF, live[0][2] or EMPTY, live[0][1]) if live else _FREE


def _key_table(keys: list[bytes]) -> bytes:
    """Lay the leaves' keys out behind a table of their ends."""
    end = 2 * len(keys)
    table = bytearray()
    for key in keys:
        end += len(key)
        table += end.to_bytes(2, "big")
    return b"".join((table, *keys))


def _leaf(path: bytes, value: bytes | None) -> bytes | None:
    return None if value is None else leaf_hash(path, value)


def _nibble(path: bytes, depth: int) -> int:
    return path[depth >> 1] >> (0 if depth & 1 else 4) & 15


def _place(prefix: bytes) -> str:
    return prefix[1:].hex()[1::2] or "its root"


def _no_node(prefix: bytes) -> bytes | None:
    return None


class Branch(NamedTuple):
    """The way from the root to where a key is or would be.

    ``siblings`` run from the root down; ``key`` and ``leaf`` are those of the leaf found at the end (possibly another
    key's, which proves that this one is absent), or None where nothing is stored.
    """

    siblings: tuple[bytes, ...]
    key: bytes | None
    leaf: bytes | None


def branch(read: ReadNode, key: bytes) -> Branch:
    """Return the branch of a key in a stored tree."""
    path = path_of(key)
    siblings: list[bytes] = []
    data = read(ROOT)
    if data is None:
        return Branch((), None, None)
    for depth in range(64):
        if data is None:
            raise ValueError(f"the tree lacks the node at {path.hex()[:depth]}")
        slots = _slots(data)
        leaves = sum(1 << nibble for nibble, slot in slots.items() if slot[0] == _LEAF)
        inner = sum(1 << nibble for nibble, slot in slots.items() if slot[0] == _INNER)
        values = _fold(leaves, inner, [slot[1] for slot in slots.values()])
        places = _program(leaves, inner)[1]
        own = 16 + _nibble(path, depth)
        for level in range(4, -1, -1):
            below = leaves & _MASK[own >> level]
            if not inner & _MASK[own >> level] and below & (below - 1) == 0:
                if not below:
                    return Branch(tuple(siblings), None, None)
                _, digest, found = slots[below.bit_length() - 1]
                return Branch(tuple(siblings), found, digest)
            if level:
                siblings.append(values[places[(own >> level - 1 ^ 1) - 1]])
        data = read(path_prefix(path, depth + 1))
    raise ValueError("the tree is deeper than a path is long")


def path_prefix(path: bytes, depth: int) -> bytes:
    """Return the prefix of the first ``depth`` nibbles of a path."""
    return ROOT + bytes(_nibble(path, i) for i in range(depth))


def difference(read_a: ReadNode, read_b: ReadNode) -> Iterator[bytes]:
    """Yield the keys whose leaves differ between two stored trees, visiting only subtrees whose hashes differ."""
    yield from _difference(read_a, read_b, ROOT, None, None)


def _difference(
    read_a: ReadNode, read_b: ReadNode, prefix: bytes, lone_a: _Slot | None, lone_b: _Slot | None
) -> Iterator[bytes]:
    slots_a, slots_b = _slots_at(read_a, prefix, lone_a), _slots_at(read_b, prefix, lone_b)
    for nibble in sorted(slots_a.keys() | slots_b.keys()):
        a, b = slots_a.get(nibble, _FREE), slots_b.get(nibble, _FREE)
        if a[1] == b[1]:
            continue
        if a[0] == _INNER or b[0] == _INNER:
            yield from _difference(
                read_a if a[0] == _INNER else _no_node,
                read_b if b[0] == _INNER else _no_node,
                prefix + _NIBBLE[nibble],
                a if a[0] == _LEAF else None,
                b if b[0] == _LEAF else None,
            )
        else:
            yield from sorted({slot[2] for slot in (a, b) if slot[0]})


def _slots_at(read: ReadNode, prefix: bytes, lone: _Slot | None) -> dict[int, _Slot]:
    """Return the slots of a stored node, or of a leaf that stands alone below the prefix."""
    if lone is not None:
        return {_nibble(path_of(lone[2]), len(prefix) - 1): lone}
    data = read(prefix)
    return {} if data is None else _slots(data)


def damaged_nodes(items: Iterable[tuple[bytes, bytes]]) -> Iterator[bytes]:
    """Yield the prefixes of stored nodes whose bytes are not the one encoding of any node."""
    for prefix, data in items:
        try:
            sound = _encode(_slots(data))[1] == data
        except ValueError:
            sound = False
        if not sound:
            yield prefix
