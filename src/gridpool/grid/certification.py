"""One feeder under fixed options, solved for any links and demand, and certified by replay in OpenDSS."""

from collections.abc import Collection, Mapping
from typing import Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from gridpool.errors import GridpoolError, RefusedInput
from gridpool.grid.delivery import MAX_TAP, Delivery, DeliverySolution, Problem
from gridpool.grid.feeder import Feeder
from gridpool.grid.linear import build_linear_model
from gridpool.grid.replay import NotConverged, Replay
from gridpool.grid.semidefinite import Components, Relaxation
from gridpool.grid.shunts import capacitor_shunts, generator_shunts

__all__ = ["VIOLATION_PU", "Certificate", "Certified", "Formulation", "ServedModel", "ServedPower"]

Formulation = Literal["linear", "sdp"]
Certificate = Literal["worst_case", "nominal"]
VIOLATION_PU = 1e-5
"""A replay holds if no voltage leaves its limits by this much."""

MAX_ROUNDS = 40
"""Rounds after which a problem whose replay never held is refused."""

PATIENCE = 12
"""Rounds after which the best set point that held is taken although a later one might gain a little."""

SETTLED = 1e-4
"""Relative change of the served power below which rounds end."""

LOST_PU = 0.5
"""Voltage that stands for a power flow without a solution."""

EXACT_RATIO = 1e-2
"""Ratio of the second to the largest eigenvalue above which a relaxation is not worth replaying."""

HIGHEST_LOSS_PRICE = 12.0
RELAXED_ROUNDS = 16
RELAXED_SETTLED = 1e-4

TAP_GAP = 3e-4
"""Share of the demand by which the served power may stay below that of free ratios before taps are searched."""

TAP_ATTEMPTS = 3
Vector = NDArray[np.float64]


class ServedPower(msgspec.Struct, frozen=True, kw_only=True):
    """Served power with what it rests on; powers in W, voltages in p.u. at the nominal demand."""

    served_w: float
    nominal_w: float
    served_share: float
    max_violation_pu: float
    """Largest distance of a replayed voltage outside its limits, over all demands that were replayed."""
    rounds: int
    """Rounds of programme and replay that settled the returned set point."""
    formulation: str
    """``linear`` or ``sdp``: what the returned set point comes from."""
    certified: str
    """``worst_case``: replayed at the nominal and at the worst demands of every limit; ``nominal``: only there."""
    eigenvalue_ratio: float | None
    voltages: dict[str, list[float]]
    """Bus -> voltages in the order of its phases; between phases ab, bc, ca at buses without ground."""
    served_fraction: dict[str, float]
    """Bus -> served part of its nominal demand."""
    taps: dict[str, int]
    generation_w: dict[str, float]
    generation_var: dict[str, float]
    capacitors: dict[str, float]
    """Capacitor -> part of its rating that is switched in."""
    lower_pu: float
    upper_pu: float
    blind_error: float


class Certified(NamedTuple):
    """Set points whose replays held, with the nominal voltages."""

    solution: DeliverySolution
    voltages: Vector
    worst_pu: float
    rounds: int


