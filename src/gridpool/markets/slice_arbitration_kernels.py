"""Compiled kernels of the arbitration: the same decision as the plain search, over 64-bit integer columns."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt
from numba import njit

from gridpool.markets.slice_arbitration import SegmentOffer
from gridpool.markets.slice_arbitration_search import Limits

__all__ = ["OfferColumns", "warm_up"]

LONG_JOIN = 4096
"""Fronts whose pairs (all but the longest front multiplied) exceed this are shortened before they are joined."""

F = TypeVar("F", bound=Callable[..., Any])
Ints = npt.NDArray[np.int64]


def compiled(function: F) -> F:
    """Compile with numba and keep the machine code on disk."""
    return cast(F, njit(cache=True)(function))


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
    kept = np.empty(starts[-1], np.int64)
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
        bound = _tightened(first, second, third, starts, fronts, sizes, limit_0, limit_1, limit_2)
        if sizes.min() == 0:
            picks[:] = -1
            return pareto
    _join(first, second, third, starts, fronts, sizes, bound, limit_1, limit_2, picks)
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
    low_0, low_1, low_2 = low[0], low[1], low[2]
    high_0, high_1, high_2 = low_0, low_1, low_2
    for i in range(start, stop):
        if (
            bandwidth[i] >= floor
            and party[i] != excluded
            and first[i] <= room_0
            and second[i] <= room_1
            and third[i] <= room_2
        ):
            kept[count] = i
            count += 1
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
        weight_0 = 4.0 if turn == 1 else 1.0
        weight_1 = 4.0 if turn == 2 else 1.0
        weight_2 = 4.0 if turn == 3 else 1.0
        best = np.inf
        pivot = kept[0]
        for k in range(count):
            i = kept[k]
            worst = max(
                weight_0 * scale_0 * (first[i] - low_0),
                weight_1 * scale_1 * (second[i] - low_1),
                weight_2 * scale_2 * (third[i] - low_2),
            )
            if worst < best:
                best = worst
                pivot = i
        p_0, p_1, p_2 = first[pivot], second[pivot], third[pivot]
        left = 0
        for k in range(count):
            i = kept[k]
            dominated = p_0 <= first[i] and p_1 <= second[i] and p_2 <= third[i]
            if not dominated or i == pivot or (p_0 == first[i] and p_1 == second[i] and p_2 == third[i]):
                kept[left] = i
                left += 1
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


@compiled
def _tightened(
    first: Ints,
    second: Ints,
    third: Ints,
    starts: Ints,
    fronts: Ints,
    sizes: Ints,
    limit_0: int,
    limit_1: int,
    limit_2: int,
) -> int:
    """Shorten long fronts by the Lagrangian bound: drop what cannot be part of a choice as good as one at hand.

    Gives the first figure of the best choice met (``limit_0`` when none was). Multipliers and bounds are floats, with
    a margin far above their rounding, so that only offers that provably cannot win are dropped.
    """
    segments = len(sizes)
    low = np.zeros(3)
    span = np.ones(3)
    figures = np.empty((3, starts[-1]))
    for s in range(segments):
        for k in range(starts[s], starts[s] + sizes[s]):
            figures[0, k] = first[fronts[k]]
            figures[1, k] = second[fronts[k]]
            figures[2, k] = third[fronts[k]]
        for j in range(3):
            line = figures[j, starts[s] : starts[s] + sizes[s]]
            low[j] += line.min()
            span[j] += line.max() - line.min()
    room_1, room_2 = (limit_1 - low[1]) / span[1], (limit_2 - low[2]) / span[2]
    for s in range(segments):
        for j in range(3):
            line = figures[j, starts[s] : starts[s] + sizes[s]]
            line[:] = (line - line.min()) / span[j]
    upper = limit_0
    rate_1, rate_2, kept_1, kept_2 = 0.0, 0.0, 0.0, 0.0
    top = -np.inf
    pick = np.zeros(segments, np.int64)
    stride = 1.0
    stale = 0
    for _ in range(80):
        value = -rate_1 * room_1 - rate_2 * room_2
        for s in range(segments):
            least = np.inf
            for k in range(starts[s], starts[s] + sizes[s]):
                reduced = figures[0, k] + rate_1 * figures[1, k] + rate_2 * figures[2, k]
                if reduced < least:
                    least = reduced
                    pick[s] = k
            value += least
        if value > top + 1e-6:
            top, kept_1, kept_2, stale = value, rate_1, rate_2, 0
        else:
            stale += 1
            if stale == 4:
                stride *= 0.5
                stale = 0
                rate_1, rate_2 = kept_1, kept_2
                if stride < 0.01:
                    break
                continue
        upper = _completed(first, second, third, starts, fronts, sizes, pick, upper, limit_1, limit_2)
        goal = (upper - low[0]) / span[0]
        if top > goal + 1e-7:
            break
        slope_1, slope_2 = -room_1, -room_2
        for s in range(segments):
            slope_1 += figures[1, pick[s]]
            slope_2 += figures[2, pick[s]]
        # A multiplier at zero that wants to shrink plays no part in the step's length.
        steep_1 = slope_1 if rate_1 > 0 or slope_1 > 0 else 0.0
        steep_2 = slope_2 if rate_2 > 0 or slope_2 > 0 else 0.0
        norm = steep_1 * steep_1 + steep_2 * steep_2
        if norm < 1e-18:
            break
        length = stride * max(goal - value, 1e-4) / norm
        rate_1 = max(0.0, rate_1 + length * steep_1)
        rate_2 = max(0.0, rate_2 + length * steep_2)
    goal = (upper - low[0]) / span[0]
    gap = goal - top + 1e-7 * (1.0 + abs(goal) + abs(top) + kept_1 * (1 + abs(room_1)) + kept_2 * (1 + abs(room_2)))
    for s in range(segments):
        least = np.inf
        for k in range(starts[s], starts[s] + sizes[s]):
            least = min(least, figures[0, k] + kept_1 * figures[1, k] + kept_2 * figures[2, k])
        left = 0
        for k in range(starts[s], starts[s] + sizes[s]):
            if figures[0, k] + kept_1 * figures[1, k] + kept_2 * figures[2, k] - least <= gap:
                fronts[starts[s] + left] = fronts[k]
                left += 1
        sizes[s] = left
    return upper


@compiled
def _completed(
    first: Ints,
    second: Ints,
    third: Ints,
    starts: Ints,
    fronts: Ints,
    sizes: Ints,
    pick: Ints,
    upper: int,
    limit_1: int,
    limit_2: int,
) -> int:
    """Exchange one offer of a choice at a time for the best that fits; give the smallest first figure seen so far."""
    all_0, all_1, all_2 = 0, 0, 0
    for s in range(len(sizes)):
        i = fronts[pick[s]]
        all_0, all_1, all_2 = all_0 + first[i], all_1 + second[i], all_2 + third[i]
    for s in range(len(sizes)):
        i = fronts[pick[s]]
        rest_0, rest_1, rest_2 = all_0 - first[i], all_1 - second[i], all_2 - third[i]
        for k in range(starts[s], starts[s] + sizes[s]):
            j = fronts[k]
            if rest_0 + first[j] >= upper:
                break
            if rest_1 + second[j] <= limit_1 and rest_2 + third[j] <= limit_2:
                upper = rest_0 + first[j]
                break
    return upper


@compiled
def _join(
    first: Ints,
    second: Ints,
    third: Ints,
    starts: Ints,
    fronts: Ints,
    sizes: Ints,
    limit_0: int,
    limit_1: int,
    limit_2: int,
    picks: Ints,
) -> None:
    """Go through the fronts in ascending order, the longest innermost, and cut where the bounds cannot win."""
    segments = len(sizes)
    last = segments - 1
    order = np.argsort(sizes, kind="mergesort")
    beyond = np.zeros((segments + 1, 3), np.int64)
    for level in range(last, -1, -1):
        s = order[level]
        line = fronts[starts[s] : starts[s] + sizes[s]]
        beyond[level, 0] = beyond[level + 1, 0] + first[line[0]]
        beyond[level, 1] = beyond[level + 1, 1] + second[line].min()
        beyond[level, 2] = beyond[level + 1, 2] + third[line].min()
    # Figures of the innermost front side by side, with the least second and third figure up to each place.
    inner = fronts[starts[order[last]] : starts[order[last]] + sizes[order[last]]]
    inner_1, inner_2, inner_3 = first[inner], second[inner], third[inner]
    least_2, least_3 = inner_2.copy(), inner_3.copy()
    for k in range(1, len(inner)):
        least_2[k] = min(least_2[k], least_2[k - 1])
        least_3[k] = min(least_3[k], least_3[k - 1])
    found = False
    best_0, best_1, best_2 = limit_0, limit_1, limit_2
    spent = np.zeros((segments + 1, 3), np.int64)
    at = np.zeros(segments, np.int64)
    trial = np.zeros(segments, np.int64)
    level = 0
    picks[:] = -1
    while level >= 0:
        if level == last:
            s_0, s_1, s_2 = spent[level, 0], spent[level, 1], spent[level, 2]
            low = max(_reached(least_2, limit_1 - s_1), _reached(least_3, limit_2 - s_2))
            for k in range(low, len(inner)):
                t_0 = s_0 + inner_1[k]
                if t_0 > best_0:
                    break
                t_1, t_2 = s_1 + inner_2[k], s_2 + inner_3[k]
                if t_1 > limit_1 or t_2 > limit_2:
                    continue
                trial[order[last]] = inner[k] - starts[order[last]]
                better = not found or t_0 < best_0
                if not better and (t_1 != best_1 or t_2 != best_2):
                    better = t_1 < best_1 or (t_1 == best_1 and t_2 < best_2)
                elif not better:
                    for s in range(segments):
                        if trial[s] != picks[s]:
                            better = trial[s] < picks[s]
                            break
                if better:
                    found = True
                    best_0, best_1, best_2 = t_0, t_1, t_2
                    picks[:] = trial
                break
            level -= 1
            continue
        s = order[level]
        if at[level] == sizes[s]:
            at[level] = 0
            level -= 1
            continue
        i = fronts[starts[s] + at[level]]
        at[level] += 1
        t_0 = spent[level, 0] + first[i]
        if t_0 + beyond[level + 1, 0] > best_0:
            at[level] = 0
            level -= 1
            continue
        t_1, t_2 = spent[level, 1] + second[i], spent[level, 2] + third[i]
        if t_1 + beyond[level + 1, 1] > limit_1 or t_2 + beyond[level + 1, 2] > limit_2:
            continue
        trial[s] = i - starts[s]
        spent[level + 1, 0], spent[level + 1, 1], spent[level + 1, 2] = t_0, t_1, t_2
        level += 1


@compiled
def _reached(least: Ints, limit: int) -> int:
    """Find the first place of a descending column that is within ``limit``."""
    low, high = 0, len(least)
    while low < high:
        middle = (low + high) // 2
        if least[middle] <= limit:
            high = middle
        else:
            low = middle + 1
    return low
