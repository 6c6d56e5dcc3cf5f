"""Bus outages, the power-line links they cut, and what can still be served.

Power-line carrier links are the lines themselves: a failed bus takes its lines and its links with it, and a node
without an intact path to the control centre is neither observed nor controlled. Slices over the air keep their links
under the same outages.
"""

import math
from collections.abc import Collection, Mapping
from typing import Literal

import msgspec
import numpy as np

from gridpool.errors import RefusedInput
from gridpool.grid.certification import ServedModel
from gridpool.grid.feeder import Feeder
from gridpool.grid.replay import NotConverged
from gridpool.grid.served import served_model, served_power
from gridpool.grid.shunts import generator_shunts

__all__ = [
    "OutageResult",
    "control_centres",
    "draw_outage",
    "plcc_links",
    "plcc_reach",
    "serve_under_outage",
    "trip_under_voltage",
]

Islanding = Literal["none", "forming"]
Technology = Literal["plcc", "5g"]


class OutageResult(msgspec.Struct, frozen=True, kw_only=True):
    """Served power under one outage; powers in W."""

    served_w: float
    islanded_w: float
    """Part of it that islands serve from their own generators."""
    nominal_w: float
    failed: tuple[str, ...]
    tripped: tuple[str, ...]
    observed: tuple[str, ...]
    controlled: tuple[str, ...]
    technology: str
    control_centre: str
    islanding: str


def control_centres(feeder: Feeder) -> tuple[str, ...]:
    """List the nodes of highest degree, in feeder order; the first is the default control centre."""
    highest = max(feeder.degree(node) for node in feeder.nodes)
    return tuple(node for node in feeder.nodes if feeder.degree(node) == highest)


def plcc_links(feeder: Feeder, failed: Collection[str] = ()) -> tuple[tuple[str, str], ...]:
    """List the power-line links (parent, child) that are left when ``failed`` nodes are out."""
    feeder.require_nodes(failed)
    out = set(failed)
    return tuple((a, b) for a, b in feeder.edges if a not in out and b not in out)


def plcc_reach(feeder: Feeder, failed: Collection[str], control_centre: str) -> tuple[str, ...]:
    """List the nodes with an intact path of links to the control centre; none if its own bus is out."""
    feeder.require_nodes([control_centre])
    links = plcc_links(feeder, failed)
    if control_centre in set(failed):
        return ()
    reached = {control_centre}
    grew = True
    while grew:
        grew = False
        for a, b in links:
            if (a in reached) != (b in reached):
                reached |= {a, b}
                grew = True
    return tuple(node for node in feeder.nodes if node in reached)


def draw_outage(feeder: Feeder, share: float, rng: np.random.Generator) -> tuple[str, ...]:
    """Draw ``ceil(share * nodes)`` failed nodes over all nodes, in feeder order."""
    if not 0.0 <= share <= 1.0:
        raise RefusedInput(f"outage share is {share:g}; it must lie within 0 and 1")
    count = math.ceil(share * len(feeder.nodes) - 1e-9)
    chosen = {feeder.nodes[int(i)] for i in rng.choice(len(feeder.nodes), size=count, replace=False)}
    return tuple(node for node in feeder.nodes if node in chosen)


def trip_under_voltage(
    feeder: Feeder,
    failed: Collection[str],
    *,
    trip_pu: float = 0.9,
    dg_share: float = 0.2,
    demand_scale: float | Mapping[str, float] = 1.0,
) -> tuple[str, ...]:
    """Trip the live node with the lowest voltage below ``trip_pu``, solve again, until no node is below it.

    Devices stand at their defaults and every live load draws its full demand. Returns the tripped nodes in order.
    """
    if not 0.0 < trip_pu < 1.0:
        raise RefusedInput(f"trip_pu is {trip_pu:g}; it must lie between 0 and 1")
    model = served_model(feeder, dg_share=dg_share)
    tripped: list[str] = []
    while True:
        dark = model.dark({*failed, *tripped})
        worst = _lowest(model, dark, demand_scale)
        if worst is None or worst[1] >= trip_pu:
            return tuple(tripped)
        tripped.append(worst[0])


def _lowest(
    model: ServedModel, dark: frozenset[str], demand_scale: float | Mapping[str, float]
) -> tuple[str, float] | None:
    feeder = model.feeder
    live = np.array([item.node not in dark for item in feeder.loads], dtype=float)
    try:
        voltages = model.default_voltages(model.scale(demand_scale) * live)
    except NotConverged:
        # no solution at all: the node that draws most goes first
        powers = {node: feeder.node_power_w(node) for node in feeder.nodes[1:] if node not in dark}
        heaviest = max(powers, key=lambda node: powers[node], default=None)
        return None if heaviest is None or powers[heaviest] == 0.0 else (heaviest, 0.0)
    best: tuple[str, float] | None = None
    for (bus, _), value in zip(feeder.observations, voltages, strict=True):
        node = feeder.node_of_bus[bus]
        if node != feeder.source and node not in dark and (best is None or value < best[1]):
            best = (node, float(value))
    return best


