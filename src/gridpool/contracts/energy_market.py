"""The energy market's register: parameters, intervals, meters, profiles, quotes, and what the tables hold."""

from typing import Annotated

import msgspec

from gridpool.contracts import members
from gridpool.contracts.energy_intervals import (
    INTERVALS,
    MARKETS,
    MOST_WH,
    AreaFee,
    ClearMarket,
    CloseGate,
    EnergyParameters,
    Interval,
    Kind,
    ProfileName,
    RewardPeriodEnds,
    RunSettlement,
    SetEnergyParameters,
    Side,
    SilenceIsConsent,
    energy,
    interval_of,
    latest_market,
    market_of,
)
from gridpool.contracts.members import Role, recovery
from gridpool.ledger.contract import Context
from gridpool.ledger.types import (
    Call,
    Coins,
    Event,
    Millis,
    Natural,
    PartsPerMillion,
    Price,
    Text,
    Value,
    Wallet,
    WattHours,
)

__all__ = [
    "BOOKS",
    "INTERVALS",
    "MARKETS",
    "METERS",
    "POSITIONS",
    "PROFILES",
    "QUOTES",
    "AreaFee",
    "Book",
    "ClearMarket",
    "CloseGate",
    "EnergyParameters",
    "Interval",
    "Meter",
    "MoveMeter",
    "NewMeter",
    "OpenOrder",
    "Position",
    "PostQuote",
    "Profile",
    "Quote",
    "RegisterMeters",
    "RegisterProfile",
    "RewardPeriodEnds",
    "RunSettlement",
    "SetEnergyParameters",
    "SilenceIsConsent",
    "energy",
    "interval_of",
    "latest_market",
    "market_of",
]


class OpenOrder(Value):
    """An order in the book; ``reserved`` micro-coins back it, in the token of ``loan`` or in the wallet."""

    serial: Natural
    wallet: Wallet
    side: Side
    quantity_wh: WattHours
    price: Price
    area: Text
    aggregator: Wallet
    reserved: Coins
    loan: bytes = b""
    attributes: Text = ""


class Book(Value):
    """All open orders of one member (known by its tag) in one interval, and how many it has committed to."""

    orders: tuple[OpenOrder, ...]
    sealed: Natural = 0


class Position(Value):
    """What a wallet nominated and contracted for an interval (Wh), the bond behind its sales, and its trades."""

    nominated_buy_wh: WattHours
    nominated_sell_wh: WattHours
    bought_wh: WattHours
    sold_wh: WattHours
    bond: Coins
    aggregator: Wallet
    trades: tuple[Natural, ...]
    loan: bytes = b""


class Meter(Value):
    """A metering point, read under its wallet's key: most Wh it can import and export in an interval.

    ``efficiency_ppm`` is what arrives of each exported Wh (wireless power transfer); ``profile`` names the standard
    profile, scaled by ``profile_ppm``, that stands in for missing readings.
    """

    kind: Kind
    area: Text
    aggregator: Wallet
    import_wh: WattHours
    export_wh: WattHours
    efficiency_ppm: PartsPerMillion = 1_000_000
    profile: ProfileName = ""
    profile_ppm: PartsPerMillion = 1_000_000


class Profile(Value):
    """A standard day in Wh an interval, from 00:00 UTC."""

    import_wh: Annotated[tuple[WattHours, ...], msgspec.Meta(max_length=288)]
    export_wh: Annotated[tuple[WattHours, ...], msgspec.Meta(max_length=288)]


class Quote(Value):
    """The price that a broker posts for an interval."""

    price: Price
    aggregator: Wallet


class NewMeter(Value):
    """A wallet and its metering point; see ``Meter``."""

    wallet: Wallet
    kind: Kind
    area: Text
    import_wh: WattHours
    export_wh: WattHours
    efficiency_ppm: PartsPerMillion = 1_000_000
    profile: ProfileName = ""
    profile_ppm: PartsPerMillion = 1_000_000


class RegisterMeters(Call, tag="energy.register_meters"):
    """Register the metering points (loads, generators, batteries, vehicles, chargers) of an aggregator's wallets."""

    meters: Annotated[tuple[NewMeter, ...], msgspec.Meta(min_length=1, max_length=500)]


class MoveMeter(Call, tag="energy.move_meter"):
    """Take the caller's vehicle or charger to another aggregator and area, for orders from now on."""

    aggregator: Wallet
    area: Text


class RegisterProfile(Call, tag="energy.register_profile"):
    """Publish a standard profile."""

    name: ProfileName
    profile: Profile


class PostQuote(Call, tag="energy.post_quote"):
    """Post the price at which a broker's market (rule ``posted``) trades in an interval."""

    interval: Millis
    price: Price


