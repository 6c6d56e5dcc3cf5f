"""A node's gate under honest use and under attack, with real proofs from a ledger on disk."""

import base64
import json
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from access_world import CHAIN, DSO, HUB, OTHER, AccessWorld, key, now

from gridpool.agents import access_gate
from gridpool.agents.access_commands import CommandEnd, CommandReceiver, CommandSender, command_key, new_command_key
from gridpool.agents.access_credential import Credentials, Distrusted, resource_key
from gridpool.agents.access_gate import Gate, Limits
from gridpool.agents.access_grant import Challenge, Shown, check_grant, present
from gridpool.agents.access_issuance import own_standings
from gridpool.agents.access_ledger import verify_decisions
from gridpool.contracts.access import (
    BLOCKS,
    BlockSiblings,
    PublishKey,
    RecordDecisions,
    ReportExcess,
    SetRule,
    rules_of,
)
from gridpool.contracts.access_rules import Rule, StoredRule, signed_bytes
from gridpool.contracts.members import BanMember, Rekey, WalletOpening
from gridpool.errors import RefusedInput, VerificationFault
from gridpool.ledger.keys import KeyPair

DAY = 86_400_000
RESOURCE = "feeder/7"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[AccessWorld]:
    with AccessWorld(tmp_path / "home") as made:
        made.submit(DSO, SetRule(RESOURCE, Rule(True, "role", b"prosumer", "read")))
        made.submit(DSO, SetRule("metered", Rule(True, "role", b"prosumer", "read", per_minute=3)))
        yield made


class Clock:
    def __init__(self) -> None:
        self.ms = now()

    def __call__(self) -> int:
        return self.ms


@pytest.fixture
def clock() -> Clock:
    clock = Clock()
    clock.ms += 60_000 - clock.ms % 60_000  # tests that count by the minute begin with one
    return clock


def gate_at(
    world: AccessWorld, clock: Clock, *, node: KeyPair = DSO, place: str = "", limits: Limits | None = None
) -> Gate:
    def rules(resource: str) -> tuple[StoredRule, ...]:
        return rules_of(world.session.state, resource)

    return Gate(node, world.credentials(), rules, clock, place=place, limits=limits)


def test_a_wallet_is_admitted_by_role_without_showing_its_member(world: AccessWorld, clock: Clock) -> None:
    gate, wallet = gate_at(world, clock), world.wallets["a0"]
    credential = world.credential(wallet)
    shown = present(wallet, gate.challenge(RESOURCE), "read", credential)
    decision = gate.decide("10.0.0.1", shown, credential)
    assert (decision.allowed, decision.code, decision.rule) == (True, "allowed", 1)
    assert key("person a").public.hex().encode() not in credential + shown.presentation
    standing = world.credentials().check(credential, wallet.public)
    assert (standing.roles, standing.organisation) == (("prosumer",), b"")
    refused = gate.decide("10.0.0.1", present(wallet, gate.challenge(RESOURCE), "write", credential))
    assert (refused.allowed, refused.code) == (False, "denied")
    assert "no rule of feeder/7 lets this wallet (roles: prosumer) write" in refused.reason


def test_any_other_node_verifies_a_grant_offline(world: AccessWorld, clock: Clock) -> None:
    gate, wallet = gate_at(world, clock), world.wallets["a0"]
    credential, node = world.credential(wallet), world.credential(DSO, resource_key(RESOURCE))
    grant = gate.decide("x", present(wallet, gate.challenge(RESOURCE), "read", credential), credential).grant
    held = check_grant(grant, node, world.credentials(), clock(), DAY)
    assert (held.wallet, held.resource, held.action, held.node) == (wallet.public, RESOURCE, "read", DSO.public)
    for position in (3, 70, len(grant) - 1):
        altered = bytearray(grant)
        altered[position] ^= 1
        with pytest.raises(Distrusted):
            check_grant(bytes(altered), node, world.credentials(), clock(), DAY)
    with pytest.raises(Distrusted, match="expired"):
        check_grant(grant, node, world.credentials(), held.expires, DAY)
    with pytest.raises(Distrusted, match="does not own"):
        check_grant(grant, world.credential(DSO), world.credentials(), clock(), DAY)
    second = gate_at(world, clock, node=OTHER, place="south")
    answer = present(wallet, second.challenge(RESOURCE), "read", credential)
    assert second.honour("x", answer, grant, node, credential=credential).code == "granted"
    thief = world.wallets["b0"]
    stolen = present(thief, second.challenge(RESOURCE), "read", world.credential(thief))
    assert second.honour("x", stolen, grant, node, credential=world.credential(thief)).code == "grant_of_another"


