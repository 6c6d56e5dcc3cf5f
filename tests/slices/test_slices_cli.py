"""The slice commands as users and scripts call them."""

import csv
import json
import os
import subprocess
import sys
from itertools import product

import numpy as np
import pytest

from gridpool.agents.slice_scenario import SCENARIOS
from gridpool.agents.wallet_keys import WalletKeys, save_wallet
from gridpool.cli import main
from gridpool.contracts import RULES
from gridpool.contracts.coins import CoinParameters, Payment
from gridpool.contracts.members import FoundingMember, MemberParameters, NewSeat, Role
from gridpool.engines.embedded import Embedded
from gridpool.ledger.genesis import Genesis
from gridpool.ledger.keys import KeyPair
from gridpool.ledger.types import encode

COLUMNS = ["id", "segment", "party", "cost", "delay_us", "bandwidth_kbps", "risk_nano"]


def call(capsys, *arguments, code=0):
    """Run a command in this process; returns its JSON, or its one complaint."""
    try:
        main([str(argument) for argument in arguments])
        left = 0
    except SystemExit as end:
        left = end.code or 0
    out, err = capsys.readouterr()
    assert left == code, err
    if code:
        assert out == ""
        assert len(err.strip().splitlines()) == 1, err
        return err.strip()
    return json.loads(out)


