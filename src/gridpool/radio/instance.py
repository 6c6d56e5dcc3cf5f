"""One allocation problem as a value that a file can hold: sites, links, MVNO shares, slots, fading, numerology."""

import math
import os
from pathlib import Path
from typing import Annotated, Literal, TypeAlias, TypeVar

import msgspec
from msgspec import Meta

from gridpool.errors import RefusedInput
from gridpool.radio.cells import LARGEST_CARRIER, check_resource_blocks, zone_sizes

__all__ = [
    "STANDARD_NUMEROLOGY",
    "STANDARD_REQUIREMENT",
    "Instance",
    "Interference",
    "Link",
    "Mvno",
    "Numerology",
    "Preemption",
    "Requirement",
    "Site",
    "SliceKind",
    "read_instance",
    "validate",
    "within_bounds",
    "write_instance",
]

SliceKind = Literal["urllc", "mmtc"]

LARGEST_FILE = 256 * 2**20
LARGEST_SPAN_M = 1e7

Name: TypeAlias = Annotated[str, Meta(min_length=1, max_length=64)]
Meters: TypeAlias = Annotated[float, Meta(ge=-LARGEST_SPAN_M, le=LARGEST_SPAN_M)]
Share: TypeAlias = Annotated[float, Meta(ge=0.0, le=1.0)]
Rate: TypeAlias = Annotated[int, Meta(ge=0, le=10**10)]
Cell: TypeAlias = Annotated[int, Meta(ge=0, le=10**7)]


