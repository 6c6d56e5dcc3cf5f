"""The tree over a data set's chunks with all its levels, and where two such trees differ."""

from collections.abc import Sequence
from hashlib import sha256

__all__ = ["altered_positions", "tree_levels"]


def tree_levels(items: Sequence[bytes]) -> list[list[bytes]]:
    """Return the hashes of a tree over at least one item, leaves first; the root is that of ``ledger.merkle``."""
    levels = [[sha256(b"\0" + item).digest() for item in items]]
    while len(levels[-1]) > 1:
        level = levels[-1]
        above = [sha256(b"\1" + level[i] + level[i + 1]).digest() for i in range(0, len(level) - 1, 2)]
        levels.append([*above, level[-1]] if len(level) & 1 else above)
    return levels


def altered_positions(first: Sequence[Sequence[bytes]], second: Sequence[Sequence[bytes]]) -> tuple[list[int], int]:
    """Return the positions in which two trees of one size differ, and how many hashes were compared on the way.

    Only nodes below a difference are looked at: at most 1 + 2 log2(n) comparisons for each position found.
    """
    if first[-1][0] == second[-1][0]:
        return [], 1
    compared = 1
    found = [0]
    for level in range(len(first) - 2, -1, -1):
        below = []
        for node in found:
            left, right = 2 * node, 2 * node + 1
            if right >= len(first[level]):
                below.append(left)  # carried up as it is
                continue
            compared += 1
            if first[level][left] == second[level][left]:
                below.append(right)  # one side must differ
                continue
            below.append(left)
            compared += 1
            if first[level][right] != second[level][right]:
                below.append(right)
        found = below
    return found, compared
