"""The power flow of a feeder as published, and its distance to the published solution."""

from collections.abc import Mapping
from typing import Literal

import msgspec
import numpy as np

from gridpool.grid.feeder import Feeder
from gridpool.grid.replay import Replay
from gridpool.grid.shunts import capacitor_shunts

__all__ = ["PowerFlow", "solve_feeder"]


class PowerFlow(msgspec.Struct, frozen=True, kw_only=True):
    """One solved power flow; powers in W and var, voltages in p.u."""

    source_w: float
    source_var: float
    loss_w: float
    max_error_pu: float | None
    """Largest difference to a published voltage; None where the feeder has no published solution."""
    worst: str | None
    """Where that difference is."""
    voltages: dict[str, list[tuple[int, float]]]
    """Bus -> (phase, voltage to ground); in a feeder without ground only differences mean anything."""
    line_to_line: dict[str, list[tuple[str, float]]]
    """Bus without ground -> (phases, voltage between them)."""
    taps: dict[str, int]


def solve_feeder(
    feeder: Feeder,
    *,
    taps: Literal["published", "neutral"] | Mapping[str, int] = "published",
    capacitors: float = 1.0,
    demand_scale: float = 1.0,
) -> PowerFlow:
    """Solve the feeder in OpenDSS with its taps held and every capacitor at ``capacitors`` times its rating.

    Raises NotConverged if the power flow has no solution, RefusedInput for a factor out of range.
    """
    shunts = capacitor_shunts(feeder)
    replay = Replay(feeder, tuple(shunts))
    regulators = [t for t in feeder.facts.transformers if t.regulator]
    positions = {t.name: t.tap if taps == "published" else 0 for t in regulators}
    if isinstance(taps, Mapping):
        positions |= dict(taps)
    replay.set_taps(positions)
    loads = feeder.loads
    power = [item.power_w * demand_scale for item in loads] + [0.0] * len(shunts)
    reactive = [item.reactive_var * demand_scale for item in loads] + [-s.rating_va * capacitors for s in shunts]
    replay.set_powers(np.array(power), np.array(reactive))
    replay.solve()
    volts = replay.node_volts()
    voltages: dict[str, list[tuple[int, float]]] = {}
    line_to_line: dict[str, list[tuple[str, float]]] = {}
    for bus in feeder.buses:
        base = feeder.base_kv[bus] * 1e3
        phases = feeder.bus_phases[bus]
        voltages[bus] = [(p, float(abs(volts[bus, p])) / (base / 3.0**0.5)) for p in phases]
        if bus in feeder.delta_buses:
            line_to_line[bus] = [
                ("abc"[a - 1] + "abc"[b - 1], float(abs(volts[bus, a] - volts[bus, b])) / base)
                for a, b in ((1, 2), (2, 3), (3, 1))
                if {a, b} <= set(phases)
            ]
    worst, error = None, None
    for (bus, letters), published in feeder.published.items():
        ends = ["ABC".index(letter) + 1 for letter in letters]
        value = volts[bus, ends[0]] - (volts[bus, ends[1]] if len(ends) == 2 else 0.0)
        base = feeder.base_kv[bus] * 1e3 / (1.0 if len(ends) == 2 else 3.0**0.5)
        distance = float(abs(abs(value) - published)) / base
        if error is None or distance > error:
            worst, error = f"{bus}.{letters.lower()}", distance
    source = replay.source_power()
    return PowerFlow(
        source_w=source.real,
        source_var=source.imag,
        loss_w=replay.loss_w(),
        max_error_pu=error,
        worst=worst,
        voltages=voltages,
        line_to_line=line_to_line,
        taps=positions,
    )
