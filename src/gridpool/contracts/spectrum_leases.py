"""The life of a lease: granted, authorised by heartbeats, suspended, recalled, relinquished, moved, divided, passed on.

``granted -> authorized <-> suspended -> terminated | expired | relinquished``. A heartbeat authorises transmission for
at most 240 s; it is refused once the lease is suspended, recalled, unpaid or its user denied access, so every such
decision takes effect within that time and a recall within its notice.
"""

from typing import Annotated, Literal

import msgspec

from gridpool.contracts import coins, members
from gridpool.contracts.members import Role
from gridpool.contracts.spectrum_access import note_grant, note_use, refuse_if_denied
from gridpool.contracts.spectrum_interference import Newcomer, scene
from gridpool.contracts.spectrum_lately import note_gone
from gridpool.contracts.spectrum_records import (
    AREAS,
    HEARTBEAT_MS,
    HOUR_MS,
    IDLE,
    LEASES,
    LIVE,
    LOSSES,
    PROTECTED,
    SHEETS,
    Cells,
    EndLease,
    Hertz,
    IdleBand,
    Lease,
    Level,
    Standing,
    spectrum,
)
from gridpool.contracts.spectrum_register import (
    SpectrumParameters,
    check_lease,
    first_broken_limit,
    next_number,
)
from gridpool.contracts.spectrum_sheets import add_entries, entries_in, entries_of, remove_entries
from gridpool.ledger.contract import Context
from gridpool.ledger.state import State
from gridpool.ledger.types import Call, Coins, Due, Event, Millis, Natural, Text

__all__ = [
    "AcceptSublease",
    "DeclareUse",
    "Heartbeat",
    "LeaseChanged",
    "MergeLeases",
    "MoveLease",
    "OfferSublease",
    "RecallLease",
    "RelinquishLease",
    "RequestLease",
    "ResumeLease",
    "SplitLease",
    "SuspendLease",
    "charge_for",
    "end_early",
    "grant",
]

LESSEES = (Role.TENANT, Role.OPERATOR, Role.UTILITY, Role.PROSUMER)
replace = msgspec.structs.replace


class RequestLease(Call, tag="spectrum.request_lease"):
    """Lease a part of an idle band; granted at once or refused. ``height`` is the class's antenna height class."""

    idle: Natural
    low: Hertz
    high: Hertz
    cells: Cells
    start: Millis
    end: Millis
    eirp: Level
    height: Natural = 0
    most_price: Coins = 2**62
    """Refused where the offer's price is higher: it may have changed since the inquiry."""


class Heartbeat(Call, tag="spectrum.heartbeat"):
    """Ask to go on transmitting."""

    lease: Natural


class RecallLease(Call, tag="spectrum.recall_lease"):
    """Take a lease back; it ends after the notice of its terms."""

    lease: Natural


class RelinquishLease(Call, tag="spectrum.relinquish_lease"):
    """Give a lease up; nothing is paid back."""

    lease: Natural


class SuspendLease(Call, tag="spectrum.suspend_lease"):
    """Stop a lease for a while: by its holder, or by the incumbent of a protected use of its band class."""

    lease: Natural
    reason: Text
    use: Natural = 0


class ResumeLease(Call, tag="spectrum.resume_lease"):
    """Let a suspended lease go on; by whoever may suspend it."""

    lease: Natural
    use: Natural = 0


class DeclareUse(Call, tag="spectrum.declare_use"):
    """Say that one has arrived at, or departed from, a leased band."""

    lease: Natural
    present: bool


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


class RecallTakesEffect(Due, tag="spectrum.recall_takes_effect"):
    """The notice of a recall has run out."""

    lease: Natural


@spectrum.event
class LeaseChanged(Event, tag="spectrum.lease_changed"):
    """A lease is now in this state."""

    lease: Natural
    standing: Standing
    reason: Text


@spectrum.event
class Authorized(Event, tag="spectrum.authorized"):
    """A lease may transmit until then."""

    lease: Natural
    until: Millis
    charged: Coins


