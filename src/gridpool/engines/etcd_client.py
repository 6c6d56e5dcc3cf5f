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
        return base64.b64decode(pairs[0]["value"]) if pairs else None

    def create(self, key: str, value: bytes) -> bool:
        """Write a key unless it is there; tells whether this call wrote it.

        After an error nothing is known: the key may or may not have been written.
        """
        absent = {"key": _encode(key.encode()), "target": "CREATE", "result": "EQUAL", "create_revision": "0"}
        put = {"request_put": {"key": _encode(key.encode()), "value": _encode(value)}}
        answer = self._call("/v3/kv/txn", {"compare": [absent], "success": [put]})
        return bool(answer.get("succeeded", False))

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
