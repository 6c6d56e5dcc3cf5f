"""Access decisions against raw signature verification, and 10^5 forged requests against honest devices, in one run."""

import os
import tempfile
import time
from contextlib import closing
from hashlib import sha256
from pathlib import Path

from bench.harness import Row, best_time
from gridpool.agents.access_credential import Credentials
from gridpool.agents.access_gate import Gate
from gridpool.agents.access_grant import Shown, present
from gridpool.agents.access_issuance import credential_of
from gridpool.contracts import RULES
from gridpool.contracts.access_rules import Rule, StoredRule, signed_bytes
from gridpool.contracts.members import FoundingMember, MemberParameters, NewSeat, Role
from gridpool.engines.embedded import Embedded
from gridpool.ledger.chain import Ledger, locate
from gridpool.ledger.genesis import Genesis
from gridpool.ledger.keys import KeyPair, verify
from gridpool.ledger.proof import trust
from gridpool.ledger.types import encode

REGISTERED = 10_000
ASKING = 200
ROUNDS = 10
FORGERIES = 100_000
HONEST_EVERY = 500
RESOURCE = "feeder/7"
RULE = StoredRule(1, Rule(True, "role", b"prosumer", "read"), 0)
NODE = KeyPair(sha256(b"node").digest())

Asked = tuple[Shown, bytes]


class Clock:
    """A clock that stands still."""

    def __init__(self) -> None:
        self.ms = time.time_ns() // 1_000_000

    def __call__(self) -> int:
        return self.ms


def wallet_keys() -> list[KeyPair]:
    """Make the keys of all registered wallets."""
    return [KeyPair(sha256(b"wallet %d" % number).digest()) for number in range(REGISTERED)]


