"""Bundles: bought whole or not at all, each part settled by its own rule; the shipped scenario and its kills."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridpool.agents.bundle_run import STEPS, kills, play, read_scenario
from gridpool.cli import main
from gridpool.errors import RefusedInput

SCENARIO = read_scenario("offgrid")


def test_the_shipped_scenario_is_bought_and_settled_to_the_unit():
    played = play(SCENARIO, None)
    assert (played.bought, played.refused) == (4, "")
    assert sum(played.changes.values()) == 0
    energy = played.settled["clinic-energy"]
    assert (energy["paid"], energy["refunded"], energy["penalty"]) == (2_250_000, 750_000, 375_000)
    for part in played.settled.values():
        assert part["paid"] + part["refunded"] == part["price"]
    earned = dict.fromkeys(played.changes, 0)
    for part in played.settled.values():
        earned[part["provider"]] += part["paid"] - part["penalty"]
        earned[part["buyer"]] -= part["paid"] - part["penalty"]
    assert earned == played.changes


@settings(deadline=None, max_examples=25)
@given(st.sampled_from(list(kills(SCENARIO))))
def test_killing_any_part_at_any_step_leaves_nobody_bound(kill):
    played = play(SCENARIO, kill)
    assert played.refused
    assert played.bound == 0


def test_every_step_is_among_the_kills():
    listed = list(kills(SCENARIO))
    assert {kill.step for kill in listed} == set(STEPS)
    assert {(kill.bundle, kill.part) for kill in listed} == {
        (number, part) for number, bundle in enumerate(SCENARIO.bundles) for part in bundle.parts
    }


def test_bundle_run_as_printed(capsys):
    main(["bundle", "run", "offgrid", "--json"])
    answer = json.loads(capsys.readouterr().out)
    assert answer["bound_after_kills"] == answer["bought_despite_kill"] == 0
    assert answer["kills"] == len(answer["killed"]) > 100
    assert answer["net"] < answer["gross"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('kind = "compute"', 'kind = "magic"'),
        ('provider = "mast"', 'provider = "nobody"'),
        ("price = 6_000_000", "price = -1"),
        ('pool = "relay"', 'pool = "other"'),
        ('part = "clinic-energy"', 'part = "no-such"'),
        ("penalty_ppm = 300_000", "penalty = 300_000"),
        ('name = "mast"\nroles', 'name = "school"\nroles'),
        ("start = 2026-06-21T08:00:00Z\nend", "start = 2026-06-20T08:00:00Z\nend"),
        ("[[bundles]]", "[[bundle]]"),
        ("2026-", "0001-"),
    ],
)
def test_a_bad_scenario_is_refused_in_one_line(tmp_path, capsys, old, new):
    from importlib.resources import files

    text = files("gridpool.agents").joinpath("bundle_scenarios", "offgrid.toml").read_text()
    assert old in text
    (tmp_path / "bad.toml").write_text(text.replace(old, new))
    with pytest.raises(RefusedInput):
        read_scenario(str(tmp_path / "bad.toml"))
    with pytest.raises(SystemExit) as end:
        main(["bundle", "run", str(tmp_path / "bad.toml")])
    assert end.value.code == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_an_unknown_scenario_is_refused():
    with pytest.raises(RefusedInput, match="offgrid"):
        read_scenario("ongrid")
