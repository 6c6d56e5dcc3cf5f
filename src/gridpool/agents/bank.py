"""A bank's side of a loan: it reads the encrypted request, makes the checks, and attests them (Li et al. 2018, III)."""

import hashlib
import os

import msgspec

from gridpool.agents.wallet_keys import WalletKeys
from gridpool.agents.wallet_sealing import box_key, open_sealed, seal_for
from gridpool.agents.wallet_session import Session
from gridpool.contracts import coins, credit, members
from gridpool.contracts.credit import CreditParameters, OfferLoan, RequestLoan, loan_id
from gridpool.contracts.members import commitment_of
from gridpool.errors import RefusedInput
from gridpool.ledger.contract import PARAMETERS
from gridpool.ledger.keys import KeyPair
from gridpool.ledger.state import State

__all__ = [
    "LoanChecks",
    "LoanRequest",
    "check_request",
    "make_offer",
    "open_request",
    "request_of",
    "seal_request",
    "sealed_request",
]


class OwnWallet(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A wallet of the borrower's and the salt that proves it to the bank."""

    wallet: bytes
    salt: bytes


class LoanRequest(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a borrower tells its bank and nobody else: who it is, all its wallets, what it needs at which price."""

    member: bytes
    wallets: tuple[OwnWallet, ...]
    demand_wh: int
    price: int
    nonce: bytes


class LoanChecks(msgspec.Struct, frozen=True):
    """The outcome of the bank's checks, and what they rest on (micro-coins, ms of market time)."""

    wealth: int
    last_income: int
    income: bool
    credit_value: int
    banned: bool

    @property
    def passed(self) -> bool:
        """Whether the bank may attest."""
        return self.wealth > 0 and self.income and self.credit_value >= 0 and not self.banned


def request_of(state: State, keys: WalletKeys, *, demand_wh: int, price: int, most: int = 64) -> LoanRequest:
    """Write a member's request: it shows the bank all wallets that are in force, ``most`` numbers looked at."""
    member = keys.certificate.public
    own = [OwnWallet(member, bytes(32))] if state.get(members.WALLETS, member) is not None else []
    for number in range(most):
        record = state.get(members.WALLETS, keys.wallet(number).public)
        if record is not None and not record.successor:
            own.append(OwnWallet(keys.wallet(number).public, keys.salt(number)))
    return LoanRequest(member, tuple(own), demand_wh, price, os.urandom(16))


def sealed_request(session: Session, loan: bytes) -> tuple[bytes, bytes]:
    """Return a loan's borrower and its sealed request; raises RefusedInput where there is none for the taking."""
    held, sealed = session.state.get(credit.LOANS, loan), session.state.get(credit.REQUESTS, loan)
    if held is None:
        raise RefusedInput(f"no loan {loan.hex()} on this ledger")
    if sealed is None:
        raise RefusedInput(f"the sealed request of loan {loan.hex()} is not on this ledger (any more)")
    return held.borrower, sealed.data


def seal_request(bank: bytes, request: LoanRequest) -> RequestLoan:
    """Encrypt a request to a bank's public wallet; the ledger keeps its hash."""
    sealed = seal_for((box_key(bank),), msgspec.msgpack.encode(request))
    return RequestLoan(bank, hashlib.sha256(sealed).digest(), sealed)


def open_request(state: State, sealed: bytes, bank: KeyPair) -> LoanRequest:
    """Open a request as its bank and check that the wallets it names are the member's.

    Raises RefusedInput where it is not for this bank, is malformed, or names a wallet that is not the member's.
    """
    try:
        request = msgspec.msgpack.decode(open_sealed(sealed, bank), type=LoanRequest)
    except (msgspec.DecodeError, RecursionError) as error:
        raise RefusedInput(f"the loan request is malformed: {error}") from None
    if not 1 <= len(request.wallets) <= 256:
        raise RefusedInput(f"a loan request names 1 to 256 wallets, not {len(request.wallets)}")
    for own in request.wallets:
        record = state.get(members.WALLETS, own.wallet)
        public = record is not None and record.member == request.member
        committed = record is not None and record.commitment == commitment_of(request.member, own.wallet, own.salt)
        if not public and not committed:
            raise RefusedInput(f"wallet {own.wallet.hex()} is not the borrower's")
    return request


def check_request(state: State, request: LoanRequest, now: int) -> LoanChecks:
    """Check a borrower over all its wallets: wealth, income of any kind in the last M intervals, credit, bans."""
    stored = state.get(PARAMETERS, "credit")
    parameters = CreditParameters() if stored is None else msgspec.msgpack.decode(stored.data, type=CreditParameters)
    accounts = [state.get(coins.ACCOUNTS, own.wallet) or coins.NOTHING for own in request.wallets]
    records = [state.get(credit.RECORDS, own.wallet) for own in request.wallets]
    values = [parameters.start_value if record is None else record.value for record in records]
    last = max(account.last_income for account in accounts)
    bans = [state.get(members.BANNED, own.wallet) for own in request.wallets]
    return LoanChecks(
        wealth=sum(account.balance for account in accounts),
        last_income=last,
        income=last > 0 and last + parameters.income_window_ms >= now,
        credit_value=min(values),
        banned=any(ban is not None and now < ban.until for ban in bans),
    )


def make_offer(state: State, borrower: bytes, sealed: bytes, bank: KeyPair, now: int) -> OfferLoan:
    """Read, check and attest a request; raises RefusedInput naming the check that failed."""
    request = open_request(state, sealed, bank)
    if borrower not in {own.wallet for own in request.wallets}:
        raise RefusedInput("the request does not name the wallet that asks")
    checks = check_request(state, request, now)
    if not checks.passed:
        raise RefusedInput(
            f"the borrower does not pass: wealth {checks.wealth}, income in the window {checks.income}, "
            f"credit value {checks.credit_value}, banned {checks.banned}"
        )
    loan = loan_id(borrower, hashlib.sha256(sealed).digest())
    return OfferLoan(loan, request.demand_wh, request.price, wealth=True, income=True)
