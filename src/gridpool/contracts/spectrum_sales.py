"""Auctions of idle bands on the ledger: sealed bids, deposits, decision, settlement into leases.

A bidder commits to its bids with a deposit and reveals them later; a bid counts only if the deposit covers it, so a
payment cannot be refused, and whoever does not reveal forfeits the bond. Two bidders are in conflict where one would
disturb the other's receivers beyond the class's limit; a bid that would disturb a protected use or a lease in force is
refused when it is revealed. ``second_price`` and ``greedy`` are decided here; so is ``vcg`` as long as the integer
search ends, and beyond that anybody may post an outcome with a bond, which a better feasible one overturns during the
challenge window.
"""

import hashlib
from typing import Annotated, Literal

import msgspec

from gridpool.contracts import coins, members
from gridpool.contracts.spectrum_access import refuse_if_denied
from gridpool.contracts.spectrum_interference import Newcomer, ring, scene
from gridpool.contracts.spectrum_leases import LESSEES, RequestLease, end_early, grant
from gridpool.contracts.spectrum_power import density
from gridpool.contracts.spectrum_records import CLASSES, IDLE, LOSSES, Cells, Level, spectrum
from gridpool.contracts.spectrum_register import SpectrumParameters, next_number
from gridpool.ledger.contract import Context, Refused
from gridpool.ledger.types import Call, Coins, Due, Event, Hash, Millis, Natural, Text, Value, Wallet, encode
from gridpool.markets import spectrum_auction, spectrum_greedy, spectrum_vcg
from gridpool.markets.spectrum_auction import Auction, Bid, Bidder

__all__ = [
    "SALES",
    "SEALED",
    "ChallengeOutcome",
    "CommitBid",
    "OpenSale",
    "ProposeOutcome",
    "RevealBid",
    "Sale",
    "SaleDecided",
    "SealedBid",
    "bid_hash",
]

MOST_LOTS = 200
MOST_BIDDERS = 500
MOST_BIDDER_CELLS = 16
"""Cells of one bidder: every pair of bidders is compared cell by cell."""
Choice = Annotated[tuple[tuple[Natural, Natural], ...], msgspec.Meta(max_length=MOST_BIDDERS)]
"""(bidder's number, bid's number) of each winner."""


class PackageBid(Value):
    """Lots (numbers of idle bands, ascending) and the price for all of them together."""

    lots: Annotated[tuple[Natural, ...], msgspec.Meta(min_length=1, max_length=MOST_LOTS)]
    price: Annotated[int, msgspec.Meta(ge=0, le=10**15)]


class Proposed(Value):
    """An outcome from outside: the choice, and a choice without each winner, from which payments follow."""

    by: Wallet
    choice: Choice
    without: tuple[Choice, ...]


class Sale(Value):
    """A sale of idle bands for one stretch of time. ``revealed`` are the wallets in order of their numbers."""

    holder: Wallet
    lots: tuple[Natural, ...]
    reserve: tuple[Coins, ...]
    rule: Literal["second_price", "greedy", "vcg"]
    start: Millis
    end: Millis
    commit_until: Millis
    reveal_until: Millis
    bond: Coins
    committed: tuple[Wallet, ...] = ()
    revealed: tuple[Wallet, ...] = ()
    standing: Literal["open", "awaiting", "settled"] = "open"
    challenge_until: Millis = 0
    proposed: Proposed | None = None


class SealedBid(Value):
    """A commitment, its deposit in escrow, and what was revealed."""

    commitment: Hash
    deposit: Coins
    bids: tuple[PackageBid, ...] = ()
    cells: tuple[Natural, ...] = ()
    eirp: Level = 0
    height: Natural = 0


class OpenSale(Call, tag="spectrum.open_sale"):
    """Sell idle bands (pricing ``auction``) of one's own for [start, end)."""

    lots: Annotated[tuple[Natural, ...], msgspec.Meta(min_length=1, max_length=MOST_LOTS)]
    reserve: tuple[Coins, ...]
    rule: Literal["second_price", "greedy", "vcg"]
    start: Millis
    end: Millis
    commit_until: Millis
    reveal_until: Millis
    bond: Coins


class CommitBid(Call, tag="spectrum.commit_bid"):
    """Commit to bids; the deposit (at least the bond) is set aside now and covers the highest payment."""

    sale: Natural
    commitment: Hash
    deposit: Coins


