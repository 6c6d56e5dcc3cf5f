"""Checking signatures: in large chunks, beside execution where a verifier is given, each of them once."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from typing import Protocol

from gridpool.ledger.keys import verify
from gridpool.ledger.transaction import SignedMessage, Transaction, signed_messages

__all__ = ["CHUNK", "SignatureChecker", "Verifier", "all_hold"]

CHUNK = 500
"""Signatures handed over at once: a thread that has done its chunk waits for the interpreter, so chunks are long."""


class Verifier(Protocol):
    """Verifies signatures elsewhere: on another core."""

    def submit(self, messages: list[SignedMessage]) -> "Future[bytes]":
        """Return one byte for each message, 1 where its signature holds."""


class SignatureChecker:
    """Verifies the signatures of transactions and remembers those that held.

    The memory is keyed by transaction id *and* signature: the id leaves the signature out, so a copy with a forged
    signature must not profit from the original's check. It serves mempool check, proposal and execution.
    """

    def __init__(self, *, verifier: Verifier | None = None, remember: int = 100_000) -> None:
        """Use ``verifier``, or the calling thread; remember at most ``remember`` transactions."""
        self._verifier = verifier
        self._limit = remember
        self._verified: dict[bytes, bytes] = {}
        self._under_way: dict[bytes, tuple[Future[bytes], int]] = {}

    def prepare(self, transactions: Sequence[Transaction]) -> None:
        """Let the verifier begin with transactions that will be checked soon; does nothing without one."""
        if self._verifier is None:
            return
        if len(self._under_way) > self._limit:
            self._under_way.clear()  # prepared and never checked; they are verified again should they come back
        fresh = [t for t in transactions if self._verified.get(t.id) != t.signature and t.wire not in self._under_way]
        for at in range(0, len(fresh), CHUNK):
            chunk = fresh[at : at + CHUNK]
            answer = self._verifier.submit(signed_messages(chunk))
            first = 0
            for transaction in chunk:
                self._under_way[transaction.wire] = (answer, first)
                first += transaction.signature_count

    def checked(self, transactions: Sequence[Transaction]) -> Iterator[bool]:
        """Tell for each transaction in order whether its own and all delegated signatures hold, as soon as known."""
        self.prepare(transactions)
        for transaction in transactions:
            if self._verified.get(transaction.id) == transaction.signature:
                yield True
                continue
            under_way = self._under_way.pop(transaction.wire, None)
            held = all_hold(transaction) if under_way is None else _answer(transaction, *under_way)
            if held:
                self.remember(transaction)
            yield held

    def check(self, transactions: Sequence[Transaction]) -> list[bool]:
        """Tell for each transaction whether its own and all delegated signatures hold."""
        return list(self.checked(transactions))

    def remember(self, transaction: Transaction) -> None:
        """Note that all signatures of a transaction hold."""
        known = self._verified
        known[transaction.id] = transaction.signature
        if len(known) > self._limit:
            for old in list(known)[: self._limit // 8 + 1]:
                known.pop(old, None)


def all_hold(transaction: Transaction) -> bool:
    """Verify a transaction's own signature and those of the calls it carries for others."""
    return all(verify(public, signature, message) for public, signature, message in transaction.signed_messages())


def _answer(transaction: Transaction, answer: "Future[bytes]", first: int) -> bool:
    held = answer.result()
    count = transaction.signature_count
    return held[first : first + count] == b"\1" * count