@spectrum.call(RequestLease)
def request_lease(ctx: Context, call: RequestLease) -> None:
    """Grant a lease where terms, money, access rules and every limit allow it."""
    idle = ctx.require(IDLE, call.idle, "no_such_idle_band")
    if idle.pricing == "auction":
        ctx.refuse("sold_by_auction_only", f"idle band {call.idle}")
    if idle.price > call.most_price:
        ctx.refuse("price_has_risen", f"{idle.price}, at most {call.most_price}")
    grant(ctx, ctx.sender, call.idle, idle, call)


def grant(ctx: Context, lessee: bytes, number: int, idle: IdleBand, call: RequestLease) -> int:
    """Grant a lease to ``lessee`` and return its number; refused where anything stands against it.

    Other contracts (bundles, auctions) call this; ``lessee`` must be the sender unless it has consented before.
    """
    if lessee == ctx.sender:
        members.require(ctx, *LESSEES)
    if call.start < ctx.now and call.end <= ctx.now:
        ctx.refuse("in_the_past")
    if not _on_offer(ctx, number, idle, call.cells):
        ctx.refuse("not_on_offer", f"idle band {number}")
    lease = Lease(
        number,
        idle.holder,
        lessee,
        idle.band,
        call.low,
        call.high,
        call.cells,
        max(call.start, ctx.now),
        call.end,
        call.eirp,
        call.height,
        idle.kind,
        "granted",
        idle.pricing,
        idle.price,
        idle.notice_ms,
        idle.transferable,
        paid_until=max(call.start, ctx.now),
    )
    check_lease(ctx, "lease", lease, idle)
    refuse_if_denied(ctx, lessee, lease.band, lease.cells)
    _refuse_if_disturbing(ctx, lease)
    mine = next_number(ctx, "lease")
    if idle.pricing == "fixed" and idle.price:
        coins.open_escrow(ctx, _escrow(mine), f"lease {mine}")
        coins.fund_escrow(ctx, lessee, _escrow(mine), idle.price)
        lease = replace(lease, charged=idle.price, held=idle.price)
    elif idle.pricing == "payg" and coins.free(ctx, lessee) < charge_for(lease, lease.start, lease.start + HOUR_MS):
        ctx.refuse("not_enough_coins", "for the first hour")
    ctx.put(LEASES, mine, lease)
    add_entries(ctx, lease.band, entries_of(mine, lease))
    ctx.schedule(lease.end, EndLease(mine))
    note_grant(ctx, lessee, lease.band, lease.cells)
    ctx.emit(LeaseChanged(mine, "granted", ""))
    return mine


@spectrum.call(Heartbeat)
def heartbeat(ctx: Context, call: Heartbeat) -> None:
    """Authorise transmission up to 240 s ahead, charging by the started hour where the lease is paid as used."""
    lease = _mine(ctx, call.lease)
    if lease.standing == "suspended":
        ctx.refuse("suspended", f"lease {call.lease}")
    if ctx.now < lease.start:
        ctx.refuse("not_begun", f"lease {call.lease}")
    end = min(lease.end, lease.recalled_at or lease.end)
    if ctx.now >= end:
        ctx.refuse("recalled" if lease.recalled_at else "ended", f"lease {call.lease}")
    refuse_if_denied(ctx, lease.lessee, lease.band, lease.cells)
    until = min(ctx.now + HEARTBEAT_MS, end)
    charged = 0
    if lease.pricing == "payg" and lease.paid_until < until:
        paid_until = min(max(until, lease.paid_until + HOUR_MS), end)
        charged = charge_for(lease, lease.paid_until, paid_until)
        if coins.free(ctx, lease.lessee) < charged:
            ctx.refuse("unpaid", f"{charged} micro-coins to {paid_until}")
        lease = _earn(ctx, lease, charged)
        lease = replace(lease, charged=lease.charged + charged, paid_until=paid_until)
    note_use(ctx, lease.lessee, lease.band, lease.cells, max(lease.authorized_until, ctx.now), until)
    ctx.put(LEASES, call.lease, replace(lease, standing="authorized", authorized_until=until))
    ctx.emit(Authorized(call.lease, until, charged))


