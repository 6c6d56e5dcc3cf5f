"""Offers for the segments of an order: open or sealed, with the ordered terms or amended ones, each with a deposit."""

from collections.abc import Iterator
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from gridpool.contracts import members
from gridpool.contracts.members import Role
from gridpool.contracts.slices.contract import Name, slices
from gridpool.contracts.slices.orders import (
    LARGEST,
    ORDERS,
    PROGRESS,
    SLICES,
    CloseOffers,
    Order,
    Progress,
    Request,
    Requirement,
    enter,
    mine,
    note,
    pay,
    put_in,
)
from gridpool.contracts.slices.pools import POOLS, Segment, fits
from gridpool.contracts.slices.terms import Terms
from gridpool.ledger.contract import Context, Refused
from gridpool.ledger.state import State
from gridpool.ledger.types import Call, Event, Hash, Millis, Natural, Value, Wallet, encode

__all__ = [
    "COMMITS",
    "OFFERS",
    "AcceptTerms",
    "CancelOrder",
    "CommitOffer",
    "Offer",
    "OfferFigures",
    "OfferMade",
    "PlaceOffer",
    "RevealOffer",
    "WithdrawOffer",
    "commitment",
    "forfeit",
    "open_offers",
    "return_deposits",
    "set_status",
]

MOST_PER_PARTY = 4
"""Offers of one party for one segment."""
MOST_DECIDED = {1: 32, 2: 32, 3: 32, 4: 10, 5: 6}
"""Number of segments -> offers a segment that the contract itself decides over, so that no set of offers makes the
decision slow; beyond it a better offer displaces the dearest."""
MOST_POSTED = 1_000
"""Offers a segment where the choice is made outside and posted."""
COMMIT_DOMAIN = b"gridpool/slices/offer/1\0"
Bounded = Annotated[int, Meta(ge=0, le=LARGEST)]
Status = Literal["open", "awarded", "returned", "forfeited"]


class OfferFigures(Value):
    """What is offered: coins, us, kbit/s, -ln(availability) in 1e-9, the pool, until when, amended terms."""

    cost: Bounded
    delay_us: Bounded
    bandwidth_kbps: Bounded
    risk_nano: Bounded
    pool: Name
    valid_until: Millis
    terms: Terms | None = None


class PlaceOffer(Call, tag="slices.place_offer"):
    """Offer to serve a segment (operators), openly."""

    slice: Name
    segment: Segment
    offer: Name
    figures: OfferFigures


class CommitOffer(Call, tag="slices.commit_offer"):
    """Offer under seal: only a hash of the figures, and the deposit."""

    slice: Name
    segment: Segment
    offer: Name
    digest: Hash


class RevealOffer(Call, tag="slices.reveal_offer"):
    """Open a sealed offer; who does not loses the deposit."""

    slice: Name
    segment: Segment
    offer: Name
    figures: OfferFigures
    salt: Hash


class WithdrawOffer(Call, tag="slices.withdraw_offer"):
    """Take an offer back before offers close; afterwards it stands."""

    slice: Name
    segment: Segment
    offer: Name


class AcceptTerms(Call, tag="slices.accept_terms"):
    """Agree to an offer's amended terms by its name (the tenant); without this it is never chosen."""

    slice: Name
    segment: Segment
    offer: Name


class CancelOrder(Call, tag="slices.cancel_order"):
    """Take an order back before its offers close (its tenant)."""

    slice: Name


class Offer(Value):
    """A standing offer and what became of its deposit."""

    party: Wallet
    figures: OfferFigures
    deposit: Natural
    accepted: bool
    status: Status = "open"


class Commit(Value):
    """A sealed offer; ``sealed_by`` is the wallet that the digest covers, also after it was replaced."""

    party: Wallet
    digest: Hash
    deposit: Natural
    sealed_by: Wallet


class Count(Value):
    """How many offers."""

    number: Natural


@slices.event
class OfferMade(Event, tag="slices.offer_made"):
    """An offer stands."""

    slice: Name
    generation: Natural
    segment: str
    offer: Name