class RevealBid(Call, tag="spectrum.reveal_bid"):
    """Reveal bids, where they will be used, and how."""

    sale: Natural
    bids: Annotated[tuple[PackageBid, ...], msgspec.Meta(min_length=1, max_length=50)]
    cells: Cells
    eirp: Level
    height: Natural
    salt: Hash


class ProposeOutcome(Call, tag="spectrum.propose_outcome"):
    """Post an outcome for a sale too large for the ledger; the sale's bond is set aside with it."""

    sale: Natural
    choice: Choice
    without: Annotated[tuple[Choice, ...], msgspec.Meta(max_length=MOST_BIDDERS)]


class ChallengeOutcome(Call, tag="spectrum.challenge_outcome"):
    """Overturn a posted outcome by a better choice: part 0 is the choice, part i the one without its i-th winner."""

    sale: Natural
    part: Natural
    choice: Choice


class RevealEnds(Due, tag="spectrum.reveal_ends"):
    """The time to reveal is over."""

    sale: Natural


class ChallengeEnds(Due, tag="spectrum.challenge_ends"):
    """The challenge window is over."""

    sale: Natural


@spectrum.event
class SaleDecided(Event, tag="spectrum.sale_decided"):
    """A sale is settled: who got a lease of which lot, and what each paid."""

    sale: Natural
    leases: tuple[Natural, ...]
    payments: tuple[tuple[Wallet, Coins], ...]
    note: Text


SALES = spectrum.table("sale", key=int, value=Sale)
SEALED = spectrum.table("sealed_bid", key=(int, bytes), value=SealedBid)
CHALLENGE_MS = 600_000


def bid_hash(sale: int, wallet: bytes, call: RevealBid) -> bytes:
    """Return the commitment to what ``call`` reveals."""
    opened = (sale, wallet, call.bids, call.cells, call.eirp, call.height, call.salt)
    return hashlib.sha256(b"gridpool/spectrum-bid/1\0" + encode(opened)).digest()


@spectrum.call(OpenSale)
def open_sale(ctx: Context, call: OpenSale) -> None:
    """Open a sale."""
    if list(call.lots) != sorted(set(call.lots)) or len(call.reserve) != len(call.lots):
        ctx.refuse("lots", "numbers ascend, with one reserve price each")
    if not ctx.now < call.commit_until < call.reveal_until <= call.start < call.end:
        ctx.refuse("times", "commit, then reveal, then use")
    if call.rule == "second_price" and len(call.lots) != 1:
        ctx.refuse("second_price_sells_one_lot")
    bands = set()
    for lot in call.lots:
        idle = ctx.require(IDLE, lot, "no_such_idle_band")
        if idle.holder != ctx.sender or idle.pricing != "auction":
            ctx.refuse("not_to_be_auctioned", f"idle band {lot}")
        if not idle.start <= call.start < call.end <= idle.end:
            ctx.refuse("outside_the_idle_band", f"idle band {lot}")
        bands.add(idle.band)
    if len(bands) > 1:
        ctx.refuse("one_class_a_sale")
    number = next_number(ctx, "sale")
    ctx.put(
        SALES,
        number,
        Sale(
            ctx.sender,
            call.lots,
            call.reserve,
            call.rule,
            call.start,
            call.end,
            call.commit_until,
            call.reveal_until,
            call.bond,
        ),
    )
    coins.open_escrow(ctx, _escrow(number), f"spectrum sale {number}")
    ctx.schedule(call.reveal_until, RevealEnds(number))


@spectrum.call(CommitBid)
def commit_bid(ctx: Context, call: CommitBid) -> None:
    """Take a commitment and its deposit."""
    members.require(ctx, *LESSEES)
    sale = ctx.require(SALES, call.sale, "no_such_sale")
    if ctx.now >= sale.commit_until:
        ctx.refuse("too_late")
    if ctx.sender in sale.committed or ctx.sender == sale.holder or len(sale.committed) >= MOST_BIDDERS:
        ctx.refuse("cannot_bid_here")
    if call.deposit < sale.bond:
        ctx.refuse("deposit_below_bond", f"{sale.bond}")
    coins.fund_escrow(ctx, ctx.sender, _escrow(call.sale), call.deposit)
    ctx.put(SEALED, (call.sale, ctx.sender), SealedBid(call.commitment, call.deposit))
    ctx.put(SALES, call.sale, msgspec.structs.replace(sale, committed=(*sale.committed, ctx.sender)))


