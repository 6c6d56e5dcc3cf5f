"""Verification: replay a ledger from genesis and compare every byte that the store holds with what must be there."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from gridpool.errors import RefusedInput, VerificationFault
from gridpool.ledger.block import Header, SignedHeader, follows, signature_holds
from gridpool.ledger.chain import Undo, new_places
from gridpool.ledger.execution import Block, ContractFault, Executor
from gridpool.ledger.merkle import list_root
from gridpool.ledger.rules import Rules
from gridpool.ledger.signatures import SignatureChecker, Verifier
from gridpool.ledger.state import MemoryReader, State
from gridpool.ledger.store import FORMAT, Damaged, Snapshot, Store
from gridpool.ledger.transition import Pending, begin, transition
from gridpool.ledger.tree import update
from gridpool.ledger.types import decode, encode
from gridpool.ledger.view import KnownRules, by_version, height_key, locate, rules_for, stored_genesis

__all__ = ["Fault", "Verification", "state_at", "verify_ledger"]


class Fault(msgspec.Struct, frozen=True):
    """The first place where a store is not what the chain made: height, table, key."""

    height: int
    table: str
    key: str


class Verification(msgspec.Struct, frozen=True):
    """The outcome of a verification; ``transactions`` counts those replayed."""

    ok: bool
    height: int
    app_hash: str
    transactions: int
    fault: Fault | None = None
    broken_invariants: tuple[str, ...] = ()


def verify_ledger(
    path: Path,
    known: KnownRules,
    *,
    advance: Callable[[int, int], None] | None = None,
    verifier: Verifier | None = None,
) -> Verification:
    """Replay the ledger under ``path`` (a day's folder, a node's home, a ledger) and compare every stored byte.

    ``advance`` is told (heights done, heights in all). A ``verifier`` checks the signatures of a block while the one
    before is replayed. The result's ``fault`` names the first difference; raises
    RefusedInput only where there is no ledger to look at.
    """
    store = Store.open(locate(path), writable=False, doubtful=True)
    try:
        with store.snapshot() as snapshot:
            return _Replay(snapshot, by_version(known), advance, verifier=verifier).run()
    finally:
        store.close()


def state_at(
    snapshot: Snapshot,
    known: Mapping[int, Rules],
    height: int,
    *,
    advance: Callable[[int, int], None] | None = None,
) -> MemoryReader:
    """Replay a ledger up to ``height`` and return the state there; raises VerificationFault where it is not sound."""
    replay = _Replay(snapshot, known, advance, until=height)
    try:
        replay.replay()
    except _Found as found:
        raise VerificationFault(f"the ledger is not what its blocks make: {found}") from None
    return replay.reader


class _Found(Exception):
    """Carries a fault out of the replay."""

    def __init__(self, height: int, table: str, key: str) -> None:
        super().__init__(f"height {height}, {table} {key}")
        self.fault = Fault(height, table, key)


class _Replay:
    def __init__(
        self,
        snapshot: Snapshot,
        known: Mapping[int, Rules],
        advance: Callable[[int, int], None] | None = None,
        until: int | None = None,
        verifier: Verifier | None = None,
    ) -> None:
        self.snapshot = snapshot
        self.verifier = verifier
        self.until = until
        self.known = known
        self.advance = advance or (lambda done, total: None)
        self.reader = MemoryReader()
        self.nodes: dict[bytes, bytes] = {}
        self.index: dict[bytes, bytes] = {}
        self.undo = Undo((), ())
        self.written: dict[bytes, int] = {}
        self.node_written: dict[bytes, int] = {}
        self.signer = b""
        self.transactions = 0
        self.height = -1
        self.base = 0
        self.app_hash = b""
        self.broken: list[str] = []

    def run(self) -> Verification:
        fault = None
        try:
            self.replay()
            fault = min(self._differences(), key=lambda f: (f.height, f.table, f.key), default=None)
        except _Found as found:
            fault = found.fault
        except Damaged as error:
            fault = Fault(max(self.height, 0), "store", str(error))
        if fault is None and self.known:
            rules = rules_for(self.known, self.reader, self.height)
            self.broken = rules.broken_invariants(State(self.reader))
        return Verification(
            ok=fault is None and not self.broken,
            height=max(self.height, 0),
            app_hash=self.app_hash.hex(),
            transactions=self.transactions,
            fault=fault,
            broken_invariants=tuple(self.broken),
        )

    def replay(self) -> None:
        head = self.snapshot.read("meta", b"head") or b""
        self.signer = self.snapshot.read("meta", b"signer") or b""
        self.base = int.from_bytes(self.snapshot.read("meta", b"base") or b"", "big")
        try:
            genesis = stored_genesis(self.snapshot)
            pending = begin(genesis, self.known)
        except RefusedInput:
            raise _Found(0, "meta", "genesis") from None
        last = next((int.from_bytes(key, "big") for key, _ in self.snapshot.items("header", reverse=True)), 0)
        if self.base:
            header = self._begin_at_base(pending.header, last)
        else:
            self._compare(pending)
            header = pending.header
        executors: dict[int, Executor] = {}
        signatures = SignatureChecker(verifier=self.verifier)
        for height in range(self.base + 1, (last if self.until is None else self.until) + 1):
            rules = rules_for(self.known, self.reader, height)
            executor = executors.get(rules.version)
            if executor is None:
                executor = executors[rules.version] = Executor(rules, genesis, signatures)
            block = self._block(height)
            if self.verifier is not None:
                self._begin_with(executor, height + 1)
            try:
                pending = transition(executor, self.reader, self.nodes.get, header, block)
            except ContractFault:
                raise _Found(height, "body", str(height)) from None
            self._compare(pending)
            header = pending.header
            self.advance(height, last)
        if head != height_key(last):
            raise _Found(last, "meta", "head")

    def _begin_with(self, executor: Executor, height: int) -> None:
        """Let the verifier begin with a block; what is wrong with it is found when its turn comes."""
        with suppress(msgspec.DecodeError, UnicodeDecodeError):
            executor.prepare(_wires(self.snapshot.read("body", height_key(height))))

    def _begin_at_base(self, genesis: Header, last: int) -> Header:
        """Check the headers up to the base, and that the state kept there is the one that its header commits to."""
        if self.base > last:
            raise _Found(last, "meta", "base")
        header = genesis
        for height in range(self.base + 1):
            below, header = header, self._signed_header(height).header
            if not (header == genesis if height == 0 else follows(header, below)):
                raise _Found(height, "header", str(height))
        pairs = dict(self.snapshot.items("base"))
        root, nodes = update(lambda _: None, pairs)
        if root != header.state_root:
            raise _Found(self.base, "base", "state_root")
        self.reader.apply(pairs)
        self.nodes = {prefix: data for prefix, data in nodes.items() if data is not None}
        self.written = dict.fromkeys(pairs, self.base)
        self.node_written = dict.fromkeys(self.nodes, self.base)
        self.height, self.app_hash = self.base, header.app_hash
        return header

    def _signed_header(self, height: int) -> SignedHeader:
        try:
            signed = decode(self.snapshot.read("header", height_key(height)) or b"", SignedHeader)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise _Found(height, "header", str(height)) from None
        if (self.signer or signed.signature) and not signature_holds(signed, self.signer):
            if height == 0 and not self._named_signer_signs():
                raise _Found(0, "meta", "signer")
            raise _Found(height, "header", str(height))
        return signed

    def _named_signer_signs(self) -> bool:
        """Tell whether the signer that the store names vouches for any header at all."""
        for _, data in self.snapshot.items("header"):
            try:
                if signature_holds(decode(data, SignedHeader), self.signer):
                    return True
            except (msgspec.DecodeError, UnicodeDecodeError):
                continue
        return False

    def _block(self, height: int) -> Block:
        signed = self._signed_header(height)
        try:
            wires = _wires(self.snapshot.read("body", height_key(height)))
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise _Found(height, "body", str(height)) from None
        if list_root(wires) != signed.header.transactions_root:
            raise _Found(height, "body", str(height))
        return Block(height, signed.header.time_ms, wires, signed.header.misbehaving)

    def _compare(self, pending: Pending) -> None:
        height, key = pending.header.height, height_key(pending.header.height)
        signed = self._signed_header(height)
        if signed.header != pending.header:
            if height == 0:
                raise _Found(0, "meta", "genesis")
            raise _Found(height, "header", str(height))
        if self.snapshot.read("receipt", key) != encode(pending.receipts):
            raise _Found(height, "receipt", str(height))
        if self.snapshot.read("body", key) != encode(pending.executed.block.transactions):
            raise _Found(height, "body", str(height))
        executed = pending.executed
        state = tuple((k, self.reader.get(k)) for k in executed.changes)
        self.reader.apply(executed.changes)
        self.written.update(dict.fromkeys(executed.changes, height))
        for prefix, data in pending.nodes.items():
            self.node_written[prefix] = height
            if data is None:
                self.nodes.pop(prefix, None)
            else:
                self.nodes[prefix] = data
        places = new_places(executed, self._known_place)
        self.undo = Undo(state, tuple((tx_id, self.index.get(tx_id)) for tx_id in places))
        self.index.update(places)
        self.transactions += len(executed.block.transactions)
        self.height, self.app_hash = height, pending.header.app_hash

    def _known_place(self, tx_id: bytes) -> bytes | None:
        """Return what the index held; of a pruned ledger b"" for an entry that went with its block."""
        place = self.index.get(tx_id)
        if place is None and self.base and self.snapshot.read("transaction", tx_id) is None:
            return b""
        return place

    def _differences(self) -> Iterator[Fault]:
        """Yield where the store's tables differ from the replayed ones."""
        head = self.height
        heights = {height_key(height): b"" for height in range(head + 1)}
        for table in ("header", "body", "receipt"):
            if table == "body" and self.base:
                heights = {height_key(height): b"" for height in range(self.base + 1, head + 1)}
            for key in self._unlike(table, heights, values=False):
                yield Fault(int.from_bytes(key, "big") if len(key) == 8 else head, table, _height_text(key))
        for key in self._unlike("state", dict(self.reader.items())):
            yield Fault(self.written.get(key, head), *self._named(key))
        for key in self._unlike("tree", self.nodes):
            yield Fault(self.node_written.get(key, head), "tree", "".join(f"{n:x}" for n in key[1:]) or "root")
        for key in self._unlike("transaction", self.index):
            place = self.index.get(key)
            yield Fault(head if place is None else int.from_bytes(place[:8], "big"), "transaction", key.hex())
        # After a rollback, and where the head came in a snapshot, there is nothing to take back.
        undo = {height_key(head): encode(self.undo)} if self.snapshot.count("undo") else {}
        for key in self._unlike("undo", undo):
            yield Fault(head, "undo", _height_text(key))
        meta = {
            b"format": FORMAT,
            b"genesis": encode(stored_genesis(self.snapshot)),
            b"signer": self.signer,
            b"head": height_key(head),
        }
        if self.base:
            meta[b"base"] = height_key(self.base)
        for key in self._unlike("meta", meta):
            yield Fault(head if key == b"head" else 0, "meta", key.decode("ascii", "replace"))

    def _unlike(self, table: str, expected: Mapping[bytes, bytes], *, values: bool = True) -> Iterator[bytes]:
        """Yield keys whose stored value is not the expected one, those that lack, and those too many."""
        seen = 0
        for key, value in self.snapshot.items(table):
            wanted = expected.get(key)
            if wanted is None or (values and wanted != value):
                yield key
            seen += wanted is not None
        if seen != len(expected):
            for key in expected:
                if self.snapshot.read(table, key) is None:
                    yield key

    def _named(self, key: bytes) -> tuple[str, str]:
        rules = rules_for(self.known, self.reader, self.height)
        return rules.name_key(key)


def _wires(data: bytes | None) -> tuple[bytes, ...]:
    wires: Any = msgspec.msgpack.decode(data or b"", type=tuple[bytes, ...])
    return wires  # type: ignore[no-any-return]


def _height_text(key: bytes) -> str:
    return str(int.from_bytes(key, "big")) if len(key) == 8 else key.hex()
