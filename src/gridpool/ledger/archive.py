"""Archives: a whole ledger as a file of blocks, to be replayed elsewhere; and pruning of what is old.

As JSON lines, one line a block; as Parquet where the file's name ends in ``.parquet``, one row a block. No byte of
either can change unnoticed: lines have one spelling, and a Parquet file names the SHA-256 of itself, taken with zeros
in the digest's place.
"""

import base64
import binascii
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from gridpool.errors import RefusedInput, VerificationFault
from gridpool.ledger.block import SignedHeader, signature_holds
from gridpool.ledger.chain import Ledger
from gridpool.ledger.execution import Block, ContractFault
from gridpool.ledger.genesis import Genesis
from gridpool.ledger.store import Writer, give_name, refuse_taken
from gridpool.ledger.types import decode, encode
from gridpool.ledger.verification import state_at
from gridpool.ledger.view import KnownRules, View, by_version, height_key

__all__ = ["export_ledger", "import_ledger", "prune_ledger"]

LONGEST_LINE = 64 << 20
BATCH = 256
DIGEST = "gridpool-sha256"


class Line(msgspec.Struct, forbid_unknown_fields=True):
    """A block in an archive; binary parts in base64. With height 0 stand genesis, the node key and where it ends."""

    height: int
    app_hash: str
    header: str
    transactions: list[str]
    genesis: str | None = None
    signer: str | None = None
    last_height: int | None = None
    last_app_hash: str | None = None


def export_ledger(view: View, file: Path) -> None:
    """Write every block to ``file``, whole or not at all; raises RefusedInput for a pruned ledger."""
    if view.base:
        raise RefusedInput(
            f"blocks up to height {view.base} were pruned from this ledger, so it cannot be exported; "
            "take a snapshot instead"
        )
    partial = file.with_name(file.name + ".partial")
    try:
        if file.suffix == ".parquet":
            _write_parquet(_lines(view), partial)
        else:
            with partial.open("wb") as out:
                for line in _lines(view):
                    out.write(msgspec.json.encode(line) + b"\n")
        give_name(partial, file, "export")
    finally:
        partial.unlink(missing_ok=True)


def import_ledger(
    file: Path, path: Path, known: KnownRules, *, advance: Callable[[int, int], None] | None = None
) -> SignedHeader:
    """Replay an archive into the new folder ``path``/ledger; refuses an altered file whole.

    Every header must come out as the archive says and carry the signature of the node key that height 0 names.
    ``advance`` is told (heights done, heights in all).
    """
    target = path / "ledger"
    refuse_taken(target)
    building = path / "ledger.import"
    if building.exists():
        shutil.rmtree(building)
    try:
        head = _replay(_read(file), building, known, file, advance or (lambda done, total: None))
        give_name(building, target, "import")
        return head
    finally:
        shutil.rmtree(building, ignore_errors=True)


def prune_ledger(
    path: Path, known: KnownRules, *, keep: int, advance: Callable[[int, int], None] | None = None
) -> SignedHeader:
    """Drop transactions and receipts of all but the last ``keep`` blocks.

    Headers and state stay, and the state from which the rest is replayed is kept, so the ledger still verifies. The
    pruned part is replayed first, so that nothing unsound is left without its evidence; ``advance`` is told (heights
    done, heights in all).
    """
    if keep < 1:
        raise RefusedInput(f"--keep {keep}: keep at least one block")
    versions = by_version(known)
    with Ledger.open(path, versions) as ledger:
        base = ledger.height - keep
        with ledger.view() as view:
            before = view.base
            pairs = list(state_at(view.snapshot, versions, base, advance=advance).items()) if base > before else []
        if base <= before:
            return ledger.head

        def work(writer: Writer) -> None:
            writer.clear("base")
            writer.put_many("base", sorted(pairs))
            for height in range(before + 1 if before else 0, base + 1):
                writer.delete("body", height_key(height))
                writer.delete("receipt", height_key(height))
            limit = height_key(base)
            for tx_id in [tx_id for tx_id, place in writer.items("transaction") if place[:8] <= limit]:
                writer.delete("transaction", tx_id)
            writer.put("meta", b"base", limit)

        ledger.store.write(work)
        return ledger.head


def _lines(view: View) -> Iterator[Line]:
    for height in range(view.height + 1):
        signed = view.header(height)
        line = Line(
            height=height,
            app_hash=signed.header.app_hash.hex(),
            header=_base64(encode(signed)),
            transactions=[_base64(wire) for wire in view.transactions(height)],
        )
        if height == 0:
            line.genesis = _base64(view.snapshot.read("meta", b"genesis") or b"")
            line.signer = _base64(view.snapshot.read("meta", b"signer") or b"")
            line.last_height = view.height
            line.last_app_hash = view.header(view.height).header.app_hash.hex()
        yield line


