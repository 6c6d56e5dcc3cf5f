"""Access on the ledger: whose a resource is, its rules, who is blocked on what evidence, and roots of decisions.

Nodes decide alone (``gridpool.agents.access_gate``); the ledger holds what they decide by and what they decided.
A node that was flooded by one wallet shows the wallet's own signatures: the contract recounts them against the rule,
blocks the wallet until a time, and when two wallets of a member (or one twice) were blocked, all of them.
"""

from typing import Annotated

import msgspec

from gridpool.contracts import members
from gridpool.contracts.access_rules import (
    MINUTE_MS,
    MOST_RULES,
    Excess,
    Request,
    ResourceName,
    Rule,
    StoredRule,
    answer,
    excess_of,
    signed_bytes,
)
from gridpool.contracts.members import Role
from gridpool.ledger.contract import Context, Contract
from gridpool.ledger.keys import verify
from gridpool.ledger.state import State
from gridpool.ledger.types import Call, Due, Event, Hash, Millis, Natural, Text, Value, Wallet, encode

__all__ = [
    "BATCHES",
    "BLOCKS",
    "EVIDENCE",
    "KEYS",
    "NODES",
    "OWNED",
    "RESOURCES",
    "RULES",
    "AccessParameters",
    "Batch",
    "Block",
    "BlockSiblings",
    "CommandKey",
    "Node",
    "PublishKey",
    "RecordDecisions",
    "RemoveRule",
    "ReportExcess",
    "Resource",
    "SetRule",
    "access",
    "blocked_until",
    "rules_of",
]

access = Contract("access")

KEPT_BATCHES = 1_024
"""Batches of a node that stay in the state; older ones stay in the ledger's history."""
MOST_RESOURCES = 1_024
"""Resources of one organisation."""
STRIKE_MS = 30 * 86_400_000
"""How long a block counts towards blocking all wallets of a member."""


class AccessParameters(Value):
    """How long blocks last (ms of market time), and how many of them block all wallets of a member."""

    wallet_block_ms: Millis = 3_600_000
    member_block_ms: Millis = 86_400_000
    strikes: Natural = 2


class Resource(Value):
    """Whose a resource is (certificate key), the last number given to a rule, and how many are in force."""

    owner: Wallet
    last: Natural
    rules: Natural


class Block(Value):
    """Until when a wallet gets no access (market time), why, the transaction with the evidence, how often so far."""

    until: Millis
    why: Text
    evidence: Hash
    strikes: Natural
    last_at: Millis


class Node(Value):
    """Where a node's batches stand: the next number and the end of the last one."""

    next: Natural
    end: Millis


class Batch(Value):
    """A node's decisions from ``start`` to ``end`` (ms, half-open) as one Merkle root."""

    root: Hash
    allowed: Natural
    refused: Natural
    start: Millis
    end: Millis


class CommandKey(Value):
    """The X25519 key under which a wallet sends and takes commands; ``epoch`` grows with every new one."""

    key: Hash
    epoch: Natural


class Count(Value):
    """A number of things."""

    number: Natural


class SetRule(Call, tag="access.set_rule"):
    """Set a rule on a resource of one's own; the first rule makes the resource the caller's."""

    resource: ResourceName
    rule: Rule


class RemoveRule(Call, tag="access.remove_rule"):
    """Take a rule back."""

    resource: ResourceName
    number: Natural


class ReportExcess(Call, tag="access.report_excess"):
    """Show that a wallet asked more often than the rule allows, by its own signatures to this node."""

    evidence: Annotated[tuple[Excess, ...], msgspec.Meta(min_length=2, max_length=257)]


class BlockSiblings(Call, tag="access.block_siblings"):
    """Block further wallets, as their aggregator that knows them to be of the member whose ``struck`` are blocked."""

    struck: Annotated[tuple[Wallet, ...], msgspec.Meta(min_length=1, max_length=64)]
    wallets: Annotated[tuple[Wallet, ...], msgspec.Meta(min_length=1, max_length=256)]


class RecordDecisions(Call, tag="access.record_decisions"):
    """Put the root of a batch of decisions on the ledger, as the node that made them."""

    root: Hash
    allowed: Natural
    refused: Natural
    start: Millis
    end: Millis


class PublishKey(Call, tag="access.publish_key"):
    """Publish the X25519 key for commands; a new one replaces the old one."""

    key: Hash


