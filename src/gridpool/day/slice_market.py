"""The day's slices on the ledger: ordered, offered, chosen, deployed, measured each quarter hour, judged and paid.

The utility orders an mMTC and a URLLC slice for the nodes that the planner serves. The operator whose cell covers them
offers the radio, all three operators offer transport and core; the contract chooses; a simulated orchestrator carries
the traffic; a failed sector becomes violated intervals and penalties. Every step follows from the day and the ledger's
state, so that an interrupted day goes on as it would have.
"""

import hashlib
import math
from collections.abc import Iterator

import numpy as np

from gridpool.agents.resource_orchestrator import Fault, Measurement, SimulatedOrchestrator, SubSliceOrder
from gridpool.contracts.slices.assignments import ASSIGNMENTS, AssignmentItem, RecordAssignment, SliceKind
from gridpool.contracts.slices.awards import sub_slice_name
from gridpool.contracts.slices.deployment import ConfirmDeployment, ConfirmReservation
from gridpool.contracts.slices.offers import OfferFigures, PlaceOffer
from gridpool.contracts.slices.orders import (
    ORDERS,
    PROGRESS,
    NodeSlice,
    OrderSlice,
    Request,
    Requirement,
    Schedule,
    SubSlice,
    interval_count,
    sub_slices,
)
from gridpool.contracts.slices.pools import Amount, RegisterPool, Resource, Segment
from gridpool.contracts.slices.samples import sample_leaf, sample_root
from gridpool.contracts.slices.supervision import VERDICTS, IntervalReport, ReportIntervals, interval_end
from gridpool.contracts.slices.templates import ServiceProfile
from gridpool.contracts.slices.terms import PenaltyStep, Terms
from gridpool.day.calendar import INTERVAL_MS
from gridpool.day.cast import Cast
from gridpool.day.opening import ASSIGNMENT, NETWORK, OPENS_BEFORE_MS, Signed
from gridpool.day.physics import PhysicalDay
from gridpool.ledger.clock import AdvanceClock
from gridpool.ledger.keys import KeyPair
from gridpool.ledger.state import State
from gridpool.planner import assignment_rows

__all__ = ["KINDS", "OPENING_BLOCKS", "PRICE_PERCENT", "SliceMarket"]

MINUTE_MS = 60_000
OPENING_BLOCKS = 5
"""Blocks between the day's opening and its first interval: order, offer, choose, reserve, deploy."""
OFFERS_MS = 60 * MINUTE_MS
SEGMENTS: tuple[Segment, ...] = ("ran", "transport", "core")
RESOURCE: dict[Segment, Resource] = {"ran": "resource_blocks", "transport": "kbps", "core": "devices"}
KINDS: dict[str, SliceKind] = {"metering": "mmtc", "control": "urllc"}
"""The slices' names, and what carries them."""
NODE_KBPS: dict[SliceKind, int] = {"mmtc": 10, "urllc": 205}
"""What a node sends: a meter's and sensors' readings; 100 packets a second of 2,048 bit."""
LATENCY_US: dict[SliceKind, int] = {"mmtc": 15_000_000, "urllc": 50_000}
USUAL_PRICES: dict[Segment, int] = {"ran": 20_000, "transport": 6_000, "core": 4_500}
"""Micro-coins for a segment and quarter hour; what an operator asks is drawn around them."""
PRICE_PERCENT = (80, 120)
PRICE_STEP = 100
DELAY_SHARE: dict[Segment, int] = {"ran": 60, "transport": 20, "core": 15}
"""Percent of the latency that an operator promises for a segment."""
BACKHAUL_KBPS = 100_000
"""What transport and core offer: far above what a feeder's nodes send."""
RISK_NANO = 300_000
PENALTY_STEPS = ((10_000, 25), (100_000, 50), (500_000, 100))
"""(shortfall in ppm, percent of the scenario's penalty): what a quarter hour that fell short pays back."""


