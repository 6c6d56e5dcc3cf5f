"""Banks that lend to each other when one is short: asked for, granted at exactly those terms, paid back."""

import msgspec

from gridpool.contracts import coins, members
from gridpool.contracts.credit_tokens import (
    credit,
)
from gridpool.contracts.members import Role
from gridpool.ledger.contract import Context
from gridpool.ledger.types import (
    Call,
    Coins,
    Millis,
    PartsPerMillion,
    Value,
    Wallet,
)

__all__ = ["DEBTS", "AskBank", "Debt", "GrantBank", "RepayBank", "ask_bank", "grant_bank", "repay_bank"]


class Debt(Value):
    """What one bank owes another: asked for, or lent and due."""

    amount: Coins
    rate_ppm: PartsPerMillion
    term_ms: Millis
    lent: Coins = 0
    owed: Coins = 0
    due: Millis = 0


class AskBank(Call, tag="credit.ask_bank"):
    """Ask another bank for coins at a rate (ppm of the amount) for a term."""

    bank: Wallet
    amount: Coins
    rate_ppm: PartsPerMillion
    term_ms: Millis


class GrantBank(Call, tag="credit.grant_bank"):
    """Lend another bank what it asked for; the terms are repeated so that nothing else is granted."""

    bank: Wallet
    amount: Coins
    rate_ppm: PartsPerMillion
    term_ms: Millis


class RepayBank(Call, tag="credit.repay_bank"):
    """Pay another bank back."""

    bank: Wallet
    amount: Coins


DEBTS = credit.table("debt", key=(bytes, bytes), value=Debt)
"""(bank that owes, bank that lends) -> debt."""


@credit.call(AskBank)
def ask_bank(ctx: Context, call: AskBank) -> None:
    """Put down what a bank would like to borrow from another."""
    members.require(ctx, Role.BANK)
    if call.bank == ctx.sender or not members.has_role(ctx, call.bank, Role.BANK):
        ctx.refuse("not_another_bank", call.bank.hex())
    old = ctx.get(DEBTS, (ctx.sender, call.bank))
    if old is not None and old.owed:
        ctx.refuse("repay_first", f"{old.owed} owed")
    if call.amount == 0 or call.amount > coins.MOST_COINS // 2 or call.rate_ppm > 1_000_000:
        ctx.refuse("terms_out_of_range", f"{call.amount} at {call.rate_ppm} ppm")
    ctx.put(DEBTS, (ctx.sender, call.bank), Debt(call.amount, call.rate_ppm, call.term_ms))


@credit.call(GrantBank)
def grant_bank(ctx: Context, call: GrantBank) -> None:
    """Lend another bank what it asked for, at its own terms."""
    members.require(ctx, Role.BANK)
    debt = ctx.require(DEBTS, (call.bank, ctx.sender), "not_asked_for")
    if (debt.amount, debt.rate_ppm, debt.term_ms) != (call.amount, call.rate_ppm, call.term_ms) or debt.owed:
        ctx.refuse("other_terms", "grant exactly what was asked for")
    coins.move(ctx, ctx.sender, call.bank, call.amount, income=False)
    owed = call.amount + call.amount * call.rate_ppm // 1_000_000
    ctx.put(
        DEBTS,
        (call.bank, ctx.sender),
        msgspec.structs.replace(debt, lent=call.amount, owed=owed, due=min(ctx.now + call.term_ms, members.FOREVER)),
    )


@credit.call(RepayBank)
def repay_bank(ctx: Context, call: RepayBank) -> None:
    """Pay an interbank loan back; paid off, the debt is forgotten."""
    debt = ctx.require(DEBTS, (ctx.sender, call.bank), "no_such_debt")
    if not debt.owed:
        ctx.refuse("nothing_outstanding")
    amount = min(call.amount or debt.owed, debt.owed)
    coins.move(ctx, ctx.sender, call.bank, amount)
    if amount == debt.owed:
        ctx.delete(DEBTS, (ctx.sender, call.bank))
    else:
        ctx.put(DEBTS, (ctx.sender, call.bank), msgspec.structs.replace(debt, owed=debt.owed - amount))
