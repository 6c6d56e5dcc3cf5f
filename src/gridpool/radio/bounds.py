"""Upper bounds on what any allocation of packages can reach."""

from dataclasses import replace

import numpy as np

from gridpool.radio.exact import FlatProblem, flat_problem, solve
from gridpool.radio.packages import Packages, share_blocks

__all__ = ["upper_bound"]


def upper_bound(items: Packages) -> float:
    """Return a bound on the objective: each MVNO alone, or all pooled, whichever is lower.

    Tight for one MVNO on channels flat in a zone. With fading every package counts with the best blocks of its zone.
    A budget over cells is left out.
    """
    instance = items.instance
    if len(instance.mvnos) == 1 and not instance.work_conserving:
        return _best(flat_problem(items))
    share = instance.resource_blocks if instance.work_conserving else int(share_blocks(instance).sum())
    pooled = _best(
        replace(
            flat_problem(replace(items, mvno=np.zeros_like(items.mvno))),
            share_blocks=min(share, instance.resource_blocks),
            urllc_blocks=min(instance.urllc_blocks * len(instance.mvnos), instance.resource_blocks),
        )
    )
    if instance.work_conserving:
        return pooled
    return min(pooled, sum(_best(flat_problem(items, mvno=mvno)) for mvno in range(len(instance.mvnos))))


def _best(problem: FlatProblem) -> float:
    if not problem.within_reach:
        problem = replace(problem, share_blocks=int(problem.zones.sum()))
    return float(problem.worth[solve(problem)].sum())
