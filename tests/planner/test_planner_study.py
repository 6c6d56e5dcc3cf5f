"""The slicing study on a few draws: its files, its verdicts, that it resumes, and that a cluster gives the same."""

import csv
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest

from gridpool.errors import RefusedInput
from gridpool.studies.farhadi2022 import STUDY, Params, mean_interval
from gridpool.studies.farhadi2022_scores import Cell, allocate_draw

SMALL = Params(
    feeders=("ieee13",),
    draws=3,
    outages=3,
    resource_blocks=(5, 20),
    alpha_ratios=(1.0, 3.0, 6.0),
    betas=("degree", "power", "bc_power"),
)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    out = tmp_path_factory.mktemp("farhadi2022")
    return out, STUDY.run(SMALL, out, False, None)


def children(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_study_leaves_its_figures_and_judges_each_claim(done):
    out, result = done
    for stem in ("fig4", "fig5", "fig6", "table4"):
        assert f"{stem}.csv" in result.files
        assert f"{stem}.png" in result.files
    assert all((out / file).stat().st_size > 0 for file in result.files)
    figures = {claim.figure for claim in result.claims}
    assert figures == {"Fig. 4", "Fig. 5", "Fig. 6", "Table IV"}
    for claim in result.claims:
        assert claim.assumptions
        if claim.interval is not None:
            assert claim.interval[0] <= claim.ours <= claim.interval[1]
    printed = [claim for claim in result.claims if claim.paper in (68.945, 52.865)]
    assert len(printed) == 2


def test_claims_follow_from_the_tables(done):
    out, result = done
    curve = {(row["resource_blocks"], row["method"]): float(row["score_percent"]) for row in rows(out / "fig6.csv")}
    lead = np.mean([curve[b, "greedy"] - curve[b, "bc"] for b in ("5", "20")])
    claim = next(c for c in result.claims if "greedy above bc" in c.claim)
    assert claim.ours == pytest.approx(lead)
    assert (claim.verdict == "not reproduced") == (claim.interval[0] <= 0)


def test_second_run_reads_its_scores_and_says_the_same(done):
    out, result = done
    before = {file.name: file.read_bytes() for file in out.iterdir() if file.suffix == ".csv"}
    begun = time.perf_counter()
    again = STUDY.run(SMALL, out, False, None)
    assert time.perf_counter() - begun < 120
    assert again == result
    assert {file.name: file.read_bytes() for file in out.iterdir() if file.suffix == ".csv"} == before


def test_cut_off_scores_are_completed_and_others_not_used(done, tmp_path):
    out, result = done
    text = (out / "scores_ieee13_1.csv").read_text()
    (tmp_path / "scores_ieee13_1.csv").write_text(text[: len(text) * 2 // 3])
    strange = (out / "outages.csv").read_text().replace('"seed": 1', '"seed": 2')
    (tmp_path / "outages.csv").write_text(strange)
    again = STUDY.run(SMALL, tmp_path, False, None)
    assert again == result
    assert '"seed": 1' in (tmp_path / "outages.csv").read_text()


def test_channels_are_common_to_all_methods_and_draws_differ():
    cells = [Cell(10, "greedy", "power", 3.0), Cell(10, "exact", "power", 3.0)]
    first, again, other = (allocate_draw(SMALL, "ieee13", draw, cells) for draw in (0, 0, 1))
    assert first == again
    assert first != other
    assert first[0].value <= first[1].value * (1 + 1e-12)
    alone = allocate_draw(SMALL, "ieee13", 0, cells[:1])
    assert alone[0] == first[0]


def test_interval_is_students():
    values = np.array([1.0, 2.0, 4.0])
    interval = mean_interval(values)
    half = 4.302652729911275 * values.std(ddof=1) / np.sqrt(3)
    assert interval.high - interval.mean == pytest.approx(half)


def test_parameters_out_of_range_are_refused(tmp_path):
    from gridpool.studies import run_study

    bad = tmp_path / "params.toml"
    for line in ("draws = 1", 'methods = ["magic"]', "speed = 3", "resource_blocks = [0]"):
        bad.write_text(line)
        with pytest.raises(RefusedInput, match=r"params\.toml"):
            run_study("farhadi2022", out=tmp_path / "out", params=bad)


def test_silent_scheduler_is_refused(tmp_path):
    pytest.importorskip("distributed")
    with pytest.raises(RefusedInput, match="no Dask scheduler"):
        STUDY.run(SMALL, tmp_path, False, "tcp://127.0.0.1:1")


@pytest.mark.slow
def test_cluster_gives_the_same_as_processes(done, tmp_path):
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None
    ) as cluster:
        result = STUDY.run(SMALL, tmp_path, False, cluster.scheduler_address)
    assert msgspec.structs.replace(result, files=[]) == msgspec.structs.replace(done[1], files=[])


@pytest.mark.slow
def test_killed_study_resumes_to_the_same_claims(done, tmp_path):
    params = tmp_path / "params.toml"
    params.write_text(
        'feeders = ["ieee13"]\ndraws = 3\noutages = 3\nresource_blocks = [5, 20]\n'
        'alpha_ratios = [1.0, 3.0, 6.0]\nbetas = ["degree", "power", "bc_power"]\n'
    )
    out = tmp_path / "out"
    command = [sys.executable, "-m", "gridpool", "study", "run", "farhadi2022", "--params", str(params)]
    process = subprocess.Popen([*command, "--out", str(out)], stdout=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 60
    while not (out / "scores_ieee13_1.csv").exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    workers = children(process.pid)
    assert workers
    process.kill()
    process.wait()
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
    subprocess.run([*command, "--out", str(out)], check=True, stdout=subprocess.DEVNULL, timeout=120)
    claims = msgspec.json.decode((out / "claims.json").read_bytes())["claims"]
    assert claims == msgspec.json.decode(msgspec.json.encode(done[1].claims))


def test_observing_nodes_without_load_changes_nothing():
    from gridpool.grid import load_feeder, served_power

    for name in ("ieee13", "ieee34"):
        feeder = load_feeder(name)
        loaded = {item.node for item in feeder.loads}
        assert len(loaded) < len(feeder.nodes)
        some = [node for node in feeder.nodes if node in loaded][::2]
        bare = [node for node in feeder.nodes if node not in loaded]
        assert served_power(feeder, some, ()).served_w == served_power(feeder, [*some, *bare], ()).served_w
