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
ROOT = b""

ReadNode = Callable[[bytes], bytes | None]
"""Gives the stored node at a prefix (one byte a nibble), or None."""
Nodes = dict[bytes, bytes | None]
"""Changed nodes by prefix; None removes one."""

_Change = tuple[bytes, bytes, bytes | None]
"""(path, key, new leaf hash or None for a deletion)."""
_NOTHING, _LEAF, _INNER = 0, 1, 2
_SPARSE = 4
"""Up to this many occupied slots only the slots are stored, and the hashes above them are made again on reading."""
_BLANK = EMPTY * 32
_SLOT_BIT = tuple(1 << nibble for nibble in range(16))


def _covered(index: int) -> int:
    return _SLOT_BIT[index - 16] if index >= 16 else _covered(2 * index) | _covered(2 * index + 1)


_MASK = (0, *(_covered(index) for index in range(1, 32)))
_PLANS: dict[int, tuple[tuple[int, int, int], ...]] = {}


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
    return EMPTY if data is None else _Node(data).hash


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
    root = _update(read, changed, ROOT, work)
    return root[1], changed


class _Node:
    """A node under work: its heap of hashes, which slots hold leaves or inner nodes, and the leaves' keys."""

    __slots__ = ("heap", "inner", "keys", "leaves", "stale")

    def __init__(self, data: bytes | None) -> None:
        self.keys: dict[int, bytes] = {}
        self.stale = 0
        if data is None:
            self.heap = bytearray(_BLANK)
            self.leaves = self.inner = 0
            return
        leaves = self.leaves = data[0] << 8 | data[1]
        inner = self.inner = data[2] << 8 | data[3]
        occupied = leaves | inner
        count = occupied.bit_count()
        if count > _SPARSE:
            self.heap = bytearray(_BLANK[:64] + data[4:964])
            at = 964
        else:
            heap = self.heap = bytearray(_BLANK)
            at, rest = 4, occupied
            while rest:
                bit = rest & -rest
                slot = 15 + bit.bit_length()
                heap[32 * slot : 32 * slot + 32] = data[at : at + 32]
                at += 32
                rest ^= bit
            self.stale = occupied
        while leaves:
            bit = leaves & -leaves
            size = data[at] << 8 | data[at + 1]
            self.keys[bit.bit_length() - 1] = data[at + 2 : at + 2 + size]
            at += 2 + size
            leaves ^= bit

    def encode(self) -> bytes:
        leaves, inner = self.leaves, self.inner
        occupied = leaves | inner
        heap = self.heap
        parts: list[bytes | bytearray] = [bytes((leaves >> 8, leaves & 255, inner >> 8, inner & 255))]
        if occupied.bit_count() > _SPARSE:
            parts.append(heap[64:])
        else:
            while occupied:
                bit = occupied & -occupied
                slot = 15 + bit.bit_length()
                parts.append(heap[32 * slot : 32 * slot + 32])
                occupied ^= bit
        if leaves:
            keys = self.keys
            for nibble in sorted(keys):
                key = keys[nibble]
                parts.append(len(key).to_bytes(2, "big"))
                parts.append(key)
        return b"".join(parts)

    @property
    def hash(self) -> bytes:
        """The node's own hash, after making the stale hashes of its heap again."""
        leaves, inner, heap = self.leaves, self.inner, self.heap
        if self.stale or leaves or inner:
            for index, mask, at in _plan(self.stale):
                below = leaves & mask
                if inner & mask or below & (below - 1):
                    heap[at : at + 32] = sha256(b"\1" + heap[2 * at : 2 * at + 64]).digest()
                elif below:
                    side = 2 * at if below & _MASK[2 * index] else 2 * at + 32
                    heap[at : at + 32] = heap[side : side + 32]
                else:
                    heap[at : at + 32] = EMPTY
            self.stale = 0
        return bytes(self.heap[32:64])

    def place(self, nibble: int, kind: int, digest: bytes, key: bytes) -> None:
        bit = _SLOT_BIT[nibble]
        if kind == _INNER:
            self.inner |= bit
            if self.leaves & bit:
                self.leaves ^= bit
                del self.keys[nibble]
        elif kind == _LEAF:
            self.leaves |= bit
            self.inner &= ~bit
            self.keys[nibble] = key
        else:
            self.inner &= ~bit
            if self.leaves & bit:
                self.leaves ^= bit
                del self.keys[nibble]
        at = 512 + 32 * nibble
        self.heap[at : at + 32] = digest
        self.stale |= bit


def _plan(stale: int) -> tuple[tuple[int, int, int], ...]:
    """Return (heap index, mask of its slots, heap offset) of what lies above the stale slots, lowest level first."""
    plan = _PLANS.get(stale)
    if plan is None:
        level = {slot for slot in range(16, 32) if stale & _SLOT_BIT[slot - 16]}
        above: list[int] = []
        while level and level != {1}:
            level = {index >> 1 for index in level}
            above += sorted(level)
        above = above or [1]
        plan = _PLANS[stale] = tuple((index, _MASK[index], 32 * index) for index in above)
    return plan


def _nibble(path: bytes, depth: int) -> int:
    byte = path[depth >> 1]
    return byte & 15 if depth & 1 else byte >> 4


