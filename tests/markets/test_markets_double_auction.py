"""The five rules: closed forms, slow references, and conservation to the unit."""

from fractions import Fraction

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gridpool.errors import RefusedInput
from gridpool.markets.double_auction import clear
from gridpool.markets.orders import INTEGER_LIMIT, Order

RULES = ("uniform", "pay_as_bid", "mcafee", "trade_reduction", "vcg")
COIN = 1_000_000


def unit_book() -> list[Order]:
    bids = [Order(f"b{p}", "buy", 1000, p * COIN, f"B{p}") for p in (10, 8, 6, 4)]
    return bids + [Order(f"s{p}", "sell", 1000, p * COIN, f"S{p}") for p in (1, 3, 5, 7)]


@st.composite
def books(draw, most=24, owners=8, top=15, unit=None, step=1):
    order = st.tuples(
        st.sampled_from(["buy", "sell"]),
        st.integers(1, 3000) if unit is None else st.just(unit),
        st.integers(0, top).map(lambda p: p * step),
        st.integers(0, owners - 1),
    )
    rows = draw(st.lists(order, max_size=most))
    book = [Order(f"o{i}", side, q, p, f"w{w}") for i, (side, q, p, w) in enumerate(rows)]
    bid: dict[str, int] = {}
    ask: dict[str, int] = {}
    for o in book:
        if o.side == "buy":
            bid[o.owner] = max(o.price, bid.get(o.owner, -1))
        else:
            ask[o.owner] = min(o.price, ask.get(o.owner, 10**9))
    return [o for o in book if not (o.owner in bid and o.owner in ask and bid[o.owner] >= ask[o.owner])]


def brute_volume(book):
    """Greatest min(demand, supply) over all prices, by definition of the curves."""
    prices = {o.price for o in book}
    return max(
        (
            min(
                sum(o.quantity_wh for o in book if o.side == "buy" and o.price >= p),
                sum(o.quantity_wh for o in book if o.side == "sell" and o.price <= p),
            )
            for p in prices
        ),
        default=0,
    )


def welfare(book):
    """Greatest gain of trade, by matching single best Wh blocks in sorted order."""
    bids = sorted(((o.price, o.quantity_wh) for o in book if o.side == "buy"), reverse=True)
    asks = sorted((o.price, o.quantity_wh) for o in book if o.side == "sell")
    total = i = j = 0
    left_bid = left_ask = 0
    while True:
        if not left_bid:
            if i == len(bids):
                return total
            bid, left_bid = bids[i]
            i += 1
        if not left_ask:
            if j == len(asks):
                return total
            ask, left_ask = asks[j]
            j += 1
        if bid <= ask:
            return total
        q = min(left_bid, left_ask)
        total += q * (bid - ask)
        left_bid -= q
        left_ask -= q


def test_closed_forms_of_the_unit_market():
    uniform = clear(unit_book(), rule="uniform")
    assert (uniform.volume_wh, uniform.price) == (3000, 5_500_000)
    mcafee = clear(unit_book(), rule="mcafee")
    assert (mcafee.volume_wh, mcafee.price) == (3000, 5_500_000)
    vcg = clear(unit_book(), rule="vcg")
    assert (vcg.volume_wh, vcg.buy_price, vcg.sell_price, vcg.price) == (3000, 5 * COIN, 6 * COIN, None)
    assert vcg.deficit == 3 * COIN
    reduction = clear(unit_book(), rule="trade_reduction")
    assert (reduction.volume_wh, reduction.buy_price, reduction.sell_price) == (2000, 6 * COIN, 5 * COIN)
    assert reduction.surplus == 2 * COIN


def test_mcafee_drops_the_marginal_pair_where_its_price_does_not_fit():
    book = [Order("b9", "buy", 1000, 9, "B9"), Order("b5", "buy", 1000, 5, "B5"), Order("b0", "buy", 1000, 0, "B0")]
    book += [Order("s1", "sell", 1000, 1, "S1"), Order("s4", "sell", 1000, 4, "S4"), Order("s7", "sell", 1000, 7, "S7")]
    # the middle of the excluded pair, 3, is below the marginal ask 4
    clearing = clear(book, rule="mcafee")
    assert (clearing.volume_wh, clearing.buy_price, clearing.sell_price) == (1000, 5, 4)


def test_k_moves_the_uniform_price_over_the_interval_and_down_to_the_tick():
    assert clear(unit_book(), k_ppm=0).price == 5 * COIN
    assert clear(unit_book(), k_ppm=1_000_000).price == 6 * COIN
    assert clear(unit_book(), k_ppm=999_999, tick=COIN).price == 5 * COIN
    assert clear(unit_book(), k_ppm=123_456, tick=1000).price == 5_123_000
    # an interval that holds no multiple of the tick: the seller is not paid less than it asked
    assert clear(unit_book(), k_ppm=0, tick=7 * COIN).price == 5 * COIN