@spectrum.call(RevealBid)
def reveal_bid(ctx: Context, call: RevealBid) -> None:
    """Open a commitment; refused where the deposit does not cover it or it could never be granted."""
    sale = ctx.require(SALES, call.sale, "no_such_sale")
    if not sale.commit_until <= ctx.now < sale.reveal_until:
        ctx.refuse("not_the_time_to_reveal")
    sealed = ctx.require(SEALED, (call.sale, ctx.sender), "nothing_committed")
    if ctx.sender in sale.revealed or sealed.commitment != bid_hash(call.sale, ctx.sender, call):
        ctx.refuse("not_what_was_committed")
    if len(call.cells) > MOST_BIDDER_CELLS:
        ctx.refuse("too_many_cells", f"at most {MOST_BIDDER_CELLS}")
    for bid in call.bids:
        if bid.price > sealed.deposit:
            ctx.refuse("deposit_does_not_cover_the_bid", f"{sealed.deposit}, bid {bid.price}")
        if list(bid.lots) != sorted(set(bid.lots)) or not set(bid.lots) <= set(sale.lots):
            ctx.refuse("not_for_sale")
        for lot in bid.lots:
            _refuse_if_never_granted(ctx, sale, lot, call)
    opened = SealedBid(sealed.commitment, sealed.deposit, call.bids, call.cells, call.eirp, call.height)
    ctx.put(SEALED, (call.sale, ctx.sender), opened)
    ctx.put(SALES, call.sale, msgspec.structs.replace(sale, revealed=(*sale.revealed, ctx.sender)))


@spectrum.due(RevealEnds)
def reveal_ends(ctx: Context, due: RevealEnds) -> None:
    """Decide, or wait for an outcome from outside."""
    sale = ctx.require(SALES, due.sale, "no_such_sale")
    auction = _auction(ctx, due.sale, sale)
    if sale.rule == "vcg":
        outcome = spectrum_vcg.vcg_in_integers(auction)
        if outcome is None:
            waiting = msgspec.structs.replace(sale, standing="awaiting", challenge_until=ctx.now + CHALLENGE_MS)
            ctx.put(SALES, due.sale, waiting)
            ctx.schedule(waiting.challenge_until, ChallengeEnds(due.sale))
            return
    elif sale.rule == "greedy":
        outcome = spectrum_greedy.greedy(auction)
    else:
        outcome = spectrum_auction.second_price(auction)
    _settle(ctx, due.sale, sale, {int(w.bidder): (w.lots, w.payment) for w in outcome.winners}, "")


@spectrum.call(ProposeOutcome)
def propose_outcome(ctx: Context, call: ProposeOutcome) -> None:
    """Post the first outcome of a sale that waits for one."""
    sale = ctx.require(SALES, call.sale, "no_such_sale")
    if sale.standing != "awaiting" or sale.proposed is not None:
        ctx.refuse("no_outcome_wanted")
    auction = _auction(ctx, call.sale, sale)
    _worth(ctx, auction, call.choice)
    if len(call.without) != len(call.choice):
        ctx.refuse("one_choice_without_each_winner")
    for (bidder, _), other in zip(call.choice, call.without, strict=True):
        _worth(ctx, auction, other, without=bidder)
    coins.fund_escrow(ctx, ctx.sender, _escrow(call.sale), sale.bond)
    posted = msgspec.structs.replace(
        sale,
        proposed=Proposed(ctx.sender, call.choice, call.without),
        challenge_until=ctx.now + CHALLENGE_MS,
    )
    ctx.unschedule(sale.challenge_until, ChallengeEnds(call.sale))
    ctx.schedule(posted.challenge_until, ChallengeEnds(call.sale))
    ctx.put(SALES, call.sale, posted)


