"""Encrypted data sets: what is stored where nobody need trust the store, who may read it, and who did.

On the ledger stand root, size, policy and, for each reader, the data set's key sealed to that reader; the encrypted
chunks lie outside. Revoking a grant replaces key and chunks at once, so that the one who lost it cannot open what is
written from then on (what was read before cannot be unread). Grants, revocations and reads form an audit trail.
"""

import hashlib
from typing import Annotated, Literal

import msgspec

from gridpool.contracts import members
from gridpool.contracts.members import FOREVER, OptionalKey, Role
from gridpool.contracts.members_council import is_sound
from gridpool.ledger.contract import Context, Contract
from gridpool.ledger.state import State
from gridpool.ledger.types import Call, Event, Hash, Millis, Natural, Text, Value, Wallet

__all__ = [
    "AUDIT",
    "DATA_SETS",
    "GRANTS",
    "MOST_CHUNKS",
    "MOST_CHUNK_BYTES",
    "MOST_GRANTS",
    "MOST_READS_A_DAY",
    "AuditEntry",
    "Audited",
    "DataSet",
    "Grant",
    "GrantData",
    "Policy",
    "PutData",
    "ReadData",
    "ReportAltered",
    "RevokeData",
    "chunks_for",
    "data_id",
    "is_owner",
    "records",
]

DAY_MS = 86_400_000
MOST_CHUNKS = 1 << 20
MOST_CHUNK_BYTES = 1 << 24
MOST_GRANTS = 500
MOST_READS_A_DAY = 1_000
"""Entries that one wallet may add to one data set's audit trail in a day."""
MOST_SUCCESSORS = 16

records = Contract("records")

WrappedKey = Annotated[bytes, msgspec.Meta(min_length=80, max_length=80)]
"""A key of 32 bytes in a sealed box (X25519)."""
Roles = Annotated[tuple[Role, ...], msgspec.Meta(max_length=16)]
Happening = Literal["put", "grant", "revoke", "read", "altered"]


class Policy(Value):
    """What a data set may be used for, which roles may be granted it (any where none is named), and until when."""

    purpose: Text = ""
    roles: Roles = ()
    keep_until: Millis = FOREVER


class DataSet(Value):
    """A data set's facts: ``root`` over its chunks' hashes (RFC 6962), ``size`` in bytes before encryption.

    ``wrapped`` is the key sealed to the owner; ``version`` counts the keys, ``entries`` the audit trail.
    """

    owner: Wallet
    root: Hash
    size: Natural
    chunks: Natural
    chunk_bytes: Natural
    policy: Policy
    wrapped: WrappedKey
    version: Natural
    grants: Natural
    entries: Natural


class Grant(Value):
    """A reader's sealed key, and until when (market time) it may read."""

    wrapped: WrappedKey
    until: Millis


class AuditEntry(Value):
    """What happened to a data set: who did it, to whom, when (market time), in which transaction."""

    kind: Happening
    who: Wallet
    whom: OptionalKey
    at: Millis
    version: Natural
    tx: Hash
    chunks: tuple[Natural, ...] = ()


class DailyReads(Value):
    """How many entries a wallet added on a day (days since the epoch)."""

    day: Natural
    count: Natural


class PutData(Call, tag="records.put_data"):
    """Register a data set of the calling wallet."""

    root: Hash
    size: Natural
    chunks: Natural
    chunk_bytes: Natural
    wrapped: WrappedKey
    policy: Policy = Policy()


class GrantData(Call, tag="records.grant_data"):
    """Let another wallet read a data set; a second grant replaces the first."""

    id: Hash
    version: Natural
    grantee: Wallet
    wrapped: WrappedKey
    until: Millis = FOREVER


class RevokeData(Call, tag="records.revoke_data"):
    """Take a grant back: the data set was encrypted anew, and ``grants`` seal the new key to all who stay."""

    id: Hash
    version: Natural
    grantee: Wallet
    root: Hash
    wrapped: WrappedKey
    grants: Annotated[tuple[tuple[Wallet, WrappedKey], ...], msgspec.Meta(max_length=MOST_GRANTS)]


class ReadData(Call, tag="records.read_data"):
    """Say that the calling wallet reads a data set now."""

    id: Hash
    version: Natural


