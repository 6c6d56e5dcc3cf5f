"""Resource orchestrators: the simulated network against closed forms, isolation, failures, all segments or none."""

import math

import numpy as np
import pytest

from gridpool.agents.resource_orchestrator import (
    BUFFER_S,
    PACKET_BITS,
    Fault,
    OrchestratorFault,
    ResourceOrchestrator,
    SimulatedOrchestrator,
    SubSliceOrder,
    link_rates_bps,
    queue_delays_s,
)
from gridpool.agents.slice_orchestrator import Award, SliceOrchestrator
from gridpool.radio.propagation import RadioProfile

MINUTE = 60_000


def order(name="s/0/transport", segment="transport", **changes):
    figures = {"bandwidth_kbps": 10_000, "delay_us": 8_000} | changes
    return SubSliceOrder(name=name, segment=segment, **figures)


def running(driver, **changes):
    wanted = order(**changes)
    driver.reserve(wanted)
    driver.instantiate(wanted.name)
    return wanted.name


def test_queue_delays_follow_the_closed_form_of_m_m_1():
    rng = np.random.default_rng(1)
    delays = queue_delays_s(400.0, 500.0, 200_000, rng)
    assert np.mean(delays) == pytest.approx(1 / 100, rel=0.02)
    assert np.quantile(delays, 0.99) == pytest.approx(math.log(100) / 100, rel=0.03)
    assert queue_delays_s(500.0, 500.0, 3, rng).tolist() == [BUFFER_S] * 3


def test_a_queue_of_a_slice_shows_the_closed_form_in_its_indicators():
    driver = SimulatedOrchestrator(seed=3)
    name = running(driver)
    p99 = [driver.metrics(name, k * MINUTE, (k + 1) * MINUTE, 8_000).kpis.delay_p99_us for k in range(300)]
    spare = (12_500_000 - 8_000_000) / PACKET_BITS
    expected = 8_000 / 4 + 1e6 * math.log(100) / spare
    # The 198th of 200 exponential draws has mean H(200) - H(2) over the rate, a little above ln(100).
    harmonic = sum(1 / k for k in range(3, 201))
    assert np.mean(p99) == pytest.approx(8_000 / 4 + 1e6 * harmonic / spare, rel=0.02)
    assert np.mean(p99) == pytest.approx(expected, rel=0.1)


def test_the_ran_carries_the_sum_of_its_blocks_rates():
    profile = RadioProfile()
    rates = link_rates_bps((100.0, 200.0), profile)
    assert rates[0] > rates[1] > 0
    driver = SimulatedOrchestrator(seed=1)
    name = running(driver, segment="ran", distances_m=(100.0, 200.0), blocks=(1, 2))
    capacity = (rates[0] + 2 * rates[1]) / 1e3
    over = driver.metrics(name, 0, MINUTE, int(2 * capacity)).kpis
    assert over.throughput_kbps == pytest.approx(capacity, rel=1e-3)
    assert over.loss_ppm == pytest.approx(500_000, rel=1e-2)
    under = driver.metrics(name, 0, MINUTE, int(0.5 * capacity)).kpis
    assert under.throughput_kbps == under.demand_kbps
    assert under.loss_ppm == 0


@pytest.mark.parametrize(("segment", "demand"), [("ran", 5_000), ("transport", 8_000)])
def test_a_noisy_neighbour_reaches_a_slice_as_its_isolation_allows(segment, demand):
    fault = Fault(segment=segment, start_ms=0, end_ms=MINUTE, factor=1.0, neighbour_kbps=40_000)
    delays, carried = {}, {}
    for isolation in ("none", "logical", "physical"):
        driver = SimulatedOrchestrator(seed=2, faults=(fault,))
        blocks = {"distances_m": (220.0,) * 5, "blocks": (1,) * 5} if segment == "ran" else {}
        name = running(driver, segment=segment, isolation=isolation, **blocks)
        disturbed = driver.metrics(name, 0, MINUTE, demand).kpis
        calm = driver.metrics(name, MINUTE, 2 * MINUTE, demand).kpis
        assert calm.throughput_kbps == demand
        delays[isolation], carried[isolation] = disturbed.delay_p99_us, disturbed.throughput_kbps
    assert carried["none"] < demand == carried["logical"] == carried["physical"]
    assert delays["none"] > delays["logical"] >= delays["physical"]
    assert (delays["logical"] > delays["physical"]) == (segment == "ran")


