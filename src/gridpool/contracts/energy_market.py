"""The energy market's register: parameters, intervals, meters, profiles, quotes, and what the tables hold."""

from typing import Annotated, Literal

import msgspec

from gridpool.contracts import members
from gridpool.contracts.members import Decision, Role, decision, recovery
from gridpool.ledger.contract import Context, Contract, Refused
from gridpool.ledger.types import (
    Call,
    Coins,
    Due,
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

energy = Contract("energy")

HOUR_MS = 3_600_000
DAY_MS = 86_400_000
WEEK_MS = 7 * DAY_MS
MOST_WH = 10**9
"""Most Wh in one order or reading of an interval (a gigawatt-hour)."""
MOST_ORDERS = 200_000
"""Most orders in one interval; bounds every sum of amounts together with ``MOST_WH`` and the price cap."""

ProfileName = Annotated[str, msgspec.Meta(max_length=64, pattern="^[^\\x00]*$")]
Rule = Literal["uniform", "pay_as_bid", "mcafee", "trade_reduction", "vcg", "posted"]
Side = Literal["buy", "sell"]
Run = Literal["initial", "revised", "final"]
Kind = Literal["load", "generator", "battery", "vehicle", "charger"]
Quality = Literal["measured", "estimated", "corrected", "substituted"]


class AreaFee(Value):
    """Grid fee between two areas, either way, in micro-coins per kWh."""

    one: Text
    other: Text
    fee: Price


class EnergyParameters(Value):
    """The market's rules; a change holds for intervals that open after it.

    Prices in micro-coins per kWh, times in ms of market time, ratios in ppm. Orders are taken from ``ahead_ms`` before
    an interval until ``lead_ms`` before it. ``rule`` ``posted`` trades at the price that a broker quotes.
    Deviations beyond ``tolerance_ppm`` of what was nominated pay ``imbalance_ppm`` more than retail, and earn
    ``imbalance_ppm`` less than retail but never more than the feed-in price. ``back_stop`` supplies what is left open,
    ``grid`` receives fees, ``market`` receives surplus and forfeits, funds deficits and pays rewards.
    """

    back_stop: members.OptionalKey = b""
    grid: members.OptionalKey = b""
    market: members.OptionalKey = b""
    interval_ms: Millis = 900_000
    ahead_ms: Millis = 2 * DAY_MS
    lead_ms: Millis = 300_000
    tick: Price = 1
    cap: Price = 10_000_000
    rule: Rule = "uniform"
    k_ppm: PartsPerMillion = 500_000
    rationing: Literal["arrival", "pro_rata"] = "arrival"
    coupling: Literal["none", "fee"] = "none"
    fees: Annotated[tuple[AreaFee, ...], msgspec.Meta(max_length=256)] = ()
    sealed: bool = False
    reveal_ms: Millis = 120_000
    matcher_ms: Millis = 0
    retail: Price = 300_000
    feed_in: Price = 80_000
    imbalance_ppm: PartsPerMillion = 200_000
    tolerance_ppm: PartsPerMillion = 100_000
    bond_ppm: PartsPerMillion = 100_000
    forfeit_ppm: PartsPerMillion = 100_000
    initial_ms: Millis = HOUR_MS
    revised_ms: Millis = DAY_MS
    final_ms: Millis = WEEK_MS
    consent_intervals: Natural = 2
    reward_period_ms: Millis = DAY_MS
    reward: Coins = 1_000_000

    @property
    def short_price(self) -> int:
        """Price of Wh taken beyond the tolerance."""
        return self.retail + self.retail * self.imbalance_ppm // 1_000_000

    @property
    def long_price(self) -> int:
        """Price of Wh fed in beyond the tolerance: deviating never earns more than the feed-in price."""
        return min(self.retail - self.retail * self.imbalance_ppm // 1_000_000, self.feed_in)


class Interval(Value):
    """A market interval: the version of the parameters it runs under, and what has become of it.

    ``price`` is that of the whole market where there is one. Totals are in Wh; ``supplied_wh`` and ``absorbed_wh`` are
    the back-stop's side of the last settlement run, ``lost_wh`` what chargers lose on the way.
    """

    market: Natural
    status: Literal["open", "closed", "cleared", "initial", "revised", "final"]
    orders: Natural = 0
    volume_wh: WattHours = 0
    trades: Natural = 0
    price: Price | None = None
    imported_wh: WattHours = 0
    exported_wh: WattHours = 0
    supplied_wh: WattHours = 0
    absorbed_wh: WattHours = 0
    lost_wh: WattHours = 0


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
    """All open orders of one member (known by its tag) in one interval."""

    orders: tuple[OpenOrder, ...]


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


class SetEnergyParameters(Decision, tag="energy.set_parameters"):
    """Change the market's rules for intervals that open from now on."""

    parameters: EnergyParameters


class CloseGate(Due, tag="energy.close_gate"):
    """No more orders for an interval."""

    interval: Millis


class ClearMarket(Due, tag="energy.clear_market"):
    """Clear an interval (after reveals and outside matchers had their time)."""

    interval: Millis


class RunSettlement(Due, tag="energy.run_settlement"):
    """Settle an interval on the readings there are."""

    interval: Millis
    run: Run


class SilenceIsConsent(Due, tag="energy.silence_is_consent"):
    """Pay the legs that nobody countersigned or objected to."""

    interval: Millis


class RewardPeriodEnds(Due, tag="energy.reward_period_ends"):
    """Reward the largest contribution to each aggregator."""

    period: Millis


@energy.event
class IntervalOpened(Event, tag="energy.interval_opened"):
    """The first order or reading of an interval."""

    interval: Millis


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


MARKETS = energy.table("market", key=int, value=EnergyParameters)
"""Version -> parameters."""
INTERVALS = energy.table("interval", key=int, value=Interval)
"""Start (ms) -> interval."""
BOOKS = energy.table("book", key=(int, bytes), value=Book)
"""(interval, tag) -> that member's open orders; removed at clearing."""
POSITIONS = energy.table("position", key=(int, bytes), value=Position)
"""(interval, wallet) -> position, from clearing on."""
METERS = energy.table("meter", key=bytes, value=Meter)
"""Wallet -> metering point."""
PROFILES = energy.table("profile", key=str, value=Profile)
QUOTES = energy.table("quote", key=int, value=Quote)
"""Interval -> posted price."""


def latest_market(ctx: Context) -> int:
    """Return the version of the parameters for intervals that open now."""
    return next((version for version, _ in ctx.scan(MARKETS, reverse=True, limit=1)), 0)


def market_of(ctx: Context, interval: Interval) -> EnergyParameters:
    """Return the parameters of an interval."""
    return ctx.require(MARKETS, interval.market, "no_market")


def interval_of(ctx: Context, start: int) -> Interval:
    """Return an interval, opening it (with its closing and settlement runs) where this is the first word of it."""
    known = ctx.get(INTERVALS, start)
    if known is not None:
        return known
    version = latest_market(ctx)
    market = ctx.require(MARKETS, version, "no_market")
    if not market.back_stop:
        raise Refused("no_back_stop", "the council names a back-stop supplier in the market's parameters first")
    if start % market.interval_ms:
        raise Refused("not_an_interval", f"intervals start at multiples of {market.interval_ms} ms")
    if start >= ctx.now + market.ahead_ms:
        raise Refused("too_early", f"orders are taken {market.ahead_ms} ms ahead")
    if start + market.interval_ms + market.final_ms <= ctx.now:
        raise Refused("too_late", "the interval's final run is over")
    opened = Interval(version, "open")
    ctx.put(INTERVALS, start, opened)
    end = start + market.interval_ms
    ctx.schedule(max(0, start - market.lead_ms), CloseGate(start))
    ctx.schedule(end + market.initial_ms, RunSettlement(start, "initial"))
    ctx.schedule(end + market.revised_ms, RunSettlement(start, "revised"))
    ctx.schedule(end + market.final_ms, RunSettlement(start, "final"))
    if market.reward:
        period = start - start % market.reward_period_ms
        settled = market.initial_ms + market.consent_intervals * market.interval_ms
        ctx.schedule(period + market.reward_period_ms + settled, RewardPeriodEnds(period))
    ctx.emit(IntervalOpened(start))
    return opened


@energy.genesis(EnergyParameters)
def begin(ctx: Context, parameters: EnergyParameters) -> None:
    """Store the first version of the parameters."""
    _set_parameters(ctx, parameters)


@decision(SetEnergyParameters)
def change_parameters(ctx: Context, decided: SetEnergyParameters) -> None:
    """Store the next version of the parameters."""
    for wallet in (decided.parameters.back_stop, decided.parameters.grid, decided.parameters.market):
        if wallet:
            ctx.require(members.WALLETS, wallet, "unknown_wallet")
    _set_parameters(ctx, decided.parameters)


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


def _set_parameters(ctx: Context, p: EnergyParameters) -> None:
    for wallet in (p.back_stop, p.grid, p.market):
        if len(wallet) not in (0, 32):
            raise Refused("parameters_out_of_range", "a wallet has 32 bytes")
    if p.back_stop and not (p.grid and p.market):
        raise Refused("parameters_out_of_range", "name grid and market accounts beside the back-stop")
    if not (
        p.interval_ms
        and p.tick
        and p.cap <= 10**9
        and max(p.retail, p.feed_in) <= 10**9
        and p.k_ppm <= 1_000_000
        and max(p.imbalance_ppm, p.tolerance_ppm, p.bond_ppm, p.forfeit_ppm) <= 1_000_000
        and p.lead_ms <= p.ahead_ms <= 10**12
        and p.reveal_ms + p.matcher_ms <= p.lead_ms + p.interval_ms
        and 0 < p.initial_ms < p.revised_ms < p.final_ms <= 10**12
        and p.consent_intervals * p.interval_ms <= p.revised_ms - p.initial_ms
        and p.interval_ms <= p.reward_period_ms <= 10**12
        and p.reward_period_ms % p.interval_ms == 0
        and all(fee.fee % p.tick == 0 and fee.fee <= 10**9 for fee in p.fees)
        and len({area for fee in p.fees for area in (fee.one, fee.other)}) <= 32
        and len({frozenset((fee.one, fee.other)) for fee in p.fees}) == len(p.fees)
        and not (p.coupling == "fee" and p.rule != "uniform")
    ):
        raise Refused("parameters_out_of_range", "see EnergyParameters")
    ctx.put(MARKETS, latest_market(ctx) + 1, p)
