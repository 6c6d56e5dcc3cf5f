"""Access decisions against raw signature verification, and 10^5 forged requests against honest devices, in one run."""

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from hashlib import sha256
from pathlib import Path

from bench.harness import Row, best_time
from gridpool.agents.access_credential import Credentials
from gridpool.agents.access_gate import Gate
from gridpool.agents.access_grant import Shown, present
from gridpool.agents.access_issuance import credential_of, own_standings
from gridpool.contracts import RULES
from gridpool.contracts.access_rules import Rule, StoredRule, signed_bytes
from gridpool.contracts.members import FoundingMember, MemberParameters, NewSeat, Role
from gridpool.engines.embedded import Embedded
from gridpool.ledger.chain import Ledger
from gridpool.ledger.genesis import Genesis
from gridpool.ledger.keys import KeyPair, verify
from gridpool.ledger.proof import trust
from gridpool.ledger.types import encode
from gridpool.ledger.view import View, locate

REGISTERED = 10_000
ASKING = 200
ROUNDS = 20
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


@contextmanager
def founded(keys: list[KeyPair]) -> Iterator[View]:
    """Found a ledger with all wallets and open a view of it."""
    founders = tuple(FoundingMember(key.public, f"M{i}", (Role.PROSUMER,)) for i, key in enumerate(keys))
    parameters = MemberParameters((NewSeat(NODE.public, "council"),), founders=founders)
    genesis = Genesis(chain="bench", time_ms=time.time_ns() // 1_000_000, parameters=(("members", encode(parameters)),))
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        Embedded.create(home, genesis, RULES, interval_ms=None).close()
        # Open as a running node has it, which reads through LMDB; a reader beside it looks at each page itself.
        with closing(Ledger.open(locate(home), RULES)) as ledger, ledger.view() as view:
            yield view


def gate_for(trusted: dict[str, object], clock: Clock, view: View | None = None) -> Gate:
    """Make a gate that knows nobody yet; with a view it goes by the node's own state."""
    standings = None if view is None else own_standings(view)
    return Gate(NODE, Credentials(trusted), lambda resource: (RULE,), clock, standings=standings)


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


def decision_rows(view: View, trusted: dict[str, object], keys: list[KeyPair], credentials: list[bytes]) -> list[Row]:
    """Compare decisions (grant signed, entry logged) with raw verification of the same signatures, in turns."""
    clock = Clock()
    gate = gate_for(trusted, clock)
    decide_all(gate, ask(gate, keys, credentials))
    taken: dict[str, list[float]] = {"raw": [], "sign": [], "known": [], "own state": [], "proofs": []}
    for _ in range(ROUNDS):
        asked = ask(gate, keys, credentials)
        taken["known"].append(decide_all(gate, asked))
        start = time.process_time()
        for (shown, _), key in zip(asked, keys, strict=False):
            verify(key.public, shown.signature, signed_bytes(shown.presentation))
        taken["raw"].append((time.process_time() - start) / len(asked))
        start = time.process_time()
        for (shown, _), key in zip(asked, keys, strict=False):
            key.sign(shown.presentation)
        taken["sign"].append((time.process_time() - start) / len(asked))
        for name, fresh in (("own state", gate_for(trusted, clock, view)), ("proofs", gate_for(trusted, clock))):
            taken[name].append(decide_all(fresh, ask(fresh, keys, credentials)))
    best = {name: min(times) for name, times in taken.items()}
    limit = best["raw"] / (best["raw"] + best["sign"])
    figures = {
        "wallet seen before": "known",
        "new wallet, node with the ledger's state": "own state",
        "new wallet, by its proofs alone": "proofs",
    }
    return [
        Row(room="access", figure=f"decisions a second and core, {figure}", ratio=best["raw"] / best[name], target=0.5,
            sense="at least", peer="PyNaCl, Ed25519 verification alone",
            detail={"raw_per_s": 1 / best["raw"], "decisions_per_s": 1 / best[name],
                    "limit_of_one_verification_and_one_signature": limit})
        for figure, name in figures.items()
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
    with founded(keys) as view:
        trusted, credentials = trust(view), [credential_of(view, key.public) for key in keys[:ASKING]]
        seconds = best_time(lambda: Credentials(trusted).check(credentials[1], keys[1].public), repeats=20)
        rows = decision_rows(view, trusted, keys, credentials)
    rows[-1].detail["first_credential_under_a_header_ms"] = 1e3 * seconds
    return rows + attack_rows(trusted, keys, credentials)
