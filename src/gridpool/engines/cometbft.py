"""The CometBFT engine: this process holds ledger and application, the engine's own process orders.

``supervisor`` keeps the two alive together; here is what a client or the HTTP face sees of them.
"""

import os
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

from gridpool.engines.abci.application import Application
from gridpool.engines.abci.server import Server
from gridpool.engines.cometbft_rpc import Rpc, RpcError
from gridpool.engines.engine import Accepted, Refusal, Sealed
from gridpool.engines.feed import BlockFeed, RecentBlocks
from gridpool.errors import GridpoolError, MissingComponent, RefusedInput
from gridpool.ledger.chain import Ledger
from gridpool.ledger.state import State
from gridpool.ledger.transaction import Receipt, transaction_id
from gridpool.ledger.transition import Pending
from gridpool.ledger.view import KnownRules, View

__all__ = ["CometBFT", "find_cometbft"]

VERSION = "0.38.25"
CHUNK_PATIENCE_S = 20.0
COUNT_S = 0.5
"""How long the engine has to say what waits: a node whose engine stands still must go on answering."""


def find_cometbft() -> Path:
    """Return the CometBFT binary: the one that ``GRIDPOOL_COMETBFT`` names, that ``scripts/install-engines`` built, or
    one on the path.

    Raises MissingComponent saying how to get it.
    """
    named = os.environ.get("GRIDPOOL_COMETBFT")
    if named is not None:
        if not os.access(named, os.X_OK):
            raise MissingComponent(f"GRIDPOOL_COMETBFT names {named}, which is no program")
        return Path(named)
    for folder in (Path.cwd(), *Path(__file__).resolve().parents):
        built = folder / ".tools" / "bin" / "cometbft"
        if built.is_file():
            return built
    found = shutil.which("cometbft")
    if found is None:
        raise MissingComponent(
            f"CometBFT is not on this machine; run scripts/install-engines, or put cometbft {VERSION} on the path"
        )
    return Path(found)