@pytest.mark.parametrize("rule", RULES)
@given(data=st.data())
@settings(deadline=None, max_examples=60)
def test_money_and_energy_are_conserved_to_the_unit(rule, data):
    book = data.draw(books())
    rationing = data.draw(st.sampled_from(["arrival", "pro_rata"]))
    clearing = clear(book, rule=rule, k_ppm=data.draw(st.integers(0, 1_000_000)), rationing=rationing)
    assert sum(clearing.payments.values()) == clearing.surplus - clearing.deficit
    assert clearing.surplus * clearing.deficit == 0
    assert sum(t.amount - t.received for t in clearing.trades) == clearing.surplus - clearing.deficit
    by_id = {o.id: o for o in book}
    money: dict[str, int] = {}
    for t in clearing.trades:
        assert t.quantity_wh > 0
        assert by_id[t.buy_id].side == "buy"
        assert by_id[t.sell_id].side == "sell"
        assert by_id[t.buy_id].owner != by_id[t.sell_id].owner
        money[by_id[t.buy_id].owner] = money.get(by_id[t.buy_id].owner, 0) + t.amount
        money[by_id[t.sell_id].owner] = money.get(by_id[t.sell_id].owner, 0) - t.received
    assert money == clearing.payments
    for order_id, filled in clearing.filled_wh().items():
        assert filled <= by_id[order_id].quantity_wh
    assert clearing.volume_wh == sum(t.quantity_wh for t in clearing.trades)
    if rule in ("uniform", "mcafee") and clearing.price is not None:
        assert clearing.surplus == clearing.deficit == 0
    if rule in ("uniform", "pay_as_bid", "vcg"):
        assert clearing.volume_wh == brute_volume(book)
    if rule == "vcg":
        assert clearing.surplus == 0 or clearing.deficit == 0
    else:
        assert clearing.deficit == 0


