"""Which resource blocks are taken while an allocation grows, and whether one more package fits."""

from dataclasses import dataclass

import numpy as np

from gridpool.radio.cells import zone_blocks
from gridpool.radio.packages import URLLC, Packages, share_blocks

__all__ = ["Choice", "Occupancy"]


@dataclass(frozen=True, slots=True)
class Choice:
    """An item's resource blocks, slot by slot: URLLC holds its blocks in every slot, mMTC one block in one slot."""

    item: int
    slots: tuple[int, ...]
    resource_blocks: tuple[tuple[int, ...], ...]


class Occupancy:
    """Free resource blocks of all cells and slots, and what MVNOs have used of their shares and power.

    ``ignore_shares`` lifts (7c), for the second pass that hands idle blocks on.
    """

    def __init__(self, items: Packages) -> None:
        instance = items.instance
        self.items = items
        self.instance = instance
        self.ignore_shares = False
        self._spans = zone_blocks(instance.zones)
        self._free: dict[tuple[int, int, int], list[int]] = {}
        self._used: dict[tuple[int, int, int], int] = {}
        self._urllc: dict[tuple[int, int, int], int] = {}
        self._has_urllc: set[tuple[int, int, int]] = set()
        self._total = [0] * len(instance.mvnos)
        self._share = share_blocks(instance).tolist()
        self._parted = instance.numerology.mu > 0 or instance.numerology.guard_blocks > 0

    def fitting(self, item: int) -> Choice | None:
        """Return where the item's package would lie now under (7b)-(7f), None where it does not fit."""
        items, k = self.items, int(self.items.blocks[item])
        cell, zone, mvno = int(items.cell[item]), int(items.zone[item]), int(items.mvno[item])
        if k == 0:
            return None
        if items.slice[item] != URLLC:
            return self._one_slot(item, cell, zone, mvno)
        slots = range(self.instance.slots)
        chosen = []
        for slot in slots:
            if not self._within_limits(cell, slot, mvno, k, urllc=True, slots=len(slots)):
                return None
            found = self._pick(item, cell, slot, zone, k)
            if found is None:
                return None
            chosen.append(found)
        return Choice(item, tuple(slots), tuple(chosen))

    def _one_slot(self, item: int, cell: int, zone: int, mvno: int) -> Choice | None:
        """Return an mMTC package's place: the first slot where it fits, under fading the one with its best block."""
        chosen: Choice | None = None
        for slot in range(self.instance.slots):
            if self._within_limits(cell, slot, mvno, 1, urllc=False, slots=1):
                found = self._pick(item, cell, slot, zone, 1)
                if found is None:
                    continue
                choice = Choice(item, (slot,), (found,))
                if self.items.rates is None:
                    return choice
                # Were it the first slot, a package could gain by other packages' grants, and greed would not be greedy.
                if chosen is None or self.value(choice) > self.value(chosen):
                    chosen = choice
        return chosen

    def admits(self, choice: Choice) -> bool:
        """Return whether a choice made elsewhere fits beside what is taken."""
        items, item = self.items, choice.item
        cell, zone, mvno = int(items.cell[item]), int(items.zone[item]), int(items.mvno[item])
        urllc = bool(items.slice[item] == URLLC)
        return all(
            self._within_limits(cell, slot, mvno, len(blocks), urllc=urllc, slots=len(choice.slots))
            and set(blocks) <= set(self._zone(cell, slot, zone))
            for slot, blocks in zip(choice.slots, choice.resource_blocks, strict=True)
        )

    def take(self, choice: Choice) -> None:
        """Mark the blocks of a choice as taken."""
        items, item = self.items, choice.item
        cell, zone, mvno = int(items.cell[item]), int(items.zone[item]), int(items.mvno[item])
        urllc = items.slice[item] == URLLC
        for slot, blocks in zip(choice.slots, choice.resource_blocks, strict=True):
            free = self._zone(cell, slot, zone)
            for block in blocks:
                free.remove(block)
            key = (cell, slot, mvno)
            self._used[key] = self._used.get(key, 0) + len(blocks)
            self._total[mvno] += len(blocks)
            if urllc:
                self._urllc[key] = self._urllc.get(key, 0) + len(blocks)
                self._has_urllc.add((cell, slot, zone))

    def value(self, choice: Choice) -> float:
        """Return the choice's contribution to the objective."""
        items, item = self.items, choice.item
        if items.rates is None or items.objective == "coverage":
            return float(items.worth[item])
        rate = sum(int(items.rates[item, block]) for blocks in choice.resource_blocks for block in blocks)
        return float(items.block_value[item] * rate)

    def _within_limits(self, cell: int, slot: int, mvno: int, k: int, *, urllc: bool, slots: int) -> bool:
        key = (cell, slot, mvno)
        if urllc and self._urllc.get(key, 0) + k > self.instance.urllc_blocks:
            return False
        budget = self.instance.budget_blocks
        if budget is not None and self._total[mvno] + k * slots > budget:
            return False
        return self.ignore_shares or self._used.get(key, 0) + k <= self._share[mvno]

    def _pick(self, item: int, cell: int, slot: int, zone: int, k: int) -> tuple[int, ...] | None:
        free = self._zone(cell, slot, zone)
        if len(free) < k:
            return None
        if self._parted:
            return self._pick_part(item, cell, slot, zone, k)
        rates = self.items.rates
        if rates is None:
            return tuple(free[:k])
        here = rates[item, free]
        best = np.argsort(-here, kind="stable")[:k]
        needed = self.instance.urllc_requirement.required_bps if self.items.slice[item] == URLLC else 1
        return tuple(sorted(free[i] for i in best)) if int(here[best].sum()) >= needed else None

    def _pick_part(self, item: int, cell: int, slot: int, zone: int, k: int) -> tuple[int, ...] | None:
        """URLLC grows from the low end of the zone, mMTC from the high end, with the guard between them."""
        span, free, guard = self._spans[zone], self._zone(cell, slot, zone), self.instance.numerology.guard_blocks
        if self.items.slice[item] == URLLC:
            mmtc = free[-1] + 1 < span.stop
            return tuple(free[:k]) if len(free) - (guard if mmtc else 0) >= k else None
        urllc = (cell, slot, zone) in self._has_urllc
        return (free[-1],) if len(free) - (guard if urllc else 0) >= 1 else None

    def _zone(self, cell: int, slot: int, zone: int) -> list[int]:
        key = (cell, slot, zone)
        if key not in self._free:
            self._free[key] = list(self._spans[zone])
        return self._free[key]
