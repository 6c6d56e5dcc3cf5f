"""Settlement between operators: usage claims that become obligations, netted once a cycle, with a default waterfall.

Two operators agree on terms; for each period both post the root of their matched records and what they come to. Equal
claims are final at once. A claim that stands alone when the deadline passes falls to the side that made it; claims
that differ open a dispute, each side itemises its exceptions as evidence, and the period is settled by agreement or by
the council. At the end of a cycle all obligations are netted to at most n - 1 payments; what a member cannot pay is
covered by its deposit, then by the guarantee fund, then borne by the creditors pro rata, and all of it is published.
"""

from typing import Annotated, Literal

import msgspec

from gridpool.contracts import coins, members
from gridpool.contracts.members import Decision, Role, decision
from gridpool.ledger.contract import Context, Contract
from gridpool.ledger.state import State
from gridpool.ledger.types import Call, Coins, Due, Event, Hash, Millis, Natural, Text, Value, Wallet
from gridpool.markets.netting import settle_positions, split

__all__ = [
    "AGREEMENTS",
    "CYCLES",
    "DEPOSITS",
    "OBLIGATIONS",
    "PERIODS",
    "AcceptAgreement",
    "Agreed",
    "ClaimUsage",
    "DecideDispute",
    "FundGuarantee",
    "Itemise",
    "OfferAgreement",
    "Owe",
    "PlaceDeposit",
    "SettlementParameters",
    "WithdrawDeposit",
    "owe",
    "settlement",
]

settlement = Contract("settlement")

Amount = Annotated[int, msgspec.Meta(ge=0, le=10**15)]
"""Micro-coins of one claim or debt."""
MOST_GROSS = 2**62
"""The most that a cycle's obligations may come to, so that no sum leaves 63 bits."""
OPERATORS = (Role.OPERATOR, Role.UTILITY, Role.TENANT, Role.AGGREGATOR)
DEPOSIT_ESCROW = coins.escrow_key("settlement", "deposits")
FUND_ESCROW = coins.escrow_key("settlement", "fund")


class SettlementParameters(Value):
    """Length of a netting cycle, and how long a counterparty has to answer a claim (ms of market time)."""

    cycle_ms: Annotated[int, msgspec.Meta(ge=60_000, le=400 * 86_400_000)] = 7 * 86_400_000
    answer_ms: Annotated[int, msgspec.Meta(ge=60_000, le=400 * 86_400_000)] = 2 * 86_400_000


class Agreement(Value):
    """Terms between a home and a serving operator: the hash of the agreement file, in force once both have signed."""

    home: Wallet
    serving: Wallet
    terms: Hash
    valid_from: Millis
    valid_until: Millis
    offered_by_home: bool
    accepted: bool = False


class Item(Value):
    """A record on which the two sides differ; ``quantity`` is what this side recorded."""

    record: Hash
    quantity: Natural


class UsageClaim(Value):
    """What one side says a period came to: root and number of its records, and the amount the home operator owes."""

    root: Hash
    records: Natural
    amount: Coins
    items: tuple[Item, ...] = ()


class Period(Value):
    """A period of an agreement and its two claims."""

    home: UsageClaim | None = None
    serving: UsageClaim | None = None
    standing: Literal["open", "disputed", "final"] = "open"
    amount: Coins = 0


class Obligation(Value):
    """What a debtor owes a creditor in a cycle, in total."""

    amount: Coins


class Balance(Value):
    """Coins set aside."""

    amount: Coins


class Cover(Value):
    """How one member's default was borne: owed = paid + deposit + fund + losses of creditors."""

    member: Wallet
    owed: Coins
    paid: Coins
    deposit: Coins
    fund: Coins
    losses: tuple[tuple[Wallet, Coins], ...]


class Cycle(Value):
    """A settled cycle: its gross and net amount, number of payments, and defaults."""

    gross: Coins
    net: Coins
    payments: Natural
    covers: tuple[Cover, ...]


