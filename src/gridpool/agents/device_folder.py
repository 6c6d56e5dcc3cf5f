"""A device's folder: its key, its credential, the trust file and its receipts, all that it needs to go offline with."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from gridpool.agents.access_credential import MOST_BYTES, Credentials, Distrusted, Standing
from gridpool.agents.receipts import ReceiptBook
from gridpool.errors import RefusedInput
from gridpool.ledger.keys import KeyPair, load_key

__all__ = ["CREDENTIAL", "KEY", "TRUST", "Device", "open_device", "write_whole"]

KEY, TRUST, CREDENTIAL, RECEIPTS = "key", "trust.json", "credential.json", "receipts"


@dataclass(frozen=True, slots=True)
class Device:
    """A device: key, its own credential as bytes and checked, what it trusts, and its book of receipts."""

    key: KeyPair
    credential: bytes
    standing: Standing
    credentials: Credentials
    book: ReceiptBook

    @property
    def chain(self) -> str:
        """Name of the chain."""
        return self.credentials.chain


def open_device(folder: Path) -> Device:
    """Read a device's folder; raises RefusedInput naming what is missing or does not fit."""
    if not (folder / KEY).exists():
        raise RefusedInput(f"{folder} is no device's folder; make one with: gridpool device init {folder}")
    key = load_key(folder / KEY)
    try:
        trust = json.loads(_read(folder / TRUST))
        if not isinstance(trust, dict):
            raise Distrusted("a trust file is an object")
        credentials = Credentials(trust)
        credential = _read(folder / CREDENTIAL)
        standing = credentials.check(credential, key.public)
    except (Distrusted, ValueError, RecursionError) as error:
        raise RefusedInput(f"{folder} does not fit together: {error}; run: gridpool device init {folder}") from None
    return Device(key, credential, standing, credentials, ReceiptBook(folder / RECEIPTS))


def write_whole(path: Path, data: bytes) -> None:
    """Write a file under another name, then rename it."""
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(data)
    os.replace(partial, path)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        raise RefusedInput(f"no file {path}; run: gridpool device init {path.parent}") from None
    if len(data) > MOST_BYTES:
        raise RefusedInput(f"{path} is too large for a device's file")
    return data