@spectrum.call(RecallLease)
def recall_lease(ctx: Context, call: RecallLease) -> None:
    """Let a lease end after its notice; only the holder may."""
    lease = _live(ctx, call.lease)
    if lease.holder != ctx.sender:
        ctx.refuse("not_the_holder")
    if lease.recalled_at:
        ctx.refuse("already_recalled", f"ends at {lease.recalled_at}")
    at = ctx.now + lease.notice_ms
    if at >= lease.end:
        ctx.refuse("ends_before_the_notice", f"at {lease.end}")
    ctx.put(LEASES, call.lease, replace(lease, recalled_at=at))
    ctx.schedule(at, RecallTakesEffect(call.lease))
    ctx.emit(LeaseChanged(call.lease, lease.standing, f"recalled, ends at {at}"))


@spectrum.due(RecallTakesEffect)
def recall_takes_effect(ctx: Context, due: RecallTakesEffect) -> None:
    """End a recalled lease; what is left of a fixed price goes back in proportion to the time that is lost."""
    lease = ctx.require(LEASES, due.lease, "no_such_lease")
    if lease.standing in LIVE and lease.recalled_at:
        _finish(ctx, due.lease, lease, "terminated", lease.recalled_at, "recalled")


@spectrum.due(EndLease)
def end_lease(ctx: Context, due: EndLease) -> None:
    """Let a lease expire."""
    lease = ctx.require(LEASES, due.lease, "no_such_lease")
    if lease.standing in LIVE and ctx.now >= lease.end:
        _finish(ctx, due.lease, lease, "expired", lease.end, "")


@spectrum.call(RelinquishLease)
def relinquish_lease(ctx: Context, call: RelinquishLease) -> None:
    """Free a band before its time."""
    _finish(ctx, call.lease, _mine(ctx, call.lease), "relinquished", 0, "")


@spectrum.call(SuspendLease)
def suspend_lease(ctx: Context, call: SuspendLease) -> None:
    """Suspend: no heartbeat is answered until the lease is resumed."""
    lease = _live(ctx, call.lease)
    _require_warden(ctx, lease, call.use)
    if lease.standing == "suspended":
        ctx.refuse("already_suspended")
    ctx.put(LEASES, call.lease, replace(lease, standing="suspended"))
    ctx.emit(LeaseChanged(call.lease, "suspended", call.reason))


@spectrum.call(ResumeLease)
def resume_lease(ctx: Context, call: ResumeLease) -> None:
    """Resume: the next heartbeat is answered again."""
    lease = _live(ctx, call.lease)
    _require_warden(ctx, lease, call.use)
    if lease.standing != "suspended":
        ctx.refuse("not_suspended")
    ctx.put(LEASES, call.lease, replace(lease, standing="authorized" if lease.authorized_until else "granted"))
    ctx.emit(LeaseChanged(call.lease, "authorized" if lease.authorized_until else "granted", "resumed"))


@spectrum.call(DeclareUse)
def declare_use(ctx: Context, call: DeclareUse) -> None:
    """Note an arrival or a departure; who has departed is authorised no longer."""
    lease = _mine(ctx, call.lease)
    if lease.present == call.present:
        ctx.refuse("already_declared")
    ctx.put(LEASES, call.lease, replace(lease, present=call.present))
    ctx.emit(LeaseChanged(call.lease, lease.standing, "arrived" if call.present else "departed"))


