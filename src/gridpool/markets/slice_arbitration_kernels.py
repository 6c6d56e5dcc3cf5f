"""Compiled Pareto fronts of the arbitration: the same decision as the plain search, over 64-bit integer columns."""

from collections.abc import Sequence

import numpy as np

from gridpool.markets.slice_arbitration import SegmentOffer
from gridpool.markets.slice_arbitration_join import Ints, compiled, join, tightened
from gridpool.markets.slice_arbitration_search import Limits

__all__ = ["OfferColumns", "warm_up"]

LONG_JOIN = 4096
"""Fronts whose pairs (all but the longest front multiplied) exceed this are shortened before they are joined."""


class OfferColumns:
    """The offers of all segments as columns; within a segment they stand in the order of their ids."""

    def __init__(self, groups: Sequence[Sequence[SegmentOffer]]) -> None:
        offers = [offer for group in groups for offer in group]
        self.figures = tuple(
            np.array([getattr(offer, name) for offer in offers], np.int64) for name in ("cost", "delay_us", "risk_nano")
        )
        self.bandwidth = np.array([offer.bandwidth_kbps for offer in offers], np.int64)
        self.numbers = {party: number for number, party in enumerate(sorted({offer.party for offer in offers}))}
        self.party = np.array([self.numbers[offer.party] for offer in offers], np.int64)
        self.starts = np.zeros(len(groups) + 1, np.int64)
        np.cumsum([len(group) for group in groups], out=self.starts[1:])

    def cheapest(
        self, places: tuple[int, int, int], limits: Limits, floor: int, without: str | None
    ) -> tuple[tuple[int, ...] | None, int]:
        """Search as `slice_arbitration_search.cheapest` does, over figures in the order ``places``."""
        first, second, third = (self.figures[place] for place in places)
        picks = np.zeros(len(self.starts) - 1, np.int64)
        excluded = -1 if without is None else self.numbers[without]
        pareto = _cheapest(
            first, second, third, self.bandwidth, self.party, self.starts, *limits, floor, excluded, picks
        )
        return (None if picks[0] < 0 else tuple(picks.tolist())), pareto


def warm_up() -> None:
    """Load or compile the kernels, so that a decision measured afterwards holds no compile time."""
    group = tuple(SegmentOffer(str(n), "any", "any", n, 9 - n, 1, n) for n in range(10))
    OfferColumns((group, group)).cheapest((0, 1, 2), (100, 100, 100), 0, None)


@compiled
def _cheapest(
    first: Ints,
    second: Ints,
    third: Ints,
    bandwidth: Ints,
    party: Ints,
    starts: Ints,
    limit_0: int,
    limit_1: int,
    limit_2: int,
    floor: int,
    excluded: int,
    picks: Ints,
) -> int:
    segments = len(starts) - 1
    least = np.empty((segments, 3), np.int64)
    top = np.iinfo(np.int64).max
    for s in range(segments):
        low_0, low_1, low_2 = top, top, top
        for i in range(starts[s], starts[s + 1]):
            if bandwidth[i] >= floor and party[i] != excluded:
                low_0 = min(low_0, first[i])
                low_1 = min(low_1, second[i])
                low_2 = min(low_2, third[i])
        if low_0 == top:
            picks[:] = -1
            return 0
        least[s, 0], least[s, 1], least[s, 2] = low_0, low_1, low_2
    fronts = np.empty(starts[-1], np.int64)
    sizes = np.zeros(segments, np.int64)
    kept = np.empty(starts[-1] + 1, np.int64)
    pareto = 0
    for s in range(segments):
        room_0 = limit_0 - least[:, 0].sum() + least[s, 0]
        room_1 = limit_1 - least[:, 1].sum() + least[s, 1]
        room_2 = limit_2 - least[:, 2].sum() + least[s, 2]
        count = _survivors(
            first, second, third, bandwidth, party, starts[s], starts[s + 1],
            room_0, room_1, room_2, floor, excluded, least[s], kept,
        )  # fmt: skip
        order = _sorted(first, second, third, kept[:count])
        sizes[s] = _front(first, second, third, order, fronts[starts[s] : starts[s + 1]])
        pareto += sizes[s]
    if sizes.min() == 0:
        picks[:] = -1
        return pareto
    bound = limit_0
    if sizes.prod() > LONG_JOIN * sizes.max():
        bound = tightened(first, second, third, starts, fronts, sizes, limit_0, limit_1, limit_2)
        if sizes.min() == 0:
            picks[:] = -1
            return pareto
    join(first, second, third, starts, fronts, sizes, bound, limit_1, limit_2, picks)
    return pareto