@spectrum.call(ChallengeOutcome)
def challenge_outcome(ctx: Context, call: ChallengeOutcome) -> None:
    """Show a better choice: the posted outcome falls, its bond goes to the challenger, and the sale waits again."""
    sale = ctx.require(SALES, call.sale, "no_such_sale")
    posted = sale.proposed
    if posted is None or call.part > len(posted.choice):
        ctx.refuse("nothing_to_challenge")
    auction = _auction(ctx, call.sale, sale)
    without = posted.choice[call.part - 1][0] if call.part else -1
    standing = posted.without[call.part - 1] if call.part else posted.choice
    if _worth(ctx, auction, call.choice, without=without) <= _worth(ctx, auction, standing, without=without):
        ctx.refuse("not_better")
    coins.pay_from_escrow(ctx, _escrow(call.sale), ctx.sender, sale.bond, income=False)
    again = msgspec.structs.replace(sale, proposed=None, challenge_until=ctx.now + CHALLENGE_MS)
    ctx.unschedule(sale.challenge_until, ChallengeEnds(call.sale))
    ctx.schedule(again.challenge_until, ChallengeEnds(call.sale))
    ctx.put(SALES, call.sale, again)


@spectrum.due(ChallengeEnds)
def challenge_ends(ctx: Context, due: ChallengeEnds) -> None:
    """Settle by the outcome that stands; without one the greedy rule decides, so that nothing waits for ever."""
    sale = ctx.require(SALES, due.sale, "no_such_sale")
    if sale.standing != "awaiting" or ctx.now < sale.challenge_until:
        return
    auction = _auction(ctx, due.sale, sale)
    posted = sale.proposed
    if posted is None:
        outcome = spectrum_greedy.greedy(auction)
        wins = {int(w.bidder): (w.lots, w.payment) for w in outcome.winners}
        _settle(ctx, due.sale, sale, wins, "nobody posted an outcome; decided greedily")
        return
    coins.pay_from_escrow(ctx, _escrow(due.sale), posted.by, sale.bond, income=False)
    total = _worth(ctx, auction, posted.choice)
    chosen: dict[int, tuple[tuple[spectrum_auction.Id, ...], int]] = {}
    for (bidder, place), other in zip(posted.choice, posted.without, strict=True):
        bid = auction.bidders[bidder].bids[place]
        floor = auction.floor(bid)
        payment = _worth(ctx, auction, other, without=bidder) - (total - (bid.price - floor)) + floor
        chosen[bidder] = (bid.lots, min(max(payment, floor), bid.price))
    _settle(ctx, due.sale, sale, chosen, "")


def _auction(ctx: Context, number: int, sale: Sale) -> Auction:
    """Build the auction that the revealed bids make; bidders are their numbers in order of revelation."""
    opened = [ctx.require(SEALED, (number, wallet), "nothing_committed") for wallet in sale.revealed]
    bidders = tuple(
        Bidder(i, tuple(Bid(bid.lots, bid.price) for bid in sealed.bids)) for i, sealed in enumerate(opened)
    )
    conflicts = tuple(
        (i, j)
        for i in range(len(opened))
        for j in range(i + 1, len(opened))
        if sale.rule == "second_price" or _disturb(ctx, sale, opened[i], opened[j])
    )
    reserve = {str(lot): price for lot, price in zip(sale.lots, sale.reserve, strict=True)}
    return Auction(tuple(sale.lots), bidders, conflicts, (), reserve)


def _disturb(ctx: Context, sale: Sale, one: SealedBid, two: SealedBid) -> bool:
    """Tell whether two bidders could not use one lot at once."""
    if set(one.cells) & set(two.cells):
        return True
    idle = ctx.require(IDLE, sale.lots[0], "no_such_idle_band")
    losses = ctx.require(LOSSES, idle.band, "no_such_class")
    limit = density(ctx.require(CLASSES, idle.band, "no_such_class").lessee_limit)
    for sender, listener in ((one, two), (two, one)):
        row = losses.rings[sender.height]
        for at in listener.cells:
            rings = [ring(at, cell, len(row) - 1) for cell in sender.cells]
            if sum(density(sender.eirp - row[k]) for k in rings if k < len(row)) > limit:
                return True
    return False