class ForgetBlock(Due, tag="access.forget_block"):
    """Remove a block that neither holds nor counts any more."""

    wallet: Wallet


@access.event
class RuleSet(Event, tag="access.rule_set"):
    """A rule is in force."""

    resource: Text
    number: Natural


@access.event
class RuleRemoved(Event, tag="access.rule_removed"):
    """A rule is no longer in force."""

    resource: Text
    number: Natural


@access.event
class Blocked(Event, tag="access.blocked"):
    """A wallet gets no access until a time."""

    wallet: Wallet
    until: Millis
    why: Text


@access.event
class DecisionsRecorded(Event, tag="access.decisions_recorded"):
    """A node's decisions have a root on the ledger."""

    node: Wallet
    number: Natural
    root: Hash


RESOURCES = access.table("resource", key=str, value=Resource)
RULES = access.table("rule", key=(str, int), value=StoredRule)
"""(resource, number) -> rule in force."""
OWNED = access.table("owned", key=bytes, value=Count)
"""Certificate key -> how many resources it has."""
BLOCKS = access.table("block", key=bytes, value=Block)
"""Wallet -> its block."""
EVIDENCE = access.table("evidence", key=(bytes, bytes, int), value=Count)
"""(wallet, node, minute) -> requests of a minute that was shown; kept while the block counts."""
NODES = access.table("node", key=bytes, value=Node)
BATCHES = access.table("batch", key=(bytes, int), value=Batch)
"""(node, number) -> batch."""
KEYS = access.table("command_key", key=bytes, value=CommandKey)
"""Wallet -> key for commands."""


def rules_of(state: State, resource: str) -> tuple[StoredRule, ...]:
    """Return the rules in force on a resource, the oldest first."""
    return tuple(stored for _, stored in state.scan(RULES, (resource,)))


def blocked_until(state: State, wallet: bytes, now: int) -> int | None:
    """Return until when a wallet is blocked (market time), None where it is not."""
    block = state.get(BLOCKS, wallet)
    return block.until if block is not None and now < block.until else None


@access.genesis(AccessParameters)
def begin(ctx: Context, parameters: AccessParameters) -> None:
    """Keep the parameters."""
    most = members.MOST_MS
    if max(parameters.wallet_block_ms, parameters.member_block_ms) > most or not parameters.strikes:
        ctx.refuse("blocks_out_of_range", f"at most {most} ms, at least one strike")
    ctx.set_parameters("access", parameters)


@access.call(SetRule)
def set_rule(ctx: Context, call: SetRule) -> None:
    """Store a rule under the next number of its resource."""
    owner = _organisation(ctx)
    rule = call.rule
    if rule.start >= rule.end:
        ctx.refuse("never_in_force", f"from {rule.start} to {rule.end}")
    _check_name(ctx, rule)
    resource = ctx.get(RESOURCES, call.resource)
    if resource is None:
        owned = (ctx.get(OWNED, owner) or Count(0)).number
        if owned >= MOST_RESOURCES:
            ctx.refuse("too_many_resources", f"at most {MOST_RESOURCES}")
        ctx.put(OWNED, owner, Count(owned + 1))
        resource = Resource(owner, 0, 0)
    if resource.owner != owner:
        ctx.refuse("not_your_resource", call.resource)
    if resource.rules >= MOST_RULES:
        ctx.refuse("too_many_rules", f"at most {MOST_RULES}; remove one")
    number = resource.last + 1
    ctx.put(RESOURCES, call.resource, Resource(owner, number, resource.rules + 1))
    ctx.put(RULES, (call.resource, number), StoredRule(number, rule, ctx.now))
    ctx.emit(RuleSet(call.resource, number))


@access.call(RemoveRule)
def remove_rule(ctx: Context, call: RemoveRule) -> None:
    """Delete a rule; its number is not given again."""
    owner = _organisation(ctx)
    resource = ctx.require(RESOURCES, call.resource, "no_such_resource")
    if resource.owner != owner:
        ctx.refuse("not_your_resource", call.resource)
    ctx.require(RULES, (call.resource, call.number), "no_such_rule")
    ctx.delete(RULES, (call.resource, call.number))
    ctx.put(RESOURCES, call.resource, Resource(owner, resource.last, resource.rules - 1))
    ctx.emit(RuleRemoved(call.resource, call.number))


