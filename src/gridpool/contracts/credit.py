"""Credit: a bank attests its checks, the ledger prices the loan, a token is spent, the loan is repaid, late or lost.

The life of a loan (Li et al. 2018, section III), each line a call::

    RequestLoan(bank, sha256(sealed request), sealed request)              borrower
    OfferLoan(loan, demand_wh, price, wealth=True, income=True)            bank: attests, the contract prices
    AcceptLoan(loan)                                                       borrower: the token holds the amount
    ... energy orders with token=loan, or PayBill(loan, payee, amount, reference)
    RepayLoan(loan)                                                        borrower: all that is outstanding

``loan`` is ``loan_id(borrower, digest)``. After the repayment buffer the loan is late (penalty instead of interest,
credit value down); after the write-off time the borrower's wallet is banned.
"""

import hashlib

import msgspec

from gridpool.contracts import coins, members
from gridpool.contracts.credit_calls import (
    AcceptLoan,
    BufferEnds,
    CreditHistory,
    History,
    LoanLate,
    LoanOffered,
    LoanOpened,
    LoanRepaid,
    LoanRequested,
    LoanWrittenOff,
    OfferLoan,
    PayBill,
    RepayLoan,
    RequestLoan,
    SetCreditParameters,
    WriteOff,
)
from gridpool.contracts.credit_interbank import (
    DEBTS,
    AskBank,
    Debt,
    GrantBank,
    RepayBank,
)
from gridpool.contracts.credit_tokens import (
    BORROWED,
    DAY_MS,
    LOANS,
    RECORDS,
    TOKENS,
    Borrowed,
    CreditParameters,
    CreditRecord,
    Loan,
    Token,
    TokenPaid,
    change_value,
    completed,
    credit,
    give_leftovers_back,
    parameters_of,
    record_of,
    refund_token,
    release_token,
    reserve_token,
    token_escrow,
    token_free,
    token_to_escrow,
    token_to_wallet,
)
from gridpool.contracts.members import Role, decision
from gridpool.ledger.contract import Context, Refused
from gridpool.ledger.state import State
from gridpool.ledger.types import (
    Bytes,
    Value,
)
from gridpool.markets.loan_rates import (
    LoanOffer,
    LoanTerms,
    gamma_of_grade,
    grade_of_credit,
    interest_due,
    offer_loan,
    penalty_due,
    repayment_of_record,
)

__all__ = [
    "DEBTS",
    "LOANS",
    "RECORDS",
    "REQUESTS",
    "TOKENS",
    "AcceptLoan",
    "AskBank",
    "BufferEnds",
    "CreditHistory",
    "CreditParameters",
    "CreditRecord",
    "Debt",
    "GrantBank",
    "History",
    "Loan",
    "LoanLate",
    "LoanOffered",
    "LoanOpened",
    "LoanRepaid",
    "LoanRequested",
    "LoanWrittenOff",
    "OfferLoan",
    "PayBill",
    "RepayBank",
    "RepayLoan",
    "RequestLoan",
    "SetCreditParameters",
    "Token",
    "TokenPaid",
    "WriteOff",
    "completed",
    "credit",
    "loan_id",
    "outstanding",
    "price_for",
    "record_of",
    "refund_token",
    "release_token",
    "reserve_token",
    "token_escrow",
    "token_free",
    "token_to_escrow",
    "token_to_wallet",
]


MONTH_MS = 30 * DAY_MS
MOST_WH = 10**12
MOST_PRICE = 10**12


class SealedRequest(Value):
    """A request that only its bank can read; forgotten once the loan is taken."""

    data: Bytes


REQUESTS = credit.table("request", key=bytes, value=SealedRequest)
"""Loan -> its encrypted request, while it is open."""


def loan_id(borrower: bytes, digest: bytes) -> bytes:
    """Return the name of the loan that a request asks for."""
    return hashlib.sha256(b"gridpool/loan/1\0" + borrower + digest).digest()


