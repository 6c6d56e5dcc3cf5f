"""Orders: placed, cancelled and replaced until gate closure, each backed by coins that back nothing else."""

import hashlib
from typing import Annotated, Literal

import msgspec

from gridpool.contracts import coins, credit_tokens, members
from gridpool.contracts.energy_intervals import (
    INTERVALS,
    MOST_ORDERS,
    MOST_WH,
    EnergyParameters,
    Interval,
    Side,
    energy,
    interval_of,
    market_of,
)
from gridpool.contracts.energy_market import BOOKS, METERS, QUOTES, Book, OpenOrder
from gridpool.contracts.members import Role, WalletRecord
from gridpool.ledger.contract import Context, Refused
from gridpool.ledger.keys import verify
from gridpool.ledger.types import (
    Call,
    Coins,
    Event,
    Hash,
    Millis,
    Natural,
    Price,
    Text,
    Value,
    Wallet,
    WattHours,
    encode,
)

__all__ = [
    "COMMITMENTS",
    "CancelOrder",
    "CommitOrder",
    "Commitment",
    "OrderCancelled",
    "OrderPlaced",
    "PlaceOrder",
    "ReplaceOrder",
    "RevealOrder",
    "cost_of",
    "sealed_digest",
    "tag_message",
]

SignatureOrNothing = Annotated[bytes, msgspec.Meta(max_length=64)]
MOST_PER_MEMBER = 64
"""Most open orders of one member in one interval."""


class Commitment(Value):
    """A sealed order: its hash, and the public cap of coins behind it."""

    wallet: Wallet
    digest: Hash
    cap: Coins
    tag: Hash
    loan: bytes
    revealed: bool = False


class PlaceOrder(Call, tag="energy.place_order"):
    """Offer to buy or sell up to ``quantity_wh`` in an interval at ``price`` or better.

    ``loan`` names the token that backs a purchase (empty: the wallet's own coins). ``tag`` and ``tag_signature`` carry
    the aggregator's tag where it was not issued beforehand (``members.IssueTags``).
    """

    interval: Millis
    side: Side
    quantity_wh: WattHours
    price: Price
    attributes: Text = ""
    loan: members.OptionalKey = b""
    tag: members.OptionalKey = b""
    tag_signature: SignatureOrNothing = b""


class CancelOrder(Call, tag="energy.cancel_order"):
    """Take an order back before gate closure."""

    interval: Millis
    serial: Natural


class ReplaceOrder(Call, tag="energy.replace_order"):
    """Change quantity and price of an order before gate closure; it loses its place in the queue."""

    interval: Millis
    serial: Natural
    quantity_wh: WattHours
    price: Price


class CommitOrder(Call, tag="energy.commit_order"):
    """Commit to a sealed order (``sealed_digest``); ``cap`` coins are reserved whatever its side."""

    interval: Millis
    digest: Hash
    cap: Coins
    loan: members.OptionalKey = b""
    tag: members.OptionalKey = b""
    tag_signature: SignatureOrNothing = b""


class RevealOrder(Call, tag="energy.reveal_order"):
    """Open a sealed order after gate closure."""

    interval: Millis
    serial: Natural
    side: Side
    quantity_wh: WattHours
    price: Price
    salt: Hash
    attributes: Text = ""


@energy.event
class OrderPlaced(Event, tag="energy.order_placed"):
    """An order stands in the book."""

    interval: Millis
    serial: Natural
    wallet: Wallet
    side: Side
    quantity_wh: WattHours
    price: Price


@energy.event
class OrderCancelled(Event, tag="energy.order_cancelled"):
    """An order was taken back."""

    interval: Millis
    serial: Natural


@energy.event
class OrderCommitted(Event, tag="energy.order_committed"):
    """A sealed order stands in the book."""

    interval: Millis
    serial: Natural
    cap: Coins


COMMITMENTS = energy.table("commitment", key=(int, int), value=Commitment)
"""(interval, serial) -> sealed order; removed at clearing."""


