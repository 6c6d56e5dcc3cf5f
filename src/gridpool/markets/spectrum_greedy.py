"""The greedy auction: bids ranked by price per root of their size, each winner pays its smallest winning bid.

Ranking and acceptance are monotone in a bid's price, so paying the critical price makes truth the best report of a
bidder with one bid; a bidder with several alternatives may still gain by hiding one.
Source: Lehmann, O'Callaghan, Shoham, Journal of the ACM 49(5), 2002.
"""

from collections.abc import Callable
from math import isqrt

from gridpool.markets.spectrum_auction import Auction, Bid, Id, Outcome, Win, settle

__all__ = ["Entry", "accept", "greedy"]

Entry = tuple[Id, int, Bid]
"""(bidder, position of the bid in the file, bid)."""


def greedy(auction: Auction) -> Outcome:
    """Accept bids in rank order where no rival holds one of their lots; near-linear in bids and conflicts."""
    entries = [
        (bidder.id, position, bid)
        for bidder in auction.bidders
        for position, bid in enumerate(bidder.bids)
        if bid.price >= auction.floor(bid)
    ]
    wins = accept(entries, auction.rivals(), auction.floor)
    highest: dict[Id, int] = {}
    for bidder, _, bid in entries:
        highest[bidder] = max(highest.get(bidder, 0), bid.price)
    return settle("greedy", wins, sum(highest.values()))


def accept(entries: list[Entry], rivals: dict[Id, set[Id]], floor: Callable[[Bid], int]) -> list[Win]:
    """Choose winners among entries and price each at the smallest bid with which it would still have won.

    A rejected entry that exactly one winner blocks would be accepted without that winner; the best ranked of these is
    the one a lower bid of the winner would lose to, so one pass prices everybody.
    """
    by_size: dict[int, list[Entry]] = {}
    for entry in entries:
        by_size.setdefault(len(entry[2].lots), []).append(entry)
    if len(by_size) == 1:
        ranked = sorted(entries, key=lambda entry: (-entry[2].price, entry[0], entry[1]))
    else:
        ranked = sorted(entries, key=_rank)
    won: dict[Id, Entry] = {}
    sets: dict[Id, frozenset[Id]] = {}
    holders: dict[Id, list[Id]] = {}
    loser: dict[Id, Entry] = {}
    for entry in ranked:
        bidder, _, bid = entry
        blockers = _blockers(bidder, bid, won, sets, holders, rivals[bidder])
        if not blockers:
            won[bidder] = entry
            sets[bidder] = frozenset(bid.lots)
            for lot in bid.lots:
                holders.setdefault(lot, []).append(bidder)
        elif len(blockers) == 1:
            loser.setdefault(blockers[0], entry)
    return [
        Win(bidder, entry[2].lots, entry[2].price, _critical(entry, loser.get(bidder), floor(entry[2])))
        for bidder, entry in won.items()
    ]


def _blockers(
    bidder: Id,
    bid: Bid,
    won: dict[Id, Entry],
    sets: dict[Id, frozenset[Id]],
    holders: dict[Id, list[Id]],
    rivals: set[Id],
) -> list[Id]:
    """Return up to two winners that keep a bid out: rivals that hold one of its lots, or the bidder itself."""
    found = [bidder] if bidder in won else []
    for lot in bid.lots:
        held = holders.get(lot)
        if not held:
            continue
        if len(held) <= len(rivals):
            found += [one for one in held if one in rivals and one not in found]
        else:
            found += [one for one in rivals if one not in found and lot in sets.get(one, ())]
        if len(found) > 1:
            return found[:2]
    return found


class _Rank:
    """Order of entries: price per root of size downwards, then bidder id, then place in the file."""

    __slots__ = ("entry",)

    def __init__(self, entry: Entry) -> None:
        self.entry = entry

    def __lt__(self, other: "_Rank") -> bool:
        mine, theirs = self.entry[2], other.entry[2]
        left, right = mine.price * mine.price * len(theirs.lots), theirs.price * theirs.price * len(mine.lots)
        if left != right:
            return left > right
        return self.entry[:2] < other.entry[:2]


def _rank(entry: Entry) -> _Rank:
    return _Rank(entry)


def _critical(entry: Entry, loser: Entry | None, least: int) -> int:
    """Return the smallest price with which ``entry`` still ranks before ``loser`` and reaches the reserve."""
    if loser is None:
        return least
    bidder, position, bid = entry
    other = loser[2]
    target, size = other.price * other.price * len(bid.lots), len(other.lots)
    # Smallest p with p*p*size >= target, or > target where a tie goes to the other.
    price = isqrt(target // size)
    while price * price * size < target:
        price += 1
    if price * price * size == target and (bidder, position) > loser[:2]:
        price += 1
    return max(price, least)
