"""Settlement: what trades and deviations cost on the readings there are, in three runs that each post the difference.

A trade is paid for what its seller delivered; the back-stop replaces the rest for the buyer at the contract's price
(retail at most), the seller bearing the difference to retail. What else meters show beyond contracts is bought from
or sold to the back-stop at retail or feed-in price, and at the imbalance pair beyond the tolerance: every Wh once.
The legs of the initial run are paid when their payer countersigns, or after two intervals of silence; an objection
holds them until the revised run at the latest.
"""

from collections.abc import Sequence

import msgspec

from gridpool.contracts import coins
from gridpool.contracts.energy_clearing import TRADES, Trade, clear_interval, interval_escrow
from gridpool.contracts.energy_intervals import (
    INTERVALS,
    EnergyParameters,
    Run,
    RunSettlement,
    SilenceIsConsent,
    energy,
    market_of,
)
from gridpool.contracts.energy_market import METERS, POSITIONS, Position
from gridpool.contracts.energy_payments import (
    ARREARS,
    BILLS,
    Arrears,
    Bill,
    PayArrears,
    collect_arrears,
    pay,
    pay_bill,
    pay_trade,
)
from gridpool.contracts.energy_readings import READINGS, StoredReading, substitute
from gridpool.contracts.energy_rewards import contribute
from gridpool.ledger.contract import Context
from gridpool.ledger.types import Call, Event, Millis, Text, Value, Wallet, WattHours
from gridpool.markets.rationing import share_by_weight

__all__ = [
    "ARREARS",
    "BILLS",
    "Arrears",
    "Bill",
    "Countersign",
    "Deviation",
    "Object",
    "PayArrears",
    "Settled",
    "deviation_of",
    "settle_trade",
]


class Deviation(Value):
    """How a reading departs from nominations and contracts, in Wh; see ``Bill``."""

    extra_wh: WattHours
    surplus_wh: WattHours
    shortfall_wh: WattHours
    untaken_wh: WattHours
    extra_short_wh: WattHours
    surplus_long_wh: WattHours
    shortfall_short_wh: WattHours
    untaken_long_wh: WattHours


class Countersign(Call, tag="energy.countersign"):
    """Agree to what the caller owes for an interval, so that it is paid at once."""

    interval: Millis


class Object(Call, tag="energy.object"):
    """Hold the caller's legs of an interval until the revised run."""

    interval: Millis
    why: Text


@energy.event
class Settled(Event, tag="energy.settled"):
    """A settlement run has computed an interval."""

    interval: Millis
    run: Run
    delivered_wh: WattHours
    supplied_wh: WattHours
    absorbed_wh: WattHours


@energy.event
class Objected(Event, tag="energy.objected"):
    """A wallet objects to an interval's settlement."""

    interval: Millis
    wallet: Wallet
    why: Text


def deviation_of(position: Position | None, import_wh: int, export_wh: int, tolerance_ppm: int) -> Deviation:
    """Compare a reading (``export_wh`` as it arrives) with a position; each Wh of it appears once.

    A reading between what was contracted and what was nominated is no imbalance, nor is one within the tolerance
    (ppm of the nomination) around that band. Who nominated nothing on a side has no imbalance on that side.
    """
    p = position or Position(0, 0, 0, 0, 0, bytes(32), ())
    buy_tolerance = p.nominated_buy_wh * tolerance_ppm // 1_000_000
    sell_tolerance = p.nominated_sell_wh * tolerance_ppm // 1_000_000
    return Deviation(
        extra_wh=max(0, import_wh - p.bought_wh),
        surplus_wh=max(0, export_wh - p.sold_wh),
        shortfall_wh=max(0, p.sold_wh - export_wh),
        untaken_wh=max(0, p.bought_wh - import_wh),
        extra_short_wh=max(0, import_wh - p.nominated_buy_wh - buy_tolerance) if p.nominated_buy_wh else 0,
        surplus_long_wh=max(0, export_wh - p.nominated_sell_wh - sell_tolerance) if p.nominated_sell_wh else 0,
        shortfall_short_wh=max(0, p.sold_wh - export_wh - sell_tolerance),
        untaken_long_wh=max(0, p.bought_wh - import_wh - buy_tolerance),
    )