class SliceMarket:
    """The members' part in the day's slices."""

    def __init__(self, day: PhysicalDay, cast: Cast) -> None:
        self.day = day
        self.cast = cast
        self.operators = (cast.operator, *cast.rivals)
        self.nodes: dict[str, tuple[str, ...]] = {}
        """Slice -> the nodes that the planner gives it; a slice without any is not ordered."""
        for name, kind in KINDS.items():
            nodes = tuple(grant.node for grant in day.allocation.grants if grant.slice == kind)
            if nodes:
                self.nodes[name] = nodes
        rng = np.random.default_rng([day.scenario.seed, 2])
        percent = rng.integers(*PRICE_PERCENT, (len(self.operators), len(SEGMENTS)), endpoint=True)
        self._prices: tuple[dict[Segment, int], ...] = tuple(
            {
                segment: USUAL_PRICES[segment] * int(percent[number, place]) // 100 // PRICE_STEP * PRICE_STEP
                for place, segment in enumerate(SEGMENTS)
                # Radio is offered by who covers the nodes: the links are registered in one operator's cell.
                if segment != "ran" or number == 0
            }
            for number in range(len(self.operators))
        )

    def opening(self, number: int, state: State) -> list[Signed]:
        """Return block ``number`` of ``OPENING_BLOCKS``, after the links have been registered and attested."""
        if not self.nodes:
            return []
        begins = self.day.calendar.starts_ms[0] - OPENS_BEFORE_MS
        steps = (self._orders, self._offers, self._close, self._reserve, self._deploy)
        return list(steps[number](state, begins))

    def reports(self, state: State, now: int) -> list[Signed]:
        """Return what both sides sign at market time ``now`` of the quarter hours that ended lately."""
        signed: list[Signed] = []
        for name in self.nodes:
            key = (name, 0)
            order, progress = state.get(ORDERS, key), state.get(PROGRESS, key)
            if order is None or progress is None or progress.phase not in ("active", "ended"):
                continue
            for interval in range(interval_count(order.request)):
                end = interval_end(order, interval)
                if end <= now < end + order.request.schedule.report_ms and end <= progress.until:
                    signed += self._report(state, key, interval)
        return signed

    def _orders(self, state: State, begins: int) -> Iterator[Signed]:
        for number, (key, prices) in enumerate(zip(self.operators, self._prices, strict=True)):
            for segment in prices:
                most = sum(self._amount(name, segment) for name in self.nodes)
                yield key, (RegisterPool(_pool(number, segment), segment, (), (Amount(RESOURCE[segment], most),)),)
        for name in self.nodes:
            yield self.cast.utility, (OrderSlice(name, self._request(name, begins)),)

    def _offers(self, state: State, begins: int) -> Iterator[Signed]:
        for number, (key, prices) in enumerate(zip(self.operators, self._prices, strict=True)):
            for name, nodes in self.nodes.items():
                kind = KINDS[name]
                for segment, price in prices.items():
                    figures = OfferFigures(
                        price * len(self.day.calendar),
                        LATENCY_US[kind] * DELAY_SHARE[segment] // 100,
                        len(nodes) * NODE_KBPS[kind] if segment == "ran" else BACKHAUL_KBPS,
                        RISK_NANO,
                        _pool(number, segment),
                        self.day.calendar.end_ms,
                    )
                    if figures.cost <= self._reserve_price:
                        yield key, (PlaceOffer(name, segment, f"{number}-{segment}", figures),)

    def _close(self, state: State, begins: int) -> Iterator[Signed]:
        yield self.cast.clock, (AdvanceClock(begins + OFFERS_MS),)

    def _reserve(self, state: State, begins: int) -> Iterator[Signed]:
        for name, segment, key in self._awards(state, "awarded"):
            yield key, (ConfirmReservation(name, segment),)

    def _deploy(self, state: State, begins: int) -> Iterator[Signed]:
        deploying = list(self._awards(state, "deploying"))
        kinds = {KINDS[name] for name, segment, _ in deploying if segment == "ran"}
        items = tuple(
            AssignmentItem(row.node, row.slice, row.cell, row.zone, row.mvno, row.slot, row.blocks, row.rate_bps)
            for row in assignment_rows(self.day.allocation)
            if row.slice in kinds
        )
        if items and state.get(ASSIGNMENTS, ASSIGNMENT) is None:
            window = self.day.calendar.starts_ms[0], self.day.calendar.end_ms
            yield self.cast.operator, (RecordAssignment(ASSIGNMENT, NETWORK, *window, items),)
        for name, segment, key in deploying:
            endpoint = hashlib.sha256(f"simulated/{name}/{segment}".encode()).digest()
            yield key, (ConfirmDeployment(name, segment, endpoint, ASSIGNMENT if segment == "ran" else ""),)

    def _awards(self, state: State, phase: str) -> Iterator[tuple[str, Segment, KeyPair]]:
        by_wallet = {key.public: key for key in self.operators}
        for name in self.nodes:
            progress = state.get(PROGRESS, (name, 0))
            if progress is not None and progress.phase == phase:
                for segment in SEGMENTS:
                    yield name, segment, by_wallet[sub_slices(state, (name, 0))[segment].party]

    @property
    def _reserve_price(self) -> int:
        return self.day.scenario.slices.reserve * len(self.day.calendar)

    @property
    def _steps(self) -> tuple[PenaltyStep, ...]:
        most = round(self.day.scenario.slices.penalty * 1_000_000)
        return tuple(PenaltyStep(shortfall, most * percent // 100) for shortfall, percent in PENALTY_STEPS)

    def _request(self, name: str, begins: int) -> Request:
        kind, nodes = KINDS[name], self.nodes[name]
        wanted = tuple(NodeSlice(node, kind) for node in nodes)
        return Request(
            sst=2 if kind == "urllc" else 3,
            sd=0xFFFFFF,
            profile=ServiceProfile(
                latency=LATENCY_US[kind], uLThptPerUEGua=NODE_KBPS[kind], maxNumberofUEs=len(nodes), isolation="logical"
            ),
            segments=tuple(
                Requirement(segment, (Amount(RESOURCE[segment], self._amount(name, segment)),), wanted)
                if segment == "ran"
                else Requirement(segment, (Amount(RESOURCE[segment], self._amount(name, segment)),))
                for segment in SEGMENTS
            ),
            start=self.day.calendar.starts_ms[0],
            end=self.day.calendar.end_ms,
            max_delay_us=LATENCY_US[kind],
            min_bandwidth_kbps=len(nodes) * NODE_KBPS[kind],
            max_risk_nano=len(SEGMENTS) * RISK_NANO,
            reserve=self._reserve_price,
            schedule=Schedule(
                offers_until=begins + OFFERS_MS,
                confirm_ms=30 * MINUTE_MS,
                deploy_ms=30 * MINUTE_MS,
                report_ms=20 * MINUTE_MS,
                dispute_ms=60 * MINUTE_MS,
                interval_ms=INTERVAL_MS,
            ),
            terms=Terms(steps=self._steps, availability_ppm=990_000, loss_ppm=10_000, breach_after=3),
        )

    def _amount(self, name: str, segment: Segment) -> int:
        kind, nodes = KINDS[name], self.nodes[name]
        if segment == "ran":
            return sum(len(grant.resource_blocks) for grant in self.day.allocation.grants if grant.slice == kind)
        if segment == "transport":
            return math.ceil(1.25 * len(nodes) * NODE_KBPS[kind])
        return len(nodes)

    def _report(self, state: State, key: tuple[str, int], interval: int) -> Iterator[Signed]:
        """Both sides measured the same packets and sign the same indicators."""
        bundles: dict[bytes, list[IntervalReport]] = {}
        for segment, sub in sub_slices(state, key).items():
            place: Segment = segment  # type: ignore[assignment]
            if state.get(VERDICTS, (*key, segment, interval)) is not None:
                continue
            measured = self._measure(key, place, sub, interval)
            leaves = [sample_leaf(*key, segment, interval, n, raw) for n, raw in enumerate(measured.samples)]
            report = IntervalReport(place, interval, measured.kpis, sample_root(leaves), len(leaves))
            bundles.setdefault(sub.party, []).append(report)
            bundles.setdefault(self.cast.utility.public, []).append(report)
        signers = {one.public: one for one in (*self.operators, self.cast.utility)}
        for wallet, reports in bundles.items():
            yield signers[wallet], (ReportIntervals(*key, tuple(reports)),)

    def _measure(self, key: tuple[str, int], segment: Segment, sub: SubSlice, interval: int) -> Measurement:
        kind, nodes = KINDS[key[0]], self.nodes[key[0]]
        start = self.day.calendar.starts_ms[interval]
        links = self.day.links[interval]
        alive = set(links.observed if kind == "mmtc" else links.controlled)
        lost = 1.0 - sum(node in alive for node in nodes) / len(nodes)
        faults = (
            (Fault(segment="ran", start_ms=start, end_ms=start + INTERVAL_MS, factor=1.0, lost_share=lost),)
            if lost > 0.0
            else ()
        )
        rate = sum(grant.rate_bps for grant in self.day.allocation.grants if grant.slice == kind)
        order = SubSliceOrder(
            name=sub_slice_name(key, segment),
            segment=segment,
            bandwidth_kbps=sub.bandwidth_kbps,
            delay_us=sub.delay_us,
            isolation="logical",
            capacity_kbps=rate // 1_000 if segment == "ran" else None,
        )
        driver = SimulatedOrchestrator(seed=self.day.scenario.seed, faults=faults)
        driver.reserve(order)
        driver.instantiate(order.name)
        return driver.metrics(order.name, start, start + INTERVAL_MS, len(nodes) * NODE_KBPS[kind])


def _pool(number: int, segment: str) -> str:
    return f"operator-{number}-{segment}"
