"""Optimal power flow of a feeder with every device under control: least cost for a fixed demand, or most load served.

Cost is linear: a price for what the source delivers and one for what generators feed in. The relaxation is solved at
whole tap positions; its claim is compared with the replay of its set points, and that difference is the gap.
"""

from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from gridpool.errors import GridpoolError, RefusedInput
from gridpool.grid.certification import VIOLATION_PU, Formulation, ServedModel, ServedPower
from gridpool.grid.delivery import DeliverySolution
from gridpool.grid.feeder import Feeder
from gridpool.grid.semidefinite import Components, Relaxation
from gridpool.grid.served import served_model, served_power

__all__ = ["OptimalFlow", "SetPoints", "optimal_power_flow"]

ROUNDS = 12
Vector = NDArray[np.float64]


class SetPoints(msgspec.Struct, frozen=True, kw_only=True):
    """What every device is told; powers in W and var, capacitors as a share of their rating."""

    taps: dict[str, int]
    capacitors: dict[str, float]
    generation_w: dict[str, float]
    generation_var: dict[str, float]
    served_fraction: dict[str, float]


class OptimalFlow(msgspec.Struct, frozen=True, kw_only=True):
    """An optimal power flow after its replay; powers in W and var, voltages in p.u."""

    objective: str
    formulation: str
    cost: float | None
    """Replayed cost in price units per hour (price per Wh times W); None when served power is the objective."""
    served_w: float
    nominal_w: float
    source_w: float
    source_var: float
    loss_w: float
    relaxation_gap: float
    """|claimed - replayed| / replayed value of the objective."""
    eigenvalue_ratio: float | None
    max_violation_pu: float
    rounds: int
    set_points: SetPoints
    voltages: dict[str, list[float]]


def optimal_power_flow(
    feeder: Feeder,
    *,
    objective: Literal["cost", "served"] = "cost",
    formulation: Formulation = "sdp",
    source_price: float = 1.0,
    generation_price: float = 0.0,
    dg_share: float = 0.2,
    lower_pu: float | None = None,
    upper_pu: float | None = None,
    components: Components = "phase",
) -> OptimalFlow:
    """Solve an optimal power flow with every device controlled and every load known.

    Parameters
    ----------
    feeder
        The feeder.
    objective
        ``cost``: serve all load at the least cost of generation; ``served``: serve the most load.
    formulation
        ``sdp`` (branch-flow relaxation) or ``linear`` (LinDist3Flow, which sees no losses).
    source_price, generation_price
        Price of a watt from the source and from a generator.
    dg_share, lower_pu, upper_pu
        As in ``served_power``.
    components
        Coordinates of three-phase branches in the relaxation.

    Raises
    ------
    RefusedInput
        If no set point serves all load within the limits (``cost``), or a parameter is out of range.
    """
    for name, price in (("source_price", source_price), ("generation_price", generation_price)):
        if not 0.0 <= price <= 1e6:
            raise RefusedInput(f"{name} is {price:g}; it must lie within 0 and 1e6")
    if objective not in ("cost", "served"):
        raise RefusedInput(f"no objective {objective!r}; choose cost or served")
    model = served_model(feeder, dg_share=dg_share, lower_pu=lower_pu, upper_pu=upper_pu)
    if objective == "served":
        return _served(model, formulation, dg_share, lower_pu, upper_pu, components)
    return _least_cost(model, formulation, source_price, generation_price, components)


def _served(
    model: ServedModel,
    formulation: Formulation,
    dg_share: float,
    lower_pu: float | None,
    upper_pu: float | None,
    components: Components,
) -> OptimalFlow:
    feeder = model.feeder
    result = served_power(
        feeder,
        feeder.nodes,
        feeder.nodes,
        dg_share=dg_share,
        lower_pu=lower_pu,
        upper_pu=upper_pu,
        formulation=formulation,
        components=components,
    )
    model.replay.solve()
    source = model.replay.source_power()
    claimed = model.claimed_w if model.claimed_w is not None else result.served_w
    return OptimalFlow(
        objective="served",
        formulation=result.formulation,
        cost=None,
        served_w=result.served_w,
        nominal_w=result.nominal_w,
        source_w=source.real,
        source_var=source.imag,
        loss_w=model.replay.loss_w(),
        relaxation_gap=abs(claimed - result.served_w) / max(result.served_w, 1.0),
        eigenvalue_ratio=result.eigenvalue_ratio,
        max_violation_pu=result.max_violation_pu,
        rounds=result.rounds,
        set_points=_set_points(result),
        voltages=result.voltages,
    )


