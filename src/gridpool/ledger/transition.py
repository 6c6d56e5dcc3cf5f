"""From one height to the next: what a block makes of a committed state, its tree and its header."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from gridpool.errors import AlteredState, RefusedInput
from gridpool.ledger.block import Header, application_hash
from gridpool.ledger.contract import Refused
from gridpool.ledger.execution import Block, Executed, Executor
from gridpool.ledger.genesis import Genesis, apply_genesis, genesis_hash
from gridpool.ledger.merkle import list_root
from gridpool.ledger.rules import Rules
from gridpool.ledger.state import MemoryReader, Reader, RememberingReader
from gridpool.ledger.tree import AlteredLeaf, Nodes, ReadNode, update
from gridpool.ledger.types import encode

__all__ = ["Pending", "begin", "transition"]


@dataclass(frozen=True, slots=True)
class Pending:
    """A block that was executed and is not yet stored."""

    executed: Executed
    header: Header
    nodes: Nodes = field(repr=False)
    receipts: tuple[bytes, ...] = field(repr=False)
    """Encoded receipts."""
    before: dict[bytes, bytes | None] = field(repr=False)
    """What each changed key held."""

    @property
    def app_hash(self) -> bytes:
        """The application hash of the height."""
        return self.header.app_hash


def begin(genesis: Genesis, known: Mapping[int, Rules]) -> Pending:
    """Execute genesis: the pending height 0."""
    if genesis.rules_version not in known:
        have = ", ".join(str(v) for v in sorted(known)) or "none"
        raise RefusedInput(f"genesis asks for rules version {genesis.rules_version}, this node knows {have}")
    rules = known[genesis.rules_version]
    try:
        changes = apply_genesis(rules, genesis, MemoryReader()).encoded()
    except (ValueError, Refused, msgspec.DecodeError) as error:
        raise RefusedInput(f"genesis of chain {genesis.chain!r} is not possible: {error}") from error
    executed = Executed(Block(0, genesis.time_ms, ()), genesis.rules_version, (), changes, genesis.validators, ())
    nothing = dict.fromkeys(changes)
    return _pending(genesis.chain, executed, lambda _: None, nothing, genesis_hash(genesis), idle=False)


def transition(executor: Executor, reader: Reader, node: ReadNode, head: Header, block: Block) -> Pending:
    """Carry out the block after ``head`` over a committed state and its tree.

    Raises AlteredState where the tree commits to something else under a key that the block changes.
    """
    reader = RememberingReader(reader)
    executed = executor.execute(reader, block)
    before = {key: reader.get(key) for key in executed.changes}
    held = block.transactions or block.misbehaving or executed.receipts or executed.changes
    idle = not held and executed.rules_version == head.rules_version
    try:
        return _pending(head.chain, executed, node, before, head.app_hash, idle=idle)
    except AlteredLeaf as altered:
        table, text = executor.rules.name_key(altered.key)
        raise AlteredState(
            f"stored state differs from what height {head.height} committed to: {table} {text}; block "
            f"{block.height} would build on it; restore this node from a snapshot or another node"
        ) from None


def _pending(
    chain: str,
    executed: Executed,
    node: ReadNode,
    before: dict[bytes, bytes | None],
    previous: bytes,
    *,
    idle: bool,
) -> Pending:
    state_root, nodes = update(node, executed.changes, before)
    receipts = tuple(encode(receipt) for receipt in executed.receipts)
    receipts_root, change_hash = list_root(receipts), executed.change_hash
    version = executed.rules_version
    header = Header(
        chain=chain,
        height=executed.block.height,
        time_ms=executed.block.time_ms,
        rules_version=version,
        state_root=state_root,
        receipts_root=receipts_root,
        change_hash=change_hash,
        previous_app_hash=previous,
        app_hash=previous if idle else application_hash(version, state_root, receipts_root, change_hash, previous),
        transactions_root=list_root(executed.block.transactions),
        misbehaving=executed.block.misbehaving,
    )
    return Pending(executed, header, nodes, receipts, before)
