"""Who may do what: members, certificates, roles, pseudonymous wallets, tags and bans.

On the ledger stand a member's certificate and, for each pseudonymous wallet, a commitment to the member that owns it;
only the council's auditor, the regulator and the member's aggregator can open the link (``sealed``). A ban publishes
the openings, so that it binds every wallet of the member. Other contracts ask ``require(ctx, Role.X)`` who is calling.

A day's beginning::

    propose(Admit((NewMember(key, "Aggregator 1", (Role.AGGREGATOR,), public_wallets=(key,)), ...)))     council
    propose(Admit((NewMember(key, "", (Role.PROSUMER,), aggregator=aggregator_key), ...)))               council
    RegisterWallets((NewWallet(wallet, commitment_of(member, wallet, salt)), ...), (Role.PROSUMER,))     aggregator
    IssueTags(interval_start_ms, ((wallet, tag), ...))                                                   aggregator
"""

import msgspec

from gridpool.contracts.members_calls import (
    Admit,
    Admitted,
    BanMember,
    ConsentToRecovery,
    ForgetTags,
    IssueTags,
    LiftBan,
    NewMember,
    NewWallet,
    Recover,
    RegisterWallets,
    Rekey,
    Renew,
    Replaced,
    WalletOpening,
    WalletsRegistered,
)
from gridpool.contracts.members_council import (
    COUNCIL,
    FOREVER,
    MOST_MS,
    PROPOSALS,
    SEATS,
    Approve,
    CouncilRule,
    Decided,
    Decision,
    FoundingMember,
    MemberParameters,
    NewSeat,
    OptionalKey,
    Proposal,
    Propose,
    Proposed,
    Role,
    Seat,
    SetCouncilRule,
    SetRules,
    SetSeat,
    decide,
    decision,
    decode_decision,
    is_sound,
    members,
    propose,
)
from gridpool.contracts.members_register import (
    _RECOVERIES,
    BANNED,
    BANS,
    CONSENTS,
    MEMBERS,
    OPENINGS,
    POOLS,
    PSEUDONYMOUS,
    SEALED,
    TAGS,
    TAGS_AHEAD_MS,
    WALLETS,
    Ban,
    Banned,
    Member,
    Opening,
    Pool,
    RecoveryConsent,
    SealedLink,
    Tag,
    WalletRecord,
    ban_wallet,
    commitment_of,
    has_role,
    recovery,
    require,
    tag_of,
)
from gridpool.ledger.contract import Context
from gridpool.ledger.state import State

__all__ = [
    "BANNED",
    "BANS",
    "CONSENTS",
    "COUNCIL",
    "FOREVER",
    "MEMBERS",
    "MOST_MS",
    "OPENINGS",
    "POOLS",
    "PROPOSALS",
    "SEALED",
    "SEATS",
    "TAGS",
    "WALLETS",
    "Admit",
    "Approve",
    "Ban",
    "BanMember",
    "ConsentToRecovery",
    "CouncilRule",
    "Decided",
    "Decision",
    "FoundingMember",
    "IssueTags",
    "LiftBan",
    "Member",
    "MemberParameters",
    "NewMember",
    "NewSeat",
    "NewWallet",
    "Opening",
    "OptionalKey",
    "Pool",
    "Proposal",
    "Propose",
    "Proposed",
    "Recover",
    "RecoveryConsent",
    "RegisterWallets",
    "Rekey",
    "Renew",
    "Role",
    "SealedLink",
    "Seat",
    "SetCouncilRule",
    "SetRules",
    "SetSeat",
    "Tag",
    "WalletOpening",
    "WalletRecord",
    "ban_wallet",
    "commitment_of",
    "decide",
    "decision",
    "decode_decision",
    "has_role",
    "members",
    "propose",
    "recovery",
    "require",
    "tag_of",
]


@members.genesis(MemberParameters)
def begin(ctx: Context, parameters: MemberParameters) -> None:
    """Seat the first council and certify the founding members."""
    for seat in parameters.seats:
        is_sound(ctx, seat.key)
        ctx.put(SEATS, seat.key, Seat(seat.organisation, seat.weight))
    if parameters.seats:
        if not 0 < parameters.threshold <= sum(seat.weight for seat in parameters.seats):
            ctx.refuse("council_could_not_decide", f"threshold {parameters.threshold}")
        if parameters.lifetime_ms > MOST_MS:
            ctx.refuse("lifetime_out_of_range", f"at most {MOST_MS} ms")
        ctx.put(COUNCIL, "rule", CouncilRule(parameters.threshold, parameters.lifetime_ms))
    stored = msgspec.structs.replace(parameters, founders=(), seats=())
    ctx.set_parameters("members", stored)
    for founder in parameters.founders:
        _admit(ctx, NewMember(founder.key, founder.name, founder.roles, public_wallets=(founder.key,)))


