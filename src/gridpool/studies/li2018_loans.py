"""Figs. 7 to 9: what banks and borrowers gain from priced loans, how fast the search for the price converges."""

from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from gridpool.markets.loans import (
    Borrower,
    bank_profit,
    borrower_utility,
    break_even_rate,
    choke_rate,
    loan_demand,
)

__all__ = [
    "Benefits",
    "LoanDraw",
    "Population",
    "Search",
    "allot",
    "draw_borrowers",
    "equilibrium",
    "search_rates",
]

Floats = NDArray[np.float64]
RepaymentLaw = Literal["uniform", "record"]
RandomLaw = Literal["up_to_average", "same_mean"]


class Population(msgspec.Struct, frozen=True, kw_only=True):
    """Laws of the borrowers: Table II of the paper, and what it leaves out."""

    satisfaction: tuple[float, float]
    comfort: tuple[float, float]
    months_max: float
    penalty_ratio: float
    cost: tuple[float, float]
    repayment_law: RepaymentLaw
    price: float
    demand: float


class Benefits(msgspec.Struct, frozen=True):
    """Loan, bank's and borrower's benefit of each borrower, in coins."""

    loan: Floats
    bank: Floats
    borrower: Floats


class LoanDraw(msgspec.Struct, frozen=True):
    """Borrowers in an array (draw, bank, borrower)."""

    borrowers: Borrower
    shape: tuple[int, int, int]


class Search(msgspec.Struct, frozen=True):
    """Best benefit and loan so far after each step of the search, and their values at the equilibrium."""

    rates: Floats
    bank: Floats
    loan: Floats
    bank_limit: float
    loan_limit: float


def draw_borrowers(
    rng: np.random.Generator, shape: tuple[int, int, int], shares: Floats, population: Population
) -> LoanDraw:
    """Draw borrowers: grades by their shares, gamma = 1 - (n - 1)/35, the rest uniform over its range.

    lambda is uniform over (0, 1], or (law ``record``) a borrower's record of ten loans, (s + 1)/(s + f + 2), each
    repaid in time with probability gamma.
    """
    gamma = 1 - rng.choice(len(shares), size=shape, p=shares) / len(shares)
    repayment = 1 - rng.random(shape)
    if population.repayment_law == "record":
        repayment = (rng.binomial(10, gamma) + 1) / 12
    borrowers = Borrower(
        repayment=repayment,
        grade_factor=gamma,
        satisfaction=rng.uniform(*population.satisfaction, shape),
        comfort=rng.uniform(*population.comfort, shape),
        demand=population.demand,
        price=population.price,
        cost=rng.uniform(*population.cost, shape),
        months=population.months_max * (1 - rng.random(shape)),
        penalty_ratio=population.penalty_ratio,
    )
    return LoanDraw(borrowers=borrowers, shape=shape)


def equilibrium(borrowers: Borrower, alpha_max: float | None) -> tuple[Floats, Benefits]:
    """Give every borrower's equilibrium rate and benefits at once; nothing is lent where trade does not pay.

    Requires k < 0 everywhere or ``alpha_max``.
    """
    ceiling = np.inf if alpha_max is None else alpha_max
    floor = break_even_rate(borrowers)
    with np.errstate(divide="ignore"):
        negative = borrowers.shortfall < 0
        choke = np.where(negative, choke_rate(borrowers), np.inf)
    alpha = np.where(negative, np.minimum(np.sqrt(floor) * np.sqrt(choke), ceiling), ceiling)
    traded = floor < np.minimum(choke, ceiling)
    loan = np.where(traded, loan_demand(alpha, borrowers), 0.0)
    return alpha, _benefits(alpha, loan, borrowers)


def allot(
    rng: np.random.Generator,
    draw: LoanDraw,
    *,
    average: Floats,
    interest: float,
    law: RandomLaw | None = None,
) -> Benefits:
    """Give each borrower its bank's average amount, or with ``law`` a random one, at one interest rate a month.

    ``up_to_average`` draws uniformly up to the average amount, ``same_mean`` up to twice it.
    """
    loan = np.broadcast_to(average, draw.shape)
    if law is not None:
        loan = loan * (1 - rng.random(draw.shape)) * (2.0 if law == "same_mean" else 1.0)
    alpha = draw.borrowers.penalty_ratio * draw.borrowers.months * interest
    return _benefits(alpha, loan, draw.borrowers)


def search_rates(borrowers: Borrower, *, step: float, steps: int, follow: int = 0) -> Search:
    """Run Algorithm 1 for one bank: raise alpha by ``step``, keep each borrower's best (its second test being ">").

    ``follow`` is the borrower whose loan is reported. Rate 0, where the profit is minus infinity, is passed over.
    """
    rates = step * np.arange(1, steps + 1, dtype=np.float64)
    shape = np.shape(borrowers.repayment)
    best = np.zeros(shape)
    loans = np.zeros(shape)
    bank, loan = np.empty(steps), np.empty(steps)
    for i, alpha in enumerate(rates):
        offered = loan_demand(alpha, borrowers)
        profit = bank_profit(alpha, offered, borrowers)
        better = profit > best
        best = np.where(better, profit, best)
        loans = np.where(better, offered, loans)
        bank[i], loan[i] = best.sum(), loans.reshape(-1)[follow]
    _, limit = equilibrium(borrowers, None)
    return Search(
        rates=rates,
        bank=bank,
        loan=loan,
        bank_limit=float(limit.bank.sum()),
        loan_limit=float(limit.loan.reshape(-1)[follow]),
    )


def _benefits(alpha: Floats, loan: Floats, borrowers: Borrower) -> Benefits:
    return Benefits(
        loan=loan, bank=bank_profit(alpha, loan, borrowers), borrower=borrower_utility(alpha, loan, borrowers)
    )
