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
from typing import NamedTuple

__all__ = [
    "EMPTY",
    "Branch",
    "Nodes",
    "ReadNode",
    "branch",
    "difference",
    "inner_hash",
    "leaf_hash",
    "path_of",
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

_Change = tuple[bytes, bytes, bytes | None]
"""(path, key, new leaf hash or None for a deletion)."""
_NOTHING, _LEAF, _INNER = 0, 1, 2
_SPARSE = 4
"""Up to this many occupied slots only the slots are stored, and the hashes above them are made again on reading."""
_BLANK = EMPTY * 32
_NIBBLE = tuple(bytes((nibble,)) for nibble in range(16))


def _covered(index: int) -> int:
    return 1 << index - 16 if index >= 16 else _covered(2 * index) | _covered(2 * index + 1)


def _way(index: int) -> tuple[tuple[int, bool, int], ...]:
    return () if index == 1 else ((32 * (index ^ 1), bool(index & 1), 16 * (index & -2)), *_way(index >> 1))


_WAYS = tuple(_way(16 + nibble) for nibble in range(16))
"""For each slot the way up a heap: where the sibling stands, whether we are on its right, where their hash goes."""
_Cuts = tuple[
    slice, slice, slice, slice, bool, bool, bool, bool, slice, slice, slice, slice, slice, slice
]  # fmt: skip


def _cuts(nibble: int) -> _Cuts:
    (b1, r1, a1), (b2, r2, a2), (b3, r3, a3), (b4, r4, a4) = _WAYS[nibble]
    own = 512 + 32 * nibble
    s1, s2, s3, s4 = (slice(b, b + 32) for b in (b1, b2, b3, b4))
    ends = ((0, a4), (a4 + 32, a3), (a3 + 32, a2), (a2 + 32, a1), (a1 + 32, own), (own + 32, None))
    g0, g1, g2, g3, g4, g5 = (slice(*pair) for pair in ends)
    return s1, s2, s3, s4, r1, r2, r3, r4, g0, g1, g2, g3, g4, g5


_CUTS = tuple(_cuts(nibble) for nibble in range(16))
"""For each slot: its four siblings on the way up, whether we are on their right, and what stays between the changes."""
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


def update(read: ReadNode, changes: Mapping[bytes, bytes | None]) -> tuple[bytes, Nodes]:
    """Apply changes (key -> value, None deletes); returns the new root and the nodes to write. Stores nothing."""
    work: list[_Change] = []
    for key, value in changes.items():
        path = sha256(key).digest()
        work.append((path, key, None if value is None else sha256(b"\0" + path + sha256(value).digest()).digest()))
    work.sort()
    changed: Nodes = {}
    if not work:
        return root_of(read), changed
    root = _update(read, changed, ROOT, work, 0, len(work))
    return root[1], changed


_Slot = tuple[int, bytes, bytes]
"""(kind, hash, full key of a leaf)."""
_FREE: _Slot = (_NOTHING, EMPTY, b"")


def _slots(data: bytes) -> dict[int, _Slot]:
    """Read a stored node: nibble -> slot, for the occupied ones in order."""
    leaves, inner = data[0] << 8 | data[1], data[2] << 8 | data[3]
    occupied = leaves | inner
    count = occupied.bit_count()
    whole = count > _SPARSE
    ends = 1024 if whole else 4 + 32 * count
    base, start = ends, 2 * leaves.bit_count()
    at = 4
    slots: dict[int, _Slot] = {}
    while occupied:
        bit = occupied & -occupied
        nibble = bit.bit_length() - 1
        if whole:
            at = 512 + 32 * nibble
        if leaves & bit:
            end = data[ends] << 8 | data[ends + 1]
            slots[nibble] = (_LEAF, data[at : at + 32], data[base + start : base + end])
            start = end
            ends += 2
        else:
            slots[nibble] = (_INNER, data[at : at + 32], b"")
        at += 32
        occupied ^= bit
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
    heap = bytearray(_BLANK)
    heap[:4] = masks
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


def _update(read: ReadNode, changed: Nodes, prefix: bytes, work: list[_Change], low: int, high: int) -> _Slot:
    """Apply the sorted changes ``work[low:high]`` below a prefix; returns the slot that the node above must hold."""
    stored = read(prefix)
    if high - low == 1 and stored is not None:
        return _update_one(read, changed, prefix, stored, work[low])
    depth = len(prefix) - 1
    place, shift = depth >> 1, 0 if depth & 1 else 4
    if stored is None:
        leaves = inner = 0
        slots: dict[int, _Slot] = {}
    else:
        leaves, inner = stored[0] << 8 | stored[1], stored[2] << 8 | stored[3]
        if (leaves | inner).bit_count() > _SPARSE:
            return _update_whole(read, changed, prefix, stored, work, low, high)
        slots = _slots(stored)
    at = low
    while at < high:
        nibble = work[at][0][place] >> shift & 15
        first = at
        at += 1
        while at < high and work[at][0][place] >> shift & 15 == nibble:
            at += 1
        slot = _changed_slot(read, changed, prefix + _NIBBLE[nibble], slots.get(nibble, _FREE), work, first, at)
        if slot[0]:
            slots[nibble] = slot
        else:
            slots.pop(nibble, None)
    return _finish(changed, prefix, slots, stored)


def _update_one(read: ReadNode, changed: Nodes, prefix: bytes, stored: bytes, change: _Change) -> _Slot:
    """Apply a single change: the most frequent case, in which mostly one hash is exchanged and the shape stays."""
    path, key, leaf = change
    depth = len(prefix) - 1
    nibble = path[depth >> 1] & 15 if depth & 1 else path[depth >> 1] >> 4
    bit = 1 << nibble
    inner = stored[2] << 8 | stored[3]
    leaves = stored[0] << 8 | stored[1]
    occupied = leaves | inner
    lone = False
    if inner & bit:
        below = prefix + _NIBBLE[nibble]
        node = read(below)
        if node is None:
            raise ValueError(f"the tree lacks the node at {below[1:].hex()[1::2]}")
        slot = _update_one(read, changed, below, node, change)
        if slot[0] != _INNER:
            return _reshape(changed, prefix, stored, nibble, slot)
        digest = slot[1]
        if inner == 0xFFFF:
            digest, changed[prefix] = _exchange(stored, nibble, digest)
            return _INNER, digest, b""
        count = occupied.bit_count()
    elif leaf is not None and leaves & bit:
        count = occupied.bit_count()
        if _leaf_key(stored, leaves, bit, 1024 if count > _SPARSE else 4 + 32 * count) != key:
            return _update_otherwise(read, changed, prefix, stored, nibble, change)
        digest, lone = leaf, True
    else:
        return _update_otherwise(read, changed, prefix, stored, nibble, change)
    if count <= _SPARSE:
        at = 4 + 32 * (occupied & (bit - 1)).bit_count()
        changed[prefix] = data = stored[:at] + digest + stored[at + 32 :]
        return _INNER, _fold(leaves, inner, [data[at : at + 32] for at in range(4, 4 + 32 * count, 32)])[-1], b""
    if not lone:
        digest, changed[prefix] = _exchange(stored, nibble, digest)
        return _INNER, digest, b""
    heap = bytearray(stored)
    at = 512 + 32 * nibble
    heap[at : at + 32] = digest
    for beside, right, above in _WAYS[nibble]:
        sibling = stored[beside : beside + 32]
        if lone and sibling == EMPTY:  # a lone leaf stands for its subtree: its hash moves up as it is
            heap[above : above + 32] = digest
            continue
        lone = False
        digest = sha256(b"\1" + sibling + digest if right else b"\1" + digest + sibling).digest()
        heap[above : above + 32] = digest
    changed[prefix] = bytes(heap)
    return _INNER, digest, b""


def _exchange(stored: bytes, nibble: int, digest: bytes) -> tuple[bytes, bytes]:
    """Put an inner node's new hash into a whole node; returns the node's own hash and its stored form.

    Written out and with slices made beforehand: most of a block's work on the tree is done here.
    """
    s1, s2, s3, s4, r1, r2, r3, r4, g0, g1, g2, g3, g4, g5 = _CUTS[nibble]
    first = sha256(b"\1" + stored[s1] + digest if r1 else b"\1" + digest + stored[s1]).digest()
    second = sha256(b"\1" + stored[s2] + first if r2 else b"\1" + first + stored[s2]).digest()
    third = sha256(b"\1" + stored[s3] + second if r3 else b"\1" + second + stored[s3]).digest()
    top = sha256(b"\1" + stored[s4] + third if r4 else b"\1" + third + stored[s4]).digest()
    parts = (stored[g0], top, stored[g1], third, stored[g2], second, stored[g3], first, stored[g4], digest, stored[g5])
    return top, b"".join(parts)


def _update_otherwise(
    read: ReadNode, changed: Nodes, prefix: bytes, stored: bytes, nibble: int, change: _Change
) -> _Slot:
    """Apply a single change that may give the node another shape."""
    if ((stored[0] | stored[2]) << 8 | stored[1] | stored[3]).bit_count() > _SPARSE:
        return _update_whole(read, changed, prefix, stored, [change], 0, 1)
    old = _slots(stored).get(nibble, _FREE)
    slot = _changed_slot(read, changed, prefix + _NIBBLE[nibble], old, [change], 0, 1)
    return _reshape(changed, prefix, stored, nibble, slot)


def _reshape(changed: Nodes, prefix: bytes, stored: bytes, nibble: int, slot: _Slot) -> _Slot:
    """Put a slot of another kind into a stored node."""
    slots = _slots(stored)
    if slot[0]:
        slots[nibble] = slot
    else:
        slots.pop(nibble, None)
    return _finish(changed, prefix, slots, stored)


def _update_whole(
    read: ReadNode, changed: Nodes, prefix: bytes, stored: bytes, work: list[_Change], low: int, high: int
) -> _Slot:
    """Apply changes below a node that is stored whole: hash again only what lies above the changed slots."""
    leaves, inner = stored[0] << 8 | stored[1], stored[2] << 8 | stored[3]
    depth = len(prefix) - 1
    place, shift = depth >> 1, 0 if depth & 1 else 4
    heap = bytearray(stored)
    keys: dict[int, bytes] | None = None
    stale = 0
    at = low
    while at < high:
        path, key, leaf = work[at]
        nibble = path[place] >> shift & 15
        first = at
        at += 1
        while at < high and work[at][0][place] >> shift & 15 == nibble:
            at += 1
        bit = 1 << nibble
        offset = 512 + 32 * nibble
        stale |= bit
        if inner & bit:
            kind, digest, key = _update(read, changed, prefix + _NIBBLE[nibble], work, first, at)
            if kind == _INNER:
                heap[offset : offset + 32] = digest
                continue
            inner ^= bit
        else:
            old = _FREE
            if leaves & bit:
                old_key = _leaf_key(stored, stored[0] << 8 | stored[1], bit, 1024)
                if at - first == 1 and leaf is not None and old_key == key:
                    heap[offset : offset + 32] = leaf
                    continue
                old = (_LEAF, stored[offset : offset + 32], old_key)
            kind, digest, key = _changed_slot(read, changed, prefix + _NIBBLE[nibble], old, work, first, at)
        heap[offset : offset + 32] = digest
        if keys is None:
            keys = {n: slot[2] for n, slot in _slots(stored).items() if slot[0] == _LEAF}
        leaves &= ~bit
        keys.pop(nibble, None)
        if kind == _LEAF:
            leaves |= bit
            keys[nibble] = key
        elif kind == _INNER:
            inner |= bit
    if keys is not None:
        if (leaves | inner).bit_count() <= _SPARSE:
            return _finish(changed, prefix, _thinned(heap, leaves, inner, keys), stored)
        heap[:4] = bytes((leaves >> 8, leaves & 255, inner >> 8, inner & 255))
        heap[1024:] = _key_table([keys[nibble] for nibble in sorted(keys)])
    for index, mask, at in _plan(stale):
        below = leaves & mask
        if inner & mask or below & (below - 1):
            heap[at : at + 32] = sha256(b"\1" + heap[2 * at : 2 * at + 64]).digest()
        elif below:
            side = 2 * at if below & _MASK[2 * index] else 2 * at + 32
            heap[at : at + 32] = heap[side : side + 32]
        else:
            heap[at : at + 32] = EMPTY
    changed[prefix] = data = bytes(heap)
    return _INNER, data[32:64], b""


def _thinned(heap: bytearray, leaves: int, inner: int, keys: dict[int, bytes]) -> dict[int, _Slot]:
    """Return the slots that are left in a heap."""
    return {
        nibble: (
            _INNER if inner >> nibble & 1 else _LEAF,
            bytes(heap[512 + 32 * nibble : 544 + 32 * nibble]),
            keys.get(nibble, b""),
        )
        for nibble in range(16)
        if (leaves | inner) >> nibble & 1
    }


def _key_table(keys: list[bytes]) -> bytes:
    """Lay the leaves' keys out behind a table of their ends."""
    end = 2 * len(keys)
    table = bytearray()
    for key in keys:
        end += len(key)
        table += end.to_bytes(2, "big")
    return b"".join((table, *keys))


def _changed_slot(
    read: ReadNode, changed: Nodes, prefix: bytes, old: _Slot, work: list[_Change], low: int, high: int
) -> _Slot:
    """Return what a slot holds after the changes ``work[low:high]``, which all fall under it."""
    kind, digest, key = old
    if kind == _INNER:
        return _update(read, changed, prefix, work, low, high)
    if high - low == 1:
        _, new_key, leaf = work[low]
        if leaf is None:
            return _FREE if kind == _NOTHING or key == new_key else old
        if kind == _NOTHING or key == new_key:
            return _LEAF, leaf, new_key
    group = work[low:high]
    if kind == _LEAF and all(item[1] != key for item in group):
        group.append((sha256(key).digest(), key, digest))
        group.sort()
    live = [item for item in group if item[2] is not None]
    if len(live) > 1:
        return _update(_no_node, changed, prefix, live, 0, len(live))
    return (_LEAF, live[0][2] or EMPTY, live[0][1]) if live else _FREE


def _finish(changed: Nodes, prefix: bytes, slots: dict[int, _Slot], stored: bytes | None) -> _Slot:
    """Note a changed node, or that it is one no more; returns the slot that the node above must hold."""
    if len(slots) < 2 and (prefix != ROOT or not slots):
        slot = next(iter(slots.values()), _FREE)
        if slot[0] != _INNER:
            if stored is not None:
                changed[prefix] = None
            return slot
    digest, data = _encode(slots)
    changed[prefix] = data
    return _INNER, digest, b""


@lru_cache(maxsize=1 << 16)
def _plan(stale: int) -> tuple[tuple[int, int, int], ...]:
    """Return (heap index, mask of its slots, heap offset) of what lies above the stale slots, lowest level first."""
    level = {slot for slot in range(16, 32) if stale & 1 << slot - 16}
    above: list[int] = []
    while level and level != {1}:
        level = {index >> 1 for index in level}
        above += sorted(level)
    return tuple((index, _MASK[index], 32 * index) for index in above)


def _leaf_key(stored: bytes, leaves: int, bit: int, base: int) -> bytes:
    """Return the key of the leaf in a slot; the table of the keys' ends stands at ``base``."""
    rank = (leaves & (bit - 1)).bit_count()
    at = base + 2 * rank
    start = stored[at - 2] << 8 | stored[at - 1] if rank else 2 * leaves.bit_count()
    return stored[base + start : base + (stored[at] << 8 | stored[at + 1])]


def _nibble(path: bytes, depth: int) -> int:
    return path[depth >> 1] >> (0 if depth & 1 else 4) & 15


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
        except (IndexError, ValueError):
            sound = False
        if not sound:
            yield prefix
