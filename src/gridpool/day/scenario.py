"""The scenario of a day: everything a user may choose, with defaults, limits and a commented TOML form."""

import datetime
import difflib
import tomllib
import types
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Union, dataclass_transform, get_args, get_origin, get_type_hints
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from msgspec import Meta

from gridpool.errors import RefusedInput

__all__ = [
    "SHIPPED",
    "Credit",
    "Event",
    "Forecast",
    "Grid",
    "Market",
    "Meters",
    "Place",
    "Prosumers",
    "Radio",
    "Scenario",
    "Slices",
    "Transfer",
    "Vehicles",
    "read_scenario",
    "write_scenario",
]

SHIPPED = ("default", "harvesting", "microgrid", "v2g")


@dataclass_transform(frozen_default=True, kw_only_default=True)
class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the scenario file."""


class Place(Section):
    """Where the feeder stands: decides the sun and the hours of the day."""

    latitude: Annotated[float, Meta(ge=-66.0, le=66.0, description="degrees north")] = 48.1
    longitude: Annotated[float, Meta(ge=-180.0, le=180.0, description="degrees east")] = 11.6
    timezone: Annotated[str, Meta(description="IANA name; hours in this file are local")] = "Europe/Berlin"


class Grid(Section):
    """How the feeder is loaded and operated."""

    nominal_load: Annotated[
        Literal["day_peak", "year_peak"],
        Meta(description="the feeder's published load is the peak of this day or year"),
    ] = "day_peak"
    blind_error: Annotated[
        float, Meta(ge=0.0, le=0.9, description="uncertainty of an unobserved demand, as a share of it")
    ] = 0.5
    dg_share: Annotated[float, Meta(ge=0.0, le=1.0, description="size of the feeder's own generators / its load")] = 0.2
    inverter_default: Annotated[
        float, Meta(gt=0.0, le=1.0, description="most a PV inverter without a control link feeds in / its peak")
    ] = 0.7
    certify: Annotated[
        Literal["worst_case", "nominal"], Meta(description="demands at which served power is replayed")
    ] = "nominal"


class Radio(Section):
    """The slices' radio."""

    resource_blocks: Annotated[int, Meta(ge=1, le=106, description="blocks the cell offers")] = 20
    method: Annotated[
        Literal["greedy", "exact", "bc", "top_k", "random"], Meta(description="how blocks are allocated")
    ] = "greedy"


class Slices(Section):
    """What the utility pays for its slices, and what comes back when they fail."""

    reserve: Annotated[
        int, Meta(ge=1, le=10**9, description="most micro-coins that it pays for a slice and quarter hour")
    ] = 60_000
    penalty: Annotated[
        float, Meta(ge=0.0, le=1.0, description="share of its price that a quarter hour without service pays back")
    ] = 1.0


class Prosumers(Section):
    """The members who trade energy."""

    count: Annotated[int, Meta(ge=1, le=5_000, description="how many")] = 60
    pv_share: Annotated[float, Meta(ge=0.0, le=1.0, description="share of them with a PV generator")] = 0.6
    load_peak_w: Annotated[tuple[int, int], Meta(description="least and greatest peak of one prosumer's demand, W")] = (
        2_000,
        8_000,
    )
    pv_peak_w: Annotated[tuple[int, int], Meta(description="least and greatest PV peak power, W")] = (3_000, 10_000)
    coins: Annotated[
        tuple[int, int], Meta(description="least and greatest micro-coins a prosumer starts the day with")
    ] = (500_000, 40_000_000)


class Forecast(Section):
    """How well prosumers know what they will need: an AR(1) error on every forecast."""

    error: Annotated[float, Meta(ge=0.0, le=1.0, description="standard deviation, as a share of the value")] = 0.15
    persistence: Annotated[float, Meta(ge=0.0, lt=1.0, description="correlation from one interval to the next")] = 0.8


