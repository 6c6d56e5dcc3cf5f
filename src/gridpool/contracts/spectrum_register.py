"""The register's entries: band classes, licences, protected uses and idle bands, each checked before it stands.

Classes, licences, protected uses and access rules are decisions of the council; holders declare idle bands
themselves. Genesis may bring a whole register, which is accepted whole or refused whole.
"""

from collections.abc import Iterable
from itertools import pairwise
from typing import Annotated

import h3.api.basic_int as h3
import msgspec

from gridpool.contracts import members
from gridpool.contracts.members import Decision, decision
from gridpool.contracts.spectrum_audit import first_broken_limit, guard_fault
from gridpool.contracts.spectrum_power import CAP_MDBM, density
from gridpool.contracts.spectrum_records import (
    AREAS,
    CLASSES,
    DAY_MS,
    IDLE,
    LEASES,
    LICENCES,
    LIVE,
    LOSSES,
    NUMBERS,
    PROTECTED,
    AccessRule,
    Area,
    BandClass,
    Cells,
    Counter,
    EndLease,
    Entry,
    Guard,
    Hertz,
    IdleBand,
    Kind,
    Lease,
    Level,
    Licence,
    Losses,
    Offered,
    Pricing,
    ProtectedUse,
    spectrum,
)
from gridpool.contracts.spectrum_sheets import (
    add_guards,
    bins,
    entries_of,
    put_entries,
    strips,
)
from gridpool.ledger.contract import Context
from gridpool.ledger.types import Call, Coins, Event, Millis, Natural, PartsPerMillion, Value

__all__ = [
    "DeclareIdle",
    "GrantLicences",
    "IdleDeclared",
    "Protect",
    "SetAccessRules",
    "SetBandClass",
    "SpectrumParameters",
    "WithdrawIdle",
    "next_number",
    "put_leases",
]

LONGEST_MS = 400 * DAY_MS
MOST_LEASE_CELLS = 200
MOST_LEASE_BINS = 200
"""Cells and bins of one lease: what one grant has to look at stays bounded."""
MOST_GUARDS = 1_000_000
"""Cells times windows times strips of one protected use: what its sheets grow by stays bounded."""


class SpectrumParameters(Value):
    """Fee, thresholds and fusion rule of the register, and at genesis the register itself."""

    fee_ppm: PartsPerMillion = 10_000
    fee_account: bytes = b""
    """Wallet that receives fees; without one no fee is taken."""
    access_rules: Annotated[tuple[AccessRule, ...], msgspec.Meta(max_length=64)] = ()
    fusion_k: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = 3
    fusion_n: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = 5
    fusion_wait_ms: Annotated[int, msgspec.Meta(ge=1_000, le=DAY_MS)] = 60_000
    classes: tuple[tuple[BandClass, Losses], ...] = ()
    licences: tuple[Licence, ...] = ()
    protected: tuple[ProtectedUse, ...] = ()
    idle: tuple[IdleBand, ...] = ()
    leases: tuple[Lease, ...] = ()


class SetBandClass(Decision, tag="spectrum.set_band_class"):
    """Add a band class (number 0), or give a class a newer path-loss table."""

    number: Natural
    rules: BandClass
    losses: Losses


class GrantLicences(Decision, tag="spectrum.grant_licences"):
    """Grant licences."""

    licences: Annotated[tuple[Licence, ...], msgspec.Meta(min_length=1, max_length=1_000)]


class Protect(Decision, tag="spectrum.protect"):
    """Protect incumbents' uses; refused while a lease in force would break the new limits."""

    uses: Annotated[tuple[ProtectedUse, ...], msgspec.Meta(min_length=1, max_length=100)]


class SetAccessRules(Decision, tag="spectrum.set_access_rules"):
    """Replace the thresholds of access."""

    rules: Annotated[tuple[AccessRule, ...], msgspec.Meta(max_length=64)]


