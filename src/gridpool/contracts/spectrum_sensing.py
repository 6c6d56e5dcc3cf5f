"""Sensing: signed reports are fused into a belief of occupancy; use without a lease becomes an incident.

Reports of one cell, bin and slot (a minute) make a round. It is fused once the waiting time is over: occupied where
sensors with at least k of n parts of the weight say so, weight being quality times how much better than a coin a
sensor has been; the belief is Bayes' with each sensor right as often as its reputation says. Reputation follows what
is known later: a lessee that was authorised and present was there, and a probe's or the regulator's evidence settles
a round against what was fused.
"""

import h3.api.basic_int as h3
import msgspec

from gridpool.contracts import members
from gridpool.contracts.members import Role
from gridpool.contracts.spectrum_interference import ring
from gridpool.contracts.spectrum_lately import SLOT_MS, lately
from gridpool.contracts.spectrum_records import (
    CLASSES,
    EPOCH_MS,
    GUARDS,
    LEASES,
    LOSSES,
    SHEETS,
    BandClass,
    Hertz,
    Level,
    spectrum,
)
from gridpool.contracts.spectrum_register import SpectrumParameters, next_number
from gridpool.contracts.spectrum_sheets import STRIP_BINS, entries_in, guards_in, parent
from gridpool.ledger.contract import Context
from gridpool.ledger.state import State
from gridpool.ledger.types import Call, Due, Event, Millis, Natural, PartsPerMillion, Value, Wallet

__all__ = [
    "INCIDENTS",
    "ROUNDS",
    "SENSORS",
    "SLOT_MS",
    "Claim",
    "ClaimDisturbance",
    "GiveEvidence",
    "Incident",
    "IncidentOpened",
    "Report",
    "Reputation",
    "Round",
    "SubmitReport",
    "belief_ppm",
    "fuse",
    "reputation_ppm",
]

MOST_REPORTS = 1_000


class Report(Value):
    """A sensor's level in a round, its own estimate of quality, and whether it calls the band occupied."""

    sensor: Wallet
    level: Level
    quality_ppm: PartsPerMillion
    occupied: bool


class Round(Value):
    """A round's reports, and what they came to (belief 10^9 while it is not fused)."""

    reports: tuple[Report, ...]
    fused: bool = False
    occupied: bool = False
    belief_ppm: PartsPerMillion = 0
    settled: bool = False
    """Whether evidence has settled it; reputations follow once only."""


class Reputation(Value):
    """How often a sensor agreed with what was known later."""

    agreed: Natural
    judged: Natural


class Claim(Value):
    """A lessee that was disturbed."""

    lease: Natural
    lessee: Wallet


class Incident(Value):
    """Transmission without a lease: where, when, with which belief, and who was disturbed."""

    band: Natural
    cell: Natural
    low: Hertz
    high: Hertz
    start: Millis
    end: Millis
    belief_ppm: PartsPerMillion
    reports: Natural
    claims: tuple[Claim, ...] = ()


class SubmitReport(Call, tag="spectrum.submit_report"):
    """Report the level that was measured in a cell and bin during the slot that begins at ``start``."""

    band: Natural
    cell: Natural
    bin: Natural
    start: Millis
    level: Level
    quality_ppm: PartsPerMillion = 1_000_000


class GiveEvidence(Call, tag="spectrum.give_evidence"):
    """Settle a round by what a probe or the regulator knows."""

    band: Natural
    cell: Natural
    bin: Natural
    start: Millis
    occupied: bool


class ClaimDisturbance(Call, tag="spectrum.claim_disturbance"):
    """Claim that an incident disturbed one's lease."""

    incident: Natural
    lease: Natural


class FuseReports(Due, tag="spectrum.fuse_reports"):
    """The waiting time of a round is over."""

    band: Natural
    cell: Natural
    bin: Natural
    start: Millis


@spectrum.event
class IncidentOpened(Event, tag="spectrum.incident_opened"):
    """Somebody transmits without a lease."""

    incident: Natural
    band: Natural
    cell: Natural


ROUNDS = spectrum.table("round", key=(int, int, int, int), value=Round)
"""(class, cell, bin, slot start) -> round."""
SENSORS = spectrum.table("sensor", key=bytes, value=Reputation)
INCIDENTS = spectrum.table("incident", key=int, value=Incident)

