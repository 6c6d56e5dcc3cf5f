"""The socket server: four connections from one engine, answers in order on each, one handler at a time."""

import contextlib
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from google.protobuf.message import DecodeError

from gridpool.engines.abci import abci_pb2 as pb
from gridpool.engines.abci.framing import Deframer, FramingError, frame
from gridpool.engines.abci.messages import transaction_to_check
from gridpool.errors import RefusedInput

__all__ = ["Answer", "Check", "Server"]

log = logging.getLogger(__name__)

Answer = Callable[[pb.Request], pb.Response | bytes]
"""Answers a request, with the response or with its bytes."""
Check = Callable[[Sequence[bytes]], list[bytes]]
"""Answers CheckTx, first or repeated, for several transactions: the bytes of a response for each."""
MAX_CONNECTIONS = 16
READ_BYTES = 1 << 18
TURN = 100
"""Most messages that are answered together: the engine goes on with those while the next are checked."""
FLUSH_REQUEST = pb.Request(flush=pb.RequestFlush()).SerializeToString()
FLUSH = pb.Response(flush=pb.ResponseFlush()).SerializeToString()


class Server:
    """Serves ABCI on a Unix socket that only its owner can reach.

    ``answer`` and ``check`` (CheckTx, which comes once a transaction and has a shorter way) are called from a thread a
    connection; they must lock what they share. Where one raises, the engine is sent an exception and the server stops,
    because an application that failed must not go on: ``failure`` then holds the error.
    """

    def __init__(self, path: Path, answer: Answer, check: Check) -> None:
        self.path = path
        self.failure: BaseException | None = None
        self._answer = answer
        self._check = check
        trace = os.environ.get("GRIDPOOL_ABCI_TRACE")
        # Tests hold the recorded requests against ABCI's grammar; a run that was interrupted goes on in the same file.
        self._trace = open(Path(trace) / f"{path.parent.name}.trace", "a", encoding="ascii") if trace else None  # noqa: SIM115
        if self._trace is not None:
            self._trace.write("start\n")
        self._stopped = threading.Event()
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        if len(os.fsencode(path)) > 100:
            raise RefusedInput(
                f"the socket path {path} is too long for a Unix socket (100 bytes); use a shorter folder"
            )
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        mask = os.umask(0o077)
        try:
            self._listener.bind(os.fspath(path))
        finally:
            os.umask(mask)
        self._listener.listen(MAX_CONNECTIONS)
        threading.Thread(target=self._accept, name="abci-accept", daemon=True).start()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until the server has stopped; tells whether it has."""
        return self._stopped.wait(timeout_s)

    def stop(self) -> None:
        """Close the socket and every connection."""
        self._stopped.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for connection in self._connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()
        if self._trace is not None:
            self._trace.close()
            self._trace = None

    def _accept(self) -> None:
        while not self._stopped.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                if len(self._connections) >= MAX_CONNECTIONS:
                    connection.close()
                    continue
                self._connections.add(connection)
            threading.Thread(target=self._serve, args=(connection,), name="abci", daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        deframer = Deframer()
        try:
            while data := connection.recv(READ_BYTES):
                messages = deframer.feed(data)
                for at in range(0, len(messages), TURN):
                    connection.sendall(b"".join(map(frame, self._respond_all(messages[at : at + TURN]))))
                if self.failure is not None:
                    break
        except FramingError as error:
            log.warning("ABCI connection ended: %s", error)
        except OSError:
            pass
        finally:
            with self._lock:
                self._connections.discard(connection)
            connection.close()
        if self.failure is not None:
            self.stop()

    def _respond_all(self, messages: list[bytes]) -> Iterator[bytes]:
        """Yield the answers in order; checks that came one after the other are done together."""
        wires: list[bytes] = []
        for message in messages:
            wire = transaction_to_check(message)
            if wire is None:
                yield from self._respond_to_checks(wires)
                wires = []
                yield self._respond(message)
            else:
                wires.append(wire)
        yield from self._respond_to_checks(wires)

    def _respond_to_checks(self, wires: list[bytes]) -> list[bytes]:
        if not wires:
            return []
        for _ in wires:
            self._note("check_tx")
        try:
            return self._check(wires)
        except Exception as error:
            return [self._failed("check_tx", error)] * len(wires)

    def _respond(self, message: bytes) -> bytes:
        if message == FLUSH_REQUEST:
            return FLUSH
        try:
            request = pb.Request.FromString(message)
        except DecodeError as error:
            return _exception(str(error))
        kind = request.WhichOneof("value")
        if kind == "flush":
            return FLUSH
        if kind == "echo":
            return pb.Response(echo=pb.ResponseEcho(message=request.echo.message)).SerializeToString()
        self._note(kind)
        if kind is None:
            return _exception("unknown request")
        try:
            if kind == "check_tx":
                return self._check([request.check_tx.tx])[0]
            answer = self._answer(request)
            return answer if isinstance(answer, bytes) else answer.SerializeToString()
        except Exception as error:
            return self._failed(kind, error)

    def _note(self, kind: str | None) -> None:
        if self._trace is not None:
            with self._lock:
                self._trace.write(f"{kind}\n")
                self._trace.flush()

    def _failed(self, kind: str, error: Exception) -> bytes:
        log.error("the application failed on %s", kind, exc_info=error)
        self.failure = error
        return _exception(f"{type(error).__name__}: {error}")


def _exception(text: str) -> bytes:
    return pb.Response(exception=pb.ResponseException(error=text)).SerializeToString()
