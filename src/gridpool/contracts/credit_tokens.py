"""Credit values and tokens: what a wallet's record says, and sub-accounts that bank and borrower share.

A token is a loan that can be spent: its coins lie in an escrow of its own, orders can reserve them, bills are paid
from them, and every payment extends a hash chain (Li et al. 2018, section III; the paper's pre_record).

For other contracts::

    record_of(state, wallet), completed(ctx, wallet)            credit record; a payment went through
    token_free(state, loan), reserve_token(ctx, loan, wallet, amount), release_token(ctx, loan, amount)
    token_to_escrow(ctx, loan, escrow, amount)                  out of what was reserved
    token_to_wallet(ctx, loan, payee, amount, reference)        out of what is free
    refund_token(ctx, loan, escrow, amount)                     back into the token, or to its borrower once it is over
"""

import hashlib
from typing import Literal

import msgspec

from gridpool.contracts import coins
from gridpool.contracts.members import recovery
from gridpool.ledger.contract import Context, Contract, Refused
from gridpool.ledger.state import State
from gridpool.ledger.types import (
    Coins,
    Event,
    Hash,
    Millis,
    Natural,
    PartsPerMillion,
    SignedInteger,
    Value,
    Wallet,
    WattHours,
    encode,
)

__all__ = [
    "BORROWED",
    "LOANS",
    "RECORDS",
    "TOKENS",
    "Borrowed",
    "CreditParameters",
    "CreditRecord",
    "Loan",
    "Token",
    "TokenPaid",
    "change_value",
    "completed",
    "credit",
    "give_leftovers_back",
    "parameters_of",
    "record_of",
    "refund_token",
    "release_token",
    "reserve_token",
    "token_escrow",
    "token_free",
    "token_to_escrow",
    "token_to_wallet",
]

credit = Contract("credit")

DAY_MS = 86_400_000
QUARTER_HOUR_MS = 900_000
MOST_VALUE = 2**62

LoanStatus = Literal["requested", "offered", "open", "late", "repaid", "written_off"]


class CreditParameters(Value):
    """Genesis of credit. Credit values are in the unit of micro-coins; ratios in ppm; times in ms of market time.

    ``d`` (``satisfaction``), ``theta_wh`` and ``eta_ppm`` are the paper's factors, ``cost_ppm`` is the bank's cost a
    month, ``alpha_max_ppm`` the highest penalty rate; the loan's time t is the repayment buffer in 30-day months.
    A credit value of ``best_value`` or more has grade 1, one of 0 grade 35.
    """

    start_value: SignedInteger = 10_000_000
    best_value: Natural = 34_000_000
    gain_payment: Natural = 20_000
    gain_repayment: Natural = 1_000_000
    credit_drop_ppm: PartsPerMillion = 500_000
    income_window_ms: Millis = 96 * QUARTER_HOUR_MS
    offer_ms: Millis = 4 * QUARTER_HOUR_MS
    buffer_ms: Millis = DAY_MS
    validity_ms: Millis = DAY_MS
    write_off_ms: Millis = 30 * DAY_MS
    ban_ms: Millis = 365 * DAY_MS
    satisfaction: Coins = 200_000
    theta_wh: WattHours = 3_000
    eta_ppm: PartsPerMillion = 3_500_000
    cost_ppm: PartsPerMillion = 100_000
    alpha_max_ppm: PartsPerMillion = 50_000


class CreditRecord(Value):
    """A wallet's credit value, and how many loans it repaid in time (s) and late (f)."""

    value: SignedInteger
    repaid: Natural = 0
    late: Natural = 0


class Loan(Value):
    """A loan from request to its end; ``digest`` is the hash of the encrypted request.

    Repaid by ``due`` it costs ``amount`` + ``interest``, later ``amount`` + ``penalty``; ``paid`` counts towards it.
    """

    borrower: Wallet
    bank: Wallet
    digest: Hash
    status: LoanStatus
    amount: Coins = 0
    alpha_ppm: PartsPerMillion = 0
    beta_ppm: Natural = 0
    interest: Coins = 0
    penalty: Coins = 0
    paid: Coins = 0
    offered_until: Millis = 0
    due: Millis = 0
    validity_ms: Millis = 0