class DeclareIdle(Call, tag="spectrum.declare_idle"):
    """Offer a licensed band, in an area and a time, at a price and with terms."""

    licence: Natural
    low: Hertz
    high: Hertz
    cells: Cells
    start: Millis
    end: Millis
    max_eirp: Level
    kind: Kind
    pricing: Pricing
    price: Coins
    notice_ms: Natural
    transferable: bool = False


class WithdrawIdle(Call, tag="spectrum.withdraw_idle"):
    """Offer a band no longer; leases of it stay until they end or are recalled."""

    idle: Natural


@spectrum.event
class IdleDeclared(Event, tag="spectrum.idle_declared"):
    """A band is on offer."""

    idle: Natural
    licence: Natural


@spectrum.genesis(SpectrumParameters)
def begin(ctx: Context, parameters: SpectrumParameters) -> None:
    """Check and store a register; what is not part of the rules is not kept among the parameters."""
    for rules, losses in parameters.classes:
        _put_class(ctx, 0, rules, losses)
    for licence in parameters.licences:
        _put_licence(ctx, licence)
    for use in parameters.protected:
        _put_protected(ctx, use)
    for idle in parameters.idle:
        put_idle(ctx, idle)
    put_leases(ctx, parameters.leases)
    if parameters.leases:
        broken = first_broken_limit(ctx)
        if broken:
            ctx.refuse("limits_broken", broken)
    _check_rules(ctx, parameters.access_rules)
    if parameters.fee_account and len(parameters.fee_account) != 32:
        ctx.refuse("fee_account_is_no_wallet")
    if parameters.fusion_k > parameters.fusion_n:
        ctx.refuse("fusion_rule", f"{parameters.fusion_k} of {parameters.fusion_n}")
    stripped = msgspec.structs.replace(parameters, classes=(), licences=(), protected=(), idle=(), leases=())
    ctx.set_parameters("spectrum", stripped)


@decision(SetBandClass)
def set_band_class(ctx: Context, decided: SetBandClass) -> None:
    """Add a class, or replace a path-loss table by a newer version under which no lease in force breaks a limit."""
    _put_class(ctx, decided.number, decided.rules, decided.losses)
    broken = first_broken_limit(ctx) if decided.number else ""
    if broken:
        ctx.refuse("leases_in_the_way", broken)


@decision(GrantLicences)
def grant_licences(ctx: Context, decided: GrantLicences) -> None:
    """Grant licences to registered wallets."""
    for licence in decided.licences:
        ctx.require(members.WALLETS, licence.holder, "unknown_wallet")
        _put_licence(ctx, licence)


@decision(Protect)
def protect(ctx: Context, decided: Protect) -> None:
    """Protect uses where nothing in force disturbs them; holders recall what does before."""
    for use in decided.uses:
        _put_protected(ctx, use)
    broken = guard_fault(ctx, {use.band for use in decided.uses})
    if broken:
        ctx.refuse("leases_in_the_way", broken)


@decision(SetAccessRules)
def set_access_rules(ctx: Context, decided: SetAccessRules) -> None:
    """Replace the thresholds."""
    _check_rules(ctx, decided.rules)
    parameters = ctx.parameters("spectrum", SpectrumParameters)
    ctx.set_parameters("spectrum", msgspec.structs.replace(parameters, access_rules=decided.rules))


@spectrum.call(DeclareIdle)
def declare_idle(ctx: Context, call: DeclareIdle) -> None:
    """Put a band on offer; only the licence's holder may."""
    members.require(ctx)
    licence = ctx.require(LICENCES, call.licence, "no_such_licence")
    if licence.holder != ctx.sender:
        ctx.refuse("not_the_holder")
    idle = IdleBand(
        call.licence,
        ctx.sender,
        licence.band,
        call.low,
        call.high,
        call.cells,
        call.start,
        call.end,
        call.max_eirp,
        call.kind,
        call.pricing,
        call.price,
        max(call.notice_ms, 0),
        call.transferable,
    )
    number = put_idle(ctx, idle)
    ctx.emit(IdleDeclared(number, call.licence))


