"""The wait for a link against Burke's theorem, a chain built state by state, and Monte Carlo."""

import math
from dataclasses import replace

import numpy as np
import pytest

from gridpool.errors import RefusedInput
from gridpool.lab.access import Access
from gridpool.lab.inclusion import inclusion
from gridpool.lab.links import _solve, link_wait, link_wait_far
from gridpool.lab.published import erlang_c
from gridpool.lab.simulation import simulate_latency


def network(**changes: object) -> Access:
    given = {
        "arrival": 0.6,
        "block_rate": 1.0,
        "service_rate": 0.5,
        "links": 2,
        "block_size": 3.0,
        "confirmations": 1,
    } | changes
    return Access(**given)  # type: ignore[arg-type]


def erlang_c_by_sum(links: int, load: float) -> float:
    terms = [load**n / math.factorial(n) for n in range(links)]
    last = load**links / math.factorial(links) * links / (links - load)
    return last / (sum(terms) + last)


def test_the_erlang_formula_agrees_with_its_sum() -> None:
    for links, load in ((1, 0.5), (5, 4.0), (20, 19.5)):
        assert erlang_c(links, load) == pytest.approx(erlang_c_by_sum(links, load), rel=1e-12)
    assert erlang_c(5, 5.0) != erlang_c(5, 5.0)


@pytest.mark.parametrize("arrival", [0.2, 0.6, 0.9])
@pytest.mark.parametrize("rejection", [{}, {"reject_rate": 0.3, "reject_size": 1.0}])
def test_the_chain_agrees_with_burke_where_blocks_hold_one_request(arrival: float, rejection: dict[str, float]) -> None:
    access = network(arrival=arrival, block_size=1.0, **rejection)
    closed = link_wait(access)
    assert closed is not None
    assert closed.method == "closed form"
    accepted = arrival * inclusion(access).accepted_share
    chain = _solve(access, accepted, "now")
    assert chain is not None
    assert chain.mean == pytest.approx(closed.mean, rel=1e-9)
    assert chain.truncation_mass < 1e-9


def by_states(access: Access, most_pending: int, most_linked: int) -> float:
    """The wait for a link from the generator written down transition by transition, and Little's law."""
    most_held = int(min(access.block_size, most_pending))
    frozen, delayed = access.template == "frozen", access.confirmations == 2
    states: dict[tuple[int, int, int], int] = {}
    moves: list[tuple[int, int, float]] = []

    def number(state: tuple[int, int, int]) -> int:
        return states.setdefault(state, len(states))

    todo, seen = [(0, 0, 0)], {(0, 0, 0)}
    while todo:
        state = todo.pop()
        i, b, j = state
        targets: list[tuple[tuple[int, int, int], float]] = []
        if frozen:  # i behind the block in progress, which holds b
            if i < most_pending:
                targets.append(((i, 1, j) if b == 0 else (i + 1, b, j), access.arrival))
            fill = min(i, most_held)
            targets.append(((i - fill, fill, min(j + b, most_linked)), access.block_rate))
            if access.rejects:
                targets.append(((i - fill, fill, j), access.reject_rate))
        else:
            if i < most_pending:
                targets.append(((i + 1, b, j), access.arrival))
            taken = min(i, most_held)
            if delayed:
                targets.append(((i - taken, taken, min(j + b, most_linked)), access.block_rate))
            else:
                targets.append(((i - taken, 0, min(j + taken, most_linked)), access.block_rate))
            if access.rejects:
                targets.append(((i - int(min(i, access.reject_size)), b, j), access.reject_rate))
        if j > 0:
            targets.append(((i, b, j - 1), min(j, access.links) * access.service_rate))
        for target, rate in targets:
            moves.append((number(state), number(target), rate))
            if target not in seen:
                seen.add(target)
                todo.append(target)
    generator = np.zeros((len(states), len(states)))
    for source, target, rate in moves:
        generator[source, target] += rate
        generator[source, source] -= rate
    system = generator.T.copy()
    system[0] = 1.0
    right = np.zeros(len(states))
    right[0] = 1.0
    shares = np.linalg.solve(system, right)
    queued = sum(max(j - access.links, 0) * shares[n] for (_, _, j), n in states.items())
    return float(queued / (access.arrival * inclusion(access).accepted_share))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"block_size": math.inf},
        {"reject_rate": 0.4, "reject_size": 3.0},
        {"reject_rate": 0.4, "reject_size": 1.0},
        {"confirmations": 2},
        {"confirmations": 2, "block_size": math.inf},
        {"confirmations": 2, "reject_rate": 0.4, "reject_size": 2.0},
        {"template": "frozen"},
        {"template": "frozen", "block_size": math.inf},
        {"template": "frozen", "reject_rate": 0.4, "reject_size": 3.0},
    ],
)
def test_the_chain_agrees_with_one_built_state_by_state(changes: dict[str, object]) -> None:
    access = network(arrival=0.25, **changes)
    found = link_wait(access)
    assert found is not None
    assert found.method == "chain"
    assert found.mean == pytest.approx(by_states(access, 16, 30), rel=1e-8)