class Site(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A gNB and the cell it serves."""

    cell: Cell
    x_m: Meters
    y_m: Meters


class Mvno(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An operator without network of its own and its share kappa of each cell's resource blocks."""

    name: Name
    share: Share


class Link(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A node's link to its gNB and what it asks for.

    Rates are whole bit/s of one resource block, 0 where there is no link; ``*_blocks_bps`` give one rate for each
    resource block of the cell where the channel differs between them. Every node asks for uplink mMTC; ``urllc``
    says whether it asks for downlink URLLC too. ``weight`` is beta before normalisation.
    """

    node: Name
    cell: Cell
    zone: Annotated[int, Meta(ge=0, le=3)]
    uplink_bps: Rate
    downlink_bps: Rate
    urllc: bool
    weight: Annotated[float, Meta(ge=0.0, le=1e12)]
    betweenness: Annotated[float, Meta(ge=0.0, le=1e18)] = 0.0
    mvno: Name = "utility"
    x_m: Meters = 0.0
    y_m: Meters = 0.0
    uplink_blocks_bps: list[Rate] | None = None
    downlink_blocks_bps: list[Rate] | None = None


class Requirement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a URLLC slice must hold: P(delay >= ``delay_s``) <= ``outage`` in an M/M/1 queue of packets."""

    packet_bits: Annotated[int, Meta(ge=1, le=10**7)] = 2048
    packets_per_s: Annotated[float, Meta(ge=0.0, le=1e6)] = 100.0
    delay_s: Annotated[float, Meta(gt=0.0, le=10.0)] = 0.005
    outage: Annotated[float, Meta(gt=0.0, lt=1.0)] = 1e-5

    @property
    def required_bps(self) -> int:
        """Least sum of rates in whole bit/s, from (8) with rates in packets: L (lambda + ln(1/epsilon) / D)."""
        return math.ceil(self.packet_bits * (self.packets_per_s + math.log(1.0 / self.outage) / self.delay_s))

    def delay_outage(self, rate_bps: float) -> float:
        """Return the probability (8) that a packet waits longer than ``delay_s`` at this sum of rates, at most 1."""
        spare = rate_bps / self.packet_bits - self.packets_per_s
        return math.exp(-max(spare, 0.0) * self.delay_s)


class Numerology(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Subcarrier spacing of the URLLC bandwidth part: 15 x 2^mu kHz; ``guard_blocks`` lie between unequal parts.

    A URLLC block of numerology mu is 2^mu resource blocks wide in frequency and as much shorter in time; waiting for
    ``alignment_slots`` slots of 1 ms / 2^mu comes off the delay budget. URLLC takes the low end of a zone, mMTC the
    high end, and the guard lies between them.
    """

    mu: Annotated[int, Meta(ge=0, le=3)] = 0
    guard_blocks: Annotated[int, Meta(ge=0, le=12)] = 0
    alignment_slots: Annotated[float, Meta(ge=0.0, le=100.0)] = 0.0

    @property
    def width(self) -> int:
        """Resource blocks that one URLLC block spans."""
        return 1 << self.mu


STANDARD_NUMEROLOGY = Numerology()
STANDARD_REQUIREMENT = Requirement()


class Preemption(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Mini-slots: URLLC blocks are taken from mMTC only when a packet is there.

    Each URLLC slice is active in a slot with probability ``activity``; the blocks that the active ones need exceed
    what the zone may give up with probability at most ``overflow``.
    """

    activity: Annotated[float, Meta(gt=0.0, le=1.0)] = 0.1
    overflow: Annotated[float, Meta(gt=0.0, lt=1.0)] = 1e-5


class Interference(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How neighbouring cells disturb: ``none`` as published, a ``fixed`` load, or the ``fixed_point`` of all loads.

    ``loads`` holds, for each cell in the order of the sites, the share of blocks in use by zone that the links' rates
    assume.
    """

    kind: Literal["none", "fixed", "fixed_point"] = "none"
    load: Share = 1.0
    loads: list[tuple[Share, Share, Share, Share]] = []
    converged: bool = True


class Instance(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One problem (7) for all cells: requests with their links, and what limits them.

    ``zones`` are the blocks of each zone of a cell (inner, three sectors), ``urllc_blocks`` the most URLLC blocks of a
    cell and MVNO under the power limit (7d), ``budget_blocks`` an optional limit on the blocks of an MVNO over all
    cells and slots. ``work_conserving`` hands blocks that shares left idle to whoever asks. ``alpha_ratio`` is
    alpha_URLLC / alpha_mMTC; alpha and the links' weights are normalised to sum 1.
    """

    resource_blocks: Annotated[int, Meta(ge=1, le=LARGEST_CARRIER)]
    zones: Annotated[list[Annotated[int, Meta(ge=0, le=LARGEST_CARRIER)]], Meta(min_length=4, max_length=4)]
    links: Annotated[list[Link], Meta(max_length=2_000_000)]
    sites: Annotated[list[Site], Meta(max_length=1_000_000)] = []
    mvnos: Annotated[list[Mvno], Meta(min_length=1, max_length=64)] = msgspec.field(
        default_factory=lambda: [Mvno(name="utility", share=1.0)]
    )
    slots: Annotated[int, Meta(ge=1, le=64)] = 1
    urllc_blocks: Annotated[int, Meta(ge=0, le=LARGEST_CARRIER)] = 20
    alpha_ratio: Annotated[float, Meta(ge=0.0, le=1e6)] = 3.0
    requirement: Requirement = STANDARD_REQUIREMENT
    fading: Literal["none", "rayleigh", "measured"] = "none"
    numerology: Numerology = STANDARD_NUMEROLOGY
    preemption: Preemption | None = None
    interference: Interference = Interference()
    work_conserving: bool = False
    budget_blocks: Annotated[int, Meta(ge=0, le=10**9)] | None = None

    @property
    def urllc_requirement(self) -> Requirement:
        """What URLLC must hold once the wait for a slot of its numerology is taken off the delay budget.

        Raises RefusedInput where nothing of the budget is left.
        """
        wait = self.numerology.alignment_slots * 1e-3 / self.numerology.width
        left = self.requirement.delay_s - wait
        if left <= 0.0:
            raise RefusedInput(
                f"waiting {wait * 1e3:g} ms for a slot leaves nothing of a delay budget of "
                f"{self.requirement.delay_s * 1e3:g} ms; raise numerology.mu or requirement.delay_s"
            )
        return msgspec.structs.replace(self.requirement, delay_s=left)

    @property
    def alpha(self) -> dict[SliceKind, float]:
        """Priority of each slice, normalised to sum 1."""
        return {"urllc": self.alpha_ratio / (1.0 + self.alpha_ratio), "mmtc": 1.0 / (1.0 + self.alpha_ratio)}

    def with_resource_blocks(self, resource_blocks: int) -> "Instance":
        """Return the same problem on another number of resource blocks a cell, with the default split into zones.

        Raises RefusedInput outside 1..106 and where the links hold rates for each block.
        """
        check_resource_blocks(resource_blocks)
        if resource_blocks == self.resource_blocks:
            return self
        if self.fading != "none":
            raise RefusedInput(
                f"the instance holds rates for each of {self.resource_blocks} resource blocks; "
                f"give --resource-blocks {self.resource_blocks} or leave it out"
            )
        sizes = list(zone_sizes(resource_blocks))
        return validate(msgspec.structs.replace(self, resource_blocks=resource_blocks, zones=sizes), "instance")


T = TypeVar("T", bound=msgspec.Struct)


def within_bounds(value: T, where: str) -> T:
    """Return a struct if every field keeps the type and bounds that it declares.

    Raises RefusedInput, naming ``where``, the field and its bound.
    """
    try:
        return msgspec.convert(msgspec.to_builtins(value), type(value))
    except msgspec.ValidationError as error:
        raise RefusedInput(f"{where}: {error}; give a value within that bound") from error


def validate(instance: Instance, where: str) -> Instance:
    """Return the instance if its parts fit together.

    Raises RefusedInput, naming ``where``, the part and what to do.
    """
    if sum(instance.zones) != instance.resource_blocks:
        raise RefusedInput(
            f"{where}: zones sum to {sum(instance.zones)} but a cell has {instance.resource_blocks} resource blocks"
        )
    names = [mvno.name for mvno in instance.mvnos]
    if len(set(names)) != len(names):
        raise RefusedInput(f"{where}: two MVNOs have one name; give each its own")
    if sum(mvno.share for mvno in instance.mvnos) > 1.0 + 1e-9:
        raise RefusedInput(f"{where}: the MVNOs' shares sum to more than 1; lower them")
    cells = [site.cell for site in instance.sites]
    if len(set(cells)) != len(cells):
        raise RefusedInput(f"{where}: two sites have one cell number; give each its own")
    known_cells, known_mvnos = set(cells), set(names)
    seen: set[str] = set()
    for link in instance.links:
        if link.node in seen:
            raise RefusedInput(f"{where}: node {link.node!r} has two links; keep one")
        seen.add(link.node)
        if cells and link.cell not in known_cells:
            raise RefusedInput(f"{where}: node {link.node!r} is in cell {link.cell}, which has no site")
        if link.mvno not in known_mvnos:
            raise RefusedInput(f"{where}: node {link.node!r} belongs to MVNO {link.mvno!r}, which is not listed")
        for rates in (link.uplink_blocks_bps, link.downlink_blocks_bps):
            if (rates is None) != (instance.fading == "none"):
                raise RefusedInput(f"{where}: node {link.node!r}: rates by block go with fading other than 'none'")
            if rates is not None and len(rates) != instance.resource_blocks:
                raise RefusedInput(
                    f"{where}: node {link.node!r} has {len(rates)} rates for {instance.resource_blocks} resource blocks"
                )
    if instance.links and sum(link.weight for link in instance.links) <= 0.0:
        raise RefusedInput(f"{where}: every node has weight 0; give at least one a positive weight")
    _refuse_combinations(instance, where)
    return instance


def _refuse_combinations(instance: Instance, where: str) -> None:
    _ = instance.urllc_requirement
    special = [
        name
        for name, used in (
            ("numerology", instance.numerology.mu > 0 or instance.numerology.guard_blocks > 0),
            ("pre-emption", instance.preemption is not None),
            ("fading", instance.fading != "none"),
        )
        if used
    ]
    if len(special) > 1:
        raise RefusedInput(f"{where}: {' and '.join(special)} cannot be combined; choose one")
    if special and special != ["fading"] and len(instance.mvnos) > 1:
        raise RefusedInput(f"{where}: {special[0]} is for one MVNO; list one")


def read_instance(path: Path) -> Instance:
    """Read an instance from a JSON file, whole or not at all.

    Raises RefusedInput where the file is too large, is not JSON, or breaks a rule.
    """
    try:
        size = path.stat().st_size
        if size > LARGEST_FILE:
            raise RefusedInput(f"{path} has {size} bytes; an instance has at most {LARGEST_FILE}")
        data = path.read_bytes()
    except OSError as error:
        raise RefusedInput(
            f"{path} cannot be read: {error.strerror}; give a file that --write-instance wrote"
        ) from error
    try:
        instance = msgspec.json.decode(data, type=Instance)
    except (msgspec.DecodeError, RecursionError) as error:
        raise RefusedInput(f"{path} is no instance: {error}; --write-instance writes one to start from") from error
    return validate(instance, str(path))


def write_instance(instance: Instance, path: Path) -> None:
    """Write an instance as JSON, whole or not at all."""
    unfinished = path.with_name(path.name + ".part")
    try:
        unfinished.write_bytes(msgspec.json.format(msgspec.json.encode(instance), indent=1) + b"\n")
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