def test_a_node_that_does_not_own_a_resource_grants_nothing(world: AccessWorld, clock: Clock) -> None:
    rogue, wallet = gate_at(world, clock, node=OTHER), world.wallets["a0"]
    credential = world.credential(wallet)
    grant = rogue.decide("x", present(wallet, rogue.challenge(RESOURCE), "read", credential), credential).grant
    with pytest.raises(Distrusted, match="does not own"):
        check_grant(grant, world.credential(OTHER, resource_key(RESOURCE)), world.credentials(), clock(), DAY)


def test_a_challenge_is_answered_once_here_now_and_for_its_resource(world: AccessWorld, clock: Clock) -> None:
    gate, wallet = gate_at(world, clock), world.wallets["a0"]
    credential = world.credential(wallet)
    shown = present(wallet, gate.challenge(RESOURCE), "read", credential)
    assert gate.decide("x", shown, credential).allowed
    other = present(wallet, gate.challenge(RESOURCE), "read", credential)
    codes = [gate.decide("x", again, credential).code for again in (shown, other, shown, other)]
    assert codes == ["replayed", "allowed", "replayed", "replayed"]
    late = present(wallet, gate.challenge(RESOURCE), "read", credential)
    clock.ms += 30_001
    assert gate.decide("x", late, credential).code == "challenge_expired"
    assert gate.decide("x", shown, credential).code == "challenge_expired"
    elsewhere = gate_at(world, clock, node=OTHER)
    fresh = present(wallet, gate.challenge(RESOURCE), "read", credential)
    assert elsewhere.decide("x", fresh, credential).code == "for_another_node"
    for where in ({"place": "north"}, {"chain": "another"}, {"node": OTHER.public}):
        claimed = msgspec.structs.replace(gate.challenge(RESOURCE), **where)
        assert gate.decide("x", present(wallet, claimed, "read", credential), credential).code == "for_another_node"
    asked = gate.challenge("metered")
    moved = msgspec.structs.replace(asked, resource=RESOURCE)
    assert gate.decide("x", present(wallet, moved, "read", credential), credential).code == "unknown_challenge"
    later = msgspec.structs.replace(asked, at=asked.at + 1)
    assert gate.decide("x", present(wallet, later, "read", credential), credential).code == "unknown_challenge"
    invented = Challenge(CHAIN, DSO.public, RESOURCE, "", clock(), os.urandom(48))
    assert gate.decide("x", present(wallet, invented, "read", credential), credential).code == "unknown_challenge"


def test_forged_cloned_and_revoked_identities_are_refused(world: AccessWorld, clock: Clock) -> None:
    gate, wallet, thief = gate_at(world, clock), world.wallets["a0"], key("thief")
    credential = world.credential(wallet)
    # the clone of a credential without its key
    signed = present(wallet, gate.challenge(RESOURCE), "read", credential)
    forged = Shown(signed.presentation, thief.sign(b"whatever"))
    assert gate.decide("x", forged, credential).code == "forged_signature"
    own = present(thief, gate.challenge(RESOURCE), "read", credential)
    assert gate.decide("x", own, credential).code == "forged_credential"
    # a wallet that the ledger does not know
    unknown = world.credential(thief)
    assert gate.decide("x", present(thief, gate.challenge(RESOURCE), "read", unknown), unknown).code == (
        "forged_credential"
    )
    # another's record under one's own name
    document = json.loads(credential)
    for name in ("value", "siblings", "key"):
        altered = json.loads(credential)
        altered["proofs"][0][name] = json.loads(world.credential(DSO))["proofs"][0][name]
        data = json.dumps(altered).encode()
        assert not gate.decide("x", present(wallet, gate.challenge(RESOURCE), "read", data), data).allowed
    document["proofs"] = document["proofs"][:1] * 4
    data = json.dumps(document).encode()
    answer = gate.decide("x", present(wallet, gate.challenge(RESOURCE), "read", data), data)
    assert (answer.code, "says nothing of members.banned" in answer.reason) == ("forged_credential", True)
    # an old header
    clock.ms += DAY + 120_000
    old = present(wallet, gate.challenge(RESOURCE), "read", credential)
    assert gate.decide("x", old, credential).code == "not_in_good_standing"


