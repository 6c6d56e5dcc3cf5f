"""Prices of coin loans: a bank that leads with a penalty rate, a borrower that follows with an amount.

Letters as in Li et al. 2018 section IV, per borrower: ``repayment`` is lambda, ``grade_factor`` gamma, ``satisfaction``
d, ``comfort`` theta, ``demand`` Q_min, ``price`` p, ``cost`` c, ``months`` t, ``penalty_ratio`` eta; rates alpha
(penalty, dimensionless) and beta (interest a month) = alpha / (eta t). Loans, d and k = (Q_min - theta) p in coins,
theta and Q_min in energy, p in coins per energy, c a month.
"""

import math
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from gridpool.errors import RefusedInput

__all__ = [
    "Borrower",
    "Loan",
    "PublishedLoan",
    "bank_profit",
    "borrower_utility",
    "break_even_rate",
    "choke_rate",
    "loan_demand",
    "price_loan",
    "published_loan",
]

Number = float | NDArray[np.float64]


class Borrower(msgspec.Struct, frozen=True, kw_only=True):
    """What a bank knows and believes about one borrower (or arrays of one shape about many)."""

    repayment: Any
    grade_factor: Any
    satisfaction: Any
    comfort: Any
    demand: Any
    price: Any
    cost: Any
    months: Any
    penalty_ratio: Any

    @property
    def shortfall(self) -> Any:
        """The paper's k in coins: what the loan must exceed; negative where nothing is needed."""
        return (self.demand - self.comfort) * self.price

    @property
    def yield_factor(self) -> Any:
        """The bank's income per coin lent and unit of alpha, g = gamma/eta + 1 - gamma."""
        return self.grade_factor / self.penalty_ratio + 1 - self.grade_factor

    @property
    def burden_factor(self) -> Any:
        """The borrower's cost per coin and unit of alpha, m = (lambda + eta - lambda eta)/eta."""
        return (self.repayment + self.penalty_ratio - self.repayment * self.penalty_ratio) / self.penalty_ratio


class PublishedLoan(msgspec.Struct, frozen=True):
    """What equations (8)-(13) and Algorithm 1 give as printed; ``limit`` is the bank's profit as alpha falls to 0."""

    alpha: float
    loan: float
    bank_profit: float
    limit: Literal["-inf"] | None


class Loan(msgspec.Struct, frozen=True, kw_only=True):
    """The price of a loan at the Stackelberg equilibrium; all but ``k`` null where nothing is traded.

    ``bank_profit`` is expected with the bank's belief gamma, ``bank_profit_at_repayment`` with the borrower's lambda:
    two probabilities of one event, that the loan is repaid in time.
    """

    k: float
    alpha: float | None
    beta: float | None
    loan: float | None
    bank_profit: float | None
    bank_profit_at_repayment: float | None
    borrower_utility: float | None
    traded: bool
    published: PublishedLoan


def break_even_rate(borrower: Borrower) -> Any:
    """Penalty rate at which the bank's expected profit is nil, gamma t c / g."""
    return borrower.grade_factor * borrower.months * borrower.cost / borrower.yield_factor


def choke_rate(borrower: Borrower) -> Any:
    """Penalty rate at which a borrower with k < 0 stops borrowing, lambda d / (-k m)."""
    return borrower.repayment * borrower.satisfaction / (-borrower.shortfall * borrower.burden_factor)


def loan_demand(alpha: Any, borrower: Borrower) -> Any:
    """The follower's best loan in coins at penalty rate alpha, max(0, lambda d / (alpha m) + k) (paper eq. 8)."""
    unclipped = borrower.repayment * borrower.satisfaction / (alpha * borrower.burden_factor) + borrower.shortfall
    return np.maximum(unclipped, 0.0)


def bank_profit(alpha: Any, loan: Any, borrower: Borrower, *, belief: Any = None) -> Any:
    """The leader's expected profit in coins, R (alpha g - gamma t c) (paper eq. 3).

    ``belief`` replaces gamma as the probability that the loan is repaid in time.
    """
    gamma = borrower.grade_factor if belief is None else belief
    return loan * (alpha * (gamma / borrower.penalty_ratio + 1 - gamma) - gamma * borrower.months * borrower.cost)


def borrower_utility(alpha: Any, loan: Any, borrower: Borrower) -> Any:
    """The follower's utility in coins (paper eq. 2)."""
    energy = loan / borrower.price - borrower.demand + borrower.comfort
    interest = alpha / borrower.penalty_ratio * loan
    return (
        borrower.repayment * (borrower.satisfaction * np.log(energy) - interest)
        - (1 - borrower.repayment) * alpha * loan
    )


