"""Loan prices against brute force over the rate, and the integer form against the real one."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gridpool.errors import RefusedInput
from gridpool.markets.loan_rates import (
    LoanTerms,
    gamma_of_grade,
    grade_of_credit,
    interest_due,
    offer_loan,
    penalty_due,
    repayment_of_record,
)
from gridpool.markets.loans import (
    Borrower,
    bank_profit,
    borrower_utility,
    break_even_rate,
    loan_demand,
    price_loan,
)

MILLION = 1_000_000


@st.composite
def terms(draw, least_demand=0):
    """Random terms in ppm; the paper's Table II lies inside."""
    return LoanTerms(
        repayment_ppm=draw(st.integers(10_000, MILLION)),
        gamma_ppm=draw(st.integers(10_000, MILLION)),
        satisfaction=draw(st.integers(1_000, 50_000)) * MILLION,
        comfort_wh=draw(st.integers(500, 3_000)) * 1000,
        demand_wh=draw(st.integers(least_demand, 4_000)) * 1000,
        price=draw(st.integers(100_000, 3 * MILLION)),
        cost_ppm=draw(st.integers(50_000, 300_000)),
        months_ppm=draw(st.integers(100_000, 12 * MILLION)),
        eta_ppm=draw(st.integers(1_100_000, 6 * MILLION)),
    )


def borrower(t: LoanTerms) -> Borrower:
    return Borrower(
        repayment=t.repayment_ppm / 1e6,
        grade_factor=t.gamma_ppm / 1e6,
        satisfaction=t.satisfaction / 1e6,
        comfort=t.comfort_wh / 1e3,
        demand=t.demand_wh / 1e3,
        price=t.price / 1e6,
        cost=t.cost_ppm / 1e6,
        months=t.months_ppm / 1e6,
        penalty_ratio=t.eta_ppm / 1e6,
    )


def plain_profit(alpha: float, b: Borrower) -> float:
    """The game from the paper's equations (2), (3) and (8), written out without the short forms k, g and m."""
    beta = alpha / (b.penalty_ratio * b.months)
    k = b.demand * b.price - b.comfort * b.price
    loan = b.repayment * b.satisfaction / (b.repayment * beta * b.months + (1 - b.repayment) * alpha) + k
    loan = max(loan, 0.0)
    return b.grade_factor * (beta * loan * b.months - loan * b.months * b.cost) + (1 - b.grade_factor) * alpha * loan


@given(terms(), st.none() | st.integers(10_000, 10 * MILLION))
@settings(deadline=None, max_examples=200)
def test_no_rate_on_a_fine_grid_beats_the_closed_form(t, alpha_max_ppm):
    b = borrower(t)
    alpha_max = None if alpha_max_ppm is None else alpha_max_ppm / 1e6
    if b.shortfall >= 0 and alpha_max is None:
        with pytest.raises(RefusedInput):
            price_loan(b, alpha_max=alpha_max)
        return
    ours = price_loan(b, alpha_max=alpha_max)
    top = alpha_max if alpha_max is not None else 1e4
    grid = np.geomspace(min(1e-5, top / 2), top, 4000)
    best = max(plain_profit(float(a), b) for a in grid)
    if not ours.traded:
        assert best <= 1e-6
        assert ours.alpha is ours.beta is ours.loan is ours.bank_profit is ours.borrower_utility is None
        return
    assert ours.alpha <= top * (1 + 1e-12) or alpha_max is None
    assert ours.bank_profit > 0
    assert ours.loan > 0
    assert ours.bank_profit >= best * (1 - 1e-9)
    assert ours.bank_profit == pytest.approx(plain_profit(ours.alpha, b), rel=1e-9)
    assert ours.beta == pytest.approx(ours.alpha / (b.penalty_ratio * b.months))


@given(terms())
@settings(deadline=None, max_examples=100)
def test_the_followers_loan_is_its_best_answer(t):
    b = borrower(t)
    assume(b.shortfall < 0)
    ours = price_loan(b)
    assume(ours.traded)
    amounts = np.linspace(max(1e-9, ours.loan * 0.2), ours.loan * 5, 4001)
    assert ours.borrower_utility >= np.max(borrower_utility(ours.alpha, amounts, b)) - 1e-9 * abs(ours.borrower_utility)
    assert float(loan_demand(ours.alpha, b)) == ours.loan


@given(terms())
@settings(deadline=None, max_examples=100)
def test_the_published_rate_is_the_correct_one_where_k_is_negative_and_trade_pays(t):
    b = borrower(t)
    assume(b.shortfall < 0)
    ours = price_loan(b)
    if ours.traded:
        assert ours.published.alpha == pytest.approx(ours.alpha, rel=1e-9)
        assert ours.published.bank_profit == pytest.approx(ours.bank_profit, rel=1e-6)
    else:
        # as printed, the formulas still name a rate: two negative factors may even look like a profit
        assert ours.published.loan <= 1e-6
    assert ours.published.limit is None


