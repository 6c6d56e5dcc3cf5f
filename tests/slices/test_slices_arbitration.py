"""The arbitration against brute force, HiGHS and the definition of VCG payments."""

from itertools import product

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import LinearConstraint, milp

from gridpool.errors import RefusedInput
from gridpool.markets import slice_arbitration
from gridpool.markets.slice_arbitration import (
    CONSTRAINTS,
    LARGEST,
    Objective,
    OfferBook,
    SegmentOffer,
    SliceRequest,
    arbitrate,
    choice_key,
    feasible_choice,
)

SEGMENTS = ("ran", "transport", "core")
OBJECTIVES: tuple[Objective, ...] = ("cost", "delay", "bandwidth", "availability")


def book_of(offers, segments=SEGMENTS, *, compiled=None):
    """Build a book; ``compiled`` forces the kernels (True) or the plain search (False)."""
    kept = slice_arbitration.SEARCHED_PLAINLY
    if compiled is not None:
        slice_arbitration.SEARCHED_PLAINLY = -1 if compiled else 10**9
    try:
        return OfferBook(segments, offers)
    finally:
        slice_arbitration.SEARCHED_PLAINLY = kept


def brute_force(request, offers, objective, without=None):
    groups = [[o for o in offers if o.segment == s and o.party != without] for s in request.segments]
    feasible = [
        c
        for c in product(*groups)
        if sum(o.delay_us for o in c) <= request.max_delay_us
        and sum(o.risk_nano for o in c) <= request.max_risk_nano
        and sum(o.cost for o in c) <= request.reserve
        and min(o.bandwidth_kbps for o in c) >= request.min_bandwidth_kbps
    ]
    return min(feasible, key=lambda c: choice_key(c, objective), default=None)


small = st.integers(0, 6)
instances = st.integers(1, 4).flatmap(
    lambda count: st.tuples(
        st.just(SEGMENTS[:count] if count <= 3 else (*SEGMENTS, "compute")),
        st.lists(
            st.tuples(st.integers(0, count - 1), st.integers(0, 3), small, small, small, small), max_size=6 * count
        ),
        st.tuples(st.integers(0, 20), st.integers(0, 6), st.integers(0, 20), st.integers(0, 20)),
    )
)


def build(instance):
    segments, rows, (delay, bandwidth, risk, reserve) = instance
    offers = [SegmentOffer(f"o{i}", segments[s], f"p{p}", c, d, b, r) for i, (s, p, c, d, b, r) in enumerate(rows)]
    request = SliceRequest(
        segments=segments, max_delay_us=delay, min_bandwidth_kbps=bandwidth, max_risk_nano=risk, reserve=reserve
    )
    return request, offers


@settings(deadline=None, max_examples=300)
@given(instances, st.sampled_from(OBJECTIVES), st.booleans())
def test_choice_equals_brute_force_with_ties(instance, objective, compiled):
    request, offers = build(instance)
    answer = arbitrate(request, book_of(offers, request.segments, compiled=compiled), objective=objective)
    expected = brute_force(request, offers, objective)
    assert answer.chosen == (expected or ())
    assert answer.feasible == (expected is not None)
    assert answer.candidates == len(offers)
    if expected:
        assert feasible_choice(request, answer.chosen) is None
        assert answer.cost == sum(o.cost for o in expected)
        assert answer.bandwidth_kbps == min(o.bandwidth_kbps for o in expected)


@settings(deadline=None, max_examples=150)
@given(instances, st.booleans())
def test_vcg_payments_equal_their_definition(instance, compiled):
    request, offers = build(instance)
    answer = arbitrate(request, book_of(offers, request.segments, compiled=compiled), payment="vcg")
    if not answer.feasible:
        assert answer.payments == {}
        return
    for party, paid in answer.payments.items():
        own = sum(o.cost for o in answer.chosen if o.party == party)
        other = brute_force(request, offers, "cost", without=party)
        cost_without = request.reserve if other is None else sum(o.cost for o in other)
        assert paid == own + cost_without - answer.cost
        assert paid >= own
    assert set(answer.payments) == {o.party for o in answer.chosen}
    assert answer.over_budget == (sum(answer.payments.values()) > request.reserve)


def relaxed(request, dropped):
    loose = {name: 0 if name == "min_bandwidth_kbps" else LARGEST for name in dropped}
    return msgspec.structs.replace(request, **loose)


def slow_fronts(request, offers):
    """The definition of ``pareto``, word for word."""
    wide = [o for o in offers if o.bandwidth_kbps >= request.min_bandwidth_kbps]
    groups = [[o for o in wide if o.segment == segment] for segment in request.segments]
    if not all(groups):
        return 0
    figures = (("cost", request.reserve), ("delay_us", request.max_delay_us), ("risk_nano", request.max_risk_nano))
    least = {name: [min(getattr(o, name) for o in group) for group in groups] for name, _ in figures}
    count = 0
    for at, group in enumerate(groups):
        near = [
            tuple(getattr(o, name) for name, _ in figures)
            for o in group
            if all(getattr(o, name) + sum(least[name]) - least[name][at] <= limit for name, limit in figures)
        ]
        count += sum(
            not any(b != a and all(x <= y for x, y in zip(b, a, strict=True)) for b in near) for a in set(near)
        )
    return count


@settings(deadline=None, max_examples=150)
@given(instances, st.booleans())
def test_pareto_counts_the_fronts_that_gave_the_answer_feasible_or_not(instance, compiled):
    request, offers = build(instance)
    answer = arbitrate(request, book_of(offers, request.segments, compiled=compiled))
    if answer.missing:
        assert answer.pareto == 0
        return
    assert answer.pareto == slow_fronts(relaxed(request, answer.binding), offers) >= len(request.segments)


