"""LinDist3Flow: squared voltages of an unbalanced radial feeder as a linear function of what is drawn.

Around a balanced, lossless profile the squared voltage of phase i falls by ``Re(kappa_ij conj(s_j))`` for a power s_j
drawn at j, where kappa sums the impedance of the common path to the source (Gan and Low 2014, section IV). Delta loads
draw through two phases; where nothing is grounded the voltages between phases are observed instead. A regulator starts
a new path: its secondary squared voltage is a variable, tied to its primary by the square of its ratio.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gridpool.errors import RefusedInput
from gridpool.grid.facts import Source, Transformer
from gridpool.grid.feeder import Branch, Feeder, full_matrix

__all__ = ["LinearModel", "RegulatorColumn", "build_linear_model"]

POWER_BASE_W = 1e3
"""Power base of one phase."""

LARGEST = 8_000_000
"""Most coefficients (voltages times terminals) of a model."""

ALPHA = np.exp(-2j * np.pi / 3.0 * np.arange(3))
"""Unit voltages of phases 1, 2, 3."""

NO_ZERO_SEQUENCE = np.eye(3) - np.full((3, 3), 1.0 / 3.0)

Vector = NDArray[np.float64]
Terminal = tuple[str, tuple[int, ...]]


@dataclass(frozen=True)
class RegulatorColumn:
    """One regulated voltage: the columns of its primary and secondary squared voltage, and the unit that sets it."""

    transformer: str
    bank: str
    terminal: Terminal
    primary: int
    secondary: int


@dataclass(frozen=True, eq=False)
class LinearModel:
    """Squared voltages (p.u.) of all observations: ``constant + power @ s + regulated @ w``.

    ``real``, ``reactive``: change by each W or var drawn at each terminal, from the last regulator down;
    ``real_full``, ``reactive_full``: the same along the whole path to the source (what a disturbance changes).
    ``regulated`` has two columns a regulated voltage: primary, then secondary. ``ties`` lists rows
    (coefficients over the regulated columns, constant, power rows) that hold with equality.
    """

    observations: tuple[Terminal, ...]
    real: Vector
    reactive: Vector
    real_full: Vector
    reactive_full: Vector
    constant: Vector
    regulated: Vector
    regulators: tuple[RegulatorColumn, ...]
    primary_rows: tuple[int, ...]
    """For each regulated voltage, the observation at the primary bus that its primary column equals."""
    free: tuple[tuple[int, tuple[tuple[int, float], ...]], ...]
    """Secondary columns that no unit sets: (column, coefficients over other columns that it equals)."""
    upstream_of_limits: NDArray[np.bool_]
    """Observations to which no voltage limit applies (the bus that the source holds)."""


def build_linear_model(feeder: Feeder, terminals: Sequence[Terminal]) -> LinearModel:
    """Linearise the feeder for powers drawn at ``terminals`` ((bus, phases), two phases where line to line).

    Raises RefusedInput for a feeder whose dense coefficients would not fit in memory.
    """
    if len(feeder.observations) * max(len(terminals), len(feeder.buses)) > LARGEST:
        raise RefusedInput(
            f"{feeder.name}: {len(feeder.observations)} voltages and {len(terminals)} loads are too many for this "
            "model; merge buses without load"
        )
    return _Builder(feeder, terminals).build()


def impedance_pu(feeder: Feeder, branch: Branch) -> NDArray[np.complex128]:
    """Give the 3x3 series impedance of a branch in p.u. of its lower bus (zero where a phase is absent)."""
    z = np.zeros((3, 3), dtype=np.complex128)
    codes = {code.name: code for code in feeder.facts.line_codes}
    base_kv = feeder.base_kv[branch.bus]
    base_ohm = (base_kv * 1e3) ** 2 / 3.0 / POWER_BASE_W
    for line in branch.lines:
        code, km = codes[line.code], line.length_m / 1e3
        rows = np.array(line.phases) - 1
        z[np.ix_(rows, rows)] = (full_matrix(code.r_ohm_per_km) + 1j * full_matrix(code.x_ohm_per_km)) * km / base_ohm
    for t in branch.transformers:
        z += _transformer_pu(t)
    return z


def _transformer_pu(t: Transformer) -> NDArray[np.complex128]:
    per_unit = (t.primary.r_percent + t.secondary.r_percent + 1j * t.x_percent) / 100.0
    rows = np.array(t.secondary.phases) - 1
    z = np.zeros((3, 3), dtype=np.complex128)
    each = POWER_BASE_W / (t.secondary.kva * 1e3 / t.phase_count)
    if t.phase_count == 1 and t.secondary.connection == "delta":
        each *= 3.0 / 2.0  # a line-to-line unit's impedance, half in each of its two phases
    z[rows, rows] = per_unit * each
    return z


def charging_pu(feeder: Feeder, branch: Branch) -> NDArray[np.complex128]:
    """Give the 3x3 shunt admittance of a branch's lines in p.u. of its lower bus."""
    y = np.zeros((3, 3), dtype=np.complex128)
    codes = {code.name: code for code in feeder.facts.line_codes}
    base_ohm = (feeder.base_kv[branch.bus] * 1e3) ** 2 / 3.0 / POWER_BASE_W
    omega = 2.0 * np.pi * feeder.facts.frequency_hz
    for line in branch.lines:
        rows = np.array(line.phases) - 1
        farad = full_matrix(codes[line.code].c_nf_per_km) * line.length_m / 1e3 * 1e-9
        y[np.ix_(rows, rows)] += 1j * omega * farad * base_ohm
    return y


