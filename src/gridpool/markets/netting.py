"""Multilateral netting: a period's obligations become one position a member and at most n - 1 payments.

Everything is exact in integers and does not depend on the order of the obligations. When a member defaults, what it
owes is covered by its own deposit, then by the guarantee fund, and the rest is borne by the creditors in proportion
to what they were to receive (largest remainder), in that order.
"""

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from gridpool.errors import RefusedInput

__all__ = [
    "Loss",
    "Netting",
    "Obligation",
    "Payment",
    "Waterfall",
    "cover_default",
    "net",
    "read_obligations",
    "settle_positions",
    "split",
]


COLUMNS = ("debtor", "creditor", "amount")


class Obligation(NamedTuple):
    """``debtor`` owes ``creditor`` an amount, in the smallest unit of the currency."""

    debtor: str
    creditor: str
    amount: int


@dataclass(frozen=True, slots=True)
class Payment:
    """One transfer that settles positions."""

    debtor: str
    creditor: str
    amount: int


@dataclass(frozen=True, slots=True)
class Netting:
    """Net positions (positive receives) and the payments that settle them."""

    gross: int
    net: int
    positions: dict[str, int]
    payments: tuple[Payment, ...]


@dataclass(frozen=True, slots=True)
class Loss:
    """What a creditor does not receive because a member defaulted."""

    member: str
    amount: int


@dataclass(frozen=True, slots=True)
class Waterfall:
    """How a default is borne: ``owed = deposit + fund + sum of losses``; ``receives`` is what creditors still get."""

    defaulter: str
    owed: int
    deposit: int
    fund: int
    losses: tuple[Loss, ...]
    receives: dict[str, int]


def read_obligations(data: bytes, where: str) -> list[Obligation]:
    """Read obligations from CSV (columns debtor, creditor, amount); a bad row refuses the file.

    Raises RefusedInput naming the line.
    """
    obligations = []
    rows = csv.reader(io.StringIO(_text(data, where)), strict=True)
    try:
        header = [name.strip() for name in next(rows, [])]
        if sorted(header) != sorted(COLUMNS):
            raise RefusedInput(f"{where}: the columns are {','.join(COLUMNS)}")
        first, second, third = (header.index(name) for name in COLUMNS)
        for row in rows:
            if not row:
                continue
            if len(row) != len(COLUMNS):
                raise RefusedInput(f"{where} line {rows.line_num}: {len(row)} columns, {len(COLUMNS)} expected")
            debtor, creditor, amount = row[first].strip(), row[second].strip(), row[third].strip()
            if not debtor or not creditor or debtor == creditor:
                raise RefusedInput(f"{where} line {rows.line_num}: debtor and creditor are two members")
            if not (debtor.isprintable() and creditor.isprintable()) or len(debtor) > 128 or len(creditor) > 128:
                raise RefusedInput(f"{where} line {rows.line_num}: an id has at most 128 characters, all printable")
            if not (amount.isascii() and amount.isdigit() and len(amount) <= 18):
                raise RefusedInput(
                    f"{where} line {rows.line_num}: {amount[:40]!r} is no amount (an integer below 10^18)"
                )
            obligations.append(Obligation(debtor, creditor, int(amount)))
    except csv.Error as error:
        raise RefusedInput(f"{where} line {rows.line_num}: {error}") from None
    return obligations


def _text(data: bytes, where: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise RefusedInput(f"{where} line {line}: byte {data[error.start]:#04x} is no UTF-8") from None


def net(obligations: Iterable[Obligation]) -> Netting:
    """Net obligations; the largest debtor pays the largest creditor first, ties by id.

    Debtors only pay and creditors only receive; n members with a position other than 0 make at most n - 1 payments.
    Raises RefusedInput for a negative amount or a member that owes itself.
    """
    positions: dict[str, int] = {}
    gross = 0
    for debtor, creditor, amount in obligations:
        if amount < 0:
            raise RefusedInput(f"{debtor} owes {creditor} {amount}; an amount is not negative")
        if debtor == creditor:
            raise RefusedInput(f"{debtor} owes itself; an obligation has two sides")
        gross += amount
        positions[debtor] = positions.get(debtor, 0) - amount
        positions[creditor] = positions.get(creditor, 0) + amount
    positions = dict(sorted(positions.items()))
    payments = settle_positions(positions)
    return Netting(gross, sum(p for p in positions.values() if p > 0), positions, payments)


def settle_positions(positions: Mapping[str, int]) -> tuple[Payment, ...]:
    """Turn positions that sum to zero into payments, largest against largest."""
    debtors = sorted(((-p, m) for m, p in positions.items() if p < 0), key=lambda entry: (-entry[0], entry[1]))
    creditors = sorted(((p, m) for m, p in positions.items() if p > 0), key=lambda entry: (-entry[0], entry[1]))
    if sum(p for p, _ in debtors) != sum(p for p, _ in creditors):
        raise RefusedInput("the positions do not sum to zero")
    payments = []
    i = j = 0
    owed, due = (debtors[0][0], creditors[0][0]) if debtors else (0, 0)
    while i < len(debtors):
        amount = min(owed, due)
        payments.append(Payment(debtors[i][1], creditors[j][1], amount))
        owed, due = owed - amount, due - amount
        if not owed:
            i += 1
            owed = debtors[i][0] if i < len(debtors) else 0
        if not due:
            j += 1
            due = creditors[j][0] if j < len(creditors) else 0
    return tuple(payments)


def cover_default(netting: Netting, defaulter: str, *, deposit: int = 0, fund: int = 0) -> Waterfall:
    """Show who bears a member's default: its deposit, the guarantee fund, the creditors pro rata, in that order.

    Raises RefusedInput for a member without a position or a negative deposit or fund.
    """
    if defaulter not in netting.positions:
        raise RefusedInput(f"no member {defaulter!r} among the obligations")
    if deposit < 0 or fund < 0:
        raise RefusedInput("deposit and guarantee fund are not negative")
    owed = max(-netting.positions[defaulter], 0)
    from_deposit = min(owed, deposit)
    from_fund = min(owed - from_deposit, fund)
    creditors = {member: position for member, position in netting.positions.items() if position > 0}
    losses = split(owed - from_deposit - from_fund, creditors)
    return Waterfall(
        defaulter,
        owed,
        from_deposit,
        from_fund,
        tuple(Loss(member, amount) for member, amount in losses.items() if amount),
        {member: position - losses.get(member, 0) for member, position in creditors.items()},
    )


def split(total: int, weights: Mapping[str, int]) -> dict[str, int]:
    """Split ``total`` in proportion to weights by largest remainder, ties to the lower id; exact to the unit."""
    whole = sum(weights.values())
    if not total or not whole:
        return dict.fromkeys(weights, 0)
    shares = {member: total * weight // whole for member, weight in weights.items()}
    order = sorted(weights, key=lambda member: (-(total * weights[member] % whole), member))
    for member in order[: total - sum(shares.values())]:
        shares[member] += 1
    return shares
