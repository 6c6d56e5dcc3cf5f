"""Snapshots: a ledger's state and headers at one height, in chunks that are verified one by one.

A snapshot is a manifest (genesis, node key, height, application hash, the hash of each chunk) and chunks of at most
about 8 MB: first the signed headers from 0 to the height, then the key-ordered state. As a file: a magic line, then
manifest and chunks, each behind four bytes of length.
"""

import shutil
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Annotated, BinaryIO

import msgspec

from gridpool.errors import RefusedInput, VerificationFault
from gridpool.ledger.block import SignedHeader, follows, signature_holds
from gridpool.ledger.genesis import Genesis
from gridpool.ledger.store import FORMAT, Store, Writer, give_name, refuse_taken
from gridpool.ledger.transition import begin
from gridpool.ledger.tree import root_of, update
from gridpool.ledger.types import Hash, Natural, Value, decode, encode
from gridpool.ledger.view import KnownRules, View, by_version, height_key, locate

__all__ = ["Manifest", "Restoration", "chunks", "describe", "manifest", "restore_snapshot", "write_snapshot"]

MAGIC = b"gridpool-snapshot-1\n"
CHUNK_BYTES = 8 << 20
LARGEST_FRAME = 64 << 20
_HEADERS, _STATE = 0, 1


class Manifest(Value):
    """What a snapshot holds."""

    genesis: bytes
    signer: bytes
    height: Natural
    app_hash: Hash
    chunks: Annotated[tuple[Hash, ...], msgspec.Meta(max_length=1_000_000)]


class _Chunk(Value):
    kind: Natural
    items: tuple[tuple[bytes, bytes], ...]


def chunks(view: View) -> Iterator[bytes]:
    """Yield the chunks of a snapshot at the view's height."""
    for kind, table in ((_HEADERS, "header"), (_STATE, "state")):
        items: list[tuple[bytes, bytes]] = []
        size = 0
        for key, value in view.snapshot.items(table):
            items.append((key, value))
            size += len(key) + len(value) + 16
            if size >= CHUNK_BYTES:
                yield encode(_Chunk(kind, tuple(items)))
                items, size = [], 0
        if items:
            yield encode(_Chunk(kind, tuple(items)))


def manifest(view: View) -> Manifest:
    """Describe the snapshot at the view's height; reads it once to hash its chunks."""
    digests = tuple(sha256(chunk).digest() for chunk in chunks(view))
    return msgspec.structs.replace(describe(view), chunks=digests)


def describe(view: View) -> Manifest:
    """Return the manifest without its chunks' hashes, for who makes the chunks anyway."""
    return Manifest(
        genesis=view.snapshot.read("meta", b"genesis") or b"",
        signer=view.snapshot.read("meta", b"signer") or b"",
        height=view.height,
        app_hash=view.header(view.height).header.app_hash,
        chunks=(),
    )


