"""Fading, budgets over cells, mini-slots, mixed numerologies, free zones, literal and conditional variants."""

from itertools import product

import msgspec
import numpy as np
import pytest

from gridpool.errors import RefusedInput
from gridpool.radio import Instance, Link, Mvno, Numerology, Preemption, allocate
from gridpool.radio.check import violations
from gridpool.radio.fading import assigned
from gridpool.radio.milp import best_counts, best_packages
from gridpool.radio.minislots import load_distribution, overflow
from gridpool.radio.packages import URLLC, packages
from gridpool.radio.zones import best_split


def worth(items, choices):
    if items.rates is None:
        return sum(items.worth[c.item] for c in choices)
    return sum(
        items.block_value[c.item] * items.rates[c.item, list(b)].sum() for c in choices for b in c.resource_blocks
    )


def test_assignment_under_fading_stays_near_the_milp(make_instance):
    gaps = []
    for seed in range(40):
        instance = make_instance(seed, nodes=14, fading=True)
        items = packages(instance)
        choices, how, bound, optimal = assigned(items)
        best = worth(items, best_packages(items, lexicographic=False).choices)
        ours = worth(items, choices)
        assert "assignment" in how
        assert not optimal
        assert ours <= best * (1 + 1e-7) + 1e-12
        assert best <= bound * (1 + 1e-7) + 1e-12
        gaps.append(1 - ours / best if best else 0.0)
    assert np.mean(gaps) < 0.02


def test_large_fading_instances_go_to_assignment_and_stay_feasible(make_instance):
    instance = make_instance(5, nodes=400, cells=6, fading=True)
    done = allocate(instance, method="exact")
    assert "assignment" in done.how
    assert violations(instance, done.grants) == []
    assert done.value >= allocate(instance, method="greedy").value * 0.98
    assert done.gap < 0.15


def test_prices_bound_the_optimum_and_keep_the_budget(make_instance):
    gaps = []
    for seed in range(40):
        instance = make_instance(seed, nodes=16, cells=3, budget=8)
        done = allocate(instance, method="lagrangian")
        best = allocate(instance, method="milp")
        assert violations(instance, done.grants) == []
        assert done.value <= best.value * (1 + 1e-7) + 1e-12
        assert best.value <= done.bound * (1 + 1e-7) + 1e-12
        gaps.append(done.gap)
    assert np.mean(gaps) < 0.1


def test_prices_without_a_budget_are_exact(make_instance):
    for seed in range(30):
        instance = make_instance(seed)
        assert allocate(instance, method="lagrangian").value == pytest.approx(allocate(instance, method="exact").value)


@pytest.mark.parametrize("literal", [True, False])
def test_counts_equal_trying_every_count(make_instance, literal):
    tried = 0
    for seed in range(40):
        instance = make_instance(seed, nodes=2, cells=1)
        small = msgspec.structs.replace(instance, zones=[4, 2, 1, 1], resource_blocks=8)
        items = packages(small)
        options = [range(small.zones[z] + 1) for z in items.zone]
        feasible = [counts for counts in product(*options) if _fits(items, counts, literal)]
        if not feasible:
            with pytest.raises(RefusedInput):
                allocate(small, method="exact", variant="literal")
            continue
        tried += 1
        best = max(sum(c * items.block_value[i] * items.rate[i] for i, c in enumerate(counts)) for counts in feasible)
        solved = best_counts(items, literal=literal)
        assert worth_of_counts(items, solved.choices) == pytest.approx(best, rel=1e-7, abs=1e-12)
        variant = "literal" if literal else "conditional"
        done = allocate(small, method="greedy", variant=variant)
        assert violations(small, done.grants, variant=variant) == []
        assert done.value <= best * (1 + 1e-7) + 1e-12
    assert tried > 5


def worth_of_counts(items, choices):
    return sum(len(b) * items.block_value[c.item] * items.rate[c.item] for c in choices for b in c.resource_blocks)


