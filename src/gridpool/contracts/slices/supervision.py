"""Supervision: both sides report each interval; probes or sample proofs settle disputes; verdicts are paid at once."""

from typing import Annotated, Literal

from msgspec import Meta
from msgspec.structs import replace

from gridpool.contracts import members
from gridpool.contracts.members import Role
from gridpool.contracts.slices.contract import Name, slices
from gridpool.contracts.slices.offers import OFFERS, set_status
from gridpool.contracts.slices.orders import (
    ORDERS,
    PROGRESS,
    SUBSLICES,
    Order,
    Progress,
    SliceMoved,
    SubSlice,
    enter,
    note,
    pay,
    sub_slices,
    update,
)
from gridpool.contracts.slices.pools import Segment
from gridpool.contracts.slices.samples import climb, sample_leaf
from gridpool.contracts.slices.terms import MILLION, Kpis, agree, mean, median, penalty_ppm, shortfall_ppm
from gridpool.ledger.contract import Context, Refused
from gridpool.ledger.types import Bytes, Call, Coins, Due, Event, Hash, Millis, Natural, Value, Wallet

__all__ = [
    "DISPUTES",
    "REPORTS",
    "ROOTS",
    "VERDICTS",
    "DemandSample",
    "Dispute",
    "IntervalReport",
    "Measure",
    "ProveSample",
    "Report",
    "ReportIntervals",
    "Verdict",
    "VerdictGiven",
    "begin_service",
    "interval_end",
    "settle_if_complete",
]

MOST_SAMPLES = 2**20
MOST_DEMANDS = 4
Side = Literal["party", "tenant"]
Basis = Literal["agreed", "median", "party_silent", "tenant_silent", "both_silent", "sample", "undecided"]


class IntervalReport(Value):
    """What one side measured of one sub-slice in one interval, and the Merkle root of its raw samples."""

    segment: Segment
    interval: Natural
    kpis: Kpis
    root: Hash
    samples: Annotated[int, Meta(ge=1, le=MOST_SAMPLES)]


class ReportIntervals(Call, tag="slices.report_intervals"):
    """Sign measurements (the tenant of all its segments, a party of its own)."""

    slice: Name
    generation: Natural
    reports: Annotated[tuple[IntervalReport, ...], Meta(min_length=1, max_length=200)]


class Measure(Call, tag="slices.measure"):
    """Give a third measurement in a dispute (a probe that is neither side); the median of the three decides."""

    slice: Name
    generation: Natural
    report: IntervalReport


class DemandSample(Call, tag="slices.demand_sample"):
    """Ask the other side of a dispute to prove one of its samples (the other side, or a probe)."""

    slice: Name
    generation: Natural
    segment: Segment
    interval: Natural
    of: Side
    index: Natural


class ProveSample(Call, tag="slices.prove_sample"):
    """Show a demanded sample and its path to the reported root."""

    slice: Name
    generation: Natural
    segment: Segment
    interval: Natural
    index: Natural
    sample: Bytes
    path: Annotated[tuple[Hash, ...], Meta(max_length=20)]


class ReportBy(Due, tag="slices.report_by"):
    """The measurements of an interval should be in."""

    slice: Name
    generation: Natural
    interval: Natural


class DisputeBy(Due, tag="slices.dispute_by"):
    """A dispute should be decided."""

    slice: Name
    generation: Natural
    segment: str
    interval: Natural


class EndService(Due, tag="slices.end_service"):
    """The service of an order ends."""

    slice: Name
    generation: Natural


class Report(Value):
    """A side's stored measurement."""

    kpis: Kpis
    root: Hash
    samples: Natural


class Reports(Value):
    """What both sides said of an interval so far."""

    party: Report | None = None
    tenant: Report | None = None


class Demand(Value):
    """A sample that was asked for."""

    of: Side
    index: Natural
    proved: bool = False


class Dispute(Value):
    """An open dispute."""

    until: Millis
    demands: Annotated[tuple[Demand, ...], Meta(max_length=2 * MOST_DEMANDS)] = ()


class Verdict(Value):
    """How an interval ended: on which figures and why, how severe, and where its price went."""

    kpis: Kpis
    basis: Basis
    severity: Natural
    paid: Coins
    penalty: Coins
    tx: Hash
    at: Millis


class Used(Value):
    """Where a root was reported first."""

    interval: Natural
    by: Wallet


@slices.event
class VerdictGiven(Event, tag="slices.verdict"):
    """An interval was judged."""

    slice: Name
    generation: Natural
    segment: str
    interval: Natural
    basis: str
    severity: Natural
    paid: Coins
    penalty: Coins


