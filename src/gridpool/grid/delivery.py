"""Maximal load delivery as a linear programme: built once for given links, re-solved as demand and residuals change.

Columns are the served part of every load phase (in multiples of its nominal power), capacitor settings, generator set
points, and the squared voltages at regulators. Each voltage limit is one row whose robust margin is in closed form: an
unobserved load that may be off by e moves the squared voltage by at most e times its own coefficient.
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gridpool.errors import GridpoolError, RefusedInput
from gridpool.grid.feeder import Feeder
from gridpool.grid.linear import LinearModel
from gridpool.grid.replay import TAP_STEP
from gridpool.grid.shunts import Shunt

__all__ = ["MAX_TAP", "Delivery", "DeliverySolution", "Problem", "Programme"]

Vector = NDArray[np.float64]
CALM_AFTER = 5
"""Rounds after which corrections only tighten against the round before."""

FACTORS_LEARNT = 2
"""Rounds that update what voltage-dependent loads draw; later it stays, and residuals carry the difference."""

POWER_EXPONENT = {1: 0.0, 2: 2.0, 3: 0.0, 4: 1.0, 5: 1.0}
"""Power of the voltage that a load's real power follows, by its model."""

MAX_TAP = 16
RATIO_BAND = (0.81, 1.21)
"""Range of a regulator's squared ratio: 0.9 to 1.1."""
PROBLEMS_KEPT = 64
DISTANCE_WEIGHT = 0.1
"""Worth of one p.u. squared of distance to the limits while taps are chosen, as a share of all load."""

LARGEST_DISTANCE = 0.02
"""Distance (squared p.u.) beyond which there is no more to gain: three steps of a tap."""

NEGLIGIBLE = 1e-9
"""Coefficients (squared p.u. for a whole load) below which a load does not matter to a voltage."""


@dataclass(frozen=True, eq=False)
class DeliverySolution:
    """Set points: served part of each load item's nominal power, power drawn by shunts (W, var), taps, capacitors."""

    objective_w: float
    served: Vector
    shunt_w: Vector
    shunt_var: Vector
    taps: Mapping[str, int]
    capacitors: Mapping[str, float]
    columns: Vector


@dataclass(frozen=True, eq=False)
class Programme:
    """A linear programme as it stands: maximise cost @ x within the bounds of rows and columns."""

    cost: Vector
    matrix: Vector
    row_lower: Vector
    row_upper: Vector
    column_lower: Vector
    column_upper: Vector


