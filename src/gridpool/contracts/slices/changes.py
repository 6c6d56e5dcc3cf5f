"""What may change while a slice is served: early end for breach or by notice, extension, and resale."""

from typing import Annotated

from msgspec import Meta
from msgspec.structs import replace

from gridpool.contracts import coins, members
from gridpool.contracts.members import Role
from gridpool.contracts.slices.awards import sub_slice_name
from gridpool.contracts.slices.contract import Name, slices
from gridpool.contracts.slices.offers import OFFERS, set_status
from gridpool.contracts.slices.orders import (
    LARGEST,
    MOST_INTERVALS,
    ORDERS,
    PROGRESS,
    SLICES,
    SUBSLICES,
    Order,
    Progress,
    SliceRecord,
    Span,
    mine,
    note,
    pay,
    put_in,
    sub_slices,
    update,
)
from gridpool.contracts.slices.pools import PROMISES, fits, promise, shorten_promise
from gridpool.contracts.slices.supervision import EndService
from gridpool.ledger.contract import Context, Refused
from gridpool.ledger.types import Call, Coins, Due, Event, Millis, Natural, Value, Wallet

__all__ = [
    "EXTENSIONS",
    "HOLDERS",
    "RESALES",
    "AcceptExtension",
    "BuySlice",
    "EndForBreach",
    "ExtendSlice",
    "Extension",
    "LapseExtension",
    "ReleaseSlice",
    "Resale",
    "SellSlice",
    "SliceSold",
]

MILLION = 1_000_000


class EndForBreach(Call, tag="slices.end_for_breach"):
    """End a slice with the current interval after repeated violations (its tenant); the breaker's deposit is forfeit.

    The tenant may then order the same name again: the next generation is arbitrated afresh.
    """

    slice: Name


class ReleaseSlice(Call, tag="slices.release_slice"):
    """End a slice early, after the notice of its terms (its tenant); intervals not served are not paid."""

    slice: Name


class ExtendSlice(Call, tag="slices.extend_slice"):
    """Ask for a later end at the same prices (its tenant); holds when every party agrees in time."""

    slice: Name
    end: Millis


class AcceptExtension(Call, tag="slices.accept_extension"):
    """Agree to an extension (a party, for all its segments)."""

    slice: Name


class SellSlice(Call, tag="slices.sell_slice"):
    """Offer a slice, or a part of it, to another tenant for a price, where the terms allow."""

    slice: Name
    to: Wallet
    price: Annotated[int, Meta(ge=0, le=LARGEST)]
    share_ppm: Annotated[int, Meta(ge=1, le=MILLION)] = MILLION


class BuySlice(Call, tag="slices.buy_slice"):
    """Take a slice that was offered to the sender, and pay for it."""

    slice: Name


class LapseExtension(Due, tag="slices.lapse_extension"):
    """The time to agree to an extension is over."""

    slice: Name
    generation: Natural
    end: Millis


class Extension(Value):
    """An extension that waits for the parties."""

    end: Millis
    until: Millis
    price: Coins
    agreed: Annotated[tuple[Wallet, ...], Meta(max_length=5)] = ()


class Resale(Value):
    """An offer to another tenant."""

    to: Wallet
    price: Coins
    share_ppm: Natural


class Holder(Value):
    """The part of a slice that another tenant uses."""

    share_ppm: Natural


@slices.event
class SliceSold(Event, tag="slices.sold"):
    """A slice, or a part of it, changed hands."""

    slice: Name
    generation: Natural
    buyer: Wallet
    share_ppm: Natural
    price: Coins


EXTENSIONS = slices.table("extension", key=(str, int), value=Extension)
RESALES = slices.table("resale", key=(str, int), value=Resale)
HOLDERS = slices.table("holder", key=(str, int, bytes), value=Holder)
"""(slice, generation, wallet) -> its part."""


@slices.call(EndForBreach)
def end_for_breach(ctx: Context, call: EndForBreach) -> None:
    """End after the current interval and forfeit the deposits of those in breach."""
    key, progress, order = _served(ctx, call.slice)
    breakers = [s for s, sub in sub_slices(ctx, key).items() if sub.breaches >= sub.terms.breach_after]
    if not breakers:
        raise Refused("no_breach", "not enough violated intervals in a row")
    standing = 0
    for segment in breakers:
        name = ctx.require(SUBSLICES, (*key, segment), "unknown_segment").offer
        if ctx.require(OFFERS, (*key, segment, name), "unknown_offer").status == "awarded":
            set_status(ctx, key, segment, name, "forfeited")
            standing += 1
    if not standing:
        raise Refused("already_ended", "the deposits are forfeit and service ends with its present interval")
    _end_at(ctx, key, progress, order, ctx.now)


