"""The ledger behind ABCI: what each of CometBFT's questions means for it.

Nothing is durable before Commit. Whatever ``PrepareProposal`` of a correct node builds, ``ProcessProposal`` of every
node accepts: both look only at the bytes of the transactions and their signatures, never at a node's own state.
"""

import base64
import binascii
import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from pathlib import Path

import msgspec

from gridpool.engines.abci import abci_pb2 as pb
from gridpool.engines.abci.messages import CHECKED, SOUND, checked, result, with_results
from gridpool.engines.abci.snapshots import FORMAT, Arrival, FalseSnapshot, Shelf
from gridpool.engines.engine import MAX_TRANSACTIONS
from gridpool.errors import AlteredState, RefusedInput, VerificationFault
from gridpool.ledger import failpoints
from gridpool.ledger.chain import CheckState, Ledger
from gridpool.ledger.contract import VALIDATORS, Refused
from gridpool.ledger.execution import Block
from gridpool.ledger.genesis import Genesis
from gridpool.ledger.state import State
from gridpool.ledger.tampering import altered_keys
from gridpool.ledger.transaction import Malformed
from gridpool.ledger.transition import Pending
from gridpool.ledger.types import decode, encode
from gridpool.ledger.view import KnownRules
from gridpool.version import __version__

__all__ = ["Application", "read_app_state", "write_app_state"]

log = logging.getLogger(__name__)

REFUSED = 1


