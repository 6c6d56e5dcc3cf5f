"""The best packages for channels that are flat in a zone, by dynamic programming; equal to the MILP.

In each zone only the floor(cap / k) most valuable packages of k blocks can matter. URLLC is a knapsack over the
zone's blocks, mMTC (one block each) the prefix sums of its most valuable requests, and the zones are combined by
max-plus convolution over the power limit (and over the MVNO's share where that is below 1). Sums are integers:
a value of 2^-40 of the greatest, then the number of URLLC, then of mMTC slices, so that equal values compare equal.
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from numba import njit

from gridpool.radio.packages import URLLC, Packages, share_blocks

__all__ = ["FlatProblem", "best_zone_sizes", "flat_problem", "solve"]

Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]
Bytes: TypeAlias = npt.NDArray[np.uint8]


LARGEST_SHARE = 320
"""Most blocks over all slots that an MVNO's binding share may have in the dynamic programme."""


@dataclass(frozen=True, slots=True)
class FlatProblem:
    """Packages of one MVNO grouped by cell: cell c holds positions ``starts[c]`` to ``starts[c + 1]``.

    ``kind`` is 2 x zone + (1 for URLLC), ``blocks`` 0 for what can never be granted, ``order`` the item at each
    position (None where positions are items).
    """

    starts: Ints
    worth: Floats
    blocks: Bytes
    kind: Bytes
    zones: Ints
    urllc_blocks: int
    share_blocks: int
    guard_blocks: int
    slots: int
    order: Ints | None = None

    @property
    def within_reach(self) -> bool:
        """Whether the dynamic programme is small: its table grows with (share x slots) squared."""
        return self.share_blocks >= self.zones.sum() or self.share_blocks * self.slots <= LARGEST_SHARE


def flat_problem(items: Packages, *, mvno: int = 0, worth: Floats | None = None) -> FlatProblem:
    """Group the packages of one MVNO by cell; ``worth`` replaces the items' own (n), negative meaning not wanted."""
    instance = items.instance
    mine = np.flatnonzero(items.mvno == mvno)
    order = mine[np.argsort(items.cell[mine], kind="stable")]
    value = (items.worth if worth is None else worth)[order]
    blocks = np.where(value >= 0.0, items.blocks[order], 0)
    return FlatProblem(
        starts=np.searchsorted(items.cell[order], np.arange(len(items.cell_names) + 1)).astype(np.int64),
        worth=np.maximum(value, 0.0),
        blocks=blocks.astype(np.uint8),
        kind=(2 * items.zone[order] + (items.slice[order] == URLLC)).astype(np.uint8),
        zones=np.array(instance.zones, dtype=np.int64),
        urllc_blocks=instance.urllc_blocks,
        share_blocks=int(share_blocks(instance)[mvno]),
        guard_blocks=instance.numerology.guard_blocks,
        slots=instance.slots,
        order=order,
    )


def solve(problem: FlatProblem) -> npt.NDArray[np.bool_]:
    """Return which positions of the problem are granted in the best allocation of every cell."""
    granted = np.zeros(len(problem.worth), dtype=np.uint8)
    zones = problem.zones
    if problem.share_blocks < zones.sum():
        sizes = np.empty((len(problem.starts) - 1, 4), dtype=np.int64)
        _choose_within(*_arguments(problem, zones), problem.share_blocks, True, granted, sizes)
    else:
        _choose(*_arguments(problem, zones), granted)
    return granted.view(np.bool_)


def best_zone_sizes(problem: FlatProblem, resource_blocks: int) -> tuple[npt.NDArray[np.bool_], Ints]:
    """Return the grants and the zone sizes (cells by 4) that are best where each cell may split its blocks freely.

    Blocks that no package needs go to the inner zone.
    """
    granted = np.zeros(len(problem.worth), dtype=np.uint8)
    sizes = np.empty((len(problem.starts) - 1, 4), dtype=np.int64)
    open_zones = np.full(4, resource_blocks, dtype=np.int64)
    _choose_within(*_arguments(problem, open_zones), resource_blocks, False, granted, sizes)
    sizes[:, 0] += resource_blocks - sizes.sum(axis=1)
    return granted.view(np.bool_), sizes


