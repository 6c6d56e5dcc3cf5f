"""A credential: what the ledger knows of a wallet at one height, proved under one header, checked offline.

It proves the wallet's record (roles and validity, not the member), that neither ban nor block binds it, market time,
and whatever else its owner needs to show (a resource it owns, a deposit). Devices carry this file: nothing heavy here.
"""

import base64
from collections import OrderedDict
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import msgspec

from gridpool.agents.access_paths import ProvedTree, StateProof
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
    "standing_by",
    "wallet_key",
]

FORMAT = "gridpool-credential-1"
MOST_BYTES = 65_536
MOST_PROOFS = 16
MOST_HEADERS = 64
MOST_NODES = 32_768
MOST_KNOWN = 16_384
SKEW_MS = 60_000
"""How far the clocks of two devices, or of a device and a validator, may lie apart."""


_CLOCK = b"ledger.clock\0now"


class Distrusted(ValueError):
    """What another device or node shows does not prove what it claims; the message says why."""


class _Document(msgspec.Struct, gc=False, kw_only=True):
    format: str
    wallet: str
    header: bytes
    signature: str = ""
    steps: msgspec.Raw = msgspec.Raw(b"null")
    proofs: list[StateProof]


class _Record(msgspec.Struct, array_like=True, gc=False):
    member: bytes
    commitment: bytes
    roles: tuple[str, ...]
    valid_until: int
    aggregator: bytes
    successor: bytes = b""
    valid_from: int = 0


class _Until(msgspec.Struct, array_like=True):
    until: int


class _Number(msgspec.Struct, array_like=True):
    number: int


_DOCUMENT = msgspec.json.Decoder(_Document)
_RECORD = msgspec.msgpack.Decoder(_Record)
_UNTIL = msgspec.msgpack.Decoder(_Until)
_NUMBER = msgspec.msgpack.Decoder(_Number)


class Standing(msgspec.Struct, frozen=True, gc=False):
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
    return _CLOCK


def resource_key(resource: str) -> bytes:
    """Return the full key of a resource."""
    return b"access.resource\0" + resource.encode()


def deposit_key(payer: bytes, number: int) -> bytes:
    """Return the full key of a deposit."""
    return b"devices.deposit\0" + payer.replace(b"\0", b"\0\xff") + b"\0\0" + number.to_bytes(8, "big")


@dataclass(slots=True)
class _Held:
    """A header that holds: its fields, its state tree as far as proofs have shown it, and its proof of market time."""

    fields: dict[str, Any]
    tree: ProvedTree
    clock: StateProof | None = None


class Credentials:
    """Checks credentials against a trust file. Only what holds is remembered, and never more than a bound."""

    def __init__(self, trust: dict[str, Any]) -> None:
        """Trust what ``gridpool ledger trust`` wrote; raises Distrusted where it is no trust file."""
        if trust.get("format") != "gridpool-trust-1" or not isinstance(trust.get("chain"), str):
            raise Distrusted("this is no trust file of format gridpool-trust-1")
        self._trust = trust
        self.chain: str = trust["chain"]
        self._headers: OrderedDict[bytes, _Held] = OrderedDict()
        self._nodes = 0
        self._known: OrderedDict[bytes, Standing] = OrderedDict()
        self._latest: dict[bytes, bytes] = {}
        self.newest_ms = 0
        """Time of the newest header seen."""

    def known(self, digest: bytes) -> Standing | None:
        """Return what a credential proved when it was checked before."""
        return self._known.get(digest)

    def check(self, data: bytes, wallet: bytes, digest: bytes | None = None) -> Standing:
        """Check the credential of a wallet that has proved to hold its key, and remember it in place of its last one.

        ``digest`` is the credential's SHA-256 where it is known already. Raises Distrusted. Whether the wallet may act
        now is ``check_now``'s to say.
        """
        if digest is None:
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
            document = _DOCUMENT.decode(data)
        except (ValueError, RecursionError) as error:
            raise Distrusted(f"this is no credential: {error}") from None
        if document.format != FORMAT:
            raise Distrusted(f"this is no credential of format {FORMAT}")
        if not 4 <= len(document.proofs) <= MOST_PROOFS:
            raise Distrusted(f"a credential has 4 to {MOST_PROOFS} proofs")
        try:
            wallet = bytes.fromhex(document.wallet)
            held = self._header(document)
            values = self._values(held, document.proofs)
        except (light.Invalid, ValueError) as error:
            raise Distrusted(f"the credential does not hold: {error}") from None
        return standing_by(wallet, held.fields, values, digest)

    def _values(self, held: _Held, proofs: list[StateProof]) -> dict[bytes, bytes | None]:
        """Check the proofs under a header and return what the keys hold; raises Invalid."""
        before = len(held.tree)
        values: dict[bytes, bytes | None] = {}
        try:
            for proof in proofs:
                if proof != held.clock:
                    held.tree.check(proof)
                    if proof.key == _CLOCK:
                        held.clock = proof
                values[proof.key] = proof.value
        finally:
            self._nodes += len(held.tree) - before
            while len(self._headers) > MOST_HEADERS or (self._nodes > MOST_NODES and len(self._headers) > 1):
                _, gone = self._headers.popitem(last=False)
                self._nodes -= len(gone.tree)
        return values

    def _header(self, document: _Document) -> _Held:
        """Return the header of a credential; its signature or steps are checked once a header, not once a wallet."""
        held = self._headers.get(document.header)
        if held is not None:
            self._headers.move_to_end(document.header)
            return held
        proof = {
            "header": base64.b64encode(document.header).decode("ascii"),
            "signature": document.signature,
            "steps": msgspec.json.decode(document.steps),
        }
        fields = light.check_header(proof, self._trust)
        held = self._headers[document.header] = _Held(fields, ProvedTree(fields["state_root"]))
        self.newest_ms = max(self.newest_ms, fields["time_ms"])
        return held


def standing_by(wallet: bytes, header: dict[str, Any], values: dict[bytes, bytes | None], digest: bytes) -> Standing:
    """Read a wallet's standing out of what the state under a header holds; raises Distrusted where it has none."""
    record_at, bounds = wallet_key(wallet), (banned_key(wallet), block_key(wallet))
    for key in (record_at, *bounds, _CLOCK):
        if key not in values:
            raise Distrusted(f"the credential says nothing of {key.partition(bytes(1))[0].decode()}")
    stored = values[record_at]
    if stored is None:
        raise Distrusted("the wallet is not registered")
    try:
        record = _RECORD.decode(stored)
        clock = values[_CLOCK]
        market = header["time_ms"] if clock is None else _NUMBER.decode(clock).number
        bound = 0
        for key in bounds:
            held = values[key]
            if held is not None:
                bound = max(bound, _UNTIL.decode(held).until)
    except ValueError as error:
        raise Distrusted(f"the ledger's record is not understood: {error}") from None
    if record.successor:
        raise Distrusted("the wallet was replaced by another and is revoked")
    return Standing(
        wallet=wallet,
        roles=record.roles,
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
