"""The HTTP face of a node: requests, limits, events that resume, its schema under generated requests."""

import base64
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from litestar.testing import TestClient
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from toy_contract import ALICE, BOB, COUNTS, GENESIS, NODE, TOY, Add, AddLater, signed

from gridpool.engines.cometbft_rpc import ENGINE_FAILED
from gridpool.engines.embedded import Embedded
from gridpool.engines.engine import Refusal
from gridpool.errors import RefusedInput
from gridpool.gateway.limits import RateLimit
from gridpool.gateway.node_api import Node, build_app
from gridpool.gateway.server import build_server
from gridpool.ledger import light
from gridpool.ledger.archive import prune_ledger
from gridpool.ledger.transaction import Transaction
from gridpool.ledger.verification import verify_ledger

KEY = f"{ALICE.public.hex()}/a"


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Embedded]:
    with Embedded.create(tmp_path / "home", GENESIS, TOY, key=NODE, interval_ms=20, max_waiting=50) as made:
        yield made


@pytest.fixture
def client(engine: Embedded, tmp_path: Path) -> Iterator[TestClient]:
    with TestClient(build_app(Node(engine, TOY, home=tmp_path / "home"))) as made:
        yield made


def body(transaction: Transaction) -> dict[str, str]:
    return {"transaction": base64.b64encode(transaction.wire).decode()}


def test_submit_wait_and_look(client: TestClient, engine: Embedded) -> None:
    sent = signed(ALICE, 1, Add("a", 4))
    answer = client.post("/tx", json=body(sent), params={"wait_s": 10})
    assert answer.status_code == 202
    assert answer.json()["id"] == sent.id.hex()
    assert answer.json()["receipt"]["code"] == "ok"
    shown = client.get(f"/tx/{sent.id.hex()}").json()
    assert shown["events"] == [{"type": "counter.added", "name": "a", "number": 4}]
    assert client.post("/tx", json=body(sent)).status_code == 202  # the same again: its receipt stands
    status = client.get("/status").json()
    assert (status["height"], status["app_hash"]) == (1, engine.app_hash.hex())
    assert client.get("/health").json()["ok"] is True
    assert client.get(f"/accounts/{ALICE.public.hex()}").json()["nonce"] == 1
    assert client.get("/blocks/1").json()["transactions"] == [sent.id.hex()]


def test_query_with_and_without_proof(client: TestClient) -> None:
    client.post("/tx", json=body(signed(ALICE, 1, Add("a", 4))), params={"wait_s": 10})
    assert client.get(f"/query/counter.count/{KEY}").json()["value"] == {"number": 4}
    trusted = client.get("/trust").json()
    for key, present in ((KEY, True), (f"{BOB.public.hex()}/a", False)):
        answer = client.get(f"/query/counter.count/{key}", params={"prove": "true"}).json()
        assert answer["present"] is present
        held = light.check(answer["proof"], trusted)
        assert (held["present"], held["value"]) == (present, answer["raw"])


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/query/nothing/1", 400),
        ("/query/counter.count/zz", 400),
        (f"/query/counter.count/{'00' * 32}/{'x' * 600}", 400),
        (f"/query/counter.count/{'00' * 32}/%00", 400),
        ("/tx/00", 400),
        (f"/tx/{'00' * 32}", 404),
        ("/blocks/99", 404),
        ("/blocks/-1", 404),
        ("/accounts/x", 400),
        ("/nowhere", 404),
        ("/events?after=77", 400),
    ],
)
def test_bad_requests_are_told_why(client: TestClient, path: str, code: int) -> None:
    answer = client.get(path)
    assert answer.status_code == code
    assert set(answer.json()) == {"code", "info"}


def test_refusals_of_submissions(client: TestClient) -> None:
    assert client.post("/tx", json={"transaction": "?"}).status_code == 400
    assert client.post("/tx", json={"transaction": "AAAA"}).json()["code"] == "malformed"
    assert client.post("/tx", json={"other": 1}).status_code == 400
    for content in (b"{", b"", b"null", b'{"transaction":"\xff"}', b'{"\xff":""}', b'{"transaction":"\xed\xa0\x80"}'):
        refused = client.post("/tx", content=content)
        assert (refused.status_code, set(refused.json())) == (400, {"code", "info"}), content
    assert client.post("/tx", content=b"x" * 2_000_000, headers={"content-type": "application/json"}).status_code == 413
    late = client.post("/tx", json=body(signed(ALICE, 1, Add("a", 4), until=0)))
    assert (late.status_code, late.json()["code"]) == (409, "expired")
    unsigned = signed(ALICE, 1, Add("a", 4))
    forged = {"transaction": base64.b64encode(bytes(64) + unsigned.wire[64:]).decode()}
    assert client.post("/tx", json=forged).json()["code"] == "bad_signature"


