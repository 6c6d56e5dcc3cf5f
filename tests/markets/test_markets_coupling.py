"""Areas joined by grid fees against a linear program, and certificates that outside matchers cannot bend."""

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from gridpool.errors import RefusedInput
from gridpool.markets.certificate import Certificate, Proposal, propose, verify_certificate
from gridpool.markets.coupling import clear_areas, closed_fees
from gridpool.markets.double_auction import clear
from gridpool.markets.orders import Order

FEE = {("A", "B"): 2}


@st.composite
def area_books(draw):
    areas = draw(st.sampled_from(["A", "AB", "ABC", "ABCD"]))
    row = st.tuples(
        st.sampled_from(["buy", "sell"]),
        st.integers(1, 9),
        st.integers(0, 12) | st.sampled_from([3.4, 6.1, 6.9]),
        st.sampled_from(list(areas)),
    )
    rows = draw(st.lists(row, min_size=1, max_size=14))
    pairs = [(a, b) for a in areas for b in areas if a < b]
    fees = {pair: draw(st.integers(0, 6)) for pair in pairs if draw(st.integers(0, 4))}
    return [Order(f"o{i}", s, q * 1000, round(p * 1000), f"w{i}", a) for i, (s, q, p, a) in enumerate(rows)], {
        pair: fee * 1000 for pair, fee in fees.items()
    }


@given(area_books(), st.sampled_from(["arrival", "pro_rata"]), st.integers(0, 1_000_000))
@settings(deadline=None, max_examples=120)
def test_coupled_areas_reach_the_linear_programs_welfare_and_volume(case, rationing, k_ppm):
    book, fees = case
    clearing = clear_areas(book, coupling="fee", fees=fees, rationing=rationing, k_ppm=k_ppm, tick=1000)
    closed = closed_fees(sorted({o.area for o in book}), fees)
    bids = [o for o in book if o.side == "buy"]
    asks = [o for o in book if o.side == "sell"]
    pairs = [(b, s) for b in range(len(bids)) for s in range(len(asks)) if (asks[s].area, bids[b].area) in closed]
    best = volume = 0.0
    if pairs:
        gain = np.array([bids[b].price - asks[s].price - closed[asks[s].area, bids[b].area] for b, s in pairs]) / 1000
        limits = np.zeros((len(book), len(pairs)))
        for k, (b, s) in enumerate(pairs):
            limits[b, k] = limits[len(bids) + s, k] = 1
        solved = linprog(-gain - 1e-4, A_ub=limits, b_ub=[o.quantity_wh / 1000 for o in bids + asks])
        best, volume = float(gain @ solved.x), float(solved.x.sum())
    by_id = {o.id: o for o in book}
    ours = sum(
        t.quantity_wh
        * (by_id[t.buy_id].price - by_id[t.sell_id].price - closed[by_id[t.sell_id].area, by_id[t.buy_id].area])
        for t in clearing.trades
    )
    assert ours / 1e6 == pytest.approx(best, abs=1e-6)
    assert clearing.volume_wh / 1000 == pytest.approx(volume, abs=1e-6)
    # money: buyers pay sellers and fees to the unit; energy prices of two areas differ by at most the fee
    assert sum(clearing.payments.values()) == clearing.fees == clearing.surplus == sum(t.fee for t in clearing.trades)
    for one, price in clearing.area_prices.items():
        for other, higher in clearing.area_prices.items():
            if (one, other) in closed:
                assert abs(higher - price) <= closed[one, other]
    for t in clearing.trades:
        seller, buyer = by_id[t.sell_id].area, by_id[t.buy_id].area
        assert t.price == clearing.area_prices[seller]
        assert clearing.area_prices[buyer] - clearing.area_prices[seller] == closed[seller, buyer]
        assert abs(t.fee - closed[seller, buyer] * t.quantity_wh / 1000) < 1


@given(area_books())
@settings(deadline=None, max_examples=60)
def test_one_area_coupled_is_the_plain_auction(case):
    book, _ = case
    book = [msgspec.structs.replace(o, area="A") for o in book]
    coupled, plain = clear_areas(book, coupling="fee", fees={}), clear(book)
    assert (coupled.volume_wh, coupled.price, coupled.payments) == (plain.volume_wh, plain.price, plain.payments)


def test_uncoupled_areas_are_cleared_alone_and_a_fee_above_the_spread_keeps_them_apart():
    book = [Order("b", "buy", 1000, 9, "B", "A"), Order("s", "sell", 1000, 4, "S", "B")]
    assert clear_areas(book, coupling="none").volume_wh == 0
    assert clear_areas(book, coupling="fee", fees={("A", "B"): 6}).volume_wh == 0
    joined = clear_areas(book, coupling="fee", fees={("A", "B"): 5})
    assert joined.area_prices == {"A": 9, "B": 4}
    assert joined.price is None
    assert (joined.trades[0].amount, joined.trades[0].fee, joined.payments) == (4, 5, {"B": 9, "S": -4})


def test_a_fill_in_parts_pays_the_fee_once():
    """One bid served by three sellers of another area: the fee is charged on each Wh once, to the unit."""
    book = [Order("b", "buy", 1000, 9000, "B", "A")]
    book += [Order(f"s{i}", "sell", q, 4000, f"S{i}", "B") for i, q in enumerate((333, 334, 400))]
    clearing = clear_areas(book, coupling="fee", fees={("A", "B"): 3000})
    assert [t.quantity_wh for t in clearing.trades] == [333, 334, 333]
    assert 3000 - len(clearing.trades) < clearing.fees <= 3000
    assert clearing.payments["B"] == clearing.fees + sum(t.amount for t in clearing.trades) == 7000