def source_impedance_pu(source: Source) -> NDArray[np.complex128]:
    """Give the 3x3 impedance behind which the source stands, in p.u."""
    z1, z0 = complex(source.r1_ohm, source.x1_ohm), complex(source.r0_ohm, source.x0_ohm)
    base_ohm = (source.kv * 1e3) ** 2 / 3.0 / POWER_BASE_W
    matrix = np.full((3, 3), (z0 - z1) / 3.0, dtype=np.complex128)
    np.fill_diagonal(matrix, (z0 + 2.0 * z1) / 3.0)
    return matrix / base_ohm


def current_shape(phases: tuple[int, ...]) -> NDArray[np.complex128]:
    """Give the phase currents (p.u.) drawn for a conjugate power of one at a terminal under balanced voltage."""
    shape = np.zeros(3, dtype=np.complex128)
    first = phases[0] - 1
    if len(phases) == 1:
        shape[first] = np.conj(1.0 / ALPHA[first])
        return shape
    second = phases[1] - 1
    shape[first] = np.conj(1.0 / (ALPHA[first] - ALPHA[second]))
    shape[second] = -shape[first]
    return shape


def observation_shape(phases: tuple[int, ...]) -> NDArray[np.complex128]:
    """Give the row whose real part times a voltage change is the change in squared voltage."""
    shape = np.zeros(3, dtype=np.complex128)
    first = phases[0] - 1
    if len(phases) == 1:
        shape[first] = 2.0 * np.conj(ALPHA[first])
        return shape
    second = phases[1] - 1
    shape[first] = 2.0 / 3.0 * np.conj(ALPHA[first] - ALPHA[second])
    shape[second] = -shape[first]
    return shape