class Restoration:
    """A ledger in the making from a snapshot: hand in its chunks in order, then finish.

    Nothing stands under the final name before everything was verified.
    """

    def __init__(self, path: Path, described: Manifest, known: KnownRules) -> None:
        """Begin to restore into the new folder ``path``."""
        refuse_taken(path)
        self.path = path
        self.manifest = described
        self.known = by_version(known)
        self._next = 0
        self._partial = path.with_name(path.name + ".partial")
        if self._partial.exists():
            shutil.rmtree(self._partial)
        self._store = Store.create(self._partial)

    def apply(self, index: int, chunk: bytes) -> None:
        """Take in a chunk; raises VerificationFault where it is not the one that the manifest names."""
        if index != self._next or index >= len(self.manifest.chunks):
            raise VerificationFault(f"chunk {index} is not the next one ({self._next} of {len(self.manifest.chunks)})")
        if sha256(chunk).digest() != self.manifest.chunks[index]:
            raise VerificationFault(f"chunk {index} is not the one that the snapshot's manifest names")
        try:
            content = decode(chunk, _Chunk)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise VerificationFault(f"chunk {index} cannot be read: {error}") from None
        if any(not 0 < len(key) <= 500 for key, _ in content.items):
            raise VerificationFault(f"chunk {index} holds a key that no ledger has")
        pairs = sorted(content.items)

        def work(writer: Writer) -> None:
            if content.kind == _HEADERS:
                writer.put_many("header", pairs)
                return
            _, nodes = update(writer.node, dict(pairs))
            writer.put_many("state", pairs)
            writer.put_many("base", pairs)
            writer.put_many("tree", sorted((prefix, data) for prefix, data in nodes.items() if data is not None))

        self._store.write(work)
        self._next += 1

    def finish(self) -> SignedHeader:
        """Verify headers and state against each other and give the ledger its name; raises VerificationFault."""
        if self._next != len(self.manifest.chunks):
            raise VerificationFault(f"the snapshot ends after {self._next} of {len(self.manifest.chunks)} chunks")
        with self._store.snapshot() as snapshot:
            head = self._check_headers(View(snapshot))
            if root_of(snapshot.node) != head.header.state_root:
                raise VerificationFault("the snapshot's state does not lead to the state root of its header")
        key = height_key(self.manifest.height)

        def work(writer: Writer) -> None:
            writer.put("meta", b"format", FORMAT)
            writer.put("meta", b"genesis", self.manifest.genesis)
            writer.put("meta", b"signer", self.manifest.signer)
            writer.put("meta", b"head", key)
            if self.manifest.height:
                writer.put("meta", b"base", key)
            else:
                writer.clear("base")
                writer.put("body", key, encode(()))
                writer.put("receipt", key, encode(()))

        self._store.write(work)
        self._store.close()
        give_name(self._partial, self.path, "restore")
        return head

    def abandon(self) -> None:
        """Remove what was restored so far."""
        self._store.close()
        shutil.rmtree(self._partial, ignore_errors=True)

    def _check_headers(self, view: View) -> SignedHeader:
        described = self.manifest
        try:
            genesis = decode(described.genesis, Genesis)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise VerificationFault(f"the snapshot's genesis cannot be read: {error}") from None
        below = begin(genesis, self.known).header
        head = SignedHeader(below, b"")
        for height in range(described.height + 1):
            try:
                head = view.header(height)
            except (RefusedInput, msgspec.DecodeError):
                raise VerificationFault(f"the snapshot lacks the header of height {height}") from None
            header = head.header
            stands = header == below if height == 0 else follows(header, below)
            signed = signature_holds(head, described.signer) if described.signer else not head.signature
            if not stands or not signed:
                raise VerificationFault(f"the snapshot's header of height {height} does not hold")
            below = header
        if below.app_hash != described.app_hash or view.snapshot.count("header") != described.height + 1:
            raise VerificationFault("the snapshot's headers are not those that its manifest names")
        return head


def write_snapshot(view: View, file: Path) -> Manifest:
    """Write a snapshot of the present height to ``file``, whole or not at all."""
    described = manifest(view)
    partial = file.with_name(file.name + ".partial")
    try:
        with partial.open("wb") as out:
            out.write(MAGIC)
            _put_frame(out, encode(described))
            for chunk in chunks(view):
                _put_frame(out, chunk)
        give_name(partial, file, "snapshot")
    finally:
        partial.unlink(missing_ok=True)
    return described


def restore_snapshot(file: Path, path: Path, known: KnownRules) -> SignedHeader:
    """Restore a ledger from a snapshot file into the new folder ``path``; refuses an altered file whole."""
    with file.open("rb") as source:
        if source.read(len(MAGIC)) != MAGIC:
            raise RefusedInput(f"{file} is no snapshot of a ledger")
        try:
            described = decode(_next_frame(source, file), Manifest)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise VerificationFault(f"{file}: the manifest cannot be read: {error}") from None
        restoration = Restoration(locate(path), described, known)
        try:
            for index in range(len(described.chunks)):
                restoration.apply(index, _next_frame(source, file))
            if source.read(1):
                raise VerificationFault(f"{file} goes on after its last chunk")
            return restoration.finish()
        except BaseException:
            restoration.abandon()
            raise


def _put_frame(out: BinaryIO, frame: bytes) -> None:
    out.write(len(frame).to_bytes(4, "big"))
    out.write(frame)


def _next_frame(source: BinaryIO, file: Path) -> bytes:
    head = source.read(4)
    size = int.from_bytes(head, "big")
    if len(head) < 4 or size > LARGEST_FRAME:
        raise VerificationFault(f"{file} is cut short or altered")
    frame = source.read(size)
    if len(frame) < size:
        raise VerificationFault(f"{file} is cut short")
    return frame