def _arguments(problem: FlatProblem, zones: Ints) -> tuple[Ints, Floats, Bytes, Bytes, Ints, int, int, int]:
    return (
        problem.starts,
        problem.worth,
        problem.blocks,
        problem.kind,
        zones,
        problem.urllc_blocks,
        problem.guard_blocks,
        problem.slots,
    )


@njit(cache=True, nogil=True)
def _layout(zones, power, slots):  # type: ignore[no-untyped-def]
    """Return the capacity and first place of every class: URLLC of zone z and k blocks, then mMTC of zone z."""
    widest = 0
    for z in range(4):
        widest = max(widest, min(zones[z], power))
    step = widest + 1
    room = np.zeros(4 * step + 4, dtype=np.int64)
    for z in range(4):
        limit = min(zones[z], power)
        for k in range(1, limit + 1):
            room[z * step + k] = limit // k
        room[4 * step + z] = zones[z] * slots
    begin = np.zeros(len(room) + 1, dtype=np.int64)
    for c in range(len(room)):
        begin[c + 1] = begin[c] + room[c]
    return step, room, begin


@njit(cache=True, nogil=True)
def _all_fit(a, b, blocks, kind, zones, power, total, guard):  # type: ignore[no-untyped-def]
    """Whether every package of positions a to b can be granted at once in one slot.

    Blocks are counted by kind in the eight bytes of one number; it stops before a byte could overflow.
    """
    needed = np.uint64(0)
    seen = 0
    for i in range(a, b):
        needed += np.uint64(blocks[i]) << (np.uint64(kind[i]) << np.uint64(3))
        seen += blocks[i]
        if seen > total:
            return False
    used = 0
    for z in range(4):
        pair = int(needed >> np.uint64(16 * z))
        mmtc, urllc = pair & 255, (pair >> 8) & 255
        between = guard if urllc > 0 and mmtc > 0 else 0
        if urllc + between + mmtc > zones[z]:
            return False
        used += urllc
    return used <= power


@njit(cache=True, nogil=True)
def _gather(a, b, worth, blocks, kind, step, room, begin, count, least, item, value):  # type: ignore[no-untyped-def]
    """Keep the most valuable positions of every class in falling order, earlier ones first where equal.

    ``least[kind, k]`` is what a package of its class must exceed to be kept: one comparison settles most of them.
    """
    for c in range(len(room)):
        count[c] = 0
    least[:] = np.inf
    for z in range(4):
        for k in range(1, step):
            if room[z * step + k] > 0:
                least[2 * z + 1, k] = -1.0
        if room[4 * step + z] > 0:
            least[2 * z, 1:] = -1.0
    for i in range(a, b):
        v = worth[i]
        if v <= least[kind[i], blocks[i]]:
            continue
        k = int(blocks[i])
        z = int(kind[i]) >> 1
        urllc = kind[i] & 1
        c = z * step + k if urllc else 4 * step + z
        full = count[c] == room[c]
        j = begin[c] + count[c] - (1 if full else 0)
        while j > begin[c] and value[j - 1] < v:
            value[j] = value[j - 1]
            item[j] = item[j - 1]
            j -= 1
        value[j] = v
        item[j] = i
        if not full:
            count[c] += 1
        if count[c] == room[c]:
            last = value[begin[c] + room[c] - 1]
            if urllc:
                least[kind[i], k] = last
            else:
                least[kind[i], 1:] = last


@njit(cache=True, nogil=True)
def _unit(step, begin, count, value, blocks_in_all):  # type: ignore[no-untyped-def]
    """Return the bits that hold a count and the factor from worth to integer steps, for sums within 62 bits."""
    bits = 1
    while (1 << bits) <= blocks_in_all:
        bits += 1
    greatest = 0.0
    for c in range(len(count)):
        if count[c] > 0:
            greatest = max(greatest, value[begin[c]])
    steps = np.float64(1 << max(61 - 3 * bits, 1))
    return bits, steps / greatest if greatest > 0.0 else 0.0


