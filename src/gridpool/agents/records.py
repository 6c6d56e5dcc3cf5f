"""What members do with encrypted data sets: store, read, share, take back, and look for altered chunks.

A data set has a key of its own. Its bytes are encrypted chunk by chunk (libsodium's secretstream, XChaCha20-Poly1305,
each chunk bound to its number and the last one marked), so that chunks that were dropped, swapped or cut off do not
open. The key is sealed (X25519) to the owner and to each reader, and stands on the ledger only so.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import IO

import msgspec
from nacl import bindings
from nacl.exceptions import CryptoError

from gridpool.agents.chunk_store import ChunkStore
from gridpool.agents.chunk_tree import altered_positions, tree_levels
from gridpool.agents.wallet_keys import WalletKeys
from gridpool.agents.wallet_sealing import box_key, box_key_of
from gridpool.agents.wallet_session import Session, signer_of
from gridpool.contracts import members
from gridpool.contracts.records_data import (
    AUDIT,
    DATA_SETS,
    GRANTS,
    MOST_CHUNK_BYTES,
    MOST_CHUNKS,
    AuditEntry,
    DataSet,
    GrantData,
    Policy,
    PutData,
    ReadData,
    ReportAltered,
    RevokeData,
    chunks_for,
    data_id,
    is_owner,
)
from gridpool.errors import RefusedInput, VerificationFault
from gridpool.ledger.keys import KeyPair
from gridpool.ledger.merkle import list_root
from gridpool.ledger.state import State
from gridpool.ledger.transaction import Receipt

__all__ = [
    "CHUNK_BYTES",
    "Located",
    "Stored",
    "audit_trail",
    "get_data_set",
    "grant_data_set",
    "locate_altered",
    "put_data_set",
    "report_altered",
    "revoke_data_set",
]

CHUNK_BYTES = 1 << 16
"""Default size of a chunk before encryption."""
WALLETS_TRIED = 64
OVERHEAD = bindings.crypto_secretstream_xchacha20poly1305_ABYTES
HEADER = bindings.crypto_secretstream_xchacha20poly1305_HEADERBYTES
_FINAL = bindings.crypto_secretstream_xchacha20poly1305_TAG_FINAL
_MESSAGE = bindings.crypto_secretstream_xchacha20poly1305_TAG_MESSAGE

Advance = Callable[[int], None]


class Stored(msgspec.Struct, frozen=True):
    """A data set that was stored: id and root in hex, bytes before encryption, chunks and their size."""

    id: str
    root: str
    size: int
    chunks: int
    chunk_bytes: int


class Located(msgspec.Struct, frozen=True):
    """Which chunks (numbers from 0) the store holds altered or not at all, and how many hashes were compared."""

    ok: bool
    altered: list[int]
    hashes: int


def put_data_set(
    session: Session,
    keys: WalletKeys,
    store: ChunkStore,
    file: Path,
    *,
    chunk_bytes: int = CHUNK_BYTES,
    policy: Policy | None = None,
    number: int | None = None,
    advance: Advance | None = None,
) -> Stored:
    """Encrypt a file into the store and register it; a refusal leaves nothing behind.

    ``number`` chooses among the member's wallets; ``advance`` hears of every chunk. Raises RefusedInput where the file
    cannot be read, is too large, or the ledger refuses it.
    """
    check_source(file, chunk_bytes)
    key = signer_of(session, keys, number)
    secret = bindings.crypto_secretstream_xchacha20poly1305_keygen()
    hashes: list[bytes] = []
    try:
        with file.open("rb") as source:
            counted = _Counted(source)
            _encrypt(store, secret, counted.pieces(chunk_bytes), hashes, advance)
        root = store.put_list(hashes)
        call = PutData(root, counted.size, len(hashes), chunk_bytes, _seal(secret, key.public), policy or Policy())
        session.submit(key, call)
    except BaseException:
        _clear_up(session, store, hashes, key.public)
        raise
    return Stored(data_id(key.public, root).hex(), root.hex(), counted.size, len(hashes), chunk_bytes)


def get_data_set(
    session: Session,
    keys: WalletKeys,
    store: ChunkStore,
    key_id: bytes,
    out: Path,
    *,
    advance: Advance | None = None,
) -> DataSet:
    """Decrypt a data set into ``out`` and note the read on the ledger; the file appears whole or not at all.

    Raises RefusedInput where the caller may not read it, or names the first chunk that was altered.
    """
    data, reader, secret = _open(session, keys, key_id)
    if not out.parent.is_dir():
        raise RefusedInput(f"no folder {out.parent} for {out.name}; make it first")
    if out.is_dir():
        raise RefusedInput(f"{out} is a folder; give the name of a file")
    partial = out.with_name(f".{out.name}.partial")
    try:
        with partial.open("wb") as target:
            for plain in _decrypt(store, data, secret, key_id):
                target.write(plain)
                if advance is not None:
                    advance(1)
            target.flush()
            os.fsync(target.fileno())
        session.submit(reader, ReadData(key_id, data.version))
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)
    return data


def grant_data_set(
    session: Session, keys: WalletKeys, key_id: bytes, grantee: bytes, *, until: int | None = None
) -> Receipt:
    """Seal a data set's key to a reader's wallet; ``until`` is market time in ms (the policy's end by default)."""
    data, owner, secret = _open(session, keys, key_id, owner=True)
    end = data.policy.keep_until if until is None else until
    return session.submit(owner, GrantData(key_id, data.version, grantee, _seal(secret, grantee), end))


def revoke_data_set(
    session: Session,
    keys: WalletKeys,
    store: ChunkStore,
    key_id: bytes,
    grantee: bytes,
    *,
    advance: Advance | None = None,
) -> Stored:
    """Encrypt a data set anew under a new key sealed to all readers but one, and remove the old chunks.

    The old chunks go only once the ledger holds the new root. Raises RefusedInput where a chunk was altered.
    """
    data, owner, secret = _open(session, keys, key_id, owner=True)
    state = session.state
    if state.get(GRANTS, (key_id, grantee)) is None:
        raise RefusedInput(f"{grantee.hex()} has no grant for {key_id.hex()}; see: gridpool records audit")
    fresh = bindings.crypto_secretstream_xchacha20poly1305_keygen()
    old = _listed(store, data, key_id)
    hashes: list[bytes] = []
    try:
        _encrypt(store, fresh, _decrypt(store, data, secret, key_id), hashes, advance)
        root = store.put_list(hashes)
        grants = tuple(
            (reader, _seal(fresh, reader))
            for (_, reader), grant in state.scan(GRANTS, (key_id,))
            if reader != grantee and grant.until > session.now
        )
        session.submit(owner, RevokeData(key_id, data.version, grantee, root, _seal(fresh, owner.public), grants))
    except BaseException:
        _clear_up(session, store, hashes, owner.public, key_id)
        raise
    store.forget(old, data.root)
    return Stored(key_id.hex(), root.hex(), data.size, data.chunks, data.chunk_bytes)


def locate_altered(
    state: State, store: ChunkStore, key_id: bytes, *, advance: Advance | None = None
) -> tuple[DataSet, Located]:
    """Compare the tree over what the store holds with the tree whose root is on the ledger; needs no key.

    Raises VerificationFault where the store has lost the list of the data set's chunks.
    """
    data = known_data_set(state, key_id)
    hashes = store.get_list(data.root, data.chunks)
    if hashes is None:
        raise VerificationFault(
            f"the store has lost or altered the list of chunks that leads to {data.root.hex()}; restore it from a copy"
        )
    held = []
    for digest in hashes:
        chunk = store.get(digest, most=HEADER + data.chunk_bytes + OVERHEAD)
        held.append(bytes(32) if chunk is None else sha256(chunk).digest())
        if advance is not None:
            advance(1)
    altered, compared = altered_positions(tree_levels(hashes), tree_levels(held))
    return data, Located(not altered, altered, compared)


def report_altered(session: Session, keys: WalletKeys, key_id: bytes, chunks: list[int]) -> Receipt:
    """Put on the data set's audit trail which chunks were found altered (the first thousand)."""
    data, reader = _entitled(session, keys, key_id)
    return session.submit(reader, ReportAltered(key_id, data.version, tuple(chunks[:1_000])))


def audit_trail(state: State, key_id: bytes) -> Iterator[AuditEntry]:
    """Yield what happened to a data set, oldest first."""
    known_data_set(state, key_id)
    for _, entry in state.scan(AUDIT, (key_id,)):
        yield entry


def known_data_set(state: State, key_id: bytes) -> DataSet:
    """Return a data set's facts; raises RefusedInput where the ledger has none of this id."""
    data = state.get(DATA_SETS, key_id)
    if data is None:
        raise RefusedInput(f"this ledger has no data set {key_id.hex()}; give the id that records put has shown")
    return data


def check_source(file: Path, chunk_bytes: int) -> None:
    """Refuse a file that cannot be stored, before anything is made for it."""
    if not file.is_file():
        raise RefusedInput(f"no file {file}")
    if not 1 <= chunk_bytes <= MOST_CHUNK_BYTES:
        raise RefusedInput(f"chunks have 1 to {MOST_CHUNK_BYTES} bytes, not {chunk_bytes}")
    size = file.stat().st_size
    if chunks_for(size, chunk_bytes) > MOST_CHUNKS:
        raise RefusedInput(f"{file} makes more than {MOST_CHUNKS} chunks of {chunk_bytes} bytes; choose larger ones")


def _clear_up(
    session: Session, store: ChunkStore, hashes: list[bytes], owner: bytes, key_id: bytes | None = None
) -> None:
    """Remove chunks that no data set stands on; where only the answer was lost, the ledger has them and they stay."""
    if not hashes:
        return
    root = list_root(hashes)
    held = session.state.get(DATA_SETS, key_id or data_id(owner, root))
    if held is None or held.root != root:
        store.forget(hashes, root)


class _Counted:
    """Reads a file in pieces and counts its bytes."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source
        self.size = 0

    def pieces(self, chunk_bytes: int) -> Iterator[bytes]:
        count = 0
        while (piece := self._source.read(chunk_bytes)) or not count:
            self.size += len(piece)
            count += 1
            if count > MOST_CHUNKS:
                raise RefusedInput(f"the file grew beyond {MOST_CHUNKS} chunks of {chunk_bytes} bytes")
            yield piece


def _encrypt(
    store: ChunkStore, secret: bytes, pieces: Iterable[bytes], hashes: list[bytes], advance: Advance | None
) -> None:
    """Store pieces encrypted, noting each hash at once so that a failure can be cleared up."""
    state = bindings.crypto_secretstream_xchacha20poly1305_state()
    header = bindings.crypto_secretstream_xchacha20poly1305_init_push(state, secret)
    waiting: bytes | None = None

    def push(piece: bytes, tag: int) -> None:
        number = len(hashes)
        text = bindings.crypto_secretstream_xchacha20poly1305_push(state, piece, _bound(number), tag)
        hashes.append(store.put(text if number else header + text))
        if advance is not None:
            advance(1)

    for piece in pieces:
        if waiting is not None:
            push(waiting, _MESSAGE)
        waiting = piece
    push(waiting or b"", _FINAL)


def _decrypt(store: ChunkStore, data: DataSet, secret: bytes, key_id: bytes) -> Iterator[bytes]:
    """Yield the chunks' plain bytes in order; raises RefusedInput naming the first that was altered."""
    state = bindings.crypto_secretstream_xchacha20poly1305_state()
    hashes = _listed(store, data, key_id)
    left = data.size
    for number, digest in enumerate(hashes):
        chunk = store.get(digest, most=HEADER + data.chunk_bytes + OVERHEAD)
        if chunk is None or sha256(chunk).digest() != digest:
            what = "is missing or cut" if chunk is None else "was altered"
            raise RefusedInput(
                f"chunk {number} of {key_id.hex()} {what}: the store does not hold {digest.hex()}; nothing was written"
            )
        last = number == len(hashes) - 1
        try:
            if not number:
                bindings.crypto_secretstream_xchacha20poly1305_init_pull(state, chunk[:HEADER], secret)
                chunk = chunk[HEADER:]
            plain, tag = bindings.crypto_secretstream_xchacha20poly1305_pull(state, chunk, _bound(number))
        except (CryptoError, ValueError, TypeError, RuntimeError):
            raise RefusedInput(
                f"chunk {number} of {key_id.hex()} does not open with the key; nothing was written"
            ) from None
        left -= len(plain)
        if (tag == _FINAL) != last or (last and left) or (not last and len(plain) != data.chunk_bytes):
            raise RefusedInput(f"chunk {number} of {key_id.hex()} is not where its owner put it; nothing was written")
        yield plain


def _bound(number: int) -> bytes:
    return b"gridpool/chunk/1\0" + number.to_bytes(8, "big")


def _listed(store: ChunkStore, data: DataSet, key_id: bytes) -> list[bytes]:
    hashes = store.get_list(data.root, data.chunks)
    if hashes is None:
        raise RefusedInput(f"the store has lost or altered the list of chunks of {key_id.hex()}; nothing was written")
    return hashes


def _open(session: Session, keys: WalletKeys, key_id: bytes, *, owner: bool = False) -> tuple[DataSet, KeyPair, bytes]:
    """Return a data set, the member's key that may read (or owns) it, and its secret key."""
    data, reader = _entitled(session, keys, key_id, owner=owner)
    grant = session.state.get(GRANTS, (key_id, reader.public))
    owned = is_owner(session.state, data.owner, reader.public)
    wrapped = data.wrapped if owned or grant is None else grant.wrapped
    for holder in _own_keys(keys) if owned else (reader,):  # a successor opens what was sealed to the old wallet
        public, private = box_key_of(holder)
        try:
            secret = bindings.crypto_box_seal_open(wrapped, public, private)
        except CryptoError:
            continue
        if len(secret) == bindings.crypto_secretstream_xchacha20poly1305_KEYBYTES:
            return data, reader, secret
    raise RefusedInput(f"the key of {key_id.hex()} was not sealed to this wallet; ask its owner for a new grant")


def _entitled(session: Session, keys: WalletKeys, key_id: bytes, *, owner: bool = False) -> tuple[DataSet, KeyPair]:
    state = session.state
    data = known_data_set(state, key_id)
    late = 0
    for key in _own_keys(keys):
        record = state.get(members.WALLETS, key.public)
        if is_owner(state, data.owner, key.public) and (record is None or not record.successor):
            return data, key
        grant = None if owner or (record is not None and record.successor) else state.get(GRANTS, (key_id, key.public))
        if grant is not None and session.now < grant.until:
            return data, key
        late = late or (0 if grant is None else grant.until)
    if late:
        raise RefusedInput(
            f"the grant for {key_id.hex()} ended at {late} (ms of market time); ask its owner for another"
        )
    what = "is not this wallet's" if owner else "is not open to this wallet"
    raise RefusedInput(f"data set {key_id.hex()} {what}; name another with --wallet, or ask its owner for a grant")


def _own_keys(keys: WalletKeys) -> Iterator[KeyPair]:
    yield keys.certificate
    for number in range(WALLETS_TRIED):
        yield keys.wallet(number)


def _seal(secret: bytes, public: bytes) -> bytes:
    return bindings.crypto_box_seal(secret, box_key(public))