@slices.call(ReleaseSlice)
def release_slice(ctx: Context, call: ReleaseSlice) -> None:
    """End after the longest notice of the sub-slices' terms."""
    key, progress, order = _served(ctx, call.slice)
    notice = max(sub.terms.notice_ms for sub in sub_slices(ctx, key).values())
    _end_at(ctx, key, progress, order, ctx.now + notice)


@slices.call(ExtendSlice)
def extend_slice(ctx: Context, call: ExtendSlice) -> None:
    """Put the price of more intervals into escrow and ask the parties."""
    key, progress, order = _served(ctx, call.slice)
    request = order.request
    if ctx.get(EXTENSIONS, key) is not None:
        raise Refused("already_asked")
    if call.end <= progress.until or (call.end - request.start) % request.schedule.interval_ms:
        raise Refused("bad_window", "the end lies whole intervals after the present one")
    if (call.end - request.start) // request.schedule.interval_ms > MOST_INTERVALS:
        raise Refused("too_many_intervals", f"at most {MOST_INTERVALS}")
    price = sum(_more(order, progress, span, call.end) for span in _last_spans(ctx, key))
    put_in(ctx, key, ctx.sender, price)
    until = min(ctx.now + request.schedule.confirm_ms, progress.until)
    ctx.put(EXTENSIONS, key, Extension(call.end, until, price))
    ctx.schedule(until, LapseExtension(*key, call.end))
    note(ctx, key, ctx.sender, "extension asked", "", price)


@slices.call(AcceptExtension)
def accept_extension(ctx: Context, call: AcceptExtension) -> None:
    """Note a party's agreement; with the last one the extension holds."""
    record = ctx.require(SLICES, call.slice, "unknown_slice")
    key = (call.slice, record.generation)
    asked = ctx.require(EXTENSIONS, key, "no_extension")
    progress = ctx.require(PROGRESS, key, "no_order")
    order = ctx.require(ORDERS, key, "no_order")
    subs = sub_slices(ctx, key)
    if ctx.sender not in {sub.party for sub in subs.values()} or ctx.sender in asked.agreed:
        raise Refused("not_asked")
    if ctx.now >= asked.until or progress.phase != "active":
        raise Refused("too_late")
    for requirement in order.request.segments:
        sub = subs[requirement.segment]
        if sub.party == ctx.sender and not fits(ctx, sub.pool, requirement.amounts, progress.until, asked.end):
            raise Refused("capacity_not_free", f"pool {sub.pool}")
    agreed = (*asked.agreed, ctx.sender)
    if {sub.party for sub in subs.values()} - set(agreed):
        ctx.put(EXTENSIONS, key, replace(asked, agreed=agreed))
        return
    for requirement in order.request.segments:
        sub = subs[requirement.segment]
        name = sub_slice_name(key, requirement.segment)
        held = ctx.require(PROMISES, (sub.pool, progress.until, name), "unknown_promise")
        promise(ctx, sub.pool, name, requirement.amounts, progress.until, asked.end)
        ctx.delete(PROMISES, (sub.pool, progress.until, name))
        ctx.put(PROMISES, (sub.pool, asked.end, name), replace(held, end=asked.end))
        last = sub.spans[-1]
        first = (progress.until - order.request.start) // order.request.schedule.interval_ms
        count = (asked.end - order.request.start) // order.request.schedule.interval_ms
        longer = Span(first, count, _more(order, progress, last, asked.end))
        ctx.put(SUBSLICES, (*key, requirement.segment), replace(sub, spans=(*sub.spans, longer)))
    ctx.unschedule(asked.until, LapseExtension(*key, asked.end))
    ctx.delete(EXTENSIONS, key)
    ctx.unschedule(progress.until, EndService(*key))
    update(ctx, key, until=asked.end)
    ctx.schedule(asked.end, EndService(*key))


@slices.due(LapseExtension)
def lapse_extension(ctx: Context, due: LapseExtension) -> None:
    """Return the price of an extension that not every party agreed to."""
    _drop_extension(ctx, (due.slice, due.generation), due.end)


