"""Algorithm 1 as printed, the same result by one sorted pass, and the orders that it is compared with."""

import heapq
import math
from collections.abc import Iterable, Sequence

import numpy as np

from gridpool.radio.occupancy import Choice, Occupancy
from gridpool.radio.packages import URLLC, Packages

__all__ = ["bc_order", "greedy", "greedy_reference", "in_order", "random_order", "top_k_order", "value_density_order"]


def greedy_reference(items: Packages) -> list[Choice]:
    """Allocate by Algorithm 1 of Farhadi et al. (2022), step by step.

    While a package still fits, grant the one that raises the objective most; of equal ones the lower item.
    """
    state = Occupancy(items)
    granted: list[Choice] = []
    for second_pass in _passes(items):
        state.ignore_shares = second_pass
        open_items = sorted(set(range(len(items))) - {choice.item for choice in granted})
        while True:
            best: Choice | None = None
            best_gain = -1.0
            for item in open_items:
                choice = state.fitting(item)
                if choice is not None and state.value(choice) > best_gain:
                    best, best_gain = choice, state.value(choice)
            if best is None:
                break
            state.take(best)
            granted.append(best)
            open_items.remove(best.item)
    return granted


def greedy(items: Packages) -> list[Choice]:
    """Allocate exactly as Algorithm 1 does, without its repeated search.

    A package that does not fit never fits again, and what a package gains only falls as blocks are taken: so items
    are visited by falling gain and looked at again only if theirs has changed meanwhile.
    """
    if items.rates is None:
        return in_order(items, np.argsort(-items.worth, kind="stable").tolist())
    state = Occupancy(items)
    granted: list[Choice] = []
    for second_pass in _passes(items):
        state.ignore_shares = second_pass
        done = {choice.item for choice in granted}
        heap = [(-math.inf, item) for item in range(len(items)) if item not in done]
        while heap:
            claimed, item = heap[0]
            choice = state.fitting(item)
            if choice is None:
                heapq.heappop(heap)
            elif -state.value(choice) != claimed:
                heapq.heapreplace(heap, (-state.value(choice), item))
            else:
                heapq.heappop(heap)
                state.take(choice)
                granted.append(choice)
    return granted


def in_order(items: Packages, order: Sequence[int]) -> list[Choice]:
    """Grant packages in a given order, passing over those that do not fit."""
    state = Occupancy(items)
    granted: list[Choice] = []
    waiting: Iterable[int] = order
    for second_pass in _passes(items):
        state.ignore_shares = second_pass
        left = []
        for item in waiting:
            choice = state.fitting(item)
            if choice is None:
                left.append(item)
            else:
                state.take(choice)
                granted.append(choice)
        waiting = left
    return granted


def bc_order(items: Packages) -> list[int]:
    """Order items by falling betweenness of their node."""
    between = np.array([link.betweenness for link in items.instance.links])
    return [int(item) for item in np.argsort(-between[items.link], kind="stable")] if len(items) else []


def top_k_order(items: Packages) -> list[int]:
    """Order URLLC before mMTC, and within each by falling number of blocks needed."""
    return [int(item) for item in np.lexsort((-items.blocks, items.slice != URLLC))]


def value_density_order(items: Packages) -> list[int]:
    """Order items by falling worth a block."""
    return [int(item) for item in np.argsort(-items.worth / np.maximum(items.blocks, 1), kind="stable")]


def random_order(items: Packages, rng: np.random.Generator) -> list[int]:
    """Order items by a random permutation of their nodes, a node's URLLC before its mMTC."""
    place = rng.permutation(len(items.instance.links))
    return [int(item) for item in np.argsort(place[items.link], kind="stable")]


def _passes(items: Packages) -> tuple[bool, ...]:
    return (False, True) if items.instance.work_conserving else (False,)
