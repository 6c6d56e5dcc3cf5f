"""The physical day: who is connected, what is served, and what every meter measures, interval by interval."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gridpool.day.calendar import INTERVAL_HOURS, Calendar, calendar_of
from gridpool.day.profiles import load_profile, sun_profile
from gridpool.day.prosumers import Fleet, make_fleet
from gridpool.day.scenario import Event, Scenario
from gridpool.grid import Feeder, ServedPower, load_feeder, served_power
from gridpool.planner import feeder_tree
from gridpool.radio import Allocation, Grant, Instance, RadioProfile, Requirement, allocate, model_instance

__all__ = ["Links", "PhysicalDay", "make_physical_day"]

COMMERCE_FROM_W = 150_000.0
"""Buses with at least this nominal load follow the commercial profile, smaller ones the household profile."""


@dataclass(frozen=True, slots=True)
class Links:
    """The working slices of one interval."""

    observed: tuple[str, ...]
    """M: nodes with a working uplink."""
    controlled: tuple[str, ...]
    """U: nodes with something to control and a working downlink."""


@dataclass(frozen=True, slots=True)
class PhysicalDay:
    """What happens to the feeder and its prosumers; arrays over prosumers and intervals have that shape."""

    scenario: Scenario
    calendar: Calendar
    feeder: Feeder
    fleet: Fleet
    instance: Instance
    allocation: Allocation
    links: tuple[Links, ...]
    event_of: tuple[str, ...]
    """Name of the event that goes on in each interval, empty where none does."""
    demand_w: npt.NDArray[np.float64]
    """Demand of the whole feeder, prosumers' generation deducted, shape (intervals,)."""
    served: tuple[ServedPower, ...]
    served_full_w: npt.NDArray[np.float64]
    """Served power at full connectivity, shape (intervals,)."""
    import_wh: npt.NDArray[np.int64]
    export_wh: npt.NDArray[np.int64]
    """Metered energy."""
    forecast_wh: npt.NDArray[np.int64]
    """Expected import less expected export."""

    @property
    def peak_interval(self) -> int:
        """The interval of greatest demand."""
        return int(np.argmax(self.demand_w))

    def reads(self, prosumer: int, interval: int) -> bool:
        """Whether the prosumer's bus has a working uplink in an interval."""
        return self.fleet.buses[prosumer] in self.links[interval].observed


def make_physical_day(scenario: Scenario, advance: Callable[[], None] = lambda: None) -> PhysicalDay:
    """Compute the physical day of a scenario; ``advance`` is called once for each interval done.

    Deterministic in the scenario. Raises RefusedInput for an unusable feeder or date.
    """
    feeder = load_feeder(scenario.feeder)
    calendar = calendar_of(scenario.date, scenario.place.timezone)
    fleet_rng, radio_rng = np.random.default_rng(scenario.seed).spawn(2)
    household = load_profile(calendar, "h0", scenario.grid.nominal_load)
    commerce = load_profile(calendar, "g0", scenario.grid.nominal_load)
    node_load = {node: feeder.node_power_w(node) for node in feeder.nodes}
    fleet = make_fleet(
        node_load, household, sun_profile(calendar, scenario.place), calendar,
        scenario.prosumers, scenario.forecast, scenario.vehicles, fleet_rng,
    )  # fmt: skip
    instance, allocation = _plan(scenario, feeder, fleet, radio_rng)
    links, event_of = _links(scenario, calendar, feeder, fleet, allocation)
    feed_w = _generation(scenario, fleet, links)
    net_w = _net_demand(node_load, fleet, household, commerce, feed_w)
    served: list[ServedPower] = []
    full: list[float] = []
    for t in range(len(calendar)):
        scale = {node: series[t] / node_load[node] for node, series in net_w.items()}
        served.append(_served(scenario, feeder, links[t], scale))
        full.append(_served(scenario, feeder, Links(feeder.nodes, feeder.nodes), scale).served_w)
        advance()
    fraction = np.array([[_fraction(feeder, bus, s) for s in served] for bus in fleet.buses])
    net = fleet.load_w * fraction - feed_w
    expected = fleet.forecast_load_w - fleet.forecast_sun_w
    return PhysicalDay(
        scenario=scenario,
        calendar=calendar,
        feeder=feeder,
        fleet=fleet,
        instance=instance,
        allocation=allocation,
        links=links,
        event_of=event_of,
        demand_w=np.array([s.nominal_w for s in served]),
        served=tuple(served),
        served_full_w=np.array(full),
        import_wh=np.rint(np.clip(net, 0.0, None) * INTERVAL_HOURS).astype(np.int64),
        export_wh=np.rint(np.clip(-net, 0.0, None) * INTERVAL_HOURS).astype(np.int64),
        forecast_wh=np.rint(expected * INTERVAL_HOURS).astype(np.int64),
    )


