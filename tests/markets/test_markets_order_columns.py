"""Histogram clearing against the plain sort-based one."""

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridpool.bench.markets import draw_columns, run
from gridpool.errors import RefusedInput
from gridpool.markets.double_auction import clear
from gridpool.markets.order_columns import MAX_TICKS, SideColumns, clear_columns
from gridpool.markets.orders import Order


def columns(book, names, tick, dtype):
    return SideColumns(
        price=np.array([o.price // tick for o in book], dtype),
        quantity=np.array([o.quantity_wh for o in book], dtype),
        owner=np.array([names[o.owner] for o in book], np.int32),
    )


@given(
    rows=st.lists(
        st.tuples(st.booleans(), st.integers(1, 400), st.integers(0, 30), st.integers(0, 9)), min_size=1, max_size=40
    ),
    ticks=st.sampled_from([31, 1000, MAX_TICKS + 1]),
    tick=st.sampled_from([1, 7, 1000]),
    dtype=st.sampled_from([np.int32, np.int64]),
    k_ppm=st.integers(0, 1_000_000),
)
@settings(deadline=None, max_examples=300)
def test_histograms_give_what_sorting_gives(rows, ticks, tick, dtype, k_ppm):
    # an owner keeps to one side, or offers dearer than it bids
    book = [
        Order(f"o{i}", "buy" if buys else "sell", q, (p if buys else p + (31 if o < 3 else 0)) % 62 * tick, f"w{o}")
        for i, (buys, q, p, o) in enumerate(rows)
    ]
    book = [o for o in book if o.owner in ("w0", "w1", "w2") or (o.side == "buy") == (o.owner in ("w3", "w4", "w5"))]
    ticks = max(ticks, 62)
    names: dict[str, int] = {}
    for o in book:
        names.setdefault(o.owner, len(names))
    bids, asks = [o for o in book if o.side == "buy"], [o for o in book if o.side == "sell"]
    for rule in ("uniform", "trade_reduction", "vcg"):
        slow = clear(book, rule=rule, tick=tick, k_ppm=k_ppm)
        fast = clear_columns(
            columns(bids, names, tick, dtype),
            columns(asks, names, tick, dtype),
            rule=rule,
            ticks=ticks,
            tick=tick,
            k_ppm=k_ppm,
        )
        assert fast.volume_wh == slow.volume_wh
        if not slow.volume_wh:
            continue
        filled = slow.filled_wh()
        if rule != "vcg":
            assert (fast.buy_price * tick, fast.sell_price * tick) == (slow.buy_price, slow.sell_price)
        if rule == "uniform":
            for side, last, last_wh in (
                (bids, fast.last_bid, fast.last_bid_wh),
                (asks, fast.last_ask, fast.last_ask_wh),
            ):
                assert sum(filled.get(o.id, 0) for o in side if o.price == last * tick) == last_wh
        if rule == "trade_reduction":
            assert fast.bought.tolist() == [filled.get(o.id, 0) for o in bids]
            assert fast.sold.tolist() == [filled.get(o.id, 0) for o in asks]
        if rule == "vcg":
            for owner, number in names.items():
                paid = int(fast.paid[number]) if number < fast.paid.size else 0
                received = int(fast.received[number]) if number < fast.received.size else 0
                assert paid - received == slow.payments.get(owner, 0)


def test_a_large_book_agrees_with_numpys_sort():
    bids, asks = draw_columns(200_000, np.random.default_rng(11))
    down, up = np.argsort(-bids.price, kind="stable"), np.argsort(asks.price, kind="stable")
    demand, supply = np.cumsum(bids.quantity[down]), np.cumsum(asks.quantity[up])
    # for each ask in merit order, what was demanded at its price or more
    at_or_above = np.searchsorted(-bids.price[down], -asks.price[up], side="right")
    wanted = np.concatenate(([0], demand))[at_or_above]
    expected = max(np.minimum(wanted, supply))
    assert clear_columns(bids, asks, ticks=10_000).volume_wh == expected


def test_bad_columns_are_refused():
    good = SideColumns(np.array([1, 2]), np.array([3, 4]), np.array([0, 1]))
    for bad in (
        SideColumns(np.array([1, 9]), good.quantity, good.owner),
        SideColumns(np.array([1, -1]), good.quantity, good.owner),
        SideColumns(good.price, np.array([0, 1]), good.owner),
        SideColumns(good.price, np.array([1]), good.owner),
        SideColumns(good.price, np.array([1.0, 2.0]), good.owner),
        SideColumns(good.price, np.array([2**62, 2]), good.owner),
        msgspec.structs.replace(good, owner=None),
        msgspec.structs.replace(good, owner=np.array([0, 2**40])),
    ):
        for ticks in (5, MAX_TICKS + 1) if bad.price.max() < 5 else (5,):
            with pytest.raises(RefusedInput):
                clear_columns(good, bad, rule="vcg", ticks=ticks)


def test_an_empty_side_trades_nothing():
    nothing = SideColumns(np.array([], np.int64), np.array([], np.int64), np.array([], np.int64))
    some = SideColumns(np.array([1, 2]), np.array([3, 4]), np.array([0, 1]))
    for rule in ("uniform", "trade_reduction", "vcg"):
        for ticks in (5, MAX_TICKS + 1):
            assert clear_columns(nothing, some, rule=rule, ticks=ticks).volume_wh == 0
            assert clear_columns(nothing, nothing, rule=rule, ticks=ticks).volume_wh == 0


def test_the_quick_benchmark_reports_its_fields():
    figures = run(orders=20_000, repeats=2)
    assert {"orders", "read_s", "uniform_s", "vcg_s", "trade_reduction_s"} <= set(figures)
    assert figures["orders"] == 20_000
    assert all(value > 0 for value in figures.values())
