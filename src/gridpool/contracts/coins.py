"""Energy coins: accounts, what of them is reserved, escrows, transfers; minted and redeemed by the council alone.

For other contracts (all refuse with a code, none leaves anything half-done; amounts in micro-coins, not negative)::

    balance(state, wallet), free(state, wallet)        everything, and what is not reserved
    move(ctx, source, target, amount)                  out of what is free; counts as the target's income
    reserve(ctx, wallet, amount), release(ctx, wallet, amount), pay_reserved(ctx, wallet, target, amount)
    open_escrow(ctx, escrow, label), fund_escrow(ctx, source, escrow, amount)
    fund_escrow_reserved(ctx, source, escrow, amount)  the same out of what the source had reserved
    pay_from_escrow(ctx, escrow, target, amount), escrow_balance(state, escrow), close_escrow(ctx, escrow)
    move_between_escrows(ctx, escrow, other, amount)

An escrow is named by bytes of the caller's choice, begun with its contract's name (``escrow_key("energy", ...)``).
"""

import hashlib
from typing import Annotated

import msgspec

from gridpool.contracts import members
from gridpool.contracts.members import Decision, decision, recovery
from gridpool.ledger.contract import Context, Contract, Refused
from gridpool.ledger.state import State
from gridpool.ledger.types import Call, Coins, Event, Hash, Millis, Text, Value, Wallet, encode

__all__ = [
    "ACCOUNTS",
    "ESCROWS",
    "REDEMPTIONS",
    "SUPPLY",
    "Account",
    "CoinParameters",
    "Escrow",
    "Mint",
    "Minted",
    "Redeem",
    "RedemptionRequest",
    "RequestRedemption",
    "Supply",
    "SweepReplaced",
    "Transfer",
    "Transferred",
    "balance",
    "close_escrow",
    "coins",
    "escrow_balance",
    "escrow_key",
    "free",
    "fund_escrow",
    "fund_escrow_reserved",
    "move",
    "move_between_escrows",
    "note_income",
    "open_escrow",
    "pay_from_escrow",
    "pay_reserved",
    "redemption_id",
    "release",
    "reserve",
]

coins = Contract("coins")

MOST_COINS = 2**62
"""No more micro-coins than this are ever minted, so that no sum of balances leaves 63 bits."""


class Account(Value):
    """A wallet's coins, how many of them are reserved, and when it last had income (ms of market time)."""

    balance: Coins
    reserved: Coins = 0
    last_income: Millis = 0


class Escrow(Value):
    """Coins that belong to no account until a contract pays them out."""

    label: Text
    balance: Coins


class Supply(Value):
    """Micro-coins ever minted and ever redeemed."""

    minted: Coins
    redeemed: Coins


class RedemptionRequest(Value):
    """Coins that a member wants paid out outside the ledger; they are reserved until the council decides."""

    wallet: Wallet
    amount: Coins
    reference: Text


class Payment(Value):
    """An amount for a wallet."""

    wallet: Wallet
    amount: Coins


class CoinParameters(Value):
    """Genesis of the coins: what each wallet starts with."""

    accounts: Annotated[tuple[Payment, ...], msgspec.Meta(max_length=2_000_000)] = ()


class Transfer(Call, tag="coins.transfer"):
    """Send coins to another wallet."""

    to: Wallet
    amount: Coins
    reference: Text = ""


class RequestRedemption(Call, tag="coins.request_redemption"):
    """Ask the council to redeem coins; they stay reserved until it has decided."""

    amount: Coins
    reference: Text


class SweepReplaced(Call, tag="coins.sweep_replaced"):
    """Move what a replaced wallet still holds to its successor; anybody may ask."""

    wallet: Wallet


class Mint(Decision, tag="coins.mint"):
    """Mint coins into wallets."""

    payments: Annotated[tuple[Payment, ...], msgspec.Meta(min_length=1, max_length=1_000)]
    reason: Text


class Redeem(Decision, tag="coins.redeem"):
    """Burn the coins of a redemption request (paid out outside the ledger), or turn it down."""

    request: Hash
    granted: bool


