"""``gridpool loan``: price, request and repay loans of coins."""

from typing import Annotated

from cyclopts import App, Parameter

from gridpool.cli.output import emit

__all__ = ["app"]

app = App(name="loan", help="Price, request and repay loans of coins.")


@app.command
def price(
    *,
    lambda_: Annotated[float, Parameter(name="--lambda")],
    gamma: float,
    d: float,
    theta: float,
    q_min: float,
    p: float,
    c: float,
    t: float,
    eta: float,
    alpha_max: float | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Price a loan so that the bank's expected profit is greatest, beside what the paper's formulas give.

    Example: ``gridpool loan price --lambda 0.8 --gamma 0.5 --d 9000 --theta 2300 --q-min 0 --p 1 --c .1 --t 5 --eta 3``

    Parameters
    ----------
    lambda_
        The borrower's probability of repaying in time, above 0 and at most 1.
    gamma
        The bank's belief in it from the credit grade, above 0 and at most 1.
    d
        Satisfaction factor in coins.
    theta
        Comfort factor in units of energy.
    q_min
        Smallest energy demand.
    p
        Price of a unit of energy in coins.
    c
        Cost of a lent coin a month.
    t
        Time of the loan in months.
    eta
        Penalty rate over the interest of the whole time, above 1.
    alpha_max
        Highest penalty rate; needed where the demand is not below the comfort factor.
    json
        Print one JSON object.
    """
    from msgspec import to_builtins

    from gridpool.markets.loans import Borrower, price_loan

    borrower = Borrower(
        repayment=lambda_,
        grade_factor=gamma,
        satisfaction=d,
        comfort=theta,
        demand=q_min,
        price=p,
        cost=c,
        months=t,
        penalty_ratio=eta,
    )
    emit(to_builtins(price_loan(borrower, alpha_max=alpha_max)), json=json)
