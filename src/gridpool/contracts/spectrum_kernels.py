"""Compiled loops of a scene: sifting rows of sheets, adding up what is heard, and what a newcomer may add.

All numbers are 64-bit integers, and no sum can leave them: one that passes 2^62 is above every limit and stands for
"too much". A row is a lease or a protected use in one cell; see ``spectrum_sheets``.
"""

import numpy as np

from gridpool.contracts.spectrum_grid import apart, coordinates
from gridpool.markets.slice_arbitration_join import Ints, compiled

__all__ = ["allowed", "broken", "heard", "holding", "listened", "sift"]

CELL, NAME, LOW, HIGH, START, END, POWER, SHAPE = range(8)
"""The columns of a row; ``NAME`` is the lease or protected use, ``POWER`` EIRP or limit."""
TOO_MUCH = 1 << 62
FLOOR, TOP = -180_000, 150_000
"""The level of the first linear unit in mdBm per MHz, and the last index of the table of linear units."""
UNHEARD = -1


@compiled
def _count_up_to(ascending: Ints, value: int) -> int:
    """Return how many of the ascending numbers are at most ``value``."""
    low, high = 0, len(ascending)
    while low < high:
        middle = (low + high) // 2
        if ascending[middle] <= value:
            low = middle + 1
        else:
            high = middle
    return low


@compiled
def _among(ascending: Ints, value: int) -> bool:
    found = _count_up_to(ascending, value)
    return bool(found > 0 and ascending[found - 1] == value)


@compiled
def sift(rows: Ints, ends: Ints, floors: Ints, start: int, end: int, near: Ints, middles: Ints, rings: int) -> Ints:
    """Return the rows within [start, end) and near, each once.

    Page k ends before row ``ends[k]``; of it count the rows from ``floors[k]`` (Hz, ms) on, the others were on a page
    before. Near is within ``rings`` of one of the ``middles`` (plane coordinates); without those, in one of the cells
    ``near`` (ascending); without either, anywhere.
    """
    kept = np.empty((len(rows), 8), np.int64)
    count = at = 0
    for page in range(len(ends)):
        low, since = floors[page, 0], floors[page, 1]
        for r in range(at, ends[page]):
            if rows[r, START] >= end or rows[r, END] <= start or rows[r, START] < since or rows[r, LOW] < low:
                continue
            if len(middles) > 0:
                i, j = coordinates(rows[r, CELL])
                close = False
                for m in range(len(middles)):
                    if apart(i, j, middles[m, 0], middles[m, 1]) <= rings:
                        close = True
                        break
                if not close:
                    continue
            elif len(near) > 0 and not _among(near, rows[r, CELL]):
                continue
            for column in range(8):
                kept[count, column] = rows[r, column]
            count += 1
        at = ends[page]
    return kept[:count]


@compiled
def holding(rows: Ints, cells: Ints, low: int, high: int, sharing: bool) -> Ints:
    """Return the rows in the cells (ascending) whose bands overlap [low, high); ``sharing``: only what does not."""
    kept = np.empty((len(rows), 8), np.int64)
    count = 0
    for r in range(len(rows)):
        if rows[r, LOW] >= high or rows[r, HIGH] <= low or (sharing and rows[r, SHAPE] & 1):
            continue
        if _among(cells, rows[r, CELL]):
            for column in range(8):
                kept[count, column] = rows[r, column]
            count += 1
    return kept[:count]


@compiled
def listened(rows: Ints, first: int, last: int, width: int) -> tuple[int, int]:
    """Return the first and last bin that anybody hears who uses a bin of first..last; these two where nobody does."""
    low, high = first, last
    for r in range(len(rows)):
        begin, end = rows[r, LOW] // width, (rows[r, HIGH] - 1) // width
        if begin <= last and end >= first:
            low, high = min(low, begin - 1), max(high, end + 1)
    return low, high


@compiled
def _rings(a: int, b: int, grid: Ints, distances: Ints) -> int:
    """Return the ring distance of two places: from their plane coordinates, or looked up where there are none."""
    if len(distances) > 0:
        return int(distances[a, b])
    return apart(grid[a, 0], grid[a, 1], grid[b, 0], grid[b, 1])


@compiled
def _units(level: int, table: Ints) -> int:
    """Return the linear units of a level in mdBm per MHz."""
    return int(table[min(max(level - FLOOR, 0), TOP)])


@compiled
def heard(
    rows: Ints,
    places: Ints,
    grid: Ints,
    distances: Ints,
    losses: Ints,
    adjacent: int,
    width: int,
    table: Ints,
    place: int,
    first: int,
    last: int,
    begin: int,
    until: int,
    own: int,
    but: Ints,
    ceiling: int,
) -> int:
    """Return the greatest level heard at a place in bins first..last during [begin, until), in linear units.

    ``own`` and ``but`` are leases that do not count. Where everything together is at most ``ceiling``, that sum is
    returned: the level can only be lower.
    """
    reach = losses.shape[1] - 1
    total = count = 0
    steps = np.empty((2 * len(rows), 2), np.int64)
    for r in range(len(rows)):
        if rows[r, START] >= until or rows[r, END] <= begin or rows[r, NAME] == own:
            continue
        low, high = rows[r, LOW] // width, (rows[r, HIGH] - 1) // width
        if low > last + 1 or high < first - 1:
            continue
        rings = _rings(place, places[r], grid, distances)
        if rings > reach:
            continue
        excluded = False
        for one in but:
            if rows[r, NAME] == one:
                excluded = True
        if excluded:
            continue
        level = rows[r, POWER] - losses[rows[r, SHAPE] >> 1, rings]
        if low > last or high < first:
            level -= adjacent
        units = _units(level, table)
        total = min(total + units, TOO_MUCH)
        steps[2 * count, 0], steps[2 * count, 1] = max(rows[r, START], begin), units
        steps[2 * count + 1, 0], steps[2 * count + 1, 1] = min(rows[r, END], until), -units
        count += 1
    if total <= ceiling:
        return total
    _sort(steps, 2 * count)
    running = most = 0
    for step in range(2 * count):
        running += steps[step, 1]
        most = max(most, running)
        if most >= TOO_MUCH:
            return TOO_MUCH
    return most


