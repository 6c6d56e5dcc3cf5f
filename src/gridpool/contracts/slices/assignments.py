"""The assignment record: which resource blocks carry which node's slice, checked on the registered link table."""

from collections.abc import Iterator
from typing import Annotated, Literal

from msgspec import Meta
from msgspec.structs import replace

from gridpool.contracts.slices.contract import Name, slices
from gridpool.contracts.slices.networks import LINKS, MOST_BLOCKS, MOST_SLOTS, NETWORKS, Link, Network, own_network
from gridpool.ledger.contract import Context, Refused
from gridpool.ledger.state import State
from gridpool.ledger.types import Call, Event, Millis, Natural, Value

__all__ = [
    "ASSIGNMENTS",
    "ITEMS",
    "OCCUPIED",
    "SHARED",
    "Assignment",
    "AssignmentItem",
    "AssignmentRecorded",
    "Nano",
    "Occupied",
    "Packages",
    "RecordAssignment",
    "ReleaseAssignment",
    "Sharing",
    "assigned_nodes",
    "check_item",
    "check_items",
    "check_slots",
    "free_blocks",
    "keep_items",
    "network_for",
    "overlapping",
]

BlockIndex = Annotated[int, Meta(ge=0, lt=MOST_BLOCKS)]
Slot = Annotated[int, Meta(ge=0, lt=MOST_SLOTS)]
SliceKind = Literal["urllc", "mmtc"]
Packages = dict[tuple[str, str], set[int]]
"""(node, slice) -> the slots in which it holds blocks."""
Nano = Annotated[int, Meta(ge=1, le=10**9)]
"""A probability in 1e-9."""


class AssignmentItem(Value):
    """A node's slice in one slot and its blocks; ``rate_bps`` is the claim that the registered link must bear out.

    A URLLC slice has one item for every slot of the network, an mMTC slice one item.
    """

    node: Name
    slice: SliceKind
    cell: Annotated[int, Meta(ge=0, le=10**7)]
    zone: Annotated[int, Meta(ge=0, le=3)]
    mvno: Name
    slot: Slot
    blocks: Annotated[tuple[BlockIndex, ...], Meta(min_length=1, max_length=MOST_BLOCKS)]
    rate_bps: Natural


class RecordAssignment(Call, tag="slices.record_assignment"):
    """Record which blocks carry which slices from ``start`` to ``end`` (the network's operator)."""

    assignment: Name
    network: Name
    start: Millis
    end: Millis
    items: Annotated[tuple[AssignmentItem, ...], Meta(min_length=1, max_length=2_000)]


class ReleaseAssignment(Call, tag="slices.release_assignment"):
    """End an assignment now, so that its blocks can carry another (the network's operator)."""

    assignment: Name


class Assignment(Value):
    """A recorded assignment."""

    network: Name
    start: Millis
    end: Millis
    items: Natural


class Occupied(Value):
    """Who holds a block of a cell and slot from a time on."""

    end: Millis
    assignment: Name
    mvno: Name
    slice: SliceKind


@slices.event
class AssignmentRecorded(Event, tag="slices.assignment_recorded"):
    """An assignment passed all checks."""

    assignment: Name
    items: Natural


class Sharing(Value):
    """By what rule an assignment's slices share the ``blocks`` of a cell (see ``RecordSharedAssignment``)."""

    activity_nano: Nano
    overflow_nano: Nano
    blocks: Natural


ASSIGNMENTS = slices.table("assignment", key=str, value=Assignment)
ITEMS = slices.table("assignment_item", key=(str, str, str, int), value=AssignmentItem)
"""(assignment, node, slice, slot) -> its blocks."""
OCCUPIED = slices.table("occupied", key=(str, int, int, int), value=Occupied)
"""(network, cell, slot x 512 + block, start) -> who holds the block until when."""
SHARED = slices.table("shared_assignment", key=str, value=Sharing)
"""The rule of an assignment whose slices share blocks; such an assignment holds its cells whole."""
SLOT_STRIDE = 512


@slices.call(RecordAssignment)
def record_assignment(ctx: Context, call: RecordAssignment) -> None:
    """Store an assignment that keeps every constraint; a refusal's code is the constraint that it violates."""
    network = network_for(ctx, call.network, call.assignment, call.start, call.end)
    check_items(ctx, call.network, network, call.start, call.end, call.items)
    keep_items(ctx, call.assignment, Assignment(call.network, call.start, call.end, len(call.items)), call.items)
    for item in call.items:
        for block in item.blocks:
            key = (call.network, item.cell, item.slot * SLOT_STRIDE + block, call.start)
            ctx.put(OCCUPIED, key, Occupied(call.end, call.assignment, item.mvno, item.slice))


