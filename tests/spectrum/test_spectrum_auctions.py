"""Spectrum auctions against brute force, and truth as the best report by deviation."""

from itertools import combinations, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridpool.errors import RefusedInput
from gridpool.markets import spectrum_vcg
from gridpool.markets.spectrum_auction import Ask, Auction, Bid, Bidder, Outcome, read_auction, run_auction
from gridpool.markets.spectrum_clock import clock


def feasible(choice: list[tuple[str, Bid]], conflicts: set[frozenset[str]]) -> bool:
    return all(
        frozenset((a, b)) not in conflicts or not set(x.lots) & set(y.lots)
        for (a, x), (b, y) in combinations(choice, 2)
    )


def brute_force(auction: Auction, *, without: str | None = None) -> int:
    """Greatest sum of bids less reserves over all choices of at most one bid a bidder."""
    conflicts = {frozenset(pair) for pair in auction.conflicts}
    options = [
        [None, *(bid for bid in bidder.bids if bid.price >= auction.floor(bid))]
        for bidder in auction.bidders
        if bidder.id != without
    ]
    ids = [bidder.id for bidder in auction.bidders if bidder.id != without]
    best = 0
    for picked in product(*options):
        choice = [(i, bid) for i, bid in zip(ids, picked, strict=True) if bid is not None]
        worth = sum(bid.price - auction.floor(bid) for _, bid in choice)
        if worth > best and feasible(choice, conflicts):
            best = worth
    return best


@st.composite
def auctions(draw, *, lots=4, bidders=6, alternatives=2, size=4, reserves=True, asks=False, top=30):
    names = [f"l{i}" for i in range(draw(st.integers(1, lots)))]
    people = [f"b{i}" for i in range(draw(st.integers(1, bidders)))]
    bundles = st.lists(st.sampled_from(names), min_size=1, max_size=min(size, len(names)), unique=True)
    bids = st.builds(lambda ls, p: Bid(tuple(ls), p), bundles, st.integers(0, top))
    pairs = list(combinations(people, 2))
    return Auction(
        lots=tuple(names),
        bidders=tuple(Bidder(b, tuple(draw(st.lists(bids, max_size=alternatives)))) for b in people),
        conflicts=tuple(pair for pair in pairs if draw(st.booleans())),
        asks=tuple(Ask(f"a{i}", lot, draw(st.integers(0, top))) for i, lot in enumerate(names)) if asks else (),
        reserve={lot: draw(st.integers(0, 10)) for lot in names if draw(st.booleans())} if reserves else {},
    )


def check_feasible(auction: Auction, outcome: Outcome) -> None:
    bids = {bidder.id: bidder.bids for bidder in auction.bidders}
    assert len({win.bidder for win in outcome.winners}) == len(outcome.winners)
    assert feasible(
        [(w.bidder, Bid(w.lots, w.price)) for w in outcome.winners], {frozenset(pair) for pair in auction.conflicts}
    )
    for win in outcome.winners:
        assert Bid(win.lots, win.price) in bids[win.bidder]
        assert auction.floor(Bid(win.lots, win.price)) <= win.payment <= win.price
    assert outcome.welfare == sum(win.price for win in outcome.winners) <= outcome.bound
    assert outcome.payments == {win.bidder: win.payment for win in outcome.winners}


@settings(deadline=None, max_examples=150)
@given(auctions())
def test_vcg_equals_brute_force_with_its_payments(auction):
    outcome = run_auction(auction, "vcg")
    check_feasible(auction, outcome)
    best = brute_force(auction)
    floors = sum(auction.floor(Bid(win.lots, win.price)) for win in outcome.winners)
    assert outcome.exact
    assert outcome.welfare - floors == best
    for win in outcome.winners:
        floor = auction.floor(Bid(win.lots, win.price))
        assert win.payment == brute_force(auction, without=win.bidder) - (best - (win.price - floor)) + floor


@settings(deadline=None, max_examples=40)
@given(auctions(lots=4, bidders=10, alternatives=1))
def test_vcg_with_ten_bidders_and_four_lots(auction):
    outcome = run_auction(auction, "vcg")
    floors = sum(auction.floor(Bid(win.lots, win.price)) for win in outcome.winners)
    assert outcome.welfare - floors == brute_force(auction)