class Delivery:
    """The parts of the programme that do not depend on the links."""

    def __init__(
        self, *, feeder: Feeder, linear: LinearModel, shunts: tuple[Shunt, ...], default_taps: Mapping[str, int],
        default_capacitors: float, default_generation: float, reactive_share: float, blind_error: float,
        lower_pu: float, upper_pu: float, switchable: bool,
    ) -> None:  # fmt: skip
        self.feeder, self.linear, self.shunts = feeder, linear, shunts
        self.default_taps = dict(default_taps)
        self.default_capacitors, self.default_generation = default_capacitors, default_generation
        self.reactive_share, self.blind_error = reactive_share, blind_error
        self.lower_pu, self.upper_pu = lower_pu, upper_pu
        self.switchable = switchable
        self.load_w = np.array([item.power_w for item in feeder.loads])
        self.load_var = np.array([item.reactive_var for item in feeder.loads])
        self.load_node = [item.node for item in feeder.loads]
        count = len(feeder.loads)
        self.capacitor_names = list(dict.fromkeys(s.name for s in shunts if s.kind == "capacitor"))
        self.capacitor_of = [self.capacitor_names.index(s.name) if s.kind == "capacitor" else -1 for s in shunts]
        self.generators = [i for i, s in enumerate(shunts) if s.kind == "generator"]
        linear_rows = len(linear.observations)
        parts = [linear.real[:, :count] * self.load_w + linear.reactive[:, :count] * self.load_var]
        capacitor_columns = np.zeros((linear_rows, len(self.capacitor_names)))
        for i, shunt in enumerate(shunts):
            if self.capacitor_of[i] >= 0:
                capacitor_columns[:, self.capacitor_of[i]] -= linear.reactive[:, count + i] * shunt.rating_va
        parts.append(capacitor_columns)
        columns = [count + i for i in self.generators]
        ratings = np.array([shunts[i].rating_va for i in self.generators])
        parts.append(-linear.real[:, columns] * ratings)
        parts.append(-linear.reactive[:, columns] * ratings)
        parts.append(linear.regulated)
        self.rows = np.concatenate(parts, axis=1)
        self.margin = np.abs(
            linear.real_full[:, :count] * self.load_w + linear.reactive_full[:, :count] * self.load_var
        )
        self.signs = np.sign(
            linear.real_full[:, :count] * self.load_w + linear.reactive_full[:, :count] * self.load_var
        )
        self.signs[self.margin < NEGLIGIBLE] = 0.0
        self.device_node = {d.name: d.node for d in feeder.devices}
        self.exponent = np.array([POWER_EXPONENT[item.model] for item in feeder.loads])
        base = np.array([feeder.base_kv[i.bus] / (1.0 if len(i.phases) == 2 else 3.0**0.5) for i in feeder.loads])
        self.flat_voltage = base / np.array([item.kv for item in feeder.loads])
        self._problems: OrderedDict[tuple[frozenset[str], frozenset[str]], Problem] = OrderedDict()

    def problem(self, seen: frozenset[str], steered: frozenset[str], scale: Vector, dark: frozenset[str]) -> "Problem":
        """Give the programme for these links, reset to this demand and these dark nodes."""
        steered = steered & set(self.feeder.device_nodes())
        seen = seen & set(self.load_node)
        key = (seen, steered)
        found = self._problems.get(key)
        if found is None:
            found = self._problems[key] = Problem(self, seen, steered)
            while len(self._problems) > PROBLEMS_KEPT:
                self._problems.popitem(last=False)
        self._problems.move_to_end(key)
        found.reset(scale, dark)
        return found

    def at_rest(self) -> DeliverySolution:
        """Give the point with every load shed and every device at its default."""
        columns = np.zeros(self.rows.shape[1])
        count = len(self.load_w)
        caps = len(self.capacitor_names)
        columns[count : count + caps] = self.default_capacitors
        columns[count + caps : count + caps + len(self.generators)] = self.default_generation
        return self.solution(columns, self.default_taps)

    def solution(self, columns: Vector, taps: Mapping[str, int], factor: Vector | float = 1.0) -> DeliverySolution:
        """Read the columns of the programme as set points; ``factor`` is what a load draws of its nominal power."""
        count, caps, gens = len(self.load_w), len(self.capacitor_names), len(self.generators)
        settings = columns[count : count + caps]
        real = columns[count + caps : count + caps + gens]
        reactive = columns[count + caps + gens : count + caps + 2 * gens]
        served = np.maximum(columns[:count], 0.0) / factor
        shunt_w, shunt_var = np.zeros(len(self.shunts)), np.zeros(len(self.shunts))
        for i, shunt in enumerate(self.shunts):
            if self.capacitor_of[i] >= 0:
                shunt_var[i] = -shunt.rating_va * settings[self.capacitor_of[i]]
        for k, i in enumerate(self.generators):
            shunt_w[i] = -self.shunts[i].rating_va * real[k]
            shunt_var[i] = -self.shunts[i].rating_va * reactive[k]
        return DeliverySolution(
            objective_w=float(self.load_w @ served),
            served=served,
            shunt_w=shunt_w,
            shunt_var=shunt_var,
            taps=dict(taps),
            capacitors={name: float(v) for name, v in zip(self.capacitor_names, settings, strict=True)},
            columns=columns,
        )


