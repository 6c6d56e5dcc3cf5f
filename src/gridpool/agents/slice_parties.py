"""The members that play a slice's life cycle: tenants and resource parties, each with a key and its software."""

import hashlib
import math
from dataclasses import dataclass, field
from typing import Literal

import msgspec
import numpy as np
from msgspec.structs import replace

from gridpool.agents.resource_orchestrator import Fault, Measurement, SimulatedOrchestrator, link_rates_bps
from gridpool.agents.slice_orchestrator import Award
from gridpool.agents.slice_scenario import (
    ScenarioOffer,
    ScenarioParty,
    ScenarioSlice,
    ScenarioTenant,
    SliceScenario,
    minute_of_day,
)
from gridpool.contracts.slices.assignments import SliceKind
from gridpool.contracts.slices.networks import LinkStatement, MvnoShare, RegisterLinks, RegisterNetwork
from gridpool.contracts.slices.offers import CommitOffer, OfferFigures, PlaceOffer, RevealOffer, commitment
from gridpool.contracts.slices.orders import NodeSlice, Request, Requirement, Schedule
from gridpool.contracts.slices.pools import Amount, RegisterPool, Resource, Segment
from gridpool.contracts.slices.samples import sample_leaf, sample_root
from gridpool.contracts.slices.supervision import IntervalReport
from gridpool.contracts.slices.templates import Isolation, ServiceProfile, template
from gridpool.contracts.slices.terms import Kpis, Terms
from gridpool.errors import RefusedInput
from gridpool.ledger.keys import KeyPair
from gridpool.ledger.types import Call, decode, encode
from gridpool.radio.propagation import RadioProfile

__all__ = ["MINUTE_MS", "Party", "Tenant", "key_of", "parties_of", "request_of", "template_request"]

MINUTE_MS = 60_000
RISK_SCALE = 1_000_000_000
RESOURCE: dict[Segment, Resource] = {
    "ran": "resource_blocks",
    "transport": "kbps",
    "core": "devices",
    "compute": "millicores",
    "storage": "mebibytes",
}
MVNO = "tenant"
HEADROOM = 1.25
MILLICORES_PER_DEVICE = 100
MEBIBYTES_PER_DEVICE = 64
PROFILE = RadioProfile()