@pytest.fixture
def files(tmp_path):
    def write(rows, **changes):
        request = {
            "segments": ["ran", "transport", "core"],
            "max_delay_us": 100,
            "min_bandwidth_kbps": 10,
            "max_risk_nano": 100,
            "reserve": 100,
            "budget": 100,
        }
        request = {name: value for name, value in (request | changes).items() if value is not None}
        (tmp_path / "request.json").write_text(json.dumps(request))
        with (tmp_path / "offers.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            writer.writerows(rows)
        return tmp_path / "request.json", tmp_path / "offers.csv"

    return write


ROWS = [
    ("r1", "ran", "a", 10, 30, 50, 10),
    ("r2", "ran", "b", 12, 20, 50, 10),
    ("t1", "transport", "a", 5, 30, 40, 10),
    ("c1", "core", "c", 7, 30, 60, 10),
    ("c2", "core", "b", 9, 10, 60, 5),
]


def test_arbitrate_answers_every_field(capsys, files):
    answer = call(capsys, "slice", "arbitrate", *files(ROWS), "--objective", "cost", "--payment", "offer", "--json")
    seconds = answer.pop("seconds")
    assert 0 <= seconds < 1
    assert answer == {
        "feasible": True,
        "objective": "cost",
        "chosen": [
            {"segment": "ran", "offer": "r1", "party": "a", "cost": 10},
            {"segment": "transport", "offer": "t1", "party": "a", "cost": 5},
            {"segment": "core", "offer": "c1", "party": "c", "cost": 7},
        ],
        "cost": 22,
        "delay_us": 90,
        "bandwidth_kbps": 40,
        "risk_nano": 30,
        "payments": {"a": 15, "c": 7},
        "over_budget": False,
        "candidates": 5,
        "pareto": 5,
    }


def test_arbitrate_pays_vcg_and_says_when_it_is_over_budget(capsys, files):
    answer = call(capsys, "slice", "arbitrate", *files(ROWS, budget=90), "--payment", "vcg", "--json")
    assert answer["payments"] == {"a": 15 + 100 - 22, "c": 9}
    assert answer["over_budget"]
    assert len(answer["chosen"]) == 3
    without = call(capsys, "slice", "arbitrate", *files(ROWS, budget=None), "--payment", "vcg", "--json")
    assert without["over_budget"]
    exact = call(capsys, "slice", "arbitrate", *files(ROWS, budget=102), "--payment", "vcg", "--json")
    assert not exact["over_budget"]


def test_arbitrate_names_a_minimal_binding_set_when_infeasible(capsys, files):
    answer = call(capsys, "slice", "arbitrate", *files(ROWS, max_delay_us=59, reserve=21), "--json")
    assert not answer["feasible"]
    assert answer["chosen"] == []
    assert answer["binding"] == ["max_delay_us", "reserve"]
    loose = call(capsys, "slice", "arbitrate", *files(ROWS, max_delay_us=10**6, reserve=10**6), "--json")
    assert answer["pareto"] == loose["pareto"] == 5
    assert answer["payments"] == {}
    empty = call(capsys, "slice", "arbitrate", *files(ROWS[:3]), "--json")
    assert (empty["binding"], empty["missing"]) == ([], ["core"])
    assert (empty["candidates"], empty["pareto"]) == (3, 0)


@pytest.mark.parametrize("objective", ["delay", "bandwidth", "availability"])
def test_vcg_with_another_objective_is_one_line_that_names_vcg(capsys, files, objective):
    error = call(
        capsys, "slice", "arbitrate", *files(ROWS), "--objective", objective, "--payment", "vcg", "--json", code=1
    )
    assert "vcg" in error


def test_arbitrate_breaks_ties_by_cost_delay_risk_and_ids_as_text(capsys, files):
    rows = [(name, segment, "p", 1, 1, 20, 1) for segment in ("ran", "transport", "core") for name in ("9", "10", "a")]
    answer = call(capsys, "slice", "arbitrate", *files(rows), "--json")
    assert [one["offer"] for one in answer["chosen"]] == ["10", "10", "10"]
    assert answer["pareto"] == 3


@pytest.mark.parametrize("objective", ["cost", "delay", "bandwidth", "availability"])
def test_arbitrate_equals_brute_force_on_a_large_file(capsys, files, objective):
    rng = np.random.default_rng(5)
    rows = []
    for segment in ("ran", "transport", "core"):
        for n in range(90):
            figures = (
                int(rng.integers(1, 90)),
                int(rng.integers(1, 90)),
                int(rng.integers(5, 90)),
                int(rng.integers(1, 90)),
            )
            rows.append((f"{segment}{n}", segment, f"p{n % 7}", *figures))
    answer = call(capsys, "slice", "arbitrate", *files(rows), "--objective", objective, "--json")
    groups = [[r for r in rows if r[1] == s and r[5] >= 10] for s in ("ran", "transport", "core")]
    best = min(
        (
            (
                {"cost": c, "delay": d, "availability": k, "bandwidth": -b}[objective],
                c,
                d,
                k,
                tuple(o[0] for o in choice),
            )
            for choice in product(*groups)
            for c, d, b, k in [
                (
                    sum(o[3] for o in choice),
                    sum(o[4] for o in choice),
                    min(o[5] for o in choice),
                    sum(o[6] for o in choice),
                )
            ]
            if c <= 100 and d <= 100 and k <= 100
        )
    )
    assert (answer["cost"], answer["delay_us"], answer["risk_nano"]) == best[1:4]
    assert tuple(one["offer"] for one in answer["chosen"]) == best[4]


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"segments": []}, "segments"),
        ({"segments": ["ran", "ran"]}, "twice"),
        ({"reserve": -1}, "reserve"),
        ({"reserve": 10**16}, "reserve"),
        ({"max_delay_us": 1.5}, "max_delay_us"),
        ({"max_delay_us": "9"}, "max_delay_us"),
        ({"max_delay_us": None}, "max_delay_us"),
        ({"maximum": 3}, "maximum"),
    ],
)
def test_a_bad_request_is_refused_in_one_line(capsys, files, changes, word):
    assert word in call(capsys, "slice", "arbitrate", *files(ROWS, **changes), "--json", code=1)


@pytest.mark.parametrize(
    ("row", "word"),
    [
        (("x", "rann", "p", 1, 1, 1, 1), "rann"),
        (("x", "ran", "p", -1, 1, 1, 1), "cost"),
        (("x", "ran", "p", 1, "1.0", 1, 1), "delay_us"),
        (("x", "ran", "p", 1, 1, 10**16, 1), "bandwidth_kbps"),
        (("x", "ran", "p", 1, 1, 1), "columns"),
        (("", "ran", "p", 1, 1, 1, 1), "empty"),
        (("r1", "ran", "p", 1, 1, 1, 1), "twice"),
    ],
)
def test_a_bad_offer_is_refused_whole_with_its_line(capsys, files, row, word):
    error = call(capsys, "slice", "arbitrate", *files([*ROWS, row]), "--json", code=1)
    assert word in error
    if word != "twice":
        assert "line 7" in error