class OfferAgreement(Call, tag="settlement.offer_agreement"):
    """Offer terms to another operator; ``home`` and ``serving`` are the two, one of them the sender."""

    home: Wallet
    serving: Wallet
    terms: Hash
    valid_from: Millis
    valid_until: Millis


class AcceptAgreement(Call, tag="settlement.accept_agreement"):
    """Accept terms, named by their hash."""

    agreement: Natural
    terms: Hash


class ClaimUsage(Call, tag="settlement.claim_usage"):
    """Post one's side of a period (its number is the caller's to choose, such as 202606)."""

    agreement: Natural
    period: Natural
    root: Hash
    records: Natural
    amount: Amount


class Itemise(Call, tag="settlement.itemise"):
    """Give evidence in a dispute: the records on which one differs, in order of their hash."""

    agreement: Natural
    period: Natural
    items: Annotated[tuple[Item, ...], msgspec.Meta(min_length=1, max_length=2_000)]


class DecideDispute(Decision, tag="settlement.decide_dispute"):
    """Settle a disputed period at an amount between the two claims."""

    agreement: Natural
    period: Natural
    amount: Coins


class Owe(Call, tag="settlement.owe"):
    """Acknowledge a debt; it is netted at the end of the cycle."""

    creditor: Wallet
    amount: Amount
    reference: Text


class PlaceDeposit(Call, tag="settlement.place_deposit"):
    """Set coins aside that cover one's own default."""

    amount: Coins


class WithdrawDeposit(Call, tag="settlement.withdraw_deposit"):
    """Take a deposit back; only while one owes nothing in the running cycle."""

    amount: Coins


class FundGuarantee(Call, tag="settlement.fund_guarantee"):
    """Give coins to the guarantee fund."""

    amount: Coins


class ClaimStandsAlone(Due, tag="settlement.claim_stands_alone"):
    """The time to answer a claim is over."""

    agreement: Natural
    period: Natural


class CycleEnds(Due, tag="settlement.cycle_ends"):
    """A netting cycle is over."""

    cycle: Natural


@settlement.event
class Agreed(Event, tag="settlement.agreed"):
    """A period is final."""

    agreement: Natural
    period: Natural
    amount: Coins
    how: Text


@settlement.event
class CycleSettled(Event, tag="settlement.cycle_settled"):
    """A cycle was netted and paid; defaults are listed with who bore them."""

    cycle: Natural
    gross: Coins
    net: Coins
    covers: tuple[Cover, ...]


AGREEMENTS = settlement.table("agreement", key=int, value=Agreement)
PERIODS = settlement.table("period", key=(int, int), value=Period)
"""(agreement, period) -> claims."""
OBLIGATIONS = settlement.table("obligation", key=(int, bytes, bytes), value=Obligation)
"""(cycle, debtor, creditor) -> amount."""
GROSS = settlement.table("gross", key=int, value=Balance)
"""Running cycle -> sum of its obligations."""
DEPOSITS = settlement.table("deposit", key=bytes, value=Balance)
CYCLES = settlement.table("cycle", key=int, value=Cycle)
COUNT = settlement.table("count", key=str, value=Balance)


@settlement.genesis(SettlementParameters)
def begin(ctx: Context, parameters: SettlementParameters) -> None:
    """Open the deposits' escrow and the guarantee fund."""
    ctx.set_parameters("settlement", parameters)
    coins.open_escrow(ctx, DEPOSIT_ESCROW, "settlement deposits")
    coins.open_escrow(ctx, FUND_ESCROW, "guarantee fund")


@settlement.call(OfferAgreement)
def offer_agreement(ctx: Context, call: OfferAgreement) -> None:
    """Put terms down; they bind nobody before the other side accepts."""
    members.require(ctx, *OPERATORS)
    if ctx.sender not in (call.home, call.serving) or call.home == call.serving:
        ctx.refuse("not_a_party")
    if call.valid_until <= call.valid_from:
        ctx.refuse("never_valid")
    ctx.require(members.WALLETS, call.home, "unknown_wallet")
    ctx.require(members.WALLETS, call.serving, "unknown_wallet")
    last = ctx.get(COUNT, "agreement")
    number = 1 if last is None else last.amount + 1
    ctx.put(COUNT, "agreement", Balance(number))
    agreement = Agreement(
        call.home, call.serving, call.terms, call.valid_from, call.valid_until, ctx.sender == call.home
    )
    ctx.put(AGREEMENTS, number, agreement)