def settle_trade(trade: Trade, delivered_wh: int, retail: int) -> Trade:
    """Return a trade with the money that its delivery asks for."""
    q, d = trade.quantity_wh, delivered_wh
    charged = trade.amount * d // q
    return msgspec.structs.replace(
        trade,
        delivered_wh=d,
        charged=charged,
        paid=trade.received * d // q,
        fee_paid=trade.fee * d // q,
        replaced=min(trade.amount - charged, retail * (q - d) // 1000),
    )


@energy.due(RunSettlement)
def run_settlement(ctx: Context, due: RunSettlement) -> None:
    """Settle an interval; the initial run makes legs due, later runs post what has changed since."""
    interval = ctx.require(INTERVALS, due.interval, "no_such_interval")
    if interval.status in ("open", "closed"):
        clear_interval(ctx, due.interval)
        interval = ctx.require(INTERVALS, due.interval, "no_such_interval")
    market = market_of(ctx, interval)
    positions = {wallet: position for (_, wallet), position in ctx.scan(POSITIONS, (due.interval,))}
    readings = _readings(ctx, due.interval, market, positions)
    trades = [trade for _, trade in ctx.scan(TRADES, (due.interval,))]
    arriving, lost = _arriving(ctx, readings)
    fresh = _settle_trades(trades, positions, arriving, market)
    bills = {
        wallet: _bill(positions.get(wallet), reading, arriving[wallet], _replaced(fresh, wallet, positions), market)
        for wallet, reading in readings.items()
    }
    payees: dict[bytes, None] = {}
    for number, (old, new) in enumerate(zip(trades, fresh, strict=True)):
        _post_trade(ctx, due, number, old, new, market, payees)
    for wallet, bill in bills.items():
        _post_bill(ctx, due, wallet, bill, positions.get(wallet), market, payees)
    collect_arrears(ctx, payees)
    if due.run == "final" and trades:
        coins.close_escrow(ctx, interval_escrow(due.interval))
    supplied = sum(bill.extra_wh + bill.shortfall_wh for bill in bills.values())
    absorbed = sum(bill.surplus_wh + bill.untaken_wh for bill in bills.values())
    ctx.put(
        INTERVALS,
        due.interval,
        msgspec.structs.replace(
            interval,
            status=due.run,
            imported_wh=sum(reading.import_wh for reading in readings.values()),
            exported_wh=sum(arriving.values()),
            supplied_wh=supplied,
            absorbed_wh=absorbed,
            lost_wh=lost,
        ),
    )
    ctx.emit(Settled(due.interval, due.run, sum(trade.delivered_wh for trade in fresh), supplied, absorbed))
    if due.run == "initial":
        settled = due.interval + market.interval_ms + market.initial_ms
        ctx.schedule(settled + market.consent_intervals * market.interval_ms, SilenceIsConsent(due.interval))


@energy.due(SilenceIsConsent)
def silence_is_consent(ctx: Context, due: SilenceIsConsent) -> None:
    """Pay every leg that is due and that neither side objected to."""
    market = market_of(ctx, ctx.require(INTERVALS, due.interval, "no_such_interval"))
    bills = {wallet: bill for (_, wallet), bill in ctx.scan(BILLS, (due.interval,))}
    objected = {wallet for wallet, bill in bills.items() if bill.objected}
    payees: dict[bytes, None] = {}
    for (_, number), trade in list(ctx.scan(TRADES, (due.interval,))):
        if trade.status == "due" and trade.buyer not in objected and trade.seller not in objected:
            pay_trade(ctx, due.interval, number, trade, market, payees)
    for wallet, bill in bills.items():
        if bill.status == "due" and wallet not in objected:
            pay_bill(ctx, due.interval, wallet, bill, market, payees)
    collect_arrears(ctx, payees)


@energy.call(Countersign)
def countersign(ctx: Context, call: Countersign) -> None:
    """Pay the caller's purchases and its bill of an interval now."""
    interval = ctx.require(INTERVALS, call.interval, "no_such_interval")
    market = market_of(ctx, interval)
    bill = ctx.require(BILLS, (call.interval, ctx.sender), "nothing_to_countersign")
    payees: dict[bytes, None] = {}
    position = ctx.get(POSITIONS, (call.interval, ctx.sender))
    for number in () if position is None else position.trades:
        trade = ctx.require(TRADES, (call.interval, number), "no_such_trade")
        if trade.status != "due" or trade.buyer != ctx.sender:
            continue
        other = ctx.get(BILLS, (call.interval, trade.seller))
        if other is None or not other.objected:
            pay_trade(ctx, call.interval, number, trade, market, payees)
    if bill.status == "due":
        pay_bill(ctx, call.interval, ctx.sender, msgspec.structs.replace(bill, objected=False), market, payees)
    if not payees and bill.status == "paid":
        ctx.refuse("nothing_to_countersign", "all is paid")
    collect_arrears(ctx, payees)


@energy.call(Object)
def object_to(ctx: Context, call: Object) -> None:
    """Hold what is not yet paid; the revised run settles it on the readings there are then, without further delay."""
    bill = ctx.require(BILLS, (call.interval, ctx.sender), "nothing_to_object_to")
    interval = ctx.require(INTERVALS, call.interval, "no_such_interval")
    if bill.status == "paid" or interval.status != "initial":
        ctx.refuse("too_late_to_object", "a corrected reading still counts")
    ctx.put(BILLS, (call.interval, ctx.sender), msgspec.structs.replace(bill, objected=True))
    ctx.emit(Objected(call.interval, ctx.sender, call.why))


def _readings(
    ctx: Context, start: int, market: EnergyParameters, positions: dict[bytes, Position]
) -> dict[bytes, StoredReading]:
    readings = {wallet: reading for (_, wallet), reading in ctx.scan(READINGS, (start,))}
    for wallet, position in positions.items():
        if wallet not in readings:
            readings[wallet] = substitute(ctx, start, wallet, market, position)
            ctx.put(READINGS, (start, wallet), readings[wallet])
    return dict(sorted(readings.items()))


def _arriving(ctx: Context, readings: dict[bytes, StoredReading]) -> tuple[dict[bytes, int], int]:
    """Return what arrives of each wallet's export (Wh), and what is lost on the way in all."""
    arriving, lost = {}, 0
    for wallet, reading in readings.items():
        meter = ctx.get(METERS, wallet) if reading.export_wh else None
        efficiency = 1_000_000 if meter is None else meter.efficiency_ppm
        arriving[wallet] = reading.export_wh * efficiency // 1_000_000
        lost += reading.export_wh - arriving[wallet]
    return arriving, lost


def _settle_trades(
    trades: Sequence[Trade], positions: dict[bytes, Position], arriving: dict[bytes, int], market: EnergyParameters
) -> list[Trade]:
    """Share what each seller delivered over its trades in proportion, so that no buyer is favoured."""
    fresh = list(trades)
    for wallet, position in positions.items():
        numbers = [number for number in position.trades if trades[number].seller == wallet]
        delivered = min(position.sold_wh, arriving[wallet])
        shares = share_by_weight(delivered, [trades[number].quantity_wh for number in numbers])
        for number, share in zip(numbers, shares, strict=True):
            fresh[number] = settle_trade(trades[number], share, market.retail)
    return fresh


def _replaced(trades: Sequence[Trade], wallet: bytes, positions: dict[bytes, Position]) -> int:
    position = positions.get(wallet)
    numbers = () if position is None else position.trades
    return sum(trades[number].replaced for number in numbers if trades[number].seller == wallet)


def _bill(
    position: Position | None, reading: StoredReading, arriving: int, replaced: int, market: EnergyParameters
) -> Bill:
    """Price a wallet's deviations; ``replaced`` is what its buyers already paid the back-stop in its place."""
    d = deviation_of(position, reading.import_wh, arriving, market.tolerance_ppm)
    retail, short = market.retail, market.short_price
    extra = retail * (d.extra_wh - d.extra_short_wh) + short * d.extra_short_wh
    shortfall = retail * (d.shortfall_wh - d.shortfall_short_wh) + short * d.shortfall_short_wh
    sold = d.surplus_wh + d.untaken_wh
    beyond = d.surplus_long_wh + d.untaken_long_wh
    return Bill(
        import_wh=reading.import_wh,
        export_wh=reading.export_wh,
        quality=reading.quality,
        extra_wh=d.extra_wh,
        surplus_wh=d.surplus_wh,
        shortfall_wh=d.shortfall_wh,
        untaken_wh=d.untaken_wh,
        short_wh=d.extra_short_wh + d.shortfall_short_wh,
        long_wh=beyond,
        charge=extra // 1000 + max(0, shortfall // 1000 - replaced),
        credit=(market.feed_in * (sold - beyond) + market.long_price * beyond) // 1000,
    )


def _post_trade(
    ctx: Context,
    due: RunSettlement,
    number: int,
    old: Trade,
    new: Trade,
    market: EnergyParameters,
    payees: dict[bytes, None],
) -> None:
    if old.status == "paid":
        if new == old:
            return
        ctx.put(TRADES, (due.interval, number), new)
        buyer = old.buyer
        margin = (new.charged - new.paid) - (old.charged - old.paid)
        pay(ctx, due.interval, buyer, new.seller, new.paid - old.paid, "energy", payees, old.loan)
        pay(ctx, due.interval, buyer, market.market, margin, "margin", payees, old.loan)
        pay(ctx, due.interval, buyer, market.grid, new.fee_paid - old.fee_paid, "fee", payees, old.loan)
        pay(ctx, due.interval, buyer, market.back_stop, new.replaced - old.replaced, "replacement", payees, old.loan)
        contribute(ctx, market, due.interval, new.aggregator, new.seller, new.delivered_wh - old.delivered_wh)
        return
    new = msgspec.structs.replace(new, status="due")
    ctx.put(TRADES, (due.interval, number), new)
    if due.run != "initial":
        pay_trade(ctx, due.interval, number, new, market, payees)


def _post_bill(
    ctx: Context,
    due: RunSettlement,
    wallet: bytes,
    bill: Bill,
    position: Position | None,
    market: EnergyParameters,
    payees: dict[bytes, None],
) -> None:
    old = ctx.get(BILLS, (due.interval, wallet))
    if old is not None and old.status == "paid":
        bill = msgspec.structs.replace(bill, status="paid")
        if bill != old:
            ctx.put(BILLS, (due.interval, wallet), bill)
            net = (bill.charge - bill.credit) - (old.charge - old.credit)
            loan = b"" if position is None else position.loan
            pay(ctx, due.interval, wallet, market.back_stop, net, "residual", payees, loan)
        return
    ctx.put(BILLS, (due.interval, wallet), bill)
    if due.run != "initial":
        pay_bill(ctx, due.interval, wallet, bill, market, payees)