class ReportAltered(Call, tag="records.report_altered"):
    """Say, as owner or reader, which chunks the store gave out altered."""

    id: Hash
    version: Natural
    chunks: Annotated[tuple[Natural, ...], msgspec.Meta(min_length=1, max_length=1_000)]


@records.event
class Audited(Event, tag="records.audited"):
    """A data set's audit trail grew."""

    id: Hash
    entry: Natural
    kind: Happening


DATA_SETS = records.table("data_set", key=bytes, value=DataSet)
GRANTS = records.table("grant", key=(bytes, bytes), value=Grant)
"""(data set, reader) -> grant."""
AUDIT = records.table("audit", key=(bytes, int), value=AuditEntry)
"""(data set, number from 0) -> entry."""
DAILY_READS = records.table("daily_reads", key=(bytes, bytes), value=DailyReads)
"""(data set, wallet) -> entries of its last day."""


def data_id(owner: bytes, root: bytes) -> bytes:
    """Return the id of the data set that ``owner`` first registered with ``root``."""
    return hashlib.sha256(b"gridpool/dataset/1\0" + owner + root).digest()


def chunks_for(size: int, chunk_bytes: int) -> int:
    """Return the number of chunks of a data set; an empty one has one."""
    return max(1, -(-size // chunk_bytes))


def is_owner(state: State, owner: bytes, wallet: bytes) -> bool:
    """Tell whether ``wallet`` is the owner or the wallet that took the owner's place."""
    for _ in range(MOST_SUCCESSORS):
        if owner == wallet:
            return True
        record = state.get(members.WALLETS, owner)
        if record is None or not record.successor:
            return False
        owner = record.successor
    return False


@records.call(PutData)
def put_data(ctx: Context, call: PutData) -> None:
    """Register a data set under an id that follows from owner and root."""
    members.require(ctx)
    if not 1 <= call.chunk_bytes <= MOST_CHUNK_BYTES:
        ctx.refuse("chunk_bytes_out_of_range", f"1 to {MOST_CHUNK_BYTES}")
    if call.chunks > MOST_CHUNKS or call.chunks != chunks_for(call.size, call.chunk_bytes):
        ctx.refuse("wrong_number_of_chunks", f"at most {MOST_CHUNKS}, and as many as the size needs")
    if call.policy.keep_until <= ctx.now:
        ctx.refuse("policy_is_over")
    key = data_id(ctx.sender, call.root)
    if ctx.get(DATA_SETS, key) is not None:
        ctx.refuse("data_set_exists", key.hex())
    data = DataSet(ctx.sender, call.root, call.size, call.chunks, call.chunk_bytes, call.policy, call.wrapped, 1, 0, 0)
    _note(ctx, key, data, "put")


@records.call(GrantData)
def grant_data(ctx: Context, call: GrantData) -> None:
    """Give a reader the sealed key, within the policy."""
    data = _owned(ctx, call.id, call.version)
    if is_owner(ctx, data.owner, call.grantee):
        ctx.refuse("owner_needs_no_grant")
    is_sound(ctx, call.grantee)
    if not ctx.now < call.until <= data.policy.keep_until:
        ctx.refuse("grant_outside_policy", f"it must end by {data.policy.keep_until}")
    if data.policy.roles:
        record = ctx.require(members.WALLETS, call.grantee, "unknown_wallet")
        if not set(record.roles) & set(data.policy.roles):
            ctx.refuse("role_outside_policy", "needs " + " or ".join(role.value for role in data.policy.roles))
    if ctx.get(GRANTS, (call.id, call.grantee)) is None:
        if data.grants >= MOST_GRANTS:
            ctx.refuse("too_many_grants", f"at most {MOST_GRANTS}; revoke one first")
        data = msgspec.structs.replace(data, grants=data.grants + 1)
    ctx.put(GRANTS, (call.id, call.grantee), Grant(call.wrapped, call.until))
    _note(ctx, call.id, data, "grant", call.grantee)


@records.call(RevokeData)
def revoke_data(ctx: Context, call: RevokeData) -> None:
    """Exchange root and keys, so that all but one go on reading; grants that have run out end with it."""
    data = _owned(ctx, call.id, call.version)
    ctx.require(GRANTS, (call.id, call.grantee), "no_grant")
    if call.root == data.root or call.wrapped == data.wrapped:
        ctx.refuse("not_encrypted_anew")
    wrapped = dict(call.grants)
    standing = {reader: grant for (_, reader), grant in list(ctx.scan(GRANTS, (call.id,)))}
    staying = {reader for reader, grant in standing.items() if reader != call.grantee and grant.until > ctx.now}
    if len(wrapped) != len(call.grants) or set(wrapped) != staying:
        ctx.refuse("wrong_readers", "the new key is sealed to all other readers whose grants stand, and to nobody else")
    for reader, grant in standing.items():
        if reader not in staying:
            ctx.delete(GRANTS, (call.id, reader))
        elif grant.wrapped == wrapped[reader]:
            ctx.refuse("not_encrypted_anew", reader.hex())
        else:
            ctx.put(GRANTS, (call.id, reader), Grant(wrapped[reader], grant.until))
    data = msgspec.structs.replace(
        data, root=call.root, wrapped=call.wrapped, version=data.version + 1, grants=len(staying)
    )
    _note(ctx, call.id, data, "revoke", call.grantee)


@records.call(ReadData)
def read_data(ctx: Context, call: ReadData) -> None:
    """Note a read by the owner or by somebody whose grant stands."""
    _note(ctx, call.id, _readable(ctx, call.id, call.version), "read")


@records.call(ReportAltered)
def report_altered(ctx: Context, call: ReportAltered) -> None:
    """Note which chunks a reader found altered; the trail says who says so."""
    data = _readable(ctx, call.id, call.version)
    if list(call.chunks) != sorted(set(call.chunks)) or call.chunks[-1] >= data.chunks:
        ctx.refuse("no_such_chunks", "numbers from 0 in ascending order")
    _note(ctx, call.id, data, "altered", chunks=call.chunks)


@records.invariant
def grants_are_counted(state: State) -> bool:
    """Every data set has the grants and audit entries that it counts, and as many chunks as its size needs."""
    granted: dict[bytes, int] = {}
    for (key, _), _ in state.scan(GRANTS):
        granted[key] = granted.get(key, 0) + 1
    audited: dict[bytes, int] = {}
    for (key, number), _ in state.scan(AUDIT):
        if number != audited.get(key, 0):
            return False
        audited[key] = number + 1
    counted = {}
    for key, data in state.scan(DATA_SETS):
        if data.chunks != chunks_for(data.size, data.chunk_bytes) or data.entries != audited.pop(key, 0):
            return False
        counted[key] = data.grants
    return not audited and granted == {key: number for key, number in counted.items() if number}


def _owned(ctx: Context, key: bytes, version: int) -> DataSet:
    members.require(ctx)
    data = _known(ctx, key, version)
    if not is_owner(ctx, data.owner, ctx.sender):
        ctx.refuse("not_the_owner", key.hex())
    return data


def _readable(ctx: Context, key: bytes, version: int) -> DataSet:
    data = _known(ctx, key, version)
    if not is_owner(ctx, data.owner, ctx.sender):
        grant = ctx.require(GRANTS, (key, ctx.sender), "no_grant")
        if ctx.get(members.WALLETS, ctx.sender) is not None:
            members.require(ctx)  # who is no member may be granted; a wallet that was replaced is out
        if ctx.now >= grant.until:
            ctx.refuse("grant_is_over", str(grant.until))
    day = ctx.now // DAY_MS
    known = ctx.get(DAILY_READS, (key, ctx.sender))
    count = known.count if known is not None and known.day == day else 0
    if count >= MOST_READS_A_DAY:
        ctx.refuse("too_many_reads", f"at most {MOST_READS_A_DAY} a day")
    ctx.put(DAILY_READS, (key, ctx.sender), DailyReads(day, count + 1))
    return data


def _known(ctx: Context, key: bytes, version: int) -> DataSet:
    data = ctx.require(DATA_SETS, key, "no_such_data_set")
    if data.version != version:
        ctx.refuse("version_has_changed", f"it is {data.version} now")
    return data


def _note(
    ctx: Context, key: bytes, data: DataSet, kind: Happening, whom: bytes = b"", chunks: tuple[int, ...] = ()
) -> None:
    entry = AuditEntry(kind, ctx.sender, whom, ctx.now, data.version, ctx.tx_id, chunks)
    ctx.put(AUDIT, (key, data.entries), entry)
    ctx.put(DATA_SETS, key, msgspec.structs.replace(data, entries=data.entries + 1))
    ctx.emit(Audited(key, data.entries, kind))