@njit(cache=True, nogil=True)
def _knapsack(z, step, begin, count, value, limit, bits, factor, row, best, take, row_place, row_width):  # type: ignore[no-untyped-def]
    """Fill ``best[u]`` with what URLLC of zone z is worth on u blocks; return the next free row of ``take``."""
    for u in range(limit + 1):
        best[u] = 0
    for k in range(1, limit + 1):
        c = z * step + k
        for j in range(begin[c], begin[c] + count[c]):
            gain = (np.int64(np.rint(value[j] * factor)) << (2 * bits)) + (np.int64(1) << bits)
            row_place[row] = j
            row_width[row] = k
            for u in range(k):
                take[row, u] = 0
            for u in range(limit, k - 1, -1):
                candidate = best[u - k] + gain
                if candidate > best[u]:
                    best[u] = candidate
                    take[row, u] = 1
                else:
                    take[row, u] = 0
            row += 1
    return row


@njit(cache=True, nogil=True)
def _prefix(c, begin, count, value, bits, factor, sums):  # type: ignore[no-untyped-def]
    sums[0] = 0
    for j in range(count[c]):
        sums[j + 1] = sums[j] + (np.int64(np.rint(value[begin[c] + j] * factor)) << (2 * bits)) + 1


@njit(cache=True, nogil=True)
def _mmtc_left(cap, u, guard, slots, waiting):  # type: ignore[no-untyped-def]
    """Return how many mMTC packages fit beside u URLLC blocks."""
    left = cap - u - (guard if u > 0 else 0)
    return min(waiting, slots * left) if left > 0 else 0


@njit(cache=True, nogil=True)
def _grant(z, u, mmtc, step, begin, item, rows, take, row_place, row_width, granted):  # type: ignore[no-untyped-def]
    for row in range(rows[z + 1] - 1, rows[z] - 1, -1):
        if take[row, u]:
            granted[item[row_place[row]]] = 1
            u -= row_width[row]
    first = begin[4 * step + z]
    for j in range(first, first + mmtc):
        granted[item[j]] = 1


@njit(cache=True, nogil=True)
def _choose(starts, worth, blocks, kind, zones, power, guard, slots, granted):  # type: ignore[no-untyped-def]
    """Mark the best packages of every cell whose share is all of its blocks."""
    step, room, begin = _layout(zones, power, slots)
    total = zones.sum()
    size = begin[-1]
    count = np.zeros(len(room), dtype=np.int64)
    least = np.empty((8, 256))
    item = np.zeros(size, dtype=np.int64)
    value = np.zeros(size)
    take = np.zeros((begin[4 * step] + 1, step), dtype=np.uint8)
    row_place = np.zeros(begin[4 * step] + 1, dtype=np.int64)
    row_width = np.zeros(begin[4 * step] + 1, dtype=np.int64)
    rows = np.zeros(5, dtype=np.int64)
    best = np.zeros(step, dtype=np.int64)
    sums = np.zeros(total * slots + 1, dtype=np.int64)
    top = min(power, total)
    reach = np.zeros((5, top + 1), dtype=np.int64)
    spent = np.zeros((4, top + 1), dtype=np.int64)
    cells = len(starts) - 1
    if cells > 1:
        for i in range(len(blocks)):
            granted[i] = blocks[i] > 0
    for cell in range(len(starts) - 1):
        a, b = starts[cell], starts[cell + 1]
        if slots == 1 and _all_fit(a, b, blocks, kind, zones, power, total, guard):
            if cells == 1:
                for i in range(a, b):
                    granted[i] = blocks[i] > 0
            continue
        if cells > 1:
            granted[a:b] = 0
        _gather(a, b, worth, blocks, kind, step, room, begin, count, least, item, value)
        bits, factor = _unit(step, begin, count, value, total * slots)
        for p in range(top + 1):
            reach[0, p] = 0
        row = 0
        for z in range(4):
            rows[z] = row
            limit = min(zones[z], power)
            row = _knapsack(z, step, begin, count, value, limit, bits, factor, row, best, take, row_place, row_width)
            _prefix(4 * step + z, begin, count, value, bits, factor, sums)
            waiting = count[4 * step + z]
            for p in range(top + 1):
                reach[z + 1, p] = -1
            for u in range(limit + 1):
                here = best[u] + sums[_mmtc_left(zones[z], u, guard, slots, waiting)]
                for p in range(u, top + 1):
                    candidate = reach[z, p - u] + here
                    if candidate > reach[z + 1, p]:
                        reach[z + 1, p] = candidate
                        spent[z, p] = u
        rows[4] = row
        p = top
        for z in range(3, -1, -1):
            u = spent[z, p]
            mmtc = _mmtc_left(zones[z], u, guard, slots, count[4 * step + z])
            _grant(z, u, mmtc, step, begin, item, rows, take, row_place, row_width, granted)
            p -= u


