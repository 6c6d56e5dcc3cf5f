"""The double auction: holders ask, bidders bid, and bidders that do not disturb one another share a lot.

For each lot, bidders are put into groups without conflicts, by id and never by price. A group can raise k times its
k-th highest bid; the groups that can raise most meet the lowest asks, and every winning group raises the same sum: the
larger of the highest ask served and what the best losing group could raise. Inside a group the sum is shared equally
among the most bidders that can bear it. A bidder's own bid never sets its share, and the holders receive exactly what
the bidders pay, so there is no deficit. Package bids come after, for lots that no group took, against the asks as
reserve prices. Sources: Zhou, Zheng, INFOCOM 2009 (groups); Goldberg, Hartline, STOC 2003 (profit extraction).
"""

from gridpool.markets.spectrum_auction import Auction, Bid, Id, Outcome, Win, settle
from gridpool.markets.spectrum_greedy import Entry, accept

__all__ = ["double"]


def double(auction: Auction) -> Outcome:
    """Match asks and bids lot by lot, in the order of the lots in the file."""
    rivals = auction.rivals()
    asks: dict[Id, list[tuple[int, Id]]] = {}
    for ask in auction.asks:
        asks.setdefault(ask.lot, []).append((ask.price, ask.id))
    bidders = sorted(auction.bidders, key=lambda bidder: bidder.id)
    by_lot: dict[Id, dict[Id, Bid]] = {}
    for bidder in bidders:
        for bid in bidder.bids:
            if len(bid.lots) == 1 and bid.price >= auction.floor(bid):
                mine = by_lot.setdefault(bid.lots[0], {})
                if bidder.id not in mine or bid.price > mine[bidder.id].price:
                    mine[bidder.id] = bid
    wins: list[Win] = []
    won: set[Id] = set()
    receipts: dict[Id, int] = {}
    sold: set[Id] = set()
    for lot in auction.lots:
        offers = sorted(asks.get(lot, ()))
        bids = {bidder: bid for bidder, bid in by_lot.get(lot, {}).items() if bidder not in won}
        taken, paid = _trade(offers, bids, rivals, auction.reserve.get(str(lot), 0))
        wins += taken
        won.update(win.bidder for win in taken)
        receipts.update(paid)
        if taken:
            sold.add(lot)
    wins += _packages(auction, rivals, asks, won, sold, receipts)
    bound = sum(max((bid.price for bid in bidder.bids), default=0) for bidder in bidders)
    return settle("double", wins, bound, receipts=receipts)


def _trade(
    offers: list[tuple[int, Id]], bids: dict[Id, Bid], rivals: dict[Id, set[Id]], reserve: int
) -> tuple[list[Win], dict[Id, int]]:
    """Let the groups of one lot meet its asks; returns winners and what each ask receives."""
    groups = _groups(bids, rivals)
    raised = [max((k + 1) * price for k, price in enumerate(_prices(group, bids))) for group in groups]
    order = sorted(range(len(groups)), key=lambda i: (-raised[i], i))
    served = 0
    while served < min(len(order), len(offers)) and raised[order[served]] >= offers[served][0]:
        served += 1
    if not served:
        return [], {}
    target = max(offers[served - 1][0], raised[order[served]] if served < len(order) else 0)
    wins: list[Win] = []
    receipts: dict[Id, int] = {}
    for i, (_, ask) in zip(order[:served], offers[:served], strict=True):
        prices = _prices(groups[i], bids)
        sharers = max(k + 1 for k, price in enumerate(prices) if (k + 1) * price >= target)
        share = max(-(-target // sharers), reserve)
        members = sorted(groups[i], key=lambda one: (-bids[one].price, one))[:sharers]
        wins += [Win(one, bids[one].lots, bids[one].price, share) for one in members]
        receipts[ask] = share * sharers
    return wins, receipts


def _groups(bids: dict[Id, Bid], rivals: dict[Id, set[Id]]) -> list[list[Id]]:
    """Put bidders into groups without conflicts: each joins the first group that holds no rival."""
    groups: list[list[Id]] = []
    members: list[set[Id]] = []
    for bidder in bids:
        for group, known in zip(groups, members, strict=True):
            if rivals[bidder].isdisjoint(known):
                group.append(bidder)
                known.add(bidder)
                break
        else:
            groups.append([bidder])
            members.append({bidder})
    return groups


def _prices(group: list[Id], bids: dict[Id, Bid]) -> list[int]:
    return sorted((bids[bidder].price for bidder in group), reverse=True)


def _packages(
    auction: Auction,
    rivals: dict[Id, set[Id]],
    asks: dict[Id, list[tuple[int, Id]]],
    won: set[Id],
    sold: set[Id],
    receipts: dict[Id, int],
) -> list[Win]:
    """Sell packages of lots that are left, greedily, at no less than the sum of the lowest asks."""
    least = {lot: min(offers) for lot, offers in asks.items() if lot not in sold}

    def floor(bid: Bid) -> int:
        return max(sum(least[lot][0] for lot in bid.lots), auction.floor(bid))

    entries: list[Entry] = [
        (bidder.id, place, bid)
        for bidder in auction.bidders
        if bidder.id not in won
        for place, bid in enumerate(bidder.bids)
        if len(bid.lots) > 1 and all(lot in least for lot in bid.lots) and bid.price >= floor(bid)
    ]
    wins = accept(entries, rivals, floor)
    for win in wins:
        surplus = win.payment - sum(least[lot][0] for lot in win.lots)
        for position, lot in enumerate(win.lots):
            price, ask = least[lot]
            extra = surplus // len(win.lots) + (position < surplus % len(win.lots))
            receipts[ask] = receipts.get(ask, 0) + price + extra
    return wins