REPORTS = slices.table("reports", key=(str, int, str, int), value=Reports)
"""(slice, generation, segment, interval) -> what both sides said; removed with the verdict."""
DISPUTES = slices.table("dispute", key=(str, int, str, int), value=Dispute)
VERDICTS = slices.table("verdict", key=(str, int, str, int), value=Verdict)
ROOTS = slices.table("root", key=(str, int, str, bytes), value=Used)
"""(slice, generation, segment, root) -> the interval that it stands for: an old measurement cannot come again."""

NOTHING_MEASURED = Kpis(0, 0, 0, 0, 0)


def interval_end(order: Order, interval: int) -> int:
    """Return the market time at which an interval ends."""
    return order.request.start + (interval + 1) * order.request.schedule.interval_ms


def begin_service(ctx: Context, key: tuple[str, int]) -> None:
    """Schedule the end of service and the first interval's reports."""
    progress = ctx.require(PROGRESS, key, "no_order")
    order = ctx.require(ORDERS, key, "no_order")
    ctx.schedule(progress.until, EndService(*key))
    _await_reports(ctx, key, order, progress, progress.active_from)


@slices.call(ReportIntervals)
def report_intervals(ctx: Context, call: ReportIntervals) -> None:
    """Store measurements; where both sides have spoken, judge or open a dispute."""
    key = (call.slice, call.generation)
    for report in call.reports:
        order, sub, place = _place(ctx, key, report.segment, report.interval)
        side: Side = "party" if sub.party == ctx.sender else "tenant"
        if side == "tenant" and ctx.require(PROGRESS, key, "no_order").tenant != ctx.sender:
            raise Refused("not_a_side", "the tenant and the segment's party report")
        if not interval_end(order, report.interval) <= ctx.now < _report_by(order, report.interval):
            raise Refused("not_the_reporting_window", f"interval {report.interval}")
        held = ctx.get(REPORTS, place) or Reports()
        if getattr(held, side) is not None:
            raise Refused("already_reported", f"{report.segment} {report.interval}")
        used = ctx.get(ROOTS, (*key, report.segment, report.root))
        if used is not None and (used.interval != report.interval or used.by == ctx.sender):
            raise Refused("root_replayed", f"stood for interval {used.interval}")
        ctx.put(ROOTS, (*key, report.segment, report.root), Used(report.interval, ctx.sender))
        held = replace(held, **{side: Report(report.kpis, report.root, report.samples)})
        ctx.put(REPORTS, place, held)
        if held.party is None or held.tenant is None:
            continue
        if agree(held.party.kpis, held.tenant.kpis, sub.terms.tolerance_ppm):
            _judge(ctx, place, mean(held.party.kpis, held.tenant.kpis), "agreed")
        else:
            until = ctx.now + order.request.schedule.dispute_ms
            ctx.put(DISPUTES, place, Dispute(until))
            ctx.schedule(until, DisputeBy(*place))


@slices.call(Measure)
def measure(ctx: Context, call: Measure) -> None:
    """Decide a dispute by the median of three."""
    probe = members.require(ctx, Role.PROBE)
    key, place, dispute = _disputed(ctx, call.slice, call.generation, call.report.segment, call.report.interval)
    sub = ctx.require(SUBSLICES, (*key, call.report.segment), "unknown_segment")
    for side in (sub.party, ctx.require(PROGRESS, key, "no_order").tenant):
        record = ctx.get(members.WALLETS, side)
        if side == ctx.sender or (record is not None and record.member and record.member == probe.member):
            raise Refused("not_independent", "a probe is neither side")
    held = ctx.require(REPORTS, place, "no_reports")
    if held.party is None or held.tenant is None:
        raise Refused("no_reports")
    _close_dispute(ctx, place, dispute)
    _judge(ctx, place, median(held.party.kpis, held.tenant.kpis, call.report.kpis), "median")


