"""Mini-slots: URLLC takes blocks from mMTC only while a packet is there, so that slices share them by a quantile."""

from typing import TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from gridpool.errors import RefusedInput
from gridpool.radio.exact import flat_problem, solve
from gridpool.radio.instance import Instance, Preemption
from gridpool.radio.packages import URLLC, packages

__all__ = ["Admission", "admit", "load_distribution", "overflow"]

Floats: TypeAlias = npt.NDArray[np.float64]


class Admission(msgspec.Struct, frozen=True, kw_only=True):
    """Who is served with pre-emption: URLLC nodes by cell and zone share blocks, mMTC keeps all of its zone's.

    ``overflow`` is the largest probability, over zones and cells, that active URLLC slices need more blocks than there
    are (or than power allows); ``preempted_share`` the mean share of blocks that mMTC loses; ``value`` counts URLLC in
    full and mMTC before its losses; ``reserved_urllc`` how many URLLC slices fit if each held its blocks alone.
    """

    urllc: list[str]
    mmtc: list[str]
    value: float
    overflow: float
    preempted_share: float
    reserved_urllc: int


def admit(instance: Instance) -> Admission:
    """Admit URLLC slices by falling value while the quantile cap holds, then fill every zone with mMTC.

    Activity is independent between slices. In each zone the blocks that active slices need exceed the zone, and in each
    cell the power limit (7d), with probability at most ``preemption.overflow``. Mini-slot pre-emption after Anand,
    de Veciana and Shakkottai (2020), with a quantile in place of their mean.

    Raises RefusedInput without ``preemption``, with several MVNOs, several slots, fading or mixed numerologies.
    """
    rule = instance.preemption
    if rule is None:
        raise RefusedInput("the instance has no preemption; set activity and overflow")
    if len(instance.mvnos) > 1 or instance.slots > 1 or instance.fading != "none" or instance.numerology.mu > 0:
        raise RefusedInput("pre-emption is for one MVNO, one slot, flat channels and one numerology")
    items = packages(instance)
    zone_load: dict[tuple[int, int], list[int]] = {}
    cell_load: dict[int, list[int]] = {}
    admitted: list[int] = []
    for item in np.argsort(-items.value, kind="stable").tolist():
        k = int(items.blocks[item])
        if items.slice[item] != URLLC or k == 0:
            continue
        cell, zone = int(items.cell[item]), int(items.zone[item])
        here, there = [*zone_load.get((cell, zone), []), k], [*cell_load.get(cell, []), k]
        if (
            overflow(here, rule, instance.zones[zone]) <= rule.overflow
            and overflow(there, rule, instance.urllc_blocks) <= rule.overflow
        ):
            zone_load[cell, zone], cell_load[cell] = here, there
            admitted.append(item)
    without = np.where(items.slice == URLLC, -1.0, items.worth)
    problem = flat_problem(items, worth=without)
    assert problem.order is not None
    monitored = sorted(problem.order[solve(problem)].tolist())
    reserved = solve(flat_problem(items))
    order = flat_problem(items).order
    assert order is not None
    cells = len(items.cell_names)
    lost = sum(rule.activity * k for loads in zone_load.values() for k in loads)
    return Admission(
        urllc=[items.node(item) for item in sorted(admitted)],
        mmtc=[items.node(item) for item in monitored],
        value=float(items.value[[*admitted, *monitored]].sum()),
        overflow=max(
            [overflow(loads, rule, instance.zones[zone]) for (_, zone), loads in zone_load.items()]
            + [overflow(loads, rule, instance.urllc_blocks) for loads in cell_load.values()],
            default=0.0,
        ),
        preempted_share=lost / (cells * instance.resource_blocks) if cells else 0.0,
        reserved_urllc=int((items.slice[order[reserved]] == URLLC).sum()),
    )


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
