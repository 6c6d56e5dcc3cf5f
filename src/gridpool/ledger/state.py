"""What contracts read and write: layers of uncommitted changes over a committed store."""

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any, Protocol, TypeVar

from gridpool.ledger.table import Table
from gridpool.ledger.types import encode

__all__ = ["Layer", "MemoryReader", "Reader", "RememberingReader", "State"]

K = TypeVar("K")
V = TypeVar("V")
MOST_REMEMBERED = 32_768


class Reader(Protocol):
    """Committed key-value pairs at one height."""

    def get(self, key: bytes) -> bytes | None:
        """Return the value stored under ``key``."""

    def scan(self, prefix: bytes, start: bytes, reverse: bool) -> Iterator[tuple[bytes, bytes]]:
        """Yield the pairs whose key has ``prefix``, in key order from ``start`` on (backwards: from ``start`` down).

        An empty ``start`` means the first key of the range, or its last one backwards.
        """


class RememberingReader:
    """Committed pairs that are asked for again and again at one height: what was read once is not read again.

    A store lets other threads run during each look-up, which may cost many times what the look-up does. At most
    ``MOST_REMEMBERED`` pairs are held.
    """

    __slots__ = ("get", "scan")

    def __init__(self, reader: Reader) -> None:
        self.get = _Remembered(reader.get).__getitem__
        self.scan = reader.scan


class _Remembered(dict[bytes, bytes | None]):
    def __init__(self, read: Callable[[bytes], bytes | None]) -> None:
        super().__init__()
        self._read = read

    def __missing__(self, key: bytes) -> bytes | None:
        if len(self) >= MOST_REMEMBERED:
            self.clear()
        value = self[key] = self._read(key)
        return value


