"""Ed25519 keys through PyNaCl alone: verifiers disagree on crafted keys, so the ledger knows only one."""

import os
from collections.abc import Sequence
from pathlib import Path

from nacl import bindings
from nacl.exceptions import BadSignatureError

from gridpool.errors import RefusedInput
from gridpool.ledger.compiled import native

__all__ = ["KeyPair", "is_sound_key", "load_key", "plain_verify_all", "save_key", "verify", "verify_all"]


class KeyPair:
    """A private Ed25519 key and its public key, which is the wallet's address."""

    __slots__ = ("_secret", "public")

    def __init__(self, seed: bytes) -> None:
        """Derive the pair from a 32-byte seed."""
        if len(seed) != 32:
            raise RefusedInput(f"a key seed has 32 bytes, not {len(seed)}")
        self.public, self._secret = bindings.crypto_sign_seed_keypair(seed)

    @classmethod
    def generate(cls) -> "KeyPair":
        """Make a pair from the operating system's randomness."""
        return cls(os.urandom(32))

    @property
    def seed(self) -> bytes:
        """The 32-byte seed; keep it secret."""
        return self._secret[:32]

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte signature over ``message``; compiled, by the same function of PyNaCl's libsodium."""
        return self.plain_sign(message) if native is None else native.sign(message, self._secret)

    def plain_sign(self, message: bytes) -> bytes:
        """Do what ``sign`` does, in Python: its definition and the oracle of its tests."""
        return bindings.crypto_sign(message, self._secret)[:64]

    def __repr__(self) -> str:
        return f"KeyPair({self.public.hex()})"


def verify(public: bytes, signature: bytes, message: bytes) -> bool:
    """Tell whether ``signature`` (64 bytes) over ``message`` was made with the private key of ``public`` (32 bytes)."""
    if len(signature) != 64:
        return False
    try:
        bindings.crypto_sign_open(signature + message, public)
    except (BadSignatureError, ValueError):
        return False
    return True


def verify_all(messages: Sequence[tuple[bytes, bytes, bytes]]) -> bytes:
    """Verify (public key, signature, message) one by one; returns one byte for each, 1 where the signature holds.

    Compiled, it calls the same function of PyNaCl's libsodium as ``verify`` and lets other threads run meanwhile.
    """
    return plain_verify_all(messages) if native is None else native.verify_all(messages)


def plain_verify_all(messages: Sequence[tuple[bytes, bytes, bytes]]) -> bytes:
    """Do what ``verify_all`` does, in Python: its definition and the oracle of its tests."""
    return bytes(verify(*message) for message in messages)


def is_sound_key(public: bytes) -> bool:
    """Tell whether a public key may be registered: canonical, on the curve, of prime order (so not of low order)."""
    return len(public) == 32 and bool(bindings.crypto_core_ed25519_is_valid_point(public))


def save_key(path: Path, pair: KeyPair) -> None:
    """Write the seed as hex into a new file that only its owner can read; refuse to overwrite."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise RefusedInput(f"{path} exists; a key is never overwritten, choose another name") from None
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(pair.seed.hex() + "\n")
        file.flush()
        os.fsync(file.fileno())


def load_key(path: Path) -> KeyPair:
    """Read a key file written by ``save_key``; refused where other users could read it."""
    if path.stat().st_mode & 0o077:
        raise RefusedInput(f"{path} can be read by others; run: chmod 600 {path}")
    try:
        return KeyPair(bytes.fromhex(path.read_text(encoding="ascii").strip()))
    except (ValueError, UnicodeDecodeError) as error:
        raise RefusedInput(f"{path} is not a key file: {error}") from None
