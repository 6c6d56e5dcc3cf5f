"""The council: organisations that decide together, each decision taking effect when enough of their keys have signed.

Other contracts add kinds of decision (minting, parameters, licences)::

    @decision(Mint)
    def mint(ctx: Context, decided: Mint) -> None: ...

and the council passes one with ``propose(Mint(...))`` and ``Approve``. A decision's function runs in the transaction
whose signature completes the threshold; it must not look at ``ctx.sender``.
"""

import enum
import hashlib
from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar, Union, dataclass_transform

import msgspec

from gridpool.errors import RefusedInput
from gridpool.ledger.contract import Context, Contract
from gridpool.ledger.keys import is_sound_key
from gridpool.ledger.state import State
from gridpool.ledger.types import Bytes, Call, Event, Hash, Millis, Natural, Text, Value, Wallet, encode

__all__ = [
    "COUNCIL",
    "PROPOSALS",
    "SEATS",
    "Approve",
    "CouncilRule",
    "Decided",
    "Decision",
    "FoundingMember",
    "MemberParameters",
    "NewSeat",
    "OptionalKey",
    "Proposal",
    "Propose",
    "Proposed",
    "Role",
    "Seat",
    "SetCouncilRule",
    "SetRules",
    "SetSeat",
    "decide",
    "decision",
    "is_sound",
    "members",
    "propose",
    "read_decision",
]

members = Contract("members")

D = TypeVar("D", bound="Decision")
OptionalKey = Annotated[bytes, msgspec.Meta(max_length=32)]
"""A wallet, hash or certificate key, or nothing."""
DAY_MS = 86_400_000
FOREVER = 2**62
"""A validity that does not end."""
MOST_MS = 10**15
"""Longest span of time in a parameter, so that no sum with a time leaves 63 bits."""


class Role(enum.Enum):
    """What a member may do; the one role table of all contracts."""

    COUNCIL = "council"
    """Decides: admission, minting, bans, parameters, validators, rule versions."""
    AGGREGATOR = "aggregator"
    """Keeps an account pool: registers wallets and meters, issues tags, quotes prices, carries its members' calls."""
    OPERATOR = "operator"
    """Runs radio or transport networks: offers slices and spectrum."""
    UTILITY = "utility"
    """Runs grids: registers plant and profiles, buys slices."""
    TENANT = "tenant"
    """Orders slices and leases bands."""
    PROSUMER = "prosumer"
    """Buys and sells energy."""
    BANK = "bank"
    """Lends coins."""
    PROBE = "probe"
    """Measures service levels."""
    SENSOR = "sensor"
    """Senses bands or the grid."""
    BACK_STOP = "back_stop"
    """Supplies what trades leave open, at retail and feed-in price."""
    REGULATOR = "regulator"
    """Reads everything, trades nothing."""


class Seat(Value):
    """A council key: the organisation that holds it, and its voting weight."""

    organisation: Text
    weight: Natural


class CouncilRule(Value):
    """How much weight a decision needs, and how long a proposal stays open (ms of market time)."""

    threshold: Natural
    lifetime_ms: Millis


class NewSeat(Value):
    """A seat and its key."""

    key: Wallet
    organisation: Text
    weight: Natural = 1


class FoundingMember(Value):
    """A member of the first hour, with one public wallet whose key is also its certificate key."""

    key: Wallet
    name: Text
    roles: Annotated[tuple[Role, ...], msgspec.Meta(max_length=16)]


class MemberParameters(Value):
    """Genesis of the members' register.

    ``threshold`` is the weight a decision needs, ``wallets_per_member`` the most pseudonymous wallets a member may
    have (w in Li et al. 2018), ``audit_key`` and ``regulator_key`` the X25519 keys to which account pools encrypt.
    """

    seats: Annotated[tuple[NewSeat, ...], msgspec.Meta(max_length=256)] = ()
    threshold: Natural = 1
    lifetime_ms: Millis = 7 * DAY_MS
    wallets_per_member: Natural = 16
    audit_key: Hash = bytes(32)
    regulator_key: Hash = bytes(32)
    founders: Annotated[tuple[FoundingMember, ...], msgspec.Meta(max_length=1_000_000)] = ()