def _fits(items, counts, literal):
    zones, urllc = np.zeros(4, dtype=int), 0
    need = items.instance.requirement.required_bps
    for item, count in enumerate(counts):
        zones[items.zone[item]] += count
        if items.slice[item] == URLLC:
            urllc += count
            served = count * items.rate[item] >= need
            if (literal or count) and not served:
                return False
        elif count and items.rate[item] == 0:
            return False
    return bool((zones <= items.instance.zones).all()) and urllc <= items.instance.urllc_blocks


def test_literal_says_why_it_is_infeasible():
    link = Link(node="x", cell=0, zone=0, uplink_bps=10, downlink_bps=1_000_000, urllc=True, weight=1.0)
    tight = Instance(resource_blocks=4, zones=[4, 0, 0, 0], links=[link])
    with pytest.raises(RefusedInput, match="'x' cannot reach"):
        allocate(tight, variant="literal")
    two = [msgspec.structs.replace(link, node=name, downlink_bps=2_000_000) for name in "xy"]
    with pytest.raises(RefusedInput, match="needs 6 blocks in zone 0 of cell 0, which has 4"):
        allocate(msgspec.structs.replace(tight, links=two), variant="literal")
    wide = msgspec.structs.replace(tight, links=two, resource_blocks=10, zones=[10, 0, 0, 0], urllc_blocks=5)
    with pytest.raises(RefusedInput, match="share and power allow 5"):
        allocate(wide, variant="literal")


def test_free_zones_are_the_best_of_all_splits(make_instance):
    for seed in range(12):
        instance = make_instance(seed, cells=1, nodes=8)
        blocks = 7
        small = msgspec.structs.replace(instance, zones=[7, 0, 0, 0], resource_blocks=blocks)
        splits = [s for s in product(range(blocks + 1), repeat=4) if sum(s) == blocks]
        best = max(
            allocate(msgspec.structs.replace(small, zones=list(split)), method="exact").value for split in splits
        )
        chosen = best_split(small)
        assert sum(chosen.zones) == blocks
        assert allocate(chosen, method="exact").value == pytest.approx(best)


def test_free_zones_of_several_cells_never_lose(make_instance):
    for seed in range(10):
        instance = make_instance(seed, cells=3, nodes=15)
        chosen = best_split(instance)
        before, after = (allocate(one, method="exact").value for one in (instance, chosen))
        assert after >= before * (1 - 1e-12)


def test_wider_spacing_pays_when_waiting_for_slots_counts():
    """Waiting 3 slots leaves 2 ms (4 blocks each) at 15 kHz but 3.5 ms (2 blocks each) at 30 kHz."""
    links = [
        Link(node=f"n{i}", cell=0, zone=0, uplink_bps=2_000_000, downlink_bps=3_600_000, urllc=True, weight=1.0)
        for i in range(4)
    ]
    base = Instance(resource_blocks=12, zones=[12, 0, 0, 0], links=links)
    served = {}
    for mu, guard in ((0, 0), (1, 1)):
        parted = msgspec.structs.replace(base, numerology=Numerology(mu=mu, guard_blocks=guard, alignment_slots=3.0))
        done = allocate(parted, method="exact")
        assert violations(parted, done.grants) == []
        served[mu] = {grant.node: len(grant.resource_blocks) for grant in done.grants if grant.slice == "urllc"}
    assert served == {0: {"n0": 4, "n1": 4, "n2": 4}, 1: {"n0": 2, "n1": 2, "n2": 2, "n3": 2}}


def test_no_delay_budget_left_is_refused():
    link = Link(node="x", cell=0, zone=0, uplink_bps=10, downlink_bps=10, urllc=True, weight=1.0)
    late = Instance(
        resource_blocks=4, zones=[4, 0, 0, 0], links=[link], numerology=Numerology(mu=0, alignment_slots=6.0)
    )
    with pytest.raises(RefusedInput, match="delay budget"):
        allocate(late)


def test_overflow_probability_is_that_of_every_pattern():
    loads, activity = [2, 3, 1, 3], 0.3
    law = load_distribution(loads, activity)
    assert law.sum() == pytest.approx(1.0)
    for limit in range(sum(loads) + 1):
        exact = sum(
            np.prod([activity if on else 1 - activity for on in pattern])
            for pattern in product((0, 1), repeat=len(loads))
            if np.dot(pattern, loads) > limit
        )
        assert overflow(loads, Preemption(activity=activity), limit) == pytest.approx(exact, abs=1e-15)


