"""The tree over an interval's readings: built in one pass over sorted rows, with proofs and comparison."""

from array import array
from collections.abc import Iterator
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from gridpool.contracts.records_tree import (
    KEY_BITS,
    KEY_BYTES,
    NO_READINGS,
    Reading,
    ReadingProof,
    leaf_hash,
    top_hash,
)
from gridpool.ledger.compiled import native

__all__ = ["ROW_BYTES", "ReadingTree", "plain_merge_rows", "sorted_order"]

ROW_BYTES = KEY_BYTES + 8
WORDS = KEY_BYTES // 8


def sorted_order(rows: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return the order of rows (n, 48) by key; rows with one key keep the order they came in."""
    words = _words(rows)
    return np.lexsort(tuple(words[:, column] for column in range(WORDS - 1, -1, -1)))


_HEADS = tuple(b"\1" + depth.to_bytes(2, "big") for depth in range(KEY_BITS + 1))
"""What stands before the two hashes below a branching, by its depth."""


class ReadingTree:
    """A tree over rows of distinct keys: root, proofs, and what it takes to compare it with another."""

    def __init__(self, rows: NDArray[np.uint8]) -> None:
        """Build the tree over rows (n, 48), in any order; two rows with one key are a ValueError."""
        ordered = np.ascontiguousarray(rows[sorted_order(rows)])
        self.count = len(ordered)
        self._rows = ordered.tobytes()
        levels = _branchings(ordered).tobytes()
        merge = plain_merge_rows if native is None else native.merge_rows
        self._top, self._hashes, depths, left, right = (
            merge(self._rows, levels) if self.count else (0, b"", b"", b"", b"")
        )
        self._depths, self._left, self._right = array("H", depths), array("q", left), array("q", right)
        self.root = top_hash(self.count, self._hash(self._top)) if self.count else NO_READINGS

    def row(self, position: int) -> bytes:
        """Return the 48 bytes of the reading at a position of the sorted order."""
        return self._rows[ROW_BYTES * position : ROW_BYTES * (position + 1)]

    def prove(self, key: bytes) -> ReadingProof:
        """Prove the reading under ``key``, or, where there is none, that it is absent; not for an empty tree."""
        depths: list[int] = []
        siblings: list[bytes] = []
        node = self._top
        while node >= 0:
            depth = self._depths[node]
            ways = self._left[node], self._right[node]
            side = key[depth >> 3] >> (7 - (depth & 7)) & 1
            depths.append(depth)
            siblings.append(self._hash(ways[1 - side]))
            node = ways[side]
        return ReadingProof(_reading(self.row(~node)), self.count, tuple(reversed(depths)), tuple(reversed(siblings)))

    def differences(self, other: "ReadingTree") -> tuple[list[bytes], int]:
        """Return the keys whose readings differ between two trees, in order, and how many hashes were compared.

        Only subtrees whose hashes differ are entered: O(log n) comparisons for each difference.
        """
        if not self.count or not other.count:
            one = self if self.count else other
            return [one.row(position)[:KEY_BYTES] for position in range(one.count)], 1
        found: list[bytes] = []
        compared = 0
        waiting: list[tuple[int | None, int | None]] = [(self._top, other._top)]
        while waiting:
            a, b = waiting.pop()
            if a is None or b is None:
                found += (row[:KEY_BYTES] for row in (self._below(a) if a is not None else other._below(b)))
                continue
            compared += 1
            if self._hash(a) == other._hash(b):
                continue
            key_a, key_b = self._first_key(a), other._first_key(b)
            depth_a, depth_b = self._depth(a), other._depth(b)
            apart = _first_difference(key_a, key_b)
            if apart < min(depth_a, depth_b):  # nothing in common below here
                waiting += [(a, None), (None, b)]
            elif depth_a == depth_b:
                if depth_a == KEY_BITS:
                    found.append(key_a)
                else:
                    waiting += [(self._right[a], other._right[b]), (self._left[a], other._left[b])]
            elif depth_a < depth_b:
                waiting += _beside(self._left[a], self._right[a], b, key_b, depth_a, swap=False)
            else:
                waiting += _beside(other._left[b], other._right[b], a, key_a, depth_b, swap=True)
        return sorted(found), compared

    def _hash(self, node: int) -> bytes:
        return self._hashes[32 * node : 32 * (node + 1)] if node >= 0 else leaf_hash(self.row(~node))

    def _depth(self, node: int) -> int:
        return self._depths[node] if node >= 0 else KEY_BITS

    def _first_key(self, node: int) -> bytes:
        while node >= 0:
            node = self._left[node]
        return self.row(~node)[:KEY_BYTES]

    def _below(self, node: int | None) -> Iterator[bytes]:
        waiting = [] if node is None else [node]
        while waiting:
            at = waiting.pop()
            if at < 0:
                yield self.row(~at)
            else:
                waiting += [self._right[at], self._left[at]]


def plain_merge_rows(rows: bytes, levels: bytes) -> tuple[int, bytes, bytes, bytes, bytes]:
    """Merge leaves from left to right: a branching is closed as soon as one above it begins.

    ``rows`` are n >= 1 rows of distinct keys in order, ``levels`` (type H) how many bits each key shares with the one
    before (0 for the first). Returns the topmost node and, for each of the n - 1 branchings, its hash (32 bytes),
    depth (type H) and the nodes on its left and right (type q); leaf i is node -1 - i. This is the definition and the
    oracle of the compiled form.
    """
    hashes: list[bytes] = []
    depth_of, left_of, right_of = array("H"), array("q"), array("q")
    stack: list[bytes] = []
    nodes: list[int] = []
    depths: list[int] = []
    end = 0
    # A branching is as deep as the first bit in which a leaf differs from the one before; -1 closes what is open.
    for position, level in enumerate((*array("H", levels), -1)):
        while depths and depths[-1] > level:
            right, left = stack.pop(), stack.pop()
            depth = depths.pop()
            digest = sha256(_HEADS[depth] + left + right).digest()
            right_of.append(nodes.pop())
            left_of.append(nodes.pop())
            depth_of.append(depth)
            nodes.append(len(hashes))
            hashes.append(digest)
            stack.append(digest)
        if level < 0:
            break
        if position:
            depths.append(level)
        start, end = end, end + ROW_BYTES
        stack.append(sha256(b"\0" + rows[start:end]).digest())
        nodes.append(~position)
    return nodes[0], b"".join(hashes), depth_of.tobytes(), left_of.tobytes(), right_of.tobytes()


def _beside(
    left: int, right: int, deeper: int, key: bytes, depth: int, *, swap: bool
) -> list[tuple[int | None, int | None]]:
    """Pair the side of a branching on which the other tree's deeper node lies with it, and the other with nothing."""
    side = key[depth >> 3] >> (7 - (depth & 7)) & 1
    same, alone = (right, left) if side else (left, right)
    return [(None, alone), (deeper, same)] if swap else [(alone, None), (same, deeper)]


def _branchings(rows: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """Return for each row the first bit in which its key differs from the row before (0 for the first row)."""
    if len(rows) < 2:
        return np.zeros(len(rows), np.uint16)
    words = _words(rows)
    apart = words[1:] ^ words[:-1]
    word = (apart != 0).argmax(axis=1)
    value = apart[np.arange(len(apart)), word]
    if not value.all():
        raise ValueError("two readings have one key")
    high = value >> np.uint64(32)
    upper = high != 0
    half = np.where(upper, high, value & np.uint64(0xFFFFFFFF)).astype(np.float64)  # exact: 32 bits
    zeros = 32 - np.frexp(half)[1] + np.where(upper, 0, 32)
    return np.concatenate(([0], 64 * word + zeros)).astype(np.uint16)


def _words(rows: NDArray[np.uint8]) -> NDArray[np.uint64]:
    return np.ascontiguousarray(rows[:, :KEY_BYTES]).view(">u8").astype(np.uint64)


def _first_difference(a: bytes, b: bytes) -> int:
    apart = int.from_bytes(a, "big") ^ int.from_bytes(b, "big")
    return KEY_BITS - apart.bit_length()


def _reading(row: bytes) -> Reading:
    return Reading(row[:32], int.from_bytes(row[32:40], "big"), int.from_bytes(row[40:], "big", signed=True))