def test_a_cheaper_way_through_a_third_area_sets_the_fee():
    assert closed_fees(["A", "B", "C"], {("A", "B"): 9, ("A", "C"): 2, ("C", "B"): 3})["B", "A"] == 5


@pytest.mark.parametrize("fees", [{("A", "B"): -1}, {("A", "B"): 3}, {("A", "B"): 2, ("B", "A"): 4}])
def test_bad_fees_are_refused(fees):
    with pytest.raises(RefusedInput):
        clear_areas([Order("b", "buy", 1, 2, "B", "A")], coupling="fee", fees=fees, tick=2)


def marginal_book() -> list[Order]:
    """Three equal bids compete for what the cheap seller and part of the dear one leave."""
    return [
        Order("sure", "buy", 1000, 9000, "U"),
        Order("first", "buy", 600, 5000, "V"),
        Order("friend", "buy", 600, 5000, "W"),
        Order("s1", "sell", 1500, 1000, "S"),
        Order("s2", "sell", 500, 4000, "T"),
    ]


@pytest.mark.parametrize("rule", ["uniform", "pay_as_bid"])
@pytest.mark.parametrize("rationing", ["arrival", "pro_rata"])
def test_an_honest_proposal_is_accepted(rule, rationing):
    proposal = propose(marginal_book(), rule=rule, rationing=rationing)
    verify_certificate(marginal_book(), proposal, rule=rule, rationing=rationing)


@given(area_books(), st.sampled_from(["arrival", "pro_rata"]))
@settings(deadline=None, max_examples=80)
def test_honest_proposals_pass_and_shrunk_ones_do_not(case, rationing):
    book, fees = case
    for market in ({"coupling": "fee", "fees": fees}, {"rule": "uniform"}, {"rule": "pay_as_bid"}):
        proposal = propose(book, rationing=rationing, **market)
        verify_certificate(book, proposal, rationing=rationing, **market)
        if not proposal.clearing.trades:
            continue
        trades = list(proposal.clearing.trades)
        last = trades.pop()
        if last.quantity_wh > 1:
            trades.append(msgspec.structs.replace(last, quantity_wh=last.quantity_wh - 1))
        shrunk = msgspec.structs.replace(
            proposal.clearing, trades=tuple(trades), volume_wh=proposal.clearing.volume_wh - 1
        )
        with pytest.raises(RefusedInput):
            verify_certificate(book, Proposal(shrunk, proposal.certificate), rationing=rationing, **market)


@pytest.mark.parametrize("rule", ["uniform", "pay_as_bid"])
def test_a_matcher_that_favours_a_friend_at_the_marginal_tick_is_refused(rule):
    book = marginal_book()
    # the matcher clears as if its friend had come first; welfare and volume are the greatest all the same
    bent = propose([book[0], book[2], book[1], *book[3:]], rule=rule)
    assert bent.certificate.welfare == propose(book, rule=rule).certificate.welfare
    with pytest.raises(RefusedInput, match=r"'first' with 400 Wh; arrival rationing gives it 600"):
        verify_certificate(book, bent, rule=rule)
    with pytest.raises(RefusedInput, match="pro_rata rationing"):
        verify_certificate(book, bent, rule=rule, rationing="pro_rata")


def test_a_matcher_that_withholds_one_unit_to_move_the_price_is_refused():
    """One Wh of the marginal bid left open would lift the price from the middle to the bid."""
    book = [Order("b", "buy", 1000, 8000, "B"), Order("s", "sell", 1000, 2000, "S")]
    assert clear(book).price == 5000
    short = clear([msgspec.structs.replace(book[0], quantity_wh=999), book[1]])
    assert short.price != 5000
    for price in (2000, 5000, 8000):
        for welfare in (999 * 6000, 1000 * 6000):
            with pytest.raises(RefusedInput, match=r"welfare|unfilled"):
                verify_certificate(book, Proposal(short, Certificate({"": price}, welfare, 999)))


def test_a_proposal_may_choose_neither_price_nor_money_nor_rule():
    book = marginal_book()
    honest = propose(book)
    clearing = honest.clearing
    moved = msgspec.structs.replace(clearing.trades[0], amount=clearing.trades[0].amount + 1)
    lies = [
        msgspec.structs.replace(clearing, price=4999),
        msgspec.structs.replace(clearing, payments=clearing.payments | {"W": 0}),
        msgspec.structs.replace(clearing, trades=(moved, *clearing.trades[1:])),
        msgspec.structs.replace(clearing, trades=clearing.trades[::-1]),
        msgspec.structs.replace(clearing, rule="pay_as_bid"),
    ]
    for lie in lies:
        with pytest.raises(RefusedInput):
            verify_certificate(book, Proposal(lie, honest.certificate))
    pair = [Order("b", "buy", 1000, 8000, "B"), Order("s", "sell", 1000, 2000, "S")]
    with pytest.raises(RefusedInput, match="prices"):
        verify_certificate(pair, propose(pair, k_ppm=0), k_ppm=500_000)
    with pytest.raises(RefusedInput, match="not vcg"):
        propose(book, rule="vcg")


def test_zero_gain_trades_may_not_be_left_out():
    """A match of greatest welfare but smaller volume is refused for the pair it leaves unfilled."""
    kept = [Order("b", "buy", 1000, 9000, "B"), Order("s", "sell", 1000, 4000, "S")]
    book = [*kept, Order("z1", "buy", 500, 6000, "Y"), Order("z2", "sell", 500, 6000, "Z")]
    full = propose(book)
    assert full.clearing.volume_wh == 1500
    verify_certificate(book, full)
    smaller = Proposal(clear(kept, k_ppm=400_000), Certificate({"": 6000}, full.certificate.welfare, 1000))
    with pytest.raises(RefusedInput, match="unfilled"):
        verify_certificate(book, smaller, k_ppm=400_000)
