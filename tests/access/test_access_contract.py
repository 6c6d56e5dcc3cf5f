"""The access contract by itself: ownership, bounds, strikes and how long they count."""

import hashlib

import msgspec
import pytest

from gridpool.contracts import access, coins, members
from gridpool.contracts.access import (
    BATCHES,
    BLOCKS,
    EVIDENCE,
    KEPT_BATCHES,
    RecordDecisions,
    RemoveRule,
    ReportExcess,
    SetRule,
    blocked_until,
    rules_of,
)
from gridpool.contracts.access_rules import Excess, Presentation, Request, Rule, StoredRule, answer, signed_bytes
from gridpool.contracts.members import (
    Admit,
    FoundingMember,
    MemberParameters,
    NewMember,
    NewSeat,
    Role,
    propose,
)
from gridpool.ledger.contract import Refused
from gridpool.ledger.genesis import Genesis
from gridpool.ledger.keys import KeyPair
from gridpool.ledger.rehearsal import Rehearsal
from gridpool.ledger.rules import Rules
from gridpool.ledger.types import encode

START = 1_782_000_000_000 // 60_000 * 60_000
HOUR, DAY = 3_600_000, 86_400_000


def key(name: str) -> KeyPair:
    return KeyPair(hashlib.sha256(name.encode()).digest())


KEEPER, DSO, TWIN, SECOND = key("keeper"), key("dso"), key("twin"), key("second")


@pytest.fixture
def chain() -> Rehearsal:
    founders = (FoundingMember(DSO.public, "Grid", (Role.UTILITY,)),)
    seats = (NewSeat(KEEPER.public, "council"),)
    genesis = Genesis(
        chain="access",
        time_ms=START,
        market_clock="ticks",
        clock_keeper=KEEPER.public,
        parameters=(("members", encode(MemberParameters(seats, founders=founders))),),
    )
    made = Rehearsal(Rules([members.members, coins.coins, access.access]), genesis, clock_keeper=KEEPER)
    twin = NewMember(TWIN.public, "Twin", (Role.OPERATOR,), public_wallets=(TWIN.public, SECOND.public))
    made.expect(KEEPER, propose(Admit((twin,))))
    return made


def refusal(chain: Rehearsal, signer: KeyPair, call: object) -> str:
    with pytest.raises(Refused) as error:
        chain.expect(signer, call)  # type: ignore[arg-type]
    return error.value.code


def excess(chain: Rehearsal, wallet: KeyPair, count: int, *, resource: str = "r") -> ReportExcess:
    pieces = []
    for number in range(count):
        shown = Presentation(
            "access", DSO.public, resource, chain.now, number.to_bytes(32, "big"), wallet.public, "read", "", bytes(32)
        )
        pieces.append(Excess(shown, wallet.sign(signed_bytes(encode(shown)))))
    return ReportExcess(tuple(pieces))


def test_the_latest_matching_rule_decides_and_nothing_matches_by_default() -> None:
    request = Request(bytes(32), b"", ("sensor",), "r", "read", "north", 50)
    rules = [
        StoredRule(1, Rule(True, "anyone"), 0),
        StoredRule(2, Rule(False, "role", b"sensor", "read"), 0),
        StoredRule(3, Rule(True, "role", b"sensor", "read", 10, 50), 0),
        StoredRule(4, Rule(True, "wallet", b"\1" * 32), 0),
        StoredRule(5, Rule(True, "organisation", b""), 0),
        StoredRule(6, Rule(True, "anyone", place="south"), 0),
    ]
    assert answer([], request).allowed is False
    assert answer([], request).rule is None
    for order in (rules, rules[::-1]):
        decided = answer(order, request)
        assert (decided.allowed, decided.rule) == (False, 2)
        assert answer(order, msgspec.structs.replace(request, at=49)).rule == 3
        assert answer(order, msgspec.structs.replace(request, action="write")).rule == 1
        assert answer(order, msgspec.structs.replace(request, place="south")).rule == 6
        assert answer(order, msgspec.structs.replace(request, wallet=b"\1" * 32)).rule == 4