@dataclass
class Tenant:
    """A tenant and its key."""

    plan: ScenarioTenant
    key: KeyPair

    def kpis(self, measured: Kpis) -> Kpis:
        """Return what this tenant signs for what it measured."""
        if self.plan.behaviour == "denies":
            return replace(measured, throughput_kbps=measured.throughput_kbps // 2)
        return measured


@dataclass
class Party:
    """A resource party: its key, its network's driver and where the devices of each slice stand in its cell."""

    plan: ScenarioParty
    key: KeyPair
    driver: SimulatedOrchestrator
    distances_m: dict[str, tuple[float, ...]] = field(default_factory=dict)

    @property
    def network(self) -> str:
        """The name of its radio network."""
        return f"{self.plan.name}-net"

    def offer_for(self, segment: str) -> ScenarioOffer | None:
        """Return what it offers for a segment."""
        return next((offer for offer in self.plan.offers if offer.segment == segment), None)

    def opening(self, slices: list[ScenarioSlice]) -> list[Call]:
        """Return the calls that register its pools, its network and the links of the devices in its cell."""
        calls: list[Call] = []
        for offer in self.plan.offers:
            pool = f"{self.plan.name}-{offer.segment}"
            calls.append(RegisterPool(pool, offer.segment, (), (Amount(RESOURCE[offer.segment], offer.capacity),)))
        ran = self.offer_for("ran")
        if ran is None:
            return calls
        blocks = min(ran.capacity, 275)
        least = min(1_000 * device_kbps(wanted) for wanted in slices)
        shares = (MvnoShare(MVNO, blocks),)
        calls.append(RegisterNetwork(self.network, blocks, (blocks, 0, 0, 0), 1, blocks, least, 1, shares))
        for wanted in slices:
            rates = link_rates_bps(self.distances_m[wanted.name], PROFILE)
            links = tuple(
                LinkStatement(node_name(wanted, n), 1, 0, MVNO, (math.floor(rate),), (math.floor(rate),))
                for n, rate in enumerate(rates)
            )
            calls.append(RegisterLinks(self.network, links))
        return calls

    def place(self, name: str, request: Request, segment: Segment, now: int) -> PlaceOffer | CommitOffer | None:
        """Offer for a segment of an order, or not: no honest party offers a network that is down."""
        down = any(
            fault.segment == segment and fault.factor < 1.0 and fault.start_ms <= now < fault.end_ms
            for fault in self.driver.faults
        )
        figures = self.figures(request, segment)
        if figures is None or (down and self.plan.behaviour != "flatters"):
            return None
        hopeless = (
            figures.cost > request.reserve
            or figures.delay_us > request.max_delay_us
            or figures.risk_nano > request.max_risk_nano
            or figures.bandwidth_kbps < request.min_bandwidth_kbps
        )
        if hopeless:
            return None
        offer = f"{self.plan.name}-{segment}"
        if request.schedule.reveal_ms:
            return CommitOffer(name, segment, offer, commitment(figures, self.salt(name, segment), self.key.public))
        return PlaceOffer(name, segment, offer, figures)

    def reveal(self, name: str, request: Request, segment: Segment) -> RevealOffer | None:
        """Open a sealed offer."""
        figures = self.figures(request, segment)
        offer = f"{self.plan.name}-{segment}"
        return None if figures is None else RevealOffer(name, segment, offer, figures, self.salt(name, segment))

    def figures(self, request: Request, segment: Segment) -> OfferFigures | None:
        """Return what it offers for a segment of an order."""
        offer = self.offer_for(segment)
        if offer is None:
            return None
        minutes = (request.end - request.start) // request.schedule.interval_ms
        return OfferFigures(
            offer.price_per_minute * minutes,
            offer.delay_us,
            offer.bandwidth_kbps,
            offer.risk_nano,
            f"{self.plan.name}-{segment}",
            request.end,
        )

    def salt(self, name: str, segment: str) -> bytes:
        """Return the secret that hides a sealed offer until it is opened."""
        return hashlib.sha256(self.key.seed + f"/{name}/{segment}".encode()).digest()

    def blocks_for(self, wanted: ScenarioSlice) -> tuple[int, ...]:
        """Return how many resource blocks each device of a slice needs in this party's cell."""
        rates = link_rates_bps(self.distances_m[wanted.name], PROFILE)
        return tuple(max(1, math.ceil(HEADROOM * 1_000 * device_kbps(wanted) / rate)) for rate in rates)

    def kpis(self, measured: Kpis, award: Award) -> Kpis:
        """Return what this party signs for what it measured."""
        if self.plan.behaviour == "flatters":
            return Kpis(measured.demand_kbps, measured.demand_kbps, award.order.delay_us, 0, 1_000_000)
        return measured


def key_of(seed: int, *parts: str) -> KeyPair:
    """Derive a member's key from the scenario's seed, so that the same scenario gives the same ledger."""
    return KeyPair(hashlib.sha256("/".join(("gridpool slice scenario", str(seed), *parts)).encode()).digest())


def parties_of(scenario: SliceScenario, midnight_ms: int) -> list[Party]:
    """Make the parties, place the devices in their cells, and give their networks the scenario's faults."""
    parties = []
    for number, plan in enumerate(scenario.parties):
        faults = tuple(
            Fault(
                segment=fault.segment,
                start_ms=midnight_ms + minute_of_day(fault.start) * MINUTE_MS,
                end_ms=midnight_ms + minute_of_day(fault.end) * MINUTE_MS,
                factor=fault.factor,
                neighbour_kbps=fault.neighbour_kbps,
            )
            for fault in scenario.faults
            if fault.party == plan.name
        )
        party = Party(
            plan, key_of(scenario.seed, "party", plan.name), SimulatedOrchestrator(scenario.seed, faults=faults)
        )
        rng = np.random.default_rng([scenario.seed, number])
        for wanted in scenario.slices:
            radii = PROFILE.cell_radius_m * np.sqrt(rng.uniform(0.01, 1.0, wanted.devices))
            party.distances_m[wanted.name] = tuple(radii.tolist())
        parties.append(party)
    return parties


def device_kbps(wanted: ScenarioSlice) -> int:
    """Return what a device of the slice sends, kbit/s."""
    ready = template(wanted.template)
    if wanted.device_kbps is not None or ready is None:
        return wanted.device_kbps or 1
    return template_kbps(ready.attributes)


def node_name(wanted: ScenarioSlice, number: int) -> str:
    """Name a device of a slice."""
    return f"{wanted.name}-{number}"


def request_of(
    wanted: ScenarioSlice, parties: list[Party], *, start_ms: int, end_ms: int, offers_until: int, deposit: int
) -> Request:
    """Turn a scenario's slice into an order whose RAN is asked for by node."""
    request = template_request(
        wanted.template,
        devices=wanted.devices,
        device_kbps=device_kbps(wanted),
        start_ms=start_ms,
        end_ms=end_ms,
        reserve=wanted.reserve,
        objective=wanted.objective,
        payment=wanted.payment,
        offers_until=offers_until,
        deposit=deposit,
        segments=wanted.segments,
        isolation=wanted.isolation,
    )
    kind: SliceKind = "urllc" if request.sst == 2 else "mmtc"
    nodes = tuple(NodeSlice(node_name(wanted, n), kind) for n in range(wanted.devices))
    most = max((sum(party.blocks_for(wanted)) for party in parties if party.offer_for("ran")), default=1)
    blocks = (Amount("resource_blocks", most),)
    segments = tuple(Requirement("ran", blocks, nodes) if one.segment == "ran" else one for one in request.segments)
    schedule = replace(request.schedule, reveal_ms=2 * MINUTE_MS if wanted.sealed else 0)
    return replace(request, segments=segments, budget=wanted.budget, fall_back=wanted.fall_back, schedule=schedule)


def template_request(
    name: str,
    *,
    devices: int,
    device_kbps: int | None,
    start_ms: int,
    end_ms: int,
    reserve: int,
    objective: Literal["cost", "delay", "bandwidth", "availability"],
    payment: Literal["offer", "vcg"],
    offers_until: int,
    deposit: int,
    segments: tuple[Segment, ...] = ("ran", "transport", "core"),
    isolation: Isolation | None = None,
) -> Request:
    """Turn a template into an order: W's slice allocation unit, from template to resource requirements.

    Resource blocks are estimated at half the cell's radius. Raises RefusedInput for an unknown template or a number
    out of range.
    """
    ready = template(name)
    if ready is None:
        raise RefusedInput(f"no template {name!r}; `gridpool slice templates` lists them")
    kbps = device_kbps if device_kbps is not None else template_kbps(ready.attributes)
    total_kbps = devices * kbps
    rate = float(link_rates_bps((PROFILE.cell_radius_m / 2.0,), PROFILE)[0])
    amounts: dict[Segment, int] = {
        "ran": devices * max(1, math.ceil(HEADROOM * 1_000 * kbps / rate)),
        "transport": math.ceil(HEADROOM * total_kbps),
        "core": devices,
        "compute": MILLICORES_PER_DEVICE * devices,
        "storage": MEBIBYTES_PER_DEVICE * devices,
    }
    profile = replace(ready.attributes, maxNumberofUEs=devices, isolation=isolation or ready.attributes.isolation)
    request = Request(
        sst=ready.sst,
        sd=ready.sd,
        profile=profile,
        segments=tuple(Requirement(one, (Amount(RESOURCE[one], amounts[one]),)) for one in segments),
        start=start_ms,
        end=end_ms,
        max_delay_us=profile.latency if profile.latency is not None else 10**9,
        min_bandwidth_kbps=total_kbps,
        max_risk_nano=_risk_nano(profile),
        reserve=reserve,
        objective=objective,
        payment=payment,
        deposit=deposit,
        schedule=Schedule(
            offers_until=offers_until,
            confirm_ms=3 * MINUTE_MS,
            deploy_ms=4 * MINUTE_MS,
            report_ms=3 * MINUTE_MS,
            dispute_ms=6 * MINUTE_MS,
        ),
        terms=Terms(availability_ppm=990_000, loss_ppm=10_000, breach_after=3),
    )
    try:
        return decode(encode(request), Request)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RefusedInput(f"no such order: {error}") from error


def template_kbps(profile: ServiceProfile) -> int:
    """Return what a device of a profile sends, kbit/s: its guaranteed uplink, else the largest figure it names."""
    figures = (profile.uLThptPerUEGua, profile.uLThptPerUEMax, profile.dLThptPerUEMax)
    return next((figure for figure in figures if figure), 1)


def interval_report(
    key: tuple[str, int], segment: Segment, interval: int, kpis: Kpis, measurement: Measurement
) -> IntervalReport:
    """Make a report with the Merkle root of its raw samples."""
    return IntervalReport(segment, interval, kpis, sample_root(leaves(key, segment, interval, measurement)), 200)


def leaves(key: tuple[str, int], segment: str, interval: int, measurement: Measurement) -> list[bytes]:
    """Hash the raw samples of a measurement."""
    return [sample_leaf(*key, segment, interval, n, sample) for n, sample in enumerate(measurement.samples)]


def _risk_nano(profile: ServiceProfile) -> int:
    """Return the largest risk, -ln(availability) in 1e-9, that keeps the profile's availability (else reliability)."""
    share = profile.availability if profile.availability is not None else profile.reliability
    if share is None or share == 0:
        return 10**12
    return max(0, math.floor(-math.log(share / RISK_SCALE) * RISK_SCALE))
