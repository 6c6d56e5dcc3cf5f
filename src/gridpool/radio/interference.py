"""Rates and loads that agree with each other across cells: each cell's blocks in use disturb the others."""

import numpy as np

from gridpool.radio.allocation import Allocation, allocate
from gridpool.radio.instance import Instance, Interference
from gridpool.radio.links import Floats, Town, town_instance

__all__ = ["fixed_point", "zone_loads"]

ROUNDS = 50
CLOSE = 1e-3


def fixed_point(base: Instance, town: Town) -> Instance:
    """Return ``base`` with rates under the interference that its own greedy allocation causes.

    Starts from silent neighbours and averages each round's loads with the last ones, ever less of the new, until they
    move by less than 0.001. Whole blocks need not settle: then the last loads stand and ``converged`` is false.
    """
    loads = np.zeros((len(town.site_m), 4))
    converged = False
    for round_ in range(ROUNDS):
        instance = town_instance(base, town, loads, Interference(kind="fixed_point"))
        fresh = zone_loads(instance, allocate(instance))
        moved = float(np.abs(fresh - loads).max(initial=0.0))
        if moved < CLOSE:
            converged = True
            break
        loads = loads + (fresh - loads) / (1.0 + 0.5 * round_)
    rows = [tuple(row) for row in np.clip(loads, 0.0, 1.0).tolist()]
    return town_instance(base, town, loads, Interference(kind="fixed_point", loads=rows, converged=converged))


def zone_loads(instance: Instance, allocation: Allocation) -> Floats:
    """Return the share of each cell's blocks in use, by zone (sites by 4), averaged over slots."""
    place = {site.cell: i for i, site in enumerate(instance.sites)}
    used = np.zeros((len(instance.sites), 4))
    for grant in allocation.grants:
        used[place[grant.cell], grant.zone] += len(grant.resource_blocks)
    sizes = np.maximum(np.array(instance.zones, dtype=np.float64), 1.0)
    return np.asarray(used / (sizes * instance.slots), dtype=np.float64)