def _update(read: ReadNode, changed: Nodes, prefix: bytes, work: list[_Change]) -> tuple[int, bytes, bytes]:
    """Apply sorted changes below a prefix; returns what the node above must hold: kind, hash, key of a leaf."""
    stored = read(prefix)
    node = _Node(stored)
    depth = len(prefix)
    at, end = 0, len(work)
    while at < end:
        nibble = _nibble(work[at][0], depth)
        first = at
        at += 1
        while at < end and _nibble(work[at][0], depth) == nibble:
            at += 1
        group = work[first:at]
        bit = _SLOT_BIT[nibble]
        if node.inner & bit:
            node.place(nibble, *_update(read, changed, prefix + bytes((nibble,)), group))
            continue
        if node.leaves & bit:
            key = node.keys[nibble]
            if (len(group) > 1 or group[0][1] != key) and all(item[1] != key for item in group):
                slot = 512 + 32 * nibble
                group.append((sha256(key).digest(), key, bytes(node.heap[slot : slot + 32])))
                group.sort()
        live = [item for item in group if item[2] is not None]
        if len(live) > 1:
            node.place(nibble, *_update(_no_node, changed, prefix + bytes((nibble,)), live))
        elif live:
            node.place(nibble, _LEAF, live[0][2] or EMPTY, live[0][1])
        elif node.leaves & bit:
            node.place(nibble, _NOTHING, EMPTY, b"")
    if not node.inner and node.leaves.bit_count() < 2 and (depth or not node.leaves):
        if stored is not None:
            changed[prefix] = None
        for nibble, key in node.keys.items():
            slot = 512 + 32 * nibble
            return _LEAF, bytes(node.heap[slot : slot + 32]), key
        return _NOTHING, EMPTY, b""
    digest = node.hash
    changed[prefix] = node.encode()
    return _INNER, digest, b""


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
        node = _Node(data)
        node.hash  # noqa: B018 (makes the heap whole)
        slot = 16 + _nibble(path, depth)
        for level in range(4, -1, -1):
            index = slot >> level
            leaves = node.leaves & _MASK[index]
            if not node.inner & _MASK[index] and leaves & (leaves - 1) == 0:
                if not leaves:
                    return Branch(tuple(siblings), None, None)
                nibble = leaves.bit_length() - 1
                return Branch(tuple(siblings), node.keys[nibble], bytes(node.heap[32 * index : 32 * index + 32]))
            if level:
                below = (slot >> (level - 1)) ^ 1
                siblings.append(bytes(node.heap[32 * below : 32 * below + 32]))
        data = read(path_prefix(path, depth + 1))
    raise ValueError("the tree is deeper than a path is long")


def path_prefix(path: bytes, depth: int) -> bytes:
    """Return the first ``depth`` nibbles of a path, one byte each."""
    return bytes(_nibble(path, i) for i in range(depth))


def difference(read_a: ReadNode, read_b: ReadNode) -> Iterator[bytes]:
    """Yield the keys whose leaves differ between two stored trees, visiting only subtrees whose hashes differ."""
    yield from _difference(read_a, read_b, ROOT, None, None)


def _difference(
    read_a: ReadNode,
    read_b: ReadNode,
    prefix: bytes,
    lone_a: tuple[bytes, bytes] | None,
    lone_b: tuple[bytes, bytes] | None,
) -> Iterator[bytes]:
    slots_a, slots_b = _slots(read_a, prefix, lone_a), _slots(read_b, prefix, lone_b)
    for nibble in sorted(slots_a.keys() | slots_b.keys()):
        (digest_a, key_a), (digest_b, key_b) = slots_a.get(nibble, (EMPTY, b"")), slots_b.get(nibble, (EMPTY, b""))
        if digest_a == digest_b:
            continue
        inner_a, inner_b = key_a is None, key_b is None
        if inner_a or inner_b:
            yield from _difference(
                read_a if inner_a else _no_node,
                read_b if inner_b else _no_node,
                prefix + bytes((nibble,)),
                (digest_a, key_a) if key_a else None,
                (digest_b, key_b) if key_b else None,
            )
        else:
            yield from sorted({key for key in (key_a, key_b) if key})


def _slots(read: ReadNode, prefix: bytes, lone: tuple[bytes, bytes] | None) -> dict[int, tuple[bytes, bytes | None]]:
    """Return nibble -> (hash, key of a leaf or None for an inner node) of a node, or of one leaf that stands for it."""
    if lone is not None:
        return {_nibble(path_of(lone[1]), len(prefix)): lone}
    data = read(prefix)
    if data is None:
        return {}
    node = _Node(data)
    return {
        nibble: (bytes(node.heap[512 + 32 * nibble : 544 + 32 * nibble]), node.keys.get(nibble))
        for nibble in range(16)
        if (node.leaves | node.inner) & _SLOT_BIT[nibble]
    }


def damaged_nodes(items: Iterable[tuple[bytes, bytes]]) -> Iterator[bytes]:
    """Yield the prefixes of stored nodes whose bytes are not the canonical encoding of a node."""
    for prefix, data in items:
        try:
            node = _Node(data)
            fresh = _Node(data)
            fresh.stale = fresh.leaves | fresh.inner
            fresh.hash  # noqa: B018
            node.hash  # noqa: B018
            sound = fresh.encode() == data and node.leaves & node.inner == 0
        except (IndexError, ValueError):
            sound = False
        if not sound:
            yield prefix
