"""Grid: the relaxation against CVXPY, a programme round against HiGHS, a replay against the engine's bare solution."""

import json
import subprocess
import sys
import time
import venv
from pathlib import Path
from typing import Any

import numpy as np

from bench.harness import Row, best_time
from gridpool.grid import load_feeder, served_power
from gridpool.grid.branchflow import BranchFlowSolution, solve_branch_flow
from gridpool.grid.semidefinite import LOSS_PRICE, Relaxation
from gridpool.grid.served import served_model

ROOT = Path(__file__).parent.parent
PEER = ROOT / ".tools" / "bench-grid"
TOLERANCE = 1e-6
FEEDERS = ("ieee13", "ieee34", "ieee37", "ieee123")


def run() -> list[Row]:
    rows: list[Row] = []
    for name in FEEDERS:
        rows += relaxation_rows(name)
    for name in FEEDERS:
        rows += [programme_row(name), replay_row(name), rounds_row(name)]
    return rows


def peer_python() -> Path:
    """Environment with CVXPY, made on first use."""
    python = PEER / "bin" / "python"
    if not python.exists():
        venv.create(PEER, with_pip=True)
    probe = subprocess.run([str(python), "-c", "import cvxpy, clarabel"], capture_output=True, check=False)
    if probe.returncode:
        print("bench grid: installing CVXPY ...", file=sys.stderr)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", "cvxpy>=1.6", "clarabel>=0.11"], check=True)
    return python


def problem_of(name: str) -> tuple[Relaxation, dict[tuple[str, int], complex]]:
    feeder = load_feeder(name)
    model = served_model(feeder)
    scale = np.ones(len(feeder.loads))
    problem = model.delivery.problem(frozenset(feeder.nodes), frozenset(feeder.nodes), scale, frozenset())
    start = model.certified(problem, scale, "nominal").solution
    return Relaxation(model.delivery, problem, start.taps), model.volts_at(start)


def pair(values: Any) -> list[Any]:
    array = np.asarray(values)
    return [array.real.tolist(), array.imag.tolist()]


def exported(relaxation: Relaxation, volts: dict[tuple[str, int], complex]) -> dict[str, Any]:
    controls, network = relaxation._controls(volts), relaxation.network
    return {
        "sizes": network.sizes,
        "source": pair(network.source),
        "shunts": [pair(y) for y in network.shunts],
        "spans": [
            {"parent": s.parent, "child": s.child, "rows": s.rows.tolist(), "ratio": s.ratio.tolist(), "z": pair(s.z)}
            for s in network.spans
        ],
        "draws": [[(b, c, p.real, p.imag) for b, c, p in draws] for draws in controls.draws],
        "lower": controls.lower.tolist(),
        "upper": controls.upper.tolist(),
        "cost": controls.cost.tolist(),
        "loss_price": LOSS_PRICE,
        "limits": [
            {
                "bus": row.bus, "row": row.row.tolist(), "scale": row.scale, "low": row.low, "high": row.high,
                "margin": None if row.margin is None else row.margin.tolist(),
            }
            for _, row in relaxation.rows
            if row.bus
        ],
    }  # fmt: skip


