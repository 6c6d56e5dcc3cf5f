"""Orders, clearing and settlement of the energy market."""

import pytest
from contracts_world import DAY, GRID, HOUR, HUB, MARKET, QUARTER, START, STOP, World, key

from gridpool.contracts import coins, energy
from gridpool.contracts.energy import CancelOrder, Countersign, Object, PlaceOrder, ReplaceOrder

T = START + 4 * QUARTER
END = T + QUARTER


@pytest.fixture
def world() -> World:
    made = World("abcd")
    made.tags(T)
    return made


def test_trade_is_paid_to_the_microcoin_after_two_intervals_of_silence(world: World) -> None:
    world.order("a", T, "buy", 1_000, 200_000)
    world.order("b", T, "sell", 600, 100_000)
    trades = world.close(T)
    assert [(t.quantity_wh, t.price, t.amount) for t in trades] == [(600, 150_000 + 50_000, 120_000)]
    world.chain.advance(END)
    assert world.read("a", T, 1_000, 0) == "ok"
    assert world.read("b", T, 0, 600) == "ok"
    world.chain.advance(END + HOUR)
    assert world.balance("b") == 10_000_000
    world.chain.advance(END + HOUR + 2 * QUARTER)
    assert world.balance("b") == 10_000_000 + 120_000
    residual = 400 * 300_000 // 1000
    assert world.balance("a") == 10_000_000 - 120_000 - residual
    assert world.balance(STOP) == 1_000_000_000 + residual
    world.chain.advance(END + 8 * DAY)
    assert world.balance("b") == 10_000_000 + 120_000 + 1_000_000  # the proof-of-flow reward


def test_countersignature_pays_at_once(world: World) -> None:
    world.order("a", T, "buy", 600, 200_000)
    world.order("b", T, "sell", 600, 100_000)
    world.close(T)
    world.chain.advance(END)
    world.read("a", T, 600, 0)
    world.read("b", T, 0, 600)
    world.chain.advance(END + HOUR)
    world.chain.expect(world.wallets["a"], Countersign(T))
    assert world.balance("b") == 10_000_000 + 90_000
    assert world.chain.submit(world.wallets["a"], Countersign(T)).code == "nothing_to_countersign"


def test_objection_holds_until_the_revised_run(world: World) -> None:
    world.order("a", T, "buy", 600, 200_000)
    world.order("b", T, "sell", 600, 100_000)
    world.close(T)
    world.chain.advance(END)
    world.read("a", T, 600, 0)
    world.read("b", T, 0, 600)
    world.chain.advance(END + HOUR)
    world.chain.expect(world.wallets["a"], Object(T, "my meter stood still"))
    world.chain.advance(END + HOUR + 4 * QUARTER)
    assert world.balance("b") == 10_000_000
    assert world.chain.submit(world.wallets["c"], Object(T, "x")).code == "nothing_to_object_to"
    world.chain.advance(END + DAY)
    assert world.balance("b") >= 10_000_000 + 90_000


def test_same_coin_never_backs_two_orders() -> None:
    world = World("ab", coins_each=100_000)
    world.tags(T)
    world.order("a", T, "buy", 400, 200_000)
    second = PlaceOrder(T, "buy", 400, 200_000)
    assert world.chain.submit(world.wallets["a"], second).code == "not_enough_coins"
    later = T + QUARTER
    world.tags(later)
    over_time = PlaceOrder(later, "buy", 101, 200_000)
    assert world.chain.submit(world.wallets["a"], over_time).code == "not_enough_coins"
    transfer = coins.Transfer(world.wallets["b"].public, 20_001)
    assert world.chain.submit(world.wallets["a"], transfer).code == "not_enough_coins"
    world.chain.expect(world.wallets["a"], CancelOrder(T, 0))
    world.order("a", later, "buy", 500, 200_000)


def test_order_across_an_order_of_the_same_member_is_refused(world: World) -> None:
    later = T + QUARTER
    world.tags(later, same="ab")
    world.order("a", later, "sell", 100, 150_000)
    crossing = PlaceOrder(later, "buy", 100, 150_000)
    assert world.chain.submit(world.wallets["b"], crossing).code == "would_trade_with_itself"
    world.order("b", later, "buy", 100, 149_999)
    assert (
        world.chain.submit(world.wallets["a"], PlaceOrder(later, "sell", 1, 149_999)).code == "would_trade_with_itself"
    )
    world.order("c", later, "buy", 100, 150_000)
    assert [(t.buyer, t.seller) for t in world.close(later)] == [(world.wallets["c"].public, world.wallets["a"].public)]