def test_a_certificate_counts_within_its_time_and_a_header_once_it_is_past(world: AccessWorld) -> None:
    wallet = world.wallets["a0"]
    standing = world.credentials().check(world.credential(wallet), wallet.public)
    at, market = standing.header_ms, standing.market_ms
    assert standing.check_now(at + 5, DAY) == market + 5
    assert standing.check_now(at - 60_000, DAY) == market  # two clocks may lie a minute apart
    for changes, moment, reason in (
        ({}, at - 60_001, "future"),
        ({}, at + DAY + 1, "old"),
        ({"valid_until": market + 5}, at + 5, "not registered for this time"),
        ({"valid_from": market + 1}, at + 5, "not registered for this time"),
        ({"bound_until": market + 6}, at + 5, "banned or blocked"),
    ):
        with pytest.raises(Distrusted, match=reason):
            msgspec.structs.replace(standing, **changes).check_now(moment, DAY)
    msgspec.structs.replace(standing, valid_until=market + 6, bound_until=market + 5).check_now(at + 5, DAY)


def test_revocation_reaches_the_gate_with_the_next_header(world: AccessWorld, clock: Clock) -> None:
    gate = gate_at(world, clock)
    banned, cloned = world.wallets["a0"], world.wallets["b0"]
    opening = WalletOpening(banned.public, bytes(32))
    world.decide(BanMember(key("person a").public, 2**62, "council", "test", (opening,)))
    world.submit(cloned, Rekey(key("new").public, bytes(32)))
    for wallet, code in ((banned, "not_in_good_standing"), (cloned, "forged_credential")):
        credential = world.credential(wallet)
        shown = present(wallet, gate.challenge(RESOURCE), "read", credential)
        assert gate.decide("x", shown, credential).code == code
    credential = world.credential(key("new"))
    assert gate.decide("x", present(key("new"), gate.challenge(RESOURCE), "read", credential), credential).allowed


def test_a_node_with_the_ledgers_state_sees_a_ban_at_once_and_needs_no_credential(
    world: AccessWorld, clock: Clock
) -> None:
    """The same gate over its own state: who is registered is admitted, whoever else names a wallet is not."""
    gate, wallet, thief = gate_at(world, clock), world.wallets["a0"], key("thief")
    credential = world.credential(wallet)

    def ask(signer: KeyPair, named: KeyPair) -> str:
        with world.session._ledger.view() as view:
            gate.standings = own_standings(view)
            shown = present(named, gate.challenge(RESOURCE), "read", b"")
            if signer is not named:
                shown = Shown(shown.presentation, signer.sign(signed_bytes(shown.presentation)))
            return gate.decide("x", shown).code

    assert ask(wallet, wallet) == "allowed"
    assert ask(thief, wallet) == "forged_signature"
    assert ask(thief, thief) == "not_in_good_standing"
    world.submit(world.wallets["b0"], Rekey(key("new").public, bytes(32)))
    assert ask(world.wallets["b0"], world.wallets["b0"]) == "not_in_good_standing"
    assert ask(key("new"), key("new")) == "allowed"
    opening = WalletOpening(wallet.public, bytes(32))
    world.decide(BanMember(key("person a").public, 2**62, "council", "test", (opening,)))
    assert ask(wallet, wallet) == "not_in_good_standing"
    gate.standings = None  # by the proof of an older header the ban is not seen yet
    assert gate.decide("x", present(wallet, gate.challenge(RESOURCE), "read", credential), credential).allowed
    for _ in range(200):
        ask(thief, thief)
    assert ask(thief, thief) == "source_blocked"
    assert ask(key("new"), key("new")) == "allowed"


def test_a_header_is_checked_once_and_a_false_one_each_time(world: AccessWorld, clock: Clock) -> None:
    """A wallet under a header that holds already is not asked for the signature again, and cannot bring a false one."""
    credentials, first, second = world.credentials(), world.wallets["a0"], world.wallets["b0"]
    credentials.check(world.credential(first), first.public)
    document = json.loads(world.credential(second))
    without = json.dumps(document | {"signature": ""}).encode()
    assert credentials.check(without, second.public).wallet == second.public
    with pytest.raises(Distrusted, match="has not signed"):
        world.credentials().check(without, second.public)
    raw = bytearray(base64.b64decode(document["header"]))
    raw[-1] ^= 1
    with pytest.raises(Distrusted, match="does not hold"):
        credentials.check(json.dumps(document | {"header": base64.b64encode(raw).decode()}).encode(), second.public)
    assert len(credentials._headers) == 1