@settings(deadline=None, max_examples=60)
@given(auctions(top=10))
def test_the_solver_and_the_search_choose_alike(auction):
    searched = run_auction(auction, "vcg")
    steps, spectrum_vcg.SEARCH_STEPS = spectrum_vcg.SEARCH_STEPS, 0
    try:
        solved = run_auction(auction, "vcg")
    finally:
        spectrum_vcg.SEARCH_STEPS = steps
    assert solved.exact
    assert sum(w.price - auction.floor(Bid(w.lots, w.price)) for w in solved.winners) == sum(
        w.price - auction.floor(Bid(w.lots, w.price)) for w in searched.winners
    )


def test_vcg_takes_the_lower_ids_among_equals():
    tie = Auction(("x",), tuple(Bidder(i, (Bid(("x",), 5),)) for i in (3, 1, 2)), conflicts=((1, 2), (1, 3), (2, 3)))
    assert [win.bidder for win in run_auction(tie, "vcg").winners] == [1]
    alternatives = Auction(("x", "y"), (Bidder("a", (Bid(("y",), 5), Bid(("x",), 5))),))
    assert run_auction(alternatives, "vcg").winners[0].lots == ("y",)


def test_lots_are_reused_where_bidders_do_not_conflict():
    bidders = tuple(Bidder(name, (Bid(("x",), price),)) for name, price in (("a", 5), ("b", 4), ("c", 7)))
    outcome = run_auction(Auction(("x",), bidders, conflicts=(("a", "c"), ("b", "c"))), "vcg")
    assert [win.bidder for win in outcome.winners] == ["a", "b"]
    assert outcome.payments == {"a": 3, "b": 2}


def utility(auction: Auction, rule: str, bidder: str, values: tuple[Bid, ...]) -> int:
    outcome = run_auction(auction, rule)
    for win in outcome.winners:
        if win.bidder == bidder:
            return max((bid.price for bid in values if set(bid.lots) == set(win.lots)), default=0) - win.payment
    return 0


def deviate(auction: Auction, bidder: str, bids: tuple[Bid, ...]) -> Auction:
    people = tuple(Bidder(b.id, bids) if b.id == bidder else b for b in auction.bidders)
    return Auction(auction.lots, people, auction.conflicts, auction.asks, auction.reserve)


@settings(deadline=None, max_examples=80)
@given(auctions(bidders=5), st.data())
def test_truth_is_the_best_report_under_vcg(auction, data):
    liar = data.draw(st.sampled_from([bidder.id for bidder in auction.bidders]))
    values = next(bidder.bids for bidder in auction.bidders if bidder.id == liar)
    lie = tuple(Bid(bid.lots, data.draw(st.integers(0, 40))) for bid in values if data.draw(st.booleans()))
    assert utility(deviate(auction, liar, lie), "vcg", liar, values) <= utility(auction, "vcg", liar, values)


@pytest.mark.parametrize("rule", ["greedy", "double", "second_price"])
@settings(deadline=None, max_examples=120)
@given(data=st.data())
def test_truth_is_the_best_report_of_a_bidder_with_one_bid(rule, data):
    size = 1 if rule == "double" else 4
    lots = 1 if rule == "second_price" else 3
    auction = data.draw(auctions(lots=lots, bidders=6, alternatives=1, size=size, asks=True, top=12))
    liar = data.draw(st.sampled_from([bidder.id for bidder in auction.bidders]))
    values = next(bidder.bids for bidder in auction.bidders if bidder.id == liar)
    truth = utility(auction, rule, liar, values)
    for price in range(16):
        lie = tuple(Bid(bid.lots, price) for bid in values)
        assert utility(deviate(auction, liar, lie), rule, liar, values) <= truth


@settings(deadline=None, max_examples=150)
@given(auctions(bidders=7, alternatives=2, top=12))
def test_greedy_charges_the_smallest_winning_bid(auction):
    outcome = run_auction(auction, "greedy")
    check_feasible(auction, outcome)
    for win in outcome.winners:
        bids = next(bidder.bids for bidder in auction.bidders if bidder.id == win.bidder)
        place = next(i for i, bid in enumerate(bids) if (bid.lots, bid.price) == (win.lots, win.price))

        def wins(price, bids=bids, place=place, win=win):
            changed = tuple(Bid(b.lots, price) if i == place else b for i, b in enumerate(bids))
            again = run_auction(deviate(auction, win.bidder, changed), "greedy")
            return any(w.bidder == win.bidder and w.lots == win.lots and w.price == price for w in again.winners)

        assert wins(win.payment)
        others = {b.price for i, b in enumerate(bids) if i != place and b.lots == win.lots}
        assert win.payment == 0 or win.payment - 1 in others or not wins(win.payment - 1)


