"""The HTTP face of a node: submit transactions, read state with proofs, follow events."""

import base64
import binascii
import threading
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import anyio
import anyio.to_thread
import msgspec
from litestar import Litestar, MediaType, Request, Response, get, post
from litestar.datastructures import State
from litestar.di import NamedDependency, Provide
from litestar.exceptions import HTTPException
from litestar.openapi import OpenAPIConfig, ResponseSpec
from litestar.openapi.plugins import JsonRenderPlugin, SwaggerRenderPlugin
from litestar.params import FromPath, HeaderParameter, JSONBody, PathParameter, QueryParameter, SkipValidation
from litestar.response import ServerSentEvent
from litestar.response.sse import ServerSentEventMessage
from sqlalchemy.exc import SQLAlchemyError

from gridpool.engines.cometbft_rpc import ENGINE_FAILED
from gridpool.engines.cometbft_trust import steps_at
from gridpool.engines.engine import Engine, Refusal, Sealed, Subscription
from gridpool.errors import RefusedInput
from gridpool.gateway.limits import RateLimit
from gridpool.gateway.metrics import Metrics
from gridpool.gateway.read_model import ReadModel
from gridpool.ledger import inspection
from gridpool.ledger.proof import state_proof
from gridpool.ledger.proof import trust as trust_of
from gridpool.ledger.transaction import MAX_TRANSACTION_BYTES
from gridpool.ledger.view import KnownRules, by_version, rules_for
from gridpool.version import __version__

__all__ = ["Node", "build_app"]

LARGEST_BODY = 4 * MAX_TRANSACTION_BYTES // 3 + 4096
MOST_FOLLOWERS = 128
MOST_WAITERS = 16
"""Most requests that may wait for a receipt at once: each holds one of the threads that answer requests."""
MOST_TOLD = 8
"""Blocks kept as the text that followers get."""
POLL_S = 1.0
MOST_PAIRS = 1_000
MOST_RANGE_BYTES = 4 << 20
COME_AGAIN = frozenset({"overloaded", "stopped", "unavailable", ENGINE_FAILED})
"""Refusals that say nothing of the transaction."""
JSON = dict[str, Any]


