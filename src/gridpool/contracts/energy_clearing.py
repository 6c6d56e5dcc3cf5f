"""Gate closure and clearing: the contract matches and prices, or accepts a matcher's clearing that proves itself.

At clearing the buyers' coins move into the interval's escrow, bonds stay reserved, everything else is set free.
"""

from typing import Annotated, cast

import msgspec

from gridpool.contracts import members
from gridpool.contracts.energy_intervals import (
    INTERVALS,
    AreaPrice,
    ClearMarket,
    CloseGate,
    EnergyParameters,
    energy,
    market_of,
)
from gridpool.contracts.energy_market import OpenOrder
from gridpool.contracts.energy_trades import (
    TRADES,
    Cleared,
    ClearingRefused,
    Trade,
    book_of,
    carry_out,
    interval_escrow,
    market_orders,
)
from gridpool.errors import RefusedInput
from gridpool.ledger.contract import Context, Refused
from gridpool.ledger.types import (
    Call,
    Coins,
    Millis,
    Natural,
    Price,
    SignedInteger,
    Value,
    WattHours,
)
from gridpool.markets import certificate, coupling
from gridpool.markets.orders import Clearing
from gridpool.markets.orders import Rule as MarketRule
from gridpool.markets.orders import Trade as Match

__all__ = [
    "TRADES",
    "Cleared",
    "ClearingRefused",
    "ProposeClearing",
    "ProposedTrade",
    "Trade",
    "book_of",
    "interval_escrow",
    "market_orders",
    "proposal_of",
]


class ProposedTrade(Value):
    """A trade in an outside matcher's clearing, by order serials."""

    buy_serial: Natural
    sell_serial: Natural
    quantity_wh: WattHours
    price: Price
    amount: Coins
    received: Coins
    fee: Coins


class ProposeClearing(Call, tag="energy.propose_clearing"):
    """Offer a clearing made elsewhere; the dual prices prove welfare and volume, the rest is recomputed.

    Prices are tuples of one, or empty where the clearing has none.
    """

    interval: Millis
    trades: Annotated[tuple[ProposedTrade, ...], msgspec.Meta(max_length=20_000)]
    price: Annotated[tuple[Price, ...], msgspec.Meta(max_length=1)]
    buy_price: Annotated[tuple[Price, ...], msgspec.Meta(max_length=1)]
    sell_price: Annotated[tuple[Price, ...], msgspec.Meta(max_length=1)]
    area_prices: Annotated[tuple[AreaPrice, ...], msgspec.Meta(max_length=64)]
    dual_prices: Annotated[tuple[AreaPrice, ...], msgspec.Meta(max_length=64)]
    welfare: SignedInteger
    volume_wh: WattHours


def proposal_of(interval: int, proposal: certificate.Proposal) -> ProposeClearing:
    """Write an outside matcher's certified clearing as the call that offers it."""
    cleared, proof = proposal.clearing, proposal.certificate
    return ProposeClearing(
        interval,
        tuple(
            ProposedTrade(int(t.buy_id), int(t.sell_id), t.quantity_wh, t.price, t.amount, t.received, t.fee)
            for t in cleared.trades
        ),
        _maybe(cleared.price),
        _maybe(cleared.buy_price),
        _maybe(cleared.sell_price),
        tuple(AreaPrice(area, price) for area, price in sorted(cleared.area_prices.items())),
        tuple(AreaPrice(area, price) for area, price in sorted(proof.prices.items())),
        proof.welfare,
        proof.volume_wh,
    )


@energy.due(CloseGate)
def close_gate(ctx: Context, due: CloseGate) -> None:
    """Close the book; clear at once unless reveals or outside matchers have their time first."""
    interval = ctx.require(INTERVALS, due.interval, "no_such_interval")
    market = market_of(ctx, interval)
    ctx.put(INTERVALS, due.interval, msgspec.structs.replace(interval, status="closed"))
    wait = (market.reveal_ms if market.sealed else 0) + market.matcher_ms
    if wait:
        ctx.schedule(max(0, due.interval - market.lead_ms + wait), ClearMarket(due.interval))
    else:
        clear_interval(ctx, due.interval)


@energy.due(ClearMarket)
def clear_market(ctx: Context, due: ClearMarket) -> None:
    """Clear an interval for which nobody else has proposed a valid clearing."""
    if ctx.require(INTERVALS, due.interval, "no_such_interval").status == "closed":
        clear_interval(ctx, due.interval)


