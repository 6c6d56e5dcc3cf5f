"""The ledger over its store: whole heights, replay, rollback, and every changed byte found."""

from pathlib import Path

import lmdb
import msgspec
import pytest
from toy_contract import ALICE, BOB, COUNTS, GENESIS, NODE, TOY, Add, AddLater, Count, Fail, Remove, SetRules, signed

from gridpool.errors import RefusedInput
from gridpool.ledger.block import application_hash, signature_holds
from gridpool.ledger.chain import Ledger
from gridpool.ledger.contract import NONCES, Number, Refused
from gridpool.ledger.execution import Block, ContractFault
from gridpool.ledger.rules import Rules
from gridpool.ledger.store import TABLES, Store
from gridpool.ledger.transaction import Malformed
from gridpool.ledger.tree import reference_root
from gridpool.ledger.verification import verify_ledger


def grow(ledger: Ledger, *transactions: bytes, time_ms: int | None = None) -> None:
    height = ledger.height + 1
    block = Block(height, ledger.head.header.time_ms + 1_000 if time_ms is None else time_ms, transactions)
    ledger.commit(ledger.execute(block))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "ledger"
    with Ledger.create(path, GENESIS, TOY, signer=NODE) as ledger:
        grow(ledger, signed(ALICE, 1, Add("a", 1), AddLater(2_500, 7)).wire, signed(BOB, 1, Add("b", 13)).wire)
        grow(ledger, b"rubbish", signed(ALICE, 2, Add("a", 4)).wire, signed(BOB, 2, Add("b", 2)).wire)
        grow(ledger, signed(ALICE, 3, Remove("a")).wire)
    return path


def test_a_ledger_comes_back_as_it_was(folder: Path) -> None:
    with Ledger.open(folder, TOY, signer=NODE) as ledger, ledger.view() as view:
        assert ledger.height == view.height == 3
        assert view.state.get(COUNTS, (BOB.public, "b")) == Count(2)
        assert view.state.get(COUNTS, (ALICE.public, "a")) is None
        assert [key for key, _ in view.state.scan(COUNTS)] == [(bytes(32), "7"), (BOB.public, "b")]
        assert [key for key, _ in view.state.scan(COUNTS, reverse=True)] == [(BOB.public, "b"), (bytes(32), "7")]
        assert [r.code for r in view.receipts(1)] == ["ok", "unlucky"]
        assert [r.code for r in view.receipts(2)] == ["malformed", "ok", "ok", "ok"]
        sent = signed(ALICE, 2, Add("a", 4))
        place = view.find(sent.id)
        assert place is not None
        assert (place.height, place.position) == (2, 1)
        assert view.transactions(2)[1] == sent.wire
        header = view.header(2)
        assert signature_holds(header, NODE.public)
        assert header.header.state_root != view.header(3).header.state_root
        assert view.header(3).header.state_root == reference_root(dict(view.snapshot.items("state")))
        h = header.header
        assert h.app_hash == application_hash(1, h.state_root, h.receipts_root, h.change_hash, h.previous_app_hash)
        assert h.previous_app_hash == view.header(1).header.app_hash
        with pytest.raises(RefusedInput, match="no height 4"):
            view.header(4)


def test_execution_leaves_no_trace_before_commit(folder: Path) -> None:
    before = (folder / "data.mdb").read_bytes()
    with Ledger.open(folder, TOY) as ledger:
        block = Block(4, 9_000, (signed(ALICE, 4, Add("a", 1)).wire,))
        pending = ledger.execute(block)
        assert ledger.execute(block).app_hash == pending.app_hash
        assert ledger.height == 3
    assert (folder / "data.mdb").read_bytes() == before


