"""Problem (7) as a mixed-integer programme in HiGHS: any variant, fading by block, several MVNOs, slots and cells."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import highspy
import numpy as np

from gridpool.errors import GridpoolError, RefusedInput
from gridpool.radio.cells import zone_blocks
from gridpool.radio.occupancy import Choice
from gridpool.radio.packages import URLLC, Packages, share_blocks
from gridpool.radio.placement import place_counts

__all__ = ["Solved", "best_counts", "best_packages"]

CLOSE = 1e-9


@dataclass(frozen=True, slots=True)
class Solved:
    """Choices of a mixed-integer programme, the bound that it proved, whether that is reached, and HiGHS's own time."""

    choices: list[Choice]
    bound: float
    optimal: bool
    solver_s: float
    how: str = "mixed-integer programme"


@dataclass(slots=True)
class _Model:
    """Columns and rows of a programme, maximised."""

    cost: list[float] = field(default_factory=list)
    upper: list[float] = field(default_factory=list)
    rows: list[tuple[list[int], list[float], float, float]] = field(default_factory=list)

    def column(self, cost: float, upper: float = 1.0) -> int:
        self.cost.append(cost)
        self.upper.append(upper)
        return len(self.cost) - 1

    def row(self, columns: Sequence[int], factors: Sequence[float], lower: float, upper: float) -> None:
        if len(columns):
            self.rows.append((list(columns), list(factors), lower, upper))


def best_packages(
    items: Packages, *, time_limit_s: float = 60.0, by_block: bool = False, lexicographic: bool = True
) -> Solved:
    """Return the best packages: by value, then served URLLC, then served mMTC slices.

    ``by_block`` spells the programme out with one variable for each item and resource block, as (7) is printed, also
    where channels are flat and counts would do.
    """
    model = _Model()
    if items.rates is not None or by_block:
        read, served = _blocks_model(model, items)
    else:
        read, served = _packages_model(model, items)
    steps = [served[item] for item in sorted(served)]
    goals: list[list[int]] = []
    if lexicographic:
        goals = [
            [column for item in sorted(served) if items.slice[item] == URLLC for column in served[item]],
            [column for columns in steps for column in columns],
        ]
    values, bound, optimal, solver_s = _run(model, goals, time_limit_s)
    return Solved(read(values), bound, optimal, solver_s)


def best_counts(items: Packages, *, literal: bool, time_limit_s: float = 60.0) -> Solved:
    """Return the best allocation in which blocks beyond a slice's need count too.

    With ``literal`` every URLLC slice must have what it needs (7f), else only those that are served at all.
    """
    model = _Model()
    reader = (_counts_model if items.rates is None else _literal_blocks_model)(model, items, literal)
    values, bound, optimal, solver_s = _run(model, [], time_limit_s)
    return Solved(reader(values), bound, optimal, solver_s)


Reader = Callable[[np.ndarray], list[Choice]]


def _packages_model(model: _Model, items: Packages) -> tuple[Reader, dict[int, list[int]]]:
    """One variable for each mMTC item and slot, one for each URLLC item (the same in every slot)."""
    slots = items.instance.slots
    of: dict[tuple[int, int], tuple[int, int]] = {}
    served: dict[int, list[int]] = {}
    for item in np.flatnonzero(items.blocks > 0).tolist():
        k, worth = int(items.blocks[item]), float(items.worth[item])
        if items.slice[item] == URLLC:
            column = model.column(worth)
            served[item] = [column]
            for slot in range(slots):
                of[item, slot] = (column, k)
        else:
            served[item] = [model.column(worth) for _ in range(slots)]
            for slot, column in enumerate(served[item]):
                of[item, slot] = (column, k)
            if slots > 1:
                model.row(served[item], [1.0] * slots, 0.0, 1.0)
    _limits(model, items, of)
    _guards(model, items, of)

    def read(values: np.ndarray) -> list[Choice]:
        counts = {key: k for key, (column, k) in of.items() if values[column] > 0.5}
        return place_counts(items, counts)

    return read, served


