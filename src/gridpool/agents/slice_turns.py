"""What every member of a played scenario sees on the ledger each minute, and what it signs."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from gridpool.agents.resource_orchestrator import Measurement
from gridpool.agents.slice_orchestrator import Award, SliceOrchestrator, awards_of
from gridpool.agents.slice_parties import (
    MINUTE_MS,
    MVNO,
    Party,
    Tenant,
    device_kbps,
    interval_report,
    leaves,
    node_name,
    request_of,
)
from gridpool.agents.slice_scenario import ScenarioSlice, SliceScenario, minute_of_day
from gridpool.contracts import RULES
from gridpool.contracts.slices.assignments import (
    ASSIGNMENTS,
    AssignmentItem,
    RecordAssignment,
    ReleaseAssignment,
    free_blocks,
)
from gridpool.contracts.slices.awards import Awarded
from gridpool.contracts.slices.changes import EndForBreach
from gridpool.contracts.slices.deployment import ConfirmDeployment, ConfirmReservation
from gridpool.contracts.slices.offers import COMMITS
from gridpool.contracts.slices.orders import (
    FINAL,
    ORDERS,
    PROGRESS,
    SLICES,
    OrderSlice,
    Request,
    SliceMoved,
    sub_slices,
)
from gridpool.contracts.slices.samples import sample_path
from gridpool.contracts.slices.supervision import (
    DISPUTES,
    VERDICTS,
    IntervalReport,
    Measure,
    ProveSample,
    ReportIntervals,
    VerdictGiven,
    interval_end,
)
from gridpool.engines.embedded import Embedded
from gridpool.engines.engine import Refusal
from gridpool.ledger.keys import KeyPair
from gridpool.ledger.state import State
from gridpool.ledger.transaction import Receipt, sign
from gridpool.ledger.types import Call

__all__ = ["Play", "StoryLine", "minute"]

OFFERS_MS = 3 * MINUTE_MS
AGAIN_MINUTES = 12
"""A breached slice is ordered again if at least this many minutes of it are left."""
BUNDLE = 100
"""Calls of a member in one transaction."""
LAST_VALID = 2**62
"""The player seals each transaction in the next block, so none needs to expire."""


class StoryLine(msgspec.Struct, frozen=True, kw_only=True):
    """One step of the story: when (ms of market time), which slice, what happened, by which transaction."""

    time: int
    slice: str
    what: str
    tx: str


@dataclass
class Play:
    """A scenario in play: its members, its engine, and what they remember between minutes."""

    scenario: SliceScenario
    engine: Embedded
    chain: str
    midnight: int
    tenants: dict[str, Tenant]
    parties: list[Party]
    clock: KeyPair
    probe: KeyPair
    nonces: dict[bytes, int] = field(default_factory=dict)
    reserved: dict[tuple[str, int, int], frozenset[str]] = field(default_factory=dict)
    started: dict[tuple[str, int, int], dict[str, bytes]] = field(default_factory=dict)
    story: list[StoryLine] = field(default_factory=list)
    served: set[str] = field(default_factory=set)
    awarded: set[str] = field(default_factory=set)
    transactions: int = 0
    refused: int = 0
    moved: bytes = bytes(32)

    def seal(self, now: int, calls: Iterable[tuple[KeyPair, tuple[Call, ...]]]) -> None:
        """Put signed calls into one block and keep its story."""
        for key, bundle in calls:
            for at in range(0, len(bundle), BUNDLE):
                nonce = self.nonces[key.public] = self.nonces.get(key.public, 0) + 1
                signed = sign(key, self.chain, nonce, LAST_VALID, bundle[at : at + BUNDLE], mode="each")
                if key == self.clock:
                    self.moved = signed.id
                accepted = self.engine.submit(signed.wire)
                if isinstance(accepted, Refusal):
                    raise RuntimeError(f"the player's own transaction was refused: {accepted}")
                self.transactions += 1
        for receipt in self.engine.seal(now).receipts:
            self.refused += sum(result.code != "ok" for result in receipt.results) if any(receipt.tx) else 0
            self._tell(now, receipt)

    def _tell(self, now: int, receipt: Receipt) -> None:
        # Work that falls due has no transaction of its own: the one that moved market time brought it about.
        tx = (receipt.tx if any(receipt.tx) else self.moved).hex()
        for raw in receipt.events:
            event = msgspec.msgpack.decode(raw, type=RULES.event_union)
            if isinstance(event, SliceMoved):
                self.served |= {event.slice} if event.phase == "active" else set()
                self.awarded |= {event.slice} if event.phase == "awarded" else set()
                what = event.phase + (f" ({event.why})" if event.why else "")
            elif isinstance(event, Awarded):
                what = f"{event.segment} goes to {event.offer} for {event.payment}"
            elif isinstance(event, VerdictGiven) and (event.severity or event.basis not in ("agreed",)):
                what = (
                    f"{event.segment} interval {event.interval}: {event.basis}, severity {event.severity}, "
                    f"paid {event.paid}, penalty {event.penalty}"
                )
            else:
                continue
            self.story.append(StoryLine(time=now, slice=event.slice, what=what, tx=tx))


def minute(game: Play, state: State, now: int) -> list[tuple[KeyPair, tuple[Call, ...]]]:
    """Let every member look at the ledger and say what it wants this minute."""
    calls: list[tuple[KeyPair, tuple[Call, ...]]] = []
    for wanted in game.scenario.slices:
        tenant = game.tenants[wanted.tenant]
        calls.append((tenant.key, tuple(_order(game, state, wanted, now))))
        record = state.get(SLICES, wanted.name)
        for generation in range(0 if record is None else record.generation + 1):
            calls += _work(game, state, wanted, (wanted.name, generation), now)
    return calls


def _order(game: Play, state: State, wanted: ScenarioSlice, now: int) -> list[Call]:
    start = game.midnight + minute_of_day(wanted.start) * MINUTE_MS
    end = start + wanted.minutes * MINUTE_MS
    record = state.get(SLICES, wanted.name)
    if record is None:
        if now != game.midnight + minute_of_day(wanted.order_at) * MINUTE_MS:
            return []
    else:
        progress = state.get(PROGRESS, (wanted.name, record.generation))
        ended_early = progress is not None and progress.phase in ("ended", "settled") and progress.until < end
        start = now + (AGAIN_MINUTES - 4) * MINUTE_MS
        if not wanted.order_again or not ended_early or end - now < AGAIN_MINUTES * MINUTE_MS:
            return []
    request = request_of(
        wanted, game.parties, start_ms=start, end_ms=end, offers_until=now + OFFERS_MS, deposit=game.scenario.deposit
    )
    return [OrderSlice(wanted.name, request)]


def _work(
    game: Play, state: State, wanted: ScenarioSlice, key: tuple[str, int], now: int
) -> list[tuple[KeyPair, tuple[Call, ...]]]:
    progress, order = state.get(PROGRESS, key), state.get(ORDERS, key)
    if progress is None or order is None:
        return []
    if progress.phase in FINAL:
        _terminate(game, _awards(game, state, wanted, key))
        return _releases(game, state, key, now)
    subs = sub_slices(state, key)
    if progress.phase == "published":
        return _offers(game, state, key, order.request, now)
    awards = _awards(game, state, wanted, key)
    orchestrator = SliceOrchestrator({party.key.public: party.driver for party in game.parties})
    turn = (*key, progress.round)
    if progress.phase == "awarded":
        if turn not in game.reserved:
            _terminate(game, awards)
            game.reserved[turn] = orchestrator.reserve(awards)
        return [
            (party.key, (ConfirmReservation(key[0], award.order.segment),))  # type: ignore[arg-type]
            for award, party in _with_party(game, awards)
            if award.segment in game.reserved[turn]
            and not subs[award.segment].confirmed
            and party.plan.behaviour != "silent_award"
        ]
    if progress.phase == "deploying":
        if turn not in game.started:
            game.started[turn] = orchestrator.instantiate(awards)
        return _deploy(game, state, wanted, key, awards, game.started[turn])
    return _supervise(game, state, wanted, key, awards, orchestrator, now)


def _offers(
    game: Play, state: State, key: tuple[str, int], request: Request, now: int
) -> list[tuple[KeyPair, tuple[Call, ...]]]:
    """Offer a minute after the order, openly or under seal; open sealed offers as soon as offers are closed."""
    calls: list[tuple[KeyPair, tuple[Call, ...]]] = []
    schedule = request.schedule
    for party in game.parties:
        bids: list[Call | None] = []
        for requirement in request.segments:
            segment = requirement.segment
            if now == schedule.offers_until - OFFERS_MS + MINUTE_MS:
                bids.append(party.place(key[0], request, segment, now))
            elif now == schedule.offers_until and schedule.reveal_ms:
                sealed = state.get(COMMITS, (*key, segment, f"{party.plan.name}-{segment}"))
                bids.append(None if sealed is None else party.reveal(key[0], request, segment))
        calls.append((party.key, tuple(bid for bid in bids if bid is not None)))
    return calls


def _deploy(
    game: Play,
    state: State,
    wanted: ScenarioSlice,
    key: tuple[str, int],
    awards: list[Award],
    endpoints: dict[str, bytes],
) -> list[tuple[KeyPair, tuple[Call, ...]]]:
    subs = sub_slices(state, key)
    calls: list[tuple[KeyPair, tuple[Call, ...]]] = []
    for award, party in _with_party(game, awards):
        if subs[award.segment].deployed or party.plan.behaviour == "no_deploy" or award.segment not in endpoints:
            continue
        bundle: list[Call] = []
        name = ""
        if award.segment == "ran":
            name = _assignment_name(key, party)
            if state.get(ASSIGNMENTS, name) is None:
                bundle.append(_assignment(state, wanted, key, party, name))
        digest = hashlib.sha256(endpoints[award.segment]).digest()
        bundle.append(ConfirmDeployment(key[0], award.segment, digest, name))  # type: ignore[arg-type]
        calls.append((party.key, tuple(bundle)))
    return calls


def _assignment(state: State, wanted: ScenarioSlice, key: tuple[str, int], party: Party, name: str) -> RecordAssignment:
    order = state.get(ORDERS, key)
    if order is None:
        raise RuntimeError(f"order {key} vanished")
    request = order.request
    kind = next(node.slice for requirement in request.segments for node in requirement.nodes)
    free = iter(free_blocks(state, party.network, 1, 0, request.start, request.end))
    items = []
    for number, count in enumerate(party.blocks_for(wanted)):
        blocks = tuple(block for _, block in zip(range(count), free, strict=False))
        items.append(AssignmentItem(node_name(wanted, number), kind, 1, 0, MVNO, 0, blocks, 0))
    return RecordAssignment(name, party.network, request.start, request.end, tuple(items))


def _assignment_name(key: tuple[str, int], party: Party) -> str:
    return f"{key[0]}-{key[1]}-{party.plan.name}"


def _releases(game: Play, state: State, key: tuple[str, int], now: int) -> list[tuple[KeyPair, tuple[Call, ...]]]:
    """Free the blocks of a slice that ended before its assignment does."""
    calls: list[tuple[KeyPair, tuple[Call, ...]]] = []
    for party in game.parties:
        held = state.get(ASSIGNMENTS, _assignment_name(key, party))
        if held is not None and now < held.end:
            calls.append((party.key, (ReleaseAssignment(_assignment_name(key, party)),)))
    return calls


def _supervise(
    game: Play,
    state: State,
    wanted: ScenarioSlice,
    key: tuple[str, int],
    awards: list[Award],
    orchestrator: SliceOrchestrator,
    now: int,
) -> list[tuple[KeyPair, tuple[Call, ...]]]:
    progress, order = state.get(PROGRESS, key), state.get(ORDERS, key)
    if progress is None or order is None:
        return []
    tenant = game.tenants[wanted.tenant]
    interval_ms = order.request.schedule.interval_ms
    demand = wanted.devices * device_kbps(wanted)
    measured: list[tuple[Award, Party, int, Measurement]] = []
    interval = (now - order.request.start) // interval_ms - 1
    if interval >= progress.active_from and interval_end(order, interval) <= progress.until:
        start = order.request.start + interval * interval_ms
        for award, party in _with_party(game, awards):
            measurement = orchestrator.metrics(award, start, start + interval_ms, demand)
            measured.append((award, party, interval, measurement))
    calls: list[tuple[KeyPair, tuple[Call, ...]]] = []
    own: list[IntervalReport] = []
    for award, party, k, measurement in measured:
        segment: Any = award.segment
        own.append(interval_report(key, segment, k, tenant.kpis(measurement.kpis), measurement))
        if party.plan.behaviour != "silent_reports":
            report = interval_report(key, segment, k, party.kpis(measurement.kpis, award), measurement)
            calls.append((party.key, (ReportIntervals(*key, (report,)),)))
    if own and tenant.plan.behaviour != "silent":
        calls.append((tenant.key, (ReportIntervals(*key, tuple(own)),)))
    breached = any(sub.breaches >= sub.terms.breach_after for sub in sub_slices(state, key).values())
    if progress.phase == "active" and breached and progress.until - now > interval_ms:
        calls.append((tenant.key, (EndForBreach(key[0]),)))
    calls += _disputes(game, state, key, awards, orchestrator, order.request.start, interval_ms, demand)
    return calls


def _disputes(
    game: Play,
    state: State,
    key: tuple[str, int],
    awards: list[Award],
    orchestrator: SliceOrchestrator,
    start: int,
    interval_ms: int,
    demand: int,
) -> list[tuple[KeyPair, tuple[Call, ...]]]:
    calls: list[tuple[KeyPair, tuple[Call, ...]]] = []
    for award, party in _with_party(game, awards):
        for (_, _, _, interval), dispute in state.scan(DISPUTES, (*key, award.segment)):
            begun = start + interval * interval_ms
            measurement = orchestrator.metrics(award, begun, begun + interval_ms, demand)
            segment: Any = award.segment
            if game.scenario.probe and state.get(VERDICTS, (*key, segment, interval)) is None:
                report = interval_report(key, segment, interval, measurement.kpis, measurement)
                calls.append((game.probe, (Measure(*key, report),)))
            hashed = leaves(key, segment, interval, measurement)
            proofs = [
                ProveSample(
                    *key, segment, interval, d.index, measurement.samples[d.index], sample_path(hashed, d.index)
                )
                for d in dispute.demands
                if d.of == "party" and not d.proved
            ]
            calls.append((party.key, tuple(proofs)))
    return calls


def _terminate(game: Play, awards: list[Award]) -> None:
    for award in awards:
        for party in game.parties:
            party.driver.terminate(award.order.name)


def _awards(game: Play, state: State, wanted: ScenarioSlice, key: tuple[str, int]) -> list[Award]:
    distances = {party.key.public: party.distances_m[wanted.name] for party in game.parties}
    blocks = {party.key.public: party.blocks_for(wanted) for party in game.parties}
    return awards_of(state, key, distances, blocks)


def _with_party(game: Play, awards: list[Award]) -> list[tuple[Award, Party]]:
    by_wallet = {party.key.public: party for party in game.parties}
    return [(award, by_wallet[award.party]) for award in awards]