@coins.event
class Transferred(Event, tag="coins.transferred"):
    """Coins were sent."""

    sender: Wallet
    to: Wallet
    amount: Coins
    reference: Text


@coins.event
class Minted(Event, tag="coins.minted"):
    """Coins came into being."""

    amount: Coins
    reason: Text


@coins.event
class RedemptionRequested(Event, tag="coins.redemption_requested"):
    """A member asks for redemption."""

    request: Hash
    wallet: Wallet
    amount: Coins


@coins.event
class Redeemed(Event, tag="coins.redeemed"):
    """A redemption request was decided."""

    request: Hash
    amount: Coins
    granted: bool


ACCOUNTS = coins.table("account", key=bytes, value=Account)
ESCROWS = coins.table("escrow", key=bytes, value=Escrow)
SUPPLY = coins.table("supply", key=str, value=Supply)
"""``coins`` -> what was minted and redeemed."""
REDEMPTIONS = coins.table("redemption", key=bytes, value=RedemptionRequest)

NOTHING = Account(0)


def balance(state: State, wallet: bytes) -> int:
    """Return all coins of a wallet, reserved ones included."""
    return (state.get(ACCOUNTS, wallet) or NOTHING).balance


def free(state: State, wallet: bytes) -> int:
    """Return the coins of a wallet that are not reserved."""
    account = state.get(ACCOUNTS, wallet) or NOTHING
    return account.balance - account.reserved


def move(ctx: Context, source: bytes, target: bytes, amount: int, *, income: bool = True) -> None:
    """Move free coins from wallet to wallet; ``income`` says whether they count as the target's income."""
    if amount == 0 or source == target:
        return
    _take(ctx, source, amount)
    _give(ctx, target, amount, income)


def reserve(ctx: Context, wallet: bytes, amount: int) -> None:
    """Set free coins aside; refused with ``not_enough_coins``."""
    account = ctx.get(ACCOUNTS, wallet) or NOTHING
    if account.balance - account.reserved < amount:
        raise Refused("not_enough_coins", f"{account.balance - account.reserved} free, {amount} needed")
    if amount:
        ctx.put(ACCOUNTS, wallet, Account(account.balance, account.reserved + amount, account.last_income))


def release(ctx: Context, wallet: bytes, amount: int) -> None:
    """Set reserved coins free."""
    account = ctx.get(ACCOUNTS, wallet) or NOTHING
    if account.reserved < amount:
        raise Refused("not_reserved", f"{account.reserved} reserved, {amount} to release")
    if amount:
        ctx.put(ACCOUNTS, wallet, Account(account.balance, account.reserved - amount, account.last_income))


def note_income(ctx: Context, wallet: bytes, at: int) -> None:
    """Note that a wallet had income at a market time (a history that the council vouches for)."""
    account = ctx.get(ACCOUNTS, wallet) or NOTHING
    ctx.put(ACCOUNTS, wallet, Account(account.balance, account.reserved, max(at, account.last_income)))


def pay_reserved(ctx: Context, source: bytes, target: bytes, amount: int) -> None:
    """Pay out of what ``source`` had reserved."""
    _take_reserved(ctx, source, amount)
    _give(ctx, target, amount, True)


def escrow_key(contract: str, *parts: bytes | int | str) -> bytes:
    """Name an escrow: the contract's name, a slash, and a hash of what the escrow is for."""
    return contract.encode() + b"/" + hashlib.sha256(b"gridpool/escrow/1\0" + encode(parts)).digest()


def open_escrow(ctx: Context, escrow: bytes, label: str) -> None:
    """Open an empty escrow (nothing happens where it is open); ``label`` tells people what it is for."""
    if ctx.get(ESCROWS, escrow) is None:
        ctx.put(ESCROWS, escrow, Escrow(label, 0))


def escrow_balance(state: State, escrow: bytes) -> int:
    """Return the coins in an escrow, 0 where there is none."""
    held = state.get(ESCROWS, escrow)
    return 0 if held is None else held.balance


