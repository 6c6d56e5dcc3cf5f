"""Settlement on the ledger: claims, disputes, cycles that net themselves, deposits, the fund, and defaults."""

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridpool.contracts import coins, members
from gridpool.contracts.coins import CoinParameters
from gridpool.contracts.members import FoundingMember, MemberParameters, Role
from gridpool.contracts.settlement import (
    CYCLES,
    DEPOSITS,
    PERIODS,
    AcceptAgreement,
    ClaimUsage,
    DecideDispute,
    FundGuarantee,
    Item,
    Itemise,
    OfferAgreement,
    Owe,
    PlaceDeposit,
    WithdrawDeposit,
)
from gridpool.contracts.settlement_bundles import settlement
from gridpool.contracts.slices import slices
from gridpool.contracts.spectrum import spectrum
from gridpool.ledger.genesis import Genesis
from gridpool.ledger.keys import KeyPair
from gridpool.ledger.rehearsal import Rehearsal
from gridpool.ledger.rules import Rules
from gridpool.ledger.types import encode

WEEK = 7 * 86_400_000
START = 2_922 * WEEK  # a cycle begins here
TERMS = bytes(31) + b"t"
ROOT = bytes(31) + b"r"
NAMES = ("alfa", "bravo", "charlie", "delta")


def key(name: str) -> KeyPair:
    return KeyPair(hashlib.sha256(b"settle" + name.encode()).digest())


def stage(purse: dict[str, int] | None = None) -> Rehearsal:
    purse = purse or dict.fromkeys(NAMES, 1_000)
    keeper = key("keeper")
    genesis = Genesis(
        chain="settlement-test",
        time_ms=START,
        market_clock="ticks",
        clock_keeper=keeper.public,
        max_step_ms=2**60,
        parameters=(
            (
                "members",
                encode(
                    MemberParameters(
                        founders=tuple(FoundingMember(key(n).public, n, (Role.OPERATOR,)) for n in NAMES),
                        seats=(members.NewSeat(key("seat").public, "council"),),
                    )
                ),
            ),
            ("coins", encode(CoinParameters(tuple(coins.Payment(key(n).public, purse[n]) for n in NAMES if purse[n])))),
        ),
    )
    return Rehearsal(Rules([members.members, coins.coins, slices, spectrum, settlement]), genesis, clock_keeper=keeper)


def has(ledger: Rehearsal, name: str) -> int:
    return coins.balance(ledger.state, key(name).public)


@pytest.fixture
def agreed() -> Rehearsal:
    ledger = stage()
    offer = OfferAgreement(key("alfa").public, key("bravo").public, TERMS, START, START + 9 * WEEK)
    ledger.expect(key("alfa"), offer)
    assert ledger.submit(key("alfa"), AcceptAgreement(1, TERMS)).code == "not_the_other_party"
    assert ledger.submit(key("bravo"), AcceptAgreement(1, ROOT)).code == "not_these_terms"
    ledger.expect(key("bravo"), AcceptAgreement(1, TERMS))
    return ledger