@energy.call(ProposeClearing)
def propose_clearing(ctx: Context, call: ProposeClearing) -> None:
    """Accept a matcher's clearing if its certificate proves it; refused otherwise, and the contract clears in time."""
    members.require(ctx)
    interval = ctx.require(INTERVALS, call.interval, "no_such_interval")
    market = market_of(ctx, interval)
    opens = call.interval - market.lead_ms + (market.reveal_ms if market.sealed else 0)
    if interval.status != "closed" or not opens <= ctx.now < opens + market.matcher_ms:
        ctx.refuse("not_the_time_to_propose", f"from {opens} for {market.matcher_ms} ms")
    if market.rule not in ("uniform", "pay_as_bid") or (market.coupling == "none" and len(_areas(ctx, call)) > 1):
        ctx.refuse("no_certificate_for_this_rule", market.rule)
    entries = book_of(ctx, call.interval)
    proposal = _proposal(ctx, call, market, entries)
    try:
        certificate.verify_certificate(
            market_orders(entries),
            proposal,
            rule=market.rule,
            k_ppm=market.k_ppm,
            tick=market.tick,
            rationing=market.rationing,
            coupling="fee" if market.coupling == "fee" else None,
            fees=_fees(market),
        )
    except RefusedInput as error:
        ctx.refuse("proposal_does_not_prove_itself", str(error)[:200])
    carry_out(ctx, call.interval, interval, market, entries, proposal.clearing, by=ctx.sender.hex())


def clear_interval(ctx: Context, start: int) -> None:
    """Clear by the market's own rule."""
    interval = ctx.require(INTERVALS, start, "no_such_interval")
    market = market_of(ctx, interval)
    entries = book_of(ctx, start)
    try:
        clearing = coupling.clear_areas(
            market_orders(entries),
            coupling=market.coupling,
            fees=_fees(market),
            rule="uniform" if market.rule == "posted" else market.rule,
            k_ppm=market.k_ppm,
            tick=market.tick,
            rationing=market.rationing,
        )
    except RefusedInput as error:
        ctx.emit(ClearingRefused(start, str(error)[:200]))
        clearing = None
    carry_out(ctx, start, interval, market, entries, clearing, by="contract")


def _proposal(
    ctx: Context, call: ProposeClearing, market: EnergyParameters, entries: list[tuple[bytes, OpenOrder]]
) -> certificate.Proposal:
    owner = {order.serial: tag.hex() for tag, order in entries}
    payments: dict[str, int] = {}
    for trade in call.trades:
        if trade.buy_serial not in owner or trade.sell_serial not in owner:
            raise Refused("no_such_order", f"{trade.buy_serial} or {trade.sell_serial}")
        buyer, seller = owner[trade.buy_serial], owner[trade.sell_serial]
        payments[buyer] = payments.get(buyer, 0) + trade.amount + trade.fee
        payments[seller] = payments.get(seller, 0) - trade.received
    balance = sum(payments.values())
    cleared = Clearing(
        rule=cast(MarketRule, market.rule),
        volume_wh=call.volume_wh,
        price=_one(call.price),
        buy_price=_one(call.buy_price),
        sell_price=_one(call.sell_price),
        trades=tuple(
            Match(
                buy_id=str(t.buy_serial),
                sell_id=str(t.sell_serial),
                quantity_wh=t.quantity_wh,
                price=t.price,
                amount=t.amount,
                received=t.received,
                fee=t.fee,
            )
            for t in call.trades
        ),
        payments=dict(sorted(payments.items())),
        surplus=max(balance, 0),
        deficit=max(-balance, 0),
        fees=sum(trade.fee for trade in call.trades),
        area_prices={entry.area: entry.price for entry in call.area_prices},
    )
    proof = certificate.Certificate(
        prices={entry.area: entry.price for entry in call.dual_prices},
        welfare=call.welfare,
        volume_wh=call.volume_wh,
    )
    return certificate.Proposal(clearing=cleared, certificate=proof)


def _areas(ctx: Context, call: ProposeClearing) -> set[str]:
    return {order.area for _, order in book_of(ctx, call.interval)}


def _fees(market: EnergyParameters) -> dict[tuple[str, str], int]:
    return {(fee.one, fee.other): fee.fee for fee in market.fees}


def _maybe(price: int | None) -> tuple[int, ...]:
    return () if price is None else (price,)


def _one(price: tuple[int, ...]) -> int | None:
    return price[0] if price else None
