"""Validators: for which organisation each votes, whose nodes may connect, and what follows when one misbehaves.

A validator that the engine proves to have signed two blocks of one height loses its vote two heights later, and its
organisation is frozen: its council keys and its nodes count for nothing until the other organisations lift that.
"""

from typing import Annotated

import msgspec

from gridpool.contracts.members import Decision, decision
from gridpool.contracts.members_council import SEATS, is_sound
from gridpool.ledger.contract import VALIDATORS, Context, Contract, Refused
from gridpool.ledger.state import State
from gridpool.ledger.types import Event, Millis, Natural, Text, Value, Wallet

__all__ = [
    "FROZEN",
    "NODES",
    "OWNERS",
    "Freeze",
    "Frozen",
    "NameNode",
    "NameValidator",
    "Node",
    "Owner",
    "ValidatorParameters",
    "admits",
    "validators",
]

validators = Contract("validators")

NodeId = Annotated[str, msgspec.Meta(min_length=40, max_length=40, pattern="^[0-9a-f]*$")]


class Owner(Value):
    """The organisation that a validator votes for."""

    organisation: Text


class Node(Value):
    """The organisation that runs a node."""

    organisation: Text


class Frozen(Value):
    """Since when (market time) and why an organisation is frozen."""

    since: Millis
    why: Text


class NamedKey(Value):
    """A validator's key and its organisation."""

    key: Wallet
    organisation: Text


class NamedNode(Value):
    """A node's identifier (hex of the address of its key) and its organisation."""

    node: NodeId
    organisation: Text


class ValidatorParameters(Value):
    """Genesis: who runs the first validators and nodes. Without any node named, every peer may connect."""

    owners: Annotated[tuple[NamedKey, ...], msgspec.Meta(max_length=1_000)] = ()
    nodes: Annotated[tuple[NamedNode, ...], msgspec.Meta(max_length=1_000)] = ()


class NameValidator(Decision, tag="validators.name_validator"):
    """Give an organisation's validator voting power; 0 removes it, another number reweighs it."""

    key: Wallet
    organisation: Text
    power: Natural


class NameNode(Decision, tag="validators.name_node"):
    """Let a node of an organisation connect; ``admitted`` false takes that back."""

    node: NodeId
    organisation: Text
    admitted: bool = True


class Freeze(Decision, tag="validators.freeze"):
    """Freeze an organisation, or (``frozen`` false) let it take part again."""

    organisation: Text
    frozen: bool
    why: Text


@validators.event
class Misbehaved(Event, tag="validators.misbehaved"):
    """The engine proved that a validator signed two blocks of one height."""

    key: Wallet
    organisation: Text


OWNERS = validators.table("owner", key=bytes, value=Owner)
NODES = validators.table("node", key=str, value=Node)
FROZEN = validators.table("frozen", key=str, value=Frozen)


def admits(state: State, node: str) -> bool:
    """Tell whether a node (by identifier) may connect: it is a member's, and its organisation is not frozen."""
    known = state.get(NODES, node)
    if known is None:
        return next(state.scan(NODES, limit=1), None) is None
    return state.get(FROZEN, known.organisation) is None


@validators.genesis(ValidatorParameters)
def begin(ctx: Context, parameters: ValidatorParameters) -> None:
    """Note who runs what."""
    for named in parameters.owners:
        ctx.put(OWNERS, named.key, Owner(named.organisation))
    for named_node in parameters.nodes:
        ctx.put(NODES, named_node.node, Node(named_node.organisation))


@validators.admission
def organisation_is_not_frozen(ctx: Context) -> None:
    """Refuse every transaction of a frozen organisation's council keys."""
    seat = ctx.get(SEATS, ctx.sender)
    if seat is not None and ctx.get(FROZEN, seat.organisation) is not None:
        raise Refused("organisation_frozen", seat.organisation)


@validators.misbehaviour
def punish(ctx: Context, key: bytes) -> None:
    """Take the vote away and freeze the organisation."""
    owner = ctx.get(OWNERS, key)
    ctx.set_validator(key, 0)
    name = "" if owner is None else owner.organisation
    if name:
        ctx.put(FROZEN, name, Frozen(ctx.now, f"validator {key.hex()} signed two blocks of one height"))
    ctx.emit(Misbehaved(key, name))


@decision(NameValidator)
def name_validator(ctx: Context, decided: NameValidator) -> None:
    """Change a validator's power; refused where no vote would be left, or for a frozen organisation."""
    is_sound(ctx, decided.key)
    owner = ctx.get(OWNERS, decided.key)
    if owner is not None and owner.organisation != decided.organisation:
        ctx.refuse("validator_of_another", owner.organisation)
    if decided.power and ctx.get(FROZEN, decided.organisation) is not None:
        ctx.refuse("organisation_frozen", decided.organisation)
    ctx.put(OWNERS, decided.key, Owner(decided.organisation))
    ctx.set_validator(decided.key, decided.power)
    if not any(validator.power for _, validator in ctx.scan(VALIDATORS)):
        ctx.refuse("no_validator_left", decided.key.hex())


@decision(NameNode)
def name_node(ctx: Context, decided: NameNode) -> None:
    """Change whose nodes may connect."""
    if decided.admitted:
        ctx.put(NODES, decided.node, Node(decided.organisation))
    else:
        ctx.require(NODES, decided.node, "no_such_node")
        ctx.delete(NODES, decided.node)


@decision(Freeze)
def freeze(ctx: Context, decided: Freeze) -> None:
    """Freeze an organisation or let it take part again."""
    if decided.frozen:
        ctx.put(FROZEN, decided.organisation, Frozen(ctx.now, decided.why))
    else:
        ctx.require(FROZEN, decided.organisation, "not_frozen")
        ctx.delete(FROZEN, decided.organisation)


@validators.invariant
def frozen_organisations_do_not_vote(state: State) -> bool:
    """No validator of an organisation that misbehaved has voting power."""
    frozen = {name for name, held in state.scan(FROZEN) if held.why.startswith("validator ")}
    votes = {key for key, validator in state.scan(VALIDATORS) if validator.power}
    return not any(owner.organisation in frozen and key in votes for key, owner in state.scan(OWNERS))
