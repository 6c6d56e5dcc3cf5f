"""One signature a session, then a chain of keys: each reading is authenticated under a key that is used once.

Device and aggregator agree on the first key without a message (X25519 of their Ed25519 keys, bound to the session);
the key of the next reading is the hash of the last one, so that whoever breaks into a device later cannot forge what it
sent before. A reading that is lost costs the reading alone: ``sequence`` says how far the chain has moved.

A code under a shared key convinces the aggregator only. What binds the aggregator is the root it anchors: any device
can check that its readings are under it.
"""

import sys
from array import array
from collections.abc import Iterable
from hashlib import blake2b

from nacl import bindings
from nacl.exceptions import CryptoError

from gridpool.agents.wallet_sealing import box_key, box_secret
from gridpool.ledger.compiled import native
from gridpool.ledger.keys import KeyPair

__all__ = [
    "HOLDS",
    "MOST_LOST",
    "VERDICTS",
    "SessionReceivers",
    "SessionSender",
    "first_key",
    "opening_message",
    "plain_check_codes",
]

MOST_LOST = 256
"""Readings in a row that may be lost within a session."""
MAC_BYTES = 16
CHAIN_BYTES = 40
NOT_OPEN = 2**64 - 1
VERDICTS = (
    "",
    "",
    "repeats or comes late: the session has moved on",
    f"more than {MOST_LOST} readings of the session are missing before it",
    "code does not hold",
    "session was not opened",
)
"""Why a reading is refused, by its verdict; 1 where its code holds."""
HOLDS, LATE, TOO_MANY_LOST, WRONG, NOT_OPENED = range(1, 6)


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


class SessionReceivers:
    """An aggregator's ends of all its sessions, by number: a chain each, its key and the number of the next reading."""

    def __init__(self) -> None:
        self._chains = bytearray()
        self._free: list[int] = []

    def reserve(self) -> int:
        """Return the number of a session that is about to be opened; until then no code of it holds."""
        if self._free:
            return self._free.pop()
        self._chains += _chain(bytes(32), NOT_OPEN)
        return len(self._chains) // CHAIN_BYTES - 1

    def open(self, number: int, key: bytes) -> None:
        """Open a session with its first key."""
        self._chains[CHAIN_BYTES * number : CHAIN_BYTES * (number + 1)] = _chain(key, 0)

    def give_back(self, numbers: Iterable[int]) -> None:
        """Take back the numbers of sessions that could not be opened, once no reading names them any more."""
        self._free += numbers

    def verdicts(self, rows: bytes, sessions: "array[int]", sequences: "array[int]", macs: bytes) -> bytes:
        """Take readings in order; returns for each which of ``VERDICTS`` it gets.

        For each reading ``rows`` has 48 bytes, ``sessions`` (type I) its session, ``sequences`` (type Q) its number in
        it, ``macs`` 16 bytes. A forged one leaves the chain where it is.
        """
        check = plain_check_codes if native is None else native.check_codes
        return check(self._chains, rows, sessions.tobytes(), sequences.tobytes(), macs, MOST_LOST)


def plain_check_codes(
    chains: bytearray, rows: bytes, sessions: bytes, sequences: bytes, macs: bytes, most_lost: int
) -> bytes:
    """Do what ``SessionReceivers.verdicts`` does, in Python: its definition and the oracle of its tests."""
    answer = bytearray()
    for place, (session, sequence) in enumerate(zip(array("I", sessions), array("Q", sequences), strict=True)):
        at = CHAIN_BYTES * session
        key, following = bytes(chains[at : at + 32]), int.from_bytes(chains[at + 32 : at + CHAIN_BYTES], sys.byteorder)
        row, mac = rows[48 * place : 48 * (place + 1)], macs[MAC_BYTES * place : MAC_BYTES * (place + 1)]
        if following == NOT_OPEN:
            answer.append(NOT_OPENED)
        elif sequence < following:
            answer.append(LATE)
        elif sequence - following > most_lost:
            answer.append(TOO_MANY_LOST)
        else:
            for _ in range(sequence - following):
                key = _next_key(key)
            if _code(key, row) == mac:
                chains[at : at + CHAIN_BYTES] = _chain(_next_key(key), sequence + 1)
                answer.append(HOLDS)
            else:
                answer.append(WRONG)
    return bytes(answer)


def opening_message(device: bytes, aggregator: bytes, session: bytes, start: int) -> bytes:
    """Return what a device signs to open a session from ``start`` (ms) on."""
    return b"gridpool/session/1\0" + device + aggregator + session + start.to_bytes(8, "big")


def first_key(own: KeyPair, device: bytes, other: bytes, aggregator: bytes, session: bytes) -> bytes:
    """Return the first key of a session, from either end: ``other`` is the public key that is not ``own``.

    Raises RefusedInput or CryptoError where that key is unsound.
    """
    try:
        shared = bindings.crypto_box_beforenm(box_key(other), box_secret(own))
    except RuntimeError as error:
        raise CryptoError(str(error)) from None
    return blake2b(device + aggregator + session, key=shared, digest_size=32, person=b"gridpool-first").digest()


def _code(key: bytes, row: bytes) -> bytes:
    return blake2b(row, key=key, digest_size=MAC_BYTES, person=b"gridpool-mac").digest()


def _next_key(key: bytes) -> bytes:
    return blake2b(key=key, digest_size=32, person=b"gridpool-next").digest()


def _chain(key: bytes, following: int) -> bytes:
    return key + following.to_bytes(8, sys.byteorder)
