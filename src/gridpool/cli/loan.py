"""``gridpool loan``: price, request and repay loans of coins."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from gridpool.cli.output import emit

if TYPE_CHECKING:
    from gridpool.agents.wallet_session import Session
    from gridpool.ledger.types import Call

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


@app.command
def request(
    *,
    wallet: Path,
    bank: str,
    demand: int = 0,
    energy_price: int = 200_000,
    number: int | None = None,
    home: Path | None = None,
    url: str | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Ask a bank for a loan; only the bank can read the request, the ledger keeps its hash.

    Example: ``gridpool loan request --wallet ann.wallet --bank 7d... --demand 1500 --home out/home``

    Parameters
    ----------
    wallet
        Wallet file of the borrower.
    bank
        Address of the bank's public wallet.
    demand
        Least energy needed, Wh (the paper's Q_min).
    energy_price
        Price expected, micro-coins per kWh (the paper's p).
    number
        Which of the member's wallets borrows; the bank is shown all that are registered.
    home
        Home of a node on this machine.
    url
        Address of a node's HTTP face.
    json
        Print one JSON object.
    """
    from gridpool.agents.bank import request_of, seal_request
    from gridpool.agents.wallet_keys import load_wallet
    from gridpool.agents.wallet_session import open_session, signer_of
    from gridpool.agents.wallet_text import parse_address, parse_amount
    from gridpool.contracts.credit import loan_id

    keys, lender = load_wallet(wallet), parse_address(bank)
    parse_amount(demand), parse_amount(energy_price)
    with open_session(home, url) as session:
        key = signer_of(session, keys, number)
        asked = request_of(session.state, keys, demand_wh=demand, price=energy_price)
        call = seal_request(lender, asked)
        receipt = session.submit(key, call)
    emit(
        {"tx": receipt.tx.hex(), "loan": loan_id(key.public, call.digest).hex(), "borrower": key.public.hex()},
        json=json,
    )