@energy.event
class MetersRegistered(Event, tag="energy.meters_registered"):
    """An aggregator registered metering points."""

    aggregator: Wallet
    count: Natural


@energy.event
class QuotePosted(Event, tag="energy.quote_posted"):
    """A broker quotes."""

    interval: Millis
    price: Price


BOOKS = energy.table("book", key=(int, bytes), value=Book)
"""(interval, tag) -> that member's open orders; removed at clearing."""
POSITIONS = energy.table("position", key=(int, bytes), value=Position)
"""(interval, wallet) -> position, from clearing on."""
METERS = energy.table("meter", key=bytes, value=Meter)
"""Wallet -> metering point."""
PROFILES = energy.table("profile", key=str, value=Profile)
QUOTES = energy.table("quote", key=int, value=Quote)
"""Interval -> posted price."""


@energy.call(RegisterMeters)
def register_meters(ctx: Context, call: RegisterMeters) -> None:
    """Register metering points; an aggregator does so for its own pool, a utility for anybody."""
    record = members.require(ctx, Role.AGGREGATOR, Role.UTILITY)
    for entry in call.meters:
        wallet = ctx.require(members.WALLETS, entry.wallet, "unknown_wallet")
        aggregator = wallet.aggregator or record.member
        if aggregator != record.member and Role.UTILITY not in record.roles:
            ctx.refuse("not_of_this_pool", entry.wallet.hex())
        if max(entry.import_wh, entry.export_wh) > MOST_WH or entry.efficiency_ppm > 1_000_000:
            ctx.refuse("beyond_range", f"at most {MOST_WH} Wh an interval, efficiency at most 1000000 ppm")
        if entry.profile and ctx.get(PROFILES, entry.profile) is None:
            ctx.refuse("no_such_profile", entry.profile)
        if entry.kind == "load" and entry.export_wh:
            ctx.refuse("loads_do_not_export", entry.wallet.hex())
        meter = Meter(
            entry.kind,
            entry.area,
            aggregator,
            entry.import_wh,
            entry.export_wh,
            entry.efficiency_ppm,
            entry.profile,
            entry.profile_ppm,
        )
        ctx.put(METERS, entry.wallet, meter)
    ctx.emit(MetersRegistered(record.member, len(call.meters)))


@energy.call(MoveMeter)
def move_meter(ctx: Context, call: MoveMeter) -> None:
    """Move what has wheels."""
    members.require(ctx, Role.PROSUMER)
    meter = ctx.require(METERS, ctx.sender, "no_meter")
    if meter.kind not in ("vehicle", "charger"):
        ctx.refuse("does_not_move", meter.kind)
    host = ctx.require(members.MEMBERS, call.aggregator, "no_such_aggregator")
    if Role.AGGREGATOR not in host.roles:
        ctx.refuse("not_an_aggregator", call.aggregator.hex())
    ctx.put(METERS, ctx.sender, msgspec.structs.replace(meter, aggregator=call.aggregator, area=call.area))


@energy.call(RegisterProfile)
def register_profile(ctx: Context, call: RegisterProfile) -> None:
    """Publish or replace a standard profile."""
    members.require(ctx, Role.UTILITY, Role.AGGREGATOR)
    if not call.name or max((*call.profile.import_wh, *call.profile.export_wh), default=0) > MOST_WH:
        ctx.refuse("beyond_range", f"a name, and at most {MOST_WH} Wh an interval")
    ctx.put(PROFILES, call.name, call.profile)


@energy.call(PostQuote)
def post_quote(ctx: Context, call: PostQuote) -> None:
    """Quote once an interval, before any order."""
    record = members.require(ctx, Role.AGGREGATOR)
    interval = interval_of(ctx, call.interval)
    market = market_of(ctx, interval)
    if market.rule != "posted":
        ctx.refuse("not_a_posted_market", market.rule)
    if ctx.get(QUOTES, call.interval) is not None:
        ctx.refuse("quote_stands", "traders may have accepted it")
    if call.price > market.cap or call.price % market.tick:
        ctx.refuse("price_off_range", f"multiples of {market.tick} up to {market.cap}")
    ctx.put(QUOTES, call.interval, Quote(call.price, record.member))
    ctx.emit(QuotePosted(call.interval, call.price))


@recovery
def hand_meter_over(ctx: Context, lost: bytes, wallet: bytes) -> None:
    """Let a replaced wallet's metering point follow its owner."""
    meter = ctx.get(METERS, lost)
    if meter is not None:
        ctx.put(METERS, wallet, meter)
        ctx.delete(METERS, lost)
