"""From a place with uncertainty to H3 cells, and from local schedules to windows of market time."""

from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import h3.api.basic_int as h3
import msgspec

from gridpool.errors import RefusedInput

__all__ = ["WEEKDAYS", "Schedule", "cells_under", "check_place", "windows"]

MOST_UNCERTAINTY_M = 100_000.0
WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MARGIN = 1.002
"""Distances are taken this much shorter: the plane around a place is not quite flat."""


class Schedule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When a protected use is on the air, in local time: weekdays, hours, first and last date (both included).

    ``until`` at or before ``since`` ends the next day; ``24:00`` is midnight.
    """

    timezone: str
    first: date
    last: date
    since: str
    until: str
    days: tuple[str, ...] = WEEKDAYS


def cells_under(latitude: float, longitude: float, uncertainty_m: float, resolution: int) -> tuple[int, ...]:
    """Return, ascending, every H3 cell that a circle of ``uncertainty_m`` metres around a place may touch.

    Never too few: distances are taken a little short. Raises RefusedInput for a place that is not on Earth.
    """
    check_place(latitude, longitude, uncertainty_m)
    here: int = h3.latlng_to_cell(latitude, longitude, resolution)
    if uncertainty_m == 0:
        return (here,)
    # Brings numba with it, which who only signs calls can do without.
    import numpy as np

    from gridpool.agents.spectrum_circle import inside, touches

    reach = uncertainty_m * MARGIN + 1.0
    # Cells shrink to some 0.6 of the average edge in places; between two cells k rings apart lie 1.5 k - 2 edges.
    edge = 0.6 * h3.average_hexagon_edge_length(resolution, "m")
    rings = int((uncertainty_m * MARGIN / edge + 2.0) / 1.5)
    if rings == 1 and inside(np.array(h3.cell_to_boundary(here)), latitude, longitude, reach):
        return (here,)
    return tuple(
        sorted(
            cell
            for cell in h3.grid_disk(here, rings)
            if cell == here or touches(np.array(h3.cell_to_boundary(cell)), latitude, longitude, reach)
        )
    )


def check_place(latitude: float, longitude: float, uncertainty_m: float) -> None:
    """Refuse a place that is not on Earth, or an uncertainty out of range; raises RefusedInput."""
    if not (-90 <= latitude <= 90 and -180 <= longitude <= 180):
        raise RefusedInput(f"no place at latitude {latitude}, longitude {longitude}; degrees in -90..90, -180..180")
    if not 0 <= uncertainty_m <= MOST_UNCERTAINTY_M:
        raise RefusedInput(f"an uncertainty of {uncertainty_m} m is outside 0..{MOST_UNCERTAINTY_M:.0f} m")


def windows(schedule: Schedule) -> list[tuple[int, int]]:
    """Return the schedule's windows in milliseconds of market time, half-open, in order and merged where they meet.

    Local clock times that daylight saving skips count from the moment the clock jumps; repeated ones count from the
    first start to the second end, so that protection is never too short. Leap days are days like others. Raises
    RefusedInput for an unknown time zone, weekday or hour.
    """
    try:
        zone = ZoneInfo(schedule.timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise RefusedInput(f"unknown time zone {schedule.timezone[:64]!r}; name one like Europe/London") from None
    wrong = [day for day in schedule.days if day not in WEEKDAYS]
    if wrong or not schedule.days:
        raise RefusedInput(f"unknown weekday {wrong[0] if wrong else ''!r}; the days are {', '.join(WEEKDAYS)}")
    if schedule.last < schedule.first or (schedule.last - schedule.first).days > 3_700:
        raise RefusedInput(f"a schedule from {schedule.first} to {schedule.last} is empty or longer than ten years")
    if schedule.first.year <= 1970 or schedule.last.year >= 9999:
        raise RefusedInput(f"a schedule from {schedule.first} to {schedule.last} is outside the years 1971 to 9998")
    since, until = _minutes(schedule.since), _minutes(schedule.until)
    if until <= since:
        until += 24 * 60
    spans: list[tuple[int, int]] = []
    for offset in range((schedule.last - schedule.first).days + 1):
        day = schedule.first + timedelta(days=offset)
        if WEEKDAYS[day.weekday()] not in schedule.days:
            continue
        start, end = _instant(day, since, zone, 0), _instant(day, until, zone, 1)
        if spans and start <= spans[-1][1]:
            spans[-1] = (spans[-1][0], max(end, spans[-1][1]))
        elif start < end:
            spans.append((start, end))
    return spans


def _minutes(text: str) -> int:
    hours, colon, minutes = text.partition(":")
    if colon and len(hours) == 2 and len(minutes) == 2 and (hours + minutes).isdigit():
        value = int(hours) * 60 + int(minutes)
        if int(minutes) < 60 and value <= 24 * 60:
            return value
    raise RefusedInput(f"{text!r} is no time of day; write it as 08:30, midnight at the end as 24:00")


def _instant(day: date, minutes: int, zone: ZoneInfo, fold: int) -> int:
    """Return a local time as market time; a skipped one is the moment of the jump, ``fold`` picks a repeated one."""
    later, minutes = divmod(minutes, 24 * 60)
    local = datetime.combine(day + timedelta(days=later), time(minutes // 60, minutes % 60))
    aware = local.replace(tzinfo=zone, fold=fold)
    moment = aware.timestamp()
    if datetime.fromtimestamp(moment, zone).replace(tzinfo=None) != local:
        before, after = local.replace(tzinfo=zone, fold=1), local.replace(tzinfo=zone, fold=0)
        moment = _jump(min(before.timestamp(), after.timestamp()), max(before.timestamp(), after.timestamp()), zone)
    return round(moment * 1000)


def _jump(low: float, high: float, zone: ZoneInfo) -> float:
    """Find the moment between two at which the zone's offset changes, to the second."""
    first = datetime.fromtimestamp(low, zone).utcoffset()
    a, b = int(low), int(high)
    while b - a > 1:
        middle = (a + b) // 2
        if datetime.fromtimestamp(middle, zone).utcoffset() == first:
            a = middle
        else:
            b = middle
    return float(b)