@spectrum.call(WithdrawIdle)
def withdraw_idle(ctx: Context, call: WithdrawIdle) -> None:
    """Take an offer back."""
    idle = ctx.require(IDLE, call.idle, "no_such_idle_band")
    if idle.holder != ctx.sender:
        ctx.refuse("not_the_holder")
    for cell in idle.cells:
        page = ctx.require(AREAS, (idle.band, cell), "no_such_area")
        kept = tuple(offered for offered in page.idle if offered.number != call.idle)
        ctx.put(AREAS, (idle.band, cell), Area(page.licences, kept))


def next_number(ctx: Context, what: str) -> int:
    """Return the next number of a kind of record, from 1 on."""
    last = ctx.get(NUMBERS, what)
    number = 1 if last is None else last.last + 1
    ctx.put(NUMBERS, what, Counter(number))
    return number


def put_idle(ctx: Context, idle: IdleBand) -> int:
    """Check an idle band against its licence and store it; returns its number."""
    licence = ctx.require(LICENCES, idle.licence, "no_such_licence")
    rules = _rules_of(ctx, idle.band)
    where = f"idle band of licence {idle.licence}"
    _check_extent(ctx, where, rules, idle.low, idle.high, idle.cells, idle.start, idle.end)
    if idle.holder != licence.holder or idle.band != licence.band or not licence.leasable:
        ctx.refuse("not_to_be_leased", where)
    if not (licence.low <= idle.low and idle.high <= licence.high):
        ctx.refuse("outside_the_licence", f"{where}: band")
    if not (licence.start <= idle.start and idle.end <= licence.end):
        ctx.refuse("outside_the_licence", f"{where}: time")
    if not set(idle.cells) <= set(licence.cells):
        ctx.refuse("outside_the_licence", f"{where}: area")
    if idle.max_eirp > licence.max_eirp:
        ctx.refuse("outside_the_licence", f"{where}: power")
    if licence.kind != "exclusive" and idle.kind == "exclusive":
        ctx.refuse("outside_the_licence", f"{where}: a {licence.kind} licence gives no exclusive lease")
    if not 240_000 <= idle.notice_ms <= 366 * DAY_MS:
        ctx.refuse("notice_too_short", f"{where}: a recall gives at least the 240 s of a heartbeat")
    number = next_number(ctx, "idle")
    ctx.put(IDLE, number, idle)
    offered = Offered(number, idle.low, idle.high, idle.start, idle.end)
    for cell in idle.cells:
        page = ctx.get(AREAS, (idle.band, cell)) or Area((), ())
        ctx.put(AREAS, (idle.band, cell), Area(page.licences, (*page.idle, offered)))
    return number


def _put_class(ctx: Context, number: int, rules: BandClass, losses: Losses) -> None:
    where = f"band class {rules.name}"
    if rules.low >= rules.high or rules.low % rules.bin_hz or rules.high % rules.bin_hz:
        ctx.refuse("band_class", f"{where}: low and high are multiples of its bin, low below high")
    if list(rules.heights_m) != sorted(set(rules.heights_m)) or len(losses.rings) != len(rules.heights_m):
        ctx.refuse("band_class", f"{where}: heights ascend, with one row of losses each")
    if len({len(row) for row in losses.rings}) != 1 or not losses.rings[0]:
        ctx.refuse("band_class", f"{where}: rows of losses have one length")
    if any(list(row) != sorted(row) for row in losses.rings):
        ctx.refuse("band_class", f"{where}: losses do not fall with distance")
    if any(a < b for low, high in pairwise(losses.rings) for a, b in zip(low, high, strict=True)):
        ctx.refuse("band_class", f"{where}: losses do not rise with height")
    if not rules.least_eirp <= rules.most_eirp or rules.lessee_limit >= CAP_MDBM:
        ctx.refuse("band_class", f"{where}: levels")
    if number:
        old = _rules_of(ctx, number)
        table = ctx.require(LOSSES, number, "no_such_class")
        if old != rules or losses.version <= table.version or len(losses.rings[0]) > len(table.rings[0]):
            ctx.refuse("band_class", f"{where}: only a newer table of no longer reach can replace one")
        ctx.put(LOSSES, number, losses)
        return
    for _, other in ctx.scan(CLASSES):
        if other.low < rules.high and rules.low < other.high:
            ctx.refuse("band_class", f"{where} overlaps {other.name}")
    number = next_number(ctx, "class")
    ctx.put(CLASSES, number, rules)
    ctx.put(LOSSES, number, losses)