@settlement.call(AcceptAgreement)
def accept_agreement(ctx: Context, call: AcceptAgreement) -> None:
    """Let terms take force."""
    agreement = ctx.require(AGREEMENTS, call.agreement, "no_such_agreement")
    if ctx.sender != (agreement.serving if agreement.offered_by_home else agreement.home):
        ctx.refuse("not_the_other_party")
    if agreement.terms != call.terms or agreement.accepted:
        ctx.refuse("not_these_terms")
    ctx.put(AGREEMENTS, call.agreement, msgspec.structs.replace(agreement, accepted=True))


@settlement.call(ClaimUsage)
def claim_usage(ctx: Context, call: ClaimUsage) -> None:
    """Take a side's claim; two equal ones are final, two that differ a dispute that either may end by agreeing."""
    agreement = ctx.require(AGREEMENTS, call.agreement, "no_such_agreement")
    side = _side(ctx, agreement)
    if not agreement.accepted or not agreement.valid_from <= ctx.now < agreement.valid_until + _answer_ms(ctx):
        ctx.refuse("agreement_not_in_force")
    key = (call.agreement, call.period)
    period = ctx.get(PERIODS, key) or Period()
    if period.standing == "final":
        ctx.refuse("period_is_final")
    mine = period.home if side == "home" else period.serving
    if mine is not None and period.standing != "disputed":
        ctx.refuse("already_claimed")
    claim = UsageClaim(call.root, call.records, call.amount, () if mine is None else mine.items)
    period = (
        msgspec.structs.replace(period, home=claim)
        if side == "home"
        else msgspec.structs.replace(period, serving=claim)
    )
    if period.home is None or period.serving is None:
        ctx.put(PERIODS, key, period)
        ctx.schedule(ctx.now + _answer_ms(ctx), ClaimStandsAlone(*key))
        return
    alike = (period.home.root, period.home.records, period.home.amount) == (
        period.serving.root,
        period.serving.records,
        period.serving.amount,
    )
    if alike:
        _finalise(ctx, key, agreement, period, period.home.amount, "both sides agree")
    else:
        ctx.put(PERIODS, key, msgspec.structs.replace(period, standing="disputed"))


@settlement.due(ClaimStandsAlone)
def claim_stands_alone(ctx: Context, due: ClaimStandsAlone) -> None:
    """Decide a period that only one side has claimed by that side's claim."""
    key = (due.agreement, due.period)
    period = ctx.require(PERIODS, key, "no_such_period")
    if period.standing != "open":
        return
    claim = period.home or period.serving
    if claim is not None:
        agreement = ctx.require(AGREEMENTS, due.agreement, "no_such_agreement")
        _finalise(ctx, key, agreement, period, claim.amount, "the other side did not answer")


@settlement.call(Itemise)
def itemise(ctx: Context, call: Itemise) -> None:
    """Add the records on which the sender differs to the dispute."""
    agreement = ctx.require(AGREEMENTS, call.agreement, "no_such_agreement")
    side = _side(ctx, agreement)
    key = (call.agreement, call.period)
    period = ctx.require(PERIODS, key, "no_such_period")
    claim = period.home if side == "home" else period.serving
    if period.standing != "disputed" or claim is None:
        ctx.refuse("not_disputed")
    hashes = [item.record for item in call.items]
    if hashes != sorted(set(hashes)) or len(claim.items) + len(call.items) > 10_000:
        ctx.refuse("items_ascend_and_are_few")
    claim = msgspec.structs.replace(claim, items=(*claim.items, *call.items))
    ctx.put(
        PERIODS,
        key,
        msgspec.structs.replace(period, home=claim)
        if side == "home"
        else msgspec.structs.replace(period, serving=claim),
    )


