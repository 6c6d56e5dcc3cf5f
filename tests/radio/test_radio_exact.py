"""The exact method against HiGHS and against trying everything."""

from itertools import combinations

import numpy as np
import pytest

from gridpool.radio import allocate
from gridpool.radio.check import violations
from gridpool.radio.exact import flat_problem, solve
from gridpool.radio.milp import best_packages
from gridpool.radio.packages import URLLC, packages

SHAPES = {
    "one cell": {"cells": 1},
    "cells": {"cells": 2},
    "slots": {"slots": 3},
    "share below one": {"share": 0.6},
    "guard": {"mu": 1, "guard": 1},
    "share and slots": {"share": 0.5, "slots": 2},
    "ties": {"coarse": True},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_exact_equals_milp(make_instance, shape):
    """75 seeded problems of each of seven shapes: 525 in all."""
    for seed in range(75):
        instance = make_instance(seed, **SHAPES[shape])
        items = packages(instance)
        ours = allocate(instance, method="exact")
        highs = best_packages(items, lexicographic=False)
        assert highs.optimal
        best = sum(items.worth[choice.item] for choice in highs.choices)
        assert ours.how == "dynamic programming", seed
        assert ours.value == pytest.approx(best, rel=1e-7, abs=1e-12), seed
        assert ours.gap == 0.0
        assert not violations(instance, ours.grants)


def test_equal_values_are_decided_by_urllc_then_mmtc(make_instance):
    for seed in range(150):
        instance = make_instance(seed, coarse=True)
        items = packages(instance)
        ours = allocate(instance, method="exact")
        solved = best_packages(items)
        kinds = [items.slice[choice.item] for choice in solved.choices]
        assert ours.value == pytest.approx(sum(items.worth[c.item] for c in solved.choices), rel=1e-7, abs=1e-12)
        assert ours.urllc_granted == sum(kind == URLLC for kind in kinds), seed
        assert ours.mmtc_granted == sum(kind != URLLC for kind in kinds), seed


def test_exact_equals_trying_every_subset(make_instance):
    for seed in range(60):
        instance = make_instance(seed, nodes=5, cells=1, coarse=True)
        items = packages(instance)
        granted = solve(flat_problem(items))
        key = max(_key(items, subset) for subset in _feasible_subsets(items))
        assert _key(items, tuple(np.flatnonzero(granted))) == pytest.approx(key, rel=1e-9), seed


def test_milp_by_block_equals_milp_by_package(make_instance):
    for seed in range(40):
        items = packages(make_instance(seed, mvnos=2))
        short, long = best_packages(items), best_packages(items, by_block=True)
        values = [sum(items.worth[c.item] for c in solved.choices) for solved in (short, long)]
        assert values[0] == pytest.approx(values[1], rel=1e-7, abs=1e-12)


def test_several_mvnos_are_solved_exactly(make_instance):
    hows = set()
    for seed in range(60):
        instance = make_instance(seed, mvnos=3, slots=1 + seed % 2)
        ours = allocate(instance, method="exact")
        best = allocate(instance, method="milp")
        hows.add(ours.how)
        assert ours.value == pytest.approx(best.value, rel=1e-7, abs=1e-12)
        assert not violations(instance, ours.grants)
    assert hows == {"dynamic programming", "mixed-integer programme"}


def test_coverage_maximises_alpha_beta_without_rates(make_instance):
    for seed in range(30):
        instance = make_instance(seed)
        items = packages(instance, "coverage")
        ours = allocate(instance, method="exact", variant="coverage")
        best = best_packages(items, lexicographic=False)
        assert ours.objective == pytest.approx(sum(items.weight[c.item] for c in best.choices), rel=1e-7, abs=1e-12)
        assert ours.objective <= 1.0 + 1e-9
        assert ours.value <= ours.bound * (1 + 1e-9)


def _feasible_subsets(items):
    possible = [i for i in range(len(items)) if items.blocks[i] > 0]
    for size in range(len(possible) + 1):
        for subset in combinations(possible, size):
            zones = np.zeros(4, dtype=int)
            urllc = 0
            for item in subset:
                zones[items.zone[item]] += items.blocks[item]
                urllc += items.blocks[item] if items.slice[item] == URLLC else 0
            if (zones <= items.instance.zones).all() and urllc <= items.instance.urllc_blocks:
                yield subset


def _key(items, subset):
    value = round(float(sum(items.worth[list(subset)])), 12)
    urllc = sum(1 for item in subset if items.slice[item] == URLLC)
    return value, urllc, len(subset) - urllc
