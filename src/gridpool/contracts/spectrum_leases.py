"""The life of a lease: granted, authorised by heartbeats, suspended, recalled, relinquished.

``granted -> authorized <-> suspended -> terminated | expired | relinquished``. A heartbeat authorises transmission for
at most 240 s; it is refused once the lease is suspended, recalled, unpaid or its user denied access, so every such
decision takes effect within that time and a recall within its notice.
"""

import msgspec

from gridpool.contracts import coins, members
from gridpool.contracts.members import Role
from gridpool.contracts.spectrum_access import note_grant, note_use, refuse_if_denied
from gridpool.contracts.spectrum_audit import first_broken_limit
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
from gridpool.contracts.spectrum_register import SpectrumParameters, check_lease, next_number
from gridpool.contracts.spectrum_sheets import add_entries, entries_in, entries_of, remove_entries
from gridpool.ledger.contract import Context
from gridpool.ledger.state import State
from gridpool.ledger.types import Call, Coins, Due, Event, Millis, Natural, Text

__all__ = [
    "LESSEES",
    "DeclareUse",
    "Heartbeat",
    "LeaseChanged",
    "RecallLease",
    "RelinquishLease",
    "RequestLease",
    "ResumeLease",
    "SuspendLease",
    "charge_for",
    "disturbance",
    "end_early",
    "escrow_of",
    "grant",
    "live_lease",
    "own_lease",
    "refuse_if_disturbing",
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
    refuse_if_disturbing(ctx, lease)
    mine = next_number(ctx, "lease")
    if idle.pricing == "fixed" and idle.price:
        coins.open_escrow(ctx, escrow_of(mine), f"lease {mine}")
        coins.fund_escrow(ctx, lessee, escrow_of(mine), idle.price)
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
    lease = own_lease(ctx, call.lease)
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
    lease = live_lease(ctx, call.lease)
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
    _finish(ctx, call.lease, own_lease(ctx, call.lease), "relinquished", 0, "")


@spectrum.call(SuspendLease)
def suspend_lease(ctx: Context, call: SuspendLease) -> None:
    """Suspend: no heartbeat is answered until the lease is resumed."""
    lease = live_lease(ctx, call.lease)
    _require_warden(ctx, lease, call.use)
    if lease.standing == "suspended":
        ctx.refuse("already_suspended")
    ctx.put(LEASES, call.lease, replace(lease, standing="suspended"))
    ctx.emit(LeaseChanged(call.lease, "suspended", call.reason))


@spectrum.call(ResumeLease)
def resume_lease(ctx: Context, call: ResumeLease) -> None:
    """Resume: the next heartbeat is answered again."""
    lease = live_lease(ctx, call.lease)
    _require_warden(ctx, lease, call.use)
    if lease.standing != "suspended":
        ctx.refuse("not_suspended")
    ctx.put(LEASES, call.lease, replace(lease, standing="authorized" if lease.authorized_until else "granted"))
    ctx.emit(LeaseChanged(call.lease, "authorized" if lease.authorized_until else "granted", "resumed"))


@spectrum.call(DeclareUse)
def declare_use(ctx: Context, call: DeclareUse) -> None:
    """Note an arrival or a departure; who has departed is authorised no longer."""
    lease = own_lease(ctx, call.lease)
    if lease.present == call.present:
        ctx.refuse("already_declared")
    ctx.put(LEASES, call.lease, replace(lease, present=call.present))
    ctx.emit(LeaseChanged(call.lease, lease.standing, "arrived" if call.present else "departed"))


def end_early(ctx: Context, number: int) -> None:
    """End a lease at once and pay back what is held for it (for sales and bundles that undo their own grants)."""
    lease = live_lease(ctx, number)
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
        and (not lease.held or coins.escrow_balance(state, escrow_of(number)) == lease.held)
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


def escrow_of(number: int) -> bytes:
    """Return the escrow that holds a lease's fixed price."""
    return coins.escrow_key("spectrum", "lease", number)


def live_lease(ctx: Context, number: int) -> Lease:
    """Return a lease that has not ended, or refuse."""
    lease = ctx.require(LEASES, number, "no_such_lease")
    if lease.standing not in LIVE:
        ctx.refuse("lease_has_ended", lease.standing)
    return lease


def own_lease(ctx: Context, number: int) -> Lease:
    """Return the sender's own lease that has not ended, or refuse."""
    lease = live_lease(ctx, number)
    if lease.lessee != ctx.sender:
        ctx.refuse("not_the_lessee")
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


def refuse_if_disturbing(ctx: Context, lease: Lease) -> None:
    """Refuse a lease that overlaps another or breaks a limit."""
    code, info = disturbance(ctx, lease)
    if code:
        ctx.refuse(code, info)


def disturbance(ctx: Context, lease: Lease) -> tuple[str, str]:
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
        escrow = escrow_of(number)
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
