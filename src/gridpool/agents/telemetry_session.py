"""One signature a session, then a chain of keys: each reading is authenticated under a key that is used once.

Device and aggregator agree on the first key without a message (X25519 of their Ed25519 keys, bound to the session);
the key of the next reading is the hash of the last one, so that whoever breaks into a device later cannot forge what it
sent before. A reading that is lost costs the reading alone: ``sequence`` says how far the chain has moved.

A code under a shared key convinces the aggregator only. What binds the aggregator is the root it anchors: any device
can check that its readings are under it.
"""

from hashlib import blake2b

from nacl import bindings
from nacl.exceptions import CryptoError

from gridpool.agents.wallet_sealing import box_key, box_secret
from gridpool.ledger.keys import KeyPair

__all__ = ["MOST_LOST", "SessionReceiver", "SessionSender", "first_key", "opening_message"]

MOST_LOST = 256
"""Readings in a row that may be lost within a session."""
MAC_BYTES = 16


class SessionSender:
    """A device's end of a session."""

    def __init__(self, key: KeyPair, aggregator: bytes, session: bytes) -> None:
        """Derive the first key for a session (16 fresh bytes) with an aggregator (its Ed25519 public key)."""
        self.session = session
        self._next = 0
        self._key = first_key(key, key.public, aggregator, aggregator, session)

    def authenticate(self, row: bytes) -> tuple[int, bytes]:
        """Return sequence number and code of the next reading, given its 48 bytes."""
        mac, sequence = _code(self._key, row), self._next
        self._key, self._next = _next_key(self._key), sequence + 1
        return sequence, mac


class SessionReceiver:
    """An aggregator's end of a session."""

    __slots__ = ("_key", "_next")

    def __init__(self, key: KeyPair, device: bytes, session: bytes) -> None:
        """Derive the first key for a session that ``device`` has opened with the owner of ``key``.

        Raises RefusedInput or CryptoError where the device's key is unsound.
        """
        self._next = 0
        self._key = first_key(key, device, device, key.public, session)

    def refusal(self, row: bytes, sequence: int, mac: bytes) -> str:
        """Take a reading: return why it is refused, or nothing. A forged one leaves the chain where it is."""
        key = self._key
        if sequence != self._next:
            lost = sequence - self._next
            if lost < 0:
                return "repeats or comes late: the session has moved on"
            if lost > MOST_LOST:
                return f"more than {MOST_LOST} readings of the session are missing before it"
            for _ in range(lost):
                key = _next_key(key)
        if _code(key, row) != mac:
            return "code does not hold"
        self._key, self._next = _next_key(key), sequence + 1
        return ""


def opening_message(device: bytes, aggregator: bytes, session: bytes, start: int) -> bytes:
    """Return what a device signs to open a session from ``start`` (ms) on."""
    return b"gridpool/session/1\0" + device + aggregator + session + start.to_bytes(8, "big")


def first_key(own: KeyPair, device: bytes, other: bytes, aggregator: bytes, session: bytes) -> bytes:
    """Return the first key of a session, from either end: ``other`` is the public key that is not ``own``."""
    try:
        shared = bindings.crypto_box_beforenm(box_key(other), box_secret(own))
    except RuntimeError as error:
        raise CryptoError(str(error)) from None
    return blake2b(device + aggregator + session, key=shared, digest_size=32, person=b"gridpool-first").digest()


def _code(key: bytes, row: bytes) -> bytes:
    return blake2b(row, key=key, digest_size=MAC_BYTES, person=b"gridpool-mac").digest()


def _next_key(key: bytes) -> bytes:
    return blake2b(key=key, digest_size=32, person=b"gridpool-next").digest()
