"""Who hears whom: levels that add up at cells over time, and how much a newcomer may add.

A transmitter in a cell is heard in every cell up to the last ring of its class's path-loss table, in its own bins at
the table's loss and in the bins next door at that loss plus the class's adjacent-channel loss. A level at a cell is
the greatest sum over time; a newcomer is granted only if no limit is broken with it, at any instant.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import h3.api.basic_int as h3
import h3.api.memview_int as h3_memory

from gridpool.contracts.spectrum_power import density, level
from gridpool.contracts.spectrum_records import (
    CLASSES,
    EPOCH_MS,
    GUARDED,
    GUARDS,
    LOSSES,
    SHEETS,
    BandClass,
    Counter,
    Entry,
    Guard,
    Guards,
    Losses,
    Sheet,
)
from gridpool.ledger.contract import Context
from gridpool.ledger.state import State

__all__ = [
    "Newcomer",
    "Scene",
    "add_entries",
    "add_guards",
    "allowed_level",
    "bins",
    "broken_limit",
    "heard",
    "loss_mdb",
    "parent",
    "remove_entries",
    "ring",
    "scene",
]

PARENT_STEPS = 3
"""A sheet covers the cells below the ancestor this many resolutions up."""


@dataclass(frozen=True, slots=True)
class Newcomer:
    """A transmission that somebody asks for; ``protected`` says whether its own receivers enjoy the class's limit."""

    band: int
    low: int
    high: int
    cells: tuple[int, ...]
    start: int
    end: int
    eirp: int
    height: int
    protected: bool