def test_wrong_columns_and_missing_files(capsys, files, tmp_path):
    request, offers = files(ROWS)
    offers.write_text("id,segment\n")
    assert "columns" in call(capsys, "slice", "arbitrate", request, offers, "--json", code=1)
    call(capsys, "slice", "arbitrate", request, tmp_path / "no.csv", "--json", code=1)
    request.write_text("[" * 100_000)
    call(capsys, "slice", "arbitrate", request, offers, "--json", code=1)


def test_templates_cover_the_four_sections_with_a_source_for_every_figure(capsys):
    answer = call(capsys, "slice", "templates", "--json")["templates"]
    assert {one["section"] for one in answer} == {"transmission", "substation", "distribution", "consumption"}
    for one in answer:
        assert 0 <= one["sst"] <= 255
        assert 0 <= int(one["sd"], 16) < 2**24
        assert one["sources"]
        sourced = " ".join(one["sources"])
        for name in one["attributes"]:
            assert name in sourced, (one["name"], name)
    single = call(capsys, "slice", "templates", "load_control", "--json")["templates"]
    assert [one["name"] for one in single] == ["load_control"]
    assert single[0]["attributes"]["latency"] == 50_000
    assert "load_control" in call(capsys, "slice", "templates", "lood_control", "--json", code=1)


def characteristic(name, value, unit=None, **more):
    entry = {"isDefault": True, "value": {"value": value}} | ({"unitOfMeasure": unit} if unit else {})
    return {"name": name, "serviceSpecCharacteristicValue": [entry]} | more


def test_import_gst_reports_mapped_unmapped_and_assumed(capsys, tmp_path):
    file = tmp_path / "gst.json"
    specification = {
        "name": "Protection",
        "serviceSpecCharacteristic": [
            characteristic("Availability", "99.999", "%"),
            characteristic(
                "Downlink throughput per network slice: Guaranteed downlink throughput quota", "2500", "kbps"
            ),
            characteristic("Uplink throughput per UE: Maximum uplink throughput per UE", "3", "Mbps"),
            characteristic("Slice quality of service parameters: Packet delay budget", "10", None),
            characteristic("Slice quality of service parameters: Packet error rate", "1e-5"),
            characteristic("Isolation level", "2"),
            characteristic("Number of terminals", "100"),
            characteristic("Slice/service type: SST", "2"),
            characteristic("Area of service", "671,675"),
            characteristic("V2X communication mode", "NO"),
            characteristic("Survival time", ""),
        ],
    }
    file.write_text(json.dumps(specification))
    answer = call(capsys, "slice", "import-gst", file, "--json")
    template = answer["template"]
    assert template["name"] == "Protection"
    assert (template["sst"], template["sd"]) == (2, "ffffff")
    assert template["attributes"] == {
        "availability": 999_990_000,
        "dLThptPerSliceGua": 2_500,
        "uLThptPerUEMax": 3_000,
        "latency": 10_000,
        "reliability": 999_990_000,
        "isolation": "logical",
        "maxNumberofUEs": 100,
        "coverageArea": ["671", "675"],
    }
    assert answer["unmapped"] == ["V2X communication mode", "Survival time"]
    assert len(answer["mapped"]) == 9
    assert any("latency" in one and "ms" in one for one in answer["assumed"])
    assert any(one.startswith("sd") for one in answer["assumed"])


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        '{"serviceSpecCharacteristic": [{}]}',
        '{"serviceSpecCharacteristic": [{"name": "Nothing known", "value": 1}]}',
        '{"serviceSpecCharacteristic": [{"name": "Availability", "value": "many"}]}',
        '{"serviceSpecCharacteristic": [{"name": "Availability", "value": 101}]}',
        '{"serviceSpecCharacteristic": [{"name": "Availability", "value": -1}]}',
        '{"serviceSpecCharacteristic": [{"name": "Isolation level", "value": "some"}]}',
        '{"serviceSpecCharacteristic": [{"name": "Latency", "value": "NaN"}]}',
        '{"serviceSpecCharacteristic": [{"name": "SST", "value": 256}]}',
    ],
)
def test_a_bad_gst_is_refused_in_one_line(capsys, tmp_path, text):
    file = tmp_path / "gst.json"
    file.write_text(text)
    assert "gst.json" in call(capsys, "slice", "import-gst", file, "--json", code=1)


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_shipped_scenario_adds_up_and_verifies(capsys, tmp_path, name):
    out = tmp_path / name
    answer = call(capsys, "slice", "run", name, "--out", out, "--json")
    money = (answer["paid"], answer["penalties"], answer["refunded"], answer["escrow_left"])
    assert answer["escrowed"] == sum(money)
    assert answer["escrow_left"] == 0
    assert answer["awarded"] == answer["ordered"] > 0
    assert answer["failed"] == 0
    verified = call(capsys, "ledger", "verify", out, "--json")
    assert verified["ok"]
    assert verified["app_hash"] == answer["app_hash"]
    assert json.loads((out / "results.json").read_text())["app_hash"] == answer["app_hash"]
    # an award is work that fell due; its transaction is the one that moved market time to it
    for line in [line for line in answer["story"] if " goes to " in line["what"]][:3]:
        shown = call(capsys, "ledger", "show", out, "--tx", line["tx"], "--json")
        assert "advance" in json.dumps(shown["calls"])


