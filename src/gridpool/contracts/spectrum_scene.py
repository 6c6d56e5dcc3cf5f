"""A neighbourhood of the register in columns: everything that transmits or is protected around some cells, sifted once.

All arithmetic is on 64-bit integers. Sums over all senders at once bound every level from above; only where such a sum
would break a limit is the level followed through time, so that results are those of following every one.
"""

from collections.abc import Collection, Sequence
from functools import lru_cache
from itertools import chain

import h3.api.basic_int as h3
import h3.api.memview_int as h3_memory
import numpy as np

from gridpool.contracts.spectrum_grid import parents_within, plane
from gridpool.contracts.spectrum_interference import Newcomer, ring
from gridpool.contracts.spectrum_kernels import CELL, allowed, broken, heard, holding, listened, sift
from gridpool.contracts.spectrum_power import densities, density
from gridpool.contracts.spectrum_records import (
    CLASSES,
    EPOCH_MS,
    GUARDED,
    GUARDS,
    LOSSES,
    SHEETS,
    BandClass,
    Entry,
    Losses,
    Pages,
    Sheet,
)
from gridpool.contracts.spectrum_sheets import (
    ROW_BYTES,
    STRIP_BINS,
    bins,
    epochs,
    parent,
    strips,
)
from gridpool.ledger.state import State
from gridpool.markets.slice_arbitration_join import Ints

__all__ = ["Scene", "gather"]

MARGIN_BINS = 3
"""Read so far beside the bands at first: enough where leases are one or two bins wide."""
_MOST_MIDDLES = 64
"""Rows are sifted by distance for so many cells; for more, all of their ancestors' rows are taken."""
NOBODY: frozenset[int] = frozenset()
_NONE = np.empty(0, np.int64)
_NOWHERE = np.empty((0, 2), np.int64)
_NO_DISTANCES = np.empty((0, 0), np.int64)
_NO_ROWS = np.empty((0, 8), np.int64)


class Scene:
    """What transmits and what is protected around some cells, in some bins and a stretch of time."""

    def __init__(self, rules: BandClass, losses: Losses, cells: Sequence[int], senders: Ints, guards: Ints) -> None:
        self.rules = rules
        self._senders = senders
        self._rows = np.concatenate((senders, guards)) if len(guards) else senders
        at = np.concatenate((np.array(cells, np.int64), self._rows[:, CELL]))
        self._index = {cell: place for place, cell in enumerate(cells)}
        grid, distances = plane(at), _NO_DISTANCES
        places = np.arange(len(cells), len(at))
        if not len(grid):
            index: dict[int, int] = {}
            order = np.array([index.setdefault(cell, len(index)) for cell in at.tolist()], np.int64)
            self._index = index
            places = order[len(cells) :]
            grid, distances = _geometry(tuple(index), len(losses.rings[0]) - 1)
        # What every kernel takes: where things are, and what is lost on the way.
        self._around = (
            places,
            grid,
            distances,
            _table(losses.rings),
            rules.adjacent_mdb,
            rules.bin_hz,
            _densities(),
        )
        self._limit = density(rules.lessee_limit)

    def holders(self, cells: Collection[int], low: int, high: int, *, general: bool) -> list[Entry]:
        """Return what stands in the way of a lease of [low, high) in these cells; ``general`` leases share."""
        hit = holding(self._senders, np.array(sorted(cells), np.int64), low, high, general)
        return [
            Entry(cell, lease, a, b, start, end, eirp, shape >> 1, bool(shape & 1))
            for cell, lease, a, b, start, end, eirp, shape in hit.tolist()
        ]

    def heard(
        self, cell: int, low: int, high: int, start: int, end: int, but: Collection[int] = NOBODY, *, limit: int = 0
    ) -> int:
        """Return the greatest level in linear units heard at a listed cell in the bins of [low, high) in a time.

        ``but`` names leases that do not count. Where all that could be heard together is at most ``limit``, that sum
        is returned instead.
        """
        first, last = bins(low, high, self.rules.bin_hz)
        missing = np.array(sorted(but), np.int64) if but else _NONE
        return heard(self._senders, *self._around, self._index[cell], first, last, start, end, -1, missing, limit)

    def allowed_level(self, cell: int, newcomer: Newcomer, most: int) -> tuple[int, str]:
        """Return the greatest EIRP (mdBm/MHz) in ``cell``, up to ``most``, that breaks no other's limit, and its bound.

        Judges the newcomer's time and bins, with everything else in the scene transmitting as it may. What holds the
        same band in the same cell does not count: the newcomer's time ends before, or it must not be granted at all.
        """
        wish = newcomer
        best, row = allowed(
            self._rows, len(self._senders), *self._around, self._limit,
            wish.low, wish.high, wish.start, wish.end, wish.height, self._index[cell], most,
        )  # fmt: skip
        return best, self._name(row)

    def broken_limit(self, newcomer: Newcomer) -> str:
        """Return what a newcomer in listed cells would break, or an empty text: the exact test of a grant.

        Checked are its own receivers (where protected), every protected lessee and every protected use it reaches.
        """
        wish, limit = newcomer, self._limit
        if wish.protected:
            for cell in wish.cells:
                if self.heard(cell, wish.low, wish.high, wish.start, wish.end, limit=limit) > limit:
                    return f"too much interference in cell {cell:x}"
        places = np.array([self._index[cell] for cell in wish.cells], np.int64)
        row = broken(
            self._rows, len(self._senders), *self._around, limit,
            wish.low, wish.high, wish.start, wish.end, wish.height, places, wish.eirp,
        )  # fmt: skip
        return self._name(row)

    def _name(self, row: int) -> str:
        if row < 0:
            return ""
        return f"{'lease' if row < len(self._senders) else 'protected use'} {self._rows[row, 1]}"