class Application:
    """One ledger as an ABCI application. ``answer`` and ``check`` may be called from several threads."""

    def __init__(
        self,
        path: Path,
        known: KnownRules,
        *,
        on_commit: Callable[[Pending], None] = lambda _: None,
        admits: Callable[[State, str], bool] = lambda _state, _node: True,
        snapshot_interval: int = 0,
        retain_blocks: int = 0,
    ) -> None:
        """Use the ledger in the folder ``path``, or make it there when the engine brings genesis.

        ``admits`` says from the state whether a node (by identifier) may connect; ``snapshot_interval`` is the number
        of heights between snapshots, 0 for none; ``retain_blocks`` is how many blocks the engine need keep, 0 for all.
        """
        self.path = path
        self.known = known
        self.ledger: Ledger | None = Ledger.open(path, known) if path.exists() else None
        if self.ledger is not None:
            refuse_altered(self.ledger)
        self._on_commit = on_commit
        self._admits = admits
        self._retain_blocks = retain_blocks
        self._shelf = Shelf(path.with_name("snapshots"), interval=snapshot_interval)
        self._arrival: Arrival | None = None
        self._pending: Pending | None = None
        # Consensus and snapshot calls change the ledger and exclude each other; checks and queries read snapshots.
        self._consensus = threading.RLock()
        # Held for a check and for a commit: the state that is checked against stays open between them.
        self._checking = threading.Lock()
        self._check_state: CheckState | None = None
        self._handlers: dict[str, Callable[[pb.Request], pb.Response | bytes]] = {
            "info": self._info,
            "init_chain": self._init_chain,
            "prepare_proposal": self._prepare_proposal,
            "process_proposal": self._process_proposal,
            "finalize_block": self._finalize_block,
            "commit": self._commit,
            "query": self._query,
            "list_snapshots": self._list_snapshots,
            "load_snapshot_chunk": self._load_snapshot_chunk,
            "offer_snapshot": self._offer_snapshot,
            "apply_snapshot_chunk": self._apply_snapshot_chunk,
            "extend_vote": lambda _: pb.Response(extend_vote=pb.ResponseExtendVote()),
            "verify_vote_extension": lambda _: pb.Response(
                verify_vote_extension=pb.ResponseVerifyVoteExtension(status=pb.ResponseVerifyVoteExtension.ACCEPT)
            ),
        }

    def answer(self, request: pb.Request) -> pb.Response | bytes:
        """Answer one request other than CheckTx; raises where the node must stop."""
        return self._handlers[request.WhichOneof("value") or ""](request)

    def check(self, wires: Sequence[bytes]) -> list[bytes]:
        """Answer a CheckTx for each transaction, as the responses' bytes.

        Whether the engine asks for the first time or again after a block makes no difference: a signature that has
        held is not verified again.
        """
        with self._checking:
            if self._check_state is None:
                self._check_state = self._open().check_state()
            return [CHECKED if refusal is None else _refused(refusal) for refusal in self._check_state.check(wires)]

    def close(self) -> None:
        """Close the ledger."""
        with self._checking:
            self._end_checks()
            if self.ledger is not None:
                self.ledger.close()

    def _end_checks(self) -> None:
        if self._check_state is not None:
            self._check_state.close()
            self._check_state = None

    def give_up_arrival(self, patience_s: float) -> int | None:
        """Set the snapshot aside of which only wrong chunks came for ``patience_s``; returns its height, or None.

        The engine must then begin anew: it never asks those again whom it was told to reject.
        """
        with self._consensus:
            if self._arrival is None or not self._arrival.stalled(patience_s):
                return None
            height = self._arrival.height
            self._arrival.set_aside()
            self._arrival = None
            return height

    def _open(self) -> Ledger:
        if self.ledger is None:
            raise RefusedInput("the engine has not brought genesis yet")
        return self.ledger

    def _info(self, _: pb.Request) -> pb.Response:
        info = pb.ResponseInfo(data="gridpool", version=__version__)
        if self.ledger is not None:
            with self._consensus:
                info.last_block_height = self.ledger.height
                info.last_block_app_hash = self.ledger.app_hash if self.ledger.height else b""
        return pb.Response(info=info)

    def _init_chain(self, request: pb.Request) -> pb.Response:
        asked = request.init_chain
        genesis = read_app_state(asked.app_state_bytes)
        if genesis.chain != asked.chain_id:
            raise RefusedInput(f"genesis is of chain {genesis.chain}, the engine runs {asked.chain_id}")
        with self._consensus:
            if self.ledger is None:
                failpoints.reach("abci.init_chain")
                self.ledger = Ledger.create(self.path, genesis, self.known)
            elif self.ledger.genesis != genesis or self.ledger.height:
                raise RefusedInput("the engine brings genesis to a ledger that has begun; give the node a fresh home")
            answer = pb.ResponseInitChain(app_hash=self.ledger.app_hash)
        answer.validators.extend(_updates(genesis.validators))
        return pb.Response(init_chain=answer)

    def _prepare_proposal(self, request: pb.Request) -> pb.Response:
        ledger = self._open()
        asked = request.prepare_proposal
        chosen: list[bytes] = []
        size = 0
        sound = {tx.id: tx for tx in ledger.sound(asked.txs[:MAX_TRANSACTIONS])}
        for transaction in sound.values():
            # What a transaction takes in a block: its bytes, a tag and a length of at most five bytes.
            size += len(transaction.wire) + 6
            if size > asked.max_tx_bytes:
                break
            chosen.append(transaction.wire)
        return pb.Response(prepare_proposal=pb.ResponsePrepareProposal(txs=chosen))

    def _process_proposal(self, request: pb.Request) -> pb.Response:
        ledger = self._open()
        wires = request.process_proposal.txs
        sound = ledger.sound(wires)
        good = len(sound) == len(wires) and len({tx.id for tx in sound}) == len(sound)
        status = pb.ResponseProcessProposal.ACCEPT if good else pb.ResponseProcessProposal.REJECT
        return pb.Response(process_proposal=pb.ResponseProcessProposal(status=status))

    def _finalize_block(self, request: pb.Request) -> bytes:
        asked = request.finalize_block
        with self._consensus:
            ledger = self._open()
            block = Block(
                asked.height, asked.time.ToMilliseconds(), tuple(asked.txs), _culprits(ledger, asked.misbehavior)
            )
            self._pending = pending = ledger.execute(block)
            failpoints.reach("abci.finalized")
        answer = pb.ResponseFinalizeBlock(app_hash=pending.app_hash)
        answer.validator_updates.extend(_updates(pending.executed.validators))
        # Only code and data enter CometBFT's results hash, so the code must not depend on a node.
        receipts = pending.executed.receipts[: len(asked.txs)]
        return with_results(answer, (SOUND if receipt.ok else result(REFUSED, receipt.code) for receipt in receipts))

    def _commit(self, _: pb.Request) -> pb.Response:
        with self._consensus:
            pending, self._pending = self._pending, None
            if pending is None:
                raise RefusedInput("the engine commits a block that it has not finalized")
            ledger = self._open()
            failpoints.reach("abci.committing")
            with self._checking:
                self._end_checks()
                ledger.commit(pending)
            failpoints.reach("abci.committed")
        self._on_commit(pending)
        self._shelf.committed(pending.header.height, ledger.view())
        retained = pending.header.height - self._retain_blocks + 1 if self._retain_blocks else 0
        return pb.Response(commit=pb.ResponseCommit(retain_height=max(0, retained)))

    def _query(self, request: pb.Request) -> pb.Response:
        """Answer the engine's own question, whether a peer may connect; members ask over HTTP, with proofs."""
        asked = request.query
        answer = pb.ResponseQuery()
        if asked.path.startswith("/p2p/filter/id/") and self.ledger is not None:
            with self.ledger.view() as view:
                if not self._admits(view.state, asked.path.removeprefix("/p2p/filter/id/").lower()):
                    answer.code, answer.log = REFUSED, "not a member's node"
        elif not asked.path.startswith("/p2p/filter/"):
            answer.code, answer.log = REFUSED, "ask the node's HTTP face"
        return pb.Response(query=answer)

    def _list_snapshots(self, _: pb.Request) -> pb.Response:
        return pb.Response(list_snapshots=pb.ResponseListSnapshots(snapshots=self._shelf.offered()))

    def _load_snapshot_chunk(self, request: pb.Request) -> pb.Response:
        asked = request.load_snapshot_chunk
        chunk = self._shelf.chunk(asked.height, asked.chunk) if asked.format == FORMAT else b""
        return pb.Response(load_snapshot_chunk=pb.ResponseLoadSnapshotChunk(chunk=chunk))

    def _offer_snapshot(self, request: pb.Request) -> pb.Response:
        asked = request.offer_snapshot
        with self._consensus:
            if self._arrival is not None:
                self._arrival.abandon()
                self._arrival = None
            try:
                if self.ledger is not None:
                    raise RefusedInput("this node has a ledger already")
                self._arrival = Arrival(self.path, self.known, asked.snapshot, asked.app_hash)
                result = pb.ResponseOfferSnapshot.ACCEPT
            except RefusedInput as error:
                log.warning("snapshot of height %d refused: %s", asked.snapshot.height, error)
                result = pb.ResponseOfferSnapshot.REJECT
        return pb.Response(offer_snapshot=pb.ResponseOfferSnapshot(result=result))

    def _apply_snapshot_chunk(self, request: pb.Request) -> pb.Response:
        asked = request.apply_snapshot_chunk
        answer = pb.ResponseApplySnapshotChunk(result=pb.ResponseApplySnapshotChunk.ACCEPT)
        with self._consensus:
            if self._arrival is None:
                answer.result = pb.ResponseApplySnapshotChunk.ABORT
                return pb.Response(apply_snapshot_chunk=answer)
            try:
                if self._arrival.apply(asked.index, asked.chunk, asked.sender):
                    self._arrival = None
                    self.ledger = Ledger.open(self.path, self.known)
            except FalseSnapshot as error:
                log.warning("the snapshot is false and refused: %s", error)
                self._arrival = None
                answer.result = pb.ResponseApplySnapshotChunk.REJECT_SNAPSHOT
            except VerificationFault as error:
                log.warning("snapshot chunk %d from %s refused: %s", asked.index, asked.sender, error)
                answer.result = pb.ResponseApplySnapshotChunk.RETRY
                answer.refetch_chunks.append(asked.index)
                if asked.sender:
                    answer.reject_senders.append(asked.sender)
        return pb.Response(apply_snapshot_chunk=answer)


