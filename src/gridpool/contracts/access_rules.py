"""What an access rule says, and which of a resource's rules answers a request; a device can carry this file.

Deny by default: of the rules that match a request, the latest decides, and the answer names it.
"""

from collections.abc import Iterable
from typing import Annotated, Literal

import msgspec

from gridpool.ledger.types import Hash, Millis, Natural, Text, Value, Wallet

__all__ = [
    "MINUTE_MS",
    "MOST_RULES",
    "Answer",
    "Excess",
    "Presentation",
    "Request",
    "ResourceName",
    "Rule",
    "StoredRule",
    "Who",
    "answer",
    "excess_of",
    "signed_bytes",
]

MINUTE_MS = 60_000
MOST_RULES = 256
"""Rules in force on one resource."""
PRESENTATION_DOMAIN = b"gridpool/presentation/1\0"
ResourceName = Annotated[str, msgspec.Meta(min_length=1, max_length=128, pattern="^[^\\x00]*$")]
Who = Literal["anyone", "role", "organisation", "wallet"]
Name = Annotated[bytes, msgspec.Meta(max_length=32)]


class Rule(Value):
    """Whether somebody may do something to a resource, when, where and how often.

    ``name`` is empty for anyone, a role in ASCII, an organisation's certificate key, or a wallet. ``action`` and
    ``place`` are any where empty; ``start`` to ``end`` is half-open (ms of market time); ``per_minute`` counts requests
    of one wallet for one action at one node in a minute of the node's clock, 0 without limit.
    """

    allow: bool
    who: Who
    name: Name = b""
    action: Text = ""
    start: Millis = 0
    end: Millis = 2**62
    place: Text = ""
    per_minute: Natural = 0


class StoredRule(Value):
    """A rule as the ledger keeps it: its number grows with time, ``set_at`` is market time."""

    number: Natural
    rule: Rule
    set_at: Millis


class Request(Value):
    """Who asks for what, where and when; ``organisation`` is empty for a pseudonymous wallet."""

    wallet: Wallet
    organisation: Name
    roles: tuple[str, ...]
    resource: ResourceName
    action: Text
    place: Text
    at: Millis


class Answer(msgspec.Struct, frozen=True):
    """The answer to a request: the number of the rule that decided (None by default) and why, for people."""

    allowed: bool
    rule: int | None
    reason: str
    per_minute: int = 0


class Presentation(Value):
    """What a wallet signs to prove itself to a node: the node's fresh challenge, the action, and its credential's hash.

    ``at`` is the node's time in ms; ``nonce`` its random bytes and what authenticates the challenge as its own.
    """

    chain: Text
    node: Wallet
    resource: ResourceName
    at: Millis
    nonce: Annotated[bytes, msgspec.Meta(min_length=32, max_length=64)]
    wallet: Wallet
    action: Text
    place: Text
    credential: Hash


class Excess(Value):
    """A presentation and its wallet's signature, as evidence of too many requests."""

    presentation: Presentation
    signature: Annotated[bytes, msgspec.Meta(min_length=64, max_length=64)]


def signed_bytes(presentation: bytes) -> bytes:
    """Return what a wallet signs for an encoded presentation."""
    return PRESENTATION_DOMAIN + presentation


def answer(rules: Iterable[StoredRule], request: Request) -> Answer:
    """Decide a request by the latest matching rule; rates are for the caller to count."""
    best: StoredRule | None = None
    for stored in rules:
        if (best is None or stored.number > best.number) and _matches(stored.rule, request):
            best = stored
    if best is None:
        roles = ", ".join(request.roles) or "none"
        reason = f"no rule of {request.resource} lets this wallet (roles: {roles}) {request.action} now and here"
        return Answer(False, None, reason)
    verb = "allows" if best.rule.allow else "denies"
    reason = f"rule {best.number} {verb} {_describe(best.rule)}"
    return Answer(best.rule.allow, best.number, reason, best.rule.per_minute)


def excess_of(evidence: Iterable[Excess]) -> tuple[int, int] | None:
    """Return (first ms of the minute, distinct requests) where all evidence is of one wallet, node, resource, minute.

    The signatures are for the caller to verify.
    """
    seen: set[bytes] = set()
    sources: set[tuple[bytes, bytes, str, str, str, int]] = set()
    minute = 0
    for piece in evidence:
        shown = piece.presentation
        minute = shown.at // MINUTE_MS
        sources.add((shown.wallet, shown.node, shown.resource, shown.action, shown.place, minute))
        seen.add(shown.nonce)
    return (minute * MINUTE_MS, len(seen)) if len(sources) == 1 else None


def _matches(rule: Rule, request: Request) -> bool:
    if rule.action not in ("", request.action) or rule.place not in ("", request.place):
        return False
    if not rule.start <= request.at < rule.end:
        return False
    if rule.who == "wallet":
        return rule.name == request.wallet
    if rule.who == "organisation":
        return bool(request.organisation) and rule.name == request.organisation
    if rule.who == "role":
        return rule.name.decode("ascii", "replace") in request.roles
    return True


def _describe(rule: Rule) -> str:
    name = rule.name.decode("ascii", "replace") if rule.who == "role" else rule.name.hex()
    parts = [f"{rule.who} {name}".strip(), f"to {rule.action or 'do anything'}"]
    if rule.place:
        parts.append(f"at {rule.place}")
    if rule.start or rule.end < 2**62:
        parts.append(f"from {rule.start} to {rule.end} ms")
    if rule.per_minute:
        parts.append(f"{rule.per_minute} times a minute")
    return " ".join(parts)
