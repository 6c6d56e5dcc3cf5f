"""Threads that verify signatures in chunks, beside execution."""

from concurrent.futures import Future, ThreadPoolExecutor

from gridpool.ledger.keys import verify_all
from gridpool.ledger.transaction import SignedMessage

__all__ = ["VerifyingThreads"]


class VerifyingThreads:
    """Verifies chunks of signatures on threads of its own; the compiled loop leaves the interpreter to execution."""

    def __init__(self, count: int = 1) -> None:
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="gridpool-verifying")

    def submit(self, messages: list[SignedMessage]) -> "Future[bytes]":
        """Queue a chunk; the answer holds one byte for each message, 1 where its signature holds."""
        return self._pool.submit(verify_all, messages)

    def close(self) -> None:
        """Drop what waits, and end the threads."""
        self._pool.shutdown(cancel_futures=True)