UNKNOWN = Reputation(0, 0)
DETECTION_MDBM = -107_000
"""The level in mdBm per MHz from which a sensor's report means occupied."""


@spectrum.call(SubmitReport)
def submit_report(ctx: Context, call: SubmitReport) -> None:
    """Take a report into its round; one a sensor, after the slot and within the waiting time."""
    members.require(ctx, Role.SENSOR)
    rules = ctx.require(CLASSES, call.band, "no_such_class")
    if not h3.is_valid_cell(call.cell) or h3.get_resolution(call.cell) != rules.resolution:
        ctx.refuse("not_a_cell_of_the_class")
    if not rules.low <= call.bin * rules.bin_hz < rules.high:
        ctx.refuse("not_a_bin_of_the_class")
    wait = ctx.parameters("spectrum", SpectrumParameters).fusion_wait_ms
    if call.start % SLOT_MS or not call.start + SLOT_MS <= ctx.now < call.start + SLOT_MS + wait:
        ctx.refuse("not_the_time_to_report", f"slots of {SLOT_MS} ms, until {wait} ms after their end")
    key = (call.band, call.cell, call.bin, call.start)
    known = ctx.get(ROUNDS, key) or Round(())
    if any(report.sensor == ctx.sender for report in known.reports):
        ctx.refuse("already_reported")
    if len(known.reports) >= MOST_REPORTS:
        ctx.refuse("round_is_full")
    report = Report(ctx.sender, call.level, min(call.quality_ppm, 1_000_000), call.level >= DETECTION_MDBM)
    ctx.put(ROUNDS, key, Round((*known.reports, report)))
    ctx.schedule(call.start + SLOT_MS + wait, FuseReports(*key))


@spectrum.due(FuseReports)
def fuse_reports(ctx: Context, due: FuseReports) -> None:
    """Fuse a round; open an incident where the band is in use and nobody may."""
    key = (due.band, due.cell, due.bin, due.start)
    known = ctx.require(ROUNDS, key, "no_such_round")
    parameters = ctx.parameters("spectrum", SpectrumParameters)
    reputations = tuple(ctx.get(SENSORS, report.sensor) or UNKNOWN for report in known.reports)
    occupied = fuse(known.reports, reputations, parameters.fusion_k, parameters.fusion_n)
    belief = belief_ppm(known.reports, reputations)
    ctx.put(ROUNDS, key, Round(known.reports, True, occupied, belief))
    rules = ctx.require(CLASSES, due.band, "no_such_class")
    lawful, certain = _lawful_use(ctx, rules, due)
    if certain or (not lawful and belief >= 900_000 and occupied):
        _judge(ctx, key, True)
    elif not lawful and belief <= 100_000 and not occupied:
        _judge(ctx, key, False)
    if occupied and not lawful:
        number = next_number(ctx, "incident")
        low = due.bin * rules.bin_hz
        incident = Incident(
            due.band,
            due.cell,
            low,
            low + rules.bin_hz,
            due.start,
            due.start + SLOT_MS,
            belief,
            len(known.reports),
        )
        ctx.put(INCIDENTS, number, incident)
        ctx.emit(IncidentOpened(number, due.band, due.cell))


@spectrum.call(GiveEvidence)
def give_evidence(ctx: Context, call: GiveEvidence) -> None:
    """Let evidence settle a round that is fused and not settled."""
    members.require(ctx, Role.PROBE, Role.REGULATOR)
    key = (call.band, call.cell, call.bin, call.start)
    known = ctx.require(ROUNDS, key, "no_such_round")
    if not known.fused or known.settled:
        ctx.refuse("not_open_to_evidence")
    _judge(ctx, key, call.occupied)


