"""Bundles: slice, band, energy and computing bought together at one price, all of them or none.

Providers put parts on offer, each backed by what it needs (capacity of a registered pool, an idle band, an amount of
energy) and by a deposit for its penalty. A purchase takes every part in one transaction: capacity is promised, the
band leased, the price set aside; whatever cannot be had refuses the whole, so nobody is ever bound to a half. Later
each part stands for itself: it is paid when it was served, and where it fails the buyer gets the unserved share back
and the part's own penalty from the provider's deposit. The others go on.
"""

from typing import Annotated, Literal

import msgspec

from gridpool.contracts import coins, members
from gridpool.contracts.members import Decision, Role, decision
from gridpool.contracts.settlement import settlement
from gridpool.contracts.slices.pools import POOLS, Amounts, fits, promise, shorten_promise
from gridpool.contracts.spectrum_leases import RequestLease, grant
from gridpool.contracts.spectrum_records import IDLE, LEASES
from gridpool.ledger.contract import Context
from gridpool.ledger.state import State
from gridpool.ledger.types import Call, Coins, Due, Event, Millis, Natural, PartsPerMillion, Text, Value, Wallet

__all__ = [
    "BUNDLES",
    "PARTS",
    "AdmitFailure",
    "Bundle",
    "BundleBought",
    "BuyBundle",
    "DecidePart",
    "DisputePart",
    "OfferPart",
    "Part",
    "PartSettled",
    "WithdrawPart",
    "settlement",
]

MILLION = 1_000_000
MOST_PARTS = 16
PartKind = Literal["slice", "compute", "band", "energy"]
PROVIDERS = (Role.OPERATOR, Role.TENANT, Role.UTILITY, Role.PROSUMER, Role.BACK_STOP)
GRACE_MS = 3_600_000
"""How long after a part's end the buyer may dispute it; silence is consent."""


class Part(Value):
    """A part on offer. ``pool`` and ``amounts`` back a slice or computing, ``lease`` a band, ``quantity_wh`` energy."""

    kind: PartKind
    provider: Wallet
    start: Millis
    end: Millis
    price: Coins
    penalty_ppm: PartsPerMillion
    pool: Text = ""
    amounts: Amounts = ()
    lease: RequestLease | None = None
    quantity_wh: Natural = 0
    standing: Literal["offered", "withdrawn", "sold", "disputed", "settled"] = "offered"
    bundle: Natural = 0
    held: Coins = 0
    """Coins of the price and the deposit that are in the part's escrow."""
    leased: Natural = 0
    """Number of the lease that a sold band became."""
    served_ppm: PartsPerMillion = 0


class Bundle(Value):
    """A purchase: who bought which parts, for how much in all."""

    buyer: Wallet
    parts: tuple[Natural, ...]
    price: Coins
    bought_at: Millis


class OfferPart(Call, tag="settlement.offer_part"):
    """Offer a part; the deposit for its penalty (price times ``penalty_ppm``) is set aside now."""

    kind: PartKind
    start: Millis
    end: Millis
    price: Annotated[int, msgspec.Meta(ge=0, le=10**15)]
    penalty_ppm: Annotated[int, msgspec.Meta(ge=0, le=MILLION)]
    pool: Text = ""
    amounts: Amounts = ()
    lease: RequestLease | None = None
    quantity_wh: Annotated[int, msgspec.Meta(ge=0, le=10**15)] = 0


class WithdrawPart(Call, tag="settlement.withdraw_part"):
    """Take an unsold part back."""

    part: Natural


class BuyBundle(Call, tag="settlement.buy_bundle"):
    """Buy parts together for exactly ``price``: all of them, or none."""

    parts: Annotated[tuple[Natural, ...], msgspec.Meta(min_length=1, max_length=MOST_PARTS)]
    price: Coins


class AdmitFailure(Call, tag="settlement.admit_failure"):
    """Say, as its provider, which share of a sold part was served."""

    part: Natural
    served_ppm: Annotated[int, msgspec.Meta(ge=0, le=MILLION)]


class DisputePart(Call, tag="settlement.dispute_part"):
    """Say, as its buyer, that a part was not served as sold; it then waits for its provider or the council."""

    part: Natural


class DecidePart(Decision, tag="settlement.decide_part"):
    """Decide which share of a disputed part was served."""

    part: Natural
    served_ppm: Annotated[int, msgspec.Meta(ge=0, le=MILLION)]


class PartIsOver(Due, tag="settlement.part_is_over"):
    """The time to dispute a part is over."""

    part: Natural


class DisputeIsOver(Due, tag="settlement.dispute_is_over"):
    """Nobody answered a dispute in time."""

    part: Natural


@settlement.event
class BundleBought(Event, tag="settlement.bundle_bought"):
    """A bundle was bought."""

    bundle: Natural
    parts: tuple[Natural, ...]
    price: Coins


@settlement.event
class PartSettled(Event, tag="settlement.part_settled"):
    """A part was paid: to its provider, back to the buyer, and as penalty to the buyer."""

    part: Natural
    served_ppm: PartsPerMillion
    paid: Coins
    refunded: Coins
    penalty: Coins


