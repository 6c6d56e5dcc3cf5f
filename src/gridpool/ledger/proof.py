"""Proofs that a key holds a value, holds none, or that a transaction was carried out; and the trust they need."""

import base64
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from gridpool.errors import RefusedInput
from gridpool.ledger.block import SignedHeader
from gridpool.ledger.genesis import genesis_hash
from gridpool.ledger.merkle import audit_path
from gridpool.ledger.rules import Rules
from gridpool.ledger.tree import branch, path_of
from gridpool.ledger.types import encode
from gridpool.ledger.view import View, at_place, rules_for, stored_genesis, walking_the_tree

__all__ = ["key_proof", "state_proof", "transaction_proof", "trust"]


def trust(view: View) -> dict[str, Any]:
    """Return what a light client must trust, as JSON-ready data: the chain and the node key that signs its headers."""
    signer = view.snapshot.read("meta", b"signer") or b""
    genesis = stored_genesis(view.snapshot)
    return {
        "format": "gridpool-trust-1",
        "chain": genesis.chain,
        "genesis": _base64(genesis_hash(genesis)),
        "signer": _base64(signer) if signer else None,
        "validators": [{"key": _base64(key), "power": power} for key, power in genesis.validators],
    }


def key_proof(view: View, known: Mapping[int, Rules], table: str, key: str) -> dict[str, Any]:
    """Prove what a key, written as ``ledger keys`` prints it, holds at the present height, be it nothing."""
    declared = rules_for(known, view.snapshot, view.height + 1).table(table)
    return state_proof(view, declared.encode_key(declared.parse_key(key))) | {"table": table, "text": key}


def state_proof(view: View, key: bytes) -> dict[str, Any]:
    """Prove what a full key (namespace included) holds at the present height, be it nothing.

    The proof stands under the last header that was not idle: since then nothing has changed.
    """
    with walking_the_tree():
        found = branch(view.snapshot.node, key)
    value = view.snapshot.get(key)
    if (value is not None) != (found.key == key):
        raise RefusedInput("state and tree of this ledger disagree; run: gridpool ledger verify")
    proof = _head(view.header(view.proven_height)) | {
        "key": _base64(key),
        "value": None if value is None else _base64(value),
        "siblings": _base64(b"".join(found.siblings)),
    }
    if value is None and found.key is not None:
        other = view.snapshot.get(found.key) or b""
        proof["other"] = {"path": _base64(path_of(found.key)), "value_hash": _base64(sha256(other).digest())}
    return proof


def transaction_proof(view: View, tx_id: bytes) -> dict[str, Any]:
    """Prove that a transaction was carried out, and how: its receipt under the header of its height.

    Raises RefusedInput for an unknown one. No tree holds identifiers, so absence is proved otherwise: a sender's nonces
    rise, and each transaction that is carried out leaves its own behind, so one whose nonce is above the sender's entry
    in ``ledger.nonce`` was not carried out (``key_proof`` proves that entry, or that there is none).
    """
    place = view.find(tx_id)
    if place is None:
        raise RefusedInput(
            f"no transaction {tx_id.hex()} in this ledger; its sender's nonce proves that it was not carried "
            "out: --key ledger.nonce SENDER"
        )
    receipts = view.encoded_receipts(place.height)
    return _head(view.header(place.height)) | {
        "tx": tx_id.hex(),
        "value": _base64(at_place(receipts, place)),
        "position": place.position,
        "count": len(receipts),
        "siblings": _base64(b"".join(audit_path(receipts, place.position))),
    }


def _head(signed: SignedHeader) -> dict[str, Any]:
    return {
        "format": "gridpool-proof-1",
        "header": _base64(encode(signed.header)),
        "signature": _base64(signed.signature),
    }


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