def fund_escrow(ctx: Context, source: bytes, escrow: bytes, amount: int) -> None:
    """Move free coins of a wallet into an open escrow."""
    _take(ctx, source, amount)
    _deposit(ctx, escrow, amount)


def fund_escrow_reserved(ctx: Context, source: bytes, escrow: bytes, amount: int) -> None:
    """Move reserved coins of a wallet into an open escrow."""
    _take_reserved(ctx, source, amount)
    _deposit(ctx, escrow, amount)


def pay_from_escrow(ctx: Context, escrow: bytes, target: bytes, amount: int, *, income: bool = True) -> None:
    """Pay a wallet out of an escrow."""
    _withdraw(ctx, escrow, amount)
    _give(ctx, target, amount, income)


def move_between_escrows(ctx: Context, escrow: bytes, other: bytes, amount: int) -> None:
    """Move coins from one open escrow to another."""
    _withdraw(ctx, escrow, amount)
    _deposit(ctx, other, amount)


def close_escrow(ctx: Context, escrow: bytes) -> None:
    """Remove an empty escrow."""
    held = ctx.require(ESCROWS, escrow, "no_such_escrow")
    if held.balance:
        ctx.refuse("escrow_not_empty", f"{held.balance} in {held.label}")
    ctx.delete(ESCROWS, escrow)


def redemption_id(wallet: bytes, call: RequestRedemption, now: int) -> bytes:
    """Return the name of a redemption request made at market time ``now`` (ms)."""
    return hashlib.sha256(b"gridpool/redemption/1\0" + encode((wallet, call, now))).digest()


@coins.genesis(CoinParameters)
def begin(ctx: Context, parameters: CoinParameters) -> None:
    """Fill the first accounts."""
    ctx.put(SUPPLY, "coins", Supply(0, 0))
    _mint(ctx, parameters.accounts)


@coins.call(Transfer)
def transfer(ctx: Context, call: Transfer) -> None:
    """Send free coins to a registered wallet."""
    if call.to == ctx.sender:
        ctx.refuse("own_wallet")
    if call.amount == 0:
        ctx.refuse("nothing_to_send")
    account = ctx.get(ACCOUNTS, ctx.sender) or NOTHING
    left = account.balance - call.amount
    if left < account.reserved:
        raise Refused("not_enough_coins", f"{account.balance - account.reserved} free, {call.amount} needed")
    target = ctx.get(ACCOUNTS, call.to)
    if target is None:
        ctx.require(members.WALLETS, call.to, "unknown_wallet")
        target = NOTHING
    ctx.put(ACCOUNTS, ctx.sender, Account(left, account.reserved, account.last_income))
    ctx.put(ACCOUNTS, call.to, Account(target.balance + call.amount, target.reserved, target.last_income))
    ctx.emit(Transferred(ctx.sender, call.to, call.amount, call.reference))


@coins.call(RequestRedemption)
def request_redemption(ctx: Context, call: RequestRedemption) -> None:
    """Reserve coins for redemption and put the request down for the council."""
    members.require(ctx)
    if call.amount == 0:
        ctx.refuse("nothing_to_redeem")
    request = redemption_id(ctx.sender, call, ctx.now)
    if ctx.get(REDEMPTIONS, request) is not None:
        ctx.refuse("request_exists", request.hex())
    reserve(ctx, ctx.sender, call.amount)
    ctx.put(REDEMPTIONS, request, RedemptionRequest(ctx.sender, call.amount, call.reference))
    ctx.emit(RedemptionRequested(request, ctx.sender, call.amount))


@coins.call(SweepReplaced)
def sweep_replaced(ctx: Context, call: SweepReplaced) -> None:
    """Move a replaced wallet's free coins on."""
    record = ctx.require(members.WALLETS, call.wallet, "unknown_wallet")
    if not record.successor:
        ctx.refuse("not_replaced", call.wallet.hex())
    move(ctx, call.wallet, record.successor, free(ctx, call.wallet), income=False)


@decision(Mint)
def mint(ctx: Context, decided: Mint) -> None:
    """Mint coins for registered wallets."""
    for payment in decided.payments:
        ctx.require(members.WALLETS, payment.wallet, "unknown_wallet")
    ctx.emit(Minted(_mint(ctx, decided.payments), decided.reason))