@slices.call(DemandSample)
def demand_sample(ctx: Context, call: DemandSample) -> None:
    """Ask for the proof of a sample."""
    key, place, dispute = _disputed(ctx, call.slice, call.generation, call.segment, call.interval)
    sub = ctx.require(SUBSLICES, (*key, call.segment), "unknown_segment")
    tenant = ctx.require(PROGRESS, key, "no_order").tenant
    asked, other = (sub.party, tenant) if call.of == "party" else (tenant, sub.party)
    if ctx.sender != other and (ctx.sender == asked or not members.has_role(ctx, ctx.sender, Role.PROBE)):
        raise Refused("not_the_other_side")
    order = ctx.require(ORDERS, key, "no_order")
    if ctx.now >= dispute.until - order.request.schedule.dispute_ms // 2:
        raise Refused("too_late", "the second half of a dispute is for answers")
    held = ctx.require(REPORTS, place, "no_reports")
    report = held.party if call.of == "party" else held.tenant
    if report is None or call.index >= report.samples:
        raise Refused("no_such_sample", f"index {call.index}")
    if sum(demand.of == call.of for demand in dispute.demands) >= MOST_DEMANDS:
        raise Refused("enough_demands", f"at most {MOST_DEMANDS} a side")
    ctx.put(DISPUTES, place, replace(dispute, demands=(*dispute.demands, Demand(call.of, call.index))))


@slices.call(ProveSample)
def prove_sample(ctx: Context, call: ProveSample) -> None:
    """Check a demanded sample against the reported root."""
    key, place, dispute = _disputed(ctx, call.slice, call.generation, call.segment, call.interval)
    sub = ctx.require(SUBSLICES, (*key, call.segment), "unknown_segment")
    side: Side = "party" if sub.party == ctx.sender else "tenant"
    if side == "tenant" and ctx.require(PROGRESS, key, "no_order").tenant != ctx.sender:
        raise Refused("not_a_side")
    wanted = [d for d in dispute.demands if d.of == side and d.index == call.index and not d.proved]
    if not wanted:
        raise Refused("not_demanded")
    held = ctx.require(REPORTS, place, "no_reports")
    report = held.party if side == "party" else held.tenant
    leaf = sample_leaf(*place, call.index, call.sample)
    if report is None or climb(leaf, call.index, report.samples, call.path) != report.root:
        raise Refused("wrong_sample", "the path does not lead to the reported root")
    demands = tuple(replace(d, proved=True) if d in wanted else d for d in dispute.demands)
    ctx.put(DISPUTES, place, replace(dispute, demands=demands))


@slices.due(ReportBy)
def report_by(ctx: Context, due: ReportBy) -> None:
    """Judge an interval by who spoke; silence loses it."""
    key = (due.slice, due.generation)
    order = ctx.require(ORDERS, key, "no_order")
    progress = ctx.require(PROGRESS, key, "no_order")
    if interval_end(order, due.interval) <= progress.until:
        for segment in sub_slices(ctx, key):
            place = (*key, segment, due.interval)
            if ctx.get(VERDICTS, place) is not None or ctx.get(DISPUTES, place) is not None:
                continue
            held = ctx.get(REPORTS, place) or Reports()
            if held.party is not None:
                _judge(ctx, place, held.party.kpis, "tenant_silent")
            elif held.tenant is not None:
                _judge(ctx, place, held.tenant.kpis, "party_silent")
            else:
                _judge(ctx, place, NOTHING_MEASURED, "both_silent")
    progress = ctx.require(PROGRESS, key, "no_order")
    _await_reports(ctx, key, order, progress, due.interval + 1)


@slices.due(DisputeBy)
def dispute_by(ctx: Context, due: DisputeBy) -> None:
    """Decide a dispute that no probe measured: an unanswered demand loses it, else its price is halved."""
    place = (due.slice, due.generation, due.segment, due.interval)
    dispute = ctx.get(DISPUTES, place)
    if dispute is None:
        return
    ctx.delete(DISPUTES, place)
    held = ctx.require(REPORTS, place, "no_reports")
    silent = {demand.of for demand in dispute.demands if not demand.proved}
    if held.party is None or held.tenant is None or len(silent) != 1:
        _judge(ctx, place, NOTHING_MEASURED, "undecided")
    elif "party" in silent:
        _judge(ctx, place, held.tenant.kpis, "sample")
    else:
        _judge(ctx, place, held.party.kpis, "sample")


@slices.due(EndService)
def end_service(ctx: Context, due: EndService) -> None:
    """End an order's service; what is still to be judged is judged before it is settled."""
    key = (due.slice, due.generation)
    progress = ctx.require(PROGRESS, key, "no_order")
    if progress.phase != "active" or ctx.now < progress.until:
        return
    enter(ctx, key, "ended", "")
    settle_if_complete(ctx, key)


