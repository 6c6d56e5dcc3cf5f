"""The ledger over its store: execute a block without writing anything, then commit it whole."""

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import msgspec

from gridpool.errors import RefusedInput
from gridpool.ledger.block import SignedHeader, seal
from gridpool.ledger.contract import Refused
from gridpool.ledger.execution import Block, Executed, Executor
from gridpool.ledger.genesis import Genesis
from gridpool.ledger.keys import KeyPair
from gridpool.ledger.rules import Rules
from gridpool.ledger.signatures import SignatureChecker, Verifier
from gridpool.ledger.state import Reader, RememberingReader
from gridpool.ledger.store import FORMAT, Store, Writer, give_name, refuse_taken
from gridpool.ledger.transaction import Malformed, Transaction
from gridpool.ledger.transition import Pending, begin, transition
from gridpool.ledger.tree import Nodes, update
from gridpool.ledger.types import Value, encode
from gridpool.ledger.view import KnownRules, View, by_version, height_key, rules_for, stored_genesis, walking_the_tree

__all__ = ["CheckState", "Ledger", "Undo", "new_places"]


class Undo(Value):
    """What the last block changed, as it was before: state by key, places by transaction."""

    state: tuple[tuple[bytes, bytes | None], ...]
    places: tuple[tuple[bytes, bytes | None], ...]