def _counts_model(model: _Model, items: Packages, literal: bool) -> Reader:
    """Integer blocks for each item and slot; a served URLLC item has at least its k in every slot."""
    slots = items.instance.slots
    of: dict[tuple[int, int], tuple[int, int]] = {}
    for item in range(len(items)):
        k, zone = int(items.blocks[item]), items.instance.zones[int(items.zone[item])]
        if k == 0:
            continue
        each = float(items.block_value[item] * items.rate[item])
        columns = [model.column(each, zone) for _ in range(slots)]
        for slot, column in enumerate(columns):
            of[item, slot] = (column, 1)
        if items.slice[item] == URLLC:
            if literal:
                for column in columns:
                    model.row([column], [1.0], k, zone)
            else:
                served = model.column(0.0)
                for column in columns:
                    model.row([column, served], [1.0, -float(k)], 0.0, np.inf)
                    model.row([column, served], [1.0, -float(zone)], -np.inf, 0.0)
    _limits(model, items, of)

    def read(values: np.ndarray) -> list[Choice]:
        counts = {key: round(values[column]) for key, (column, _) in of.items() if values[column] > 0.5}
        return place_counts(items, counts)

    return read


def _blocks_model(model: _Model, items: Packages) -> tuple[Reader, dict[int, list[int]]]:
    """One variable for each item, slot and block of its zone: exactly k of them, meeting the need, or none."""
    instance, slots = items.instance, items.instance.slots
    spans, needed = zone_blocks(instance.zones), instance.urllc_requirement.required_bps
    columns: dict[tuple[int, int], list[tuple[int, int]]] = {}
    served: dict[int, list[int]] = {}
    for item in np.flatnonzero(items.blocks > 0).tolist():
        span, k, urllc = spans[items.zone[item]], int(items.blocks[item]), items.slice[item] == URLLC
        served[item] = [model.column(0.0)] if urllc else []
        for slot in range(slots):
            costs = [_block_cost(items, item, block) for block in span]
            here = [(model.column(cost), block) for cost, block in zip(costs, span, strict=True) if cost is not None]
            columns[item, slot] = here
            if urllc:
                model.row([c for c, _ in here] + served[item], [1.0] * len(here) + [-float(k)], 0.0, 0.0)
                if items.rates is not None:
                    scale = 1.0 / needed
                    rates = [float(items.rates[item, block]) * scale for _, block in here]
                    model.row([c for c, _ in here] + served[item], [*rates, -1.0], 0.0, np.inf)
            else:
                served[item] += [c for c, _ in here]
        if not urllc:
            model.row(served[item], [1.0] * len(served[item]), 0.0, 1.0)
    _block_limits(model, items, columns)
    return _block_reader(items, columns), served


def _literal_blocks_model(model: _Model, items: Packages, literal: bool) -> Reader:
    """Like the programme by block, but blocks beyond the need are welcome."""
    instance, slots = items.instance, items.instance.slots
    spans, needed = zone_blocks(instance.zones), instance.urllc_requirement.required_bps
    columns: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for item in np.flatnonzero(items.blocks > 0).tolist():
        span, urllc = spans[items.zone[item]], items.slice[item] == URLLC
        served = model.column(0.0) if urllc and not literal else -1
        for slot in range(slots):
            costs = [_block_cost(items, item, block) for block in span]
            here = [(model.column(cost), block) for cost, block in zip(costs, span, strict=True) if cost is not None]
            columns[item, slot] = here
            if not urllc or items.rates is None:
                continue
            rates = [float(items.rates[item, block]) / needed for _, block in here]
            if literal:
                model.row([c for c, _ in here], rates, 1.0, np.inf)
            else:
                model.row([c for c, _ in here] + [served], [*rates, -1.0], 0.0, np.inf)
                for c, _ in here:
                    model.row([c, served], [1.0, -1.0], -np.inf, 0.0)
    _block_limits(model, items, columns)
    return _block_reader(items, columns)


def _block_cost(items: Packages, item: int, block: int) -> float | None:
    """Return what one block adds to the objective, None where its rate is zero and it cannot serve."""
    rate = int(items.rate[item]) if items.rates is None else int(items.rates[item, block])
    if rate == 0:
        return None
    if items.objective == "coverage":
        repeats = items.instance.slots if items.slice[item] == URLLC else 1
        return float(items.worth[item]) / (int(items.blocks[item]) * repeats)
    return float(items.block_value[item]) * rate


