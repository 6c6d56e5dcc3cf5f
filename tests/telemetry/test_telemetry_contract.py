"""Anchored roots and differences between two of them, on a ledger in memory."""

import hashlib

import msgspec
import numpy as np
import pytest

from gridpool.agents.telemetry import difference_call
from gridpool.agents.telemetry_tree import ROW_BYTES, ReadingTree
from gridpool.contracts import coins, members
from gridpool.contracts.members import FoundingMember, MemberParameters, Role
from gridpool.contracts.records import records
from gridpool.contracts.records_telemetry import (
    ANCHORS,
    DIFFERENCES,
    MOST_ANCHORS,
    AnchorName,
    AnchorReadings,
    ShowDifference,
)
from gridpool.contracts.records_tree import Reading, reading_message, reading_row
from gridpool.ledger.genesis import Genesis
from gridpool.ledger.keys import KeyPair
from gridpool.ledger.rehearsal import Rehearsal
from gridpool.ledger.rules import Rules
from gridpool.ledger.types import encode

START = 1_767_225_600_000
QUARTER = 900_000


def key(name: str) -> KeyPair:
    return KeyPair(hashlib.sha256(b"telemetry" + name.encode()).digest())


NORTH, SOUTH, ANN = (*sorted((key("north"), key("south")), key=lambda pair: pair.public), key("ann"))
DEVICES = [key(f"device{number}") for number in range(20)]
READINGS = {device.public: number * 10 for number, device in enumerate(DEVICES)}


def tree_over(values: dict[bytes, int]) -> ReadingTree:
    rows = b"".join(reading_row(Reading(device, START, value)) for device, value in values.items())
    return ReadingTree(np.frombuffer(rows, np.uint8).reshape(-1, ROW_BYTES))


TREE = tree_over(READINGS)
FORGED = tree_over(READINGS | {DEVICES[3].public: 999})
LACKING = tree_over({device: value for device, value in READINGS.items() if device != DEVICES[3].public})


def anchor_of(tree: ReadingTree, **changes) -> AnchorReadings:
    return msgspec.structs.replace(AnchorReadings(START, START + QUARTER, tree.root, tree.count), **changes)


@pytest.fixture
def ledger() -> Rehearsal:
    founders = (
        FoundingMember(NORTH.public, "north", (Role.AGGREGATOR,)),
        FoundingMember(SOUTH.public, "south", (Role.UTILITY,)),
        FoundingMember(ANN.public, "ann", (Role.PROSUMER,)),
    )
    genesis = Genesis(
        chain="telemetry",
        time_ms=START,
        market_clock="ticks",
        clock_keeper=key("clock").public,
        parameters=(("members", encode(MemberParameters(founders=founders))),),
    )
    return Rehearsal(Rules([members.members, coins.coins, records]), genesis, clock_keeper=key("clock"))


def signature_over(tree_value: int) -> bytes:
    return DEVICES[3].sign(reading_message(reading_row(Reading(DEVICES[3].public, START, tree_value))))


def shown(other: ReadingTree, signatures: tuple[bytes, bytes] = (b"", b"")) -> ShowDifference:
    names = (AnchorName(NORTH.public, START, 0), AnchorName(SOUTH.public, START, 0))
    return difference_call((TREE, other), names, DEVICES[3].public, START, signatures)


def test_an_aggregator_cannot_rewrite_an_interval(ledger):
    first = ledger.expect(NORTH, anchor_of(TREE))
    assert ledger.submit(NORTH, anchor_of(TREE)).code == "already_anchored"
    ledger.expect(NORTH, anchor_of(FORGED))
    ledger.expect(SOUTH, anchor_of(TREE))
    anchors = dict(ledger.scan(ANCHORS))
    assert {name: anchor.root for name, anchor in anchors.items()} == {
        (NORTH.public, START, 0): TREE.root,
        (NORTH.public, START, 1): FORGED.root,
        (SOUTH.public, START, 0): TREE.root,
    }
    assert anchors[NORTH.public, START, 0].tx == first.tx