def test_a_played_ledger_is_read_and_the_same_scenario_gives_the_same_hash(capsys, tmp_path):
    answer = call(capsys, "slice", "run", "substation", "--out", tmp_path / "a", "--json")
    again = call(capsys, "slice", "run", "substation", "--out", tmp_path / "b", "--json")
    assert answer["app_hash"] == again["app_hash"]
    assert answer["violated_intervals"] > 0
    assert answer["penalties"] > 0
    shown = call(capsys, "slice", "show", tmp_path / "a", "--json")["slices"]
    assert {row["slice"] for row in shown} == {"robots", "monitoring"}
    assert sum(row["paid"] for row in shown) == answer["paid"]
    assert max(row["generation"] for row in shown) == 1
    assert call(capsys, "slice", "offers", tmp_path / "a", "robots", "--json")["offers"]
    lines = call(capsys, "slice", "statement", tmp_path / "a", "--member", "north", "--json")
    assert all(len(line["tx"]) == 64 for line in lines["lines"])
    assert lines["totals"]["deposit forfeited"] == 200_000
    assert "nobody" in call(capsys, "slice", "statement", tmp_path / "a", "--member", "nobody", "--json", code=1)
    assert "ghost" in call(capsys, "slice", "show", tmp_path / "a", "ghost", "--json", code=1)
    assert "not empty" in call(capsys, "slice", "run", "substation", "--out", tmp_path / "a", "--json", code=1)


def test_an_order_is_placed_on_a_stored_ledger(capsys, tmp_path):
    keys, home = WalletKeys(b"t" * 32), tmp_path / "node"
    tenant = keys.certificate
    save_wallet(tmp_path / "tenant.wallet", keys)
    founders = (FoundingMember(tenant.public, "Tenant", (Role.TENANT,)),)
    seats = (NewSeat(KeyPair(b"c" * 32).public, "Council", 1),)
    genesis = Genesis(
        chain="order",
        time_ms=1_782_000_000_000,
        market_clock="ticks",
        clock_keeper=KeyPair(b"k" * 32).public,
        parameters=(
            ("members", encode(MemberParameters(founders=founders, seats=seats, threshold=1))),
            ("coins", encode(CoinParameters((Payment(tenant.public, 5_000),)))),
        ),
    )
    Embedded.create(home, genesis, RULES, interval_ms=None).close()
    common = ("slice", "order", home, "robots", "--wallet", tmp_path / "tenant.wallet", "--devices", 3, "--minutes", 60)
    common += ("--template", "robot_inspection", "--json")
    placed = call(capsys, *common, "--start", "2026-06-21T12:00:00Z", "--reserve", 4_000)
    assert placed["generation"] == 0
    assert len(placed["tx"]) == 64
    shown = call(capsys, "slice", "show", home, "--json")["slices"]
    assert [(row["slice"], row["phase"], row["escrowed"]) for row in shown] == [("robots", "published", 4_000)]
    late = call(capsys, *common, "--start", "2026-06-21T12:00:00Z", "--reserve", 4_000, code=1)
    assert "still running" in late
    for wrong, word in (("2026-06-21T12:00:00", "zone"), ("noon", "RFC 3339")):
        assert word in call(capsys, *common, "--start", wrong, "--reserve", 1, code=1)


