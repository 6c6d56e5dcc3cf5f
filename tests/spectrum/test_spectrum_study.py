"""The study's models against closed forms, and its reduced run."""

import json

import numpy as np
import pytest
from scipy.stats import binom

from gridpool.studies import run_study
from gridpool.studies.xu2020_access import aloha, aloha_throughput, csma, csma_throughput, jain, leased
from gridpool.studies.xu2020_sensing import liars


@pytest.mark.parametrize("users", [5, 50, 200])
def test_slotted_aloha_matches_its_closed_form(users):
    found = aloha(users, 200_000, np.random.default_rng(1))
    exact = aloha_throughput(users, 1 / users)
    assert found.throughput == pytest.approx(exact, abs=5 * np.sqrt(exact * (1 - exact) / 200_000))


@pytest.mark.parametrize("users", [2, 10, 50])
def test_csma_matches_bianchis_fixed_point(users):
    found = csma(users, 20_000, np.random.default_rng(2))
    assert found.throughput == pytest.approx(csma_throughput(users), rel=0.02)


def test_jain_and_leases_at_their_limits():
    assert jain([1, 1, 1]) == 1
    assert jain([1, 0, 0, 0]) == 0.25
    quick = leased(10, 2_000, np.random.default_rng(3), latency_s=0.0, lease_s=5.0)
    slow = leased(10, 2_000, np.random.default_rng(3), latency_s=5.0, lease_s=5.0, burst_s=1.0)
    assert quick.collisions == slow.collisions == 0
    assert quick.fairness == pytest.approx(1.0)
    assert quick.throughput > 0.9
    assert slow.throughput < 0.3


def test_liars_lose_their_weight():
    rounds, detects, alarms = 4_000, 0.85, 0.1
    found = liars(
        0.4,
        rounds,
        np.random.default_rng(4),
        sensors=15,
        false_alarm_rate=alarms,
        detection_rate=detects,
        evidence=0.3,
        k=1,
        n=2,
    )
    slack = 5 * 0.5 / np.sqrt(rounds / 4)
    # Counting heads: nine honest sensors and six that say the opposite, eight of fifteen needed.
    for rate, name in ((detects, "detection_counted"), (alarms, "false_alarm_counted")):
        honest, lying = binom.pmf(np.arange(10), 9, rate), binom.pmf(np.arange(7), 6, 1 - rate)
        exact = sum(honest[i] * lying[j] for i in range(10) for j in range(7) if i + j >= 8)
        assert found[name] == pytest.approx(exact, abs=slack)
    # By reputation only the honest nine are left: five of them decide.
    assert found["detection"] == pytest.approx(binom.sf(4, 9, detects), abs=slack)
    assert found["false_alarm"] == pytest.approx(binom.sf(4, 9, alarms), abs=slack)
    assert found["detection"] > found["detection_counted"] + 0.1


def test_the_reduced_study_runs_and_leaves_what_it_names(tmp_path):
    params = tmp_path / "params.toml"
    params.write_text("latency_s = 0.3\nusers = [5, 20]\nat_users = 20\nframes = 2000\nreplicas = 3\nrounds = 200\n")
    result = run_study("xu2020", out=tmp_path / "out", params=params, smoke=True)
    assert all((tmp_path / "out" / name).stat().st_size > 100 for name in result.files)
    assert json.loads((tmp_path / "out" / "claims.json").read_text())["study"] == "xu2020"
    for claim in result.claims:
        assert claim.interval is None or claim.interval[0] <= claim.ours <= claim.interval[1]
    assert {"reproduced", "not reproduced"} <= {claim.verdict for claim in result.claims}
    again = run_study("xu2020", out=tmp_path / "again", params=params, smoke=True)
    assert again == result
