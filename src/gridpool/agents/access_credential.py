"""A credential: what the ledger knows of a wallet at one height, proved under one header, checked offline.

It proves the wallet's record (roles and validity, not the member), that neither ban nor block binds it, market time,
and whatever else its owner needs to show (a resource it owns, a deposit). Devices carry this file: nothing heavy here.
"""

import base64
import json
from collections import OrderedDict
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import msgspec

from gridpool.contracts.members_council import Role
from gridpool.ledger import light

__all__ = [
    "MOST_BYTES",
    "Credentials",
    "Distrusted",
    "Standing",
    "banned_key",
    "block_key",
    "clock_key",
    "deposit_key",
    "resource_key",
    "wallet_key",
]

FORMAT = "gridpool-credential-1"
MOST_BYTES = 65_536
MOST_PROOFS = 16
MOST_HEADERS = 16
MOST_KNOWN = 16_384
SKEW_MS = 60_000
"""How far the clocks of two devices, or of a device and a validator, may lie apart."""


class Distrusted(ValueError):
    """What another device or node shows does not prove what it claims; the message says why."""


class _Record(msgspec.Struct, array_like=True):
    member: bytes
    commitment: bytes
    roles: tuple[Role, ...]
    valid_until: int
    aggregator: bytes
    successor: bytes = b""
    valid_from: int = 0


class _Until(msgspec.Struct, array_like=True):
    until: int


class _Number(msgspec.Struct, array_like=True):
    number: int


@dataclass(frozen=True, slots=True)
class Standing:
    """What a checked credential proves; times in ms, ``header_ms`` the block's, ``market_ms`` market time then."""

    wallet: bytes
    roles: tuple[str, ...]
    organisation: bytes
    aggregator: bytes
    height: int
    header_ms: int
    market_ms: int
    valid_from: int
    valid_until: int
    bound_until: int
    values: dict[bytes, bytes | None]
    digest: bytes

    def check_now(self, now_ms: int, max_age_ms: int) -> int:
        """Return market time as far as the wallet's own header tells; raises Distrusted where it may not act now."""
        age = now_ms - self.header_ms
        if age > max_age_ms:
            raise Distrusted(f"the credential's header is {age // 1000} s old, at most {max_age_ms // 1000} s allowed")
        if age < -SKEW_MS:
            raise Distrusted("the credential's header lies in the future")
        market = self.market_ms + max(0, age)
        if not self.valid_from <= self.market_ms or not market < self.valid_until:
            raise Distrusted("the wallet is not registered for this time, or revoked")
        if market < self.bound_until:
            raise Distrusted("the wallet is banned or blocked")
        return market


def wallet_key(wallet: bytes) -> bytes:
    """Return the full key of a wallet's record."""
    return b"members.wallet\0" + wallet


def banned_key(wallet: bytes) -> bytes:
    """Return the full key of a ban that would bind a wallet."""
    return b"members.banned\0" + wallet


def block_key(wallet: bytes) -> bytes:
    """Return the full key of a block of a wallet."""
    return b"access.block\0" + wallet


def clock_key() -> bytes:
    """Return the full key of market time."""
    return b"ledger.clock\0now"


def resource_key(resource: str) -> bytes:
    """Return the full key of a resource."""
    return b"access.resource\0" + resource.encode()


def deposit_key(payer: bytes, number: int) -> bytes:
    """Return the full key of a deposit."""
    return b"devices.deposit\0" + payer.replace(b"\0", b"\0\xff") + b"\0\0" + number.to_bytes(8, "big")


