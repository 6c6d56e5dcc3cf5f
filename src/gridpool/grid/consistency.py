"""Small named checks of a feeder: what is suspicious although the file was accepted."""

from collections.abc import Callable, Iterator
from typing import Literal

import msgspec

from gridpool.grid.feeder import Feeder
from gridpool.grid.replay import NotConverged
from gridpool.grid.solution import solve_feeder

__all__ = ["CHECKS", "Finding", "check_feeder"]


class Finding(msgspec.Struct, frozen=True):
    """One suspicion: which check, at which bus or component, and what it is."""

    check: str
    where: str
    message: str
    severity: Literal["warning", "note"] = "warning"


def check_feeder(feeder: Feeder) -> list[Finding]:
    """Run every check."""
    return [finding for check in CHECKS for finding in check(feeder)]


def rated_voltage_fits(feeder: Feeder) -> Iterator[Finding]:
    """A load whose rated voltage is more than a tenth off its bus draws another power than its nominal one."""
    for item in feeder.loads:
        base = feeder.base_kv[item.bus] / (1.0 if len(item.phases) == 2 else 3.0**0.5)
        if abs(item.kv / base - 1.0) > 0.1:
            yield Finding(
                "rated_voltage_fits", item.name, f"rated {item.kv:g} kV on a bus of {base:.4g} kV between its terminals"
            )


def transformer_voltage_fits(feeder: Feeder) -> Iterator[Finding]:
    """A transformer whose primary rating is off its bus shifts every voltage below it."""
    for t in feeder.facts.transformers:
        base = feeder.base_kv[t.primary.bus]
        if t.phase_count == 1 and t.primary.connection == "wye":
            base /= 3.0**0.5
        if abs(t.primary.kv / base - 1.0) > 0.05:
            yield Finding("transformer_voltage_fits", t.name, f"rated {t.primary.kv:g} kV on a bus of {base:.4g} kV")


def loads_to_ground_have_ground(feeder: Feeder) -> Iterator[Finding]:
    """In a feeder without ground, a load to ground hangs on nothing."""
    for item in feeder.loads:
        if item.bus in feeder.delta_buses and len(item.phases) == 1:
            yield Finding("loads_to_ground_have_ground", item.name, f"to ground at {item.bus}, which has no ground")


def devices_are_booked(feeder: Feeder) -> Iterator[Finding]:
    """A regulator, capacitor or generator that no row of the device table books cannot be controlled."""
    booked = {device.name for device in feeder.devices}
    facts = feeder.facts
    names = {t.bank or t.name for t in facts.transformers if t.regulator}
    names |= {c.name for c in facts.capacitors} | {g.name for g in facts.generators}
    for name in sorted(names - booked):
        yield Finding("devices_are_booked", name, "no row of the device table books it; it keeps its default")


def nodes_have_positions(feeder: Feeder) -> Iterator[Finding]:
    """Radio planning needs a position for every node."""
    missing = [node for node in feeder.nodes if node not in feeder.coordinates]
    if missing:
        yield Finding("nodes_have_positions", missing[0], f"{len(missing)} nodes have no drawing position", "note")


def base_case_within_limits(feeder: Feeder) -> Iterator[Finding]:
    """The base case should solve, and stay within the limits that planning assumes."""
    try:
        flow = solve_feeder(feeder)
    except NotConverged as error:
        yield Finding("base_case_within_limits", feeder.source_bus, str(error))
        return
    low, high = feeder.facts.lower_pu, feeder.facts.upper_pu
    for bus in feeder.buses[1:]:
        values = [v for _, v in flow.line_to_line.get(bus, [])] or [v for _, v in flow.voltages[bus]]
        if min(values) < low or max(values) > high:
            worst = min(values) if low - min(values) > max(values) - high else max(values)
            yield Finding("base_case_within_limits", bus, f"{worst:.4f} p.u. lies outside {low:g}-{high:g}", "note")


CHECKS: tuple[Callable[[Feeder], Iterator[Finding]], ...] = (
    rated_voltage_fits,
    transformer_voltage_fits,
    loads_to_ground_have_ground,
    devices_are_booked,
    nodes_have_positions,
    base_case_within_limits,
)