class Borrowed(Value):
    """When a loan was asked for (market time)."""

    at: Millis


class Token(Value):
    """The spendable side of a loan: balance, what orders have reserved, and the chain of its payments.

    ``serial`` counts renewals, ``payments`` is the hash of all previous payments; ``repaid`` and ``late`` are the
    borrower's record (s, f) when it was issued.
    """

    amount: Coins
    balance: Coins
    reserved: Coins
    valid_until: Millis
    serial: Natural
    payments: Hash
    repaid: Natural
    late: Natural


@credit.event
class TokenPaid(Event, tag="credit.token_paid"):
    """A token paid a bill and was renewed."""

    loan: Hash
    payee: bytes
    amount: Coins
    serial: Natural
    payments: Hash


RECORDS = credit.table("record", key=bytes, value=CreditRecord)
"""Wallet -> credit record; a wallet without one has the start value."""
LOANS = credit.table("loan", key=bytes, value=Loan)
BORROWED = credit.table("borrowed", key=(bytes, bytes), value=Borrowed)
"""(borrower, loan) -> when it was asked for."""
TOKENS = credit.table("token", key=bytes, value=Token)
"""Loan -> token."""


def parameters_of(ctx: Context) -> CreditParameters:
    """Return the parameters in force."""
    return ctx.parameters("credit", CreditParameters)


def record_of(ctx: Context, wallet: bytes) -> CreditRecord:
    """Return a wallet's credit record."""
    return ctx.get(RECORDS, wallet) or CreditRecord(parameters_of(ctx).start_value)


def completed(ctx: Context, wallet: bytes) -> None:
    """Raise the credit value of a wallet whose payment or delivery was completed."""
    change_value(ctx, wallet, parameters_of(ctx).gain_payment)


def change_value(ctx: Context, wallet: bytes, change: int, *, repaid: int = 0, late: int = 0) -> None:
    """Move a credit value within +-2^62, and count loans repaid in time or late."""
    record = record_of(ctx, wallet)
    value = max(-MOST_VALUE, min(MOST_VALUE, record.value + change))
    ctx.put(RECORDS, wallet, CreditRecord(value, record.repaid + repaid, record.late + late))


def token_escrow(loan: bytes) -> bytes:
    """Name the escrow that holds a token's coins."""
    return coins.escrow_key("credit", loan)


def token_free(state: State, loan: bytes) -> int:
    """Return the coins of a token that no order has reserved."""
    token = state.get(TOKENS, loan)
    return 0 if token is None else token.balance - token.reserved


def reserve_token(ctx: Context, loan: bytes, wallet: bytes, amount: int) -> None:
    """Set coins of a token aside for an order of its borrower."""
    token = ctx.require(TOKENS, loan, "no_such_token")
    held = ctx.require(LOANS, loan, "no_such_loan")
    if held.borrower != wallet:
        raise Refused("not_your_token", loan.hex())
    if held.status != "open" or ctx.now >= token.valid_until:
        raise Refused("token_not_valid", f"{held.status}, valid until {token.valid_until}")
    if token.balance - token.reserved < amount:
        raise Refused("not_enough_in_token", f"{token.balance - token.reserved} free, {amount} needed")
    ctx.put(TOKENS, loan, msgspec.structs.replace(token, reserved=token.reserved + amount))


def release_token(ctx: Context, loan: bytes, amount: int) -> None:
    """Set reserved coins of a token free; of a token that is over they go to whom they belong."""
    if not amount:
        return
    token = _reserved(ctx, loan, amount)
    ctx.put(TOKENS, loan, msgspec.structs.replace(token, reserved=token.reserved - amount))
    give_leftovers_back(ctx, loan)