def test_check_says_what_a_receipt_would(folder: Path) -> None:
    with Ledger.open(folder, TOY) as ledger:
        assert ledger.check(signed(ALICE, 4, Add("a", 1)).wire).body.nonce == 4
        for wire, code in (
            (signed(ALICE, 3, Add("a", 1)).wire, "stale_nonce"),
            (signed(ALICE, 4, Add("a", 1), until=3).wire, "expired"),
            (bytes(64) + signed(ALICE, 4, Add("a", 1)).wire[64:], "bad_signature"),
        ):
            with pytest.raises(Refused) as refusal:
                ledger.check(wire)
            assert refusal.value.code == code
        with pytest.raises(Malformed):
            ledger.check(b"x" * 80)


def test_forged_copy_does_not_hide_the_transaction(folder: Path) -> None:
    good = signed(ALICE, 4, Add("a", 1))
    forged = bytes([good.wire[0] ^ 1]) + good.wire[1:]
    with Ledger.open(folder, TOY, signer=NODE) as ledger:
        grow(ledger, forged)
        grow(ledger, good.wire)
        ledger.rollback()
        assert verify_ledger(folder, TOY).ok
        grow(ledger, good.wire)
        grow(ledger, forged, good.wire)
        with ledger.view() as view:
            receipt = view.receipt(good.id)
            assert receipt is not None
            assert receipt.ok
    assert verify_ledger(folder, TOY).ok


def test_rollback_takes_one_block_back(folder: Path) -> None:
    with Ledger.open(folder, TOY, signer=NODE) as ledger:
        earlier = ledger.app_hash
        grow(ledger, signed(ALICE, 4, Add("a", 1), Add("b", 2)).wire)
        later = ledger.app_hash
        ledger.rollback()
        assert (ledger.height, ledger.app_hash) == (3, earlier)
        with pytest.raises(RefusedInput, match="cannot be taken back"):
            ledger.rollback()
        assert verify_ledger(folder, TOY).ok
        grow(ledger, signed(ALICE, 4, Add("a", 1), Add("b", 2)).wire)
        assert ledger.app_hash == later
    assert verify_ledger(folder, TOY).ok


def test_two_writers_do_not_mix(folder: Path) -> None:
    with Ledger.open(folder, TOY, signer=NODE) as one, Ledger.open(folder, TOY, signer=NODE) as two:
        pending = one.execute(Block(4, 9_000, ()))
        grow(two)
        with pytest.raises(RefusedInput, match="moved on"):
            one.commit(pending)


def test_small_map_grows(tmp_path: Path) -> None:
    with Ledger.create(tmp_path / "l", GENESIS, TOY, signer=NODE, map_size=1 << 17) as ledger:
        for nonce in range(1, 8):
            grow(ledger, signed(ALICE, nonce, *(Add(f"{nonce}-{i}", 1) for i in range(300))).wire)
    result = verify_ledger(tmp_path / "l", TOY)
    assert result.ok
    assert result.height == 7


def test_unknown_rules_stop_the_node_and_say_so(folder: Path) -> None:
    with Ledger.open(folder, TOY, signer=NODE) as ledger:
        grow(ledger, signed(ALICE, 4, SetRules(2, 6)).wire)
        grow(ledger)
        with pytest.raises(RefusedInput, match="height 6 follows rules version 2, this node knows 1"):
            grow(ledger)
    from toy_contract import counter

    both = [TOY, Rules([counter], version=2)]
    with Ledger.open(folder, both, signer=NODE) as ledger:
        grow(ledger)
        assert ledger.head.header.rules_version == 2
    assert verify_ledger(folder, both).ok
    with pytest.raises(RefusedInput, match="upgrade"):
        verify_ledger(folder, TOY)


def test_a_bug_stops_the_node_without_a_trace(folder: Path) -> None:
    with Ledger.open(folder, TOY, signer=NODE) as ledger:
        with pytest.raises(ContractFault, match=r"toy_contract\.fail failed at height 4"):
            grow(ledger, signed(ALICE, 4, Fail()).wire)
        assert ledger.height == 3
    assert verify_ledger(folder, TOY).ok