def _put_licence(ctx: Context, licence: Licence) -> int:
    number = next_number(ctx, "licence")
    rules = _rules_of(ctx, licence.band)
    where = f"licence {number}"
    _check_extent(ctx, where, rules, licence.low, licence.high, licence.cells, licence.start, licence.end)
    if licence.max_eirp > rules.most_eirp:
        ctx.refuse("too_much_power", f"{where}: {licence.max_eirp} mdBm/MHz")
    offered = Offered(number, licence.low, licence.high, licence.start, licence.end)
    for cell in licence.cells:
        page = ctx.get(AREAS, (licence.band, cell)) or Area((), ())
        for other in page.licences:
            if (
                other.low < licence.high
                and licence.low < other.high
                and other.start < licence.end
                and licence.start < other.end
                and "exclusive" in (licence.kind, ctx.require(LICENCES, other.number, "no_such_licence").kind)
            ):
                ctx.refuse("licences_overlap", f"{where} and licence {other.number} in cell {cell:x}")
        ctx.put(AREAS, (licence.band, cell), Area((*page.licences, offered), page.idle))
    ctx.put(LICENCES, number, licence)
    return number


def _put_protected(ctx: Context, use: ProtectedUse) -> int:
    number = next_number(ctx, "protected")
    rules = _rules_of(ctx, use.band)
    where = f"protected use {number}"
    start, end = use.windows[0][0], use.windows[-1][1]
    _check_extent(ctx, where, rules, use.low, use.high, use.cells, start, end, longest=11 * 366 * DAY_MS)
    for (a, b), (c, d) in pairwise(use.windows):
        if not a < b < c < d:
            ctx.refuse("windows", f"{where}: windows ascend and do not touch")
    across = len(strips(*bins(use.low, use.high, rules.bin_hz)))
    if len(use.cells) * len(use.windows) * across > MOST_GUARDS:
        ctx.refuse("too_much_protected_at_once", f"{where}: at most {MOST_GUARDS} cells x windows x strips of bins")
    if use.limit >= CAP_MDBM:
        ctx.refuse("limit_too_high", where)
    losses = ctx.require(LOSSES, use.band, "no_such_class")
    if rules.most_eirp - min(row[-1] for row in losses.rings) > use.limit:
        ctx.refuse("limit_below_what_the_table_sees", f"{where}: transmitters beyond the last ring could break it")
    limit = density(use.limit)
    ctx.put(PROTECTED, number, use)
    add_guards(
        ctx,
        use.band,
        [Guard(cell, number, use.low, use.high, a, b, limit) for cell in use.cells for a, b in use.windows],
    )
    return number


