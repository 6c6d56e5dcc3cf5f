"""The choice of offers: by the contract, or posted from outside and open to challenge; and the next best after it."""

from typing import Annotated

from msgspec import Meta

from gridpool.contracts import members
from gridpool.contracts.slices.contract import Name, slices
from gridpool.contracts.slices.offers import COMMITS, OFFERS, Offer, forfeit, open_offers, return_deposits, set_status
from gridpool.contracts.slices.orders import (
    ORDERS,
    PROGRESS,
    SLICES,
    SUBSLICES,
    CloseOffers,
    Request,
    Span,
    SubSlice,
    enter,
    interval_count,
    note,
    pay,
    put_in,
    update,
)
from gridpool.contracts.slices.pools import fits, promise, shorten_promise
from gridpool.ledger.contract import Context, Refused
from gridpool.ledger.state import State
from gridpool.ledger.types import Call, Due, Event, Natural, Value, Wallet
from gridpool.markets.slice_arbitration import (
    Arbitration,
    OfferBook,
    SegmentOffer,
    SliceRequest,
    arbitrate,
    choice_key,
    feasible_choice,
)

__all__ = [
    "POSTED",
    "Awarded",
    "ChoicePosted",
    "ConfirmBy",
    "EndPosting",
    "PostChoice",
    "Posted",
    "asked_of",
    "candidates",
    "decide_again",
    "segment_offer",
    "sub_slice_name",
    "undo_awards",
]

MOST_ROUNDS = 4
"""How often the next best choice is taken before an order fails."""


class PostChoice(Call, tag="slices.post_choice"):
    """Post one offer a segment, in the order's own order, with a bond.

    A better feasible choice within the challenge window takes its place and wins its bond.
    """

    slice: Name
    offers: Annotated[tuple[Name, ...], Meta(min_length=1, max_length=5)]


class Posted(Value):
    """The best choice posted so far."""

    by: Wallet
    offers: Annotated[tuple[Name, ...], Meta(min_length=1, max_length=5)]
    bond: Natural


class EndPosting(Due, tag="slices.end_posting"):
    """The time to post a choice, or to challenge the one posted, is over."""

    slice: Name
    generation: Natural


class ConfirmBy(Due, tag="slices.confirm_by"):
    """The winners of a round should have confirmed."""

    slice: Name
    generation: Natural
    round: Natural


@slices.event
class Awarded(Event, tag="slices.awarded"):
    """A segment was awarded to an offer for a price."""

    slice: Name
    generation: Natural
    segment: str
    offer: Name
    party: Wallet
    payment: Natural


@slices.event
class ChoicePosted(Event, tag="slices.choice_posted"):
    """A choice was posted."""

    slice: Name
    generation: Natural
    offers: tuple[Name, ...]


POSTED = slices.table("posted", key=(str, int), value=Posted)


@slices.due(CloseOffers)
def close_offers(ctx: Context, due: CloseOffers) -> None:
    """Forfeit what was not revealed, then decide, or open the time for posting."""
    key = (due.slice, due.generation)
    progress = ctx.require(PROGRESS, key, "no_order")
    request = ctx.require(ORDERS, key, "no_order").request
    if progress.phase != "published":
        return
    for (_, _, segment, name), held in list(ctx.scan(COMMITS, key)):
        ctx.delete(COMMITS, (*key, segment, name))
        forfeit(ctx, key, held.party, held.deposit, segment)
    if request.decision == "posted":
        until = ctx.now + request.schedule.post_ms
        update(ctx, key, deadline=until)
        ctx.schedule(until, EndPosting(*key))
        return
    _decide(ctx, key, request)


@slices.call(PostChoice)
def post_choice(ctx: Context, call: PostChoice) -> None:
    """Take a feasible choice that is better than the one posted before."""
    members.require(ctx)
    record = ctx.require(SLICES, call.slice, "unknown_slice")
    key = (call.slice, record.generation)
    progress = ctx.require(PROGRESS, key, "no_order")
    request = ctx.require(ORDERS, key, "no_order").request
    closed = request.schedule.offers_until + request.schedule.reveal_ms
    if progress.phase != "published" or request.decision != "posted" or not closed <= ctx.now < progress.deadline:
        raise Refused("not_the_posting_window")
    chosen = _named(ctx, key, request, call.offers)
    broken = feasible_choice(asked_of(request), chosen)
    if broken is not None:
        raise Refused("infeasible_choice", broken)
    if sum(offer.cost for offer in chosen) > request.payable:
        raise Refused("over_budget", f"at most {request.payable}")
    before = ctx.get(POSTED, key)
    if before is not None:
        standing = _named(ctx, key, request, before.offers)
        if choice_key(chosen, request.objective) >= choice_key(standing, request.objective):
            raise Refused("no_better", "the choice posted is at least as good")
    put_in(ctx, key, ctx.sender, request.bond)
    if before is not None:
        pay(ctx, key, ctx.sender, before.bond, "penalties")
        note(ctx, key, before.by, "bond lost", "", before.bond)
        note(ctx, key, ctx.sender, "bond won", "", before.bond)
    ctx.put(POSTED, key, Posted(ctx.sender, call.offers, request.bond))
    ctx.unschedule(progress.deadline, EndPosting(*key))
    until = ctx.now + request.schedule.challenge_ms
    update(ctx, key, deadline=until)
    ctx.schedule(until, EndPosting(*key))
    ctx.emit(ChoicePosted(*key, call.offers))


