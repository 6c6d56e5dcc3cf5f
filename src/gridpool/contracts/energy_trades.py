"""Trades, positions and the book at clearing: what matched orders become, and where their coins go."""

from collections.abc import Sequence
from typing import Literal

import msgspec

from gridpool.contracts import coins, credit_tokens, members
from gridpool.contracts.energy_intervals import INTERVALS, AreaPrice, EnergyParameters, Interval, energy
from gridpool.contracts.energy_market import BOOKS, POSITIONS, QUOTES, OpenOrder, Position
from gridpool.contracts.energy_orders import COMMITMENTS, unback
from gridpool.ledger.contract import Context
from gridpool.ledger.types import (
    Coins,
    Event,
    Millis,
    Natural,
    Price,
    Text,
    Value,
    Wallet,
    WattHours,
)
from gridpool.markets.orders import Clearing, Order
from gridpool.markets.orders import Trade as Match

__all__ = [
    "TRADES",
    "Cleared",
    "ClearingRefused",
    "NotRevealed",
    "Trade",
    "book_of",
    "carry_out",
    "interval_escrow",
    "market_orders",
]


class Trade(Value):
    """What one wallet sells to another in an interval, and what settlement has made of it so far.

    ``amount`` is what the buyer owes for the energy, ``received`` what the seller gets, ``fee`` the grid's. Once
    settled: ``charged``, ``paid`` and ``fee_paid`` for the ``delivered_wh``, and ``replaced`` coins to the back-stop
    for what was not delivered. ``status``: ``held`` in escrow, ``due`` (settled, not yet paid) or ``paid``.
    """

    buyer: Wallet
    seller: Wallet
    quantity_wh: WattHours
    price: Price
    amount: Coins
    received: Coins
    fee: Coins
    buy_serial: Natural
    sell_serial: Natural
    aggregator: Wallet
    loan: bytes = b""
    status: Literal["held", "due", "paid"] = "held"
    delivered_wh: WattHours = 0
    charged: Coins = 0
    paid: Coins = 0
    fee_paid: Coins = 0
    replaced: Coins = 0


@energy.event
class Cleared(Event, tag="energy.cleared"):
    """An interval was cleared; ``by`` is ``contract`` or the wallet (hex) of an outside matcher."""

    interval: Millis
    volume_wh: WattHours
    trades: Natural
    price: Price | None
    surplus: Coins
    deficit: Coins
    by: Text


@energy.event
class ClearingRefused(Event, tag="energy.clearing_refused"):
    """An interval ends without trades because its clearing could not be carried out."""

    interval: Millis
    why: Text


@energy.event
class NotRevealed(Event, tag="energy.not_revealed"):
    """A sealed order was not opened in time."""

    interval: Millis
    serial: Natural
    forfeited: Coins


TRADES = energy.table("trade", key=(int, int), value=Trade)
"""(interval, number) -> trade."""


def interval_escrow(start: int) -> bytes:
    """Name the escrow that holds an interval's trades until they are paid."""
    return coins.escrow_key("energy", start)


def book_of(ctx: Context, start: int) -> list[tuple[bytes, OpenOrder]]:
    """Return an interval's open orders with their tags, in order of arrival."""
    entries = [(tag, order) for (_, tag), book in ctx.scan(BOOKS, (start,)) for order in book.orders]
    return sorted(entries, key=lambda entry: entry[1].serial)


def market_orders(entries: Sequence[tuple[bytes, OpenOrder]]) -> list[Order]:
    """Write a book down as the clearing mathematics reads it: ids are serials, owners are tags."""
    return [
        Order(
            id=str(order.serial),
            side=order.side,
            quantity_wh=order.quantity_wh,
            price=order.price,
            owner=tag.hex(),
            area=order.area,
        )
        for tag, order in entries
    ]


