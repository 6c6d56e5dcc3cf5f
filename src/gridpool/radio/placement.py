"""From counts of resource blocks to the blocks themselves, where channels are flat in a zone."""

from collections.abc import Mapping

import numpy as np

from gridpool.radio.cells import zone_blocks
from gridpool.radio.occupancy import Choice
from gridpool.radio.packages import URLLC, Packages

__all__ = ["place_counts", "place_granted"]


def place_granted(items: Packages, granted: np.ndarray) -> list[Choice]:
    """Give every granted package (n booleans) its blocks: the lowest free ones of its zone, in item order.

    mMTC packages are dealt to the slots in turn, zone by zone, which keeps every zone and the cell within its limits.
    """
    slots = items.instance.slots
    counts: dict[tuple[int, int], int] = {}
    turn: dict[tuple[int, int], int] = {}
    chosen = np.flatnonzero(granted)
    if slots > 1:
        chosen = chosen[np.lexsort((chosen, items.zone[chosen]))]
    for item in chosen.tolist():
        if items.slice[item] == URLLC:
            for slot in range(slots):
                counts[item, slot] = int(items.blocks[item])
        else:
            key = (int(items.cell[item]), int(items.mvno[item]))
            counts[item, turn.get(key, 0) % slots] = int(items.blocks[item])
            turn[key] = turn.get(key, 0) + 1
    return place_counts(items, counts)


def place_counts(items: Packages, counts: Mapping[tuple[int, int], int]) -> list[Choice]:
    """Give each (item, slot) so many of the lowest free blocks of its zone, in item order.

    Where numerologies differ, mMTC takes the highest ones instead, so that the guard lies between.
    """
    instance = items.instance
    spans = zone_blocks(instance.zones)
    parted = instance.numerology.mu > 0 or instance.numerology.guard_blocks > 0
    low: dict[tuple[int, int, int], int] = {}
    high: dict[tuple[int, int, int], int] = {}
    placed: dict[int, dict[int, tuple[int, ...]]] = {}
    for item, slot in sorted(counts):
        k, zone = counts[item, slot], int(items.zone[item])
        key = (int(items.cell[item]), slot, zone)
        if parted and items.slice[item] != URLLC:
            end = high.get(key, spans[zone].stop)
            blocks = tuple(range(end - k, end))
            high[key] = end - k
        else:
            start = low.get(key, spans[zone].start)
            blocks = tuple(range(start, start + k))
            low[key] = start + k
        placed.setdefault(item, {})[slot] = blocks
    return [
        Choice(item, tuple(sorted(placed[item])), tuple(placed[item][slot] for slot in sorted(placed[item])))
        for item in sorted(placed)
    ]
