"""Truthful double auctions that give up the marginal trade: McAfee's, and its multi-unit form.

In both one order is one agent. McAfee (1992), "A dominant strategy double auction"; Huang, Scheller-Wolf and Sycara
(2002), "Design of a multi-unit double auction e-market".
"""

from collections.abc import Mapping

from gridpool.markets.merit_order import Crossing, SideMoney, empty_clearing, post
from gridpool.markets.orders import Clearing, Order, Rule
from gridpool.markets.rationing import bear_equally

__all__ = ["clear_mcafee", "clear_trade_reduction"]


def clear_trade_reduction(
    crossing: Crossing, arrival: Mapping[str, int], *, rule: Rule = "trade_reduction"
) -> Clearing:
    """Drop the marginal order of each side; the others trade at its price, buyers at the bid, sellers at the ask.

    Where one side then offers more than the other, its orders give up equal parts of the excess (no order more than
    its quantity; single Wh left over fall on the latest), whatever their prices were, so that no price report changes
    a fill. ``arrival`` numbers the orders by id. The surplus is the auctioneer's.
    """
    if not crossing.volume_wh:
        return empty_clearing(rule)
    last_bid, last_ask = _last_filled(crossing.bought), _last_filled(crossing.sold)
    bids, asks = crossing.bids[:last_bid], crossing.asks[:last_ask]
    wanted, offered = sum(bid.quantity_wh for bid in bids), sum(ask.quantity_wh for ask in asks)
    if not wanted or not offered:
        return empty_clearing(rule)
    reduced = Crossing(
        bids=bids,
        asks=asks,
        bought=_reduce(bids, max(wanted - offered, 0), arrival),
        sold=_reduce(asks, max(offered - wanted, 0), arrival),
    )
    buy_price, sell_price = crossing.bids[last_bid].price, crossing.asks[last_ask].price
    return post(
        rule,
        reduced,
        SideMoney.at_prices([buy_price] * len(bids), reduced.bought),
        SideMoney.at_prices([sell_price] * len(asks), reduced.sold),
        price=buy_price if buy_price == sell_price else None,
        buy_price=buy_price,
        sell_price=sell_price,
    )


def clear_mcafee(crossing: Crossing, arrival: Mapping[str, int], *, tick: int = 1) -> Clearing:
    """Trade all at the middle of the first excluded pair where that price fits, else drop the marginal pair.

    The price fits if every filled order accepts it. It needs an excluded order on both sides, and marginal orders that
    are filled whole, which unit quantities always are; truthfulness is proved for unit quantities.
    """
    if not crossing.volume_wh:
        return empty_clearing("mcafee")
    last_bid, last_ask = _last_filled(crossing.bought), _last_filled(crossing.sold)
    bid, ask = crossing.bids[last_bid], crossing.asks[last_ask]
    whole = crossing.bought[last_bid] == bid.quantity_wh and crossing.sold[last_ask] == ask.quantity_wh
    if whole and last_bid + 1 < len(crossing.bids) and last_ask + 1 < len(crossing.asks):
        price = (crossing.bids[last_bid + 1].price + crossing.asks[last_ask + 1].price) // 2
        price -= price % tick
        if ask.price <= price <= bid.price:
            paid = SideMoney.at_prices([price] * len(crossing.bids), crossing.bought)
            return post("mcafee", crossing, paid, price=price, buy_price=price, sell_price=price)
    return clear_trade_reduction(crossing, arrival, rule="mcafee")


def _last_filled(filled: list[int]) -> int:
    return max(i for i, quantity in enumerate(filled) if quantity)


def _reduce(side: list[Order], excess: int, arrival: Mapping[str, int]) -> list[int]:
    filled = [order.quantity_wh for order in side]
    if excess:
        by_arrival = sorted(range(len(side)), key=lambda i: arrival[side[i].id])
        for i, burden in zip(by_arrival, bear_equally(excess, [filled[i] for i in by_arrival]), strict=True):
            filled[i] -= burden
    return filled
