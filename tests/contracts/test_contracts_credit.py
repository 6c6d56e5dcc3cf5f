"""Loans: requested, priced, spent as tokens, repaid in time, late, or written off."""

import hashlib

import pytest
from contracts_world import BANK, DAY, HOUR, HUB, QUARTER, START, World, key

from gridpool.contracts import coins, credit, energy, members
from gridpool.contracts.credit import (
    AcceptLoan,
    AskBank,
    CreditHistory,
    CreditParameters,
    CreditRecord,
    GrantBank,
    History,
    OfferLoan,
    PayBill,
    RepayBank,
    RepayLoan,
    RequestLoan,
    SetCreditParameters,
    loan_id,
)
from gridpool.contracts.members import Admit, NewMember, Role
from gridpool.ledger.contract import Refused

T = START + 4 * QUARTER
DIGEST = hashlib.sha256(b"request").digest()


@pytest.fixture
def world() -> World:
    return World("ab", coins_each=0)


def borrow(world: World, name: str = "a", *, demand_wh: int = 1_000, digest: bytes = DIGEST) -> bytes:
    wallet = world.wallets[name]
    loan = loan_id(wallet.public, digest)
    world.chain.expect(wallet, RequestLoan(BANK.public, digest))
    world.chain.expect(BANK, OfferLoan(loan, demand_wh, 200_000, True, True))
    world.chain.expect(wallet, AcceptLoan(loan))
    return loan


def loan_of(world: World, loan: bytes) -> credit.Loan:
    held = world.chain.get(credit.LOANS, loan)
    assert held is not None
    return held


def fund(world: World, name: str, amount: int) -> None:
    world.chain.expect(BANK, coins.Transfer(world.wallets[name].public, amount))


def test_loan_for_k_below_zero_is_the_geometric_mean_price(world: World) -> None:
    loan = loan_of(world, borrow(world))
    # k = (1 - 3) kWh x 0.2 coins; lambda = 1/2; value 10 of 34 -> grade 25 -> gamma = 11/35
    gamma, eta, lam, t, c, d = 11 / 35, 3.5, 0.5, 1 / 30, 0.1, 200_000
    k = -400_000
    g, m = gamma / eta + 1 - gamma, (lam + eta - lam * eta) / eta
    alpha = (gamma * t * c / g * lam * d / (-k * m)) ** 0.5
    assert loan.alpha_ppm == pytest.approx(alpha * 1e6, abs=1)
    assert loan.amount == pytest.approx(lam * d / (alpha * m) + k, rel=1e-3)
    assert loan.interest == loan.amount * loan.alpha_ppm // 3_500_000
    assert loan.penalty == loan.amount * loan.alpha_ppm // 1_000_000


def test_loan_for_k_not_below_zero_takes_the_highest_penalty_rate(world: World) -> None:
    loan = loan_of(world, borrow(world, demand_wh=5_000))
    assert loan.alpha_ppm == CreditParameters().alpha_max_ppm
    m = (0.5 + 3.5 - 1.75) / 3.5
    assert loan.amount == pytest.approx(0.5 * 200_000 / (0.05 * m) + 400_000, abs=2)


def test_token_backs_an_order_and_is_renewed_by_its_payment(world: World) -> None:
    world.tags(T)
    loan = borrow(world)
    fund(world, "b", 1_000_000)
    too_much = energy.PlaceOrder(T, "buy", 90_000, 1_000_000, loan=loan)
    assert world.chain.submit(world.wallets["a"], too_much).code == "not_enough_in_token"
    assert world.chain.submit(world.wallets["b"], energy.PlaceOrder(T, "buy", 1, 1, loan=loan)).code == "not_your_token"
    world.order("a", T, "buy", 1_000, 200_000, loan=loan)
    token = world.chain.get(credit.TOKENS, loan)
    assert token is not None
    assert token.reserved == 200_000
    world.order("b", T, "sell", 600, 200_000)
    world.close(T)
    token = world.chain.get(credit.TOKENS, loan)
    assert token is not None
    assert (token.reserved, token.balance, token.serial) == (0, token.amount - 120_000, 1)
    assert token.payments != bytes(32)
    world.chain.advance(T + QUARTER)
    world.read("a", T, 600, 0)
    world.read("b", T, 0, 500)
    before = world.balance("b")
    world.chain.advance(T + 2 * QUARTER + HOUR + 2 * QUARTER)
    assert world.balance("b") < before + 120_000
    record = world.chain.get(credit.RECORDS, world.wallets["a"].public)
    assert record == CreditRecord(10_000_000 + 20_000, 0, 0)