@pytest.mark.parametrize("name", ["nothing", "empty", "text", "other database", "cut", "zeros", "other chain key"])
def test_anything_but_a_whole_store_is_refused(tmp_path: Path, folder: Path, name: str) -> None:
    path = tmp_path / "other"
    signer = None
    if name != "nothing":
        path.mkdir()
    if name == "text":
        (path / "data.mdb").write_text("hello " * 5_000)
    elif name == "zeros":
        (path / "data.mdb").write_bytes(bytes(65_536))
    elif name == "other database":
        environment = lmdb.open(str(path))
        with environment.begin(write=True) as transaction:
            transaction.put(b"a", b"b")
        environment.close()
    elif name == "cut":
        whole = (folder / "data.mdb").read_bytes()
        (path / "data.mdb").write_bytes(whole[: len(whole) // 2])
    elif name == "other chain key":
        path, signer = folder, ALICE
    with pytest.raises(RefusedInput):
        Ledger.open(path, TOY, signer=signer).close()


def test_taken_folder_is_refused(folder: Path) -> None:
    with pytest.raises(RefusedInput, match="not empty"):
        Ledger.create(folder, GENESIS, TOY)


def live_values(folder: Path) -> list[tuple[str, bytes, bytes]]:
    store = Store.open(folder, writable=False)
    with store.snapshot() as snapshot:
        found = [(table, key, value) for table in TABLES for key, value in snapshot.items(table)]
    store.close()
    return found


def alter(folder: Path, table: str, key: bytes, value: bytes | None) -> None:
    environment = lmdb.open(str(folder), max_dbs=16)
    handle = environment.open_db(table.encode(), create=False)
    with environment.begin(write=True) as transaction:
        if value is None:
            transaction.delete(key, db=handle)
        else:
            transaction.put(key, value, db=handle)
    environment.close()


def flips(value: bytes, every: bool) -> list[int]:
    return list(range(len(value))) if every else sorted({0, len(value) // 3, len(value) // 2, len(value) - 1})


def find_every_flip(folder: Path, every: bool) -> None:
    sound = verify_ledger(folder, TOY)
    assert sound.ok
    values = live_values(folder)
    assert {table for table, _, _ in values} == set(TABLES) - {"base"}
    for table, key, value in values:
        for position in flips(value, every):
            alter(folder, table, key, value[:position] + bytes([value[position] ^ 0x41]) + value[position + 1 :])
            result = verify_ledger(folder, TOY)
            assert not result.ok, (table, key, position)
            assert result.fault is not None
            if table in {"header", "body", "receipt"}:
                assert (result.fault.height, result.fault.table) == (int.from_bytes(key, "big"), table)
            elif table == "state":
                assert result.fault.table == key.partition(b"\0")[0].decode()
            else:
                assert result.fault.table == table
        alter(folder, table, key, value)
    assert verify_ledger(folder, TOY) == sound


def test_verify_finds_changed_bytes_in_every_live_value(folder: Path) -> None:
    find_every_flip(folder, every=False)


@pytest.mark.slow
def test_verify_finds_every_changed_byte_of_every_live_value(folder: Path) -> None:
    find_every_flip(folder, every=True)


def test_verify_finds_lost_and_added_values(folder: Path) -> None:
    for table, key, value in live_values(folder):
        if table in {"meta", "undo"}:
            continue
        alter(folder, table, key, None)
        assert not verify_ledger(folder, TOY).ok, (table, key)
        alter(folder, table, key, value)
        alter(folder, table, key + b"x", value)
        assert not verify_ledger(folder, TOY).ok, (table, key)
        alter(folder, table, key + b"x", None)
    assert verify_ledger(folder, TOY).ok


def test_fault_of_a_state_value_names_table_key_and_the_height_that_wrote_it(folder: Path) -> None:
    key = NONCES.encode_key(BOB.public)
    alter(folder, "state", key, msgspec.msgpack.encode(Number(1)))
    fault = verify_ledger(folder, TOY).fault
    assert fault is not None
    assert (fault.height, fault.table, fault.key) == (2, "ledger.nonce", BOB.public.hex())