OFFERS = slices.table("offer", key=(str, int, str, str), value=Offer)
"""(slice, generation, segment, offer) -> the offer."""
COMMITS = slices.table("commit", key=(str, int, str, str), value=Commit)
PLACED = slices.table("offers_placed", key=(str, int, str, bytes), value=Count)
"""(slice, generation, segment, party) -> offers of that party; an empty party counts all."""


def commitment(figures: OfferFigures, salt: bytes, party: bytes) -> bytes:
    """Return the digest under which an offer is sealed; ``salt`` has 32 random bytes."""
    import hashlib

    return hashlib.sha256(COMMIT_DOMAIN + encode((figures, salt, party))).digest()


@slices.call(PlaceOffer)
def place_offer(ctx: Context, call: PlaceOffer) -> None:
    """Store an open offer and take its deposit."""
    key, order, requirement = _bidding(ctx, call.slice, call.segment)
    if order.request.schedule.reveal_ms:
        raise Refused("sealed_market", "commit first, reveal later")
    if ctx.now >= order.request.schedule.offers_until:
        raise Refused("offers_closed")
    _check_figures(ctx, order.request, requirement, call.figures)
    _make_room(ctx, key, order.request, call.segment, call.figures)
    _count(ctx, key, call.segment, call.offer)
    put_in(ctx, key, ctx.sender, order.request.deposit)
    accepted = call.figures.terms is None
    offer = Offer(ctx.sender, call.figures, order.request.deposit, accepted)
    ctx.put(OFFERS, (*key, call.segment, call.offer), offer)
    note(ctx, key, ctx.sender, "deposit", call.segment, order.request.deposit)
    ctx.emit(OfferMade(*key, call.segment, call.offer))


@slices.call(CommitOffer)
def commit_offer(ctx: Context, call: CommitOffer) -> None:
    """Store a sealed offer and take its deposit."""
    key, order, _ = _bidding(ctx, call.slice, call.segment)
    if not order.request.schedule.reveal_ms:
        raise Refused("open_market", "this order takes open offers")
    if ctx.now >= order.request.schedule.offers_until:
        raise Refused("offers_closed")
    _count(ctx, key, call.segment, call.offer)
    limit = MOST_DECIDED[len(order.request.segments)] if order.request.decision == "contract" else MOST_POSTED
    if ctx.require(PLACED, (*key, call.segment, b""), "no_count").number > limit:
        raise Refused("segment_full", f"at most {limit} sealed offers")
    put_in(ctx, key, ctx.sender, order.request.deposit)
    ctx.put(
        COMMITS, (*key, call.segment, call.offer), Commit(ctx.sender, call.digest, order.request.deposit, ctx.sender)
    )
    note(ctx, key, ctx.sender, "deposit", call.segment, order.request.deposit)


@slices.call(RevealOffer)
def reveal_offer(ctx: Context, call: RevealOffer) -> None:
    """Open a sealed offer within the reveal window."""
    key, order, requirement = _bidding(ctx, call.slice, call.segment)
    schedule = order.request.schedule
    if not schedule.offers_until <= ctx.now < schedule.offers_until + schedule.reveal_ms:
        raise Refused("not_the_reveal_window")
    held = ctx.require(COMMITS, (*key, call.segment, call.offer), "unknown_offer")
    if held.party != ctx.sender or held.digest != commitment(call.figures, call.salt, held.sealed_by):
        raise Refused("wrong_opening")
    _check_figures(ctx, order.request, requirement, call.figures)
    ctx.delete(COMMITS, (*key, call.segment, call.offer))
    accepted = call.figures.terms is None
    ctx.put(OFFERS, (*key, call.segment, call.offer), Offer(ctx.sender, call.figures, held.deposit, accepted))
    ctx.emit(OfferMade(*key, call.segment, call.offer))


@slices.call(WithdrawOffer)
def withdraw_offer(ctx: Context, call: WithdrawOffer) -> None:
    """Return an open offer's deposit and drop it."""
    key, order, _ = _bidding(ctx, call.slice, call.segment)
    offer = ctx.require(OFFERS, (*key, call.segment, call.offer), "unknown_offer")
    if offer.party != ctx.sender:
        raise Refused("not_the_party")
    if ctx.now >= order.request.schedule.offers_until:
        raise Refused("offers_closed", "an offer stands once offers are closed")
    _drop(ctx, key, call.segment, call.offer, offer.party)