@compiled
def _sort(steps: Ints, count: int) -> None:
    """Sort the first (time, change) steps in place: who leaves at an instant goes before who comes (heap sort)."""
    for done in range(count // 2 - 1, -1, -1):
        _sink(steps, done, count)
    for size in range(count - 1, 0, -1):
        for column in range(2):
            steps[0, column], steps[size, column] = steps[size, column], steps[0, column]
        _sink(steps, 0, size)


@compiled
def _sink(steps: Ints, root: int, size: int) -> None:
    """Let a step sink to its place in a heap whose greatest is on top."""
    while 2 * root + 1 < size:
        child = 2 * root + 1
        if child + 1 < size and _before(steps, child, child + 1):
            child += 1
        if not _before(steps, root, child):
            return
        for column in range(2):
            steps[root, column], steps[child, column] = steps[child, column], steps[root, column]
        root = child


@compiled
def _before(steps: Ints, a: int, b: int) -> bool:
    if steps[a, 0] != steps[b, 0]:
        return bool(steps[a, 0] < steps[b, 0])
    return bool(steps[a, 1] < steps[b, 1])


@compiled
def _loss(
    place: int,
    victim: int,
    low: int,
    high: int,
    first: int,
    last: int,
    height: int,
    grid: Ints,
    distances: Ints,
    losses: Ints,
    adjacent: int,
) -> int:
    """Return the loss from a sender in bins low..high to a receiver in bins first..last, or ``UNHEARD``."""
    rings = _rings(place, victim, grid, distances)
    if rings >= losses.shape[1] or low > last + 1 or high < first - 1:
        return UNHEARD
    loss = int(losses[height, rings])
    return loss + adjacent if low > last or high < first else loss


@compiled
def allowed(
    rows: Ints,
    senders: int,
    places: Ints,
    grid: Ints,
    distances: Ints,
    losses: Ints,
    adjacent: int,
    width: int,
    table: Ints,
    limit: int,
    low_hz: int,
    high_hz: int,
    start: int,
    end: int,
    height: int,
    place: int,
    most: int,
) -> tuple[int, int]:
    """Return the greatest EIRP at a place, up to ``most``, that breaks no limit, and the row that bounds it (or -1).

    Rows up to ``senders`` are leases, each entitled to ``limit`` unless it is general; the others are protected uses.
    """
    low, high = low_hz // width, (high_hz - 1) // width
    best, why = most, -1
    nobody = np.empty(0, np.int64)
    for r in range(len(rows)):
        begin, until = max(rows[r, START], start), min(rows[r, END], end)
        is_lease = r < senders
        if begin >= until or (is_lease and rows[r, SHAPE] & 1):
            continue
        first, last = rows[r, LOW] // width, (rows[r, HIGH] - 1) // width
        loss = _loss(place, places[r], low, high, first, last, height, grid, distances, losses, adjacent)
        if loss == UNHEARD:
            continue
        if (
            is_lease
            and _rings(place, places[r], grid, distances) == 0
            and rows[r, LOW] < high_hz
            and low_hz < rows[r, HIGH]
        ):
            continue  # the newcomer's time ends before, or it must not be granted at all
        bound = limit if is_lease else rows[r, POWER]
        # A level is safe just where its linear units on arrival still fit beside what is heard already.
        ceiling = bound - _units(best - loss, table)
        level = heard(
            rows[:senders], places, grid, distances, losses, adjacent, width, table,
            places[r], first, last, begin, until, rows[r, NAME] if is_lease else -1, nobody, ceiling,
        )  # fmt: skip
        if level <= ceiling:
            continue
        room = bound - level
        safe = -(10**6)
        if room >= 1:
            safe = FLOOR + _count_up_to(table, room) - 1 + loss
        if safe < best:
            best, why = safe, r
    return best, why


@compiled
def broken(
    rows: Ints,
    senders: int,
    places: Ints,
    grid: Ints,
    distances: Ints,
    losses: Ints,
    adjacent: int,
    width: int,
    table: Ints,
    limit: int,
    low_hz: int,
    high_hz: int,
    start: int,
    end: int,
    height: int,
    cells: Ints,
    eirp: int,
) -> int:
    """Return the first row whose limit a newcomer at the places ``cells`` would break, or -1."""
    low, high = low_hz // width, (high_hz - 1) // width
    nobody = np.empty(0, np.int64)
    for r in range(len(rows)):
        begin, until = max(rows[r, START], start), min(rows[r, END], end)
        is_lease = r < senders
        if begin >= until or (is_lease and rows[r, SHAPE] & 1):
            continue
        first, last = rows[r, LOW] // width, (rows[r, HIGH] - 1) // width
        added = 0
        for cell in cells:
            loss = _loss(cell, places[r], low, high, first, last, height, grid, distances, losses, adjacent)
            if loss != UNHEARD:
                added = min(added + _units(eirp - loss, table), TOO_MUCH)
        if added == 0:
            continue
        bound = limit if is_lease else rows[r, POWER]
        level = heard(
            rows[:senders], places, grid, distances, losses, adjacent, width, table,
            places[r], first, last, begin, until, rows[r, NAME] if is_lease else -1, nobody, bound - added,
        )  # fmt: skip
        if level > bound - added:
            return r
    return -1
