"""A device's book of receipts: the highest of each deposit, on disk before it is acted upon."""

import os
import threading
from pathlib import Path

import msgspec

from gridpool.contracts.device_receipts import CoSigned, Receipt
from gridpool.errors import RefusedInput

__all__ = ["Held", "ReceiptBook"]

MOST_RECEIPTS = 10_000
MOST_FILE = 4_096


class Held(msgspec.Struct, frozen=True):
    """A receipt as far as it is signed, and whether the ledger has settled it."""

    receipt: Receipt
    payer_signature: bytes = b""
    payee_signature: bytes = b""
    settled: bool = False

    @property
    def co_signed(self) -> CoSigned | None:
        """The receipt with both signatures, once there are both."""
        if not self.payer_signature or not self.payee_signature:
            return None
        return CoSigned(self.receipt, self.payer_signature, self.payee_signature)


class ReceiptBook:
    """One file a deposit, replaced whole."""

    def __init__(self, folder: Path) -> None:
        """Use a folder, made where there is none."""
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._count = sum(1 for _ in folder.glob("*.json"))

    def find(self, payer: bytes, payee: bytes, number: int) -> Held | None:
        """Return the highest receipt of a deposit."""
        path = self._path(payer, payee, number)
        return self._read(path) if path.exists() else None

    def keep(self, held: Held) -> None:
        """Store a receipt; raises RefusedInput where it is below the one that stands, or the book is full."""
        receipt = held.receipt
        path = self._path(receipt.payer, receipt.payee, receipt.number)
        with self._lock:
            if path.exists():
                old = self._read(path).receipt
                if (receipt.total, receipt.units) < (old.total, old.units):
                    raise RefusedInput(f"a receipt over {old.total} stands; one over {receipt.total} is lower")
            elif self._count >= MOST_RECEIPTS:
                raise RefusedInput(f"{self._folder} holds {MOST_RECEIPTS} receipts; settle and remove some")
            else:
                self._count += 1
            partial = path.with_suffix(f".{threading.get_ident()}.partial")
            with partial.open("wb") as file:
                file.write(msgspec.json.encode(held))
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)

    def all(self) -> list[Held]:
        """Return all receipts, by file name."""
        return [self._read(path) for path in sorted(self._folder.glob("*.json"))]

    def _path(self, payer: bytes, payee: bytes, number: int) -> Path:
        return self._folder / f"{payer.hex()[:24]}-{payee.hex()[:24]}-{number}.json"

    @staticmethod
    def _read(path: Path) -> Held:
        try:
            with path.open("rb") as file:
                return msgspec.json.decode(file.read(MOST_FILE), type=Held)
        except ValueError as error:
            raise RefusedInput(f"{path} is no receipt: {error}") from None
