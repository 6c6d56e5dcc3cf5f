"""What a day leaves behind: its headline figures, its tables and everything the report tells."""

import csv
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

__all__ = [
    "Account",
    "DayResult",
    "FeederView",
    "Headline",
    "Interval",
    "SliceOffer",
    "SliceStep",
    "SliceStory",
    "SliceViolation",
    "Trade",
    "write_results",
]


class Headline(msgspec.Struct, frozen=True, kw_only=True):
    """The figures that ``gridpool day --json`` prints."""

    feeder: str
    seed: int
    intervals: int
    served_share: float
    """Served / demanded energy over the day."""
    score: float
    """Served energy / energy served at full connectivity."""
    energy_traded_wh: int
    trades: int
    loans: int
    loans_late: int
    transactions: int
    height: int
    app_hash: str
    verified: bool
    coins_minted: int
    coins_redeemed: int
    coins_held: int
    report: str


class Interval(msgspec.Struct, frozen=True, kw_only=True):
    """One quarter hour."""

    interval: int
    start: str
    demand_w: float
    served_w: float
    observed: int
    controlled: int
    traded_wh: int
    price: int | None
    served_full_w: float
    """Served power had every node its links."""
    imported_wh: int
    exported_wh: int
    loans_open: int
    coins_lent: int
    lowest_pu: float
    """Lowest replayed voltage."""
    event: str = ""


class Trade(msgspec.Struct, frozen=True, kw_only=True):
    """One trade of the energy market; members by wallet."""

    interval: int
    buyer: str
    seller: str
    quantity_wh: int
    price: int


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """One account or escrow at the end."""

    account: str
    role: str
    coins: int
    reserved: int
    credit_value: int | None = None


class FeederView(msgspec.Struct, frozen=True, kw_only=True):
    """The feeder as the report draws it."""

    nodes: tuple[str, ...]
    edges: tuple[tuple[str, str], ...]
    coordinates: dict[str, tuple[float, float]]
    observed: tuple[str, ...]
    controlled: tuple[str, ...]
    devices: tuple[str, ...]
    """Nodes with something to control."""
    voltages: dict[str, float]
    """Lowest voltage of each node at the time of greatest demand, per unit."""
    prosumers: dict[str, int]


class SliceOffer(msgspec.Struct, frozen=True, kw_only=True):
    """One offer for a segment of a slice: micro-coins for the day, us, kbit/s, -ln(availability) in 1e-9."""

    segment: str
    offer: str
    party: str
    cost: int
    delay_us: int
    bandwidth_kbps: int
    risk_nano: int
    chosen: bool
    transaction: str


class SliceViolation(msgspec.Struct, frozen=True, kw_only=True):
    """One quarter hour in which a segment fell short, and what that cost in micro-coins."""

    segment: str
    interval: int
    start: str
    """Local time."""
    availability_ppm: int
    basis: str
    severity: int
    paid: int
    penalty: int
    transaction: str


class SliceStep(msgspec.Struct, frozen=True, kw_only=True):
    """One step of a slice's life, as a sentence, with the transactions that made it."""

    step: str
    text: str
    transactions: tuple[str, ...]


class SliceStory(msgspec.Struct, frozen=True, kw_only=True):
    """A slice from its order to its settlement; ``escrowed`` = paid + penalties + refunded + left, in micro-coins."""

    name: str
    kind: str
    nodes: tuple[str, ...]
    phase: str
    judged: int
    """Verdicts: one for each segment and quarter hour served."""
    violated: int
    escrowed: int
    paid: int
    penalties: int
    refunded: int
    escrow_left: int
    offers: tuple[SliceOffer, ...]
    violations: tuple[SliceViolation, ...]
    steps: tuple[SliceStep, ...]


class DayResult(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a day leaves behind."""

    headline: Headline
    date: str
    intervals: tuple[Interval, ...]
    trades: tuple[Trade, ...]
    accounts: tuple[Account, ...]
    feeder: FeederView
    conservation: dict[str, int]
    """Coins and watt-hours on both sides of every account, and their differences."""
    credit_values: tuple[int, ...]
    method: dict[str, str]
    """What was computed how: shown at the end of the report."""
    assumptions: tuple[str, ...]
    story: tuple[tuple[str, str], ...] = ()
    """(title, sentence) of what happened, in order."""
    slices: tuple[SliceStory, ...] = ()


def write_results(result: DayResult, folder: Path, page: str) -> None:
    """Write report, ``results.json`` and the tidy tables; each file appears whole or not at all."""
    _write(folder / "results.json", msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n")
    tables: tuple[tuple[str, type[msgspec.Struct], Sequence[msgspec.Struct]], ...] = (
        ("intervals", Interval, result.intervals),
        ("trades", Trade, result.trades),
        ("accounts", Account, result.accounts),
    )
    for name, kind, rows in tables:
        columns = kind.__struct_fields__
        table = [{column: getattr(row, column) for column in columns} for row in rows]
        _write(folder / f"{name}.csv", _csv(columns, table))
        _write_parquet(folder / f"{name}.parquet", kind, table)
    _write(folder / "report.html", page.encode("utf-8"))


def _csv(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode("utf-8")


def _write_parquet(path: Path, kind: type[msgspec.Struct], rows: Sequence[Mapping[str, Any]]) -> None:
    import pyarrow
    import pyarrow.parquet

    types = {int: pyarrow.int64(), float: pyarrow.float64(), str: pyarrow.string(), int | None: pyarrow.int64()}
    schema = pyarrow.schema([(field.name, types[field.type]) for field in msgspec.structs.fields(kind)])
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows), schema=schema), buffer)
    _write(path, buffer.getvalue())


def _write(path: Path, data: bytes) -> None:
    temporary = path.with_name(path.name + ".part")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
