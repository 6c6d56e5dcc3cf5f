"""What a hostile client can do to the HTTP server: nothing that costs unbounded time, memory or connections."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from litestar.testing import TestClient
from test_gateway_node import Served, body, engine
from toy_contract import ALICE, TOY, Add, signed

from gridpool.engines.embedded import Embedded
from gridpool.gateway import node_api
from gridpool.gateway.server import BoundedProtocol

__all__ = ["engine"]

CHUNKED = b"POST /tx HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
MEASURED = b"POST /tx HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 900\r\n\r\n"


@pytest.fixture
def url(engine: Embedded, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(BoundedProtocol, "request_s", 0.6)
    monkeypatch.setattr(BoundedProtocol, "stalled_s", 0.6)
    with Served(engine) as made:
        yield made
        assert httpx.get(made + "/health").json()["ok"] is True  # whatever was done to it


def connect(url: str) -> socket.socket:
    host, port = url.removeprefix("http://").split(":")
    made = socket.socket()
    made.settimeout(20)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    made.connect((host, int(port)))
    return made


def answer(connection: socket.socket) -> bytes:
    """Read until the server closes the connection."""
    found = b""
    try:
        while data := connection.recv(65_536):
            found += data
    except ConnectionResetError:
        pass
    return found


def test_huge_heads_are_refused(url: str) -> None:
    for head in (
        b"GET /status HTTP/1.1\r\nhost: x\r\nx-long: " + b"a" * 100_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /status HTTP/1.1\r\nhost: x\r\n" + b"".join(b"x-%d: y\r\n" % i for i in range(20_000)) + b"\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)) * 80,
    ):
        with connect(url) as connection:
            try:
                connection.sendall(head)
            except (ConnectionResetError, BrokenPipeError):
                continue
            assert answer(connection)[:12] in {b"HTTP/1.1 400", b""}


@pytest.mark.parametrize(
    ("start", "drop"),
    [
        (b"", b""),
        (b"", b"\r\n"),
        (b"GET /status HTT", b"a"),
        (b"GET /status HTTP/1.1\r\nhost: x\r\n", b"x: y\r\n"),
        (MEASURED + b"{", b" "),
        (CHUNKED + b"1\r\n{\r\n", b"1\r\n \r\n"),
    ],
)
def test_requests_that_never_end_are_cut_off_however_slowly_they_come(url: str, start: bytes, drop: bytes) -> None:
    begin = time.monotonic()
    with connect(url) as connection:
        try:
            connection.sendall(start)
            for _ in range(200 if drop else 0):
                connection.sendall(drop)
                time.sleep(0.05)
        except (ConnectionResetError, BrokenPipeError):
            pass
        answer(connection)
    assert time.monotonic() - begin < 5


def test_a_chunked_flood_is_refused_and_cut_off(url: str) -> None:
    chunk = b"10000\r\n" + b"[" * 65_536 + b"\r\n"
    sent = 0
    begin = time.monotonic()
    with connect(url) as connection:
        connection.sendall(CHUNKED)
        try:
            while time.monotonic() - begin < 10:
                connection.sendall(chunk)
                sent += len(chunk)
        except (ConnectionResetError, BrokenPipeError):
            pass
        assert time.monotonic() - begin < 5
    assert sent > node_api.LARGEST_BODY


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 1_000_000,
        b'{"transaction":' + b"[" * 1_000_000,
        b'{"a":' * 200_000,
        b'{"transaction":"' + b"A" * 1_300_000,
    ],
    ids=["lists", "a list for a text", "objects", "a long text"],
)
def test_deep_and_long_json_is_refused(url: str, content: bytes) -> None:
    for kind in ("application/json", "application/x-msgpack", "multipart/form-data; boundary=x", "text/plain"):
        begin = time.monotonic()
        refused = httpx.post(url + "/tx", content=content, headers={"content-type": kind}, timeout=20)
        assert refused.status_code in {400, 413, 415}, kind
        assert len(refused.content) < 2_000
        assert time.monotonic() - begin < 5


def test_pipelined_requests_are_answered_in_order(url: str) -> None:
    one, last = (
        b"GET /blocks/0 HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /nowhere HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    )
    with connect(url) as connection:
        connection.sendall(one * 20 + last)
        found = answer(connection)
    assert found.count(b"HTTP/1.1 200") == 20
    assert found.rfind(b"HTTP/1.1 404") > found.rfind(b"HTTP/1.1 200")


def test_slow_answers_and_resting_connections_are_not_cut_off(url: str, engine: Embedded) -> None:
    engine._interval_s = 1.5
    engine.submit(signed(ALICE, 1, Add("a", 1)).wire)
    begin = time.monotonic()
    sent = signed(ALICE, 2, Add("a", 1))
    answered = httpx.post(url + "/tx", json=body(sent), params={"wait_s": 20}, timeout=30).json()
    assert answered["receipt"]["code"] == "ok"
    with httpx.Client() as client:
        for _ in range(3):
            assert client.get(url + "/health").status_code == 200
            time.sleep(0.8)
    assert time.monotonic() - begin > 2 * BoundedProtocol.request_s


def test_a_client_that_takes_nothing_is_cut_off(url: str, engine: Embedded) -> None:
    for nonce in range(1, 31):
        sent = signed(ALICE, nonce, *(Add("a" * 100, 1) for _ in range(400)))
        engine.submit(sent.wire)
        assert engine.wait(sent.id, timeout_s=10) is not None
    with connect(url) as connection:
        connection.sendall(b"GET /events?after=0 HTTP/1.1\r\nhost: x\r\n\r\n")
        end = time.monotonic() + 20
        seen = followers = 0
        while time.monotonic() < end and (followers or not seen):
            text = httpx.get(url + "/metrics").text
            followers = int(text.partition("\ngridpool_event_followers ")[2].partition("\n")[0])
            seen = max(seen, followers)
            time.sleep(0.1)
        assert (seen, followers) == (1, 0)


def test_connections_are_counted(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BoundedProtocol, "request_s", 30)
    monkeypatch.setattr(BoundedProtocol, "most_connections", 4)
    held = [connect(url) for _ in range(4)]
    time.sleep(0.2)
    with connect(url) as one_more:
        assert answer(one_more) == b""
    for connection in held:
        connection.close()
    time.sleep(0.2)
    assert httpx.get(url + "/health").status_code == 200


def test_backups_are_made_one_at_a_time_and_for_no_web_page(tmp_path: Path, engine: Embedded) -> None:
    node = node_api.Node(engine, TOY, home=tmp_path / "home")
    with TestClient(node_api.build_app(node)) as client:
        assert client.post("/backup", headers={"origin": "http://example.org"}).status_code == 403
        with node.backing_up:
            busy = client.post("/backup")
            assert (busy.status_code, busy.headers["retry-after"]) == (503, "5")
        assert client.post("/backup").status_code == 201