def settle_if_complete(ctx: Context, key: tuple[str, int]) -> None:
    """Settle an ended order once every interval has its verdict: deposits return, the rest goes to the tenant."""
    progress = ctx.require(PROGRESS, key, "no_order")
    order = ctx.require(ORDERS, key, "no_order")
    served = (progress.until - order.request.start) // order.request.schedule.interval_ms - progress.active_from
    subs = sub_slices(ctx, key)
    if progress.phase != "ended" or progress.decided < max(served, 0) * len(subs):
        return
    for segment, sub in subs.items():
        offer = ctx.require(OFFERS, (*key, segment, sub.offer), "unknown_offer")
        if offer.status == "awarded":
            set_status(ctx, key, segment, sub.offer, "returned")
    left = ctx.require(PROGRESS, key, "no_order").money.left
    note(ctx, key, progress.tenant, "rest returned", "", left)
    enter(ctx, key, "settled", "")


def _judge(ctx: Context, place: tuple[str, int, str, int], kpis: Kpis, basis: Basis) -> None:
    slice_, generation, segment, interval = place
    key = (slice_, generation)
    sub = ctx.require(SUBSLICES, (*key, segment), "unknown_segment")
    progress = ctx.require(PROGRESS, key, "no_order")
    price = sub.share(interval)
    severity, penalty, paid = 0, 0, 0
    if basis == "undecided":
        paid = price // 2
    elif basis != "both_silent":
        severity, ppm = penalty_ppm(shortfall_ppm(kpis, sub.terms, sub.bandwidth_kbps, sub.delay_us), sub.terms)
        room = sub.payment * sub.terms.cap_ppm // MILLION - sub.penalties
        penalty = max(0, min(price * ppm // MILLION, room))
        paid = price - penalty
    pay(ctx, key, sub.party, paid, "paid")
    pay(ctx, key, progress.tenant, penalty, "penalties")
    pay(ctx, key, progress.tenant, price - paid - penalty, "refunded")
    tx = ctx.tx_id if any(ctx.tx_id) else ctx.require(ORDERS, key, "no_order").tx
    ctx.put(VERDICTS, place, Verdict(kpis, basis, severity, paid, penalty, tx, ctx.now))
    ctx.delete(REPORTS, place)
    judged = basis not in ("undecided", "both_silent")
    breaches = sub.breaches + 1 if severity else (0 if judged else sub.breaches)
    degraded = severity > 0 if judged else sub.degraded
    if degraded != sub.degraded:
        ctx.emit(SliceMoved(slice_, generation, "degraded" if degraded else "active", segment))
    changed = replace(sub, breaches=breaches, degraded=degraded, penalties=sub.penalties + penalty)
    ctx.put(SUBSLICES, (*key, segment), changed)
    update(ctx, key, decided=ctx.require(PROGRESS, key, "no_order").decided + 1)
    ctx.emit(VerdictGiven(slice_, generation, segment, interval, basis, severity, paid, penalty))
    settle_if_complete(ctx, key)


def _place(
    ctx: Context, key: tuple[str, int], segment: str, interval: int
) -> tuple[Order, SubSlice, tuple[str, int, str, int]]:
    progress: Progress = ctx.require(PROGRESS, key, "no_order")
    order = ctx.require(ORDERS, key, "no_order")
    sub = ctx.require(SUBSLICES, (*key, segment), "unknown_segment")
    if progress.phase not in ("active", "ended"):
        raise Refused("wrong_phase", f"slice {key[0]} is {progress.phase}")
    if interval < progress.active_from or interval_end(order, interval) > progress.until:
        raise Refused("not_served", f"interval {interval}")
    place = (*key, segment, interval)
    if ctx.get(VERDICTS, place) is not None:
        raise Refused("already_judged", f"{segment} {interval}")
    return order, sub, place


def _disputed(
    ctx: Context, name: str, generation: int, segment: str, interval: int
) -> tuple[tuple[str, int], tuple[str, int, str, int], Dispute]:
    place = (name, generation, segment, interval)
    dispute = ctx.require(DISPUTES, place, "no_dispute")
    if ctx.now >= dispute.until:
        raise Refused("too_late", "the dispute is over")
    return (name, generation), place, dispute


def _close_dispute(ctx: Context, place: tuple[str, int, str, int], dispute: Dispute) -> None:
    ctx.delete(DISPUTES, place)
    ctx.unschedule(dispute.until, DisputeBy(*place))


def _await_reports(ctx: Context, key: tuple[str, int], order: Order, progress: Progress, interval: int) -> None:
    if interval_end(order, interval) <= progress.until:
        ctx.schedule(_report_by(order, interval), ReportBy(*key, interval))


def _report_by(order: Order, interval: int) -> int:
    return interval_end(order, interval) + order.request.schedule.report_ms
