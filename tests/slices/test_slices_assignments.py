"""The assignment record: what is refused, by which constraint, and that blocks are never promised twice."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridpool.contracts import members
from gridpool.contracts.members import FoundingMember, MemberParameters, NewSeat, Role
from gridpool.contracts.slices import slices
from gridpool.contracts.slices.assignments import (
    ITEMS,
    OCCUPIED,
    AssignmentItem,
    RecordAssignment,
    ReleaseAssignment,
    assigned_nodes,
)
from gridpool.contracts.slices.networks import (
    AttestLinks,
    LinkStatement,
    MvnoShare,
    RegisterLinks,
    RegisterNetwork,
    link_message,
)
from gridpool.ledger.genesis import Genesis
from gridpool.ledger.keys import KeyPair
from gridpool.ledger.rehearsal import Rehearsal
from gridpool.ledger.rules import Rules
from gridpool.ledger.types import encode

HOUR = 3_600_000
CLOCK, COUNCIL, OPERATOR, RIVAL, UTILITY, SENSOR, STRANGER = (KeyPair(bytes([n]) * 32) for n in range(1, 8))
ZONES = (6, 2, 2, 2)


def rehearse():
    founders = (
        FoundingMember(OPERATOR.public, "North", (Role.OPERATOR,)),
        FoundingMember(RIVAL.public, "South", (Role.OPERATOR, Role.PROBE)),
        FoundingMember(UTILITY.public, "Grid", (Role.UTILITY,)),
        FoundingMember(SENSOR.public, "Sensor", (Role.SENSOR,)),
    )
    parameters = MemberParameters(founders=founders, seats=(NewSeat(COUNCIL.public, "Council", 1),), threshold=1)
    genesis = Genesis(
        chain="test",
        time_ms=HOUR,
        market_clock="ticks",
        clock_keeper=CLOCK.public,
        parameters=(("members", encode(parameters)),),
    )
    return Rehearsal(Rules([members.members, slices]), genesis, clock_keeper=CLOCK)


def network(**changes):
    figures = {
        "network": "north",
        "resource_blocks": 12,
        "zones": ZONES,
        "slots": 1,
        "urllc_blocks": 3,
        "urllc_bps": 1_500_000,
        "mmtc_bps": 1,
        "shares": (MvnoShare("utility", 6), MvnoShare("other", 4)),
    }
    return RegisterNetwork(**(figures | changes))


def link(node, *, zone=0, mvno="utility", up=(1_000_000,), down=(800_000,)):
    return LinkStatement(node, 1, zone, mvno, up, down)


def item(node, kind, blocks, *, zone=0, mvno="utility", rate=0, cell=1, slot=0):
    return AssignmentItem(node, kind, cell, zone, mvno, slot, tuple(blocks), rate)


@pytest.fixture
def chain():
    chain = rehearse()
    chain.expect(OPERATOR, network())
    nodes = [link("671"), link("675"), link("680", zone=2), link("684", mvno="other"), link("692", up=(1, 2) * 6)]
    chain.expect(OPERATOR, RegisterLinks("north", tuple(nodes)))
    chain.expect(UTILITY, AttestLinks("north", ("671", "675", "680", "684", "692")))
    return chain


def record(*items, name="day", start=HOUR, end=2 * HOUR):
    return RecordAssignment(name, "north", start, end, items)


def test_a_lawful_assignment_is_recorded(chain):
    items = (
        item("671", "urllc", (0, 1), rate=1_600_000),
        item("671", "mmtc", (2,)),
        item("680", "mmtc", (8,), zone=2, rate=1_000_000),
    )
    chain.expect(OPERATOR, record(*items))
    assert assigned_nodes(chain.state, "day", "urllc") == {"671"}
    assert assigned_nodes(chain.state, "day", "mmtc") == {"671", "680"}
    assert chain.get(ITEMS, ("day", "680", "mmtc", 0)) == items[2]


@pytest.mark.parametrize(
    ("items", "code"),
    [
        ([item("671", "mmtc", (12,))], "block_out_of_range"),
        ([item("671", "mmtc", (0,), slot=1)], "slot_out_of_range"),
        ([item("671", "mmtc", (0,)), item("675", "mmtc", (0,))], "block_used_twice"),
        ([item("671", "urllc", (0, 0))], "block_used_twice"),
        ([item("671", "mmtc", (6,))], "zone"),
        ([item("671", "mmtc", (6,), zone=1)], "zone"),
        ([item("680", "mmtc", (6,), zone=2)], "zone"),
        ([item("671", "mmtc", (0,)), item("671", "mmtc", (1,))], "package_twice"),
        ([item("671", "mmtc", (0,), mvno="other")], "wrong_cell_or_mvno"),
        ([item("671", "mmtc", (0,), cell=2)], "wrong_cell_or_mvno"),
        ([item("999", "mmtc", (0,))], "unknown_link"),
        ([item("671", "urllc", (0,))], "required_rate"),
        ([item("671", "urllc", (0, 1), rate=1_600_001)], "rate_inflated"),
        ([item("671", "mmtc", (0,), rate=10**9)], "rate_inflated"),
        ([item("671", "urllc", (0, 1)), item("675", "urllc", (2, 3))], "urllc_power"),
        ([item("684", "mmtc", (0, 1, 2, 3, 4), mvno="other")], "mvno_share"),
    ],
)
def test_a_forged_assignment_is_refused_by_the_constraint_it_violates(chain, items, code):
    before = list(chain.scan(OCCUPIED))
    receipt = chain.submit(OPERATOR, record(*items))
    assert receipt.code == code
    assert receipt.info
    assert list(chain.scan(OCCUPIED)) == before


def test_rates_by_block_count_only_the_blocks_assigned(chain):
    chain.expect(OPERATOR, record(item("692", "mmtc", (1, 3), rate=4)))
    assert chain.submit(OPERATOR, record(item("692", "mmtc", (0, 2), rate=3), name="b")).code == "rate_inflated"


def test_blocks_are_not_promised_to_two_overlapping_assignments(chain):
    chain.expect(OPERATOR, record(item("671", "mmtc", (0,))))
    overlapping = record(item("675", "mmtc", (0,)), name="b", start=2 * HOUR - 1, end=3 * HOUR)
    assert chain.submit(OPERATOR, overlapping).code == "block_used_twice"
    chain.expect(OPERATOR, record(item("675", "mmtc", (0,)), name="b", start=2 * HOUR, end=3 * HOUR))
    straddling = record(item("680", "mmtc", (8,), zone=2), item("675", "mmtc", (0,)), name="c", end=4 * HOUR)
    assert chain.submit(OPERATOR, straddling).code == "block_used_twice"


def test_shares_and_power_count_what_other_assignments_hold(chain):
    chain.expect(OPERATOR, record(item("671", "urllc", (0, 1))))
    more = item("675", "urllc", (2, 3))
    assert chain.submit(OPERATOR, record(more, name="b")).code == "urllc_power"
    chain.expect(OPERATOR, record(more, name="b", start=2 * HOUR, end=3 * HOUR))
    share = item("671", "mmtc", (2, 3, 4, 5))
    assert chain.submit(OPERATOR, record(share, item("680", "mmtc", (8,), zone=2), name="c")).code == "mvno_share"


def test_a_release_frees_the_blocks_from_now_on(chain):
    chain.expect(OPERATOR, record(item("671", "mmtc", (0,)), end=4 * HOUR))
    chain.advance(2 * HOUR)
    again = record(item("675", "mmtc", (0,)), name="b", start=2 * HOUR, end=3 * HOUR)
    assert chain.submit(OPERATOR, again).code == "block_used_twice"
    assert chain.submit(RIVAL, ReleaseAssignment("day")).code == "not_the_operator"
    chain.expect(OPERATOR, ReleaseAssignment("day"))
    assert chain.submit(OPERATOR, ReleaseAssignment("day")).code == "already_over"
    chain.expect(OPERATOR, again)


def test_blocks_released_before_they_were_held_are_released_once(chain):
    early = {"start": 2 * HOUR, "end": 3 * HOUR}
    chain.expect(OPERATOR, record(item("671", "mmtc", (0,)), **early))
    chain.expect(OPERATOR, ReleaseAssignment("day"))
    chain.expect(OPERATOR, record(item("675", "mmtc", (0,)), name="b", **early))
    assert chain.submit(OPERATOR, ReleaseAssignment("day")).code == "already_over"
    assert chain.submit(OPERATOR, record(item("671", "mmtc", (0,)), name="c", **early)).code == "block_used_twice"


def test_only_the_owner_describes_records_and_nobody_attests_their_own_links(chain):
    assert chain.submit(RIVAL, network()).code == "name_taken"
    assert chain.submit(RIVAL, RegisterLinks("north", (link("x"),))).code == "not_the_operator"
    assert chain.submit(RIVAL, record(item("671", "mmtc", (0,)))).code == "not_the_operator"
    chain.expect(RIVAL, network(network="south"))
    chain.expect(RIVAL, RegisterLinks("south", (link("a"),)))
    assert chain.submit(RIVAL, AttestLinks("south", ("a",))).code == "own_links"
    assert chain.submit(STRANGER, AttestLinks("south", ("a",))).code == "unknown_wallet"


def test_an_unattested_or_restated_link_carries_nothing(chain):
    chain.expect(OPERATOR, RegisterLinks("north", (link("671", up=(9_000_000,)),)))
    assert chain.submit(OPERATOR, record(item("671", "mmtc", (0,)))).code == "link_unattested"


def test_a_device_attests_its_link_by_signature(chain):
    stated = link("dev", up=(5,))
    signed = LinkStatement(
        *(getattr(stated, f) for f in ("node", "cell", "zone", "mvno", "uplink_bps", "downlink_bps")),
        device=SENSOR.public,
        signature=SENSOR.sign(link_message("test", "north", stated)),
    )
    inflated = LinkStatement("dev", 1, 0, "utility", (6,), (800_000,), signed.device, signed.signature)
    assert chain.submit(OPERATOR, RegisterLinks("north", (inflated,))).code == "bad_device_signature"
    foreign = LinkStatement("dev", 1, 0, "utility", (5,), (800_000,), STRANGER.public, signed.signature)
    assert chain.submit(OPERATOR, RegisterLinks("north", (foreign,))).code == "unknown_device"
    chain.expect(OPERATOR, RegisterLinks("north", (signed,)))
    chain.expect(OPERATOR, record(item("dev", "mmtc", (0,), rate=5)))


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"zones": (6, 2, 2, 1)}, "zones_do_not_add_up"),
        ({"shares": (MvnoShare("a", 1), MvnoShare("a", 1))}, "mvno_twice"),
        ({"shares": (MvnoShare("a", 13),)}, "shares_exceed_the_carrier"),
    ],
)
def test_an_impossible_network_is_refused(changes, code):
    assert rehearse().submit(OPERATOR, network(**changes)).code == code


windows = st.tuples(st.integers(1, 8), st.integers(1, 5)).map(lambda w: (w[0] * HOUR, (w[0] + w[1]) * HOUR))


@settings(deadline=None, max_examples=25)
@given(st.lists(st.tuples(windows, st.sampled_from(["671", "675", "684"]), st.sets(st.integers(0, 5), min_size=1))))
def test_no_instant_ever_sees_a_block_twice_or_a_share_exceeded(requests):
    chain = rehearse()
    chain.expect(OPERATOR, network())
    chain.expect(OPERATOR, RegisterLinks("north", (link("671"), link("675"), link("684", mvno="other"))))
    chain.expect(UTILITY, AttestLinks("north", ("671", "675", "684")))
    mvnos = {"671": "utility", "675": "utility", "684": "other"}
    caps = {"utility": 6, "other": 4}
    accepted = []
    for number, ((start, end), node, blocks) in enumerate(requests):
        wanted = item(node, "mmtc", sorted(blocks), mvno=mvnos[node])
        receipt = chain.submit(OPERATOR, record(wanted, name=str(number), start=start, end=end))

        def lawful(extra):
            for hour in range(1, 14):
                live = [(n, b) for (s, e), n, b in (*accepted, *extra) if s <= hour * HOUR < e]
                taken = [block for _, held in live for block in held]
                if len(taken) != len(set(taken)):
                    return False
                for mvno, cap in caps.items():
                    if sum(len(b) for n, b in live if mvnos[n] == mvno) > cap:
                        return False
            return True

        request = ((start, end), node, blocks)
        assert receipt.ok == lawful([request])
        if receipt.ok:
            accepted.append(request)
        assert lawful([])


def two_slots():
    chain = rehearse()
    chain.expect(OPERATOR, network(slots=2))
    chain.expect(OPERATOR, RegisterLinks("north", (link("671"), link("675"))))
    chain.expect(UTILITY, AttestLinks("north", ("671", "675")))
    return chain


def test_a_urllc_slice_holds_blocks_in_every_slot_and_an_mmtc_slice_in_one():
    chain = two_slots()
    items = (
        item("671", "urllc", (0, 1), rate=1_600_000),
        item("671", "urllc", (2, 3), slot=1),
        item("675", "mmtc", (0,), slot=1),
    )
    chain.expect(OPERATOR, record(*items))
    assert {key[2:]: held for key, held in chain.scan(ITEMS, ("day", "671"))} == {
        ("urllc", 0): items[0],
        ("urllc", 1): items[1],
    }
    assert assigned_nodes(chain.state, "day", "urllc") == {"671"}
    assert chain.submit(OPERATOR, record(item("675", "mmtc", (2,), slot=1), name="b")).code == "block_used_twice"
    chain.expect(OPERATOR, ReleaseAssignment("day"))
    chain.expect(OPERATOR, record(item("675", "mmtc", (2,), slot=1), name="b"))


@pytest.mark.parametrize(
    ("items", "code"),
    [
        ([item("671", "urllc", (0, 1))], "not_in_every_slot"),
        ([item("671", "urllc", (0, 1), slot=1)], "not_in_every_slot"),
        ([item("671", "urllc", (0, 1)), item("671", "urllc", (2, 3))], "package_twice"),
        ([item("671", "mmtc", (0,)), item("671", "mmtc", (0,), slot=1)], "package_twice"),
        ([item("671", "urllc", (0, 1)), item("671", "urllc", (0,), slot=1)], "required_rate"),
        ([item("671", "urllc", (0, 1)), item("671", "urllc", (0, 1), slot=2)], "slot_out_of_range"),
    ],
)
def test_a_slice_with_missing_or_extra_slots_is_refused(items, code):
    assert two_slots().submit(OPERATOR, record(*items)).code == code
