"""Transactions, bundles, delegation, due work and market time on a toy contract."""

from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridpool.ledger import state
from gridpool.ledger.clock import AdvanceClock
from gridpool.ledger.contract import NONCES, Context, Contract
from gridpool.ledger.execution import ContractFault
from gridpool.ledger.genesis import Genesis
from gridpool.ledger.keys import KeyPair
from gridpool.ledger.rehearsal import BrokenInvariant, Rehearsal
from gridpool.ledger.rules import Rules
from gridpool.ledger.state import Layer, MemoryReader, RememberingReader, State
from gridpool.ledger.table import Table
from gridpool.ledger.transaction import delegate, sign
from gridpool.ledger.types import Call, Due, Event, Natural, Value

toy = Contract("toy")


class Count(Value):
    number: Natural


class Add(Call, tag="toy.add"):
    name: str
    number: Natural


class AddLater(Call, tag="toy.add_later"):
    at: Natural
    number: Natural


class Burst(Call, tag="toy.burst"):
    pass


class Fall(Due, tag="toy.fall"):
    number: Natural


@toy.event
class Added(Event, tag="toy.added"):
    number: Natural


COUNTS = toy.table("count", key=(bytes, str), value=Count)


@toy.call(Add)
def add(ctx: Context, call: Add) -> None:
    if call.number == 13:
        ctx.refuse("unlucky")
    old = ctx.get(COUNTS, (ctx.sender, call.name))
    ctx.put(COUNTS, (ctx.sender, call.name), Count((old.number if old else 0) + call.number))
    ctx.emit(Added(call.number))


@toy.call(AddLater)
def add_later(ctx: Context, call: AddLater) -> None:
    ctx.schedule(call.at, Fall(call.number))


@toy.call(Burst)
def burst(ctx: Context, call: Burst) -> None:
    raise KeyError("bug")


@toy.due(Fall)
def fall(ctx: Context, due: Fall) -> None:
    ctx.put(COUNTS, (bytes(32), "due"), Count(due.number))
    ctx.put(COUNTS, (bytes(32), str(due.number)), Count(ctx.now))


@toy.invariant
def no_count_is_666(state: State) -> bool:
    return all(count.number != 666 for _, count in state.scan(COUNTS))


ALICE, BOB, KEEPER = KeyPair(bytes([1]) * 32), KeyPair(bytes([2]) * 32), KeyPair(bytes([3]) * 32)


@pytest.fixture
def chain() -> Rehearsal:
    genesis = Genesis(chain="toy-1", time_ms=1000, market_clock="ticks", clock_keeper=KEEPER.public, max_step_ms=500)
    return Rehearsal(Rules([toy]), genesis, clock_keeper=KEEPER)


def count(chain: Rehearsal, key: KeyPair, name: str = "n") -> int:
    value = chain.get(COUNTS, (key.public, name))
    return value.number if value else 0


def test_atomic_bundle_undoes_everything_but_the_nonce(chain: Rehearsal) -> None:
    receipt = chain.submit(ALICE, Add("n", 1), Add("n", 13))
    assert receipt.code == "unlucky"
    assert receipt.info.startswith("call 1")
    assert count(chain, ALICE) == 0
    nonce = chain.get(NONCES, ALICE.public)
    assert nonce is not None
    assert nonce.number == 1


def test_bundle_in_mode_each_undoes_only_the_bad_call(chain: Rehearsal) -> None:
    receipt = chain.submit(ALICE, Add("n", 1), Add("n", 13), Add("n", 5), mode="each")
    assert [result.code for result in receipt.results] == ["ok", "unlucky", "ok"]
    assert count(chain, ALICE) == 6
    assert len(receipt.events) == 2


def test_replay_stale_chain_and_expiry_are_refused(chain: Rehearsal) -> None:
    first = chain.sign(ALICE, Add("n", 1))
    assert [r.code for r in chain.seal([first, first])] == ["ok", "stale_nonce"]
    elsewhere = sign(ALICE, "toy-2", 9, 99, [Add("n", 1)])
    late = sign(ALICE, "toy-1", 9, 1, [Add("n", 1)])
    assert [r.code for r in chain.seal([elsewhere, late])] == ["wrong_chain", "expired"]
    assert count(chain, ALICE) == 1


def test_forged_signature_is_refused_even_after_the_original_was_accepted(chain: Rehearsal) -> None:
    good = chain.sign(ALICE, Add("n", 1))
    forged = bytes([good.wire[0] ^ 1]) + good.wire[1:]
    codes = [r.code for r in chain.carry_out([good.wire, forged, b"", b"x" * 99]).receipts]
    assert codes == ["ok", "bad_signature", "malformed", "malformed"]