def carry_out(
    ctx: Context,
    start: int,
    interval: Interval,
    market: EnergyParameters,
    entries: list[tuple[bytes, OpenOrder]],
    clearing: Clearing | None,
    *,
    by: str,
) -> None:
    """Post a clearing (None: nothing trades): trades, positions, escrow; everything else is set free and forgotten."""
    matches = [] if clearing is None else _within_reserves(entries, clearing.trades)
    gap = sum(max(0, match.received - match.amount) for match in matches)
    if gap > coins.free(ctx, market.market):
        ctx.emit(ClearingRefused(start, f"the market's account lacks {gap} micro-coins to fund the deficit"))
        clearing, matches = None, []
    escrow = interval_escrow(start)
    if matches:
        coins.open_escrow(ctx, escrow, f"energy {start}")
        coins.fund_escrow(ctx, market.market, escrow, gap)
    orders = {str(order.serial): order for _, order in entries}
    spent: dict[str, int] = {}
    filled: dict[str, int] = {}
    numbers: dict[bytes, list[int]] = {}
    for number, match in enumerate(matches):
        bid, ask = orders[match.buy_id], orders[match.sell_id]
        ctx.put(
            TRADES,
            (start, number),
            Trade(
                bid.wallet,
                ask.wallet,
                match.quantity_wh,
                match.price,
                match.amount,
                match.received,
                match.fee,
                bid.serial,
                ask.serial,
                ask.aggregator,
                bid.loan,
            ),
        )
        spent[match.buy_id] = spent.get(match.buy_id, 0) + match.amount + match.fee
        for name, wallet in ((match.buy_id, bid.wallet), (match.sell_id, ask.wallet)):
            filled[name] = filled.get(name, 0) + match.quantity_wh
            numbers.setdefault(wallet, []).append(number)
    positions: dict[bytes, Position] = {}
    for name, order in orders.items():
        positions[order.wallet] = _post(
            ctx, escrow, order, positions.get(order.wallet), filled.get(name, 0), spent.get(name, 0)
        )
    for wallet, position in positions.items():
        ctx.put(POSITIONS, (start, wallet), msgspec.structs.replace(position, trades=tuple(numbers.get(wallet, ()))))
    _forget(ctx, start, market)
    volume = 0 if clearing is None else clearing.volume_wh
    price = None if clearing is None else clearing.price
    by_area = {} if clearing is None else clearing.area_prices
    areas = tuple(AreaPrice(area, by_area[area]) for area in sorted(by_area)[:256])
    ctx.put(
        INTERVALS,
        start,
        msgspec.structs.replace(
            interval, status="cleared", volume_wh=volume, trades=len(matches), price=price, area_prices=areas
        ),
    )
    surplus, deficit = (0, 0) if clearing is None else (clearing.surplus, clearing.deficit)
    ctx.emit(Cleared(start, volume, len(matches), price, surplus, deficit, by))


def _post(ctx: Context, escrow: bytes, order: OpenOrder, known: Position | None, filled: int, spent: int) -> Position:
    """Move an order's coins where its fill wants them; returns its wallet's position with the order in it."""
    position = known or Position(0, 0, 0, 0, 0, order.aggregator, ())
    if order.side == "buy":
        if order.loan:
            credit_tokens.token_to_escrow(ctx, order.loan, escrow, spent)
        elif spent:
            coins.fund_escrow_reserved(ctx, order.wallet, escrow, spent)
        unback(ctx, order.wallet, order.loan, order.reserved - spent)
        return msgspec.structs.replace(
            position,
            nominated_buy_wh=position.nominated_buy_wh + order.quantity_wh,
            bought_wh=position.bought_wh + filled,
            loan=position.loan or order.loan,
        )
    bond = order.reserved * filled // order.quantity_wh
    coins.release(ctx, order.wallet, order.reserved - bond)
    return msgspec.structs.replace(
        position,
        nominated_sell_wh=position.nominated_sell_wh + order.quantity_wh,
        sold_wh=position.sold_wh + filled,
        bond=position.bond + bond,
    )


def _forget(ctx: Context, start: int, market: EnergyParameters) -> None:
    """Remove book, tags and commitments; a commitment that was not revealed forfeits part of its cap."""
    for name, _ in list(ctx.scan(BOOKS, (start,))):
        ctx.delete(BOOKS, name)
    for key, held in list(ctx.scan(COMMITMENTS, (start,))):
        if not held.revealed:
            forfeit = held.cap * market.forfeit_ppm // 1_000_000
            unback(ctx, held.wallet, held.loan, held.cap)
            if held.loan:
                credit_tokens.token_to_wallet(ctx, held.loan, market.market, forfeit, "not revealed")
            else:
                coins.move(ctx, held.wallet, market.market, forfeit)
            ctx.emit(NotRevealed(start, key[1], forfeit))
        ctx.delete(COMMITMENTS, key)
    for tagged, _ in list(ctx.scan(members.TAGS, (start,))):
        ctx.delete(members.TAGS, tagged)
    if ctx.get(QUOTES, start) is not None:
        ctx.delete(QUOTES, start)


def _within_reserves(entries: list[tuple[bytes, OpenOrder]], trades: Sequence[Match]) -> list[Match]:
    """Spread each buyer's payment so that no order pays more than backs it.

    VCG spreads a member's payment over its orders by quantity; the member's total is within its reserves, single
    orders' parts need not be.
    """
    owner = {str(order.serial): tag for tag, order in entries}
    left = {str(order.serial): order.reserved for _, order in entries if order.side == "buy"}
    over: dict[bytes, int] = {}
    capped = []
    for match in trades:
        amount = min(match.amount, left[match.buy_id] - match.fee)
        left[match.buy_id] -= amount + match.fee
        if amount < match.amount:
            tag = owner[match.buy_id]
            over[tag] = over.get(tag, 0) + match.amount - amount
        capped.append(msgspec.structs.replace(match, amount=amount))
    if not over:
        return capped
    spread = []
    for match in capped:
        tag = owner[match.buy_id]
        extra = min(over.get(tag, 0), left[match.buy_id])
        if extra:
            over[tag] -= extra
            left[match.buy_id] -= extra
        spread.append(msgspec.structs.replace(match, amount=match.amount + extra))
    return spread
