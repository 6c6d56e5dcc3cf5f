"""A plan's rows become a ledger record, and the contract refuses what the checker calls infeasible."""

import msgspec
import pytest

from gridpool.contracts import members
from gridpool.contracts.members import FoundingMember, MemberParameters, NewSeat, Role
from gridpool.contracts.slices import slices
from gridpool.contracts.slices.assignments import (
    SHARED,
    AssignmentItem,
    RecordAssignment,
    ReleaseAssignment,
    Sharing,
    assigned_nodes,
)
from gridpool.contracts.slices.networks import AttestLinks, LinkStatement, MvnoShare, RegisterLinks, RegisterNetwork
from gridpool.contracts.slices.sharing import RecordSharedAssignment
from gridpool.grid import load_feeder
from gridpool.ledger.genesis import Genesis
from gridpool.ledger.keys import KeyPair
from gridpool.ledger.rehearsal import Rehearsal
from gridpool.ledger.rules import Rules
from gridpool.ledger.types import encode
from gridpool.planner import assignment_rows, feeder_instance, link_rows, network_row, plan, sharing_row
from gridpool.radio import Preemption
from gridpool.radio.check import violations

HOUR = 3_600_000
CLOCK, COUNCIL, OPERATOR, UTILITY = (KeyPair(bytes([n]) * 32) for n in range(1, 5))


@pytest.fixture(scope="module")
def done():
    return plan(load_feeder("ieee13"), resource_blocks=20, method="exact")


@pytest.fixture
def chain(done):
    return registered(done)


def registered(done):
    """A chain with a plan's network and links."""
    founders = (
        FoundingMember(OPERATOR.public, "North", (Role.OPERATOR,)),
        FoundingMember(UTILITY.public, "Grid", (Role.UTILITY,)),
    )
    parameters = MemberParameters(founders=founders, seats=(NewSeat(COUNCIL.public, "Council", 1),), threshold=1)
    genesis = Genesis(
        chain="test",
        time_ms=HOUR,
        market_clock="ticks",
        clock_keeper=CLOCK.public,
        parameters=(("members", encode(parameters)),),
    )
    chain = Rehearsal(Rules([members.members, slices]), genesis, clock_keeper=CLOCK)
    network = network_row(done.instance)
    shares = tuple(MvnoShare(name, blocks) for name, blocks in network.shares)
    chain.expect(OPERATOR, RegisterNetwork("north", *network[:-1], shares))
    links = link_rows(done.instance)
    chain.expect(OPERATOR, RegisterLinks("north", tuple(LinkStatement(*link) for link in links)))
    chain.expect(UTILITY, AttestLinks("north", tuple(link.node for link in links)))
    return chain


def record(rows):
    return RecordAssignment("day", "north", HOUR, 2 * HOUR, tuple(AssignmentItem(*row) for row in rows))


def test_a_plan_becomes_a_record(chain, done):
    chain.expect(OPERATOR, record(assignment_rows(done.allocation)))
    assert assigned_nodes(chain.state, "day", "mmtc") == set(done.observed)
    assert assigned_nodes(chain.state, "day", "urllc") == set(done.controlled)


@pytest.mark.parametrize("method", ["exact", "greedy"])
@pytest.mark.parametrize("slots", [2, 3])
def test_a_plan_of_several_slots_becomes_a_record_and_lacks_none(method, slots):
    """A URLLC slice has a row a slot; without one of them the contract refuses it as the checker does."""
    feeder = load_feeder("ieee13")
    done = plan(feeder, method=method, instance=feeder_instance(feeder, resource_blocks=12, slots=slots))
    rows = assignment_rows(done.allocation)
    assert {row.slot for row in rows} == set(range(slots))
    chain = registered(done)
    urllc = next(row for row in rows if row.slice == "urllc")
    lacking = [row for row in rows if row is not urllc]
    assert chain.submit(OPERATOR, record(lacking)).code == "not_in_every_slot"
    chain.expect(OPERATOR, record(rows))
    assert assigned_nodes(chain.state, "day", "mmtc") == set(done.observed)
    assert assigned_nodes(chain.state, "day", "urllc") == set(done.controlled)


