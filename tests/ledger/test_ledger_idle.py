"""Blocks that hold and change nothing keep the application hash; everything that is proved still is."""

import base64
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_contract import ALICE, BOB, CHAIN, COUNTS, NODE, TOY, Add, AddLater, SetRules, counter, signed

from gridpool.errors import VerificationFault
from gridpool.ledger import light
from gridpool.ledger.archive import export_ledger, import_ledger, prune_ledger
from gridpool.ledger.block import Header, SignedHeader, follows, seal
from gridpool.ledger.chain import Ledger
from gridpool.ledger.comparison import compare_ledgers
from gridpool.ledger.contract import CLOCK
from gridpool.ledger.execution import IDLE_CLOCK_MS, Block
from gridpool.ledger.genesis import Genesis
from gridpool.ledger.proof import state_proof, transaction_proof, trust
from gridpool.ledger.rules import Rules
from gridpool.ledger.snapshots import restore_snapshot, write_snapshot
from gridpool.ledger.transaction import Transaction
from gridpool.ledger.types import encode
from gridpool.ledger.verification import verify_ledger
from gridpool.ledger.view import View, height_key

BEGIN = 1_000_000
GENESIS = Genesis(chain=CHAIN, time_ms=BEGIN)
TICKS = Genesis(chain=CHAIN, time_ms=BEGIN, market_clock="ticks", clock_keeper=BOB.public)
SENT = signed(ALICE, 1, Add("n", 5))


def extend(ledger: Ledger, *sent: Transaction, after_ms: int = 1_000) -> Header:
    block = Block(ledger.height + 1, ledger.head.header.time_ms + after_ms, tuple(tx.wire for tx in sent))
    return ledger.commit(ledger.execute(block)).header


def clock(ledger: Ledger) -> int:
    with ledger.view() as view:
        now = view.state.get(CLOCK, "now")
        return 0 if now is None else now.number


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """Heights 1 (a transaction) and 2 to 5 (nothing)."""
    with Ledger.create(tmp_path / "a" / "ledger", GENESIS, TOY, signer=NODE) as made:
        extend(made, SENT)
        for _ in range(4):
            extend(made)
        yield made


def test_idle_blocks_keep_hash_and_clock(ledger: Ledger) -> None:
    with ledger.view() as view:
        headers = [view.header(height).header for height in range(6)]
        assert view.proven_height == 1
        assert view.receipts(5) == ()
    assert [header.idle for header in headers] == [False, False, True, True, True, True]
    assert len({header.app_hash for header in headers[1:]}) == 1
    assert len({header.state_root for header in headers[1:]}) == 1
    assert headers[5].time_ms == BEGIN + 5_000
    assert clock(ledger) == BEGIN + 1_000
    assert all(follows(header, below) for below, header in itertools.pairwise(headers))


def test_due_work_and_a_late_clock_end_the_rest(ledger: Ledger) -> None:
    extend(ledger, signed(ALICE, 2, AddLater(BEGIN + 9_000, 7)))
    assert extend(ledger).idle
    due = extend(ledger, after_ms=3_000)
    assert not due.idle
    with ledger.view() as view:
        held = view.state.get(COUNTS, (bytes(32), "7"))
        assert held is not None
        assert held.number == clock(ledger) == BEGIN + 10_000
        assert len(view.receipts(due.height)) == 1
    assert extend(ledger).idle
    assert extend(ledger, after_ms=IDLE_CLOCK_MS - 2_000).idle
    late = extend(ledger, after_ms=1_000)
    assert not late.idle
    assert clock(ledger) == late.time_ms


def test_a_chain_of_ticks_rests_for_ever(tmp_path: Path) -> None:
    with Ledger.create(tmp_path / "ledger", TICKS, TOY) as ledger:
        first = ledger.app_hash
        for _ in range(3):
            assert extend(ledger, after_ms=10 * IDLE_CLOCK_MS).app_hash == first
        with ledger.view() as view:
            assert view.proven_height == 0


def test_misbehaviour_and_new_rules_are_no_rest(ledger: Ledger) -> None:
    accused = Block(ledger.height + 1, BEGIN + 9_000, (), (BOB.public,))
    assert not ledger.commit(ledger.execute(accused)).header.idle
    known = (TOY, Rules([counter], version=2))
    with Ledger.create(ledger.store.path.with_name("b"), GENESIS, known) as other:
        extend(other, signed(ALICE, 1, SetRules(2, 3)))
        assert [extend(other).idle for _ in range(3)] == [True, False, True]


