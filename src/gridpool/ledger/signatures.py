"""Checking signatures: in chunks, outside Python's lock, each of them once."""

from collections.abc import Sequence
from concurrent.futures import Executor

from gridpool.ledger.keys import verify
from gridpool.ledger.transaction import Transaction

__all__ = ["SignatureChecker"]

CHUNK = 256


class SignatureChecker:
    """Verifies the signatures of transactions and remembers those that held.

    The memory is keyed by transaction id *and* signature: the id leaves the signature out, so a copy with a forged
    signature must not profit from the original's check. It serves mempool check, proposal and execution.
    """

    def __init__(self, *, pool: Executor | None = None, remember: int = 100_000) -> None:
        """Use the threads of ``pool``, or the calling thread; remember at most ``remember`` transactions."""
        self._pool = pool
        self._limit = remember
        self._verified: dict[bytes, bytes] = {}

    def check(self, transactions: Sequence[Transaction]) -> list[bool]:
        """Tell for each transaction whether its own and all delegated signatures hold."""
        known = self._verified
        fresh = [i for i, tx in enumerate(transactions) if known.get(tx.id) != tx.wire[:64]]
        if self._pool is None or len(fresh) <= CHUNK:
            held = [_holds(transactions[i]) for i in fresh]
        else:
            chunks = [[transactions[i] for i in fresh[at : at + CHUNK]] for at in range(0, len(fresh), CHUNK)]
            held = [answer for answers in self._pool.map(_all_hold, chunks) for answer in answers]
        result = [True] * len(transactions)
        for i, answer in zip(fresh, held, strict=True):
            result[i] = answer
            if answer:
                known[transactions[i].id] = transactions[i].wire[:64]
        while len(known) > self._limit:
            del known[next(iter(known))]
        return result


def _all_hold(transactions: list[Transaction]) -> list[bool]:
    return [_holds(transaction) for transaction in transactions]


def _holds(transaction: Transaction) -> bool:
    return all(verify(public, signature, message) for public, signature, message in transaction.signed_messages())