def _culprits(ledger: Ledger, misbehavior: Iterable[pb.Misbehavior]) -> tuple[bytes, ...]:
    """Return the keys of the validators that the engine names by their addresses."""
    named = [item.validator.address for item in misbehavior]
    if not named:
        return ()
    with ledger.view() as view:
        keys = {sha256(key).digest()[:20]: key for key, _ in view.state.scan(VALIDATORS)}
    return tuple(keys[address] for address in dict.fromkeys(named) if address in keys)


def refuse_altered(ledger: Ledger) -> None:
    """Raise AlteredState, naming the first differing key, where stored state is not what its header commits to."""
    with ledger.view() as view:
        keys = altered_keys(view)
        if keys:
            table, text = ledger.rules(view.snapshot, view.height + 1).name_key(keys[0])
            raise AlteredState(
                f"stored state differs from what height {view.height} committed to: {table} {text} and "
                f"{len(keys) - 1} more; restore this node from a snapshot or another node"
            )


def write_app_state(genesis: Genesis) -> str:
    """Return genesis as the ``app_state`` of CometBFT's genesis file: base64 of its canonical bytes."""
    return base64.b64encode(encode(genesis)).decode("ascii")


def read_app_state(data: bytes) -> Genesis:
    """Read what ``write_app_state`` wrote, as the engine hands it over (a JSON string); raises RefusedInput."""
    try:
        return decode(base64.b64decode(msgspec.json.decode(data, type=str), validate=True), Genesis)
    except (msgspec.DecodeError, binascii.Error) as error:
        raise RefusedInput(f"the app_state of the engine's genesis file is no gridpool genesis: {error}") from None


def _refused(refusal: Malformed | Refused) -> bytes:
    if isinstance(refusal, Malformed):
        return checked(REFUSED, "malformed", str(refusal))
    return checked(REFUSED, refusal.code, refusal.info)


def _updates(validators: tuple[tuple[bytes, int], ...]) -> list[pb.ValidatorUpdate]:
    return [pb.ValidatorUpdate(pub_key=pb.PublicKey(ed25519=key), power=power) for key, power in validators]