class Problem:
    """The programme for one pair of observed and controlled nodes, kept in HiGHS and re-solved."""

    def __init__(self, delivery: Delivery, seen: frozenset[str], steered: frozenset[str]) -> None:
        self.delivery = delivery
        d = delivery
        linear = d.linear
        self.steered = steered
        error = np.array([0.0 if node in seen else d.blind_error for node in d.load_node])
        self.error = error
        count = len(d.load_w)
        self.margin = d.margin * error
        n_obs, n_cols = d.rows.shape
        wide = np.zeros_like(d.rows)
        wide[:, :count] = self.margin
        self.regulated_start = n_cols - linear.regulated.shape[1]
        lower, upper = d.rows - wide, d.rows + wide
        extra: list[Vector] = []
        extra_bounds: list[tuple[float, float]] = []
        for k, row in enumerate(linear.primary_rows):  # primary column = the observation it stands for
            line = -d.rows[row].copy()
            line[self.regulated_start + 2 * k] += 1.0
            extra.append(line)
            extra_bounds.append((linear.constant[row], linear.constant[row]))
        for column, terms in linear.free:
            line = np.zeros(n_cols)
            line[self.regulated_start + column] = 1.0
            for other, weight in terms:
                line[self.regulated_start + other] -= weight
            extra.append(line)
            extra_bounds.append((0.0, 0.0))
        self.ratio_row = 2 * n_obs + len(extra)
        self.controllable: list[bool] = []
        for regulator in linear.regulators:
            free = d.device_node.get(regulator.bank, "") in steered
            self.controllable.append(free)
            default = (1.0 + TAP_STEP * d.default_taps[regulator.transformer]) ** 2
            low, high = RATIO_BAND if free else (default, default)
            for bound, limits in ((low, (0.0, np.inf)), (high, (-np.inf, 0.0))):
                line = np.zeros(n_cols)
                line[self.regulated_start + regulator.secondary] = 1.0
                line[self.regulated_start + regulator.primary] = -bound
                extra.append(line)
                extra_bounds.append(limits)
        groups: dict[str, list[int]] = {}
        for k, regulator in enumerate(linear.regulators):
            groups.setdefault(regulator.transformer, []).append(k)
        self.tie_rows: list[int] = []  # rows among ``extra``
        for members in groups.values():  # one unit on three phases: equal ratios around equal primaries
            for k in members[1:]:
                line = np.zeros(n_cols)
                for sign, j in ((1.0, members[0]), (-1.0, k)):
                    line[self.regulated_start + linear.regulators[j].secondary] += sign
                    line[self.regulated_start + linear.regulators[j].primary] -= sign
                self.tie_rows.append(len(extra))
                extra.append(line)
                extra_bounds.append((0.0, 0.0))
        self.groups = {unit: k for unit, k in groups.items() if self.controllable[k[0]]}
        matrix = np.concatenate([lower, upper, np.array(extra).reshape(-1, n_cols)])
        # one more column: the distance that every voltage below a regulator keeps from its limits while taps
        # are chosen, else zero
        distance = np.zeros((matrix.shape[0], 1))
        below = linear.regulated.any(axis=1)
        distance[:n_obs][below], distance[n_obs : 2 * n_obs][below] = -1.0, 1.0
        matrix = np.concatenate([matrix, distance], axis=1)
        self.extra_bounds = np.array(extra_bounds).reshape(-1, 2)
        self.matrix_rows = matrix.shape[0]
        self._highs: Any = None
        self._start_highs(matrix)
        self._worst_demands: tuple[Vector, ...] | None = None
        self.column_bounds = (np.zeros(n_cols), np.zeros(n_cols))
        self.taps = dict(d.default_taps)
        self.rounded = False
        self.dark_observations = np.zeros(n_obs, dtype=bool)
        self._before = (np.zeros(n_obs), np.zeros(n_obs))
        self._steps = [np.zeros(n_obs), np.zeros(n_obs)]
        self.learnt = 0
        self.factor = np.ones(count)
        self.most = np.ones(count)
        self.fixed = False
        self.correction_lower = np.zeros(n_obs)
        self.correction_upper = np.zeros(n_obs)

    def _start_highs(self, matrix: Vector) -> None:
        import highspy
        from scipy.sparse import csc_matrix

        sparse = csc_matrix(np.where(np.abs(matrix) > 1e-12, matrix, 0.0))
        n_rows, n_cols = matrix.shape
        lp = highspy.HighsLp()
        lp.num_col_, lp.num_row_ = n_cols, n_rows
        cost = np.zeros(n_cols)
        cost[: len(self.delivery.load_w)] = self.delivery.load_w / 1e6
        cost[-1] = DISTANCE_WEIGHT * float(self.delivery.load_w.sum()) / 1e6
        lp.col_cost_ = cost
        lp.col_lower_, lp.col_upper_ = np.full(n_cols, -np.inf), np.full(n_cols, np.inf)
        lp.row_lower_, lp.row_upper_ = np.full(n_rows, -np.inf), np.full(n_rows, np.inf)
        lp.a_matrix_.format_ = highspy.MatrixFormat.kColwise
        lp.a_matrix_.start_, lp.a_matrix_.index_, lp.a_matrix_.value_ = sparse.indptr, sparse.indices, sparse.data
        lp.sense_ = highspy.ObjSense.kMaximize
        self._highs = highspy.Highs()  # type: ignore[no-untyped-call]
        for option, value in (
            ("output_flag", False),
            ("threads", 1),
            ("presolve", "off"),
            ("solver", "simplex"),
            ("primal_feasibility_tolerance", 1e-9),
            ("dual_feasibility_tolerance", 1e-9),
        ):
            self._highs.setOptionValue(option, value)
        if self.delivery.switchable:
            loads = len(self.delivery.load_w)
            kinds = [highspy.HighsVarType.kSemiContinuous] * loads
            lp.integrality_ = kinds + [highspy.HighsVarType.kContinuous] * (n_cols - loads)
            self._highs.setOptionValue("mip_rel_gap", 1e-4)
            self._highs.setOptionValue("presolve", "choose")
        self._highs.passModel(lp)
        self._all_cols = np.arange(n_cols, dtype=np.int32)
        self._all_rows = np.arange(n_rows, dtype=np.int32)

    def reset(self, scale: Vector, dark: frozenset[str]) -> None:
        """Set demand and dark nodes; forget residuals and rounded taps."""
        d = self.delivery
        count, caps, gens = len(d.load_w), len(d.capacitor_names), len(d.generators)
        n_cols = d.rows.shape[1]
        lower, upper = np.full(n_cols, -np.inf), np.full(n_cols, np.inf)
        lower[:count] = 0.0
        alive = np.array([node not in dark for node in d.load_node], dtype=float)
        upper[:count] = self.most = scale * alive
        for k, name in enumerate(d.capacitor_names):
            free = d.device_node.get(name, "") in self.steered
            lower[count + k], upper[count + k] = (0.0, 1.0) if free else (d.default_capacitors,) * 2
        for k, i in enumerate(d.generators):
            shunt = d.shunts[i]
            free = shunt.node in self.steered and shunt.node not in dark
            fixed = d.default_generation if shunt.node not in dark else 0.0
            real, reactive = count + caps + k, count + caps + gens + k
            lower[real], upper[real] = (0.0, 1.0) if free else (fixed, fixed)
            share = d.reactive_share if free else 0.0
            lower[reactive], upper[reactive] = -share, share
        lower[self.regulated_start :], upper[self.regulated_start :] = 0.0, 4.0  # 2 p.u., far outside any limit
        self.column_bounds = (lower, upper)
        lower, upper = np.append(lower, 0.0), np.append(upper, 0.0)
        self._highs.changeColsBounds(n_cols + 1, self._all_cols, lower, upper)
        self.dark_observations = np.array(
            [d.feeder.node_of_bus[bus] in dark for bus, _ in d.linear.observations], dtype=bool
        )
        n_obs = len(d.linear.observations)
        self.correction_lower, self.correction_upper = np.zeros(n_obs), np.zeros(n_obs)
        self._forget()
        self.release_taps()
        self._set_limits()
        self._set_factor(d.flat_voltage**d.exponent)
        self._highs.clearSolver()

    def price(self, saved: float | None) -> None:
        """Serve all load and value generation at ``saved`` a watt instead of served load; None goes back."""
        d = self.delivery
        count, first = len(d.load_w), len(d.load_w) + len(d.capacitor_names)
        self.fixed = saved is not None
        for k, i in enumerate(d.generators):
            worth = 0.0 if saved is None else saved * d.shunts[i].rating_va / 1e6
            self._highs.changeColCost(first + k, worth)
        if saved is None:
            self._highs.changeColsCost(count, self._all_cols[:count], d.load_w / 1e6 / self.factor)
        self._set_factor(self.factor)

    def _set_factor(self, factor: Vector) -> None:
        """Say what each load draws of its nominal power at its voltage; columns count drawn power, worth nominal."""
        count = len(factor)
        self.factor = factor
        # a switchable load is semi-continuous with equal bounds: nothing or all of it
        least = self.most * factor if self.fixed or self.delivery.switchable else np.zeros(count)
        self._highs.changeColsBounds(count, self._all_cols[:count], least, self.most * factor)
        self._highs.changeColsCost(count, self._all_cols[:count], self.delivery.load_w / 1e6 / factor)

    def _set_limits(self) -> None:
        d = self.delivery
        free = self.dark_observations | d.linear.upstream_of_limits
        low = np.where(free, -np.inf, d.lower_pu**2 - d.linear.constant - self.correction_lower)
        high = np.where(free, np.inf, d.upper_pu**2 - d.linear.constant - self.correction_upper)
        none = np.full(len(low), np.inf)
        extra = self.extra_bounds.copy()
        if self.rounded or not self.groups:
            extra[self.tie_rows] = (-np.inf, np.inf)  # equal fixed ratios need no tie, which holds only to first order
        row_lower = np.concatenate([low, -none, extra[:, 0]])
        row_upper = np.concatenate([none, high, extra[:, 1]])
        self._highs.changeRowsBounds(self.matrix_rows, self._all_rows, row_lower, row_upper)

    def _set_ratio(self, k: int, low: float, high: float) -> None:
        regulator = self.delivery.linear.regulators[k]
        column = self.regulated_start + regulator.primary
        self._highs.changeCoeff(self.ratio_row + 2 * k, column, -low)
        self._highs.changeCoeff(self.ratio_row + 2 * k + 1, column, -high)

    def release_taps(self) -> None:
        """Let controllable regulators take any ratio again."""
        self.taps = dict(self.delivery.default_taps)
        if self.rounded:
            for members in self.groups.values():
                for k in members:
                    self._set_ratio(k, *RATIO_BAND)
        was, self.rounded = self.rounded, False
        if was and self.tie_rows:
            self._set_limits()

    def fix_taps(self, taps: Mapping[str, int]) -> None:
        """Hold controllable regulators at these positions."""
        for unit, members in self.groups.items():
            if unit in taps and (not self.rounded or taps[unit] != self.taps[unit]):
                ratio = (1.0 + TAP_STEP * taps[unit]) ** 2
                for k in members:
                    self._set_ratio(k, ratio, ratio)
                self.taps[unit] = taps[unit]
        was, self.rounded = self.rounded, True
        if not was and self.tie_rows:
            self._set_limits()

    def solve(self) -> DeliverySolution:
        """Solve the programme as it stands; RefusedInput if no point meets the limits."""
        import highspy

        self._highs.run()
        status = self._highs.getModelStatus()
        if status not in (highspy.HighsModelStatus.kOptimal, highspy.HighsModelStatus.kInfeasible):
            self._highs.clearSolver()  # a basis left over from other limits led nowhere: start from none
            self._highs.run()
            status = self._highs.getModelStatus()
        if status == highspy.HighsModelStatus.kInfeasible:
            raise RefusedInput(f"{self.delivery.feeder.name}: no set point keeps the voltages within their limits")
        if status != highspy.HighsModelStatus.kOptimal:
            raise GridpoolError(f"{self.delivery.feeder.name}: the solver stopped with {status}")
        columns = np.array(self._highs.getSolution().col_value)[:-1]
        return self.delivery.solution(columns, self.taps, self.factor)

    def at_rest(self) -> DeliverySolution:
        """Forget every residual and give a point with all load shed and regulators at their defaults."""
        self.fix_taps(self.delivery.default_taps)
        n_obs, count = len(self.correction_lower), len(self.most)
        self.correction_lower, self.correction_upper = np.zeros(n_obs), np.zeros(n_obs)
        self._forget()
        self._set_limits()
        most = self.most
        self.most = np.zeros(count)
        self._set_factor(self.factor)
        try:
            return self.solve()
        finally:
            self.most = most
            self._set_factor(self.factor)

    def _forget(self) -> None:
        """Forget how corrections moved."""
        n_obs = len(self.correction_lower)
        self._before = (np.zeros(n_obs), np.zeros(n_obs))
        self._steps = [np.zeros(n_obs), np.zeros(n_obs)]
        self.learnt = 0

    def solver_seconds(self) -> float:
        """Give the time that HiGHS itself reports for all solutions so far."""
        return float(self._highs.getRunTime())

    def exported(self) -> Programme:
        """Give the programme as it stands, for another solver."""
        lp = self._highs.getLp()
        from scipy.sparse import csc_matrix

        a = lp.a_matrix_
        matrix = csc_matrix((a.value_, a.index_, a.start_), shape=(lp.num_row_, lp.num_col_)).toarray()
        parts = (lp.col_cost_, lp.row_lower_, lp.row_upper_, lp.col_lower_, lp.col_upper_)
        cost, row_lower, row_upper, column_lower, column_upper = (np.array(part) for part in parts)
        return Programme(cost, matrix, row_lower, row_upper, column_lower, column_upper)

    def value(self) -> float:
        """Solve for the served power alone, W; minus infinity if no point meets the limits."""
        try:
            return self.solve().objective_w
        except RefusedInput:
            return float("-inf")

    def choose_taps(self) -> DeliverySolution:
        """Solve with free ratios, round controllable regulators to whole steps, solve again with them held.

        Among set points that serve about the same, the one farthest from the limits survives rounding best.
        """
        if not self.groups:
            return self.solve()
        self.release_taps()
        column = len(self._all_cols) - 1
        self._highs.changeColBounds(column, 0.0, LARGEST_DISTANCE)
        solution = self.solve()
        self._highs.changeColBounds(column, 0.0, 0.0)
        taps = {}
        for unit, members in self.groups.items():
            regulator = self.delivery.linear.regulators[members[0]]
            primary = solution.columns[self.regulated_start + regulator.primary]
            secondary = solution.columns[self.regulated_start + regulator.secondary]
            steps = (np.sqrt(secondary / primary) - 1.0) / TAP_STEP
            taps[unit] = int(np.clip(round(float(steps)), -MAX_TAP, MAX_TAP))
        self.fix_taps(taps)
        try:
            return self.solve()
        except RefusedInput:
            self.fix_taps(self.delivery.default_taps)
            return self.solve()

    def binding_units(self) -> list[str]:
        """List regulators whose position the last solution depends on, the most valuable first."""
        if self.delivery.switchable:
            return list(self.groups)
        duals = np.abs(np.array(self._highs.getSolution().row_dual))
        weight = {
            unit: float(sum(duals[self.ratio_row + 2 * k] + duals[self.ratio_row + 2 * k + 1] for k in members))
            for unit, members in self.groups.items()
        }
        return sorted((u for u in weight if weight[u] > 1e-9), key=lambda u: -weight[u])

    def learn(
        self, lowest: Vector, highest: Vector, load_voltage: Vector, solution: DeliverySolution, *, worst_case: bool
    ) -> None:
        """Correct every limit by how far replayed squared voltages lie from the predicted ones.

        ``lowest`` and ``highest`` are taken over all replayed demands; without ``worst_case`` they are the nominal
        voltages, and the margins stay as the programme predicts them. ``load_voltage`` (share of rated) sets what
        voltage-dependent loads draw.
        """
        d = self.delivery
        count = len(d.load_w)
        if self.learnt < FACTORS_LEARNT:
            self._set_factor(np.clip(load_voltage, 0.2, 2.0) ** d.exponent)
        columns = solution.columns.copy()
        columns[:count] = solution.served * self.factor
        predicted = d.rows @ columns + d.linear.constant
        spread = self.margin @ columns[:count] if worst_case else 0.0
        lower, upper = lowest - (predicted - spread), highest - (predicted + spread)
        self.learnt += 1
        if self.learnt > CALM_AFTER:  # the programme jumps between corners: keep both of the last two in
            self.correction_lower = np.minimum(lower, self._before[0])
            self.correction_upper = np.maximum(upper, self._before[1])
        else:
            self.correction_lower = self._calm(lower, self.correction_lower, 0)
            self.correction_upper = self._calm(upper, self.correction_upper, 1)
        self._before = (lower, upper)
        self._set_limits()

    def _calm(self, new: Vector, old: Vector, side: int) -> Vector:
        """Take the middle where a correction swings back by most of its last step."""
        step = new - old
        swings = (step * self._steps[side] < 0.0) & (np.abs(step) > 0.8 * np.abs(self._steps[side]))
        taken = np.where(swings, old + step / 2.0, new)
        self._steps[side] = taken - old
        return taken

    def worst_demands(self) -> tuple[Vector, ...]:
        """List the distinct demands that are worst for some limit, as factors on each load item."""
        if self._worst_demands is None:
            # a load that draws lowers the voltage (negative sign): its worst case for the lower limit is high
            signs = self.delivery.signs[~self.delivery.linear.upstream_of_limits] * (self.error > 0.0)
            patterns = np.unique(np.concatenate([signs, -signs]), axis=0)
            self._worst_demands = tuple(1.0 - patterns[patterns.any(axis=1)] * self.error)
        return self._worst_demands