def forged(rows, kind, change):
    index = next(i for i, row in enumerate(rows) if row.slice == kind)
    return [row._replace(**change(row)) if i == index else row for i, row in enumerate(rows)]


@pytest.mark.parametrize(
    ("kind", "change", "code"),
    [
        ("urllc", lambda row: {"rate_bps": row.rate_bps + 1}, "rate_inflated"),
        ("mmtc", lambda row: {"rate_bps": 2 * row.rate_bps}, "rate_inflated"),
        ("urllc", lambda row: {"blocks": row.blocks[:1], "rate_bps": 0}, "required_rate"),
        ("urllc", lambda row: {"blocks": tuple(b + 14 for b in row.blocks)}, "zone"),
        ("mmtc", lambda row: {"cell": row.cell + 1}, "wrong_cell_or_mvno"),
        ("mmtc", lambda row: {"slot": 1}, "slot_out_of_range"),
        ("mmtc", lambda row: {"node": "stranger"}, "unknown_link"),
    ],
)
def test_forged_rows_are_refused_by_the_constraint_they_break(chain, done, kind, change, code):
    rows = assignment_rows(done.allocation)
    assert chain.submit(OPERATOR, record(forged(rows, kind, change))).code == code


def test_a_block_given_twice_is_refused(chain, done):
    rows = assignment_rows(done.allocation)
    inner = [i for i, row in enumerate(rows) if row.zone == 0]
    rows[inner[1]] = rows[inner[1]]._replace(blocks=rows[inner[0]].blocks, rate_bps=0)
    assert chain.submit(OPERATOR, record(rows)).code == "block_used_twice"


def shared(rows, rule, name="day"):
    items = tuple(AssignmentItem(*row) for row in rows)
    return RecordSharedAssignment(name, "north", HOUR, 2 * HOUR, items, *rule)


@pytest.mark.parametrize("feeder", ["ieee13", "ieee34"])
@pytest.mark.parametrize(("activity", "overflow"), [(0.1, 1e-5), (0.02, 1e-3)])
def test_a_plan_with_mini_slots_becomes_a_record_with_its_rule(feeder, activity, overflow):
    """Its URLLC slices share blocks, which a plain record refuses."""
    feeder = load_feeder(feeder)
    rule = Preemption(activity=activity, overflow=overflow)
    done = plan(feeder, method="greedy", instance=feeder_instance(feeder, resource_blocks=14, preemption=rule))
    rows = assignment_rows(done.allocation)
    blocks = [(row.cell, block) for row in rows for block in row.blocks]
    assert len(set(blocks)) < len(blocks)
    chain = registered(done)
    assert chain.submit(OPERATOR, record(rows)).code == "block_used_twice"
    assert sharing_row(done.instance) == (round(activity * 1e9), round(overflow * 1e9))
    chain.expect(OPERATOR, shared(rows, sharing_row(done.instance)))
    assert chain.get(SHARED, "day") == Sharing(*sharing_row(done.instance), 14)
    assert assigned_nodes(chain.state, "day", "mmtc") == set(done.observed)
    assert assigned_nodes(chain.state, "day", "urllc") == set(done.controlled)


def test_a_plan_that_shares_too_much_is_refused_by_checker_and_contract_alike():
    """Slices planned for a rule are checked against stricter ones: both say no from the same point on."""
    feeder = load_feeder("ieee34")
    loose = Preemption(activity=0.05, overflow=1e-2)
    done = plan(feeder, method="greedy", instance=feeder_instance(feeder, resource_blocks=8, preemption=loose))
    rows = assignment_rows(done.allocation)
    chain, codes = registered(done), []
    for activity in (1.0, 0.5, 0.3, 0.1, 0.05):
        rule = Preemption(activity=activity, overflow=1e-2)
        instance = msgspec.structs.replace(done.instance, preemption=rule)
        receipt = chain.submit(OPERATOR, shared(rows, sharing_row(instance), str(activity)))
        assert receipt.ok == (not violations(instance, done.allocation.grants))
        codes.append(receipt.code)
        if receipt.ok:
            chain.expect(OPERATOR, ReleaseAssignment(str(activity)))
    assert codes[0] == "zone_overflow"
    assert receipt.ok