@pytest.mark.parametrize(
    "junk",
    [
        b"",
        b"\x00",
        b"\x9f" * 3_000,
        b"\xdd\xff\xff\xff\xff",
        b"\xa4\xff\xfe\xfd\xfc",
        b"\x99\xa4\xff\xfe\xfd\xfc" * 9,
        b"\x99" * 900,
    ],
)
def test_junk_is_refused(world: AccessWorld, clock: Clock, junk: bytes) -> None:
    gate, wallet = gate_at(world, clock), world.wallets["a0"]
    assert gate.decide("x", Shown(junk, bytes(64))).code == "malformed"
    assert gate.decide("x", Shown(junk, b"")).code == "malformed"
    shown = present(wallet, gate.challenge(RESOURCE), "read", junk)
    assert gate.decide("x", shown, junk).code == "forged_credential"


def test_excess_blocks_the_wallet_then_all_wallets_of_its_member(world: AccessWorld, clock: Clock) -> None:
    gate = gate_at(world, clock, limits=Limits(excesses=2))
    first, second, third = world.wallets["a0"], world.wallets["a1"], world.wallets["b0"]
    for wallet in (first, second):
        credential = world.credential(wallet)
        codes = [
            gate.decide("x", present(wallet, gate.challenge("metered"), "read", credential), credential).code
            for _ in range(6)
        ]
        assert codes == ["allowed"] * 3 + ["too_often"] * 2 + ["blocked"]
        evidence = gate.evidence(wallet.public)
        with pytest.raises(RefusedInput, match="no excess"):
            world.submit(DSO, ReportExcess(evidence[:3]))
        with pytest.raises(RefusedInput, match="not to this node"):
            world.submit(OTHER, ReportExcess(evidence))
        forged = msgspec.structs.replace(evidence[0], signature=bytes(64))
        with pytest.raises(RefusedInput, match="not signed"):
            world.submit(DSO, ReportExcess((forged, *evidence[1:])))
        with pytest.raises(RefusedInput, match="no excess"):
            world.submit(DSO, ReportExcess(evidence[:1] * 5))
        world.submit(DSO, ReportExcess(evidence))
        with pytest.raises(RefusedInput, match="already"):
            world.submit(DSO, ReportExcess(evidence))
        block = world.session.state.get(BLOCKS, wallet.public)
        assert block is not None
        assert block.strikes == 1
        if wallet is first:
            with pytest.raises(RefusedInput, match="too few strikes"):
                world.submit(HUB, BlockSiblings((first.public,), (second.public,)))
    # another gate refuses by the header alone
    other = gate_at(world, clock)
    credential = world.credential(first)
    shown = present(first, other.challenge(RESOURCE), "read", credential)
    assert other.decide("x", shown, credential).code == "not_in_good_standing"
    with pytest.raises(RefusedInput, match="role missing"):
        world.submit(OTHER, BlockSiblings((first.public, second.public), (third.public,)))
    world.submit(HUB, BlockSiblings((first.public, second.public), (first.public, second.public, third.public)))
    credential = world.credential(third)
    shown = present(third, other.challenge(RESOURCE), "read", credential)
    assert other.decide("x", shown, credential).code == "not_in_good_standing"


def test_batches_of_decisions_are_recorded_as_one_root(world: AccessWorld, clock: Clock) -> None:
    gate, wallet = gate_at(world, clock), world.wallets["a0"]
    credential = world.credential(wallet)
    for action in ("read", "write", "read"):
        gate.decide("x", present(wallet, gate.challenge(RESOURCE), action, credential), credential)
    clock.ms += 1_000
    (batch,) = gate.take_batches()
    assert (batch.allowed, batch.refused, len(batch.entries)) == (2, 1, 3)
    call = RecordDecisions(batch.root, batch.allowed, batch.refused, batch.start, batch.end)
    world.submit(DSO, call)
    with pytest.raises(RefusedInput, match="overlap"):
        world.submit(DSO, call)
    state = world.session.state
    assert verify_decisions(state, DSO.public, 0, list(batch.entries))["allowed"] == 2
    with pytest.raises(VerificationFault, match="not those"):
        verify_decisions(state, DSO.public, 0, list(batch.entries[:2]))