@decision(DecideDispute)
def decide_dispute(ctx: Context, decided: DecideDispute) -> None:
    """Settle a dispute between its two claims."""
    key = (decided.agreement, decided.period)
    period = ctx.require(PERIODS, key, "no_such_period")
    if period.standing != "disputed" or period.home is None or period.serving is None:
        ctx.refuse("not_disputed")
    low, high = sorted((period.home.amount, period.serving.amount))
    if not low <= decided.amount <= high:
        ctx.refuse("outside_the_claims", f"{low} to {high}")
    agreement = ctx.require(AGREEMENTS, decided.agreement, "no_such_agreement")
    _finalise(ctx, key, agreement, period, decided.amount, "decided by the council")


@settlement.call(Owe)
def acknowledge(ctx: Context, call: Owe) -> None:
    """Add a debt of the sender to the running cycle."""
    members.require(ctx)
    ctx.require(members.WALLETS, call.creditor, "unknown_wallet")
    if call.creditor == ctx.sender or not call.amount:
        ctx.refuse("no_debt")
    owe(ctx, ctx.sender, call.creditor, call.amount)


@settlement.call(PlaceDeposit)
def place_deposit(ctx: Context, call: PlaceDeposit) -> None:
    """Add to one's deposit."""
    members.require(ctx)
    coins.fund_escrow(ctx, ctx.sender, DEPOSIT_ESCROW, call.amount)
    held = ctx.get(DEPOSITS, ctx.sender)
    ctx.put(DEPOSITS, ctx.sender, Balance((0 if held is None else held.amount) + call.amount))


@settlement.call(WithdrawDeposit)
def withdraw_deposit(ctx: Context, call: WithdrawDeposit) -> None:
    """Take from one's deposit while nothing is owed."""
    held = ctx.require(DEPOSITS, ctx.sender, "no_deposit")
    if held.amount < call.amount:
        ctx.refuse("not_enough_deposited", f"{held.amount}")
    if any(True for _ in ctx.scan(OBLIGATIONS, (_cycle(ctx), ctx.sender), limit=1)):
        ctx.refuse("owes_in_this_cycle")
    _use_deposit(ctx, ctx.sender, ctx.sender, call.amount)


@settlement.call(FundGuarantee)
def fund_guarantee(ctx: Context, call: FundGuarantee) -> None:
    """Add to the guarantee fund."""
    members.require(ctx)
    coins.fund_escrow(ctx, ctx.sender, FUND_ESCROW, call.amount)


def owe(ctx: Context, debtor: bytes, creditor: bytes, amount: int) -> None:
    """Add an obligation to the running cycle (for other contracts too); the cycle nets itself when it ends."""
    cycle = _cycle(ctx)
    gross = ctx.get(GROSS, cycle)
    total = amount + (0 if gross is None else gross.amount)
    if total > MOST_GROSS:
        ctx.refuse("too_much_owed", f"at most {MOST_GROSS} micro-coins a cycle")
    ctx.put(GROSS, cycle, Balance(total))
    key = (cycle, debtor, creditor)
    old = ctx.get(OBLIGATIONS, key)
    ctx.put(OBLIGATIONS, key, Obligation((0 if old is None else old.amount) + amount))
    ctx.schedule((cycle + 1) * _cycle_ms(ctx), CycleEnds(cycle))


