"""The exchange of units between two devices: a unit, a receipt, the next unit, so that either stops at a loss of one.

The receiver (payer) signs a growing total after each unit and keeps it before sending; the giver (payee) sends the next
unit only when it holds the receipt of the last, and countersigns along with it. After a cut the receiver shows its
highest receipt first, so even the unit whose receipt was lost on the way is paid.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import msgspec

from gridpool.agents.access_credential import Distrusted, Standing, deposit_key
from gridpool.agents.device_channel import Channel, ConnectionCut
from gridpool.agents.device_units import MOST_UNIT_BYTES, MOST_UNITS, Terms, Unit, Units
from gridpool.agents.receipts import Held, ReceiptBook
from gridpool.contracts.device_receipts import Receipt, countersigned_by, sign_receipt, signed_by
from gridpool.errors import RefusedInput
from gridpool.ledger.keys import KeyPair
from gridpool.ledger.types import encode

__all__ = ["Declined", "Deposited", "Exchanged", "deposit_for", "deposits_of", "fetch_units", "serve_units"]

M = TypeVar("M", bound=msgspec.Struct)
MOST_COINS = 2**62


class Deposited(msgspec.Struct, array_like=True):
    """A deposit as its credential proves it."""

    payee: bytes
    amount: int
    expires: int
    state: str = "open"


class Exchanged(msgspec.Struct, frozen=True):
    """What an exchange came to: units of this exchange, the deposit's units and total, and why it ended early."""

    item: str
    peer: bytes
    number: int
    units: int
    total_units: int
    total: int
    complete: bool
    ended: str = ""


class _Ask(msgspec.Struct, array_like=True, tag="ask"):
    item: str
    number: int
    held: tuple[int, int, bytes] | None


class _Terms(msgspec.Struct, array_like=True, tag="terms"):
    item: str
    kind: str
    units: int
    unit_bytes: int
    size: int
    root: bytes
    price: int


class _Sorry(msgspec.Struct, array_like=True, tag="sorry"):
    reason: str


class _Go(msgspec.Struct, array_like=True, tag="go"):
    start: int


class _Unit(msgspec.Struct, array_like=True, tag="unit"):
    index: int
    data: bytes
    path: list[bytes]


class _Signed(msgspec.Struct, array_like=True, tag="signed"):
    units: int
    total: int
    signature: bytes


class _Acknowledged(msgspec.Struct, array_like=True, tag="acknowledged"):
    units: int
    signature: bytes


_SERVER = msgspec.msgpack.Decoder(_Ask | _Go | _Signed)
_CLIENT = msgspec.msgpack.Decoder(_Terms | _Sorry | _Unit | _Acknowledged)


def deposit_for(standing: Standing, number: int, payee: bytes) -> Deposited:
    """Return the deposit that a payer's credential proves for ``payee``; raises Distrusted."""
    stored = standing.values.get(deposit_key(standing.wallet, number))
    if stored is None:
        raise Distrusted(f"the credential proves no deposit {number}")
    deposit = _deposit(stored)
    if deposit.payee != payee or deposit.state != "open":
        raise Distrusted(f"deposit {number} is for somebody else, or closing")
    return deposit


def deposits_of(standing: Standing) -> dict[int, Deposited]:
    """Return the deposits that a credential proves to be open, by number."""
    prefix = deposit_key(standing.wallet, 0)[:-8]
    found = {}
    for key, value in standing.values.items():
        if key.startswith(prefix) and value is not None and len(key) == len(prefix) + 8:
            deposit = _deposit(value)
            if deposit.state == "open":
                found[int.from_bytes(key[-8:], "big")] = deposit
    return found