class Ledger:
    """One chain's ledger. Engines decide the blocks; the ledger carries them out and stores them.

    ``execute`` leaves no trace; ``commit`` writes one height or nothing. One process at a time may commit.
    """

    def __init__(
        self, store: Store, known: KnownRules, *, signer: KeyPair | None = None, verifier: Verifier | None = None
    ) -> None:
        """Use ``Ledger.create`` or ``Ledger.open``."""
        self.store = store
        self.known = by_version(known)
        self.signer = signer
        self.signatures = SignatureChecker(verifier=verifier)
        self._executors: dict[int, Executor] = {}
        with self.view() as view:
            self.genesis = stored_genesis(view.snapshot)
            self._head = view.header(view.height)
        named = self.signer_key
        if signer is not None and named != signer.public:
            raise RefusedInput(f"the node key {signer.public.hex()} is not the one this ledger was made with")

    @classmethod
    def create(
        cls,
        path: Path,
        genesis: Genesis,
        known: KnownRules,
        *,
        signer: KeyPair | None = None,
        verifier: Verifier | None = None,
        map_size: int | None = None,
        signed_by: tuple[bytes, bytes] | None = None,
    ) -> "Ledger":
        """Make a ledger in the new folder ``path`` and store its height 0.

        ``signer`` signs headers (embedded engine); a copy of another node's ledger is ``signed_by`` that node's public
        key, with its signature of height 0. Raises RefusedInput where the folder is taken or the rules version of
        genesis is not known.
        """
        versions = by_version(known)
        start = begin(genesis, versions)
        refuse_taken(path)
        partial = path.with_name(path.name + ".partial")  # a folder of the right name is a whole ledger
        if partial.exists():
            shutil.rmtree(partial)
        store = Store.create(partial) if map_size is None else Store.create(partial, map_size=map_size)

        def work(writer: Writer) -> None:
            writer.put("meta", b"format", FORMAT)
            writer.put("meta", b"genesis", encode(genesis))
            public, signature = signed_by or (
                b"" if signer is None else signer.public,
                seal(start.header, signer).signature,
            )
            writer.put("meta", b"signer", public)
            write_block(writer, start, SignedHeader(start.header, signature))

        try:
            store.write(work)
        finally:
            store.close()
        give_name(partial, path, "ledger")
        return cls(Store.open(path), versions, signer=signer, verifier=verifier)

    @classmethod
    def open(
        cls,
        path: Path,
        known: KnownRules,
        *,
        signer: KeyPair | None = None,
        verifier: Verifier | None = None,
        writable: bool = True,
    ) -> "Ledger":
        """Open a ledger; raises RefusedInput where there is none, or the key is not its own."""
        store = Store.open(path, writable=writable)
        try:
            return cls(store, known, signer=signer, verifier=verifier)
        except BaseException:
            store.close()
            raise

    def close(self) -> None:
        """Close the store."""
        self.store.close()

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def head(self) -> SignedHeader:
        """The last header."""
        return self._head

    @property
    def height(self) -> int:
        """Height of the last block."""
        return self._head.header.height

    @property
    def app_hash(self) -> bytes:
        """The last application hash."""
        return self._head.header.app_hash

    @property
    def signer_key(self) -> bytes:
        """The public key that signs headers, empty where an engine's validators do."""
        with self.store.snapshot() as snapshot:
            return snapshot.read("meta", b"signer") or b""

    @contextmanager
    def view(self) -> Iterator[View]:
        """Read the ledger at its present height; never waits for execution."""
        with self.store.snapshot() as snapshot:
            yield View(snapshot)

    def rules(self, reader: Reader, height: int) -> Rules:
        """Return the rules in force at ``height``; raises RefusedInput where this node does not know them."""
        return rules_for(self.known, reader, height)

    def decode(self, wire: bytes) -> Transaction:
        """Decode a transaction for the next height; raises Malformed."""
        with self.store.snapshot() as snapshot:
            return self.executor(snapshot, self.height + 1).decode(wire)

    def check(self, wire: bytes) -> Transaction:
        """Do the mempool's checks of a transaction meant for the next block.

        Raises Malformed or Refused (its ``code`` is what a receipt would say).
        """
        with self.store.snapshot() as snapshot:
            height = View(snapshot).height + 1
            executor = self.executor(snapshot, height)
            transaction = executor.decode(wire)
            executor.check(snapshot, transaction, height)
            return transaction

    def check_state(self) -> "CheckState":
        """Return the mempool's view of the present height, for many checks; close it before the next commit."""
        return CheckState(self)

    def sound(self, wires: Iterable[bytes]) -> list[Transaction]:
        """Return the transactions that decode under the next height's rules and whose signatures hold, in order."""
        with self.store.snapshot() as snapshot:
            executor = self.executor(snapshot, self.height + 1)
        decoded = []
        for wire in wires:
            with suppress(Malformed):
                decoded.append(executor.known(wire))
        return [tx for tx, held in zip(decoded, executor.hold(decoded), strict=True) if held]

    def prepare(self, wires: Iterable[bytes]) -> None:
        """Begin to decode and verify transactions of a block to come, while another one is executed."""
        with self.store.snapshot() as snapshot:
            self.executor(snapshot, self.height + 1).prepare(wires)

    def execute(self, block: Block) -> Pending:
        """Carry out the next block over the committed state; nothing is written.

        Raises RefusedInput for a height that is not the next one or whose rules are not known, ContractFault for a bug
        in a contract, AlteredState where it would change what was altered behind the tree's back.
        """
        head = self._head.header
        if block.height != head.height + 1:
            raise RefusedInput(f"block {block.height} does not follow height {head.height}")
        with self.store.snapshot() as snapshot, walking_the_tree():
            return transition(self.executor(snapshot, block.height), snapshot, snapshot.node, head, block)

    def commit(self, pending: Pending, *, signature: bytes | None = None) -> SignedHeader:
        """Store an executed block durably, in one write transaction; returns its header.

        The header is signed by this ledger's signer, or carries the ``signature`` that was given to it elsewhere.
        """
        signed = seal(pending.header, self.signer) if signature is None else SignedHeader(pending.header, signature)

        def work(writer: Writer) -> None:
            if writer.read("meta", b"head") != height_key(pending.header.height - 1):
                raise RefusedInput(f"{self.store.path}: the ledger has moved on; another process writes to it")
            write_block(writer, pending, signed)

        self.store.write(work)
        self._head = signed
        return signed

    def rollback(self) -> SignedHeader:
        """Take the last block back; possible once, until the next block. Returns the header that is last again."""
        height = self.height

        def work(writer: Writer) -> None:
            undo = writer.read("undo", height_key(height))
            if height == 0 or undo is None:
                raise RefusedInput(f"height {height} cannot be taken back: only the block committed last can, once")
            before = msgspec.msgpack.decode(undo, type=Undo)
            changes = dict(before.state)
            with walking_the_tree():
                _, nodes = update(writer.node, changes)
            write_changes(writer, changes, nodes)
            key = height_key(height)
            for tx_id, place in before.places:
                if place is None:
                    writer.delete("transaction", tx_id)
                else:
                    writer.put("transaction", tx_id, place)
            for table in ("header", "body", "receipt", "undo"):
                writer.delete(table, key)
            writer.put("meta", b"head", height_key(height - 1))

        self.store.write(work)
        with self.view() as view:
            self._head = view.header(view.height)
        return self._head

    def backup(self, folder: Path) -> dict[str, object]:
        """Copy the live ledger into a new folder under ``folder``; returns its ``path``, ``height``, ``app_hash``.

        The copy holds one whole height, whatever is committed meanwhile, and opens like any ledger.
        """
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / "backup.partial"
        if partial.exists():
            shutil.rmtree(partial)
        self.store.copy(partial)
        with Ledger.open(partial, self.known, writable=False) as copy:
            head = copy.head.header
        target = folder / f"height-{head.height}"
        if target.exists():
            shutil.rmtree(partial)  # one height needs no second backup
        else:
            give_name(partial, target, "backup")
        return {"path": str(target), "height": head.height, "app_hash": head.app_hash.hex()}

    def executor(self, reader: Reader, height: int) -> Executor:
        """Return what carries out blocks under the rules in force at ``height``; raises RefusedInput."""
        rules = self.rules(reader, height)
        executor = self._executors.get(rules.version)
        if executor is None:
            executor = self._executors[rules.version] = Executor(rules, self.genesis, self.signatures)
        return executor