class ServedModel:
    """One feeder under fixed options: built once, solved for any links and demand."""

    def __init__(
        self,
        feeder: Feeder,
        blind_error: float = 0.5,
        dg_share: float = 0.2,
        lower_pu: float | None = None,
        upper_pu: float | None = None,
        default_taps: Literal["neutral", "published"] = "neutral",
        default_capacitors: Literal["off", "on"] = "off",
        default_generation: float = 0.0,
        reactive_share: float = 0.44,
        both_slices: bool = False,
        switchable: bool = False,
    ) -> None:
        _check("blind_error", blind_error, 0.0, 0.999)
        _check("dg_share", dg_share, 0.0, 10.0)
        _check("reactive_share", reactive_share, 0.0, 1.0)
        _check("default_generation", default_generation, 0.0, 1.0)
        self.feeder = feeder
        self.blind_error = blind_error
        self.both_slices = both_slices
        self.lower_pu = feeder.facts.lower_pu if lower_pu is None else lower_pu
        self.upper_pu = feeder.facts.upper_pu if upper_pu is None else upper_pu
        _check("lower_pu", self.lower_pu, 0.1, 2.0)
        _check("upper_pu", self.upper_pu, self.lower_pu, 2.0)
        self.shunts = (*capacitor_shunts(feeder), *generator_shunts(feeder, dg_share))
        self.replay = Replay(feeder, self.shunts)
        terminals = [(item.bus, item.phases) for item in feeder.loads] + [(s.bus, s.phases) for s in self.shunts]
        self.linear = build_linear_model(feeder, terminals)
        published = {t.name: t.tap for t in feeder.facts.transformers if t.regulator}
        taps = published if default_taps == "published" else dict.fromkeys(published, 0)
        self.delivery = Delivery(
            feeder=feeder,
            linear=self.linear,
            shunts=self.shunts,
            default_taps=taps,
            default_capacitors=1.0 if default_capacitors == "on" else 0.0,
            default_generation=default_generation,
            reactive_share=reactive_share,
            blind_error=blind_error,
            lower_pu=self.lower_pu,
            upper_pu=self.upper_pu,
            switchable=switchable,
        )
        self._load_voltage = np.ones(len(feeder.loads))
        self.claimed_w: float | None = None
        """What the last solved formulation claimed before any replay, W."""
        self._refuse_limits_without_load()

    def served(
        self,
        observed: Collection[str],
        controlled: Collection[str],
        *,
        demand_scale: float | Mapping[str, float] = 1.0,
        certify: Certificate = "worst_case",
        failed: Collection[str] = (),
        formulation: Formulation = "linear",
        components: Components = "phase",
    ) -> ServedPower:
        """Compute S(M, U); see ``served_power``."""
        self.feeder.require_nodes([*observed, *controlled, *failed])
        scale = self.scale(demand_scale)
        seen = frozenset(observed)
        steered = frozenset(controlled) & seen if self.both_slices else frozenset(controlled)
        dark = self.dark(failed)
        problem = self.delivery.problem(seen, steered, scale, dark)
        self.replay.restart()
        best = self.certified(problem, scale, certify)
        ratio = None
        if formulation == "sdp":
            relaxed = self._relaxed(problem, best, certify, components)
            if relaxed is not None:
                best, ratio = relaxed
        return self.result(best.solution, best.voltages, scale, best.worst_pu, best.rounds, certify, ratio)

    def certified(self, problem: Problem, scale: Vector, certify: Certificate) -> "Certified":
        """Solve the linear formulation and certify it by replay."""
        first = problem.choose_taps()
        self.claimed_w = first.objective_w
        best = self._settle(problem, first, certify)
        demand_w = float(self.delivery.load_w @ scale)
        if problem.groups and best.solution.objective_w < (1.0 - TAP_GAP) * demand_w:
            best = self._search_taps(problem, best, certify, demand_w)
        return best

    def _relaxed(
        self, problem: Problem, linear: "Certified", certify: Certificate, components: Components
    ) -> tuple["Certified", float] | None:
        """Solve the semidefinite relaxation at the taps of the linear solution; None if its replay never holds."""
        volts = self.volts_at(linear.solution)
        try:
            relaxation = Relaxation(self.delivery, problem, linear.solution.taps, components=components)
        except RefusedInput:
            return None
        best: Certified | None = None
        before = -np.inf
        for number in range(1, RELAXED_ROUNDS + 1):
            try:
                solution = relaxation.solve(volts)
            except GridpoolError:
                break
            self.claimed_w = solution.objective_w if number == 1 else self.claimed_w
            if relaxation.solved is not None and relaxation.solved.eigenvalue_ratio > EXACT_RATIO:
                if relaxation.loss_price >= HIGHEST_LOSS_PRICE:
                    break
                relaxation.loss_price *= 2.0  # losses are still worth inventing: price them higher
                continue
            nominal, lowest, highest = self.replay_all(problem, solution, certify)
            if not np.isfinite(lowest).all() or lowest[~self.linear.upstream_of_limits].min() <= LOST_PU:
                break
            volts = self.volts_at(solution)
            limits = ~problem.dark_observations & ~self.linear.upstream_of_limits
            worst = max(self.violation(lowest, limits), self.violation(highest, limits))
            relaxation.learn(lowest, highest, solution)
            if worst < VIOLATION_PU:
                best = Certified(solution, nominal, worst, number)
                if abs(solution.objective_w - before) <= RELAXED_SETTLED * max(solution.objective_w, 1.0):
                    break
            before = solution.objective_w
        if best is None or relaxation.solved is None:
            return None
        return best, relaxation.solved.eigenvalue_ratio

    def _settle(self, problem: Problem, solution: DeliverySolution, certify: Certificate) -> "Certified":
        """Replay, correct and solve again until the replay holds and nothing more is to be gained."""
        best: Certified | None = None
        worst = np.inf
        problem.learnt = 0
        restarted = False
        for number in range(1, MAX_ROUNDS + 1):
            worst, voltages = self._replay(problem, solution, certify)
            held = worst < VIOLATION_PU
            if held and (best is None or solution.objective_w > best.solution.objective_w):
                best = Certified(solution, voltages, worst, number)
            try:
                following = problem.solve()
            except RefusedInput:  # residuals of a far-off point can leave no room: start again from no load
                if best is not None or restarted:
                    break
                restarted = True
                following = problem.at_rest()
            step = abs(following.objective_w - solution.objective_w)
            settled = step <= SETTLED * max(solution.objective_w, following.objective_w, 1.0)
            if best is not None and (settled or number >= PATIENCE):
                return best._replace(rounds=number)
            solution = following
        if best is not None:
            return best
        raise RefusedInput(f"{self.feeder.name}: no set point survives its replay (off by {worst:.2g} p.u.)")

    def _search_taps(self, problem: Problem, best: "Certified", certify: Certificate, demand_w: float) -> "Certified":
        """Move taps one step at a time while the corrected programme gains; keep what its replay confirms."""
        for attempt in range(TAP_ATTEMPTS):
            if attempt == 0:  # again from free ratios, now with the residuals known
                problem.release_taps()
                bound = problem.value()
                if best.solution.objective_w >= bound - TAP_GAP * demand_w:
                    break
                value = problem.choose_taps().objective_w
            else:
                problem.fix_taps(best.solution.taps if attempt % 2 else self.delivery.default_taps)
                value = problem.value()
            value = self._climb(problem, value, demand_w)
            if value <= best.solution.objective_w + SETTLED * demand_w:
                continue
            try:
                found = self._settle(problem, problem.solve(), certify)
            except RefusedInput:
                continue
            if found.solution.objective_w > best.solution.objective_w:
                best = found
        return best

    @staticmethod
    def _climb(problem: Problem, value: float, demand_w: float) -> float:
        """Take single tap steps that raise the served power of the programme until none does."""
        taps = dict(problem.taps)
        improved = True
        while improved:
            improved = False
            for unit in problem.binding_units():
                for step in (1, -1):
                    move = {**taps, unit: taps[unit] + step}
                    if abs(move[unit]) > MAX_TAP:
                        continue
                    problem.fix_taps(move)
                    gained = problem.value()
                    if gained > value + SETTLED * demand_w:
                        taps, value, improved = move, gained, True
                        break
                if improved:
                    break
                problem.fix_taps(taps)
                problem.value()
        problem.fix_taps(taps)
        return value

    def _replay(
        self, problem: Problem, solution: DeliverySolution, certify: Certificate
    ) -> tuple[float, Vector]:  # fmt: skip
        """Replay a solution; teach the problem its residuals; give the worst violation and the nominal voltages."""
        limits = ~problem.dark_observations & ~self.linear.upstream_of_limits
        nominal, lowest, highest = self.replay_all(problem, solution, certify)
        problem.learn(lowest**2, highest**2, self._load_voltage, solution, worst_case=certify == "worst_case")
        worst = max(self.violation(lowest, limits), self.violation(highest, limits))
        return worst, nominal

    def replay_all(
        self, problem: Problem, solution: DeliverySolution, certify: Certificate
    ) -> tuple[Vector, Vector, Vector]:
        """Replay at the nominal demand and the worst ones; give nominal, lowest and highest voltages."""
        self.replay.set_taps(solution.taps)
        nominal = self._power_flow(solution, np.ones(len(self.feeder.loads)))
        self._load_voltage = self.replay.load_voltages()
        lowest, highest = nominal, nominal
        if certify == "worst_case":
            for factors in problem.worst_demands():
                voltages = self._power_flow(solution, factors)
                lowest, highest = np.minimum(lowest, voltages), np.maximum(highest, voltages)
        return nominal, lowest, highest

    def volts_at(self, solution: DeliverySolution) -> dict[tuple[str, int], complex]:
        """Replay at the nominal demand for the complex voltages."""
        self.replay.set_taps(solution.taps)
        self._power_flow(solution, np.ones(len(self.feeder.loads)))
        return self.replay.node_volts()

    def _power_flow(self, solution: DeliverySolution, factors: Vector) -> Vector:
        loads = self.feeder.loads
        count = len(loads)
        power = np.concatenate([self.delivery.load_w * solution.served * factors, solution.shunt_w])
        reactive = np.concatenate([self.delivery.load_var * solution.served * factors, solution.shunt_var])
        assert len(power) == count + len(self.shunts)
        self.replay.set_powers(power, reactive)
        try:
            return self.replay.solve()
        except NotConverged:
            return np.full(len(self.linear.observations), LOST_PU)

    def violation(self, voltages: Vector, limits: NDArray[np.bool_]) -> float:
        """Give the largest distance outside the limits, p.u., where ``limits`` apply."""
        if not limits.any():
            return 0.0
        v = voltages[limits]
        return float(max(np.max(self.lower_pu - v), np.max(v - self.upper_pu), 0.0))

    def _refuse_limits_without_load(self) -> None:
        """Check that the limits can hold at all: with every load shed and every device at its default."""
        solution = self.delivery.at_rest()
        self.replay.set_taps(solution.taps)
        voltages = self._power_flow(solution, np.ones(len(self.feeder.loads)))
        limits = ~self.linear.upstream_of_limits
        if self.violation(voltages, limits) >= VIOLATION_PU:
            away = np.where(limits, np.maximum(self.lower_pu - voltages, voltages - self.upper_pu), -1.0)
            row = int(np.argmax(away))
            raise RefusedInput(
                f"{self.feeder.name}: with no load at all bus {self.linear.observations[row][0]} stands at "
                f"{voltages[row]:.4f} p.u., outside {self.lower_pu:g}-{self.upper_pu:g} "
                f"(the source holds {self.feeder.facts.source.pu:g}); "
                "widen the limits"
            )

    def default_voltages(self, scale: Vector) -> Vector:
        """Solve with every device at its default and demands at ``scale``; p.u. of every observation."""
        rest = self.delivery.at_rest()
        self.replay.set_taps(rest.taps)
        self.replay.set_powers(
            np.concatenate([self.delivery.load_w * scale, rest.shunt_w]),
            np.concatenate([self.delivery.load_var * scale, rest.shunt_var]),
        )
        return self.replay.solve()

    def scale(self, demand_scale: float | Mapping[str, float]) -> Vector:
        """Give the demand factor of every load item."""
        loads = self.feeder.loads
        if isinstance(demand_scale, Mapping):
            self.feeder.require_nodes(demand_scale)
            scale = np.array([float(demand_scale.get(item.node, 1.0)) for item in loads])
        else:
            scale = np.full(len(loads), float(demand_scale))
        if not np.all(np.isfinite(scale)) or (scale < 0.0).any() or (scale > 100.0).any():
            raise RefusedInput("demand_scale must lie within 0 and 100")
        return scale

    def dark(self, failed: Collection[str]) -> frozenset[str]:
        """List the failed nodes and everything the source reaches only through them."""
        out = set(failed)
        for above, below in self.feeder.edges:
            if above in out:
                out.add(below)
        return frozenset(out)

    def result(
        self,
        solution: DeliverySolution,
        voltages: Vector,
        scale: Vector,
        worst: float,
        rounds: int,
        certify: str = "nominal",
        eigenvalue_ratio: float | None = None,
    ) -> ServedPower:
        """Lay a certified set point out by bus and device."""
        loads = self.feeder.loads
        served = self.delivery.load_w * solution.served
        demand = self.delivery.load_w * scale
        by_bus: dict[str, list[float]] = {}
        fraction: dict[str, list[float]] = {}
        for (bus, _), value in zip(self.linear.observations, voltages, strict=True):
            by_bus.setdefault(bus, []).append(float(value))
        for item, s, d in zip(loads, served, demand, strict=True):
            sums = fraction.setdefault(item.bus, [0.0, 0.0])
            sums[0] += float(s)
            sums[1] += float(d)
        generation_w: dict[str, float] = {}
        generation_var: dict[str, float] = {}
        for shunt, p, q in zip(self.shunts, solution.shunt_w, solution.shunt_var, strict=True):
            if shunt.kind == "generator":
                generation_w[shunt.name] = generation_w.get(shunt.name, 0.0) - float(p)
                generation_var[shunt.name] = generation_var.get(shunt.name, 0.0) - float(q)
        total = float(served.sum())
        nominal = float(demand.sum())
        return ServedPower(
            served_w=total,
            nominal_w=nominal,
            served_share=1.0 if nominal <= 0.0 else total / nominal,
            max_violation_pu=worst,
            rounds=rounds,
            formulation="linear" if eigenvalue_ratio is None else "sdp",
            certified=certify,
            eigenvalue_ratio=eigenvalue_ratio,
            voltages=by_bus,
            served_fraction={b: (s / d if d > 0.0 else 1.0) for b, (s, d) in fraction.items()},
            taps=dict(solution.taps),
            generation_w=generation_w,
            generation_var=generation_var,
            capacitors=dict(solution.capacitors),
            lower_pu=self.lower_pu,
            upper_pu=self.upper_pu,
            blind_error=self.blind_error,
        )


def _check(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise RefusedInput(f"{name} is {value:g}; it must lie within {low:g} and {high:g}")
