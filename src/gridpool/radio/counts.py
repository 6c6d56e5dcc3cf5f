"""Blocks beyond a slice's need: filling what packages left, and when problem (7) as printed has no solution."""

import numpy as np

from gridpool.errors import RefusedInput
from gridpool.radio.cells import zone_blocks
from gridpool.radio.occupancy import Choice
from gridpool.radio.packages import URLLC, Packages, share_blocks

__all__ = ["fill", "refuse_infeasible"]


def fill(items: Packages, choices: list[Choice]) -> list[Choice]:
    """Give every block that is still free to whom it is worth most: any mMTC request, or a URLLC slice already served.

    Source: (7a) without the packages of Algorithm 1, which counts every block a node is given.
    """
    instance, share = items.instance, share_blocks(items.instance).tolist()
    spans = zone_blocks(instance.zones)
    held = {
        (choice.item, slot): list(blocks)
        for choice in choices
        for slot, blocks in zip(choice.slots, choice.resource_blocks, strict=True)
    }
    served = {choice.item for choice in choices}
    taken: set[tuple[int, int, int]] = set()
    used: dict[tuple[int, int, int, int], int] = {}
    total = [0] * len(instance.mvnos)

    def book(item: int, slot: int, block: int) -> None:
        cell, mvno, kind = int(items.cell[item]), int(items.mvno[item]), int(items.slice[item])
        taken.add((cell, slot, block))
        used[cell, slot, mvno, kind] = used.get((cell, slot, mvno, kind), 0) + 1
        total[mvno] += 1

    for (item, slot), blocks in held.items():
        for block in blocks:
            book(item, slot, block)
    eligible = [i for i in range(len(items)) if items.rate[i] > 0 and (items.slice[i] != URLLC or i in served)]
    each = items.block_value * items.rate
    for item in sorted(eligible, key=lambda i: (-float(each[i]), i)):
        cell, mvno, kind = int(items.cell[item]), int(items.mvno[item]), int(items.slice[item])
        for slot in range(instance.slots):
            for block in spans[int(items.zone[item])]:
                both = used.get((cell, slot, mvno, 0), 0) + used.get((cell, slot, mvno, 1), 0)
                full = kind == URLLC and used.get((cell, slot, mvno, URLLC), 0) >= instance.urllc_blocks
                spent = instance.budget_blocks is not None and total[mvno] >= instance.budget_blocks
                if full or spent or (both >= share[mvno] and not instance.work_conserving):
                    break
                dead = items.rates is not None and items.rates[item, block] == 0
                if (cell, slot, block) not in taken and not dead:
                    held.setdefault((item, slot), []).append(block)
                    book(item, slot, block)
    slots: dict[int, dict[int, tuple[int, ...]]] = {}
    for (item, slot), blocks in held.items():
        slots.setdefault(item, {})[slot] = tuple(sorted(blocks))
    return [
        Choice(item, tuple(sorted(slots[item])), tuple(slots[item][slot] for slot in sorted(slots[item])))
        for item in sorted(slots)
    ]


def refuse_infeasible(items: Packages) -> None:
    """Refuse variant ``literal`` where not every URLLC slice can have what (7f) asks, naming the first reason."""
    instance = items.instance
    advice = "choose variant package or conditional, more resource blocks, or shorter packets"
    urllc = items.slice == URLLC
    hopeless = np.flatnonzero(urllc & (items.blocks == 0))
    if len(hopeless):
        raise RefusedInput(
            f"variant literal is infeasible: node {items.node(int(hopeless[0]))!r} cannot reach its rate on all the "
            f"blocks of its zone; {advice}"
        )
    limits = share_blocks(instance).tolist()
    for cell in range(len(items.cell_names)):
        here = urllc & (items.cell == cell)
        for zone in range(4):
            need = int(items.blocks[here & (items.zone == zone)].sum())
            if need > instance.zones[zone]:
                raise RefusedInput(
                    f"variant literal is infeasible: URLLC needs {need} blocks in zone {zone} of cell "
                    f"{items.cell_names[cell]}, which has {instance.zones[zone]}; {advice}"
                )
        for mvno, limit in enumerate(limits):
            need = int(items.blocks[here & (items.mvno == mvno)].sum())
            most = min(limit, instance.urllc_blocks)
            if need > most:
                raise RefusedInput(
                    f"variant literal is infeasible: URLLC of {instance.mvnos[mvno].name} needs {need} blocks in cell "
                    f"{items.cell_names[cell]}, where share and power allow {most}; {advice}"
                )