def _replay(
    lines: Iterator[Line], path: Path, known: KnownRules, file: Path, advance: Callable[[int, int], None]
) -> SignedHeader:
    first = next(lines, None)
    if first is None or first.genesis is None or first.height != 0 or first.transactions:
        raise RefusedInput(f"{file} is no archive of a ledger: it does not begin with genesis")
    signed, signer = _signed_header(first, file), _plain(first.signer or "", file)
    try:
        genesis = decode(_plain(first.genesis, file), Genesis)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RefusedInput(f"{file}: genesis cannot be read: {error}") from None
    with Ledger.create(path, genesis, known, signed_by=(signer, signed.signature)) as ledger:
        _agree(ledger.head, signed, signer, first, file)
        for number, line in enumerate(lines, 1):
            signed = _signed_header(line, file)
            if line.height != number or line.genesis is not None or line.signer is not None:
                raise VerificationFault(f"{file}: block {line.height} stands where {number} should")
            wires = tuple(_plain(wire, file) for wire in line.transactions)
            try:
                pending = ledger.execute(Block(number, signed.header.time_ms, wires, signed.header.misbehaving))
            except ContractFault as error:
                raise VerificationFault(f"{file}: height {number} cannot be carried out: {error}") from None
            _agree(SignedHeader(pending.header, signed.signature), signed, signer, line, file)
            ledger.commit(pending, signature=signed.signature)
            advance(number, max(number, first.last_height or 0))
        if (ledger.height, ledger.app_hash.hex()) != (first.last_height, first.last_app_hash):
            raise VerificationFault(f"{file} ends at height {ledger.height}, it should end at {first.last_height}")
        return ledger.head


def _agree(made: SignedHeader, said: SignedHeader, signer: bytes, line: Line, file: Path) -> None:
    same = made == said and line.app_hash == made.header.app_hash.hex()
    if not same or (signature_holds(said, signer) if signer else not said.signature) is False:
        raise VerificationFault(f"{file}: replaying height {line.height} does not give the header that it claims")


def _signed_header(line: Line, file: Path) -> SignedHeader:
    try:
        return decode(_plain(line.header, file), SignedHeader)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise VerificationFault(f"{file}: the header of height {line.height} cannot be read: {error}") from None


def _plain(text: str, file: Path) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise VerificationFault(f"{file} holds text that is no base64") from None
    # The last character may carry bits that stand for nothing; they too must be as they were written.
    if _base64(data) != text:
        raise VerificationFault(f"{file} holds base64 that is not how gridpool ledger export writes it")
    return data


def _read(file: Path) -> Iterator[Line]:
    if file.suffix == ".parquet":
        yield from _read_parquet(file)
        return
    decoder = msgspec.json.Decoder(Line)
    with file.open("rb") as source:
        number = 0
        while line := source.readline(LONGEST_LINE):
            number += 1
            try:
                read = decoder.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                raise RefusedInput(f"{file}, line {number}: {error}") from None
            if msgspec.json.encode(read) + b"\n" != line:
                raise RefusedInput(f"{file}, line {number}: this is not how gridpool ledger export writes it")
            yield read


def _write_parquet(lines: Iterator[Line], file: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(
        [
            ("height", pa.int64()),
            ("app_hash", pa.string()),
            ("header", pa.string()),
            ("transactions", pa.list_(pa.string())),
            ("genesis", pa.string()),
            ("signer", pa.string()),
            ("last_height", pa.int64()),
            ("last_app_hash", pa.string()),
        ]
    )
    with pq.ParquetWriter(file, schema) as writer:
        batch: list[dict[str, Any]] = []
        for line in lines:
            batch.append(msgspec.to_builtins(line))
            if len(batch) == BATCH:
                writer.write_table(pa.Table.from_pylist(batch, schema))
                batch = []
        writer.write_table(pa.Table.from_pylist(batch, schema))
        writer.add_key_value_metadata({DIGEST: "0" * 64})
    footer, digest = _digest(file, b"0" * 64)
    with file.open("r+b") as out:
        out.seek(footer)
        out.write(digest)


def _digest(file: Path, held: bytes) -> tuple[int, bytes]:
    """Return where the digest ``held`` stands in a Parquet file, and the one that belongs there, in hexadecimal.

    Raises RefusedInput where the end of the file does not hold it once.
    """
    digest = sha256()
    with file.open("rb") as source:
        source.seek(-8, os.SEEK_END)
        size = int.from_bytes(source.read(4), "little")
        start = source.tell() - 4 - size
        if start < 0 or size > LONGEST_LINE:
            raise RefusedInput(f"{file} is no Parquet archive of a ledger: its end is altered")
        source.seek(0)
        for at in range(0, start, 1 << 20):
            digest.update(source.read(min(1 << 20, start - at)))
        footer = source.read()
    if footer.count(held) != 1:
        raise RefusedInput(f"{file} does not name its SHA-256; export the ledger anew")
    digest.update(footer.replace(held, b"0" * 64))
    return start + footer.index(held), digest.hexdigest().encode()


def _read_parquet(file: Path) -> Iterator[Line]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file, thrift_string_size_limit=LONGEST_LINE, thrift_container_size_limit=1 << 20) as source:
            held = (source.metadata.metadata or {}).get(DIGEST.encode(), b"")
            if len(held) != 64 or _digest(file, held)[1] != held:
                raise VerificationFault(f"{file} is not the file that its SHA-256 was taken of")
            for batch in source.iter_batches(batch_size=BATCH):
                yield from _converted(batch.to_pylist(), file)
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, RefusedInput | FileNotFoundError):
            raise
        raise RefusedInput(f"{file} is no Parquet archive of a ledger: {error}") from None


def _converted(rows: Sequence[Any], file: Path) -> list[Line]:
    try:
        return msgspec.convert(rows, list[Line])
    except msgspec.ValidationError as error:
        raise RefusedInput(f"{file}: {error}") from None


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