def prove(keys: list[KeyPair]) -> tuple[dict[str, object], list[bytes]]:
    """Found a ledger with all wallets; return its trust file and the credentials of the wallets that will ask."""
    founders = tuple(FoundingMember(key.public, f"M{i}", (Role.PROSUMER,)) for i, key in enumerate(keys))
    parameters = MemberParameters((NewSeat(NODE.public, "council"),), founders=founders)
    genesis = Genesis(chain="bench", time_ms=time.time_ns() // 1_000_000, parameters=(("members", encode(parameters)),))
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        Embedded.create(home, genesis, RULES, interval_ms=None).close()
        with closing(Ledger.open(locate(home), RULES, writable=False)) as ledger, ledger.view() as view:
            return trust(view), [credential_of(view, key.public) for key in keys[:ASKING]]


def gate_for(trusted: dict[str, object], clock: Clock) -> Gate:
    """Make a gate that knows nobody yet."""
    return Gate(NODE, Credentials(trusted), lambda resource: (RULE,), clock)


def ask(gate: Gate, keys: list[KeyPair], credentials: list[bytes]) -> list[Asked]:
    """Let each wallet answer a challenge of its own."""
    return [
        (present(key, gate.challenge(RESOURCE), "read", credential), credential)
        for key, credential in zip(keys[:ASKING], credentials, strict=True)
    ]


def decide_all(gate: Gate, asked: list[Asked]) -> float:
    """Decide requests; return the processor time a decision took, and fail where one was not allowed."""
    start = time.process_time()
    answers = [gate.decide("source", shown, credential) for shown, credential in asked]
    seconds = time.process_time() - start
    if not all(answer.allowed for answer in answers):
        raise AssertionError("an honest request was refused")
    return seconds / len(asked)


def decision_rows(trusted: dict[str, object], keys: list[KeyPair], credentials: list[bytes]) -> list[Row]:
    """Compare decisions (grant signed, entry logged) with raw verification of the same signatures, in turns."""
    clock = Clock()
    gate = gate_for(trusted, clock)
    decide_all(gate, ask(gate, keys, credentials))
    raw, known, first = [], [], []
    for _ in range(ROUNDS):
        asked = ask(gate, keys, credentials)
        known.append(decide_all(gate, asked))
        start = time.process_time()
        for (shown, _), key in zip(asked, keys, strict=False):
            verify(key.public, shown.signature, signed_bytes(shown.presentation))
        raw.append((time.process_time() - start) / len(asked))
        fresh = gate_for(trusted, clock)
        first.append(decide_all(fresh, ask(fresh, keys, credentials)))
    detail = {"raw_per_s": 1 / min(raw), "decisions_per_s": 1 / min(known), "first_per_s": 1 / min(first)}
    return [
        Row(room="access", figure="decisions a second and core, wallet seen before", ratio=min(raw) / min(known),
            target=0.5, sense="at least", peer="PyNaCl, Ed25519 verification alone", detail=detail),
        Row(room="access", figure="decisions a second and core, proofs checked each time", ratio=min(raw) / min(first),
            target=0.5, sense="at least", peer="PyNaCl, Ed25519 verification alone"),
    ]  # fmt: skip


def attack_rows(trusted: dict[str, object], keys: list[KeyPair], credentials: list[bytes]) -> list[Row]:
    """Send 10^5 forgeries of five kinds, from many sources and from the honest devices' own, among honest requests."""
    clock = Clock()
    gate, calm = gate_for(trusted, clock), gate_for(trusted, clock)
    thief = KeyPair(os.urandom(32))
    for at in (gate, calm):
        decide_all(at, ask(at, keys, credentials))
    old, _ = ask(gate, keys, credentials)[0]
    gate.decide("source", old)
    before = gate.sizes()
    changed = honest = passed = 0
    for number in range(FORGERIES):
        kind = number % 5
        source = "source" if number % 2 else f"source {number}"
        credential = credentials[number % ASKING]
        if kind == 0:
            shown = present(thief, gate.challenge(RESOURCE), "read", credential)
        elif kind == 1:
            shown = Shown(present(thief, gate.challenge(RESOURCE), "read", b"junk").presentation, bytes(64))
        elif kind == 2:
            shown = old
        elif kind == 3:
            shown = Shown(os.urandom(200), os.urandom(64))
        else:
            credential += b" " * (number // 5 % 20_000)  # still true, and another hash each time
            shown = present(thief, gate.challenge(RESOURCE), "read", credential)
        passed += gate.decide(source, shown, credential).allowed
        if number % HONEST_EVERY == 0:
            at, key = honest % ASKING, keys[honest % ASKING]
            here = gate.decide("source", present(key, gate.challenge(RESOURCE), "read", credentials[at]))
            there = calm.decide("source", present(key, calm.challenge(RESOURCE), "read", credentials[at]))
            changed += (here.allowed, here.code, here.rule) != (there.allowed, there.code, there.rule)
            honest += 1
    for at, key in enumerate(keys[:ASKING]):  # who was known is known still, without showing the proofs again
        changed += not gate.decide("source", present(key, gate.challenge(RESOURCE), "read", credentials[at])).allowed
        honest += 1
    if passed:
        raise AssertionError(f"{passed} forgeries were admitted")
    after, quiet = gate.sizes(), calm.sizes()
    grown = sum(after[name] - before[name] - honest for name in ("nonces", "log", "evidence", "counts", "blocked")
                if after[name] > max(quiet[name], before[name]) + honest)  # fmt: skip
    return [
        Row(room="access", figure="10^5 forgeries: honest decisions changed", ratio=changed, target=0, sense="at most",
            peer="the same gate unattacked", detail={"honest": honest, "forged": FORGERIES}),
        Row(room="access", figure="10^5 forgeries: entries remembered of them, sources apart", ratio=max(0, grown),
            target=0, sense="at most", peer="the same gate unattacked", detail=after),
        Row(room="access", figure="10^5 forgeries: sources remembered", ratio=after["sources"], target=4_096,
            sense="at most", peer="the bound"),
    ]  # fmt: skip


def run() -> list[Row]:
    """Measure decisions, then the attack."""
    keys = wallet_keys()
    trusted, credentials = prove(keys)
    fresh = Credentials(trusted)
    fresh.check(credentials[0], keys[0].public)
    seconds = best_time(lambda: Credentials(trusted).check(credentials[1], keys[1].public), repeats=20)
    rows = decision_rows(trusted, keys, credentials)
    rows[1].detail["credential_ms"] = 1e3 * seconds
    return rows + attack_rows(trusted, keys, credentials)