class MemoryReader:
    """Committed pairs in memory, for tests and replays. Keys are sorted only in tables that are scanned."""

    def __init__(self, pairs: Mapping[bytes, bytes] | None = None) -> None:
        self._spaces: dict[bytes, dict[bytes, bytes]] = {}
        self._ordered: dict[bytes, list[bytes]] = {}
        self.apply(pairs or {})

    def get(self, key: bytes) -> bytes | None:
        """Return the value stored under ``key``."""
        space = self._spaces.get(key[: key.find(b"\0")])
        return None if space is None else space.get(key)

    def scan(self, prefix: bytes, start: bytes, reverse: bool) -> Iterator[tuple[bytes, bytes]]:
        """Yield the pairs of a range in key order; see ``Reader.scan``."""
        name = prefix[: prefix.find(b"\0")]
        space = self._spaces.get(name)
        if not space:
            return
        ordered = self._ordered.get(name)
        if ordered is None:
            ordered = self._ordered[name] = sorted(space)
        low, high = bisect_left(ordered, prefix), bisect_left(ordered, _after(prefix))
        if start and not reverse:
            low = max(low, bisect_left(ordered, start))
        if start and reverse:
            high = min(high, bisect_left(ordered, start + b"\0"))
        for at in range(high - 1, low - 1, -1) if reverse else range(low, high):
            yield ordered[at], space[ordered[at]]

    def apply(self, changes: Mapping[bytes, bytes | None]) -> None:
        """Write a block's changes; ``None`` deletes. No scan may be under way."""
        for key, value in changes.items():
            name = key[: key.find(b"\0")]
            space = self._spaces.get(name)
            if space is None:
                space = self._spaces[name] = {}
            ordered = self._ordered.get(name)
            if value is None:
                if space.pop(key, None) is not None and ordered is not None:
                    del ordered[bisect_left(ordered, key)]
            else:
                if ordered is not None and key not in space:
                    insort(ordered, key)
                space[key] = value

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield every pair, table by table, in key order within a table."""
        for name in sorted(self._spaces):
            yield from self.scan(name + b"\0", b"", False)


class Layer:
    """Uncommitted changes: per table, key -> new value, ``None`` for a deletion."""

    __slots__ = ("_sorted", "tables")

    def __init__(self) -> None:
        self.tables: dict[Table[Any, Any], dict[Any, Any]] = {}
        self._sorted: dict[Table[Any, Any], list[tuple[bytes, Any]]] = {}

    def put(self, table: Table[K, V], key: K, value: V | None) -> None:
        """Note a change."""
        changes = self.tables.get(table)
        if changes is None:
            changes = self.tables[table] = {}
        if key not in changes:
            ordered = self._sorted.get(table)
            if ordered is not None:
                insort(ordered, (table.encode_key(key), key))
        changes[key] = value

    def merge(self, other: "Layer") -> None:
        """Take over all changes of a layer above."""
        for table, changes in other.tables.items():
            mine = self.tables.get(table)
            if mine is None:
                self.tables[table] = changes
                self._sorted.pop(table, None)
                continue
            if table in self._sorted:
                for key, value in changes.items():
                    self.put(table, key, value)
            else:
                mine.update(changes)

    def ordered(self, table: Table[K, V]) -> list[tuple[bytes, K]]:
        """Return the changed keys of a table with their bytes, in order."""
        ordered = self._sorted.get(table)
        if ordered is None:
            ordered = self._sorted[table] = sorted((table.encode_key(key), key) for key in self.tables.get(table, ()))
        return ordered

    def encoded(self) -> dict[bytes, bytes | None]:
        """Return all changes as bytes, in key order."""
        pairs = [
            (table.encode_key(key), None if value is None else encode(value))
            for table, changes in self.tables.items()
            for key, value in changes.items()
        ]
        return dict(sorted(pairs))


class State:
    """Typed reading through layers of changes over a committed reader."""

    __slots__ = ("_layers", "reader")

    def __init__(self, reader: Reader, layers: tuple[Layer, ...] = ()) -> None:
        """Read through ``layers``, the uppermost first, down to ``reader``."""
        self.reader = reader
        self._layers = layers

    def get(self, table: Table[K, V], key: K) -> V | None:
        """Return the value under ``key``, or None."""
        for layer in self._layers:
            changes = layer.tables.get(table)
            if changes is not None and key in changes:
                return changes[key]  # type: ignore[no-any-return]
        data = self.reader.get(table.encode_key(key))
        return None if data is None else table.decode_value(data)

    def scan(
        self,
        table: Table[K, V],
        prefix: tuple[Any, ...] = (),
        *,
        start: K | None = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> Iterator[tuple[K, V]]:
        """Yield (key, value) of all keys that begin with the components ``prefix``, in key order.

        ``start`` is the first key wanted (backwards: the last). Changes made while scanning are not seen.
        """
        pairs = self._merged(
            table, table.encode_prefix(prefix), b"" if start is None else table.encode_key(start), reverse
        )
        return pairs if limit is None else islice(pairs, limit)

    def _merged(self, table: Table[K, V], prefix: bytes, start: bytes, reverse: bool) -> Iterator[tuple[K, V]]:
        changed: dict[bytes, tuple[K, V | None]] = {}
        for layer in reversed(self._layers):
            changes = layer.tables.get(table)
            if changes:
                for data, key in _range(layer.ordered(table), prefix, start, reverse):
                    changed[data] = (key, changes[key])
        fresh = sorted(changed, reverse=reverse)
        position = 0
        for data, value in self.reader.scan(prefix, start, reverse):
            while position < len(fresh) and (fresh[position] > data if reverse else fresh[position] < data):
                key, new = changed[fresh[position]]
                position += 1
                if new is not None:
                    yield key, new
            if position < len(fresh) and fresh[position] == data:
                continue
            yield table.decode_key(data), table.decode_value(value)
        for data in fresh[position:]:
            key, new = changed[data]
            if new is not None:
                yield key, new


def _range(ordered: list[tuple[bytes, K]], prefix: bytes, start: bytes, reverse: bool) -> list[tuple[bytes, K]]:
    low = bisect_left(ordered, prefix, key=_first)
    high = bisect_left(ordered, _after(prefix), key=_first)
    if start and not reverse:
        low = max(low, bisect_left(ordered, start, key=_first))
    if start and reverse:
        high = min(high, bisect_left(ordered, start + b"\0", key=_first))
    return ordered[low:high]


def _first(pair: tuple[bytes, Any]) -> bytes:
    return pair[0]


def _after(prefix: bytes) -> bytes:
    """Return the least byte string above every string with ``prefix`` (namespaces end in NUL, so there is one)."""
    trimmed = prefix.rstrip(b"\xff")
    return trimmed[:-1] + bytes([trimmed[-1] + 1])