@slices.call(AcceptTerms)
def accept_terms(ctx: Context, call: AcceptTerms) -> None:
    """Let an offer with amended terms take part."""
    key, progress = mine(ctx, call.slice)
    if progress.phase != "published":
        raise Refused("too_late", f"slice {call.slice} is {progress.phase}")
    offer = ctx.require(OFFERS, (*key, call.segment, call.offer), "unknown_offer")
    if offer.status != "open" or offer.figures.terms is None:
        raise Refused("nothing_to_accept")
    ctx.put(OFFERS, (*key, call.segment, call.offer), msgspec.structs.replace(offer, accepted=True))


@slices.call(CancelOrder)
def cancel_order(ctx: Context, call: CancelOrder) -> None:
    """Take an order back while offers are still open; everything returns to where it came from."""
    key, progress = mine(ctx, call.slice)
    if progress.phase != "published" or ctx.now >= ctx.require(ORDERS, key, "no_order").request.schedule.offers_until:
        raise Refused("too_late", f"slice {call.slice} is {progress.phase} or its offers are closed")
    ctx.unschedule(progress.deadline, CloseOffers(*key))
    return_deposits(ctx, key)
    for (_, _, segment, name), held in list(ctx.scan(COMMITS, key)):
        pay(ctx, key, held.party, held.deposit, "refunded")
        ctx.delete(COMMITS, (*key, segment, name))
    enter(ctx, key, "cancelled", "by its tenant")


def open_offers(state: State, key: tuple[str, int], segment: str) -> Iterator[tuple[str, Offer]]:
    """Yield (id, offer) of a segment's offers that still stand, in the order of their ids."""
    for (_, _, _, name), offer in state.scan(OFFERS, (*key, segment)):
        if offer.status == "open":
            yield name, offer


def set_status(ctx: Context, key: tuple[str, int], segment: str, name: str, status: Status) -> None:
    """Change what an offer is; its deposit returns to the party, or goes to the tenant where it is forfeited."""
    offer = ctx.require(OFFERS, (*key, segment, name), "unknown_offer")
    if offer.status not in ("open", "awarded"):
        raise Refused("deposit_gone", f"offer {name} is {offer.status}")
    if status == "returned":
        pay(ctx, key, offer.party, offer.deposit, "refunded")
        note(ctx, key, offer.party, "deposit returned", segment, offer.deposit)
    elif status == "forfeited":
        forfeit(ctx, key, offer.party, offer.deposit, segment)
    ctx.put(OFFERS, (*key, segment, name), msgspec.structs.replace(offer, status=status))


def forfeit(ctx: Context, key: tuple[str, int], party: bytes, amount: int, segment: str) -> None:
    """Pay a deposit to the tenant as a penalty."""
    tenant = ctx.require(PROGRESS, key, "no_order").tenant
    pay(ctx, key, tenant, amount, "penalties")
    note(ctx, key, party, "deposit forfeited", segment, amount)
    note(ctx, key, tenant, "deposit received", segment, amount)


def return_deposits(ctx: Context, key: tuple[str, int]) -> None:
    """Return the deposits of all offers that still stand open."""
    for requirement in ctx.require(ORDERS, key, "no_order").request.segments:
        for name, _ in list(open_offers(ctx, key, requirement.segment)):
            set_status(ctx, key, requirement.segment, name, "returned")


def _bidding(ctx: Context, name: str, segment: str) -> tuple[tuple[str, int], Order, Requirement]:
    """Return key, order and requirement of a published slice for an operator that is not its tenant."""
    party = members.require(ctx, Role.OPERATOR)
    record = ctx.require(SLICES, name, "unknown_slice")
    key = (name, record.generation)
    progress: Progress = ctx.require(PROGRESS, key, "no_order")
    if progress.phase != "published":
        raise Refused("offers_closed", f"slice {name} is {progress.phase}")
    tenant = ctx.get(members.WALLETS, progress.tenant)
    if progress.tenant == ctx.sender or (tenant is not None and tenant.member and tenant.member == party.member):
        raise Refused("own_order", "nobody sells to themselves")
    order = ctx.require(ORDERS, key, "no_order")
    for requirement in order.request.segments:
        if requirement.segment == segment:
            return key, order, requirement
    raise Refused("unknown_segment", segment)