def test_delegated_call_acts_for_its_signer_once(chain: Rehearsal) -> None:
    carried = delegate(BOB, "toy-1", 1, 10, Add("n", 4))
    assert chain.submit(ALICE, carried).ok
    assert count(chain, BOB) == 4
    assert chain.submit(ALICE, carried).code == "stale_delegation"
    foreign = delegate(BOB, "toy-9", 2, 10, Add("n", 4))
    assert chain.submit(ALICE, foreign).code == "bad_signature"


def test_due_work_runs_in_order_when_market_time_reaches_it(chain: Rehearsal) -> None:
    chain.expect(ALICE, AddLater(1400, 7), AddLater(1200, 8), AddLater(1200, 8))
    chain.advance(1100)
    assert chain.get(COUNTS, (bytes(32), "due")) is None
    chain.advance(2000)
    assert chain.get(COUNTS, (bytes(32), "due")) == Count(7)
    assert chain.get(COUNTS, (bytes(32), "8")) == Count(1600)


def test_clock_obeys_its_keeper_within_the_step(chain: Rehearsal) -> None:
    assert chain.submit(ALICE, AdvanceClock(1100)).code == "not_the_clock_keeper"
    assert chain.submit(KEEPER, AdvanceClock(1000)).code == "clock_moves_forward"
    assert chain.submit(KEEPER, AdvanceClock(1501)).code == "step_too_long"


def test_bug_in_a_contract_stops_the_node_and_broken_promise_is_seen(chain: Rehearsal) -> None:
    with pytest.raises(ContractFault, match="burst"):
        chain.submit(ALICE, Burst())
    with pytest.raises(BrokenInvariant, match="no_count_is_666"):
        chain.submit(BOB, Add("n", 666))


parts = st.tuples(
    st.binary(max_size=4),
    st.integers(0, 2**64 - 1),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=4),
)


@given(st.lists(parts, max_size=30), parts)
def test_keys_keep_order_and_come_back(keys: list[tuple[bytes, int, str]], other: tuple[bytes, int, str]) -> None:
    table: Table[tuple[bytes, int, str], Count] = Table("t", (bytes, int, str), Count)
    ordered = sorted(keys, key=lambda k: (k[0], k[1], k[2].encode()))
    assert sorted(keys, key=table.encode_key) == ordered
    for key in keys:
        assert table.decode_key(table.encode_key(key)) == key
        assert table.parse_key(table.key_text(key)) == key


operations = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 30), st.none() | st.integers(0, 9)), max_size=60)


class CountingReader(MemoryReader):
    def __init__(self, pairs: dict[bytes, bytes]) -> None:
        super().__init__(pairs)
        self.asked: list[bytes] = []

    def get(self, key: bytes) -> bytes | None:
        self.asked.append(key)
        return super().get(key)


@given(st.lists(st.integers(0, 9)), st.integers(1, 10))
def test_a_remembering_reader_asks_again_only_for_what_its_bound_made_it_forget(asked: list[int], bound: int) -> None:
    pairs = {b"t\0%d" % number: b"%d" % number for number in range(6)}
    beneath = CountingReader(pairs)
    reader = RememberingReader(beneath)
    held: set[int] = set()
    expected = []
    with patch.object(state, "MOST_REMEMBERED", bound):
        for number in asked:
            assert reader.get(b"t\0%d" % number) == pairs.get(b"t\0%d" % number)
            if number not in held:
                held = {number} if len(held) == bound else held | {number}
                expected.append(b"t\0%d" % number)
    assert beneath.asked == expected
    assert list(reader.scan(b"t\0", b"", True)) == sorted(pairs.items(), reverse=True)


@given(operations, st.booleans(), st.none() | st.integers(0, 30))
def test_scan_through_layers_equals_a_dictionary(
    ops: list[tuple[int, int, int | None]], reverse: bool, start: int | None
) -> None:
    table: Table[int, Count] = Table("t", int, Count)
    reader, middle, top = MemoryReader(), Layer(), Layer()
    model: dict[int, int | None] = {}
    for level in range(3):
        for where, key, value in ops:
            if where != level:
                continue
            new = None if value is None else Count(value)
            if level == 0:
                base = Layer()
                base.put(table, key, new)
                reader.apply(base.encoded())
            else:
                list(State(reader, (top, middle)).scan(table, limit=2))
                (middle if level == 1 else top).put(table, key, new)
            model[key] = value
    expected = sorted(((k, v) for k, v in model.items() if v is not None), reverse=reverse)
    if start is not None:
        expected = [(k, v) for k, v in expected if (k <= start if reverse else k >= start)]
    seen = [(k, v.number) for k, v in State(reader, (top, middle)).scan(table, start=start, reverse=reverse)]
    assert seen == expected
    middle.merge(top)
    assert [(k, v.number) for k, v in State(reader, (middle,)).scan(table, start=start, reverse=reverse)] == expected
