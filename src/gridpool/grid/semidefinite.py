"""Served power and optimal power flow in the semidefinite formulation, certified by replay.

The relaxation alone is not exact when more load is worth having and a lower voltage limit binds: without control it
claims all of the 13-node feeder where about two thirds can be carried. Losses are therefore priced, voltage-dependent
and delta loads are drawn at the voltages of the last replay, and whatever the replay still shows moves the limits.
"""

from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gridpool.grid.branchflow import BranchFlowSolution, Controls, VoltageRow, solve_branch_flow
from gridpool.grid.delivery import Delivery, DeliverySolution, Problem
from gridpool.grid.feeder import LoadItem
from gridpool.grid.network import POWER_BASE_W, Network, build_network
from gridpool.grid.shunts import Shunt

__all__ = ["LOSS_PRICE", "Relaxation", "load_factor"]

LOSS_PRICE = 1.5
"""Price of a lost watt in served watts; below about this the relaxation buys load with fictitious losses."""

Vector = NDArray[np.float64]
Volts = Mapping[tuple[str, int], complex]
Components = Literal["phase", "symmetrical"]


class Relaxation:
    """The relaxation of one delivery problem at fixed taps; solved again as replays move its limits."""

    def __init__(
        self,
        delivery: Delivery,
        problem: Problem,
        taps: Mapping[str, int],
        *,
        objective: Literal["served", "cost"] = "served",
        loss_price: float = LOSS_PRICE,
        source_price: float = 1.0,
        generation_price: float = 0.0,
        components: Components = "phase",
    ) -> None:
        self.delivery, self.problem, self.taps = delivery, problem, dict(taps)
        self.objective, self.loss_price = objective, loss_price
        self.source_price, self.generation_price = source_price, generation_price
        self.components: Components = components
        self.network: Network = build_network(delivery.feeder, self.taps)
        self._plain_shunts = [y.copy() for y in self.network.shunts]
        n_obs = len(delivery.linear.observations)
        self.correction_lower, self.correction_upper = np.zeros(n_obs), np.zeros(n_obs)
        self.squares = np.zeros(n_obs)
        self.solved: BranchFlowSolution | None = None
        lower, upper = problem.column_bounds
        self.count = problem.regulated_start
        self.lower, self.upper = lower[: self.count].copy(), upper[: self.count].copy()
        if objective == "cost":
            loads = len(delivery.load_w)
            self.lower[:loads] = self.upper[:loads]
        self.rows = self._limit_rows()

    def solve(self, volts: Volts) -> DeliverySolution:
        """Solve with loads drawn at these voltages (V to ground by bus and phase); give the set points."""
        controls = self._controls(volts)
        limits = [
            VoltageRow(
                bus=row.bus,
                row=row.row,
                scale=row.scale,
                low=row.low - self.correction_lower[k],
                high=row.high - self.correction_upper[k],
                margin=row.margin,
            )
            for k, row in self.rows
        ]
        solved = solve_branch_flow(
            self.network,
            controls,
            limits,
            loss_price=self.loss_price if self.objective == "served" else 0.0,
            source_price=0.0 if self.objective == "served" else self.source_price,
            components=self.components,
        )
        self.solved = solved
        self.squares = np.full(len(self.squares), np.nan)
        for k, row in self.rows:
            self.squares[k] = abs(complex(row.row @ solved.volts[row.bus])) ** 2 * row.scale
        columns = np.zeros(self.delivery.rows.shape[1])
        columns[: self.count] = np.clip(solved.controls, self.lower, self.upper)
        return self.delivery.solution(columns, self.taps)

    def learn(self, lowest: Vector, highest: Vector, solution: DeliverySolution) -> None:
        """Move every limit by how far the replays lie from the voltages and margins that were claimed."""
        spread = self.problem.margin @ solution.columns[: len(self.delivery.load_w)]
        known = ~np.isnan(self.squares)
        self.correction_lower[known] = (lowest**2 - (self.squares - spread))[known]
        self.correction_upper[known] = (highest**2 - (self.squares + spread))[known]

    # ---- what the relaxation is made of ------------------------------------------------------------------------------

    def _limit_rows(self) -> list[tuple[int, VoltageRow]]:
        d, problem = self.delivery, self.problem
        rows = []
        for k, (bus, phases) in enumerate(d.linear.observations):
            if problem.dark_observations[k] or d.linear.upstream_of_limits[k] or bus not in self.network.places:
                continue
            number, row = self.network.terminal(bus, phases)
            scale = 1.0 / 3.0 if len(phases) == 2 and not self.network.delta else 1.0
            margin = np.zeros(self.count)
            margin[: len(d.load_w)] = problem.margin[k]
            rows.append(
                (k, VoltageRow(number, row, scale, d.lower_pu**2, d.upper_pu**2, margin if margin.any() else None))
            )
        return rows

    def _controls(self, volts: Volts) -> Controls:
        d = self.delivery
        draws: list[list[tuple[int, int, complex]]] = [[] for _ in range(self.count)]
        cost = np.zeros(self.count)
        self.network.shunts = [y.copy() for y in self._plain_shunts]
        for k, item in enumerate(d.feeder.loads):
            power = complex(item.power_w, item.reactive_var) / POWER_BASE_W
            if self.objective == "cost":  # all is served, so the part that follows the voltage is an impedance
                constant, impedance = _split(item, volts)
                self._add_impedance(item, complex(power.real * impedance[0], power.imag * impedance[1]) * self.upper[k])
                draws[k] = self._draw(item.bus, item.phases, volts, power, constant)
            else:
                draws[k] = self._draw(item.bus, item.phases, volts, power, load_factor(item, volts))
            if self.objective == "served":
                cost[k] = -power.real
        loads, caps, gens = len(d.load_w), len(d.capacitor_names), len(d.generators)
        for i, shunt in enumerate(d.shunts):
            if d.capacitor_of[i] >= 0:
                square = (_between(volts, shunt) / (shunt.kv * 1e3)) ** 2
                power = complex(0.0, -shunt.rating_va / POWER_BASE_W)
                draws[loads + d.capacitor_of[i]] += self._draw(shunt.bus, shunt.phases, volts, power, (1.0, square))
        for k, i in enumerate(d.generators):
            shunt = d.shunts[i]
            rating = shunt.rating_va / POWER_BASE_W
            draws[loads + caps + k] = self._draw(shunt.bus, shunt.phases, volts, complex(-rating, 0.0), (1.0, 1.0))
            draws[loads + caps + gens + k] = self._draw(
                shunt.bus, shunt.phases, volts, complex(0.0, -rating), (1.0, 1.0)
            )
            if self.objective == "cost":
                cost[loads + caps + k] = self.generation_price * rating
        return Controls(draws, self.lower, self.upper, cost)

    def _draw(
        self, bus: str, phases: tuple[int, ...], volts: Volts, power: complex, factor: tuple[float, float]
    ) -> list[tuple[int, int, complex]]:
        """Split the power of a terminal over the coordinates it hangs on, at the given voltages."""
        power = complex(power.real * factor[0], power.imag * factor[1])
        number, row = self.network.terminal(bus, phases)
        coordinates = np.nonzero(row)[0]
        if len(coordinates) == 1:
            return [(number, int(coordinates[0]), power)]
        if self.network.delta:  # between phases 3 and 1: the difference of the two coordinates
            ends = {0: volts[bus, 1] - volts[bus, 2], 1: volts[bus, 3] - volts[bus, 2]}
            whole = volts[bus, phases[0]] - volts[bus, phases[1]]
            sign = {0: -1.0, 1: 1.0} if phases == (3, 1) else {0: 1.0, 1: -1.0}
            return [(number, c, power * sign[c] * ends[c] / whole) for c in (0, 1)]
        place = self.network.places[bus]
        present = self.delivery.feeder.bus_phases[bus]
        whole = volts[bus, phases[0]] - volts[bus, phases[1]]
        return [
            (number, int(place.rows[present.index(p)]), power * sign * volts[bus, p] / whole)
            for sign, p in zip((1.0, -1.0), phases, strict=True)
        ]

    def _add_impedance(self, item: LoadItem, power: complex) -> None:
        number, row = self.network.terminal(item.bus, item.phases)
        base = self.delivery.feeder.base_kv[item.bus]
        if not self.network.delta:
            base /= float(np.sqrt(3.0))
        self.network.shunts[number] += np.conj(power) * (base / item.kv) ** 2 * np.outer(row, row)


def load_factor(item: LoadItem, volts: Volts) -> tuple[float, float]:
    """Give the factors on real and reactive power of a load at these voltages, by its model."""
    r = _between(volts, item) / (item.kv * 1e3)
    return {1: (1.0, 1.0), 2: (r * r, r * r), 3: (1.0, r * r), 4: (r, r * r), 5: (r, r)}[item.model]


def _split(item: LoadItem, volts: Volts) -> tuple[tuple[float, float], tuple[float, float]]:
    """Split a load into constant power and impedance, (real, reactive) factors each, exact to first order."""
    r = _between(volts, item) / (item.kv * 1e3)
    power, current, square = (1.0, 0.0), (r / 2.0, 1.0 / (2.0 * r)), (0.0, 1.0)
    real, reactive = {
        1: (power, power), 2: (square, square), 3: (power, square), 4: (current, square), 5: (current, current)
    }[item.model]  # fmt: skip
    return (real[0], reactive[0]), (real[1], reactive[1])


def _between(volts: Volts, terminal: LoadItem | Shunt) -> float:
    first = volts[terminal.bus, terminal.phases[0]]
    if len(terminal.phases) == 1:
        return abs(first)
    return abs(first - volts[terminal.bus, terminal.phases[1]])
