"""The clock auction: the prices of all lots rise together while rivals ask for the same lot.

Each bidder sees, lot by lot, the price at which it could take the lot from the rivals that hold it now (their sum, as
rivals of one bidder may share a lot); it asks for its best alternative at these prices, may never ask for more lots
than before (activity rule), and displaces the rivals that it outbids. Prices only rise, so this ends. A last round
assigns the lots best among the alternatives that the activity rule still allows: small bidders that can only together
displace a large one win there. Who held its alternative pays its clock price, who wins in the last round only pays
what its presence costs the others. Groups of bids too large for the last round keep what the clock gave them.
Sources: Demange, Gale, Sotomayor, Journal of Political Economy 94(4), 1986; Ausubel, Cramton, Milgrom, "The
Clock-Proxy Auction", 2006.
"""

from gridpool.errors import RefusedInput
from gridpool.markets.spectrum_auction import Auction, Bid, Id, Outcome, Win, settle
from gridpool.markets.spectrum_vcg import Offer, best_choice, independent_groups, payment_without

__all__ = ["STEPS", "clock"]

STEPS = 1_000
"""The default increment is the highest bid divided by this, at least 1."""
MAX_ROUNDS = 5_000_000
LARGEST_GROUP = 600
"""Bids in a group beyond which the clock's allocation stands."""


def clock(auction: Auction, *, increment: int | None = None) -> Outcome:
    """Run the clock until nobody asks for anything new; each winner pays the prices at which it took its lots."""
    rivals = auction.rivals()
    reserve = auction.reserve
    prices: dict[Id, dict[Id, int]] = {
        bidder.id: {lot: reserve.get(str(lot), 0) for bid in bidder.bids for lot in bid.lots}
        for bidder in auction.bidders
    }
    highest = [max((bid.price for bid in bidder.bids), default=0) for bidder in auction.bidders]
    step = max(1, max(highest, default=0) // STEPS) if increment is None else increment
    if step < 1:
        raise RefusedInput(f"the increment is a positive integer, not {step}")
    bids = {bidder.id: bidder.bids for bidder in auction.bidders}
    eligible = {bidder.id: max((len(bid.lots) for bid in bidder.bids), default=0) for bidder in auction.bidders}
    held: dict[Id, tuple[Bid, int]] = {}
    paid: dict[tuple[Id, Id], int] = {}
    holders: dict[Id, set[Id]] = {lot: set() for lot in auction.lots}
    waiting = sorted(bids)
    rounds = 0
    while waiting:
        displaced: set[Id] = set()
        for bidder in waiting:
            rounds += 1
            if rounds > MAX_ROUNDS:
                raise RefusedInput("the clock does not end in time; take a larger increment")
            wanted = _best(bids[bidder], prices[bidder], eligible[bidder])
            if wanted is None:
                continue
            bid = wanted[0]
            eligible[bidder] = len(bid.lots)
            held[bidder] = wanted
            displaced.discard(bidder)
            for lot in bid.lots:
                for loser in holders[lot] & rivals[bidder]:
                    for other in held.pop(loser)[0].lots:
                        holders[other].discard(loser)
                    displaced.add(loser)
                holders[lot].add(bidder)
                paid[bidder, lot] = prices[bidder][lot]
                for rival in rivals[bidder]:
                    seen = prices[rival]
                    if lot in seen:
                        standing = sum(paid[holder, lot] for holder in holders[lot] & rivals[rival])
                        seen[lot] = max(seen[lot], standing + step)
        waiting = sorted(displaced)
    return _assign(auction, rivals, held, eligible)


def _assign(
    auction: Auction, rivals: dict[Id, set[Id]], held: dict[Id, tuple[Bid, int]], eligible: dict[Id, int]
) -> Outcome:
    """Hold the last round: the best choice among eligible alternatives, group by group."""
    bids = {(bidder.id, place): bid for bidder in auction.bidders for place, bid in enumerate(bidder.bids)}
    offers = [
        Offer(bidder, place, bid.lots, bid.price, auction.floor(bid))
        for (bidder, place), bid in sorted(bids.items(), key=lambda item: item[0])
        if len(bid.lots) <= eligible[bidder] and bid.price >= auction.floor(bid)
    ]
    highest = {bidder.id: max((bid.price for bid in bidder.bids), default=0) for bidder in auction.bidders}
    wins: list[Win] = []
    for group in independent_groups(offers, rivals):
        members = {offer.bidder for offer in group}
        if len(group) > LARGEST_GROUP:
            wins += [Win(one, bid.lots, bid.price, cost) for one, (bid, cost) in held.items() if one in members]
            continue
        chosen, worth, _ = best_choice(group, rivals)
        for offer in chosen:
            bid = bids[offer.bidder, offer.place]
            kept = held.get(offer.bidder)
            cost = kept[1] if kept is not None and kept[0] is bid else payment_without(offer, group, worth, rivals)
            wins.append(Win(offer.bidder, bid.lots, bid.price, cost))
    return settle("clock", wins, sum(highest.values()))


def _best(bids: tuple[Bid, ...], prices: dict[Id, int], eligible: int) -> tuple[Bid, int] | None:
    """Return the alternative of greatest profit at these prices with its cost; None where none is worth its cost."""
    best: tuple[Bid, int] | None = None
    profit = -1
    for bid in bids:
        if len(bid.lots) > eligible:
            continue
        cost = sum(prices[lot] for lot in bid.lots)
        if bid.price - cost > profit:
            best, profit = (bid, cost), bid.price - cost
    return best
