"""The optimal methods: dynamic programming where that is exact, mixed-integer programming elsewhere."""

from typing import Literal

import numpy as np

from gridpool.radio.bounds import upper_bound
from gridpool.radio.exact import flat_problem, solve
from gridpool.radio.occupancy import Choice, Occupancy
from gridpool.radio.packages import Packages
from gridpool.radio.placement import place_granted

__all__ = ["Found", "exact", "optimum"]

Found = tuple[list[Choice], str, float | None, bool]
"""Choices, the algorithm that found them, the bound on the objective that it proved, and whether they are optimal."""

FADING_NODES = 300
"""Largest number of nodes whose channels differ by block that go to the mixed-integer solver."""


def optimum(items: Packages, method: Literal["exact", "milp", "lagrangian"], time_limit_s: float) -> Found:
    """Run one of the optimal methods on packages."""
    if method == "lagrangian":
        from gridpool.radio.lagrangian import priced

        return priced(items)
    if method == "exact":
        return exact(items, time_limit_s)
    return _second_pass(items, *_milp(items, time_limit_s))


def exact(items: Packages, time_limit_s: float = 60.0) -> Found:
    """Solve each MVNO by dynamic programming; where these solutions clash, or channels differ by block, solve (7).

    With fading and more than 300 nodes, counts come from dynamic programming and blocks from assignment: not proven
    optimal, and the gap says by how much at most.
    """
    if items.rates is not None:
        if len(items.instance.links) > FADING_NODES:
            from gridpool.radio.fading import assigned

            return _second_pass(items, *assigned(items))
        return _second_pass(items, *_milp(items, time_limit_s))
    granted = np.zeros(len(items), dtype=bool)
    for mvno in range(len(items.instance.mvnos)):
        problem = flat_problem(items, mvno=mvno)
        if not problem.within_reach:
            return _second_pass(items, *_milp(items, time_limit_s))
        assert problem.order is not None
        granted[problem.order] = solve(problem)
    choices = place_granted(items, granted)
    if not _together(items, choices):
        return _second_pass(items, *_milp(items, time_limit_s))
    value = float(items.worth[granted].sum())
    return _second_pass(items, choices, "dynamic programming", value, True)


def _milp(items: Packages, time_limit_s: float) -> Found:
    from gridpool.radio.milp import best_packages

    solved = best_packages(items, time_limit_s=time_limit_s)
    return solved.choices, solved.how, solved.bound, solved.optimal


def _second_pass(items: Packages, choices: list[Choice], how: str, bound: float | None, optimal: bool) -> Found:
    """Hand blocks that shares left idle to who still asks, by worth, where the instance is work-conserving."""
    if not items.instance.work_conserving:
        return choices, how, bound, optimal
    state = Occupancy(items)
    state.ignore_shares = True
    for choice in choices:
        state.take(choice)
    done = {choice.item for choice in choices}
    choices = list(choices)
    for item in np.argsort(-items.worth, kind="stable").tolist():
        more = state.fitting(item) if item not in done else None
        if more is not None:
            state.take(more)
            choices.append(more)
    return choices, f"{how}, then a work-conserving pass", upper_bound(items), False


def _together(items: Packages, choices: list[Choice]) -> bool:
    """Whether the MVNOs' separate solutions leave no block taken twice and keep the budget."""
    instance = items.instance
    used: dict[tuple[int, int, int], int] = {}
    total = [0] * len(instance.mvnos)
    for choice in choices:
        item = choice.item
        for slot, blocks in zip(choice.slots, choice.resource_blocks, strict=True):
            key = (int(items.cell[item]), slot, int(items.zone[item]))
            used[key] = used.get(key, 0) + len(blocks)
            total[int(items.mvno[item])] += len(blocks)
    if instance.budget_blocks is not None and max(total) > instance.budget_blocks:
        return False
    return all(count <= instance.zones[zone] for (_, _, zone), count in used.items())