def _set_points(result: ServedPower) -> SetPoints:
    return SetPoints(
        taps=result.taps,
        capacitors=result.capacitors,
        generation_w=result.generation_w,
        generation_var=result.generation_var,
        served_fraction=result.served_fraction,
    )


def _least_cost(
    model: ServedModel,
    formulation: Formulation,
    source_price: float,
    generation_price: float,
    components: Components,
) -> OptimalFlow:
    feeder = model.feeder
    scale = model.scale(1.0)
    every = frozenset(feeder.nodes)
    problem = model.delivery.problem(every, every, scale, frozenset())
    start = model.certified(problem, scale, "nominal")
    if start.solution.objective_w < 0.9999 * float(model.delivery.load_w @ scale):
        raise RefusedInput(
            f"{feeder.name}: not all load can be served within the limits; use --objective served or wider limits"
        )
    rating = np.array([model.shunts[i].rating_va for i in model.delivery.generators])
    offset = len(model.delivery.load_w) + len(model.delivery.capacitor_names)

    def cost_of(solution: DeliverySolution, source_w: float) -> float:
        fed_in = float(solution.columns[offset : offset + len(rating)] @ rating)
        return source_price * source_w + generation_price * fed_in

    problem.price(source_price - generation_price)
    first = problem.choose_taps()
    best: tuple[float, float, DeliverySolution, Vector, float, int, float | None] | None = None
    relaxation = None
    if formulation == "sdp":
        relaxation = Relaxation(
            model.delivery,
            problem,
            first.taps,
            objective="cost",
            source_price=source_price,
            generation_price=generation_price,
            components=components,
        )
        volts = model.volts_at(first)
    claimed = 0.0
    before = np.inf
    try:
        for number in range(1, ROUNDS + 1):
            if relaxation is not None:
                solution = relaxation.solve(volts)
                assert relaxation.solved is not None
                claimed = relaxation.solved.objective * 1e6
            else:
                solution = problem.solve()
                drawn = float(model.delivery.load_w @ solution.served)
                fed_in = float(solution.columns[offset : offset + len(rating)] @ rating)
                claimed = source_price * (drawn - fed_in) + generation_price * fed_in
            voltages, lowest, highest = model.replay_all(problem, solution, "nominal")
            source_w = model.replay.source_power().real
            worst = model.violation(voltages, ~model.linear.upstream_of_limits)
            if relaxation is not None:
                volts = model.volts_at(solution)
                relaxation.learn(lowest, highest, solution)
            else:
                problem.learn(lowest**2, highest**2, model.replay.load_voltages(), solution, worst_case=False)
            cost = cost_of(solution, source_w)
            if worst < VIOLATION_PU:
                ratio = None if relaxation is None or relaxation.solved is None else relaxation.solved.eigenvalue_ratio
                if best is None or cost < best[0] or relaxation is not None:
                    best = (cost, claimed, solution, voltages, worst, number, ratio)
                if abs(cost - before) <= 1e-5 * max(abs(cost), 1.0):
                    break
            before = cost
    except GridpoolError:
        if best is None and relaxation is None:
            raise
    finally:
        problem.price(None)
    if best is None:
        if relaxation is not None:
            return _least_cost(model, "linear", source_price, generation_price, components)
        raise RefusedInput(f"{feeder.name}: no set point of least cost survives its replay")
    cost, claimed, solution, _, worst, rounds, ratio = best
    volts_pu, _, _ = model.replay_all(problem, solution, "nominal")
    source = model.replay.source_power()
    result = model.result(solution, volts_pu, scale, worst, rounds)
    return OptimalFlow(
        objective="cost",
        formulation="linear" if relaxation is None else "sdp",
        cost=cost,
        served_w=result.served_w,
        nominal_w=result.nominal_w,
        source_w=source.real,
        source_var=source.imag,
        loss_w=model.replay.loss_w(),
        relaxation_gap=abs(claimed - cost) / max(abs(cost), 1.0),
        eigenvalue_ratio=ratio,
        max_violation_pu=worst,
        rounds=rounds,
        set_points=_set_points(result),
        voltages=result.voltages,
    )
