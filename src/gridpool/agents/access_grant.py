"""What passes between device and node: challenge, presentation, and the signed grant that other nodes verify."""

from dataclasses import dataclass
from hashlib import sha256

import msgspec

from gridpool.agents.access_credential import Credentials, Distrusted, Standing, resource_key
from gridpool.contracts.access_rules import Presentation, ResourceName, signed_bytes
from gridpool.ledger.keys import KeyPair, verify
from gridpool.ledger.types import Millis, Natural, Text, Value, Wallet, encode

__all__ = ["Challenge", "Grant", "Shown", "check_grant", "present", "sign_grant"]

GRANT_DOMAIN = b"gridpool/grant/1\0"


class Challenge(Value):
    """A node's question: who are you, now and for this resource? ``nonce`` is never the same twice."""

    chain: Text
    node: Wallet
    resource: ResourceName
    place: Text
    at: Millis
    nonce: bytes


class Grant(Value):
    """A node's word that a wallet may do something until ``expires`` (ms of the node's clock)."""

    chain: Text
    node: Wallet
    wallet: Wallet
    resource: ResourceName
    action: Text
    place: Text
    rule: Natural
    issued: Millis
    expires: Millis


@dataclass(frozen=True, slots=True)
class Shown:
    """A presentation's bytes and the wallet's signature over them."""

    presentation: bytes
    signature: bytes


class _Owner(msgspec.Struct, array_like=True):
    owner: bytes


def present(key: KeyPair, challenge: Challenge, action: str, credential: bytes) -> Shown:
    """Answer a challenge with a wallet's signature; ``credential`` is what the wallet shows besides."""
    shown = encode(
        Presentation(
            challenge.chain,
            challenge.node,
            challenge.resource,
            challenge.at,
            challenge.nonce,
            key.public,
            action,
            challenge.place,
            sha256(credential).digest(),
        )
    )
    return Shown(shown, key.sign(signed_bytes(shown)))


def sign_grant(key: KeyPair, grant: Grant) -> bytes:
    """Sign a grant as its node: 64 bytes of signature, then the grant."""
    data = encode(grant)
    return key.sign(GRANT_DOMAIN + data) + data


def check_grant(data: bytes, node_credential: bytes, credentials: Credentials, now_ms: int, max_age_ms: int) -> Grant:
    """Check a grant offline: the node signed it, is in good standing, and owns the resource by a trusted header.

    Raises Distrusted. Whoever shows the grant must still prove to hold its wallet.
    """
    if len(data) > 2_048:
        raise Distrusted("a grant has at most 2048 bytes")
    try:
        grant = msgspec.msgpack.decode(data[64:], type=Grant)
    except (ValueError, RecursionError) as error:
        raise Distrusted(f"this is no grant: {error}") from None
    if grant.chain != credentials.chain:
        raise Distrusted(f"the grant is of chain {grant.chain!r}")
    if now_ms >= grant.expires:
        raise Distrusted("the grant has expired")
    if not verify(grant.node, data[:64], GRANT_DOMAIN + data[64:]):
        raise Distrusted("the grant's node has not signed it")
    standing = credentials.check(node_credential, grant.node)
    standing.check_now(now_ms, max_age_ms)
    if not _owns(standing, grant.resource):
        raise Distrusted(f"the grant's node does not own {grant.resource}")
    return grant


def _owns(standing: Standing, resource: str) -> bool:
    stored = standing.values.get(resource_key(resource))
    if stored is None or not standing.organisation:
        return False
    return msgspec.msgpack.decode(stored, type=_Owner).owner == standing.organisation
