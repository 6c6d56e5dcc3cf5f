"""Mini-slots: an assignment whose URLLC slices take blocks only while they are active, and so share them by a quantile.

No slice owns a mini-slot beforehand: it begins when a packet is there, within the slot, and takes its blocks from mMTC
and from other URLLC slices. What (7b)-(7d) ask of blocks that are in use, they ask here of the blocks that active
slices need, up to a stated probability; the planner's ``radio.check`` has the same rule in floating point.
"""

from typing import Annotated

from msgspec import Meta

from gridpool.contracts.slices.assignments import (
    OCCUPIED,
    SHARED,
    Assignment,
    AssignmentItem,
    Nano,
    Occupied,
    Packages,
    Sharing,
    check_item,
    check_slots,
    keep_items,
    network_for,
    overlapping,
)
from gridpool.contracts.slices.contract import Name, slices
from gridpool.contracts.slices.networks import Network
from gridpool.ledger.contract import Context, Refused
from gridpool.ledger.state import State
from gridpool.ledger.types import Call, Millis

__all__ = ["RecordSharedAssignment", "enough"]

NANO = 10**9
UNIT = 10**30
"""Probabilities are carried in this unit and rounded up, so that an exact tie holds: an error below 1e-23."""


class RecordSharedAssignment(Call, tag="slices.record_shared_assignment"):
    """Record an assignment whose slices share blocks in mini-slots from ``start`` to ``end`` (the network's operator).

    Each URLLC slice is active with probability ``activity_nano`` (1e-9), independently of the others, and takes the
    blocks of its item while it is. Active slices may need more blocks than their zone has, or more than their cell's
    power and share allow, with probability ``overflow_nano`` (1e-9) at most. Such an assignment holds its cells whole.
    """

    assignment: Name
    network: Name
    start: Millis
    end: Millis
    items: Annotated[tuple[AssignmentItem, ...], Meta(min_length=1, max_length=2_000)]
    activity_nano: Nano
    overflow_nano: Nano


@slices.call(RecordSharedAssignment)
def record_shared_assignment(ctx: Context, call: RecordSharedAssignment) -> None:
    """Store an assignment that keeps every constraint up to its rule; a refusal's code is what it violates."""
    network = network_for(ctx, call.network, call.assignment, call.start, call.end)
    if network.slots != 1:
        raise Refused(
            "not_one_slot", f"network {call.network} has {network.slots} slots; mini-slots divide a single one"
        )
    packages: Packages = {}
    for item in call.items:
        check_item(ctx, call.network, network, item, packages)
    check_slots(network, packages)
    _check_monitoring(network, call.items)
    _check_active(network, call.items, call.activity_nano, call.overflow_nano)
    holders = {item.cell: item for item in call.items}
    for cell in holders:
        _check_free(ctx, call.network, network, cell, call.start, call.end)
    keep_items(ctx, call.assignment, Assignment(call.network, call.start, call.end, len(call.items)), call.items)
    ctx.put(SHARED, call.assignment, Sharing(call.activity_nano, call.overflow_nano, network.resource_blocks))
    for cell, item in holders.items():
        for block in range(network.resource_blocks):
            held = Occupied(call.end, call.assignment, item.mvno, item.slice)
            ctx.put(OCCUPIED, (call.network, cell, block, call.start), held)


def _check_monitoring(network: Network, items: tuple[AssignmentItem, ...]) -> None:
    """Refuse mMTC blocks with two users (7b) or beyond a share (7c), and a URLLC item that lists a block twice (7b)."""
    taken: set[tuple[int, int]] = set()
    used: dict[tuple[int, str], int] = {}
    shares = {share.mvno: share.blocks for share in network.shares}
    for item in items:
        where = f"{item.node} {item.slice}"
        if len(set(item.blocks)) != len(item.blocks):
            raise Refused("block_used_twice", f"{where}: it lists a block twice (7b)")
        if item.slice == "urllc":
            continue
        for block in item.blocks:
            if (item.cell, block) in taken:
                raise Refused("block_used_twice", f"{where}: block {block} of cell {item.cell} (7b)")
            taken.add((item.cell, block))
        count = used[item.cell, item.mvno] = used.get((item.cell, item.mvno), 0) + len(item.blocks)
        if count > shares.get(item.mvno, 0):
            raise Refused(
                "mvno_share", f"{item.mvno}: {count} of {shares.get(item.mvno, 0)} blocks in cell {item.cell} (7c)"
            )


def _check_active(network: Network, items: tuple[AssignmentItem, ...], activity: int, overflow: int) -> None:
    """Refuse URLLC slices that need more than a zone has, or than power and share of a cell allow, too often."""
    zones: dict[tuple[int, int], list[int]] = {}
    cells: dict[int, list[int]] = {}
    for item in items:
        if item.slice == "urllc":
            zones.setdefault((item.cell, item.zone), []).append(len(item.blocks))
            cells.setdefault(item.cell, []).append(len(item.blocks))
    for (cell, zone), loads in zones.items():
        if not enough(loads, network.zones[zone], activity, overflow):
            raise Refused("zone_overflow", f"zone {zone} of cell {cell}: active slices exceed it too often (7b)")
    limit = min(network.urllc_blocks, *(share.blocks for share in network.shares))
    for cell, loads in cells.items():
        if not enough(loads, limit, activity, overflow):
            raise Refused("cell_overflow", f"cell {cell}: active slices exceed {limit} blocks too often (7c, 7d)")


def enough(loads: list[int], blocks: int, activity: int, overflow: int) -> bool:
    """Tell whether active slices, each needing ``loads[i]`` blocks, need more than ``blocks`` seldom enough.

    ``activity`` and ``overflow`` are probabilities in 1e-9.
    """
    if sum(loads) <= blocks:
        return True
    law = [UNIT] + [0] * blocks  # of the blocks needed, as far as there are so many
    for load in loads:
        for needed in range(blocks, -1, -1):
            weight = law[needed] * (NANO - activity) + (law[needed - load] * activity if needed >= load else 0)
            law[needed] = -(-weight // NANO)
    return sum(law) * NANO >= (NANO - overflow) * UNIT


def _check_free(state: State, name: str, network: Network, cell: int, start: int, end: int) -> None:
    """Refuse a cell of which another assignment holds a block at any time of [start, end)."""
    for block in range(network.resource_blocks):
        for _, occupied in overlapping(state, name, cell, block, start, end):
            raise Refused("block_used_twice", f"block {block} of cell {cell} is {occupied.assignment}'s (7b)")
