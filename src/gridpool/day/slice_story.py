"""What happened to each slice of a day, read from the ledger: every step with the transactions that made it."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Union

import msgspec

from gridpool.contracts import RULES
from gridpool.contracts.slices.assignments import AssignmentRecorded, SliceKind
from gridpool.contracts.slices.awards import Awarded
from gridpool.contracts.slices.deployment import Deployed
from gridpool.contracts.slices.offers import OFFERS, OfferMade
from gridpool.contracts.slices.orders import FINAL, ORDERS, PROGRESS, Progress, SliceMoved, sub_slices
from gridpool.contracts.slices.supervision import VERDICTS, VerdictGiven
from gridpool.day.cast import Cast
from gridpool.day.opening import ASSIGNMENT
from gridpool.day.physics import PhysicalDay
from gridpool.day.results import SliceOffer, SliceStep, SliceStory, SliceViolation
from gridpool.day.slice_market import KINDS, SliceMarket
from gridpool.ledger.clock import AdvanceClock
from gridpool.ledger.state import State
from gridpool.ledger.transaction import TransactionDecoder
from gridpool.ledger.types import Event
from gridpool.ledger.view import View

__all__ = ["slice_stories"]

TOLD: tuple[type[Event], ...] = (SliceMoved, OfferMade, Awarded, AssignmentRecorded, Deployed, VerdictGiven)
SERVICE: dict[SliceKind, str] = {"mmtc": "massive machine-type traffic (mMTC)", "urllc": "urgent control (URLLC)"}
MOST_SPANS = 4
"""A sentence names this many spans of violated quarter hours; the table has them all."""

Told = tuple[Event, str]
"""An event and the transaction that made it."""


def slice_stories(day: PhysicalDay, cast: Cast, view: View) -> tuple[SliceStory, ...]:
    """Tell of each slice: order, offers, choice, delivery, violations, money.

    What fell due (the choice, the end of service) bears the transaction that moved market time there.
    """
    told = _events(view)
    market = SliceMarket(day, cast)
    names = {key.public: f"operator {number}" for number, key in enumerate(market.operators, 1)}
    return tuple(
        _story(day, view.state, name, nodes, told.get(name, []) + told.get(ASSIGNMENT, []), names)
        for name, nodes in market.nodes.items()
        if view.state.get(ORDERS, (name, 0)) is not None
    )


def _story(
    day: PhysicalDay,
    state: State,
    name: str,
    nodes: Sequence[str],
    told: list[Told],
    names: dict[bytes, str],
) -> SliceStory:
    key = (name, 0)
    progress = state.get(PROGRESS, key) or Progress(tenant=bytes(32))
    offers = tuple(_offers(state, key, told, names))
    violations = tuple(_violations(day, state, key, told))
    verdicts = sum(isinstance(event, VerdictGiven) for event, _ in told)
    money = progress.money
    return SliceStory(
        name=name,
        kind=KINDS[name],
        nodes=tuple(nodes),
        phase=progress.phase,
        judged=verdicts,
        violated=len(violations),
        escrowed=money.escrowed,
        paid=money.paid,
        penalties=money.penalties,
        refunded=money.refunded,
        escrow_left=money.left,
        offers=offers,
        violations=violations,
        steps=tuple(_steps(day, state, name, nodes, told, names, offers, violations)),
    )


def _steps(
    day: PhysicalDay,
    state: State,
    name: str,
    nodes: Sequence[str],
    told: list[Told],
    names: dict[bytes, str],
    offers: Sequence[SliceOffer],
    violations: Sequence[SliceViolation],
) -> Iterator[SliceStep]:
    key = (name, 0)
    order, progress = state.get(ORDERS, key), state.get(PROGRESS, key)
    if order is None or progress is None:
        return
    money, request = progress.money, order.request
    yield SliceStep(
        step="order",
        text=f"The utility ordered a slice for {SERVICE[KINDS[name]]} of {_count(len(nodes), 'node')}, within "
        f"{request.max_delay_us / 1000:,g} ms and for at most {_coins(request.reserve)}, which went into escrow.",
        transactions=(order.tx.hex(),),
    )
    parties = len({offer.party for offer in offers})
    by_segment = "; ".join(
        f"{requirement.segment} for "
        + ", ".join(_coins(one.cost) for one in offers if one.segment == requirement.segment)
        for requirement in request.segments
        if any(one.segment == requirement.segment for one in offers)
    )
    yield SliceStep(
        step="offers",
        text=f"{_count(parties, 'operator')} made {_count(len(offers), 'offer')}: {by_segment}."
        if offers
        else "Nobody offered to serve it for that.",
        transactions=tuple(dict.fromkeys(one.transaction for one in offers)),
    )
    awards = [(event, tx) for event, tx in told if isinstance(event, Awarded)]
    if not awards:
        ends = [(event, tx) for event, tx in told if isinstance(event, SliceMoved) and event.phase in FINAL]
        yield SliceStep(
            step="choice",
            text=f"The order {progress.phase} ({ends[-1][0].why if ends else 'undecided'}); "
            f"{_coins(money.refunded)} returned to the utility, and the planned links serve without a contract.",
            transactions=tuple(tx for _, tx in ends),
        )
        return
    chosen = ", ".join(f"{one.segment} of {names[one.party]} for {_coins(one.payment)}" for one, _ in awards)
    yield SliceStep(
        step="choice",
        text=f"When offers closed the contract chose {chosen}: the least cost within delay, bandwidth and risk.",
        transactions=tuple(dict.fromkeys(tx for _, tx in awards)),
    )
    recorded = [tx for event, tx in told if isinstance(event, AssignmentRecorded)]
    yield SliceStep(
        step="delivery",
        text=f"{_count(len({one.party for one, _ in awards}), 'winner')} deployed "
        f"{_count(len(awards), 'segment')}; the contract checked the radio's resource blocks on the registered links. "
        "Both sides signed what they measured in every quarter hour.",
        transactions=tuple(dict.fromkeys((*recorded, *(tx for event, tx in told if isinstance(event, Deployed))))),
    )
    judged = sum(isinstance(event, VerdictGiven) for event, _ in told)
    yield SliceStep(
        step="violations",
        text=f"{judged} quarter hours of its segments were judged, {_violated(day, violations)}."
        + _renewal(request.terms.breach_after, offers, violations),
        transactions=tuple(dict.fromkeys(one.transaction for one in violations)),
    )
    yield SliceStep(
        step="money",
        text=f"Of {_coins(money.escrowed)} in escrow, {_coins(money.paid)} were paid for service, "
        f"{_coins(money.penalties)} came back as penalties, {_coins(money.refunded)} were not needed and returned; "
        f"{_coins(money.left)} are left. The slice is {progress.phase}.",
        transactions=tuple(tx for event, tx in told if isinstance(event, SliceMoved) and event.phase in FINAL),
    )


def _violated(day: PhysicalDay, violations: Sequence[SliceViolation]) -> str:
    if not violations:
        return "none was violated"
    spans: list[list[int]] = []
    for interval in sorted({one.interval for one in violations}):
        if spans and spans[-1][1] + 1 == interval:
            spans[-1][1] = interval
        else:
            spans.append([interval, interval])
    local = day.calendar.local
    texts = [
        f"{local[first]:%H:%M} to {local[last + 1]:%H:%M}"
        if last + 1 < len(local)
        else f"{local[first]:%H:%M} to 24:00"
        for first, last in spans
    ]
    more = f" and {len(texts) - MOST_SPANS} spans more" if len(texts) > MOST_SPANS else ""
    least = min(one.availability_ppm for one in violations)
    segments = ", ".join(dict.fromkeys(one.segment for one in violations))
    return (
        f"{len(violations)} violated ({segments}, {', '.join(texts[:MOST_SPANS])}{more}), with as little as "
        f"{least / 10_000:.4g}% available"
    )


def _renewal(breach_after: int, offers: Sequence[SliceOffer], violations: Sequence[SliceViolation]) -> str:
    """Say why the contract was not ended for breach and arbitrated anew; empty where nothing was violated."""
    if not violations:
        return ""
    longest, segment = max((_longest_run(violations, one), one) for one in {found.segment for found in violations})
    least = f"{_count(breach_after, 'violated quarter hour')} in a row"
    if longest < breach_after:
        return f" The utility may end the contract after {least}; there were at most {longest}, so it went on."
    others = len({one.party for one in offers if one.segment == segment and not one.chosen})
    if others == 0:
        return (
            f" After {least} the utility might have ended the contract and ordered anew; nobody else had offered "
            f"{segment} for these nodes, whose links are registered in one operator's cell, so there was nobody to "
            "choose instead."
        )
    return (
        f" After {least} the utility might have ended the contract and ordered anew, and {_count(others, 'operator')} "
        f"more had offered {segment}; in this day it keeps the contract and takes the penalties."
    )


def _longest_run(violations: Sequence[SliceViolation], segment: str) -> int:
    longest = run = 0
    last = -2
    for interval in sorted(one.interval for one in violations if one.segment == segment):
        run = run + 1 if interval == last + 1 else 1
        longest, last = max(longest, run), interval
    return longest


def _offers(state: State, key: tuple[str, int], told: list[Told], names: dict[bytes, str]) -> Iterator[SliceOffer]:
    chosen = {(segment, sub.offer) for segment, sub in sub_slices(state, key).items() if sub.party}
    for event, tx in told:
        if not isinstance(event, OfferMade):
            continue
        held = state.get(OFFERS, (*key, event.segment, event.offer))
        if held is not None:
            yield SliceOffer(
                segment=event.segment,
                offer=event.offer,
                party=names[held.party],
                cost=held.figures.cost,
                delay_us=held.figures.delay_us,
                bandwidth_kbps=held.figures.bandwidth_kbps,
                risk_nano=held.figures.risk_nano,
                chosen=(event.segment, event.offer) in chosen,
                transaction=tx,
            )


def _violations(day: PhysicalDay, state: State, key: tuple[str, int], told: list[Told]) -> Iterator[SliceViolation]:
    for event, tx in told:
        if not (isinstance(event, VerdictGiven) and event.severity):
            continue
        verdict = state.get(VERDICTS, (*key, event.segment, event.interval))
        if verdict is not None:
            yield SliceViolation(
                segment=event.segment,
                interval=event.interval,
                start=_local(day.calendar.local[event.interval]),
                availability_ppm=verdict.kpis.availability_ppm,
                basis=verdict.basis,
                severity=verdict.severity,
                paid=verdict.paid,
                penalty=verdict.penalty,
                transaction=tx,
            )


def _events(view: View) -> dict[str, list[Told]]:
    """Collect the events of each slice (and of the assignment) in order, with their transactions."""
    decode = msgspec.msgpack.Decoder(Union[TOLD]).decode  # noqa: UP007 (built at run time)
    tags = {kind.__struct_config__.tag for kind in TOLD}
    decoder = TransactionDecoder(RULES)
    found: dict[str, list[Told]] = {}
    for height in range(1, view.height + 1):
        for receipt in view.receipts(height):
            for raw in receipt.events:
                if msgspec.msgpack.decode(raw)[0] in tags:
                    event = decode(raw)
                    tx = receipt.tx if any(receipt.tx) else _moved_time(view, height, decoder)
                    name = event.assignment if isinstance(event, AssignmentRecorded) else event.slice
                    found.setdefault(name, []).append((event, tx.hex()))
    return found


def _moved_time(view: View, height: int, decoder: TransactionDecoder) -> bytes:
    """Return the last transaction up to a height that moved market time."""
    for at in range(height, 0, -1):
        for wire in reversed(view.transactions(at)):
            transaction = decoder.decode(wire)
            if any(isinstance(call, AdvanceClock) for call in transaction.body.calls):
                return transaction.id
    return bytes(32)


def _coins(amount: int) -> str:
    return f"{amount / 1e6:,.2f} coins"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _local(moment: datetime) -> str:
    return f"{moment:%H:%M}"