@slices.due(EndPosting)
def end_posting(ctx: Context, due: EndPosting) -> None:
    """Award the choice that stood; where none was posted, or it no longer fits, the order expires."""
    key = (due.slice, due.generation)
    request = ctx.require(ORDERS, key, "no_order").request
    posted = ctx.get(POSTED, key)
    if posted is None:
        _give_up(ctx, key, "expired", "no choice was posted")
        return
    ctx.delete(POSTED, key)
    pay(ctx, key, posted.by, posted.bond, "refunded")
    standing = {(segment, name) for segment, name, _ in candidates(ctx, key, ctx.now)}
    named = list(zip((r.segment for r in request.segments), posted.offers, strict=True))
    if not all(pair in standing for pair in named):
        _give_up(ctx, key, "expired", "a chosen offer's capacity is gone")
        return
    chosen = _named(ctx, key, request, posted.offers)
    payments: dict[str, int] = {}
    for offer in chosen:
        payments[offer.party] = payments.get(offer.party, 0) + offer.cost
    _award(ctx, key, request, chosen, payments)


def candidates(state: State, key: tuple[str, int], now: int) -> list[tuple[str, str, Offer]]:
    """Return (segment, id, offer) of the offers that may be chosen at market time ``now``.

    They stand open and valid, their terms are as ordered or accepted by the tenant, and their pools have the capacity
    free over the whole window: offers may overbook, awards may not.
    """
    request = _request(state, key)
    found: list[tuple[str, str, Offer]] = []
    for requirement in request.segments:
        for name, offer in open_offers(state, key, requirement.segment):
            if not offer.accepted or offer.figures.valid_until < now:
                continue
            ban = state.get(members.BANNED, offer.party)
            if ban is not None and now < ban.until:
                continue
            if fits(state, offer.figures.pool, requirement.amounts, max(request.start, now), request.end):
                found.append((requirement.segment, name, offer))
    return found


def decide_again(ctx: Context, key: tuple[str, int], why: str) -> None:
    """Take the next best choice of the offers left, a bounded number of times."""
    progress = ctx.require(PROGRESS, key, "no_order")
    request = ctx.require(ORDERS, key, "no_order").request
    if progress.round + 1 >= MOST_ROUNDS:
        _give_up(ctx, key, "failed", f"{why}; no choice held in {MOST_ROUNDS} rounds")
        return
    update(ctx, key, round=progress.round + 1)
    _decide(ctx, key, request)


def undo_awards(ctx: Context, key: tuple[str, int]) -> None:
    """Take back what the round's awards promised; offers that were not forfeited stand again."""
    request = ctx.require(ORDERS, key, "no_order").request
    for requirement in request.segments:
        place = (*key, requirement.segment)
        sub = ctx.require(SUBSLICES, place, "no_sub_slice")
        if sub.party:
            name = sub_slice_name(key, requirement.segment)
            shorten_promise(ctx, sub.pool, name, request.end, 0)
            offer = ctx.require(OFFERS, (*place, sub.offer), "unknown_offer")
            if offer.status == "awarded":
                set_status(ctx, key, requirement.segment, sub.offer, "open")
        ctx.put(SUBSLICES, place, SubSlice(terms=request.terms))


def sub_slice_name(key: tuple[str, int], segment: str) -> str:
    """Return the name under which a pool promises capacity to a sub-slice."""
    return f"{key[0]}/{key[1]}/{segment}"


