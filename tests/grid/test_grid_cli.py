"""The grid commands, literally as users type them."""

import json
from pathlib import Path
from typing import Any

import pytest

from gridpool.cli import main
from gridpool.grid import FEEDERS


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    main([*arguments, "--json"])
    out, _ = capsys.readouterr()
    answer = json.loads(out)
    assert isinstance(answer, dict)
    return answer


@pytest.mark.parametrize("formulation", ["linear", "sdp"])
def test_served(capsys: pytest.CaptureFixture[str], formulation: str) -> None:
    answer = run(
        capsys, "served", "--feeder", "ieee13", "--observed", "all", "--controlled", "none",
        "--formulation", formulation, "--blind-error", "0.5", "--dg-share", "0.2",
    )  # fmt: skip
    named = {"served_w", "nominal_w", "served_share", "score", "max_violation_pu", "rounds", "formulation", "certified"}
    assert named | {"eigenvalue_ratio", "voltages"} <= answer.keys()
    assert answer["formulation"] == formulation
    assert (answer["eigenvalue_ratio"] is None) == (formulation == "linear")
    assert answer["certified"] == "worst_case"
    assert answer["served_share"] == pytest.approx(answer["served_w"] / answer["nominal_w"])
    assert 0.0 < answer["score"] < 1.0
    assert len(answer["voltages"]["671"]) == 3
    assert len(answer["voltages"]["611"]) == 1


def test_served_with_lists_and_both_formulations(capsys: pytest.CaptureFixture[str]) -> None:
    answer = run(
        capsys, "served", "--feeder", "ieee13", "--observed", "671, 675", "--controlled", "650,684",
        "--formulation", "both",
    )  # fmt: skip
    assert answer["formulation"] == "both"
    assert answer["sdp"]["served_share"] == pytest.approx(answer["served_share"], abs=0.005)


def test_limits_are_options(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["served", "--feeder", "ieee13", "--observed", "all", "--controlled", "none"]
    wide = run(capsys, *arguments, "--lower-pu", "0.9", "--upper-pu", "1.1")
    assert (wide["lower_pu"], wide["upper_pu"]) == (0.9, 1.1)
    assert wide["served_w"] > 1.2 * run(capsys, *arguments)["served_w"]
    flow = run(capsys, "opf", "--feeder", "ieee34", "--objective", "cost", "--lower-pu", "0.9")
    assert flow["served_w"] == pytest.approx(1769e3, rel=1e-6)


def test_full_connectivity_scores_one(capsys: pytest.CaptureFixture[str]) -> None:
    answer = run(capsys, "served", "--feeder", "ieee37", "--observed", "all", "--controlled", "all")
    assert answer["score"] == 1.0


@pytest.mark.parametrize("objective", ["cost", "served"])
@pytest.mark.parametrize("formulation", ["sdp", "linear"])
def test_opf(capsys: pytest.CaptureFixture[str], objective: str, formulation: str) -> None:
    answer = run(capsys, "opf", "--feeder", "ieee13", "--objective", objective, "--formulation", formulation)
    assert {"set_points", "voltages", "loss_w", "relaxation_gap"} <= answer.keys()
    assert {"taps", "capacitors", "generation_w", "generation_var"} <= answer["set_points"].keys()
    assert answer["formulation"] == formulation
    assert answer["relaxation_gap"] < 0.02
    assert answer["loss_w"] > 0.0


@pytest.mark.parametrize("name", FEEDERS)
def test_feeder_show_check_and_solve(capsys: pytest.CaptureFixture[str], name: str) -> None:
    shown = run(capsys, "feeder", "show", name)
    assert len(shown["nodes"]) == len(shown["edges"]) + 1
    checked = run(capsys, "feeder", "check", name)
    assert checked["radial"] is True
    solved = run(capsys, "feeder", "solve", name)
    assert {"source_w", "source_var", "loss_w", "max_error_pu", "voltages"} <= solved.keys()
    phase, value = solved["voltages"][shown["source"]][0]
    assert phase == 1
    assert 0.9 < value < 1.1
    assert solved["max_error_pu"] < 0.003


def test_text_output_is_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (
        ["feeder", "show", "ieee13"],
        ["feeder", "check", "ieee34"],
        ["feeder", "solve", "ieee37"],
        ["served", "--feeder", "ieee13", "--observed", "none", "--controlled", "none"],
        ["opf", "--feeder", "ieee13", "--objective", "served", "--formulation", "linear"],
    ):
        main(arguments)
        out, _ = capsys.readouterr()
        assert out.strip()
        assert not out.startswith("{")


def test_show_writes_a_feeder_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    run(capsys, "feeder", "show", "ieee37", "--write", str(path))
    again = run(capsys, "feeder", "solve", str(path))
    assert again["max_error_pu"] is None
    assert again["loss_w"] == run(capsys, "feeder", "solve", "ieee37")["loss_w"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["served", "--feeder", "ieee13", "--observed", "999", "--controlled", "none"],
        ["served", "--feeder", "ieee13", "--observed", "all", "--controlled", "671,nope"],
        ["served", "--feeder", "ieee99", "--observed", "all", "--controlled", "all"],
        ["served", "--feeder", "ieee13", "--observed", "all", "--controlled", "all", "--blind-error", "2"],
        ["opf", "--feeder", "missing.dss", "--objective", "cost"],
        ["opf", "--feeder", "ieee34", "--objective", "cost"],
        ["feeder", "show", "missing.json"],
        ["feeder", "solve", "/etc/passwd"],
        ["feeder", "import", "missing.dss"],
        ["feeder", "import", "ieee13"],
    ],
)
def test_refusals_are_one_line_and_exit_code_one(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([*arguments, "--json"])
    assert stop.value.code == 1
    out, error = capsys.readouterr()
    assert out == ""
    assert error.count("\n") == 1


def test_wrong_usage_is_exit_code_two(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["opf", "--feeder", "ieee13", "--objective", "fame"])
    assert stop.value.code == 2
