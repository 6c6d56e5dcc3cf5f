"""Access history and fairness: who used which band in which cell, and thresholds that deny access for a time.

Use is what heartbeats authorised. A threshold counts as reached when the share of time, or the number of grants,
within its sliding window is equal to or above it; the denial is written down in the transaction that reaches it, so
that every later refusal says which rule it was and when it ends.
"""

from collections.abc import Iterable

from gridpool.contracts import members
from gridpool.contracts.spectrum_records import AccessRule, spectrum
from gridpool.contracts.spectrum_register import SpectrumParameters
from gridpool.ledger.contract import Context
from gridpool.ledger.state import State
from gridpool.ledger.types import Event, Millis, Natural, Text, Value

__all__ = [
    "DENIALS",
    "HISTORY",
    "Denial",
    "Denied",
    "History",
    "jain_ppm",
    "note_grant",
    "note_use",
    "refuse_if_denied",
    "time_used",
]


class History(Value):
    """A member's use of a band class in a cell: authorised times (ascending, merged) and times of grants."""

    used: tuple[tuple[Millis, Millis], ...]
    grants: tuple[Millis, ...]


class Denial(Value):
    """Until when a member is denied a band class in a cell, and by which rule."""

    until: Millis
    rule: Text


@spectrum.event
class Denied(Event, tag="spectrum.denied"):
    """A member has reached a threshold."""

    member: bytes
    band: Natural
    cell: Natural
    rule: Text
    until: Millis


HISTORY = spectrum.table("history", key=(bytes, int, int), value=History)
"""(member, class, cell) -> use; members without a public certificate count by wallet."""
DENIALS = spectrum.table("denial", key=(bytes, int, int), value=Denial)
"""(member, class, cell) -> denial."""

NOTHING = History((), ())


def refuse_if_denied(ctx: Context, wallet: bytes, band: int, cells: Iterable[int]) -> None:
    """Refuse where an access rule denies the wallet's member one of the cells now."""
    who = _member(ctx, wallet)
    for cell in cells:
        denial = ctx.get(DENIALS, (who, band, cell))
        if denial is not None and ctx.now < denial.until:
            ctx.refuse("access_denied", f"rule {denial.rule} until {denial.until} in cell {cell:x}")


def note_grant(ctx: Context, wallet: bytes, band: int, cells: Iterable[int]) -> None:
    """Note a grant in the histories of its cells."""
    rules = _rules(ctx, band)
    if rules:
        who = _member(ctx, wallet)
        for cell in cells:
            old = ctx.get(HISTORY, (who, band, cell)) or NOTHING
            _store(ctx, who, band, cell, History(old.used, (*old.grants, ctx.now)), rules)


def note_use(ctx: Context, wallet: bytes, band: int, cells: Iterable[int], start: int, end: int) -> None:
    """Note authorised time [start, end) in the histories of its cells."""
    rules = _rules(ctx, band)
    if not rules or start >= end:
        return
    who = _member(ctx, wallet)
    for cell in cells:
        old = ctx.get(HISTORY, (who, band, cell)) or NOTHING
        used = old.used
        if used and start <= used[-1][1]:
            used = (*used[:-1], (used[-1][0], max(end, used[-1][1])))
        else:
            used = (*used, (start, end))
        _store(ctx, who, band, cell, History(used, old.grants), rules)


def time_used(history: History, start: int, end: int) -> int:
    """Return the authorised milliseconds within [start, end)."""
    return sum(max(0, min(b, end) - max(a, start)) for a, b in history.used)


def jain_ppm(values: Iterable[int]) -> int:
    """Return Jain's fairness index in parts per million; a million where nobody got anything.

    Source: Jain, Chiu, Hawe, DEC-TR-301, 1984.
    """
    listed = list(values)
    squares = len(listed) * sum(value * value for value in listed)
    return 1_000_000 if squares == 0 else 1_000_000 * sum(listed) ** 2 // squares


def _rules(ctx: Context, band: int) -> tuple[AccessRule, ...]:
    rules = ctx.parameters("spectrum", SpectrumParameters).access_rules
    return tuple(rule for rule in rules if rule.band in (0, band))


def _store(ctx: Context, who: bytes, band: int, cell: int, history: History, rules: tuple[AccessRule, ...]) -> None:
    """Keep what the longest window still sees, and deny where a threshold is reached."""
    longest = max(rule.window_ms for rule in rules)
    # Authorised time runs ahead of now by up to a heartbeat; a window ends where it ends.
    now = max(ctx.now, history.used[-1][1] if history.used else 0)
    kept = History(
        tuple(span for span in history.used if span[1] > now - longest),
        tuple(at for at in history.grants if at > ctx.now - longest),
    )
    ctx.put(HISTORY, (who, band, cell), kept)
    for rule in rules:
        since = now - rule.window_ms
        over_time = rule.most_share_ppm and (
            time_used(kept, since, now) * 1_000_000 >= rule.most_share_ppm * rule.window_ms
        )
        over_count = rule.most_grants and (
            sum(1 for at in kept.grants if at > ctx.now - rule.window_ms) >= rule.most_grants
        )
        if over_time or over_count:
            until = now + rule.deny_ms
            old = ctx.get(DENIALS, (who, band, cell))
            if old is None or old.until < until:
                ctx.put(DENIALS, (who, band, cell), Denial(until, rule.name))
                ctx.emit(Denied(who, band, cell, rule.name, until))


def _member(state: State, wallet: bytes) -> bytes:
    record = state.get(members.WALLETS, wallet)
    return record.member if record is not None and record.member else wallet
