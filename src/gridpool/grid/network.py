"""A feeder reduced for the branch-flow relaxation: near-zero branches merged, three-wire parts in two coordinates.

Three-wire feeders are written in their two independent voltages between phases, so that open-delta regulators scale
one coordinate each.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gridpool.errors import RefusedInput
from gridpool.grid.feeder import Branch, Feeder
from gridpool.grid.linear import ALPHA, charging_pu, impedance_pu
from gridpool.grid.linear import POWER_BASE_W as LINEAR_BASE_W
from gridpool.grid.replay import TAP_STEP

__all__ = ["POWER_BASE_W", "Network", "Span", "build_network"]

POWER_BASE_W = 1e6
"""Power base of one coordinate."""

MERGED_PU = 1e-4
"""Largest impedance entry of a branch that is merged."""

DELTA = np.array([[1.0, -1.0, 0.0], [0.0, -1.0, 1.0]])
"""Voltages between phases (ab, cb) of the voltages to ground."""

Complex = NDArray[np.complex128]
Vector = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Span:
    """A branch: parent and child bus numbers, the parent coordinates it takes, ratio at its head, impedance."""

    parent: int
    child: int
    rows: NDArray[np.int64]
    ratio: Vector
    z: Complex


@dataclass(frozen=True, eq=False)
class Place:
    """Where a bus of the feeder lives: merged bus number, rows of its coordinates, ratio to them."""

    bus: int
    rows: NDArray[np.int64]
    ratio: Vector


@dataclass(eq=False)
class Network:
    """The reduced feeder: coordinates of each merged bus, spans after their parents, shunt admittances."""

    feeder: Feeder
    delta: bool
    sizes: list[int] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    places: dict[str, Place] = field(default_factory=dict)
    shunts: list[Complex] = field(default_factory=list)
    source: Complex = field(default_factory=lambda: np.zeros(0, dtype=np.complex128))
    fixed: dict[tuple[int, str], Any] = field(default_factory=dict)
    """Rows that depend on neither loads nor limits, by (number of controls, components)."""

    def terminal(self, bus: str, phases: tuple[int, ...]) -> tuple[int, Vector]:
        """Give the bus number and the row that takes a voltage (to ground or between phases) from its coordinates."""
        place = self.places[bus]
        row = np.zeros(self.sizes[place.bus])
        if self.delta:
            pair = {(1, 2): (1.0, 0.0), (2, 1): (-1.0, 0.0), (3, 2): (0.0, 1.0), (2, 3): (0.0, -1.0),
                    (3, 1): (-1.0, 1.0), (1, 3): (1.0, -1.0)}[(phases[0], phases[1])]  # fmt: skip
            row[place.rows] = np.array(pair) * place.ratio
            return place.bus, row
        present = self.feeder.bus_phases[bus]
        for sign, phase in zip((1.0, -1.0), phases, strict=False):
            k = present.index(phase)
            row[place.rows[k]] += sign * place.ratio[k]
        return place.bus, row


def build_network(feeder: Feeder, taps: Mapping[str, int]) -> Network:
    """Merge and lay out the feeder for given tap positions.

    Raises RefusedInput where grounded and ungrounded parts both carry load (use the linear formulation there).
    """
    needed = _needed(feeder)
    carrying = _carrying(feeder)
    below = [branch for branch in feeder.branches if branch.bus in needed]
    kinds = {branch.bus in feeder.delta_buses for branch in below}
    if len(kinds) > 1:
        raise RefusedInput(f"{feeder.name}: parts with and without ground both carry load; use --formulation linear")
    delta = kinds == {True}
    count = 2 if delta else 3
    network = Network(feeder, delta)
    network.sizes.append(count)
    network.shunts.append(np.zeros((count, count), dtype=np.complex128))
    network.places[feeder.source_bus] = Place(0, np.arange(count), np.ones(count))
    network.source = _source_voltage(feeder, delta)
    for branch in below:
        above = network.places[branch.parent]
        rows, ratio = above.rows, above.ratio
        z = impedance_pu(feeder, branch) * (POWER_BASE_W / LINEAR_BASE_W)
        shunt = charging_pu(feeder, branch) / (POWER_BASE_W / LINEAR_BASE_W)
        phases = feeder.bus_phases[branch.bus]
        if delta:
            if len(phases) != 3:
                raise RefusedInput(f"{feeder.name}: bus {branch.bus} of a three-wire feeder lacks a phase")
            ratio = ratio * _delta_ratio(branch, taps)
            z = DELTA @ z @ DELTA.T / 3.0
            shunt = 3.0 * shunt[[0, 2]] @ _DELTA_BACK
        else:
            have = feeder.bus_phases[branch.parent]
            pick = [have.index(p) for p in phases]
            keep = np.array(phases) - 1
            rows, ratio = rows[pick], ratio[pick] * _wye_ratio(branch, phases, taps)
            z, shunt = z[np.ix_(keep, keep)], shunt[np.ix_(keep, keep)]
        if np.abs(z).max() < MERGED_PU or branch.bus not in carrying:
            place = Place(above.bus, rows, ratio)
        else:
            network.sizes.append(len(rows))
            network.shunts.append(np.zeros((len(rows), len(rows)), dtype=np.complex128))
            child = len(network.sizes) - 1
            network.spans.append(Span(above.bus, child, rows, ratio, z))
            place = Place(child, np.arange(len(rows)), np.ones(len(rows)))
        network.places[branch.bus] = place
        for end, end_rows, end_ratio in ((place.bus, place.rows, place.ratio), (above.bus, rows, ratio)):
            scaled = np.outer(end_ratio, end_ratio) * shunt / 2.0
            network.shunts[end][np.ix_(end_rows, end_rows)] += scaled
    return network


_DELTA_BACK = np.array([[2.0, -1.0], [-1.0, -1.0], [-1.0, 2.0]]) / 3.0
"""Voltages to a ground in the middle, of the voltages (ab, cb)."""


def _carrying(feeder: Feeder) -> set[str]:
    """Buses that carry anything or lie above one that does; only line charging flows to the others."""
    facts = feeder.facts
    loaded = {x.bus for x in facts.loads} | {x.bus for x in facts.capacitors} | {x.bus for x in facts.generators}
    for branch in reversed(feeder.branches):
        if branch.bus in loaded:
            loaded.add(branch.parent)
    return loaded


def _needed(feeder: Feeder) -> set[str]:
    """Buses to be modelled: all but ungrounded ends without load in a feeder that is grounded elsewhere."""
    loaded = _carrying(feeder)
    needed: set[str] = set()
    mixed = len({bus in feeder.delta_buses for bus in feeder.buses[1:]}) > 1
    for branch in reversed(feeder.branches):
        if branch.bus in loaded or not (mixed and branch.bus in feeder.delta_buses):
            needed |= {branch.bus, branch.parent}
    return needed


def _source_voltage(feeder: Feeder, delta: bool) -> Complex:
    volts = feeder.facts.source.pu * ALPHA
    between: Complex = DELTA @ volts / np.sqrt(3.0)
    return between if delta else np.asarray(volts, dtype=np.complex128)


def _wye_ratio(branch: Branch, phases: tuple[int, ...], taps: Mapping[str, int]) -> Vector:
    ratio = np.ones(len(phases))
    for t in branch.transformers:
        if t.regulator:
            for phase in t.secondary.phases:
                ratio[phases.index(phase)] = 1.0 + TAP_STEP * taps[t.name]
    return ratio


def _delta_ratio(branch: Branch, taps: Mapping[str, int]) -> Vector:
    ratio = np.ones(2)
    for t in branch.transformers:
        if not t.regulator:
            continue
        value = 1.0 + TAP_STEP * taps[t.name]
        if t.phase_count == 3:
            ratio[:] = value
        elif set(t.secondary.phases) == {1, 2}:
            ratio[0] = value
        elif set(t.secondary.phases) == {2, 3}:
            ratio[1] = value
        else:
            raise RefusedInput(f"regulator {t.name} between phases 3 and 1 cannot be written in this formulation")
    return ratio