def serve_units(
    channel: Channel,
    key: KeyPair,
    sources: dict[str, Units],
    book: ReceiptBook,
    *,
    chain: str,
    clock: Callable[[], int],
    max_age_ms: int,
) -> Exchanged:
    """Give units to the channel's peer as far as it signs for them; raises Distrusted and ConnectionCut.

    Whatever happens, the book holds every receipt received: at most one unit was given without.
    """
    peer = channel.peer
    ask = _expect(_SERVER, channel.receive(), _Ask)
    source = sources.get(ask.item) if ask.item or len(sources) != 1 else next(iter(sources.values()))
    try:
        if source is None:
            raise Distrusted(f"nothing is called {ask.item[:128]!r} here")
        terms = source.terms
        limit = _limit(peer, ask.number, key.public, terms.price, clock(), max_age_ms)
        held = _take_up(book, peer, key, ask, chain, limit)
    except Distrusted as refusal:
        with suppress(ConnectionCut):  # whoever is gone need not be told; what it tried is still said here
            channel.send(encode(_Sorry(str(refusal))))
        raise
    channel.send(encode(_Terms(terms.item, terms.kind, terms.units, terms.unit_bytes, terms.size, terms.root,
                               terms.price)))  # fmt: skip
    start = _expect(_SERVER, channel.receive(), _Go).start
    if not 0 <= start <= terms.units:
        raise Distrusted("the receiver begins at an impossible unit")
    receipt = held.receipt
    if receipt.units:
        channel.send(encode(_Acknowledged(receipt.units, held.payee_signature)))
    given = 0
    for index in range(start, terms.units):
        due = Receipt(chain, peer.wallet, key.public, ask.number, receipt.units + 1, receipt.total + terms.price)
        if due.total > limit:
            channel.send(encode(_Sorry("the deposit is used up")))
            break
        unit = source.unit(index)
        channel.send(encode(_Unit(unit.index, unit.data, list(unit.path))))
        signed = _expect(_SERVER, channel.receive(), _Signed)
        if (signed.units, signed.total) != (due.units, due.total) or not signed_by(due, signed.signature):
            raise Distrusted("the receiver has not signed for the last unit")
        answer = sign_receipt(key, due, payer=False)
        book.keep(Held(due, signed.signature, answer))
        receipt, given = due, given + 1
        channel.send(encode(_Acknowledged(due.units, answer)))
    return Exchanged(
        terms.item, peer.wallet, ask.number, given, receipt.units, receipt.total, start + given == terms.units
    )


def fetch_units(
    channel: Channel,
    key: KeyPair,
    item: str,
    book: ReceiptBook,
    *,
    chain: str,
    number: int,
    begin: Callable[[Terms], int],
    accept: Callable[[Terms, Unit], bool],
    pay_most: int = 0,
) -> Exchanged:
    """Take units from the peer and sign for each that ``accept`` finds right; raises Distrusted, ConnectionCut.

    ``begin`` sees the terms and says at which unit to start; ``pay_most`` bounds what this exchange may cost: above it
    nothing is taken, and RefusedInput says so, since the peer has done nothing wrong.
    """
    peer = channel.peer.wallet
    held = book.find(key.public, peer, number)
    shown = None if held is None else (held.receipt.units, held.receipt.total, held.payer_signature)
    channel.send(encode(_Ask(item, number, shown)))
    offered = _receive(channel, _Terms)
    terms = Terms(offered.item, offered.kind, offered.units, offered.unit_bytes, offered.size, offered.root,
                  offered.price)  # fmt: skip
    _check_terms(terms)
    start = begin(terms)
    if (terms.units - start) * terms.price > pay_most:
        raise RefusedInput(
            f"{terms.units - start} units at {terms.price} cost more than {pay_most}; allow more with --pay-most"
        )
    channel.send(encode(_Go(start)))
    if held is None:
        held = Held(Receipt(chain, key.public, peer, number, 0, 0))
    elif held.receipt.units:
        held = _acknowledge(channel, held, book)
    taken = 0
    ended = ""
    for index in range(start, terms.units):
        try:
            sent = _receive(channel, _Unit)
        except Declined as end:
            ended = str(end)
            break
        unit = Unit(sent.index, sent.data, tuple(sent.path))
        if unit.index != index or not accept(terms, unit):
            raise Distrusted(f"unit {index} is not what was offered; nothing was signed for it")
        before = held.receipt
        due = Receipt(chain, key.public, peer, number, before.units + 1, before.total + terms.price)
        held = Held(due, sign_receipt(key, due, payer=True))
        book.keep(held)
        channel.send(encode(_Signed(due.units, due.total, held.payer_signature)))
        taken += 1
        held = _acknowledge(channel, held, book)
    receipt = held.receipt
    return Exchanged(terms.item, peer, number, taken, receipt.units, receipt.total, start + taken == terms.units, ended)