@access.call(ReportExcess)
def report_excess(ctx: Context, call: ReportExcess) -> None:
    """Recount the evidence against the rule and block the wallet."""
    owner = _organisation(ctx)
    first = call.evidence[0].presentation
    counted = excess_of(call.evidence)
    if counted is None:
        ctx.refuse("not_one_minute", "evidence is of one wallet, node, resource, action, place and minute")
    start, requests = counted
    if first.node != ctx.sender or first.chain != ctx.chain:
        ctx.refuse("not_to_this_node", "a node reports what was signed to itself")
    if not ctx.now - STRIKE_MS <= start <= ctx.now + MINUTE_MS:
        ctx.refuse("not_of_this_time", f"evidence is of the last {STRIKE_MS} ms")
    resource = ctx.require(RESOURCES, first.resource, "no_such_resource")
    if resource.owner != owner:
        ctx.refuse("not_your_resource", first.resource)
    record = ctx.require(members.WALLETS, first.wallet, "unknown_wallet")
    roles = tuple(role.value for role in record.roles)
    request = Request(first.wallet, record.member, roles, first.resource, first.action, first.place, first.at)
    decided = answer(rules_of(ctx, first.resource), request)
    stored = None if decided.rule is None else ctx.get(RULES, (first.resource, decided.rule))
    if stored is None or not decided.per_minute or requests <= decided.per_minute or stored.set_at > start:
        ctx.refuse("no_excess", f"{requests} requests, {decided.per_minute} allowed")
    for piece in call.evidence:
        if not verify(first.wallet, piece.signature, signed_bytes(encode(piece.presentation))):
            ctx.refuse("not_signed_by_wallet", first.wallet.hex())
    shown = (first.wallet, ctx.sender, start // MINUTE_MS)
    if ctx.get(EVIDENCE, shown) is not None:
        ctx.refuse("already_shown", "this minute was reported before")
    if blocked_until(ctx, first.wallet, ctx.now) is not None:
        ctx.refuse("already_blocked", first.wallet.hex())
    ctx.put(EVIDENCE, shown, Count(requests))
    parameters = ctx.parameters("access", AccessParameters)
    why = f"{requests} requests in a minute, {decided.per_minute} allowed"
    strikes = _block(ctx, first.wallet, ctx.now + parameters.wallet_block_ms, why, strike=True)
    if record.member:
        _block_public(ctx, record.member, parameters)
    elif strikes >= parameters.strikes:
        _block(ctx, first.wallet, ctx.now + parameters.member_block_ms, why)


@access.call(BlockSiblings)
def block_siblings(ctx: Context, call: BlockSiblings) -> None:
    """Block the other wallets of a member whose wallets were struck often enough; openings stay closed."""
    aggregator = members.require(ctx, Role.AGGREGATOR).member
    parameters = ctx.parameters("access", AccessParameters)
    strikes = 0
    for wallet in sorted(set(call.struck)):
        block = ctx.get(BLOCKS, wallet)
        if block is None or ctx.now >= block.until:
            ctx.refuse("not_blocked", wallet.hex())
        _of_pool(ctx, wallet, aggregator)
        strikes += block.strikes
    if strikes < parameters.strikes:
        ctx.refuse("too_few_strikes", f"{strikes} of {parameters.strikes}")
    for wallet in sorted(set(call.wallets)):
        _of_pool(ctx, wallet, aggregator)
        _block(ctx, wallet, ctx.now + parameters.member_block_ms, "another wallet of its member was blocked")


@access.call(RecordDecisions)
def record_decisions(ctx: Context, call: RecordDecisions) -> None:
    """Keep the root of a batch; batches of a node follow each other in time."""
    _organisation(ctx)
    node = ctx.get(NODES, ctx.sender) or Node(0, 0)
    if not node.end <= call.start < call.end <= ctx.now + MINUTE_MS:
        ctx.refuse("batches_overlap", f"the last one ended at {node.end}")
    ctx.put(BATCHES, (ctx.sender, node.next), Batch(call.root, call.allowed, call.refused, call.start, call.end))
    if node.next >= KEPT_BATCHES:
        ctx.delete(BATCHES, (ctx.sender, node.next - KEPT_BATCHES))
    ctx.put(NODES, ctx.sender, Node(node.next + 1, call.end))
    ctx.emit(DecisionsRecorded(ctx.sender, node.next, call.root))


@access.call(PublishKey)
def publish_key(ctx: Context, call: PublishKey) -> None:
    """Keep a wallet's key for commands."""
    members.require(ctx)
    old = ctx.get(KEYS, ctx.sender)
    if old is not None and old.key == call.key:
        ctx.refuse("key_stands", "a new epoch needs a new key")
    ctx.put(KEYS, ctx.sender, CommandKey(call.key, 1 if old is None else old.epoch + 1))


@access.due(ForgetBlock)
def forget_block(ctx: Context, due: ForgetBlock) -> None:
    """Remove a block once it neither holds nor counts."""
    block = ctx.get(BLOCKS, due.wallet)
    if block is None or ctx.now < _forgotten_at(block):
        return
    ctx.delete(BLOCKS, due.wallet)
    for key, _ in list(ctx.scan(EVIDENCE, (due.wallet,))):
        ctx.delete(EVIDENCE, key)


@access.invariant
def resources_count_their_rules(state: State) -> bool:
    """A resource knows how many rules it has, and no number is above the last one given."""
    counted: dict[str, int] = {}
    for (resource, number), stored in state.scan(RULES):
        counted[resource] = counted.get(resource, 0) + 1
        held = state.get(RESOURCES, resource)
        if held is None or number > held.last or stored.number != number:
            return False
    return all(counted.get(name, 0) == resource.rules for name, resource in state.scan(RESOURCES))


@access.invariant
def batches_are_bounded(state: State) -> bool:
    """No node keeps more batches in the state than allowed."""
    counted: dict[bytes, int] = {}
    for (node, _), _batch in state.scan(BATCHES):
        counted[node] = counted.get(node, 0) + 1
    return all(count <= KEPT_BATCHES for count in counted.values())


def _organisation(ctx: Context) -> bytes:
    """Return the certificate key behind the calling wallet; refuse pseudonymous ones."""
    member = members.require(ctx).member
    if not member:
        ctx.refuse("needs_a_public_wallet", "resources and nodes belong to organisations")
    return member


def _check_name(ctx: Context, rule: Rule) -> None:
    if rule.who == "anyone" and rule.name:
        ctx.refuse("anyone_has_no_name")
    if rule.who == "role" and rule.name not in {role.value.encode() for role in Role}:
        ctx.refuse("no_such_role", rule.name.hex())
    if rule.who == "organisation":
        ctx.require(members.MEMBERS, rule.name, "no_such_member")
    if rule.who == "wallet":
        ctx.require(members.WALLETS, rule.name, "unknown_wallet")


def _block(ctx: Context, wallet: bytes, until: int, why: str, *, strike: bool = False) -> int:
    old = ctx.get(BLOCKS, wallet)
    strikes = (0 if old is None else old.strikes) + strike
    until = until if old is None else max(until, old.until)
    if old is not None:
        ctx.unschedule(_forgotten_at(old), ForgetBlock(wallet))
    block = Block(until, why, ctx.tx_id, strikes, ctx.now)
    ctx.put(BLOCKS, wallet, block)
    ctx.schedule(_forgotten_at(block), ForgetBlock(wallet))
    ctx.emit(Blocked(wallet, until, why))
    return strikes


def _forgotten_at(block: Block) -> int:
    """Return when evidence as old as the block's is refused anyway (a node's clock may be a minute ahead)."""
    return max(block.until, block.last_at + STRIKE_MS + 2 * MINUTE_MS)


def _block_public(ctx: Context, member: bytes, parameters: AccessParameters) -> None:
    certificate = ctx.require(members.MEMBERS, member, "no_such_member")
    blocks = [ctx.get(BLOCKS, wallet) for wallet in certificate.public_wallets]
    if sum(block.strikes for block in blocks if block is not None) < parameters.strikes:
        return
    for wallet in certificate.public_wallets:
        _block(ctx, wallet, ctx.now + parameters.member_block_ms, "another wallet of its member was blocked")


def _of_pool(ctx: Context, wallet: bytes, aggregator: bytes) -> None:
    record = ctx.require(members.WALLETS, wallet, "unknown_wallet")
    if record.aggregator != aggregator:
        ctx.refuse("not_of_this_pool", wallet.hex())
