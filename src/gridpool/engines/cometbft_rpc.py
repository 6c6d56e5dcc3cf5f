"""The few calls of CometBFT's JSON-RPC that gridpool makes, over one kept connection."""

import base64
import http.client
import threading
from collections.abc import Sequence
from typing import Any

import msgspec

from gridpool.errors import GridpoolError

__all__ = ["ENGINE_FAILED", "BroadcastResult", "Rpc", "RpcError"]

MAX_ANSWER_BYTES = 32 << 20
# Below what config.toml lets the engine take at once.
MOST_CALLS = 500
LARGEST_REQUEST_BYTES = 4 << 20
ENGINE_FAILED = "engine"
"""Codespace of a refusal that says nothing of the transaction: the engine could not have it checked."""


class RpcError(GridpoolError):
    """The engine did not answer, or answered with an error."""


class BroadcastResult(msgspec.Struct, frozen=True):
    """What the mempool said to a transaction; ``code`` 0 means it waits for a block."""

    code: int
    codespace: str = ""
    log: str = ""


class Rpc:
    """A client of one node's RPC on loopback. Calls may come from any thread; they take turns."""

    def __init__(self, port: int, *, host: str = "127.0.0.1", timeout_s: float = 10.0) -> None:
        self._host, self._port, self._timeout = host, port, timeout_s
        self._connection: http.client.HTTPConnection | None = None
        self._lock = threading.Lock()

    def call(self, method: str, **params: object) -> Any:
        """Call one method; raises RpcError."""
        return self.batch([(method, params)])[0]

    def batch(self, calls: Sequence[tuple[str, dict[str, object]]]) -> list[Any]:
        """Call several methods in one request; the answers come in the same order. Raises RpcError."""
        results = []
        for (method, _), answer in zip(calls, self._ask(calls), strict=True):
            if "error" in answer:
                error = answer["error"]
                raise RpcError(f"{method}: {error.get('message', '')} {error.get('data', '')}".strip())
            results.append(answer["result"])
        return results

    def broadcast(self, wires: Sequence[bytes]) -> list[BroadcastResult]:
        """Hand transactions to the mempool; each is checked before the answer."""
        calls: list[tuple[str, dict[str, object]]] = [
            ("broadcast_tx_sync", {"tx": base64.b64encode(wire).decode("ascii")}) for wire in wires
        ]
        results = []
        for answer in self._ask(calls):
            if "error" in answer:
                error = answer["error"]
                results.append(_mempool_refusal(f"{error.get('message', '')} {error.get('data', '')}"))
            else:
                result = answer["result"]
                results.append(BroadcastResult(result["code"], result.get("codespace", ""), result.get("log", "")))
        return results

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _ask(self, calls: Sequence[tuple[str, dict[str, object]]]) -> list[dict[str, Any]]:
        answers: list[dict[str, Any]] = []
        asked: list[bytes] = []
        size = 0
        for i, (method, params) in enumerate(calls):
            body = msgspec.json.encode({"jsonrpc": "2.0", "id": i, "method": method, "params": params})
            if asked and (len(asked) == MOST_CALLS or size + len(body) > LARGEST_REQUEST_BYTES):
                answers += self._ask_once(asked, i - len(asked))
                asked, size = [], 0
            asked.append(body)
            size += len(body) + 1
        return answers + self._ask_once(asked, len(calls) - len(asked)) if asked else answers

    def _ask_once(self, asked: list[bytes], first: int) -> list[dict[str, Any]]:
        """Send encoded calls in one request; their ids count from ``first``."""
        answers = msgspec.json.decode(self._post(b"[" + b",".join(asked) + b"]" if len(asked) > 1 else asked[0]))
        listed = answers if isinstance(answers, list) else [answers]
        by_id = {answer.get("id"): answer for answer in listed}
        # An engine that refuses the whole request says so once, without an id of ours.
        whole = {"error": listed[0].get("error", {"message": "the engine left the call unanswered"})} if listed else {}
        return [by_id.get(i, whole) for i in range(first, first + len(asked))]

    def _post(self, body: bytes) -> bytes:
        with self._lock:
            for attempt in (1, 2):
                if self._connection is None:
                    self._connection = http.client.HTTPConnection(self._host, self._port, timeout=self._timeout)
                try:
                    self._connection.request("POST", "/", body, {"Content-Type": "application/json"})
                    response = self._connection.getresponse()
                    data = response.read(MAX_ANSWER_BYTES + 1)
                except (OSError, http.client.HTTPException) as error:
                    self._connection.close()
                    self._connection = None
                    if attempt == 2 or isinstance(error, TimeoutError | ConnectionRefusedError):
                        raise RpcError(f"the engine on port {self._port} does not answer: {error}") from error
                    continue
                if len(data) > MAX_ANSWER_BYTES:
                    raise RpcError(f"the engine on port {self._port} answered more than {MAX_ANSWER_BYTES} bytes")
                return data
        raise AssertionError("unreachable")


def _mempool_refusal(text: str) -> BroadcastResult:
    """Turn the mempool's own errors into codes: in its cache already, or full."""
    if "already exists in cache" in text:
        return BroadcastResult(0, "", "known")
    code = "overloaded" if "mempool is full" in text else ENGINE_FAILED
    return BroadcastResult(1, code, text)
