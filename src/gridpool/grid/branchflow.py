"""The branch-flow semidefinite relaxation of an unbalanced radial feeder, assembled by hand for Clarabel.

One positive semidefinite block a branch, [[v, S], [S', l]] with v = V V', S = V I', l = I I' (Gan and Low 2014; Wang,
Kirschen and Zhang 2017); a single-phase branch is a second-order cone. On request three-phase branches are written in
symmetrical components, v = M v012 M'.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gridpool.errors import GridpoolError, RefusedInput
from gridpool.grid.linear import ALPHA
from gridpool.grid.network import Network

__all__ = ["BranchFlowSolution", "Controls", "VoltageRow", "solve_branch_flow"]

EIGENVALUE_PU = 1e-3
"""Impedance above which a branch counts for the eigenvalue ratio."""

SYMMETRICAL = np.array([[1, 1, 1], [1, ALPHA[1], ALPHA[2]], [1, ALPHA[2], ALPHA[1]]]) / np.sqrt(3.0)
"""M of V_abc = M V_012, normalised so that its inverse is its conjugate transpose."""

Complex = NDArray[np.complex128]
Vector = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class VoltageRow:
    """A limit on one squared voltage: low <= |row V|^2 * scale -/+ margin @ controls <= high."""

    bus: int
    row: Vector
    scale: float
    low: float
    high: float
    margin: Vector | None = None


@dataclass(frozen=True, eq=False)
class Controls:
    """Decision variables besides the flows: what each unit draws (coordinate powers, p.u.), bounds and worth."""

    draws: Sequence[Sequence[tuple[int, int, complex]]]
    lower: Vector
    upper: Vector
    cost: Vector


@dataclass(frozen=True, eq=False)
class BranchFlowSolution:
    """Optimal controls, voltages recovered along the tree (p.u.), losses and source power (p.u.), how exact it is."""

    controls: Vector
    volts: tuple[Complex, ...]
    losses: float
    source: complex
    objective: float
    eigenvalue_ratio: float
    solve_s: float


def _hermitian_map(n: int) -> Complex:
    """All n x n Hermitian matrices as ``map @ x`` with n^2 real x."""
    out = np.zeros((n, n, n * n), dtype=np.complex128)
    k = 0
    for j in range(n):
        for i in range(j + 1):
            if i == j:
                out[i, j, k] = 1.0
                k += 1
            else:
                out[i, j, k], out[j, i, k] = 1.0, 1.0
                out[i, j, k + 1], out[j, i, k + 1] = 1j, -1j
                k += 2
    return out


def _square_map(n: int) -> Complex:
    out = np.zeros((n, n, 2 * n * n), dtype=np.complex128)
    for i in range(n):
        for j in range(n):
            out[i, j, 2 * (i * n + j)] = 1.0
            out[i, j, 2 * (i * n + j) + 1] = 1j
    return out


def _outer_map(volts: Complex) -> Complex:
    """All flows ``volts I'`` out of a known voltage, as ``map @ x`` with the real and imaginary parts of I."""
    n = len(volts)
    out = np.zeros((n, n, 2 * n), dtype=np.complex128)
    for b in range(n):
        out[:, b, 2 * b] = volts
        out[:, b, 2 * b + 1] = -1j * volts
    return out


def _adjoint(tensor: Complex) -> Complex:
    return np.conj(np.swapaxes(tensor, 0, 1))


class _Rows:
    """Sparse rows ``A x + s = b`` of one cone after another."""

    def __init__(self) -> None:
        self.i: list[NDArray[np.int64]] = []
        self.j: list[NDArray[np.int64]] = []
        self.v: list[Vector] = []
        self.b: list[Vector] = []
        self.count = 0

    def copy(self) -> "_Rows":
        """Give rows that can be added to without changing these."""
        other = _Rows()
        other.i, other.j, other.v, other.b = list(self.i), list(self.j), list(self.v), list(self.b)
        other.count = self.count
        return other

    def dense(self, columns: NDArray[np.int64], block: Vector, b: Vector) -> None:
        """Add rows whose coefficients over ``columns`` are the rows of ``block``."""
        i, j = np.nonzero(block)
        self.i.append(i + self.count)
        self.j.append(columns[j])
        self.v.append(block[i, j])
        self.b.append(b)
        self.count += len(b)


