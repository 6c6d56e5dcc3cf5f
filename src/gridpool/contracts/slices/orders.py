"""Orders of slices: what is asked for, its sub-slice resource contracts, their state, and the money in escrow."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from gridpool.contracts import coins, members
from gridpool.contracts.members import Role
from gridpool.contracts.slices.assignments import SliceKind
from gridpool.contracts.slices.contract import Name, slices
from gridpool.contracts.slices.pools import Amounts, Segment
from gridpool.contracts.slices.templates import ServiceProfile
from gridpool.contracts.slices.terms import Terms
from gridpool.ledger.contract import Context, Refused
from gridpool.ledger.state import State
from gridpool.ledger.types import Call, Coins, Due, Event, Hash, Millis, Natural, Value, Wallet

__all__ = [
    "FINAL",
    "INVOLVED",
    "LINES",
    "ORDERS",
    "PROGRESS",
    "SLICES",
    "SUBSLICES",
    "CloseOffers",
    "Involved",
    "Line",
    "Money",
    "NodeSlice",
    "Order",
    "OrderSlice",
    "Phase",
    "Progress",
    "Request",
    "Requirement",
    "Schedule",
    "SliceMoved",
    "SliceRecord",
    "Span",
    "SubSlice",
    "enter",
    "escrow_of",
    "interval_count",
    "mine",
    "note",
    "pay",
    "phase_of",
    "put_in",
    "sub_slices",
    "update",
]

Phase = Literal["published", "awarded", "deploying", "active", "ended", "settled", "expired", "cancelled", "failed"]
FINAL: frozenset[str] = frozenset({"settled", "expired", "cancelled", "failed"})
MOST_INTERVALS = 100_000
LARGEST = 10**15
Bounded = Annotated[int, Meta(ge=0, le=LARGEST)]
Span_ms = Annotated[int, Meta(ge=0, le=10**11)]


class NodeSlice(Value):
    """A node that needs resource blocks, and of which kind."""

    node: Name
    slice: SliceKind


class Requirement(Value):
    """What one segment must give: amounts of resources, and for the RAN the nodes to be carried."""

    segment: Segment
    amounts: Amounts
    nodes: Annotated[tuple[NodeSlice, ...], Meta(max_length=2_000)] = ()


class Schedule(Value, kw_only=True):
    """Until when each step may be taken (ms); ``reveal_ms`` > 0 makes the offers sealed.

    Offers until ``offers_until``, revealed within ``reveal_ms``; an outside choice posted within ``post_ms`` and
    challenged within ``challenge_ms``; winners confirm within ``confirm_ms`` and deploy within ``deploy_ms``;
    measurements arrive within ``report_ms`` of an interval's end, disputes last ``dispute_ms``.
    """

    offers_until: Millis
    reveal_ms: Span_ms = 0
    post_ms: Span_ms = 0
    challenge_ms: Span_ms = 0
    confirm_ms: Span_ms = 300_000
    deploy_ms: Span_ms = 600_000
    report_ms: Span_ms = 120_000
    dispute_ms: Span_ms = 600_000
    interval_ms: Annotated[int, Meta(ge=1_000, le=86_400_000)] = 60_000


class Request(Value, kw_only=True):
    """An order: the service profile, what is needed end to end and of each segment, for how much, and by when.

    Delay in us, bandwidth in kbit/s, risk as -ln(availability) in 1e-9: budgets stay end to end, because splitting
    them beforehand throws offers away. ``decision`` says who chooses: the contract, or anybody whose posted choice
    survives its challenges.
    """

    sst: Annotated[int, Meta(ge=0, le=255)]
    sd: Annotated[int, Meta(ge=0, lt=2**24)]
    profile: ServiceProfile
    segments: Annotated[tuple[Requirement, ...], Meta(min_length=1, max_length=5)]
    start: Millis
    end: Millis
    max_delay_us: Bounded
    min_bandwidth_kbps: Bounded
    max_risk_nano: Bounded
    reserve: Bounded
    schedule: Schedule
    budget: Bounded | None = None
    objective: Literal["cost", "delay", "bandwidth", "availability"] = "cost"
    payment: Literal["offer", "vcg"] = "offer"
    fall_back: bool = False
    decision: Literal["contract", "posted"] = "contract"
    deposit: Bounded = 0
    bond: Bounded = 0
    terms: Terms = Terms()

    @property
    def payable(self) -> int:
        """The most that all payments together may reach, which is what the tenant puts in escrow."""
        return self.reserve if self.budget is None else self.budget


class OrderSlice(Call, tag="slices.order_slice"):
    """Order a slice (tenants, utilities): publishes one sub-slice resource contract a segment.

    A name that the tenant's own finished slice bears is ordered again as the next generation.
    """

    slice: Name
    request: Request


class CloseOffers(Due, tag="slices.close_offers"):
    """The time for offers (or for revealing them) is over."""

    slice: Name
    generation: Natural


class Money(Value):
    """What went into a slice's escrow and where it went; what is left is the rest."""

    escrowed: Coins = 0
    paid: Coins = 0
    penalties: Coins = 0
    refunded: Coins = 0

    @property
    def left(self) -> int:
        """Coins still in escrow."""
        return self.escrowed - self.paid - self.penalties - self.refunded


