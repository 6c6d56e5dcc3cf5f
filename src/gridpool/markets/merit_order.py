"""Where demand and supply cross, who is filled, and the money that follows, to the unit."""

from collections.abc import Iterator, Sequence

import msgspec

from gridpool.markets.orders import Clearing, Order, Rationing, Rule, Side, Trade
from gridpool.markets.rationing import amounts_of, share_by_weight

__all__ = ["Crossing", "SideMoney", "cross", "empty_clearing", "merit_order", "pair", "post", "ration_last_tick"]


class Crossing(msgspec.Struct, frozen=True):
    """The efficient match: each side in merit order, with the Wh filled of each order beside it."""

    bids: list[Order]
    asks: list[Order]
    bought: list[int]
    sold: list[int]

    @property
    def volume_wh(self) -> int:
        """Quantity that changes hands, in Wh."""
        return sum(self.bought)


class SideMoney(msgspec.Struct, frozen=True):
    """What each order of a side pays or receives in micro-coins, and its energy price (per order).

    ``by_weight`` says that the amounts are no price times the fill, so that trades share them by quantity.
    """

    amounts: list[int]
    prices: list[int]
    by_weight: bool = False

    @classmethod
    def at_prices(cls, prices: list[int], filled: list[int]) -> "SideMoney":
        """Price each order's fill; the remainders of the side go by largest remainder."""
        return cls(amounts=amounts_of([p * q for p, q in zip(prices, filled, strict=True)]), prices=prices)


def merit_order(orders: Sequence[Order], side: Side) -> list[Order]:
    """Give one side best price first, earlier arrivals first among equals."""
    chosen = [order for order in orders if order.side == side]
    return sorted(chosen, key=(lambda o: -o.price) if side == "buy" else (lambda o: o.price))


def cross(orders: Sequence[Order], rationing: Rationing = "arrival") -> Crossing:
    """Match as much as possible at the greatest welfare; the long side's last tick is rationed.

    ``arrival`` fills the last tick first come first served, ``pro_rata`` in proportion to quantity.
    """
    bids, asks = merit_order(orders, "buy"), merit_order(orders, "sell")
    bought, sold = [0] * len(bids), [0] * len(asks)
    i = j = 0
    while i < len(bids) and j < len(asks) and bids[i].price >= asks[j].price:
        quantity = min(bids[i].quantity_wh - bought[i], asks[j].quantity_wh - sold[j])
        bought[i] += quantity
        sold[j] += quantity
        i += bought[i] == bids[i].quantity_wh
        j += sold[j] == asks[j].quantity_wh
    if rationing == "pro_rata":
        ration_last_tick(bids, bought)
        ration_last_tick(asks, sold)
    return Crossing(bids=bids, asks=asks, bought=bought, sold=sold)


def pair(bought: Sequence[int], sold: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Walk two filled sides of one volume and yield (bid index, ask index, Wh) of each trade."""
    j, left = -1, 0
    for i, quantity in enumerate(bought):
        while quantity:
            if not left:
                j += 1
                left = sold[j]
                continue
            part = min(quantity, left)
            yield i, j, part
            quantity -= part
            left -= part


def post(
    rule: Rule,
    crossing: Crossing,
    paid: SideMoney,
    received: SideMoney | None = None,
    *,
    price: int | None = None,
    buy_price: int | None = None,
    sell_price: int | None = None,
) -> Clearing:
    """Write a match and its money down as trades and payments.

    Without ``received`` each seller gets exactly what its buyers pay it, trade by trade.
    """
    rows = list(pair(crossing.bought, crossing.sold))
    amounts = _spread(rows, 0, paid)
    receipts = amounts if received is None else _spread(rows, 1, received)
    trades = []
    payments: dict[str, int] = {}
    for (i, j, quantity), amount, receipt in zip(rows, amounts, receipts, strict=True):
        bid, ask = crossing.bids[i], crossing.asks[j]
        trades.append(
            Trade(
                buy_id=bid.id,
                sell_id=ask.id,
                quantity_wh=quantity,
                price=paid.prices[i],
                amount=amount,
                received=receipt,
            )
        )
        payments[bid.owner] = payments.get(bid.owner, 0) + amount
        payments[ask.owner] = payments.get(ask.owner, 0) - receipt
    balance = sum(payments.values())
    return Clearing(
        rule=rule,
        volume_wh=crossing.volume_wh,
        price=price,
        buy_price=buy_price,
        sell_price=sell_price,
        trades=tuple(trades),
        payments=dict(sorted(payments.items())),
        surplus=max(balance, 0),
        deficit=max(-balance, 0),
    )


def ration_last_tick(side: Sequence[Order], filled: list[int]) -> None:
    """Share what one side's last filled tick got among that tick's orders, in proportion to quantity, in place."""
    last = max((i for i, quantity in enumerate(filled) if quantity), default=None)
    if last is None:
        return
    level = [i for i, order in enumerate(side) if order.price == side[last].price]
    shares = share_by_weight(sum(filled[i] for i in level), [side[i].quantity_wh for i in level])
    for i, share in zip(level, shares, strict=True):
        filled[i] = share


def empty_clearing(rule: Rule) -> Clearing:
    """Give the clearing of an interval in which nothing trades."""
    return Clearing(
        rule=rule,
        volume_wh=0,
        price=None,
        buy_price=None,
        sell_price=None,
        trades=(),
        payments={},
        surplus=0,
        deficit=0,
    )


def _spread(rows: list[tuple[int, int, int]], column: int, money: SideMoney) -> list[int]:
    """Spread each order's amount over its trades, which stand together in ``rows``."""
    out: list[int] = []
    start = 0
    for end in range(1, len(rows) + 1):
        order = rows[start][column]
        if end < len(rows) and rows[end][column] == order:
            continue
        quantities = [row[2] for row in rows[start:end]]
        total = money.amounts[order]
        if len(quantities) == 1:
            out.append(total)
        elif money.by_weight:
            out += share_by_weight(total, quantities)
        else:
            out += amounts_of([money.prices[order] * quantity for quantity in quantities], total)
        start = end
    return out
