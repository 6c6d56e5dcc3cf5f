"""What only named readers can open: links from wallets to members, identities, loan requests.

Sealed boxes (X25519, XSalsa20-Poly1305): the text is encrypted once under a fresh key, which is wrapped for each reader
apart, so that auditor, regulator and aggregator can each open it alone.
"""

import os

import msgspec
from nacl import bindings
from nacl.exceptions import CryptoError

from gridpool.errors import RefusedInput
from gridpool.ledger.keys import KeyPair
from gridpool.ledger.types import encode

__all__ = ["SealedText", "WalletLink", "box_key", "box_key_of", "box_secret", "open_sealed", "seal_for"]

WRAPPED_BYTES = 32 + bindings.crypto_box_SEALBYTES


class SealedText(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A text under a fresh key, and that key wrapped for each reader, in the readers' order."""

    nonce: bytes
    text: bytes
    wrapped: tuple[bytes, ...]


class WalletLink(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a pool seals about a wallet: whose it is, and what opens its commitment."""

    member: bytes
    wallet: bytes
    salt: bytes


def box_key(public: bytes) -> bytes:
    """Return the X25519 key to which texts for the owner of an Ed25519 key are sealed."""
    try:
        return bindings.crypto_sign_ed25519_pk_to_curve25519(public)
    except (CryptoError, RuntimeError) as error:
        raise RefusedInput(f"{public.hex()} is no key that texts could be sealed to: {error}") from None


def box_key_of(key: KeyPair) -> tuple[bytes, bytes]:
    """Return the X25519 pair (public, private) that belongs to an Ed25519 pair."""
    return box_key(key.public), box_secret(key)


def box_secret(key: KeyPair) -> bytes:
    """Return the private X25519 key of an Ed25519 pair alone: the public one costs as much as verifying a signature."""
    return bindings.crypto_sign_ed25519_sk_to_curve25519(key.seed + key.public)


def seal_for(readers: tuple[bytes, ...], text: bytes) -> bytes:
    """Encrypt ``text`` so that each of ``readers`` (X25519 public keys) can open it alone.

    The result has one length for texts of one length and tells nothing about its readers but their number.
    """
    secret, nonce = os.urandom(32), os.urandom(bindings.crypto_secretbox_NONCEBYTES)
    wrapped = tuple(bindings.crypto_box_seal(secret, reader) for reader in readers)
    return encode(SealedText(nonce, bindings.crypto_secretbox(text, nonce, secret), wrapped))


def open_sealed(sealed: bytes, key: KeyPair) -> bytes:
    """Open what was sealed for the owner of ``key``; raises RefusedInput where it was not, or was altered."""
    try:
        held = msgspec.msgpack.decode(sealed, type=SealedText)
    except (msgspec.DecodeError, RecursionError) as error:
        raise RefusedInput(f"this is no sealed text: {error}") from None
    public, private = box_key_of(key)
    for wrapped in held.wrapped[:16]:
        if len(wrapped) != WRAPPED_BYTES or len(held.nonce) != bindings.crypto_secretbox_NONCEBYTES:
            raise RefusedInput("this is no sealed text: its parts have the wrong length")
        try:
            secret = bindings.crypto_box_seal_open(wrapped, public, private)
        except CryptoError:
            continue
        try:
            return bindings.crypto_secretbox_open(held.text, held.nonce, secret)
        except CryptoError:
            raise RefusedInput("this sealed text was altered") from None
    raise RefusedInput(f"this text was not sealed for {key.public.hex()}")