@dataclass_transform(frozen_default=True, field_specifiers=(msgspec.field,))
class Decision(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=True):
    """Base of what the council can decide; give each a tag ``contract.noun``."""


class Proposal(Value):
    """A decision under way: its canonical bytes and their hash, who has signed, and until when others may."""

    proposer: Wallet
    data: Bytes
    digest: Hash
    expires: Millis
    approvals: tuple[Wallet, ...]
    status: Literal["open", "done"] = "open"


class Propose(Call, tag="members.propose"):
    """Put an encoded decision before the council; a council key signs it with this already."""

    data: Bytes


class Approve(Call, tag="members.approve"):
    """Sign a proposal; ``digest`` (SHA-256 of its bytes) says what exactly is signed."""

    proposal: Natural
    digest: Hash


class SetSeat(Decision, tag="members.set_seat"):
    """Give a key a seat (weight 0 takes it away); ``replaces`` rotates an organisation's key in one step."""

    key: Wallet
    organisation: Text
    weight: Natural
    replaces: OptionalKey = b""


class SetCouncilRule(Decision, tag="members.set_council_rule"):
    """Change the weight that decisions need and how long proposals stay open."""

    threshold: Natural
    lifetime_ms: Millis


class SetRules(Decision, tag="members.set_rules"):
    """Let a rules version take effect at a height."""

    version: Natural
    height: Natural


@members.event
class Proposed(Event, tag="members.proposed"):
    """A proposal was put before the council."""

    proposal: Natural
    digest: Hash


@members.event
class Decided(Event, tag="members.decided"):
    """A proposal has taken effect."""

    proposal: Natural


SEATS = members.table("seat", key=bytes, value=Seat)
COUNCIL = members.table("council", key=str, value=CouncilRule)
"""``rule`` -> how the council decides."""
PROPOSALS = members.table("proposal", key=int, value=Proposal)

_DECISIONS: dict[type[Decision], Callable[[Context, Any], None]] = {}
_DECODERS: dict[int, msgspec.msgpack.Decoder[Decision]] = {}


def decision(kind: type[D]) -> Callable[[Callable[[Context, D], None]], Callable[[Context, D], None]]:
    """Register the function that carries out a kind of decision (a decorator for contract modules)."""

    def register(function: Callable[[Context, D], None]) -> Callable[[Context, D], None]:
        _DECISIONS[kind] = function
        return function

    return register


def propose(decided: Decision) -> Propose:
    """Build the call that puts a decision before the council."""
    return Propose(encode(decided))


def decode_decision(data: bytes) -> Decision:
    """Decode a proposal's bytes; raises msgspec.DecodeError where they are no canonical decision."""
    decoder = _DECODERS.get(len(_DECISIONS))
    if decoder is None:
        decoder = _DECODERS[len(_DECISIONS)] = msgspec.msgpack.Decoder(Union[tuple(_DECISIONS)])  # noqa: UP007
    decided = decoder.decode(data)
    if encode(decided) != data:
        raise msgspec.ValidationError("not the canonical encoding")
    return decided


def read_decision(text: str) -> Decision:
    """Read a decision written as JSON (tag, then fields; bytes in base64); raises RefusedInput saying what is wrong."""
    try:
        decided: Decision = msgspec.json.decode(text, type=Union[tuple(_DECISIONS)])  # noqa: UP007
    except (msgspec.DecodeError, RecursionError) as error:
        tags = sorted(str(kind.__struct_config__.tag) for kind in _DECISIONS)
        raise RefusedInput(f"this is no decision: {error}; decisions are {', '.join(tags)}") from None
    return decided


def is_sound(ctx: Context, key: bytes) -> None:
    """Refuse a key of low order or in non-canonical form: verifiers disagree on them."""
    if not is_sound_key(key):
        ctx.refuse("unsound_key", key.hex())


