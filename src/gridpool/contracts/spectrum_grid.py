"""The hexagonal grid in integers: where cells lie among each other, read off their H3 indexes.

An index spells out a path down H3's tree: from a base cell, at each resolution, to the middle child or one of the six
around it. Within one base cell that is no pentagon the path adds up to plane coordinates on one lattice, so that ring
distances and ancestors need no search. Elsewhere (across base cells, under a pentagon) H3 itself is asked.
"""

from collections.abc import Sequence
from functools import lru_cache

import h3.api.basic_int as h3
import numpy as np

from gridpool.contracts.spectrum_sheets import PARENT_STEPS, parent, parents_around
from gridpool.markets.slice_arbitration_join import Ints, compiled

__all__ = ["apart", "coordinates", "parents_within", "plane"]

_PENTAGONS = np.array([h3.get_base_cell_number(cell) for cell in sorted(h3.get_pentagons(0))], np.int64)
_PLANE_RINGS = 8
"""So far around a cell its sheets' ancestors are found by coordinates; the neighbours of its own are enough."""


@compiled
def _base_cell(cell: int) -> int:
    """Return the number of a cell's base cell."""
    return (cell >> 45) & 127


@compiled
def apart(a_i: int, a_j: int, b_i: int, b_j: int) -> int:
    """Return the ring distance of two places."""
    di, dj = a_i - b_i, a_j - b_j
    return int(max(abs(di), abs(dj), abs(di - dj)))


@compiled
def coordinates(cell: int) -> tuple[int, int]:
    """Return plane coordinates of a cell among those of its resolution under the same base cell."""
    i = j = 0
    for step in range(1, ((cell >> 52) & 15) + 1):
        digit = (cell >> (45 - 3 * step)) & 7
        # Each resolution is turned against the one before, to and fro.
        if step % 2:
            i, j = 2 * i + j, 3 * j - i
        else:
            i, j = 3 * i - j, i + 2 * j
        # Children around the middle one, along two axes 120 degrees apart.
        i += (digit in (4, 6)) - (digit in (1, 3))
        j += (digit in (2, 6)) - (digit in (1, 5))
    return i, j


@compiled
def _plane(cells: Ints, pentagons: Ints) -> Ints:
    """Return coordinates of cells of one resolution, or none where they are not all under one hexagon."""
    found = np.empty((len(cells), 2), np.int64)
    for one in pentagons:
        if len(cells) > 0 and _base_cell(cells[0]) == one:
            return found[:0]
    for n in range(len(cells)):
        if _base_cell(cells[n]) != _base_cell(cells[0]):
            return found[:0]
        found[n, 0], found[n, 1] = coordinates(cells[n])
    return found


@compiled
def _reached(middles: Ints, rings: int, resolution: int, steps: int, ancestors: Ints) -> Ints:
    """Tell for each ancestor (1 or 0) whether it holds a place within ``rings``; last, whether any other does."""
    found = np.zeros(len(ancestors) + 1, np.int64)
    for m in range(len(middles)):
        for di in range(-rings, rings + 1):
            for dj in range(max(-rings, di - rings), min(rings, di + rings) + 1):
                i, j = middles[m, 0] + di, middles[m, 1] + dj
                for level in range(resolution, resolution - steps, -1):
                    # The nearest point of the coarser lattice; there are no ties among sevenths.
                    if level % 2:
                        i, j = (2 * (3 * i - j) + 7) // 14, (2 * (i + 2 * j) + 7) // 14
                    else:
                        i, j = (2 * (2 * i + j) + 7) // 14, (2 * (3 * j - i) + 7) // 14
                at = len(ancestors)
                for a in range(len(ancestors)):
                    if ancestors[a, 0] == i and ancestors[a, 1] == j:
                        at = a
                found[at] = 1
    return found


def plane(cells: Ints) -> Ints:
    """Return coordinates (n x 2) of cells of one resolution on one lattice; none where there is no such lattice."""
    return _plane(cells, _PENTAGONS)


def parents_within(cells: Sequence[int], rings: int) -> tuple[list[int], bool]:
    """Return, ascending, the sheets' ancestors of all cells within ``rings`` of some, and whether all have a plane."""
    family, places = _family(frozenset(map(parent, cells)))
    if rings <= _PLANE_RINGS and len(places):
        middles = plane(np.array(cells, np.int64))
        reached = _reached(middles, rings, h3.get_resolution(cells[0]), PARENT_STEPS, places).tolist()
        if not reached[-1]:
            return [above for above, hit in zip(family, reached, strict=False) if hit], True
    found: set[int] = set()
    for cell in cells:
        found.update(parents_around(cell, rings))
    return sorted(found), False


@lru_cache(maxsize=1 << 10)
def _family(own: frozenset[int]) -> tuple[tuple[int, ...], Ints]:
    """Return ancestors and their neighbours, ascending, with their coordinates."""
    family = sorted({near for one in own for near in h3.grid_disk(one, 1)})
    return tuple(family), plane(np.array(family, np.int64))
