"""Mini-slots: URLLC takes blocks from mMTC only while a packet is there, so that slices share them by a quantile."""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from gridpool.errors import RefusedInput
from gridpool.radio.cells import zone_blocks
from gridpool.radio.exact import flat_problem, solve
from gridpool.radio.instance import Preemption
from gridpool.radio.occupancy import Choice
from gridpool.radio.packages import URLLC, Packages, share_blocks
from gridpool.radio.placement import place_granted

__all__ = ["load_distribution", "overflow", "preempting", "value_bound"]

Floats: TypeAlias = npt.NDArray[np.float64]


def preempting(items: Packages, order: Sequence[int]) -> list[Choice]:
    """Admit URLLC slices in ``order`` while the quantile cap holds, then fill every zone with mMTC.

    Slices are active independently of each other. In each zone the blocks that active ones need exceed the zone, and in
    each cell the power limit (7d) and the MVNO's share (7c), with probability at most ``preemption.overflow``. A URLLC
    slice is given the k blocks of its zone that it takes, from mMTC and other URLLC slices, while it is active; they go
    round the zone, so that every block is shared by about as many. After Anand, de Veciana and Shakkottai (2020), with
    a quantile in place of their mean.

    Raises RefusedInput with several slots.
    """
    instance, rule = items.instance, items.instance.preemption
    if rule is None or instance.slots > 1:
        raise RefusedInput("pre-emption is for one slot with an activity and an overflow; set slots to 1")
    cell_limit = min(instance.urllc_blocks, int(share_blocks(instance)[0]))
    spans = zone_blocks(instance.zones)
    zone_load: dict[tuple[int, int], list[int]] = {}
    cell_load: dict[int, list[int]] = {}
    choices: list[Choice] = []
    for item in order:
        k = int(items.blocks[item])
        if items.slice[item] != URLLC or k == 0:
            continue
        cell, zone = int(items.cell[item]), int(items.zone[item])
        here, there = [*zone_load.get((cell, zone), []), k], [*cell_load.get(cell, []), k]
        if max(overflow(here, rule, instance.zones[zone]), overflow(there, rule, cell_limit)) <= rule.overflow:
            first = sum(here) - k
            blocks = sorted(spans[zone][(first + j) % instance.zones[zone]] for j in range(k))
            choices.append(Choice(item, (0,), (tuple(blocks),)))
            zone_load[cell, zone], cell_load[cell] = here, there
    return choices + place_granted(items, _monitored(items))


def value_bound(items: Packages) -> float:
    """Return a bound on the objective: every URLLC slice that could be served at all, and the best mMTC slices."""
    return float(items.worth[items.slice == URLLC].sum() + items.worth[_monitored(items)].sum())


def _monitored(items: Packages) -> npt.NDArray[np.bool_]:
    """Return which items are the best mMTC packages where URLLC reserves nothing."""
    problem = flat_problem(items, worth=np.where(items.slice == URLLC, -1.0, items.worth))
    granted = np.zeros(len(items), dtype=bool)
    assert problem.order is not None
    granted[problem.order] = solve(problem)
    return granted


def overflow(loads: list[int], rule: Preemption, blocks: int) -> float:
    """Return the probability that active slices, each needing ``loads[i]`` blocks, need more than ``blocks``."""
    return float(load_distribution(loads, rule.activity)[blocks + 1 :].sum())


def load_distribution(loads: list[int], activity: float) -> Floats:
    """Return P(blocks needed = j) for independent slices that are each active with probability ``activity``."""
    law = np.ones(1)
    for k in loads:
        grown = np.zeros(len(law) + k)
        grown[: len(law)] = law * (1.0 - activity)
        grown[k:] += law * activity
        law = grown
    return law
