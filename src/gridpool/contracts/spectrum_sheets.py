"""Sheets: where the register keeps who transmits and what is protected, so that a neighbourhood is read at once.

A sheet holds the rows of one parent cell, one *strip* (eight bins side by side) and one epoch. A row is eight
little-endian 64-bit integers, so that the rows of all sheets in question are laid end to end and sifted in one pass
instead of being decoded one by one; see ``spectrum_interference`` for that.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from struct import Struct as Layout

import h3.api.basic_int as h3

from gridpool.contracts.spectrum_records import (
    CLASSES,
    EPOCH_MS,
    GUARDED,
    GUARDS,
    SHEETS,
    Counter,
    Entry,
    Guard,
    Lease,
    Pages,
    Sheet,
)
from gridpool.ledger.contract import Context

__all__ = [
    "PARENT_STEPS",
    "ROW_BYTES",
    "STRIP_BINS",
    "add_entries",
    "add_guards",
    "bins",
    "entries_in",
    "entries_of",
    "epochs",
    "guards_in",
    "parent",
    "parents_around",
    "put_entries",
    "remove_entries",
    "strips",
]

PARENT_STEPS = 3
"""A sheet covers the cells below the ancestor this many resolutions up."""
STRIP_BINS = 8
_ROW = Layout("<8q")
ROW_BYTES = _ROW.size
SheetKey = tuple[int, int, int, int]


def parent(cell: int) -> int:
    """Return the ancestor whose sheets hold a cell."""
    above: int = h3.cell_to_parent(cell, h3.get_resolution(cell) - PARENT_STEPS)
    return above


@lru_cache(maxsize=1 << 14)
def parents_around(cell: int, rings: int) -> frozenset[int]:
    """Return the sheets' ancestors of all cells within ``rings`` of a cell.

    An ancestor is some eighteen cells wide, so that each of them crosses the outermost ring, one six rings further in,
    or the cell itself.
    """
    found = {parent(cell)}
    for k in range(rings, 0, -6):
        try:
            around = h3.grid_ring(cell, k)
        except h3.H3BaseException:  # near a pentagon
            around = h3.grid_disk(cell, k)
        found.update(parent(one) for one in around)
    return frozenset(found)


def bins(low: int, high: int, width: int) -> tuple[int, int]:
    """Return the first and last bin that a band touches."""
    return low // width, (high - 1) // width


def strips(first: int, last: int) -> range:
    """Return the strips that bins first..last lie in."""
    return range(first // STRIP_BINS, last // STRIP_BINS + 1)


def epochs(start: int, end: int) -> range:
    """Return the epochs that a stretch of time touches."""
    return range(start // EPOCH_MS, (end - 1) // EPOCH_MS + 1)


def entries_of(number: int, lease: Lease) -> list[Entry]:
    """Return a lease's entries, one a cell."""
    general = lease.kind == "general"
    return [
        Entry(cell, number, lease.low, lease.high, lease.start, lease.end, lease.eirp, lease.height, general)
        for cell in lease.cells
    ]


def entries_in(sheet: Sheet | None) -> Iterator[Entry]:
    """Yield the entries of a sheet of leases."""
    for cell, lease, low, high, start, end, eirp, shape in _ROW.iter_unpack(sheet.rows if sheet is not None else b""):
        yield Entry(cell, lease, low, high, start, end, eirp, shape >> 1, bool(shape & 1))


def guards_in(sheet: Sheet | None) -> Iterator[Guard]:
    """Yield the guards of a sheet of protected uses."""
    for cell, use, low, high, start, end, limit, _ in _ROW.iter_unpack(sheet.rows if sheet is not None else b""):
        yield Guard(cell, use, low, high, start, end, limit)


def put_entries(ctx: Context, parts: Iterable[tuple[int, int, Sequence[Entry]]]) -> None:
    """Write many leases' entries, given as (class, bin width, entries), each sheet once."""
    sheets: dict[SheetKey, list[bytes]] = {}
    for band, width, entries in parts:
        for entry in entries:
            row = _entry_row(entry)
            for key in _keys(band, width, entry):
                sheets.setdefault(key, []).append(row)
    _append(ctx, SHEETS, sheets)


def add_entries(ctx: Context, band: int, entries: Sequence[Entry]) -> None:
    """Write a lease's entries into its sheets."""
    put_entries(ctx, [(band, ctx.require(CLASSES, band, "no_such_class").bin_hz, entries)])


def remove_entries(ctx: Context, band: int, entries: Sequence[Entry]) -> None:
    """Take a lease's entries out of its sheets; empty sheets go."""
    width = ctx.require(CLASSES, band, "no_such_class").bin_hz
    sheets: dict[SheetKey, set[bytes]] = {}
    for entry in entries:
        row = _entry_row(entry)
        for key in _keys(band, width, entry):
            sheets.setdefault(key, set()).add(row)
    for key, mine in sheets.items():
        sheet = ctx.get(SHEETS, key)
        rows = b"" if sheet is None else sheet.rows
        pieces = (rows[at : at + ROW_BYTES] for at in range(0, len(rows), ROW_BYTES))
        kept = b"".join(row for row in pieces if row not in mine)
        if kept:
            ctx.put(SHEETS, key, Sheet(kept))
        else:
            ctx.delete(SHEETS, key)


def add_guards(ctx: Context, band: int, guards: Sequence[Guard]) -> None:
    """Write the windows of a protected use into its sheets."""
    width = ctx.require(CLASSES, band, "no_such_class").bin_hz
    sheets: dict[SheetKey, list[bytes]] = {}
    for guard in guards:
        row = _ROW.pack(guard.cell, guard.use, guard.low, guard.high, guard.start, guard.end, guard.limit, 0)
        for key in _keys(band, width, guard):
            sheets.setdefault(key, []).append(row)
    _append(ctx, GUARDS, sheets)
    for above in sorted({key[1] for key in sheets}):
        ctx.put(GUARDED, (band, above), Counter(1))


def _append(ctx: Context, table: Pages[Sheet], sheets: dict[SheetKey, list[bytes]]) -> None:
    for key, rows in sheets.items():
        old = ctx.get(table, key)
        ctx.put(table, key, Sheet(b"".join((old.rows, *rows) if old is not None else rows)))


def _entry_row(entry: Entry) -> bytes:
    shape = entry.height << 1 | entry.general
    return _ROW.pack(entry.cell, entry.lease, entry.low, entry.high, entry.start, entry.end, entry.eirp, shape)


def _keys(band: int, width: int, one: Entry | Guard) -> list[SheetKey]:
    above = parent(one.cell)
    across = strips(*bins(one.low, one.high, width))
    return [(band, above, strip, epoch) for strip in across for epoch in epochs(one.start, one.end)]
