"""Chains of codes: what they bear and what not, in compiled form as in plain Python."""

from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridpool.agents.telemetry_session import (
    CHAIN_BYTES,
    HOLDS,
    LATE,
    MOST_LOST,
    NOT_OPENED,
    TOO_MANY_LOST,
    WRONG,
    SessionReceivers,
    SessionSender,
    first_key,
    plain_check_codes,
)
from gridpool.ledger.compiled import native
from gridpool.ledger.keys import KeyPair

HUB, DEVICE = KeyPair(b"h" * 32), KeyPair(b"d" * 32)
Sent = tuple[int, bytes]


def opened(hub: KeyPair = HUB) -> SessionReceivers:
    receivers = SessionReceivers()
    receivers.open(receivers.reserve(), first_key(hub, DEVICE.public, DEVICE.public, hub.public, bytes(16)))
    return receivers


def verdict(receivers: SessionReceivers, row: bytes, sent: Sent, number: int = 0) -> int:
    """Take one reading in compiled and in plain form."""
    sequence, mac = sent
    chains = bytearray(receivers._chains)
    plain = plain_check_codes(
        chains, row, array("I", [number]).tobytes(), array("Q", [sequence]).tobytes(), mac, MOST_LOST
    )
    answer = receivers.verdicts(row, array("I", [number]), array("Q", [sequence]), mac)
    assert (answer, receivers._chains) == (plain, chains)
    return answer[0]


def test_a_chain_bears_losses_up_to_its_bound_and_no_going_back() -> None:
    sender, receivers = SessionSender(DEVICE, HUB.public, bytes(16)), opened()
    rows = [number.to_bytes(48, "big") for number in range(2 * MOST_LOST + 4)]
    sent = [sender.authenticate(row) for row in rows]
    assert verdict(receivers, rows[0], sent[0]) == HOLDS
    assert verdict(receivers, rows[MOST_LOST + 2], sent[MOST_LOST + 2]) == TOO_MANY_LOST
    assert verdict(receivers, rows[MOST_LOST + 1], sent[MOST_LOST + 1]) == HOLDS
    assert verdict(receivers, rows[1], sent[1]) == LATE
    assert verdict(opened(KeyPair(b"x" * 32)), rows[0], sent[0]) == WRONG
    # what the device holds now does not lead back to what it held before
    late = SessionReceivers()
    late.open(late.reserve(), bytes(receivers._chains[:32]))
    assert verdict(late, rows[0], sent[0]) == WRONG


def test_no_code_holds_before_its_session_is_open_and_numbers_are_used_again() -> None:
    receivers = SessionReceivers()
    numbers = [receivers.reserve() for _ in range(3)]
    row = bytes(48)
    for sequence in (0, 2**62, 2**64 - 1):
        assert verdict(receivers, row, (sequence, bytes(16)), numbers[1]) == NOT_OPENED
    receivers.give_back(numbers[1:2])
    assert receivers.reserve() == numbers[1]
    assert len(receivers._chains) == 3 * CHAIN_BYTES


@given(data=st.data())
def test_both_forms_agree_on_any_readings_of_any_sessions(data: st.DataObject) -> None:
    receivers = SessionReceivers()
    keys = data.draw(st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=3))
    senders = []
    for key in keys:
        number = receivers.reserve()
        sender = SessionSender(DEVICE, HUB.public, bytes(16))
        sender._key = key
        senders.append(sender)
        if data.draw(st.booleans()):
            receivers.open(number, key)
    rows, sessions, sequences, macs = b"", array("I"), array("Q"), b""
    for _ in range(data.draw(st.integers(0, 12))):
        which = data.draw(st.integers(0, len(keys) - 1))
        row = data.draw(st.binary(min_size=48, max_size=48))
        for _ in range(data.draw(st.sampled_from((0, 0, 0, 1, 5)))):
            senders[which].authenticate(row)
        sequence, mac = senders[which].authenticate(row)
        spoil = data.draw(st.sampled_from(("", "", "mac", "sequence")))
        if spoil == "mac":
            mac = data.draw(st.binary(min_size=16, max_size=16))
        elif spoil == "sequence":
            sequence = data.draw(st.one_of(st.integers(0, 20), st.integers(2**63, 2**64 - 1)))
        rows += row
        macs += mac
        sessions.append(which)
        sequences.append(sequence)
    chains = bytearray(receivers._chains)
    plain = plain_check_codes(chains, rows, sessions.tobytes(), sequences.tobytes(), macs, MOST_LOST)
    assert receivers.verdicts(rows, sessions, sequences, macs) == plain
    assert receivers._chains == chains


@pytest.mark.skipif(native is None, reason="no compiled form here")
def test_the_compiled_form_takes_nothing_but_what_it_can_bound() -> None:
    assert native is not None
    chains = bytearray(2 * CHAIN_BYTES)
    one, sequence = array("I", [1]).tobytes(), bytes(8)
    assert len(native.check_codes(chains, bytes(48), one, sequence, bytes(16), 256)) == 1
    for wrong in (
        (chains, bytes(47), one, sequence, bytes(16), 256),
        (chains, bytes(96), one, sequence, bytes(16), 256),
        (chains, bytes(48), one[:3], sequence, bytes(16), 256),
        (chains, bytes(48), one, sequence[:7], bytes(16), 256),
        (chains, bytes(48), one, sequence, bytes(15), 256),
        (chains, bytes(48), one, sequence, bytes(16), -1),
        (chains, bytes(48), array("I", [2]).tobytes(), sequence, bytes(16), 256),
        (chains, bytes(48), array("I", [2**32 - 1]).tobytes(), sequence, bytes(16), 256),
        (bytearray(CHAIN_BYTES), bytes(48), one, sequence, bytes(16), 256),
        (bytearray(CHAIN_BYTES + 1), bytes(48), bytes(4), sequence, bytes(16), 256),
    ):
        with pytest.raises(ValueError, match="session"):
            native.check_codes(*wrong)
    with pytest.raises((TypeError, BufferError)):
        native.check_codes(bytes(CHAIN_BYTES), bytes(48), bytes(4), sequence, bytes(16), 256)  # type: ignore[arg-type]