class CheckState:
    """The mempool's checks over one height, whose snapshot stays open: a check then costs little but its signature.

    One thread at a time. It must be closed before the ledger commits, because a store that has to grow waits for
    its readers.
    """

    def __init__(self, ledger: Ledger) -> None:
        """Use ``Ledger.check_state``."""
        self._open = ExitStack()
        snapshot = self._open.enter_context(ledger.store.snapshot())
        try:
            height = View(snapshot).height + 1
            self._executor = ledger.executor(snapshot, height)
            # The mempool asks again after each block, and about the same senders.
            self._admit = self._executor.admitter(RememberingReader(snapshot), height)
        except BaseException:
            self._open.close()
            raise

    def check(self, wires: Sequence[bytes]) -> list[Malformed | Refused | None]:
        """Check transactions meant for the next block as ``Ledger.check`` does; tells of each why it is refused."""
        answers: list[Malformed | Refused | None] = []
        admitted: list[Transaction] = []
        places: list[int] = []
        for place, wire in enumerate(wires):
            answer: Malformed | Refused | None = None
            try:
                transaction = self._executor.known(wire)
                self._admit(transaction)
                admitted.append(transaction)
                places.append(place)
            except (Malformed, Refused) as refusal:
                answer = refusal
            answers.append(answer)
        for place, holds in zip(places, self._executor.hold(admitted), strict=True):
            if not holds:
                answers[place] = Refused("bad_signature")
        return answers

    def close(self) -> None:
        """Close the snapshot."""
        self._open.close()


def write_block(writer: Writer, pending: Pending, signed: SignedHeader) -> None:
    """Write everything that a height adds."""
    executed = pending.executed
    height = pending.header.height
    key = height_key(height)
    places = new_places(executed, lambda tx_id: writer.read("transaction", tx_id))
    old = [(tx_id, writer.read("transaction", tx_id)) for tx_id in places]
    writer.put("undo", key, encode(Undo(tuple(pending.before.items()), tuple(old))))
    if height:
        writer.delete("undo", height_key(height - 1))
    write_changes(writer, executed.changes, pending.nodes)
    writer.put("header", key, encode(signed))
    writer.put("body", key, encode(executed.block.transactions))
    writer.put("receipt", key, encode(pending.receipts))
    writer.put_many("transaction", list(places.items()))
    writer.put("meta", b"head", key)


def new_places(executed: Executed, known: Callable[[bytes], bytes | None]) -> dict[bytes, bytes]:
    """Return what a block adds to the index of transactions, in order of identifiers.

    A transaction that was not carried out must not take the place of one that was: a copy with a forged signature has
    the same identifier.
    """
    key = height_key(executed.block.height)
    places: dict[bytes, bytes] = {}
    for position, receipt in enumerate(executed.receipts[: len(executed.block.transactions)]):
        if executed.carried_out[position] or (receipt.tx not in places and known(receipt.tx) is None):
            places[receipt.tx] = key + position.to_bytes(4, "big")
    return dict(sorted(places.items()))


def write_changes(writer: Writer, changes: Mapping[bytes, bytes | None], nodes: Nodes) -> None:
    """Write changed state and tree nodes."""
    for key, value in changes.items():
        if value is None:
            writer.delete("state", key)
    writer.put_many("state", [(key, value) for key, value in changes.items() if value is not None])
    kept = []
    for prefix in sorted(nodes):
        data = nodes[prefix]
        if data is None:
            writer.delete("tree", prefix)
        else:
            kept.append((prefix, data))
    writer.put_many("tree", kept)
