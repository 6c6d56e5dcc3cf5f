"""Proof that a clearing computed elsewhere is the one the rules demand, checked without matching again.

A dual price for each area bounds the welfare of every match from above; a match that reaches the bound has the
greatest welfare (strong duality of the transport problem). That no unfilled bid and ask can still be joined at those
prices proves the volume. Who is served at the last tick, the price and the money are then recomputed and compared, so
a matcher has nothing left to choose but, between areas, whose last tick of equal gain is served.
"""

from collections.abc import Sequence

import msgspec

from gridpool.errors import RefusedInput
from gridpool.markets.coupling import AreaMatch, Coupling, Fees, clear_areas, closed_fees, post_areas, price_areas
from gridpool.markets.double_auction import check_price_rule, clear, clear_crossing
from gridpool.markets.merit_order import Crossing, empty_clearing, merit_order, ration_last_tick
from gridpool.markets.orders import Clearing, Order, Rationing, Rule, Trade, check_orders

__all__ = ["Certificate", "Proposal", "certify", "propose", "verify_certificate"]


class Certificate(msgspec.Struct, frozen=True):
    """Dual price of each area in micro-coins per kWh, and the welfare (price x Wh, less fees) and volume they prove."""

    prices: dict[str, int]
    welfare: int
    volume_wh: int


class Proposal(msgspec.Struct, frozen=True):
    """A clearing by an outside matcher, with the certificate that proves it."""

    clearing: Clearing
    certificate: Certificate


def propose(
    orders: Sequence[Order],
    *,
    rule: Rule = "uniform",
    k_ppm: int = 500_000,
    tick: int = 1,
    rationing: Rationing = "arrival",
    coupling: Coupling | None = None,
    fees: Fees | None = None,
) -> Proposal:
    """Clear orders as an honest outside matcher does, and certify the result.

    Without ``coupling`` the orders are one market whatever their area. Raises RefusedInput as ``clear`` does, and for a
    rule that has no certificate.
    """
    _check_rule(rule, coupling)
    flat = list(orders) if coupling == "fee" else [_in_one_area(order) for order in orders]
    if coupling == "fee":
        clearing = clear_areas(flat, coupling="fee", fees=fees, rule=rule, k_ppm=k_ppm, tick=tick, rationing=rationing)
    else:
        clearing = clear(flat, rule=rule, k_ppm=k_ppm, tick=tick, rationing=rationing)
    return Proposal(clearing=clearing, certificate=certify(flat, clearing, k_ppm=k_ppm, tick=tick, fees=fees))


def certify(
    orders: Sequence[Order], clearing: Clearing, *, k_ppm: int = 500_000, tick: int = 1, fees: Fees | None = None
) -> Certificate:
    """Find the dual prices of an optimal clearing.

    Raises RefusedInput where there are none, because the clearing does not have the greatest welfare.
    """
    closed = closed_fees(sorted({order.area for order in orders}), fees or {}, tick=tick)
    match = _match_of(orders, clearing.trades)
    prices = price_areas(match, closed, k_ppm=k_ppm, tick=tick)
    return Certificate(prices=prices, welfare=_welfare(match, closed), volume_wh=_volume(match))


def verify_certificate(
    orders: Sequence[Order],
    proposal: Proposal,
    *,
    rule: Rule = "uniform",
    k_ppm: int = 500_000,
    tick: int = 1,
    rationing: Rationing = "arrival",
    coupling: Coupling | None = None,
    fees: Fees | None = None,
) -> None:
    """Accept a proposal if and only if its certificate proves it; the market's rules are the keyword arguments.

    Raises RefusedInput that says which part fails: the rule, a fill, the prices, welfare, volume, rationing or money.
    """
    clearing, certificate = proposal.clearing, proposal.certificate
    if clearing.rule != rule:
        raise RefusedInput(f"the proposal clears by {clearing.rule}, the market by {rule}")
    _check_rule(rule, coupling)
    check_price_rule(k_ppm, tick)
    check_orders(orders)
    if coupling != "fee":
        orders = [_in_one_area(order) for order in orders]
    areas = sorted({order.area for order in orders})
    closed = closed_fees(areas, fees or {} if coupling == "fee" else {}, tick=tick)
    if sorted(certificate.prices) != areas:
        raise RefusedInput("the certificate must price exactly the areas of the orders")
    match = _match_of(orders, clearing.trades)
    for flow in match.flows:
        if flow not in closed:
            raise RefusedInput(f"the proposal trades between areas {flow[0]!r} and {flow[1]!r}, which no fee joins")
    _prove_welfare(match, certificate, closed)
    _prove_volume(match, certificate, closed)
    for area, crossing in match.crossings.items():
        _check_rationing(area, crossing.bids, crossing.bought, rationing)
        _check_rationing(area, crossing.asks, crossing.sold, rationing)
    if not certificate.volume_wh:
        expected = empty_clearing(rule)
    elif coupling == "fee":
        expected = post_areas(match, price_areas(match, closed, k_ppm=k_ppm, tick=tick), closed)
    else:
        expected = clear_crossing(next(iter(match.crossings.values())), rule=rule, k_ppm=k_ppm, tick=tick)
    if expected != clearing:
        raise RefusedInput("the proposal's trades, prices or payments are not those that its fills demand")


def _check_rule(rule: Rule, coupling: Coupling | None) -> None:
    if rule not in ("uniform", "pay_as_bid"):
        raise RefusedInput(f"a certificate proves the rules uniform and pay_as_bid, not {rule}")
    if coupling == "none":
        raise RefusedInput("areas without coupling are markets of their own; certify each alone")