def test_equal_claims_are_final_and_paid_with_the_cycle(agreed):
    agreed.expect(key("bravo"), ClaimUsage(1, 202606, ROOT, 5, 300))
    assert agreed.get(PERIODS, (1, 202606)).standing == "open"
    agreed.expect(key("alfa"), ClaimUsage(1, 202606, ROOT, 5, 300))
    assert agreed.get(PERIODS, (1, 202606)).standing == "final"
    assert agreed.submit(key("alfa"), ClaimUsage(1, 202606, ROOT, 5, 1)).code == "period_is_final"
    agreed.advance(START + WEEK)
    assert (has(agreed, "alfa"), has(agreed, "bravo")) == (700, 1_300)
    assert agreed.get(CYCLES, START // WEEK).net == 300


def test_a_claim_that_nobody_answers_falls_to_the_side_that_made_it(agreed):
    agreed.expect(key("bravo"), ClaimUsage(1, 1, ROOT, 5, 300))
    agreed.advance(START + 2 * 86_400_000)
    period = agreed.get(PERIODS, (1, 1))
    assert (period.standing, period.amount) == ("final", 300)


def test_claims_that_differ_open_a_dispute_with_evidence(agreed):
    agreed.expect(key("bravo"), ClaimUsage(1, 1, ROOT, 5, 300))
    agreed.expect(key("alfa"), ClaimUsage(1, 1, ROOT, 4, 200))
    assert agreed.get(PERIODS, (1, 1)).standing == "disputed"
    items = (Item(bytes(32), 60), Item(ROOT, 7))
    agreed.expect(key("alfa"), Itemise(1, 1, items))
    assert agreed.submit(key("charlie"), Itemise(1, 1, items)).code == "not_a_party"
    assert agreed.submit(key("bravo"), Itemise(1, 1, items[::-1])).code == "items_ascend_and_are_few"
    agreed.advance(START + 3 * 86_400_000)
    assert agreed.get(PERIODS, (1, 1)).standing == "disputed"
    over = members.propose(DecideDispute(1, 1, 301))
    assert agreed.submit(key("seat"), over).code == "outside_the_claims"
    agreed.expect(key("seat"), members.propose(DecideDispute(1, 1, 240)))
    assert agreed.get(PERIODS, (1, 1)).amount == 240


def test_a_dispute_ends_when_the_sides_come_to_agree(agreed):
    agreed.expect(key("bravo"), ClaimUsage(1, 1, ROOT, 5, 300))
    agreed.expect(key("alfa"), ClaimUsage(1, 1, ROOT, 4, 200))
    agreed.expect(key("bravo"), ClaimUsage(1, 1, ROOT, 4, 200))
    assert agreed.get(PERIODS, (1, 1)).standing == "final"


def test_a_default_is_borne_by_deposit_then_fund_then_creditors_pro_rata():
    ledger = stage({"alfa": 100, "bravo": 1_000, "charlie": 1_000, "delta": 1_000})
    ledger.expect(key("alfa"), PlaceDeposit(30))
    ledger.expect(key("delta"), FundGuarantee(50))
    ledger.expect(key("alfa"), Owe(key("bravo").public, 200, "x"), Owe(key("charlie").public, 100, "y"))
    assert ledger.submit(key("alfa"), WithdrawDeposit(30)).code == "owes_in_this_cycle"
    ledger.advance(START + WEEK)
    cycle = ledger.get(CYCLES, START // WEEK)
    (cover,) = cycle.covers
    assert (cover.owed, cover.paid, cover.deposit, cover.fund) == (300, 70, 30, 50)
    assert dict(cover.losses) == {key("bravo").public: 100, key("charlie").public: 50}
    assert (has(ledger, "bravo"), has(ledger, "charlie"), has(ledger, "alfa")) == (1_100, 1_050, 0)
    assert ledger.get(DEPOSITS, key("alfa").public).amount == 0


def test_deposits_come_back_when_nothing_is_owed():
    ledger = stage()
    ledger.expect(key("alfa"), PlaceDeposit(300))
    assert ledger.submit(key("alfa"), WithdrawDeposit(301)).code == "not_enough_deposited"
    ledger.expect(key("alfa"), WithdrawDeposit(100))
    ledger.expect(key("alfa"), WithdrawDeposit(200))
    assert has(ledger, "alfa") == 1_000


debts = st.lists(
    st.tuples(st.sampled_from(NAMES), st.sampled_from(NAMES), st.integers(1, 900)).filter(lambda d: d[0] != d[1]),
    max_size=8,
)


@settings(deadline=None, max_examples=40)
@given(debts, st.tuples(*[st.integers(0, 1_000)] * 4), st.tuples(*[st.integers(0, 300)] * 4), st.integers(0, 200))
def test_cycles_conserve_coins_and_covers_add_up(owed, purses, deposits, fund):
    ledger = stage(dict(zip(NAMES, (purse + 500 for purse in purses), strict=True)))
    for name, deposit in zip(NAMES, deposits, strict=True):
        ledger.expect(key(name), PlaceDeposit(deposit))
    ledger.expect(key("delta"), FundGuarantee(fund))
    positions = dict.fromkeys(NAMES, 0)
    for debtor, creditor, amount in owed:
        ledger.expect(key(debtor), Owe(key(creditor).public, amount, ""))
        positions[debtor] -= amount
        positions[creditor] += amount
    before = {name: has(ledger, name) for name in NAMES}
    ledger.advance(START + WEEK)
    if not owed:
        return
    cycle = ledger.get(CYCLES, START // WEEK)
    assert cycle.net == sum(p for p in positions.values() if p > 0)
    losses = dict.fromkeys(NAMES, 0)
    for cover in cycle.covers:
        assert cover.owed == cover.paid + cover.deposit + cover.fund + sum(amount for _, amount in cover.losses)
        for wallet, amount in cover.losses:
            losses[next(name for name in NAMES if key(name).public == wallet)] += amount
    paid = {next(n for n in NAMES if key(n).public == cover.member): cover.paid for cover in cycle.covers}
    for name in NAMES:
        change = has(ledger, name) - before[name]
        if positions[name] > 0:
            assert change == positions[name] - losses[name] >= 0
        else:
            assert change == -paid.get(name, -positions[name])


def test_no_sum_of_debts_leaves_63_bits(monkeypatch):
    monkeypatch.setattr("gridpool.contracts.settlement.MOST_GROSS", 1_500)
    ledger = stage()
    ledger.expect(key("alfa"), Owe(key("bravo").public, 1_000, ""))
    assert ledger.submit(key("bravo"), Owe(key("alfa").public, 501, "")).code == "too_much_owed"
    ledger.expect(key("bravo"), Owe(key("alfa").public, 500, ""))
    ledger.advance(START + WEEK)
    ledger.expect(key("bravo"), Owe(key("alfa").public, 1_500, ""))