def relaxation_rows(name: str) -> list[Row]:
    relaxation, volts = problem_of(name)
    data = exported(relaxation, volts)
    answer = subprocess.run(
        [str(peer_python()), str(ROOT / "bench" / "cvxpy_peer.py")],
        input=json.dumps(data),
        capture_output=True,
        text=True,
        check=True,
    )
    peer = json.loads(answer.stdout)

    def solve() -> BranchFlowSolution:
        controls = relaxation._controls(volts)
        limits = [row for _, row in relaxation.rows]
        return solve_branch_flow(
            relaxation.network, controls, limits, loss_price=LOSS_PRICE, source_price=0.0, tolerance=TOLERANCE
        )

    ours = best_time(solve, repeats=6)
    value = solve().objective
    if peer["value"] is not None and abs(value - peer["value"]) > 1e-4 * abs(value):
        raise AssertionError(f"{name}: CVXPY's optimum {peer['value']} is not ours {value}")
    stopped = "" if peer["value"] is not None else " (stops short of the tolerance)"
    detail = {
        "ours_s": ours,
        "cold_s": peer["cold"],
        "again_s": peer["again"],
        "optimum": value,
        "peer_optimum": peer["value"],
    }
    return [
        Row(
            room="grid", figure=f"relaxation of {name}, cold", ratio=peer["cold"] / ours, target=10, sense="at least",
            peer=f"CVXPY with Clarabel, cold{stopped}", detail=detail,
        ),
        Row(
            room="grid", figure=f"relaxation of {name}, again", ratio=peer["again"] / ours, target=2,
            sense="at least", peer=f"CVXPY with Clarabel, parametrised re-solve{stopped}", detail=detail,
        ),
    ]  # fmt: skip


def programme_row(name: str) -> Row:
    feeder = load_feeder(name)
    model = served_model(feeder)
    nodes = frozenset(feeder.nodes[::2])
    scales = np.random.default_rng(1).uniform(0.5, 1.0, 40)
    problem = model.delivery.problem(nodes, nodes, np.ones(len(feeder.loads)), frozenset())
    problem.solve()
    ours = theirs = 0.0
    for scale in scales:
        problem = model.delivery.problem(nodes, nodes, np.full(len(feeder.loads), scale), frozenset())
        before = problem.solver_seconds()
        start = time.perf_counter()
        solution = problem.solve()
        ours += time.perf_counter() - start
        theirs += problem.solver_seconds() - before
        # the rest of a round: learn the residuals of a replay
        voltages = np.ones(len(feeder.observations))
        start = time.perf_counter()
        problem.learn(voltages, voltages, np.ones(len(feeder.loads)), solution, worst_case=True)
        ours += time.perf_counter() - start
    return Row(
        room="grid", figure=f"programme round of {name}", ratio=ours / theirs, target=3, sense="at most",
        peer="HiGHS's own reported time", detail={"ours_s": ours / len(scales), "highs_s": theirs / len(scales)},
    )  # fmt: skip


def replay_row(name: str) -> Row:
    feeder = load_feeder(name)
    replay = served_model(feeder).replay
    base = np.array([item.power_w for item in feeder.loads] + [0.0] * len(replay.shunts))
    reactive = np.array([item.reactive_var for item in feeder.loads] + [0.0] * len(replay.shunts))
    factors = np.random.default_rng(2).uniform(0.4, 0.6, 300)
    ours, bare = np.inf, np.inf
    for _ in range(5):
        start = time.perf_counter()
        for factor in factors:
            replay.set_powers(base * factor, reactive * factor)
            replay.solve()
        ours = min(ours, time.perf_counter() - start)
        alone = 0.0
        solution = replay._solution
        for factor in factors:
            replay.set_powers(base * factor, reactive * factor)
            start = time.perf_counter()
            solution.SolveNoControl()
            alone += time.perf_counter() - start
        bare = min(bare, alone)
    count = len(factors)
    return Row(
        room="grid", figure=f"replay of {name}", ratio=ours / bare, target=5, sense="at most",
        peer="the engine's bare re-solve", detail={"ours_us": ours / count * 1e6, "bare_us": bare / count * 1e6},
    )  # fmt: skip


def rounds_row(name: str) -> Row:
    feeder = load_feeder(name)
    found = [
        served_power(feeder, observed, controlled, certify="nominal").rounds
        for observed in ((), feeder.nodes)
        for controlled in ((), feeder.nodes)
    ]
    return Row(
        room="grid", figure=f"rounds of a nominal score on {name}", ratio=max(found), target=6, sense="at most",
        peer="a fixed number", detail={"rounds": found},
    )  # fmt: skip