def test_orders_are_refused_where_nothing_stands_behind_them(world: World) -> None:
    a = world.wallets["a"]

    def code(*arguments: object, **more: object) -> str:
        return world.chain.submit(a, PlaceOrder(*arguments, **more)).code  # type: ignore[arg-type]

    assert code(T, "sell", 100_001, 1) == "beyond_plant"
    assert code(T, "buy", 100_001, 1) == "beyond_connection"
    assert code(T, "buy", 0, 1) == "quantity_out_of_range"
    assert code(T, "buy", 1, 10_000_001) == "price_off_range"
    assert code(T + 1, "buy", 1, 1) == "not_an_interval"
    assert code(T + 3 * DAY, "buy", 1, 1) == "too_early"
    assert code(T + QUARTER, "buy", 1, 1) == "tag_missing"
    assert code(T, "buy", 1, 1, loan=bytes(32)) == "no_such_token"
    assert world.chain.submit(key("nobody"), PlaceOrder(T, "buy", 1, 1)).code == "unknown_wallet"
    assert world.chain.submit(HUB, PlaceOrder(T, "buy", 1, 1)).code == "role_missing"
    world.chain.advance(T - world.market.lead_ms)
    assert code(T, "buy", 1, 1) == "gate_closed"


def test_cancel_and_replace_until_closure(world: World) -> None:
    first = world.order("a", T, "buy", 500, 200_000)
    assert world.chain.submit(world.wallets["b"], CancelOrder(T, first)).code == "no_such_order"
    world.chain.expect(world.wallets["a"], ReplaceOrder(T, first, 300, 210_000))
    assert coins.free(world.chain.state, world.wallets["a"].public) == 10_000_000 - 63_000
    assert world.chain.submit(world.wallets["a"], CancelOrder(T, first)).code == "no_such_order"
    world.chain.expect(world.wallets["a"], CancelOrder(T, 1))
    assert coins.free(world.chain.state, world.wallets["a"].public) == 10_000_000
    world.close(T)
    assert world.chain.submit(world.wallets["a"], ReplaceOrder(T, 1, 1, 1)).code == "gate_closed"


def test_seller_is_not_charged_for_the_buyers_shortfall(world: World) -> None:
    world.order("a", T, "buy", 1_000, 200_000)
    world.order("b", T, "sell", 1_000, 200_000)
    world.close(T)
    world.chain.advance(END)
    world.read("a", T, 100, 0)
    world.read("b", T, 0, 1_000)
    world.chain.advance(END + HOUR + 2 * QUARTER)
    assert world.balance("b") == 10_000_000 + 200_000
    untaken = 900 * 80_000 // 1000
    assert world.balance("a") == 10_000_000 - 200_000 + untaken


def test_buyer_is_not_charged_for_the_sellers_shortfall_and_no_wh_is_charged_twice(world: World) -> None:
    world.order("a", T, "buy", 1_000, 200_000)
    world.order("b", T, "sell", 1_000, 200_000)
    world.close(T)
    world.chain.advance(END)
    world.read("a", T, 1_000, 0)
    world.read("b", T, 0, 400)
    world.chain.advance(END + HOUR + 2 * QUARTER)
    assert world.balance("a") == 10_000_000 - 200_000
    tolerated, beyond = 100, 500
    cost = (tolerated * 300_000 + beyond * 360_000) // 1000 - 600 * 200_000 // 1000
    assert world.balance("b") == 10_000_000 + 400 * 200_000 // 1000 - cost
    assert world.balance(STOP) == 1_000_000_000 + 600 * 200_000 // 1000 + cost


def test_reading_between_contract_and_nomination_is_no_imbalance(world: World) -> None:
    world.order("a", T, "buy", 1_000, 200_000)
    world.order("b", T, "sell", 400, 200_000)
    world.close(T)
    world.chain.advance(END)
    world.read("a", T, 900, 0)
    world.read("b", T, 0, 400)
    world.chain.advance(END + HOUR)
    bill = world.chain.get(energy.BILLS, (T, world.wallets["a"].public))
    assert bill is not None
    assert (bill.extra_wh, bill.short_wh, bill.charge) == (500, 0, 150_000)


def test_late_and_corrected_readings_post_only_the_difference(world: World) -> None:
    world.order("a", T, "buy", 1_000, 200_000)
    world.order("b", T, "sell", 1_000, 200_000)
    world.close(T)
    world.chain.advance(END)
    world.read("a", T, 1_000, 0)
    world.chain.advance(END + HOUR + 2 * QUARTER)
    reading = world.chain.get(energy.READINGS, (T, world.wallets["b"].public))
    assert reading is not None
    assert reading.quality == "substituted"
    assert world.balance("b") == 10_000_000 + 200_000
    assert world.read("b", T, 0, 950) == "ok"
    assert world.read("b", T, 0, 960) == "reading_stands"
    assert world.read("a", T, 1_050, 0, "corrected") == "ok"
    world.chain.advance(END + DAY)
    cost = 50 * (300_000 - 200_000) // 1000
    assert world.balance("b") == 10_000_000 + 190_000 - cost
    assert world.balance("a") == 10_000_000 - 200_000 - 50 * 300
    assert world.read("b", T, 0, 1_000, "corrected") == "ok"
    world.chain.advance(END + DAY + 2 * HOUR)
    before = world.balance("b")
    world.chain.advance(END + 7 * DAY)
    assert world.balance("b") == before + 10_000 + cost
    assert world.read("b", T, 0, 1, "corrected") == "too_late"
    assert coins.balance(world.chain.state, GRID.public) == 0