class Submission(msgspec.Struct, forbid_unknown_fields=True):
    """A signed transaction in base64."""

    transaction: Annotated[str, msgspec.Meta(max_length=4 * MAX_TRANSACTION_BYTES // 3 + 4)]


class Submitted(msgspec.Struct):
    """What became of a submission; ``receipt`` only where the caller waited and its block came in time."""

    id: str
    receipt: JSON | None = None


class Problem(msgspec.Struct):
    """Why a request was not met."""

    code: str
    info: str


class Status(msgspec.Struct):
    """Where a node stands; ``age_s`` is the time since its last block, ``waiting`` what is queued for the next.

    ``stale`` says that the node has lost touch with those who order: what is read here may be out of date.
    """

    chain: str
    height: int
    app_hash: str
    time_ms: int
    age_s: float
    rules_version: int
    engine: str
    signer: str
    waiting: int
    version: str
    stale: bool


class Answer(msgspec.Struct):
    """What a key holds; ``value`` is None where it holds nothing, ``raw`` its bytes in base64, ``proof`` if asked."""

    table: str
    key: str
    height: int
    present: bool
    value: Any
    raw: str | None
    proof: JSON | None = None


class Range(msgspec.Struct):
    """Keys and values of a table in key order, both in base64; ``more`` where the range goes on behind the last."""

    table: str
    height: int
    pairs: list[tuple[str, str]]
    more: bool


class Health(msgspec.Struct):
    """Whether the node works."""

    ok: bool
    info: str


@dataclass
class Node:
    """What the HTTP face needs: an engine, the rules, and how much a client may ask for."""

    engine: Engine
    known: KnownRules
    home: Path | None = None
    read_model: ReadModel | None = None
    submissions: RateLimit = field(default_factory=lambda: RateLimit(500, 1_000))
    reads: RateLimit = field(default_factory=lambda: RateLimit(500, 1_000))
    metrics: Metrics = field(default_factory=Metrics)
    followers: int = 0

    def __post_init__(self) -> None:
        self.known = by_version(self.known)
        self.waiters = threading.BoundedSemaphore(MOST_WAITERS)
        self.backing_up = threading.Lock()
        self.told: OrderedDict[int, str] = OrderedDict()


NodeHere = NamedDependency[SkipValidation[Node]]
Proved = Annotated[bool, QueryParameter(name="prove", description="Add an inclusion or absence proof.")]
TxId = Annotated[str, PathParameter(pattern="^[0-9a-f]{64}$", description="Transaction id, 64 hexadecimal digits.")]
Address = Annotated[str, PathParameter(pattern="^[0-9a-f]{64}$", description="Wallet, 64 hexadecimal digits.")]
Waiting = Annotated[float, QueryParameter(name="wait_s", ge=0, le=30, description="Wait so long for the receipt.")]

HexBytes = Annotated[str, QueryParameter(pattern="^([0-9a-f]{2}){0,500}$", description="Key bytes, hexadecimal.")]

_REFUSED = ResponseSpec(Problem, description="Refused: malformed, or not valid now.", generate_examples=False)
_UNKNOWN = ResponseSpec(Problem, description="There is no such thing.", generate_examples=False)
_LARGE = ResponseSpec(Problem, description="Too large.", generate_examples=False)
_MANY = ResponseSpec(Problem, description="Too many requests from this client.", generate_examples=False)
_BUSY = ResponseSpec(Problem, description="The node is overloaded or has stopped; come again.", generate_examples=False)
_READING = {400: _REFUSED, 404: _UNKNOWN, 429: _MANY}


def _refuse(status: int, code: str, info: str, *, later_s: int | None = None) -> Response[Any]:
    headers = {} if later_s is None else {"Retry-After": str(later_s)}
    return Response(Problem(code, info), status_code=status, headers=headers, media_type=MediaType.JSON)


def _client(request: Request[Any, Any, State]) -> str:
    return request.client.host if request.client is not None else ""


@post(
    "/tx",
    status_code=202,
    sync_to_thread=True,
    summary="Submit a transaction",
    responses={400: _REFUSED, 409: _REFUSED, 413: _LARGE, 429: _MANY, 503: _BUSY},
)
def submit(
    data: JSONBody[Submission], node: NodeHere, request: Request[Any, Any, State], wait_s: Waiting = 0.0
) -> Response[Submitted]:
    """Check a signed transaction and queue it for the next block.

    ``wait_s`` asks to wait for the receipt; where too many wait already, the answer comes at once without it. 400:
    malformed. 409: refused by the ledger's rules, with the code a receipt would have. 429 and 503 with
    Retry-After: come again later.
    """
    if not node.submissions.allow(_client(request)):
        return _refuse(429, "too_many_requests", "slow down", later_s=1)
    try:
        wire = base64.b64decode(data.transaction, validate=True)
    except (binascii.Error, ValueError):
        return _refuse(400, "malformed", "transaction is not base64")
    start = time.perf_counter()
    answer = node.engine.submit(wire)
    outcome = answer.code if isinstance(answer, Refusal) else "accepted"
    node.metrics.submitted(outcome, time.perf_counter() - start)
    if isinstance(answer, Refusal):
        if answer.code in COME_AGAIN:
            return _refuse(503, answer.code, answer.info, later_s=1)
        return _refuse(400 if answer.code == "malformed" else 409, answer.code, answer.info)
    receipt = None
    if wait_s and node.waiters.acquire(blocking=False):
        try:
            if node.engine.wait(answer.tx_id, timeout_s=wait_s) is not None:
                receipt = _receipt(node, answer.tx_id)
        finally:
            node.waiters.release()
    return Response(Submitted(answer.tx_id.hex(), receipt), status_code=202)


@get("/tx/{tx_id:str}", sync_to_thread=True, summary="Show a transaction and its receipt", responses=_READING)
def transaction(tx_id: TxId, node: NodeHere) -> Response[JSON]:
    """Show where a transaction stands, what it asked for and what came of it."""
    found = _receipt(node, bytes.fromhex(tx_id))
    return _refuse(404, "unknown_transaction", tx_id) if found is None else Response(found)


@get("/accounts/{wallet:str}", sync_to_thread=True, summary="Show a wallet", responses=_READING | {503: _BUSY})
def account(wallet: Address, node: NodeHere) -> Response[JSON]:
    """Show a wallet's nonce, coins and everything else stored under its address, and its latest transactions."""
    with node.engine.view() as view:
        shown = inspection.show_wallet(view, by_version(node.known), bytes.fromhex(wallet))
    if node.read_model is not None:
        try:
            shown["transactions"] = node.read_model.transactions_of(wallet, limit=100)
        except SQLAlchemyError:
            return _refuse(503, "read_model_unavailable", "the read model's database does not answer", later_s=5)
    return Response(shown)


@get("/query/{table:str}/{key:path}", sync_to_thread=True, summary="Read a key of the state", responses=_READING)
def query(table: FromPath[str], key: FromPath[str], node: NodeHere, prove: Proved = False) -> Response[Answer]:
    """Read what a key holds, written as ``gridpool ledger keys`` prints it; with ``prove`` a light client's proof."""
    with node.engine.view() as view:
        rules = rules_for(by_version(node.known), view.snapshot, view.height + 1)
        text = key.removeprefix("/")
        declared = rules.table(table)
        parsed = declared.parse_key(text)
        data = declared.encode_key(parsed)
        if len(data) > 500:
            return _refuse(400, "refused", "the key is too long")
        value = view.state.get(declared, parsed)
        raw = view.snapshot.get(data)
        return Response(
            Answer(
                table=table,
                key=text,
                height=view.height,
                present=value is not None,
                value=inspection.plain(value),
                raw=None if raw is None else base64.b64encode(raw).decode("ascii"),
                proof=state_proof(view, data) if prove else None,
            )
        )


@get("/scan/{table:str}", sync_to_thread=True, summary="Read a range of a table", responses=_READING)
def scan(
    table: FromPath[str],
    node: NodeHere,
    prefix: HexBytes = "",
    start: HexBytes = "",
    reverse: Annotated[bool, QueryParameter(description="From the last key down.")] = False,
    limit: Annotated[int, QueryParameter(ge=1, le=MOST_PAIRS, description="Most pairs wanted.")] = 100,
) -> Response[Range]:
    """Read the pairs whose key has ``prefix``, from ``start`` on; keys are whole state keys, namespace included."""
    with node.engine.view() as view:
        rules = rules_for(by_version(node.known), view.snapshot, view.height + 1)
        namespace = rules.table(table).namespace
        within = bytes.fromhex(prefix) or namespace
        first = bytes.fromhex(start)
        if not within.startswith(namespace) or (first and not first.startswith(namespace)) or len(first) > 500:
            return _refuse(400, "refused", f"prefix and start begin with the table's namespace {namespace.hex()}")
        pairs: list[tuple[str, str]] = []
        size, more = 0, False
        for key, value in view.snapshot.scan(within, first, reverse):
            if len(pairs) == limit or size > MOST_RANGE_BYTES:
                more = True
                break
            size += len(key) + len(value)
            pairs.append((base64.b64encode(key).decode("ascii"), base64.b64encode(value).decode("ascii")))
        return Response(Range(table, view.height, pairs, more))


@get("/trust", sync_to_thread=True, summary="What a light client of this chain must trust", responses={429: _MANY})
def trust(node: NodeHere) -> JSON:
    """Give the trust file; compare it with one from another source before believing it."""
    with node.engine.view() as view:
        return trust_of(view)


@get(
    "/steps/{height:int}",
    sync_to_thread=True,
    summary="Lead a light client to a height",
    responses=_READING | {503: _BUSY},
)
def steps(height: FromPath[int], node: NodeHere) -> Response[JSON]:
    """Give the engine's headers, commits and validators that lead from the genesis to a height's application hash.

    404 where the node signs its headers itself, or has not reached the height.
    """
    with node.engine.view() as view:
        reached, trusted = view.height, trust_of(view)
    if trusted["signer"] is not None or node.home is None:
        return _refuse(404, "no_steps", "this node signs its headers itself")
    if not 0 < height <= reached:
        return _refuse(404, "unknown_height", str(height))
    genesis = {base64.b64decode(one["key"]): one["power"] for one in trusted["validators"]}
    try:
        found = steps_at(node.home, trusted["chain"], genesis, height)
    except RefusedInput as error:
        return _refuse(503, "no_engine", str(error), later_s=1)
    return _refuse(404, "no_steps", "this engine has no validators") if found is None else Response({"steps": found})


@get("/blocks/{height:int}", sync_to_thread=True, summary="Show a block", responses=_READING)
def block(height: FromPath[int], node: NodeHere) -> Response[JSON]:
    """Show a block's header and the ids and codes of its transactions."""
    with node.engine.view() as view:
        if not 0 <= height <= view.height:
            return _refuse(404, "unknown_height", str(height))
        return Response(inspection.show_height(view, height))


@get("/status", sync_to_thread=True, summary="Where the node stands", responses={429: _MANY})
def status(node: NodeHere) -> Status:
    """Give chain, height, application hash and how busy the node is."""
    with node.engine.view() as view:
        header = view.header(view.height).header
        signer = view.snapshot.read("meta", b"signer") or b""
    return Status(
        chain=header.chain,
        height=header.height,
        app_hash=header.app_hash.hex(),
        time_ms=header.time_ms,
        age_s=max(0.0, round(time.time() - header.time_ms / 1000, 3)),
        rules_version=header.rules_version,
        engine=node.engine.name,
        signer=signer.hex(),
        waiting=node.engine.waiting,
        version=__version__,
        stale=node.engine.stale,
    )


@get("/health", sync_to_thread=True, summary="Whether the node works", responses={503: _BUSY})
def health(node: NodeHere) -> Response[Health]:
    """Answer 200 while the node orders blocks, 503 once it has stopped."""
    failure = node.engine.failure
    return Response(Health(failure is None, failure or "working"), status_code=200 if failure is None else 503)


@get("/metrics", sync_to_thread=True, media_type=MediaType.TEXT, summary="Prometheus metrics")
def metrics(node: NodeHere) -> str:
    """Give counters and gauges in Prometheus' text format."""
    with node.engine.view() as view:
        size = view.snapshot.bytes_used()
        height = view.height
        stored = view.snapshot.count("transaction")
    projected = None
    if node.read_model is not None:
        with suppress(SQLAlchemyError):
            projected = node.read_model.height
    gauges = {}
    if projected is not None:
        gauges["gridpool_read_model_height"] = ("Height of the last block in SQL.", projected)
    return node.metrics.text(
        gauges
        | {
            "gridpool_height": ("Height of the last block.", height),
            "gridpool_transactions": ("Transactions in the index.", stored),
            "gridpool_waiting_transactions": ("Transactions that wait for a block.", node.engine.waiting),
            "gridpool_store_bytes": ("Bytes of the store in use.", size),
            "gridpool_event_followers": ("Open event streams.", node.followers),
            "gridpool_up": ("1 while the node orders blocks.", int(node.engine.failure is None)),
        }
    )


@get(
    "/events",
    summary="Follow blocks as server-sent events",
    media_type="text/event-stream",
    responses={400: _REFUSED, 503: _BUSY},
)
async def events(
    node: NodeHere,
    last_event_id: Annotated[str | None, HeaderParameter(name="Last-Event-ID", max_length=20)] = None,
    after: Annotated[int | None, QueryParameter(name="after", ge=0, le=2**62)] = None,
) -> Response[Any]:
    """Stream one event a block: height, application hash, receipts with their events. Its id is the height.

    Begins after ``Last-Event-ID`` (sent by browsers that reconnect), else after the height ``after``, else with the
    next block; no block is left out.
    """
    if last_event_id is not None:
        if not last_event_id.isdecimal():
            return _refuse(400, "refused", "Last-Event-ID is the height of the last block seen")
        after = int(last_event_id)
    if after is not None and after > node.engine.height:
        return _refuse(400, "refused", f"height {after} is still to come")
    with node.engine.view() as view:
        if after is not None and after < view.base:
            return _refuse(400, "pruned", f"this node's history begins after height {view.base}")
    if node.followers >= MOST_FOLLOWERS:
        return _refuse(503, "overloaded", "too many follow the events", later_s=5)
    begin = node.engine.height if after is None else after  # from the answer's first byte on no block is missed
    return ServerSentEvent(_stream(node, begin), headers={"Cache-Control": "no-store"})


@post(
    "/backup",
    status_code=201,
    sync_to_thread=True,
    summary="Back the live ledger up",
    responses=_READING | {403: _REFUSED, 503: _BUSY},
)
def backup(node: NodeHere, request: Request[Any, Any, State]) -> Response[JSON]:
    """Copy the live ledger into ``backups/`` of the node's home; only for callers on the same machine."""
    if _client(request) not in {"127.0.0.1", "::1", "testclient"} or "origin" in request.headers:
        return _refuse(403, "forbidden", "backups are made from the same machine, and by no web page")
    if node.home is None:
        return _refuse(404, "no_home", "this node has no home folder")
    if not node.backing_up.acquire(blocking=False):
        return _refuse(503, "overloaded", "a backup is being made", later_s=5)
    try:
        return Response(node.engine.backup(node.home / "backups"), status_code=201)
    finally:
        node.backing_up.release()


async def _stream(node: Node, after: int) -> AsyncIterator[ServerSentEventMessage]:
    node.followers += 1
    limiter = anyio.CapacityLimiter(1)
    try:
        with node.engine.subscribe(after=after) as feed:
            while node.engine.failure is None and not node.engine.closed:
                told = await anyio.to_thread.run_sync(_next, node, feed, limiter=limiter, abandon_on_cancel=True)
                if told is None:
                    yield ServerSentEventMessage(comment="alive", data=None)
                    continue
                yield ServerSentEventMessage(event="block", id=told[0], data=told[1])
    finally:
        node.followers -= 1


def _next(node: Node, feed: Subscription) -> tuple[int, str] | None:
    """Wait for a block and write it down, once for all who follow."""
    sealed = feed.next(POLL_S)
    if sealed is None:
        return None
    text = node.told.get(sealed.height)
    if text is None:
        text = node.told[sealed.height] = msgspec.json.encode(_sealed(node, sealed)).decode()
        with suppress(KeyError):
            while len(node.told) > MOST_TOLD:
                node.told.popitem(last=False)
    return sealed.height, text


def _sealed(node: Node, sealed: Sealed) -> JSON:
    with node.engine.view() as view:
        rules = rules_for(by_version(node.known), view.snapshot, sealed.height)
    return {
        "height": sealed.height,
        "time_ms": sealed.time_ms,
        "app_hash": sealed.app_hash.hex(),
        "receipts": [{"tx": r.tx.hex(), **inspection.show_receipt(r, rules)} for r in sealed.receipts],
    }


def _receipt(node: Node, tx_id: bytes) -> JSON | None:
    with node.engine.view() as view:
        if view.find(tx_id) is None:
            return None
        return inspection.show_transaction(view, by_version(node.known), tx_id)


def _limited(request: Request[Any, Any, State]) -> Response[Any] | None:
    node: Node = request.app.state.node
    if request.method == "GET" and request.url.path != "/health" and not node.reads.allow(_client(request)):
        return _refuse(429, "too_many_requests", "slow down", later_s=1)
    return None


def _http_problem(request: Request[Any, Any, State], error: HTTPException) -> Response[Any]:
    extra = getattr(error, "extra", None)
    info = error.detail + (f": {msgspec.json.encode(extra).decode()}" if extra else "")
    return Response(
        Problem(f"http_{error.status_code}", info),
        status_code=error.status_code,
        headers=dict(error.headers or {}),
        media_type=MediaType.JSON,
    )


def _refused_input(request: Request[Any, Any, State], error: RefusedInput) -> Response[Any]:
    return _refuse(400, "refused", str(error))


def _not_text(request: Request[Any, Any, State], error: UnicodeDecodeError) -> Response[Any]:
    return _refuse(400, "malformed", f"the request is not UTF-8: {error.reason} at byte {error.start}")


HANDLERS = [submit, transaction, account, query, scan, trust, steps, block, status, health, metrics, events, backup]


def build_app(node: Node, *, on_shutdown: Callable[[], None] | None = None) -> Litestar:
    """Build the ASGI application of a node."""
    return Litestar(
        route_handlers=HANDLERS,
        dependencies={"node": Provide(lambda: node, sync_to_thread=False)},
        state=State({"node": node}),
        before_request=_limited,
        exception_handlers={HTTPException: _http_problem, RefusedInput: _refused_input, UnicodeDecodeError: _not_text},
        on_shutdown=[] if on_shutdown is None else [on_shutdown],
        request_max_body_size=LARGEST_BODY,
        openapi_config=OpenAPIConfig(
            title="gridpool node",
            version=__version__,
            description="Submit transactions to a node, read its state with proofs, follow its events.",
            path="/docs",
            render_plugins=[SwaggerRenderPlugin(path="/swagger"), JsonRenderPlugin()],
            use_handler_docstrings=True,
        ),
    )
