"""Headers: what a height commits to, and who vouches for it."""

from hashlib import sha256
from typing import Annotated

import msgspec

from gridpool.ledger.keys import KeyPair, verify
from gridpool.ledger.merkle import list_root
from gridpool.ledger.types import Hash, Millis, Natural, Text, Value, Wallet, encode

__all__ = [
    "NO_CHANGES",
    "Header",
    "SignedHeader",
    "application_hash",
    "follows",
    "header_message",
    "seal",
    "signature_holds",
]

NO_CHANGES = sha256(b"gridpool/changes/1\0").digest()
"""Hash of the changes of a block that changed nothing."""
NOTHING_LISTED = list_root(())
HEADER_DOMAIN = b"gridpool/header/1\0"


class Header(Value):
    """What a height commits to. Height 0 is genesis; its previous application hash is the genesis hash.

    A block that held and changed nothing keeps the application hash of the one before, so that an engine that makes
    blocks only where something happened can rest. The hash does not follow from the roots of such an idle header, so
    it proves nothing by itself: proofs are made under the last header that was not idle.
    """

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

    @property
    def idle(self) -> bool:
        """Whether the header claims that its block held and changed nothing; ``follows`` checks the claim."""
        return self.app_hash == self.previous_app_hash


class SignedHeader(Value):
    """A header and the node key's signature over it; empty where an engine's validators sign elsewhere."""

    header: Header
    signature: bytes


def application_hash(
    rules_version: int, state_root: bytes, receipts_root: bytes, change_hash: bytes, previous: bytes
) -> bytes:
    """Return SHA-256(rules version (8 bytes, big-endian) || state root || receipts root || changes || previous)."""
    return sha256(rules_version.to_bytes(8, "big") + state_root + receipts_root + change_hash + previous).digest()


def follows(header: Header, below: Header) -> bool:
    """Tell whether a header can stand on the one below: it links to it, and its application hash is what it must be."""
    if (header.chain, header.height, header.previous_app_hash) != (below.chain, below.height + 1, below.app_hash):
        return False
    if header.idle:
        return (header.rules_version, header.state_root, header.misbehaving) == (
            below.rules_version,
            below.state_root,
            (),
        ) and (header.receipts_root, header.transactions_root, header.change_hash) == (
            NOTHING_LISTED,
            NOTHING_LISTED,
            NO_CHANGES,
        )
    return header.app_hash == application_hash(
        header.rules_version, header.state_root, header.receipts_root, header.change_hash, header.previous_app_hash
    )


def header_message(header: Header) -> bytes:
    """Return the bytes that the node key signs."""
    return HEADER_DOMAIN + encode(header)


def seal(header: Header, key: KeyPair | None) -> SignedHeader:
    """Sign a header, or leave it unsigned where an engine's validators sign elsewhere."""
    return SignedHeader(header, b"" if key is None else key.sign(header_message(header)))


def signature_holds(signed: SignedHeader, public: bytes) -> bool:
    """Tell whether the key with the public part ``public`` signed the header."""
    return len(signed.signature) == 64 and verify(public, signed.signature, header_message(signed.header))
