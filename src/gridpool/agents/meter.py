"""A meter: readings from a file, signed under the key of the wallet that they settle to."""

import csv
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, cast, get_args

from gridpool.contracts.energy_intervals import Quality
from gridpool.contracts.energy_readings import MeterReading, SubmitReadings
from gridpool.errors import RefusedInput
from gridpool.ledger.keys import KeyPair
from gridpool.ledger.transaction import Delegated, delegate
from gridpool.ledger.types import Call

__all__ = ["parse_time", "read_readings", "readings_calls", "sign_readings", "time_text"]

COLUMNS = ("interval", "import_wh", "export_wh")
MOST_BYTES = 64 << 20
PER_CALL = 500


def parse_time(text: str) -> int:
    """Read an RFC 3339 time (UTC where none is given) or milliseconds since the epoch; returns milliseconds."""
    if text.isdecimal() and len(text) <= 15:
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise RefusedInput(f"{text!r} is no time; write it as 2026-06-21T10:15:00Z") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    milliseconds = round(moment.timestamp() * 1000)
    if milliseconds < 0:
        raise RefusedInput(f"{text!r} lies before 1970")
    return milliseconds


def time_text(ms: int) -> str:
    """Write market time as RFC 3339."""
    try:
        moment = datetime.fromtimestamp(ms / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return str(ms)
    return moment.isoformat(timespec="milliseconds" if ms % 1000 else "seconds").replace("+00:00", "Z")


def read_readings(path: Path) -> list[MeterReading]:
    """Read a file of readings: columns ``interval,import_wh,export_wh`` and, if wanted, ``quality``.

    ``interval`` is the start (RFC 3339 or ms), ``quality`` ``measured`` (default), ``estimated`` or ``corrected``. The
    file is accepted whole or refused whole: RefusedInput names the first row that is wrong.
    """
    if not path.is_file():
        raise RefusedInput(f"no file {path}; give a CSV file of readings")
    if path.stat().st_size > MOST_BYTES:
        raise RefusedInput(f"{path} has more than {MOST_BYTES} bytes; split it")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file, strict=True)
            named = rows.fieldnames or ()
            for column in COLUMNS:
                if column not in named:
                    raise RefusedInput(f"{path} has no column {column}; it needs {','.join(COLUMNS)}[,quality]")
            for column in named:
                if column not in (*COLUMNS, "quality"):
                    raise RefusedInput(f"{path} has a column {column!r} that no reading knows; remove it")
            readings = [_reading(path, rows.line_num, row) for row in rows]
    except (csv.Error, UnicodeDecodeError) as error:
        raise RefusedInput(f"{path} is no CSV file of readings: {error}") from None
    if not readings:
        raise RefusedInput(f"{path} holds no reading")
    return readings


def readings_calls(readings: Sequence[MeterReading]) -> list[SubmitReadings]:
    """Cut readings into calls."""
    return [SubmitReadings(tuple(readings[at : at + PER_CALL])) for at in range(0, len(readings), PER_CALL)]


def sign_readings(
    key: KeyPair, chain: str, nonce: int, last_valid_height: int, readings: Sequence[MeterReading]
) -> Delegated[Call]:
    """Sign readings (at most 500) under a wallet's key, for its aggregator to carry."""
    return delegate(key, chain, nonce, last_valid_height, SubmitReadings(tuple(readings)))


def _reading(path: Path, line: int, row: dict[str, str]) -> MeterReading:
    def number(column: str) -> int:
        text = (row.get(column) or "").strip()
        if not (text.isdecimal() and text.isascii() and len(text) <= 12):
            raise RefusedInput(f"{path}, line {line}: {column} is {text!r}; give a whole number of Wh, 0 or more")
        return int(text)

    if None in row:
        raise RefusedInput(f"{path}, line {line}: more fields than columns")
    quality = (row.get("quality") or "measured").strip()
    given = get_args(Quality)
    if quality not in given or quality == "substituted":
        raise RefusedInput(f"{path}, line {line}: quality is {quality!r}; give measured, estimated or corrected")
    try:
        interval = parse_time((row.get("interval") or "").strip())
    except RefusedInput as error:
        raise RefusedInput(f"{path}, line {line}: {error}") from None
    checked = cast(Literal["measured", "estimated", "corrected"], quality)
    return MeterReading(interval, number("import_wh"), number("export_wh"), checked)
