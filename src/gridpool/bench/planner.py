"""Quick figures of the planner: the exact allocation beside one read of its input and beside HiGHS."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

from gridpool.radio import Instance, Link, zone_sizes
from gridpool.radio.exact import FlatProblem, solve
from gridpool.radio.milp import best_packages
from gridpool.radio.packages import packages

__all__ = ["flat_cells", "one_cell", "read_once", "run", "shortest"]

NODES = 1_000_000
HIGHS_NODES = 1000
HIGHS_LIMIT_S = 20.0
RESOURCE_BLOCKS = 100
URLLC_SHARE = 0.2


def run() -> dict[str, Any]:
    """Measure one cell of a million nodes, and HiGHS on the programme by block of a far smaller one.

    ``read_s`` is one plain compiled loop that adds up every number of the input in order, ``exact_s`` the optimal
    choice, ``highs_s`` HiGHS's own time for ``highs_nodes`` nodes (at most 20 s are given to it).
    """
    problem = flat_cells(NODES, cells=1)
    read_s = shortest(lambda: read_once(problem))
    exact_s = shortest(lambda: solve(problem))
    solved = best_packages(
        packages(one_cell(HIGHS_NODES)), by_block=True, lexicographic=False, time_limit_s=HIGHS_LIMIT_S
    )
    return {
        "nodes": NODES,
        "read_s": read_s,
        "exact_s": exact_s,
        "highs_s": solved.solver_s,
        "highs_nodes": HIGHS_NODES,
        "highs_finished": solved.optimal,
        "exact_per_read": exact_s / read_s,
        "highs_per_exact": solved.solver_s / exact_s,
    }


def flat_cells(nodes: int, *, cells: int, seed: int = 1) -> FlatProblem:
    """Draw a problem of packages: every node asks for mMTC, a fifth also for URLLC of 2 to 4 blocks."""
    rng = np.random.default_rng(seed)
    wants = rng.random(nodes) < URLLC_SHARE
    node = np.repeat(np.arange(nodes), 1 + wants)
    first = np.ones(len(node), dtype=bool)
    first[1:] = node[1:] != node[:-1]
    urllc = first & wants[node]
    zone = rng.choice(4, size=nodes, p=[4 / 9, 5 / 27, 5 / 27, 5 / 27])[node]
    weight = rng.exponential(1.0, nodes)[node] * np.where(urllc, 0.75, 0.25)
    blocks = np.where(urllc, rng.integers(2, 5, nodes)[node], 1)
    per_cell = np.linspace(0, nodes, cells + 1).astype(np.int64)
    return FlatProblem(
        starts=np.searchsorted(node, per_cell).astype(np.int64),
        worth=weight * blocks / RESOURCE_BLOCKS,
        blocks=blocks.astype(np.uint8),
        kind=(2 * zone + urllc).astype(np.uint8),
        zones=np.array(zone_sizes(RESOURCE_BLOCKS), dtype=np.int64),
        urllc_blocks=20,
        share_blocks=RESOURCE_BLOCKS,
        guard_blocks=0,
        slots=1,
    )


def one_cell(nodes: int, *, resource_blocks: int = RESOURCE_BLOCKS, seed: int = 1) -> Instance:
    """Draw a cell as an instance, with rates between those of a cell's edge and its middle."""
    rng = np.random.default_rng(seed)
    links = [
        Link(
            node=f"n{i}",
            cell=0,
            zone=int(rng.choice(4, p=[4 / 9, 5 / 27, 5 / 27, 5 / 27])),
            uplink_bps=int(rng.uniform(1.5e6, 5e6)),
            downlink_bps=int(rng.uniform(1.5e6, 5e6)),
            urllc=bool(rng.random() < URLLC_SHARE),
            weight=float(rng.exponential()),
        )
        for i in range(nodes)
    ]
    return Instance(resource_blocks=resource_blocks, zones=list(zone_sizes(resource_blocks)), links=links)


def read_once(problem: FlatProblem) -> float:
    """Read every number of a problem once, in order, and return their sum (one core, as compiled by default)."""
    return float(_sum(problem.worth, problem.blocks, problem.kind)) + float(problem.starts.sum())


def shortest(call: Callable[[], object], repeats: int = 7) -> float:
    """Return the shortest wall time of a call in seconds, after one that is not counted."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


@njit(cache=True, nogil=True)
def _sum(worth, blocks, kind):  # type: ignore[no-untyped-def]
    total = 0.0
    count = 0
    for i in range(len(worth)):
        total += worth[i]
        count += blocks[i] + kind[i]
    return total + count
