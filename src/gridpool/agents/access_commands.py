"""Commands from an orchestrator to network functions: encrypted under keys agreed through the ledger, numbered, once.

Each side publishes an X25519 key (``access.PublishKey``) and reads the other's with a proof; the session keys follow by
libsodium's ``crypto_kx``. A command that was altered, replayed or comes out of order is refused.
"""

import os
from dataclasses import dataclass

import msgspec
from nacl import bindings
from nacl.exceptions import CryptoError

from gridpool.agents.access_credential import Distrusted
from gridpool.ledger.types import encode

__all__ = ["CommandEnd", "CommandReceiver", "CommandSender", "command_key", "new_command_key"]

MOST_COMMAND = 65_536
NONCE_BYTES = bindings.crypto_aead_xchacha20poly1305_ietf_NPUBBYTES


class _Sealed(msgspec.Struct, array_like=True):
    sequence: int
    nonce: bytes
    text: bytes


@dataclass(frozen=True, slots=True)
class CommandEnd:
    """One side of a channel: its wallet, the X25519 key it published, and that key's epoch on the ledger."""

    wallet: bytes
    key: bytes
    epoch: int


def new_command_key() -> tuple[bytes, bytes]:
    """Make an X25519 pair (public, secret); publish the first, keep the second."""
    public, secret = bindings.crypto_kx_keypair()
    return public, secret


def command_key(wallet: bytes) -> bytes:
    """Return the full key under which the ledger holds a wallet's key for commands."""
    return b"access.command_key\0" + wallet


class CommandSender:
    """Seals commands for one receiver; ``sequence`` is the last number used, kept by the caller over restarts."""

    def __init__(self, chain: str, own: CommandEnd, secret: bytes, other: CommandEnd, *, sequence: int = 0) -> None:
        try:
            _, self._key = bindings.crypto_kx_client_session_keys(own.key, secret, other.key)
        except (CryptoError, RuntimeError, ValueError, TypeError) as error:
            raise Distrusted(f"no key can be agreed with {other.wallet.hex()}: {error}") from None
        self._context = _context(chain, own, other)
        self.sequence = sequence

    def seal(self, command: bytes) -> bytes:
        """Encrypt a command under the next number."""
        if len(command) > MOST_COMMAND:
            raise Distrusted(f"a command has at most {MOST_COMMAND} bytes")
        self.sequence += 1
        nonce = os.urandom(NONCE_BYTES)
        text = bindings.crypto_aead_xchacha20poly1305_ietf_encrypt(
            command, self._context + self.sequence.to_bytes(8, "big"), nonce, self._key
        )
        return encode((self.sequence, nonce, text))


class CommandReceiver:
    """Opens commands of one sender; ``sequence`` is the last number taken, kept by the caller over restarts."""

    def __init__(self, chain: str, own: CommandEnd, secret: bytes, other: CommandEnd, *, sequence: int = 0) -> None:
        try:
            self._key, _ = bindings.crypto_kx_server_session_keys(own.key, secret, other.key)
        except (CryptoError, RuntimeError, ValueError, TypeError) as error:
            raise Distrusted(f"no key can be agreed with {other.wallet.hex()}: {error}") from None
        self._context = _context(chain, other, own)
        self.sequence = sequence

    def open(self, sealed: bytes) -> bytes:
        """Decrypt a command; raises Distrusted where it was altered, or its number is not above the last."""
        if len(sealed) > MOST_COMMAND + 256:
            raise Distrusted("a sealed command is too long")
        try:
            held = msgspec.msgpack.decode(sealed, type=_Sealed)
        except (ValueError, RecursionError) as error:
            raise Distrusted(f"this is no command: {error}") from None
        if len(held.nonce) != NONCE_BYTES or not 0 <= held.sequence < 1 << 63:
            raise Distrusted("this is no command: its parts have the wrong length")
        if held.sequence <= self.sequence:
            raise Distrusted(f"command {held.sequence} was taken before; the last was {self.sequence}")
        try:
            command = bindings.crypto_aead_xchacha20poly1305_ietf_decrypt(
                held.text, self._context + held.sequence.to_bytes(8, "big"), held.nonce, self._key
            )
        except CryptoError:
            raise Distrusted(f"command {held.sequence} was altered or is of another sender") from None
        self.sequence = held.sequence
        return command


def _context(chain: str, sender: CommandEnd, receiver: CommandEnd) -> bytes:
    return encode(("gridpool/command/1", chain, sender.wallet, sender.epoch, receiver.wallet, receiver.epoch))