def test_forged_requests_change_no_honest_decision_and_grow_nothing(
    world: AccessWorld, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The benchmark repeats this with 10^5 forgeries; here half of them come from the honest device's source."""
    monkeypatch.setattr(access_gate, "MOST_SOURCES", 256)
    gate, wallet, newcomer, thief = gate_at(world, clock), world.wallets["a0"], world.wallets["b0"], key("thief")
    credential = world.credential(wallet)
    assert gate.decide("shared", present(wallet, gate.challenge(RESOURCE), "read", credential), credential).allowed
    before = gate.sizes()
    for number in range(2_000):
        forged = present(thief, gate.challenge(RESOURCE), "read", b"junk")
        source = "shared" if number % 2 else f"source {number}"
        assert not gate.decide(source, forged, b"junk").allowed
        if number % 400 == 0:
            shown = present(wallet, gate.challenge(RESOURCE), "read", credential)
            assert gate.decide("shared", shown).allowed
    fresh = world.credential(newcomer)
    shown = present(newcomer, gate.challenge(RESOURCE), "read", fresh)
    assert gate.decide("elsewhere", shown, fresh).allowed
    grown = {name for name, size in gate.sizes().items() if size > before[name] + 7}
    assert grown == {"sources"}
    assert gate.sizes()["sources"] == 256


def test_commands_are_encrypted_numbered_and_taken_once(world: AccessWorld) -> None:
    ends, secrets = [], []
    for owner in (DSO, OTHER):
        public, secret = new_command_key()
        world.submit(owner, PublishKey(public))
        standing = world.credentials().check(world.credential(owner, command_key(owner.public)), owner.public)
        stored = msgspec.msgpack.decode(standing.values[command_key(owner.public)] or b"")
        assert stored == [public, 1]
        ends.append(CommandEnd(owner.public, stored[0], stored[1]))
        secrets.append(secret)
    sender = CommandSender(CHAIN, ends[0], secrets[0], ends[1])
    receiver = CommandReceiver(CHAIN, ends[1], secrets[1], ends[0])
    sealed = [sender.seal(f"open breaker {i}".encode()) for i in range(3)]
    assert b"breaker" not in sealed[0]
    assert receiver.open(sealed[0]) == b"open breaker 0"
    with pytest.raises(Distrusted, match="taken before"):
        receiver.open(sealed[0])
    for position in range(len(sealed[1])):
        altered = bytearray(sealed[1])
        altered[position] ^= 1
        with pytest.raises(Distrusted):
            receiver.open(bytes(altered))
    assert receiver.open(sealed[2]) == b"open breaker 2"
    with pytest.raises(Distrusted, match="taken before"):
        receiver.open(sealed[1])
    later = CommandReceiver(CHAIN, CommandEnd(ends[1].wallet, ends[1].key, 2), secrets[1], ends[0])
    with pytest.raises(Distrusted, match="altered or is of another"):
        later.open(sealed[2])


def test_a_trust_file_of_another_chain_proves_nothing(world: AccessWorld) -> None:
    with pytest.raises(Distrusted):
        Credentials({"format": "gridpool-trust-1"})
    other = Credentials({"format": "gridpool-trust-1", "chain": "x", "signer": "AAAA"})
    with pytest.raises(Distrusted, match="does not hold"):
        other.check(world.credential(DSO), DSO.public)


def test_variants_of_a_true_credential_push_nobody_out(world: AccessWorld, clock: Clock) -> None:
    """White space changes a credential's hash and not its truth; each wallet has one place, and others' none."""
    gate, wallet, thief = gate_at(world, clock), world.wallets["a0"], key("thief")
    credential = world.credential(wallet)
    for number in range(50):
        variant = credential + b" " * number
        assert not gate.decide("x", present(thief, gate.challenge(RESOURCE), "read", variant), variant).allowed
        assert gate.decide("y", present(wallet, gate.challenge(RESOURCE), "read", variant), variant).allowed
    assert len(gate._credentials._known) == len(gate._credentials._latest) == 1
