"""Roots of aggregators' readings, one an interval, and where two aggregators' trees differ.

An aggregator gathers signed readings outside, builds one tree an interval and anchors its root. It cannot rewrite an
interval: late readings make another anchor with the next number, and both stay. Whoever shows the way to one key in
two anchored trees of an interval establishes on the ledger what each says, and which of them the device has signed.
"""

from typing import Annotated

import msgspec

from gridpool.contracts import members
from gridpool.contracts.members import FOREVER, Role
from gridpool.contracts.records_data import records
from gridpool.contracts.records_tree import (
    ReadingProof,
    reading_key,
    reading_message,
    reading_row,
    root_of_proof,
)
from gridpool.ledger.contract import Context
from gridpool.ledger.keys import verify
from gridpool.ledger.state import State
from gridpool.ledger.types import Call, Event, Hash, Millis, Natural, SignedInteger, Value, Wallet

__all__ = [
    "ANCHORS",
    "DIFFERENCES",
    "MOST_ANCHORS",
    "Anchor",
    "AnchorName",
    "AnchorReadings",
    "Difference",
    "DifferenceShown",
    "ReadingsAnchored",
    "ShowDifference",
    "Side",
    "latest_anchor",
]

MOST_ANCHORS = 1_000
"""Trees that an aggregator may anchor for one start."""
MOST_READINGS = 1 << 40

SignatureOrNone = Annotated[bytes, msgspec.Meta(max_length=64)]


class Anchor(Value):
    """The root over ``count`` readings of [start, end), noted at market time ``at`` in transaction ``tx``."""

    end: Millis
    root: Hash
    count: Natural
    at: Millis
    tx: Hash


class AnchorName(Value):
    """Which anchor: whose, of which start, and its number among those of that start."""

    aggregator: Wallet
    start: Millis
    number: Natural


class Side(Value):
    """What one tree says of a reading: whether it has it, its value, and whether the device has signed that value."""

    anchor: AnchorName
    present: bool
    value: SignedInteger
    signed: bool


class Difference(Value):
    """A reading on which two anchored trees differ, and what each says."""

    first: Side
    second: Side
    at: Millis
    tx: Hash


class AnchorReadings(Call, tag="records.anchor_readings"):
    """Anchor the tree over the readings of [start, end)."""

    start: Millis
    end: Millis
    root: Hash
    count: Natural


class ShowDifference(Call, tag="records.show_difference"):
    """Show the way to (device, reading's start) in two anchored trees; signatures where one has them."""

    device: Wallet
    start: Millis
    first: AnchorName
    second: AnchorName
    first_proof: ReadingProof
    second_proof: ReadingProof
    first_signature: SignatureOrNone = b""
    second_signature: SignatureOrNone = b""


@records.event
class ReadingsAnchored(Event, tag="records.readings_anchored"):
    """An aggregator anchored a tree."""

    aggregator: Wallet
    start: Millis
    number: Natural
    root: Hash
    count: Natural


@records.event
class DifferenceShown(Event, tag="records.difference_shown"):
    """Two anchored trees differ on a device's reading."""

    device: Wallet
    start: Millis


ANCHORS = records.table("anchor", key=(bytes, int, int), value=Anchor)
"""(aggregator, start, number from 0) -> anchor."""
DIFFERENCES = records.table("difference", key=(bytes, int, bytes, bytes), value=Difference)
"""(device, reading's start, the two aggregators in ascending order) -> difference."""


@records.call(AnchorReadings)
def anchor_readings(ctx: Context, call: AnchorReadings) -> None:
    """Note a root under the next number of its start."""
    members.require(ctx, Role.AGGREGATOR, Role.UTILITY)
    if not call.start < call.end <= FOREVER:
        ctx.refuse("no_interval", "it must end after its start")
    if not 1 <= call.count <= MOST_READINGS:
        ctx.refuse("count_out_of_range", f"1 to {MOST_READINGS}")
    number = 0
    last = latest_anchor(ctx, ctx.sender, call.start)
    if last is not None:
        number = last[0] + 1
        if (last[1].end, last[1].root) == (call.end, call.root):
            ctx.refuse("already_anchored", f"as number {last[0]}")
    if number >= MOST_ANCHORS:
        ctx.refuse("too_many_anchors", f"at most {MOST_ANCHORS} for one start")
    ctx.put(ANCHORS, (ctx.sender, call.start, number), Anchor(call.end, call.root, call.count, ctx.now, ctx.tx_id))
    ctx.emit(ReadingsAnchored(ctx.sender, call.start, number, call.root, call.count))


@records.call(ShowDifference)
def show_difference(ctx: Context, call: ShowDifference) -> None:
    """Check both ways against both roots, and store what they establish; later showings must bring more signatures."""
    members.require(ctx)
    if not call.first.aggregator < call.second.aggregator:
        ctx.refuse("not_two_aggregators", "name two, in ascending order")
    key = (call.device, call.start, call.first.aggregator, call.second.aggregator)
    known = ctx.get(DIFFERENCES, key)
    sides = (
        _side(ctx, call, call.first, call.first_proof, call.first_signature),
        _side(ctx, call, call.second, call.second_proof, call.second_signature),
    )
    if sides[0].present == sides[1].present and sides[0].value == sides[1].value:
        ctx.refuse("no_difference")
    signed = sides[0].signed + sides[1].signed
    if known is not None and signed <= known.first.signed + known.second.signed:
        ctx.refuse("already_shown")
    ctx.put(DIFFERENCES, key, Difference(*sides, ctx.now, ctx.tx_id))
    ctx.emit(DifferenceShown(call.device, call.start))


def latest_anchor(state: State, aggregator: bytes, start: int) -> tuple[int, Anchor] | None:
    """Return number and anchor of the last tree that an aggregator anchored for a start."""
    for (_, _, number), anchor in state.scan(ANCHORS, (aggregator, start), reverse=True, limit=1):
        return number, anchor
    return None


def _side(ctx: Context, call: ShowDifference, name: AnchorName, proof: ReadingProof, signature: bytes) -> Side:
    anchor = ctx.require(ANCHORS, (name.aggregator, name.start, name.number), "no_such_anchor")
    if not name.start <= call.start < anchor.end:
        ctx.refuse("outside_the_interval", f"[{name.start}, {anchor.end})")
    key = reading_key(call.device, call.start)
    if proof.count != anchor.count or root_of_proof(proof, key) != anchor.root:
        ctx.refuse("proof_does_not_hold", name.aggregator.hex())
    row = reading_row(proof.reading)
    present = row.startswith(key)
    signed = present and len(signature) == 64 and verify(call.device, signature, reading_message(row))
    return Side(name, present, proof.reading.value if present else 0, signed)