class SliceRecord(Value):
    """The owner and the latest generation of a slice's name."""

    tenant: Wallet
    generation: Natural


class Order(Value):
    """An order as placed; ``tx`` is the transaction that placed it."""

    request: Request
    tx: Hash
    placed: Millis


class Progress(Value, kw_only=True):
    """How far an order has come.

    ``until`` is the end of service (earlier than ordered after a release or a breach, later after an extension),
    ``active_from`` the first interval served, ``decided`` how many (segment, interval) pairs have a verdict.
    """

    tenant: Wallet
    phase: Phase = "published"
    round: Natural = 0
    deadline: Millis = 0
    until: Millis = 0
    active_from: Natural = 0
    decided: Natural = 0
    money: Money = Money()


class Span(Value):
    """A price for the intervals [first, last)."""

    first: Natural
    last: Natural
    payment: Coins


class SubSlice(Value, kw_only=True):
    """A sub-slice resource contract (W's SSRC): who serves it, on which pool, and how well so far."""

    offer: Name = "-"
    party: bytes = b""
    pool: Name = "-"
    cost: Coins = 0
    delay_us: Natural = 0
    bandwidth_kbps: Natural = 0
    spans: Annotated[tuple[Span, ...], Meta(max_length=64)] = ()
    terms: Terms = Terms()
    confirmed: bool = False
    deployed: bool = False
    endpoint: bytes = b""
    assignment: str = ""
    breaches: Natural = 0
    degraded: bool = False
    penalties: Coins = 0

    @property
    def payment(self) -> int:
        """The price of all intervals together."""
        return sum(span.payment for span in self.spans)

    def share(self, interval: int) -> int:
        """Return the price of one interval: spans are paid pro rata, to the unit."""
        for span in self.spans:
            if span.first <= interval < span.last:
                count, place = span.last - span.first, interval - span.first
                return span.payment * (place + 1) // count - span.payment * place // count
        return 0


class Line(Value):
    """A line of a member's statement: what happened, with which slice, for how much, by which transaction."""

    kind: str
    slice: Name
    generation: Natural
    segment: str
    amount: Coins
    tx: Hash


class Involved(Value):
    """A member has to do with an order."""

    since: Millis


@slices.event
class SliceMoved(Event, tag="slices.moved"):
    """An order entered a phase."""

    slice: Name
    generation: Natural
    phase: str
    why: str


SLICES = slices.table("slice", key=str, value=SliceRecord)
ORDERS = slices.table("order", key=(str, int), value=Order)
"""(slice, generation) -> the order."""
PROGRESS = slices.table("progress", key=(str, int), value=Progress)
SUBSLICES = slices.table("sub_slice", key=(str, int, str), value=SubSlice)
"""(slice, generation, segment) -> its contract."""
LINES = slices.table("line", key=(bytes, int, str), value=Line)
"""(wallet, time, what for) -> statement line."""
INVOLVED = slices.table("involved", key=(bytes, str, int), value=Involved)
"""(wallet, slice, generation) -> since when."""


def interval_count(request: Request) -> int:
    """Return the number of intervals ordered."""
    return (request.end - request.start) // request.schedule.interval_ms


@slices.call(OrderSlice)
def order_slice(ctx: Context, call: OrderSlice) -> None:
    """Publish an order; its budget goes into escrow."""
    members.require(ctx, Role.TENANT, Role.UTILITY)
    request = call.request
    _check_request(ctx, request)
    known = ctx.get(SLICES, call.slice)
    generation = 0
    if known is not None:
        last = ctx.require(PROGRESS, (call.slice, known.generation), "no_order")
        if known.tenant != ctx.sender:
            raise Refused("name_taken", f"slice {call.slice} is another tenant's")
        if last.phase not in FINAL and last.phase != "ended":
            raise Refused("still_running", f"slice {call.slice} is {last.phase}")
        generation = known.generation + 1
    key = (call.slice, generation)
    coins.open_escrow(ctx, escrow_of(key), f"slice {call.slice} {generation}")
    ctx.put(SLICES, call.slice, SliceRecord(ctx.sender, generation))
    ctx.put(ORDERS, key, Order(request, ctx.tx_id, ctx.now))
    closing = request.schedule.offers_until + request.schedule.reveal_ms
    ctx.put(PROGRESS, key, Progress(tenant=ctx.sender, deadline=closing, until=request.end))
    for requirement in request.segments:
        ctx.put(SUBSLICES, (*key, requirement.segment), SubSlice(terms=request.terms))
    put_in(ctx, key, ctx.sender, request.payable)
    ctx.schedule(closing, CloseOffers(*key))
    note(ctx, key, ctx.sender, "ordered", "", request.payable)
    ctx.emit(SliceMoved(call.slice, generation, "published", ""))


def mine(ctx: Context, name: str) -> tuple[tuple[str, int], Progress]:
    """Return key and progress of the sender's slice, latest generation; refuse to others."""
    record = ctx.require(SLICES, name, "unknown_slice")
    key = (name, record.generation)
    progress = ctx.require(PROGRESS, key, "no_order")
    if progress.tenant != ctx.sender:
        raise Refused("not_the_tenant")
    return key, progress


