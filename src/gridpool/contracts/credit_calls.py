"""What borrowers and banks may ask for, what the council may decide, and what the world is told."""

from typing import Annotated

import msgspec

from gridpool.contracts.credit_tokens import (
    CreditParameters,
    credit,
)
from gridpool.contracts.members import Decision
from gridpool.ledger.types import (
    Bytes,
    Call,
    Coins,
    Due,
    Event,
    Hash,
    Millis,
    Natural,
    PartsPerMillion,
    Price,
    SignedInteger,
    Text,
    Value,
    Wallet,
    WattHours,
)

__all__ = [
    "AcceptLoan",
    "BufferEnds",
    "CreditHistory",
    "History",
    "LoanLate",
    "LoanOffered",
    "LoanOpened",
    "LoanRepaid",
    "LoanRequested",
    "LoanWrittenOff",
    "OfferLoan",
    "PayBill",
    "RepayLoan",
    "RequestLoan",
    "SetCreditParameters",
    "WriteOff",
]


class History(Value):
    """What the council vouches for about a wallet's past."""

    wallet: Wallet
    value: SignedInteger
    repaid: Natural
    late: Natural
    last_income: Millis


class RequestLoan(Call, tag="credit.request_loan"):
    """Ask a bank for a loan; ``sealed`` is the request encrypted to it, or empty where it is handed over otherwise."""

    bank: Wallet
    digest: Hash
    sealed: Bytes = b""


class OfferLoan(Call, tag="credit.offer_loan"):
    """Attest the checks of a request, and offer what the contract's price gives.

    ``wealth``: the member's wallets together hold something; ``income``: one of them had income of any kind in the
    last M intervals. ``demand_wh`` is the borrower's least demand, ``price`` what it pays a kWh.
    """

    loan: Hash
    demand_wh: WattHours
    price: Price
    wealth: bool
    income: bool


class AcceptLoan(Call, tag="credit.accept_loan"):
    """Take an offered loan as a token, whole or less (``amount`` 0 is the whole)."""

    loan: Hash
    amount: Coins = 0


class PayBill(Call, tag="credit.pay_bill"):
    """Pay a bill out of a token."""

    loan: Hash
    payee: Wallet
    amount: Coins
    reference: Text = ""


class RepayLoan(Call, tag="credit.repay_loan"):
    """Pay back: ``amount`` 0 is all that is outstanding; ``from_token`` uses the token's unspent coins."""

    loan: Hash
    amount: Coins = 0
    from_token: bool = False


class CreditHistory(Decision, tag="credit.history"):
    """Vouch for the past of wallets, for a ledger's first day."""

    entries: Annotated[tuple[History, ...], msgspec.Meta(min_length=1, max_length=1_000)]


class SetCreditParameters(Decision, tag="credit.set_parameters"):
    """Change the parameters for loans offered from now on."""

    parameters: CreditParameters


class BufferEnds(Due, tag="credit.buffer_ends"):
    """The time to repay a loan without penalty is over."""

    loan: Hash


class WriteOff(Due, tag="credit.write_off"):
    """The time to repay a loan at all is over."""

    loan: Hash


@credit.event
class LoanRequested(Event, tag="credit.loan_requested"):
    """A loan was asked for; ``sealed`` only its bank can read."""

    loan: Hash
    bank: Wallet
    sealed: Bytes


@credit.event
class LoanOffered(Event, tag="credit.loan_offered"):
    """A bank attests its checks and offers a loan."""

    loan: Hash
    amount: Coins
    alpha_ppm: PartsPerMillion
    beta_ppm: Natural


@credit.event
class LoanOpened(Event, tag="credit.loan_opened"):
    """A token was issued."""

    loan: Hash
    amount: Coins
    due: Millis


@credit.event
class LoanRepaid(Event, tag="credit.loan_repaid"):
    """A loan was paid back; ``in_time`` says whether within its buffer."""

    loan: Hash
    in_time: bool


@credit.event
class LoanLate(Event, tag="credit.loan_late"):
    """A loan was not repaid within its buffer."""

    loan: Hash
    outstanding: Coins


@credit.event
class LoanWrittenOff(Event, tag="credit.loan_written_off"):
    """A loan was given up and its borrower's wallet banned."""

    loan: Hash
    lost: Coins