@settings(deadline=None, max_examples=150)
@given(auctions(asks=True, top=12))
def test_double_pays_holders_exactly_what_bidders_pay(auction):
    outcome = run_auction(auction, "double")
    check_feasible(auction, outcome)
    assert sum(outcome.payments.values()) == sum(outcome.receipts.values())
    asks = {ask.id: ask for ask in auction.asks}
    assert all(amount >= asks[ask].price for ask, amount in outcome.receipts.items())
    sold = {lot for win in outcome.winners for lot in win.lots}
    assert sold <= {asks[ask].lot for ask in outcome.receipts}


def test_double_shares_a_lot_among_bidders_that_together_reach_the_ask():
    auction = Auction(
        ("x",),
        tuple(Bidder(name, (Bid(("x",), price),)) for name, price in (("a", 9), ("b", 6), ("c", 1))),
        asks=(Ask("h", "x", 11),),
    )
    outcome = run_auction(auction, "double")
    assert outcome.payments == {"a": 6, "b": 6}
    assert outcome.receipts == {"h": 12}


@settings(deadline=None, max_examples=100)
@given(auctions(reserves=True))
def test_clock_is_feasible_and_nobody_pays_more_than_its_bid(auction):
    check_feasible(auction, run_auction(auction, "clock"))


def test_clock_comes_within_five_percent_of_vcg_on_substitutes():
    import numpy as np

    rng = np.random.default_rng(5)
    shares = []
    for _ in range(12):
        lots = tuple(range(6))
        people = tuple(
            Bidder(b, tuple(Bid((lot,), int(rng.integers(1_000, 100_000))) for lot in lots)) for b in range(10)
        )
        pairs = tuple((a, b) for a, b in combinations(range(10), 2) if rng.random() < 0.6)
        auction = Auction(lots, people, pairs)
        shares.append(clock(auction).welfare / run_auction(auction, "vcg").welfare)
    assert min(shares) > 0.95


@pytest.mark.parametrize(
    ("bids", "reserve", "winner", "payment"),
    [
        ({"a": 10, "b": 7}, 0, "a", 7),
        ({"a": 10, "b": 7}, 9, "a", 9),
        ({"a": 10, "b": 10}, 0, "a", 10),
        ({"b": 10, "a": 10}, 3, "a", 10),
        ({"a": 10}, 10, "a", 10),
        ({"a": 10}, 11, None, 0),
        ({"a": 10}, 0, "a", 0),
    ],
)
def test_second_price(bids, reserve, winner, payment):
    auction = Auction(("x",), tuple(Bidder(b, (Bid(("x",), p),)) for b, p in bids.items()), reserve={"x": reserve})
    outcome = run_auction(auction, "second_price")
    assert outcome.payments == ({winner: payment} if winner else {})
    assert outcome.exact


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        '{"lots":["x"],"bidders":[{"id":"a","bids":[{"lots":["y"],"price":1}]}]}',
        '{"lots":["x"],"bidders":[{"id":"a","bids":[{"lots":[],"price":1}]}]}',
        '{"lots":["x"],"bidders":[{"id":"a","bids":[{"lots":["x"],"price":-1}]}]}',
        '{"lots":["x"],"bidders":[{"id":"a","bids":[{"lots":["x"],"price":1.5}]}]}',
        '{"lots":["x"],"bidders":[{"id":"a","bids":[{"lots":["x"],"price":true}]}]}',
        '{"lots":["x"],"bidders":[{"id":"a","bids":[]},{"id":"a","bids":[]}]}',
        '{"lots":["x","x"],"bidders":[]}',
        '{"lots":["x"],"bidders":[{"id":"a","bids":[]}],"conflicts":[["a","b"]]}',
        '{"lots":["x"],"bidders":[{"id":"a","bids":[]}],"conflicts":[["a","a"]]}',
        '{"lots":["x"],"bidders":[],"reserve":{"y":1}}',
        '{"lots":["x"],"bidders":[],"asks":[{"id":"h","lot":"y","price":1}]}',
        '{"lots":["x"],"bidders":[],"auction":1}',
        '{"lots":["x"],"bidders":[{"id":1,"bids":[]},{"id":"1","bids":[]}]}',
    ],
)
def test_a_bad_auction_is_refused_whole(text):
    with pytest.raises(RefusedInput, match=r"bids\.json"):
        read_auction(text.encode(), "bids.json")