def test_a_failure_takes_its_share_of_the_interval():
    fault = Fault(segment="transport", start_ms=MINUTE // 2, end_ms=2 * MINUTE)
    driver = SimulatedOrchestrator(seed=1, faults=(fault,))
    name = running(driver)
    half = driver.metrics(name, 0, MINUTE, 8_000).kpis
    assert half.availability_ppm == 500_000
    whole = driver.metrics(name, MINUTE, 2 * MINUTE, 8_000).kpis
    assert (whole.throughput_kbps, whole.availability_ppm, whole.loss_ppm) == (0, 0, 1_000_000)
    assert driver.metrics(name, 2 * MINUTE, 3 * MINUTE, 8_000).kpis.availability_ppm == 1_000_000


def test_measurements_depend_on_seed_name_and_interval_alone():
    one, other = SimulatedOrchestrator(seed=1), SimulatedOrchestrator(seed=1)
    name = running(one)
    running(other)
    other.metrics(name, 5 * MINUTE, 6 * MINUTE, 1)
    assert one.metrics(name, 0, MINUTE, 8_000) == other.metrics(name, 0, MINUTE, 8_000)
    assert one.metrics(name, 0, MINUTE, 8_000) != one.metrics(name, MINUTE, 2 * MINUTE, 8_000)
    third = SimulatedOrchestrator(seed=2)
    running(third)
    assert third.metrics(name, 0, MINUTE, 8_000) != one.metrics(name, 0, MINUTE, 8_000)


def test_the_protocol_refuses_what_is_out_of_order():
    driver: ResourceOrchestrator = SimulatedOrchestrator(seed=1)
    name = order().name
    assert driver.status(name).state == "unknown"
    for out_of_order in (
        lambda: driver.instantiate(name),
        lambda: driver.modify(order()),
        lambda: driver.metrics(name, 0, 1, 1),
    ):
        with pytest.raises(OrchestratorFault):
            out_of_order()
    driver.reserve(order())
    assert driver.status(name).state == "reserved"
    with pytest.raises(OrchestratorFault):
        driver.reserve(order())
    driver.instantiate(name)
    driver.modify(order(bandwidth_kbps=1_000))
    assert driver.metrics(name, 0, MINUTE, 8_000).kpis.throughput_kbps == 1_250
    driver.terminate(name)
    driver.terminate(name)
    assert driver.status(name).state == "terminated"
    driver.reserve(order())


def awards(*parties):
    segments = ("ran", "transport", "core")
    return [Award(s, party, order(f"s/0/{s}", s)) for s, party in zip(segments, parties, strict=True)]


def test_all_segments_are_reserved_or_none():
    good, bad = SimulatedOrchestrator(seed=1), SimulatedOrchestrator(seed=1, refuses=True)
    orchestrator = SliceOrchestrator({b"a": good, b"b": bad})
    wanted = awards(b"a", b"b", b"a")
    assert orchestrator.reserve(wanted) == {"ran", "core"}
    assert good.status("s/0/ran").state == "terminated"
    assert good.status("s/0/core").state == "terminated"
    bad.refuses = False
    assert orchestrator.reserve(wanted) == {"ran", "transport", "core"}
    assert set(orchestrator.instantiate(wanted)) == {"ran", "transport", "core"}
    assert orchestrator.metrics(wanted[1], 0, MINUTE, 100).kpis.throughput_kbps == 100


def test_all_segments_come_up_or_none():
    good, bad = SimulatedOrchestrator(seed=1), SimulatedOrchestrator(seed=1)
    orchestrator = SliceOrchestrator({b"a": good, b"b": bad})
    wanted = awards(b"a", b"b", b"a")
    orchestrator.reserve(wanted)
    bad.terminate("s/0/transport")
    assert set(orchestrator.instantiate(wanted)) == {"ran", "core"}
    assert good.status("s/0/ran").state == "terminated"
