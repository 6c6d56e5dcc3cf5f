"""Headers: what a height commits to, and who vouches for it."""

from hashlib import sha256
from typing import Annotated

import msgspec

from gridpool.ledger.keys import KeyPair, verify
from gridpool.ledger.types import Hash, Millis, Natural, Text, Value, Wallet, encode

__all__ = ["Header", "SignedHeader", "application_hash", "header_message", "seal", "signature_holds"]

HEADER_DOMAIN = b"gridpool/header/1\0"


class Header(Value):
    """What a height commits to. Height 0 is genesis; its previous application hash is the genesis hash."""

    chain: Text
    height: Natural
    time_ms: Millis
    rules_version: Natural
    state_root: Hash
    receipts_root: Hash
    change_hash: Hash
    previous_app_hash: Hash
    app_hash: Hash
    transactions_root: Hash
    misbehaving: Annotated[tuple[Wallet, ...], msgspec.Meta(max_length=1_000)] = ()
    """Keys of validators that the engine proved to have misbehaved."""


class SignedHeader(Value):
    """A header and the node key's signature over it; empty where an engine's validators sign elsewhere."""

    header: Header
    signature: bytes


def application_hash(
    rules_version: int, state_root: bytes, receipts_root: bytes, change_hash: bytes, previous: bytes
) -> bytes:
    """Return SHA-256(rules version (8 bytes, big-endian) || state root || receipts root || changes || previous)."""
    return sha256(rules_version.to_bytes(8, "big") + state_root + receipts_root + change_hash + previous).digest()


def header_message(header: Header) -> bytes:
    """Return the bytes that the node key signs."""
    return HEADER_DOMAIN + encode(header)


def seal(header: Header, key: KeyPair | None) -> SignedHeader:
    """Sign a header, or leave it unsigned where an engine's validators sign elsewhere."""
    return SignedHeader(header, b"" if key is None else key.sign(header_message(header)))


def signature_holds(signed: SignedHeader, public: bytes) -> bool:
    """Tell whether the key with the public part ``public`` signed the header."""
    return len(signed.signature) == 64 and verify(public, signed.signature, header_message(signed.header))