@pytest.mark.parametrize("code", ["unavailable", ENGINE_FAILED])
def test_an_engine_that_does_not_answer_is_no_refusal_by_the_rules(
    client: TestClient, engine: Embedded, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    monkeypatch.setattr(engine, "submit", lambda _: Refusal(code, "the engine does not answer"))
    answer = client.post("/tx", json=body(signed(ALICE, 1, Add("a", 4))))
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")


def test_back_pressure_and_rate_limit(tmp_path: Path) -> None:
    with Embedded.create(tmp_path / "home", GENESIS, TOY, key=NODE, interval_ms=None, max_waiting=3) as engine:
        with TestClient(build_app(Node(engine, TOY))) as client:
            codes = [client.post("/tx", json=body(signed(ALICE, n, Add("a", 1)))).status_code for n in range(1, 6)]
            assert codes == [202, 202, 202, 503, 503]
            engine.seal(5_000)
            answer = client.post("/tx", json=body(signed(ALICE, 9, Add("a", 1))))
            assert answer.status_code == 202
            assert "gridpool_height 1\n" in client.get("/metrics").text
            assert 'gridpool_submissions_total{outcome="overloaded"} 2' in client.get("/metrics").text
        slow = Node(engine, TOY, submissions=RateLimit(0.001, 2), reads=RateLimit(0.001, 3))
        with TestClient(build_app(slow)) as client:
            codes = [client.post("/tx", json={"transaction": "AAAA"}).status_code for _ in range(4)]
            assert codes == [400, 400, 429, 429]
            assert [client.get("/status").status_code for _ in range(4)] == [200, 200, 200, 429]
            assert client.get("/health").status_code == 200


def test_rate_limit_refills_and_forgets() -> None:
    now = 0.0
    limit = RateLimit(2, 4, clients=2, clock=lambda: now)
    assert [limit.allow("a") for _ in range(5)] == [True, True, True, True, False]
    now = 1.0
    assert [limit.allow("a") for _ in range(3)] == [True, True, False]
    assert all(limit.allow(name) for name in ("b", "c", "d"))
    assert limit.allow("a")  # forgotten, so its bucket is full again


def test_live_backup_is_a_whole_ledger(client: TestClient, engine: Embedded) -> None:
    client.post("/tx", json=body(signed(ALICE, 1, Add("a", 4))), params={"wait_s": 10})
    made = client.post("/backup").json()
    client.post("/tx", json=body(signed(ALICE, 2, Add("a", 4))), params={"wait_s": 10})
    result = verify_ledger(Path(made["path"]), TOY)
    assert result.ok
    assert (result.height, result.app_hash) == (made["height"], made["app_hash"])
    assert engine.height == 2


class Served:
    """A node on a real socket."""

    def __init__(self, engine: Embedded) -> None:
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)  # what a client does not take is noticed
        self.socket.bind(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self.server = build_server(build_app(Node(engine, TOY)))
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.socket]})

    def __enter__(self) -> str:
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)
        return self.url

    def __exit__(self, *_: object) -> None:
        self.server.should_exit = True
        self.thread.join()
        self.socket.close()


def read_blocks(
    url: str, count: int, *, then: Callable[[], None] = lambda: None, **request: object
) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    with httpx.stream("GET", url + "/events", timeout=20, **request) as stream:  # type: ignore[arg-type]
        assert stream.status_code == 200
        then()
        event_id = ""
        for line in stream.iter_lines():
            if line.startswith("id: "):
                event_id = line[4:]
            if line.startswith("data: "):
                block = json.loads(line[6:])
                assert event_id == str(block["height"])
                found.append(block)
                if len(found) == count:
                    break
    return found