class CometBFT:
    """The application side of one node. Close it when done."""

    name = "cometbft"

    def __init__(
        self,
        home: Path,
        known: KnownRules,
        *,
        rpc_port: int,
        admits: Callable[[State, str], bool] = lambda _state, _node: True,
        snapshot_interval: int = 1_000,
        retain_blocks: int = 0,
        idle_s: int = 2,
    ) -> None:
        """Serve the ledger in ``home/ledger`` to the engine that connects to ``home/abci.sock``.

        ``admits``, ``snapshot_interval`` and ``retain_blocks`` are as in ``Application``; ``idle_s`` is how long the
        engine waits with a block without transactions.
        """
        self._news = threading.Condition()
        self._recent = RecentBlocks()
        self._newest: int | None = None
        self._last_block_s = time.monotonic()
        self._stale_after_s = 2.0 * idle_s + 2.0
        self._application = Application(
            home / "ledger",
            known,
            on_commit=self._committed,
            admits=admits,
            snapshot_interval=snapshot_interval,
            retain_blocks=retain_blocks,
        )
        self._rpc = Rpc(rpc_port)
        self._counting = Rpc(rpc_port, timeout_s=COUNT_S)
        self._server = Server(home / "abci.sock", self._application.answer, self._application.check)

    @property
    def ledger(self) -> Ledger:
        """The ledger; raises RefusedInput before the engine has brought genesis."""
        if self._application.ledger is None:
            raise RefusedInput("the engine has not brought genesis yet; it starts when enough validators are up")
        return self._application.ledger

    @property
    def height(self) -> int:
        """Height of the last durable block."""
        return self.ledger.height

    @property
    def app_hash(self) -> bytes:
        """Application hash of that height."""
        return self.ledger.app_hash

    @property
    def waiting(self) -> int:
        """Number of transactions in the engine's mempool, 0 where it does not answer."""
        try:
            return int(self._counting.call("num_unconfirmed_txs")["total"])
        except (RpcError, KeyError, TypeError, ValueError):
            return 0

    @property
    def failure(self) -> str | None:
        """Why the application has stopped, None while it works."""
        return None if self._server.failure is None else str(self._server.failure)

    @property
    def fault(self) -> BaseException | None:
        """The error that stopped the application."""
        return self._server.failure

    @property
    def stale(self) -> bool:
        """Whether no block has come for longer than a consortium in touch needs for one."""
        return time.monotonic() - self._last_block_s > self._stale_after_s

    @property
    def closed(self) -> bool:
        """Whether the engine was closed or has stopped."""
        return self._server.wait(0.0)

    def has_begun(self, timeout_s: float) -> bool:
        """Wait until the engine has brought genesis or a snapshot; tells whether it has.

        Raises GridpoolError where nobody has the chunks of the snapshot it began with; a restart takes another.
        """
        end = time.monotonic() + timeout_s
        while self._application.ledger is None and time.monotonic() < end and not self.closed:
            height = self._application.give_up_arrival(CHUNK_PATIENCE_S)
            if height is not None:
                raise GridpoolError(
                    f"the nodes that offer the snapshot of height {height} send chunks that do not belong to it; it is "
                    "set aside and the node starts anew with another, as soon as one is offered"
                )
            time.sleep(0.02)
        return self._application.ledger is not None

    def stopped(self, timeout_s: float | None = None) -> bool:
        """Wait until the application has stopped."""
        return self._server.wait(timeout_s)

    def backup(self, folder: Path) -> dict[str, object]:
        """Copy the live ledger into a new folder under ``folder``; returns its ``path``, ``height``, ``app_hash``."""
        return self.ledger.backup(folder)

    def view(self) -> AbstractContextManager[View]:
        """Read the ledger at its present height."""
        return self.ledger.view()

    def submit(self, wire: bytes) -> Accepted | Refusal:
        """Hand a transaction to the engine's mempool, which checks it here."""
        return self.submit_all([wire])[0]

    def submit_all(self, wires: list[bytes]) -> list[Accepted | Refusal]:
        """Hand several transactions over in one request."""
        try:
            results = self._rpc.broadcast(wires)
        except RpcError as error:
            return [Refusal("unavailable", str(error))] * len(wires)
        answers: list[Accepted | Refusal] = []
        for wire, result in zip(wires, results, strict=True):
            if result.code == 0:
                answers.append(Accepted(transaction_id(wire[64:])))
            else:
                answers.append(Refusal(result.codespace, result.log))
        return answers

    def wait(self, tx_id: bytes, *, timeout_s: float = 30.0) -> Receipt | None:
        """Return the receipt once its block is durable, or None where it is not in time."""
        end = time.monotonic() + timeout_s
        while True:
            height = self.height
            with self.view() as view:
                receipt = view.receipt(tx_id)
            left = end - time.monotonic()
            if receipt is not None or left <= 0:
                return receipt
            with self._news:
                self._news.wait_for(partial(self._beyond, height), left)

    def subscribe(self, *, after: int | None = None) -> BlockFeed:
        """Follow the blocks above height ``after`` (by default: those to come), none left out."""
        return BlockFeed(self, self.height if after is None else after)

    def next_block(self, after: int, timeout_s: float) -> Sealed | None:
        """Return the block of height ``after + 1``, waiting for it up to ``timeout_s``."""
        with self._news:
            # A block is in the ledger a moment before it is at hand, and from the store it comes without its changes.
            if not self._news.wait_for(lambda: (self._newest or self.height) > after, timeout_s):
                return None
            found = self._recent.find(after + 1)
            if found is not None:
                return found
        with self.view() as view:
            header = view.header(after + 1).header
            return Sealed(header.height, header.time_ms, header.app_hash, view.receipts(after + 1))

    def _beyond(self, height: int) -> bool:
        return self.height > height

    def close(self) -> None:
        """Stop serving the engine and close the ledger."""
        self._server.stop()
        self._rpc.close()
        self._counting.close()
        self._application.close()

    def _committed(self, pending: Pending) -> None:
        header = pending.header
        self._last_block_s = time.monotonic()
        executed = pending.executed
        sealed = Sealed(
            header.height, header.time_ms, header.app_hash, executed.receipts, changed=tuple(executed.changes)
        )
        with self._news:
            self._recent.add(sealed)
            self._newest = sealed.height
            self._news.notify_all()
