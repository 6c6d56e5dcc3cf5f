"""The commands as people type them."""

import json
from pathlib import Path
from typing import Any

import pytest

from gridpool.cli import main
from gridpool.lab.access import Access
from gridpool.lab.latency import latency_report

BASE = "--arrival 0.8 --block-rate 1 --service-rate 0.2 --links 5"
FULL = BASE.replace("0.8", "1.0")
LANES = "--block-size 5 --confirmations 1 --engine lanes --events 64000"


def run(line: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    main(["lab", *line.split(), "--json"])
    out = capsys.readouterr().out
    found: dict[str, Any] = json.loads(out)
    return found


def refused(line: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stop:
        main(["lab", *line.split(), "--json"])
    streams = capsys.readouterr()
    assert stop.value.code == 1
    assert streams.out == ""
    assert streams.err.count("\n") == 1
    return streams.err


def test_latency_has_every_field(capsys: pytest.CaptureFixture[str]) -> None:
    found = run(f"latency {BASE} --block-size inf --confirmations 1", capsys)
    assert {"inclusion", "service_wait", "confirmation", "latency", "upper", "lower"} == set(found["published"])
    exact = found["exact"]
    assert {
        "inclusion", "service_wait", "confirmation", "latency", "sojourn", "pre_service_percentiles", "rejected_share",
        "method", "interval",
    } <= set(exact)  # fmt: skip
    assert set(exact["pre_service_percentiles"]) == {"p50", "p90", "p99"}
    assert exact["latency"] == pytest.approx(exact["inclusion"] + exact["confirmation"] + exact["service_wait"])
    assert exact["sojourn"] == pytest.approx(exact["latency"] + 5)
    assert exact["method"] == "chain"
    assert exact["interval"] is None
    assert set(found["bounds"]) == {"upper", "lower"}
    assert found["violated"] == []
    assert found["bounds"]["lower"] <= exact["latency"] <= found["bounds"]["upper"]


def test_methods_and_intervals(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(f"latency {BASE} --block-size 1 --confirmations 1", capsys)["exact"]["method"] == "closed form"
    many = run(f"latency {BASE} --block-size 1 --confirmations 6", capsys)
    assert many["exact"]["method"] == "simulation"
    low, high = many["exact"]["interval"]
    assert low < many["exact"]["latency"] < high
    assert [entry.split(":")[0] for entry in many["violated"]] == ["upper"]
    assert many["bounds"]["upper"] > many["exact"]["latency"] > many["published"]["upper"]


def test_undefined_values_are_null_with_a_reason(capsys: pytest.CaptureFixture[str]) -> None:
    line = "latency --arrival 1.5 --block-rate 1 --service-rate 0.5 --links 5 --block-size 4 --confirmations 1"
    found = run(line, capsys)
    assert found["published"]["inclusion"] is None
    assert found["published"]["latency"] is None
    assert found["published"]["upper"] is None
    assert found["published"]["service_wait"] is not None
    assert found["bounds"]["upper"] is None
    named = {entry.split(":")[0] for entry in found["violated"]}
    assert named == {"inclusion", "latency", "upper", "bounds.upper"}
    assert all("1.5" in entry for entry in found["violated"])


def test_rejections_violate_the_printed_lower_bound(capsys: pytest.CaptureFixture[str]) -> None:
    line = (
        "latency --arrival 0.2 --block-rate 1 --service-rate 5 --links 5 --block-size 4 --confirmations 1 "
        "--reject-rate 1 --reject-size inf"
    )
    found = run(line, capsys)
    assert [entry.split(":")[0] for entry in found["violated"]] == ["lower"]
    assert found["bounds"]["lower"] <= found["exact"]["latency"] < found["published"]["lower"]
    assert found["exact"]["rejected_share"] == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("arrival", [0.2, 0.8])
@pytest.mark.parametrize("block_size", [1.0, 3.0, float("inf")])
@pytest.mark.parametrize("confirmations", [1, 2])
@pytest.mark.parametrize("template", ["refresh", "frozen"])
def test_bounds_hold(arrival: float, block_size: float, confirmations: int, template: str) -> None:
    access = Access(
        arrival=arrival, block_rate=1.0, service_rate=0.5, links=2, block_size=block_size,
        confirmations=confirmations, template=template,  # type: ignore[arg-type]
    )  # fmt: skip
    report = latency_report(access, events=2_000_000)
    assert report.bounds.upper is not None
    least, most = report.exact.interval or (report.exact.latency, report.exact.latency)
    assert report.bounds.lower <= most * (1 + 1e-9)
    assert least <= report.bounds.upper * (1 + 1e-9)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (f"latency {FULL} --block-size 1 --confirmations 1", "1 >= 1 x 1 = 1"),
        (f"latency {FULL} --block-size 2 --confirmations 1", "1 >= 5 x 0.2 = 1"),
        (f"latency {BASE} --block-size 0 --confirmations 1", "--block-size"),
        (f"latency {BASE} --block-size 1.5 --confirmations 1", "--block-size"),
        (f"latency {BASE} --block-size nan --confirmations 1", "--block-size"),
        (f"latency {BASE} --block-size 2 --confirmations 0", "--confirmations"),
        (f"latency {BASE} --block-size 2", "--confirmations is missing"),
        (f"latency {BASE} --block-size 2 --confirmations 1 --reject-rate 1", "--reject-size"),
        (f"latency {BASE} --block-size 2 --confirmations 1 --reject-rate -1 --reject-size 1", "--reject-rate"),
        (f"latency {BASE} --block-size 2 --confirmations 1 --plot x.png", "--sweep"),
        (f"latency {BASE} --block-size 2 --confirmations 1 --sweep arrival=0.1:2", "name=lo:hi:n"),
        (f"latency {BASE} --block-size 2 --confirmations 1 --sweep colour=0.1:2:3", "block-rate"),
        (f"latency {BASE} --block-size 2 --confirmations 1 --sweep confirmations=1:2:3", "whole numbers"),
        (f"latency {BASE} --block-size 2 --confirmations 1 --sweep arrival=0.1:1.2:5", "unstable"),
        ("attack --beta -1 --confirmations 3", "--beta"),
        ("attack --beta 1 --confirmations 3 --share", "share"),
        ("attack --confirmations 3", "--beta is missing"),
        (f"simulate latency {BASE} --block-size 2 --confirmations 1 --replicas 1", "--replicas"),
        ("simulate attack --beta 1 --confirmations 3", "--give-up"),
        (f"plan {BASE} --target-latency 5 --max-risk 2 --beta 0.1", "--max-risk"),
    ],
)  # fmt: skip
def test_refusals_are_one_line_and_exit_1(line: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert said in refused(line, capsys)


def test_attack(capsys: pytest.CaptureFixture[str]) -> None:
    found = run("attack --beta 0.5 --confirmations 6 --give-up 10 --abort reaches --success tie", capsys)
    assert found["published"] > found["exact"] or found["exact"] > 0
    assert found["race_blocks"] > 0
    share = run("attack --beta 0.3333333333333333 --confirmations 6 --give-up inf --share", capsys)
    plain = run("attack --beta 0.5 --confirmations 6", capsys)
    assert share["exact"] == pytest.approx(plain["exact"], rel=1e-9)
    assert plain["exact"] == pytest.approx(plain["published"], rel=1e-12)
    assert plain["race_blocks"] is None
    stronger = run("attack --beta 1.2 --confirmations 6 --give-up 10", capsys)
    assert stronger["published"] == 1.0 > stronger["exact"]


@pytest.mark.parametrize("engine", ["recursion", "lanes"])
def test_simulate(engine: str, capsys: pytest.CaptureFixture[str]) -> None:
    tail = f"--engine {engine} --events 320000 --replicas 32 --seed 5"
    fields = {
        "mean", "ci95", "p50", "p90", "p99", "pending_mean", "links_mean", "events", "seconds", "events_per_s",
    }  # fmt: skip
    found = run(f"simulate latency {BASE} --block-size inf --confirmations 3 {tail}", capsys)
    assert fields <= set(found)
    assert found["events"] == 320_000
    assert found["ci95"][0] < found["mean"] < found["ci95"][1]
    assert (found["p50"] is None) == (engine == "lanes")
    attack = run(f"simulate attack --beta 0.5 --confirmations 3 --give-up 5 {tail}", capsys)
    assert fields <= set(attack)
    assert attack["p50"] is None
    assert attack["events"] == 320_000
    exact = run("attack --beta 0.5 --confirmations 3 --give-up 5", capsys)["exact"]
    assert attack["mean"] == pytest.approx(exact, abs=4 * (attack["ci95"][1] - attack["ci95"][0]))


def test_plan(capsys: pytest.CaptureFixture[str]) -> None:
    line = f"plan --target-latency 5.4 --statistic mean --max-risk 0.01 --beta 0.1 --give-up inf {BASE}"
    found = run(line, capsys)
    fields = {"feasible", "confirmations", "block_size", "block_rate", "latency", "risk", "binding"}
    assert fields <= set(found)
    assert found["feasible"] is True
    assert found["binding"] is None
    confirmed = f"--block-size {found['block_size']} --confirmations {found['confirmations']}"
    assert run(f"latency {BASE} {confirmed}", capsys)["exact"]["latency"] == found["latency"]
    hopeless = run(line.replace("5.4", "1.5"), capsys)
    assert (hopeless["feasible"], hopeless["binding"]) == (False, "latency")
    risky = run(line.replace("--beta 0.1", "--beta 1.2"), capsys)
    assert (risky["feasible"], risky["binding"]) == (False, "risk")


@pytest.mark.parametrize(
    ("command", "name", "points"),
    [
        (f"latency {BASE} --block-size 5 --confirmations 1 --sweep arrival=0.1:0.95:6", "arrival", 6),
        (f"latency {BASE} --block-size 5 --sweep confirmations=1:2:2", "confirmations", 2),
        ("attack --confirmations 3 --give-up 4 --sweep beta=0.1:1.5:8", "beta", 8),
        ("attack --beta 0.4 --sweep confirmations=1:20:20", "confirmations", 20),
        (f"simulate latency {BASE} {LANES} --sweep arrival=0.1:0.9:5", "arrival", 5),
        (f"simulate latency {BASE} --confirmations 1 --events 64000 --sweep block-size=1:4:4", "block_size", 4),
        ("simulate attack --confirmations 3 --give-up 4 --events 6400 --sweep beta=0.1:1.5:4", "beta", 4),
        (f"plan {BASE} --max-risk 0.01 --beta 0.1 --sweep target-latency=5.2:9:3", "target_latency", 3),
    ],
)  # fmt: skip
def test_sweeps_give_rows_and_a_plot(
    command: str, name: str, points: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / "curve.png"
    found = run(f"{command} --plot {image}", capsys)
    assert len(found["rows"]) == points
    assert [row[name] for row in found["rows"]] == sorted(row[name] for row in found["rows"])
    assert image.read_bytes()[:4] == b"\x89PNG"
    assert [path.name for path in tmp_path.iterdir()] == ["curve.png"]
    vector = tmp_path / "curve.svg"
    run(f"{command} --plot {vector}", capsys)
    assert "<svg" in vector.read_text()


def test_a_plot_needs_a_known_suffix(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert ".svg" in refused(f"attack --confirmations 3 --sweep beta=0.1:0.9:3 --plot {tmp_path / 'a.doc'}", capsys)


def test_text_output(capsys: pytest.CaptureFixture[str]) -> None:
    main(["lab", "latency", *BASE.split(), "--block-size", "1", "--confirmations", "6"])
    text = capsys.readouterr().out
    assert "simulation" in text
    assert "violated: upper" in text
