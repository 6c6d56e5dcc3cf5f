"""What a played life cycle of slices needs to be told: tenants, parties, slices, faults; from TOML, checked whole."""

import tomllib
from datetime import date
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from gridpool.contracts.slices.pools import Segment
from gridpool.contracts.slices.templates import Isolation, template
from gridpool.errors import RefusedInput

__all__ = [
    "SCENARIOS",
    "ScenarioFault",
    "ScenarioOffer",
    "ScenarioParty",
    "ScenarioSlice",
    "ScenarioTenant",
    "SliceScenario",
    "minute_of_day",
    "read_scenario",
]

SCENARIOS = ("substation", "load_control", "metering", "line_inspection")
"""The scenarios that come with the package."""

LARGEST_FILE = 1 << 20
Name = Annotated[str, Meta(min_length=1, max_length=32, pattern=r"^[A-Za-z0-9_.-]+$")]
ClockTime = Annotated[str, Meta(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")]
Coins = Annotated[int, Meta(ge=0, le=10**15)]
Figure = Annotated[int, Meta(ge=0, le=10**12)]


class ScenarioTenant(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A tenant; one that ``denies`` signs worse indicators than it measured, a ``silent`` one signs none."""

    name: Name
    coins: Coins = 100_000_000
    behaviour: Literal["honest", "denies", "silent"] = "honest"


class ScenarioOffer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a party offers for a segment, and how much of it its pool holds."""

    segment: Segment
    price_per_minute: Figure
    delay_us: Figure
    bandwidth_kbps: Figure
    risk_nano: Figure
    capacity: Annotated[int, Meta(ge=0, le=10**9)]


class ScenarioParty(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A resource party and how it behaves.

    ``silent_award`` never confirms, ``no_deploy`` confirms and does not deploy, ``flatters`` signs indicators as
    offered whatever happened, ``silent_reports`` signs none.
    """

    name: Name
    coins: Coins = 10_000_000
    behaviour: Literal["honest", "silent_award", "no_deploy", "flatters", "silent_reports"] = "honest"
    offers: Annotated[list[ScenarioOffer], Meta(min_length=1, max_length=5)]


class ScenarioSlice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A slice to be ordered: which template, for how many devices, when, and for how much at most.

    ``device_kbps`` is what each device sends (default: the template's guaranteed uplink, else its downlink maximum).
    """

    name: Name
    tenant: Name
    template: str
    devices: Annotated[int, Meta(ge=1, le=200)]
    order_at: ClockTime
    start: ClockTime
    minutes: Annotated[int, Meta(ge=1, le=720)]
    reserve: Coins
    budget: Coins | None = None
    device_kbps: Annotated[int, Meta(ge=1, le=10**6)] | None = None
    segments: Annotated[tuple[Segment, ...], Meta(min_length=1, max_length=5)] = ("ran", "transport", "core")
    objective: Literal["cost", "delay", "bandwidth", "availability"] = "cost"
    payment: Literal["offer", "vcg"] = "offer"
    fall_back: bool = False
    sealed: bool = False
    isolation: Isolation | None = None
    order_again: bool = True


class ScenarioFault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A failure in a party's network: ``factor`` of its capacity is left; ``neighbour_kbps`` is a noisy neighbour."""

    party: Name
    segment: Segment
    start: ClockTime
    end: ClockTime
    factor: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.0
    neighbour_kbps: Figure = 0


class SliceScenario(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A whole life cycle on one day."""

    title: Annotated[str, Meta(max_length=200)]
    date: Annotated[str, Meta(pattern=r"^20[0-9]{2}-[01][0-9]-[0-3][0-9]$")] = "2026-06-21"
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 1
    probe: bool = True
    deposit: Coins = 100_000
    tenants: Annotated[list[ScenarioTenant], Meta(min_length=1, max_length=1_000)]
    parties: Annotated[list[ScenarioParty], Meta(min_length=1, max_length=1_000)]
    slices: Annotated[list[ScenarioSlice], Meta(min_length=1, max_length=1_000)]
    faults: Annotated[list[ScenarioFault], Meta(max_length=200)] = []


def read_scenario(name: str) -> SliceScenario:
    """Read a shipped scenario by name, or a TOML file; whole or not at all.

    Raises RefusedInput naming the key, the value and what is allowed.
    """
    if name in SCENARIOS:
        text = files("gridpool.agents").joinpath("scenarios", f"{name}.toml").read_text(encoding="utf-8")
        return parse_scenario(text, name)
    path = Path(name)
    if not path.is_file():
        raise RefusedInput(f"no scenario {name!r}: give a TOML file or one of {', '.join(SCENARIOS)}")
    if path.stat().st_size > LARGEST_FILE:
        raise RefusedInput(f"{path} is larger than {LARGEST_FILE} bytes; a scenario is not")
    try:
        return parse_scenario(path.read_text(encoding="utf-8"), str(path))
    except UnicodeDecodeError as error:
        raise RefusedInput(f"{path} is no UTF-8 text: {error}") from error


def parse_scenario(text: str, where: str) -> SliceScenario:
    """Check a scenario's text; raises RefusedInput."""
    try:
        scenario = msgspec.convert(tomllib.loads(text), SliceScenario)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise RefusedInput(f"{where} is no TOML: {error}") from error
    except msgspec.ValidationError as error:
        raise RefusedInput(f"{where}: {error}; see `gridpool slice run --help` for a shipped example") from error
    _check(scenario, where)
    return scenario


def minute_of_day(clock_time: str) -> int:
    """Turn ``HH:MM`` into minutes since midnight."""
    hours, minutes = clock_time.split(":")
    return 60 * int(hours) + int(minutes)


def _check(scenario: SliceScenario, where: str) -> None:
    for kind, names in (
        ("tenant", [one.name for one in scenario.tenants]),
        ("party", [one.name for one in scenario.parties]),
        ("slice", [one.name for one in scenario.slices]),
    ):
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise RefusedInput(f"{where}: two {kind} entries are called {twice[0]!r}; give each its own name")
    tenants, parties = {one.name for one in scenario.tenants}, {one.name for one in scenario.parties}
    for party in scenario.parties:
        segments = [offer.segment for offer in party.offers]
        if len(set(segments)) != len(segments):
            raise RefusedInput(f"{where}: party {party.name!r} offers a segment twice; keep one offer a segment")
    for wanted in scenario.slices:
        if wanted.tenant not in tenants:
            raise RefusedInput(f"{where}: slice {wanted.name!r} names tenant {wanted.tenant!r}, which is not listed")
        if template(wanted.template) is None:
            raise RefusedInput(f"{where}: no template {wanted.template!r}; `gridpool slice templates` lists them")
        if len(set(wanted.segments)) != len(wanted.segments):
            raise RefusedInput(f"{where}: slice {wanted.name!r} names a segment twice")
        ordered, start = minute_of_day(wanted.order_at), minute_of_day(wanted.start)
        if start - ordered < 10:
            raise RefusedInput(f"{where}: slice {wanted.name!r} starts less than 10 minutes after it is ordered")
        if start + wanted.minutes > 24 * 60:
            raise RefusedInput(f"{where}: slice {wanted.name!r} ends after midnight")
        if wanted.payment == "vcg" and wanted.objective != "cost":
            raise RefusedInput(f"{where}: slice {wanted.name!r}: vcg exists for objective cost only")
    for fault in scenario.faults:
        if fault.party not in parties:
            raise RefusedInput(f"{where}: a fault names party {fault.party!r}, which is not listed")
        if minute_of_day(fault.end) <= minute_of_day(fault.start):
            raise RefusedInput(f"{where}: a fault of {fault.party!r} ends at {fault.end}, not after {fault.start}")
    try:
        date.fromisoformat(scenario.date)
    except ValueError:
        raise RefusedInput(f"{where}: date {scenario.date!r} is no day of the calendar") from None