@slices.call(SellSlice)
def sell_slice(ctx: Context, call: SellSlice) -> None:
    """Offer the slice; a later offer replaces an earlier one."""
    key, _, order = _served(ctx, call.slice)
    if not order.request.terms.resale:
        raise Refused("not_for_resale", "the terms do not allow it")
    if not members.has_role(ctx, call.to, Role.TENANT, Role.UTILITY) or call.to == ctx.sender:
        raise Refused("no_such_tenant")
    if call.share_ppm > MILLION - _held(ctx, key) and call.share_ppm < MILLION:
        raise Refused("more_than_is_left", f"{MILLION - _held(ctx, key)} ppm")
    ctx.put(RESALES, key, Resale(call.to, call.price, call.share_ppm))


@slices.call(BuySlice)
def buy_slice(ctx: Context, call: BuySlice) -> None:
    """Pay the seller; a whole slice goes over with its escrow, a part is noted."""
    members.require(ctx, Role.TENANT, Role.UTILITY)
    record = ctx.require(SLICES, call.slice, "unknown_slice")
    key = (call.slice, record.generation)
    offered = ctx.require(RESALES, key, "not_for_sale")
    progress = ctx.require(PROGRESS, key, "no_order")
    if offered.to != ctx.sender:
        raise Refused("not_for_sale", "offered to another")
    if progress.phase != "active" or ctx.now >= progress.until:
        raise Refused("wrong_phase", f"slice {call.slice} is {progress.phase}")
    asked = ctx.get(EXTENSIONS, key)
    if asked is not None:
        _drop_extension(ctx, key, asked.end)
    coins.move(ctx, ctx.sender, progress.tenant, offered.price)
    note(ctx, key, progress.tenant, "sold", "", offered.price)
    note(ctx, key, ctx.sender, "bought", "", offered.price)
    ctx.delete(RESALES, key)
    if offered.share_ppm == MILLION:
        ctx.put(SLICES, call.slice, SliceRecord(ctx.sender, record.generation))
        update(ctx, key, tenant=ctx.sender)
    else:
        if offered.share_ppm > MILLION - _held(ctx, key):
            raise Refused("more_than_is_left")
        before = ctx.get(HOLDERS, (*key, ctx.sender)) or Holder(0)
        ctx.put(HOLDERS, (*key, ctx.sender), Holder(before.share_ppm + offered.share_ppm))
    ctx.emit(SliceSold(*key, ctx.sender, offered.share_ppm, offered.price))


def _served(ctx: Context, name: str) -> tuple[tuple[str, int], Progress, Order]:
    key, progress = mine(ctx, name)
    if progress.phase != "active" or ctx.now >= progress.until:
        raise Refused("wrong_phase", f"slice {name} is {progress.phase}")
    return key, progress, ctx.require(ORDERS, key, "no_order")


def _end_at(ctx: Context, key: tuple[str, int], progress: Progress, order: Order, time: int) -> None:
    """End service with the interval that holds ``time``; pools are free again from there on."""
    asked = ctx.get(EXTENSIONS, key)
    if asked is not None:
        _drop_extension(ctx, key, asked.end)
    interval_ms = order.request.schedule.interval_ms
    after = max(time - order.request.start, progress.active_from * interval_ms)
    until = order.request.start + -(-after // interval_ms) * interval_ms
    if until >= progress.until:
        return
    ctx.unschedule(progress.until, EndService(*key))
    for segment, sub in sub_slices(ctx, key).items():
        shorten_promise(ctx, sub.pool, sub_slice_name(key, segment), progress.until, until)
    update(ctx, key, until=until)
    ctx.schedule(until, EndService(*key))
    note(ctx, key, progress.tenant, "ended early", "", 0)


def _last_spans(ctx: Context, key: tuple[str, int]) -> list[Span]:
    return [sub.spans[-1] for sub in sub_slices(ctx, key).values()]


def _more(order: Order, progress: Progress, span: Span, end: int) -> int:
    """Return the price of the intervals up to ``end`` at the rate of ``span``, rounded down."""
    count = (end - progress.until) // order.request.schedule.interval_ms
    return span.payment * count // (span.last - span.first)


def _drop_extension(ctx: Context, key: tuple[str, int], end: int) -> None:
    asked = ctx.get(EXTENSIONS, key)
    if asked is None or asked.end != end:
        return
    ctx.delete(EXTENSIONS, key)
    ctx.unschedule(asked.until, LapseExtension(*key, end))
    tenant = ctx.require(PROGRESS, key, "no_order").tenant
    pay(ctx, key, tenant, asked.price, "refunded")
    note(ctx, key, tenant, "extension lapsed", "", asked.price)


def _held(ctx: Context, key: tuple[str, int]) -> int:
    return sum(holder.share_ppm for _, holder in ctx.scan(HOLDERS, key))