def token_to_escrow(ctx: Context, loan: bytes, escrow: bytes, amount: int) -> None:
    """Move reserved coins of a token into an open escrow; the token is renewed."""
    if not amount:
        return
    token = _reserved(ctx, loan, amount)
    coins.move_between_escrows(ctx, token_escrow(loan), escrow, amount)
    _renew(ctx, loan, msgspec.structs.replace(token, reserved=token.reserved - amount), escrow, amount, "")


def token_to_wallet(ctx: Context, loan: bytes, payee: bytes, amount: int, reference: str) -> None:
    """Pay a bill out of the free coins of a valid token; the token is renewed."""
    token = ctx.require(TOKENS, loan, "no_such_token")
    if token.balance - token.reserved < amount:
        raise Refused("not_enough_in_token", f"{token.balance - token.reserved} free, {amount} needed")
    coins.pay_from_escrow(ctx, token_escrow(loan), payee, amount)
    _renew(ctx, loan, token, payee, amount, reference)


def refund_token(ctx: Context, loan: bytes, escrow: bytes, amount: int) -> None:
    """Return coins that a token had paid into an escrow."""
    if not amount:
        return
    token = ctx.require(TOKENS, loan, "no_such_token")
    coins.move_between_escrows(ctx, escrow, token_escrow(loan), amount)
    ctx.put(TOKENS, loan, msgspec.structs.replace(token, balance=token.balance + amount))
    give_leftovers_back(ctx, loan)


def _reserved(ctx: Context, loan: bytes, amount: int) -> Token:
    token = ctx.require(TOKENS, loan, "no_such_token")
    if token.reserved < amount:
        raise Refused("not_reserved", f"{token.reserved} reserved in the token, {amount} asked for")
    return token


def _renew(ctx: Context, loan: bytes, token: Token, payee: bytes, amount: int, reference: str) -> None:
    payments = hashlib.sha256(token.payments + encode((payee, amount, reference))).digest()
    ctx.put(
        TOKENS,
        loan,
        msgspec.structs.replace(token, balance=token.balance - amount, serial=token.serial + 1, payments=payments),
    )
    ctx.emit(TokenPaid(loan, payee, amount, token.serial + 1, payments))


def give_leftovers_back(ctx: Context, loan: bytes) -> None:
    """Empty the free part of a token whose loan is over: to the borrower who repaid, else to the bank."""
    held, token = ctx.require(LOANS, loan, "no_such_loan"), ctx.require(TOKENS, loan, "no_such_token")
    left = token.balance - token.reserved
    if held.status not in ("repaid", "written_off") or not left:
        return
    owner = held.borrower if held.status == "repaid" else held.bank
    coins.pay_from_escrow(ctx, token_escrow(loan), owner, left, income=False)
    ctx.put(TOKENS, loan, msgspec.structs.replace(token, balance=token.reserved))


@recovery
def hand_record_over(ctx: Context, lost: bytes, wallet: bytes) -> None:
    """Let a replaced wallet's credit record follow its owner; open loans stay payable by the successor."""
    record = ctx.get(RECORDS, lost)
    if record is not None:
        ctx.put(RECORDS, wallet, record)
        ctx.delete(RECORDS, lost)
    for (_, loan), mark in list(ctx.scan(BORROWED, (lost,))):
        held = ctx.require(LOANS, loan, "no_such_loan")
        ctx.put(LOANS, loan, msgspec.structs.replace(held, borrower=wallet))
        ctx.delete(BORROWED, (lost, loan))
        ctx.put(BORROWED, (wallet, loan), mark)


@credit.invariant
def tokens_hold_what_their_escrows_hold(state: State) -> bool:
    """A token's balance lies in its escrow, covers what is reserved, and is never more than its loan."""
    return all(
        token.reserved <= token.balance <= token.amount
        and coins.escrow_balance(state, token_escrow(loan)) == token.balance
        for loan, token in state.scan(TOKENS)
    )
