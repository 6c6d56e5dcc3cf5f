"""The wait for block and confirmations against textbook formulas and a tagged request followed epoch by epoch."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import gamma

from gridpool.errors import RefusedInput
from gridpool.lab.access import Access
from gridpool.lab.inclusion import inclusion, tagged_epochs


def network(**changes: object) -> Access:
    given = {
        "arrival": 0.8,
        "block_rate": 1.0,
        "service_rate": 0.2,
        "links": 5,
        "block_size": 5.0,
        "confirmations": 1,
    } | changes
    return Access(**given)  # type: ignore[arg-type]


def test_one_request_a_block_is_the_published_formula() -> None:
    for arrival in (0.01, 0.5, 0.9, 0.999):
        found = inclusion(network(arrival=arrival, block_size=1.0))
        assert found.mean == pytest.approx(1 / (1 - arrival), rel=1e-9)
        assert found.percentile(0.9) == pytest.approx(-math.log(0.1) / (1 - arrival), rel=1e-9)


def test_unlimited_blocks_make_the_confirmation_an_erlang_time() -> None:
    for confirmations in (1, 2, 7, 200):
        found = inclusion(network(block_size=math.inf, confirmations=confirmations))
        assert found.mean + found.confirmation == pytest.approx(confirmations, rel=1e-9)
        for share in (0.5, 0.9, 0.99):
            assert found.percentile(share) == pytest.approx(gamma.ppf(share, confirmations), rel=1e-9)


@pytest.mark.parametrize("arrival", [0.3, 0.9, 1.7])
@pytest.mark.parametrize("block_size", [2.0, 3.0, 7.0])
def test_the_ratio_of_pending_requests_solves_its_equation(arrival: float, block_size: float) -> None:
    u = network(arrival=arrival, block_size=block_size).decay_exponent()
    z = math.exp(-u)
    assert z ** (block_size + 1) - (arrival + 1) * z + arrival == pytest.approx(0, abs=1e-13)
    mean = inclusion(network(arrival=arrival, block_size=block_size)).mean
    # Little's law on the geometric number pending.
    assert mean == pytest.approx(z / (1 - z) / arrival, rel=1e-9)


REJECTIONS = [
    {"reject_rate": 0.2, "reject_size": 5.0},
    {"reject_rate": 0.2, "reject_size": 1.0},
    {"reject_rate": 0.7, "reject_size": math.inf},
    {"reject_rate": 0.3, "reject_size": 2.0, "block_size": math.inf},
    {"reject_rate": 0.3, "reject_size": 4.0, "block_size": 1.0, "arrival": 1.9},
]


@pytest.mark.parametrize("changes", REJECTIONS)
def test_the_tagged_request_confirms_the_closed_form_with_rejections(changes: dict[str, float]) -> None:
    access = network(**changes)
    found = inclusion(access)
    epochs, accepted = tagged_epochs(access)
    assert found.mean == pytest.approx(np.arange(len(epochs)) @ epochs / access.epoch_rate, rel=1e-9)
    assert found.accepted_share == pytest.approx(accepted, rel=1e-9)


def test_rejections_as_large_as_blocks_only_speed_up_the_clock() -> None:
    fast = inclusion(network(reject_rate=0.5, reject_size=5.0))
    plain = inclusion(network(block_rate=1.5))
    assert fast.mean == pytest.approx(plain.mean, rel=1e-9)
    assert fast.accepted_share == pytest.approx(1 / 1.5, rel=1e-9)


def frozen_mean(arrival: float, rate: float, k: float) -> float:
    """The bulk queue with a frozen block: C z / ((1 - z)^2 arrival) + 1 / rate."""
    coefficients = np.zeros(int(k) + 2)
    coefficients[0], coefficients[-2] = rate, -(arrival + rate)
    coefficients[-1] += arrival
    roots = np.roots(coefficients)
    z = next(r.real for r in roots if abs(r.imag) < 1e-12 and 1e-9 < r.real < 1 - 1e-9)
    c = 1 / (1 / (1 - z) + rate / arrival)
    return c * z / ((1 - z) ** 2 * arrival) + 1 / rate


@pytest.mark.parametrize("k", [1.0, 2.0, 5.0])
@pytest.mark.parametrize("reject_rate", [0.0, 0.4])
def test_a_frozen_block_is_the_bulk_queue(k: float, reject_rate: float) -> None:
    access = network(template="frozen", block_size=k, reject_rate=reject_rate, reject_size=k)
    assert inclusion(access).mean == pytest.approx(frozen_mean(0.8, 1 + reject_rate, k), rel=1e-9)


def test_a_frozen_block_of_one_is_the_same_as_a_fresh_one() -> None:
    fresh, frozen = (inclusion(network(block_size=1.0, template=t, confirmations=3)) for t in ("refresh", "frozen"))
    assert frozen.mean == pytest.approx(fresh.mean, rel=1e-9)
    for share in (0.1, 0.5, 0.99):
        assert frozen.percentile(share) == pytest.approx(fresh.percentile(share), rel=1e-8)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"confirmations": 4},
        {"template": "frozen", "confirmations": 3},
        {"template": "frozen", "block_size": 2.0, "arrival": 1.9, "confirmations": 2},
        {"template": "frozen", "reject_rate": 0.2, "reject_size": 5.0, "confirmations": 3},
        {"template": "frozen", "reject_rate": 0.2, "reject_size": 2.0, "confirmations": 3},
        {"reject_rate": 0.4, "reject_size": 2.0, "confirmations": 5},
        {"reject_rate": 4.0, "reject_size": 1.0, "confirmations": 5},
    ],
)
def test_the_mean_is_the_area_under_the_survival_function(changes: dict[str, object]) -> None:
    found = inclusion(network(**changes))
    mean = found.mean + found.confirmation
    area = quad(found.survival, 0, 8 * mean, limit=400)[0] + quad(found.survival, 8 * mean, 80 * mean, limit=400)[0]
    assert area == pytest.approx(mean, rel=1e-7)
    median = found.percentile(0.5)
    assert found.survival(median) == pytest.approx(0.5, rel=1e-9)
    slope = (found.survival(median * 0.999) - found.survival(median * 1.001)) / (0.002 * median)
    assert found.density(median) == pytest.approx(slope, rel=1e-3)


@settings(deadline=None, max_examples=60)
@given(
    load=st.floats(0.01, 0.995),
    k=st.sampled_from([1.0, 2.0, 9.0, 100.0, math.inf]),
    n=st.integers(1, 200),
    rejects=st.sampled_from([0.0, 0.05, 2.0]),
    r=st.sampled_from([1.0, 3.0, math.inf]),
    frozen=st.booleans(),
)
def test_percentiles_rise_and_larger_blocks_never_slow_inclusion(
    load: float, k: float, n: int, rejects: float, r: float, frozen: bool
) -> None:
    if frozen and rejects and r < k:
        r = math.inf
    arrival = load * min(k, 50.0)
    access = network(
        arrival=arrival, block_size=k, confirmations=n, reject_rate=rejects, reject_size=r, links=1000,
        template="frozen" if frozen else "refresh",
    )  # fmt: skip
    found = inclusion(access)
    assert 0 < found.percentile(0.1) < found.percentile(0.5) < found.percentile(0.99) < math.inf
    assert 0 < found.accepted_share <= 1
    larger = inclusion(network(arrival=arrival, block_size=2 * k, links=1000, reject_rate=rejects,
                               reject_size=math.inf if frozen else r, template=access.template))  # fmt: skip
    assert larger.mean <= found.mean * (1 + 1e-9)


def test_pending_requests_that_pile_up_are_refused_with_the_numbers() -> None:
    with pytest.raises(RefusedInput, match=r"2 >= 2 x 1 = 2"):
        inclusion(network(arrival=2.0, block_size=2.0))
    with pytest.raises(RefusedInput, match=r"block-size x block-rate \+ reject-size x reject-rate"):
        inclusion(network(arrival=3.0, block_size=2.0, reject_rate=0.5, reject_size=2.0))
    inclusion(network(arrival=2.9, block_size=2.0, reject_rate=0.5, reject_size=2.0))