class Meters(Section):
    """How readings arrive."""

    late: Annotated[float, Meta(ge=0.0, le=1.0, description="share of readings that come an hour late")] = 0.05
    missing: Annotated[float, Meta(ge=0.0, le=1.0, description="share that never comes")] = 0.01
    corrected: Annotated[float, Meta(ge=0.0, le=1.0, description="share that is corrected a day later")] = 0.01


class Market(Section):
    """The energy market."""

    feed_in_price: Annotated[int, Meta(ge=0, le=10**9, description="micro-coins per kWh paid by the back-stop")] = (
        80_000
    )
    retail_price: Annotated[int, Meta(ge=1, le=10**9, description="micro-coins per kWh charged by the back-stop")] = (
        320_000
    )
    tick: Annotated[int, Meta(ge=1, le=10**6, description="prices are multiples of this many micro-coins")] = 1_000
    rule: Annotated[
        Literal["uniform", "pay_as_bid", "trade_reduction", "vcg"], Meta(description="how the market clears")
    ] = "uniform"
    imbalance_ppm: Annotated[
        int, Meta(ge=0, le=1_000_000, description="surcharge on deviations beyond the tolerance, ppm of retail")
    ] = 200_000
    mode: Annotated[
        Literal["auction", "posted"], Meta(description="orders that clear, or prices the aggregator posts")
    ] = "auction"


class Credit(Section):
    """The aggregator's credit bank."""

    bank_coins: Annotated[int, Meta(ge=0, le=10**15, description="micro-coins the bank can lend")] = 200_000_000
    repay: Annotated[float, Meta(ge=0.0, le=1.0, description="probability that a borrower repays in time")] = 0.9


class Transfer(Section):
    """Wireless power transfer (scenario ``harvesting``): what a seller sends is more than what a buyer receives."""

    efficiency: Annotated[float, Meta(gt=0.0, le=1.0, description="received / sent energy; 1 is a wire")] = 1.0


class Vehicles(Section):
    """Electric vehicles (scenario ``v2g``): prosumers with a battery that move between aggregators."""

    share: Annotated[float, Meta(ge=0.0, le=1.0, description="share of prosumers that are vehicles")] = 0.0
    battery_wh: Annotated[int, Meta(ge=1_000, le=1_000_000, description="usable battery, Wh")] = 40_000
    power_w: Annotated[int, Meta(ge=100, le=350_000, description="charging and discharging power, W")] = 7_400
    charge_from: Annotated[str, Meta(pattern="^[0-2][0-9]:[0-5][0-9]$", description="off-peak charging starts")] = (
        "00:00"
    )
    charge_until: Annotated[str, Meta(pattern="^[0-2][0-9]:[0-5][0-9]$", description="and ends")] = "05:00"
    feed_from: Annotated[str, Meta(pattern="^[0-2][0-9]:[0-5][0-9]$", description="feeding back starts")] = "17:00"
    feed_until: Annotated[str, Meta(pattern="^[0-2][0-9]:[0-5][0-9]$", description="and ends")] = "21:00"


class Event(Section):
    """Something that happens during the day."""

    kind: Annotated[Literal["sector_outage"], Meta(description="what happens")] = "sector_outage"
    at: Annotated[str, Meta(pattern="^[0-2][0-9]:[0-5][0-9]$", description="local time, as in 14:00")] = "14:00"
    hours: Annotated[float, Meta(gt=0.0, le=24.0, description="how long")] = 2.0
    sector: Annotated[
        Literal["busiest", "inner", "1", "2", "3"], Meta(description="part of the cell that loses its gNB")
    ] = "busiest"


