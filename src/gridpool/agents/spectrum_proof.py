"""Proofs of inquiries: every key that the answer was read from, proved under one signed header, and the check of it.

The checker needs the trust file alone: it verifies each key's presence or absence, then repeats the whole computation
from what was proved. A key that the computation wants and the proof lacks makes the proof invalid, so that neither a
lease nor a protected use can be left out.
"""

import base64
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from gridpool.agents.spectrum_inquiry import Answer, Inquired, Question, answer
from gridpool.errors import RefusedInput, VerificationFault
from gridpool.ledger import light
from gridpool.ledger.chain import Ledger
from gridpool.ledger.proof import state_proof
from gridpool.ledger.state import State
from gridpool.ledger.types import encode

__all__ = ["FORMAT", "check_proof", "digest_of", "inquiry_proof", "write_proof"]

FORMAT = "gridpool-spectrum-proof-1"
MOST_BYTES = 64 << 20


def digest_of(read: dict[bytes, bytes | None]) -> bytes:
    """Return a hash of keys and values in key order."""
    return hashlib.sha256(b"gridpool/spectrum-inquiry/1\0" + encode(sorted(read.items()))).digest()


def inquiry_proof(ledger: Ledger, question: Question, found: Inquired) -> dict[str, Any]:
    """Prove an answer, as JSON-ready data; raises RefusedInput where the ledger has moved on since."""
    with ledger.view() as view:
        if view.height != found.height:
            raise RefusedInput(f"the ledger is at height {view.height}, the answer at {found.height}; ask again")
        proofs = [state_proof(view, key) for key in sorted(found.read)]
    head = {name: proofs[0][name] for name in ("header", "signature")}
    for proof in proofs:
        for name in ("format", "header", "signature"):
            del proof[name]
    return {
        "format": FORMAT,
        **head,
        "question": {name: getattr(question, name) for name in Question.__slots__},
        "answer": base64.b64encode(encode(found.answer)).decode("ascii"),
        "keys": proofs,
    }


def write_proof(path: Path, ledger: Ledger, question: Question, found: Inquired) -> None:
    """Write an answer's proof to a new file, whole."""
    data = msgspec.json.encode(inquiry_proof(ledger, question, found))
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(data)
    partial.replace(path)


def check_proof(path: Path, trust: Path) -> dict[str, Any]:
    """Check a proof file against a trust file and return height, number of channels and of keys.

    Raises VerificationFault where it does not hold, RefusedInput where it is no such file.
    """
    data, trusted = _read(path), _read(trust)
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise RefusedInput(f"{path} is no proof of format {FORMAT}")
    try:
        question = msgspec.convert(data.get("question"), Question)
        claimed = msgspec.msgpack.decode(base64.b64decode(data.get("answer") or "", validate=True), type=Answer)
        keys = data.get("keys")
        if not isinstance(keys, list):
            raise TypeError("no list of keys")
    except (ValueError, TypeError) as error:
        raise RefusedInput(f"{path} is no proof of format {FORMAT}: {error}") from None
    pairs: dict[bytes, bytes | None] = {}
    height = 0
    try:
        for part in keys:
            whole = {
                **(part if isinstance(part, dict) else {}),
                "format": "gridpool-proof-1",
                "header": data.get("header"),
                "signature": data.get("signature"),
            }
            checked = light.check(whole, trusted)
            height = checked["height"]
            value = checked["value"]
            pairs[bytes.fromhex(checked["key"])] = None if value is None else base64.b64decode(value)
        repeated = answer(State(_ProvenReader(pairs)), question)
    except light.Invalid as error:
        raise VerificationFault(f"{path}: {error}") from None
    except (KeyError, msgspec.DecodeError) as error:
        raise VerificationFault(f"{path}: the proof lacks what the answer needs ({error})") from None
    if encode(repeated) != encode(claimed):
        raise VerificationFault(f"{path}: the ledger's state gives another answer")
    return {"ok": True, "height": height, "channels": len(claimed.channels), "keys": len(pairs)}


class _ProvenReader:
    """A reader of proved keys only."""

    def __init__(self, pairs: dict[bytes, bytes | None]) -> None:
        self._pairs = pairs

    def get(self, key: bytes) -> bytes | None:
        """Return what was proved; raises KeyError for anything else."""
        return self._pairs[key]

    def scan(self, prefix: bytes, start: bytes, reverse: bool) -> Iterator[tuple[bytes, bytes]]:
        """Refuse: nothing is proved about ranges."""
        raise KeyError(prefix)


def _read(path: Path) -> Any:
    if path.stat().st_size > MOST_BYTES:
        raise RefusedInput(f"{path} is larger than a proof may be ({MOST_BYTES} bytes)")
    try:
        return msgspec.json.decode(path.read_bytes())
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RefusedInput(f"{path} is no JSON: {error}") from None