@compiled
def _survivors(
    first: Ints,
    second: Ints,
    third: Ints,
    bandwidth: Ints,
    party: Ints,
    start: int,
    stop: int,
    room_0: int,
    room_1: int,
    room_2: int,
    floor: int,
    excluded: int,
    low: Ints,
    kept: Ints,
) -> int:
    """Collect the offers within reach of the limits that no pivot undercuts; a pivot is good in all three figures."""
    count = 0
    for i in range(start, stop):
        kept[count] = i
        # Without a branch a try: whether an offer is within reach is hard to foresee.
        within = (bandwidth[i] >= floor) & (party[i] != excluded)
        count += within & (first[i] <= room_0) & (second[i] <= room_1) & (third[i] <= room_2)
    low_0, low_1, low_2 = low[0], low[1], low[2]
    high_0, high_1, high_2 = low_0, low_1, low_2
    for i in kept[:count]:
        high_0 = max(high_0, first[i])
        high_1 = max(high_1, second[i])
        high_2 = max(high_2, third[i])
    # Which offers serve as pivots decides only how much is dropped early, never what is on the front.
    scale_0 = 1.0 / (high_0 - low_0 + 1)
    scale_1 = 1.0 / (high_1 - low_1 + 1)
    scale_2 = 1.0 / (high_2 - low_2 + 1)
    for turn in range(4):
        if count < 64:
            break
        weight_0 = scale_0 * (4.0 if turn == 1 else 1.0)
        weight_1 = scale_1 * (4.0 if turn == 2 else 1.0)
        weight_2 = scale_2 * (4.0 if turn == 3 else 1.0)
        best = np.inf
        pivot = kept[0]
        for i in kept[:count]:
            worst = weight_0 * (first[i] - low_0)
            other = weight_1 * (second[i] - low_1)
            worst = max(worst, other)
            other = weight_2 * (third[i] - low_2)
            worst = max(worst, other)
            if worst < best:
                best = worst
                pivot = i
        p_0, p_1, p_2 = first[pivot], second[pivot], third[pivot]
        left = 0
        for k in range(count):
            i = kept[k]
            kept[left] = i
            dominated = (p_0 <= first[i]) & (p_1 <= second[i]) & (p_2 <= third[i])
            equal = (p_0 == first[i]) & (p_1 == second[i]) & (p_2 == third[i])
            left += (not dominated) | equal
        count = left
    return count


@compiled
def _before(first: Ints, second: Ints, third: Ints, i: int, j: int) -> bool:
    if first[i] != first[j]:
        return bool(first[i] < first[j])
    if second[i] != second[j]:
        return bool(second[i] < second[j])
    if third[i] != third[j]:
        return bool(third[i] < third[j])
    return i < j


@compiled
def _sorted(first: Ints, second: Ints, third: Ints, items: Ints) -> Ints:
    """Merge sort by the three figures, then by place: n log n however the offers lie."""
    count = len(items)
    source, target = items.copy(), np.empty(count, np.int64)
    for low in range(0, count, 8):
        for k in range(low + 1, min(low + 8, count)):
            item = source[k]
            at = k
            while at > low and _before(first, second, third, item, source[at - 1]):
                source[at] = source[at - 1]
                at -= 1
            source[at] = item
    width = 8
    while width < count:
        for low in range(0, count, 2 * width):
            middle, high = min(low + width, count), min(low + 2 * width, count)
            a, b = low, middle
            for at in range(low, high):
                if a < middle and (b >= high or not _before(first, second, third, source[b], source[a])):
                    target[at] = source[a]
                    a += 1
                else:
                    target[at] = source[b]
                    b += 1
        source, target = target, source
        width *= 2
    return source


@compiled
def _front(first: Ints, second: Ints, third: Ints, order: Ints, front: Ints) -> int:
    """Sweep offers in ascending order against a staircase of (second, third): what no earlier one undercuts stays."""
    count = 0
    steps = 0
    stairs_2 = np.empty(len(order), np.int64)
    stairs_3 = np.empty(len(order), np.int64)
    for i in order:
        low, high = 0, steps
        while low < high:
            middle = (low + high) // 2
            if stairs_2[middle] <= second[i]:
                low = middle + 1
            else:
                high = middle
        if low > 0 and stairs_3[low - 1] <= third[i]:
            continue
        front[count] = i
        count += 1
        start = low - 1 if low > 0 and stairs_2[low - 1] == second[i] else low
        end = start
        while end < steps and stairs_3[end] >= third[i]:
            end += 1
        if end == start:
            for k in range(steps, start, -1):
                stairs_2[k] = stairs_2[k - 1]
                stairs_3[k] = stairs_3[k - 1]
            steps += 1
        elif end > start + 1:
            shift = end - start - 1
            for k in range(end, steps):
                stairs_2[k - shift] = stairs_2[k]
                stairs_3[k - shift] = stairs_3[k]
            steps -= shift
        stairs_2[start] = second[i]
        stairs_3[start] = third[i]
    return count