SCENARIO = """
title = "t"
[[tenants]]
name = "u"
[[parties]]
name = "n"
[[parties.offers]]
segment = "ran"
price_per_minute = 1
delay_us = 10000
bandwidth_kbps = 100000
risk_nano = 0
capacity = 10
[[slices]]
name = "s"
tenant = "u"
template = "load_control"
devices = 1
order_at = "00:00"
start = "00:20"
minutes = 5
reserve = 100
segments = ["ran"]
"""


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ('tenant = "u"', 'tenant = "x"', "tenant"),
        ("devices = 1", "devices = 0", "devices"),
        ("devices = 1", "device = 1", "device"),
        ('"00:20"', '"00:05"', "10 minutes"),
        ('"00:20"', '"24:00"', "start"),
        ("load_control", "load", "template"),
        ('segments = ["ran"]', 'segments = ["air"]', "air"),
        ("title", "titel", "titel"),
        ("reserve = 100", "reserve = -1", "reserve"),
    ],
)
def test_a_misspelt_scenario_is_refused_and_nothing_is_written(capsys, tmp_path, old, new, word):
    file = tmp_path / "s.toml"
    file.write_text(SCENARIO.replace(old, new, 1))
    assert word in call(capsys, "slice", "run", file, "--out", tmp_path / "out", "--json", code=1)
    assert not (tmp_path / "out").exists()


def test_a_scenario_of_ones_own_runs_and_an_order_nobody_can_serve_fails(capsys, tmp_path):
    file = tmp_path / "s.toml"
    file.write_text(SCENARIO)
    answer = call(capsys, "slice", "run", file, "--out", tmp_path / "out", "--json")
    assert (answer["ordered"], answer["awarded"], answer["failed"], answer["paid"]) == (1, 1, 0, 5)
    file.write_text(SCENARIO.replace("price_per_minute = 1", "price_per_minute = 21"))
    answer = call(capsys, "slice", "run", file, "--out", tmp_path / "dear", "--json")
    assert (answer["ordered"], answer["awarded"], answer["failed"], answer["refunded"]) == (1, 0, 1, 100)
    assert "nowhere" in call(capsys, "slice", "run", "nowhere", "--out", tmp_path / "x", "--json", code=1)


def test_a_sealed_scenario_is_committed_revealed_and_served(capsys, tmp_path):
    file = tmp_path / "s.toml"
    file.write_text(SCENARIO.replace("reserve = 100", "reserve = 100\nsealed = true"))
    answer = call(capsys, "slice", "run", file, "--out", tmp_path / "out", "--json")
    assert (answer["awarded"], answer["failed"], answer["paid"]) == (1, 0, 5)
    assert answer["refused"] == 0


def test_the_hash_does_not_depend_on_the_hash_seed(tmp_path):
    file = tmp_path / "s.toml"
    file.write_text(SCENARIO)
    hashes = set()
    for seed in ("1", "2"):
        command = [sys.executable, "-m", "gridpool", "slice", "run", str(file), "--out", str(tmp_path / seed), "--json"]
        done = subprocess.run(command, env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True)
        hashes.add(json.loads(done.stdout)["app_hash"])
    assert len(hashes) == 1
