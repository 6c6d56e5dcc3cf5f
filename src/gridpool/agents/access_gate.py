"""A node's gate: fresh challenges, decisions by the ledger's rules, signed grants, a bound on all it remembers.

A challenge costs the gate no memory: it authenticates itself. Nothing is remembered of a request before its signature
and credential hold, but a count of its source; each table has a bound, so that forgeries cannot grow them or push out
what honest devices need.
"""

import hmac
import os
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b, sha256
from typing import Annotated, TypeVar

import msgspec

from gridpool.agents.access_credential import Credentials, Distrusted, Standing
from gridpool.agents.access_grant import Challenge, Grant, Shown, check_grant, sign_grant
from gridpool.contracts.access_rules import MINUTE_MS, Excess, Presentation, Request, StoredRule, answer, signed_bytes
from gridpool.ledger.keys import KeyPair, verify_all
from gridpool.ledger.merkle import list_root
from gridpool.ledger.types import Millis, Natural, Text, Value, encode

__all__ = ["ClosedBatch", "Decision", "Gate", "Limits", "LoggedDecision"]

K = TypeVar("K")
V = TypeVar("V")
MOST_SHOWN = 2_048
MOST_NONCES = 65_536
MOST_SOURCES = 4_096
MOST_COUNTS = 65_536
MOST_EVIDENCE = 16_384
MOST_PIECES = 257
MOST_LOG = 8_192
MOST_CLOSED = 16


class _Incoming(Presentation):
    """A presentation as it comes in: the same bounds, but for NUL in texts, which a gate looks for in one go.

    One regular expression for each text would cost a gate as much as its own challenge.
    """

    chain: Annotated[str, msgspec.Meta(max_length=256)]
    resource: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    action: Annotated[str, msgspec.Meta(max_length=256)]
    place: Annotated[str, msgspec.Meta(max_length=256)]


_PRESENTATION = msgspec.msgpack.Decoder(_Incoming)


@dataclass(frozen=True, slots=True)
class Limits:
    """A gate's times (ms) and counts.

    ``source_failures`` in a minute make a source wait ``block_ms``, unless the wallet has proved itself before;
    ``excesses`` of a wallet above its rate block it here for ``block_ms``; ``per_minute`` the most a wallet may ask.
    """

    challenge_ms: int = 30_000
    grant_ms: int = 60_000
    max_age_ms: int = 86_400_000
    source_failures: int = 100
    excesses: int = 10
    block_ms: int = 600_000
    per_minute: int = 600


class Decision(msgspec.Struct, frozen=True, gc=False):
    """A gate's answer: a code for programs, a reason for people, and the grant where allowed."""

    allowed: bool
    code: str
    reason: str
    rule: int | None = None
    grant: bytes = b""


class LoggedDecision(Value):
    """A decision as a batch commits to it."""

    at: Millis
    wallet: bytes
    resource: Text
    action: Text
    allowed: bool
    rule: Natural
    code: Text


@dataclass(frozen=True, slots=True)
class ClosedBatch:
    """A batch: its entries (encoded ``LoggedDecision``), their root, counts and span (ms, half-open)."""

    entries: tuple[bytes, ...]
    root: bytes
    allowed: int
    refused: int
    start: int
    end: int


