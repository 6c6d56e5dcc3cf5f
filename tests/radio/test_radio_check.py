"""The feasibility checker finds each kind of forgery that is put into a good allocation."""

import msgspec
import pytest

from gridpool.radio import Instance, Link, Mvno, Numerology, allocate
from gridpool.radio.check import violations


@pytest.fixture(scope="module")
def town():
    links = [
        Link(
            node=f"n{i}",
            cell=0,
            zone=0 if i < 6 else 1,
            uplink_bps=2_000_000,
            downlink_bps=2_600_000,
            urllc=i < 4,
            weight=1.0,
        )
        for i in range(8)
    ]
    return Instance(resource_blocks=16, zones=[10, 2, 2, 2], links=links, urllc_blocks=6)


@pytest.fixture(scope="module")
def good(town):
    done = allocate(town)
    assert violations(town, done.grants) == []
    return done.grants


def _kinds(town, grants, **options):
    return {found.constraint for found in violations(town, grants, **options)}


def _with(grants, index, **changes):
    return [msgspec.structs.replace(g, **changes) if i == index else g for i, g in enumerate(grants)]


def _first(grants, kind):
    return next(i for i, g in enumerate(grants) if g.slice == kind)


def test_block_with_two_users(town, good):
    taken = good[_first(good, "urllc")].resource_blocks[0]
    assert "7b" in _kinds(town, _with(good, _first(good, "mmtc"), resource_blocks=(taken,)))


def test_block_of_another_zone(town, good):
    assert "7e" in _kinds(town, _with(good, _first(good, "mmtc"), resource_blocks=(15,)))


def test_inflated_rate(town, good):
    i = _first(good, "urllc")
    assert "rate" in _kinds(town, _with(good, i, rate_bps=good[i].rate_bps * 2))


def test_too_few_blocks_for_the_delay(town, good):
    i = _first(good, "urllc")
    kinds = _kinds(town, _with(good, i, resource_blocks=good[i].resource_blocks[:1], rate_bps=2_600_000))
    assert {"7f", "package"} <= kinds


def test_power_and_share(town, good):
    assert "7d" in _kinds(msgspec.structs.replace(town, urllc_blocks=1), good)
    assert "7c" in _kinds(msgspec.structs.replace(town, mvnos=[Mvno(name="utility", share=0.2)]), good)
    assert "budget" in _kinds(msgspec.structs.replace(town, budget_blocks=3), good)


def test_slices_that_nobody_asked_for(town, good):
    i = _first(good, "mmtc")
    assert "request" in _kinds(town, _with(good, i, node="stranger"))
    assert "request" in _kinds(town, _with(good, i, node="n7", slice="urllc", zone=1))
    assert "link" in _kinds(town, _with(good, i, cell=5))
    assert "slot" in _kinds(town, _with(good, i, slot=3))


def test_package_granted_twice_or_not_in_every_slot(town, good):
    assert "package" in _kinds(town, [*good, good[0]])
    assert "package" in _kinds(msgspec.structs.replace(town, slots=2), good)


def test_literal_needs_every_urllc_slice(town, good):
    without = [g for g in good if g.slice == "mmtc"]
    assert "7f" in _kinds(town, without, variant="literal")


def test_guard_between_parts(town):
    parted = msgspec.structs.replace(town, numerology=Numerology(mu=1, guard_blocks=2))
    done = allocate(parted, method="exact")
    assert violations(parted, done.grants) == []
    tight = msgspec.structs.replace(town, numerology=Numerology(mu=1, guard_blocks=0))
    packed = allocate(tight, method="exact")
    assert "guard" in {found.constraint for found in violations(parted, packed.grants)}
