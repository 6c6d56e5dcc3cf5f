"""Vickrey-Clarke-Groves payments of a double auction in closed form; one owner is one agent.

A buyer's payment is what its energy is worth to the others: the best of the unfilled bids and of the production costs
of the filled sellers. A seller's receipt is what replacing its energy costs the others: the cheapest of the unfilled
asks and of the filled bids. Both follow from one merged list a side, less the owner's own unfilled orders.
"""

from bisect import bisect_left
from collections.abc import Mapping

from gridpool.markets.merit_order import Crossing, SideMoney, empty_clearing, post
from gridpool.markets.orders import Clearing, Order
from gridpool.markets.rationing import amounts_of, share_by_weight

__all__ = ["clear_vcg"]


def clear_vcg(crossing: Crossing, arrival: Mapping[str, int]) -> Clearing:
    """Charge and pay every owner its Clarke pivot; the deficit is what the rule costs.

    An owner's payment is spread over its orders by quantity. The prices are null unless a side's owners all pay or
    receive the same for each kWh. ``arrival`` numbers the orders by id; remainders that tie go to the owner that came
    first. Requires owners that do not cross themselves.
    """
    if not crossing.volume_wh:
        return empty_clearing("vcg")
    paid, buy_price = _side_money(crossing.bids, crossing.bought, crossing.asks, crossing.sold, arrival, sign=1)
    received, sell_price = _side_money(crossing.asks, crossing.sold, crossing.bids, crossing.bought, arrival, sign=-1)
    price = buy_price if buy_price == sell_price else None
    return post("vcg", crossing, paid, received, price=price, buy_price=buy_price, sell_price=sell_price)


class _Ladder:
    """Quantities by price, dearest first (cheapest first with sign -1), that answers what the first x Wh are worth."""

    def __init__(self, steps: list[tuple[int, int]], sign: int) -> None:
        ordered = sorted(steps, key=lambda step: -sign * step[0])
        self.keys = [-sign * price for price, _ in ordered]
        self.prices = [price for price, _ in ordered]
        self.ends: list[int] = []
        self.values: list[int] = []
        end = value = 0
        for price, quantity in ordered:
            end += quantity
            value += price * quantity
            self.ends.append(end)
            self.values.append(value)

    def better_than(self, key: int) -> int:
        """Quantity whose key is strictly below ``key``."""
        index = bisect_left(self.keys, key)
        return self.ends[index - 1] if index else 0

    def value_of_first(self, quantity: int) -> int:
        index = bisect_left(self.ends, quantity)
        before, value = (self.ends[index - 1], self.values[index - 1]) if index else (0, 0)
        return value + (quantity - before) * self.prices[index]


def _side_money(
    side: list[Order],
    filled: list[int],
    other: list[Order],
    other_filled: list[int],
    arrival: Mapping[str, int],
    *,
    sign: int,
) -> tuple[SideMoney, int | None]:
    residues = [(o.price, o.quantity_wh - f) for o, f in zip(side, filled, strict=True) if f < o.quantity_wh]
    served = [(o.price, f) for o, f in zip(other, other_filled, strict=True) if f]
    ladder = _Ladder(residues + served, sign)
    orders_of: dict[str, list[int]] = {}
    for index, order in enumerate(side):
        orders_of.setdefault(order.owner, []).append(index)
    owners = [owner for owner, indices in orders_of.items() if any(filled[i] for i in indices)]
    first_seen: dict[str, int] = {}
    for order in (*side, *other):
        first_seen[order.owner] = min(arrival[order.id], first_seen.get(order.owner, arrival[order.id]))
    owners.sort(key=first_seen.__getitem__)
    quantities = [sum(filled[i] for i in orders_of[owner]) for owner in owners]
    values = []
    for owner, quantity in zip(owners, quantities, strict=True):
        skipped = skipped_value = 0
        for i in orders_of[owner]:
            own = side[i].quantity_wh - filled[i]
            if own and ladder.better_than(-sign * side[i].price) - skipped < quantity:
                skipped += own
                skipped_value += own * side[i].price
        values.append(ladder.value_of_first(quantity + skipped) - skipped_value)
    amounts = [0] * len(side)
    prices = [0] * len(side)
    for owner, quantity, value, total in zip(owners, quantities, values, amounts_of(values), strict=True):
        indices = [i for i in orders_of[owner] if filled[i]]
        for i, share in zip(indices, share_by_weight(total, [filled[i] for i in indices]), strict=True):
            amounts[i] = share
            prices[i] = value // quantity
    first, quantity = values[0], quantities[0]
    same = first % quantity == 0 and all(v * quantity == first * q for v, q in zip(values, quantities, strict=True))
    return SideMoney(amounts=amounts, prices=prices, by_weight=True), first // quantity if same else None