@spectrum.call(MoveLease)
def move_lease(ctx: Context, call: MoveLease) -> None:
    """Move; the lease stays as it was where the new cells would break a limit."""
    lease = _mine(ctx, call.lease)
    idle = ctx.require(IDLE, lease.idle, "no_such_idle_band")
    if len(call.cells) != len(lease.cells):
        ctx.refuse("as_many_cells_as_before", f"{len(lease.cells)}")
    moved = replace(lease, cells=call.cells)
    check_lease(ctx, f"lease {call.lease}", moved, idle)
    refuse_if_denied(ctx, lease.lessee, lease.band, moved.cells)
    remove_entries(ctx, lease.band, entries_of(call.lease, lease))
    _refuse_if_disturbing(ctx, moved)
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
        coins.open_escrow(ctx, _escrow(number), f"lease {number}")
        coins.move_between_escrows(ctx, _escrow(call.lease), _escrow(number), moved)
    rest = replace(rest, held=lease.held - moved, charged=lease.charged - moved)
    part = replace(part, held=moved, charged=moved, paid_out=0, fees=0, refunded=0, origin=call.lease)
    remove_entries(ctx, lease.band, entries_of(call.lease, lease))
    if rest.end != lease.end:
        ctx.unschedule(lease.end, EndLease(call.lease))
        ctx.schedule(rest.end, EndLease(call.lease))
    ctx.schedule(part.end, EndLease(number))
    for one, its in ((call.lease, rest), (number, part)):
        # Both are judged as newcomers: two parts may be heard where the whole was heard once.
        code, info = _disturbance(ctx, its)
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
        coins.move_between_escrows(ctx, _escrow(call.other), _escrow(call.lease), two.held)
        coins.close_escrow(ctx, _escrow(call.other))
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
    _refuse_if_disturbing(ctx, joined)  # one wide receiver hears what two narrow ones heard apart
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
    lease = _live(ctx, call.lease)
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


def end_early(ctx: Context, number: int) -> None:
    """End a lease at once and pay back what is held for it (for sales and bundles that undo their own grants)."""
    lease = _live(ctx, number)
    _finish(ctx, number, lease, "terminated", lease.start, "undone")