@dataclass(slots=True)
class Scene:
    """Everything that transmits or is protected around some cells, in some bins and a stretch of time."""

    rules: BandClass
    losses: Losses
    entries: list[Entry]
    guards: list[Guard]
    entries_in: dict[int, list[Entry]] = field(default_factory=dict)
    """By bin."""
    guards_in: dict[int, list[Guard]] = field(default_factory=dict)
    places: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Grid coordinates of the cells, where all of them lie on one regular patch of the grid."""
    _distances: dict[tuple[int, int], int] = field(default_factory=dict)
    _near: dict[tuple[int, int], dict[int, list[tuple[Entry, int]]]] = field(default_factory=dict)
    _received: dict[tuple[int, int, int], list[tuple[int, int, int, int]]] = field(default_factory=dict)
    _heard: dict[tuple[int, int, int, int, int, frozenset[int]], int] = field(default_factory=dict)

    def ring(self, a: int, b: int) -> int:
        """Return the ring distance of two cells, remembered."""
        here, there = self.places.get(a), self.places.get(b)
        if here is not None and there is not None:
            di, dj = here[0] - there[0], here[1] - there[1]
            return max(abs(di), abs(dj), abs(di - dj))
        key = (a, b) if a < b else (b, a)
        known = self._distances.get(key)
        if known is None:
            known = self._distances[key] = ring(a, b, self.reach)
        return known

    @property
    def reach(self) -> int:
        """The last ring in which a transmitter is heard."""
        return len(self.losses.rings[0]) - 1

    def audible(self, first: int, last: int) -> dict[int, list[tuple[Entry, int]]]:
        """Return, by cell, what can be heard in bins first..last, with the extra loss of what is next door."""
        found = self._near.get((first, last))
        if found is None:
            found = self._near[first, last] = {}
            seen: set[tuple[int, int]] = set()
            for number in (*range(first, last + 1), first - 1, last + 1):
                extra = 0 if first <= number <= last else self.rules.adjacent_mdb
                for entry in self.entries_in.get(number, ()):
                    if (entry.lease, entry.cell) not in seen:
                        seen.add((entry.lease, entry.cell))
                        found.setdefault(entry.cell, []).append((entry, extra))
        return found

    def received(self, cell: int, first: int, last: int) -> list[tuple[int, int, int, int]]:
        """Return (start, end, lease, linear units) of all that reaches a cell in bins first..last, remembered."""
        key = (cell, first, last)
        found = self._received.get(key)
        if found is not None:
            return found
        found = self._received[key] = []
        rows, reach, places = self.losses.rings, self.reach, self.places
        here = places.get(cell)
        for at, entries in self.audible(first, last).items():
            if here is not None:
                # What ``ring`` does, written out: this loop is where an inquiry spends its time.
                there = places[at]
                di, dj = here[0] - there[0], here[1] - there[1]
                if di > reach or dj > reach or -di > reach or -dj > reach:
                    continue
                rings = max(abs(di), abs(dj), abs(di - dj))
            else:
                rings = self.ring(cell, at)
            if rings > reach:
                continue
            for entry, extra in entries:
                units = density(entry.eirp - rows[entry.height][rings] - extra)
                found.append((entry.start, entry.end, entry.lease, units))
        return found

    def heard(self, cell: int, first: int, last: int, start: int, end: int, but: frozenset[int]) -> int:
        """Return what ``heard`` returns, remembered."""
        key = (cell, first, last, start, end, but)
        known = self._heard.get(key)
        if known is None:
            known = self._heard[key] = heard(self, cell, first, last, start, end, but=but)
        return known


def parent(cell: int) -> int:
    """Return the ancestor whose sheets hold a cell."""
    above: int = h3.cell_to_parent(cell, h3.get_resolution(cell) - PARENT_STEPS)
    return above


def ring(a: int, b: int, reach: int) -> int:
    """Return the H3 grid distance of two cells, or ``reach + 1`` where it is larger.

    Where H3 cannot measure (across one of the twelve pentagons), cells are looked for ring by ring.
    """
    try:
        steps: int = h3.grid_distance(a, b)
        return min(steps, reach + 1)
    except h3.H3BaseException:
        for k in range(reach + 1):
            if b in h3.grid_disk(a, k):
                return k
        return reach + 1


def bins(low: int, high: int, width: int) -> tuple[int, int]:
    """Return the first and last bin that a band touches."""
    return low // width, (high - 1) // width


def epochs(start: int, end: int) -> range:
    """Return the epochs that a stretch of time touches."""
    return range(start // EPOCH_MS, (end - 1) // EPOCH_MS + 1)


def scene(
    state: State,
    band: int,
    bands: Iterable[tuple[int, int]],
    cells: Iterable[int],
    start: int,
    end: int,
    *,
    rings: int,
) -> Scene:
    """Collect what stands within ``rings`` of the cells, in the bins of ``bands`` and two on either side, in a time.

    ``rings`` is the class's reach to judge what is heard at the cells, twice that to judge others too.
    """
    rules, losses = state.get(CLASSES, band), state.get(LOSSES, band)
    if rules is None or losses is None:
        raise KeyError(band)
    numbers: set[int] = set()
    for low, high in bands:
        first, last = bins(low, high, rules.bin_hz)
        numbers.update(range(max(first - 2, 0), last + 3))
    listed = tuple(cells)
    parents: set[int] = set()
    for cell in listed:
        parents.update(_parents_around(cell, rings))
    ordered = sorted(parents)
    guarded_parents = {above for above in ordered if state.get(GUARDED, (band, above)) is not None}
    inside = _disks(listed, rings)
    entries: dict[tuple[int, int], Entry] = {}
    guards: dict[tuple[int, int, int], Guard] = {}
    view = Scene(rules, losses, [], [])
    get, weeks = state.get, epochs(start, end)
    for number in sorted(numbers):
        entries_here: dict[tuple[int, int], Entry] = {}
        guards_here: dict[tuple[int, int, int], Guard] = {}
        for above in ordered:
            is_guarded = above in guarded_parents
            for epoch in weeks:
                key = (band, above, number, epoch)
                sheet = get(SHEETS, key)
                if sheet is not None:
                    for entry in sheet.entries:
                        # Most entries of a sheet stand too far away: the place is asked first.
                        if (inside is None or entry.cell in inside) and entry.start < end and start < entry.end:
                            entries_here[entry.lease, entry.cell] = entry
                guarded = get(GUARDS, key) if is_guarded else None
                if guarded is not None:
                    for guard in guarded.guards:
                        if guard.start < end and start < guard.end and (inside is None or guard.cell in inside):
                            guards_here[guard.use, guard.cell, guard.start] = guard
        if entries_here:
            view.entries_in[number] = list(entries_here.values())
            entries.update(entries_here)
        if guards_here:
            view.guards_in[number] = list(guards_here.values())
            guards.update(guards_here)
    view.entries.extend(entries.values())
    view.guards.extend(guards.values())
    if inside is not None:
        view.places = _places(listed, view)
    return view


def loss_mdb(rules: BandClass, losses: Losses, sender: Newcomer, rings: int, first: int, last: int) -> int:
    """Return the loss from a newcomer to a receiver ``rings`` away that listens in bins first..last; -1: unheard."""
    if rings >= len(losses.rings[sender.height]):
        return -1
    low, high = sender.low // rules.bin_hz, (sender.high - 1) // rules.bin_hz
    if low <= last and first <= high:
        return losses.rings[sender.height][rings]
    if low <= last + 1 and first <= high + 1:
        return losses.rings[sender.height][rings] + rules.adjacent_mdb
    return -1


def heard(
    view: Scene, cell: int, first: int, last: int, start: int, end: int, *, but: frozenset[int] = frozenset()
) -> int:
    """Return the greatest level in linear units heard at a cell in bins first..last during [start, end).

    ``but`` names leases that do not count: a receiver's own, and those of its area.
    """
    steps: list[tuple[int, int]] = []
    for begin, until, lease, units in view.received(cell, first, last):
        if begin < end and start < until and lease not in but:
            steps.append((begin if begin > start else start, units))
            steps.append((until if until < end else end, -units))
    if not steps:
        return 0
    steps.sort()
    total = most = 0
    for _, units in steps:
        total += units
        most = max(most, total)
    return most


def allowed_level(view: Scene, cell: int, newcomer: Newcomer) -> tuple[int, str]:
    """Return the greatest EIRP (mdBm/MHz) in ``cell`` that breaks no other's limit, and what bounds it.

    Judges the newcomer's time and bins, with everything else in the scene transmitting as it may. What holds the same
    band in the same cell does not count: the newcomer's time ends before, or it must not be granted at all.
    """
    rules, losses = view.rules, view.losses
    best, why = rules.most_eirp, ""
    for at, start, end, low, high, limit, own, name in _victims(view, newcomer):
        if at == cell and name[0] == "l" and low < newcomer.high and newcomer.low < high:
            continue
        first, last = bins(low, high, rules.bin_hz)
        loss = loss_mdb(rules, losses, newcomer, view.ring(cell, at), first, last)
        if loss < 0:
            continue
        room = limit - view.heard(at, first, last, start, end, own)
        bound = level(room) + loss if room >= 1 else -(10**6)
        if bound < best:
            best, why = bound, name
    return best, why


def broken_limit(view: Scene, newcomer: Newcomer) -> str:
    """Return what a newcomer would break, or an empty text: the exact test of a grant.

    Checked are its own receivers (where protected), every protected lessee and every protected use it reaches.
    """
    rules, losses = view.rules, view.losses
    first, last = bins(newcomer.low, newcomer.high, rules.bin_hz)
    if newcomer.protected:
        limit = density(rules.lessee_limit)
        for cell in newcomer.cells:
            if heard(view, cell, first, last, newcomer.start, newcomer.end) > limit:
                return f"too much interference in cell {cell:x}"
    for at, start, end, low, high, bound, own, name in _victims(view, newcomer):
        begin, until = bins(low, high, rules.bin_hz)
        added = 0
        for cell in newcomer.cells:
            loss = loss_mdb(rules, losses, newcomer, view.ring(cell, at), begin, until)
            if loss >= 0:
                added += density(newcomer.eirp - loss)
        if added and view.heard(at, begin, until, start, end, own) + added > bound:
            return name
    return ""


NOBODY: frozenset[int] = frozenset()
_Victim = tuple[int, int, int, int, int, int, frozenset[int], str]


def _victims(view: Scene, newcomer: Newcomer) -> Iterator[_Victim]:
    """Yield (cell, start, end, low, high, limit, leases that do not count, name) of all that must not be disturbed."""
    limit = density(view.rules.lessee_limit)
    first, last = bins(newcomer.low, newcomer.high, view.rules.bin_hz)
    reach = view.reach
    for at, entries in view.audible(first, last).items():
        if all(view.ring(cell, at) > reach for cell in newcomer.cells):
            continue
        for entry, _ in entries:
            start, end = max(entry.start, newcomer.start), min(entry.end, newcomer.end)
            if start < end and not entry.general:
                own = frozenset((entry.lease,))
                yield at, start, end, entry.low, entry.high, limit, own, f"lease {entry.lease}"
    seen: set[tuple[int, int, int]] = set()
    for number in range(first - 1, last + 2):
        for guard in view.guards_in.get(number, ()):
            key = (guard.use, guard.cell, guard.start)
            start, end = max(guard.start, newcomer.start), min(guard.end, newcomer.end)
            if start < end and key not in seen:
                seen.add(key)
                name = f"protected use {guard.use}"
                yield guard.cell, start, end, guard.low, guard.high, guard.limit, NOBODY, name


def add_entries(ctx: Context, band: int, entries: Sequence[Entry]) -> None:
    """Write a lease's entries into its sheets."""
    for key, mine in _by_sheet(ctx, band, entries).items():
        sheet = ctx.get(SHEETS, key)
        kept = sheet.entries if sheet is not None else ()
        ctx.put(SHEETS, key, Sheet((*kept, *mine)))


