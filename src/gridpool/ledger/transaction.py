"""Signed transactions: bundles of calls under one signature, their canonical bytes and their receipts."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, Generic, Literal, TypeVar

import msgspec

from gridpool.ledger.keys import KeyPair
from gridpool.ledger.rules import Rules
from gridpool.ledger.types import Call, Hash, Natural, Signature, Text, Value, Wallet, encode

__all__ = [
    "MAX_CALLS",
    "MAX_TRANSACTION_BYTES",
    "Body",
    "CallResult",
    "Delegated",
    "Malformed",
    "Receipt",
    "SignedMessage",
    "Transaction",
    "TransactionDecoder",
    "delegate",
    "sign",
    "signed_messages",
    "transaction_id",
]

C = TypeVar("C")

MAX_CALLS = 500
MAX_TRANSACTION_BYTES = 512 * 1024
TRANSACTION_DOMAIN = b"gridpool/transaction/1\0"
CALL_DOMAIN = b"gridpool/call/1\0"

SignedMessage = tuple[bytes, bytes, bytes]
"""(public key, signature, message)."""


class Malformed(Exception):
    """Bytes that are no canonical transaction under the rules in force."""


class Delegated(
    msgspec.Struct, Generic[C], frozen=True, array_like=True, forbid_unknown_fields=True, tag="ledger.delegated"
):
    """A call that ``signer`` signed and somebody else carries in a bundle.

    The signature covers domain, chain, signer, nonce, last valid height and call, so that the call can be neither
    replayed, moved to another chain nor held back past its expiry. ``nonce`` counts apart from the signer's own
    transactions.
    """

    call: C
    signer: Wallet
    nonce: Natural
    last_valid_height: Natural
    signature: Signature


class Body(msgspec.Struct, Generic[C], frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a sender signs. ``mode`` is ``atomic`` (all calls or none) or ``each`` (a bad call undoes only itself)."""

    chain: Text
    sender: Wallet
    nonce: Natural
    last_valid_height: Natural
    mode: Literal["atomic", "each"]
    calls: tuple[C, ...]


class CallResult(Value):
    """The outcome of one call of a bundle in mode ``each``, or of one piece of due work."""

    code: str
    info: str


class Receipt(Value):
    """The outcome of a transaction: ``ok`` or the code of its refusal, and the events it emitted.

    The receipt of the work that fell due at the end of a block has 32 zero bytes as its transaction.
    """

    tx: Hash
    code: str
    info: str
    results: tuple[CallResult, ...]
    events: tuple[msgspec.Raw, ...]

    @property
    def ok(self) -> bool:
        """Whether the transaction did what it asked for (in mode ``each``: at least was carried out)."""
        return self.code == "ok"


class Transaction:
    """A decoded transaction; ``wire`` = 64-byte signature followed by the body's bytes."""

    __slots__ = ("body", "id", "wire")

    def __init__(self, wire: bytes, tx_id: bytes, body: Body[Any]) -> None:
        self.wire = wire
        self.id = tx_id
        self.body = body

    @property
    def signature(self) -> bytes:
        """The sender's signature."""
        return self.wire[:64]

    @property
    def signature_count(self) -> int:
        """How many signatures must hold: the sender's, and one for each delegated call."""
        return 1 + sum(type(call) is Delegated for call in self.body.calls)

    def signed_messages(self) -> list[SignedMessage]:
        """Return everything whose signature must hold: the body, then each delegated call."""
        messages = [(self.body.sender, self.wire[:64], TRANSACTION_DOMAIN + self.wire[64:])]
        chain = self.body.chain
        messages += [
            (
                call.signer,
                call.signature,
                _call_message(chain, call.signer, call.nonce, call.last_valid_height, call.call),
            )
            for call in self.body.calls
            if type(call) is Delegated
        ]
        return messages


class TransactionDecoder:
    """Decodes the transactions of one rules version."""

    def __init__(self, rules: Rules) -> None:
        inner = rules.call_union
        self._decode = msgspec.msgpack.Decoder(Body[inner | Delegated[inner]]).decode  # type: ignore[valid-type]
        self._encode = msgspec.msgpack.Encoder().encode

    def body(self, wire: bytes) -> Body[Any]:
        """Decode the body alone, of a transaction that a block holds and whose form was checked there."""
        try:
            return self._decode(wire[64:])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Malformed(str(error)) from None

    def decode(self, wire: bytes) -> Transaction:
        """Decode canonical transaction bytes; raises Malformed saying what is wrong."""
        if not 64 < len(wire) <= MAX_TRANSACTION_BYTES:
            raise Malformed(f"a transaction has 65 to {MAX_TRANSACTION_BYTES} bytes, not {len(wire)}")
        data = wire[64:]
        try:
            body = self._decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Malformed(str(error)) from None
        if self._encode(body) != data:
            raise Malformed("not the canonical encoding")
        if not 1 <= len(body.calls) <= MAX_CALLS:
            raise Malformed(f"a bundle holds 1 to {MAX_CALLS} calls, not {len(body.calls)}")
        return Transaction(wire, transaction_id(data), body)


def transaction_id(body: bytes) -> bytes:
    """Return SHA-256(domain || body bytes); the signature is not part of it."""
    return hashlib.sha256(TRANSACTION_DOMAIN + body).digest()


def sign(
    key: KeyPair,
    chain: str,
    nonce: int,
    last_valid_height: int,
    calls: Iterable[Call | Delegated[Any]],
    *,
    mode: Literal["atomic", "each"] = "atomic",
) -> Transaction:
    """Build and sign a transaction."""
    body = Body(chain, key.public, nonce, last_valid_height, mode, tuple(calls))
    data = encode(body)
    return Transaction(key.sign(TRANSACTION_DOMAIN + data) + data, transaction_id(data), body)


def delegate(key: KeyPair, chain: str, nonce: int, last_valid_height: int, call: Call) -> Delegated[Call]:
    """Sign one call that another member will carry in a bundle."""
    message = _call_message(chain, key.public, nonce, last_valid_height, call)
    return Delegated(call, key.public, nonce, last_valid_height, key.sign(message))


def signed_messages(transactions: Sequence[Transaction]) -> list[SignedMessage]:
    """Return all signatures of several transactions, in order."""
    return [message for transaction in transactions for message in transaction.signed_messages()]


def _call_message(chain: str, signer: bytes, nonce: int, last_valid_height: int, call: Call) -> bytes:
    return CALL_DOMAIN + encode((chain, signer, nonce, last_valid_height, call))
