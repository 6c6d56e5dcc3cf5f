"""The join of Pareto fronts in plain Python: what small books run, and the oracle of the compiled kernels."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

__all__ = ["Limits", "Triple", "cheapest", "pareto_front"]

Limits = tuple[int, int, int]
Triple = tuple[int, int, int, int]
"""Three figures to keep small, in order of importance, and the offer's place in its segment (by id)."""


def cheapest(segments: Sequence[Sequence[Triple]], limits: Limits) -> tuple[tuple[int, ...] | None, int]:
    """Pick one triple a segment with the lexicographically smallest sums within ``limits``; ties by place.

    Gives the places in segment order (None when nothing fits) and how many triples stood on the fronts.
    """
    fronts = [pareto_front(offers) for offers in _reachable(segments, limits)]
    pareto = sum(map(len, fronts))
    if not all(fronts):
        return None, pareto
    order = sorted(range(len(fronts)), key=lambda s: (len(fronts[s]), s))
    return _join([fronts[s] for s in order], order, limits), pareto


def pareto_front(offers: Sequence[Triple]) -> list[Triple]:
    """Keep the triples that no other undercuts in all three figures, in ascending order; of equal ones the first."""
    front: list[Triple] = []
    seconds: list[int] = []
    thirds: list[int] = []
    for triple in sorted(offers):
        _, second, third, _ = triple
        at = bisect_right(seconds, second)
        if at and thirds[at - 1] <= third:
            continue
        front.append(triple)
        start = bisect_left(seconds, second)
        end = start
        while end < len(seconds) and thirds[end] >= third:
            end += 1
        seconds[start:end] = [second]
        thirds[start:end] = [third]
    return front


def _reachable(segments: Sequence[Sequence[Triple]], limits: Limits) -> list[list[Triple]]:
    """Drop the triples that break a limit even beside the smallest figures of all other segments."""
    if not all(segments):
        return [[] for _ in segments]
    least = [tuple(min(t[j] for t in offers) for j in range(3)) for offers in segments]
    slack = [limits[j] - sum(figures[j] for figures in least) for j in range(3)]
    return [
        [t for t in offers if all(t[j] - low[j] <= slack[j] for j in range(3))]
        for offers, low in zip(segments, least, strict=True)
    ]


def _join(fronts: Sequence[Sequence[Triple]], order: Sequence[int], limits: Limits) -> tuple[int, ...] | None:
    last = len(fronts) - 1
    beyond = [(0, 0, 0)] * (last + 2)
    for level in range(last, -1, -1):
        low = [min(t[j] for t in fronts[level]) for j in range(3)]
        beyond[level] = (beyond[level + 1][0] + low[0], beyond[level + 1][1] + low[1], beyond[level + 1][2] + low[2])
    best: tuple[tuple[int, int, int], tuple[int, ...]] | None = None
    picks = [0] * len(fronts)

    def descend(level: int, spent: tuple[int, int, int]) -> None:
        nonlocal best
        rest = beyond[level + 1]
        for first, second, third, place in fronts[level]:
            total = (spent[0] + first, spent[1] + second, spent[2] + third)
            if total[0] + rest[0] > limits[0] or (best is not None and total[0] + rest[0] > best[0][0]):
                return
            if total[1] + rest[1] > limits[1] or total[2] + rest[2] > limits[2]:
                continue
            picks[order[level]] = place
            if level == last:
                found = (total, tuple(picks))
                if best is None or found < best:
                    best = found
                return
            descend(level + 1, total)

    descend(0, (0, 0, 0))
    return None if best is None else best[1]
