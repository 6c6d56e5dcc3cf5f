"""Devices' exchanges settled: a deposit before, one co-signed total after, and pools that reward sharing.

A payer deposits coins for one payee under a number of its own. Whatever they exchange meanwhile, the ledger sees one
transaction: the payee's highest co-signed receipt pays at once; a receipt that the payer brings waits for
``challenge_ms``, in which the payee may bring a higher one. Nobody comes: the deposit returns when it expires.
"""

from typing import Annotated, Literal

import msgspec

from gridpool.contracts import coins, members
from gridpool.contracts.device_receipts import CoSigned, countersigned_by, distinct_bytes, signed_by
from gridpool.contracts.members import OptionalKey
from gridpool.ledger.contract import Context, Contract
from gridpool.ledger.keys import verify
from gridpool.ledger.state import State
from gridpool.ledger.types import Call, Coins, Due, Event, Millis, Natural, Text, Value, Wallet

__all__ = [
    "DEPOSITS",
    "NUMBERS",
    "POOLS",
    "Deposit",
    "DeviceParameters",
    "FundPool",
    "OpenDeposit",
    "Pool",
    "Settle",
    "Settled",
    "deposit_escrow",
    "devices",
    "pool_escrow",
]

devices = Contract("devices")

MOST_OPEN = 64
"""Deposits of one wallet that are open at once."""
MOST_LIFE_MS = 366 * 86_400_000


class DeviceParameters(Value):
    """How long a payee can answer a receipt that the payer brought (ms of market time)."""

    challenge_ms: Millis = 3 * 86_400_000


class Deposit(Value):
    """Coins set aside by ``payer`` for ``payee``; ``units`` and ``total`` are what a payer's receipt claims so far."""

    payee: Wallet
    amount: Coins
    expires: Millis
    state: Literal["open", "closing"] = "open"
    units: Natural = 0
    total: Coins = 0


class Numbers(Value):
    """The last deposit number of a wallet, and how many of its deposits are open."""

    last: Natural
    open: Natural


class Pool(Value):
    """A pool that rewards sharing: who opened it, micro-coins a unit, most units rewarded a deposit, until when."""

    owner: Wallet
    per_unit: Coins
    most_units: Natural
    until: Millis


class OpenDeposit(Call, tag="devices.open_deposit"):
    """Set coins aside for exchanges with one payee."""

    payee: Wallet
    amount: Coins
    expires: Millis


class Settle(Call, tag="devices.settle"):
    """Bring a co-signed receipt; as payee also claim the reward of a pool.

    Where both wallets are of one aggregator's pool, ``distinct`` is the aggregator's signature that they are of two
    members.
    """

    receipt: CoSigned
    pool: Text = ""
    distinct: Annotated[bytes, msgspec.Meta(max_length=64)] = b""


class FundPool(Call, tag="devices.fund_pool"):
    """Open a pool, or add coins to it; its first funding fixes the terms."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern="^[^\\x00]*$")]
    amount: Coins
    per_unit: Coins
    most_units: Natural
    until: Millis


class CloseDeposit(Due, tag="devices.close_deposit"):
    """Pay out what a deposit's payer has claimed, or return it."""

    payer: Wallet
    number: Natural


class ClosePool(Due, tag="devices.close_pool"):
    """Return what is left in a pool."""

    name: Text


@devices.event
class Opened(Event, tag="devices.opened"):
    """A deposit is open."""

    payer: Wallet
    number: Natural
    payee: Wallet
    amount: Coins


@devices.event
class Settled(Event, tag="devices.settled"):
    """A deposit was settled, once and for all."""

    payer: Wallet
    number: Natural
    payee: Wallet
    units: Natural
    total: Coins
    reward: Coins


DEPOSITS = devices.table("deposit", key=(bytes, int), value=Deposit)
"""(payer, number) -> deposit; gone when settled."""
NUMBERS = devices.table("numbers", key=bytes, value=Numbers)
POOLS = devices.table("pool", key=str, value=Pool)


def deposit_escrow(payer: bytes, number: int) -> bytes:
    """Name the escrow of a deposit."""
    return coins.escrow_key("devices", "deposit", payer, number)


def pool_escrow(name: str) -> bytes:
    """Name the escrow of a reward pool."""
    return coins.escrow_key("devices", "pool", name)