def serve_under_outage(
    feeder: Feeder,
    failed: Collection[str],
    *,
    technology: Technology,
    observed: Collection[str] | None = None,
    controlled: Collection[str] | None = None,
    control_centre: str | None = None,
    islanding: Islanding = "none",
    trip_pu: float | None = None,
    blind_error: float = 0.5,
    dg_share: float = 0.2,
    demand_scale: float | Mapping[str, float] = 1.0,
    certify: Literal["worst_case", "nominal"] = "worst_case",
) -> OutageResult:
    """Compute served power after an outage with power-line links or with links over the air.

    Parameters
    ----------
    feeder
        The feeder.
    failed
        Nodes whose bus is out.
    technology
        ``plcc``: nodes without an intact path of lines to the control centre leave M and U; ``5g``: they stay.
    observed, controlled
        M and U before the outage; all nodes by default.
    control_centre
        Node of the control centre; the first node of highest degree by default.
    islanding
        ``none``: what is cut from the source is dark; ``forming``: an island with a controlled generator serves what
        its rating covers on each phase (a power balance, not replayed).
    trip_pu
        Voltage below which nodes trip, worst first; no tripping by default.
    """
    if technology not in ("plcc", "5g"):
        raise RefusedInput(f"no technology {technology!r}; choose plcc or 5g")
    if islanding not in ("none", "forming"):
        raise RefusedInput(f"no islanding rule {islanding!r}; choose none or forming")
    feeder.require_nodes(failed)
    centre = control_centres(feeder)[0] if control_centre is None else control_centre
    feeder.require_nodes([centre])
    seen = set(feeder.nodes if observed is None else observed)
    steered = set(feeder.nodes if controlled is None else controlled)
    tripped: tuple[str, ...] = ()
    if trip_pu is not None:
        tripped = trip_under_voltage(feeder, failed, trip_pu=trip_pu, dg_share=dg_share, demand_scale=demand_scale)
    out = {*failed, *tripped}
    if technology == "plcc":
        reach = set(plcc_reach(feeder, out, centre))
        seen, steered = seen & reach, steered & reach
    part = served_power(
        feeder,
        seen,
        steered,
        demand_scale=demand_scale,
        blind_error=blind_error,
        dg_share=dg_share,
        certify=certify,
        failed=out,
    )
    islanded = 0.0
    if islanding == "forming":
        islanded = _islanded_w(feeder, out, seen, steered, blind_error, dg_share, demand_scale)
    return OutageResult(
        served_w=part.served_w + islanded,
        islanded_w=islanded,
        nominal_w=part.nominal_w,
        failed=tuple(n for n in feeder.nodes if n in set(failed)),
        tripped=tripped,
        observed=tuple(n for n in feeder.nodes if n in seen),
        controlled=tuple(n for n in feeder.nodes if n in steered),
        technology=technology,
        control_centre=centre,
        islanding=islanding,
    )


def _islanded_w(
    feeder: Feeder,
    out: set[str],
    seen: set[str],
    steered: set[str],
    blind_error: float,
    dg_share: float,
    demand_scale: float | Mapping[str, float],
) -> float:
    from scipy.optimize import linprog

    scale = served_model(feeder, dg_share=dg_share).scale(demand_scale)
    shunts = [s for s in generator_shunts(feeder, dg_share) if s.node in steered and s.node not in out]
    total = 0.0
    for island in _islands(feeder, out):
        rating = np.zeros(3)
        for shunt in shunts:
            if shunt.node in island:
                rating += _per_phase(shunt.phases) * shunt.rating_va
        items = [i for i, item in enumerate(feeder.loads) if item.node in island and item.power_w > 0.0]
        if not rating.any() or not items:
            continue
        demand = np.array([feeder.loads[i].power_w * scale[i] for i in items])
        factor = [1.0 if feeder.loads[i].node in seen else 1.0 + blind_error for i in items]
        rows = np.array([_per_phase(feeder.loads[i].phases) * f for i, f in zip(items, factor, strict=True)]).T
        result = linprog(
            -np.ones(len(items)), A_ub=rows, b_ub=rating, bounds=list(zip(demand * 0.0, demand, strict=True))
        )
        total -= float(result.fun)
    return total


def _per_phase(phases: tuple[int, ...]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    share = np.zeros(3)
    share[[p - 1 for p in phases]] = 1.0 / len(phases)
    return share


def _islands(feeder: Feeder, out: set[str]) -> list[set[str]]:
    """Connected parts of live nodes that the source does not reach."""
    group: dict[str, set[str]] = {}
    for node in feeder.nodes:
        if node in out:
            continue
        parent = feeder.parent(node)
        if parent in group:
            group[parent].add(node)
            group[node] = group[parent]
        else:
            group[node] = {node}
    unique = {id(members): members for members in group.values()}
    return [members for members in unique.values() if feeder.source not in members]
