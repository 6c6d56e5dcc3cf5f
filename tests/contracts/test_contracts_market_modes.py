"""Market modes: every rule, sealed orders, coupled areas, outside matchers, a broker's price, several aggregators."""

import msgspec
import pytest
from contracts_world import COUNCIL, DAY, GRID, HOUR, HUB, MARKET, QUARTER, START, STOP, World, key

from gridpool.contracts import coins, energy, members
from gridpool.contracts.energy import (
    AreaFee,
    CommitOrder,
    MoveMeter,
    PlaceOrder,
    PostQuote,
    RevealOrder,
    SetEnergyParameters,
    book_of,
    market_orders,
    proposal_of,
    sealed_digest,
    tag_message,
)
from gridpool.contracts.members import Admit, NewMember, Role, propose
from gridpool.ledger.contract import Context, Refused
from gridpool.ledger.state import Layer
from gridpool.markets import certificate

T = START + 4 * QUARTER
END = T + QUARTER
M = 1_000_000


def closed_form(rule: str) -> tuple[World, list[energy.Trade]]:
    """Unit buyers at 10, 8, 6, 4 and sellers at 1, 3, 5, 7 (x 10^6), 1 kWh each."""
    world = World("abcdefgh", coins_each=100 * M, rule=rule, cap=10 * M)
    world.tags(T)
    for name, price in zip("abcd", (10, 8, 6, 4), strict=True):
        world.order(name, T, "buy", 1_000, price * M)
    for name, price in zip("efgh", (1, 3, 5, 7), strict=True):
        world.order(name, T, "sell", 1_000, price * M)
    return world, world.close(T)


@pytest.mark.parametrize(
    ("rule", "trades", "paid", "received"),
    [
        ("uniform", 3, 5.5, 5.5),
        ("mcafee", 3, 5.5, 5.5),
        ("vcg", 3, 5, 6),
        ("trade_reduction", 2, 6, 5),
    ],
)
def test_unit_market_clears_as_in_closed_form(rule: str, trades: int, paid: float, received: float) -> None:
    world, made = closed_form(rule)
    assert len(made) == trades
    assert {trade.amount for trade in made} == {int(paid * M)}
    assert {trade.received for trade in made} == {int(received * M)}
    world.chain.advance(END)
    for name in "abcd":
        world.read(name, T, 1_000 if name in "abc"[:trades] else 0, 0)
    for name in "efgh":
        world.read(name, T, 0, 1_000 if name in "efg"[:trades] else 0)
    world.chain.advance(END + DAY)
    assert world.balance("a") == 100 * M - int(paid * M)
    assert world.balance("e") >= 100 * M + int(received * M)
    reward = sum(world.balance(name) for name in "efgh") - 400 * M - trades * int(received * M)
    surplus = int((paid - received) * trades * M)
    assert world.balance(MARKET) == 1_000 * M + surplus - reward


def test_vcg_deficit_is_refused_where_the_named_account_cannot_fund_it() -> None:
    world = World("abcdefgh", coins_each=100 * M, rule="vcg", cap=10 * M)
    world.tags(T)
    everything = coins.free(world.chain.state, MARKET.public)
    world.chain.expect(MARKET, coins.Transfer(STOP.public, everything - 2 * M))
    for name, price in zip("abcd", (10, 8, 6, 4), strict=True):
        world.order(name, T, "buy", 1_000, price * M)
    for name, price in zip("efgh", (1, 3, 5, 7), strict=True):
        world.order(name, T, "sell", 1_000, price * M)
    assert world.close(T) == []
    assert all(coins.free(world.chain.state, world.wallets[n].public) == 100 * M for n in "abcdefgh")


def seal(world: World, name: str, side: str, quantity: int, price: int, cap: int, start: int = T) -> CommitOrder:
    wallet = world.wallets[name].public
    digest = sealed_digest("world", wallet, start, side, quantity, price, bytes(32))  # type: ignore[arg-type]
    return CommitOrder(start, digest, cap)