def network_for(ctx: Context, network: str, assignment: str, start: int, end: int) -> Network:
    """Return the sender's network for a new assignment in [start, end), or refuse."""
    described = own_network(ctx, network)
    if ctx.get(ASSIGNMENTS, assignment) is not None:
        raise Refused("name_taken", f"assignment {assignment} exists")
    if not ctx.now <= end or start >= end:
        raise Refused("bad_window", "end lies after start and not in the past")
    return described


def keep_items(ctx: Context, assignment: str, record: Assignment, items: tuple[AssignmentItem, ...]) -> None:
    """Store an assignment that passed all checks, and its items; the blocks are for the caller to occupy."""
    ctx.put(ASSIGNMENTS, assignment, record)
    for item in items:
        ctx.put(ITEMS, (assignment, item.node, item.slice, item.slot), item)
    ctx.emit(AssignmentRecorded(assignment, len(items)))


@slices.call(ReleaseAssignment)
def release_assignment(ctx: Context, call: ReleaseAssignment) -> None:
    """Shorten an assignment to end now (one that has not begun disappears)."""
    held = ctx.require(ASSIGNMENTS, call.assignment, "unknown_assignment")
    own_network(ctx, held.network)
    # One that was released before it began has given its blocks up: another may hold them from the same instant on.
    if ctx.now >= held.end or held.end == held.start:
        raise Refused("already_over")
    ended = max(held.start, ctx.now)
    ctx.put(ASSIGNMENTS, call.assignment, Assignment(held.network, held.start, ended, held.items))
    shared = ctx.get(SHARED, call.assignment)
    places: dict[tuple[int, int], None] = {}
    for _, item in ctx.scan(ITEMS, (call.assignment,)):
        if shared is None:
            places |= {(item.cell, item.slot * SLOT_STRIDE + block): None for block in item.blocks}
        else:
            places |= {(item.cell, block): None for block in range(shared.blocks)}
    for cell, place in places:
        key = (held.network, cell, place, held.start)
        if ended == held.start:
            ctx.delete(OCCUPIED, key)
        else:
            ctx.put(OCCUPIED, key, replace(ctx.require(OCCUPIED, key, "unknown_assignment"), end=ended))


def assigned_nodes(state: State, assignment: str, kind: SliceKind) -> frozenset[str]:
    """Return the nodes that hold a slice of a kind: M for ``mmtc``, U for ``urllc``."""
    return frozenset(node for (_, node, name, _), _ in state.scan(ITEMS, (assignment,)) if name == kind)


def free_blocks(state: State, network: str, cell: int, slot: int, start: int, end: int) -> list[int]:
    """Return the resource blocks of a cell and slot that no assignment holds at any time of [start, end)."""
    described = state.get(NETWORKS, network)
    return [
        block
        for block in range(0 if described is None else described.resource_blocks)
        if next(overlapping(state, network, cell, slot * SLOT_STRIDE + block, start, end), None) is None
    ]


def check_items(
    state: State, name: str, network: Network, start: int, end: int, items: tuple[AssignmentItem, ...]
) -> None:
    """Refuse items that break a constraint of the allocation problem, with the constraint as the code.

    The numbers are those of Farhadi et al., problem (7): double use (7b), MVNO share (7c), power (7d), zone (7e),
    rate (7f); rates come from the registered link table, never from the claimant.
    """
    packages: Packages = {}
    taken: dict[tuple[int, int, int], AssignmentItem] = {}
    for item in items:
        where = check_item(state, name, network, item, packages)
        for block in item.blocks:
            place = (item.cell, item.slot, block)
            if place in taken:
                raise Refused("block_used_twice", f"{where}: block {block} of cell {item.cell} (7b)")
            taken[place] = item
    check_slots(network, packages)
    _check_carriers(state, name, network, start, end, taken)


def check_item(state: State, name: str, network: Network, item: AssignmentItem, packages: Packages) -> str:
    """Refuse an item that its own link does not bear out, or a slice given twice; returns how to name it."""
    where = f"{item.node} {item.slice}"
    slots = packages.setdefault((item.node, item.slice), set())
    if item.slot in slots or (slots and item.slice == "mmtc"):
        raise Refused("package_twice", where)
    slots.add(item.slot)
    link = state.get(LINKS, (name, item.node))
    if link is None:
        raise Refused("unknown_link", where)
    _check_link(network, link, item, where)
    return where


