"""The members' register: certificates, wallets, tags and bans as they are stored, and the question who is calling."""

import hashlib
from collections.abc import Callable
from typing import Annotated

import msgspec

from gridpool.contracts.members_council import (
    DAY_MS,
    Role,
    members,
)
from gridpool.ledger.contract import Context, Refused
from gridpool.ledger.state import State
from gridpool.ledger.types import Bytes, Event, Hash, Millis, Natural, Text, Value, Wallet

__all__ = [
    "BANNED",
    "BANS",
    "CONSENTS",
    "MEMBERS",
    "OPENINGS",
    "POOLS",
    "PSEUDONYMOUS",
    "SEALED",
    "TAGS",
    "TAGS_AHEAD_MS",
    "WALLETS",
    "Ban",
    "Banned",
    "Member",
    "Opening",
    "Pool",
    "RecoveryConsent",
    "Roles",
    "SealedLink",
    "Tag",
    "WalletRecord",
    "ban_wallet",
    "commitment_of",
    "has_role",
    "nobody_banned",
    "recovery",
    "require",
    "tag_of",
]

PSEUDONYMOUS = (Role.PROSUMER, Role.TENANT, Role.SENSOR)
"""Roles that a wallet may have without saying whose it is."""
TAGS_AHEAD_MS = 8 * DAY_MS
Roles = Annotated[tuple[Role, ...], msgspec.Meta(max_length=16)]


class Member(Value):
    """A member's certificate: its key, roles and validity (ms of market time).

    ``name`` is public for organisations and empty for others, whose identity lies in ``sealed``, encrypted to auditor,
    regulator and aggregator. ``aggregator`` is the certificate key of the member's aggregator, or empty.
    """

    name: Text
    roles: Roles
    valid_from: Millis
    valid_until: Millis
    aggregator: bytes
    public_wallets: tuple[Wallet, ...]
    sealed: Bytes


class WalletRecord(Value):
    """What the ledger knows of a wallet: a pseudonymous one names no ``member``, a public one has no ``commitment``."""

    member: bytes
    commitment: bytes
    roles: Roles
    valid_until: Millis
    aggregator: bytes
    successor: bytes = b""
    valid_from: Millis = 0


class SealedLink(Value):
    """The link from wallet to member, encrypted to auditor, regulator and aggregator."""

    data: Bytes


class Pool(Value):
    """How many members an aggregator serves and how many wallets it registered for them."""

    members: Natural
    wallets: Natural


class Ban(Value):
    """Until when (market time), by whom and why; ``wallets`` are those bound by it."""

    until: Millis
    by: Text
    why: Text
    wallets: tuple[Wallet, ...]


class Opening(Value):
    """Opens a wallet's commitment: whose it is."""

    member: Wallet
    salt: Hash


class Tag(Value):
    """The mark under which all wallets of one member are known in one market interval."""

    tag: Hash
    aggregator: bytes


class RecoveryConsent(Value):
    """An aggregator's word that a lost wallet's owner asks for a new one."""

    wallet: Wallet
    commitment: Hash
    sealed: Bytes
    aggregator: bytes


@members.event
class Banned(Event, tag="members.banned"):
    """A ban binds a wallet."""

    wallet: Wallet
    until: Millis
    why: Text


MEMBERS = members.table("member", key=bytes, value=Member)
"""Certificate key -> certificate."""
WALLETS = members.table("wallet", key=bytes, value=WalletRecord)
SEALED = members.table("sealed", key=bytes, value=SealedLink)
"""Wallet -> encrypted link to its member."""
POOLS = members.table("pool", key=bytes, value=Pool)
"""Aggregator's certificate key -> size of its account pool."""
BANS = members.table("ban", key=bytes, value=Ban)
"""Certificate key -> ban."""
BANNED = members.table("banned", key=bytes, value=Ban)
"""Wallet -> the ban that binds it."""
OPENINGS = members.table("opening", key=bytes, value=Opening)
"""Wallet -> published opening of its commitment."""
TAGS = members.table("tag", key=(int, bytes), value=Tag)
"""(interval start, wallet) -> tag; removed when the interval is cleared."""
CONSENTS = members.table("recovery_consent", key=bytes, value=RecoveryConsent)
"""Lost wallet -> what its aggregator consents to."""
_RECOVERIES: list[Callable[[Context, bytes, bytes], None]] = []


def recovery(function: Callable[[Context, bytes, bytes], None]) -> Callable[[Context, bytes, bytes], None]:
    """Register what a contract hands over from a lost wallet to its successor (a decorator)."""
    _RECOVERIES.append(function)
    return function


def commitment_of(member: bytes, wallet: bytes, salt: bytes) -> bytes:
    """Return the commitment that ties ``wallet`` to ``member`` without naming it; ``salt`` has 32 random bytes."""
    return hashlib.sha256(b"gridpool/wallet/1\0" + member + wallet + salt).digest()


def has_role(state: State, wallet: bytes, *roles: Role) -> bool:
    """Tell whether a wallet is registered with one of the roles (validity and bans apart)."""
    record = state.get(WALLETS, wallet)
    return record is not None and any(role in record.roles for role in roles)


def require(ctx: Context, *roles: Role) -> WalletRecord:
    """Return the caller's wallet record; refuse where unknown, expired, or with none of ``roles``.

    Bans need no check here: nobody banned gets as far as a call.
    """
    record = ctx.get(WALLETS, ctx.sender)
    if record is None:
        raise Refused("unknown_wallet", ctx.sender.hex())
    if not record.valid_from <= ctx.now < record.valid_until:
        raise Refused("certificate_not_valid_now", ctx.sender.hex())
    for role in roles:
        if role in record.roles:
            return record
    if roles:
        raise Refused("role_missing", "needs " + " or ".join(role.value for role in roles))
    return record


def tag_of(ctx: Context, interval: int, wallet: bytes, record: WalletRecord) -> bytes:
    """Return the tag of a wallet in an interval: derived for public wallets, issued by the aggregator for others."""
    if record.member:
        return hashlib.sha256(b"gridpool/tag/1\0" + record.member + interval.to_bytes(8, "big")).digest()
    return ctx.require(TAGS, (interval, wallet), "tag_missing").tag


def ban_wallet(ctx: Context, wallet: bytes, until: int, by: str, why: str) -> None:
    """Bind one wallet by a ban (for contracts, e.g. when a loan is written off); the longer of two bans stays."""
    old = ctx.get(BANNED, wallet)
    if old is None or old.until < until:
        ctx.put(BANNED, wallet, Ban(until, by, why, ()))
        ctx.emit(Banned(wallet, until, why))


@members.admission
def nobody_banned(ctx: Context) -> None:
    """Refuse whatever a banned wallet signs."""
    ban = ctx.get(BANNED, ctx.sender)
    if ban is not None and ctx.now < ban.until:
        raise Refused("banned", f"until {ban.until}: {ban.why}")
