"""What the council may decide about members, what aggregators and owners may ask for, and what the world is told."""

from typing import Annotated

import msgspec

from gridpool.contracts.members_council import (
    FOREVER,
    Decision,
    OptionalKey,
    Role,
    members,
)
from gridpool.contracts.members_register import (
    Roles,
)
from gridpool.ledger.types import Bytes, Call, Due, Event, Hash, Millis, Natural, Text, Value, Wallet

__all__ = [
    "Admit",
    "Admitted",
    "BanMember",
    "ConsentToRecovery",
    "ForgetTags",
    "IssueTags",
    "LiftBan",
    "NewMember",
    "NewWallet",
    "Recover",
    "RegisterWallets",
    "Rekey",
    "Renew",
    "Replaced",
    "WalletOpening",
    "WalletsRegistered",
]


class NewMember(Value):
    """A member to be admitted; ``key`` is its certificate key."""

    key: Wallet
    name: Text
    roles: Roles
    aggregator: OptionalKey = b""
    public_wallets: Annotated[tuple[Wallet, ...], msgspec.Meta(max_length=64)] = ()
    valid_from: Millis = 0
    valid_until: Millis = FOREVER
    sealed: Bytes = b""


class NewWallet(Value):
    """A pseudonymous wallet, its commitment and the encrypted link to its member."""

    wallet: Wallet
    commitment: Hash
    sealed: Bytes = b""


class WalletOpening(Value):
    """A wallet and the salt that opens its commitment."""

    wallet: Wallet
    salt: Hash


class Admit(Decision, tag="members.admit"):
    """Admit members and certify their keys and roles."""

    members: Annotated[tuple[NewMember, ...], msgspec.Meta(min_length=1, max_length=500)]


class Renew(Decision, tag="members.renew"):
    """Give a certificate other roles or another validity; a validity in the past revokes it."""

    member: Wallet
    roles: Roles
    valid_until: Millis


class BanMember(Decision, tag="members.ban_member"):
    """Ban a member until a time, publishing the openings of its wallets so that each is bound."""

    member: Wallet
    until: Millis
    by: Text
    why: Text
    openings: Annotated[tuple[WalletOpening, ...], msgspec.Meta(max_length=256)] = ()


class LiftBan(Decision, tag="members.lift_ban"):
    """End a ban early."""

    member: Wallet


class Recover(Decision, tag="members.recover"):
    """Replace a lost wallet by the one its aggregator has consented to."""

    wallet: Wallet


class RegisterWallets(Call, tag="members.register_wallets"):
    """Register pseudonymous wallets of an aggregator's members, in ascending order so that the order tells nothing."""

    wallets: Annotated[tuple[NewWallet, ...], msgspec.Meta(min_length=1, max_length=500)]
    roles: Roles = (Role.PROSUMER,)
    valid_until: Millis = FOREVER


class IssueTags(Call, tag="members.issue_tags"):
    """Sign the tags under which an aggregator's wallets trade in an interval: equal tags are one member."""

    interval: Millis
    tags: Annotated[tuple[tuple[Wallet, Hash], ...], msgspec.Meta(min_length=1, max_length=2_000)]


class ForgetTags(Due, tag="members.forget_tags"):
    """Remove the tags of an interval in which nothing was ordered."""

    interval: Millis


class Rekey(Call, tag="members.rekey"):
    """Replace the calling wallet by a new one (a key that may be known to others); observers see that they belong."""

    wallet: Wallet
    commitment: Hash
    sealed: Bytes = b""


class ConsentToRecovery(Call, tag="members.consent_to_recovery"):
    """Vouch, as aggregator, that the owner of a lost wallet asks for a new one; the council decides."""

    lost: Wallet
    wallet: Wallet
    commitment: Hash
    sealed: Bytes = b""


@members.event
class Admitted(Event, tag="members.admitted"):
    """A member was admitted."""

    member: Wallet


@members.event
class WalletsRegistered(Event, tag="members.wallets_registered"):
    """An aggregator registered wallets."""

    aggregator: Wallet
    count: Natural


@members.event
class Replaced(Event, tag="members.replaced"):
    """A wallet was replaced by another."""

    lost: Wallet
    wallet: Wallet
