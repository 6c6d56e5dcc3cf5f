"""The day's slices on the ledger: ordered, offered, chosen, deployed, measured each quarter hour, judged and paid.

The utility orders an mMTC and a URLLC slice for the nodes that the planner serves; three operators offer; the contract
chooses; a simulated orchestrator carries the traffic; a failed sector becomes violated intervals and penalties. Every
step follows from the day and the ledger's state, so that an interrupted day goes on as it would have.
"""

import hashlib
import math
from collections.abc import Iterator
from typing import NamedTuple, Union

import msgspec

from gridpool.agents.resource_orchestrator import Fault, Measurement, SimulatedOrchestrator, SubSliceOrder
from gridpool.contracts import members
from gridpool.contracts.members import Role
from gridpool.contracts.slices.assignments import SliceKind
from gridpool.contracts.slices.awards import Awarded, sub_slice_name
from gridpool.contracts.slices.changes import EndForBreach
from gridpool.contracts.slices.deployment import ConfirmDeployment, ConfirmReservation, Deployed
from gridpool.contracts.slices.offers import OFFERS, OfferFigures, OfferMade, PlaceOffer
from gridpool.contracts.slices.orders import (
    LINES,
    ORDERS,
    PROGRESS,
    NodeSlice,
    OrderSlice,
    Request,
    Requirement,
    Schedule,
    SliceMoved,
    SubSlice,
    interval_count,
    sub_slices,
)
from gridpool.contracts.slices.pools import Amount, RegisterPool, Resource, Segment
from gridpool.contracts.slices.samples import sample_leaf, sample_root
from gridpool.contracts.slices.supervision import (
    VERDICTS,
    IntervalReport,
    ReportIntervals,
    VerdictGiven,
    interval_end,
)
from gridpool.contracts.slices.templates import ServiceProfile
from gridpool.contracts.slices.terms import Terms
from gridpool.day.calendar import INTERVAL_MS
from gridpool.day.cast import Cast
from gridpool.day.opening import ASSIGNMENT, OPENS_BEFORE_MS, Signed
from gridpool.day.physics import PhysicalDay
from gridpool.ledger.chain import View
from gridpool.ledger.clock import AdvanceClock
from gridpool.ledger.keys import KeyPair
from gridpool.ledger.state import State
from gridpool.ledger.types import Call, Event

__all__ = ["OPENING_BLOCKS", "SliceMarket"]

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
RIVALS = ("Second operator", "Third operator")
PRICES: tuple[dict[Segment, int], ...] = (
    {"ran": 20_000, "transport": 6_000, "core": 4_500},
    {"ran": 26_000, "transport": 5_000, "core": 5_000},
    {"ran": 30_000, "transport": 7_000, "core": 4_000},
)
"""Micro-coins that each operator asks for a segment and quarter hour."""
DELAY_SHARE: dict[Segment, int] = {"ran": 60, "transport": 20, "core": 15}
"""Percent of the latency that an operator promises for a segment."""
BACKHAUL_KBPS = 100_000
"""What transport and core offer: far above what a feeder's nodes send."""
RISK_NANO = 300_000


class _Step(NamedTuple):
    """An event of a slice and where it stands: its transaction, or the block whose due work it was."""

    event: Event
    where: str


