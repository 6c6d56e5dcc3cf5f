"""Market intervals: the parameters they run under, what has become of them, and the work that falls due in them."""

from typing import Annotated, Literal

import msgspec

from gridpool.contracts import members
from gridpool.contracts.members import Decision, decision
from gridpool.ledger.contract import Context, Contract, Refused
from gridpool.ledger.types import (
    Coins,
    Due,
    Event,
    Millis,
    Natural,
    PartsPerMillion,
    Price,
    Text,
    Value,
    WattHours,
)

__all__ = [
    "DAY_MS",
    "HOUR_MS",
    "INTERVALS",
    "MARKETS",
    "MOST_ORDERS",
    "MOST_WH",
    "WEEK_MS",
    "AreaFee",
    "AreaPrice",
    "ClearMarket",
    "CloseGate",
    "EnergyParameters",
    "Interval",
    "IntervalOpened",
    "Kind",
    "ProfileName",
    "Quality",
    "RewardPeriodEnds",
    "Rule",
    "Run",
    "RunSettlement",
    "SetEnergyParameters",
    "Side",
    "SilenceIsConsent",
    "begin",
    "change_parameters",
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


class AreaPrice(Value):
    """An area and a price."""

    area: Text
    price: Price


class Interval(Value):
    """A market interval: the version of the parameters it runs under, and what has become of it.

    ``price`` is that of the whole market where there is one, ``area_prices`` are those of areas that trade. Totals are
    in Wh; ``supplied_wh`` and ``absorbed_wh`` are the back-stop's side of the last settlement run, ``lost_wh`` what
    chargers lose on the way.
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
    area_prices: Annotated[tuple[AreaPrice, ...], msgspec.Meta(max_length=256)] = ()


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


MARKETS = energy.table("market", key=int, value=EnergyParameters)
"""Version -> parameters."""
INTERVALS = energy.table("interval", key=int, value=Interval)
"""Start (ms) -> interval."""


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