def _check_figures(ctx: Context, request: Request, requirement: Requirement, figures: OfferFigures) -> None:
    pool = ctx.require(POOLS, figures.pool, "unknown_pool")
    if pool.operator != ctx.sender or pool.segment != requirement.segment:
        raise Refused("not_the_operators_pool", f"pool {figures.pool}")
    if pool.areas and not set(request.profile.coverageArea) <= set(pool.areas):
        raise Refused("area_not_covered", f"pool {figures.pool}")
    schedule = request.schedule
    if figures.valid_until < schedule.offers_until + schedule.reveal_ms:
        raise Refused("too_short_lived", "valid at least until offers are decided")
    for name, figure, limit in (
        ("reserve", figures.cost, request.reserve),
        ("max_delay_us", figures.delay_us, request.max_delay_us),
        ("max_risk_nano", figures.risk_nano, request.max_risk_nano),
    ):
        if figure > limit:
            raise Refused("hopeless_offer", f"{figure} is more than {name} {limit}")
    if figures.bandwidth_kbps < request.min_bandwidth_kbps:
        raise Refused("hopeless_offer", f"{figures.bandwidth_kbps} is less than {request.min_bandwidth_kbps} kbit/s")
    if figures.terms is not None:
        thresholds = [step.shortfall_ppm for step in figures.terms.steps]
        if thresholds != sorted(set(thresholds)):
            raise Refused("steps_not_ascending")
    if not fits(ctx, figures.pool, requirement.amounts, request.start, request.end):
        raise Refused("capacity_not_free", f"pool {figures.pool} over the whole window")


def _make_room(ctx: Context, key: tuple[str, int], request: Request, segment: str, figures: OfferFigures) -> None:
    """Keep the contract's own decision small: beyond its limit a better offer displaces the dearest one."""
    counted = ctx.get(PLACED, (*key, segment, b"")) or Count(0)
    limit = MOST_DECIDED[len(request.segments)] if request.decision == "contract" else MOST_POSTED
    if counted.number < limit:
        return
    if request.decision == "posted":
        raise Refused("segment_full", f"at most {limit} offers")
    dearest, worst = max(
        open_offers(ctx, key, segment),
        key=lambda one: (one[1].figures.cost, one[1].figures.delay_us, one[1].figures.risk_nano, one[0]),
    )
    mine_ = (figures.cost, figures.delay_us, figures.risk_nano)
    if mine_ >= (worst.figures.cost, worst.figures.delay_us, worst.figures.risk_nano):
        raise Refused("segment_full", f"{limit} offers are no dearer")
    _drop(ctx, key, segment, dearest, worst.party)


def _count(ctx: Context, key: tuple[str, int], segment: str, name: str) -> None:
    if ctx.get(OFFERS, (*key, segment, name)) is not None or ctx.get(COMMITS, (*key, segment, name)) is not None:
        raise Refused("name_taken", f"offer {name} exists")
    own = ctx.get(PLACED, (*key, segment, ctx.sender)) or Count(0)
    if own.number >= MOST_PER_PARTY:
        raise Refused("too_many_offers", f"at most {MOST_PER_PARTY} a party and segment")
    counted = ctx.get(PLACED, (*key, segment, b"")) or Count(0)
    ctx.put(PLACED, (*key, segment, ctx.sender), Count(own.number + 1))
    ctx.put(PLACED, (*key, segment, b""), Count(counted.number + 1))


def _drop(ctx: Context, key: tuple[str, int], segment: str, name: str, party: bytes) -> None:
    """Return an offer's deposit and forget it, so that offering and withdrawing in turns leaves nothing behind."""
    set_status(ctx, key, segment, name, "returned")
    ctx.delete(OFFERS, (*key, segment, name))
    for who in (party, b""):
        counted = ctx.require(PLACED, (*key, segment, who), "no_count")
        ctx.put(PLACED, (*key, segment, who), Count(counted.number - 1))
