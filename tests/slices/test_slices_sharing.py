"""Mini-slots on the ledger: shared blocks by a rule, whole cells, and nothing given twice beside the rule."""

from fractions import Fraction
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_slices_assignments import HOUR, OPERATOR, RIVAL, UTILITY, item, link, network, record, rehearse

from gridpool.contracts.slices.assignments import ASSIGNMENTS, ITEMS, OCCUPIED, SHARED, ReleaseAssignment, free_blocks
from gridpool.contracts.slices.networks import AttestLinks, RegisterLinks
from gridpool.contracts.slices.sharing import RecordSharedAssignment, enough
from gridpool.ledger.types import decode, encode

NANO = 10**9
NODES = ("671", "675", "680", "684", "692")


@pytest.fixture
def chain():
    return founded()


def founded(**changes):
    chain = rehearse()
    chain.expect(OPERATOR, network(**changes))
    links = [link("671"), link("675"), link("680", zone=2), link("684", mvno="other"), link("692")]
    chain.expect(OPERATOR, RegisterLinks("north", tuple(links)))
    chain.expect(UTILITY, AttestLinks("north", NODES))
    return chain


def share(*items, name="day", start=HOUR, end=2 * HOUR, activity=NANO // 10, overflow=NANO // 20):
    return RecordSharedAssignment(name, "north", start, end, items, activity, overflow)


SHARING = (
    item("671", "urllc", (0, 1)),
    item("675", "urllc", (1, 2)),
    item("671", "mmtc", (0,)),
    item("680", "mmtc", (8,), zone=2),
)


def test_slices_share_blocks_by_the_rule_and_hold_their_cell_whole(chain):
    assert chain.submit(OPERATOR, record(*SHARING)).code == "block_used_twice"
    chain.expect(OPERATOR, share(*SHARING))
    assert {held for _, held in chain.scan(ITEMS, ("day",))} == set(SHARING)
    assert sum(1 for _ in chain.scan(OCCUPIED)) == 12
    assert free_blocks(chain.state, "north", 1, 0, HOUR, 2 * HOUR) == []
    for late in (record(item("692", "mmtc", (5,)), name="b"), share(item("692", "mmtc", (5,)), name="b")):
        assert chain.submit(OPERATOR, late).code == "block_used_twice"
    chain.expect(OPERATOR, record(item("692", "mmtc", (5,)), name="b", start=2 * HOUR, end=3 * HOUR))
    # and a cell of which another assignment holds one block is not free either
    assert chain.submit(OPERATOR, share(*SHARING, name="c", start=HOUR, end=4 * HOUR)).code == "block_used_twice"


@pytest.mark.parametrize(
    ("items", "changes", "code"),
    [
        ([item("671", "mmtc", (0,)), item("675", "mmtc", (0,))], {}, "block_used_twice"),
        ([item("671", "mmtc", (0, 0))], {}, "block_used_twice"),
        ([item("671", "urllc", (0, 0, 1))], {}, "block_used_twice"),
        ([item("684", "mmtc", (0, 1, 2, 3, 4), mvno="other")], {}, "mvno_share"),
        ([item("671", "urllc", (0, 1)), item("671", "urllc", (2, 3))], {}, "package_twice"),
        ([item("671", "urllc", (0,))], {}, "required_rate"),
        ([item("671", "urllc", (5, 6))], {}, "zone"),
        ([item("999", "mmtc", (0,))], {}, "unknown_link"),
        ([item("671", "urllc", (0, 1)), item("675", "urllc", (0, 1))], {"activity": NANO}, "cell_overflow"),
        ([item("671", "urllc", (0, 1)), item("675", "urllc", (0, 1))], {"overflow": 9_999_999}, "cell_overflow"),
        (SHARING, {"end": HOUR}, "bad_window"),
    ],
)
def test_what_breaks_a_constraint_or_the_rule_is_refused_by_its_name(chain, items, changes, code):
    receipt = chain.submit(OPERATOR, share(*items, **changes))
    assert (receipt.code, bool(receipt.info)) == (code, True)
    assert not list(chain.scan(OCCUPIED))


def test_at_the_stated_probability_itself_slices_may_share(chain):
    """Two slices of two blocks each, at most three in use: both are active in one of a hundred slots."""
    pair = item("671", "urllc", (0, 1)), item("675", "urllc", (0, 1))
    chain.expect(OPERATOR, share(*pair, overflow=NANO // 100))


def test_a_zone_may_be_exceeded_where_the_cell_is_not():
    chain = founded(zones=(3, 3, 3, 3), urllc_blocks=12)
    pair = item("671", "urllc", (0, 1)), item("675", "urllc", (1, 2))
    assert chain.submit(OPERATOR, share(*pair, overflow=9_999_999)).code == "zone_overflow"


def test_only_the_owner_shares_and_only_a_single_slot(chain):
    assert chain.submit(RIVAL, share(*SHARING)).code == "not_the_operator"
    items = tuple(item("671", "urllc", (0, 1), slot=slot) for slot in (0, 1))
    assert founded(slots=2).submit(OPERATOR, share(*items)).code == "not_one_slot"
    chain.expect(OPERATOR, share(*SHARING))
    assert chain.submit(OPERATOR, share(*SHARING, start=3 * HOUR, end=4 * HOUR)).code == "name_taken"


@pytest.mark.parametrize("begun", [False, True])
def test_a_release_frees_the_whole_cell(chain, begun):
    chain.expect(OPERATOR, share(*SHARING, start=2 * HOUR, end=4 * HOUR))
    if begun:
        chain.advance(3 * HOUR)
    chain.expect(OPERATOR, network(resource_blocks=11, zones=(6, 2, 2, 1)))  # described anew in between
    chain.expect(OPERATOR, ReleaseAssignment("day"))
    assert chain.get(ASSIGNMENTS, "day").end == (3 if begun else 2) * HOUR
    assert {held.end for _, held in chain.scan(OCCUPIED)} == ({3 * HOUR} if begun else set())
    assert chain.get(SHARED, "day").blocks == 12
    chain.expect(OPERATOR, record(item("692", "mmtc", (5,)), name="b", start=3 * HOUR, end=4 * HOUR))


def test_the_calls_of_plain_records_are_encoded_as_before():
    """A record without mini-slots has the bytes that it had before there were any."""
    call = record(item("671", "mmtc", (2,), rate=7))
    assert encode(call).hex() == (
        "96b8736c696365732e7265636f72645f61737369676e6d656e74a3646179a56e6f727468ce0036ee80ce006ddd00"
        "9198a3363731a46d6d74630100a77574696c697479009102" "07"
    )  # fmt: skip
    assert decode(encode(call), type(call)) == call


loads = st.lists(st.integers(1, 5), max_size=7)


@settings(max_examples=150, deadline=None)
@given(loads=loads, blocks=st.integers(0, 20), activity=st.integers(1, NANO), data=st.data())
def test_the_rule_is_that_of_every_set_of_active_slices(loads, blocks, activity, data):
    chance, over = Fraction(activity, NANO), Fraction(0)
    for count in range(len(loads) + 1):
        for active in combinations(range(len(loads)), count):
            if sum(loads[at] for at in active) > blocks:
                over += chance**count * (1 - chance) ** (len(loads) - count)
    least = max(1, -(-over.numerator * NANO // over.denominator))
    overflow = data.draw(st.one_of(st.integers(1, NANO), st.sampled_from((least, max(1, least - 1)))))
    assert enough(loads, blocks, activity, overflow) == (over <= Fraction(overflow, NANO))


requests = st.tuples(
    st.booleans(),
    st.integers(1, 6),
    st.integers(1, 3),
    st.lists(st.sampled_from(NODES[:2]), min_size=1, max_size=2, unique=True),
    st.integers(0, 4),
)


@settings(deadline=None, max_examples=25)
@given(wanted=st.lists(requests, max_size=8))
def test_at_no_instant_is_a_shared_cell_anybody_elses(wanted):
    chain, accepted = founded(), []
    for number, (sharing, begin, hours, nodes, first) in enumerate(wanted):
        start, end = begin * HOUR, (begin + hours) * HOUR
        items = tuple(item(node, "urllc", (first, first + 1)) for node in nodes)
        make = share if sharing else record
        receipt = chain.submit(OPERATOR, make(*items, name=str(number), start=start, end=end))
        clash = any(s < end and start < e and (sharing or was) for was, s, e in accepted)
        if receipt.ok:
            assert not clash
            assert sharing or len(nodes) == 1
            accepted.append((sharing, start, end))
        elif sharing:
            assert clash
