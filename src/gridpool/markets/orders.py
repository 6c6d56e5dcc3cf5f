"""Orders, trades and clearings of an energy market: what goes into every rule and what comes out of it.

Prices are integer micro-coins per kWh, quantities integer Wh, amounts integer micro-coins.
"""

from collections.abc import Sequence
from typing import Literal

import msgspec

from gridpool.errors import RefusedInput

__all__ = ["INTEGER_LIMIT", "WH_PER_KWH", "Clearing", "Order", "Rationing", "Rule", "Side", "Trade", "check_orders"]

Side = Literal["buy", "sell"]
Rule = Literal["uniform", "pay_as_bid", "mcafee", "trade_reduction", "vcg"]
Rationing = Literal["arrival", "pro_rata"]

WH_PER_KWH = 1000
INTEGER_LIMIT = 2**63 - 1
"""Largest integer that a ledger record holds; no price, quantity or sum of amounts may pass it."""


class Order(msgspec.Struct, frozen=True):
    """A wish to trade up to ``quantity_wh`` at ``price`` or better; orders stand in order of arrival.

    ``owner`` is the tag under which orders of one member are known to be one agent; ``area`` is the grid area.
    """

    id: str
    side: Side
    quantity_wh: int
    price: int
    owner: str
    area: str = ""


class Trade(msgspec.Struct, frozen=True):
    """A quantity that one order sells to another.

    ``amount`` is what the buyer pays for energy, ``received`` what the seller gets; they differ only under rules in
    which the two sides have prices of their own. ``price`` is the buyer's energy price, ``fee`` the buyer's grid fee.
    """

    buy_id: str
    sell_id: str
    quantity_wh: int
    price: int
    amount: int
    received: int
    fee: int = 0


class Clearing(msgspec.Struct, frozen=True):
    """The outcome of one market interval.

    ``payments`` holds owners that trade, in sorted order: positive pays, negative receives. Their sum is ``surplus``
    where positive, ``-deficit`` where negative; grid fees are part of the surplus. ``area_prices`` holds the energy
    price of each area in which something trades, where areas are coupled.
    """

    rule: Rule
    volume_wh: int
    price: int | None
    buy_price: int | None
    sell_price: int | None
    trades: tuple[Trade, ...]
    payments: dict[str, int]
    surplus: int
    deficit: int
    fees: int = 0
    area_prices: dict[str, int] = {}

    def filled_wh(self) -> dict[str, int]:
        """Give the quantity filled of each order that trades, by order id, in Wh."""
        filled: dict[str, int] = {}
        for trade in self.trades:
            filled[trade.buy_id] = filled.get(trade.buy_id, 0) + trade.quantity_wh
            filled[trade.sell_id] = filled.get(trade.sell_id, 0) + trade.quantity_wh
        return filled


def check_orders(orders: Sequence[Order]) -> None:
    """Refuse a list of orders that no rule may clear.

    Raises RefusedInput for a repeated id, an unknown side, a quantity below 1 Wh, a negative price, sums beyond
    ``INTEGER_LIMIT``, and an owner whose buy price reaches its own sell price.
    """
    seen: set[str] = set()
    highest_bid: dict[str, Order] = {}
    lowest_ask: dict[str, Order] = {}
    volume = top = 0
    for order in orders:
        if order.id in seen:
            raise RefusedInput(f"two orders have the id {order.id!r}; ids must be unique")
        seen.add(order.id)
        if order.quantity_wh < 1:
            raise RefusedInput(f"order {order.id!r} has quantity {order.quantity_wh} Wh; give at least 1")
        if order.price < 0:
            raise RefusedInput(f"order {order.id!r} has price {order.price}; give 0 or more")
        volume += order.quantity_wh
        top = max(top, order.price)
        if order.side == "buy":
            best = highest_bid.get(order.owner)
            if best is None or order.price > best.price:
                highest_bid[order.owner] = order
        elif order.side == "sell":
            best = lowest_ask.get(order.owner)
            if best is None or order.price < best.price:
                lowest_ask[order.owner] = order
        else:
            raise RefusedInput(f"order {order.id!r} has side {order.side!r}; give buy or sell")
    if volume > INTEGER_LIMIT or top * volume // WH_PER_KWH > INTEGER_LIMIT:
        raise RefusedInput(
            "the orders' quantities times their highest price pass 2^63 - 1 micro-coins; split the market"
        )
    for owner, bid in highest_bid.items():
        ask = lowest_ask.get(owner)
        if ask is not None and bid.price >= ask.price:
            raise RefusedInput(
                f"owner {owner!r} would trade with itself: buy order {bid.id!r} at {bid.price} reaches its sell order "
                f"{ask.id!r} at {ask.price}; cancel one"
            )
