"""The records contract: who may put, grant, revoke and read, and what the audit trail says of it."""

import hashlib

import msgspec
import pytest

from gridpool.contracts import coins, members
from gridpool.contracts.members import FoundingMember, MemberParameters, Role
from gridpool.contracts.records import records
from gridpool.contracts.records_data import (
    AUDIT,
    DATA_SETS,
    GRANTS,
    MOST_GRANTS,
    MOST_READS_A_DAY,
    GrantData,
    Policy,
    PutData,
    ReadData,
    ReportAltered,
    RevokeData,
    chunks_for,
    data_id,
)
from gridpool.ledger.contract import Refused
from gridpool.ledger.genesis import Genesis
from gridpool.ledger.keys import KeyPair
from gridpool.ledger.rehearsal import Rehearsal
from gridpool.ledger.rules import Rules
from gridpool.ledger.types import encode

START = 1_767_225_600_000
DAY = 86_400_000


def key(name: str) -> KeyPair:
    return KeyPair(hashlib.sha256(b"records" + name.encode()).digest())


def digest(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def sealed(name: str) -> bytes:
    return (digest(name) * 3)[:80]


OWNER, BOB, EVE, GRID = key("owner"), key("bob"), key("eve"), key("grid")
ROOT = digest("root")
ID = data_id(OWNER.public, ROOT)
PUT = PutData(ROOT, 1_000, 4, 256, sealed("own"))


@pytest.fixture
def ledger() -> Rehearsal:
    founders = (
        FoundingMember(OWNER.public, "owner", (Role.PROSUMER,)),
        FoundingMember(BOB.public, "bob", (Role.PROSUMER,)),
        FoundingMember(GRID.public, "grid", (Role.UTILITY,)),
    )
    genesis = Genesis(
        chain="records",
        time_ms=START,
        market_clock="ticks",
        clock_keeper=key("clock").public,
        parameters=(("members", encode(MemberParameters(founders=founders))),),
    )
    return Rehearsal(Rules([members.members, coins.coins, records]), genesis, clock_keeper=key("clock"))


def refused(ledger: Rehearsal, who: KeyPair, *calls) -> str:
    before = dict(ledger.scan(DATA_SETS)), dict(ledger.scan(GRANTS)), dict(ledger.scan(AUDIT))
    receipt = ledger.submit(who, *calls)
    assert not receipt.ok
    assert (dict(ledger.scan(DATA_SETS)), dict(ledger.scan(GRANTS)), dict(ledger.scan(AUDIT))) == before
    return receipt.code


def grant(who: KeyPair, version: int = 1, **changes) -> GrantData:
    return msgspec.structs.replace(GrantData(ID, version, who.public, sealed(f"{who}{version}")), **changes)


def test_the_trail_tells_who_did_what_to_whom_and_when(ledger):
    put = ledger.expect(OWNER, PUT)
    ledger.expect(OWNER, grant(BOB))
    ledger.advance(START + 5_000)
    read = ledger.expect(BOB, ReadData(ID, 1))
    ledger.expect(OWNER, RevokeData(ID, 1, BOB.public, digest("new"), sealed("own2"), ()))
    trail = [(entry.kind, entry.who, entry.whom, entry.version) for _, entry in ledger.scan(AUDIT, (ID,))]
    assert trail == [
        ("put", OWNER.public, b"", 1),
        ("grant", OWNER.public, BOB.public, 1),
        ("read", BOB.public, b"", 1),
        ("revoke", OWNER.public, BOB.public, 2),
    ]
    entries = [entry for _, entry in ledger.scan(AUDIT, (ID,))]
    assert (entries[0].tx, entries[2].tx, entries[2].at) == (put.tx, read.tx, START + 5_000)
    assert ledger.get(DATA_SETS, ID).root == digest("new")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"chunks": 3}, "wrong_number_of_chunks"),
        ({"chunks": 5}, "wrong_number_of_chunks"),
        ({"chunk_bytes": 0}, "chunk_bytes_out_of_range"),
        ({"chunk_bytes": 1 << 30, "chunks": 1}, "chunk_bytes_out_of_range"),
        ({"size": 1 << 40, "chunk_bytes": 1, "chunks": 1 << 40}, "wrong_number_of_chunks"),
        ({"policy": Policy(keep_until=START)}, "policy_is_over"),
    ],
)
def test_a_data_set_that_does_not_add_up_is_refused(ledger, changes, code):
    assert refused(ledger, OWNER, msgspec.structs.replace(PUT, **changes)) == code


def test_an_empty_data_set_has_one_chunk():
    assert [chunks_for(size, 10) for size in (0, 1, 10, 11)] == [1, 1, 1, 2]


def test_strangers_store_nothing_and_nothing_is_stored_twice(ledger):
    assert refused(ledger, EVE, PUT) == "unknown_wallet"
    ledger.expect(OWNER, PUT)
    assert refused(ledger, OWNER, PUT) == "data_set_exists"
    ledger.expect(BOB, PUT)  # the same root is another data set of another owner
    assert len(list(ledger.scan(DATA_SETS))) == 2


def test_only_the_owner_grants_and_revokes(ledger):
    ledger.expect(OWNER, PUT)
    assert refused(ledger, BOB, grant(BOB)) == "not_the_owner"
    ledger.expect(OWNER, grant(BOB))
    revoke = RevokeData(ID, 1, BOB.public, digest("new"), sealed("own2"), ())
    assert refused(ledger, BOB, revoke) == "not_the_owner"
    assert refused(ledger, OWNER, grant(OWNER)) == "owner_needs_no_grant"