def test_repaid_in_buffer_costs_interest_and_raises_the_credit_value(world: World) -> None:
    loan = borrow(world)
    held = loan_of(world, loan)
    bank = world.balance(BANK)
    fund(world, "a", held.interest)
    world.chain.expect(world.wallets["a"], RepayLoan(loan, from_token=True))
    assert world.chain.submit(world.wallets["a"], RepayLoan(loan, from_token=True)).code == "not_enough_in_token"
    world.chain.expect(world.wallets["a"], RepayLoan(loan))
    assert loan_of(world, loan).status == "repaid"
    assert world.balance(BANK) == bank + held.amount
    assert world.chain.get(credit.RECORDS, world.wallets["a"].public) == CreditRecord(11_000_000, 1, 0)
    world.chain.advance(START + 2 * DAY)
    assert loan_of(world, loan).status == "repaid"
    assert world.chain.submit(world.wallets["a"], RepayLoan(loan)).code == "nothing_outstanding"


def test_late_loan_costs_the_penalty_once_and_lowers_the_credit_value(world: World) -> None:
    loan = borrow(world)
    held = loan_of(world, loan)
    world.chain.expect(world.wallets["a"], PayBill(loan, world.wallets["b"].public, 300_000))
    world.chain.advance(START + DAY + HOUR)
    late = loan_of(world, loan)
    assert late.status == "late"
    assert late.paid == held.amount - 300_000
    assert credit.outstanding(late) == 300_000 + held.penalty
    record = world.chain.get(credit.RECORDS, world.wallets["a"].public)
    assert record == CreditRecord(10_020_000 - held.amount // 2, 0, 1)
    fund(world, "a", 300_000 + held.penalty)
    world.chain.expect(world.wallets["a"], RepayLoan(loan))
    assert loan_of(world, loan).status == "repaid"
    assert world.chain.get(credit.RECORDS, world.wallets["a"].public) == record  # late is late: nothing is gained
    assert world.balance("a") == 0
    world.chain.advance(START + 40 * DAY)
    assert world.chain.get(members.BANNED, world.wallets["a"].public) is None


def test_written_off_loan_bans_the_wallet(world: World) -> None:
    loan = borrow(world)
    world.chain.expect(world.wallets["a"], PayBill(loan, world.wallets["b"].public, 300_000))
    world.chain.advance(START + 31 * DAY + HOUR)
    assert loan_of(world, loan).status == "written_off"
    assert world.chain.submit(world.wallets["a"], RequestLoan(BANK.public, bytes(32))).code == "banned"


def test_bank_attests_its_checks_and_lends_only_to_the_sound(world: World) -> None:
    wallet = world.wallets["a"]
    loan = loan_id(wallet.public, DIGEST)
    world.chain.expect(wallet, RequestLoan(BANK.public, DIGEST))

    def offer(wealth: bool = True, income: bool = True, demand: int = 1_000, price: int = 200_000) -> str:
        return world.chain.submit(BANK, OfferLoan(loan, demand, price, wealth, income)).code

    assert offer(wealth=False) == "checks_not_attested"
    assert offer(income=False) == "checks_not_attested"
    assert offer(price=0) == "terms_out_of_range"
    assert world.chain.submit(HUB, OfferLoan(loan, 1, 1, True, True)).code == "role_missing"
    assert world.chain.submit(wallet, AcceptLoan(loan)).code == "nothing_offered"
    world.decide(CreditHistory((History(wallet.public, -1, 0, 3, START),)))
    assert offer() == "credit_value_negative"
    world.decide(CreditHistory((History(wallet.public, 34_000_000, 3, 0, START),)))
    assert offer() == "ok"
    world.chain.advance(START + HOUR)
    assert world.chain.submit(wallet, AcceptLoan(loan)).code == "offer_expired"
    assert world.chain.submit(wallet, RequestLoan(HUB.public, bytes(32))).code == "not_a_bank"
    sealed = RequestLoan(BANK.public, bytes(32), b"sealed")
    assert world.chain.submit(wallet, sealed).code == "other_content"


def test_token_ends_with_its_validity_and_its_borrower_spends_it_alone(world: World) -> None:
    loan = borrow(world)
    b = world.wallets["b"]
    assert world.chain.submit(b, PayBill(loan, b.public, 1)).code == "not_your_token"
    assert world.chain.submit(world.wallets["a"], PayBill(loan, key("x").public, 1)).code == "unknown_wallet"
    assert world.chain.submit(b, RepayLoan(loan)).code == "not_your_loan"
    world.chain.advance(START + DAY + 1)
    assert world.chain.submit(world.wallets["a"], PayBill(loan, b.public, 1)).code == "token_not_valid"


def test_bank_short_of_coins_borrows_from_another(world: World) -> None:
    small = key("small bank")
    world.decide(Admit((NewMember(small.public, "Small bank", (Role.BANK,), public_wallets=(small.public,)),)))
    wallet = world.wallets["a"]
    loan = loan_id(wallet.public, DIGEST)
    world.chain.expect(wallet, RequestLoan(small.public, DIGEST))
    offer = OfferLoan(loan, 1_000, 200_000, True, True)
    assert world.chain.submit(small, offer).code == "bank_short_of_coins"
    terms = (50_000_000, 1_000, DAY)
    assert world.chain.submit(BANK, GrantBank(small.public, *terms)).code == "not_asked_for"
    world.chain.expect(small, AskBank(BANK.public, *terms))
    assert world.chain.submit(BANK, GrantBank(small.public, 50_000_000, 2_000, DAY)).code == "other_terms"
    world.chain.expect(BANK, GrantBank(small.public, *terms))
    assert world.chain.submit(BANK, GrantBank(small.public, *terms)).code == "other_terms"
    world.chain.expect(small, offer)
    world.chain.expect(wallet, AcceptLoan(loan))
    world.chain.expect(small, RepayBank(BANK.public, 10_000_000))
    debt = world.chain.get(credit.DEBTS, (small.public, BANK.public))
    assert debt is not None
    assert debt.owed == 40_050_000


def test_parameters_out_of_range_are_refused(world: World) -> None:
    for bad in (CreditParameters(best_value=0), CreditParameters(eta_ppm=1_000_000), CreditParameters(cost_ppm=0)):
        with pytest.raises(Refused, match="parameters_out_of_range"):
            world.decide(SetCreditParameters(bad))
    world.decide(SetCreditParameters(CreditParameters(buffer_ms=2 * DAY)))
    assert loan_of(world, borrow(world)).due == world.chain.now + 2 * DAY


def test_bank_cannot_lend_what_it_has_reserved(world: World) -> None:
    wallet = world.wallets["a"]
    loan = loan_id(wallet.public, DIGEST)
    world.chain.expect(wallet, RequestLoan(BANK.public, DIGEST))
    world.chain.expect(BANK, OfferLoan(loan, 1_000, 200_000, True, True))
    world.chain.expect(BANK, coins.RequestRedemption(world.balance(BANK), "all"))
    assert world.chain.submit(wallet, AcceptLoan(loan)).code == "not_enough_coins"
