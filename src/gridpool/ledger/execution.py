"""The state transition: a block's transactions in order, then the work that fell due."""

import contextlib
import hashlib
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from gridpool.ledger.contract import (
    CLOCK,
    DELEGATED_NONCES,
    DUE,
    NONCES,
    VALIDATORS,
    Context,
    Number,
    Refused,
    ValidatorPower,
)
from gridpool.ledger.genesis import Genesis
from gridpool.ledger.rules import Rules
from gridpool.ledger.signatures import SignatureChecker
from gridpool.ledger.state import Layer, Reader, State
from gridpool.ledger.transaction import CallResult, Delegated, Malformed, Receipt, Transaction, TransactionDecoder
from gridpool.ledger.types import Event, encode

__all__ = ["DUE_PER_BLOCK", "Block", "ContractFault", "Executed", "Executor", "market_time"]

DUE_PER_BLOCK = 2_000
"""Most pieces of due work a block carries out; the rest runs in the next one, in order."""
IDLE_CLOCK_MS = 10_000
"""Blocks that hold nothing move market time only where work falls due, or where it is so far behind."""
NOBODY = bytes(32)
REMEMBERED_BYTES = 64 << 20
"""Most bytes of transactions that are kept decoded for a block to come."""


class ContractFault(Exception):
    """A contract failed in a way it did not mean to: a bug that stops the node, with what led to it."""


@dataclass(frozen=True, slots=True)
class Block:
    """What an engine decided: the transactions of a height, in order, and the block's time in milliseconds.

    ``misbehaving`` are the keys of validators that the engine proved to have misbehaved, in its order.
    """

    height: int
    time_ms: int
    transactions: tuple[bytes, ...]
    misbehaving: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Executed:
    """What a block did to the state, before anything is written."""

    block: Block
    rules_version: int
    receipts: tuple[Receipt, ...]
    changes: dict[bytes, bytes | None] = field(repr=False)
    """Full key -> new value, ``None`` for a deletion; in key order."""
    validators: tuple[tuple[bytes, int], ...]
    """(key, power) of validators whose power changed."""
    carried_out: tuple[bool, ...]
    """For each transaction: whether it used up its nonce, be it to be refused by a contract."""

    @property
    def change_hash(self) -> bytes:
        """Hash of the changes alone: it names a deviation even where two deviations leave one root."""
        digest = hashlib.sha256(b"gridpool/changes/1\0")
        for key, value in self.changes.items():
            digest.update(encode((key, value)))
        return digest.digest()