def gather(
    state: State,
    band: int,
    bands: Sequence[tuple[int, int]],
    cells: Sequence[int],
    start: int,
    end: int,
    *,
    rings: int,
) -> Scene:
    """Do what ``spectrum_interference.scene`` says.

    Who is in the bands' bins or next door must not be disturbed, and hears in all of its own bins and those next to
    them: what transmits there is collected too, however wide its band.
    """
    rules, losses = state.get(CLASSES, band), state.get(LOSSES, band)
    if rules is None or losses is None:
        raise KeyError(band)
    width = rules.bin_hz
    parents, on_plane = parents_within(cells, rings)
    guarded = [above for above in parents if state.get(GUARDED, (band, above)) is not None]
    near, middles = _NONE, _NOWHERE
    if len(cells) <= _MOST_MIDDLES:
        if on_plane:
            middles = plane(np.array(cells, np.int64))
        else:
            near = _disks(cells, rings)
    reading = _Reading(state, band, width, start, end, (near, middles, rings))
    spans = sorted({bins(low, high, width) for low, high in bands})
    wanted = {strip for first, last in spans for strip in strips(max(first - MARGIN_BINS, 0), last + MARGIN_BINS)}
    senders, guards = reading.rows(SHEETS, parents, wanted), reading.rows(GUARDS, guarded, wanted)
    wider = set(wanted)
    for first, last in spans:
        for victims in (senders, guards):
            opens, closes = listened(victims, first - 1, last + 1, width)
            wider.update(strips(max(opens, 0), closes))
    if wider != wanted:
        senders = reading.rows(SHEETS, parents, wider)
    return Scene(rules, losses, cells, senders, guards)


class _Reading:
    """The sheets of one class, stretch of time and neighbourhood."""

    def __init__(self, state: State, band: int, width: int, start: int, end: int, near: tuple[Ints, Ints, int]) -> None:
        self._state = state
        self._band = band
        self._strip_hz = width * STRIP_BINS
        self._start = start
        self._end = end
        self._near = near

    def rows(self, table: Pages[Sheet], parents: Sequence[int], wanted: Collection[int]) -> Ints:
        """Return the rows of the wanted strips, each once, within the time and the neighbourhood."""
        if not parents:
            return _NO_ROWS
        get, band, periods = self._state.get, self._band, epochs(self._start, self._end)
        pages: list[bytes] = []
        floors: list[tuple[int, int]] = []
        ends: list[int] = []
        before = size = 0
        for strip in sorted(wanted):
            for epoch in periods:
                for above in parents:
                    sheet = get(table, (band, above, strip, epoch))
                    if sheet is not None:
                        pages.append(sheet.rows)
                        size += len(sheet.rows)
                # A row lies in every strip and epoch that it touches; it counts in the first that is read.
                floors.append((before * self._strip_hz, 0 if epoch == periods[0] else epoch * EPOCH_MS))
                ends.append(size // ROW_BYTES)
            before = strip + 1
        rows = np.frombuffer(b"".join(pages), "<i8").reshape(-1, 8)
        return sift(rows, np.array(ends, np.int64), np.array(floors, np.int64), self._start, self._end, *self._near)


@lru_cache(maxsize=256)
def _table(rings: tuple[tuple[int, ...], ...]) -> Ints:
    return np.array(rings, np.int64)


@lru_cache(maxsize=1)
def _densities() -> Ints:
    return np.array(densities(), dtype=np.int64)


def _disks(cells: Sequence[int], rings: int) -> Ints:
    """Return, ascending, all cells within ``rings``; none where a pentagon is near."""
    disks = []
    for cell in cells:
        disk = np.frombuffer(h3_memory.grid_disk(cell, rings), np.uint64).astype(np.int64)
        if len(disk) != 3 * rings * (rings + 1) + 1:
            return _NONE
        disks.append(disk)
    return np.sort(disks[0]) if len(disks) == 1 else np.unique(np.concatenate(disks))


def _geometry(cells: tuple[int, ...], reach: int) -> tuple[Ints, Ints]:
    """Return grid coordinates of cells, or no such and a matrix of their ring distances where H3 has none for one."""
    anchor = parent(cells[0])
    try:
        pairs = chain.from_iterable([_coordinates(anchor, cell) for cell in cells])
        return np.fromiter(pairs, np.int64, 2 * len(cells)).reshape(-1, 2), _NO_DISTANCES
    except h3.H3BaseException:
        distances = [[_ring(min(a, b), max(a, b), reach) for b in cells] for a in cells]
        return np.zeros((len(cells), 2), np.int64), np.array(distances, np.int64)


@lru_cache(maxsize=1 << 16)
def _coordinates(anchor: int, cell: int) -> tuple[int, int]:
    """Return the place of a cell on the grid around the middle of an ancestor: geometry, the same at every height."""
    centre = h3.cell_to_center_child(anchor, h3.get_resolution(cell))
    i, j = h3.cell_to_local_ij(centre, cell)
    return i, j


@lru_cache(maxsize=1 << 16)
def _ring(a: int, b: int, reach: int) -> int:
    return ring(a, b, reach)