class Serial(Value):
    """The last number given out."""

    last: Natural


PARTS = settlement.table("part", key=int, value=Part)
BUNDLES = settlement.table("bundle", key=int, value=Bundle)
SERIALS = settlement.table("serial", key=str, value=Serial)


@settlement.call(OfferPart)
def offer_part(ctx: Context, call: OfferPart) -> None:
    """Put a part on offer; refused where the sender could not provide it."""
    members.require(ctx, *PROVIDERS)
    if not ctx.now <= call.start < call.end:
        ctx.refuse("times")
    if call.kind in ("slice", "compute"):
        pool = ctx.require(POOLS, call.pool, "unknown_pool")
        if pool.operator != ctx.sender or (pool.segment == "compute") != (call.kind == "compute"):
            ctx.refuse("not_your_pool")
        if not call.amounts or call.lease is not None or call.quantity_wh:
            ctx.refuse("a_pool_and_amounts_make_this_part")
    elif call.kind == "band":
        if call.lease is None or call.pool or call.amounts or call.quantity_wh:
            ctx.refuse("a_lease_makes_this_part")
        idle = ctx.require(IDLE, call.lease.idle, "no_such_idle_band")
        if idle.holder != ctx.sender:
            ctx.refuse("not_the_holder")
        if (call.lease.start, call.lease.end) != (call.start, call.end):
            ctx.refuse("times")
    elif not call.quantity_wh or call.pool or call.amounts or call.lease is not None:
        ctx.refuse("a_quantity_makes_this_part")
    number = _next(ctx, "part")
    deposit = call.price * call.penalty_ppm // MILLION
    coins.open_escrow(ctx, _escrow(number), f"bundle part {number}")
    coins.fund_escrow(ctx, ctx.sender, _escrow(number), deposit)
    part = Part(
        call.kind,
        ctx.sender,
        call.start,
        call.end,
        call.price,
        call.penalty_ppm,
        call.pool,
        call.amounts,
        call.lease,
        call.quantity_wh,
        held=deposit,
    )
    ctx.put(PARTS, number, part)


@settlement.call(WithdrawPart)
def withdraw_part(ctx: Context, call: WithdrawPart) -> None:
    """Give the deposit back and take the part off."""
    part = ctx.require(PARTS, call.part, "no_such_part")
    if part.provider != ctx.sender or part.standing != "offered":
        ctx.refuse("not_to_be_withdrawn", part.standing)
    coins.pay_from_escrow(ctx, _escrow(call.part), ctx.sender, part.held, income=False)
    coins.close_escrow(ctx, _escrow(call.part))
    ctx.put(PARTS, call.part, msgspec.structs.replace(part, standing="withdrawn", held=0))


@settlement.call(BuyBundle)
def buy_bundle(ctx: Context, call: BuyBundle) -> None:
    """Take every part, or refuse and leave everything as it was."""
    members.require(ctx, *PROVIDERS)
    if len(set(call.parts)) != len(call.parts):
        ctx.refuse("a_part_twice")
    bundle = _next(ctx, "bundle")
    total = 0
    for number in call.parts:
        part = ctx.require(PARTS, number, "no_such_part")
        if part.standing != "offered":
            ctx.refuse("part_not_on_offer", f"part {number} ({part.kind}) is {part.standing}")
        if part.provider == ctx.sender:
            ctx.refuse("own_part", f"part {number}")
        if ctx.now > part.start:
            ctx.refuse("part_has_begun", f"part {number} ({part.kind})")
        part = _take(ctx, number, part)
        coins.fund_escrow(ctx, ctx.sender, _escrow(number), part.price)
        total += part.price
        sold = msgspec.structs.replace(part, standing="sold", bundle=bundle, held=part.held + part.price)
        ctx.put(PARTS, number, sold)
        ctx.schedule(part.end + GRACE_MS, PartIsOver(number))
    if total != call.price:
        ctx.refuse("price_differs", f"{total}, not {call.price}")
    ctx.put(BUNDLES, bundle, Bundle(ctx.sender, call.parts, total, ctx.now))
    ctx.emit(BundleBought(bundle, call.parts, total))


@settlement.call(AdmitFailure)
def admit_failure(ctx: Context, call: AdmitFailure) -> None:
    """Settle a sold part by its provider's word."""
    part = ctx.require(PARTS, call.part, "no_such_part")
    if part.provider != ctx.sender or part.standing not in ("sold", "disputed"):
        ctx.refuse("not_yours_to_settle")
    if part.standing == "disputed" and call.served_ppm == MILLION:
        ctx.refuse("disputed", "the buyer says otherwise; the council decides")
    _settle(ctx, call.part, part, call.served_ppm)


