"""Several grid areas: each cleared alone, or all at once with a grid fee between each pair.

With fees the match maximises welfare less fees: a transport problem over the areas, solved by successive cheapest
paths. Its dual prices, one an area, differ by at most the fee, and by exactly the fee where energy flows. A trade's
energy price is its seller's area price; the fee is a line of its own that the buyer pays on top.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from gridpool.errors import RefusedInput
from gridpool.markets.double_auction import check_price_rule, clear, uniform_price
from gridpool.markets.merit_order import Crossing, merit_order, pair, ration_last_tick
from gridpool.markets.orders import WH_PER_KWH, Clearing, Order, Rationing, Rule, Trade, check_orders
from gridpool.markets.rationing import amounts_of

__all__ = ["AreaMatch", "Coupling", "Fees", "clear_areas", "closed_fees", "match_areas", "post_areas", "price_areas"]

Coupling = Literal["none", "fee"]
Fees = Mapping[tuple[str, str], int]
"""Grid fee of a pair of areas in either direction, in micro-coins per kWh; pairs left out are not joined directly."""

MAX_AREAS = 64


class AreaMatch(msgspec.Struct, frozen=True):
    """Fills of each area, and the Wh that flow from one area's sellers to another's buyers."""

    crossings: dict[str, Crossing]
    flows: dict[tuple[str, str], int]


def clear_areas(
    orders: Sequence[Order],
    *,
    coupling: Coupling = "none",
    fees: Fees | None = None,
    rule: Rule = "uniform",
    k_ppm: int = 500_000,
    tick: int = 1,
    rationing: Rationing = "arrival",
) -> Clearing:
    """Clear orders of several areas, each alone (``none``) or together at grid fees (``fee``, uniform price only).

    ``price`` is null where the areas' prices differ; ``area_prices`` has one for each area that trades at one. Fees
    are charged to buyers and part of the surplus. Raises RefusedInput as ``clear`` does, for fees off the tick, and
    for a rule that cannot be coupled.
    """
    areas = sorted({order.area for order in orders})
    if coupling == "none":
        parts = {
            area: clear([o for o in orders if o.area == area], rule=rule, k_ppm=k_ppm, tick=tick, rationing=rationing)
            for area in areas
        }
        _check_ids(orders)
        return _join(rule, parts)
    if coupling != "fee":
        raise RefusedInput(f"no coupling {coupling!r}; choose none or fee")
    if rule != "uniform":
        raise RefusedInput(f"areas are coupled by fees under the uniform rule only, not {rule}")
    check_price_rule(k_ppm, tick)
    check_orders(orders)
    closed = closed_fees(areas, fees or {}, tick=tick)
    match = match_areas(orders, closed, rationing=rationing)
    return post_areas(match, price_areas(match, closed, k_ppm=k_ppm, tick=tick), closed)


def closed_fees(areas: Sequence[str], fees: Fees, *, tick: int = 1) -> dict[tuple[str, str], int]:
    """Give the cheapest fee between each two of ``areas``, through other areas where that is cheaper.

    Raises RefusedInput for a fee that is negative, off the tick, or named twice with different values.
    """
    known = sorted({*areas, *(area for both in fees for area in both)})
    if len(known) > MAX_AREAS:
        raise RefusedInput(f"{len(known)} areas are coupled; at most {MAX_AREAS}")
    closed = {(area, area): 0 for area in known}
    for (one, other), fee in sorted(fees.items()):
        if fee < 0 or fee % tick:
            raise RefusedInput(f"the fee between {one!r} and {other!r} is {fee}; give a multiple of the tick {tick}")
        if fees.get((other, one), fee) != fee:
            raise RefusedInput(f"the fee between {one!r} and {other!r} is given twice with different values")
        if one != other:
            closed[one, other] = closed[other, one] = fee
    for via in known:
        for one in known:
            for other in known:
                if (one, via) in closed and (via, other) in closed:
                    fee = closed[one, via] + closed[via, other]
                    if fee < closed.get((one, other), fee + 1):
                        closed[one, other] = fee
    return closed


def match_areas(orders: Sequence[Order], fees: Fees, *, rationing: Rationing = "arrival") -> AreaMatch:
    """Match orders so that welfare less fees is greatest, and among such matches the volume.

    ``fees`` come from ``closed_fees``. Each step joins the pair of best remaining orders with the greatest gain along
    the cheapest path, which may turn an earlier flow around; filled orders stay filled.
    """
    areas = sorted({order.area for order in orders})
    bids = {area: merit_order([o for o in orders if o.area == area], "buy") for area in areas}
    asks = {area: merit_order([o for o in orders if o.area == area], "sell") for area in areas}
    bought = {area: [0] * len(bids[area]) for area in areas}
    sold = {area: [0] * len(asks[area]) for area in areas}
    next_bid, next_ask = dict.fromkeys(areas, 0), dict.fromkeys(areas, 0)
    flows: dict[tuple[str, str], int] = {}
    paths = _cheapest_paths(areas, fees, flows)
    while True:
        best: tuple[int, str, str] | None = None
        for source in areas:
            if next_ask[source] == len(asks[source]):
                continue
            for sink in areas:
                if next_bid[sink] == len(bids[sink]) or (source, sink) not in paths:
                    continue
                gain = bids[sink][next_bid[sink]].price - asks[source][next_ask[source]].price - paths[source, sink][0]
                if gain >= 0 and (best is None or gain > best[0]):
                    best = (gain, source, sink)
        if best is None:
            break
        _, source, sink = best
        i, j = next_bid[sink], next_ask[source]
        steps = paths[source, sink][1]
        rerouted = False
        quantity = min(
            bids[sink][i].quantity_wh - bought[sink][i],
            asks[source][j].quantity_wh - sold[source][j],
            *(flows[b, a] for a, b in steps if flows.get((b, a), 0)),
        )
        for a, b in steps:
            flow = (b, a) if flows.get((b, a), 0) else (a, b)
            before = flows.get(flow, 0)
            flows[flow] = before + (quantity if flow == (a, b) else -quantity)
            rerouted = rerouted or not before or not flows[flow]
        if rerouted:
            paths = _cheapest_paths(areas, fees, flows)
        bought[sink][i] += quantity
        sold[source][j] += quantity
        next_bid[sink] += bought[sink][i] == bids[sink][i].quantity_wh
        next_ask[source] += sold[source][j] == asks[source][j].quantity_wh
    if rationing == "pro_rata":
        for area in areas:
            ration_last_tick(bids[area], bought[area])
            ration_last_tick(asks[area], sold[area])
    crossings = {a: Crossing(bids=bids[a], asks=asks[a], bought=bought[a], sold=sold[a]) for a in areas}
    return AreaMatch(crossings=crossings, flows=_without_transit(areas, flows))


def price_areas(match: AreaMatch, fees: Fees, *, k_ppm: int, tick: int) -> dict[str, int]:
    """Give every area's price: the k-point between the lowest and the highest dual prices, rounded down to the tick.

    Both ends satisfy every area's clearing interval and the fees at once, so their mixture does; rounding keeps that,
    because fees lie on the tick and no price is rounded below its lower end. Raises RefusedInput where no prices
    support the match (it is not optimal).
    """
    areas = sorted(match.crossings)
    bounds = {area: _interval(match.crossings[area]) for area in areas}
    top = max((o.price for c in match.crossings.values() for o in (*c.bids, *c.asks)), default=0)
    top += max(fees.values(), default=0) * len(areas)
    low = {area: bounds[area][0] for area in areas}
    high = {area: top if bounds[area][1] is None else bounds[area][1] or 0 for area in areas}
    # limit: the price of b is at most that of a plus limit
    limits = {(a, b): fees[a, b] for a in areas for b in areas if a != b and (a, b) in fees}
    for (a, b), quantity in match.flows.items():
        if quantity:
            limits[b, a] = -fees[a, b]
    for _ in areas:
        for (a, b), limit in limits.items():
            high[b] = min(high[b], high[a] + limit)
            low[a] = max(low[a], low[b] - limit)
    if any(low[area] > high[area] for area in areas) or any(
        high[b] > high[a] + limit or low[a] < low[b] - limit for (a, b), limit in limits.items()
    ):
        raise RefusedInput("no area prices support this match: it does not have the greatest welfare")
    return {area: uniform_price(low[area], high[area], k_ppm=k_ppm, tick=tick) for area in areas}


def post_areas(match: AreaMatch, prices: Mapping[str, int], fees: Fees) -> Clearing:
    """Write a coupled match down as trades: local ones first, then imports by the name of the area."""
    rows = _area_trades(match)
    totals: dict[str, int] = {}
    filled = [
        (bid, quantity, prices[area])
        for area in sorted(match.crossings)
        for bid, quantity in zip(match.crossings[area].bids, match.crossings[area].bought, strict=True)
        if quantity
    ]
    for (bid, _, _), amount in zip(filled, amounts_of([q * p for _, q, p in filled]), strict=True):
        totals[bid.id] = amount
    by_bid: dict[str, list[tuple[Order, Order, int]]] = {}
    for row in rows:
        by_bid.setdefault(row[0].id, []).append(row)
    trades = []
    payments: dict[str, int] = {}
    for bid_id, group in by_bid.items():
        charges = amounts_of([prices[bid.area] * quantity for bid, _, quantity in group], totals[bid_id])
        for (bid, ask, quantity), charge in zip(group, charges, strict=True):
            fee = min(fees[ask.area, bid.area] * quantity // WH_PER_KWH, charge)
            energy = charge - fee
            trades.append(
                Trade(
                    buy_id=bid.id,
                    sell_id=ask.id,
                    quantity_wh=quantity,
                    price=prices[ask.area],
                    amount=energy,
                    received=energy,
                    fee=fee,
                )
            )
            payments[bid.owner] = payments.get(bid.owner, 0) + charge
            payments[ask.owner] = payments.get(ask.owner, 0) - energy
    collected = sum(trade.fee for trade in trades)
    traded = {area for area, c in match.crossings.items() if any(c.bought) or any(c.sold)}
    area_prices = {area: prices[area] for area in sorted(traded)}
    price = next(iter(area_prices.values())) if len(set(area_prices.values())) == 1 else None
    return Clearing(
        rule="uniform",
        volume_wh=sum(trade.quantity_wh for trade in trades),
        price=price,
        buy_price=price,
        sell_price=price,
        trades=tuple(trades),
        payments=dict(sorted(payments.items())),
        surplus=collected,
        deficit=0,
        fees=collected,
        area_prices=area_prices,
    )


def _check_ids(orders: Sequence[Order]) -> None:
    seen: set[str] = set()
    for order in orders:
        if order.id in seen:
            raise RefusedInput(f"two orders have the id {order.id!r}; ids must be unique")
        seen.add(order.id)


def _join(rule: Rule, parts: Mapping[str, Clearing]) -> Clearing:
    payments: dict[str, int] = {}
    for part in parts.values():
        for owner, amount in part.payments.items():
            payments[owner] = payments.get(owner, 0) + amount
    active = [part for part in parts.values() if part.volume_wh]
    balance = sum(payments.values())

    def common(values: list[int | None]) -> int | None:
        return values[0] if len(set(values)) == 1 else None

    return Clearing(
        rule=rule,
        volume_wh=sum(part.volume_wh for part in active),
        price=common([part.price for part in active]),
        buy_price=common([part.buy_price for part in active]),
        sell_price=common([part.sell_price for part in active]),
        trades=tuple(trade for part in active for trade in part.trades),
        payments=dict(sorted(payments.items())),
        surplus=max(balance, 0),
        deficit=max(-balance, 0),
        area_prices={area: part.price for area, part in parts.items() if part.price is not None},
    )


def _cheapest_paths(
    areas: list[str], fees: Fees, flows: Mapping[tuple[str, str], int]
) -> dict[tuple[str, str], tuple[int, list[tuple[str, str]]]]:
    """Cheapest way between areas where a flow may be turned around at minus its fee; fewest steps among equals."""
    paths: dict[tuple[str, str], tuple[int, list[tuple[str, str]]]] = {(area, area): (0, []) for area in areas}
    for a in areas:
        for b in areas:
            if a != b:
                if flows.get((b, a), 0):
                    paths[a, b] = (-fees[b, a], [(a, b)])
                elif (a, b) in fees:
                    paths[a, b] = (fees[a, b], [(a, b)])
    for via in areas:
        for a in areas:
            if (a, via) not in paths or a == via:
                continue
            first = paths[a, via]
            for b in areas:
                if b in (via, a) or (via, b) not in paths:
                    continue
                second = paths[via, b]
                cost, length = first[0] + second[0], len(first[1]) + len(second[1])
                known = paths.get((a, b))
                if known is None or (cost, length) < (known[0], len(known[1])):
                    paths[a, b] = (cost, [*first[1], *second[1]])
    return paths


def _without_transit(areas: list[str], flows: Mapping[tuple[str, str], int]) -> dict[tuple[str, str], int]:
    """Join what an area both imports and exports into direct flows, so that its own orders trade with each other."""
    direct = {both: quantity for both, quantity in flows.items() if quantity}
    for via in areas:
        for source in areas:
            for sink in areas:
                quantity = min(direct.get((source, via), 0), direct.get((via, sink), 0))
                if quantity:
                    direct[source, via] -= quantity
                    direct[via, sink] -= quantity
                    if source != sink:
                        direct[source, sink] = direct.get((source, sink), 0) + quantity
    return {both: direct[both] for both in sorted(direct) if direct[both]}


def _interval(crossing: Crossing) -> tuple[int, int | None]:
    lows = [0]
    highs: list[int] = []
    for bid, filled in zip(crossing.bids, crossing.bought, strict=True):
        if filled:
            highs.append(bid.price)
        if filled < bid.quantity_wh:
            lows.append(bid.price)
    for ask, filled in zip(crossing.asks, crossing.sold, strict=True):
        if filled:
            lows.append(ask.price)
        if filled < ask.quantity_wh:
            highs.append(ask.price)
    return max(lows), min(highs) if highs else None


def _area_trades(match: AreaMatch) -> list[tuple[Order, Order, int]]:
    rows = []
    sellers: dict[str, list[tuple[Order, int]]] = {}
    buyers: dict[str, list[tuple[Order, int]]] = {}
    for area, crossing in sorted(match.crossings.items()):
        local = min(sum(crossing.bought), sum(crossing.sold))
        kept_bids, left_bids = _split(crossing.bids, crossing.bought, local)
        kept_asks, left_asks = _split(crossing.asks, crossing.sold, local)
        rows += _pair_orders(kept_bids, kept_asks)
        buyers[area], sellers[area] = left_bids, left_asks
    for (source, sink), quantity in sorted(match.flows.items()):
        bids, buyers[sink] = _split_pairs(buyers[sink], quantity)
        asks, sellers[source] = _split_pairs(sellers[source], quantity)
        rows += _pair_orders(bids, asks)
    return rows


def _pair_orders(bids: list[tuple[Order, int]], asks: list[tuple[Order, int]]) -> list[tuple[Order, Order, int]]:
    return [(bids[i][0], asks[j][0], q) for i, j, q in pair([q for _, q in bids], [q for _, q in asks])]


def _split(
    orders: list[Order], filled: list[int], quantity: int
) -> tuple[list[tuple[Order, int]], list[tuple[Order, int]]]:
    return _split_pairs([(order, q) for order, q in zip(orders, filled, strict=True) if q], quantity)


def _split_pairs(
    orders: list[tuple[Order, int]], quantity: int
) -> tuple[list[tuple[Order, int]], list[tuple[Order, int]]]:
    first, rest = [], []
    for order, filled in orders:
        part = min(filled, quantity)
        quantity -= part
        if part:
            first.append((order, part))
        if filled - part:
            rest.append((order, filled - part))
    return first, rest
