"""The ledger behind ABCI, question by question: what correct and faulty proposers and peers may and may not do."""

import hashlib
import socket
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridpool.contracts import RULES, coins, members
from gridpool.contracts.members import FoundingMember, MemberParameters, NewSeat, Role
from gridpool.contracts.validators import NamedKey, NamedNode, ValidatorParameters, admits
from gridpool.engines.abci import abci_pb2 as pb
from gridpool.engines.abci.application import Application, write_app_state
from gridpool.engines.abci.snapshots import FORMAT
from gridpool.engines.cometbft import CometBFT
from gridpool.engines.engine import MAX_TRANSACTIONS
from gridpool.errors import RefusedInput
from gridpool.ledger.contract import VALIDATORS
from gridpool.ledger.genesis import Genesis
from gridpool.ledger.keys import KeyPair
from gridpool.ledger.snapshots import Manifest
from gridpool.ledger.transaction import sign
from gridpool.ledger.types import decode, encode

ALICE, BOB, VALIDATOR, OTHER = (KeyPair(bytes([i]) * 32) for i in range(1, 5))
GENESIS = Genesis(
    chain="abci-1",
    time_ms=1_000,
    validators=((VALIDATOR.public, 10), (OTHER.public, 10)),
    parameters=(
        (
            "members",
            encode(
                MemberParameters(
                    seats=(NewSeat(ALICE.public, "alice"),),
                    founders=(
                        FoundingMember(ALICE.public, "alice", (Role.PROSUMER,)),
                        FoundingMember(BOB.public, "bob", (Role.PROSUMER,)),
                    ),
                )
            ),
        ),
        ("coins", encode(coins.CoinParameters((coins.Payment(ALICE.public, 1_000),)))),
        (
            "validators",
            encode(
                ValidatorParameters(
                    owners=(NamedKey(VALIDATOR.public, "v"), NamedKey(OTHER.public, "o")),
                    nodes=(NamedNode("ab" * 20, "v"),),
                )
            ),
        ),
    ),
)


def begun(path: Path, **options: Any) -> Application:
    application = Application(path / "ledger", RULES, **options)
    request = pb.RequestInitChain(
        chain_id="abci-1", app_state_bytes=b'"' + write_app_state(GENESIS).encode() + b'"', initial_height=1
    )
    application.answer(pb.Request(init_chain=request))
    return application


def transfer(nonce: int, amount: int = 1) -> bytes:
    return sign(ALICE, "abci-1", nonce, 99, [coins.Transfer(BOB.public, amount)]).wire


def finalize(application: Application, height: int, *wires: bytes, **more: Any) -> Any:
    request = pb.RequestFinalizeBlock(height=height, txs=wires, **more)
    request.time.FromMilliseconds(2_000 + height)
    answer = application.answer(pb.Request(finalize_block=request))
    assert isinstance(answer, bytes)
    return pb.Response.FromString(answer).finalize_block


def commit(application: Application) -> None:
    application.answer(pb.Request(commit=pb.RequestCommit()))


def test_genesis_may_come_twice_and_only_its_own(tmp_path: Path) -> None:
    application = begun(tmp_path)
    first = application.ledger.app_hash if application.ledger else b""
    request = pb.RequestInitChain(chain_id="abci-1", app_state_bytes=b'"' + write_app_state(GENESIS).encode() + b'"')
    answer = application.answer(pb.Request(init_chain=request)).init_chain
    assert answer.app_hash == first
    assert {update.pub_key.ed25519 for update in answer.validators} == {VALIDATOR.public, OTHER.public}
    with pytest.raises(RefusedInput, match="the engine runs other"):
        application.answer(
            pb.Request(init_chain=pb.RequestInitChain(chain_id="other", app_state_bytes=request.app_state_bytes))
        )
    application.close()