@settlement.due(CycleEnds)
def cycle_ends(ctx: Context, due: CycleEnds) -> None:
    """Net a cycle and pay it."""
    positions: dict[bytes, int] = {}
    gross = 0
    for (cycle, debtor, creditor), obligation in list(ctx.scan(OBLIGATIONS, (due.cycle,))):
        gross += obligation.amount
        positions[debtor] = positions.get(debtor, 0) - obligation.amount
        positions[creditor] = positions.get(creditor, 0) + obligation.amount
        ctx.delete(OBLIGATIONS, (cycle, debtor, creditor))
    receives = {member: position for member, position in positions.items() if position > 0}
    pool = coins.escrow_key("settlement", "cycle", due.cycle)
    coins.open_escrow(ctx, pool, f"settlement cycle {due.cycle}")
    covers: list[Cover] = []
    for member in sorted(positions):
        owed = -positions[member]
        if owed <= 0:
            continue
        paid = min(owed, coins.free(ctx, member))
        coins.fund_escrow(ctx, member, pool, paid)
        if paid < owed:
            covers.append(_cover(ctx, pool, member, owed, paid))
    remaining = dict(receives)
    for position, cover in enumerate(covers):
        left = cover.owed - cover.paid - cover.deposit - cover.fund
        shares = split(left, {member.hex(): amount for member, amount in remaining.items()})
        borne = tuple((member, shares[member.hex()]) for member in sorted(remaining) if shares[member.hex()])
        for member, amount in borne:
            remaining[member] -= amount
        covers[position] = msgspec.structs.replace(cover, losses=borne)
    named = {member.hex(): position for member, position in positions.items()}
    for member, amount in sorted(remaining.items()):
        coins.pay_from_escrow(ctx, pool, member, amount)
    coins.close_escrow(ctx, pool)
    net = sum(receives.values())
    ctx.delete(GROSS, due.cycle)
    ctx.put(CYCLES, due.cycle, Cycle(gross, net, len(settle_positions(named)), tuple(covers)))
    ctx.emit(CycleSettled(due.cycle, gross, net, tuple(covers)))


@settlement.invariant
def deposits_are_in_their_escrow(state: State) -> bool:
    """The deposits' escrow holds exactly what members deposited."""
    return coins.escrow_balance(state, DEPOSIT_ESCROW) == sum(held.amount for _, held in state.scan(DEPOSITS))


@settlement.invariant
def final_periods_lie_between_their_claims(state: State) -> bool:
    """A final amount is that of a claim, or lies between the two."""
    for _, period in state.scan(PERIODS):
        claims = [claim.amount for claim in (period.home, period.serving) if claim is not None]
        if period.standing == "final" and not min(claims) <= period.amount <= max(claims):
            return False
    return True


def _cover(ctx: Context, pool: bytes, member: bytes, owed: int, paid: int) -> Cover:
    """Let deposit and fund cover what a member cannot pay; the losses of creditors are filled in afterwards."""
    short = owed - paid
    held = ctx.get(DEPOSITS, member)
    deposit = min(short, 0 if held is None else held.amount)
    if deposit and held is not None:
        ctx.put(DEPOSITS, member, Balance(held.amount - deposit))
        coins.move_between_escrows(ctx, DEPOSIT_ESCROW, pool, deposit)
    fund = min(short - deposit, coins.escrow_balance(ctx, FUND_ESCROW))
    if fund:
        coins.move_between_escrows(ctx, FUND_ESCROW, pool, fund)
    return Cover(member, owed, paid, deposit, fund, ())


def _use_deposit(ctx: Context, member: bytes, target: bytes, amount: int) -> None:
    held = ctx.require(DEPOSITS, member, "no_deposit")
    coins.pay_from_escrow(ctx, DEPOSIT_ESCROW, target, amount, income=False)
    if held.amount == amount:
        ctx.delete(DEPOSITS, member)
    else:
        ctx.put(DEPOSITS, member, Balance(held.amount - amount))


def _finalise(ctx: Context, key: tuple[int, int], agreement: Agreement, period: Period, amount: int, how: str) -> None:
    ctx.put(PERIODS, key, msgspec.structs.replace(period, standing="final", amount=amount))
    if amount:
        owe(ctx, agreement.home, agreement.serving, amount)
    ctx.emit(Agreed(*key, amount, how))


def _side(ctx: Context, agreement: Agreement) -> Literal["home", "serving"]:
    if ctx.sender == agreement.home:
        return "home"
    if ctx.sender != agreement.serving:
        ctx.refuse("not_a_party")
    return "serving"


def _answer_ms(ctx: Context) -> int:
    return ctx.parameters("settlement", SettlementParameters).answer_ms


def _cycle_ms(ctx: Context) -> int:
    return ctx.parameters("settlement", SettlementParameters).cycle_ms


def _cycle(ctx: Context) -> int:
    return ctx.now // _cycle_ms(ctx)
