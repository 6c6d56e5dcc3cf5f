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

__all__ = ["ROW_BYTES", "ReadingTree", "sorted_order"]

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
        branchings = _branchings(ordered)
        self._hashes: list[bytes] = []
        self._depths = array("H")
        self._left = array("q")
        self._right = array("q")
        self._build(branchings)
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

    def _build(self, branchings: list[int]) -> None:
        """Merge leaves from left to right: a branching is closed as soon as one above it begins."""
        rows, hashes = self._rows, self._hashes
        left_of, right_of, depth_of = self._left.append, self._right.append, self._depths.append
        hashed = hashes.append
        stack: list[bytes] = []
        nodes: list[int] = []
        depths: list[int] = []
        push, pop, link, unlink = stack.append, stack.pop, nodes.append, nodes.pop
        end = 0
        # A branching is as deep as the first bit in which a leaf differs from the one before; -1 closes what is open.
        for position, level in enumerate((*branchings[: self.count], -1)):
            while depths and depths[-1] > level:
                right, left = pop(), pop()
                depth = depths.pop()
                digest = sha256(_HEADS[depth] + left + right).digest()
                right_of(unlink())
                left_of(unlink())
                depth_of(depth)
                link(len(hashes))
                hashed(digest)
                push(digest)
            if level < 0:
                break
            if position:
                depths.append(level)
            start, end = end, end + ROW_BYTES
            push(sha256(b"\0" + rows[start:end]).digest())
            link(~position)
        self._top = nodes[0] if nodes else 0

    def _hash(self, node: int) -> bytes:
        return self._hashes[node] if node >= 0 else leaf_hash(self.row(~node))

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


def _beside(
    left: int, right: int, deeper: int, key: bytes, depth: int, *, swap: bool
) -> list[tuple[int | None, int | None]]:
    """Pair the side of a branching on which the other tree's deeper node lies with it, and the other with nothing."""
    side = key[depth >> 3] >> (7 - (depth & 7)) & 1
    same, alone = (right, left) if side else (left, right)
    return [(None, alone), (deeper, same)] if swap else [(alone, None), (same, deeper)]


def _branchings(rows: NDArray[np.uint8]) -> list[int]:
    """Return for each row the first bit in which its key differs from the row before (0 for the first row)."""
    if len(rows) < 2:
        return [0] * len(rows)
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
    return [0, *(64 * word + zeros).tolist()]


def _words(rows: NDArray[np.uint8]) -> NDArray[np.uint64]:
    return np.ascontiguousarray(rows[:, :KEY_BYTES]).view(">u8").astype(np.uint64)


def _first_difference(a: bytes, b: bytes) -> int:
    apart = int.from_bytes(a, "big") ^ int.from_bytes(b, "big")
    return KEY_BITS - apart.bit_length()


def _reading(row: bytes) -> Reading:
    return Reading(row[:32], int.from_bytes(row[32:40], "big"), int.from_bytes(row[40:], "big", signed=True))
