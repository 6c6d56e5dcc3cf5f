"""The HTTP server under a node's face: uvicorn with a bound on everything that a stranger's connection can hold."""

import asyncio
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["build_server"]

MOST_CONNECTIONS = 512
LARGEST_HEAD = 16 << 10
"""Most bytes of a request's line and headers."""
ENDS_OF_HEAD = (b"\n\r\n", b"\n\n")
REQUEST_S = 20.0
"""A request must have come whole this long after its connection or its first byte."""
STALLED_S = 60.0
"""A client that takes nothing of its answer for so long is cut off."""
IDLE_S = 5


class BoundedProtocol(H11Protocol):
    """A connection that must send its requests, and take its answers, in time."""

    request_s = REQUEST_S
    stalled_s = STALLED_S
    most_connections = MOST_CONNECTIONS

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._request_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, or drop it where there are too many."""
        crowded = len(self.connections) >= self.most_connections
        super().connection_made(transport)
        if crowded:
            transport.abort()
            return
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Take what came, and see whether a request is still on its way."""
        head = data[:LARGEST_HEAD]
        if self.conn.their_state is h11.IDLE and len(data) > len(head) and not any(end in head for end in ENDS_OF_HEAD):
            self.send_400_response("The head of the request is too large.")  # h11 looks only at what is still to come
            return
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """Go on with the next request, which may have begun to come already."""
        super().on_response_complete()
        idle = self.conn.their_state is h11.IDLE and not self.conn.trailing_data[0]
        self._watch(rest=idle)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._request_timer = self._ended(self._request_timer)
        self._write_timer = self._ended(self._write_timer)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Begin to count how long the client takes nothing."""
        super().pause_writing()
        if self._write_timer is None:
            self._write_timer = self.loop.call_later(self.stalled_s, self.transport.abort)

    def resume_writing(self) -> None:
        """The client has taken something."""
        super().resume_writing()
        self._write_timer = self._ended(self._write_timer)

    def _watch(self, *, rest: bool = False) -> None:
        incomplete = self.conn.their_state in (h11.IDLE, h11.SEND_BODY) and not rest
        if not incomplete:
            self._request_timer = self._ended(self._request_timer)
        elif self._request_timer is None and not self.transport.is_closing():
            self._request_timer = self.loop.call_later(self.request_s, self.transport.abort)

    @staticmethod
    def _ended(timer: asyncio.TimerHandle | None) -> None:
        if timer is not None:
            timer.cancel()


def build_server(app: Any, *, host: str = "127.0.0.1", port: int = 0) -> uvicorn.Server:
    """Return a server for ``app`` on an address; ``run`` it.

    Requests' heads are held to 16 kB, requests to 20 s, stalled answers to 60 s, connections to 512. Bodies and rates
    are the application's to limit.
    """
    return uvicorn.Server(
        uvicorn.Config(
            app,
            host=host,
            port=port,
            http=BoundedProtocol,
            ws="none",
            h11_max_incomplete_event_size=LARGEST_HEAD,
            timeout_keep_alive=IDLE_S,
            timeout_graceful_shutdown=3,
            log_level="error",
            access_log=False,
            server_header=False,
        )
    )