def cost_of(quantity_wh: int, price: int) -> int:
    """Return the micro-coins that cover an order whatever way the remainders fall: price x Wh / 1000, rounded up."""
    return -(-price * quantity_wh // 1000)


def sealed_digest(
    chain: str, wallet: bytes, interval: int, side: Literal["buy", "sell"], quantity_wh: int, price: int, salt: bytes
) -> bytes:
    """Return what ``CommitOrder`` carries of an order; ``salt`` has 32 random bytes."""
    body = encode((chain, wallet, interval, side, quantity_wh, price, salt))
    return hashlib.sha256(b"gridpool/sealed-order/1\0" + body).digest()


def tag_message(chain: str, wallet: bytes, interval: int, tag: bytes) -> bytes:
    """Return what an aggregator's certificate key signs to issue a tag with an order."""
    return b"gridpool/tag-signature/1\0" + encode((chain, wallet, interval, tag))


@energy.call(PlaceOrder)
def place_order(ctx: Context, call: PlaceOrder) -> None:
    """Put an order into the book; refused after gate closure, without coins or plant behind it, or across itself."""
    record = members.require(ctx, Role.PROSUMER, Role.BACK_STOP, Role.UTILITY)
    interval = interval_of(ctx, call.interval)
    market = market_of(ctx, interval)
    if market.sealed:
        raise Refused("sealed_market", "commit to an order and reveal it after gate closure")
    _still_open(ctx, call.interval, interval, market)
    if call.quantity_wh == 0 or call.quantity_wh > MOST_WH:
        raise Refused("quantity_out_of_range", f"1 to {MOST_WH} Wh")
    tag = _tag(ctx, call.interval, record, call.tag, call.tag_signature)
    serial = _next_serial(ctx, call.interval, interval)
    _enter(ctx, call, serial, tag, market, call.side, call.quantity_wh, call.price, call.attributes, call.loan)


@energy.call(CancelOrder)
def cancel_order(ctx: Context, call: CancelOrder) -> None:
    """Take an order out of the book and set its coins free."""
    interval = ctx.require(INTERVALS, call.interval, "no_such_interval")
    _still_open(ctx, call.interval, interval, market_of(ctx, interval))
    _remove(ctx, call.interval, call.serial)
    ctx.emit(OrderCancelled(call.interval, call.serial))


@energy.call(ReplaceOrder)
def replace_order(ctx: Context, call: ReplaceOrder) -> None:
    """Cancel and place again in one step: either both happen or neither."""
    interval = ctx.require(INTERVALS, call.interval, "no_such_interval")
    market = market_of(ctx, interval)
    _still_open(ctx, call.interval, interval, market)
    if call.quantity_wh == 0 or call.quantity_wh > MOST_WH:
        raise Refused("quantity_out_of_range", f"1 to {MOST_WH} Wh")
    tag, old = _remove(ctx, call.interval, call.serial)
    serial = _next_serial(ctx, call.interval, interval)
    _enter(ctx, call, serial, tag, market, old.side, call.quantity_wh, call.price, old.attributes, old.loan)


@energy.call(CommitOrder)
def commit_order(ctx: Context, call: CommitOrder) -> None:
    """Reserve the public cap behind a sealed order."""
    record = members.require(ctx, Role.PROSUMER, Role.BACK_STOP, Role.UTILITY)
    interval = interval_of(ctx, call.interval)
    market = market_of(ctx, interval)
    if not market.sealed:
        raise Refused("open_market", "place orders as they are")
    _still_open(ctx, call.interval, interval, market)
    if call.cap == 0:
        raise Refused("nothing_behind_it", "a sealed order needs coins behind it")
    tag = _tag(ctx, call.interval, record, call.tag, call.tag_signature)
    ctx.require(METERS, ctx.sender, "no_meter")
    book = ctx.get(BOOKS, (call.interval, tag)) or Book(())
    if book.sealed >= MOST_PER_MEMBER:
        raise Refused("too_many_orders", f"at most {MOST_PER_MEMBER} sealed orders an interval")
    ctx.put(BOOKS, (call.interval, tag), Book(book.orders, book.sealed + 1))
    _back(ctx, ctx.sender, call.loan, call.cap)
    serial = _next_serial(ctx, call.interval, interval)
    ctx.put(COMMITMENTS, (call.interval, serial), Commitment(ctx.sender, call.digest, call.cap, tag, call.loan))
    ctx.emit(OrderCommitted(call.interval, serial, call.cap))


@energy.call(RevealOrder)
def reveal_order(ctx: Context, call: RevealOrder) -> None:
    """Open a sealed order in the reveal window; what its cap holds beyond need is set free."""
    interval = ctx.require(INTERVALS, call.interval, "no_such_interval")
    market = market_of(ctx, interval)
    closure = call.interval - market.lead_ms
    if not closure <= ctx.now < closure + market.reveal_ms or interval.status not in ("open", "closed"):
        raise Refused("not_the_time_to_reveal", f"from {closure} for {market.reveal_ms} ms")
    held = ctx.require(COMMITMENTS, (call.interval, call.serial), "no_such_order")
    if held.wallet != ctx.sender or held.revealed:
        raise Refused("not_your_order" if held.wallet != ctx.sender else "already_revealed", str(call.serial))
    digest = sealed_digest(ctx.chain, ctx.sender, call.interval, call.side, call.quantity_wh, call.price, call.salt)
    if digest != held.digest:
        raise Refused("other_content", "the order is not the one committed to")
    if call.quantity_wh == 0 or call.quantity_wh > MOST_WH:
        raise Refused("quantity_out_of_range", f"1 to {MOST_WH} Wh")
    if _needed(market, call.side, call.quantity_wh, call.price) > held.cap:
        raise Refused("beyond_cap", f"{held.cap} coins stand behind it")
    ctx.put(COMMITMENTS, (call.interval, call.serial), msgspec.structs.replace(held, revealed=True))
    unback(ctx, ctx.sender, held.loan, held.cap)
    _enter(
        ctx, call, call.serial, held.tag, market, call.side, call.quantity_wh, call.price, call.attributes, held.loan
    )


def unback(ctx: Context, wallet: bytes, loan: bytes, amount: int) -> None:
    """Set free what backs an order, in its token or in the wallet."""
    if loan:
        credit_tokens.release_token(ctx, loan, amount)
    else:
        coins.release(ctx, wallet, amount)


def _back(ctx: Context, wallet: bytes, loan: bytes, amount: int) -> None:
    if loan:
        credit_tokens.reserve_token(ctx, loan, wallet, amount)
    else:
        coins.reserve(ctx, wallet, amount)


def _needed(market: EnergyParameters, side: str, quantity_wh: int, price: int) -> int:
    if side == "buy":
        return cost_of(quantity_wh, price)
    return cost_of(quantity_wh, market.retail) * market.bond_ppm // 1_000_000


def _still_open(ctx: Context, start: int, interval: Interval, market: EnergyParameters) -> None:
    if interval.status != "open" or ctx.now >= start - market.lead_ms:
        raise Refused("gate_closed", f"orders were taken until {start - market.lead_ms}")


def _next_serial(ctx: Context, start: int, interval: Interval) -> int:
    if interval.orders >= MOST_ORDERS:
        raise Refused("book_full", f"at most {MOST_ORDERS} orders an interval")
    ctx.put(INTERVALS, start, msgspec.structs.replace(interval, orders=interval.orders + 1))
    return interval.orders


def _tag(ctx: Context, interval: int, record: WalletRecord, tag: bytes, signature: bytes) -> bytes:
    if not tag:
        return members.tag_of(ctx, interval, ctx.sender, record)
    if record.member:
        raise Refused("tag_not_wanted", "public wallets are known by their member")
    stored = ctx.get(members.TAGS, (interval, ctx.sender))
    if stored is not None:
        if stored.tag != tag:
            raise Refused("tag_stands", ctx.sender.hex())
        return tag
    message = tag_message(ctx.chain, ctx.sender, interval, tag)
    if len(tag) != 32 or len(signature) != 64 or not verify(record.aggregator, signature, message):
        raise Refused("tag_not_signed", "the tag needs the signature of the wallet's aggregator")
    ctx.put(members.TAGS, (interval, ctx.sender), members.Tag(tag, record.aggregator))
    return tag


def _enter(
    ctx: Context,
    call: PlaceOrder | ReplaceOrder | RevealOrder,
    serial: int,
    tag: bytes,
    market: EnergyParameters,
    side: Side,
    quantity_wh: int,
    price: int,
    attributes: str,
    loan: bytes,
) -> None:
    start, wallet = call.interval, ctx.sender
    if price > market.cap or price % market.tick:
        raise Refused("price_off_range", f"multiples of {market.tick} up to {market.cap}")
    if market.rule == "posted" and ctx.require(QUOTES, start, "no_quote").price != price:
        raise Refused("not_the_quote", "accept the posted price")
    meter = ctx.require(METERS, wallet, "no_meter")
    book = ctx.get(BOOKS, (start, tag))
    orders, sealed = ((), 0) if book is None else (book.orders, book.sealed)
    if len(orders) >= MOST_PER_MEMBER:
        raise Refused("too_many_orders", f"at most {MOST_PER_MEMBER} open orders an interval")
    promised = quantity_wh
    for other in orders:
        if other.side != side and (other.price >= price if side == "sell" else other.price <= price):
            raise Refused("would_trade_with_itself", f"order {other.serial} of the same member")
        if other.side == side and other.wallet == wallet:
            promised += other.quantity_wh
    if side == "sell":
        if loan:
            raise Refused("tokens_buy", "a token backs purchases only")
        if promised * 1_000_000 > meter.export_wh * meter.efficiency_ppm:
            raise Refused("beyond_plant", f"{meter.export_wh} Wh an interval")
    elif promised > meter.import_wh:
        raise Refused("beyond_connection", f"{meter.import_wh} Wh an interval")
    needed = _needed(market, side, quantity_wh, price)
    _back(ctx, wallet, loan, needed)
    order = OpenOrder(serial, wallet, side, quantity_wh, price, meter.area, meter.aggregator, needed, loan, attributes)
    ctx.put(BOOKS, (start, tag), Book((*orders, order), sealed))
    ctx.emit(OrderPlaced(start, serial, wallet, side, quantity_wh, price))


def _remove(ctx: Context, start: int, serial: int) -> tuple[bytes, OpenOrder]:
    record = ctx.require(members.WALLETS, ctx.sender, "unknown_wallet")
    tag = members.tag_of(ctx, start, ctx.sender, record)
    book = ctx.get(BOOKS, (start, tag))
    known = book or Book(())
    for order in known.orders:
        if order.serial == serial and order.wallet == ctx.sender:
            rest = tuple(other for other in known.orders if other.serial != serial)
            if rest or known.sealed:
                ctx.put(BOOKS, (start, tag), Book(rest, known.sealed))
            else:
                ctx.delete(BOOKS, (start, tag))
            unback(ctx, order.wallet, order.loan, order.reserved)
            return tag, order
    raise Refused("no_such_order", f"order {serial} of the calling wallet")