def test_rules_belong_to_who_set_the_first_and_are_bounded(chain: Rehearsal, monkeypatch: pytest.MonkeyPatch) -> None:
    chain.expect(DSO, SetRule("r", Rule(True, "anyone")))
    assert refusal(chain, TWIN, SetRule("r", Rule(True, "anyone"))) == "not_your_resource"
    assert refusal(chain, TWIN, RemoveRule("r", 1)) == "not_your_resource"
    assert refusal(chain, DSO, RemoveRule("r", 2)) == "no_such_rule"
    assert refusal(chain, DSO, SetRule("r", Rule(True, "role", b"king"))) == "no_such_role"
    assert refusal(chain, DSO, SetRule("r", Rule(True, "wallet", b"\1" * 32))) == "unknown_wallet"
    assert refusal(chain, DSO, SetRule("r", Rule(True, "organisation", b"\1" * 32))) == "no_such_member"
    assert refusal(chain, DSO, SetRule("r", Rule(True, "anyone", b"x"))) == "anyone_has_no_name"
    assert refusal(chain, DSO, SetRule("r", Rule(True, "anyone", start=5, end=5))) == "never_in_force"
    assert refusal(chain, key("stranger"), SetRule("s", Rule(True, "anyone"))) == "unknown_wallet"
    chain.expect(DSO, SetRule("r", Rule(False, "anyone")))
    chain.expect(DSO, RemoveRule("r", 2))
    chain.expect(DSO, SetRule("r", Rule(False, "anyone")))
    assert [stored.number for stored in rules_of(chain.state, "r")] == [1, 3]
    monkeypatch.setattr(access, "MOST_RULES", 2)
    monkeypatch.setattr(access, "MOST_RESOURCES", 1)
    assert refusal(chain, DSO, SetRule("r", Rule(True, "anyone"))) == "too_many_rules"
    assert refusal(chain, DSO, SetRule("other", Rule(True, "anyone"))) == "too_many_resources"


def test_strikes_of_two_wallets_block_all_public_wallets_until_a_time(chain: Rehearsal) -> None:
    chain.advance(START + 1_000)
    chain.expect(DSO, SetRule("r", Rule(True, "anyone", action="read", per_minute=2)))
    assert refusal(chain, DSO, excess(chain, TWIN, 3)) == "no_excess"  # the rule is younger than the minute
    chain.advance(START + 60_000)
    assert refusal(chain, DSO, excess(chain, TWIN, 2)) == "no_excess"
    assert refusal(chain, TWIN, excess(chain, TWIN, 3)) == "not_to_this_node"
    assert refusal(chain, DSO, excess(chain, key("stranger"), 3)) == "unknown_wallet"
    chain.expect(DSO, excess(chain, TWIN, 3))
    until = START + 60_000 + HOUR
    assert blocked_until(chain.state, TWIN.public, chain.now) == until
    assert blocked_until(chain.state, SECOND.public, chain.now) is None
    assert refusal(chain, DSO, excess(chain, TWIN, 4)) == "already_shown"
    chain.advance(START + 120_000)
    assert refusal(chain, DSO, excess(chain, TWIN, 3)) == "already_blocked"
    chain.expect(DSO, excess(chain, SECOND, 3))
    for wallet in (TWIN, SECOND):
        assert blocked_until(chain.state, wallet.public, chain.now) == chain.now + DAY
    assert blocked_until(chain.state, TWIN.public, chain.now + DAY) is None
    # nothing of it stays for ever
    chain.advance(chain.now + 30 * DAY + 130_000)
    assert list(chain.scan(BLOCKS)) == []
    assert list(chain.scan(EVIDENCE)) == []


def test_evidence_is_one_minutes_and_recent(chain: Rehearsal) -> None:
    chain.expect(DSO, SetRule("r", Rule(True, "anyone", action="read", per_minute=2)))
    chain.advance(START + 60_000)
    early = excess(chain, TWIN, 2)
    chain.advance(START + 120_000)
    late = excess(chain, TWIN, 3)
    mixed = ReportExcess((*early.evidence, late.evidence[2]))
    assert refusal(chain, DSO, mixed) == "not_one_minute"
    chain.advance(START + 31 * DAY)
    assert refusal(chain, DSO, late) == "not_of_this_time"


def test_batches_stay_bounded(chain: Rehearsal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "KEPT_BATCHES", 3)
    for _ in range(5):
        chain.advance(chain.now + 1_000)
        chain.expect(DSO, RecordDecisions(bytes(32), 1, 0, chain.now - 1_000, chain.now))
    assert [number for (_, number), _ in chain.scan(BATCHES)] == [2, 3, 4]
    assert refusal(chain, DSO, RecordDecisions(bytes(32), 1, 0, chain.now, chain.now)) == "batches_overlap"
    assert refusal(chain, DSO, RecordDecisions(bytes(32), 1, 0, chain.now, chain.now + DAY)) == "batches_overlap"
    assert KEPT_BATCHES == 1_024