def test_nothing_is_durable_before_commit_and_a_block_may_be_finalized_again(tmp_path: Path) -> None:
    application = begun(tmp_path)
    first = finalize(application, 1, transfer(1))
    info = application.answer(pb.Request(info=pb.RequestInfo())).info
    assert info.last_block_height == 0
    again = finalize(application, 1, transfer(1))
    assert again.app_hash == first.app_hash
    commit(application)
    info = application.answer(pb.Request(info=pb.RequestInfo())).info
    assert (info.last_block_height, info.last_block_app_hash) == (1, first.app_hash)
    with pytest.raises(RefusedInput, match="does not follow"):
        finalize(application, 3)
    application.close()
    reopened = Application(tmp_path / "ledger", RULES)
    assert reopened.answer(pb.Request(info=pb.RequestInfo())).info.last_block_app_hash == first.app_hash
    reopened.close()


def test_what_waits_is_told_though_the_engine_stands_still(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        engine = CometBFT(tmp_path, RULES, rpc_port=silent.getsockname()[1])
        begin = time.monotonic()
        assert engine.waiting == 0
        assert time.monotonic() - begin < 5
        engine.close()


@pytest.mark.parametrize(("kept", "from_height"), [(0, [0, 0, 0, 0]), (1, [1, 2, 3, 4]), (3, [0, 0, 1, 2])])
def test_the_engine_is_told_from_which_block_on_it_must_keep_them(
    tmp_path: Path, kept: int, from_height: list[int]
) -> None:
    application = begun(tmp_path, retain_blocks=kept)
    told = []
    for height in range(1, 5):
        finalize(application, height)
        told.append(application.answer(pb.Request(commit=pb.RequestCommit())).commit.retain_height)
    assert told == from_height
    application.close()


def test_results_tell_codes_that_do_not_depend_on_the_node(tmp_path: Path) -> None:
    application = begun(tmp_path)
    answer = finalize(application, 1, transfer(1), transfer(2, amount=10**9), b"junk")
    assert [result.code for result in answer.tx_results] == [0, 1, 1]
    assert [result.codespace for result in answer.tx_results] == ["", "not_enough_coins", "malformed"]
    application.close()


def test_what_a_correct_proposer_builds_every_node_accepts(tmp_path: Path) -> None:
    application = begun(tmp_path)
    good, forged = transfer(1), bytearray(transfer(2))
    forged[0] ^= 1
    pool = [good, bytes(forged), good, b"junk", transfer(3)]
    request = pb.Request(prepare_proposal=pb.RequestPrepareProposal(max_tx_bytes=10_000, txs=pool, height=1))
    answer = application.answer(request)
    assert list(answer.prepare_proposal.txs) == [good, transfer(3)]
    assert accepts(application, list(answer.prepare_proposal.txs))
    small = pb.Request(prepare_proposal=pb.RequestPrepareProposal(max_tx_bytes=len(good) + 10, txs=pool, height=1))
    assert list(application.answer(small).prepare_proposal.txs) == [good]
    empty = application.answer(pb.Request(prepare_proposal=pb.RequestPrepareProposal(max_tx_bytes=10, height=1)))
    assert empty.WhichOneof("value") == "prepare_proposal", "an answer without its member stops the engine"
    application.close()


def test_backlog_is_proposed_in_several_blocks_in_its_order(tmp_path: Path) -> None:
    application = begun(tmp_path)
    pool = [transfer(nonce) for nonce in range(1, MAX_TRANSACTIONS + 4)]
    request = pb.Request(prepare_proposal=pb.RequestPrepareProposal(max_tx_bytes=4 << 20, txs=pool, height=1))
    assert list(application.answer(request).prepare_proposal.txs) == pool[:MAX_TRANSACTIONS]
    application.close()


def test_faulty_proposals_are_rejected(tmp_path: Path) -> None:
    application = begun(tmp_path)
    good, forged = transfer(1), bytearray(transfer(2))
    forged[70] ^= 1
    assert accepts(application, [good])
    for bad in ([b""], [b"junk"], [bytes(forged)], [good, good], [good + b"\0"]):
        assert not accepts(application, bad)
    application.close()


def accepts(application: Application, wires: list[bytes]) -> bool:
    request = pb.Request(process_proposal=pb.RequestProcessProposal(txs=wires, height=1))
    return bool(application.answer(request).process_proposal.status == pb.ResponseProcessProposal.ACCEPT)


def test_mempool_check_names_what_is_wrong(tmp_path: Path) -> None:
    application = begun(tmp_path)
    forged = bytearray(transfer(1))
    forged[0] ^= 1
    for wire, code in ((transfer(1), ""), (b"junk", "malformed"), (transfer(0), ""), (bytes(forged), "bad_signature")):
        assert checked(application, wire).codespace == code
        assert checked(application, wire).code == bool(code)
    application.close()


def checked(application: Application, wire: bytes) -> Any:
    return pb.Response.FromString(application.check([wire])[0]).check_tx


def test_mempool_check_follows_the_blocks(tmp_path: Path) -> None:
    application = begun(tmp_path)
    assert checked(application, transfer(1)).code == 0
    finalize(application, 1, transfer(1))
    assert checked(application, transfer(1)).code == 0, "nothing is committed yet"
    commit(application)
    assert checked(application, transfer(1)).codespace == "stale_nonce"
    assert checked(application, transfer(2)).code == 0
    for height in range(2, 102):
        finalize(application, height)
        commit(application)
    assert checked(application, transfer(2)).codespace == "expired"
    application.close()


def test_store_grows_though_checks_hold_its_state_open(tmp_path: Path) -> None:
    genesis_only = begun(tmp_path)
    genesis_only.close()
    application = Application(tmp_path / "ledger", RULES)
    ledger = application.ledger
    assert ledger is not None
    environment = ledger.store._core.environment
    environment.set_mapsize(ledger.store.path.joinpath("data.mdb").stat().st_size)
    before = environment.info()["map_size"]
    for height in range(1, 30):
        assert checked(application, transfer(height)).code == 0
        finalize(application, height, transfer(height))
        commit(application)
    assert environment.info()["map_size"] > before
    application.close()


def test_misbehaviour_takes_the_vote_in_the_same_block(tmp_path: Path) -> None:
    from gridpool.engines.cometbft_files import validator_address

    application = begun(tmp_path)
    culprit = pb.Misbehavior(
        type=pb.DUPLICATE_VOTE, validator=pb.Validator(address=validator_address(OTHER.public), power=10), height=1
    )
    answer = finalize(application, 1, misbehavior=[culprit, culprit])
    assert [(u.pub_key.ed25519, u.power) for u in answer.validator_updates] == [(OTHER.public, 0)]
    commit(application)
    assert application.ledger is not None
    assert application.ledger.head.header.misbehaving == (OTHER.public,)
    with application.ledger.view() as view:
        held = view.state.get(VALIDATORS, OTHER.public)
        assert held is not None
        assert held.power == 0
    application.close()


def test_only_members_nodes_may_connect(tmp_path: Path) -> None:
    application = begun(tmp_path, admits=admits)

    def code(path: str) -> int:
        return int(application.answer(pb.Request(query=pb.RequestQuery(path=path))).query.code)

    assert code(f"/p2p/filter/id/{'ab' * 20}") == 0
    assert code(f"/p2p/filter/id/{'cd' * 20}") == 1
    assert code("/p2p/filter/addr/127.0.0.1:1") == 0
    assert code("/anything") == 1
    application.close()


def test_new_node_starts_from_a_snapshot_and_refuses_an_altered_one(tmp_path: Path) -> None:
    old = begun(tmp_path / "old", snapshot_interval=3)
    for height in range(1, 5):
        finalize(old, height, transfer(height))
        commit(old)
        if height == 3:
            old._shelf.wait()
    offers = old.answer(pb.Request(list_snapshots=pb.RequestListSnapshots())).list_snapshots.snapshots
    assert [(offer.height, offer.format) for offer in offers] == [(3, FORMAT)]
    assert old.ledger is not None
    with old.ledger.view() as view:
        app_hash = view.header(3).header.app_hash
        held = dict(view.state.scan(members.WALLETS))
    fresh = Application(tmp_path / "fresh" / "ledger", RULES)
    (tmp_path / "fresh").mkdir()

    def offer(snapshot: Any, trusted: bytes) -> int:
        request = pb.Request(offer_snapshot=pb.RequestOfferSnapshot(snapshot=snapshot, app_hash=trusted))
        return int(fresh.answer(request).offer_snapshot.result)

    assert offer(offers[0], b"\1" * 32) == pb.ResponseOfferSnapshot.REJECT
    assert offer(offers[0], app_hash) == pb.ResponseOfferSnapshot.ACCEPT
    for index in range(offers[0].chunks):
        request = pb.Request(load_snapshot_chunk=pb.RequestLoadSnapshotChunk(height=3, format=FORMAT, chunk=index))
        chunk = old.answer(request).load_snapshot_chunk.chunk
        bad = bytes([chunk[0] ^ 1]) + chunk[1:]
        refused = apply(fresh, index, bad)
        assert refused.result == pb.ResponseApplySnapshotChunk.RETRY
        assert list(refused.refetch_chunks) == [index]
        assert list(refused.reject_senders) == ["peer"]
        assert apply(fresh, index, chunk).result == pb.ResponseApplySnapshotChunk.ACCEPT
    info = fresh.answer(pb.Request(info=pb.RequestInfo())).info
    assert (info.last_block_height, info.last_block_app_hash) == (3, app_hash)
    assert finalize(fresh, 4, transfer(4)).app_hash == old.ledger.app_hash
    commit(fresh)
    assert fresh.ledger is not None
    with fresh.ledger.view() as view:
        assert dict(view.state.scan(members.WALLETS)) == held
    missing = pb.Request(load_snapshot_chunk=pb.RequestLoadSnapshotChunk(height=77, format=FORMAT, chunk=0))
    assert old.answer(missing).load_snapshot_chunk.chunk == b""
    old.close()
    fresh.close()


def snapshot_of(path: Path) -> tuple[Any, list[bytes], bytes]:
    """Return a snapshot as a node offers it, its chunks, and the application hash of its height."""
    old = begun(path, snapshot_interval=2)
    for height in range(1, 3):
        finalize(old, height, transfer(height))
        commit(old)
    old._shelf.wait()
    assert old.ledger is not None
    (offer,) = old.answer(pb.Request(list_snapshots=pb.RequestListSnapshots())).list_snapshots.snapshots
    chunks = [old._shelf.chunk(2, index) for index in range(offer.chunks)]
    app_hash = old.ledger.app_hash
    old.close()
    return offer, chunks, app_hash


def test_shelf_clears_what_a_death_left_and_offers_only_what_is_whole(tmp_path: Path) -> None:
    left = tmp_path / "snapshots" / "1.partial"
    going = tmp_path / "snapshots" / "1"  # an old one of which the removal has begun
    for folder in (left, going):
        folder.mkdir(parents=True)
        (folder / "0").write_bytes(b"x")
    offer, chunks, _ = snapshot_of(tmp_path)
    assert (offer.height, len(chunks)) == (2, offer.chunks)
    assert not left.exists()


def test_snapshot_of_which_only_wrong_chunks_come_is_set_aside_for_good(tmp_path: Path) -> None:
    offer, chunks, app_hash = snapshot_of(tmp_path / "old")
    home = tmp_path / "fresh"
    home.mkdir()
    request = pb.Request(offer_snapshot=pb.RequestOfferSnapshot(snapshot=offer, app_hash=app_hash))
    fresh = Application(home / "ledger", RULES)
    assert fresh.answer(request).offer_snapshot.result == pb.ResponseOfferSnapshot.ACCEPT
    assert fresh.give_up_arrival(0.0) is None, "nothing wrong has come yet"
    assert apply(fresh, 0, chunks[0][:-1]).result == pb.ResponseApplySnapshotChunk.RETRY
    assert fresh.give_up_arrival(60.0) is None, "another node may still send the right one"
    assert fresh.give_up_arrival(0.0) == 2
    assert not (home / "ledger").exists()
    again = Application(home / "ledger", RULES)  # as after the restart that follows
    assert again.answer(request).offer_snapshot.result == pb.ResponseOfferSnapshot.REJECT


def test_manifest_whose_chunks_make_another_state_is_refused_whole(tmp_path: Path) -> None:
    """A false peer names chunks of its own making: each is the one named, and their sum is not what was signed."""
    offer, chunks, app_hash = snapshot_of(tmp_path / "old")
    described = decode(offer.metadata, Manifest)
    content = msgspec.msgpack.decode(chunks[-1])
    content[1][0][1] = b"\x91\x07"
    chunks[-1] = msgspec.msgpack.encode(content)
    false = encode(msgspec.structs.replace(described, chunks=tuple(hashlib.sha256(chunk).digest() for chunk in chunks)))
    offer.metadata, offer.hash = false, hashlib.sha256(false).digest()
    (tmp_path / "fresh").mkdir()
    fresh = Application(tmp_path / "fresh" / "ledger", RULES)
    request = pb.Request(offer_snapshot=pb.RequestOfferSnapshot(snapshot=offer, app_hash=app_hash))
    assert fresh.answer(request).offer_snapshot.result == pb.ResponseOfferSnapshot.ACCEPT
    results = [apply(fresh, index, chunk).result for index, chunk in enumerate(chunks)]
    assert results[-1] == pb.ResponseApplySnapshotChunk.REJECT_SNAPSHOT
    assert fresh.ledger is None
    assert not (tmp_path / "fresh" / "ledger").exists()
    assert fresh.answer(request).offer_snapshot.result == pb.ResponseOfferSnapshot.REJECT


@cache
def _snapshot() -> tuple[Any, list[bytes], bytes]:
    with tempfile.TemporaryDirectory() as folder:
        return snapshot_of(Path(folder))


@settings(max_examples=40)
@given(st.binary(max_size=300), st.integers(0, 3), st.integers(-1, 300))
def test_any_chunk_and_any_path_get_an_answer(data: bytes, index: int, at: int) -> None:
    """What peers and clients may send never ends the application."""
    with tempfile.TemporaryDirectory() as folder:
        offer, chunks, app_hash = _snapshot()
        (Path(folder) / "fresh").mkdir()
        fresh = Application(Path(folder) / "fresh" / "ledger", RULES)
        request = pb.Request(offer_snapshot=pb.RequestOfferSnapshot(snapshot=offer, app_hash=app_hash))
        assert fresh.answer(request).offer_snapshot.result == pb.ResponseOfferSnapshot.ACCEPT
        chunk = data if at < 0 else chunks[0][:at] + data + chunks[0][at + len(data) :]
        accepted = apply(fresh, index, chunk).result == pb.ResponseApplySnapshotChunk.ACCEPT
        assert accepted == (index == 0 and chunk == chunks[0])
        path = data.decode("utf-8", errors="ignore")
        answer = fresh.answer(pb.Request(query=pb.RequestQuery(path=path, data=data, height=at))).query
        assert answer.code == 1 or path.startswith("/p2p/filter/")
        manifest = pb.Snapshot(height=index, format=FORMAT, chunks=index, hash=data, metadata=data)
        offered = pb.Request(offer_snapshot=pb.RequestOfferSnapshot(snapshot=manifest, app_hash=app_hash))
        assert fresh.answer(offered).offer_snapshot.result == pb.ResponseOfferSnapshot.REJECT
        fresh.close()


def apply(application: Application, index: int, chunk: bytes) -> Any:
    request = pb.Request(apply_snapshot_chunk=pb.RequestApplySnapshotChunk(index=index, chunk=chunk, sender="peer"))
    return application.answer(request).apply_snapshot_chunk
