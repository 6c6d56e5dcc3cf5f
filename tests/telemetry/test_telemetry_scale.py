"""The scaling simulation against closed forms, and the bottleneck it names."""

import numpy as np
import pytest

from gridpool.agents.telemetry_scale import Rates, measure_rates, simulate_scaling

RATES = Rates(verify_per_s=10_000, tree_per_s=300_000, execute_per_s=5_000)


def simulate(**changes):
    given = {"devices": 100_000, "aggregators": 10, "validators": 4, "rates": RATES}
    return simulate_scaling(**(given | changes), generator=np.random.default_rng(1))


def test_loads_are_work_over_time():
    result = simulate(cores=2)
    assert result.load["aggregator_verification"] == pytest.approx(10_000 * (1 / 20_000 + 1 / 300_000) / 900)
    assert result.load["block_execution"] == pytest.approx(10 / 5_000 / 900)
    assert result.bottleneck == "aggregator_verification"
    assert result.sustained
    assert result.most_devices == pytest.approx(100_000 / result.load["aggregator_verification"], rel=1e-6)


def test_a_backlog_takes_as_long_as_its_verification():
    # 6 million readings in 60 s at 20,000 a second: 300 s of verification, 20 s of hashing, then a block
    result = simulate(devices=6_000_000, aggregators=1, validators=1)
    assert result.median_s == pytest.approx(320, rel=0.01)


def test_without_backlog_the_last_reading_decides():
    result = simulate(devices=100_000, aggregators=10, validators=1)
    assert 60 <= result.median_s + 0.1 <= 61.5


def test_too_many_devices_for_the_aggregators_are_not_sustained():
    result = simulate(devices=50_000_000, aggregators=1)
    assert not result.sustained
    assert result.bottleneck == "aggregator_verification"
    assert result.most_devices < 50_000_000


def test_an_aggregator_a_device_moves_the_bottleneck_to_the_ledger():
    result = simulate(devices=200_000, aggregators=200_000, validators=100, intervals=1)
    assert result.bottleneck == "block_dissemination"
    few = simulate(devices=200_000, aggregators=200_000, validators=4, intervals=1)
    assert few.bottleneck == "block_execution"


def test_more_validators_cost_time_and_a_seed_decides_the_rest():
    few, many = simulate(validators=4), simulate(validators=400)
    assert many.median_s > few.median_s
    assert simulate() == simulate()


def test_rates_of_this_machine_are_positive():
    rates = measure_rates(seconds=0.02)
    assert rates.verify_per_s > 0
    assert rates.tree_per_s > 0
    assert rates.execute_per_s == rates.verify_per_s / 2
