"""The energy market: orders from forecasts, clearing at gate closure, meter readings, settlement, rewards.

The calls of a day, in order (times in ms of market time, ``start`` = the interval's start)::

    propose(SetEnergyParameters(EnergyParameters(back_stop=.., grid=.., market=..)))     council, once
    RegisterMeters((NewMeter(wallet, "generator", "feeder", import_wh, export_wh), ...)) aggregator, once
    members.IssueTags(start, ((wallet, tag), ...))                   aggregator, before a pool's orders
    PlaceOrder(start, "buy"|"sell", quantity_wh, price, loan=b"")    wallet, until start - lead_ms
    CancelOrder(start, serial), ReplaceOrder(start, serial, quantity_wh, price)
    ... AdvanceClock past start - lead_ms: the contract clears; read INTERVALS[start], TRADES[(start, n)]
    SubmitReadings((MeterReading(start, import_wh, export_wh), ...)) wallet, after the interval
    ReportMissing(start, (wallet, ...))                              aggregator, for silent meters without orders
    ... at end + initial_ms the initial run makes legs due; Countersign(start) pays them at once
    ... two intervals later silence is consent; runs at + revised_ms and + final_ms post differences
    ... at the end of the reward period (+ the time of the last consent) rewards are paid

Volume: wallets sign calls with ``delegate(...)`` and the aggregator carries up to 500 in one transaction, mode
``each``. A buyer short of coins takes a token first (``credit``) and names it as ``loan``.
"""

from collections.abc import Iterator

import msgspec

from gridpool.contracts import coins
from gridpool.contracts.credit_tokens import TOKENS
from gridpool.contracts.energy_clearing import (
    TRADES,
    Cleared,
    ClearingRefused,
    ProposeClearing,
    ProposedTrade,
    Trade,
    book_of,
    interval_escrow,
    market_orders,
    proposal_of,
)
from gridpool.contracts.energy_intervals import (
    INTERVALS,
    MARKETS,
    AreaFee,
    EnergyParameters,
    Interval,
    SetEnergyParameters,
    energy,
)
from gridpool.contracts.energy_market import (
    BOOKS,
    METERS,
    POSITIONS,
    PROFILES,
    QUOTES,
    Book,
    Meter,
    MoveMeter,
    NewMeter,
    OpenOrder,
    Position,
    PostQuote,
    Profile,
    Quote,
    RegisterMeters,
    RegisterProfile,
)
from gridpool.contracts.energy_orders import (
    COMMITMENTS,
    CancelOrder,
    Commitment,
    CommitOrder,
    OrderPlaced,
    PlaceOrder,
    ReplaceOrder,
    RevealOrder,
    cost_of,
    sealed_digest,
    tag_message,
)
from gridpool.contracts.energy_readings import (
    READINGS,
    MeterReading,
    ReportMissing,
    StoredReading,
    SubmitReadings,
)
from gridpool.contracts.energy_rewards import CONTRIBUTIONS, Contribution, Rewarded
from gridpool.contracts.energy_settlement import (
    ARREARS,
    BILLS,
    Arrears,
    Bill,
    Countersign,
    Object,
    PayArrears,
    Settled,
)
from gridpool.ledger.state import State

__all__ = [
    "ARREARS",
    "BILLS",
    "BOOKS",
    "COMMITMENTS",
    "CONTRIBUTIONS",
    "INTERVALS",
    "MARKETS",
    "METERS",
    "POSITIONS",
    "PROFILES",
    "QUOTES",
    "READINGS",
    "TRADES",
    "AreaFee",
    "Arrears",
    "Bill",
    "Book",
    "CancelOrder",
    "Cleared",
    "ClearingRefused",
    "CommitOrder",
    "Commitment",
    "Contribution",
    "Countersign",
    "EnergyParameters",
    "Interval",
    "InvoiceLine",
    "Meter",
    "MeterReading",
    "MoveMeter",
    "NewMeter",
    "Object",
    "OpenOrder",
    "OrderPlaced",
    "PayArrears",
    "PlaceOrder",
    "Position",
    "PostQuote",
    "Profile",
    "ProposeClearing",
    "ProposedTrade",
    "Quote",
    "RegisterMeters",
    "RegisterProfile",
    "ReplaceOrder",
    "ReportMissing",
    "RevealOrder",
    "Rewarded",
    "SetEnergyParameters",
    "Settled",
    "StoredReading",
    "SubmitReadings",
    "Trade",
    "book_of",
    "cost_of",
    "energy",
    "interval_escrow",
    "invoice_lines",
    "market_orders",
    "proposal_of",
    "sealed_digest",
    "tag_message",
]


class InvoiceLine(msgspec.Struct, frozen=True):
    """One line of a member's invoice: ``amount`` is positive where the wallet pays, negative where it receives."""

    interval: int
    kind: str
    counterparty: str
    energy_wh: int
    amount: int
    status: str