@given(terms(least_demand=3_001))
@settings(deadline=None, max_examples=60)
def test_a_positive_k_needs_a_highest_rate_and_the_published_zero_is_the_worst(t):
    b = borrower(t)
    ours = price_loan(b, alpha_max=20.0)
    assert (ours.published.alpha, ours.published.loan, ours.published.limit) == (0.0, 0.0, "-inf")
    falling = [float(bank_profit(a, loan_demand(a, b), b)) for a in (1e-6, 1e-9, 1e-12)]
    assert falling[1] / falling[2] == pytest.approx(1e-3, rel=0.01)  # as -1/alpha: no bound
    assert falling[2] < 0
    if ours.traded:
        assert ours.alpha == 20.0
        higher = price_loan(b, alpha_max=40.0)
        assert higher.bank_profit > ours.bank_profit


@given(terms(), st.none() | st.integers(10_000, 10 * MILLION))
@settings(deadline=None, max_examples=400)
def test_the_integer_form_follows_the_real_one(t, alpha_max_ppm):
    b = borrower(t)
    alpha_max = None if alpha_max_ppm is None else alpha_max_ppm / 1e6
    try:
        real = price_loan(b, alpha_max=alpha_max)
    except RefusedInput:
        with pytest.raises(RefusedInput):
            offer_loan(t, alpha_max_ppm=alpha_max_ppm)
        return
    offer = offer_loan(t, alpha_max_ppm=alpha_max_ppm)
    if offer is None:
        # nothing is lent; the real form may still see a loan within a ppm of the break-even rate, or below a micro-coin
        floor = float(break_even_rate(b))
        assert not real.traded or real.alpha - floor <= 1.1e-6 or real.loan < 1e-6
        return
    assert real.traded
    assert abs(offer.alpha_ppm - real.alpha * 1e6) <= 1 + 1e-6 * real.alpha
    # alpha is rounded down by less than 1 ppm, which lifts R - k by less than one part in alpha_ppm
    rounding = (real.loan - real.k) * 1e6 / offer.alpha_ppm
    assert -2 <= offer.amount - real.loan * 1e6 <= rounding * (1 + 1e-6) + 2 + 1e-9 * abs(real.k) * 1e6
    assert offer.bank_profit > 0
    # exact arithmetic of what was promised: the loan at the offered rate, in rationals
    from fractions import Fraction as F

    lam, eta = F(t.repayment_ppm, MILLION), F(t.eta_ppm, MILLION)
    m = (lam + eta - lam * eta) / eta
    k = F((t.demand_wh - t.comfort_wh) * t.price, 1000)
    exact = lam * t.satisfaction / (F(offer.alpha_ppm, MILLION) * m) + k
    assert offer.amount == math.floor(exact)
    g = F(t.gamma_ppm, MILLION) / eta + 1 - F(t.gamma_ppm, MILLION)
    cost = F(t.gamma_ppm * t.months_ppm * t.cost_ppm, MILLION**3)
    assert offer.bank_profit == math.floor(offer.amount * (F(offer.alpha_ppm, MILLION) * g - cost))
    assert offer.beta_ppm == math.floor(F(offer.alpha_ppm) / (eta * F(t.months_ppm, MILLION)))


def test_records_grades_and_dues():
    assert repayment_of_record(0, 0) == 500_000
    assert repayment_of_record(8, 0) == 900_000
    assert gamma_of_grade(1) == MILLION
    assert gamma_of_grade(35) == MILLION // 35
    assert [grade_of_credit(c, best=340) for c in (0, 9, 10, 339, 340, 10**9)] == [35, 35, 34, 2, 1, 1]
    assert interest_due(7_000, 3_500_000, 3_500_000) == 7_000
    assert penalty_due(1_000, 123_456) == 123
    for call in (lambda: gamma_of_grade(36), lambda: grade_of_credit(-1, best=10)):
        with pytest.raises(RefusedInput):
            call()


@pytest.mark.parametrize(
    "change",
    [
        {"repayment": 0.0},
        {"repayment": 1.1},
        {"grade_factor": 0.0},
        {"grade_factor": math.nan},
        {"satisfaction": 0.0},
        {"comfort": 0.0},
        {"demand": -1.0},
        {"price": math.inf},
        {"cost": 0.0},
        {"months": 0.0},
        {"penalty_ratio": 1.0},
    ],
)
def test_values_out_of_range_are_refused(change):
    values = {
        "repayment": 0.8,
        "grade_factor": 0.5,
        "satisfaction": 20_000.0,
        "comfort": 2_300.0,
        "demand": 0.0,
        "price": 1.0,
        "cost": 0.15,
        "months": 5.0,
        "penalty_ratio": 3.5,
    }
    with pytest.raises(RefusedInput):
        price_loan(Borrower(**(values | change)))