class SliceMarket:
    """The members' part in the day's slices."""

    def __init__(self, day: PhysicalDay, cast: Cast) -> None:
        self.day = day
        self.cast = cast
        self.rivals = tuple(KeyPair(cast.secret("operator", name)) for name in RIVALS)
        self.nodes: dict[str, tuple[str, ...]] = {}
        for name, kind in KINDS.items():
            nodes = tuple(grant.node for grant in day.allocation.grants if grant.slice == kind)
            if nodes:
                self.nodes[name] = nodes

    @property
    def organisations(self) -> tuple[members.NewMember, ...]:
        """The operators that compete with the day's own, to be admitted with it."""
        return tuple(
            members.NewMember(key.public, name, (Role.OPERATOR,), public_wallets=(key.public,))
            for key, name in zip(self.rivals, RIVALS, strict=True)
        )

    @property
    def roles(self) -> dict[bytes, str]:
        """Wallet -> the role that the report gives it."""
        return {key.public: "operator" for key in self.rivals}

    def opening(self, number: int, state: State) -> list[Signed]:
        """Return block ``number`` of ``OPENING_BLOCKS``, after the assignment has been recorded."""
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
            breached = any(sub.breaches >= sub.terms.breach_after for sub in sub_slices(state, key).values())
            if breached and progress.phase == "active" and self.worth_it(state, key, now):
                signed.append((self.cast.utility, (EndForBreach(name),)))
            for interval in range(interval_count(order.request)):
                end = interval_end(order, interval)
                if end <= now < end + order.request.schedule.report_ms and end <= progress.until:
                    signed += self._report(state, key, interval)
        return signed

    def worth_it(self, state: State, key: tuple[str, int], now: int) -> bool:
        """Say whether another operator would cost less for the rest of the day than another hour of failure refunds.

        While a sector is down the tenant pays nothing for it, so leaving pays only where the dearer network would
        cost less than what the tenant has already got back.
        """
        order = state.get(ORDERS, key)
        if order is None:
            return False
        left = max(0, (order.request.end - now) // INTERVAL_MS)
        sub = sub_slices(state, key)["ran"]
        others = [
            offer.figures.cost - sub.cost
            for (_, _, _, _), offer in state.scan(OFFERS, (*key, "ran"))
            if offer.party != sub.party
        ]
        return bool(others) and min(others) * left // interval_count(order.request) < sub.penalties

    def story(self, view: View) -> tuple[tuple[str, str], ...]:
        """Tell of each slice, each step with its transaction: order, offers, choice, delivery, violations, money."""
        steps = _steps(view)
        return tuple(
            (f"slice {name}", " ".join(self._sentences(view.state, name, steps.get(name, []))))
            for name in self.nodes
            if view.state.get(ORDERS, (name, 0)) is not None
        )

    def _sentences(self, state: State, name: str, steps: list[_Step]) -> Iterator[str]:
        names = {self.cast.operator.public: "the operator"} | {
            key.public: f"the {label.lower()}" for key, label in zip(self.rivals, RIVALS, strict=True)
        }
        key = (name, 0)
        progress = state.get(PROGRESS, key)
        if progress is None:
            return
        yield f"The utility ordered it for {len(self.nodes[name])} nodes ({_where(steps, 'published')})."
        offers = sum(isinstance(step.event, OfferMade) for step in steps)
        yield f"{offers} offers came ({_where(steps, OfferMade)})."
        awards = [step.event for step in steps if isinstance(step.event, Awarded)]
        chosen = ", ".join(f"{one.segment} to {names[one.party]} for {one.payment / 1e6:,.2f}" for one in awards)
        if not awards:
            yield f"None was chosen: the order {progress.phase}."
            return
        yield f"The contract chose {chosen} coins ({_where(steps, Awarded)})."
        yield f"They deployed ({_where(steps, Deployed)})."
        bad = [step for step in steps if isinstance(step.event, VerdictGiven) and step.event.severity]
        judged = sum(isinstance(step.event, VerdictGiven) for step in steps)
        yield f"{judged} quarter hours of its segments were judged, {len(bad)} violated."
        if bad and isinstance(bad[0].event, VerdictGiven) and isinstance(bad[-1].event, VerdictGiven):
            first, last = bad[0].event.interval, bad[-1].event.interval
            local = self.day.calendar.local
            yield (
                f"The first began at {local[first]:%H:%M} ({bad[0].where}), the last at {local[last]:%H:%M} "
                f"({bad[-1].where})."
            )
            yield self._choice(state, key, last)
        money = progress.money
        yield (
            f"{money.paid / 1e6:,.2f} coins were paid, {money.penalties / 1e6:,.2f} came back as penalties, "
            f"{money.left / 1e6:,.2f} are in escrow; it is {progress.phase} ({_where(steps, progress.phase)})."
        )

    def _choice(self, state: State, key: tuple[str, int], last: int) -> str:
        """Tell whether it was worth to arbitrate again, as it stood when the last violated interval was judged."""
        order = state.get(ORDERS, key)
        ended = any(line.kind == "ended early" for _, line in state.scan(LINES, (self.cast.utility.public,)))
        if order is None:
            return ""
        left = interval_count(order.request) - last - 1
        sub = sub_slices(state, key)["ran"]
        others = [o.figures.cost - sub.cost for _, o in state.scan(OFFERS, (*key, "ran")) if o.party != sub.party]
        extra = min(others, default=0) * left // interval_count(order.request)
        verb = "ended the contract" if ended else "stayed"
        return (
            f"The next best radio would cost {extra / 1e6:,.2f} coins more for the {left} quarter hours then left, "
            f"{sub.penalties / 1e6:,.2f} had come back: the utility {verb}."
        )

    @property
    def _operators(self) -> tuple[tuple[KeyPair, dict[Segment, int]], ...]:
        return tuple(zip((self.cast.operator, *self.rivals), PRICES, strict=True))

    def _orders(self, state: State, begins: int) -> Iterator[Signed]:
        for number, (key, _) in enumerate(self._operators):
            pools: list[Call] = []
            for segment in SEGMENTS:
                most = sum(self._amount(name, segment) for name in self.nodes)
                pools.append(RegisterPool(_pool(number, segment), segment, (), (Amount(RESOURCE[segment], most),)))
            yield key, tuple(pools)
        for name in self.nodes:
            yield self.cast.utility, (OrderSlice(name, self._request(name, begins)),)

    def _offers(self, state: State, begins: int) -> Iterator[Signed]:
        for number, (key, prices) in enumerate(self._operators):
            bids: list[Call] = []
            for name, nodes in self.nodes.items():
                kind = KINDS[name]
                for segment in SEGMENTS:
                    figures = OfferFigures(
                        prices[segment] * len(self.day.calendar),
                        LATENCY_US[kind] * DELAY_SHARE[segment] // 100,
                        len(nodes) * NODE_KBPS[kind] if segment == "ran" else BACKHAUL_KBPS,
                        RISK_NANO,
                        _pool(number, segment),
                        self.day.calendar.end_ms,
                    )
                    bids.append(PlaceOffer(name, segment, f"{number}-{segment}", figures))
            yield key, tuple(bids)

    def _close(self, state: State, begins: int) -> Iterator[Signed]:
        yield self.cast.clock, (AdvanceClock(begins + OFFERS_MS),)

    def _reserve(self, state: State, begins: int) -> Iterator[Signed]:
        for name, segment, key in self._awards(state, "awarded"):
            yield key, (ConfirmReservation(name, segment),)

    def _deploy(self, state: State, begins: int) -> Iterator[Signed]:
        for name, segment, key in self._awards(state, "deploying"):
            endpoint = hashlib.sha256(f"simulated/{name}/{segment}".encode()).digest()
            yield key, (ConfirmDeployment(name, segment, endpoint, ASSIGNMENT if segment == "ran" else ""),)

    def _awards(self, state: State, phase: str) -> Iterator[tuple[str, Segment, KeyPair]]:
        by_wallet = {key.public: key for key, _ in self._operators}
        for name in self.nodes:
            progress = state.get(PROGRESS, (name, 0))
            if progress is not None and progress.phase == phase:
                for segment in SEGMENTS:
                    yield name, segment, by_wallet[sub_slices(state, (name, 0))[segment].party]

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
            reserve=2 * sum(PRICES[0].values()) * len(self.day.calendar),
            schedule=Schedule(
                offers_until=begins + OFFERS_MS,
                confirm_ms=30 * MINUTE_MS,
                deploy_ms=30 * MINUTE_MS,
                report_ms=20 * MINUTE_MS,
                dispute_ms=60 * MINUTE_MS,
                interval_ms=INTERVAL_MS,
            ),
            terms=Terms(availability_ppm=990_000, loss_ppm=10_000, breach_after=3),
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
        signers = {key_.public: key_ for key_, _ in self._operators} | {self.cast.utility.public: self.cast.utility}
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


def _steps(view: View) -> dict[str, list[_Step]]:
    """Collect the events of all slices from the receipts, in order."""
    kinds = (SliceMoved, OfferMade, Awarded, Deployed, VerdictGiven)
    decoder = msgspec.msgpack.Decoder(Union[kinds])  # noqa: UP007 (built at run time)
    tags = {kind.__struct_config__.tag for kind in kinds}
    steps: dict[str, list[_Step]] = {}
    for height in range(1, view.height + 1):
        for receipt in view.receipts(height):
            for raw in receipt.events:
                if msgspec.msgpack.decode(raw)[0] in tags:
                    event = decoder.decode(raw)
                    where = f"transaction {receipt.tx.hex()[:12]}" if any(receipt.tx) else f"due in block {height}"
                    steps.setdefault(event.slice, []).append(_Step(event, where))
    return steps


def _where(steps: list[_Step], what: str | type[Event]) -> str:
    """Name where events of a kind, or a phase's beginning, stand; several in order, each once."""
    places = [
        step.where
        for step in steps
        if (isinstance(step.event, SliceMoved) and step.event.phase == what)
        or (isinstance(what, type) and isinstance(step.event, what))
    ]
    return ", ".join(dict.fromkeys(places)) or "not on this ledger"


def _pool(number: int, segment: str) -> str:
    return f"operator-{number}-{segment}"