@spectrum.call(ClaimDisturbance)
def claim_disturbance(ctx: Context, call: ClaimDisturbance) -> None:
    """Add a claim to an incident within reach of one's lease, in its band and time."""
    incident = ctx.require(INCIDENTS, call.incident, "no_such_incident")
    lease = ctx.require(LEASES, call.lease, "no_such_lease")
    if lease.lessee != ctx.sender:
        ctx.refuse("not_the_lessee")
    losses = ctx.require(LOSSES, incident.band, "no_such_class")
    reach = len(losses.rings[0]) - 1
    near = lease.band == incident.band and any(ring(cell, incident.cell, reach) <= reach for cell in lease.cells)
    if not (near and lease.low < incident.high and incident.low < lease.high):
        ctx.refuse("not_in_reach")
    if not (lease.start < incident.end and incident.start < lease.end):
        ctx.refuse("not_at_the_time")
    if any(claim.lease == call.lease for claim in incident.claims):
        ctx.refuse("already_claimed")
    claims = (*incident.claims, Claim(call.lease, ctx.sender))
    ctx.put(INCIDENTS, call.incident, msgspec.structs.replace(incident, claims=claims))


def reputation_ppm(reputation: Reputation) -> int:
    """Return how often a sensor is right: (agreed + 3) / (judged + 4)."""
    return (reputation.agreed + 3) * 1_000_000 // (reputation.judged + 4)


def fuse(reports: tuple[Report, ...], reputations: tuple[Reputation, ...], k: int, n: int) -> bool:
    """Return whether sensors with at least k/n of the weight call the band occupied; never without any weight."""
    total = occupied = 0
    for report, reputation in zip(reports, reputations, strict=True):
        weight = max(0, 2 * reputation_ppm(reputation) - 1_000_000) * report.quality_ppm
        total += weight
        occupied += weight if report.occupied else 0
    return total > 0 and occupied * n >= k * total


def belief_ppm(reports: tuple[Report, ...], reputations: tuple[Reputation, ...]) -> int:
    """Return the probability that the band is occupied, from even odds, each sensor right as often as its reputation.

    A report of quality q counts like one that is right with 1/2 + q (r - 1/2).
    """
    yes = no = 1
    for report, reputation in zip(reports, reputations, strict=True):
        right = 500_000 + (reputation_ppm(reputation) - 500_000) * report.quality_ppm // 1_000_000
        right = min(max(right, 1_000), 999_000)
        yes *= right if report.occupied else 1_000_000 - right
        no *= 1_000_000 - right if report.occupied else right
    return yes * 1_000_000 // (yes + no)


def _judge(ctx: Context, key: tuple[int, int, int, int], occupied: bool) -> None:
    """Let every sensor of a round gain or lose by what is known now."""
    known = ctx.require(ROUNDS, key, "no_such_round")
    for report in known.reports:
        old = ctx.get(SENSORS, report.sensor) or UNKNOWN
        ctx.put(SENSORS, report.sensor, Reputation(old.agreed + (report.occupied == occupied), old.judged + 1))
    ctx.put(ROUNDS, key, msgspec.structs.replace(known, settled=True))


def _lawful_use(state: State, rules: BandClass, due: FuseReports) -> tuple[bool, bool]:
    """Tell whether anybody may have been heard in the cell then, and whether a lessee there certainly was.

    Lessees in reach count: what they send legally is heard around them.
    """
    low, high, end = due.bin * rules.bin_hz, (due.bin + 1) * rules.bin_hz, due.start + SLOT_MS
    losses = state.get(LOSSES, due.band)
    reach = 0 if losses is None else min(2, len(losses.rings[0]) - 1)
    lawful = certain = False
    parents = {parent(cell) for cell in h3.grid_disk(due.cell, reach)}
    for above in sorted(parents):
        key = (due.band, above, due.bin // STRIP_BINS, due.start // EPOCH_MS)
        for entry in entries_in(state.get(SHEETS, key)):
            if not (entry.start < end and due.start < entry.end and low < entry.high and entry.low < high):
                continue
            lease = state.get(LEASES, entry.lease)
            if lease is None:
                continue
            if ring(entry.cell, due.cell, reach) <= reach and lease.authorized_until > due.start:
                lawful = True
                certain = certain or (entry.cell == due.cell and lease.present)
        for gone in lately(state, due.band, above):
            if not (gone.start < end and due.start < gone.end and low < gone.high and gone.low < high):
                continue
            if any(ring(cell, due.cell, reach) <= reach for cell in gone.cells):
                lawful = True
                certain = certain or (due.cell in gone.cells and gone.present)
        for guard in guards_in(state.get(GUARDS, key)):
            if not (guard.start < end and due.start < guard.end and low < guard.high and guard.low < high):
                continue
            if ring(guard.cell, due.cell, reach) <= reach:
                lawful = True
    return lawful, certain