@members.call(Propose)
def put_proposal(ctx: Context, call: Propose) -> None:
    """Open a proposal; where the proposer's own weight suffices, it takes effect at once."""
    rule = ctx.require(COUNCIL, "rule", "no_council")
    if ctx.get(SEATS, ctx.sender) is None:
        ctx.refuse("not_of_the_council", ctx.sender.hex())
    try:
        decode_decision(call.data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        ctx.refuse("no_such_decision", str(error)[:200])
    number = 1 + next((key for key, _ in ctx.scan(PROPOSALS, reverse=True, limit=1)), 0)
    digest = hashlib.sha256(call.data).digest()
    proposal = Proposal(ctx.sender, call.data, digest, ctx.now + rule.lifetime_ms, ())
    ctx.emit(Proposed(number, digest))
    _sign(ctx, number, proposal)


@members.call(Approve)
def approve(ctx: Context, call: Approve) -> None:
    """Add a council key's signature; the one that completes the threshold carries the decision out."""
    if ctx.get(SEATS, ctx.sender) is None:
        ctx.refuse("not_of_the_council", ctx.sender.hex())
    proposal = ctx.require(PROPOSALS, call.proposal, "no_such_proposal")
    if proposal.digest != call.digest:
        ctx.refuse("other_content", f"proposal {call.proposal} has digest {proposal.digest.hex()}")
    if proposal.status != "open":
        ctx.refuse("already_decided", str(call.proposal))
    if ctx.now >= proposal.expires:
        ctx.refuse("proposal_expired", str(call.proposal))
    if ctx.sender in proposal.approvals:
        ctx.refuse("already_signed", str(call.proposal))
    _sign(ctx, call.proposal, proposal)


def decide(ctx: Context, decided: Decision) -> None:
    """Carry a decision out; for genesis and for work that the council has decided beforehand."""
    _DECISIONS[type(decided)](ctx, decided)


def _sign(ctx: Context, number: int, proposal: Proposal) -> None:
    approvals = (*proposal.approvals, ctx.sender)
    weight = sum(seat.weight for key in approvals if (seat := ctx.get(SEATS, key)) is not None)
    done = weight >= ctx.require(COUNCIL, "rule", "no_council").threshold
    ctx.put(
        PROPOSALS, number, msgspec.structs.replace(proposal, approvals=approvals, status="done" if done else "open")
    )
    if done:
        decide(ctx, decode_decision(proposal.data))
        ctx.emit(Decided(number))


@decision(SetSeat)
def set_seat(ctx: Context, decided: SetSeat) -> None:
    """Change who sits on the council; refused where the rest could no longer decide."""
    is_sound(ctx, decided.key)
    if decided.replaces:
        ctx.require(SEATS, decided.replaces, "no_such_seat")
        ctx.delete(SEATS, decided.replaces)
    if decided.weight:
        ctx.put(SEATS, decided.key, Seat(decided.organisation, decided.weight))
    else:
        ctx.require(SEATS, decided.key, "no_such_seat")
        ctx.delete(SEATS, decided.key)
    _can_decide(ctx, ctx.require(COUNCIL, "rule", "no_council").threshold)


@decision(SetCouncilRule)
def set_council_rule(ctx: Context, decided: SetCouncilRule) -> None:
    """Change threshold and lifetime; refused where the council could not reach the threshold."""
    _can_decide(ctx, decided.threshold)
    if decided.lifetime_ms > MOST_MS:
        ctx.refuse("lifetime_out_of_range", f"at most {MOST_MS} ms")
    ctx.put(COUNCIL, "rule", CouncilRule(decided.threshold, decided.lifetime_ms))


@decision(SetRules)
def set_rules(ctx: Context, decided: SetRules) -> None:
    """Agree on a new rules version from a height on."""
    ctx.set_rules(decided.version, decided.height)


@members.invariant
def council_can_decide(state: State) -> bool:
    """Threshold is positive and within the seats' weight (once there is a council)."""
    rule = state.get(COUNCIL, "rule")
    if rule is None:
        return True
    return 0 < rule.threshold <= sum(seat.weight for _, seat in state.scan(SEATS))


@members.invariant
def decided_proposals_were_signed(state: State) -> bool:
    """Nothing is decided without a signature, and no key signs twice."""
    return all(len(set(proposal.approvals)) == len(proposal.approvals) >= 1 for _, proposal in state.scan(PROPOSALS))


def _can_decide(ctx: Context, threshold: int) -> None:
    total = sum(seat.weight for _, seat in ctx.scan(SEATS))
    if not 0 < threshold <= total:
        ctx.refuse("council_could_not_decide", f"threshold {threshold}, weight of all seats {total}")
