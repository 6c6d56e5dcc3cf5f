"""A lease changes its shape or its hands: moved, divided, joined, passed on.

What comes out is judged like a newcomer, against every limit; money that is held for it is divided or joined with it.
"""

from typing import Annotated, Literal

import msgspec

from gridpool.contracts import coins, members
from gridpool.contracts.spectrum_access import note_grant, refuse_if_denied
from gridpool.contracts.spectrum_lately import note_gone
from gridpool.contracts.spectrum_leases import (
    LESSEES,
    LeaseChanged,
    disturbance,
    escrow_of,
    live_lease,
    own_lease,
    refuse_if_disturbing,
)
from gridpool.contracts.spectrum_records import IDLE, LEASES, Cells, EndLease, Lease, Standing, spectrum
from gridpool.contracts.spectrum_register import check_lease, next_number
from gridpool.contracts.spectrum_sheets import add_entries, entries_of, remove_entries
from gridpool.ledger.contract import Context
from gridpool.ledger.types import Call, Coins, Natural

__all__ = ["AcceptSublease", "MergeLeases", "MoveLease", "OfferSublease", "SplitLease"]

replace = msgspec.structs.replace


class MoveLease(Call, tag="spectrum.move_lease"):
    """Move a lease to other cells of its idle band, as many as before; the limits are checked anew."""

    lease: Natural
    cells: Cells


class SplitLease(Call, tag="spectrum.split_lease"):
    """Divide a lease: at a frequency, at a time, or the named cells from the rest; the new one is the upper part.

    Refused where the parts would disturb each other: in one bin, or loud in neighbouring cells.
    """

    lease: Natural
    by: Literal["band", "time", "area"]
    at: Natural = 0
    cells: Annotated[tuple[Natural, ...], msgspec.Meta(max_length=5_000)] = ()


class MergeLeases(Call, tag="spectrum.merge_leases"):
    """Join two leases of one lessee on equal terms that differ in one of band, time and area and meet there."""

    lease: Natural
    other: Natural


class OfferSublease(Call, tag="spectrum.offer_sublease"):
    """Offer one's lease to another wallet for a price; the empty wallet takes the offer back."""

    lease: Natural
    to: bytes
    price: Coins


class AcceptSublease(Call, tag="spectrum.accept_sublease"):
    """Take over a lease that was offered, for at most the price one saw."""

    lease: Natural
    most_price: Coins


@spectrum.call(MoveLease)
def move_lease(ctx: Context, call: MoveLease) -> None:
    """Move; the lease stays as it was where the new cells would break a limit."""
    lease = own_lease(ctx, call.lease)
    idle = ctx.require(IDLE, lease.idle, "no_such_idle_band")
    if len(call.cells) != len(lease.cells):
        ctx.refuse("as_many_cells_as_before", f"{len(lease.cells)}")
    moved = replace(lease, cells=call.cells)
    check_lease(ctx, f"lease {call.lease}", moved, idle)
    refuse_if_denied(ctx, lease.lessee, lease.band, moved.cells)
    remove_entries(ctx, lease.band, entries_of(call.lease, lease))
    refuse_if_disturbing(ctx, moved)
    note_gone(ctx, call.lease, lease)
    add_entries(ctx, lease.band, entries_of(call.lease, moved))
    ctx.put(LEASES, call.lease, moved)
    ctx.emit(LeaseChanged(call.lease, lease.standing, "moved"))


@spectrum.call(SplitLease)
def split_lease(ctx: Context, call: SplitLease) -> None:
    """Divide a lease and what is held for it; charges made so far stay with the first part."""
    lease = _transferable(ctx, call.lease)
    if call.by == "band":
        if not lease.low < call.at < lease.high:
            ctx.refuse("not_inside_the_lease")
        rest, part = replace(lease, high=call.at), replace(lease, low=call.at)
        weights = call.at - lease.low, lease.high - call.at
    elif call.by == "time":
        if not max(lease.start, ctx.now, lease.authorized_until, lease.paid_until) <= call.at < lease.end:
            ctx.refuse("not_inside_the_lease", "a lease is divided after what is authorised and paid")
        if call.at == lease.start:
            ctx.refuse("not_inside_the_lease")
        rest = replace(lease, end=call.at)
        part = replace(lease, start=call.at, standing="granted", authorized_until=0, present=False, paid_until=call.at)
        weights = call.at - lease.start, lease.end - call.at
    else:
        cells = tuple(sorted(set(call.cells)))
        if not cells or not set(cells) < set(lease.cells):
            ctx.refuse("not_inside_the_lease")
        rest = replace(lease, cells=tuple(cell for cell in lease.cells if cell not in set(cells)))
        part = replace(lease, cells=cells)
        weights = len(rest.cells), len(part.cells)
    number = next_number(ctx, "lease")
    moved = lease.held * weights[1] // sum(weights)
    if moved:
        coins.open_escrow(ctx, escrow_of(number), f"lease {number}")
        coins.move_between_escrows(ctx, escrow_of(call.lease), escrow_of(number), moved)
    rest = replace(rest, held=lease.held - moved, charged=lease.charged - moved)
    part = replace(part, held=moved, charged=moved, paid_out=0, fees=0, refunded=0, origin=call.lease)
    remove_entries(ctx, lease.band, entries_of(call.lease, lease))
    if rest.end != lease.end:
        ctx.unschedule(lease.end, EndLease(call.lease))
        ctx.schedule(rest.end, EndLease(call.lease))
    ctx.schedule(part.end, EndLease(number))
    for one, its in ((call.lease, rest), (number, part)):
        # Both are judged as newcomers: two parts may be heard where the whole was heard once.
        code, info = disturbance(ctx, its)
        if code:
            ctx.refuse("parts_would_disturb", info)
        ctx.put(LEASES, one, its)
        add_entries(ctx, its.band, entries_of(one, its))
    ctx.emit(LeaseChanged(number, part.standing, f"split from lease {call.lease}"))