def test_missing_reading_is_last_weeks_then_the_profile() -> None:
    world = World("ab")
    slots = tuple(range(96))
    profile = energy.Profile(slots, tuple(2 * n for n in slots))
    world.chain.expect(HUB, energy.RegisterProfile("H0", profile))
    meter = energy.NewMeter(world.wallets["a"].public, "battery", "", 500, 500, profile="H0", profile_ppm=10_000_000)
    world.chain.expect(HUB, energy.RegisterMeters((meter,)))
    world.chain.advance(END)
    world.chain.expect(HUB, energy.ReportMissing(T, (world.wallets["a"].public,)))
    key_of_a = (T, world.wallets["a"].public)
    stored = world.chain.get(energy.READINGS, key_of_a)
    assert stored is not None
    assert (stored.import_wh, stored.export_wh, stored.quality) == (40, 80, "substituted")
    assert world.read("a", T, 77, 0) == "ok"
    later = T + 7 * DAY
    world.chain.advance(later + QUARTER)
    world.chain.expect(HUB, energy.ReportMissing(later, (world.wallets["a"].public,)))
    stored = world.chain.get(energy.READINGS, (later, world.wallets["a"].public))
    assert stored is not None
    assert (stored.import_wh, stored.export_wh) == (77, 0)


def test_who_cannot_pay_is_in_arrears_until_the_next_income() -> None:
    world = World("ab", coins_each=0)
    a = world.wallets["a"]
    world.chain.advance(END)
    world.read("a", T, 1_000, 0)
    world.chain.advance(END + HOUR + 2 * QUARTER)
    owed = world.chain.get(energy.ARREARS, (a.public, STOP.public))
    assert owed is not None
    assert owed.amount == 300_000
    start = world.chain.now // QUARTER * QUARTER
    world.chain.advance(start + QUARTER)
    world.read("a", start, 0, 5_000)
    world.chain.advance(start + QUARTER + HOUR + 2 * QUARTER)
    assert world.chain.get(energy.ARREARS, (a.public, STOP.public)) is None
    assert world.balance("a") == 5_000 * 80 - 300_000


def test_reward_goes_to_the_largest_metered_seller_of_the_aggregator(world: World) -> None:
    for name, quantity in (("b", 500), ("c", 700)):
        world.order(name, T, "sell", quantity, 100_000)
    world.order("a", T, "buy", 1_200, 100_000)
    world.close(T)
    world.chain.advance(END)
    world.read("a", T, 1_200, 0)
    world.read("b", T, 0, 500)
    world.read("c", T, 0, 300)
    world.chain.advance(START + DAY + 3 * HOUR)
    assert world.balance("b") == 10_000_000 + 50_000 + 1_000_000
    assert world.balance(MARKET) == 1_000_000_000 - 1_000_000


def test_no_match_is_a_normal_result(world: World) -> None:
    world.order("a", T, "buy", 100, 100_000)
    world.order("b", T, "sell", 100, 100_001)
    assert world.close(T) == []
    interval = world.chain.get(energy.INTERVALS, T)
    assert interval is not None
    assert (interval.status, interval.volume_wh, interval.price) == ("cleared", 0, None)
    assert coins.free(world.chain.state, world.wallets["a"].public) == 10_000_000


def test_half_a_microcoin_falls_on_one_buyer_within_what_it_reserved(world: World) -> None:
    """Two buyers of 1 Wh at 500: half a micro-coin each, so one pays 1 and the other 0."""
    for name in "ab":
        world.order(name, T, "buy", 1, 500)
        assert coins.free(world.chain.state, world.wallets[name].public) == 10_000_000 - 1
    world.order("c", T, "sell", 2, 500)
    trades = world.close(T)
    assert sorted(trade.amount for trade in trades) == [0, 1]
    assert all(trade.amount == trade.received for trade in trades)


def test_bill_never_takes_coins_that_back_an_open_order() -> None:
    world = World("ab", coins_each=1_000_000)
    world.chain.advance(END)
    world.read("a", T, 2_000, 0)
    later = T + 9 * QUARTER
    world.tags(later)
    world.order("a", later, "buy", 5_000, 200_000)
    world.chain.advance(END + HOUR + 2 * QUARTER)
    owed = world.chain.get(energy.ARREARS, (world.wallets["a"].public, STOP.public))
    assert owed is not None
    assert owed.amount == 600_000
    assert world.balance("a") == 1_000_000
    world.close(later)
    world.chain.expect(world.wallets["a"], energy.PayArrears())
    assert world.balance("a") == 400_000