class Executor:
    """Carries out blocks of one chain under one rules version."""

    def __init__(self, rules: Rules, genesis: Genesis, signatures: SignatureChecker | None = None) -> None:
        self.rules = rules
        self.genesis = genesis
        self.signatures = signatures or SignatureChecker()
        self._decoder = TransactionDecoder(rules)
        self._decoded: dict[bytes, Transaction | None] = {}
        self._decoded_bytes = 0
        # The mempool's checks and the blocks come from different threads.
        self._remembering = threading.Lock()

    def decode(self, wire: bytes) -> Transaction:
        """Decode a transaction under these rules; raises Malformed."""
        return self._decoder.decode(wire)

    def prepare(self, wires: Iterable[bytes]) -> None:
        """Decode transactions that will be executed soon, and let the verifier begin with their signatures."""
        whole = []
        for wire in wires:
            with contextlib.suppress(Malformed):
                whole.append(self._decoder.decode(wire))
        self.signatures.prepare(whole)
        for transaction in whole:
            self._remember(transaction)

    def known(self, wire: bytes) -> Transaction:
        """Return a transaction, decoded before or now; raises Malformed."""
        return self._decoded.get(wire) or self._decoder.decode(wire)

    def _remember(self, transaction: Transaction) -> None:
        """Keep a decoded transaction for the block that will hold it, in bounded memory."""
        with self._remembering:
            if transaction.wire in self._decoded:
                return
            if self._decoded_bytes >= REMEMBERED_BYTES:
                self._decoded.clear()
                self._decoded_bytes = 0
            self._decoded_bytes += len(transaction.wire)
            self._decoded[transaction.wire] = transaction

    def _recall(self, wire: bytes) -> Transaction | None:
        with self._remembering:
            transaction = self._decoded.pop(wire, None)
            if transaction is not None:
                self._decoded_bytes -= len(wire)
        return transaction

    def check(self, reader: Reader, transaction: Transaction, height: int) -> None:
        """Do the cheap checks of the mempool for a transaction meant for block ``height``; raises Refused.

        The signature is verified last, being the dearest.
        """
        self.admitter(reader, height)(transaction)
        if not self.hold([transaction])[0]:
            raise Refused("bad_signature")

    def admitter(self, reader: Reader, height: int) -> Callable[[Transaction], None]:
        """Return what ``check`` does but for signatures, for many transactions; ``reader`` must stay open meanwhile."""
        block = Block(height, 0, ())
        now = market_time(State(reader))

        def admit(transaction: Transaction) -> None:
            ctx = self._context(reader, (Layer(),), block, now, transaction.body.sender, transaction.id, [])
            self._admit(ctx, transaction)

        return admit

    def hold(self, transactions: Sequence[Transaction]) -> list[bool]:
        """Tell of each transaction whether its signatures hold, and keep those decoded for the block to come."""
        held = self.signatures.check(transactions)
        for transaction, holds in zip(transactions, held, strict=True):
            if holds:
                self._remember(transaction)
        return held

    def execute(self, reader: Reader, block: Block) -> Executed:
        """Carry out a block over the committed state; raises ContractFault where a contract has a bug."""
        decoded: list[Transaction | Malformed] = []
        for wire in block.transactions:
            try:
                decoded.append(self._recall(wire) or self._decoder.decode(wire))
            except Malformed as error:
                decoded.append(error)
        signed = self.signatures.checked([item for item in decoded if type(item) is Transaction])
        changes = Layer()
        if self.genesis.market_clock == "block" and (moved := self._moved(State(reader), block)) is not None:
            changes.put(CLOCK, "now", Number(moved))
        now = market_time(State(reader, (changes,)))
        receipts: list[Receipt] = []
        carried_out: list[bool] = []
        for wire, item in zip(block.transactions, decoded, strict=True):
            if isinstance(item, Malformed):
                receipt, carried = _refusal(_malformed_id(wire), "malformed", str(item)), False
            elif not next(signed):
                receipt, carried = _refusal(item.id, "bad_signature", ""), False
            else:
                receipt, carried = self._transact(reader, changes, block, now, item)
                if CLOCK in changes.tables:
                    now = changes.tables[CLOCK]["now"].number
            receipts.append(receipt)
            carried_out.append(carried)
        own = self._run_own(reader, changes, block)
        if own is not None:
            receipts.append(own)
        power = changes.tables.get(VALIDATORS, {})
        return Executed(
            block=block,
            rules_version=self.rules.version,
            receipts=tuple(receipts),
            changes=changes.encoded(),
            validators=_changed_validators(State(reader), power),
            carried_out=tuple(carried_out),
        )

    @staticmethod
    def _moved(state: State, block: Block) -> int | None:
        """Return the market time that a block brings, or None where it is idle and leaves the clock as it is."""
        last = market_time(state)
        now = max(block.time_ms, last)
        if block.transactions or block.misbehaving or now - last >= IDLE_CLOCK_MS:
            return now
        return now if any(at <= now for (at, _, _), _ in state.scan(DUE, limit=1)) else None

    def _context(
        self,
        reader: Reader,
        layers: tuple[Layer, ...],
        block: Block,
        now: int,
        sender: bytes,
        tx_id: bytes,
        events: list[Event],
    ) -> Context:
        return Context(
            reader,
            layers,
            chain=self.genesis.chain,
            height=block.height,
            block_time=block.time_ms,
            now=now,
            sender=sender,
            tx_id=tx_id,
            events=events,
        )

    def _admit(self, ctx: Context, transaction: Transaction) -> None:
        body = transaction.body
        if body.chain != self.genesis.chain:
            raise Refused("wrong_chain", f"this is {self.genesis.chain}")
        if body.last_valid_height < ctx.height:
            raise Refused("expired", f"valid until height {body.last_valid_height}")
        used = ctx.get(NONCES, body.sender)
        if used is not None and body.nonce <= used.number:
            raise Refused("stale_nonce", f"the last nonce used is {used.number}")
        for admission in self.rules.admissions:
            admission(ctx)

    def _transact(
        self, reader: Reader, changes: Layer, block: Block, now: int, transaction: Transaction
    ) -> tuple[Receipt, bool]:
        """Carry out a transaction; returns its receipt, and whether it used up its nonce."""
        body, tx_id = transaction.body, transaction.id
        events: list[Event] = []
        layer = Layer()
        ctx = self._context(reader, (layer, changes), block, now, body.sender, tx_id, events)
        try:
            self._admit(ctx, transaction)
        except Refused as refusal:
            return _refusal(tx_id, refusal.code, refusal.info), False
        changes.put(NONCES, body.sender, Number(body.nonce))
        if body.mode == "atomic":
            for position, call in enumerate(body.calls):
                try:
                    self._call(ctx, call)
                except Refused as refusal:
                    place = f"call {position}: " if len(body.calls) > 1 else ""
                    return _refusal(tx_id, refusal.code, place + refusal.info), True
                self._tell_time(ctx, layer)
            changes.merge(layer)
            return Receipt(tx_id, "ok", "", (), _raw(events)), True
        results = []
        kept: list[Event] = []
        for call in body.calls:
            layer, fresh = Layer(), list[Event]()
            ctx = self._context(reader, (layer, changes), block, now, body.sender, tx_id, fresh)
            try:
                self._call(ctx, call)
            except Refused as refusal:
                results.append(CallResult(refusal.code, refusal.info))
                if type(call) is Delegated and refusal.code not in _UNUSED_NONCE:
                    changes.put(DELEGATED_NONCES, call.signer, Number(call.nonce))
                continue
            self._tell_time(ctx, layer)
            now = ctx.now
            results.append(CallResult("ok", ""))
            kept += fresh
            changes.merge(layer)
        return Receipt(tx_id, "ok", "", tuple(results), _raw(kept)), True

    @staticmethod
    def _tell_time(ctx: Context, layer: Layer) -> None:
        """Let the calls after a tick of the clock see the new market time."""
        if CLOCK in layer.tables:
            ctx.now = layer.tables[CLOCK]["now"].number

    def _call(self, ctx: Context, call: Any) -> None:
        if type(call) is Delegated:
            if call.last_valid_height < ctx.height:
                raise Refused("delegation_expired", f"valid until height {call.last_valid_height}")
            used = ctx.get(DELEGATED_NONCES, call.signer)
            if used is not None and call.nonce <= used.number:
                raise Refused("stale_delegation", f"the last nonce used is {used.number}")
            carrier = ctx.sender
            ctx.sender = call.signer
            try:
                for admission in self.rules.admissions:
                    admission(ctx)
                ctx.put(DELEGATED_NONCES, call.signer, Number(call.nonce))
                self._call(ctx, call.call)
            finally:
                ctx.sender = carrier
            return
        _guarded(self.rules.call_handlers[type(call)], ctx, call)

    def _run_own(self, reader: Reader, changes: Layer, block: Block) -> Receipt | None:
        """Carry out what nobody signed: the consequences of misbehaviour, then the work that fell due."""
        view = State(reader, (changes,))
        now = market_time(view)
        results: list[CallResult] = []
        kept: list[Event] = []

        def carry_out(name: str, handler: Callable[[Context, Any], None], argument: Any) -> None:
            layer, fresh = Layer(), list[Event]()
            ctx = self._context(reader, (layer, changes), block, now, NOBODY, NOBODY, fresh)
            try:
                _guarded(handler, ctx, argument)
            except Refused as refusal:
                results.append(CallResult(refusal.code, f"{name}: {refusal.info}"))
                return
            results.append(CallResult("ok", name))
            kept.extend(fresh)
            changes.merge(layer)

        for culprit in block.misbehaving:
            for handler in self.rules.misbehaviours:
                carry_out("misbehaviour", handler, culprit)
        # Work may schedule further work that is due at once, so the table is read afresh after each batch.
        while len(results) < DUE_PER_BLOCK:
            batch = []
            for key, _ in view.scan(DUE, limit=DUE_PER_BLOCK - len(results)):
                if key[0] > now:
                    break
                batch.append(key)
            if not batch:
                break
            for key in batch:
                if view.get(DUE, key) is None:
                    continue
                changes.put(DUE, key, None)
                work = self.rules.due_decoder(key[2])
                carry_out(key[1], self.rules.due_handlers[type(work)], work)
        return Receipt(NOBODY, "ok", "", tuple(results), _raw(kept)) if results else None