def check_slots(network: Network, packages: Packages) -> None:
    """Refuse a URLLC slice that lacks a slot."""
    for (node, kind), slots in packages.items():
        if kind == "urllc" and len(slots) != network.slots:
            raise Refused("not_in_every_slot", f"{node} urllc: {len(slots)} of {network.slots} slots")


def _check_link(network: Network, link: Link, item: AssignmentItem, where: str) -> None:
    if link.attested_by == bytes(32):
        raise Refused("link_unattested", where)
    if (link.cell, link.mvno) != (item.cell, item.mvno):
        raise Refused("wrong_cell_or_mvno", f"{where}: registered in cell {link.cell} with {link.mvno}")
    if item.slot >= network.slots:
        raise Refused("slot_out_of_range", f"{where}: slot {item.slot} of {network.slots}")
    if max(item.blocks) >= network.resource_blocks:
        raise Refused("block_out_of_range", f"{where}: block {max(item.blocks)} of {network.resource_blocks}")
    first = sum(network.zones[: link.zone])
    span = range(first, first + network.zones[link.zone])
    if item.zone != link.zone or any(block not in span for block in item.blocks):
        raise Refused("zone", f"{where}: zone {link.zone} has blocks {span.start}..{span.stop - 1} (7e)")
    rates = link.downlink_bps if item.slice == "urllc" else link.uplink_bps
    carried = sum(rates[block] for block in item.blocks) if len(rates) > 1 else rates[0] * len(item.blocks)
    if item.rate_bps > carried:
        raise Refused("rate_inflated", f"{where}: {item.rate_bps} bit/s claimed, {carried} registered")
    required = network.urllc_bps if item.slice == "urllc" else network.mmtc_bps
    if carried < max(required, 1):
        raise Refused("required_rate", f"{where}: {carried} of {required} bit/s (7f)")


def _check_carriers(
    state: State,
    name: str,
    network: Network,
    start: int,
    end: int,
    taken: dict[tuple[int, int, int], AssignmentItem],
) -> None:
    """Check double use, shares and power together with what other assignments hold in the same window."""
    shares = {share.mvno: share.blocks for share in network.shares}
    for cell, slot in dict.fromkeys((cell, slot) for cell, slot, _ in taken):
        held: list[tuple[int, int, str, str]] = []
        for block in range(network.resource_blocks):
            for begun, occupied in overlapping(state, name, cell, slot * SLOT_STRIDE + block, start, end):
                if (cell, slot, block) in taken:
                    raise Refused("block_used_twice", f"block {block} of cell {cell} is {occupied.assignment}'s (7b)")
                held.append((begun, occupied.end, occupied.mvno, occupied.slice))
        mine = [(start, end, i.mvno, i.slice) for (c, s, _), i in taken.items() if (c, s) == (cell, slot)]
        # Use changes only where an occupation begins, so these instants show every level it reaches.
        for instant in sorted({start, *(begun for begun, *_ in held if begun > start)}):
            used: dict[str, int] = {}
            urllc: dict[str, int] = {}
            for begun, until, mvno, kind in (*held, *mine):
                if begun <= instant < until:
                    used[mvno] = used.get(mvno, 0) + 1
                    if kind == "urllc":
                        urllc[mvno] = urllc.get(mvno, 0) + 1
            for mvno, count in used.items():
                if count > shares.get(mvno, 0):
                    raise Refused("mvno_share", f"{mvno}: {count} of {shares.get(mvno, 0)} blocks in cell {cell} (7c)")
            for mvno, count in urllc.items():
                if count > network.urllc_blocks:
                    raise Refused(
                        "urllc_power", f"{mvno}: {count} of {network.urllc_blocks} blocks in cell {cell} (7d)"
                    )


def overlapping(state: State, name: str, cell: int, place: int, start: int, end: int) -> Iterator[tuple[int, Occupied]]:
    """Yield (start, occupation) of a block that overlaps [start, end), latest first; they never overlap each other."""
    if end == 0:
        return
    for (_, _, _, begun), occupied in state.scan(
        OCCUPIED, (name, cell, place), start=(name, cell, place, end - 1), reverse=True
    ):
        if occupied.end <= start:
            return
        yield begun, occupied