def test_pre_emption_serves_more_urllc_than_reservation_within_its_quantile():
    links = [
        Link(node=f"n{i}", cell=0, zone=0, uplink_bps=2_000_000, downlink_bps=3_000_000, urllc=True, weight=1.0 + i)
        for i in range(60)
    ]
    rule = Preemption(activity=0.05, overflow=1e-3)
    shared = Instance(resource_blocks=12, zones=[12, 0, 0, 0], links=links, preemption=rule)
    done = allocate(shared)
    reserved = allocate(msgspec.structs.replace(shared, preemption=None), method="exact")
    assert done.urllc_granted > reserved.urllc_granted
    assert done.mmtc_granted == 12
    assert done.value <= done.bound
    draws = np.random.default_rng(1).random((200_000, done.urllc_granted)) < rule.activity
    assert (draws.sum(axis=1) * 2 > 12).mean() <= 1.5e-3
    assert violations(shared, done.grants) == []
    assert done.urllc_granted < 60
    everyone = allocate(msgspec.structs.replace(shared, preemption=Preemption(activity=1e-6))).grants
    assert "overflow" in {found.constraint for found in violations(shared, everyone)}
    for method in ("exact", "milp", "lagrangian"):
        with pytest.raises(RefusedInput, match="order"):
            allocate(shared, method=method)


def test_pre_emption_keeps_its_limits_on_random_problems(make_instance):
    for seed in range(40):
        rule = Preemption(activity=0.1, overflow=0.01)
        shared = msgspec.structs.replace(make_instance(seed), preemption=rule)
        for method in ("greedy", "value_density", "bc", "top_k", "random"):
            done = allocate(shared, method=method, rng=np.random.default_rng(seed))
            assert violations(shared, done.grants) == []
            assert done.value <= done.bound * (1 + 1e-12)


def test_work_conserving_pass_uses_what_shares_left(make_instance):
    gained = 0
    for seed in range(30):
        plain = make_instance(seed, mvnos=3)
        keen = msgspec.structs.replace(plain, work_conserving=True)
        for method in ("greedy", "exact"):
            before, after = allocate(plain, method=method), allocate(keen, method=method)
            assert after.value >= before.value - 1e-12
            assert violations(keen, after.grants) == []
            gained += after.value > before.value
    assert gained > 0


def test_random_needs_a_generator_and_lagrangian_packages(make_instance):
    instance = make_instance(1)
    with pytest.raises(RefusedInput, match="seed"):
        allocate(instance, method="random")
    with pytest.raises(RefusedInput, match="lagrangian"):
        allocate(instance, method="lagrangian", variant="conditional")


def test_literal_is_refused_where_only_all_mvnos_together_do_not_fit():
    links = [
        Link(node=n, cell=0, zone=1, uplink_bps=10, downlink_bps=2_000_000, urllc=True, weight=1.0, mvno=n)
        for n in ("a", "b")
    ]
    shared = Instance(
        resource_blocks=12,
        zones=[7, 5, 0, 0],
        links=links,
        mvnos=[Mvno(name="a", share=0.5), Mvno(name="b", share=0.5)],
    )
    with pytest.raises(RefusedInput, match="literal"):
        allocate(shared, variant="literal", method="exact")
    assert allocate(shared, variant="conditional", method="exact").urllc_granted == 1


def test_an_instance_without_links_has_an_empty_allocation():
    empty = Instance(resource_blocks=4, zones=[4, 0, 0, 0], links=[])
    for method in ("greedy", "exact", "milp", "lagrangian", "top_k", "bc"):
        done = allocate(empty, method=method)
        assert (done.value, done.bound, done.gap, done.grants) == (0.0, 0.0, 0.0, [])


def test_blocks_of_fading_channels_are_the_same_for_the_same_seed(make_instance):
    first, second = (allocate(make_instance(3, nodes=20, fading=True), method="exact") for _ in range(2))
    assert first == second