def invoice_lines(state: State, wallet: bytes, begin: int = 0, end: int = 2**63) -> Iterator[InvoiceLine]:
    """Yield what a wallet pays and receives for energy in the intervals that start in [begin, end)."""
    for start, interval in state.scan(INTERVALS, start=begin):
        if start >= end:
            return
        bill = state.get(BILLS, (start, wallet))
        if bill is None:
            continue
        market = state.get(MARKETS, interval.market) or EnergyParameters()
        position = state.get(POSITIONS, (start, wallet))
        for number in () if position is None else position.trades:
            trade = state.get(TRADES, (start, number))
            if trade is None or trade.status == "held":
                continue
            if trade.buyer == wallet:
                other = trade.seller.hex()
                yield InvoiceLine(start, "energy bought", other, trade.delivered_wh, trade.charged, trade.status)
                if trade.fee_paid:
                    grid = market.grid.hex()
                    yield InvoiceLine(start, "grid fee", grid, trade.delivered_wh, trade.fee_paid, trade.status)
                if trade.replaced:
                    missing = trade.quantity_wh - trade.delivered_wh
                    stop = market.back_stop.hex()
                    yield InvoiceLine(start, "replacement", stop, missing, trade.replaced, trade.status)
            else:
                other = trade.buyer.hex()
                yield InvoiceLine(start, "energy sold", other, trade.delivered_wh, -trade.paid, trade.status)
        stop = market.back_stop.hex()
        bought, sold = bill.extra_wh + bill.shortfall_wh, bill.surplus_wh + bill.untaken_wh
        if bought or bill.charge:
            yield InvoiceLine(start, "from back-stop", stop, bought, bill.charge, bill.status)
        if sold or bill.credit:
            yield InvoiceLine(start, "to back-stop", stop, sold, -bill.credit, bill.status)


@energy.invariant
def energy_is_conserved(state: State) -> bool:
    """Imports and what the back-stop absorbs are exports (as they arrive) and what it supplies, to the Wh."""
    return all(
        interval.imported_wh + interval.absorbed_wh == interval.exported_wh + interval.supplied_wh
        for _, interval in state.scan(INTERVALS)
    )


@energy.invariant
def escrows_hold_what_trades_are_owed(state: State) -> bool:
    """An interval's escrow holds exactly the money of its trades that are not yet paid."""
    owed: dict[int, int] = {start: 0 for start, _ in state.scan(INTERVALS)}
    for (start, _), trade in state.scan(TRADES):
        if trade.status != "paid":
            owed[start] += trade.amount + trade.fee + max(0, trade.received - trade.amount)
    return all(coins.escrow_balance(state, interval_escrow(start)) == amount for start, amount in owed.items())


@energy.invariant
def contracts_match_trades(state: State) -> bool:
    """Bought and sold Wh of positions are those of the trades, and never more than was nominated."""
    bought: dict[tuple[int, bytes], int] = {}
    sold: dict[tuple[int, bytes], int] = {}
    for (start, _), trade in state.scan(TRADES):
        bought[start, trade.buyer] = bought.get((start, trade.buyer), 0) + trade.quantity_wh
        sold[start, trade.seller] = sold.get((start, trade.seller), 0) + trade.quantity_wh
        if trade.buyer == trade.seller or trade.delivered_wh > trade.quantity_wh:
            return False
        if trade.charged + trade.replaced > trade.amount or trade.fee_paid > trade.fee:
            return False
    return all(
        position.bought_wh == bought.get(key, 0) <= position.nominated_buy_wh
        and position.sold_wh == sold.get(key, 0) <= position.nominated_sell_wh
        for key, position in state.scan(POSITIONS)
    )


@energy.invariant
def reserves_cover_open_orders_and_bonds(state: State) -> bool:
    """What wallets have reserved covers every order, commitment and bond that rests on it: no coin backs two."""
    needed: dict[bytes, int] = {}
    for _, book in state.scan(BOOKS):
        for order in book.orders:
            backing = order.loan or order.wallet
            needed[backing] = needed.get(backing, 0) + order.reserved
    for _, held in state.scan(COMMITMENTS):
        if not held.revealed:
            backing = held.loan or held.wallet
            needed[backing] = needed.get(backing, 0) + held.cap
    for (_, wallet), position in state.scan(POSITIONS):
        needed[wallet] = needed.get(wallet, 0) + position.bond
    return all(_reserved(state, backing) >= amount for backing, amount in needed.items())


def _reserved(state: State, backing: bytes) -> int:
    token = state.get(TOKENS, backing)
    if token is not None:
        return token.reserved
    account = state.get(coins.ACCOUNTS, backing)
    return 0 if account is None else account.reserved