@njit(cache=True, nogil=True)
def _mmtc_within(c, u, cap, guard, slots, waiting, shared):  # type: ignore[no-untyped-def]
    """Return how many mMTC packages fit beside u URLLC blocks in c units.

    A unit is a block in one slot of a zone of ``cap`` blocks where zones share a limit, else a block of the zone.
    """
    if shared:
        return min(c - slots * u, _mmtc_left(cap, u, guard, slots, waiting))
    return _mmtc_left(c, u, guard, slots, waiting)


@njit(cache=True, nogil=True)
def _choose_within(starts, worth, blocks, kind, zones, power, guard, slots, total, shared, granted, sizes):  # type: ignore[no-untyped-def]
    """Mark the best packages of every cell that use at most ``total`` blocks a slot; report the units of each zone."""
    step, room, begin = _layout(zones, power, slots)
    per_block = slots if shared else 1
    count = np.zeros(len(room), dtype=np.int64)
    least = np.empty((8, 256))
    item = np.zeros(begin[-1], dtype=np.int64)
    value = np.zeros(begin[-1])
    take = np.zeros((begin[4 * step] + 1, step), dtype=np.uint8)
    row_place = np.zeros(begin[4 * step] + 1, dtype=np.int64)
    row_width = np.zeros(begin[4 * step] + 1, dtype=np.int64)
    rows = np.zeros(5, dtype=np.int64)
    best = np.zeros(step, dtype=np.int64)
    widest = 0
    for z in range(4):
        widest = max(widest, zones[z])
    sums = np.zeros(widest * slots + 1, dtype=np.int64)
    top = min(power, total)
    units = total * per_block
    reach = np.zeros((5, top + 1, units + 1), dtype=np.int64)
    spent = np.zeros((4, top + 1, units + 1), dtype=np.int16)
    given = np.zeros((4, top + 1, units + 1), dtype=np.int16)
    for cell in range(len(starts) - 1):
        _gather(starts[cell], starts[cell + 1], worth, blocks, kind, step, room, begin, count, least, item, value)
        bits, factor = _unit(step, begin, count, value, total * slots)
        reach[0] = 0
        row = 0
        for z in range(4):
            rows[z] = row
            limit = min(zones[z], power)
            row = _knapsack(z, step, begin, count, value, limit, bits, factor, row, best, take, row_place, row_width)
            _prefix(4 * step + z, begin, count, value, bits, factor, sums)
            waiting = count[4 * step + z]
            reach[z + 1] = -1
            for u in range(min(limit, top) + 1):
                for c in range(u * per_block, min(zones[z] * per_block, units) + 1):
                    here = best[u] + sums[_mmtc_within(c, u, zones[z], guard, slots, waiting, shared)]
                    for p in range(u, top + 1):
                        for t in range(c, units + 1):
                            candidate = reach[z, p - u, t - c] + here
                            if candidate > reach[z + 1, p, t]:
                                reach[z + 1, p, t] = candidate
                                spent[z, p, t] = u
                                given[z, p, t] = c
        rows[4] = row
        p, t = top, units
        for z in range(3, -1, -1):
            u, c = int(spent[z, p, t]), int(given[z, p, t])
            sizes[cell, z] = c
            mmtc = _mmtc_within(c, u, zones[z], guard, slots, count[4 * step + z], shared)
            _grant(z, u, mmtc, step, begin, item, rows, take, row_place, row_width, granted)
            p -= u
            t -= c