def test_grants_keep_to_the_policy(ledger):
    ledger.expect(OWNER, msgspec.structs.replace(PUT, policy=Policy("audit", (Role.UTILITY,), START + DAY)))
    assert refused(ledger, OWNER, grant(BOB, until=START + DAY)) == "role_outside_policy"
    assert refused(ledger, OWNER, grant(EVE, until=START + DAY)) == "unknown_wallet"
    assert refused(ledger, OWNER, grant(GRID)) == "grant_outside_policy"
    assert refused(ledger, OWNER, grant(GRID, until=START)) == "grant_outside_policy"
    ledger.expect(OWNER, grant(GRID, until=START + DAY))
    ledger.expect(GRID, ReadData(ID, 1))
    ledger.advance(START + DAY)
    assert refused(ledger, GRID, ReadData(ID, 1)) == "grant_is_over"


def test_reads_need_a_grant_that_stands(ledger):
    ledger.expect(OWNER, PUT)
    assert refused(ledger, BOB, ReadData(ID, 1)) == "no_grant"
    ledger.expect(OWNER, ReadData(ID, 1))
    ledger.expect(OWNER, grant(BOB))
    ledger.expect(BOB, ReadData(ID, 1))
    ledger.expect(OWNER, RevokeData(ID, 1, BOB.public, digest("new"), sealed("own2"), ()))
    assert refused(ledger, BOB, ReadData(ID, 2)) == "no_grant"
    assert refused(ledger, OWNER, ReadData(ID, 1)) == "version_has_changed"


def test_revoking_keeps_the_others_and_needs_fresh_keys_for_exactly_them(ledger):
    ledger.expect(OWNER, PUT, grant(BOB), grant(GRID), grant(EVE, until=START + 1_000))
    ledger.advance(START + 1_000)  # Eve's grant runs out
    revoke = RevokeData(ID, 1, BOB.public, digest("new"), sealed("own2"), ((GRID.public, sealed("grid2")),))
    for changes, code in (
        ({"grants": ()}, "wrong_readers"),
        ({"grants": (*revoke.grants, (BOB.public, sealed("bob2")))}, "wrong_readers"),
        ({"grants": revoke.grants * 2}, "wrong_readers"),
        ({"grants": ((GRID.public, sealed(f"{GRID}1")),)}, "not_encrypted_anew"),
        ({"root": ROOT}, "not_encrypted_anew"),
        ({"wrapped": sealed("own")}, "not_encrypted_anew"),
        ({"version": 2}, "version_has_changed"),
        ({"grantee": OWNER.public}, "no_grant"),
    ):
        assert refused(ledger, OWNER, msgspec.structs.replace(revoke, **changes)) == code
    ledger.expect(OWNER, revoke)
    assert [reader for (_, reader), _ in ledger.scan(GRANTS, (ID,))] == [GRID.public]
    ledger.expect(GRID, ReadData(ID, 2))


def test_a_reader_cannot_flood_the_trail_for_others(ledger):
    ledger.expect(OWNER, PUT, grant(BOB))
    reads = [ReadData(ID, 1)] * 100
    for _ in range(MOST_READS_A_DAY // 100):
        ledger.expect(BOB, *reads)
    assert refused(ledger, BOB, ReadData(ID, 1)) == "too_many_reads"
    ledger.expect(OWNER, ReadData(ID, 1))
    ledger.advance(START + DAY)
    ledger.expect(BOB, ReadData(ID, 1))


def test_grants_are_bounded(ledger):
    ledger.expect(OWNER, PUT)
    readers = [key(f"reader{number}") for number in range(MOST_GRANTS + 1)]
    for at in range(0, MOST_GRANTS, 100):
        ledger.expect(OWNER, *[grant(reader) for reader in readers[at : at + 100]])
    assert refused(ledger, OWNER, grant(readers[-1])) == "too_many_grants"
    ledger.expect(OWNER, grant(readers[0], wrapped=sealed("again")))  # a replacement is not another


def test_altered_chunks_are_reported_by_those_who_may_read(ledger):
    ledger.expect(OWNER, PUT)
    assert refused(ledger, BOB, ReportAltered(ID, 1, (0,))) == "no_grant"
    for chunks in ((4,), (1, 0), (1, 1)):
        assert refused(ledger, OWNER, ReportAltered(ID, 1, chunks)) == "no_such_chunks"
    ledger.expect(OWNER, ReportAltered(ID, 1, (0, 3)))
    assert [entry.chunks for _, entry in ledger.scan(AUDIT, (ID,))][-1] == (0, 3)


def test_the_wallet_that_takes_an_owners_place_owns_its_data(ledger):
    ledger.expect(OWNER, PUT)
    ledger.expect(OWNER, members.Rekey(key("owner2").public, digest("commitment")))
    with pytest.raises(Refused):
        ledger.expect(OWNER, grant(BOB))
    ledger.expect(key("owner2"), grant(BOB))
    ledger.expect(BOB, ReadData(ID, 1))


def test_a_wallet_that_was_replaced_reads_no_more(ledger):
    """A stolen wallet's grant ends when its owner moves on; who never was a member may be granted all the same."""
    ledger.expect(OWNER, PUT)
    ledger.expect(OWNER, grant(BOB), grant(EVE))
    ledger.expect(BOB, ReadData(ID, 1))
    ledger.expect(EVE, ReadData(ID, 1))
    ledger.expect(BOB, members.Rekey(key("bob2").public, bytes(32)))
    assert refused(ledger, BOB, ReadData(ID, 1)) == "certificate_not_valid_now"
    assert refused(ledger, BOB, ReportAltered(ID, 1, (0,))) == "certificate_not_valid_now"
    assert refused(ledger, key("bob2"), ReadData(ID, 1)) == "no_grant"
    ledger.expect(EVE, ReadData(ID, 1))