@app.command
def offer(
    loan: str,
    /,
    *,
    wallet: Path,
    home: Path | None = None,
    url: str | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Read a request as its bank, make the checks, attest them, and offer what the contract prices.

    Example: ``gridpool loan offer 5b... --wallet bank.wallet --home out/home``

    Parameters
    ----------
    loan
        The loan that was asked for.
    wallet
        Wallet file of the bank.
    home
        Home of a node on this machine.
    url
        Address of a node's HTTP face.
    json
        Print one JSON object.
    """
    from gridpool.agents.bank import make_offer, sealed_request
    from gridpool.agents.wallet_keys import load_wallet
    from gridpool.agents.wallet_session import open_session
    from gridpool.agents.wallet_text import parse_hash

    name, key = parse_hash(loan, "loan"), load_wallet(wallet).certificate
    with open_session(home, url) as session:
        borrower, sealed = sealed_request(session, name)
        receipt = session.submit(key, make_offer(session.state, borrower, sealed, key, session.now))
        emit({"tx": receipt.tx.hex(), **_shown(session, name)}, json=json)


@app.command
def accept(
    loan: str,
    /,
    *,
    wallet: Path,
    amount: int = 0,
    number: int | None = None,
    home: Path | None = None,
    url: str | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Take an offered loan; it can then back orders (--loan) and pay bills.

    Example: ``gridpool loan accept 5b... --wallet ann.wallet --home out/home``

    Parameters
    ----------
    loan
        The loan.
    wallet
        Wallet file of the borrower.
    amount
        Micro-coins to take; 0 takes all that is offered.
    number
        Which of the member's wallets borrows.
    home
        Home of a node on this machine.
    url
        Address of a node's HTTP face.
    json
        Print one JSON object.
    """
    from gridpool.agents.wallet_text import parse_amount, parse_hash
    from gridpool.contracts.credit import AcceptLoan

    name = parse_hash(loan, "loan")
    _borrow(AcceptLoan(name, parse_amount(amount)), name, wallet, number, home, url, json)


@app.command
def pay(
    loan: str,
    /,
    *,
    wallet: Path,
    to: str,
    amount: int,
    reference: str = "",
    number: int | None = None,
    home: Path | None = None,
    url: str | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Pay a bill out of a loan's token.

    Example: ``gridpool loan pay 5b... --wallet ann.wallet --to 3b... --amount 40000 --home out/home``

    Parameters
    ----------
    loan
        The loan.
    wallet
        Wallet file of the borrower.
    to
        Wallet that is paid.
    amount
        Micro-coins.
    reference
        What it is for; everybody can read it.
    number
        Which of the member's wallets borrowed.
    home
        Home of a node on this machine.
    url
        Address of a node's HTTP face.
    json
        Print one JSON object.
    """
    from gridpool.agents.wallet_text import parse_address, parse_amount, parse_hash
    from gridpool.contracts.credit import PayBill

    name = parse_hash(loan, "loan")
    call = PayBill(name, parse_address(to), parse_amount(amount), reference[:256])
    _borrow(call, name, wallet, number, home, url, json)


@app.command
def repay(
    loan: str,
    /,
    *,
    wallet: Path,
    amount: int = 0,
    from_token: Annotated[bool, Parameter(negative="")] = False,
    number: int | None = None,
    home: Path | None = None,
    url: str | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Pay a loan back, with interest in time or with the penalty when late.

    Example: ``gridpool loan repay 5b... --wallet ann.wallet --home out/home``

    Parameters
    ----------
    loan
        The loan.
    wallet
        Wallet file of the borrower.
    amount
        Micro-coins; 0 pays all that is outstanding.
    from_token
        Pay with the token's unspent coins.
    number
        Which of the member's wallets borrowed.
    home
        Home of a node on this machine.
    url
        Address of a node's HTTP face.
    json
        Print one JSON object.
    """
    from gridpool.agents.wallet_text import parse_amount, parse_hash
    from gridpool.contracts.credit import RepayLoan

    name = parse_hash(loan, "loan")
    _borrow(RepayLoan(name, parse_amount(amount), from_token), name, wallet, number, home, url, json)


@app.command
def show(
    loan: str | None = None,
    /,
    *,
    wallet: Path | None = None,
    home: Path | None = None,
    url: str | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Show one loan, or all (of a member, as borrower or bank).

    Example: ``gridpool loan show --wallet ann.wallet --home out/home``

    Parameters
    ----------
    loan
        The loan; by default all.
    wallet
        Show only the loans of this wallet file.
    home
        Home of a node on this machine.
    url
        Address of a node's HTTP face.
    json
        Print one JSON object.
    """
    from gridpool.agents.wallet_keys import load_wallet
    from gridpool.agents.wallet_session import open_session
    from gridpool.agents.wallet_text import parse_hash
    from gridpool.cli.output import table
    from gridpool.contracts import credit

    with open_session(home, url, writable=False) as session:
        if loan is not None:
            emit(_shown(session, parse_hash(loan, "loan")), json=json)
            return
        mine = None
        if wallet is not None:
            keys = load_wallet(wallet)
            mine = {keys.certificate.public, *(keys.wallet(n).public for n in range(64))}
        rows = [
            _shown(session, name)
            for name, held in session.state.scan(credit.LOANS)
            if mine is None or held.borrower in mine or held.bank in mine
        ]
    columns = ("loan", "status", "amount", "outstanding", "token_balance")
    emit({"loans": rows}, json=json, text=table(columns, [[row[column] for column in columns] for row in rows]))


def _borrow(
    call: "Call",
    loan: bytes,
    wallet: Path,
    number: int | None,
    home: Path | None,
    url: str | None,
    json: bool,
) -> None:
    from gridpool.agents.wallet_keys import load_wallet
    from gridpool.agents.wallet_session import open_session, signer_of

    keys = load_wallet(wallet)
    with open_session(home, url) as session:
        receipt = session.submit(signer_of(session, keys, number), call)
        emit({"tx": receipt.tx.hex(), **_shown(session, loan)}, json=json)


def _shown(session: "Session", loan: bytes) -> dict[str, Any]:
    from gridpool.agents.meter import time_text
    from gridpool.contracts import credit
    from gridpool.errors import RefusedInput

    held = session.state.get(credit.LOANS, loan)
    if held is None:
        raise RefusedInput(f"no loan {loan.hex()} on this ledger; see: gridpool loan show")
    token = session.state.get(credit.TOKENS, loan)
    return {
        "loan": loan.hex(),
        "status": held.status,
        "borrower": held.borrower.hex(),
        "bank": held.bank.hex(),
        "amount": held.amount,
        "alpha_ppm": held.alpha_ppm,
        "beta_ppm": held.beta_ppm,
        "interest": held.interest,
        "penalty": held.penalty,
        "paid": held.paid,
        "outstanding": credit.outstanding(held),
        "offered_until": time_text(held.offered_until) if held.status == "offered" else None,
        "due": None if token is None else time_text(held.due),
        "token_balance": None if token is None else token.balance,
        "token_valid_until": None if token is None else time_text(token.valid_until),
        "token_payments": None if token is None else token.payments.hex(),
    }
