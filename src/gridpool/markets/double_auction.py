"""The double auction of a market interval: five rules over the same orders, exact in integers."""

from collections.abc import Sequence

from gridpool.errors import RefusedInput
from gridpool.markets.merit_order import Crossing, SideMoney, cross, empty_clearing, post
from gridpool.markets.orders import Clearing, Order, Rationing, Rule, check_orders
from gridpool.markets.trade_reduction import clear_mcafee, clear_trade_reduction
from gridpool.markets.vickrey import clear_vcg

__all__ = ["check_price_rule", "clear", "clear_crossing", "clearing_interval", "uniform_price"]

PPM = 1_000_000


def clear(
    orders: Sequence[Order],
    *,
    rule: Rule = "uniform",
    k_ppm: int = 500_000,
    tick: int = 1,
    rationing: Rationing = "arrival",
) -> Clearing:
    """Clear one area's orders, which stand in order of arrival.

    Parameters
    ----------
    orders
        Prices in micro-coins per kWh, quantities in Wh; areas are not looked at (see ``coupling``).
    rule
        ``uniform`` (k-double auction), ``pay_as_bid``, ``mcafee`` (McAfee 1992), ``trade_reduction`` (Huang,
        Scheller-Wolf and Sycara 2002, multi-unit) or ``vcg`` (Clarke pivots, one owner one agent).
    k_ppm
        Where ``uniform`` puts its price in the clearing interval, 0 the sellers' end, 1,000,000 the buyers' end.
    tick
        Smallest price step; prices that a rule forms are rounded down to it.
    rationing
        How ``uniform``, ``pay_as_bid`` and ``vcg`` fill the last tick of the long side.

    Raises RefusedInput for orders that ``check_orders`` refuses, an unknown rule or rationing, k or tick out of range.
    """
    if rationing not in ("arrival", "pro_rata"):
        raise RefusedInput(f"no rationing {rationing!r}; choose arrival or pro_rata")
    check_orders(orders)
    check_price_rule(k_ppm, tick)
    if rule in ("trade_reduction", "mcafee", "vcg"):
        arrival = {order.id: position for position, order in enumerate(orders)}
        if rule == "trade_reduction":
            return clear_trade_reduction(cross(orders), arrival)
        if rule == "mcafee":
            return clear_mcafee(cross(orders), arrival, tick=tick)
        return clear_vcg(cross(orders, rationing), arrival)
    if rule not in ("uniform", "pay_as_bid"):
        raise RefusedInput(f"no rule {rule!r}; choose uniform, pay_as_bid, mcafee, trade_reduction or vcg")
    return clear_crossing(cross(orders, rationing), rule=rule, k_ppm=k_ppm, tick=tick)


def clear_crossing(crossing: Crossing, *, rule: Rule = "uniform", k_ppm: int = 500_000, tick: int = 1) -> Clearing:
    """Price an efficient match by ``uniform`` or ``pay_as_bid`` and write it down."""
    if not crossing.volume_wh:
        return empty_clearing(rule)
    if rule == "pay_as_bid":
        paid = SideMoney.at_prices([bid.price for bid in crossing.bids], crossing.bought)
        received = SideMoney.at_prices([ask.price for ask in crossing.asks], crossing.sold)
        return post(rule, crossing, paid, received)
    price = uniform_price(*clearing_interval(crossing), k_ppm=k_ppm, tick=tick)
    paid = SideMoney.at_prices([price] * len(crossing.bids), crossing.bought)
    return post(rule, crossing, paid, price=price, buy_price=price, sell_price=price)


def clearing_interval(crossing: Crossing) -> tuple[int, int]:
    """Give the lowest and highest price at which the filled orders, and no others, want to trade.

    The interval is [max(marginal ask, best unfilled bid), min(marginal bid, best unfilled ask)]; a part of an order
    left unfilled counts as unfilled. Requires a positive volume.
    """
    lower = max(ask.price for ask, filled in zip(crossing.asks, crossing.sold, strict=True) if filled)
    upper = min(bid.price for bid, filled in zip(crossing.bids, crossing.bought, strict=True) if filled)
    for bid, filled in zip(crossing.bids, crossing.bought, strict=True):
        if filled < bid.quantity_wh:
            lower = max(lower, bid.price)
            break
    for ask, filled in zip(crossing.asks, crossing.sold, strict=True):
        if filled < ask.quantity_wh:
            upper = min(upper, ask.price)
            break
    return lower, upper


def uniform_price(lower: int, upper: int, *, k_ppm: int, tick: int = 1) -> int:
    """Give lower + k (upper - lower), rounded down to the tick but not below ``lower`` (whose price may be off it)."""
    price = lower + k_ppm * (upper - lower) // PPM
    return max(lower, price - price % tick)


def check_price_rule(k_ppm: int, tick: int) -> None:
    """Refuse a k outside 0 to 1 and a tick below 1 micro-coin per kWh."""
    if not 0 <= k_ppm <= PPM:
        raise RefusedInput(f"k is {k_ppm} ppm; give 0 to {PPM}")
    if tick < 1:
        raise RefusedInput(f"the tick is {tick}; give at least 1 micro-coin per kWh")