@spectrum.call(MergeLeases)
def merge_leases(ctx: Context, call: MergeLeases) -> None:
    """Join two leases into the first."""
    one, two = _transferable(ctx, call.lease), _transferable(ctx, call.other)
    if call.lease == call.other:
        ctx.refuse("one_lease_is_no_pair")
    alike = ("idle", "lessee", "band", "eirp", "height", "kind", "pricing", "price", "notice_ms", "transferable")
    if any(getattr(one, name) != getattr(two, name) for name in alike):
        ctx.refuse("terms_differ")
    joined = _joined(one, two)
    if joined is None:
        ctx.refuse("leases_do_not_meet")
    if two.held:
        coins.move_between_escrows(ctx, escrow_of(call.other), escrow_of(call.lease), two.held)
        coins.close_escrow(ctx, escrow_of(call.other))
    joined = replace(
        joined,
        charged=one.charged + two.charged,
        paid_out=one.paid_out + two.paid_out,
        fees=one.fees + two.fees,
        held=one.held + two.held,
        refunded=one.refunded + two.refunded,
    )
    for number, lease in ((call.lease, one), (call.other, two)):
        remove_entries(ctx, lease.band, entries_of(number, lease))
        ctx.unschedule(lease.end, EndLease(number))
    check_lease(ctx, f"lease {call.lease}", joined, ctx.require(IDLE, joined.idle, "no_such_idle_band"))
    refuse_if_disturbing(ctx, joined)  # one wide receiver hears what two narrow ones heard apart
    add_entries(ctx, joined.band, entries_of(call.lease, joined))
    ctx.put(LEASES, call.lease, joined)
    ctx.schedule(joined.end, EndLease(call.lease))
    gone = replace(two, standing="relinquished", held=0, charged=0, paid_out=0, fees=0, refunded=0, origin=call.lease)
    ctx.put(LEASES, call.other, gone)
    ctx.emit(LeaseChanged(call.other, "relinquished", f"merged into lease {call.lease}"))


@spectrum.call(OfferSublease)
def offer_sublease(ctx: Context, call: OfferSublease) -> None:
    """Offer a lease on, or take the offer back."""
    lease = _transferable(ctx, call.lease)
    if call.to:
        if len(call.to) != 32 or call.to == ctx.sender:
            ctx.refuse("not_another_wallet")
        ctx.require(members.WALLETS, call.to, "unknown_wallet")
    ctx.put(LEASES, call.lease, replace(lease, offered_to=call.to, offered_for=call.price if call.to else 0))


@spectrum.call(AcceptSublease)
def accept_sublease(ctx: Context, call: AcceptSublease) -> None:
    """Pay the offered price and become the lessee."""
    members.require(ctx, *LESSEES)
    lease = live_lease(ctx, call.lease)
    if lease.offered_to != ctx.sender:
        ctx.refuse("not_offered_to_you")
    if lease.recalled_at or lease.standing == "suspended":
        ctx.refuse("recalled_or_suspended")  # since it was offered
    if lease.offered_for > call.most_price:
        ctx.refuse("price_has_risen", f"{lease.offered_for}, at most {call.most_price}")
    refuse_if_denied(ctx, ctx.sender, lease.band, lease.cells)
    coins.move(ctx, ctx.sender, lease.lessee, lease.offered_for)
    taken = replace(lease, lessee=ctx.sender, offered_to=b"", offered_for=0, present=False)
    ctx.put(LEASES, call.lease, taken)
    note_grant(ctx, ctx.sender, lease.band, lease.cells)
    ctx.emit(LeaseChanged(call.lease, lease.standing, "sub-leased"))


def _transferable(ctx: Context, number: int) -> Lease:
    lease = own_lease(ctx, number)
    if not lease.transferable:
        ctx.refuse("terms_do_not_allow_it")
    if lease.recalled_at or lease.standing == "suspended":
        ctx.refuse("recalled_or_suspended")
    return lease


def _joined(one: Lease, two: Lease) -> Lease | None:
    """Return the union of two leases where it is again one band, one time and one area."""
    same_band = (one.low, one.high) == (two.low, two.high)
    same_time = (one.start, one.end) == (two.start, two.end)
    same_area = one.cells == two.cells
    first, second = (one, two) if (one.start, one.low) <= (two.start, two.low) else (two, one)
    until = max(one.authorized_until, two.authorized_until)
    standing: Standing = "authorized" if "authorized" in (one.standing, two.standing) else "granted"
    base = replace(one, standing=standing, authorized_until=until, present=one.present or two.present)
    if same_time and same_area and first.high == second.low and one.paid_until == two.paid_until:
        return replace(base, low=first.low, high=second.high)
    if same_band and same_area and first.end == second.start and second.paid_until == second.start:
        return replace(base, start=first.start, end=second.end, paid_until=first.paid_until)
    if same_band and same_time and not set(one.cells) & set(two.cells) and one.paid_until == two.paid_until:
        return replace(base, cells=tuple(sorted((*one.cells, *two.cells))))
    return None
