"""What a plan is worth in money a year, beside doing nothing, power-line links and private fibre."""

import tomllib
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta

from gridpool.errors import RefusedInput
from gridpool.grid import Feeder, draw_outage, serve_under_outage
from gridpool.planner.plan import Plan, served_by

__all__ = ["EXAMPLE", "Price", "Prices", "Worth", "plan_worth", "read_prices"]

EXAMPLE = "example"
"""Name that stands for the prices which come with the package."""

OUTAGES = 20
LARGEST_FILE = 2**20


class Price(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A figure, never negative, and where it comes from."""

    value: Annotated[float, Meta(ge=0.0, le=1e12)]
    source: Annotated[str, Meta(min_length=1, max_length=1000)]


class Prices(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Prices and quantities behind a plan's worth; money in ``currency``, the rest as the names say."""

    currency: Annotated[str, Meta(min_length=1, max_length=8)]
    lost_load_per_kwh: Price
    stressed_hours_per_year: Price
    outage_share_of_hours: Price
    failed_share: Price
    mmtc_per_month: Price
    urllc_per_month: Price
    slice_terminal: Price
    plcc_terminal: Price
    fibre_per_m: Price
    fibre_terminal: Price
    upkeep_share_per_year: Price
    lifetime_years: Price
    discount_rate: Price


class Baseline(msgspec.Struct, frozen=True, kw_only=True):
    """Another way to connect the feeder, in money a year."""

    value_per_year: float
    cost_per_year: float
    net_per_year: float
    served_power_w: float


class Worth(msgspec.Struct, frozen=True, kw_only=True):
    """A plan's value and cost a year, the same for other technologies, and every assumption behind them."""

    currency: str
    value_per_year: float
    cost_per_year: float
    net_per_year: float
    baselines: dict[str, Baseline]
    assumptions: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Give the worth as plain JSON-ready data."""
        data: dict[str, Any] = msgspec.to_builtins(self)
        return data


def read_prices(path: Path) -> Prices:
    """Read prices from a TOML file; the path ``example`` reads those that come with the package.

    Raises RefusedInput where the file is not TOML, lacks a key, has one too many, or a figure is out of range.
    """
    try:
        if str(path) == EXAMPLE and not path.exists():
            data = (files("gridpool.planner") / "data" / "prices_example.toml").read_bytes()
        elif path.stat().st_size > LARGEST_FILE:
            raise RefusedInput(f"{path} has more than {LARGEST_FILE} bytes; a price file has a few thousand")
        else:
            data = path.read_bytes()
    except OSError as error:
        raise RefusedInput(f"{path} cannot be read: {error.strerror}; `--prices example` needs no file") from error
    try:
        prices = msgspec.convert(tomllib.loads(data.decode()), Prices)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RefusedInput(f"{path} is not a TOML file: {error}") from error
    except msgspec.ValidationError as error:
        known = ", ".join(Prices.__struct_fields__)
        raise RefusedInput(f"{path}: {error}; the keys are {known}, each but currency with value and source") from error
    for key in ("outage_share_of_hours", "failed_share", "discount_rate", "upkeep_share_per_year"):
        if getattr(prices, key).value > 1.0:
            raise RefusedInput(f"{path}: {key} is {getattr(prices, key).value:g}; it is a share, at most 1")
    if not 1.0 <= prices.lifetime_years.value <= 200.0:
        raise RefusedInput(f"{path}: lifetime_years is {prices.lifetime_years.value:g}; give 1 to 200 years")
    if prices.stressed_hours_per_year.value > 8784.0:
        raise RefusedInput(f"{path}: stressed_hours_per_year is above 8784, the hours of a year")
    return prices


def plan_worth(feeder: Feeder, plan: Plan, prices: Prices, *, dg_share: float = 0.2, blind_error: float = 0.5) -> Worth:
    """Return what a plan saves and costs a year.

    Value is the load served beyond what no links at all would serve, in the stressed hours, at the value of lost load.
    In a share of these hours a share of the buses is out (20 drawn outages): power-line links fail with their lines,
    slices and fibre stay. Cost is subscription plus equipment as an annuity with upkeep. Fibre is as long as the
    feeder's lines; it and power-line links reach every node.
    """
    nobody: frozenset[str] = frozenset()
    everyone = frozenset(feeder.nodes)
    blind_w = served_by(feeder, nobody, nobody, blind_error, dg_share).served_w
    options = (prices.failed_share.value, plan.seed, blind_error, dg_share)
    hours, out = prices.stressed_hours_per_year.value, prices.outage_share_of_hours.value

    def value(normal_w: float, outage_w: float) -> float:
        blind_outage_w = _mean_outage_w(feeder, "5g", nobody, nobody, *options) if out > 0.0 else blind_w
        gained_w = (1.0 - out) * (normal_w - blind_w) + out * (outage_w - blind_outage_w)
        return gained_w / 1e3 * hours * prices.lost_load_per_kwh.value

    def outage_w(technology: str, seen: frozenset[str], steered: frozenset[str]) -> float:
        return _mean_outage_w(feeder, technology, seen, steered, *options) if out > 0.0 else 0.0

    def yearly(invested: float) -> float:
        return invested * (_annuity(prices) + prices.upkeep_share_per_year.value)

    def slices_cost(urllc: int, mmtc: int, nodes: int) -> float:
        fees = 12.0 * (urllc * prices.urllc_per_month.value + mmtc * prices.mmtc_per_month.value)
        return fees + yearly(nodes * prices.slice_terminal.value)

    seen, steered = frozenset(plan.observed), frozenset(plan.controlled)
    full_w = served_by(feeder, everyone, everyone, blind_error, dg_share).served_w
    nodes, length_m = len(feeder.nodes), sum(line.length_m for branch in feeder.branches for line in branch.lines)
    wired_w = outage_w("5g", everyone, everyone)
    done = plan.allocation
    gained = value(plan.served_power_w, outage_w("5g", seen, steered))
    cost = slices_cost(done.urllc_granted, done.mmtc_granted, len(seen | steered))
    return Worth(
        currency=prices.currency,
        value_per_year=gained,
        cost_per_year=cost,
        net_per_year=gained - cost,
        baselines={
            "none": _baseline(0.0, 0.0, blind_w),
            "plcc": _baseline(
                value(full_w, outage_w("plcc", everyone, everyone)), yearly(nodes * prices.plcc_terminal.value), full_w
            ),
            "private_fibre": _baseline(
                value(full_w, wired_w),
                yearly(nodes * prices.fibre_terminal.value + length_m * prices.fibre_per_m.value),
                full_w,
            ),
            "slices_for_all": _baseline(
                value(full_w, wired_w), slices_cost(done.urllc_requested, done.mmtc_requested, nodes), full_w
            ),
        },
        assumptions=(
            *(f"{key} = {price.value:g}: {price.source}" for key, price in _figures(prices)),
            f"fibre follows the feeder's lines: {length_m:.0f} m",
            f"outages: {OUTAGES} draws, no tripping, no islands; power-line control centre at a node of highest degree",
            "value is load served beyond what no links would serve; losses, energy prices and emissions are left out",
            *plan.assumptions,
        ),
    )


def _figures(prices: Prices) -> list[tuple[str, Price]]:
    return [(key, getattr(prices, key)) for key in prices.__struct_fields__ if key != "currency"]


def _baseline(value: float, cost: float, served_w: float) -> Baseline:
    return Baseline(value_per_year=value, cost_per_year=cost, net_per_year=value - cost, served_power_w=served_w)


def _annuity(prices: Prices) -> float:
    """Return the yearly payment for one unit of money over the lifetime."""
    rate, years = prices.discount_rate.value, prices.lifetime_years.value
    return float(rate / (1.0 - (1.0 + rate) ** -years)) if rate > 0.0 else 1.0 / years


@lru_cache(maxsize=64)
def _mean_outage_w(
    feeder: Feeder,
    technology: str,
    seen: frozenset[str],
    steered: frozenset[str],
    failed_share: float,
    seed: int,
    blind_error: float,
    dg_share: float,
) -> float:
    """Return the mean served power under drawn outages, the same ones for every technology."""
    rng = np.random.default_rng([seed, 2])
    served = [
        serve_under_outage(
            feeder,
            draw_outage(feeder, failed_share, rng),
            technology="plcc" if technology == "plcc" else "5g",
            observed=seen,
            controlled=steered,
            blind_error=blind_error,
            dg_share=dg_share,
        ).served_w
        for _ in range(OUTAGES)
    ]
    return float(np.mean(served))
