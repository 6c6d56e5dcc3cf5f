"""Scenarios are validated key by key, and the calendar knows daylight saving."""

import datetime
from pathlib import Path

import pytest

from gridpool.cli import main
from gridpool.day.calendar import calendar_of
from gridpool.day.scenario import SHIPPED, Scenario, commented_toml, read_scenario
from gridpool.errors import RefusedInput


def test_written_scenario_reads_back_as_the_default(tmp_path: Path) -> None:
    path = tmp_path / "day.toml"
    path.write_text(commented_toml(), encoding="utf-8")
    assert read_scenario(path) == Scenario()


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_scenarios_are_valid(name: str) -> None:
    assert read_scenario(name).prosumers.count >= 1


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("prosumer = 3", r"'prosumer' = 3; did you mean 'prosumers'"),
        ("[prosumers]\ncout = 3", r"'prosumers.cout' = 3; did you mean 'count'"),
        ("[prosumers]\ncount = 0", r"'prosumers.count' = 0 is not allowed; it takes a whole number from 1"),
        ("[market]\nretail_price = -1", r"'market.retail_price' = -1 is not allowed"),
        ("[market]\nfeed_in_price = 320000", r"at least market.feed_in_price \+ 2 ticks"),
        ("[slices]\nreserve = 0", r"'slices.reserve' = 0 is not allowed; it takes a whole number from 1"),
        ("[slices]\npenalty = 1.5", r"'slices.penalty' = 1.5 is not allowed; it takes a number from 0.0 to 1.0"),
        ("[radio]\nresource_blocks = 107", r"from 1 to 106"),
        ("[prosumers]\ncoins = [5, 1]", r"least, greatest"),
        ('[[events]]\nat = "25:00"', r"'events.0.at' = '25:00'"),
        ('[place]\ntimezone = "Mars"', r"IANA name"),
        ("seed = 1.5", r"'seed' = 1.5 is not allowed; it takes a whole number"),
        ("seed = [", r"not a TOML file"),
    ],
)
def test_bad_scenario_names_key_value_and_what_is_allowed(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RefusedInput, match=complaint):
        read_scenario(path)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--feeder", "ieee14"], "ieee14"),
        (["--resource-blocks", "0"], "resource_blocks"),
        (["--resource-blocks", "107"], "106"),
        (["--prosumers", "0"], "count"),
        (["--scenario", "nowhere.toml"], "nowhere.toml"),
    ],
)
def test_bad_arguments_are_one_line_and_leave_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], complaint: str
) -> None:
    out = tmp_path / "day"
    with pytest.raises(SystemExit) as stop:
        main(["day", "--out", str(out), *arguments])
    captured = capsys.readouterr()
    assert stop.value.code == 1
    assert captured.out == ""
    assert complaint in captured.err
    assert len(captured.err.strip().splitlines()) == 1
    assert not out.exists()


def test_feeder_files_with_a_loop_or_without_a_source_are_refused(tmp_path: Path) -> None:
    loop = tmp_path / "loop.dss"
    loop.write_text(
        "clear\nnew circuit.loop basekv=4.16 bus1=a phases=3\n"
        "new line.ab bus1=a bus2=b length=1\nnew line.bc bus1=b bus2=c length=1\nnew line.ca bus1=c bus2=a length=1\n"
        "new load.c bus1=c phases=3 kv=4.16 kw=10\nset voltagebases=[4.16]\ncalcv\nsolve\n",
        encoding="utf-8",
    )
    empty = tmp_path / "empty.dss"
    empty.write_text("clear\n", encoding="utf-8")
    for path in (loop, empty):
        with pytest.raises(SystemExit) as stop:
            main(["day", "--out", str(tmp_path / "out"), "--feeder", str(path)])
        assert stop.value.code == 1
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("date", "intervals"),
    [
        (datetime.date(2026, 6, 21), 96),
        (datetime.date(2026, 3, 29), 92),
        (datetime.date(2026, 10, 25), 100),
        (datetime.date(2028, 2, 29), 96),
    ],
)
def test_day_has_as_many_quarter_hours_as_the_clock_says(date: datetime.date, intervals: int) -> None:
    calendar = calendar_of(date, "Europe/Berlin")
    assert len(calendar) == intervals
    assert {b - a for a, b in zip(calendar.starts_ms, calendar.starts_ms[1:], strict=False)} == {900_000}
    assert calendar.local[calendar.interval_at("14:00")].strftime("%H:%M") == "14:00"