def _in_one_area(order: Order) -> Order:
    return order if not order.area else msgspec.structs.replace(order, area="")


def _match_of(orders: Sequence[Order], trades: Sequence[Trade]) -> AreaMatch:
    by_id = {order.id: order for order in orders}
    filled: dict[str, int] = dict.fromkeys(by_id, 0)
    flows: dict[tuple[str, str], int] = {}
    for trade in trades:
        bid, ask = by_id.get(trade.buy_id), by_id.get(trade.sell_id)
        if bid is None or ask is None or bid.side != "buy" or ask.side != "sell" or trade.quantity_wh < 1:
            raise RefusedInput(
                f"the proposal's trade of {trade.buy_id!r} with {trade.sell_id!r} does not join a buy and a sell order"
            )
        for order in (bid, ask):
            filled[order.id] += trade.quantity_wh
            if filled[order.id] > order.quantity_wh:
                raise RefusedInput(f"the proposal fills order {order.id!r} beyond its {order.quantity_wh} Wh")
        if ask.area != bid.area:
            flows[ask.area, bid.area] = flows.get((ask.area, bid.area), 0) + trade.quantity_wh
    crossings = {}
    for area in sorted({order.area for order in orders}):
        own = [order for order in orders if order.area == area]
        bids, asks = merit_order(own, "buy"), merit_order(own, "sell")
        crossings[area] = Crossing(
            bids=bids,
            asks=asks,
            bought=[filled[order.id] for order in bids],
            sold=[filled[order.id] for order in asks],
        )
    return AreaMatch(crossings=crossings, flows=dict(sorted(flows.items())))


def _volume(match: AreaMatch) -> int:
    return sum(crossing.volume_wh for crossing in match.crossings.values())


def _welfare(match: AreaMatch, fees: Fees) -> int:
    welfare = -sum(fees[both] * quantity for both, quantity in match.flows.items())
    for crossing in match.crossings.values():
        welfare += sum(bid.price * q for bid, q in zip(crossing.bids, crossing.bought, strict=True))
        welfare -= sum(ask.price * q for ask, q in zip(crossing.asks, crossing.sold, strict=True))
    return welfare


def _prove_welfare(match: AreaMatch, certificate: Certificate, fees: Fees) -> None:
    prices = certificate.prices
    for (one, other), fee in fees.items():
        if one in prices and other in prices and prices[other] - prices[one] > fee:
            raise RefusedInput(f"the certificate's prices of {one!r} and {other!r} differ by more than the fee {fee}")
    bound = 0
    for area, crossing in match.crossings.items():
        bound += sum(max(bid.price - prices[area], 0) * bid.quantity_wh for bid in crossing.bids)
        bound += sum(max(prices[area] - ask.price, 0) * ask.quantity_wh for ask in crossing.asks)
    if not certificate.welfare == _welfare(match, fees) == bound:
        raise RefusedInput(
            f"the proposal's welfare {_welfare(match, fees)} (claimed {certificate.welfare}) is not the bound {bound} "
            "of the certificate's prices"
        )


def _prove_volume(match: AreaMatch, certificate: Certificate, fees: Fees) -> None:
    """Refuse if an unfilled ask can still reach an unfilled bid at no loss, over tight fees or by turning a flow."""
    prices = certificate.prices
    joined: dict[str, set[str]] = {area: set() for area in prices}
    for (one, other), fee in fees.items():
        if one in prices and other in prices and prices[other] - prices[one] == fee:
            joined[one].add(other)
    for (source, sink), quantity in match.flows.items():
        if quantity:
            joined[sink].add(source)
    wanting = {area for area, c in match.crossings.items() if _left_at(c.bids, c.bought, prices[area])}
    for area, crossing in sorted(match.crossings.items()):
        if not _left_at(crossing.asks, crossing.sold, prices[area]):
            continue
        reached, frontier = {area}, [area]
        while frontier:
            for neighbour in sorted(joined[frontier.pop()] - reached):
                reached.add(neighbour)
                frontier.append(neighbour)
        if reached & wanting:
            raise RefusedInput("the proposal leaves a bid and an ask unfilled that meet at the certificate's prices")
    if certificate.volume_wh != _volume(match):
        raise RefusedInput(f"the proposal trades {_volume(match)} Wh but claims {certificate.volume_wh}")


def _left_at(side: Sequence[Order], filled: Sequence[int], price: int) -> bool:
    return any(o.price == price and q < o.quantity_wh for o, q in zip(side, filled, strict=True))


def _check_rationing(area: str, side: Sequence[Order], filled: Sequence[int], rationing: Rationing) -> None:
    """Refuse fills of the last tick other than the rationing rule's; better ticks are whole by duality."""
    last = max((i for i, quantity in enumerate(filled) if quantity), default=None)
    if last is None:
        return
    wanted = list(filled)
    if rationing == "pro_rata":
        ration_last_tick(side, wanted)
    else:
        left = sum(filled)
        for index, order in enumerate(side):
            wanted[index] = min(order.quantity_wh, left)
            left -= wanted[index]
    for order, quantity, due in zip(side, filled, wanted, strict=True):
        if quantity != due:
            raise RefusedInput(
                f"the proposal fills order {order.id!r} with {quantity} Wh; {rationing} rationing gives it {due}"
                + (f" in area {area!r}" if area else "")
            )
