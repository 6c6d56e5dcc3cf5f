"""The whole register judged from scratch: no double lease, and nobody hears more than it must.

Grants judge a newcomer by what lies around it; this walks every sheet of every epoch, for genesis and the invariants.
"""

from typing import TYPE_CHECKING

import h3.api.basic_int as h3

from gridpool.contracts.spectrum_interference import scene
from gridpool.contracts.spectrum_power import density
from gridpool.contracts.spectrum_records import CLASSES, EPOCH_MS, GUARDS, LOSSES, SHEETS, BandClass, Entry, Losses
from gridpool.contracts.spectrum_sheets import STRIP_BINS, bins, entries_in, guards_in, strips
from gridpool.ledger.state import State

if TYPE_CHECKING:
    from gridpool.contracts.spectrum_scene import Scene

__all__ = ["first_broken_limit", "guard_fault"]


def first_broken_limit(state: State) -> str:
    """Return the first double lease or broken limit of the whole register, or an empty text.

    Goes through the register epoch by epoch, so that its time grows with the number of leases.
    """
    epochs_of: dict[tuple[int, int], dict[int, dict[int, list[Entry]]]] = {}
    widths = {number: rules.bin_hz for number, rules in state.scan(CLASSES)}
    for (band, _, strip, epoch), sheet in state.scan(SHEETS):
        bins_of = epochs_of.setdefault((band, epoch), {})
        for entry in entries_in(sheet):
            first, last = bins(entry.low, entry.high, widths[band])
            for number in range(max(first, strip * STRIP_BINS), min(last, strip * STRIP_BINS + STRIP_BINS - 1) + 1):
                bins_of.setdefault(number, {}).setdefault(entry.cell, []).append(entry)
    rings: dict[int, tuple[tuple[int, int], ...]] = {}
    for band, epoch in sorted(epochs_of):
        rules, losses = state.get(CLASSES, band), state.get(LOSSES, band)
        if rules is None or losses is None:
            return f"leases of band class {band}, which there is not"
        fault = _fault_in_epoch(rules, losses, epoch, epochs_of[band, epoch], rings)
        if fault:
            return fault
    return guard_fault(state, {number for number, _ in state.scan(CLASSES)})


def _fault_in_epoch(
    rules: BandClass,
    losses: Losses,
    epoch: int,
    bins_of: dict[int, dict[int, list[Entry]]],
    rings_of: dict[int, tuple[tuple[int, int], ...]],
) -> str:
    """Return the first fault among the entries of one class and epoch."""
    limit = density(rules.lessee_limit)
    reach, rows = len(losses.rings[0]) - 1, losses.rings
    opens, closes = epoch * EPOCH_MS, (epoch + 1) * EPOCH_MS
    present = {cell for cells in bins_of.values() for cell in cells}
    around: dict[int, tuple[tuple[int, int], ...]] = {}
    for number in sorted(bins_of):
        for cell, entries in sorted(bins_of[number].items()):
            near = around.get(cell)
            if near is None:
                if cell not in rings_of:
                    rings_of[cell] = _rings_around(cell, reach)
                near = around[cell] = tuple(pair for pair in rings_of[cell] if pair[0] in present)
            for entry in entries:
                first, last = bins(entry.low, entry.high, rules.bin_hz)
                if first != number:
                    continue  # judged in its first bin
                start, end = max(entry.start, opens), min(entry.end, closes)
                steps: list[tuple[int, int]] = []
                seen: set[tuple[int, int]] = set()
                for part in (*range(first, last + 1), first - 1, last + 1):
                    cells = bins_of.get(part)
                    if cells is None:
                        continue
                    extra = 0 if first <= part <= last else rules.adjacent_mdb
                    for there, rings in near:
                        for other in cells.get(there, ()):
                            if other.start >= end or other.end <= start or other.lease == entry.lease:
                                continue
                            if (other.lease, there) in seen:
                                continue
                            seen.add((other.lease, there))
                            overlap = there == cell and other.low < entry.high and entry.low < other.high
                            if overlap and not (entry.general and other.general):
                                return f"leases {entry.lease} and {other.lease} overlap in cell {cell:x}"
                            units = density(other.eirp - rows[other.height][rings] - extra)
                            steps.append((max(other.start, start), units))
                            steps.append((min(other.end, end), -units))
                if not entry.general and _peak(steps) > limit:
                    return f"lease {entry.lease} is disturbed in cell {cell:x}"
    return ""


def _rings_around(cell: int, reach: int) -> tuple[tuple[int, int], ...]:
    """Return (cell, ring) of every cell within reach."""
    found: dict[int, int] = {cell: 0}
    edge = [cell]
    for ring_number in range(1, reach + 1):
        fresh = []
        for one in edge:
            for other in h3.grid_disk(one, 1):
                if other not in found:
                    found[other] = ring_number
                    fresh.append(other)
        edge = fresh
    return tuple(found.items())


def _peak(steps: list[tuple[int, int]]) -> int:
    """Return the greatest running sum of (time, change) steps."""
    steps.sort()
    total = most = 0
    for _, units in steps:
        total += units
        most = max(most, total)
    return most


def guard_fault(state: State, bands: set[int]) -> str:
    """Return the first protected use that hears too much, or an empty text."""
    for (band, _, strip, epoch), sheet in state.scan(GUARDS):
        if band not in bands:
            continue
        table = state.get(LOSSES, band)
        reach = 0 if table is None else len(table.rings[0]) - 1
        whole = epoch * EPOCH_MS, (epoch + 1) * EPOCH_MS
        scenes: dict[tuple[int, int, int], Scene] = {}
        for guard in guards_in(sheet):
            around = scenes.get((guard.cell, guard.low, guard.high))
            if around is None:
                around = scene(state, band, ((guard.low, guard.high),), (guard.cell,), *whole, rings=reach)
                scenes[guard.cell, guard.low, guard.high] = around
            if strips(*bins(guard.low, guard.high, around.rules.bin_hz))[0] != strip:
                continue  # judged in its first strip
            start, end = max(guard.start, whole[0]), min(guard.end, whole[1])
            if around.heard(guard.cell, guard.low, guard.high, start, end, limit=guard.limit) > guard.limit:
                return f"protected use {guard.use} hears too much in cell {guard.cell:x}"
    return ""
