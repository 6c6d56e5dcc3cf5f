"""Algorithm 1 step by step against one sorted pass, and every method under the independent checker."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gridpool.radio import METHODS, allocate
from gridpool.radio.check import violations
from gridpool.radio.greedy import greedy, greedy_reference
from gridpool.radio.packages import packages

shapes = st.fixed_dictionaries(
    {
        "mvnos": st.integers(1, 3),
        "slots": st.integers(1, 3),
        "work_conserving": st.booleans(),
        "coarse": st.booleans(),
        "budget": st.none() | st.integers(0, 40),
    }
)


@settings(deadline=None, max_examples=150)
@given(seed=st.integers(0, 10**6), shape=shapes, fading=st.booleans())
@example(  # a package gained where its first slot ran out of its operator's share
    seed=364783,
    shape={"mvnos": 3, "slots": 3, "work_conserving": True, "coarse": False, "budget": 22},
    fading=True,
)
def test_greedy_equals_its_reference_item_by_item(make_instance, seed, shape, fading):
    items = packages(make_instance(seed, fading=fading, **shape))
    assert greedy(items) == greedy_reference(items)


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10**6), mu=st.integers(0, 2), guard=st.integers(0, 2))
def test_greedy_equals_its_reference_with_parts_of_unequal_spacing(make_instance, seed, mu, guard):
    items = packages(make_instance(seed, mu=mu, guard=guard))
    assert greedy(items) == greedy_reference(items)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6), shape=shapes, fading=st.booleans(), method=st.sampled_from(METHODS))
def test_every_method_keeps_every_constraint(make_instance, seed, shape, fading, method):
    instance = make_instance(seed, fading=fading, **shape)
    done = allocate(instance, method=method, rng=np.random.default_rng(seed))
    assert violations(instance, done.grants) == []
    assert 0.0 <= done.value <= done.bound * (1 + 1e-9)
    assert done.gap == pytest.approx(1 - done.value / done.bound if done.bound else 0.0, abs=1e-9)
    again = allocate(instance, method=method, rng=np.random.default_rng(seed))
    assert again == done


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    mvnos=st.integers(1, 2),
    slots=st.integers(1, 2),
    fading=st.booleans(),
    variant=st.sampled_from(["conditional", "coverage"]),
    method=st.sampled_from(["greedy", "exact", "milp", "bc", "top_k", "value_density"]),
)
def test_other_variants_keep_every_constraint(make_instance, seed, mvnos, slots, fading, variant, method):
    instance = make_instance(seed, mvnos=mvnos, slots=slots, fading=fading)
    done = allocate(instance, method=method, variant=variant)
    assert violations(instance, done.grants, variant=variant) == []
    assert done.value <= done.bound * (1 + 1e-7)


def test_value_is_the_sum_over_grants(make_instance):
    for seed in range(30):
        instance = make_instance(seed, slots=1 + seed % 3)
        done = allocate(instance)
        weights = {link.node: link.weight for link in instance.links}
        total = sum(weights.values())
        alpha = {"urllc": 0.75, "mmtc": 0.25}
        terms = [alpha[g.slice] * weights[g.node] / total * g.rate_bps for g in done.grants]
        assert done.value == pytest.approx(sum(terms) / (180e3 * instance.resource_blocks))