def remove_entries(ctx: Context, band: int, entries: Sequence[Entry]) -> None:
    """Take a lease's entries out of its sheets; empty sheets go."""
    for key, mine in _by_sheet(ctx, band, entries).items():
        sheet = ctx.get(SHEETS, key)
        leases = {(entry.lease, entry.cell) for entry in mine}
        kept = () if sheet is None else tuple(e for e in sheet.entries if (e.lease, e.cell) not in leases)
        if kept:
            ctx.put(SHEETS, key, Sheet(kept))
        else:
            ctx.delete(SHEETS, key)


def add_guards(ctx: Context, band: int, guards: Sequence[Guard]) -> None:
    """Write the windows of a protected use into its sheets."""
    width = ctx.require(CLASSES, band, "no_such_class").bin_hz
    sheets: dict[tuple[int, int, int, int], list[Guard]] = {}
    for guard in guards:
        first, last = bins(guard.low, guard.high, width)
        above = parent(guard.cell)
        for number in range(first, last + 1):
            for epoch in epochs(guard.start, guard.end):
                sheets.setdefault((band, above, number, epoch), []).append(guard)
    for key, mine in sheets.items():
        old = ctx.get(GUARDS, key)
        ctx.put(GUARDED, key[:2], Counter(1))
        ctx.put(GUARDS, key, Guards((*(old.guards if old is not None else ()), *mine)))


