"""How settlement pays: out of the interval's escrow, then free coins, then a token; the rest is in arrears."""

from collections.abc import Iterable
from typing import Literal

import msgspec

from gridpool.contracts import coins, credit_tokens
from gridpool.contracts.energy_clearing import TRADES, Trade, interval_escrow
from gridpool.contracts.energy_intervals import EnergyParameters, Quality, energy
from gridpool.contracts.energy_market import POSITIONS
from gridpool.contracts.energy_rewards import contribute
from gridpool.ledger.contract import Context
from gridpool.ledger.types import Call, Coins, Event, Millis, Text, Value, Wallet, WattHours

__all__ = [
    "ARREARS",
    "BILLS",
    "Arrears",
    "Bill",
    "InArrears",
    "LegPaid",
    "PayArrears",
    "collect_arrears",
    "pay",
    "pay_arrears",
    "pay_bill",
    "pay_trade",
]


class Bill(Value):
    """A wallet's dealings with the back-stop in an interval.

    Bought beyond contract ``extra_wh``, sold beyond contract ``surplus_wh``, sold but not delivered ``shortfall_wh``,
    bought but not taken ``untaken_wh``; ``short_wh`` and ``long_wh`` of these lie beyond the tolerance.
    """

    import_wh: WattHours
    export_wh: WattHours
    quality: Quality
    extra_wh: WattHours
    surplus_wh: WattHours
    shortfall_wh: WattHours
    untaken_wh: WattHours
    short_wh: WattHours
    long_wh: WattHours
    charge: Coins
    credit: Coins
    status: Literal["due", "paid"] = "due"
    objected: bool = False


class Arrears(Value):
    """What a wallet owes from settlements that it could not pay; taken from its next income."""

    amount: Coins


class PayArrears(Call, tag="energy.pay_arrears"):
    """Pay what the caller owes from earlier settlements, as far as its coins go."""


@energy.event
class LegPaid(Event, tag="energy.leg_paid"):
    """Coins changed hands for an interval."""

    interval: Millis
    payer: Wallet
    payee: Wallet
    amount: Coins
    kind: Text


@energy.event
class InArrears(Event, tag="energy.in_arrears"):
    """A wallet could not pay what it owes."""

    debtor: Wallet
    creditor: Wallet
    amount: Coins


BILLS = energy.table("bill", key=(int, bytes), value=Bill)
"""(interval, wallet) -> dealings with the back-stop."""
ARREARS = energy.table("arrears", key=(bytes, bytes), value=Arrears)
"""(debtor, creditor) -> what is owed."""


@energy.call(PayArrears)
def pay_arrears(ctx: Context, call: PayArrears) -> None:
    """Pay old debts."""
    if next(iter(ctx.scan(ARREARS, (ctx.sender,), limit=1)), None) is None:
        ctx.refuse("nothing_owed")
    collect_arrears(ctx, (ctx.sender,))


def pay_trade(
    ctx: Context, start: int, number: int, trade: Trade, market: EnergyParameters, payees: dict[bytes, None]
) -> None:
    """Empty a trade's share of the escrow: to seller, grid, back-stop and market, and the rest back."""
    escrow = interval_escrow(start)
    funded = max(0, trade.received - trade.amount)
    margin = trade.charged - trade.paid
    for payee, amount, kind in (
        (trade.seller, trade.paid, "energy"),
        (market.grid, trade.fee_paid, "fee"),
        (market.back_stop, trade.replaced, "replacement"),
        (market.market, max(0, margin), "margin"),
        (market.market, funded - max(0, -margin), "margin not needed"),
    ):
        if amount:
            coins.pay_from_escrow(ctx, escrow, payee, amount)
            payees[payee] = None
            ctx.emit(LegPaid(start, trade.buyer, payee, amount, kind))
    back = trade.amount + trade.fee - trade.charged - trade.fee_paid - trade.replaced
    if trade.loan:
        credit_tokens.refund_token(ctx, trade.loan, escrow, back)
    elif back:
        coins.pay_from_escrow(ctx, escrow, trade.buyer, back, income=False)
    ctx.put(TRADES, (start, number), msgspec.structs.replace(trade, status="paid"))
    if trade.delivered_wh:
        credit_tokens.completed(ctx, trade.buyer)
        credit_tokens.completed(ctx, trade.seller)
        contribute(ctx, market, start, trade.aggregator, trade.seller, trade.delivered_wh)


def pay_bill(
    ctx: Context, start: int, wallet: bytes, bill: Bill, market: EnergyParameters, payees: dict[bytes, None]
) -> None:
    """Set a wallet's bond free and pay what it owes the back-stop, or is owed."""
    position = ctx.get(POSITIONS, (start, wallet))
    loan = b""
    if position is not None:
        loan = position.loan
        if position.bond:
            coins.release(ctx, wallet, position.bond)
            ctx.put(POSITIONS, (start, wallet), msgspec.structs.replace(position, bond=0))
            payees[wallet] = None
    ctx.put(BILLS, (start, wallet), msgspec.structs.replace(bill, status="paid"))
    pay(ctx, start, wallet, market.back_stop, bill.charge - bill.credit, "residual", payees, loan)


def pay(
    ctx: Context,
    start: int,
    payer: bytes,
    payee: bytes,
    amount: int,
    kind: str,
    payees: dict[bytes, None],
    loan: bytes = b"",
) -> None:
    """Move an amount (backwards where negative) from free coins, then from a token, and note the rest as arrears."""
    if amount < 0:
        payer, payee, amount, loan = payee, payer, -amount, b""
    if amount == 0 or payer == payee:
        return
    ctx.emit(LegPaid(start, payer, payee, amount, kind))
    payees[payee] = None
    part = min(amount, coins.free(ctx, payer))
    coins.move(ctx, payer, payee, part)
    amount -= part
    if amount and loan:
        held = ctx.get(credit_tokens.LOANS, loan)
        part = min(amount, credit_tokens.token_free(ctx, loan))
        if part and held is not None and held.status == "open":
            credit_tokens.token_to_wallet(ctx, loan, payee, part, f"energy {start}")
            amount -= part
    if amount:
        owed = ctx.get(ARREARS, (payer, payee))
        ctx.put(ARREARS, (payer, payee), Arrears(min(coins.MOST_COINS, amount + (owed.amount if owed else 0))))
        ctx.emit(InArrears(payer, payee, amount))


def collect_arrears(ctx: Context, wallets: Iterable[bytes]) -> None:
    """Take arrears from wallets that have coins again; what their creditors owe others in turn waits its turn."""
    for wallet in wallets:
        for key, owed in list(ctx.scan(ARREARS, (wallet,))):
            part = min(owed.amount, coins.free(ctx, wallet))
            if not part:
                break
            coins.move(ctx, wallet, key[1], part)
            if part == owed.amount:
                ctx.delete(ARREARS, key)
            else:
                ctx.put(ARREARS, key, Arrears(owed.amount - part))