@devices.genesis(DeviceParameters)
def begin(ctx: Context, parameters: DeviceParameters) -> None:
    """Keep the parameters."""
    if parameters.challenge_ms > members.MOST_MS:
        ctx.refuse("challenge_out_of_range", f"at most {members.MOST_MS} ms")
    ctx.set_parameters("devices", parameters)


@devices.call(OpenDeposit)
def open_deposit(ctx: Context, call: OpenDeposit) -> None:
    """Move coins into an escrow for one payee."""
    members.require(ctx)
    ctx.require(members.WALLETS, call.payee, "unknown_wallet")
    if call.payee == ctx.sender:
        ctx.refuse("own_wallet")
    if not ctx.now < call.expires <= ctx.now + MOST_LIFE_MS:
        ctx.refuse("expiry_out_of_range", f"at most {MOST_LIFE_MS} ms ahead")
    numbers = ctx.get(NUMBERS, ctx.sender) or Numbers(0, 0)
    if numbers.open >= MOST_OPEN:
        ctx.refuse("too_many_deposits", f"at most {MOST_OPEN} are open at once")
    number = numbers.last + 1
    escrow = deposit_escrow(ctx.sender, number)
    coins.open_escrow(ctx, escrow, "deposit for a device exchange")
    coins.fund_escrow(ctx, ctx.sender, escrow, call.amount)
    ctx.put(NUMBERS, ctx.sender, Numbers(number, numbers.open + 1))
    ctx.put(DEPOSITS, (ctx.sender, number), Deposit(call.payee, call.amount, call.expires))
    ctx.schedule(call.expires, CloseDeposit(ctx.sender, number))
    ctx.emit(Opened(ctx.sender, number, call.payee, call.amount))


@devices.call(Settle)
def settle(ctx: Context, call: Settle) -> None:
    """Pay a co-signed total: at once for the payee, after the challenge time for the payer."""
    receipt = call.receipt.receipt
    if receipt.chain != ctx.chain:
        ctx.refuse("of_another_chain", receipt.chain)
    key = (receipt.payer, receipt.number)
    deposit = ctx.require(DEPOSITS, key, "no_such_deposit")
    if receipt.payee != deposit.payee:
        ctx.refuse("not_the_payee", receipt.payee.hex())
    if receipt.total > deposit.amount:
        ctx.refuse("above_deposit", f"{receipt.total} of {deposit.amount}")
    if not signed_by(receipt, call.receipt.payer_signature):
        ctx.refuse("payer_has_not_signed")
    if not countersigned_by(receipt, call.receipt.payee_signature):
        ctx.refuse("payee_has_not_signed")
    if deposit.state == "closing" and (receipt.total, receipt.units) < (deposit.total, deposit.units):
        ctx.refuse("higher_receipt_stands", f"{deposit.total} for {deposit.units} units")
    if ctx.sender == _present(ctx, receipt.payee):
        reward = _reward(ctx, call, receipt.payer, receipt.payee, receipt.units)
        _close(ctx, key, deposit, receipt.units, receipt.total, reward)
    elif ctx.sender == _present(ctx, receipt.payer):
        if call.pool:
            ctx.refuse("only_the_payee_earns", call.pool)
        if ctx.now >= deposit.expires:
            ctx.refuse("deposit_expired", f"at {deposit.expires}")
        closing = deposit.expires
        if deposit.state == "open":
            closing = ctx.now + ctx.parameters("devices", DeviceParameters).challenge_ms
            ctx.unschedule(deposit.expires, CloseDeposit(*key))
            ctx.schedule(closing, CloseDeposit(*key))
        ctx.put(DEPOSITS, key, Deposit(deposit.payee, deposit.amount, closing, "closing", receipt.units, receipt.total))
    else:
        ctx.refuse("not_of_this_exchange", "payer or payee settle")


@devices.call(FundPool)
def fund_pool(ctx: Context, call: FundPool) -> None:
    """Put coins into a reward pool."""
    record = members.require(ctx)
    pool = ctx.get(POOLS, call.name)
    if pool is None:
        if not record.member:
            ctx.refuse("needs_a_public_wallet", "pools belong to organisations")
        if not ctx.now < call.until <= ctx.now + MOST_LIFE_MS:
            ctx.refuse("expiry_out_of_range", f"at most {MOST_LIFE_MS} ms ahead")
        pool = Pool(ctx.sender, call.per_unit, call.most_units, call.until)
        ctx.put(POOLS, call.name, pool)
        ctx.schedule(call.until, ClosePool(call.name))
        coins.open_escrow(ctx, pool_escrow(call.name), "rewards for sharing")
    if (pool.per_unit, pool.most_units, pool.until) != (call.per_unit, call.most_units, call.until):
        ctx.refuse("terms_stand", call.name)
    coins.fund_escrow(ctx, ctx.sender, pool_escrow(call.name), call.amount)


