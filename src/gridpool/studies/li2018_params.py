"""Parameters of the study of energy trading and credit, and what values they may have."""

import msgspec

from gridpool.errors import RefusedInput
from gridpool.studies.li2018_loans import Population, RandomLaw, RepaymentLaw

__all__ = ["Params", "check_params", "population_of"]


class Params(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Parameters of the study; those marked * are not in the paper."""

    seed: int = 2018
    """Seed of every random draw.*"""
    draws: int = 2_000
    """Populations drawn for Figs. 7 to 9.*"""
    chain_runs: int = 200
    """Runs of Fig. 5.*"""
    pairs: int = 50
    horizon_min: float = 240.0
    classic_min: float = 60.0
    energy_min: float = 10.0
    aggregators: int = 51
    """Size of the consortium; the paper's fixed confirmation time already includes it."""
    frequencies: tuple[int, ...] = (1, 2, 3, 4, 5)
    saturating_frequency: int = 12
    """Requests an hour at which the chains' upper limits are measured.*"""
    coins: int = 20
    coins_per_trade: int = 20
    """Coins that a trade locks until it is confirmed; the whole wallet, as section V-B says.*"""
    banks: int = 5
    borrowers: int = 20
    """Borrowers a bank."""
    satisfaction: tuple[float, float] = (20_000.0, 20_400.0)
    comfort: tuple[float, float] = (2_000.0, 2_500.0)
    months_max: float = 10.0
    penalty_ratio: float = 3.5
    cost: tuple[float, float] = (0.1, 0.2)
    heuristic_interest: float = 0.1
    """Interest a month of the two heuristic schemes."""
    repayment_law: RepaymentLaw = "uniform"
    """Law of lambda: uniform over (0, 1], or from a drawn record of ten loans.*"""
    price: float = 1.0
    """p, coins per unit of energy.*"""
    demand: float = 0.0
    """Q_min, energy.*"""
    alpha_max: float | None = None
    """Highest penalty rate.*"""
    average_amount: float | None = None
    """Coins a borrower under the average scheme; by default what its bank lends on average under ours.*"""
    random_law: RandomLaw = "up_to_average"
    """Amounts of the random scheme: uniform up to the average amount, or up to twice it.*"""
    alpha_step: float = 0.1
    """Step of Algorithm 1's search.*"""
    alpha_steps: int = 100
    """Number of its steps.*"""
    tolerance: float = 0.01
    """Distance from the closed form at which the search counts as converged.*"""
    lending_club_csv: str | None = None
    """A CSV of loans to count grades in, instead of the counts that come with gridpool.*"""


def population_of(params: Params) -> Population:
    """Give the laws of the borrowers."""
    return Population(
        satisfaction=params.satisfaction,
        comfort=params.comfort,
        months_max=params.months_max,
        penalty_ratio=params.penalty_ratio,
        cost=params.cost,
        repayment_law=params.repayment_law,
        price=params.price,
        demand=params.demand,
    )


def check_params(params: Params) -> None:
    """Refuse parameters that make no study; raises RefusedInput naming the first."""
    if not 0 <= params.seed < 2**63:
        raise RefusedInput(f"seed is {params.seed}; give 0 to 2^63 - 1")
    for name in ("draws", "chain_runs", "pairs", "banks", "borrowers", "alpha_steps", "coins_per_trade", "aggregators"):
        if not 1 <= getattr(params, name) <= 100_000:
            raise RefusedInput(f"{name} is {getattr(params, name)}; give 1 to 100000")
    if params.draws * params.banks * params.borrowers > 20_000_000:
        raise RefusedInput("draws x banks x borrowers pass 20 million; lower one of them")
    if params.banks * params.borrowers < 5:
        raise RefusedInput("Fig. 7 picks five borrowers; give at least that many")
    for name in ("horizon_min", "classic_min", "energy_min", "price", "months_max", "heuristic_interest", "alpha_step"):
        if not 0 < getattr(params, name) < 1e9:
            raise RefusedInput(f"{name} is {getattr(params, name)}; give a number above 0")
    if not params.frequencies or not all(1 <= f <= 60 for f in (*params.frequencies, params.saturating_frequency)):
        raise RefusedInput("frequencies are 1 to 60 requests an hour")
    for name in ("satisfaction", "comfort", "cost"):
        low, high = getattr(params, name)
        if not 0 < low <= high < 1e12:
            raise RefusedInput(f"{name} is [{low}, {high}]; give a rising pair above 0")
    if not 0 <= params.demand < params.comfort[0]:
        raise RefusedInput(f"demand is {params.demand}; give 0 to below comfort's {params.comfort[0]:g}, so that k < 0")
    if not params.penalty_ratio > 1 or not 0 < params.tolerance < 1:
        raise RefusedInput("penalty_ratio must be above 1, tolerance between 0 and 1")
    for name in ("alpha_max", "average_amount"):
        value = getattr(params, name)
        if value is not None and not 0 < value < 1e12:
            raise RefusedInput(f"{name} is {value}; give a number above 0 or leave it out")