class Scenario(Section):
    """One day of one feeder: what is played, and with which assumptions."""

    feeder: Annotated[str, Meta(description="ieee13, ieee34, ieee37 or an OpenDSS master file")] = "ieee13"
    date: Annotated[datetime.date, Meta(description="the day")] = datetime.date(2026, 6, 21)
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1, description="seed of everything random")] = 1
    aggregators: Annotated[int, Meta(ge=1, le=16, description="energy aggregators that share the prosumers")] = 1
    place: Place = Place()
    grid: Grid = Grid()
    radio: Radio = Radio()
    slices: Slices = Slices()
    prosumers: Prosumers = Prosumers()
    forecast: Forecast = Forecast()
    meters: Meters = Meters()
    market: Market = Market()
    credit: Credit = Credit()
    transfer: Transfer = Transfer()
    vehicles: Vehicles = Vehicles()
    events: tuple[Event, ...] = (Event(),)


def read_scenario(source: str | Path | None, **chosen: object) -> Scenario:
    """Read a scenario: a shipped name, a TOML file, or the default; then apply what the caller chose by name.

    ``chosen`` holds scenario keys (``prosumers__count`` for a key of a table); ``None`` means not chosen. Raises
    RefusedInput naming the key, the value and what is allowed.
    """
    data: dict[str, Any] = {}
    place = "the arguments"
    if source is not None:
        place = str(source)
        if place in SHIPPED:
            text = (resources.files("gridpool.day") / "scenarios" / f"{place}.toml").read_text(encoding="utf-8")
        else:
            text = _text(Path(source))
        try:
            data = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise RefusedInput(f"{place} is not a TOML file: {error}") from None
    for name, value in chosen.items():
        if value is None:
            continue
        *tables, key = name.split("__")
        target = data
        for table in tables:
            target = target.setdefault(table, {})
            if not isinstance(target, dict):
                raise RefusedInput(f"{place}: key {table!r} must be a table")
        target[key] = value
    scenario: Scenario = _convert(data, Scenario, place, ())
    _check_together(scenario, place)
    return scenario


