"""A process of its own that verifies signatures, so that execution keeps the interpreter to itself.

``python -m gridpool.engines.verifying`` reads frames (4 bytes of length, then a MessagePack array of [public key,
signature, message]) and answers each with a frame of one byte a message.
"""

import contextlib
import queue
import subprocess
import sys
import threading
from collections import deque
from concurrent.futures import Future
from typing import IO

import msgspec

from gridpool.ledger.keys import verify
from gridpool.ledger.transaction import SignedMessage

__all__ = ["VerifyingProcess"]

_DECODER = msgspec.msgpack.Decoder(list[SignedMessage])
_ENCODER = msgspec.msgpack.Encoder()


class VerifyingProcess:
    """A child process that verifies chunks of signatures in the order they are handed in."""

    def __init__(self) -> None:
        self._child = subprocess.Popen(
            [sys.executable, "-m", "gridpool.engines.verifying"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._outbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._expected: deque[Future[bytes]] = deque()
        self._order = threading.Lock()
        self._broken = False
        for work in (self._send, self._receive):
            threading.Thread(target=work, name="gridpool-verifying", daemon=True).start()

    def submit(self, messages: list[SignedMessage]) -> "Future[bytes]":
        """Queue a chunk; the answer holds one byte for each message, 1 where its signature holds.

        The answer raises OSError where the process has died.
        """
        answer: Future[bytes] = Future()
        frame = _ENCODER.encode(messages)
        with self._order:
            if self._broken:
                answer.set_exception(OSError("the verifying process has ended"))
            else:
                self._expected.append(answer)
                self._outbox.put(frame)
        return answer

    def close(self) -> None:
        """End the process."""
        self._outbox.put(None)
        try:
            self._child.wait(10)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()

    def _send(self) -> None:
        pipe = self._child.stdin
        assert pipe is not None
        with contextlib.suppress(OSError), pipe:
            while (frame := self._outbox.get()) is not None:
                pipe.write(len(frame).to_bytes(4, "big") + frame)
                pipe.flush()

    def _receive(self) -> None:
        pipe = self._child.stdout
        assert pipe is not None
        with pipe:
            while (frame := _frame(pipe)) is not None:
                with self._order:
                    answer = self._expected.popleft()
                answer.set_result(frame)
        with self._order:
            self._broken = True
            left, self._expected = self._expected, deque()
        for answer in left:
            answer.set_exception(OSError("the verifying process has ended"))


def _frame(pipe: IO[bytes]) -> bytes | None:
    head = pipe.read(4)
    if len(head) < 4:
        return None
    size = int.from_bytes(head, "big")
    frame = pipe.read(size)
    return frame if len(frame) == size else None


def _serve(source: IO[bytes], target: IO[bytes]) -> None:
    while (frame := _frame(source)) is not None:
        answer = bytes(verify(public, signature, message) for public, signature, message in _DECODER.decode(frame))
        target.write(len(answer).to_bytes(4, "big") + answer)
        target.flush()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
        _serve(sys.stdin.buffer, sys.stdout.buffer)