@pytest.mark.parametrize("rule", RULES)
@given(data=st.data())
@settings(deadline=None, max_examples=60)
def test_no_order_pays_above_its_bid_or_gets_below_its_ask(rule, data):
    book = data.draw(books(owners=24))
    by_id = {o.id: o for o in book}
    clearing = clear(book, rule=rule)
    paid: dict[str, int] = {}
    got: dict[str, int] = {}
    parts: dict[str, int] = {}
    for t in clearing.trades:
        paid[t.buy_id] = paid.get(t.buy_id, 0) + t.amount
        got[t.sell_id] = got.get(t.sell_id, 0) + t.received
        parts[t.sell_id] = parts.get(t.sell_id, 0) + 1
    filled = clearing.filled_wh()
    for order_id, amount in paid.items():
        if rule != "vcg":  # under vcg the owner as a whole does not lose; its orders share one payment
            assert amount <= -(-by_id[order_id].price * filled[order_id] // 1000)
    for order_id, amount in got.items():
        if rule != "vcg":
            assert amount > by_id[order_id].price * filled[order_id] // 1000 - parts[order_id]


@given(books())
@settings(deadline=None, max_examples=150)
def test_uniform_amounts_stay_within_one_unit_of_price_times_energy(book):
    clearing = clear(book)
    for t in clearing.trades:
        assert abs(t.amount - Fraction(t.price * t.quantity_wh, 1000)) < 1
        assert t.amount == t.received
    if clearing.price is not None:
        assert sum(t.amount for t in clearing.trades) == clearing.price * clearing.volume_wh // 1000


@given(books())
@settings(deadline=None, max_examples=150)
def test_uniform_price_supports_the_match(book):
    """No filled order is worse off at the price and no unfilled one would rather trade."""
    clearing = clear(book)
    filled = clearing.filled_wh()
    if clearing.price is None:
        assert brute_volume(book) == 0
        return
    for o in book:
        gain = (o.price - clearing.price) if o.side == "buy" else (clearing.price - o.price)
        if gain > 0:
            assert filled.get(o.id, 0) == o.quantity_wh
        if gain < 0:
            assert o.id not in filled


@given(books(most=16, owners=6))
@settings(deadline=None, max_examples=200)
def test_vcg_equals_recomputing_the_welfare_without_each_owner(book):
    clearing = clear(book, rule="vcg")
    by_id = {o.id: o for o in book}
    value: dict[str, int] = {}
    for t in clearing.trades:
        bid, ask = by_id[t.buy_id], by_id[t.sell_id]
        value[bid.owner] = value.get(bid.owner, 0) + bid.price * t.quantity_wh
        value[ask.owner] = value.get(ask.owner, 0) - ask.price * t.quantity_wh
    whole = welfare(book)
    assert sum(value.values()) == whole
    for owner in {o.owner for o in book}:
        others = whole - value.get(owner, 0)
        pivot = welfare([o for o in book if o.owner != owner]) - others
        assert abs(clearing.payments.get(owner, 0) - Fraction(pivot, 1000)) < 1


@pytest.mark.parametrize("unit", [1000, None])
@given(data=st.data())
@settings(deadline=None, max_examples=150)
def test_no_order_gains_by_misreporting_its_price_under_the_truthful_rules(unit, data):
    """McAfee, trade reduction and VCG: the report changes, the true value stays; utility rises by rounding at most."""
    book = data.draw(books(most=12, owners=12, unit=unit, top=12, step=1000).filter(bool))
    assume(len({o.owner for o in book}) == len(book))
    position = data.draw(st.integers(0, len(book) - 1))
    true = book[position]
    reported = list(book)
    lie = data.draw(st.integers(0, 12)) * 1000
    reported[position] = Order(true.id, true.side, true.quantity_wh, lie, true.owner)

    def utility(clearing):
        filled = clearing.filled_wh().get(true.id, 0)
        sign = 1 if true.side == "buy" else -1
        return sign * Fraction(true.price * filled, 1000) - clearing.payments.get(true.owner, 0)

    for rule in ("mcafee", "trade_reduction", "vcg"):
        assert utility(clear(reported, rule=rule)) <= utility(clear(book, rule=rule)) + 2


@given(books(most=16, owners=16))
@settings(deadline=None, max_examples=100)
def test_trade_reduction_takes_equal_parts_from_the_long_side(book):
    clearing = clear(book, rule="trade_reduction")
    filled = clearing.filled_wh()
    by_id = {o.id: o for o in book}
    for side in ("buy", "sell"):
        burdens = [(by_id[i].quantity_wh - q, q) for i, q in filled.items() if by_id[i].side == side]
        # whoever still trades bears the same, to one Wh
        if burdens:
            assert max(b for b, _ in burdens) - min(b for b, _ in burdens) <= 1


def test_pro_rata_shares_the_last_tick_and_arrival_serves_the_first():
    book = [Order("s", "sell", 100, 5, "S"), Order("a", "buy", 150, 7, "A"), Order("b", "buy", 50, 7, "B")]
    assert clear(book).filled_wh() == {"a": 100, "s": 100}
    assert clear(book, rationing="pro_rata").filled_wh() == {"a": 75, "b": 25, "s": 100}


def test_a_residue_of_one_unit_left_by_rounding_does_not_set_the_price():
    """Pro rata over three equal orders of a supply that three does not divide leaves no order of its own behind."""
    asks = [Order("s", "sell", 1000, 2 * COIN, "S")]
    thirds = [Order(f"b{i}", "buy", q, 8 * COIN, f"B{i}") for i, q in enumerate((333, 333, 334))]
    whole = [Order("b", "buy", 1000, 8 * COIN, "B")]
    for rationing in ("arrival", "pro_rata"):
        split = clear(asks + thirds, rationing=rationing)
        assert split.volume_wh == 1000
        # demand equals supply exactly, so the price is the middle as for one whole order, not the bid
        assert split.price == clear(asks + whole, rationing=rationing).price == 5 * COIN
        assert split.filled_wh() == {"s": 1000, "b0": 333, "b1": 333, "b2": 334}


@given(books(most=12, owners=12), st.data())
@settings(deadline=None, max_examples=100)
def test_splitting_an_order_changes_neither_price_nor_volume(book, data):
    assume(book)
    at = data.draw(st.integers(0, len(book) - 1))
    order = book[at]
    assume(order.quantity_wh > 1)
    part = data.draw(st.integers(1, order.quantity_wh - 1))
    one = Order("p1", order.side, part, order.price, order.owner)
    two = Order("p2", order.side, order.quantity_wh - part, order.price, order.owner)
    split = clear([*book[:at], one, two, *book[at + 1 :]])
    whole = clear(book)
    assert (split.price, split.volume_wh) == (whole.price, whole.volume_wh)


def test_an_owner_that_reaches_itself_is_refused_and_both_orders_are_named():
    book = [*unit_book(), Order("mine", "sell", 10, 8 * COIN, "B8")]
    for rule in RULES:
        with pytest.raises(RefusedInput, match=r"'b8'.*'mine'"):
            clear(book, rule=rule)


@pytest.mark.parametrize(
    "bad",
    [
        Order("b10", "buy", 5, 5, "X"),
        Order("x", "buy", 0, 5, "X"),
        Order("x", "sell", 5, -1, "X"),
        Order("x", "hold", 5, 5, "X"),
        Order("x", "buy", INTEGER_LIMIT, 10**9, "X"),
    ],
)
def test_bad_orders_are_refused(bad):
    with pytest.raises(RefusedInput):
        clear([*unit_book(), bad])


def test_bad_settings_are_refused():
    for keywords in ({"k_ppm": -1}, {"k_ppm": 1_000_001}, {"tick": 0}, {"rule": "x"}, {"rationing": "x"}):
        with pytest.raises(RefusedInput):
            clear(unit_book(), **keywords)


@pytest.mark.parametrize("rule", RULES)
def test_no_trade_is_a_normal_result(rule):
    for book in ([], unit_book()[:4], [Order("b", "buy", 1, 1, "B"), Order("s", "sell", 1, 2, "S")]):
        clearing = clear(book, rule=rule)
        assert (clearing.volume_wh, clearing.price, clearing.buy_price, clearing.sell_price) == (0, None, None, None)
        assert (clearing.trades, clearing.payments, clearing.surplus, clearing.deficit) == ((), {}, 0, 0)
