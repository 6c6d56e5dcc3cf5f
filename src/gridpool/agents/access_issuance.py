"""Fetching a credential from a ledger: a wallet's proofs under one header, and the trust file to go with it."""

import json
import urllib.parse
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from gridpool.agents.access_credential import (
    FORMAT,
    Standing,
    banned_key,
    block_key,
    clock_key,
    standing_by,
    wallet_key,
)
from gridpool.contracts import RULES
from gridpool.errors import RefusedInput
from gridpool.ledger.chain import Ledger, View, locate
from gridpool.ledger.proof import state_proof
from gridpool.ledger.proof import trust as trust_of

__all__ = ["credential_of", "fetch_credential", "own_standings"]

TRIES = 8


def credential_of(view: View, wallet: bytes, more: Sequence[bytes] = ()) -> bytes:
    """Write the credential of a wallet at a ledger's present height; ``more`` are further full keys to prove."""
    return _document(wallet, [state_proof(view, key) for key in (*_keys(wallet), *more)])


def own_standings(view: View) -> Callable[[bytes], Standing]:
    """Return what tells a wallet's standing by a node's own state at one height, for ``Gate``'s ``standings``.

    Such a gate sees a ban with the block that carries it. Make another with each block: ``view`` stands still.
    """
    header = view.header(view.height).header
    fields = {"height": header.height, "time_ms": header.time_ms}

    def standing(wallet: bytes) -> Standing:
        return standing_by(wallet, fields, {key: view.snapshot.get(key) for key in _keys(wallet)}, b"")

    return standing


def fetch_credential(
    home: Path | None, url: str | None, wallet: bytes, more: Sequence[bytes] = ()
) -> tuple[bytes, dict[str, Any]]:
    """Return (credential, trust) of a wallet from a node's home or from its HTTP face.

    Raises RefusedInput where the ledger cannot be read, or its height keeps moving while the proofs are fetched.
    """
    if url is None:
        with closing(Ledger.open(locate(home or Path()), RULES, writable=False)) as ledger, ledger.view() as view:
            return credential_of(view, wallet, more), trust_of(view)
    from gridpool.agents.wallet_remote import fetch

    base = url.rstrip("/")
    tables = {table.namespace: table for table in RULES.tables.values()}
    trust = json.loads(fetch(f"{base}/trust"))
    for _ in range(TRIES):
        proofs = []
        for key in (*_keys(wallet), *more):
            table = tables[key[: key.index(b"\0") + 1]]
            text = urllib.parse.quote(table.key_text(table.decode_key(key)))
            proofs.append(json.loads(fetch(f"{base}/query/{table.name}/{text}?prove=true"))["proof"])
        if len({proof["header"] for proof in proofs}) == 1:
            return _document(wallet, proofs), trust
    raise RefusedInput(f"the ledger at {url} moves on too fast for proofs of one height; try again")


def _keys(wallet: bytes) -> tuple[bytes, ...]:
    return wallet_key(wallet), banned_key(wallet), block_key(wallet), clock_key()


def _document(wallet: bytes, proofs: list[dict[str, Any]]) -> bytes:
    first = proofs[0]
    document: dict[str, Any] = {"format": FORMAT, "wallet": wallet.hex()}
    for name in ("header", "signature", "steps"):
        if name in first:
            document[name] = first[name]
    kept = ("key", "value", "siblings", "other")
    document["proofs"] = [{name: proof[name] for name in kept if name in proof} for proof in proofs]
    return json.dumps(document, separators=(",", ":")).encode()
