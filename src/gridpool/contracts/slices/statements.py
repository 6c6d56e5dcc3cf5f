"""What a member reads of the slices it has to do with, and what always holds of all of them."""

import msgspec

from gridpool.contracts import coins
from gridpool.contracts.slices.contract import slices
from gridpool.contracts.slices.offers import OFFERS
from gridpool.contracts.slices.orders import (
    FINAL,
    INVOLVED,
    LINES,
    ORDERS,
    PROGRESS,
    escrow_of,
    sub_slices,
)
from gridpool.contracts.slices.pools import CAPACITIES, POOLS, PROMISES
from gridpool.contracts.slices.supervision import VERDICTS
from gridpool.contracts.slices.terms import MILLION, penalty_ppm, shortfall_ppm
from gridpool.ledger.contract import DUE
from gridpool.ledger.state import State

__all__ = ["StatementLine", "statement", "violated_intervals"]


class StatementLine(msgspec.Struct, frozen=True, kw_only=True):
    """One line: when (ms of market time), what, of which slice, for how much, by which transaction."""

    time: int
    kind: str
    slice: str
    generation: int
    segment: str
    interval: int | None
    amount: int
    tx: str


def statement(state: State, wallet: bytes, start: int = 0, end: int = 2**62) -> list[StatementLine]:
    """List a wallet's orders, awards, use, penalties and payments in [start, end), in order of time."""
    lines = []
    for (_, time, _), line in state.scan(LINES, (wallet,), start=(wallet, start, "")):
        if time >= end:
            break
        lines.append(_line(time, line.kind, (line.slice, line.generation), line.segment, None, line.amount, line.tx))
    for (_, name, generation), _ in state.scan(INVOLVED, (wallet,)):
        key = (name, generation)
        progress = state.get(PROGRESS, key)
        for segment, sub in sub_slices(state, key).items():
            serves, uses = sub.party == wallet, progress is not None and progress.tenant == wallet
            if not (serves or uses):
                continue
            for (_, _, _, k), verdict in state.scan(VERDICTS, (*key, segment)):
                if not start <= verdict.at < end:
                    continue
                kind = "earned" if serves else "used"
                lines.append(_line(verdict.at, kind, key, segment, k, verdict.paid, verdict.tx))
                if verdict.penalty:
                    kind = "penalty" if serves else "compensation"
                    lines.append(_line(verdict.at, kind, key, segment, k, verdict.penalty, verdict.tx))
    return sorted(
        lines, key=lambda line: (line.time, line.slice, line.generation, line.segment, line.interval or 0, line.kind)
    )


def violated_intervals(state: State) -> int:
    """Count the (slice, segment, interval) triples whose verdict is a violation."""
    return sum(1 for _, verdict in state.scan(VERDICTS) if verdict.severity)


@slices.invariant
def escrows_hold_what_is_owed(state: State) -> bool:
    """What went into a slice's escrow is paid, forfeited, refunded or still there; nothing is left of a final one."""
    return all(
        coins.escrow_balance(state, escrow_of(key)) == progress.money.left
        and (progress.phase not in FINAL or progress.money.left == 0)
        for key, progress in state.scan(PROGRESS)
    )


@slices.invariant
def escrows_cover_open_deposits_and_prices(state: State) -> bool:
    """The escrow of an order in progress covers every deposit held and every interval still to be judged."""
    for key, progress in state.scan(PROGRESS):
        if progress.phase in FINAL:
            continue
        owed = sum(o.deposit for _, o in state.scan(OFFERS, key) if o.status in ("open", "awarded"))
        order = state.get(ORDERS, key)
        if order is None:
            return False
        if progress.phase in ("active", "ended"):
            last = (progress.until - order.request.start) // order.request.schedule.interval_ms
            for segment, sub in sub_slices(state, key).items():
                owed += sum(
                    sub.share(k)
                    for k in range(progress.active_from, last)
                    if state.get(VERDICTS, (*key, segment, k)) is None
                )
        if progress.money.left < owed:
            return False
    return True


@slices.invariant
def pools_promise_no_more_than_they_have(state: State) -> bool:
    """At every instant the capacity promised from a pool is at most its capacity."""
    for pool, _ in state.scan(POOLS):
        steps = [(time, step) for (_, time), step in state.scan(CAPACITIES, (pool,))]
        promises = [held for _, held in state.scan(PROMISES, (pool,))]
        for instant in {*(held.start for held in promises), *(time for time, _ in steps)}:
            given: dict[str, int] = {a.resource: a.amount for a in [s for t, s in steps if t <= instant][-1].amounts}
            used: dict[str, int] = {}
            for held in promises:
                if held.start <= instant < held.end:
                    for amount in held.amounts:
                        used[amount.resource] = used.get(amount.resource, 0) + amount.amount
            if any(amount > given.get(resource, 0) for resource, amount in used.items()):
                return False
    return True


@slices.invariant
def orders_in_progress_have_something_due(state: State) -> bool:
    """No order can be stuck: whatever is not final has work in the due-table that moves it on."""
    waiting = {_due_for(data) for (_, tag, data), _ in state.scan(DUE) if tag.startswith("slices.")}
    return all(progress.phase in FINAL or key in waiting for key, progress in state.scan(PROGRESS))


@slices.invariant
def payments_recompute_from_evidence(state: State) -> bool:
    """Every verdict's payment follows from its figures, and what an order paid is the sum over its verdicts."""
    for key, progress in state.scan(PROGRESS):
        paid = 0
        for segment, sub in sub_slices(state, key).items():
            penalties, full, capped = 0, 0, False
            for (_, _, _, k), verdict in state.scan(VERDICTS, (*key, segment)):
                price = sub.share(k)
                due, severity = 0, 0
                if verdict.basis == "undecided":
                    due = price // 2
                elif verdict.basis != "both_silent":
                    miss = shortfall_ppm(verdict.kpis, sub.terms, sub.bandwidth_kbps, sub.delay_us)
                    severity, ppm = penalty_ppm(miss, sub.terms)
                    full += price * ppm // MILLION
                    capped = capped or verdict.penalty < price * ppm // MILLION
                    due = price - verdict.penalty
                    if verdict.penalty > price * ppm // MILLION:
                        return False
                if (verdict.paid, verdict.severity) != (due, severity):
                    return False
                penalties += verdict.penalty
                paid += verdict.paid
            cap = sub.payment * sub.terms.cap_ppm // MILLION
            if penalties > cap or penalties != sub.penalties:
                return False
            # Only the cap may have lowered a penalty; an extension raises the cap afterwards.
            if capped and penalties != cap and len(sub.spans) == 1:
                return False
        if paid != progress.money.paid:
            return False
    return True


def _due_for(data: bytes) -> tuple[str, int]:
    """Return the order that a piece of this contract's due work is about: its first two fields after the tag."""
    fields = msgspec.msgpack.decode(data)
    return fields[1], fields[2]


def _line(
    time: int, kind: str, key: tuple[str, int], segment: str, interval: int | None, amount: int, tx: bytes
) -> StatementLine:
    return StatementLine(
        time=time,
        kind=kind,
        slice=key[0],
        generation=key[1],
        segment=segment,
        interval=interval,
        amount=amount,
        tx=tx.hex(),
    )
