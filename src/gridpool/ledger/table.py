"""Typed state tables and their order-preserving keys."""

from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload
from urllib.parse import quote, unquote

import msgspec

from gridpool.errors import RefusedInput

__all__ = ["Table"]

K = TypeVar("K")
V = TypeVar("V")
Part = type[int] | type[bytes] | type[str]


class Table(Generic[K, V]):
    """A named table: key type, value type, and the bytes both become.

    A key is an ``int`` in [0, 2**64), ``bytes``, ``str`` without NUL, or a tuple of these. Encoded keys sort as the
    keys themselves do (tuples by component), so that all keys with a given first component form one range.
    """

    __slots__ = ("_bytes_alone", "_parts", "decode_value", "name", "namespace", "value")

    def __init__(self, name: str, key: type[K] | tuple[Part, ...], value: type[V]) -> None:
        self.name = name
        self.namespace = name.encode("ascii") + b"\0"
        self.value = value
        self._parts: tuple[Part, ...] | Part = key  # type: ignore[assignment]
        self._bytes_alone = key is bytes
        self.decode_value: Callable[[bytes], V] = msgspec.msgpack.Decoder(value).decode
        """Turn stored bytes back into the value."""

    def __repr__(self) -> str:
        return f"Table({self.name!r})"

    @property
    def parts(self) -> tuple[Part, ...]:
        """The types of the key's components."""
        return self._parts if isinstance(self._parts, tuple) else (self._parts,)

    def encode_key(self, key: K) -> bytes:
        """Return namespace and order-preserving key bytes."""
        if self._bytes_alone:
            return self.namespace + key  # type: ignore[operator]
        parts = self._parts
        if isinstance(parts, tuple):
            last = len(parts) - 1
            if not isinstance(key, tuple) or len(key) != len(parts):
                raise TypeError(f"{self.name} takes a key of {len(parts)} components, not {key!r}")
            return self.namespace + b"".join(_encode_part(part, i == last) for i, part in enumerate(key))
        return self.namespace + _encode_part(key, True)

    def encode_prefix(self, prefix: tuple[Any, ...]) -> bytes:
        """Return the byte prefix of all keys that begin with the components ``prefix`` (fewer than the key has)."""
        last = len(self.parts) - 1
        return self.namespace + b"".join(_encode_part(part, i == last) for i, part in enumerate(prefix))

    def decode_key(self, data: bytes) -> K:
        """Turn key bytes (with namespace) back into the key."""
        rest = data[len(self.namespace) :]
        parts = self._parts
        if not isinstance(parts, tuple):
            return _decode_part(parts, rest, True)[0]  # type: ignore[no-any-return]
        values = []
        for i, part in enumerate(parts):
            value, rest = _decode_part(part, rest, i == len(parts) - 1)
            values.append(value)
        return tuple(values)  # type: ignore[return-value]

    def key_text(self, key: K) -> str:
        """Write a key for people: components joined by ``/``, bytes as hex, text percent-encoded."""
        parts = key if isinstance(key, tuple) else (key,)
        return "/".join(part.hex() if isinstance(part, bytes) else quote(str(part), safe="") for part in parts)

    def parse_key(self, text: str) -> K:
        """Read a key as ``key_text`` writes it; raises RefusedInput naming what the table expects."""
        pieces = text.split("/")
        try:
            if len(pieces) != len(self.parts):
                raise ValueError(f"{len(self.parts)} components expected")
            values = [_parse_part(kind, piece) for kind, piece in zip(self.parts, pieces, strict=True)]
        except ValueError as error:
            shape = "/".join(kind.__name__ for kind in self.parts)
            raise RefusedInput(f"{text!r} is no key of table {self.name} (form {shape}): {error}") from None
        return tuple(values) if isinstance(self._parts, tuple) else values[0]  # type: ignore[return-value]


def _encode_part(part: Any, last: bool) -> bytes:
    if type(part) is bytes:
        return part if last else part.replace(b"\0", b"\0\xff") + b"\0\0"
    if type(part) is int:
        return part.to_bytes(8, "big")
    if type(part) is str:
        data = part.encode("utf-8")
        if b"\0" in data:
            raise ValueError("a text key holds no NUL")
        return data if last else data + b"\0"
    raise TypeError(f"{part!r} cannot be part of a key")


@overload
def _decode_part(kind: type[int], data: bytes, last: bool) -> tuple[int, bytes]: ...
@overload
def _decode_part(kind: Part, data: bytes, last: bool) -> tuple[Any, bytes]: ...
def _decode_part(kind: Part, data: bytes, last: bool) -> tuple[Any, bytes]:
    if kind is int:
        return int.from_bytes(data[:8], "big"), data[8:]
    if kind is str:
        text, _, rest = (data, b"", b"") if last else data.partition(b"\0")
        return text.decode("utf-8"), rest
    if last:
        return data, b""
    end = data.find(b"\0\0")  # an escaped NUL is followed by 0xff, so a double NUL only ends a component
    if end < 0:
        raise RefusedInput(f"the stored key {data.hex()} is damaged; gridpool ledger verify says where")
    return data[:end].replace(b"\0\xff", b"\0"), data[end + 2 :]


def _parse_part(kind: Part, text: str) -> Any:
    if kind is int:
        value = int(text)
        if not 0 <= value < 2**64:
            raise ValueError("number out of range")
        return value
    if kind is bytes:
        return bytes.fromhex(text)
    plain = unquote(text, errors="strict")
    if "\0" in plain:
        raise ValueError("a text holds no NUL")
    return plain
