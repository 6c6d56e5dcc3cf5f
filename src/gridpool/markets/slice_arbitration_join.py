"""The compiled join of Pareto fronts: long ones shortened by a Lagrangian bound, then searched in ascending order."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt
from numba import njit

__all__ = ["Ints", "compiled", "join", "tightened"]

F = TypeVar("F", bound=Callable[..., Any])
Ints = npt.NDArray[np.int64]


def compiled(function: F) -> F:
    """Compile with numba and keep the machine code on disk."""
    return cast(F, njit(cache=True)(function))


@compiled
def tightened(
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
def join(
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