@decision(Redeem)
def redeem(ctx: Context, decided: Redeem) -> None:
    """Burn or set free the coins of a request."""
    request = ctx.require(REDEMPTIONS, decided.request, "no_such_request")
    ctx.delete(REDEMPTIONS, decided.request)
    if decided.granted:
        _take_reserved(ctx, request.wallet, request.amount)
        supply = ctx.require(SUPPLY, "coins", "no_supply")
        ctx.put(SUPPLY, "coins", Supply(supply.minted, supply.redeemed + request.amount))
    else:
        release(ctx, request.wallet, request.amount)
    ctx.emit(Redeemed(decided.request, request.amount, decided.granted))


@recovery
def hand_coins_over(ctx: Context, lost: bytes, wallet: bytes) -> None:
    """Move the free coins of a replaced wallet; reserved ones follow by ``SweepReplaced`` when they come free."""
    move(ctx, lost, wallet, free(ctx, lost), income=False)


@coins.invariant
def coins_held_are_minted_less_redeemed(state: State) -> bool:
    """Accounts and escrows together hold what was minted less what was redeemed."""
    supply = state.get(SUPPLY, "coins")
    held = sum(account.balance for _, account in state.scan(ACCOUNTS))
    held += sum(escrow.balance for _, escrow in state.scan(ESCROWS))
    return supply is not None and held == supply.minted - supply.redeemed


@coins.invariant
def nothing_reserved_that_is_not_there(state: State) -> bool:
    """No account has more reserved than it holds."""
    return all(account.reserved <= account.balance for _, account in state.scan(ACCOUNTS))


def _mint(ctx: Context, payments: tuple[Payment, ...]) -> int:
    total = sum(payment.amount for payment in payments)
    supply = ctx.require(SUPPLY, "coins", "no_supply")
    if supply.minted + total > MOST_COINS:
        ctx.refuse("too_many_coins", f"at most {MOST_COINS} micro-coins are ever minted")
    for payment in payments:
        _give(ctx, payment.wallet, payment.amount, False)
    ctx.put(SUPPLY, "coins", Supply(supply.minted + total, supply.redeemed))
    return total


def _take(ctx: Context, wallet: bytes, amount: int) -> None:
    account = ctx.get(ACCOUNTS, wallet) or NOTHING
    left = account.balance - amount
    if left < account.reserved:
        raise Refused("not_enough_coins", f"{account.balance - account.reserved} free, {amount} needed")
    if amount:
        ctx.put(ACCOUNTS, wallet, Account(left, account.reserved, account.last_income))


def _take_reserved(ctx: Context, wallet: bytes, amount: int) -> None:
    account = ctx.get(ACCOUNTS, wallet) or NOTHING
    if account.reserved < amount:
        raise Refused("not_reserved", f"{account.reserved} reserved, {amount} to pay")
    if amount:
        ctx.put(ACCOUNTS, wallet, Account(account.balance - amount, account.reserved - amount, account.last_income))


def _give(ctx: Context, wallet: bytes, amount: int, income: bool) -> None:
    if amount:
        account = ctx.get(ACCOUNTS, wallet) or NOTHING
        last_income = ctx.now if income else account.last_income
        ctx.put(ACCOUNTS, wallet, Account(account.balance + amount, account.reserved, last_income))


def _withdraw(ctx: Context, escrow: bytes, amount: int) -> None:
    held = ctx.require(ESCROWS, escrow, "no_such_escrow")
    if held.balance < amount:
        ctx.refuse("not_enough_in_escrow", f"{held.balance} in {held.label}, {amount} needed")
    if amount:
        ctx.put(ESCROWS, escrow, Escrow(held.label, held.balance - amount))


def _deposit(ctx: Context, escrow: bytes, amount: int) -> None:
    held = ctx.require(ESCROWS, escrow, "no_such_escrow")
    if amount:
        ctx.put(ESCROWS, escrow, Escrow(held.label, held.balance + amount))