def update(ctx: Context, key: tuple[str, int], **changes: object) -> Progress:
    """Store a changed progress and return it."""
    progress = msgspec.structs.replace(ctx.require(PROGRESS, key, "no_order"), **changes)
    ctx.put(PROGRESS, key, progress)
    return progress


def enter(ctx: Context, key: tuple[str, int], phase: Phase, why: str) -> None:
    """Move an order into a phase; a final one returns what is left in escrow to the tenant and closes it."""
    if phase in FINAL:
        progress = ctx.require(PROGRESS, key, "no_order")
        pay(ctx, key, progress.tenant, progress.money.left, "refunded")
        coins.close_escrow(ctx, escrow_of(key))
    update(ctx, key, phase=phase)
    ctx.emit(SliceMoved(*key, phase, why))


def escrow_of(key: tuple[str, int]) -> bytes:
    """Name the escrow of an order."""
    return coins.escrow_key("slices", *key)


def put_in(ctx: Context, key: tuple[str, int], source: bytes, amount: int) -> None:
    """Move a wallet's free coins into an order's escrow; refused with ``not_enough_coins``."""
    coins.fund_escrow(ctx, source, escrow_of(key), amount)
    money = ctx.require(PROGRESS, key, "no_order").money
    update(ctx, key, money=msgspec.structs.replace(money, escrowed=money.escrowed + amount))


def pay(
    ctx: Context,
    key: tuple[str, int],
    target: bytes,
    amount: int,
    kind: Literal["paid", "penalties", "refunded"],
) -> None:
    """Pay out of an order's escrow: to a party for service, to whom a penalty is due, or back to who put it in."""
    if amount == 0:
        return
    coins.pay_from_escrow(ctx, escrow_of(key), target, amount, income=kind == "paid")
    money = ctx.require(PROGRESS, key, "no_order").money
    update(ctx, key, money=msgspec.structs.replace(money, **{kind: getattr(money, kind) + amount}))


def note(ctx: Context, key: tuple[str, int], wallet: bytes, kind: str, segment: str, amount: int) -> None:
    """Write a line on a member's statement; work that falls due stands under the order's transaction."""
    tx = ctx.tx_id if any(ctx.tx_id) else ctx.require(ORDERS, key, "no_order").tx
    what = f"{key[0]}/{key[1]}/{segment}/{kind}"
    old = ctx.get(LINES, (wallet, ctx.now, what))
    ctx.put(LINES, (wallet, ctx.now, what), Line(kind, *key, segment, amount + (old.amount if old else 0), tx))
    if ctx.get(INVOLVED, (wallet, *key)) is None:
        ctx.put(INVOLVED, (wallet, *key), Involved(ctx.now))


def sub_slices(state: State, key: tuple[str, int]) -> dict[str, SubSlice]:
    """Return the sub-slice contracts of an order by segment, in the order's own order."""
    order = state.get(ORDERS, key)
    found: dict[str, SubSlice] = {}
    for requirement in () if order is None else order.request.segments:
        sub = state.get(SUBSLICES, (*key, requirement.segment))
        if sub is not None:
            found[requirement.segment] = sub
    return found


def phase_of(progress: Progress, sub: SubSlice) -> str:
    """Return the state of a sub-slice contract: its order's phase, or ``degraded`` while active and violated."""
    return "degraded" if progress.phase == "active" and sub.degraded else progress.phase


def _check_request(ctx: Context, request: Request) -> None:
    schedule = request.schedule
    names = [requirement.segment for requirement in request.segments]
    if len(set(names)) != len(names):
        raise Refused("segment_twice")
    if request.start >= request.end or (request.end - request.start) % schedule.interval_ms:
        raise Refused("bad_window", "the end lies whole intervals after the start")
    if interval_count(request) > MOST_INTERVALS:
        raise Refused("too_many_intervals", f"at most {MOST_INTERVALS}")
    if not ctx.now < schedule.offers_until <= request.start:
        raise Refused("bad_deadline", "offers close after now and not after the start")
    if schedule.report_ms == 0 or schedule.confirm_ms == 0 or schedule.deploy_ms == 0:
        raise Refused("bad_deadline", "confirming, deploying and reporting take time")
    if request.payment == "vcg" and request.objective != "cost":
        raise Refused("vcg_needs_cost", "vcg exists for objective cost only")
    if request.decision == "posted":
        if request.payment != "offer":
            raise Refused("posted_pays_offers", "a posted choice cannot prove vcg payments")
        if schedule.post_ms == 0 or schedule.challenge_ms == 0 or request.bond == 0:
            raise Refused("posted_needs_time_and_bond")
    if request.profile.latency is not None and request.max_delay_us > request.profile.latency:
        raise Refused("laxer_than_profile", "max_delay_us is above the profile's latency")
    thresholds = [step.shortfall_ppm for step in request.terms.steps]
    if thresholds != sorted(set(thresholds)):
        raise Refused("steps_not_ascending")
