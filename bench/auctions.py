"""Spectrum auctions: greedy with critical payments at 10^5 bidders, VCG against HiGHS alone, clock against VCG."""

import time
from itertools import combinations

import numpy as np

from bench.harness import Row, best_time
from gridpool.markets import spectrum_vcg
from gridpool.markets.spectrum_auction import Auction, Bid, Bidder
from gridpool.markets.spectrum_clock import clock
from gridpool.markets.spectrum_greedy import greedy
from gridpool.markets.spectrum_vcg import Offer, best_choice, vcg


def run() -> list[Row]:
    """Measure each figure in one process, ratios within it."""
    return [*large_greedy(), *vcg_against_highs(), *clock_against_vcg()]


def market(bidders: int, lots: int, rivals: int, rng: np.random.Generator, *, size: int = 1) -> Auction:
    """Return bidders on a line, each in conflict with so many on either side, bidding for random lots."""
    picks = rng.integers(0, lots, size=(bidders, size))
    prices = rng.integers(1, 10**6, size=bidders)
    people = tuple(
        Bidder(i, (Bid(tuple(sorted({int(lot) for lot in picks[i]})), int(prices[i])),)) for i in range(bidders)
    )
    conflicts = tuple((i, j) for i in range(bidders) for j in range(i + 1, min(i + 1 + rivals, bidders)))
    return Auction(tuple(range(lots)), people, conflicts)


def large_greedy() -> list[Row]:
    """Time greedy with all payments at 10^4 and 10^5 bidders: near-linear."""
    rng = np.random.default_rng(1)
    small, large = market(10_000, 50, 4, rng, size=3), market(100_000, 50, 4, rng, size=3)
    low, high = best_time(lambda: greedy(small), repeats=3), best_time(lambda: greedy(large), repeats=3)
    bids = [bidder.bids[0].price for bidder in large.bidders]
    sort = best_time(lambda: sorted(bids), repeats=3)
    detail = {"seconds": high, "winners": len(greedy(large).winners), "sort_s": sort}
    return [
        Row(
            room="auctions",
            figure="greedy, 10^5 bidders over 10^4",
            ratio=high / low,
            target=15.0,
            sense="at most",
            peer="itself at a tenth of the size",
            detail=detail,
        ),
        Row(
            room="auctions",
            figure="greedy with payments, 10^5 bidders, s",
            ratio=high,
            target=10.0,
            sense="at most",
            peer="absolute",
            detail=detail,
        ),
    ]


def vcg_against_highs() -> list[Row]:
    """Time winners and payments of sparse markets against one HiGHS solve of the same market undivided."""
    auction = market(150, 8, 3, np.random.default_rng(2), size=2)
    rivals = auction.rivals()
    offers = [Offer(b.id, 0, b.bids[0].lots, b.bids[0].price, 0) for b in auction.bidders]

    def alone() -> int:
        return sum(offer.worth for offer in spectrum_vcg._highs(offers, rivals)[0])

    outcome = vcg(auction)
    whole, once = best_time(lambda: vcg(auction), repeats=3), best_time(alone, repeats=3)
    if outcome.welfare != alone() or outcome.welfare != best_choice(offers, rivals)[1] or not outcome.exact:
        raise AssertionError("the divided and the undivided problem disagree")
    return [
        Row(
            room="auctions",
            figure="vcg with all payments",
            ratio=whole / once / max(len(outcome.winners), 1),
            target=1.0,
            sense="at most",
            peer="one HiGHS solve a winner, undivided",
            detail={"winners": len(outcome.winners), "vcg_s": whole, "highs_s": once},
        )
    ]


def clock_against_vcg() -> list[Row]:
    """Compare welfare on random substitutes: single lots, values by lot and bidder, random conflicts."""
    rng = np.random.default_rng(3)
    shares, plain = [], []
    start = time.perf_counter()
    for _ in range(30):
        lots, people = range(6), range(10)
        bidders = tuple(Bidder(b, tuple(Bid((lot,), int(rng.integers(1, 10**6))) for lot in lots)) for b in people)
        pairs = tuple(pair for pair in combinations(people, 2) if rng.random() < 0.6)
        shares.append(_share(Auction(tuple(lots), bidders, pairs)))
        plain.append(_share(Auction(tuple(lots), bidders, tuple(combinations(people, 2)))))
    detail = {"markets": 60, "seconds": time.perf_counter() - start}
    return [
        Row(
            room="auctions",
            figure=f"clock welfare, worst of 30 ({name})",
            ratio=min(values),
            target=0.95,
            sense="at least",
            peer="vcg",
            detail=detail,
        )
        for name, values in (("lots in use elsewhere too", shares), ("each lot once", plain))
    ]


def _share(auction: Auction) -> float:
    return clock(auction).welfare / vcg(auction).welfare