def test_sealed_orders_show_only_their_cap_until_revealed() -> None:
    world = World("abc", sealed=True, matcher_ms=0)
    world.tags(T)
    a, b, c = (world.wallets[n] for n in "abc")
    assert world.chain.submit(a, PlaceOrder(T, "buy", 1_000, 200_000)).code == "sealed_market"
    world.chain.expect(a, seal(world, "a", "buy", 1_000, 200_000, 300_000))
    world.chain.expect(b, seal(world, "b", "sell", 1_000, 100_000, 50_000))
    world.chain.expect(c, seal(world, "c", "buy", 1_000, 250_000, 400_000))
    assert not any(book.orders for _, book in world.chain.scan(energy.BOOKS))
    assert world.chain.submit(a, RevealOrder(T, 0, "buy", 1_000, 200_000, bytes(32))).code == "not_the_time_to_reveal"
    world.chain.advance(T - world.market.lead_ms)
    assert world.chain.submit(a, CommitOrder(T, bytes(32), 1)).code == "gate_closed"
    assert world.chain.submit(b, RevealOrder(T, 0, "buy", 1_000, 200_000, bytes(32))).code == "not_your_order"
    assert world.chain.submit(a, RevealOrder(T, 0, "buy", 1_000, 190_000, bytes(32))).code == "other_content"
    world.chain.expect(a, RevealOrder(T, 0, "buy", 1_000, 200_000, bytes(32)))
    assert world.chain.submit(a, RevealOrder(T, 0, "buy", 1_000, 200_000, bytes(32))).code == "already_revealed"
    world.chain.expect(b, RevealOrder(T, 1, "sell", 1_000, 100_000, bytes(32)))
    world.chain.advance(T - world.market.lead_ms + world.market.reveal_ms)
    (trade,) = [trade for _, trade in world.chain.scan(energy.TRADES)]
    assert (trade.buyer, trade.seller, trade.price) == (a.public, b.public, 150_000)
    # c did not reveal: a tenth of its cap is forfeit
    assert world.balance("c") == 10_000_000 - 40_000
    assert coins.free(world.chain.state, c.public) == 10_000_000 - 40_000
    assert world.balance(MARKET) == 1_000_000_000 + 40_000


def test_one_member_cannot_fill_the_book_with_commitments() -> None:
    world = World("ab", sealed=True)
    world.tags(T)
    commit = seal(world, "a", "buy", 1, 1, 1)
    codes = [world.chain.submit(world.wallets["a"], commit).code for _ in range(65)]
    assert codes == ["ok"] * 64 + ["too_many_orders"]
    world.chain.expect(world.wallets["b"], seal(world, "b", "buy", 1, 1, 1))


def test_sealed_order_never_costs_more_than_its_cap() -> None:
    world = World("ab", sealed=True)
    world.tags(T)
    a = world.wallets["a"]
    world.chain.expect(a, seal(world, "a", "buy", 1_000, 200_000, 199_999))
    world.chain.advance(T - world.market.lead_ms)
    assert world.chain.submit(a, RevealOrder(T, 0, "buy", 1_000, 200_000, bytes(32))).code == "beyond_cap"


def test_coupled_areas_differ_by_the_fee_and_charge_it_once() -> None:
    fees = (AreaFee("north", "south", 20_000),)
    world = World("abc", areas={"a": "north", "b": "south", "c": "south"}, coupling="fee", fees=fees)
    world.tags(T)
    world.order("a", T, "sell", 1_000, 100_000)
    world.order("b", T, "buy", 600, 200_000)
    world.order("c", T, "buy", 400, 200_000)
    trades = world.close(T)
    assert sum(trade.fee for trade in trades) == 20_000
    interval = world.chain.get(energy.INTERVALS, T)
    assert interval is not None
    north, south = (entry.price for entry in interval.area_prices)
    assert south - north == 20_000
    assert {trade.price for trade in trades} == {north}
    world.chain.advance(END)
    world.read("a", T, 0, 500)
    world.read("b", T, 600, 0)
    world.read("c", T, 400, 0)
    world.chain.advance(END + DAY - 1)
    assert world.balance(GRID) == 10_000  # half was delivered: half the fee
    world.read("a", T, 0, 1_000, "corrected")
    world.chain.advance(END + DAY)
    assert world.balance(GRID) == 20_000
    world.chain.advance(END + 8 * DAY)
    assert world.balance(GRID) == 20_000


def test_areas_alone_do_not_trade_with_each_other() -> None:
    world = World("ab", areas={"a": "north", "b": "south"})
    world.tags(T)
    world.order("a", T, "sell", 1_000, 100_000)
    world.order("b", T, "buy", 1_000, 200_000)
    assert world.close(T) == []


def matched(world: World) -> certificate.Proposal:
    state = world.chain.state
    ctx = Context(
        state.reader,
        (Layer(),),
        chain="world",
        height=1,
        block_time=0,
        now=world.chain.now,
        sender=bytes(32),
        tx_id=bytes(32),
        events=[],
    )
    return certificate.propose(market_orders(book_of(ctx, T)), rule=world.market.rule)  # type: ignore[arg-type]