def _refuse_if_never_granted(ctx: Context, sale: Sale, lot: int, call: RevealBid) -> None:
    """Refuse a bid that would break a limit even if nobody else won anything."""
    idle = ctx.require(IDLE, lot, "no_such_idle_band")
    rules = ctx.require(CLASSES, idle.band, "no_such_class")
    losses = ctx.require(LOSSES, idle.band, "no_such_class")
    if not set(call.cells) <= set(idle.cells) or call.height >= len(rules.heights_m):
        ctx.refuse("outside_the_idle_band", f"idle band {lot}")
    if not rules.least_eirp <= call.eirp <= idle.max_eirp:
        ctx.refuse("outside_the_idle_band", f"power in idle band {lot}")
    refuse_if_denied(ctx, ctx.sender, idle.band, call.cells)
    around = scene(
        ctx,
        idle.band,
        ((idle.low, idle.high),),
        call.cells,
        sale.start,
        sale.end,
        rings=2 * (len(losses.rings[0]) - 1),
    )
    if around.holders(frozenset(call.cells), idle.low, idle.high, general=False):
        ctx.refuse("leased_already", f"idle band {lot}")
    newcomer = Newcomer(
        idle.band, idle.low, idle.high, call.cells, sale.start, sale.end, call.eirp, call.height, idle.kind != "general"
    )
    broken = around.broken_limit(newcomer)
    if broken:
        ctx.refuse("interference", broken)


def _worth(ctx: Context, auction: Auction, choice: Choice, *, without: int = -1) -> int:
    """Return a choice's worth above the reserve prices; refused where it is not feasible."""
    rivals = auction.rivals()
    taken: dict[int, Bid] = {}
    worth = 0
    for bidder, place in choice:
        if bidder >= len(auction.bidders) or bidder in taken or bidder == without:
            ctx.refuse("not_a_choice")
        bids = auction.bidders[bidder].bids
        if place >= len(bids) or bids[place].price < auction.floor(bids[place]):
            ctx.refuse("not_a_choice")
        bid = bids[place]
        if any(other in rivals[bidder] and set(held.lots) & set(bid.lots) for other, held in taken.items()):
            ctx.refuse("not_feasible")
        taken[bidder] = bid
        worth += bid.price - auction.floor(bid)
    return worth


def _settle(
    ctx: Context,
    number: int,
    sale: Sale,
    wins: dict[int, tuple[tuple[spectrum_auction.Id, ...], int]],
    note: str,
) -> None:
    """Turn wins into leases and payments, give deposits back, keep the bonds of those who did not reveal."""
    escrow = _escrow(number)
    leases: list[int] = []
    payments: list[tuple[bytes, int]] = []
    parameters = ctx.parameters("spectrum", SpectrumParameters)
    for i, wallet in enumerate(sale.revealed):
        sealed = ctx.require(SEALED, (number, wallet), "nothing_committed")
        lots, payment = wins.get(i, ((), 0))
        got: list[int] = []
        try:
            for lot in lots:
                got.append(_grant(ctx, sale, int(lot), wallet, sealed))
        except Refused as refusal:
            # What conflicts two by two allow may still add up to too much: then nothing is sold to this bidder.
            note = f"{note} bidder {i}: {refusal.code}".strip()
            for lease in got:
                end_early(ctx, lease)
            got, payment = [], 0
        fee = payment * parameters.fee_ppm // 1_000_000 if parameters.fee_account else 0
        coins.pay_from_escrow(ctx, escrow, sale.holder, payment - fee)
        if fee:
            coins.pay_from_escrow(ctx, escrow, parameters.fee_account, fee)
        coins.pay_from_escrow(ctx, escrow, wallet, sealed.deposit - payment, income=False)
        leases += got
        if got:
            payments.append((wallet, payment))
        ctx.delete(SEALED, (number, wallet))
    for wallet in sale.committed:
        if wallet not in sale.revealed:
            sealed = ctx.require(SEALED, (number, wallet), "nothing_committed")
            coins.pay_from_escrow(ctx, escrow, sale.holder, sale.bond)
            coins.pay_from_escrow(ctx, escrow, wallet, sealed.deposit - sale.bond, income=False)
            ctx.delete(SEALED, (number, wallet))
    coins.close_escrow(ctx, escrow)
    ctx.put(SALES, number, msgspec.structs.replace(sale, standing="settled", proposed=None))
    ctx.emit(SaleDecided(number, tuple(leases), tuple(payments), note[:256]))


def _grant(ctx: Context, sale: Sale, lot: int, wallet: bytes, sealed: SealedBid) -> int:
    idle = msgspec.structs.replace(ctx.require(IDLE, lot, "no_such_idle_band"), pricing="auction", price=0)
    wish = RequestLease(lot, idle.low, idle.high, sealed.cells, sale.start, sale.end, sealed.eirp, sealed.height)
    return grant(ctx, wallet, lot, idle, wish)


def _escrow(number: int) -> bytes:
    return coins.escrow_key("spectrum", "sale", number)