def _decide(ctx: Context, key: tuple[str, int], request: Request) -> None:
    standing = candidates(ctx, key, ctx.now)
    schedule = request.schedule
    if ctx.now + schedule.confirm_ms + schedule.deploy_ms > request.end:
        _give_up(ctx, key, _exit(ctx, key), "no time is left to deploy")
        return
    asked = asked_of(request)
    book = OfferBook(asked.segments, [segment_offer(segment, name, offer) for segment, name, offer in standing])
    answer = arbitrate(asked, book, objective=request.objective, payment=request.payment)
    if answer.feasible and answer.over_budget and request.payment == "vcg" and request.fall_back:
        answer = arbitrate(asked, book, objective=request.objective)
    if not answer.feasible:
        _give_up(ctx, key, _exit(ctx, key), "no feasible choice: " + (", ".join(answer.binding) or _missing(answer)))
    elif answer.over_budget:
        _give_up(ctx, key, _exit(ctx, key), f"payments {sum(answer.payments.values())} exceed {request.payable}")
    else:
        _award(ctx, key, request, answer.chosen, answer.payments)


def _exit(ctx: Context, key: tuple[str, int]) -> str:
    """An order that never had winners expires; one whose winners let it down fails."""
    return "failed" if ctx.require(PROGRESS, key, "no_order").round else "expired"


def _missing(answer: Arbitration) -> str:
    return "no offer for " + ", ".join(answer.missing)


def _award(
    ctx: Context,
    key: tuple[str, int],
    request: Request,
    chosen: tuple[SegmentOffer, ...],
    payments: dict[str, int],
) -> None:
    # A party that wins several segments is paid their costs; what it gets beyond stands with its first one.
    surplus = dict(payments)
    for one in chosen:
        surplus[one.party] -= one.cost
    for requirement, one in zip(request.segments, chosen, strict=True):
        offer = ctx.require(OFFERS, (*key, one.segment, one.id), "unknown_offer")
        start = max(request.start, ctx.now)
        promise(ctx, offer.figures.pool, sub_slice_name(key, one.segment), requirement.amounts, start, request.end)
        set_status(ctx, key, one.segment, one.id, "awarded")
        payment = one.cost + surplus.pop(one.party, 0)
        sub = SubSlice(
            offer=one.id,
            party=offer.party,
            pool=offer.figures.pool,
            cost=one.cost,
            delay_us=one.delay_us,
            bandwidth_kbps=one.bandwidth_kbps,
            spans=(Span(0, interval_count(request), payment),),
            terms=offer.figures.terms or request.terms,
        )
        ctx.put(SUBSLICES, (*key, one.segment), sub)
        note(ctx, key, offer.party, "awarded", one.segment, payment)
        ctx.emit(Awarded(*key, one.segment, one.id, offer.party, payment))
    until = ctx.now + request.schedule.confirm_ms
    progress = update(ctx, key, deadline=until)
    ctx.schedule(until, ConfirmBy(*key, progress.round))
    enter(ctx, key, "awarded", "")


def _give_up(ctx: Context, key: tuple[str, int], phase: str, why: str) -> None:
    return_deposits(ctx, key)
    enter(ctx, key, "expired" if phase == "expired" else "failed", why)


def asked_of(request: Request) -> SliceRequest:
    """Return an order as the arbitration takes it."""
    return SliceRequest(
        segments=tuple(requirement.segment for requirement in request.segments),
        max_delay_us=request.max_delay_us,
        min_bandwidth_kbps=request.min_bandwidth_kbps,
        max_risk_nano=request.max_risk_nano,
        reserve=request.reserve,
        budget=request.budget,
    )


def segment_offer(segment: str, name: str, offer: Offer) -> SegmentOffer:
    """Return an offer as the arbitration takes it."""
    figures = offer.figures
    return SegmentOffer(
        name,
        segment,
        offer.party.hex(),
        figures.cost,
        figures.delay_us,
        figures.bandwidth_kbps,
        figures.risk_nano,
    )


def _named(state: State, key: tuple[str, int], request: Request, names: tuple[str, ...]) -> tuple[SegmentOffer, ...]:
    if len(names) != len(request.segments):
        raise Refused("infeasible_choice", f"{len(request.segments)} segments, {len(names)} offers")
    chosen = []
    for requirement, name in zip(request.segments, names, strict=True):
        offer = state.get(OFFERS, (*key, requirement.segment, name))
        if offer is None or offer.status != "open" or not offer.accepted:
            raise Refused("unknown_offer", f"{requirement.segment} {name}")
        chosen.append(segment_offer(requirement.segment, name, offer))
    return tuple(chosen)


def _request(state: State, key: tuple[str, int]) -> Request:
    order = state.get(ORDERS, key)
    if order is None:
        raise Refused("no_order", key[0])
    return order.request
