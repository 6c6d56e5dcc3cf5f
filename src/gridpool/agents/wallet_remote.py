"""A ledger behind a node's HTTP face, read and written as a member does; answers are taken on the node's word."""

import base64
import binascii
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Literal, TypeVar

import msgspec

from gridpool.contracts import RULES
from gridpool.errors import RefusedInput
from gridpool.ledger.contract import NONCES
from gridpool.ledger.execution import market_time
from gridpool.ledger.keys import KeyPair
from gridpool.ledger.state import State
from gridpool.ledger.table import Table
from gridpool.ledger.transaction import Delegated, Receipt, sign
from gridpool.ledger.types import Call

__all__ = ["RemoteReader", "RemoteSession", "fetch"]

T = TypeVar("T")
TIMEOUT_S = 45.0
WAIT_S = 30
PAGE = 1_000
MOST_BYTES = 64 << 20


class _Answer(msgspec.Struct):
    raw: str | None


class _Page(msgspec.Struct):
    pairs: list[tuple[str, str]]
    more: bool


class _Status(msgspec.Struct):
    chain: str
    height: int


class _Outcome(msgspec.Struct):
    code: str
    info: str


class _Submitted(msgspec.Struct):
    id: str
    receipt: _Outcome | None = None


class RemoteReader:
    """Committed pairs as a node tells them, key by key; ``scan`` asks for pages of a range."""

    def __init__(self, url: str) -> None:
        """Read from the node at ``url``."""
        self._url = url
        self._tables: dict[bytes, Table[Any, Any]] = {table.namespace: table for table in RULES.tables.values()}

    def get(self, key: bytes) -> bytes | None:
        """Return the value stored under ``key``."""
        table = self._tables[key[: key.index(b"\0") + 1]]
        text = urllib.parse.quote(table.key_text(table.decode_key(key)))
        answer = _decode(fetch(f"{self._url}/query/{table.name}/{text}"), _Answer)
        return None if answer.raw is None else _bytes(answer.raw)

    def scan(self, prefix: bytes, start: bytes, reverse: bool) -> Iterator[tuple[bytes, bytes]]:
        """Yield the pairs of a range in key order; see ``gridpool.ledger.state.Reader``."""
        table = self._tables[prefix[: prefix.index(b"\0") + 1]]
        skip = b""
        while True:
            asked = {"prefix": prefix.hex(), "start": start.hex(), "reverse": str(reverse).lower(), "limit": str(PAGE)}
            data = fetch(f"{self._url}/scan/{table.name}?{urllib.parse.urlencode(asked)}")
            page = _decode(data, _Page)
            pairs = [(_bytes(key), _bytes(value)) for key, value in page.pairs]
            yield from (pair for pair in pairs if pair[0] != skip)
            if not page.more or len(pairs) < 2:
                return
            start = skip = pairs[-1][0]


class RemoteSession:
    """A ledger behind a URL; use it as a context manager."""

    def __init__(self, url: str) -> None:
        """Ask the node at ``url`` who it is; raises RefusedInput where it does not answer."""
        if not url.startswith(("http://", "https://")):
            raise RefusedInput(f"{url!r} is no address of a node; write http://127.0.0.1:8080")
        self._url = url.rstrip("/")
        self._reader = RemoteReader(self._url)
        self.chain = self._status().chain

    def __enter__(self) -> "RemoteSession":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    @property
    def state(self) -> State:
        """The state at the node's present height."""
        return State(self._reader)

    @property
    def now(self) -> int:
        """Market time in ms."""
        return market_time(self.state)

    def submit(
        self, key: KeyPair, *calls: Call | Delegated[Any], mode: Literal["atomic", "each"] = "atomic"
    ) -> Receipt:
        """Sign calls, submit them, wait for the receipt; raises RefusedInput where the ledger refuses them."""
        used = self.state.get(NONCES, key.public)
        nonce = 1 + (0 if used is None else used.number)
        transaction = sign(key, self.chain, nonce, self._status().height + 1_000, calls, mode=mode)
        body = msgspec.json.encode({"transaction": base64.b64encode(transaction.wire).decode()})
        sent = _decode(fetch(f"{self._url}/tx?wait_s={WAIT_S}", body), _Submitted)
        if sent.receipt is None:
            raise RefusedInput(f"no receipt within {WAIT_S} s; look later for transaction {sent.id}")
        if sent.receipt.code != "ok":
            raise _refused(sent.receipt)
        return Receipt(transaction.id, sent.receipt.code, sent.receipt.info, (), ())

    def _status(self) -> _Status:
        return _decode(fetch(f"{self._url}/status"), _Status)


def fetch(url: str, body: bytes | None = None) -> bytes:
    """Ask a node over HTTP; raises RefusedInput where it refuses, does not answer, or answers without end."""
    request = urllib.request.Request(url, data=body, headers={"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            data: bytes = answer.read(MOST_BYTES + 1)
    except urllib.error.HTTPError as error:
        try:
            raise _refused(msgspec.json.decode(error.read(100_000), type=_Outcome)) from None
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise RefusedInput(f"the node at {url} answered {error.code} {error.reason}") from None
    except (OSError, ValueError) as error:
        raise RefusedInput(f"no node answers at {url}: {error}") from None
    if len(data) > MOST_BYTES:
        raise RefusedInput(f"the node at {url} answers with more than {MOST_BYTES} bytes")
    return data


def _decode(data: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, RecursionError) as error:
        raise RefusedInput(f"the node's answer is not understood: {error}") from None


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise RefusedInput("the node's answer is not understood: a value is not base64") from None


def _refused(outcome: _Outcome) -> RefusedInput:
    said = outcome.code.replace("_", " ") + (f" ({outcome.info})" if outcome.info else "")
    return RefusedInput(f"the ledger refused this: {said}")