def _limits(model: _Model, items: Packages, of: dict[tuple[int, int], tuple[int, int]]) -> None:
    """Add zone capacities (7b, 7e), shares (7c), power (7d) and budgets over counts."""
    instance = items.instance
    zones: dict[tuple[int, int, int], list[tuple[int, int]]] = {}
    for (item, slot), entry in of.items():
        zones.setdefault((int(items.cell[item]), slot, int(items.zone[item])), []).append(entry)
    for (_, _, zone), entries in zones.items():
        model.row([c for c, _ in entries], [float(k) for _, k in entries], -np.inf, instance.zones[zone])
    _member_limits(model, items, [(item, slot, column, k) for (item, slot), (column, k) in of.items()])


def _block_limits(model: _Model, items: Packages, columns: dict[tuple[int, int], list[tuple[int, int]]]) -> None:
    """Add one user a block (7b), shares (7c), power (7d) and budgets."""
    users: dict[tuple[int, int, int], list[int]] = {}
    for (item, slot), here in columns.items():
        for column, block in here:
            users.setdefault((int(items.cell[item]), slot, block), []).append(column)
    for taken in users.values():
        if len(taken) > 1:
            model.row(taken, [1.0] * len(taken), -np.inf, 1.0)
    _member_limits(
        model, items, [(item, slot, column, 1) for (item, slot), here in columns.items() for column, _ in here]
    )


def _member_limits(model: _Model, items: Packages, entries: list[tuple[int, int, int, int]]) -> None:
    instance, share = items.instance, share_blocks(items.instance).tolist()
    used: dict[tuple[int, int, int], list[tuple[int, int]]] = {}
    urllc: dict[tuple[int, int, int], list[tuple[int, int]]] = {}
    total: dict[int, dict[int, int]] = {}
    for item, slot, column, k in entries:
        key = (int(items.cell[item]), slot, int(items.mvno[item]))
        used.setdefault(key, []).append((column, k))
        if items.slice[item] == URLLC:
            urllc.setdefault(key, []).append((column, k))
        over = total.setdefault(key[2], {})
        over[column] = over.get(column, 0) + k
    for (_, _, mvno), here in used.items():
        if share[mvno] < sum(instance.zones):
            model.row([c for c, _ in here], [float(k) for _, k in here], -np.inf, share[mvno])
    for here in urllc.values():
        model.row([c for c, _ in here], [float(k) for _, k in here], -np.inf, instance.urllc_blocks)
    if instance.budget_blocks is not None:
        for over in total.values():
            model.row(list(over), [float(k) for k in over.values()], -np.inf, instance.budget_blocks)


def _guards(model: _Model, items: Packages, of: dict[tuple[int, int], tuple[int, int]]) -> None:
    """Where a zone carries both slices in a slot, keep the guard between unequal numerologies free."""
    instance = items.instance
    guard = instance.numerology.guard_blocks
    if guard == 0:
        return
    zones: dict[tuple[int, int, int], list[tuple[int, int, bool]]] = {}
    for (item, slot), (column, k) in of.items():
        key = (int(items.cell[item]), slot, int(items.zone[item]))
        zones.setdefault(key, []).append((column, k, bool(items.slice[item] == URLLC)))
    for (_, _, zone), entries in zones.items():
        some = {True: model.column(0.0), False: model.column(0.0)}
        both = model.column(0.0)
        for column, _, urllc in entries:
            model.row([column, some[urllc]], [1.0, -1.0], -np.inf, 0.0)
        model.row([some[True], some[False], both], [1.0, 1.0, -1.0], -np.inf, 1.0)
        model.row(
            [c for c, _, _ in entries] + [both],
            [float(k) for _, k, _ in entries] + [float(guard)],
            -np.inf,
            instance.zones[zone],
        )


