"""The plan against an exhaustive search with the commands' own functions."""

import math
from dataclasses import replace
from functools import cache

import pytest

from gridpool.errors import RefusedInput
from gridpool.lab.access import Access
from gridpool.lab.attack import Attack, attack_success
from gridpool.lab.inclusion import inclusion
from gridpool.lab.latency import exact_latency
from gridpool.lab.planning import AccessPlan, plan_access

ACCESS = Access(arrival=0.8, block_rate=1.0, service_rate=0.2, links=5, block_size=1.0, confirmations=1)


def plan(latency: float, risk: float, beta: float = 0.1, **changes: object) -> AccessPlan:
    given = {"access": ACCESS, "attack": Attack(beta=beta, confirmations=1), "statistic": "mean"} | changes
    return plan_access(target_latency=latency, max_risk=risk, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("beta", [0.05, 0.3, 0.8])
@pytest.mark.parametrize("risk", [0.3, 1e-2, 1e-6])
def test_confirmations_are_the_fewest_that_meet_the_risk(beta: float, risk: float) -> None:
    found = plan(1e9, risk, beta, access=replace(ACCESS, arrival=0.1), statistic="p50")
    fewest = next(n for n in range(1, 2000) if attack_success(Attack(beta=beta, confirmations=n)) <= risk)
    assert found.feasible
    assert found.confirmations == fewest
    assert found.risk == attack_success(Attack(beta=beta, confirmations=fewest))


@cache
def latencies_by_size() -> dict[int, float]:
    return {k: exact_latency(replace(ACCESS, confirmations=2, block_size=float(k))).latency for k in range(1, 9)}


@pytest.mark.parametrize("target", [5.1, 5.2, 5.5, 6.5, 8.0, 9.0])
def test_the_block_is_the_smallest_that_meets_the_mean_latency(target: float) -> None:
    found = plan(target, 0.01)
    assert found.confirmations == 2
    latencies = latencies_by_size()
    meets = [k for k, reached in latencies.items() if reached <= target]
    if meets:
        assert (found.feasible, found.block_size, found.binding) == (True, meets[0], None)
        assert found.latency == latencies[meets[0]]
    else:
        assert (found.feasible, found.binding) == (False, "latency")


@pytest.mark.parametrize(("statistic", "share"), [("p50", 0.5), ("p90", 0.9), ("p99", 0.99)])
def test_the_block_is_the_smallest_that_meets_a_percentile(statistic: str, share: float) -> None:
    unlimited = inclusion(replace(ACCESS, confirmations=2, block_size=math.inf)).percentile(share)
    target = 1.05 * unlimited
    found = plan(target, 0.01, statistic=statistic)

    def reached(k: float) -> float:
        return inclusion(replace(ACCESS, confirmations=2, block_size=k)).percentile(share)

    assert found.feasible
    assert isinstance(found.block_size, int)
    assert reached(found.block_size) <= target
    assert found.block_size == 1 or reached(found.block_size - 1.0) > target
    assert not plan(0.99 * unlimited, 0.01, statistic=statistic).feasible


def test_a_free_block_rate_is_the_slowest_that_meets_the_latency() -> None:
    found = plan(6.0, 0.01, free_block_rate=True)
    assert found.feasible
    assert found.block_size == 1
    assert found.block_rate is not None
    assert found.latency is not None
    slower = replace(ACCESS, confirmations=2, block_rate=found.block_rate * 0.999)
    assert found.latency <= 6.0 < exact_latency(slower).latency
    fixed = plan(6.0, 0.01, free_block_rate=True, free_block_size=False, access=replace(ACCESS, block_size=4.0))
    assert fixed.block_size == 4
    assert fixed.block_rate is not None
    assert fixed.block_rate < found.block_rate


def test_what_binds_is_named() -> None:
    against_stronger = plan(100.0, 0.01, attack=Attack(beta=1.5, confirmations=1, give_up=30.0))
    assert (against_stronger.feasible, against_stronger.binding) == (False, "risk")
    assert against_stronger.risk is not None
    assert against_stronger.risk > 0.01
    too_soon = plan(1.9, 0.01)
    assert (too_soon.feasible, too_soon.binding, too_soon.confirmations) == (False, "latency", 2)
    # No chain is fast enough to beat the wait for busy links.
    assert plan(0.01, 0.01, free_block_rate=True).binding == "latency"


@pytest.mark.parametrize(("latency", "risk"), [(0.0, 0.1), (math.inf, 0.1), (1.0, 0.0), (1.0, 1.5), (math.nan, 0.1)])
def test_targets_out_of_range_are_refused(latency: float, risk: float) -> None:
    with pytest.raises(RefusedInput):
        plan(latency, risk)


def test_links_that_cannot_serve_are_refused() -> None:
    with pytest.raises(RefusedInput, match="links x service-rate"):
        plan(10.0, 0.1, access=replace(ACCESS, arrival=1.0))
