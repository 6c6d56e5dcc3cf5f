"""An aggregator's account pool: whose wallets are whose, the tags they trade under, and the calls it carries.

The pool needs no store of its own: what it must remember lies on the ledger, sealed to its key (Li et al. 2018 keep
the same list in clear in the account pools).
"""

import hmac
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from gridpool.agents.wallet_keys import WalletKeys
from gridpool.agents.wallet_sealing import WalletLink, box_key, open_sealed, seal_for
from gridpool.contracts import members
from gridpool.contracts.members import (
    ConsentToRecovery,
    IssueTags,
    MemberParameters,
    NewWallet,
    RegisterWallets,
    Role,
    WalletOpening,
    commitment_of,
)
from gridpool.errors import RefusedInput
from gridpool.ledger.contract import PARAMETERS
from gridpool.ledger.keys import KeyPair
from gridpool.ledger.state import State
from gridpool.ledger.transaction import MAX_CALLS, Delegated
from gridpool.ledger.types import Call

__all__ = [
    "Application",
    "apply_for",
    "bundles",
    "consent_to",
    "issue_tags",
    "link_of",
    "links",
    "member_parameters",
    "one_each",
    "openings",
    "register_wallets",
    "tag_for",
]


class Application(msgspec.Struct, frozen=True):
    """What a new member hands to its aggregator: certificate key, sealed identity, and its first wallets.

    The links are sealed to auditor, regulator and aggregator; whoever else sees an application learns the links of
    these wallets, so it travels between member and aggregator alone.
    """

    key: bytes
    sealed_identity: bytes
    wallets: tuple[NewWallet, ...]


def apply_for(
    keys: WalletKeys, identity: str, aggregator: bytes, parameters: MemberParameters, *, first: int = 0, count: int = 1
) -> Application:
    """Write the application of a member: ``count`` wallets from number ``first`` on, identity sealed."""
    readers = _readers(aggregator, parameters)
    member = keys.certificate.public
    wallets = []
    for number in range(first, first + count):
        wallet, salt = keys.wallet(number).public, keys.salt(number)
        link = WalletLink(member, wallet, salt)
        sealed = seal_for(readers, msgspec.msgpack.encode(link))
        wallets.append(NewWallet(wallet, commitment_of(member, wallet, salt), sealed))
    padded = identity.encode()[:200].ljust(200, b"\0")
    return Application(member, seal_for(readers, padded), tuple(sorted(wallets, key=lambda entry: entry.wallet)))


def register_wallets(
    applications: Iterable[Application], *, roles: tuple[Role, ...] = (Role.PROSUMER,), valid_until: int
) -> Iterator[RegisterWallets]:
    """Yield the calls that register applicants' wallets, mixed by address so that their order links nothing.

    Give all wallets of a batch one validity: different ones would tell them apart.
    """
    entries = sorted((w for application in applications for w in application.wallets), key=lambda entry: entry.wallet)
    for at in range(0, len(entries), 500):
        yield RegisterWallets(tuple(entries[at : at + 500]), roles, valid_until)


def link_of(state: State, wallet: bytes, key: KeyPair) -> WalletLink:
    """Open the link of one wallet with the key of a reader; raises RefusedInput where it lies or is not for it."""
    sealed, record = state.get(members.SEALED, wallet), state.get(members.WALLETS, wallet)
    if sealed is None or record is None:
        raise RefusedInput(f"wallet {wallet.hex()} has no sealed link on this ledger")
    try:
        link = msgspec.msgpack.decode(open_sealed(sealed.data, key), type=WalletLink)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RefusedInput(f"the link of wallet {wallet.hex()} is malformed: {error}") from None
    if link.wallet != wallet or record.commitment != commitment_of(link.member, wallet, link.salt):
        raise RefusedInput(f"the link of wallet {wallet.hex()} does not open its commitment; tell the council")
    return link


def links(state: State, key: KeyPair, *, aggregator: bytes | None = None) -> dict[bytes, WalletLink]:
    """Open the links of all wallets in force (of one aggregator's pool), by wallet."""
    found = {}
    for wallet, record in state.scan(members.WALLETS):
        if record.member or record.successor or (aggregator is not None and record.aggregator != aggregator):
            continue
        found[wallet] = link_of(state, wallet, key)
    return found


def consent_to(state: State, key: KeyPair, lost: bytes, keys: WalletKeys, number: int) -> ConsentToRecovery:
    """Vouch for a new wallet in a lost one's place, linked to the same member as the pool knows it."""
    member = link_of(state, lost, key).member
    wallet, salt = keys.wallet(number).public, keys.salt(number)
    link = msgspec.msgpack.encode(WalletLink(member, wallet, salt))
    sealed = seal_for(_readers(key.public, member_parameters(state)), link)
    return ConsentToRecovery(lost, wallet, commitment_of(member, wallet, salt), sealed)


def openings(state: State, key: KeyPair, member: bytes) -> tuple[WalletOpening, ...]:
    """Collect what a ban of ``member`` publishes, as auditor, regulator or aggregator."""
    return tuple(
        WalletOpening(wallet, link.salt) for wallet, link in sorted(links(state, key).items()) if link.member == member
    )


def tag_for(pool_key: bytes, member: bytes, interval: int) -> bytes:
    """Return the tag of a member in an interval: HMAC-SHA256(pool key, member || interval)."""
    return hmac.digest(pool_key, member + interval.to_bytes(8, "big"), "sha256")


def one_each(pool: dict[bytes, WalletLink]) -> list[bytes]:
    """Choose one wallet of each member, the first by address: tags for two would link them."""
    chosen: dict[bytes, bytes] = {}
    for wallet, link in sorted(pool.items()):
        chosen.setdefault(link.member, wallet)
    return sorted(chosen.values())


def issue_tags(keys: WalletKeys, pool: dict[bytes, WalletLink], interval: int, wallets: Iterable[bytes]) -> IssueTags:
    """Issue the tags of wallets that will trade in an interval; ask for no more wallets than trade."""
    pool_key = keys.secret("pool")
    tags = []
    for wallet in sorted(wallets):
        if wallet not in pool:
            raise RefusedInput(f"wallet {wallet.hex()} is not of this pool")
        tags.append((wallet, tag_for(pool_key, pool[wallet].member, interval)))
    return IssueTags(interval, tuple(tags))


def bundles(carried: Sequence[Delegated[Call]]) -> Iterator[tuple[Delegated[Call], ...]]:
    """Cut calls that others signed into bundles as large as a transaction takes; carry them in mode ``each``."""
    for at in range(0, len(carried), MAX_CALLS):
        yield tuple(carried[at : at + MAX_CALLS])


def member_parameters(state: State) -> MemberParameters:
    """Read the members' register's parameters: to whom links are sealed, how many wallets a member may have."""
    stored = state.get(PARAMETERS, "members")
    return MemberParameters() if stored is None else msgspec.msgpack.decode(stored.data, type=MemberParameters)


def _readers(aggregator: bytes, parameters: MemberParameters) -> tuple[bytes, ...]:
    named = [key for key in (parameters.audit_key, parameters.regulator_key) if any(key)]
    return (*named, box_key(aggregator))