def put_leases(ctx: Context, leases: Iterable[Lease]) -> None:
    """Store leases in force without payments, sheet by sheet; ``first_broken_limit`` must be asked afterwards."""
    parts: list[tuple[int, int, list[Entry]]] = []
    widths = {number: rules.bin_hz for number, rules in ctx.scan(CLASSES)}
    for lease in leases:
        number = next_number(ctx, "lease")
        where = f"lease {number}"
        idle = ctx.require(IDLE, lease.idle, "no_such_idle_band")
        if lease.standing not in LIVE or lease.held or lease.charged or lease.paid_out or lease.fees:
            ctx.refuse("lease_at_genesis", f"{where}: in force and without payments")
        if lease.authorized_until or lease.recalled_at or lease.origin or lease.offered_to:
            ctx.refuse("lease_at_genesis", f"{where}: neither authorised nor recalled nor passed on")
        check_lease(ctx, where, lease, idle)
        ctx.put(LEASES, number, lease)
        ctx.schedule(lease.end, EndLease(number))
        parts.append((lease.band, widths[lease.band], entries_of(number, lease)))
    put_entries(ctx, parts)


def check_lease(ctx: Context, where: str, lease: Lease, idle: IdleBand) -> None:
    """Refuse a lease that is not inside its idle band or does not carry its terms."""
    if len(lease.cells) > MOST_LEASE_CELLS:
        ctx.refuse("too_many_cells", f"{where}: at most {MOST_LEASE_CELLS}")
    rules = _rules_of(ctx, lease.band)
    _check_extent(ctx, where, rules, lease.low, lease.high, lease.cells, lease.start, lease.end)
    first, last = bins(lease.low, lease.high, rules.bin_hz)
    if last - first >= MOST_LEASE_BINS:
        ctx.refuse("band_too_wide", f"{where}: at most {MOST_LEASE_BINS} bins of {rules.bin_hz} Hz")
    terms = (idle.holder, idle.band, idle.kind, idle.pricing, idle.price, idle.notice_ms, idle.transferable)
    if terms != (
        lease.holder,
        lease.band,
        lease.kind,
        lease.pricing,
        lease.price,
        lease.notice_ms,
        lease.transferable,
    ):
        ctx.refuse("terms_differ", where)
    if not (idle.low <= lease.low and lease.high <= idle.high):
        ctx.refuse("outside_the_idle_band", f"{where}: band")
    if not (idle.start <= lease.start and lease.end <= idle.end):
        ctx.refuse("outside_the_idle_band", f"{where}: time")
    if not set(lease.cells) <= set(idle.cells):
        ctx.refuse("outside_the_idle_band", f"{where}: area")
    if not rules.least_eirp <= lease.eirp <= idle.max_eirp:
        ctx.refuse("outside_the_idle_band", f"{where}: power")
    if lease.height >= len(rules.heights_m):
        ctx.refuse("antenna_too_high", where)


def _rules_of(ctx: Context, band: int) -> BandClass:
    return ctx.require(CLASSES, band, "no_such_class")


def _check_extent(
    ctx: Context,
    where: str,
    rules: BandClass,
    low: int,
    high: int,
    cells: tuple[int, ...],
    start: int,
    end: int,
    *,
    longest: int = LONGEST_MS,
) -> None:
    """Refuse a band outside its class, an empty or endless time, and cells that are no cells of the class."""
    if not rules.low <= low < high <= rules.high:
        ctx.refuse("outside_the_band_class", f"{where}: {low} to {high} Hz")
    if not start < end or end - start > longest:
        ctx.refuse("time_is_empty_or_too_long", where)
    previous = -1
    for cell in cells:
        if cell <= previous:
            ctx.refuse("cells_do_not_ascend", where)
        previous = cell
        if not h3.is_valid_cell(cell) or h3.get_resolution(cell) != rules.resolution:
            ctx.refuse("not_a_cell_of_the_class", f"{where}: {cell:x}")


def _check_rules(ctx: Context, rules: tuple[AccessRule, ...]) -> None:
    names = [rule.name for rule in rules]
    if len(set(names)) != len(names):
        ctx.refuse("access_rules", "names repeat")
    for rule in rules:
        if rule.most_share_ppm > 1_000_000 or not (rule.most_share_ppm or rule.most_grants):
            ctx.refuse("access_rules", f"{rule.name}: a share up to 1000000 ppm, a count, or both")