def write_scenario(path: Path) -> None:
    """Write the default scenario as a commented TOML file; an existing file is not overwritten."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(commented_toml())
    except FileExistsError:
        raise RefusedInput(f"{path} exists; choose another name for the scenario file") from None


def commented_toml() -> str:
    """Return the default scenario as TOML, each key with its meaning and limits."""
    scenario = Scenario()
    lines = ["# A day for `gridpool day --scenario FILE`. Every key may be left out; these are the defaults.", ""]
    tables: list[str] = []
    for name, kind in get_type_hints(Scenario, include_extras=True).items():
        value = getattr(scenario, name)
        if isinstance(value, Section):
            tables += ["", f"# {_summary(type(value))}", f"[{name}]", *_keys(value)]
        elif name == "events":
            for event in value:
                tables += ["", f"# {_summary(type(event))}", "[[events]]", *_keys(event)]
        else:
            lines.append(_key(name, kind, value))
    return "\n".join([*lines, *tables]) + "\n"


def _keys(section: Section) -> list[str]:
    hints = get_type_hints(type(section), include_extras=True)
    return [_key(name, kind, getattr(section, name)) for name, kind in hints.items()]


def _key(name: str, kind: Any, value: object) -> str:
    if isinstance(value, str):
        written = f'"{value}"'
    elif isinstance(value, tuple):
        written = "[" + ", ".join(map(str, value)) + "]"
    else:
        written = str(value)
    meta = _meta(kind)
    about = meta.description if meta and meta.description else ""
    allowed = _allowed(kind)
    return f"{name} = {written}  # {about}" + (f" ({allowed})" if allowed else "")


def _convert(data: object, kind: Any, place: str, path: tuple[str, ...]) -> Any:
    """Convert and validate, so that every complaint names its key, its value and what is allowed."""
    if isinstance(kind, type) and issubclass(kind, Section):
        if not isinstance(data, Mapping):
            raise RefusedInput(f"{place}: key {'.'.join(path)!r} must be a table, not {data!r}")
        hints = get_type_hints(kind, include_extras=True)
        for key in data:
            if key not in hints:
                near = difflib.get_close_matches(str(key), hints, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"the keys are {', '.join(hints)}"
                raise RefusedInput(f"{place}: unknown key {'.'.join((*path, str(key)))!r} = {data[key]!r}; {hint}")
        return kind(**{key: _convert(value, hints[key], place, (*path, str(key))) for key, value in data.items()})
    if get_origin(kind) is tuple and get_args(kind)[1:] == (...,):
        if not isinstance(data, list):
            raise RefusedInput(f"{place}: key {'.'.join(path)!r} must be a list of tables, not {data!r}")
        return tuple(_convert(v, get_args(kind)[0], place, (*path, str(i))) for i, v in enumerate(data))
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError:
        key = ".".join(path)
        raise RefusedInput(f"{place}: key {key!r} = {data!r} is not allowed; it takes {_allowed(kind)}") from None


def _check_together(scenario: Scenario, place: str) -> None:
    for key, bounds in (
        ("load_peak_w", scenario.prosumers.load_peak_w),
        ("pv_peak_w", scenario.prosumers.pv_peak_w),
        ("coins", scenario.prosumers.coins),
    ):
        if not 0 <= bounds[0] <= bounds[1] <= 10**12:
            raise RefusedInput(
                f"{place}: key 'prosumers.{key}' = {list(bounds)!r} is not allowed; "
                "it takes [least, greatest] from 0 up"
            )
    market = scenario.market
    if market.retail_price < market.feed_in_price + 2 * market.tick:
        raise RefusedInput(
            f"{place}: key 'market.retail_price' = {market.retail_price} is not allowed; it takes at least "
            f"market.feed_in_price + 2 ticks = {market.feed_in_price + 2 * market.tick}, so that there is room to trade"
        )
    try:
        ZoneInfo(scenario.place.timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise RefusedInput(
            f"{place}: key 'place.timezone' = {scenario.place.timezone!r} is not allowed; "
            "it takes an IANA name such as 'Europe/Berlin'"
        ) from None
    vehicles = scenario.vehicles
    clocks = [(f"events.{i}.at", event.at) for i, event in enumerate(scenario.events)]
    clocks += [
        (f"vehicles.{name}", getattr(vehicles, name))
        for name in ("charge_from", "charge_until", "feed_from", "feed_until")
    ]
    for key, clock in clocks:
        if int(clock[:2]) > 23:
            raise RefusedInput(f"{place}: key {key!r} = {clock!r} is not allowed; it takes 00:00 to 23:59")


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > 1 << 20:
            raise RefusedInput(f"{path} is larger than 1 MiB; a scenario is a short TOML file")
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, IsADirectoryError):
        raise RefusedInput(
            f"no scenario {str(path)!r}; give a TOML file or one of {', '.join(SHIPPED)} "
            "(gridpool day --write-scenario FILE writes one)"
        ) from None
    except UnicodeDecodeError:
        raise RefusedInput(f"{path} is not a UTF-8 text file") from None


def _meta(kind: Any) -> Meta | None:
    for extra in getattr(kind, "__metadata__", ()):
        if isinstance(extra, Meta):
            return extra
    return None


def _allowed(kind: Any) -> str:
    base = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    if get_origin(base) in (Union, types.UnionType):
        return " or ".join(_allowed(option) for option in get_args(base))
    if get_origin(base) is Literal:
        return " | ".join(str(option) for option in get_args(base))
    if get_origin(base) is tuple:
        return "[least, greatest], two whole numbers"
    meta = _meta(kind)
    name = {int: "a whole number", float: "a number", str: "text", datetime.date: "a date as in 2026-06-21"}.get(
        base, ""
    )
    if meta is None:
        return name
    if meta.pattern is not None:
        return "a time as in 14:00"
    low = meta.ge if meta.ge is not None else meta.gt
    high = meta.le if meta.le is not None else meta.lt
    if low is None or high is None:
        return name
    return f"{name} from {low} to {high}"


def _summary(kind: type) -> str:
    return (kind.__doc__ or "").strip().splitlines()[0]