class Declined(Distrusted):
    """The other side says itself that it does not go on, and why: it has shown nothing false."""


def now_ms() -> int:
    """Return the device's time in ms."""
    return time.time_ns() // 1_000_000


def _deposit(stored: bytes) -> Deposited:
    try:
        return msgspec.msgpack.decode(stored, type=Deposited)
    except ValueError as error:
        raise Distrusted(f"the deposit is not understood: {error}") from None


def _limit(peer: Standing, number: int, payee: bytes, price: int, now: int, max_age_ms: int) -> int:
    if number == 0:
        if price:
            raise Distrusted("units cost something here: open a deposit for this device first")
        return 0
    deposit = deposit_for(peer, number, payee)
    if peer.check_now(now, max_age_ms) >= deposit.expires:
        raise Distrusted(f"deposit {number} has expired")
    return deposit.amount


def _take_up(book: ReceiptBook, peer: Standing, key: KeyPair, ask: _Ask, chain: str, limit: int) -> Held:
    """Return where the deposit's receipts stand, taking over what the receiver signed and a cut kept from arriving."""
    known = book.find(peer.wallet, key.public, ask.number)
    units, total = (known.receipt.units, known.receipt.total) if known else (0, 0)
    if known is not None and known.settled:
        raise Distrusted(f"deposit {ask.number} is settled; open another")
    if ask.held is None:
        if known is not None and units:
            raise Distrusted(f"a receipt over {units} units stands; was this wallet's key or folder copied?")
        return Held(Receipt(chain, peer.wallet, key.public, ask.number, 0, 0))
    if known is not None and (ask.held[1], ask.held[0]) < (total, units):
        raise Distrusted(f"a receipt over {units} units stands; was this wallet's key or folder copied?")
    if not 0 <= ask.held[0] <= MOST_COINS or not 0 <= ask.held[1] <= limit:
        raise Distrusted("the receipt shown is above the deposit")
    receipt = Receipt(chain, peer.wallet, key.public, ask.number, ask.held[0], ask.held[1])
    if len(ask.held[2]) != 64 or not signed_by(receipt, ask.held[2]):
        raise Distrusted("the receipt shown is not signed by the receiver")
    if known is not None and receipt == known.receipt:
        return known
    held = Held(receipt, ask.held[2], sign_receipt(key, receipt, payer=False))
    book.keep(held)
    return held


def _acknowledge(channel: Channel, held: Held, book: ReceiptBook) -> Held:
    answer = _receive(channel, _Acknowledged)
    if answer.units != held.receipt.units or len(answer.signature) != 64:
        raise Distrusted("the other side countersigns another receipt")
    if not countersigned_by(held.receipt, answer.signature):
        raise Distrusted("the other side has not countersigned")
    held = Held(held.receipt, held.payer_signature, answer.signature, held.settled)
    book.keep(held)
    return held


def _check_terms(terms: Terms) -> None:
    if not 1 <= terms.units <= MOST_UNITS or not 0 <= terms.price <= MOST_COINS // MOST_UNITS:
        raise Distrusted("the terms are out of range")
    if terms.kind == "data":
        units = -(-terms.size // terms.unit_bytes) if 1 <= terms.unit_bytes <= MOST_UNIT_BYTES else 0
        if units != terms.units or len(terms.root) != 32:
            raise Distrusted("the terms do not add up")
    elif terms.kind != "energy":
        raise Distrusted(f"nothing is known of {terms.kind[:32]!r}")


def _receive(channel: Channel, kind: type[M]) -> M:
    return _expect(_CLIENT, channel.receive(), kind)


def _expect(decoder: "msgspec.msgpack.Decoder[msgspec.Struct]", message: bytes, kind: type[M]) -> M:
    try:
        decoded = decoder.decode(message)
    except (ValueError, RecursionError) as error:
        raise Distrusted(f"the other side's message is not understood: {error}") from None
    if isinstance(decoded, _Sorry):
        raise Declined(f"the other side ends: {decoded.reason[:256]}")
    if not isinstance(decoded, kind):
        raise Distrusted("the other side sends something out of turn")
    return decoded