def price_loan(borrower: Borrower, *, alpha_max: float | None = None) -> Loan:
    """Price one loan so that the bank's expected profit is greatest.

    With k < 0 trade happens only if the break-even rate lies below the choke rate and ``alpha_max``; the best rate is
    their geometric mean, or ``alpha_max`` if that is lower. With k >= 0 profit rises with the rate (to a bound at
    k = 0, without one above), so the rate is ``alpha_max``; the paper's alpha = 0 is the worst choice there.

    Raises RefusedInput for values outside their range, and for k >= 0 without ``alpha_max``.
    """
    _check(borrower, alpha_max)
    k = float(borrower.shortfall)
    ceiling = math.inf if alpha_max is None else alpha_max
    floor = float(break_even_rate(borrower))
    if k < 0:
        choke = float(choke_rate(borrower))
        traded = floor < min(choke, ceiling)
        alpha = min(math.sqrt(floor) * math.sqrt(choke), ceiling)
    else:
        if alpha_max is None:
            raise RefusedInput(
                f"k = {k:g} is not negative, so the bank's profit has no greatest value in alpha; give --alpha-max"
            )
        traded = floor < alpha_max
        alpha = alpha_max
    loan = float(loan_demand(alpha, borrower)) if traded else 0.0
    published = published_loan(borrower, alpha_max=alpha_max)
    if not traded or loan <= 0:
        return Loan(
            k=k,
            alpha=None,
            beta=None,
            loan=None,
            bank_profit=None,
            bank_profit_at_repayment=None,
            borrower_utility=None,
            traded=False,
            published=published,
        )
    return Loan(
        k=k,
        alpha=alpha,
        beta=alpha / (borrower.penalty_ratio * borrower.months),
        loan=loan,
        bank_profit=float(bank_profit(alpha, loan, borrower)),
        bank_profit_at_repayment=float(bank_profit(alpha, loan, borrower, belief=borrower.repayment)),
        borrower_utility=float(borrower_utility(alpha, loan, borrower)),
        traded=True,
        published=published,
    )


def published_loan(borrower: Borrower, *, alpha_max: float | None = None) -> PublishedLoan:
    """Give the loan that the paper's equations (8)-(13) and Algorithm 1 yield as printed.

    For k > 0 Algorithm 1 keeps its zeros; the profit that (9) tends to as alpha falls to 0 is minus infinity. At k = 0
    equation (12) divides by zero, so the rate is ``alpha_max`` (infinite without one) and the printed loan finite.
    """
    lam, gamma, t, eta = borrower.repayment, borrower.grade_factor, borrower.months, borrower.penalty_ratio
    k = borrower.shortfall
    if k > 0:
        return PublishedLoan(alpha=0.0, loan=0.0, bank_profit=0.0, limit="-inf")
    h2 = lam * borrower.satisfaction * gamma * t * borrower.cost
    h4, h6 = k * gamma * t, k * (1 - gamma)
    below = (h4 + h6 * eta * t) * (lam + eta - lam * eta)
    alpha = math.sqrt(-h2 * eta**2 * t / below) if below else math.inf
    alpha = float(min(alpha, math.inf if alpha_max is None else alpha_max))
    beta = alpha / (eta * t)
    loan = lam * borrower.satisfaction / (lam * beta * t + (1 - lam) * alpha) + k
    profit = gamma * (beta * loan * t - loan * t * borrower.cost) + (1 - gamma) * alpha * loan
    return PublishedLoan(alpha=alpha, loan=float(loan), bank_profit=float(profit), limit=None)


def _check(borrower: Borrower, alpha_max: float | None) -> None:
    def refuse(name: str, value: float, wanted: str) -> None:
        raise RefusedInput(f"{name} is {value:g}; give {wanted}")

    for name, value in (("lambda", borrower.repayment), ("gamma", borrower.grade_factor)):
        if not 0 < value <= 1:
            refuse(name, value, "a number above 0 and at most 1")
    for name, value in (
        ("d", borrower.satisfaction),
        ("theta", borrower.comfort),
        ("p", borrower.price),
        ("c", borrower.cost),
        ("t", borrower.months),
    ):
        if not 0 < value < math.inf:
            refuse(name, value, "a finite number above 0")
    if not 0 <= borrower.demand < math.inf:
        refuse("q-min", borrower.demand, "a finite number, 0 or more")
    if not 1 < borrower.penalty_ratio < math.inf:
        refuse("eta", borrower.penalty_ratio, "a finite number above 1")
    if alpha_max is not None and not 0 < alpha_max < math.inf:
        refuse("alpha-max", alpha_max, "a finite number above 0")