class _Builder:
    def __init__(self, feeder: Feeder, terminals: Sequence[Terminal]) -> None:
        self.feeder = feeder
        self.terminals = terminals
        self.buses = feeder.buses
        self.number = {bus: i for i, bus in enumerate(self.buses)}
        count = len(self.buses)
        self.parent = np.full(count, -1)
        self.ancestors: list[set[int]] = [set() for _ in range(count)]
        self.regulator_bus = np.full(count, -1)
        self.z = np.zeros((count, 3, 3), dtype=np.complex128)
        self.z[0] = source_impedance_pu(feeder.facts.source)
        self.depth = np.zeros(count, dtype=int)
        self.branch_of: dict[int, Branch] = {}
        for branch in feeder.branches:
            here, above = self.number[branch.bus], self.number[branch.parent]
            self.parent[here] = above
            self.depth[here] = self.depth[above] + 1
            # a delta winding passes no zero sequence: what lies above is not seen by it
            blocks = any("delta" in (t.primary.connection, t.secondary.connection) for t in branch.transformers)
            seen = NO_ZERO_SEQUENCE @ self.z[above] @ NO_ZERO_SEQUENCE if blocks else self.z[above]
            self.z[here] = seen + impedance_pu(feeder, branch)
            self.branch_of[here] = branch
            regulated = any(t.regulator for t in branch.transformers)
            self.regulator_bus[here] = here if regulated else self.regulator_bus[above]

    def build(self) -> LinearModel:
        observations = self.feeder.observations
        bus_of_observation = np.array([self.number[bus] for bus, _ in observations])
        bus_of_terminal = np.array([self.number[bus] for bus, _ in self.terminals], dtype=int)
        common = self._common()
        rows = np.array([observation_shape(phases) for _, phases in observations])
        columns = np.array([current_shape(phases) for _, phases in self.terminals]).reshape(-1, 3)
        # path impedance from the source, and from the primary of the last regulator above the observation
        start = np.where(self.regulator_bus >= 0, self.parent[self.regulator_bus], -1)
        local_zero = np.concatenate([self.z, np.zeros((1, 3, 3))])[start]
        meet = common[bus_of_observation][:, bus_of_terminal]
        full = np.einsum("oi,otij,tj->ot", rows, self.z[meet], columns)
        below = self.depth[meet] > np.where(start >= 0, self.depth[start], -1)[bus_of_observation][:, None]
        local_z = np.where(below[..., None, None], self.z[meet] - local_zero[bus_of_observation][:, None], 0.0)
        local = np.einsum("oi,otij,tj->ot", rows, local_z, columns)
        constant = self._charging(rows, bus_of_observation, common, start, local_zero)
        regulated, regulators, primary_rows, free = self._regulators(observations, constant)
        return LinearModel(
            observations=observations,
            real=-local.real / POWER_BASE_W,
            reactive=-local.imag / POWER_BASE_W,
            real_full=-full.real / POWER_BASE_W,
            reactive_full=-full.imag / POWER_BASE_W,
            constant=constant,
            regulated=regulated,
            regulators=regulators,
            primary_rows=primary_rows,
            free=free,
            upstream_of_limits=bus_of_observation == 0,
        )

    def _common(self) -> NDArray[np.int64]:
        """Lowest common bus of every pair of buses."""
        count = len(self.buses)
        common = np.zeros((count, count), dtype=np.int64)
        for here in range(1, count):
            above = self.parent[here]
            common[here, :here] = common[above, :here]
            common[:here, here] = common[above, :here]
            common[here, here] = here
        return common

    def _charging(
        self,
        rows: NDArray[np.complex128],
        bus_of_observation: NDArray[np.int64],
        common: NDArray[np.int64],
        start: NDArray[np.int64],
        local_zero: NDArray[np.complex128],
    ) -> Vector:
        shunt = np.zeros((len(self.buses), 3, 3), dtype=np.complex128)
        for here, branch in self.branch_of.items():
            half = charging_pu(self.feeder, branch) / 2.0
            shunt[here] += half
            shunt[self.parent[here]] += half
        currents = shunt @ ALPHA
        meet = common[bus_of_observation]
        below = self.depth[meet] > np.where(start >= 0, self.depth[start], -1)[bus_of_observation][:, None]
        z = np.where(below[..., None, None], self.z[meet] - local_zero[bus_of_observation][:, None], 0.0)
        drop: Vector = np.einsum("oi,obij,bj->o", rows, z, currents).real
        return -drop

    def _regulators(
        self, observations: tuple[Terminal, ...], constant: Vector
    ) -> tuple[
        Vector,
        tuple[RegulatorColumn, ...],
        tuple[int, ...],
        tuple[tuple[int, tuple[tuple[int, float], ...]], ...],
    ]:
        row_of = {terminal: i for i, terminal in enumerate(observations)}
        columns: dict[Terminal, int] = {}  # terminal at a regulator's secondary bus -> its pair of columns
        units: list[tuple[Terminal, Transformer | None]] = []
        for here, branch in self.branch_of.items():
            if self.regulator_bus[here] != here:
                continue
            for terminal in observations:
                if terminal[0] == branch.bus:
                    unit = next((t for t in branch.transformers if t.regulator and _sets(t, terminal[1])), None)
                    columns[terminal] = 2 * len(columns)
                    units.append((terminal, unit))
        regulated = np.zeros((len(observations), 2 * len(columns)))
        for row, (bus, phases) in enumerate(observations):
            head = self.regulator_bus[self.number[bus]]
            if head < 0:
                constant[row] += self.feeder.facts.source.pu**2
                continue
            for terminal, weight in _parts(self.buses[head], phases, columns):
                regulated[row, columns[terminal] + 1] += weight
        regulators, primary_rows = [], []
        free: list[tuple[int, tuple[tuple[int, float], ...]]] = []
        for terminal, unit in units:
            bus, phases = terminal
            above = self.branch_of[self.number[bus]].parent
            column = columns[terminal]
            primary = (above, phases) if (above, phases) in row_of else (above, phases[::-1])
            primary_rows.append(row_of[primary])
            if unit is None:
                terms = [(column, 1.0)]
                if len(phases) == 2:  # the third side of an open delta follows the other two
                    for other, set_by in units:
                        if other[0] == bus and set_by is not None:
                            terms += [(columns[other] + 1, 0.5), (columns[other], -0.5)]
                free.append((column + 1, tuple(terms)))
            else:
                regulators.append(RegulatorColumn(unit.name, unit.bank or unit.name, terminal, column, column + 1))
        return regulated, tuple(regulators), tuple(primary_rows), tuple(free)


def _sets(t: Transformer, phases: tuple[int, ...]) -> bool:
    if t.secondary.connection == "delta" and t.phase_count == 1:
        return len(phases) == 2 and set(phases) == set(t.secondary.phases)
    return set(phases) <= set(t.secondary.phases)


def _parts(bus: str, phases: tuple[int, ...], columns: dict[Terminal, int]) -> list[tuple[Terminal, float]]:
    """Express a squared voltage below a regulator by those at its secondary bus."""
    if (bus, phases) in columns:
        return [((bus, phases), 1.0)]
    if len(phases) == 2:
        return [((bus, (phase,)), 0.5) for phase in phases]
    return [(terminal, 1.0 / 3.0) for terminal in columns if terminal[0] == bus]