def test_events_resume_after_a_cut_without_loss(engine: Embedded) -> None:
    def submit(first: int, last: int) -> None:
        for nonce in range(first, last + 1):
            engine.submit(signed(ALICE, nonce, Add("a", nonce)).wire)
            assert engine.wait(signed(ALICE, nonce, Add("a", nonce)).id, timeout_s=10) is not None

    with Served(engine) as url:
        submit(1, 3)
        seen = read_blocks(url, 2, params={"after": 0})
        submit(4, 6)
        seen += read_blocks(url, 4, headers={"Last-Event-ID": str(seen[-1]["height"])})
        seen += read_blocks(url, 1, then=lambda: submit(7, 7))
    assert [block["height"] for block in seen] == list(range(1, 8))
    assert [block["receipts"][0]["events"][0]["number"] for block in seen] == list(range(1, 8))  # type: ignore[index]


def test_blocks_that_hold_nothing_are_told_as_such(tmp_path: Path) -> None:
    with Embedded.create(tmp_path / "home", GENESIS, TOY, key=NODE, interval_ms=None) as engine:
        engine.submit(signed(ALICE, 1, Add("a", 1)).wire)
        for height in range(1, 5):
            engine.seal(1_000 * height)
        assert len({engine.app_hash, *(header_hash(engine, height) for height in range(1, 5))}) == 1
        with Served(engine) as url:
            seen = read_blocks(url, 4, params={"after": 0})
    assert [(block["height"], len(block["receipts"])) for block in seen] == [(1, 1), (2, 0), (3, 0), (4, 0)]  # type: ignore[arg-type]


def header_hash(engine: Embedded, height: int) -> bytes:
    with engine.view() as view:
        return view.header(height).header.app_hash


def test_who_asks_for_pruned_events_is_told_where_history_begins(tmp_path: Path) -> None:
    with Embedded.create(tmp_path / "home", GENESIS, TOY, key=NODE, interval_ms=None) as engine:
        for height in range(1, 6):
            engine.submit(signed(ALICE, height, Add("a", 1)).wire)
            engine.seal(1_000 * height)
    prune_ledger(tmp_path / "home" / "ledger", TOY, keep=2)
    with Embedded.open(tmp_path / "home", TOY, interval_ms=None) as engine:
        with TestClient(build_app(Node(engine, TOY))) as client:
            refused = client.get("/events", params={"after": 2})
            assert (refused.status_code, refused.json()["code"]) == (400, "pruned")
        with Served(engine) as url:
            assert [block["height"] for block in read_blocks(url, 2, params={"after": 3})] == [4, 5]


def test_schema_holds_under_generated_requests(tmp_path: Path) -> None:
    with Embedded.create(tmp_path / "home", GENESIS, TOY, key=NODE, interval_ms=20) as engine:
        engine.submit(signed(ALICE, 1, Add("a", 4)).wire)
        limits = {"submissions": RateLimit(1e9, 10**9), "reads": RateLimit(1e9, 10**9)}
        app = build_app(Node(engine, TOY, **limits))  # type: ignore[arg-type]
        schema = schemathesis.openapi.from_asgi("/docs/openapi.json", app)
        checks = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
        tried = 0
        for result in schema.get_all_operations():
            operation = result.ok()
            if operation.path == "/events":  # endless by design; tested above
                continue
            tried += 1

            @settings(max_examples=25, deadline=None, database=None, suppress_health_check=list(HealthCheck))
            @given(case=operation.as_strategy())
            def probe(case: schemathesis.Case) -> None:
                if case.query:
                    case.query.pop("wait_s", None)
                case.call_and_validate(checks=checks)

            probe()
        assert tried == 12


def test_deferred_work_runs_without_transactions_where_blocks_move_time(engine: Embedded) -> None:
    soon = int(time.time() * 1000) + 300
    engine.submit(signed(ALICE, 1, AddLater(soon, 7)).wire)
    assert engine.wait(signed(ALICE, 1, AddLater(soon, 7)).id, timeout_s=10) is not None
    height = engine.height
    end = time.monotonic() + 10
    while engine.height == height and time.monotonic() < end:
        time.sleep(0.02)
    with engine.view() as view:
        assert view.state.get(COUNTS, (bytes(32), "7")) is not None
    height = engine.height
    time.sleep(0.2)
    assert engine.height == height  # and nothing is sealed for nothing


def test_one_process_runs_a_home(engine: Embedded, tmp_path: Path) -> None:
    with pytest.raises(RefusedInput, match="in use"):
        Embedded.open(tmp_path / "home", TOY)
    engine.close()
    Embedded.open(tmp_path / "home", TOY).close()