class Credentials:
    """Checks credentials against a trust file. Only what holds is remembered, and never more than a bound."""

    def __init__(self, trust: dict[str, Any]) -> None:
        """Trust what ``gridpool ledger trust`` wrote; raises Distrusted where it is no trust file."""
        if trust.get("format") != "gridpool-trust-1" or not isinstance(trust.get("chain"), str):
            raise Distrusted("this is no trust file of format gridpool-trust-1")
        self._trust = trust
        self.chain: str = trust["chain"]
        self._headers: OrderedDict[bytes, dict[str, Any]] = OrderedDict()
        self._known: OrderedDict[bytes, Standing] = OrderedDict()
        self._latest: dict[bytes, bytes] = {}
        self.newest_ms = 0
        """Time of the newest header seen."""

    def known(self, digest: bytes) -> Standing | None:
        """Return what a credential proved when it was checked before."""
        return self._known.get(digest)

    def check(self, data: bytes, wallet: bytes) -> Standing:
        """Check the credential of a wallet that has proved to hold its key, and remember it in place of its last one.

        Raises Distrusted. Whether the wallet may act now is ``check_now``'s to say.
        """
        digest = sha256(data).digest()
        standing = self._known.get(digest)
        if standing is None:
            standing = self._check(data, digest)
        if standing.wallet != wallet:
            raise Distrusted("the credential is another wallet's")
        last = self._latest.get(wallet)
        if last is not None and last != digest:
            self._known.pop(last, None)
        self._known[digest] = standing
        self._known.move_to_end(digest)
        self._latest[wallet] = digest
        if len(self._known) > MOST_KNOWN:
            _, oldest = self._known.popitem(last=False)
            self._latest.pop(oldest.wallet, None)
        return standing

    def _check(self, data: bytes, digest: bytes) -> Standing:
        if len(data) > MOST_BYTES:
            raise Distrusted(f"a credential has at most {MOST_BYTES} bytes")
        try:
            document = json.loads(data)
        except (ValueError, RecursionError):
            raise Distrusted("a credential is JSON") from None
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise Distrusted(f"this is no credential of format {FORMAT}")
        proofs = document.get("proofs")
        if not isinstance(proofs, list) or not 4 <= len(proofs) <= MOST_PROOFS:
            raise Distrusted(f"a credential has 4 to {MOST_PROOFS} proofs")
        try:
            wallet = bytes.fromhex(document["wallet"])
            header = self._header(document)
            values: dict[bytes, bytes | None] = {}
            for proof in proofs:
                if not isinstance(proof, dict):
                    raise Distrusted("a proof is an object")
                found = light.check_state(proof, header)
                value = found["value"]
                values[bytes.fromhex(found["key"])] = None if value is None else base64.b64decode(value)
        except (light.Invalid, KeyError, TypeError, ValueError) as error:
            raise Distrusted(f"the credential does not hold: {error}") from None
        return _standing(wallet, header, values, digest)

    def _header(self, document: dict[str, Any]) -> dict[str, Any]:
        steps = document.get("steps") if self._trust.get("signer") is None else None
        parts = (document.get("header"), document.get("signature"), steps)
        digest = sha256(json.dumps(parts).encode()).digest()
        header = self._headers.get(digest)
        if header is None:
            header = light.check_header(document, self._trust)
            self._headers[digest] = header
            self.newest_ms = max(self.newest_ms, header["time_ms"])
            if len(self._headers) > MOST_HEADERS:
                self._headers.popitem(last=False)
        return header


def _standing(wallet: bytes, header: dict[str, Any], values: dict[bytes, bytes | None], digest: bytes) -> Standing:
    for key in (wallet_key(wallet), banned_key(wallet), block_key(wallet), clock_key()):
        if key not in values:
            raise Distrusted(f"the credential says nothing of {key.partition(bytes(1))[0].decode()}")
    stored = values[wallet_key(wallet)]
    if stored is None:
        raise Distrusted("the wallet is not registered")
    try:
        record = msgspec.msgpack.decode(stored, type=_Record)
        clock = values[clock_key()]
        market = header["time_ms"] if clock is None else msgspec.msgpack.decode(clock, type=_Number).number
        bound = 0
        for key in (banned_key(wallet), block_key(wallet)):
            held = values[key]
            if held is not None:
                bound = max(bound, msgspec.msgpack.decode(held, type=_Until).until)
    except ValueError as error:
        raise Distrusted(f"the ledger's record is not understood: {error}") from None
    if record.successor:
        raise Distrusted("the wallet was replaced by another and is revoked")
    return Standing(
        wallet=wallet,
        roles=tuple(role.value for role in record.roles),
        organisation=record.member,
        aggregator=record.aggregator,
        height=header["height"],
        header_ms=header["time_ms"],
        market_ms=market,
        valid_from=record.valid_from,
        valid_until=record.valid_until,
        bound_until=bound,
        values=values,
        digest=digest,
    )