_UNUSED_NONCE = frozenset({"delegation_expired", "stale_delegation"})


def _changed_validators(before: State, written: Mapping[bytes, ValidatorPower | None]) -> tuple[tuple[bytes, int], ...]:
    """Return (key, power) of validators whose power is another than before: an engine must not remove one twice."""
    changed = []
    for key, value in sorted(written.items()):
        held = before.get(VALIDATORS, key)
        power = 0 if value is None else value.power
        if power != (0 if held is None else held.power):
            changed.append((key, power))
    return tuple(changed)


def market_time(state: State) -> int:
    """Return market time in milliseconds."""
    now = state.get(CLOCK, "now")
    return 0 if now is None else now.number


def _guarded(handler: Callable[[Context, Any], None], ctx: Context, argument: Any) -> None:
    try:
        handler(ctx, argument)
    except Refused:
        raise
    except Exception as error:
        raise ContractFault(
            f"{getattr(handler, '__module__', '')}.{getattr(handler, '__name__', '')} failed at height {ctx.height}, "
            f"transaction {ctx.tx_id.hex()}, on {argument!r}: {error!r}"
        ) from error


def _refusal(tx_id: bytes, code: str, info: str) -> Receipt:
    return Receipt(tx_id, code, info, (), ())


def _malformed_id(wire: bytes) -> bytes:
    return hashlib.sha256(b"gridpool/malformed/1\0" + wire).digest()


def _raw(events: Sequence[Event]) -> tuple[msgspec.Raw, ...]:
    return tuple(msgspec.Raw(encode(event)) for event in events)