@devices.due(CloseDeposit)
def close_deposit(ctx: Context, due: CloseDeposit) -> None:
    """Close a deposit whose time is over with what was claimed, nothing where nobody came."""
    deposit = ctx.get(DEPOSITS, (due.payer, due.number))
    if deposit is not None:
        _close(ctx, (due.payer, due.number), deposit, deposit.units, deposit.total, 0)


@devices.due(ClosePool)
def close_pool(ctx: Context, due: ClosePool) -> None:
    """Return what a pool still holds to whoever opened it."""
    pool = ctx.get(POOLS, due.name)
    if pool is None:
        return
    escrow = pool_escrow(due.name)
    owner = _present(ctx, pool.owner)
    coins.pay_from_escrow(ctx, escrow, owner, coins.escrow_balance(ctx, escrow), income=False)
    coins.close_escrow(ctx, escrow)
    ctx.delete(POOLS, due.name)


@devices.invariant
def escrows_hold_the_deposits(state: State) -> bool:
    """Every open deposit is covered in full, claims no more than it holds, and is counted."""
    counted: dict[bytes, int] = {}
    for (payer, number), deposit in state.scan(DEPOSITS):
        counted[payer] = counted.get(payer, 0) + 1
        if coins.escrow_balance(state, deposit_escrow(payer, number)) != deposit.amount:
            return False
        if deposit.total > deposit.amount:
            return False
    return all(numbers.open == counted.get(payer, 0) for payer, numbers in state.scan(NUMBERS))


def _close(ctx: Context, key: tuple[bytes, int], deposit: Deposit, units: int, total: int, reward: int) -> None:
    payer, number = key
    escrow = deposit_escrow(payer, number)
    coins.pay_from_escrow(ctx, escrow, _present(ctx, deposit.payee), total)
    coins.pay_from_escrow(ctx, escrow, _present(ctx, payer), deposit.amount - total, income=False)
    coins.close_escrow(ctx, escrow)
    ctx.delete(DEPOSITS, key)
    ctx.unschedule(deposit.expires, CloseDeposit(payer, number))
    numbers = ctx.require(NUMBERS, payer, "no_such_deposit")
    ctx.put(NUMBERS, payer, Numbers(numbers.last, numbers.open - 1))
    ctx.emit(Settled(payer, number, deposit.payee, units, total, reward))


def _present(ctx: Context, wallet: bytes) -> bytes:
    """Follow a replaced wallet to the one in force."""
    for _ in range(64):
        record = ctx.get(members.WALLETS, wallet)
        if record is None or not record.successor:
            break
        wallet = record.successor
    return wallet


def _reward(ctx: Context, call: Settle, payer: bytes, payee: bytes, units: int) -> int:
    if not call.pool:
        return 0
    pool = ctx.require(POOLS, call.pool, "no_such_pool")
    if ctx.now >= pool.until:
        ctx.refuse("pool_closed", call.pool)
    if not _of_two_members(ctx, payer, payee, call.distinct):
        ctx.refuse("one_member_earns_nothing", "two wallets of one member earn nothing from each other")
    escrow = pool_escrow(call.pool)
    reward = min(min(units, pool.most_units) * pool.per_unit, coins.escrow_balance(ctx, escrow))
    coins.pay_from_escrow(ctx, escrow, ctx.sender, reward)
    return reward


def _of_two_members(ctx: Context, payer: bytes, payee: bytes, distinct: bytes) -> bool:
    """Tell whether two wallets are known to be of two members.

    Public wallets name their members. A member has one aggregator, so wallets of two pools are of two members; within
    one pool the aggregator, which knows, has to say so.
    """
    one = ctx.require(members.WALLETS, payer, "unknown_wallet")
    other = ctx.require(members.WALLETS, payee, "unknown_wallet")
    if one.member and other.member:
        return one.member != other.member
    aggregator: OptionalKey = one.aggregator
    if aggregator != other.aggregator:
        return True
    if aggregator in (one.member, other.member):
        return False  # nobody attests for itself
    return len(distinct) == 64 and verify(aggregator, distinct, distinct_bytes(ctx.chain, payer, payee))