def _block_reader(items: Packages, columns: dict[tuple[int, int], list[tuple[int, int]]]) -> Reader:
    def read(values: np.ndarray) -> list[Choice]:
        chosen: dict[int, dict[int, tuple[int, ...]]] = {}
        for (item, slot), here in columns.items():
            blocks = tuple(block for column, block in here if values[column] > 0.5)
            if blocks:
                chosen.setdefault(item, {})[slot] = blocks
        return [
            Choice(item, tuple(sorted(chosen[item])), tuple(chosen[item][slot] for slot in sorted(chosen[item])))
            for item in sorted(chosen)
        ]

    return read


def _run(model: _Model, goals: list[list[int]], time_limit_s: float) -> tuple[np.ndarray, float, bool, float]:
    """Maximise the cost, then each goal's number of ones without losing what was reached before."""
    columns = len(model.cost)
    if columns == 0:
        return np.zeros(0), 0.0, True, 0.0
    cost = np.array(model.cost)
    scale = 1.0 / float(cost.max()) if cost.max() > 0 else 1.0
    solver = _solver(model, cost * scale, time_limit_s)
    values, bound, optimal = _solve(solver)
    keep = [(np.arange(columns), cost * scale, float(cost @ values) * scale)]
    for goal in goals:
        if not goal or not optimal:
            continue
        where, factors, reached = keep[-1]
        solver.addRow(reached - CLOSE * max(1.0, abs(reached)), np.inf, len(where), where.astype(np.int32), factors)
        aim = np.zeros(columns)
        aim[goal] = 1.0
        solver.changeColsCost(columns, np.arange(columns, dtype=np.int32), aim)
        better, _, optimal_again = _solve(solver)
        if not optimal_again or float(cost @ better) * scale < keep[0][2] - 1e-7 * max(1.0, keep[0][2]):
            break
        values = better
        keep.append((np.array(goal), np.ones(len(goal)), float(np.round(aim @ values))))
    return values, bound / scale, optimal, float(solver.getRunTime())


def _solver(model: _Model, cost: np.ndarray, time_limit_s: float) -> highspy.Highs:
    programme = highspy.HighsLp()
    programme.num_col_ = len(cost)
    programme.num_row_ = len(model.rows)
    programme.sense_ = highspy.ObjSense.kMaximize
    programme.col_cost_ = cost
    programme.col_lower_ = np.zeros(len(cost))
    programme.col_upper_ = np.array(model.upper, dtype=np.float64)
    programme.row_lower_ = np.array([row[2] for row in model.rows], dtype=np.float64)
    programme.row_upper_ = np.array([row[3] for row in model.rows], dtype=np.float64)
    programme.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    programme.a_matrix_.start_ = np.cumsum([0] + [len(row[0]) for row in model.rows]).astype(np.int32)
    programme.a_matrix_.index_ = np.array([c for row in model.rows for c in row[0]], dtype=np.int32)
    programme.a_matrix_.value_ = np.array([f for row in model.rows for f in row[1]], dtype=np.float64)
    programme.integrality_ = [highspy.HighsVarType.kInteger] * len(cost)
    solver = highspy.Highs()  # type: ignore[no-untyped-call]
    for option, value in (
        ("output_flag", False),
        ("threads", 1),
        ("time_limit", time_limit_s),
        ("mip_rel_gap", 0.0),
        ("mip_abs_gap", 1e-10),
        ("mip_feasibility_tolerance", CLOSE),
        ("primal_feasibility_tolerance", CLOSE),
        ("dual_feasibility_tolerance", CLOSE),
    ):
        solver.setOptionValue(option, value)
    solver.passModel(programme)
    return solver


def _solve(solver: highspy.Highs) -> tuple[np.ndarray, float, bool]:
    solver.run()
    status = solver.getModelStatus()
    info = solver.getInfo()
    if status == highspy.HighsModelStatus.kInfeasible:
        raise RefusedInput(
            "no allocation gives every URLLC slice its rate, as variant literal asks; "
            "choose variant package or conditional, more resource blocks, or shorter packets"
        )
    optimal = status == highspy.HighsModelStatus.kOptimal
    if not optimal and info.primal_solution_status != highspy.SolutionStatus.kSolutionStatusFeasible:
        raise GridpoolError(f"HiGHS found no allocation: {solver.modelStatusToString(status)}; allow more time")
    return np.array(solver.getSolution().col_value), float(info.mip_dual_bound), optimal
