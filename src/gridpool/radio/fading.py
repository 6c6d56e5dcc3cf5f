"""Channels that differ by block, beyond a mixed-integer solver: counts, assignment, repair, local search."""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

from gridpool.errors import RefusedInput
from gridpool.radio.bounds import upper_bound
from gridpool.radio.cells import zone_blocks
from gridpool.radio.exact import flat_problem, solve
from gridpool.radio.occupancy import Choice, Occupancy
from gridpool.radio.packages import URLLC, Packages
from gridpool.radio.placement import place_granted

__all__ = ["assigned"]

REPAIRS = 6
CANDIDATES = 2

Zone = tuple[int, int, int]
"""Cell, slot and zone: blocks that compete only among themselves once counts are fixed."""


def assigned(items: Packages) -> tuple[list[Choice], str, float | None, bool]:
    """Allocate channels that differ by block, not provably best; the bound says how far off at most.

    Dynamic programming over what each package's best blocks would give fixes who is served with how many blocks. In
    each zone a linear assignment then deals the blocks. URLLC that misses its rate is given more weight, and dropped
    if that does not help; blocks left over are offered to who waits; last, a waiting request replaces a served one of
    the same size wherever the zone gains.
    """
    granted = np.zeros(len(items), dtype=bool)
    for mvno in range(len(items.instance.mvnos)):
        problem = flat_problem(items, mvno=mvno)
        if not problem.within_reach:
            raise RefusedInput("shares over so many slots and nodes are beyond the exact method; choose greedy")
        assert problem.order is not None
        granted[problem.order] = solve(problem)
    members: dict[Zone, list[int]] = {}
    for choice in place_granted(items, granted):
        for slot in choice.slots:
            key = (int(items.cell[choice.item]), slot, int(items.zone[choice.item]))
            members.setdefault(key, []).append(choice.item)
    spans = zone_blocks(items.instance.zones)
    dealt: dict[Zone, dict[int, tuple[int, ...]]] = {}
    failed: set[int] = set()
    for key in sorted(members):
        dealt[key] = _repaired(items, [i for i in members[key] if i not in failed], spans[key[2]], failed)
    for key in sorted(dealt):
        dealt[key] = {item: blocks for item, blocks in dealt[key].items() if item not in failed}
        if items.instance.slots == 1:
            dealt[key] = _exchanged(items, key, dealt[key], spans[key[2]])
    choices = _offered(items, _choices(dealt))
    return choices, "counts by dynamic programming, blocks by assignment", upper_bound(items), False


def _deal(items: Packages, members: Sequence[int], span: range, weight: dict[int, float]) -> dict[int, tuple[int, ...]]:
    """Deal a zone's blocks so that every member has its number and the weighted value is greatest."""
    assert items.rates is not None
    rows = [item for item in members for _ in range(int(items.blocks[item]))]
    if not rows or len(rows) > len(span):
        return {}
    gain = np.array([items.block_value[item] * weight.get(item, 1.0) for item in rows])[:, None]
    rates = items.rates[np.array(rows), span.start : span.stop]
    chosen_rows, columns = linear_sum_assignment(gain * rates, maximize=True)
    blocks: dict[int, list[int]] = {item: [] for item in members}
    for row, column in zip(chosen_rows, columns, strict=True):
        blocks[rows[row]].append(span.start + int(column))
    return {item: tuple(sorted(held)) for item, held in blocks.items()}


def _short(items: Packages, dealt: dict[int, tuple[int, ...]]) -> list[int]:
    """Return the members whose blocks do not carry what they need."""
    assert items.rates is not None
    required = items.instance.urllc_requirement.required_bps
    return [
        item
        for item, blocks in dealt.items()
        if int(items.rates[item, list(blocks)].sum()) < (required if items.slice[item] == URLLC else 1)
    ]


def _repaired(items: Packages, members: list[int], span: range, failed: set[int]) -> dict[int, tuple[int, ...]]:
    """Deal a zone's blocks; weigh up who falls short, and drop the least worthy of those whom that does not help."""
    while members:
        weight: dict[int, float] = {}
        for _ in range(REPAIRS):
            dealt = _deal(items, members, span, weight)
            short = _short(items, dealt)
            if not short and dealt:
                return dealt
            for item in short:
                weight[item] = weight.get(item, 1.0) * 4.0
        drop = min(short or members, key=lambda item: (items.worth[item], -item))
        failed.add(drop)
        members = [item for item in members if item != drop]
    return {}


def _exchanged(
    items: Packages, key: Zone, dealt: dict[int, tuple[int, ...]], span: range
) -> dict[int, tuple[int, ...]]:
    """Replace served requests by waiting ones of the same slice, size and MVNO as long as the zone gains."""
    here = np.flatnonzero((items.cell == key[0]) & (items.zone == key[2]) & (items.blocks > 0))
    waiting = sorted((i for i in here.tolist() if i not in dealt), key=lambda i: -items.worth[i])
    for item in waiting[: CANDIDATES * len(span)]:
        same = [
            held
            for held in dealt
            if (items.slice[held], items.blocks[held], items.mvno[held])
            == (items.slice[item], items.blocks[item], items.mvno[item])
        ]
        for held in sorted(same, key=lambda i: items.worth[i])[:3]:
            trial = _deal(items, [item if i == held else i for i in dealt], span, {})
            if trial and not _short(items, trial) and _worth(items, trial) > _worth(items, dealt) * (1 + 1e-12):
                dealt = trial
                break
    return dealt


def _worth(items: Packages, dealt: dict[int, tuple[int, ...]]) -> float:
    assert items.rates is not None
    if items.objective == "coverage":
        return float(sum(items.worth[item] for item in dealt))
    return float(sum(items.block_value[item] * items.rates[item, list(blocks)].sum() for item, blocks in dealt.items()))


def _choices(dealt: dict[Zone, dict[int, tuple[int, ...]]]) -> list[Choice]:
    slots: dict[int, dict[int, tuple[int, ...]]] = {}
    for (_, slot, _), blocks in dealt.items():
        for item, held in blocks.items():
            slots.setdefault(item, {})[slot] = held
    return [
        Choice(item, tuple(sorted(slots[item])), tuple(slots[item][slot] for slot in sorted(slots[item])))
        for item in sorted(slots)
    ]


def _offered(items: Packages, choices: list[Choice]) -> list[Choice]:
    """Take the choices in turn of worth as far as they fit together, then offer what is left to who waits."""
    state = Occupancy(items)
    kept: list[Choice] = []
    for choice in sorted(choices, key=lambda one: (-items.worth[one.item], one.item)):
        if state.admits(choice):
            state.take(choice)
            kept.append(choice)
    served = {choice.item for choice in kept}
    for item in np.argsort(-items.worth, kind="stable").tolist():
        more = state.fitting(item) if item not in served else None
        if more is not None:
            state.take(more)
            kept.append(more)
    return sorted(kept, key=lambda one: one.item)