@dataclass(frozen=True, eq=False)
class _Fixed:
    """Voltage drops and blocks of a network: columns, rows and cones that every solution shares."""

    variables: "_Variables"
    rows: _Rows
    cones: list[object]
    heads: list[tuple[NDArray[np.int64], Complex, Complex]]


class _Variables:
    """Column numbers and coordinate maps of v, S and l."""

    def __init__(self, network: Network, controls: int, components: str) -> None:
        self.count = controls
        self.v: list[NDArray[np.int64]] = [np.zeros(0, dtype=np.int64)]
        self.v_map: list[Complex] = [np.zeros((0, 0, 0), dtype=np.complex128)]
        self.s: list[NDArray[np.int64]] = []
        self.s_map: list[Complex] = []
        self.l: list[NDArray[np.int64]] = []
        self.l_map: list[Complex] = []
        self.basis: list[Complex] = [np.eye(network.sizes[0], dtype=np.complex128)]
        for span in network.spans:
            n = len(span.rows)
            turn = SYMMETRICAL if components == "symmetrical" and n == 3 else np.eye(n, dtype=np.complex128)
            self.basis.append(turn)
            self.v.append(self._take(n * n))
            self.s.append(self._take(2 * n if span.parent == 0 else 2 * n * n))
            self.l.append(self._take(n * n))
            for target, plain in ((self.v_map, _hermitian_map(n)), (self.l_map, _hermitian_map(n))):
                target.append(np.einsum("ab,bcp,dc->adp", turn, plain, np.conj(turn)))
            if span.parent == 0:
                self.s_map.append(_outer_map(span.ratio * network.source[span.rows]))
            else:
                self.s_map.append(np.einsum("ab,bcp,dc->adp", turn, _square_map(n), np.conj(turn)))

    def _take(self, number: int) -> NDArray[np.int64]:
        columns = np.arange(self.count, self.count + number)
        self.count += number
        return columns


def solve_branch_flow(
    network: Network,
    controls: Controls,
    limits: Sequence[VoltageRow],
    *,
    loss_price: float,
    source_price: float,
    components: Literal["phase", "symmetrical"] = "phase",
    tolerance: float = 1e-8,
) -> BranchFlowSolution:
    """Minimise cost @ controls + loss_price * losses + source_price * source power over the relaxation.

    Raises RefusedInput if the limits cannot be met, GridpoolError if the solver stops short.
    """
    return _Assembly(network, controls, limits, loss_price, source_price, components).solve(tolerance)