def charge_for(lease: Lease, start: int, end: int) -> int:
    """Return the price of using a lease from ``start`` to ``end``: per MHz, hour and cell, rounded up."""
    amount = lease.price * (lease.high - lease.low) * len(lease.cells) * (end - start)
    return -(-amount // (1_000_000 * HOUR_MS))


@spectrum.invariant
def no_band_cell_instant_is_leased_twice_and_all_limits_hold(state: State) -> bool:
    """Every entry stands alone in its cell unless all are general, and nothing hears more than it must."""
    return not first_broken_limit(state)


@spectrum.invariant
def charges_equal_payouts_fees_and_refunds(state: State) -> bool:
    """What a lessee was charged is paid out, kept as fee, given back or still held, to the unit."""
    return all(
        lease.charged == lease.paid_out + lease.fees + lease.held + lease.refunded
        and (not lease.held or coins.escrow_balance(state, _escrow(number)) == lease.held)
        for number, lease in state.scan(LEASES)
    )


@spectrum.invariant
def no_authorisation_outlives_its_lease(state: State) -> bool:
    """Nothing is authorised beyond its end or recall, and what has ended holds no band."""
    held = {entry.lease for _, sheet in state.scan(SHEETS) for entry in entries_in(sheet)}
    return all(
        (lease.authorized_until <= min(lease.end, lease.recalled_at or lease.end) or lease.standing not in LIVE)
        and ((number in held) == (lease.standing in LIVE))
        for number, lease in state.scan(LEASES)
    )


def _escrow(number: int) -> bytes:
    return coins.escrow_key("spectrum", "lease", number)


def _live(ctx: Context, number: int) -> Lease:
    lease = ctx.require(LEASES, number, "no_such_lease")
    if lease.standing not in LIVE:
        ctx.refuse("lease_has_ended", lease.standing)
    return lease


def _mine(ctx: Context, number: int) -> Lease:
    lease = _live(ctx, number)
    if lease.lessee != ctx.sender:
        ctx.refuse("not_the_lessee")
    return lease


def _transferable(ctx: Context, number: int) -> Lease:
    lease = _mine(ctx, number)
    if not lease.transferable:
        ctx.refuse("terms_do_not_allow_it")
    if lease.recalled_at or lease.standing == "suspended":
        ctx.refuse("recalled_or_suspended")
    return lease


def _on_offer(ctx: Context, number: int, idle: IdleBand, cells: tuple[int, ...]) -> bool:
    return all(
        any(offered.number == number for offered in page.idle) if page is not None else False
        for page in (ctx.get(AREAS, (idle.band, cell)) for cell in cells)
    )


def _require_warden(ctx: Context, lease: Lease, use: int) -> None:
    """Refuse unless the sender holds the lease's band, or is the incumbent of ``use`` in the same class."""
    if lease.holder == ctx.sender:
        return
    protected = ctx.get(PROTECTED, use)
    if protected is None or protected.incumbent != ctx.sender or protected.band != lease.band:
        ctx.refuse("not_the_holder_or_incumbent")


def _refuse_if_disturbing(ctx: Context, lease: Lease) -> None:
    """Refuse a lease that overlaps another or breaks a limit."""
    code, info = _disturbance(ctx, lease)
    if code:
        ctx.refuse(code, info)


def _disturbance(ctx: Context, lease: Lease) -> tuple[str, str]:
    """Return why a lease cannot stand beside all others, as a code and its detail, or two empty texts."""
    losses = ctx.require(LOSSES, lease.band, "no_such_class")
    around = scene(
        ctx,
        lease.band,
        ((lease.low, lease.high),),
        lease.cells,
        lease.start,
        lease.end,
        rings=2 * (len(losses.rings[0]) - 1),
    )
    general = lease.kind == "general"
    for entry in around.holders(frozenset(lease.cells), lease.low, lease.high, general=general):
        return "leased_already", f"lease {entry.lease} in cell {entry.cell:x}"
    newcomer = Newcomer(
        lease.band,
        lease.low,
        lease.high,
        lease.cells,
        lease.start,
        lease.end,
        lease.eirp,
        lease.height,
        not general,
    )
    broken = around.broken_limit(newcomer)
    return ("interference", broken) if broken else ("", "")


def _earn(ctx: Context, lease: Lease, amount: int) -> Lease:
    """Pay the holder and the fee account from the lessee."""
    fee = _fee(ctx, amount)
    coins.move(ctx, lease.lessee, lease.holder, amount - fee)
    if fee:
        coins.move(ctx, lease.lessee, ctx.parameters("spectrum", SpectrumParameters).fee_account, fee)
    return replace(lease, paid_out=lease.paid_out + amount - fee, fees=lease.fees + fee)


def _fee(ctx: Context, amount: int) -> int:
    parameters = ctx.parameters("spectrum", SpectrumParameters)
    return amount * parameters.fee_ppm // 1_000_000 if parameters.fee_account else 0


def _finish(ctx: Context, number: int, lease: Lease, standing: Standing, at: int, reason: str) -> None:
    """End a lease: free its band, divide what is held. ``at`` 0 gives nothing back."""
    remove_entries(ctx, lease.band, entries_of(number, lease))
    note_gone(ctx, number, lease)
    back = 0
    if lease.held:
        if at and at < lease.end:
            back = lease.held * (lease.end - max(at, lease.start)) // (lease.end - lease.start)
        escrow = _escrow(number)
        earned = lease.held - back
        fee = _fee(ctx, earned)
        coins.pay_from_escrow(ctx, escrow, lease.lessee, back, income=False)
        coins.pay_from_escrow(ctx, escrow, lease.holder, earned - fee)
        if fee:
            coins.pay_from_escrow(ctx, escrow, ctx.parameters("spectrum", SpectrumParameters).fee_account, fee)
        coins.close_escrow(ctx, escrow)
        lease = replace(
            lease, held=0, paid_out=lease.paid_out + earned - fee, fees=lease.fees + fee, refunded=lease.refunded + back
        )
    ended = replace(
        lease,
        standing=standing,
        authorized_until=min(lease.authorized_until, ctx.now),
        present=False,
        offered_to=b"",
        offered_for=0,
    )
    ctx.put(LEASES, number, ended)
    ctx.unschedule(lease.end, EndLease(number))
    ctx.emit(LeaseChanged(number, standing, reason))


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