def _plan(scenario: Scenario, feeder: Feeder, fleet: Fleet, rng: np.random.Generator) -> tuple[Instance, Allocation]:
    """Allocate resource blocks; nodes with PV inverters ask for a control link as the feeder's own devices do."""
    tree = feeder_tree(feeder, dg_share=scenario.grid.dg_share)
    inverters = {bus for bus, peak in zip(fleet.buses, fleet.pv_peak_w, strict=True) if peak > 0}
    instance = model_instance(
        tree.names,
        tree.parent,
        tree.power_w,
        tuple(device or name in inverters for name, device in zip(tree.names, tree.devices, strict=True)),
        resource_blocks=scenario.radio.resource_blocks,
        layout="onecell",
        requirement=Requirement(),
        profile=RadioProfile(),
        rng=rng,
    )
    return instance, allocate(instance, method=scenario.radio.method, rng=rng)


def _links(
    scenario: Scenario, calendar: Calendar, feeder: Feeder, fleet: Fleet, allocation: Allocation
) -> tuple[tuple[Links, ...], tuple[str, ...]]:
    down: list[set[int]] = [set() for _ in range(len(calendar))]
    names = [""] * len(calendar)
    for event in scenario.events:
        begin = calendar.interval_at(event.at)
        zone = _zone(event, allocation)
        for t in range(begin, min(len(calendar), begin + max(1, round(event.hours * 4)))):
            down[t].add(zone)
            names[t] = "gNB sector down"
    links = tuple(
        Links(
            observed=_granted(feeder, allocation, "mmtc", zones),
            controlled=_granted(feeder, allocation, "urllc", zones),
        )
        for zones in down
    )
    return links, tuple(names)


def _granted(feeder: Feeder, allocation: Allocation, kind: str, down: set[int]) -> tuple[str, ...]:
    nodes = {grant.node for grant in allocation.grants if grant.slice == kind and grant.zone not in down}
    return tuple(node for node in feeder.nodes if node in nodes)


def _zone(event: Event, allocation: Allocation) -> int:
    """Return the zone of the cell that an event takes down; the busiest is the one with most grants."""
    if event.sector == "busiest":
        grants: dict[int, list[Grant]] = {}
        for grant in allocation.grants:
            grants.setdefault(grant.zone, []).append(grant)
        return min(grants, key=lambda zone: (-len(grants[zone]), zone), default=0)
    return 0 if event.sector == "inner" else int(event.sector)


def _generation(scenario: Scenario, fleet: Fleet, links: tuple[Links, ...]) -> npt.NDArray[np.float64]:
    """Return what prosumers feed in, W; without a control link an inverter keeps below a default share of its peak."""
    feed = fleet.sun_w.copy()
    for i, bus in enumerate(fleet.buses):
        if fleet.pv_peak_w[i] > 0:
            limit = scenario.grid.inverter_default * fleet.pv_peak_w[i]
            for t, link in enumerate(links):
                if bus not in link.controlled:
                    feed[i, t] = min(feed[i, t], limit)
    return feed


def _net_demand(
    node_load: dict[str, float],
    fleet: Fleet,
    household: npt.NDArray[np.float64],
    commerce: npt.NDArray[np.float64],
    feed_w: npt.NDArray[np.float64],
) -> dict[str, npt.NDArray[np.float64]]:
    """Return each loaded node's demand less its prosumers' generation, W, not below zero."""
    loads, feeds = fleet.by_bus(fleet.load_w), fleet.by_bus(feed_w)
    peaks = fleet.by_bus(fleet.load_peak_w[:, None])
    demand = {}
    for node, nominal in node_load.items():
        if nominal <= 0:
            continue
        profile = commerce if nominal >= COMMERCE_FROM_W else household
        rest = profile * max(nominal - (float(peaks[node][0]) if node in peaks else 0.0), 0.0)
        demand[node] = np.clip(rest + loads.get(node, 0.0) - feeds.get(node, 0.0), 0.0, None)
    return demand


def _served(scenario: Scenario, feeder: Feeder, links: Links, scale: dict[str, float]) -> ServedPower:
    return served_power(
        feeder,
        links.observed,
        links.controlled,
        demand_scale=scale,
        blind_error=scenario.grid.blind_error,
        dg_share=scenario.grid.dg_share,
        certify=scenario.grid.certify,
    )


def _fraction(feeder: Feeder, node: str, served: ServedPower) -> float:
    """Return the served share of a node's demand: the mean of its buses, which the planner books at one node."""
    shares = [y for bus, y in served.served_fraction.items() if feeder.node_of_bus.get(bus, bus) == node]
    return float(np.mean(shares)) if shares else 1.0
