"""Files of signed readings: JSON lines or Parquet, read line by line under bounds, written whole or not at all.

A line of the first mode is ``{"device", "start", "value", "signature"}``. In the second mode a device opens a session
with ``{"device", "start", "session", "aggregator", "signature"}`` and then sends
``{"device", "start", "value", "session", "sequence", "mac"}``. Bytes are hexadecimal (binary columns in Parquet).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import IO, Annotated, Any

import msgspec
import numpy as np

from gridpool.agents.telemetry_session import SessionSender, opening_message
from gridpool.contracts.records_tree import Reading, reading_message, reading_row
from gridpool.errors import RefusedInput
from gridpool.ledger.keys import KeyPair

__all__ = ["Line", "count_lines", "make_readings", "read_lines"]

MOST_LINE = 4_096
"""Bytes of a line, beyond which it is refused."""
MOST_FILE = 1 << 40
MOST_ROW, MOST_GROUP = 1_024, 1 << 24
"""Bytes that a Parquet row, and a group of rows beside them, may unfold to."""
MOST_MADE = 100_000_000
INTERVAL_MS = 900_000
FIRST_START = 1_767_225_600_000
"""2026-01-01T00:00:00Z: the start of the first readings that are made."""
BATCH = 8_192

Time = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
Quantity = Annotated[int, msgspec.Meta(ge=-(2**63) + 1, le=2**63 - 1)]


class Line(msgspec.Struct, gc=False):
    """One line as it stands in a file, its bytes still in hexadecimal."""

    device: str
    start: Time
    value: Quantity | None = None
    signature: str = ""
    session: str = ""
    sequence: Time | None = None
    mac: str = ""
    aggregator: str = ""


_DECODER = msgspec.json.Decoder(Line)
_NUMBERS = ("start", "value", "sequence")
_BINARY = ("device", "signature", "session", "mac", "aggregator")


def read_lines(path: Path) -> Iterator[tuple[int, Line | str]]:
    """Yield (number from 1, line or why it is malformed); empty lines count and are passed over.

    Raises RefusedInput where the file as a whole cannot be read.
    """
    if not path.is_file():
        raise RefusedInput(f"no file {path}; give readings as .jsonl or .parquet")
    if path.stat().st_size > MOST_FILE:
        raise RefusedInput(f"{path} has more than {MOST_FILE} bytes; split it")
    if path.suffix == ".parquet":
        yield from _parquet_lines(path)
        return
    with path.open("rb") as file:
        number = 0
        decode = _DECODER.decode
        while raw := file.readline(MOST_LINE):
            number += 1
            if len(raw) == MOST_LINE and not raw.endswith(b"\n") and _skip(file):
                yield number, f"malformed: the line has more than {MOST_LINE} bytes"
                continue
            try:
                yield number, decode(raw)
            except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
                if raw.strip():
                    yield number, f"malformed: {error}"


def count_lines(path: Path) -> int:
    """Estimate how many lines a file has, for a progress bar."""
    if path.suffix == ".parquet":
        return int(_parquet(path).metadata.num_rows)
    with path.open("rb") as file:
        head = file.read(1 << 16)
    lines = head.count(b"\n")
    return max(1, path.stat().st_size * lines // len(head)) if lines else 1


def make_readings(
    out: Path,
    *,
    readings: int,
    devices: int,
    generator: np.random.Generator,
    aggregator: bytes | None = None,
    advance: "Any | None" = None,
) -> int:
    """Write readings that devices with fresh keys have signed; returns the size of the file in bytes.

    Device ``i % devices`` makes reading ``i``, one each quarter of an hour from 2026 on. With ``aggregator`` (a public
    key) each device signs one session with it and authenticates its readings by a chain of keys. Everything follows
    from ``generator``. Raises RefusedInput for numbers out of range or a name that is neither .jsonl nor .parquet.
    """
    if not 1 <= readings <= MOST_MADE or not 1 <= devices <= MOST_MADE:
        raise RefusedInput(f"readings and devices lie in 1 to {MOST_MADE}")
    if out.suffix not in (".jsonl", ".parquet"):
        raise RefusedInput(f"{out} is neither .jsonl nor .parquet; choose one of these names")
    if not out.parent.is_dir():
        raise RefusedInput(f"no folder {out.parent} for {out.name}; make it first")
    lines = _made_lines(readings, devices, generator, aggregator)
    partial = out.with_name(f".{out.name}.partial")
    try:
        if out.suffix == ".jsonl":
            _write_json(partial, lines, advance)
        else:
            _write_parquet(partial, lines, advance)
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)
    return out.stat().st_size


def _made_lines(
    readings: int, devices: int, generator: np.random.Generator, aggregator: bytes | None
) -> Iterator[dict[str, Any]]:
    keys = [KeyPair(generator.bytes(32)) for _ in range(min(devices, readings))]
    senders: dict[int, SessionSender] = {}
    for first in range(0, readings, BATCH):
        values = generator.integers(0, 10_000, min(BATCH, readings - first)).tolist()
        for number, value in enumerate(values, first):
            key = keys[number % devices]
            start = FIRST_START + INTERVAL_MS * (number // devices)
            row = reading_row(Reading(key.public, start, value))
            line: dict[str, Any] = {"device": key.public, "start": start}
            if aggregator is None:
                yield line | {"value": value, "signature": key.sign(reading_message(row))}
                continue
            sender = senders.get(number % devices)
            if sender is None:
                sender = senders[number % devices] = SessionSender(key, aggregator, generator.bytes(16))
                signature = key.sign(opening_message(key.public, aggregator, sender.session, start))
                yield line | {"session": sender.session, "aggregator": aggregator, "signature": signature}
            sequence, mac = sender.authenticate(row)
            yield line | {"value": value, "session": sender.session, "sequence": sequence, "mac": mac}


def _write_json(path: Path, lines: Iterator[dict[str, Any]], advance: Any) -> None:
    encoder = msgspec.json.Encoder()
    with path.open("wb") as file:
        for count, line in enumerate(lines, 1):
            plain = {name: part.hex() if isinstance(part, bytes) else part for name, part in line.items()}
            file.write(encoder.encode(plain) + b"\n")
            if advance is not None and not count % 1_000:
                advance(1_000)


def _write_parquet(path: Path, lines: Iterator[dict[str, Any]], advance: Any) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    sizes = {"device": 32, "signature": 64, "session": 16, "mac": 16, "aggregator": 32}
    names = ("device", "start", "value", "signature", "session", "sequence", "mac", "aggregator")
    schema = pa.schema([(name, pa.binary(sizes[name]) if name in sizes else pa.int64()) for name in names])
    with parquet.ParquetWriter(path, schema, use_dictionary=["device", "session", "aggregator"]) as writer:
        batch: list[dict[str, Any]] = []
        for line in lines:
            batch.append(line)
            if len(batch) == 4 * BATCH:
                writer.write_table(pa.Table.from_pylist(batch, schema=schema))
                if advance is not None:
                    advance(len(batch))
                batch = []
        if batch:
            writer.write_table(pa.Table.from_pylist(batch, schema=schema))


def _skip(file: IO[bytes]) -> bool:
    """Pass over the rest of a line; tells whether there was any."""
    some = False
    while rest := file.readline(MOST_LINE):
        some = True
        if rest.endswith(b"\n"):
            break
    return some


def _parquet(path: Path) -> Any:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        return parquet.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise RefusedInput(f"{path} is no Parquet file: {error}") from None


def _parquet_lines(path: Path) -> Iterator[tuple[int, Line | str]]:
    import pyarrow as pa

    file = _parquet(path)
    columns = [name for name in file.schema_arrow.names if name in _NUMBERS + _BINARY]
    for name in ("device", "start", "value"):
        if name not in columns:
            raise RefusedInput(f"{path} has no column {name}; it needs device, start, value and signature")
    if len(set(columns)) < len(columns):
        raise RefusedInput(f"{path} has two columns of one name; rename one")
    _bound_groups(path, file.metadata, columns)
    number = 0
    try:
        for batch in file.iter_batches(BATCH, columns=columns):
            parts = [batch.column(name).to_pylist() for name in columns]
            for row in zip(*parts, strict=True):
                number += 1
                yield number, _line(dict(zip(columns, row, strict=True)))
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise RefusedInput(f"{path} is damaged after row {number}: {error}") from None


def _bound_groups(path: Path, metadata: Any, columns: list[str]) -> None:
    """Refuse groups of rows that would unfold to far more than readings need."""
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        parts = [group.column(at) for at in range(group.num_columns)]
        size = sum(part.total_uncompressed_size for part in parts if part.path_in_schema.split(".")[0] in columns)
        if size > MOST_GROUP + MOST_ROW * group.num_rows:
            raise RefusedInput(f"{path}: its group of rows {number} unfolds to {size} bytes; write smaller values")


def _line(row: dict[str, Any]) -> Line | str:
    """Turn a Parquet row into a line; what JSON could not hold is malformed."""
    plain = {name: part.hex() if isinstance(part, bytes) else part for name, part in row.items() if part is not None}
    try:
        return msgspec.convert(plain, Line)
    except (msgspec.ValidationError, ValueError) as error:
        return f"malformed: {error}"
