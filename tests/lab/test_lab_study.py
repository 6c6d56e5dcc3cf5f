"""The study of Kouvakis et al. 2024 in its reduced form."""

import csv
import json
from pathlib import Path

import pytest

from gridpool.cli import main
from gridpool.errors import RefusedInput
from gridpool.lab.attack import Attack, attack_success
from gridpool.studies import run_study

SMALL = """
intensity_points = 3
intensity_low = 0.2
intensity_high = 0.8
intensities = [0.2, 0.8]
confirmations = 3
beta_points = 4
events = 400000
trials = 20000

[networks.A]
block_rate = 1.0
links = 5
service_rate = 0.2
"""


def test_the_study_writes_figures_and_judges_claims(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    params = tmp_path / "params.toml"
    params.write_text(SMALL)
    out = tmp_path / "out"
    main(["study", "run", "kouvakis2024", "--out", str(out), "--params", str(params), "--smoke", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert set(found["files"]) == {f"fig{n}.{kind}" for n in (4, 5, 6) for kind in ("csv", "png")}
    for name in found["files"]:
        assert (out / name).stat().st_size > 100
    assert {claim["figure"] for claim in found["claims"]} == {"4", "5", "6"}
    verdicts = {claim["claim"].split(" (")[0]: claim["verdict"] for claim in found["claims"]}
    assert verdicts["success reaches 100 % at beta = 1"] in ("reproduced", "not reproduced")
    assert verdicts["success is unaffected by the threshold"] == "not reproduced"
    assert verdicts["A: latency rises with every confirmation"] == "reproduced under stated assumptions"
    with (out / "fig6.csv").open() as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        attack = Attack(beta=float(row["beta"]), confirmations=int(row["confirmations"]), give_up=float(row["give_up"]))
        assert float(row["exact"]) == pytest.approx(attack_success(attack), rel=1e-8)
    with (out / "fig4.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * 4
    assert all(float(r["printed_lower"]) <= float(r["exact"]) <= float(r["printed_upper"]) * 1.000001 for r in rows)


@pytest.mark.parametrize("text", ["confirmations = 0", "colour = 1", "intensity_high = 1.5", "block_sizes = []", "x"])
def test_parameters_that_do_not_fit_are_refused(text: str, tmp_path: Path) -> None:
    params = tmp_path / "params.toml"
    params.write_text(text)
    with pytest.raises(RefusedInput):
        run_study("kouvakis2024", out=tmp_path / "out", params=params, smoke=True)