@settings(deadline=None, max_examples=150)
@given(instances)
def test_binding_is_a_smallest_set_that_makes_it_feasible(instance):
    request, offers = build(instance)
    answer = arbitrate(request, book_of(offers, request.segments))
    if answer.feasible:
        assert answer.binding == ()
        return

    def feasible_without(dropped):
        return brute_force(relaxed(request, dropped), offers, "cost") is not None

    if answer.missing:
        assert answer.binding == ()
        assert not feasible_without(CONSTRAINTS)
        return
    assert feasible_without(answer.binding)
    for name in answer.binding:
        assert not feasible_without([other for other in answer.binding if other != name])


def random_offers(rng, count, kind):
    offers = []
    for segment in SEGMENTS:
        if kind == "plane":
            shares = rng.dirichlet([1, 1, 1], count)
            figures = (shares * [100_000, 10_000, 1_000_000]).astype(int)
        else:
            delay = rng.integers(100, 10_000, count)
            risk = rng.integers(1_000, 1_000_000, count)
            noise = 1 if kind == "tradeoff" else 0
            cost = noise * (3_000_000 // delay + 50_000_000 // risk) + rng.integers(1_000, 20_000, count)
            figures = np.stack([cost, delay, risk], 1)
        bandwidth = rng.integers(1_000, 100_000, count)
        offers += [
            SegmentOffer(f"{segment}{i}", segment, f"p{i % 17}", *map(int, (f[0], f[1], b, f[2])))
            for i, (f, b) in enumerate(zip(figures, bandwidth, strict=True))
        ]
    return offers


@pytest.mark.parametrize("kind", ["independent", "tradeoff", "plane"])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_kernels_equal_the_plain_search_on_long_fronts(kind, objective):
    rng = np.random.default_rng(7)
    for _ in range(4):
        offers = random_offers(rng, 150, kind)
        request = SliceRequest(
            segments=SEGMENTS,
            max_delay_us=int(rng.integers(2_000, 9_000)),
            min_bandwidth_kbps=int(rng.integers(0, 50_000)),
            max_risk_nano=int(rng.integers(100_000, 900_000)),
            reserve=int(rng.integers(20_000, 300_000)),
        )
        fast = arbitrate(request, book_of(offers, compiled=True), objective=objective)
        plain = arbitrate(request, book_of(offers, compiled=False), objective=objective)
        assert fast == plain


def highs_cost(request, offers):
    """Solve the choice of the cheapest as a mixed-integer programme with HiGHS."""
    usable = [o for o in offers if o.bandwidth_kbps >= request.min_bandwidth_kbps]
    one_each = [[float(o.segment == segment) for o in usable] for segment in request.segments]
    sums = [[o.delay_us for o in usable], [o.risk_nano for o in usable], [o.cost for o in usable]]
    limits = [request.max_delay_us, request.max_risk_nano, request.reserve]
    answer = milp(
        [o.cost for o in usable],
        integrality=np.ones(len(usable)),
        bounds=(0, 1),
        constraints=[LinearConstraint(one_each, 1, 1), LinearConstraint(sums, -np.inf, limits)],
        options={"mip_rel_gap": 0},
    )
    return round(answer.fun) if answer.success else None


@pytest.mark.parametrize("kind", ["independent", "tradeoff"])
def test_cost_equals_highs(kind):
    rng = np.random.default_rng(11)
    found = 0
    for _ in range(6):
        offers = random_offers(rng, 60, kind)
        request = SliceRequest(
            segments=SEGMENTS, max_delay_us=3_000, min_bandwidth_kbps=10_000, max_risk_nano=500_000, reserve=120_000
        )
        answer = arbitrate(request, book_of(offers))
        assert answer.cost == highs_cost(request, offers)
        found += answer.feasible
    assert found


def test_a_hand_made_case_has_known_payments():
    offers = [
        SegmentOffer("a", "ran", "north", 10, 5, 100, 1),
        SegmentOffer("b", "ran", "south", 14, 5, 100, 1),
        SegmentOffer("c", "core", "north", 7, 5, 100, 1),
    ]
    request = SliceRequest(
        segments=("ran", "core"), max_delay_us=10, min_bandwidth_kbps=50, max_risk_nano=2, reserve=30, budget=29
    )
    answer = arbitrate(request, OfferBook(request.segments, offers), payment="vcg")
    assert [o.id for o in answer.chosen] == ["a", "c"]
    assert answer.payments == {"north": 30}  # nothing is feasible without north: 17 + 30 - 17
    assert answer.over_budget


def test_vcg_with_another_objective_is_refused():
    offers = [SegmentOffer("a", "ran", "p", 1, 1, 1, 1)]
    request = SliceRequest(segments=("ran",), max_delay_us=1, min_bandwidth_kbps=1, max_risk_nano=1, reserve=1)
    with pytest.raises(RefusedInput, match="vcg"):
        arbitrate(request, OfferBook(("ran",), offers), objective="delay", payment="vcg")


@pytest.mark.parametrize(
    "offers",
    [
        [SegmentOffer("a", "ran", "p", -1, 1, 1, 1)],
        [SegmentOffer("a", "ran", "p", 1, 1, 1, LARGEST + 1)],
        [SegmentOffer("", "ran", "p", 1, 1, 1, 1)],
        [SegmentOffer("a", "ran", "p", 1, 1, 1, 1), SegmentOffer("a", "ran", "q", 2, 1, 1, 1)],
    ],
)
def test_unusable_offers_are_refused(offers):
    with pytest.raises(RefusedInput):
        OfferBook(("ran",), offers)
