"""Fetching a credential from a ledger: a wallet's proofs under one header, and the trust file to go with it."""

import base64
import json
import urllib.parse
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec

from gridpool.agents.access_credential import (
    FORMAT,
    MOST_BYTES,
    Standing,
    banned_key,
    block_key,
    clock_key,
    standing_by,
    wallet_key,
)
from gridpool.agents.wallet_remote import fetch
from gridpool.contracts import RULES
from gridpool.engines.cometbft_trust import steps_at
from gridpool.errors import RefusedInput
from gridpool.ledger.chain import Ledger
from gridpool.ledger.proof import state_proof
from gridpool.ledger.proof import trust as trust_of
from gridpool.ledger.view import View, locate

__all__ = ["credential_of", "fetch_credential", "own_standings"]

TRIES = 8
Steps = list[dict[str, Any]]


def credential_of(view: View, wallet: bytes, more: Sequence[bytes] = (), steps: Steps | None = None) -> bytes:
    """Write the credential of a wallet at a ledger's present height; ``more`` are further full keys to prove.

    ``steps`` lead a light client to this height where several validators stand in for one signing node.
    """
    return _document(wallet, [state_proof(view, key) for key in (*_keys(wallet), *more)], steps)


def own_standings(view: View) -> Callable[[bytes], Standing]:
    """Return what tells a wallet's standing by a node's own state at one height, for ``Gate``'s ``standings``.

    Such a gate sees a ban with the block that carries it. Make another with each block: ``view`` stands still.
    """
    header = view.header(view.height).header
    fields = {"height": header.height, "time_ms": header.time_ms}
    time = {clock_key(): view.snapshot.get(clock_key())}

    def standing(wallet: bytes) -> Standing:
        values = {key: view.snapshot.get(key) for key in _keys(wallet) if key not in time}
        return standing_by(wallet, fields, values | time, b"")

    return standing


def fetch_credential(
    home: Path | None, url: str | None, wallet: bytes, more: Sequence[bytes] = ()
) -> tuple[bytes, dict[str, Any]]:
    """Return (credential, trust) of a wallet from a node's home or from its HTTP face.

    A consortium's node also gives the engine's headers from the genesis validators on, for which it must be running.
    Raises RefusedInput where the ledger cannot be read, or its height keeps moving while the proofs are fetched.
    """
    if url is None:
        place = home or Path()
        with closing(Ledger.open(locate(place), RULES, writable=False)) as ledger, ledger.view() as view:
            genesis = dict(ledger.genesis.validators)
            steps = steps_at(place, ledger.genesis.chain, genesis, view.proven_height) if genesis else None
            return credential_of(view, wallet, more, steps), trust_of(view)
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
            return _document(wallet, proofs, _steps_from(base, trust, proofs[0])), trust
    raise RefusedInput(f"the ledger at {url} moves on too fast for proofs of one height; try again")


def _keys(wallet: bytes) -> tuple[bytes, ...]:
    return wallet_key(wallet), banned_key(wallet), block_key(wallet), clock_key()


def _steps_from(base: str, trust: dict[str, Any], proof: dict[str, Any]) -> Steps | None:
    if trust.get("signer") is not None:
        return None
    try:
        height = msgspec.msgpack.decode(base64.b64decode(proof["header"]))[1]
        found = json.loads(fetch(f"{base}/steps/{int(height)}"))["steps"]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise RefusedInput(f"the node at {base} gives no steps of trust: {error}") from None
    if not isinstance(found, list):
        raise RefusedInput(f"the node at {base} gives no steps of trust")
    return found


def _document(wallet: bytes, proofs: list[dict[str, Any]], steps: Steps | None) -> bytes:
    first = proofs[0]
    document: dict[str, Any] = {"format": FORMAT, "wallet": wallet.hex(), "header": first["header"]}
    if steps is None:
        document["signature"] = first["signature"]
    else:
        document["steps"] = steps
    kept = ("key", "value", "siblings", "other")
    document["proofs"] = [{name: proof[name] for name in kept if name in proof} for proof in proofs]
    data = json.dumps(document, separators=(",", ":")).encode()
    if len(data) > MOST_BYTES:
        raise RefusedInput(
            f"the credential has {len(data)} bytes, a device takes {MOST_BYTES}: the validators have changed too often "
            "since the genesis for a device to follow them"
        )
    return data