class _Refusal(Exception):
    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class Gate:
    """Decides requests at one node. ``rules`` gives a resource's rules, ``clock`` the node's time in ms.

    A node that holds the ledger's state gives ``standings`` (``access_issuance.own_standings``): it looks wallets up
    there and needs no credential; without, a gate goes by the credentials that are shown.
    """

    def __init__(
        self,
        key: KeyPair,
        credentials: Credentials,
        rules: Callable[[str], Sequence[StoredRule]],
        clock: Callable[[], int],
        *,
        place: str = "",
        limits: Limits | None = None,
        standings: Callable[[bytes], Standing] | None = None,
    ) -> None:
        self.standings = standings
        self.key = key
        self.place = place
        self.limits = limits or Limits()
        self._credentials = credentials
        self._rules = rules
        self._clock = clock
        self._keyed = blake2b(digest_size=32, key=os.urandom(32))
        self._nonces: OrderedDict[bytes, int] = OrderedDict()
        self._sources: OrderedDict[str, list[int]] = OrderedDict()
        self._minutes: OrderedDict[int, dict[tuple[bytes, str, str], int]] = OrderedDict()
        self._evidence: dict[tuple[int, bytes, str, str], list[Excess]] = {}
        self._pieces = 0
        self._excesses: OrderedDict[bytes, int] = OrderedDict()
        self._blocked: OrderedDict[bytes, int] = OrderedDict()
        self._log: list[bytes] = []
        self._closed: deque[ClosedBatch] = deque(maxlen=MOST_CLOSED)
        self._allowed = self._refused = 0
        self._start = clock()

    def challenge(self, resource: str) -> Challenge:
        """Ask for a proof; the answer counts for ``challenge_ms``, once, here, and for this resource alone."""
        at, fresh = self._clock(), os.urandom(16)
        return Challenge(
            self._credentials.chain, self.key.public, resource, self.place, at, fresh + self._mac(resource, at, fresh)
        )

    def decide(self, source: str, shown: Shown, credential: bytes = b"") -> Decision:
        """Decide a request. ``source`` is where it came from; a credential may be left out when shown before."""
        now = self._clock()
        try:
            presentation, standing, market = self._authenticate(source, shown, credential, now)
        except _Refusal as refusal:
            self._count_failure(source, now)
            self._refused += 1
            return Decision(False, refusal.code, refusal.reason)
        decision = self._answer(presentation, shown, standing, market, now)
        self._note(presentation, decision, now)
        return decision

    def honour(
        self, source: str, shown: Shown, grant: bytes, node_credential: bytes, *, credential: bytes = b""
    ) -> Decision:
        """Admit the holder of another node's grant: its wallet answers this node's challenge, the grant is verified."""
        now = self._clock()
        try:
            presentation, _, _ = self._authenticate(source, shown, credential, now)
            try:
                held = check_grant(grant, node_credential, self._credentials, now, self.limits.max_age_ms)
            except Distrusted as error:
                raise _Refusal("grant_does_not_hold", str(error)) from None
            if (held.wallet, held.resource, held.action) != (
                presentation.wallet,
                presentation.resource,
                presentation.action,
            ):
                raise _Refusal("grant_of_another", "the grant is for another wallet, resource or action")
        except _Refusal as refusal:
            self._count_failure(source, now)
            self._refused += 1
            return Decision(False, refusal.code, refusal.reason)
        decision = Decision(True, "granted", f"by grant of {held.node.hex()}", held.rule)
        self._note(presentation, decision, now)
        return decision

    def evidence(self, wallet: bytes) -> tuple[Excess, ...]:
        """Return the largest evidence of one minute against a wallet, for ``ReportExcess``; empty where none."""
        kept = [pieces for key, pieces in self._evidence.items() if key[1] == wallet]
        return max((tuple(pieces) for pieces in kept), key=len, default=())

    def blocked(self) -> dict[bytes, int]:
        """Return the wallets blocked here, and until when."""
        now = self._clock()
        return {wallet: until for wallet, until in self._blocked.items() if now < until}

    def take_batches(self) -> tuple[ClosedBatch, ...]:
        """Close the batch under way and hand out all closed ones, the oldest first."""
        self._close_batch(self._clock())
        closed = tuple(self._closed)
        self._closed.clear()
        return closed

    def sizes(self) -> dict[str, int]:
        """Return how many entries each table holds."""
        return {
            "nonces": len(self._nonces),
            "sources": len(self._sources),
            "counts": sum(len(counts) for counts in self._minutes.values()),
            "evidence": self._pieces,
            "excesses": len(self._excesses),
            "blocked": len(self._blocked),
            "log": len(self._log),
            "closed": len(self._closed),
        }

    def _mac(self, resource: str, at: int, fresh: bytes) -> bytes:
        keyed = self._keyed.copy()
        keyed.update(at.to_bytes(8, "big") + fresh + resource.encode())
        return keyed.digest()

    def _authenticate(
        self, source: str, shown: Shown, credential: bytes, now: int
    ) -> tuple[Presentation, Standing, int]:
        limits = self.limits
        data = shown.presentation
        if len(data) > MOST_SHOWN or len(shown.signature) != 64:
            raise _Refusal("malformed", "a presentation has at most 2048 bytes, a signature 64")
        try:
            asked = _PRESENTATION.decode(data)
        except (ValueError, RecursionError) as error:
            raise _Refusal("malformed", f"this is no presentation: {error}") from None
        if "\0" in f"{asked.chain}{asked.resource}{asked.action}{asked.place}":
            raise _Refusal("malformed", "this is no presentation: a text has a NUL")
        if asked.node != self.key.public or asked.chain != self._credentials.chain or asked.place != self.place:
            raise _Refusal("for_another_node", "the answer is for another node, place or chain")
        fresh, mac = asked.nonce[:16], asked.nonce[16:]
        if not hmac.compare_digest(mac, self._mac(asked.resource, asked.at, fresh)):
            raise _Refusal("unknown_challenge", "this node never asked that")
        if not 0 <= now - asked.at <= limits.challenge_ms:
            raise _Refusal("challenge_expired", f"an answer counts for {limits.challenge_ms} ms")
        if asked.nonce in self._nonces:
            raise _Refusal("replayed", "this challenge was answered before")
        known, lacking = self._known(asked)
        if known is None and self._waits(source, now):
            raise _Refusal("source_blocked", "too many forgeries came from there; only wallets known here may ask")
        if verify_all(((asked.wallet, shown.signature, signed_bytes(data)),)) != b"\1":
            raise _Refusal("forged_signature", "the wallet has not signed this")
        if lacking:
            raise _Refusal("not_in_good_standing", lacking)
        if known is None:
            if sha256(credential).digest() != asked.credential:
                raise _Refusal("credential_missing", "show the credential that the wallet signed for")
            try:
                known = self._credentials.check(credential, asked.wallet, asked.credential)
            except Distrusted as error:
                raise _Refusal("forged_credential", str(error)) from None
        if known.wallet != asked.wallet:
            raise _Refusal("credential_of_another", "the credential is another wallet's")
        try:
            market = known.check_now(now, limits.max_age_ms)
        except Distrusted as error:
            raise _Refusal("not_in_good_standing", str(error)) from None
        self._forget_nonces(now)
        if len(self._nonces) >= MOST_NONCES:
            raise _Refusal("busy", "too many answers in a short time; ask again")
        self._nonces[asked.nonce] = asked.at + limits.challenge_ms
        return asked, known, market

    def _known(self, asked: Presentation) -> tuple[Standing | None, str]:
        """Return the standing that is known of a wallet before it proves itself, or why the node's state has none."""
        if self.standings is None:
            return self._credentials.known(asked.credential), ""
        try:
            return self.standings(asked.wallet), ""
        except Distrusted as error:
            return None, str(error)

    def _answer(self, asked: Presentation, shown: Shown, standing: Standing, market: int, now: int) -> Decision:
        if now < self._blocked.get(asked.wallet, 0):
            return Decision(False, "blocked", f"this wallet is blocked here until {self._blocked[asked.wallet]}")
        request = Request(
            asked.wallet, standing.organisation, standing.roles, asked.resource, asked.action, asked.place, market
        )
        decided = answer(self._rules(asked.resource), request)
        most = self.limits.per_minute if not decided.per_minute else min(decided.per_minute, self.limits.per_minute)
        minute = asked.at // MINUTE_MS
        counts = self._counts(minute)
        key = (asked.wallet, asked.resource, asked.action)
        count = counts.get(key, 0) + 1
        if count == 1 and len(counts) >= MOST_COUNTS:
            return Decision(False, "busy", "too many wallets ask at once; ask again")
        counts[key] = count
        if decided.per_minute:
            self._keep(minute, key, asked, shown)
        if count > most:
            self._excess(asked.wallet, now)
            return Decision(False, "too_often", f"{count} requests in a minute, {most} allowed", decided.rule)
        if not decided.allowed or decided.rule is None:
            return Decision(False, "denied", decided.reason, decided.rule)
        grant = Grant(
            asked.chain,
            asked.node,
            asked.wallet,
            asked.resource,
            asked.action,
            asked.place,
            decided.rule,
            now,
            now + self.limits.grant_ms,
        )
        return Decision(True, "allowed", decided.reason, decided.rule, sign_grant(self.key, grant))

    def _counts(self, minute: int) -> dict[tuple[bytes, str, str], int]:
        counts = self._minutes.get(minute)
        if counts is None:
            counts = self._minutes[minute] = {}
            while len(self._minutes) > 2:
                self._minutes.pop(min(self._minutes))
        return counts

    def _keep(self, minute: int, key: tuple[bytes, str, str], asked: Presentation, shown: Shown) -> None:
        held = self._evidence.get((minute, *key))
        if held is None:
            if self._pieces >= MOST_EVIDENCE:
                self._drop_evidence(minute)
            if self._pieces >= MOST_EVIDENCE:
                return
            held = self._evidence[(minute, *key)] = []
        if len(held) < MOST_PIECES and self._pieces < MOST_EVIDENCE and encode(asked) == shown.presentation:
            held.append(Excess(asked, shown.signature))
            self._pieces += 1

    def _drop_evidence(self, minute: int) -> None:
        for key in [key for key in self._evidence if key[0] < minute and key[1] not in self._excesses]:
            self._pieces -= len(self._evidence.pop(key))
        if self._pieces >= MOST_EVIDENCE:
            for key in [key for key in self._evidence if key[0] < minute]:
                self._pieces -= len(self._evidence.pop(key))

    def _excess(self, wallet: bytes, now: int) -> None:
        times = self._excesses.get(wallet, 0) + 1
        _remember(self._excesses, wallet, times, MOST_SOURCES)
        if times >= self.limits.excesses:
            _remember(self._blocked, wallet, now + self.limits.block_ms, MOST_SOURCES)
            self._excesses[wallet] = 0

    def _count_failure(self, source: str, now: int) -> None:
        source = source[:256]
        held = self._sources.get(source)
        if held is None or now - held[1] >= MINUTE_MS:
            held = [0, now, 0 if held is None else held[2]]
        held[0] += 1
        if held[0] >= self.limits.source_failures:
            held[2] = now + self.limits.block_ms
        _remember(self._sources, source, held, MOST_SOURCES)

    def _waits(self, source: str, now: int) -> bool:
        held = self._sources.get(source[:256])
        return held is not None and now < held[2]

    def _forget_nonces(self, now: int) -> None:
        while self._nonces:
            nonce, expires = next(iter(self._nonces.items()))
            if expires >= now:
                return
            del self._nonces[nonce]

    def _note(self, asked: Presentation, decision: Decision, now: int) -> None:
        if decision.allowed:
            self._allowed += 1
        else:
            self._refused += 1
        entry = LoggedDecision(
            now, asked.wallet, asked.resource, asked.action, decision.allowed, decision.rule or 0, decision.code
        )
        self._log.append(encode(entry))
        if len(self._log) >= MOST_LOG:
            self._close_batch(now)

    def _close_batch(self, now: int) -> None:
        if not self._log and not self._refused:
            return
        end = max(now, self._start) + 1
        entries = tuple(self._log)
        self._closed.append(ClosedBatch(entries, list_root(entries), self._allowed, self._refused, self._start, end))
        self._log = []
        self._allowed = self._refused = 0
        self._start = end


def _remember(table: OrderedDict[K, V], key: K, value: V, most: int) -> None:
    table[key] = value
    table.move_to_end(key)
    if len(table) > most:
        table.popitem(last=False)