class _Assembly:
    def __init__(
        self, network: Network, controls: Controls, limits: Sequence[VoltageRow], loss_price: float,
        source_price: float, components: str,
    ) -> None:  # fmt: skip
        import clarabel

        self.network, self.controls = network, controls
        self.count = len(controls.lower)
        self.source_square = np.outer(network.source, np.conj(network.source))
        key = (self.count, components)
        known = network.fixed.get(key)
        if known is not None:
            self.vars, self.heads = known.variables, known.heads
        else:
            self.vars = _Variables(network, self.count, components)
            self.heads = [self._head(k) for k in range(len(network.spans))]
            rows = _Rows()
            self.cones: list[object] = []
            self._voltage_drops(rows)
            self.cones.append(clarabel.ZeroConeT(rows.count))
            self._blocks(rows)
            known = network.fixed[key] = _Fixed(self.vars, rows, self.cones, self.heads)
        rows = known.rows.copy()
        self.cones = list(known.cones)
        start = rows.count
        self._balances(rows)
        self.cones.append(clarabel.ZeroConeT(rows.count - start))
        start = rows.count
        self._bounds(rows)
        self._limits(rows, limits)
        self.cones.append(clarabel.NonnegativeConeT(rows.count - start))
        self.rows = rows
        self.cost = np.zeros(self.vars.count)
        self.cost[: self.count] = controls.cost
        for k, span in enumerate(network.spans):
            loss = np.einsum("ab,bap->p", span.z, self.vars.l_map[k]).real
            self.cost[self.vars.l[k]] += loss_price * loss
            if span.parent == 0:
                self.cost[self.vars.s[k]] += source_price * np.einsum("aap->p", self.vars.s_map[k]).real
        if source_price:
            for k, draws in enumerate(controls.draws):
                self.cost[k] += source_price * sum(power.real for bus, _, power in draws if bus == 0)

    def _head(self, k: int) -> tuple[NDArray[np.int64], Complex, Complex]:
        """Voltage square at the head of a span as (columns, map, constant)."""
        span = self.network.spans[k]
        scale = np.outer(span.ratio, span.ratio)
        index = np.ix_(span.rows, span.rows)
        if span.parent == 0:
            n = len(span.rows)
            return (
                np.zeros(0, dtype=np.int64), np.zeros((n, n, 0), dtype=np.complex128), scale * self.source_square[index]
            )  # fmt: skip
        tensor = self.vars.v_map[span.parent][index] * scale[:, :, None]
        return self.vars.v[span.parent], tensor, np.zeros_like(scale, dtype=np.complex128)

    def _voltage_drops(self, rows: _Rows) -> None:
        for k, span in enumerate(self.network.spans):
            columns, head, constant = self.heads[k]
            s_map, l_map = self.vars.s_map[k], self.vars.l_map[k]
            sz = np.einsum("abp,cb->acp", s_map, np.conj(span.z))
            zlz = np.einsum("ab,bcp,dc->adp", span.z, l_map, np.conj(span.z))
            tensor = np.concatenate([self.vars.v_map[span.child], -head, sz + _adjoint(sz), -zlz], axis=2)
            where = np.concatenate([self.vars.v[span.child], columns, self.vars.s[k], self.vars.l[k]])
            _hermitian_rows(rows, where, tensor, constant)

    def _balances(self, rows: _Rows) -> None:
        network = self.network
        leaving: list[list[int]] = [[] for _ in network.sizes]
        for k, span in enumerate(network.spans):
            leaving[span.parent].append(k)
        drawn: list[list[tuple[int, int, complex]]] = [[] for _ in network.sizes]
        for k, draws in enumerate(self.controls.draws):
            for bus, coordinate, power in draws:
                drawn[bus].append((k, coordinate, power))
        for k, span in enumerate(network.spans):
            n = len(span.rows)
            bus = span.child
            parts: list[tuple[NDArray[np.int64], Complex]] = []
            s_map, l_map = self.vars.s_map[k], self.vars.l_map[k]
            parts.append((self.vars.s[k], np.einsum("aap->ap", s_map)))
            parts.append((self.vars.l[k], -np.einsum("ab,bap->ap", span.z, l_map)))
            if network.shunts[bus].any():
                y = network.shunts[bus]
                parts.append((self.vars.v[bus], -np.einsum("abp,ab->ap", self.vars.v_map[bus], np.conj(y))))
            for other in leaving[bus]:
                out = np.zeros((n, len(self.vars.s[other])), dtype=np.complex128)
                out[network.spans[other].rows] = -np.einsum("aap->ap", self.vars.s_map[other])
                parts.append((self.vars.s[other], out))
            if drawn[bus]:
                columns = sorted({unit for unit, _, _ in drawn[bus]})
                at = {unit: c for c, unit in enumerate(columns)}
                out = np.zeros((n, len(columns)), dtype=np.complex128)
                for unit, coordinate, power in drawn[bus]:
                    out[coordinate, at[unit]] -= power
                parts.append((np.array(columns), out))
            where = np.concatenate([columns for columns, _ in parts])
            block = np.concatenate([values for _, values in parts], axis=1)
            rows.dense(where, np.concatenate([block.real, block.imag]), np.zeros(2 * n))

    def _bounds(self, rows: _Rows) -> None:
        columns = np.arange(self.count)
        eye = np.eye(self.count)
        rows.dense(columns, np.concatenate([eye, -eye]), np.concatenate([self.controls.upper, -self.controls.lower]))

    def _limits(self, rows: _Rows, limits: Sequence[VoltageRow]) -> None:
        by_bus: dict[int, list[VoltageRow]] = {}
        for limit in limits:
            if limit.bus:
                by_bus.setdefault(limit.bus, []).append(limit)
        for bus, group in by_bus.items():
            row = np.array([limit.row for limit in group])
            scale = np.array([limit.scale for limit in group])
            square = np.einsum("ka,kb,bap->kp", np.conj(row), row, self.vars.v_map[bus]).real * scale[:, None]
            columns = self.vars.v[bus]
            block = np.concatenate([square, -square])
            margins = [np.zeros(self.count) if limit.margin is None else limit.margin for limit in group]
            margin = np.array(margins)
            active = np.nonzero(margin.any(axis=0))[0]
            if len(active):
                columns = np.concatenate([columns, active])
                block = np.concatenate([block, np.tile(margin[:, active], (2, 1))], axis=1)
            rows.dense(columns, block, np.array([x.high for x in group] + [-x.low for x in group]))

    def _blocks(self, rows: _Rows) -> None:
        import clarabel

        for k, span in enumerate(self.network.spans):
            n = len(span.rows)
            columns, head, constant = self.heads[k]
            turn = self.vars.basis[span.child]
            back = np.conj(turn.T)
            if span.parent == 0:
                # v is known and of rank one: [[1, I'], [I, l]] says the same and has an interior
                tops, both = 1, np.block([[np.eye(1), np.zeros((1, n))], [np.zeros((n, 1)), back]])
                upper = np.zeros((1, n, 2 * n), dtype=np.complex128)
                for b in range(n):
                    upper[0, b, 2 * b], upper[0, b, 2 * b + 1] = 1.0, -1j
                head, constant = np.zeros((1, 1, 0), dtype=np.complex128), np.ones((1, 1), dtype=np.complex128)
            else:
                tops, both, upper = n, np.kron(np.eye(2), back), self.vars.s_map[k]
            width = [head.shape[2], upper.shape[2], self.vars.l_map[k].shape[2]]
            size = tops + n
            tensor = np.zeros((size, size, sum(width)), dtype=np.complex128)
            first, second = width[0], width[0] + width[1]
            tensor[:tops, :tops, :first] = head
            tensor[:tops, tops:, first:second] = upper
            tensor[tops:, :tops, first:second] = _adjoint(upper)
            tensor[tops:, tops:, second:] = self.vars.l_map[k]
            fixed = np.zeros((size, size), dtype=np.complex128)
            fixed[:tops, :tops] = constant
            if not np.array_equal(turn, np.eye(n)):
                tensor = np.einsum("ab,bcp,cd->adp", both, tensor, np.conj(both.T))
                fixed = both @ fixed @ np.conj(both.T)
            where = np.concatenate([columns, self.vars.s[k], self.vars.l[k]])
            if n == 1:
                # |S|^2 <= v l as || (2 Re S, 2 Im S, v - l) || <= v + l
                combine = np.array([[1.0, 0, 0, 1.0], [0, 2.0, 0, 0], [0, 0, 2.0, 0], [1.0, 0, 0, -1.0]])
                plain = np.stack([tensor[0, 0].real, tensor[0, 1].real, tensor[0, 1].imag, tensor[1, 1].real])
                constant_row = np.array([fixed[0, 0].real, fixed[0, 1].real, fixed[0, 1].imag, fixed[1, 1].real])
                rows.dense(where, -combine @ plain, combine @ constant_row)
                self.cones.append(clarabel.SecondOrderConeT(4))
                continue
            block, right = _psd_rows(tensor, fixed)
            rows.dense(where, -block, right)
            self.cones.append(clarabel.PSDTriangleConeT(2 * size))

    def solve(self, tolerance: float) -> BranchFlowSolution:
        import clarabel
        from scipy.sparse import csc_matrix

        rows = self.rows
        matrix = csc_matrix(
            (np.concatenate(rows.v), (np.concatenate(rows.i), np.concatenate(rows.j))),
            shape=(rows.count, self.vars.count),
        )
        quadratic = csc_matrix((self.vars.count, self.vars.count))
        right = np.concatenate(rows.b)
        # per-unit values are scaled well, and the solver's own scaling can do harm; more regularisation is the way out
        for regularisation in (1e-8, 1e-6):
            settings = clarabel.DefaultSettings()
            settings.verbose = False
            settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = tolerance
            settings.max_threads = 1
            settings.presolve_enable = False
            settings.chordal_decomposition_enable = False
            settings.equilibrate_enable = False
            settings.static_regularization_constant = regularisation
            answer = clarabel.DefaultSolver(quadratic, self.cost, matrix, right, self.cones, settings).solve()
            status = str(answer.status)
            if status in ("Solved", "AlmostSolved") or "Infeasible" in status:
                break
        if "Infeasible" in status:
            raise RefusedInput(f"{self.network.feeder.name}: no set point keeps the voltages within their limits")
        if status not in ("Solved", "AlmostSolved"):
            raise GridpoolError(f"{self.network.feeder.name}: the conic solver stopped with {status}")
        return self._read(np.array(answer.x), float(answer.obj_val), float(answer.solve_time))

    def _read(self, x: Vector, objective: float, seconds: float) -> BranchFlowSolution:
        network = self.network
        volts: list[Complex] = [network.source] + [np.zeros(0, dtype=np.complex128)] * len(network.spans)
        losses, ratio = 0.0, 0.0
        source = 0.0 + 0.0j
        blocks: dict[int, list[Complex]] = {}
        for k, span in enumerate(network.spans):
            flow = self.vars.s_map[k] @ x[self.vars.s[k]]
            current_square = self.vars.l_map[k] @ x[self.vars.l[k]]
            head_volts = span.ratio * volts[span.parent][span.rows]
            current = np.conj(flow.T) @ head_volts / float(np.vdot(head_volts, head_volts).real)
            volts[span.child] = head_volts - span.z @ current
            losses += float(np.trace(span.z @ current_square).real)
            if span.parent == 0:
                source += complex(np.trace(flow))
            if np.abs(span.z).max() > EIGENVALUE_PU:
                columns, head, constant = self.heads[k]
                n = len(span.rows)
                block = np.empty((2 * n, 2 * n), dtype=np.complex128)
                block[:n, :n], block[:n, n:] = head @ x[columns] + constant, flow
                block[n:, :n], block[n:, n:] = np.conj(flow.T), current_square
                blocks.setdefault(n, []).append(block)
        for group in blocks.values():
            values = np.linalg.eigvalsh(np.array(group))
            ratio = max(ratio, float(np.max(values[:, -2] / values[:, -1])))
        for k, draws in enumerate(self.controls.draws):
            source += sum(power * x[k] for bus, _, power in draws if bus == 0)
        return BranchFlowSolution(
            controls=x[: self.count],
            volts=tuple(volts),
            losses=losses,
            source=complex(source),
            objective=objective,
            eigenvalue_ratio=ratio,
            solve_s=seconds,
        )


