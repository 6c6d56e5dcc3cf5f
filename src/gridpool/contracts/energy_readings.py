"""Meter readings: signed under the wallet's key, late, missing, substituted and corrected ones being normal."""

from typing import Annotated

import msgspec

from gridpool.contracts import members
from gridpool.contracts.energy_intervals import WEEK_MS, EnergyParameters, Quality, energy, interval_of, market_of
from gridpool.contracts.energy_market import METERS, PROFILES, Meter, Position
from gridpool.contracts.members import Role
from gridpool.ledger.contract import Context
from gridpool.ledger.types import Call, Event, Millis, Value, Wallet, WattHours

__all__ = ["READINGS", "MeterReading", "ReadingTaken", "ReportMissing", "StoredReading", "SubmitReadings", "substitute"]

DAY_MS = 86_400_000


class MeterReading(Value):
    """What a meter measured in an interval, Wh in and out."""

    interval: Millis
    import_wh: WattHours
    export_wh: WattHours
    quality: Quality = "measured"


class StoredReading(Value):
    """The reading in force, and when it came (market time)."""

    import_wh: WattHours
    export_wh: WattHours
    quality: Quality
    at: Millis


class SubmitReadings(Call, tag="energy.submit_readings"):
    """Hand in the calling wallet's readings (an aggregator may carry the call); ``corrected`` ones replace earlier."""

    readings: Annotated[tuple[MeterReading, ...], msgspec.Meta(min_length=1, max_length=500)]


class ReportMissing(Call, tag="energy.report_missing"):
    """Name meters of the caller's pool that sent nothing, so that settlement substitutes their readings."""

    interval: Millis
    wallets: Annotated[tuple[Wallet, ...], msgspec.Meta(min_length=1, max_length=2_000)]


@energy.event
class ReadingTaken(Event, tag="energy.reading_taken"):
    """A reading came in."""

    interval: Millis
    wallet: Wallet
    import_wh: WattHours
    export_wh: WattHours
    quality: Quality


READINGS = energy.table("reading", key=(int, bytes), value=StoredReading)
"""(interval, wallet) -> reading in force."""


@energy.call(SubmitReadings)
def submit_readings(ctx: Context, call: SubmitReadings) -> None:
    """Store readings of intervals that have ended and whose final run is still to come."""
    members.require(ctx)
    wallet = ctx.sender
    meter = ctx.require(METERS, wallet, "no_meter")
    for reading in call.readings:
        interval = interval_of(ctx, reading.interval)
        market = market_of(ctx, interval)
        if ctx.now < reading.interval + market.interval_ms:
            ctx.refuse("interval_not_over", str(reading.interval))
        if interval.status == "final":
            ctx.refuse("too_late", "the interval's final run is over")
        if reading.import_wh > meter.import_wh or reading.export_wh > meter.export_wh:
            ctx.refuse("beyond_meter", f"at most {meter.import_wh} Wh in and {meter.export_wh} Wh out")
        if reading.quality == "substituted":
            ctx.refuse("meters_do_not_substitute", str(reading.interval))
        old = ctx.get(READINGS, (reading.interval, wallet))
        if old is not None and old.quality != "substituted" and reading.quality != "corrected":
            ctx.refuse("reading_stands", "send a corrected one")
        stored = StoredReading(reading.import_wh, reading.export_wh, reading.quality, ctx.now)
        ctx.put(READINGS, (reading.interval, wallet), stored)
        ctx.emit(ReadingTaken(reading.interval, wallet, reading.import_wh, reading.export_wh, reading.quality))


@energy.call(ReportMissing)
def report_missing(ctx: Context, call: ReportMissing) -> None:
    """Substitute readings of meters that neither trade nor report; an interval's own orders need no such report."""
    record = members.require(ctx, Role.AGGREGATOR, Role.UTILITY)
    interval = interval_of(ctx, call.interval)
    market = market_of(ctx, interval)
    if ctx.now < call.interval + market.interval_ms or interval.status == "final":
        ctx.refuse("not_the_time_to_report", str(call.interval))
    for wallet in call.wallets:
        meter = ctx.require(METERS, wallet, "no_meter")
        if meter.aggregator != record.member and Role.UTILITY not in record.roles:
            ctx.refuse("not_of_this_pool", wallet.hex())
        if ctx.get(READINGS, (call.interval, wallet)) is None:
            ctx.put(READINGS, (call.interval, wallet), substitute(ctx, call.interval, wallet, market, None))


def substitute(
    ctx: Context, start: int, wallet: bytes, market: EnergyParameters, position: Position | None
) -> StoredReading:
    """Return what stands in for a missing reading.

    The same interval a week earlier if it was measured, else the meter's profile, else what the wallet contracted (a
    meter without profile deviates from nothing).
    """
    earlier = ctx.get(READINGS, (start - WEEK_MS, wallet)) if start >= WEEK_MS else None
    if earlier is not None and earlier.quality != "substituted":
        return StoredReading(earlier.import_wh, earlier.export_wh, "substituted", ctx.now)
    meter = ctx.get(METERS, wallet)
    profile = None if meter is None or not meter.profile else ctx.get(PROFILES, meter.profile)
    if meter is not None and profile is not None:
        slot = start % DAY_MS // market.interval_ms
        return StoredReading(
            _scaled(profile.import_wh, slot, meter, meter.import_wh),
            _scaled(profile.export_wh, slot, meter, meter.export_wh),
            "substituted",
            ctx.now,
        )
    if position is None:
        return StoredReading(0, 0, "substituted", ctx.now)
    sold = position.sold_wh if meter is None else -(-position.sold_wh * 1_000_000 // max(1, meter.efficiency_ppm))
    return StoredReading(position.bought_wh, sold, "substituted", ctx.now)


def _scaled(values: tuple[int, ...], slot: int, meter: Meter, most: int) -> int:
    return min(values[slot] * meter.profile_ppm // 1_000_000, most) if slot < len(values) else 0