def test_flow_in_equals_flow_out() -> None:
    """Links are busy for accepted rate / service rate on average, whatever the batches."""
    from gridpool.lab.links import _Grid

    access = network(arrival=0.7, reject_rate=0.2, reject_size=2.0)
    shares = _Grid(access, 60, 250).stationary().sum(axis=1)
    busy = np.minimum(np.arange(len(shares)), 2) @ shares
    assert busy == pytest.approx(0.7 * inclusion(access).accepted_share / 0.5, rel=1e-9)


GRID = [
    {},
    {"block_size": 1.0},
    {"block_size": math.inf},
    {"arrival": 0.9},
    {"arrival": 2.4, "service_rate": 1.5},
    {"links": 1, "service_rate": 1.0, "block_size": math.inf},
    {"links": 9, "service_rate": 0.1},
    {"reject_rate": 0.3, "reject_size": 3.0},
    {"reject_rate": 0.3, "reject_size": 1.0, "arrival": 0.9},
    {"reject_rate": 0.1, "reject_size": math.inf},
    {"template": "frozen"},
    {"template": "frozen", "block_size": math.inf},
    {"template": "frozen", "reject_rate": 0.3, "reject_size": 3.0},
]


# No chain holds two batches back under a frozen block.
CASES = [(changes, n) for changes in GRID for n in (1, 2) if n == 1 or "template" not in changes]


@pytest.mark.parametrize("engine", ["recursion", "lanes"])
@pytest.mark.parametrize(("changes", "confirmations"), CASES, ids=str)
def test_chain_and_monte_carlo_agree_within_four_standard_errors(
    changes: dict[str, object], confirmations: int, engine: str
) -> None:
    access = network(**changes, confirmations=confirmations)
    chain = link_wait(access)
    assert chain is not None
    simulated = simulate_latency(access, engine=engine, events=6_000_000, replicas=32, seed=1)  # type: ignore[arg-type]
    before = inclusion(access)
    assert simulated.service_wait is not None
    assert abs(simulated.service_wait - chain.mean) < 4 * standard_error(simulated.service_wait_ci95)
    latency = before.mean + before.confirmation + chain.mean
    assert abs(simulated.mean - latency) < 4 * standard_error(simulated.ci95)
    assert simulated.rejected_share == pytest.approx(1 - before.accepted_share, abs=2e-3)


def standard_error(interval: tuple[float, float] | None) -> float:
    assert interval is not None
    return (interval[1] - interval[0]) / 2 / 2.0395  # Student, 31 degrees of freedom


@pytest.mark.parametrize("changes", [{}, {"block_size": math.inf}, {"reject_rate": 0.3, "reject_size": 1.0}])
def test_many_confirmations_approach_the_chain_of_independent_batches(changes: dict[str, object]) -> None:
    access = network(**changes)
    limit, first = link_wait_far(access), link_wait(access)
    second = link_wait(replace(access, confirmations=2))
    assert limit is not None
    assert first is not None
    assert second is not None
    far = simulate_latency(
        replace(access, confirmations=1500), engine="recursion", events=12_000_000, replicas=32, seed=1
    )
    assert far.service_wait is not None
    assert abs(far.service_wait - limit.mean) < 4 * standard_error(far.service_wait_ci95)
    assert first.mean < second.mean < limit.mean


def test_links_that_pile_up_are_refused_with_the_numbers() -> None:
    with pytest.raises(RefusedInput, match=r"accepted rate .* 1\.2 >= 2 x 0\.5 = 1"):
        link_wait(network(arrival=1.2))
    with pytest.raises(RefusedInput, match="accepted rate"):
        simulate_latency(network(arrival=1.2), engine="lanes", events=1000, replicas=20, seed=1)
    # Rejections may bring the accepted rate below what the links serve.
    assert link_wait(network(arrival=1.2, reject_rate=1.0, reject_size=3.0)) is not None


def test_too_large_a_chain_is_left_to_simulation() -> None:
    assert link_wait(network(arrival=99.5, block_size=100.0, service_rate=50.0)) is None
    assert link_wait(network(confirmations=3)) is None
    assert link_wait(network(template="frozen", reject_rate=0.2, reject_size=1.0)) is None