def outstanding(loan: Loan) -> int:
    """Return what is left to pay: with interest in time, with the penalty when late."""
    if loan.status not in ("open", "late"):
        return 0
    return loan.amount + (loan.interest if loan.status == "open" else loan.penalty) - loan.paid


def price_for(
    record: CreditRecord, parameters: CreditParameters, *, demand_wh: int, price: int
) -> tuple[LoanOffer | None, int]:
    """Price a loan for a borrower with this record; returns the offer (None where nothing is traded) and the grade."""
    grade = grade_of_credit(record.value, best=parameters.best_value)
    terms = LoanTerms(
        repayment_ppm=repayment_of_record(record.repaid, record.late),
        gamma_ppm=gamma_of_grade(grade),
        satisfaction=parameters.satisfaction,
        comfort_wh=parameters.theta_wh,
        demand_wh=demand_wh,
        price=price,
        cost_ppm=parameters.cost_ppm,
        months_ppm=max(1, parameters.buffer_ms * 1_000_000 // MONTH_MS),
        eta_ppm=parameters.eta_ppm,
    )
    return offer_loan(terms, alpha_max_ppm=parameters.alpha_max_ppm), grade


@credit.genesis(CreditParameters)
def begin(ctx: Context, parameters: CreditParameters) -> None:
    """Note the parameters."""
    _set_parameters(ctx, parameters)


@credit.call(RequestLoan)
def request_loan(ctx: Context, call: RequestLoan) -> None:
    """Put a request down for a bank."""
    members.require(ctx)
    if not members.has_role(ctx, call.bank, Role.BANK):
        ctx.refuse("not_a_bank", call.bank.hex())
    if call.sealed and hashlib.sha256(call.sealed).digest() != call.digest:
        ctx.refuse("other_content", "the digest is not that of the sealed request")
    loan = loan_id(ctx.sender, call.digest)
    if ctx.get(LOANS, loan) is not None:
        ctx.refuse("loan_exists", loan.hex())
    ctx.put(LOANS, loan, Loan(ctx.sender, call.bank, call.digest, "requested"))
    ctx.put(BORROWED, (ctx.sender, loan), Borrowed(ctx.now))
    if call.sealed:
        ctx.put(REQUESTS, loan, SealedRequest(call.sealed))
    ctx.emit(LoanRequested(loan, call.bank, call.sealed))


@credit.call(OfferLoan)
def make_offer(ctx: Context, call: OfferLoan) -> None:
    """Price a request whose checks the bank attests; refused where a check fails or lending is not worth it."""
    members.require(ctx, Role.BANK)
    loan = ctx.require(LOANS, call.loan, "no_such_loan")
    if loan.bank != ctx.sender:
        ctx.refuse("not_your_request", call.loan.hex())
    if loan.status not in ("requested", "offered"):
        ctx.refuse("not_open_for_offers", loan.status)
    if not (call.wealth and call.income):
        ctx.refuse("checks_not_attested", "wealth and income must both be attested")
    if ctx.get(members.BANNED, loan.borrower) is not None:
        ctx.refuse("borrower_banned", loan.borrower.hex())
    record, parameters = record_of(ctx, loan.borrower), parameters_of(ctx)
    if record.value < 0:
        ctx.refuse("credit_value_negative", str(record.value))
    if call.demand_wh > MOST_WH or not 0 < call.price <= MOST_PRICE:
        ctx.refuse("terms_out_of_range", f"demand {call.demand_wh} Wh at {call.price}")
    offer, _ = price_for(record, parameters, demand_wh=call.demand_wh, price=call.price)
    if offer is None:
        ctx.refuse("not_worth_lending", "no price satisfies both sides")
    amount = min(offer.amount, coins.free(ctx, ctx.sender))
    if not amount:
        ctx.refuse("bank_short_of_coins", "borrow from another bank first")
    ctx.put(
        LOANS,
        call.loan,
        msgspec.structs.replace(
            loan,
            status="offered",
            amount=amount,
            alpha_ppm=offer.alpha_ppm,
            beta_ppm=offer.beta_ppm,
            interest=interest_due(amount, offer.alpha_ppm, parameters.eta_ppm),
            penalty=penalty_due(amount, offer.alpha_ppm),
            offered_until=ctx.now + parameters.offer_ms,
            due=parameters.buffer_ms,
            validity_ms=parameters.validity_ms,
        ),
    )
    ctx.emit(LoanOffered(call.loan, amount, offer.alpha_ppm, offer.beta_ppm))


@credit.call(AcceptLoan)
def accept_loan(ctx: Context, call: AcceptLoan) -> None:
    """Issue the token: coins move from the bank into its escrow."""
    members.require(ctx)
    loan = ctx.require(LOANS, call.loan, "no_such_loan")
    if loan.borrower != ctx.sender:
        ctx.refuse("not_your_loan", call.loan.hex())
    if loan.status != "offered":
        ctx.refuse("nothing_offered", loan.status)
    if ctx.now >= loan.offered_until:
        ctx.refuse("offer_expired", f"it held until {loan.offered_until}")
    if call.amount > loan.amount:
        ctx.refuse("more_than_offered", f"{loan.amount} offered")
    amount, parameters = call.amount or loan.amount, parameters_of(ctx)
    due = ctx.now + loan.due
    escrow = token_escrow(call.loan)
    coins.open_escrow(ctx, escrow, f"token {call.loan.hex()}")
    coins.fund_escrow(ctx, loan.bank, escrow, amount)
    record = record_of(ctx, ctx.sender)
    ctx.put(
        LOANS,
        call.loan,
        msgspec.structs.replace(
            loan,
            status="open",
            amount=amount,
            interest=loan.interest * amount // loan.amount,
            penalty=loan.penalty * amount // loan.amount,
            due=due,
        ),
    )
    token = Token(amount, amount, 0, ctx.now + loan.validity_ms, 0, bytes(32), record.repaid, record.late)
    ctx.put(TOKENS, call.loan, token)
    if ctx.get(REQUESTS, call.loan) is not None:
        ctx.delete(REQUESTS, call.loan)
    ctx.schedule(due, BufferEnds(call.loan))
    ctx.schedule(due + parameters.write_off_ms, WriteOff(call.loan))
    ctx.emit(LoanOpened(call.loan, amount, due))


@credit.call(PayBill)
def pay_bill(ctx: Context, call: PayBill) -> None:
    """Pay a registered wallet out of a valid token; both sides' credit values rise."""
    loan = ctx.require(LOANS, call.loan, "no_such_loan")
    if loan.borrower != ctx.sender:
        ctx.refuse("not_your_token", call.loan.hex())
    if call.amount == 0 or call.payee == ctx.sender:
        ctx.refuse("nothing_to_pay")
    ctx.require(members.WALLETS, call.payee, "unknown_wallet")
    if loan.status != "open" or ctx.now >= ctx.require(TOKENS, call.loan, "no_such_token").valid_until:
        ctx.refuse("token_not_valid", loan.status)
    token_to_wallet(ctx, call.loan, call.payee, call.amount, call.reference)
    completed(ctx, ctx.sender)
    completed(ctx, call.payee)


@credit.call(RepayLoan)
def repay_loan(ctx: Context, call: RepayLoan) -> None:
    """Pay a loan back, in parts or whole."""
    loan = ctx.require(LOANS, call.loan, "no_such_loan")
    if loan.borrower != ctx.sender:
        ctx.refuse("not_your_loan", call.loan.hex())
    left = outstanding(loan)
    if not left:
        ctx.refuse("nothing_outstanding", loan.status)
    amount = min(call.amount or left, left)
    if call.from_token:
        amount = min(amount, token_free(ctx, call.loan))
        if not amount:
            ctx.refuse("not_enough_in_token", "nothing is left in it")
        token_to_wallet(ctx, call.loan, loan.bank, amount, "repayment")
    else:
        coins.move(ctx, ctx.sender, loan.bank, amount)
    _count_payment(ctx, call.loan, loan, amount)


@credit.due(BufferEnds)
def end_buffer(ctx: Context, due: BufferEnds) -> None:
    """Take unspent coins of the token towards the loan; what is still outstanding is late."""
    loan = ctx.require(LOANS, due.loan, "no_such_loan")
    if loan.status != "open":
        return
    amount = min(token_free(ctx, due.loan), outstanding(loan))
    if amount:
        token_to_wallet(ctx, due.loan, loan.bank, amount, "repayment")
        loan = _count_payment(ctx, due.loan, loan, amount)
    if loan.status != "open":
        return
    loan = msgspec.structs.replace(loan, status="late")
    ctx.put(LOANS, due.loan, loan)
    drop = parameters_of(ctx).credit_drop_ppm * loan.amount // 1_000_000
    change_value(ctx, loan.borrower, -drop, late=1)
    ctx.emit(LoanLate(due.loan, outstanding(loan)))


@credit.due(WriteOff)
def write_off(ctx: Context, due: WriteOff) -> None:
    """Give a late loan up and ban the borrower's wallet; the council bans the member with its openings."""
    loan = ctx.require(LOANS, due.loan, "no_such_loan")
    if loan.status != "late":
        return
    lost = outstanding(loan)
    ctx.put(LOANS, due.loan, msgspec.structs.replace(loan, status="written_off"))
    give_leftovers_back(ctx, due.loan)
    until = ctx.now + parameters_of(ctx).ban_ms
    members.ban_wallet(ctx, loan.borrower, until, "credit", f"loan {due.loan.hex()} was not repaid")
    ctx.emit(LoanWrittenOff(due.loan, lost))


@decision(CreditHistory)
def set_history(ctx: Context, decided: CreditHistory) -> None:
    """Write down the past that the council vouches for."""
    for entry in decided.entries:
        ctx.require(members.WALLETS, entry.wallet, "unknown_wallet")
        ctx.put(RECORDS, entry.wallet, CreditRecord(entry.value, entry.repaid, entry.late))
        coins.note_income(ctx, entry.wallet, entry.last_income)


@decision(SetCreditParameters)
def change_parameters(ctx: Context, decided: SetCreditParameters) -> None:
    """Change the parameters."""
    _set_parameters(ctx, decided.parameters)


@credit.invariant
def repaid_loans_were_paid(state: State) -> bool:
    """A repaid loan was paid with its interest or penalty, an open or late one not yet in full."""
    for _, loan in state.scan(LOANS):
        if loan.status == "repaid" and loan.paid < loan.amount + min(loan.interest, loan.penalty):
            return False
        if loan.status in ("open", "late") and outstanding(loan) <= 0:
            return False
    return True


def _set_parameters(ctx: Context, parameters: CreditParameters) -> None:
    if not (
        parameters.best_value
        and parameters.satisfaction
        and parameters.theta_wh
        and parameters.cost_ppm
        and parameters.alpha_max_ppm
        and parameters.eta_ppm > 1_000_000
        and parameters.satisfaction <= 10**15
        and parameters.theta_wh <= MOST_WH
        and parameters.alpha_max_ppm <= 1_000_000
        and parameters.credit_drop_ppm <= 1_000_000
        and max(parameters.buffer_ms, parameters.write_off_ms, parameters.ban_ms) <= members.MOST_MS
        and max(parameters.offer_ms, parameters.validity_ms, parameters.income_window_ms) <= members.MOST_MS
        and parameters.gain_payment <= 10**15
        and parameters.gain_repayment <= 10**15
    ):
        raise Refused("parameters_out_of_range", "see CreditParameters")
    ctx.set_parameters("credit", parameters)


def _count_payment(ctx: Context, name: bytes, loan: Loan, amount: int) -> Loan:
    left = outstanding(loan) - amount
    in_time = loan.status == "open"
    loan = msgspec.structs.replace(loan, paid=loan.paid + amount, status=loan.status if left else "repaid")
    ctx.put(LOANS, name, loan)
    if left == 0:
        if in_time:
            change_value(ctx, loan.borrower, parameters_of(ctx).gain_repayment, repaid=1)
        give_leftovers_back(ctx, name)
        ctx.emit(LoanRepaid(name, in_time))
    return loan