@decision(Admit)
def admit(ctx: Context, decided: Admit) -> None:
    """Certify members and register the public wallets of organisations."""
    for entry in decided.members:
        _admit(ctx, entry)


@decision(Renew)
def renew(ctx: Context, decided: Renew) -> None:
    """Renew, change or revoke a certificate and the public wallets under it."""
    member = ctx.require(MEMBERS, decided.member, "no_such_member")
    ctx.put(
        MEMBERS,
        decided.member,
        msgspec.structs.replace(member, roles=decided.roles, valid_until=decided.valid_until),
    )
    for wallet in member.public_wallets:
        record = ctx.require(WALLETS, wallet, "unknown_wallet")
        ctx.put(WALLETS, wallet, msgspec.structs.replace(record, roles=decided.roles, valid_until=decided.valid_until))


@decision(BanMember)
def ban_member(ctx: Context, decided: BanMember) -> None:
    """Bind all wallets of a member: the public ones, and those whose commitments the openings open."""
    member = ctx.require(MEMBERS, decided.member, "no_such_member")
    for opening in decided.openings:
        record = ctx.require(WALLETS, opening.wallet, "unknown_wallet")
        if record.commitment != commitment_of(decided.member, opening.wallet, opening.salt):
            ctx.refuse("wrong_opening", opening.wallet.hex())
        ctx.put(OPENINGS, opening.wallet, Opening(decided.member, opening.salt))
    wallets = (*member.public_wallets, *(opening.wallet for opening in decided.openings))
    ban = Ban(decided.until, decided.by, decided.why, wallets)
    ctx.put(BANS, decided.member, ban)
    for wallet in wallets:
        ctx.put(BANNED, wallet, msgspec.structs.replace(ban, wallets=()))
        ctx.emit(Banned(wallet, decided.until, decided.why))


@decision(LiftBan)
def lift_ban(ctx: Context, decided: LiftBan) -> None:
    """Free a member and its wallets."""
    ban = ctx.require(BANS, decided.member, "not_banned")
    ctx.delete(BANS, decided.member)
    for wallet in ban.wallets:
        ctx.delete(BANNED, wallet)


@decision(Recover)
def recover(ctx: Context, decided: Recover) -> None:
    """Carry out a recovery that the lost wallet's aggregator has consented to."""
    consent = ctx.require(CONSENTS, decided.wallet, "aggregator_has_not_consented")
    ctx.delete(CONSENTS, decided.wallet)
    _replace(ctx, decided.wallet, NewWallet(consent.wallet, consent.commitment, consent.sealed))


@members.call(RegisterWallets)
def register_wallets(ctx: Context, call: RegisterWallets) -> None:
    """Register wallets, at most ``wallets_per_member`` for each member that the aggregator serves."""
    aggregator = require(ctx, Role.AGGREGATOR).member
    if not set(call.roles) <= set(PSEUDONYMOUS):
        ctx.refuse("role_needs_a_public_wallet", "pseudonymous wallets trade, lease or sense only")
    pool = ctx.get(POOLS, aggregator) or Pool(0, 0)
    wallets = pool.wallets + len(call.wallets)
    most = ctx.parameters("members", MemberParameters).wallets_per_member
    if wallets > most * pool.members:
        ctx.refuse("too_many_wallets", f"{most} for each of {pool.members} members")
    ctx.put(POOLS, aggregator, Pool(pool.members, wallets))
    last = b""
    for entry in call.wallets:
        if entry.wallet <= last:
            ctx.refuse("not_in_ascending_order", entry.wallet.hex())
        last = entry.wallet
        record = WalletRecord(b"", entry.commitment, call.roles, call.valid_until, aggregator)
        _register(ctx, entry.wallet, record, entry.sealed)
    ctx.emit(WalletsRegistered(aggregator, len(call.wallets)))


@members.call(IssueTags)
def issue_tags(ctx: Context, call: IssueTags) -> None:
    """Note tags; a wallet has one tag an interval, and it comes from its own aggregator."""
    aggregator = require(ctx, Role.AGGREGATOR).member
    if not ctx.now < call.interval <= ctx.now + TAGS_AHEAD_MS:
        ctx.refuse("not_the_time_for_tags", f"they are issued before an interval, at most {TAGS_AHEAD_MS} ms ahead")
    ctx.schedule(call.interval, ForgetTags(call.interval))
    for wallet, tag in call.tags:
        record = ctx.require(WALLETS, wallet, "unknown_wallet")
        if record.aggregator != aggregator:
            ctx.refuse("not_of_this_pool", wallet.hex())
        old = ctx.get(TAGS, (call.interval, wallet))
        if old is not None and old.tag != tag:
            ctx.refuse("tag_stands", wallet.hex())
        ctx.put(TAGS, (call.interval, wallet), Tag(tag, aggregator))


