"""The few questions gridpool asks of etcd over its JSON gateway: read a key, write it if absent, and about members."""

import base64
import http.client
import threading
from typing import Any
from urllib.parse import urlsplit

import msgspec

from gridpool.errors import GridpoolError, RefusedInput

__all__ = ["EtcdClient", "EtcdUnavailable"]

MAX_ANSWER_BYTES = 8 << 20
ANSWER_S = 1.0
"""What was forwarded to a leader that has just died never comes back; another is elected within one to two seconds."""


class EtcdUnavailable(GridpoolError):
    """No member of the cluster answered, or none that has a leader."""


class EtcdClient:
    """A client of an etcd cluster. Asks the first member, and the others in turn where it does not answer."""

    def __init__(self, endpoints: tuple[str, ...], *, timeout_s: float = ANSWER_S) -> None:
        if not endpoints:
            raise RefusedInput("etcd needs the address of at least one member")
        self._addresses = [(urlsplit(url).hostname or "", urlsplit(url).port or 2379) for url in endpoints]
        self._timeout = timeout_s
        self._connections: dict[int, http.client.HTTPConnection] = {}
        self._lock = threading.Lock()

    def get(self, key: str) -> bytes | None:
        """Read a key, with the cluster's agreement (linearizable); None where it is absent."""
        answer = self._call("/v3/kv/range", {"key": _encode(key.encode())})
        pairs = answer.get("kvs", [])
        return base64.b64decode(pairs[0].get("value", "")) if pairs else None

    def create(self, key: str, value: bytes, *, where_below: tuple[str, bytes] | None = None) -> bool:
        """Write a key unless it is there; tells whether this call wrote it.

        ``where_below`` is another key and what its value must lie below. After an error nothing is known: the key may
        or may not have been written.
        """
        held = [{"key": _encode(key.encode()), "target": "CREATE", "result": "EQUAL", "create_revision": "0"}]
        if where_below is not None:
            held.append(_below(*where_below))
        return self._transact(held, [_put(key, value)])

    def put(self, key: str, value: bytes) -> None:
        """Write a key, whatever it holds."""
        self._transact([], [_put(key, value)])

    def pairs(self, prefix: str) -> dict[str, bytes]:
        """Read all keys with a prefix, with the cluster's agreement."""
        end = prefix.encode()[:-1] + bytes([prefix.encode()[-1] + 1])
        answer = self._call("/v3/kv/range", {"key": _encode(prefix.encode()), "range_end": _encode(end)})
        return {
            base64.b64decode(pair["key"]).decode(): base64.b64decode(pair.get("value", ""))
            for pair in answer.get("kvs", [])
        }

    def trim(self, marker: str, value: bytes, first: str, end: str) -> bool:
        """Raise a marker to ``value`` and delete the keys from ``first`` to before ``end``, unless it stands there."""
        delete = {"request_delete_range": {"key": _encode(first.encode()), "range_end": _encode(end.encode())}}
        return self._transact([_below(marker, value)], [_put(marker, value), delete])

    def members(self) -> list[str]:
        """Return the names of the cluster's members."""
        return [member.get("name", "") for member in self._call("/v3/cluster/member/list", {}).get("members", [])]

    def leads(self) -> bool:
        """Tell whether the member that answers is the cluster's leader."""
        answer = self._call("/v3/maintenance/status", {})
        return bool(answer.get("leader")) and answer["leader"] == answer["header"]["member_id"]

    def replace_member(self, name: str, peer_url: str) -> None:
        """Let a member whose disk was lost join again under its name: its old self is removed, the new one added."""
        for member in self._call("/v3/cluster/member/list", {}).get("members", []):
            if member.get("name") == name or peer_url in member.get("peerURLs", []):
                self._call("/v3/cluster/member/remove", {"ID": member["ID"]})
        self._call("/v3/cluster/member/add", {"peerURLs": [peer_url]})

    def close(self) -> None:
        """Close the connections."""
        with self._lock:
            for connection in self._connections.values():
                connection.close()
            self._connections.clear()

    def _transact(self, held: list[dict[str, str]], then: list[dict[str, Any]]) -> bool:
        return bool(self._call("/v3/kv/txn", {"compare": held, "success": then}).get("succeeded", False))

    def _call(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        data = msgspec.json.encode(body)
        problems = []
        with self._lock:
            for number, (host, port) in enumerate(self._addresses):
                try:
                    return self._post(number, host, port, path, data)
                except (OSError, http.client.HTTPException, msgspec.DecodeError) as error:
                    held = self._connections.pop(number, None)
                    if held is not None:
                        held.close()
                    problems.append(f"{host}:{port}: {error}")
        raise EtcdUnavailable(f"etcd does not answer ({'; '.join(problems)})")

    def _post(self, number: int, host: str, port: int, path: str, data: bytes) -> dict[str, Any]:
        connection = self._connections.get(number)
        if connection is None:
            connection = http.client.HTTPConnection(host, port, timeout=self._timeout)
            self._connections[number] = connection
        connection.request("POST", path, data, {"Content-Type": "application/json"})
        response = connection.getresponse()
        text = response.read(MAX_ANSWER_BYTES + 1)
        if response.status != 200 or len(text) > MAX_ANSWER_BYTES:
            raise http.client.HTTPException(f"status {response.status}: {text[:200]!r}")
        answer: dict[str, Any] = msgspec.json.decode(text, type=dict[str, Any])
        return answer


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _put(key: str, value: bytes) -> dict[str, Any]:
    return {"request_put": {"key": _encode(key.encode()), "value": _encode(value)}}


def _below(key: str, value: bytes) -> dict[str, str]:
    """Return the comparison that a key is there and holds less than ``value``."""
    return {"key": _encode(key.encode()), "target": "VALUE", "result": "LESS", "value": _encode(value)}
