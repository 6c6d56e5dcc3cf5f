"""The split of a cell's blocks into zones as a decision."""

import msgspec

from gridpool.errors import RefusedInput
from gridpool.radio.exact import best_zone_sizes, flat_problem, solve
from gridpool.radio.instance import Instance
from gridpool.radio.packages import packages

__all__ = ["best_split"]


def best_split(instance: Instance) -> Instance:
    """Return the instance with the zone sizes under which the best packages are worth most.

    One split holds for all cells, as reuse between neighbours asks. For one cell it is optimal (max-plus over the
    number of blocks of each zone); for several, blocks move between zones one at a time while all cells together gain.

    Raises RefusedInput for several MVNOs or channels that differ by block.
    """
    if len(instance.mvnos) > 1 or instance.fading != "none":
        raise RefusedInput("zone sizes are chosen for one MVNO and channels flat in a zone; leave --free-zones out")
    open_zones = [instance.resource_blocks] * 4
    problem = flat_problem(packages(instance, zone_room=open_zones))
    if len(problem.starts) == 2:
        _, sizes = best_zone_sizes(problem, instance.resource_blocks)
        return _with(instance, sizes[0].tolist())
    split = list(instance.zones)
    reached = _value(instance, split)
    while True:
        trials = []
        for giver in range(4):
            for taker in range(4):
                if giver != taker and split[giver] > 0:
                    trial = list(split)
                    trial[giver] -= 1
                    trial[taker] += 1
                    trials.append((_value(instance, trial), trial))
        best, trial = max(trials, key=lambda one: one[0])
        if best <= reached * (1.0 + 1e-12):
            return _with(instance, split)
        reached, split = best, trial


def _value(instance: Instance, split: list[int]) -> float:
    problem = flat_problem(packages(_with(instance, split)))
    return float(problem.worth[solve(problem)].sum())


def _with(instance: Instance, split: list[int]) -> Instance:
    return msgspec.structs.replace(instance, zones=split)
