"""The tree over an interval's readings, as contracts check it: leaves, nodes, root, and the way to a key.

A path-compressed binary trie over (device, start): its shape follows from the readings alone, so that order and file
format do not matter, and one reading more or less changes one path. A node's hash covers the bit at which it branches,
so that the way to a key also proves that a reading is absent. Hashes are SHA-256, told apart as in RFC 6962.
"""

from hashlib import sha256
from typing import Annotated

import msgspec

from gridpool.ledger.types import Hash, Millis, Natural, SignedInteger, Value, Wallet

__all__ = [
    "KEY_BITS",
    "KEY_BYTES",
    "NO_READINGS",
    "Reading",
    "ReadingProof",
    "leaf_hash",
    "node_hash",
    "reading_key",
    "reading_message",
    "reading_row",
    "root_of_proof",
    "top_hash",
]

KEY_BYTES = 40
KEY_BITS = 8 * KEY_BYTES
NO_READINGS = sha256(b"").digest()
"""The root over no reading at all."""
_DOMAIN = b"gridpool/reading/1\0"


class Reading(Value):
    """What a device measured: its key, the start of the interval (ms), and an integer in the device's unit."""

    device: Wallet
    start: Millis
    value: SignedInteger


class ReadingProof(Value):
    """The way from a leaf up to the root: for each branching its bit and the hash of the other side.

    ``count`` is the number of readings under the root.
    """

    reading: Reading
    count: Natural
    depths: Annotated[tuple[Annotated[int, msgspec.Meta(ge=0, lt=KEY_BITS)], ...], msgspec.Meta(max_length=KEY_BITS)]
    siblings: Annotated[tuple[Hash, ...], msgspec.Meta(max_length=KEY_BITS)]


def reading_key(device: bytes, start: int) -> bytes:
    """Return the 40 bytes under which a reading stands."""
    return device + start.to_bytes(8, "big")


def reading_row(reading: Reading) -> bytes:
    """Return the 48 bytes of a reading: its key and its value."""
    return reading_key(reading.device, reading.start) + reading.value.to_bytes(8, "big", signed=True)


def reading_message(row: bytes) -> bytes:
    """Return what a device signs for a reading."""
    return _DOMAIN + row


def leaf_hash(row: bytes) -> bytes:
    """Return the hash of a reading's leaf."""
    return sha256(b"\0" + row).digest()


def node_hash(depth: int, left: bytes, right: bytes) -> bytes:
    """Return the hash of a branching at bit ``depth`` of the key."""
    return sha256(b"\1" + depth.to_bytes(2, "big") + left + right).digest()


def top_hash(count: int, node: bytes) -> bytes:
    """Return the root over ``count`` readings whose uppermost node is ``node``."""
    return sha256(b"\2" + count.to_bytes(8, "big") + node).digest() if count else NO_READINGS


def root_of_proof(proof: ReadingProof, key: bytes) -> bytes | None:
    """Return the root that a proof leads to, or None where it is not the way to ``key``.

    Where the proof's own reading has another key, the reading under ``key`` is absent from the tree with that root.
    """
    row = reading_row(proof.reading)
    if len(proof.depths) != len(proof.siblings) or len(key) != KEY_BYTES or not proof.count:
        return None
    digest = leaf_hash(row)
    above = KEY_BITS
    for depth, sibling in zip(proof.depths, proof.siblings, strict=True):
        if depth >= above:
            return None
        above = depth
        side = _bit(row, depth)
        if side != _bit(key, depth):
            return None
        digest = node_hash(depth, sibling, digest) if side else node_hash(depth, digest, sibling)
    return top_hash(proof.count, digest)


def _bit(key: bytes, depth: int) -> int:
    return key[depth >> 3] >> (7 - (depth & 7)) & 1
