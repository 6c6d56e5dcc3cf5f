"""A member's way to a ledger: the state it reads, and the transactions it signs and sees through to their receipt."""

import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Protocol

from gridpool.agents.wallet_keys import WalletKeys
from gridpool.contracts import RULES, members
from gridpool.engines.embedded import Embedded
from gridpool.engines.engine import Refusal
from gridpool.engines.network import node_file_at
from gridpool.errors import RefusedInput
from gridpool.ledger.chain import Ledger
from gridpool.ledger.contract import NONCES
from gridpool.ledger.execution import market_time
from gridpool.ledger.keys import KeyPair
from gridpool.ledger.state import State
from gridpool.ledger.transaction import Delegated, Receipt, sign
from gridpool.ledger.types import Call
from gridpool.ledger.view import locate

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["HomeSession", "Session", "open_session", "signer_of"]

Mode = Literal["atomic", "each"]
VALID_BLOCKS = 1_000
"""A transaction that is in no block after so many will never be."""


class Session(Protocol):
    """A ledger as a member sees it."""

    @property
    def chain(self) -> str:
        """Name of the chain, part of everything signed."""

    @property
    def state(self) -> State:
        """The state at the present height."""

    @property
    def now(self) -> int:
        """Market time in ms."""

    def submit(
        self, key: KeyPair, *calls: Call | Delegated[Any], mode: Literal["atomic", "each"] = "atomic"
    ) -> Receipt:
        """Sign calls, send them, and return their receipt; raises RefusedInput where the ledger refuses them."""


class HomeSession:
    """A ledger in a node's home folder on this machine, with no node running: each submission seals a block."""

    def __init__(self, home: Path, *, writable: bool) -> None:
        """Open the ledger of a node's home (or of a day's folder, for reading); use it as a context manager."""
        self._home = home
        self._stack = ExitStack()
        self._engine: Embedded | None = None
        if writable:
            self._engine = self._stack.enter_context(Embedded.open(home, RULES, interval_ms=None))
            self._ledger = self._engine.ledger
        else:
            self._ledger = Ledger.open(locate(home), RULES, writable=False)
            self._stack.callback(self._ledger.close)
        self._view = self._open_view()

    def __enter__(self) -> "HomeSession":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._views.close()
        self._stack.close()

    @property
    def chain(self) -> str:
        """Name of the chain."""
        return self._ledger.genesis.chain

    @property
    def state(self) -> State:
        """The state at the present height."""
        return self._view

    @property
    def now(self) -> int:
        """Market time in ms."""
        return market_time(self.state)

    @property
    def height(self) -> int:
        """Height of the last block."""
        return self._ledger.height

    def submit(
        self, key: KeyPair, *calls: Call | Delegated[Any], mode: Literal["atomic", "each"] = "atomic"
    ) -> Receipt:
        """Sign calls, seal them into a block, and return their receipt; raises RefusedInput where refused."""
        if self._engine is None:
            raise RefusedInput(f"{self._home} was opened for reading only")
        used = self.state.get(NONCES, key.public)
        nonce = 1 + (0 if used is None else used.number)
        transaction = sign(key, self.chain, nonce, self.height + VALID_BLOCKS, calls, mode=mode)
        answer = self._engine.submit(transaction.wire)
        if isinstance(answer, Refusal):
            raise _refused(answer.code, answer.info)
        head = self._ledger.head.header.time_ms
        sealed = self._engine.seal(max(head, time.time_ns() // 1_000_000))
        self._views.close()
        self._view = self._open_view()
        receipt = next(receipt for receipt in sealed.receipts if receipt.tx == transaction.id)
        if not receipt.ok:
            raise _refused(receipt.code, receipt.info)
        return receipt

    def _open_view(self) -> State:
        self._views = ExitStack()
        return self._views.enter_context(self._ledger.view()).state


@contextmanager
def open_session(home: Path | None, url: str | None, *, writable: bool = True) -> "Iterator[Session]":
    """Open the ledger in a node's home, or behind a node's HTTP face; raises RefusedInput unless one is given.

    A consortium node's home is written to through its running node, which hands on to the others.
    """
    if (home is None) == (url is None):
        raise RefusedInput("say which ledger: give either --home DIR or --url URL")
    if home is not None and writable and (node := node_file_at(home)) is not None:
        url = f"http://127.0.0.1:{node.ports.http}"
    if url is not None:
        from gridpool.agents.wallet_remote import RemoteSession

        with RemoteSession(url) as remote:
            yield remote
        return
    with HomeSession(home or Path(), writable=writable) as session:
        yield session


def signer_of(session: Session, keys: WalletKeys, number: int | None) -> KeyPair:
    """Choose the key that acts: wallet ``number``, or the certificate key where that is a public wallet or a seat.

    Without a number, a member without public wallet acts through its first pseudonymous wallet in force.
    """
    if number is not None:
        return keys.wallet(number)
    public = keys.certificate.public
    state = session.state
    if state.get(members.WALLETS, public) is not None or state.get(members.SEATS, public) is not None:
        return keys.certificate
    for candidate in range(64):
        record = state.get(members.WALLETS, keys.wallet(candidate).public)
        if record is not None and not record.successor:
            return keys.wallet(candidate)
    return keys.wallet(0)


def _refused(code: str, info: str) -> RefusedInput:
    return RefusedInput(f"the ledger refused this: {code.replace('_', ' ')}" + (f" ({info})" if info else ""))