def test_proofs_stand_under_the_last_header_that_was_not_idle(ledger: Ledger) -> None:
    with ledger.view() as view:
        trusted = trust(view)
        for key in (COUNTS.encode_key((ALICE.public, "n")), COUNTS.encode_key((BOB.public, "none"))):
            answer = light.check(state_proof(view, key), trusted)
            assert (answer["height"], answer["present"]) == (1, view.snapshot.get(key) is not None)
        assert light.check(transaction_proof(view, SENT.id), trusted)["height"] == 1
        rest = view.header(5)
        proof = state_proof(view, COUNTS.encode_key((ALICE.public, "n")))
    # The node itself signed the idle header, and still it proves nothing: its hash does not follow from its fields.
    proof |= {"header": text(encode(rest.header)), "signature": text(rest.signature)}
    with pytest.raises(light.Invalid, match="does not follow from its roots"):
        light.check(proof, trusted)


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.mark.parametrize(
    "change",
    [
        {"state_root": b"s" * 32},
        {"receipts_root": b"r" * 32},
        {"transactions_root": b"t" * 32},
        {"change_hash": b"c" * 32},
        {"misbehaving": (BOB.public,)},
        {"rules_version": 2},
        {"height": 6},
        {"chain": "other"},
        {"app_hash": b"h" * 32},
        {"app_hash": b"h" * 32, "previous_app_hash": b"h" * 32},
    ],
)
def test_forged_rest_is_refused(ledger: Ledger, tmp_path: Path, change: dict[str, Any]) -> None:
    with ledger.view() as view:
        below, header = view.header(4).header, view.header(5).header
        trusted = trust(view)
        proof = state_proof(view, COUNTS.encode_key((ALICE.public, "n")))
        snapshot = tmp_path / "snapshot"
        write_snapshot(view, snapshot)
    forged = msgspec.structs.replace(header, **change)
    assert follows(header, below)
    assert not follows(forged, below)
    # Though the trusted node signs whatever it likes, neither a light client nor a newcomer takes it.
    stolen = seal(forged, NODE)
    with pytest.raises(light.Invalid):
        light.check(proof | {"header": text(encode(forged)), "signature": text(stolen.signature)}, trusted)
    with Ledger.create(tmp_path / "b" / "ledger", GENESIS, TOY, signer=NODE) as other:
        other.store.write(lambda writer: copy_with(writer, ledger, stolen))
        with other.view() as view:
            write_snapshot(view, snapshot)
    with pytest.raises(VerificationFault):
        restore_snapshot(snapshot, tmp_path / "c", TOY)


def copy_with(writer: Any, ledger: Ledger, last: SignedHeader) -> None:
    """Make a store look like another one, but for its last header."""
    with ledger.view() as view:
        for table in ("header", "state", "tree", "body", "receipt", "transaction", "meta"):
            writer.clear(table)
            writer.put_many(table, list(view.snapshot.items(table)))
        writer.put("header", height_key(view.height), encode(last))


def test_everything_else_holds_over_idle_blocks(ledger: Ledger, tmp_path: Path) -> None:
    path = ledger.store.path
    with ledger.view() as view:
        snapshot, archive = tmp_path / "snapshot", tmp_path / "archive.jsonl"
        write_snapshot(view, snapshot)
        export_ledger(view, archive)
    assert verify_ledger(path, TOY).ok
    head = ledger.head
    assert import_ledger(archive, tmp_path / "imported", TOY) == head
    assert restore_snapshot(snapshot, tmp_path / "restored", TOY) == head
    for copy in ("imported", "restored"):
        assert verify_ledger(tmp_path / copy, TOY).ok
    with Ledger.open(tmp_path / "restored", TOY) as restored, restored.view() as view:
        assert view.proven_height == 1
        answer = light.check(state_proof(view, COUNTS.encode_key((ALICE.public, "n"))), trust(view))
        assert answer["present"]
    extend(ledger, signed(ALICE, 2, Add("n", 1)))
    assert ledger.rollback() == head
    assert extend(ledger).idle
    ledger.rollback()
    assert verify_ledger(path, TOY).ok
    extend(ledger, signed(ALICE, 3, Add("n", 1)))
    with Ledger.open(tmp_path / "imported" / "ledger", TOY, signer=NODE) as other:
        extend(other)
    difference = compare_ledgers(path, tmp_path / "imported", TOY)
    assert (difference.equal, difference.height) == (False, 6)
    prune_ledger(path, TOY, keep=2)
    assert verify_ledger(path, TOY).ok


@given(st.lists(st.booleans(), max_size=30))
@settings(max_examples=40, deadline=None)
def test_proven_height_is_the_last_with_work(busy: list[bool]) -> None:
    class Headers(View):
        def __init__(self) -> None:
            self.made = [header(0, b"g", b"0")]
            for height, work in enumerate(busy, 1):
                last = self.made[-1].app_hash
                self.made.append(header(height, last, bytes([height]) if work else last))

        @property
        def height(self) -> int:
            return len(busy)

        def header(self, height: int) -> SignedHeader:
            return SignedHeader(self.made[height], b"")

    def header(height: int, previous: bytes, app_hash: bytes) -> Header:
        return Header(CHAIN, height, 0, 1, b"", b"", b"", previous, app_hash, b"")

    expected = max((height for height, work in enumerate(busy, 1) if work), default=0)
    assert Headers().proven_height == expected
