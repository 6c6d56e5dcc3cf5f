"""Integer power against floating point; cells under a circle against sampling; schedules across clock changes."""

import math
from datetime import UTC, date, datetime, timedelta

import h3.api.basic_int as h3
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spectrum_stage import RULES

from gridpool.agents.path_loss_table import losses_for, nearest_m
from gridpool.agents.spectrum_place import Schedule, cells_under, windows
from gridpool.contracts.spectrum_power import CAP, CAP_MDBM, FLOOR_MDBM, densities, density
from gridpool.errors import RefusedInput


@given(st.integers(FLOOR_MDBM, CAP_MDBM - 1))
def test_density_is_ten_to_the_tenth_of_a_bel_rounded_up(mdbm):
    exact = 10 ** ((mdbm - FLOOR_MDBM) / 10_000)
    assert exact * (1 - 1e-12) <= density(mdbm) <= exact * (1 + 1e-9) + 1


@given(st.integers(-400_000, 120_000), st.integers(0, 50_000))
def test_density_never_falls_with_the_level(mdbm, more):
    assert density(mdbm) <= density(mdbm + more)


def test_the_table_of_densities_is_density_of_every_level():
    table = densities()
    assert table == sorted(table)
    assert len(table) == CAP_MDBM - FLOOR_MDBM + 1
    assert table[::97] == [density(mdbm) for mdbm in range(FLOOR_MDBM, CAP_MDBM + 1, 97)]
    assert (table[0], table[-1]) == (1, CAP)


@settings(deadline=None, max_examples=60)
@given(
    st.floats(-70, 70),
    st.floats(-179, 179),
    st.floats(1, 20_000),
    st.integers(5, 8),
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 2 * math.pi)), min_size=40, max_size=40),
)
def test_no_cell_that_the_circle_touches_is_missed(lat, lon, reach, resolution, points):
    cells = set(cells_under(lat, lon, reach, resolution))
    for share, bearing in points:
        distance = reach * math.sqrt(share) / 6_371_007.2
        here = math.radians(lat)
        there = math.asin(math.sin(here) * math.cos(distance) + math.cos(here) * math.sin(distance) * math.cos(bearing))
        turn = math.atan2(
            math.sin(bearing) * math.sin(distance) * math.cos(here),
            math.cos(distance) - math.sin(here) * math.sin(there),
        )
        assert h3.latlng_to_cell(math.degrees(there), lon + math.degrees(turn), resolution) in cells


@settings(deadline=None, max_examples=60)
@given(st.floats(-70, 70), st.floats(-179, 179), st.floats(0, 9_000), st.floats(0, 9_000))
def test_more_uncertainty_never_takes_a_cell_away(lat, lon, a, b):
    assert set(cells_under(lat, lon, min(a, b), 7)) <= set(cells_under(lat, lon, max(a, b), 7))


@pytest.mark.parametrize("place", [(91, 0, 0), (0, 181, 0), (0, 0, -1), (0, 0, 1e9), (math.nan, 0, 0)])
def test_a_place_that_is_none_is_refused(place):
    with pytest.raises(RefusedInput):
        cells_under(*place, 7)


def spans(**changes) -> list[tuple[str, str]]:
    base = {"timezone": "Europe/London", "since": "08:00", "until": "18:00"}
    found = windows(Schedule(**(base | changes)))
    return [tuple(datetime.fromtimestamp(t / 1000, UTC).strftime("%m-%dT%H:%M") for t in span) for span in found]


def test_a_schedule_follows_daylight_saving():
    assert spans(first=date(2026, 3, 28), last=date(2026, 3, 29)) == [
        ("03-28T08:00", "03-28T18:00"),
        ("03-29T07:00", "03-29T17:00"),
    ]


def test_a_skipped_hour_begins_when_the_clock_jumps():
    assert spans(first=date(2026, 3, 29), last=date(2026, 3, 29), since="01:30", until="03:00") == [
        ("03-29T01:00", "03-29T02:00")
    ]


def test_a_repeated_hour_counts_twice():
    assert spans(first=date(2026, 10, 25), last=date(2026, 10, 25), since="01:00", until="02:00") == [
        ("10-25T00:00", "10-25T02:00")
    ]


@pytest.mark.parametrize(("day", "hours"), [(date(2026, 3, 29), 23), (date(2026, 10, 25), 25), (date(2026, 6, 21), 24)])
def test_a_whole_day_has_the_hours_it_has(day, hours):
    (span,) = windows(Schedule("Europe/London", day, day, "00:00", "24:00"))
    assert span[1] - span[0] == hours * 3_600_000


def test_leap_days_are_days():
    assert spans(first=date(2028, 2, 28), last=date(2028, 3, 1), timezone="UTC") == [
        ("02-28T08:00", "02-28T18:00"),
        ("02-29T08:00", "02-29T18:00"),
        ("03-01T08:00", "03-01T18:00"),
    ]


def test_nights_end_the_next_day_and_round_the_clock_is_one_window():
    assert spans(first=date(2026, 6, 1), last=date(2026, 6, 1), timezone="UTC", since="22:00", until="06:00") == [
        ("06-01T22:00", "06-02T06:00")
    ]
    always = windows(Schedule("Europe/London", date(2026, 1, 1), date(2026, 12, 31), "00:00", "24:00"))
    assert len(always) == 1
    assert always[0][1] - always[0][0] == timedelta(days=365) // timedelta(milliseconds=1)


@pytest.mark.parametrize(
    "changes",
    [
        {"timezone": "Mars/Base"},
        {"timezone": "../etc"},
        {"since": "25:00"},
        {"until": "8:00"},
        {"days": ("someday",)},
        {"first": date(1, 1, 1), "last": date(1, 1, 2)},
        {"first": date(9999, 12, 30), "last": date(9999, 12, 31)},
    ],
)
def test_a_bad_schedule_is_refused(changes):
    with pytest.raises(RefusedInput):
        spans(**({"first": date(2026, 1, 1), "last": date(2026, 1, 2)} | changes))


def test_path_loss_tables_are_lower_bounds():
    table = losses_for(RULES, 8)
    for row, height in zip(table.rings, RULES.heights_m, strict=True):
        assert list(row) == sorted(row)
        for ring, loss in enumerate(row):
            free = 20 * math.log10(4 * math.pi * nearest_m(ring, 7) * RULES.low / 299_792_458)
            assert loss >= math.floor(1000 * free) or ring == 0 or height > RULES.heights_m[0]
    assert all(a >= b for a, b in zip(table.rings[0], table.rings[1], strict=True))
