"""All keys of a member from one seed: SLIP-0010 hardened paths on Ed25519, and a backup that fits on paper."""

import hashlib
import hmac
import os
from pathlib import Path

from gridpool.errors import RefusedInput
from gridpool.ledger.keys import KeyPair

__all__ = ["WalletKeys", "derive_seed", "load_wallet", "read_backup", "save_wallet", "write_backup"]

HARDENED = 0x8000_0000
ROOT = (44, 0x6770)
"""Purpose 44 and gridpool's own (unregistered) coin number."""
ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
"""32 signs without I, L, O and U, which hands confuse."""
MISREAD = str.maketrans({"I": "1", "L": "1", "O": "0", "U": "V"})
ROW_BYTES = 5
SEED_BYTES = 32


class WalletKeys:
    """A member's keys: the certificate key, pseudonymous wallets by number, and what follows from them."""

    def __init__(self, seed: bytes) -> None:
        """Use a seed of 32 bytes (see ``WalletKeys.generate``)."""
        if len(seed) != SEED_BYTES:
            raise RefusedInput(f"a wallet's seed has {SEED_BYTES} bytes, not {len(seed)}")
        self.seed = seed
        self._wallets: dict[int, KeyPair] = {}
        self.certificate = KeyPair(derive_seed(seed, (*ROOT, 0)))

    @classmethod
    def generate(cls) -> "WalletKeys":
        """Make new keys from the operating system's randomness."""
        return cls(os.urandom(SEED_BYTES))

    def wallet(self, number: int) -> KeyPair:
        """Return the key of pseudonymous wallet ``number`` (0, 1, ...)."""
        if number not in self._wallets:
            self._wallets[number] = KeyPair(derive_seed(self.seed, (*ROOT, 1, number)))
        return self._wallets[number]

    def salt(self, number: int) -> bytes:
        """Return the 32 bytes that open the commitment of wallet ``number``; known to whoever knows the seed."""
        return hashlib.sha256(b"gridpool/salt/1\0" + derive_seed(self.seed, (*ROOT, 2, number))).digest()

    def secret(self, name: str) -> bytes:
        """Return 32 secret bytes for a named purpose (an aggregator's pool key)."""
        return hmac.digest(derive_seed(self.seed, (*ROOT, 3)), name.encode(), "sha256")


def derive_seed(seed: bytes, path: tuple[int, ...]) -> bytes:
    """Return the private key at a path of hardened indices (SLIP-0010, Ed25519); ``path`` holds them unhardened."""
    digest = hmac.digest(b"ed25519 seed", seed, "sha512")
    for index in path:
        if not 0 <= index < HARDENED:
            raise RefusedInput(f"{index} is no index of a key path; it lies in 0 to {HARDENED - 1}")
        data = b"\0" + digest[:32] + (index | HARDENED).to_bytes(4, "big")
        digest = hmac.digest(digest[32:], data, "sha512")
    return digest[:32]


def write_backup(seed: bytes) -> list[str]:
    """Write a seed as rows to copy by hand: row number, two groups of four signs, and two signs that check the row.

    The last row holds the rest of the seed and a checksum of all of it.
    """
    data = seed + hashlib.sha256(b"gridpool/backup/1\0" + seed).digest()[:3]
    rows = []
    for number in range(0, len(data) // ROW_BYTES):
        signs = _signs(data[number * ROW_BYTES : (number + 1) * ROW_BYTES])
        rows.append(f"{number + 1} {signs[:4]} {signs[4:]} {_check(number, signs)}")
    return rows


def read_backup(text: str) -> bytes:
    """Read a backup; raises RefusedInput naming the first row that was not copied right."""
    rows = [row for row in text.upper().splitlines() if row.strip()]
    expected = (SEED_BYTES + 3) // ROW_BYTES
    if len(rows) != expected:
        raise RefusedInput(f"a backup has {expected} rows, not {len(rows)}")
    data = b""
    for number, row in enumerate(rows):
        label, *groups = row.split()
        signs = "".join(groups).translate(MISREAD)
        body, check = signs[:8], signs[8:]
        if label != str(number + 1) or len(signs) != 10 or any(s not in ALPHABET for s in signs):
            raise RefusedInput(f"row {number + 1} of the backup should read: {number + 1} XXXX XXXX XX")
        if _check(number, body) != check:
            raise RefusedInput(f"row {number + 1} of the backup was not copied right: its check signs do not fit")
        data += _bytes(body)
    seed = data[:SEED_BYTES]
    if hashlib.sha256(b"gridpool/backup/1\0" + seed).digest()[:3] != data[SEED_BYTES:]:
        raise RefusedInput("every row of the backup fits, but not all of them together; are they of one wallet?")
    return seed


def save_wallet(path: Path, keys: WalletKeys) -> None:
    """Write a wallet's seed into a new file that only its owner can read; refuse to overwrite."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise RefusedInput(f"{path} exists; a wallet is never overwritten, choose another name") from None
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write("gridpool wallet 1\n" + keys.seed.hex() + "\n")
        file.flush()
        os.fsync(file.fileno())


def load_wallet(path: Path) -> WalletKeys:
    """Read a wallet file; refused where there is none, where it is something else, or where others could read it."""
    try:
        if path.stat().st_mode & 0o077:
            raise RefusedInput(f"{path} can be read by others; run: chmod 600 {path}")
        lines = path.read_text(encoding="ascii").split("\n")
        if len(lines) != 3 or lines[0] != "gridpool wallet 1":
            raise ValueError("it does not begin with 'gridpool wallet 1'")
        return WalletKeys(bytes.fromhex(lines[1]))
    except FileNotFoundError:
        raise RefusedInput(f"no wallet file {path}; make one with: gridpool wallet new {path}") from None
    except (ValueError, UnicodeDecodeError) as error:
        if isinstance(error, RefusedInput):
            raise
        raise RefusedInput(f"{path} is no wallet file: {error}") from None


def _signs(data: bytes) -> str:
    value = int.from_bytes(data, "big")
    return "".join(ALPHABET[value >> shift & 31] for shift in range(35, -1, -5))


def _bytes(signs: str) -> bytes:
    value = 0
    for sign in signs:
        value = value << 5 | ALPHABET.index(sign)
    return value.to_bytes(ROW_BYTES, "big")


def _check(number: int, signs: str) -> str:
    digest = hashlib.sha256(f"gridpool/row/1/{number}/{signs}".encode()).digest()
    return ALPHABET[digest[0] & 31] + ALPHABET[digest[1] & 31]