@pytest.mark.parametrize("rule", ["uniform", "pay_as_bid"])
def test_outside_matcher_is_believed_only_with_its_proof(rule: str) -> None:
    world = World("abcd", rule=rule, matcher_ms=60_000)
    world.tags(T)
    world.order("a", T, "buy", 1_000, 200_000)
    world.order("b", T, "buy", 1_000, 200_000)
    world.order("c", T, "sell", 700, 100_000)
    world.order("d", T, "sell", 600, 120_000)
    assert world.chain.submit(HUB, proposal_of(T, matched(world))).code == "not_the_time_to_propose"
    world.chain.advance(T - world.market.lead_ms)
    honest = proposal_of(T, matched(world))
    # friends at the marginal tick: b instead of a
    swapped = msgspec.structs.replace(
        honest,
        trades=tuple(msgspec.structs.replace(t, buy_serial=1 - t.buy_serial) for t in honest.trades),
    )
    for lie in (
        swapped,
        msgspec.structs.replace(honest, welfare=honest.welfare + 1),
        msgspec.structs.replace(honest, trades=honest.trades[:1]),
        msgspec.structs.replace(
            honest, trades=tuple(msgspec.structs.replace(t, received=t.received + 1) for t in honest.trades)
        ),
        msgspec.structs.replace(honest, dual_prices=()),
    ):
        assert world.chain.submit(HUB, lie).code == "proposal_does_not_prove_itself"
    ghost = msgspec.structs.replace(honest.trades[0], buy_serial=99)
    assert world.chain.submit(HUB, msgspec.structs.replace(honest, trades=(ghost,))).code == "no_such_order"
    world.chain.expect(HUB, honest)
    trades = [trade for _, trade in world.chain.scan(energy.TRADES)]
    assert sum(trade.quantity_wh for trade in trades) == 1_300
    world.chain.advance(END)
    assert [trade for _, trade in world.chain.scan(energy.TRADES)] == trades


def test_without_a_valid_proposal_in_time_the_contract_clears_itself() -> None:
    world = World("ab", matcher_ms=60_000)
    world.tags(T)
    world.order("a", T, "buy", 1_000, 200_000)
    world.order("b", T, "sell", 700, 100_000)
    world.chain.advance(T - world.market.lead_ms)
    assert not list(world.chain.scan(energy.TRADES))
    world.chain.advance(T - world.market.lead_ms + 60_000)
    assert len(list(world.chain.scan(energy.TRADES))) == 1


def test_brokers_posted_price_is_accepted_or_left() -> None:
    world = World("abc", rule="posted")
    world.tags(T)
    a = world.wallets["a"]
    assert world.chain.submit(a, PlaceOrder(T, "buy", 1_000, 180_000)).code == "no_quote"
    world.chain.expect(HUB, PostQuote(T, 180_000))
    assert world.chain.submit(HUB, PostQuote(T, 190_000)).code == "quote_stands"
    assert world.chain.submit(a, PlaceOrder(T, "buy", 1_000, 181_000)).code == "not_the_quote"
    world.order("a", T, "buy", 1_000, 180_000)
    world.order("b", T, "sell", 700, 180_000)
    world.order("c", T, "sell", 700, 180_000)
    trades = world.close(T)
    assert [(t.quantity_wh, t.price) for t in trades] == [(700, 180_000), (300, 180_000)]


def test_residue_of_one_watt_hour_does_not_set_the_price() -> None:
    """A 1 Wh ask above the market's price stays unfilled and moves nothing but the interval's upper end."""
    outcomes = []
    for residue in (False, True):
        world = World("abc", k_ppm=0)
        world.tags(T)
        world.order("a", T, "buy", 1_000, 300_000)
        world.order("b", T, "sell", 1_000, 100_000)
        if residue:
            world.order("c", T, "sell", 1, 290_000)
        outcomes.append([(t.quantity_wh, t.price) for t in world.close(T)])
    assert outcomes[0] == outcomes[1] == [(1_000, 100_000)]


def test_partial_fills_charge_each_fee_once() -> None:
    fees = (AreaFee("north", "south", 7_777),)
    world = World("abc", areas={"a": "south", "b": "north", "c": "north"}, coupling="fee", fees=fees)
    world.tags(T)
    world.order("a", T, "buy", 999, 200_000)
    world.order("b", T, "sell", 333, 100_000)
    world.order("c", T, "sell", 333, 100_000)
    trades = world.close(T)
    assert sum(trade.fee for trade in trades) <= 666 * 7_777 // 1000
    world.chain.advance(END)
    for name, i, e in (("a", 666, 0), ("b", 0, 333), ("c", 0, 333)):
        world.read(name, T, i, e)
    world.chain.advance(END + 8 * DAY)
    assert world.balance(GRID) == sum(trade.fee for trade in trades)


def test_marginal_tick_goes_by_arrival_whoever_asks() -> None:
    world = World("abc")
    world.tags(T)
    world.order("b", T, "buy", 500, 200_000)
    world.order("a", T, "buy", 500, 200_000)
    world.order("c", T, "sell", 600, 100_000)
    assert [(t.buyer, t.quantity_wh) for t in world.close(T)] == [
        (world.wallets["b"].public, 500),
        (world.wallets["a"].public, 100),
    ]
    pro_rata = World("abc", rationing="pro_rata")
    pro_rata.tags(T)
    pro_rata.order("b", T, "buy", 500, 200_000)
    pro_rata.order("a", T, "buy", 500, 200_000)
    pro_rata.order("c", T, "sell", 600, 100_000)
    assert [t.quantity_wh for t in pro_rata.close(T)] == [300, 300]


