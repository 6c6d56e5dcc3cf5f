"""A feeder: its tree of buses, the nodes it is drawn with, its loads and the devices that can be controlled."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gridpool.errors import RefusedInput
from gridpool.grid.dss_import import import_dss
from gridpool.grid.facts import (
    Capacitor,
    Device,
    DeviceKind,
    Facts,
    Generator,
    Line,
    Load,
    Transformer,
    read_facts,
)

__all__ = ["FEEDERS", "Branch", "Feeder", "LoadItem", "build_feeder", "load_feeder"]

FEEDERS = ("ieee13", "ieee34", "ieee34mod2", "ieee37", "ieee123")
"""Names of the feeders that come with the package."""

DATA = Path(__file__).parent / "data"
MAX_BUSES = 20_000


@dataclass(frozen=True)
class LoadItem:
    """One phase of a load: what can be shed on its own. ``phases`` has two entries for a line-to-line load."""

    name: str
    bus: str
    node: str
    phases: tuple[int, ...]
    connection: str
    model: int
    kv: float
    power_w: float
    reactive_var: float


@dataclass(frozen=True)
class Branch:
    """Everything between a bus and its parent: lines, switches, transformers and regulators in parallel phases."""

    parent: str
    bus: str
    lines: tuple[Line, ...]
    transformers: tuple[Transformer, ...]


@dataclass(frozen=True, eq=False)
class Feeder:
    """A radial feeder, frozen; two feeders are equal only if they are the same object."""

    facts: Facts
    name: str
    nodes: tuple[str, ...]
    """Nodes of the published drawing, the source first, each after its parent."""
    edges: tuple[tuple[str, str], ...]
    """(parent, child) pairs of nodes, in the order of ``nodes``."""
    source: str
    """The node at the head of the feeder."""
    coordinates: Mapping[str, tuple[float, float]]
    """Drawing position of each node that has one; not metres."""
    loads: tuple[LoadItem, ...]
    devices: tuple[Device, ...]
    branches: tuple[Branch, ...]
    """Bus tree below the source bus, each branch after its parent's."""
    base_kv: Mapping[str, float]
    """Base voltage of each bus, line to line, kV."""
    bus_phases: Mapping[str, tuple[int, ...]]
    delta_buses: frozenset[str]
    """Buses without a path to ground, where only voltages between phases mean anything."""
    node_of_bus: Mapping[str, str]
    published: Mapping[tuple[str, str], float] = field(default_factory=dict)
    """Published voltages (bus, phases such as "A" or "AB") -> volt; empty for an own feeder."""

    @property
    def source_bus(self) -> str:
        """The bus the supply stands at."""
        return self.facts.source.bus

    @cached_property
    def buses(self) -> tuple[str, ...]:
        """All buses, the source first."""
        return (self.source_bus, *(branch.bus for branch in self.branches))

    @cached_property
    def observations(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """Voltages with a meaning: (bus, (phase,)), or (bus, (phase, phase)) at buses without ground."""
        out: list[tuple[str, tuple[int, ...]]] = []
        for bus in self.buses:
            phases = self.bus_phases[bus]
            if bus in self.delta_buses:
                out += [(bus, pair) for pair in ((1, 2), (2, 3), (3, 1)) if set(pair) <= set(phases)]
            else:
                out += [(bus, (phase,)) for phase in phases]
        return tuple(out)

    @cached_property
    def nominal_w(self) -> float:
        """Nominal demand of all loads in W."""
        return float(sum(item.power_w for item in self.loads))

    def node_power_w(self, node: str) -> float:
        """Nominal demand booked at a node in W."""
        self.require_nodes([node])
        return float(sum(item.power_w for item in self.loads if item.node == node))

    def phases(self, node: str) -> str:
        """Phases present at a node, as letters ("abc", "ac", "b")."""
        self.require_nodes([node])
        found = {p for bus, owner in self.node_of_bus.items() if owner == node for p in self.bus_phases[bus]}
        return "".join("abc"[p - 1] for p in sorted(found))

    def degree(self, node: str) -> int:
        """Number of edges that meet at a node."""
        self.require_nodes([node])
        return sum(node in edge for edge in self.edges)

    def parent(self, node: str) -> str | None:
        """The node one step closer to the source; None for the source."""
        self.require_nodes([node])
        return next((a for a, b in self.edges if b == node), None)

    @property
    def tree_edges(self) -> tuple[tuple[str, str], ...]:
        """The same as ``edges``: (parent, child) pairs."""
        return self.edges

    def device_nodes(self, kinds: Iterable[DeviceKind] | None = None) -> tuple[str, ...]:
        """Nodes at which devices (of these kinds) are booked, in feeder order."""
        wanted = None if kinds is None else set(kinds)
        held = {d.node for d in self.devices if wanted is None or d.kind in wanted}
        return tuple(node for node in self.nodes if node in held)

    def require_nodes(self, nodes: Iterable[str]) -> None:
        """Refuse a node that the feeder does not have."""
        known = set(self.nodes)
        for node in nodes:
            if node not in known:
                raise RefusedInput(
                    f"{self.name} has no node {node!r}; `gridpool feeder show {self.name}` lists its {len(known)} nodes"
                )


def load_feeder(name_or_path: str | Path) -> Feeder:
    """Load a feeder: a packaged name, a feeder file (``.json``) or an OpenDSS master (``.dss``).

    Raises RefusedInput for an unknown name and for a file that is no radial feeder with one source.
    """
    name = str(name_or_path)
    if name in FEEDERS:
        return _packaged(name)
    path = Path(name_or_path)
    if path.suffix.lower() == ".dss":
        return build_feeder(import_dss(path))
    if path.suffix.lower() == ".json":
        return build_feeder(read_facts(path))
    raise RefusedInput(f"no feeder {name!r}; name one of {', '.join(FEEDERS)}, a .dss master or a feeder .json")


_PACKAGED: dict[str, Feeder] = {}


def _packaged(name: str) -> Feeder:
    if name not in _PACKAGED:
        folder = DATA / name
        _PACKAGED[name] = build_feeder(read_facts(folder / "feeder.json"), read_voltages(folder / "published.csv"))
    return _PACKAGED[name]


def read_voltages(path: Path) -> dict[tuple[str, str], float]:
    """Read published voltages, rows of bus, phases, volt and angle."""
    if not path.exists():
        return {}
    rows = [line.split(",") for line in path.read_text(encoding="utf-8").splitlines()[1:] if line]
    return {(row[0], row[1]): float(row[2]) for row in rows}


def build_feeder(facts: Facts, published: Mapping[tuple[str, str], float] | None = None) -> Feeder:
    """Check the facts and lay them out as a tree.

    Raises RefusedInput for a loop (naming it), an element that hangs on no supplied bus, a phase that its supply
    lacks, a name used twice or a device that does not exist.
    """
    _refuse_duplicates(facts)
    branches = _tree(facts)
    bus_phases = _phases(facts, branches)
    base_kv, delta = _bases(facts, branches)
    buses = [facts.source.bus, *(b.bus for b in branches)]
    attached: list[Load | Capacitor | Generator] = [*facts.loads, *facts.capacitors, *facts.generators]
    for component in attached:
        if component.bus not in bus_phases:
            raise RefusedInput(f"{facts.name}: {component.name} hangs on bus {component.bus}, which nothing supplies")
        if not set(component.phases) <= set(bus_phases[component.bus]):
            raise RefusedInput(f"{facts.name}: {component.name} uses a phase that bus {component.bus} does not have")
    node_of_bus = {bus: facts.nodes.get(bus, bus) for bus in buses}
    nodes, edges = _node_tree(facts, branches, node_of_bus)
    for device in facts.devices:
        if device.node not in nodes:
            raise RefusedInput(f"{facts.name}: device {device.name} is booked at {device.node}, which is no node")
    coordinates = {node: facts.coordinates[node] for node in nodes if node in facts.coordinates}
    return Feeder(
        facts=facts,
        name=facts.name,
        nodes=nodes,
        edges=edges,
        source=node_of_bus[facts.source.bus],
        coordinates=coordinates,
        loads=tuple(_load_items(facts, node_of_bus)),
        devices=tuple(facts.devices),
        branches=tuple(branches),
        base_kv=base_kv,
        bus_phases=bus_phases,
        delta_buses=frozenset(delta),
        node_of_bus=node_of_bus,
        published=dict(published or {}),
    )


def _refuse_duplicates(facts: Facts) -> None:
    for kind, rows in (
        ("line", facts.lines),
        ("transformer", facts.transformers),
        ("load", facts.loads),
        ("capacitor", facts.capacitors),
        ("generator", facts.generators),
        ("line code", facts.line_codes),
    ):
        seen: set[str] = set()
        for row in rows:
            if row.name in seen:
                raise RefusedInput(f"{facts.name}: two rows describe {kind} {row.name}")
            seen.add(row.name)
    codes = {code.name: code for code in facts.line_codes}
    for line in facts.lines:
        code = codes.get(line.code)
        if code is None:
            raise RefusedInput(f"{facts.name}: line {line.name} names construction {line.code}, which is not listed")
        for matrix in (code.r_ohm_per_km, code.x_ohm_per_km, code.c_nf_per_km):
            if [len(row) for row in matrix] != list(range(1, len(line.phases) + 1)):
                raise RefusedInput(
                    f"{facts.name}: construction {line.code} does not fit the phases of line {line.name}"
                )
    things = {(t.bank or t.name) for t in facts.transformers if t.regulator} | {c.name for c in facts.capacitors}
    things |= {line.name for line in facts.lines if line.switch} | {g.name for g in facts.generators}
    for device in facts.devices:
        if device.name not in things:
            raise RefusedInput(f"{facts.name}: device {device.name} is no regulator, capacitor, switch or generator")


def _tree(facts: Facts) -> list[Branch]:
    """Group elements between the same two buses and walk from the source; a bus reached twice closes a loop."""
    pairs: dict[frozenset[str], tuple[list[Line], list[Transformer]]] = {}
    for line in facts.lines:
        if not line.open:
            _pair(pairs, line.from_bus, line.to_bus, facts.name)[0].append(line)
    for transformer in facts.transformers:
        _pair(pairs, transformer.primary.bus, transformer.secondary.bus, facts.name)[1].append(transformer)
    neighbours: dict[str, list[str]] = {}
    for pair in pairs:
        a, b = sorted(pair)
        neighbours.setdefault(a, []).append(b)
        neighbours.setdefault(b, []).append(a)
    order = _declared_order(facts)
    for list_ in neighbours.values():
        list_.sort(key=lambda bus: order[bus])
    source = facts.source.bus
    if source not in neighbours:
        raise RefusedInput(f"{facts.name}: nothing is connected to the source bus {source}")
    parents: dict[str, str | None] = {source: None}
    branches: list[Branch] = []
    queue = [source]
    for bus in queue:
        for other in neighbours[bus]:
            if other == parents[bus]:
                continue
            if other in parents:
                raise RefusedInput(f"{facts.name} is not radial: loop {_loop(parents, bus, other)}; open one switch")
            if len(parents) > MAX_BUSES:
                raise RefusedInput(f"{facts.name} has more than {MAX_BUSES} buses")
            parents[other] = bus
            queue.append(other)
            lines, transformers = pairs[frozenset((bus, other))]
            branches.append(_branch(facts.name, bus, other, lines, transformers))
    stranded = sorted(set(neighbours) - set(parents))
    if stranded:
        raise RefusedInput(f"{facts.name}: bus {stranded[0]} has no path to the source (a closed switch missing?)")
    return branches


def _pair(
    pairs: dict[frozenset[str], tuple[list[Line], list[Transformer]]], a: str, b: str, name: str
) -> tuple[list[Line], list[Transformer]]:
    if a == b:
        raise RefusedInput(f"{name} is not radial: an element begins and ends at bus {a}")
    return pairs.setdefault(frozenset((a, b)), ([], []))


def _branch(name: str, bus: str, other: str, lines: list[Line], transformers: list[Transformer]) -> Branch:
    used: set[int] = set()
    for line in lines:
        if used & set(line.phases):
            raise RefusedInput(f"{name} is not radial: loop {bus} - {other} - {bus} through parallel lines; merge them")
        used |= set(line.phases)
    delta = any(t.primary.connection == "delta" and t.phase_count == 1 for t in transformers)
    for transformer in transformers:
        phases = set(transformer.secondary.phases)
        if used & phases and not delta:
            raise RefusedInput(f"{name} is not radial: loop {bus} - {other} - {bus} through parallel transformers")
        used |= phases
        if transformer.primary.bus != bus:
            raise RefusedInput(f"{name}: transformer {transformer.name} has its first winding away from the source")
    return Branch(bus, other, tuple(lines), tuple(transformers))


def _declared_order(facts: Facts) -> dict[str, int]:
    order: dict[str, int] = {}
    for line in facts.lines:
        for bus in (line.from_bus, line.to_bus):
            order.setdefault(bus, len(order))
    for transformer in facts.transformers:
        for bus in (transformer.primary.bus, transformer.secondary.bus):
            order.setdefault(bus, len(order))
    order.setdefault(facts.source.bus, len(order))
    return order


def _loop(parents: Mapping[str, str | None], a: str, b: str) -> str:
    def up(bus: str) -> list[str]:
        path = [bus]
        while (parent := parents[path[-1]]) is not None:
            path.append(parent)
        return path

    left, right = up(a), up(b)
    while len(left) > 1 and len(right) > 1 and left[-2] == right[-2]:
        left.pop()
        right.pop()
    ring = [*left, *reversed(right[:-1]), left[0]]
    if len(ring) > 14:
        ring = [*ring[:6], "...", *ring[-6:]]
    return " - ".join(ring)


def _phases(facts: Facts, branches: list[Branch]) -> dict[str, tuple[int, ...]]:
    phases: dict[str, tuple[int, ...]] = {facts.source.bus: (1, 2, 3)}
    for branch in branches:
        have = set(phases[branch.parent])
        found: set[int] = set()
        for line in branch.lines:
            if not set(line.phases) <= have:
                raise RefusedInput(f"{facts.name}: line {line.name} carries a phase that bus {branch.parent} lacks")
            found |= set(line.phases)
        for transformer in branch.transformers:
            if not set(transformer.primary.phases) <= have:
                raise RefusedInput(f"{facts.name}: {transformer.name} needs a phase that bus {branch.parent} lacks")
            found |= set(transformer.secondary.phases)
        phases[branch.bus] = tuple(sorted(found))
    return phases


def _bases(facts: Facts, branches: list[Branch]) -> tuple[dict[str, float], set[str]]:
    base = {facts.source.bus: facts.source.kv}
    delta: set[str] = set()
    for branch in branches:
        base[branch.bus] = base[branch.parent]
        if branch.parent in delta:
            delta.add(branch.bus)
        for transformer in branch.transformers:
            first, second = transformer.primary, transformer.secondary
            base[branch.bus] = float(np.round(base[branch.parent] * second.kv / first.kv, 9))
            if second.connection == "wye":
                delta.discard(branch.bus)
            elif transformer.phase_count == 3 and first.bus != branch.bus:
                delta.add(branch.bus)
    return base, delta


def _node_tree(
    facts: Facts, branches: list[Branch], node_of_bus: Mapping[str, str]
) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    nodes = [node_of_bus[facts.source.bus]]
    edges: list[tuple[str, str]] = []
    for branch in branches:
        above, below = node_of_bus[branch.parent], node_of_bus[branch.bus]
        if above == below:
            continue
        if below in nodes:
            raise RefusedInput(f"{facts.name}: the buses of node {below} are not next to each other in the tree")
        nodes.append(below)
        edges.append((above, below))
    unknown = set(node_of_bus.values()) - set(node_of_bus)
    if unknown:
        raise RefusedInput(f"{facts.name}: node {sorted(unknown)[0]} is no bus of the feeder")
    return tuple(nodes), tuple(edges)


def _load_items(facts: Facts, node_of_bus: Mapping[str, str]) -> list[LoadItem]:
    items = []
    for load in facts.loads:
        parts: list[tuple[int, ...]]
        if load.connection == "delta":
            a, *rest = load.phases
            parts = [(1, 2), (2, 3), (3, 1)] if len(load.phases) == 3 else [(a, *rest)]
            kv = load.kv
        else:
            parts = [(phase,) for phase in load.phases]
            kv = load.kv if len(parts) == 1 else load.kv / float(np.sqrt(3.0))
        for part in parts:
            suffix = "" if len(parts) == 1 else "." + "".join("abc"[p - 1] for p in part)
            items.append(
                LoadItem(
                    name=load.name + suffix,
                    bus=load.bus,
                    node=node_of_bus[load.bus],
                    phases=part,
                    connection=load.connection,
                    model=load.model,
                    kv=kv,
                    power_w=load.kw * 1e3 / len(parts),
                    reactive_var=load.kvar * 1e3 / len(parts),
                )
            )
    return items


def full_matrix(triangle: list[list[float]]) -> NDArray[np.float64]:
    """Give the symmetric matrix of a lower triangle."""
    size = len(triangle)
    matrix = np.zeros((size, size))
    for i, row in enumerate(triangle):
        for j, value in enumerate(row):
            matrix[i, j] = matrix[j, i] = value
    return matrix