@settlement.call(DisputePart)
def dispute_part(ctx: Context, call: DisputePart) -> None:
    """Stop the payment of a part until its provider admits a failure or the council decides."""
    part = ctx.require(PARTS, call.part, "no_such_part")
    bundle = ctx.get(BUNDLES, part.bundle)
    if bundle is None or bundle.buyer != ctx.sender or part.standing != "sold" or ctx.now < part.start:
        ctx.refuse("not_to_be_disputed")
    ctx.unschedule(part.end + GRACE_MS, PartIsOver(call.part))
    ctx.put(PARTS, call.part, msgspec.structs.replace(part, standing="disputed"))
    ctx.schedule(max(part.end, ctx.now) + 30 * 24 * GRACE_MS, DisputeIsOver(call.part))


@decision(DecidePart)
def decide_part(ctx: Context, decided: DecidePart) -> None:
    """Settle a disputed part."""
    part = ctx.require(PARTS, decided.part, "no_such_part")
    if part.standing != "disputed":
        ctx.refuse("not_disputed")
    _settle(ctx, decided.part, part, decided.served_ppm)


@settlement.due(PartIsOver)
def part_is_over(ctx: Context, due: PartIsOver) -> None:
    """Pay a part that nobody disputed; a band counts as served for as long as its lease lasted."""
    part = ctx.require(PARTS, due.part, "no_such_part")
    if part.standing == "sold":
        _settle(ctx, due.part, part, _served(ctx, part))


@settlement.due(DisputeIsOver)
def dispute_is_over(ctx: Context, due: DisputeIsOver) -> None:
    """Decide a dispute that nobody answered for the buyer: whoever provides must be able to show it."""
    part = ctx.require(PARTS, due.part, "no_such_part")
    if part.standing == "disputed":
        _settle(ctx, due.part, part, 0)


@settlement.invariant
def parts_hold_price_and_deposit(state: State) -> bool:
    """A part's escrow holds its deposit while on offer, deposit and price while sold, nothing after."""
    for number, part in state.scan(PARTS):
        deposit = part.price * part.penalty_ppm // MILLION
        expected = {"offered": deposit, "sold": deposit + part.price, "disputed": deposit + part.price}
        if part.held != expected.get(part.standing, 0) or coins.escrow_balance(state, _escrow(number)) != part.held:
            return False
    return True


@settlement.invariant
def bundles_are_whole(state: State) -> bool:
    """Every sold part belongs to a bundle that names it, and every part of a bundle was sold to it."""
    named = {(number, part) for number, bundle in state.scan(BUNDLES) for part in bundle.parts}
    bound = {(part.bundle, number) for number, part in state.scan(PARTS) if part.bundle}
    return named == bound


def _take(ctx: Context, number: int, part: Part) -> Part:
    """Bind what a part is made of to the buyer; refused where it cannot be had."""
    if part.kind in ("slice", "compute"):
        if not fits(ctx, part.pool, part.amounts, part.start, part.end):
            ctx.refuse("no_capacity", f"part {number}: pool {part.pool}")
        promise(ctx, part.pool, f"bundle part {number}", part.amounts, part.start, part.end)
    elif part.lease is not None:
        idle = ctx.require(IDLE, part.lease.idle, "no_such_idle_band")
        # The band is paid with the bundle, so the lease itself costs nothing.
        free = msgspec.structs.replace(idle, pricing="fixed", price=0)
        lease = grant(ctx, ctx.sender, part.lease.idle, free, part.lease)
        return msgspec.structs.replace(part, leased=lease)
    return part


def _served(ctx: Context, part: Part) -> int:
    if not part.leased:
        return MILLION
    lease = ctx.require(LEASES, part.leased, "no_such_lease")
    if lease.standing == "terminated":
        return max(0, lease.recalled_at - lease.start) * MILLION // (lease.end - lease.start)
    return MILLION


def _settle(ctx: Context, number: int, part: Part, served_ppm: int) -> None:
    """Divide a part's price by the share served, and its deposit by the share that was not."""
    bundle = ctx.require(BUNDLES, part.bundle, "no_such_bundle")
    escrow = _escrow(number)
    refund = part.price * (MILLION - served_ppm) // MILLION
    deposit = part.held - part.price
    penalty = deposit * (MILLION - served_ppm) // MILLION
    coins.pay_from_escrow(ctx, escrow, bundle.buyer, refund + penalty, income=False)
    coins.pay_from_escrow(ctx, escrow, part.provider, part.price - refund)
    coins.pay_from_escrow(ctx, escrow, part.provider, deposit - penalty, income=False)
    coins.close_escrow(ctx, escrow)
    if ctx.now < part.end and part.pool:
        shorten_promise(ctx, part.pool, f"bundle part {number}", part.end, max(ctx.now, part.start))
    ctx.unschedule(part.end + GRACE_MS, PartIsOver(number))
    ctx.put(PARTS, number, msgspec.structs.replace(part, standing="settled", held=0, served_ppm=served_ppm))
    ctx.emit(PartSettled(number, served_ppm, part.price - refund, refund, penalty))


def _next(ctx: Context, what: str) -> int:
    last = ctx.get(SERIALS, what)
    number = 1 if last is None else last.last + 1
    ctx.put(SERIALS, what, Serial(number))
    return number


def _escrow(number: int) -> bytes:
    return coins.escrow_key("settlement", "part", number)
