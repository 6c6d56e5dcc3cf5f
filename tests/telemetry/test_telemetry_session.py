"""Sessions: what a chain of codes bears and what not, in both forms, and lines decided one after the other."""

import json
from array import array
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridpool.agents import edge_aggregator
from gridpool.agents.telemetry import ingest
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
    opening_message,
    plain_check_codes,
)
from gridpool.contracts.records_tree import Reading, reading_message, reading_row
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


@pytest.mark.skipif(native is None, reason="not compiled here: get a C compiler, then make venv")
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


def test_openings_and_codes_are_decided_in_the_order_of_their_lines(tmp_path: Path) -> None:
    """A name may be opened once what stood under it turned out to be forged, and codes in between find nothing."""
    hub, device, other = (KeyPair(bytes([number]) * 32) for number in (1, 2, 3))
    unsound = bytes(32)

    def opening(key: KeyPair, *, device: bytes | None = None, forged: bool = False) -> dict[str, Any]:
        public, session = device or key.public, bytes(16)
        signature = key.sign(opening_message(public, hub.public, session, 5 + forged))
        return {"device": public.hex(), "start": 5, "session": session.hex(), "aggregator": hub.public.hex(),
                "signature": signature.hex()}  # fmt: skip

    def code(key: KeyPair, sender: SessionSender, start: int) -> dict[str, Any]:
        row = reading_row(Reading(key.public, start, 7))
        sequence, mac = sender.authenticate(row)
        return {"device": key.public.hex(), "start": start, "value": 7, "session": sender.session.hex(),
                "sequence": sequence, "mac": mac.hex()}  # fmt: skip

    sender, second = SessionSender(device, hub.public, bytes(16)), SessionSender(other, hub.public, bytes(16))
    first = code(device, sender, 1)
    lines = [
        opening(device, forged=True),
        first,
        first | {"mac": "short"},
        opening(device, forged=True),
        opening(device),
        first,
        opening(device),
        first | {"mac": "zz" * 16},
        opening(other, forged=True),
        code(other, second, 1) | {"sequence": None},
        opening(other, device=unsound),
        code(device, sender, 2),
        code(device, sender, 3),
    ]
    path = tmp_path / "lines.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    answers = [ingest(path, key=hub, threads=threads).gathered for threads in (0, 1)]
    assert answers[0].refusals == answers[1].refusals
    malformed = "malformed: it lacks a sequence number or its mac has not 32 hexadecimal digits"
    assert {refusal.line: refusal.reason for refusal in answers[0].refusals} == {
        1: "signature does not hold",
        2: "session was not opened",
        3: "session was not opened",
        4: "signature does not hold",
        7: "session is open already",
        8: malformed,
        9: "signature does not hold",
        10: "session was not opened",
        11: "signature does not hold",
    }
    assert [(answer.readings, answer.accepted, answer.refused, answer.sessions) for answer in answers] == [
        (7, 3, 4, 1)
    ] * 2


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_every_line_is_decided_as_by_one_chain_a_session(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Codes are checked in chunks; what is refused and why is what a reader of one line after the other would say."""
    hub = KeyPair(bytes([9]) * 32)
    keys = [KeyPair(bytes([number]) * 32) for number in range(1, 4)]
    senders = [SessionSender(key, hub.public, bytes(16)) for key in keys]
    lines, wanted, moved, opened, start = [], {}, [0, 0, 0], [False] * 3, 0
    for number in range(1, data.draw(st.integers(1, 60)) + 1):
        which = data.draw(st.integers(0, 2))
        key, sender = keys[which], senders[which]
        start += 1
        common = {"device": key.public.hex(), "start": start, "session": bytes(16).hex()}
        kind = data.draw(
            st.sampled_from(("open", "forge", "read", "read", "read", "lose", "alter", "replay", "sign", "missign"))
        )
        if kind in ("open", "forge"):
            said = opening_message(key.public, hub.public, bytes(16), start + (kind == "forge"))
            lines.append(common | {"aggregator": hub.public.hex(), "signature": key.sign(said).hex()})
            if opened[which]:
                wanted[number] = "session is open already"
            elif kind == "forge":
                wanted[number] = "signature does not hold"
            else:
                opened[which] = True
            continue
        row = reading_row(Reading(key.public, start, number))
        if kind in ("sign", "missign"):
            signature = key.sign(reading_message(row) + b"x" * (kind == "missign"))
            lines.append({"device": key.public.hex(), "start": start, "value": number, "signature": signature.hex()})
            if kind == "missign":
                wanted[number] = "signature does not hold"
            continue
        if kind == "lose":
            for _ in range(data.draw(st.sampled_from((1, MOST_LOST, MOST_LOST + 1)))):
                sender.authenticate(row)
        sequence, mac = sender.authenticate(row)
        if kind == "alter":
            mac = bytes([mac[0] ^ 1]) + mac[1:]
        elif kind == "replay":
            sequence = max(0, sequence - 1 - data.draw(st.integers(0, 3)))
        lines.append(common | {"value": number, "sequence": sequence, "mac": mac.hex()})
        if not opened[which]:
            wanted[number] = "session was not opened"
        elif sequence < moved[which]:
            wanted[number] = "repeats or comes late: the session has moved on"
        elif sequence - moved[which] > MOST_LOST:
            wanted[number] = f"more than {MOST_LOST} readings of the session are missing before it"
        elif kind == "alter" or (kind == "replay" and sequence != sender._next - 1):
            wanted[number] = "code does not hold"
        else:
            moved[which] = sequence + 1
    path = tmp_path_factory.mktemp("lines") / "lines.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    chunk = data.draw(st.sampled_from((1, 2, 7, 1_024)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(edge_aggregator, "CHUNK", chunk)
        gathered = ingest(path, key=hub, threads=0).gathered
    assert {refusal.line: refusal.reason for refusal in gathered.refusals} == wanted