def _hermitian_rows(rows: _Rows, where: NDArray[np.int64], tensor: Complex, constant: Complex) -> None:
    """Add the equality ``tensor @ x = constant`` of Hermitian matrices, each entry once."""
    n = tensor.shape[0]
    upper = [(i, j) for j in range(n) for i in range(j + 1)]
    strict = [(i, j) for i, j in upper if i != j]
    block = np.array([tensor[i, j].real for i, j in upper] + [tensor[i, j].imag for i, j in strict])
    b = np.array([constant[i, j].real for i, j in upper] + [constant[i, j].imag for i, j in strict])
    rows.dense(where, block, b)


def _psd_rows(tensor: Complex, fixed: Complex) -> tuple[Vector, Vector]:
    """Write a Hermitian matrix as the scaled upper triangle of its real twin [[Re, -Im], [Im, Re]]."""
    m = tensor.shape[0]
    order = [(i, j) for j in range(2 * m) for i in range(j + 1)]
    i = np.array([a for a, _ in order])
    j = np.array([b for _, b in order])
    scale = np.where(i == j, 1.0, np.sqrt(2.0))

    def twin(values: Complex) -> Vector:
        top = np.concatenate([values.real, -values.imag], axis=1)
        bottom = np.concatenate([values.imag, values.real], axis=1)
        both: Vector = np.concatenate([top, bottom], axis=0)
        return both

    return twin(tensor)[i, j] * scale[:, None], twin(fixed)[i, j] * scale