def _by_sheet(ctx: Context, band: int, entries: Sequence[Entry]) -> dict[tuple[int, int, int, int], list[Entry]]:
    width = ctx.require(CLASSES, band, "no_such_class").bin_hz
    sheets: dict[tuple[int, int, int, int], list[Entry]] = {}
    for entry in entries:
        first, last = bins(entry.low, entry.high, width)
        above = parent(entry.cell)
        for number in range(first, last + 1):
            for epoch in epochs(entry.start, entry.end):
                sheets.setdefault((band, above, number, epoch), []).append(entry)
    return sheets


def _disks(cells: tuple[int, ...], rings: int) -> set[int] | None:
    """Return all cells within ``rings`` of the cells; None where there are many cells or a pentagon is near."""
    if len(cells) > 8:
        return None
    found: set[int] = set()
    for cell in cells:
        # A memory view turns into numbers more than twice as fast as h3 makes its own list.
        disk = memoryview(h3_memory.grid_disk(cell, rings)).tolist()
        if len(disk) != 3 * rings * (rings + 1) + 1:
            return None
        found.update(disk)
    return found


def _places(cells: tuple[int, ...], view: Scene) -> dict[int, tuple[int, int]]:
    """Return grid coordinates of all cells of a scene, or none of them where H3 has none for one."""
    origin = cells[0]
    wanted = {*cells, *(entry.cell for entry in view.entries), *(guard.cell for guard in view.guards)}
    try:
        return {cell: h3.cell_to_local_ij(origin, cell) for cell in wanted}
    except h3.H3BaseException:
        return {}


@lru_cache(maxsize=1 << 14)
def _parents_around(cell: int, rings: int) -> frozenset[int]:
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
