"""The allocation of resource blocks against HiGHS and against one read of its input."""

from bench.harness import Row, best_time
from gridpool.bench.planner import flat_cells, one_cell, read_once
from gridpool.radio.exact import flat_problem, solve
from gridpool.radio.milp import best_packages
from gridpool.radio.packages import packages

HIGHS_LIMIT_S = 60.0
FULL_MODEL_NODES = 2000
"""The programme by block of 10^5 nodes has 7 million columns; this many nodes are what HiGHS is given instead."""


def run() -> list[Row]:
    """Measure the targets of the exact method on one core."""
    return [*_small(), _large(), _reads(1, 3.0), _reads(100_000, 15.0)]


def _small() -> list[Row]:
    items = packages(one_cell(37, resource_blocks=20))
    problem = flat_problem(items)
    exact_s = best_time(lambda: solve(problem), repeats=200)
    compact = min(best_packages(items, lexicographic=False).solver_s for _ in range(5))
    full = min(best_packages(items, by_block=True, lexicographic=False).solver_s for _ in range(5))
    detail = {"exact_s": exact_s, "highs_compact_s": compact, "highs_full_s": full}
    return [
        Row(room="radio", figure="37 nodes, exact: microseconds", ratio=exact_s * 1e6, target=50.0, sense="at most",
            peer="wall clock after warm-up", detail=detail),
        Row(room="radio", figure="37 nodes, exact: times faster (programme by package)", ratio=compact / exact_s,
            target=20.0, sense="at least", peer="HiGHS's own time", detail=detail),
    ]  # fmt: skip


def _large() -> Row:
    problem = flat_cells(100_000, cells=1)
    exact_s = best_time(lambda: solve(problem))
    solved = best_packages(
        packages(one_cell(FULL_MODEL_NODES)), by_block=True, lexicographic=False, time_limit_s=HIGHS_LIMIT_S
    )
    return Row(
        room="radio",
        figure=f"10^5 nodes, 100 blocks, exact: times faster than {FULL_MODEL_NODES} nodes by block take HiGHS",
        ratio=solved.solver_s / exact_s,
        target=10_000.0,
        sense="at least",
        peer="HiGHS's own time, on a fiftieth of the nodes",
        detail={
            "exact_s": exact_s,
            "highs_s": solved.solver_s,
            "highs_nodes": FULL_MODEL_NODES,
            "highs_finished": solved.optimal,
            "ratio_if_highs_grew_in_proportion": solved.solver_s * 100_000 / FULL_MODEL_NODES / exact_s,
        },
    )


def _reads(cells: int, target: float) -> Row:
    problem = flat_cells(1_000_000, cells=cells)
    read_s = best_time(lambda: read_once(problem))
    exact_s = best_time(lambda: solve(problem))
    vectorised_s = best_time(lambda: (problem.worth.sum(), problem.blocks.sum(), problem.kind.sum()))
    return Row(
        room="radio",
        figure=f"10^6 nodes, {cells} cell{'s' if cells > 1 else ''}, exact: reads of the input",
        ratio=exact_s / read_s,
        target=target,
        sense="at most",
        peer="one compiled loop over the input",
        detail={"exact_s": exact_s, "read_s": read_s, "numpy_sums_s": vectorised_s},
    )