def test_inline_tag_needs_the_aggregators_signature() -> None:
    world = World("ab")
    a = world.wallets["a"]
    tag = b"t" * 32
    signature = HUB.sign(tag_message("world", a.public, T, tag))
    forged = PlaceOrder(T, "buy", 1, 1, tag=tag, tag_signature=a.sign(tag_message("world", a.public, T, tag)))
    assert world.chain.submit(a, forged).code == "tag_not_signed"
    world.order("a", T, "buy", 1, 1, tag=tag, tag_signature=signature)
    other = PlaceOrder(T, "buy", 1, 1, tag=b"u" * 32, tag_signature=signature)
    assert world.chain.submit(a, other).code == "tag_stands"


def test_vehicle_moves_to_another_aggregator_and_its_sales_count_there() -> None:
    world = World("ab", reward=500)
    host = key("other hub")
    admitted = NewMember(host.public, "Other hub", (Role.AGGREGATOR,), public_wallets=(host.public,))
    world.decide(Admit((admitted,)))
    b = world.wallets["b"]
    assert world.chain.submit(b, MoveMeter(host.public, "harbour")).code == "does_not_move"
    vehicle = energy.NewMeter(b.public, "vehicle", "", 5_000, 5_000)
    world.chain.expect(HUB, energy.RegisterMeters((vehicle,)))
    assert world.chain.submit(b, MoveMeter(key("nobody").public, "x")).code == "no_such_aggregator"
    world.chain.expect(b, MoveMeter(host.public, ""))
    world.tags(T)
    world.order("a", T, "buy", 500, 200_000)
    world.order("b", T, "sell", 500, 100_000)
    (trade,) = world.close(T)
    assert trade.aggregator == host.public
    world.chain.advance(END)
    world.read("a", T, 500, 0)
    world.read("b", T, 0, 500)
    world.chain.advance(END + HOUR + 2 * QUARTER)
    ((_, aggregator, wallet), _), *rest = world.chain.scan(energy.CONTRIBUTIONS)
    assert (aggregator, wallet, rest) == (host.public, b.public, [])


def test_wireless_charger_sells_what_arrives() -> None:
    """Harvesting: a mobile charger sends 1,000 Wh, 60 % arrive; it is paid for 600 and bears the loss."""
    world = World("ab")
    charger = energy.NewMeter(world.wallets["b"].public, "charger", "", 0, 1_000, efficiency_ppm=600_000)
    world.chain.expect(HUB, energy.RegisterMeters((charger,)))
    world.tags(T)
    beyond = PlaceOrder(T, "sell", 601, 100_000)
    assert world.chain.submit(world.wallets["b"], beyond).code == "beyond_plant"
    world.order("a", T, "buy", 600, 100_000)
    world.order("b", T, "sell", 600, 100_000)
    world.close(T)
    world.chain.advance(END)
    world.read("a", T, 600, 0)
    world.read("b", T, 0, 1_000)
    world.chain.advance(END + HOUR + 2 * QUARTER)
    interval = world.chain.get(energy.INTERVALS, T)
    assert interval is not None
    assert (interval.imported_wh, interval.exported_wh, interval.lost_wh) == (600, 600, 400)
    assert (interval.supplied_wh, interval.absorbed_wh) == (0, 0)
    assert world.balance("b") == 10_000_000 + 60_000


def test_parameters_change_for_later_intervals_only() -> None:
    world = World("ab")
    world.tags(T)
    world.order("a", T, "buy", 1, 1)
    changed = msgspec.structs.replace(world.market, cap=0)
    world.decide(SetEnergyParameters(changed))
    world.order("b", T, "buy", 1, 1)
    world.tags(T + QUARTER)
    later = PlaceOrder(T + QUARTER, "buy", 1, 1)
    assert world.chain.submit(world.wallets["a"], later).code == "price_off_range"
    for bad in (
        msgspec.structs.replace(changed, tick=0),
        msgspec.structs.replace(changed, final_ms=1),
        msgspec.structs.replace(changed, coupling="fee", rule="vcg"),
        msgspec.structs.replace(changed, grid=b""),
        msgspec.structs.replace(changed, fees=(AreaFee("a", "b", 1), AreaFee("b", "a", 2))),
    ):
        with pytest.raises(Refused, match="parameters_out_of_range"):
            world.decide(SetEnergyParameters(bad))
    assert world.chain.submit(COUNCIL, propose(SetEnergyParameters(changed))).ok
    assert members.has_role(world.chain.state, HUB.public, Role.AGGREGATOR)
