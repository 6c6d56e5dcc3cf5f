"""The same loan prices in integers, as the ledger computes them: rates in ppm, coins in micro-coins, energy in Wh."""

from math import isqrt

import msgspec

from gridpool.errors import RefusedInput
from gridpool.markets.orders import WH_PER_KWH

__all__ = [
    "GRADES",
    "LoanOffer",
    "LoanTerms",
    "gamma_of_grade",
    "grade_of_credit",
    "interest_due",
    "offer_loan",
    "penalty_due",
    "repayment_of_record",
]

PPM = 1_000_000
GRADES = 35
"""Number of credit grades; grade 1 is the best."""


class LoanTerms(msgspec.Struct, frozen=True, kw_only=True):
    """What the bank knows about a borrower, letters as in ``loans``, ratios in ppm.

    ``months_ppm`` is the loan's time t in millionths of a month; ``cost_ppm`` is c a month; ``price`` is in
    micro-coins per kWh.
    """

    repayment_ppm: int
    gamma_ppm: int
    satisfaction: int
    comfort_wh: int
    demand_wh: int
    price: int
    cost_ppm: int
    months_ppm: int
    eta_ppm: int


class LoanOffer(msgspec.Struct, frozen=True, kw_only=True):
    """A priced loan: amount and expected profit in micro-coins, alpha and beta (a month) in ppm."""

    amount: int
    alpha_ppm: int
    beta_ppm: int
    bank_profit: int


def repayment_of_record(repaid: int, late: int) -> int:
    """Give lambda in ppm from a repayment record, (s + 1)/(s + f + 2), rounded down."""
    return (repaid + 1) * PPM // (repaid + late + 2)


def gamma_of_grade(grade: int) -> int:
    """Give gamma in ppm of a credit grade 1..35, 1 - (n - 1)/35, rounded down."""
    if not 1 <= grade <= GRADES:
        raise RefusedInput(f"grade {grade} is not one of 1 to {GRADES}")
    return (GRADES - grade + 1) * PPM // GRADES


def grade_of_credit(credit: int, *, best: int) -> int:
    """Give the grade of a credit value: 35 at 0, one better each ``best``/34, 1 from ``best`` on.

    Requires ``credit >= 0`` (a negative credit value takes no loan) and ``best > 0``.
    """
    if credit < 0 or best < 1:
        raise RefusedInput(f"credit value {credit} of {best} has no grade; it must not be negative")
    return max(1, GRADES - credit * (GRADES - 1) // best)


def offer_loan(terms: LoanTerms, *, alpha_max_ppm: int | None = None) -> LoanOffer | None:
    """Price a loan as ``loans.price_loan`` does, every division rounded down, roots by integer square root.

    Returns None where nothing is traded. Raises RefusedInput for values out of range, and for k >= 0 without
    ``alpha_max_ppm``.
    """
    _check(terms, alpha_max_ppm)
    lam, gamma, eta = terms.repayment_ppm, terms.gamma_ppm, terms.eta_ppm
    k = (terms.demand_wh - terms.comfort_wh) * terms.price  # micro-coins x 1000
    # g = g_top / (eta PPM), m = m_top / (eta PPM)
    g_top = gamma * PPM + (PPM - gamma) * eta
    m_top = (lam + eta) * PPM - lam * eta
    # the break-even rate gamma t c / g in ppm is floor_top / floor_below
    floor_top = gamma * terms.months_ppm * terms.cost_ppm * eta
    floor_below = g_top * PPM
    if k < 0:
        # the choke rate lambda d / (-k m) in ppm is choke_top / choke_below
        choke_top = lam * terms.satisfaction * WH_PER_KWH * eta * PPM
        choke_below = -k * m_top
        if floor_top * choke_below >= choke_top * floor_below:
            return None
        alpha = isqrt(floor_top * choke_top // (floor_below * choke_below))
        if alpha_max_ppm is not None:
            alpha = min(alpha, alpha_max_ppm)
    elif alpha_max_ppm is None:
        raise RefusedInput("k is not negative, so the bank's profit has no greatest value; set a highest penalty rate")
    else:
        alpha = alpha_max_ppm
    if alpha * floor_below <= floor_top:
        return None
    # R = lambda d / (alpha m) + k
    amount = (lam * terms.satisfaction * eta * PPM * WH_PER_KWH + k * alpha * m_top) // (alpha * m_top * WH_PER_KWH)
    if amount <= 0:
        return None
    profit = amount * (alpha * floor_below - floor_top) * g_top // (floor_below * eta * PPM * PPM)
    beta = alpha * PPM * PPM // (eta * terms.months_ppm)
    return LoanOffer(amount=amount, alpha_ppm=alpha, beta_ppm=beta, bank_profit=profit)


def interest_due(amount: int, alpha_ppm: int, eta_ppm: int) -> int:
    """Give the interest beta R t = alpha R / eta of a loan repaid in time, rounded down, in micro-coins."""
    return amount * alpha_ppm // eta_ppm


def penalty_due(amount: int, alpha_ppm: int) -> int:
    """Give the penalty alpha R of a loan repaid late, rounded down, in micro-coins."""
    return amount * alpha_ppm // PPM


def _check(terms: LoanTerms, alpha_max_ppm: int | None) -> None:
    for name, value in (("lambda", terms.repayment_ppm), ("gamma", terms.gamma_ppm)):
        if not 0 < value <= PPM:
            raise RefusedInput(f"{name} is {value} ppm; give 1 to {PPM}")
    for name, value in (
        ("d", terms.satisfaction),
        ("theta", terms.comfort_wh),
        ("the price", terms.price),
        ("the cost", terms.cost_ppm),
        ("the time", terms.months_ppm),
    ):
        if value < 1:
            raise RefusedInput(f"{name} of a loan is {value}; give at least 1")
    if terms.demand_wh < 0:
        raise RefusedInput(f"the demand of a borrower is {terms.demand_wh} Wh; give 0 or more")
    if terms.eta_ppm <= PPM:
        raise RefusedInput(f"eta is {terms.eta_ppm} ppm; give more than {PPM}")
    if alpha_max_ppm is not None and alpha_max_ppm < 1:
        raise RefusedInput(f"the highest penalty rate is {alpha_max_ppm} ppm; give at least 1")