@pytest.mark.parametrize(
    ("who", "changes", "code"),
    [
        (ANN, {}, "role_missing"),
        (key("nobody"), {}, "unknown_wallet"),
        (NORTH, {"end": START}, "no_interval"),
        (NORTH, {"end": 2**63 - 1}, "no_interval"),
        (NORTH, {"count": 0}, "count_out_of_range"),
        (NORTH, {"count": 2**50}, "count_out_of_range"),
    ],
)
def test_anchors_that_make_no_sense_are_refused(ledger, who, changes, code):
    assert ledger.submit(who, anchor_of(TREE, **changes)).code == code
    assert not list(ledger.scan(ANCHORS))


def test_anchors_of_one_start_are_bounded(ledger):
    for at in range(0, MOST_ANCHORS, 100):
        ledger.expect(
            NORTH, *[anchor_of(TREE, count=1, root=number.to_bytes(32, "big")) for number in range(at, at + 100)]
        )
    assert ledger.submit(NORTH, anchor_of(TREE)).code == "too_many_anchors"


def test_a_difference_says_which_side_the_device_has_signed(ledger):
    ledger.expect(NORTH, anchor_of(TREE))
    ledger.expect(SOUTH, anchor_of(FORGED))
    ledger.expect(ANN, shown(FORGED))
    ((name, difference),) = ledger.scan(DIFFERENCES)
    assert name == (DEVICES[3].public, START, NORTH.public, SOUTH.public)
    assert (difference.first.value, difference.second.value) == (30, 999)
    assert (difference.first.signed, difference.second.signed) == (False, False)
    # evidence that came without signatures makes way for better evidence, and for nothing else
    assert ledger.submit(ANN, shown(FORGED)).code == "already_shown"
    ledger.expect(ANN, shown(FORGED, (signature_over(30), signature_over(30))))
    ((_, difference),) = ledger.scan(DIFFERENCES)
    assert (difference.first.signed, difference.second.signed) == (True, False)
    assert ledger.submit(ANN, shown(FORGED, (b"", signature_over(999)))).code == "already_shown"


def test_a_reading_that_one_side_suppresses_is_a_difference(ledger):
    ledger.expect(NORTH, anchor_of(TREE))
    ledger.expect(SOUTH, anchor_of(LACKING))
    ledger.expect(ANN, shown(LACKING, (signature_over(30), b"")))
    ((_, difference),) = ledger.scan(DIFFERENCES)
    assert (difference.first.present, difference.first.signed) == (True, True)
    assert (difference.second.present, difference.second.value) == (False, 0)


def test_no_difference_can_be_invented(ledger):
    ledger.expect(NORTH, anchor_of(TREE))
    ledger.expect(SOUTH, anchor_of(TREE))
    assert ledger.submit(ANN, shown(FORGED)).code == "proof_does_not_hold"
    assert ledger.submit(ANN, shown(LACKING)).code == "proof_does_not_hold"
    assert ledger.submit(ANN, shown(TREE)).code == "no_difference"
    call = shown(TREE)
    for changes, code in (
        ({"second": call.first}, "not_two_aggregators"),
        ({"second": msgspec.structs.replace(call.second, number=1)}, "no_such_anchor"),
        ({"start": START + QUARTER}, "outside_the_interval"),
        ({"device": DEVICES[4].public}, "proof_does_not_hold"),
        ({"second_proof": msgspec.structs.replace(call.second_proof, siblings=())}, "proof_does_not_hold"),
        ({"second_proof": msgspec.structs.replace(call.second_proof, count=3)}, "proof_does_not_hold"),
    ):
        assert ledger.submit(ANN, msgspec.structs.replace(call, **changes)).code == code
    assert ledger.submit(key("nobody"), call).code == "unknown_wallet"
    assert not list(ledger.scan(DIFFERENCES))