@members.due(ForgetTags)
def forget_tags(ctx: Context, due: ForgetTags) -> None:
    """Remove tags once no order can use them any more."""
    for key, _ in list(ctx.scan(TAGS, (due.interval,))):
        ctx.delete(TAGS, key)


@members.call(Rekey)
def rekey(ctx: Context, call: Rekey) -> None:
    """Hand over from the calling wallet to a new one."""
    require(ctx)
    _replace(ctx, ctx.sender, NewWallet(call.wallet, call.commitment, call.sealed))


@members.call(ConsentToRecovery)
def consent_to_recovery(ctx: Context, call: ConsentToRecovery) -> None:
    """Note the consent of the lost wallet's aggregator."""
    aggregator = require(ctx, Role.AGGREGATOR).member
    record = ctx.require(WALLETS, call.lost, "unknown_wallet")
    if record.aggregator != aggregator:
        ctx.refuse("not_of_this_pool", call.lost.hex())
    ctx.put(CONSENTS, call.lost, RecoveryConsent(call.wallet, call.commitment, call.sealed, aggregator))


def _admit(ctx: Context, entry: NewMember) -> None:
    is_sound(ctx, entry.key)
    if ctx.get(MEMBERS, entry.key) is not None:
        ctx.refuse("member_exists", entry.key.hex())
    if len(set(entry.roles)) != len(entry.roles) or not entry.roles:
        ctx.refuse("roles_repeat_or_lack", entry.key.hex())
    if Role.REGULATOR in entry.roles and len(entry.roles) > 1:
        ctx.refuse("regulator_trades_nothing", entry.key.hex())
    if entry.valid_until <= entry.valid_from:
        ctx.refuse("never_valid", entry.key.hex())
    if entry.aggregator:
        served = ctx.require(MEMBERS, entry.aggregator, "no_such_aggregator")
        if Role.AGGREGATOR not in served.roles:
            ctx.refuse("not_an_aggregator", entry.aggregator.hex())
        pool = ctx.get(POOLS, entry.aggregator) or Pool(0, 0)
        ctx.put(POOLS, entry.aggregator, Pool(pool.members + 1, pool.wallets))
    ctx.put(
        MEMBERS,
        entry.key,
        Member(
            entry.name,
            entry.roles,
            entry.valid_from,
            entry.valid_until,
            entry.aggregator,
            entry.public_wallets,
            entry.sealed,
        ),
    )
    aggregator = entry.key if Role.AGGREGATOR in entry.roles else entry.aggregator
    for wallet in entry.public_wallets:
        record = WalletRecord(entry.key, b"", entry.roles, entry.valid_until, aggregator, valid_from=entry.valid_from)
        _register(ctx, wallet, record, b"")
    ctx.emit(Admitted(entry.key))


def _register(ctx: Context, wallet: bytes, record: WalletRecord, sealed: bytes) -> None:
    is_sound(ctx, wallet)
    if ctx.get(WALLETS, wallet) is not None:
        ctx.refuse("wallet_exists", wallet.hex())
    ctx.put(WALLETS, wallet, record)
    if sealed:
        ctx.put(SEALED, wallet, SealedLink(sealed))


def _replace(ctx: Context, lost: bytes, new: NewWallet) -> None:
    record = ctx.require(WALLETS, lost, "unknown_wallet")
    if record.successor:
        ctx.refuse("already_replaced", lost.hex())
    commitment = b"" if record.member else new.commitment
    _register(ctx, new.wallet, msgspec.structs.replace(record, commitment=commitment), new.sealed)
    ctx.put(WALLETS, lost, msgspec.structs.replace(record, valid_until=0, successor=new.wallet))
    if record.member:
        member = ctx.require(MEMBERS, record.member, "no_such_member")
        wallets = tuple(new.wallet if wallet == lost else wallet for wallet in member.public_wallets)
        ctx.put(MEMBERS, record.member, msgspec.structs.replace(member, public_wallets=wallets))
    ban = ctx.get(BANNED, lost)
    if ban is not None:
        ctx.put(BANNED, new.wallet, ban)
    for hand_over in _RECOVERIES:
        hand_over(ctx, lost, new.wallet)
    ctx.emit(Replaced(lost, new.wallet))


@members.invariant
def pools_hold_no_more_wallets_than_allowed(state: State) -> bool:
    """No aggregator has more pseudonymous wallets than its members may have."""
    counted: dict[bytes, int] = {}
    for _, record in state.scan(WALLETS):
        if not record.member and not record.successor:
            counted[record.aggregator] = counted.get(record.aggregator, 0) + 1
    pools = dict(state.scan(POOLS))
    return all(pools[aggregator].wallets == count for aggregator, count in counted.items())


@members.invariant
def wallets_are_public_or_committed(state: State) -> bool:
    """A wallet names its member or holds a commitment, never both and never neither."""
    return all(
        (len(record.member) == 32 and not record.commitment) or (not record.member and len(record.commitment) == 32)
        for _, record in state.scan(WALLETS)
    )
