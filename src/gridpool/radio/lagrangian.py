"""Budgets over many cells by prices: the exact method answers each price, and the dual value bounds the optimum."""

import numpy as np

from gridpool.errors import RefusedInput
from gridpool.radio.bounds import upper_bound
from gridpool.radio.exact import flat_problem, solve
from gridpool.radio.greedy import in_order
from gridpool.radio.occupancy import Choice
from gridpool.radio.packages import URLLC, Floats, Ints, Packages

__all__ = ["priced"]

BISECTIONS = 50


def priced(items: Packages) -> tuple[list[Choice], str, float | None, bool]:
    """Allocate under a budget of blocks for each MVNO over all cells and slots.

    Every block costs its MVNO the same price; cells then decide apart, and the least price at which the budget holds is
    found by bisection. What is left of the budget goes to the remaining packages by worth. Returns the choices, the
    algorithm, the lowest dual value met (a bound on the optimum) and whether the choices reach it.
    """
    slots = items.instance.slots
    cost = items.blocks * np.where(items.slice == URLLC, slots, 1)
    wanted = np.zeros(len(items), dtype=bool)
    dual = 0.0
    for mvno in range(len(items.instance.mvnos)):
        chosen, bound = _at_price(items, mvno, cost)
        wanted |= chosen
        dual += bound
    order = np.lexsort((-items.worth, ~wanted))
    choices = in_order(items, [int(item) for item in order])
    bound = min(dual, upper_bound(items))
    reached = float(sum(items.worth[choice.item] for choice in choices))
    return choices, "prices on blocks", bound, reached >= bound * (1.0 - 1e-12)


def _at_price(items: Packages, mvno: int, cost: Ints) -> tuple[np.ndarray, float]:
    """Return what one MVNO's cells choose at the least price that keeps its budget, and the lowest dual value."""
    budget = items.instance.budget_blocks
    chosen = _answer(items, mvno, items.worth)
    best = float(items.worth[chosen].sum())
    if budget is None or cost[chosen].sum() <= budget:
        return chosen, best
    low, high = 0.0, float(np.max(items.worth / np.maximum(cost, 1), initial=0.0)) * 2.0
    dual, kept = best, np.zeros(len(items), dtype=bool)
    for _ in range(BISECTIONS):
        price = (low + high) / 2.0
        worth: Floats = items.worth - price * cost
        chosen = _answer(items, mvno, worth)
        dual = min(dual, float(worth[chosen].sum()) + price * budget)
        if cost[chosen].sum() <= budget:
            high, kept = price, chosen
        else:
            low = price
    return kept, dual


def _answer(items: Packages, mvno: int, worth: Floats) -> np.ndarray:
    problem = flat_problem(items, mvno=mvno, worth=worth)
    if not problem.within_reach:
        raise RefusedInput("shares over so many slots are beyond the priced method; choose greedy or milp")
    granted = np.zeros(len(items), dtype=bool)
    assert problem.order is not None
    granted[problem.order] = solve(problem)
    return granted
