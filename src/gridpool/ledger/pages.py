"""The pages of the store's file, read with suspicion: an altered byte is a refusal, never the end of the process.

LMDB trusts its file. A damaged page makes it read beyond its map, or end the process by an assertion. So every page is
checked here: its number and kind, its bounds, that its nodes tile it, the order of its keys. ``check_pages`` walks a
whole file before LMDB may write to it; ``gridpool.ledger.page_file`` reads single values in the same way.

Format: LMDB 0.9 data version 1 on 64 bits (``lmdb.h`` and the structures of ``mdb.c``: ``MDB_page``, ``MDB_meta``,
``MDB_db``, ``MDB_node``), without duplicate keys and nested pages, which the ledger does not use.
"""

import os
import struct
import sys
from collections import OrderedDict
from collections.abc import Callable
from operator import lt
from pathlib import Path
from typing import Any, NamedTuple

import lmdb

from gridpool.ledger.compiled import native

__all__ = ["Damage", "Meta", "Page", "Pages", "TableRecord", "check_pages", "read_metas"]

MAGIC, VERSION = 0xBEEFC0DE, 1
NOWHERE = (1 << 64) - 1
LONGEST_KEY = 511
DEEPEST = 32
LARGEST_MAP = 1 << 46
CACHED = 512
"""Pages kept decoded, about 10 kB each."""

_BRANCH, _LEAF, _OVERFLOW, _META = 1, 2, 4, 8
_BIG, _SUBDATA = 1, 2
_FLAGS = (0, _BIG, _SUBDATA)
_INTEGER_KEYS = 8

_PAGE = struct.Struct("<QHHHH")
_DB = struct.Struct("<IHHQQQQQ")
_META_HEAD = struct.Struct("<IIQQ")
_META_TAIL = struct.Struct("<QQ")
_NODE = struct.Struct("<HHHH")
_HEAD, _NODE_HEAD = 16, 8
_META_BYTES = _HEAD + _META_HEAD.size + 2 * _DB.size + _META_TAIL.size


class Damage(lmdb.CorruptedError):
    """The file is not what LMDB writes; the message says where."""


class TableRecord(NamedTuple):
    """A table's record (``MDB_db``)."""

    pad: int
    flags: int
    depth: int
    branches: int
    leaves: int
    overflows: int
    entries: int
    root: int

    @property
    def possible(self) -> bool:
        """Whether depth and root agree."""
        return self.depth <= DEEPEST and (self.root == NOWHERE) == (self.depth == 0)


class Meta(NamedTuple):
    """One of the file's two heads (``MDB_meta``)."""

    transaction: int
    last_page: int
    map_size: int
    free: TableRecord
    main: TableRecord


class Page(NamedTuple):
    """A checked page: the keys, and child pages or (where the value begins, its size, flags)."""

    branch: bool
    keys: list[bytes]
    nodes: list[Any]
    data: bytes


def read_metas(file: int) -> tuple[int, list[Meta]]:
    """Read both heads of an open data file; returns the page size and the heads. Raises Damage, OSError."""
    if sys.byteorder != "little":
        raise Damage("a store is read on little-endian machines only")
    first = os.pread(file, _META_BYTES, 0)
    if len(first) < _META_BYTES or _META_HEAD.unpack_from(first, _HEAD)[0] != MAGIC:
        raise Damage("this is no ledger's data file")
    size = _DB.unpack_from(first, _HEAD + _META_HEAD.size)[0]
    if size & (size - 1) or not 512 <= size <= 1 << 15:
        raise Damage(f"the file's head names pages of {size} bytes")
    found = []
    for number in range(2):
        data = os.pread(file, _META_BYTES, number * size)
        end = os.fstat(
            file
        ).st_size  # after the head: a node that writes meanwhile makes the file longer, then the head
        if len(data) < _META_BYTES:
            raise Damage("the file is cut short")
        page, _, kind, _, _ = _PAGE.unpack_from(data)
        magic, version, address, map_size = _META_HEAD.unpack_from(data, _HEAD)
        at = _HEAD + _META_HEAD.size
        free, main = (TableRecord(*_DB.unpack_from(data, at + i * _DB.size)) for i in range(2))
        last, transaction = _META_TAIL.unpack_from(data, at + 2 * _DB.size)
        if (page, kind, magic, version, address) != (number, _META, MAGIC, VERSION, 0):
            raise Damage(f"head {number} of the file is altered")
        if (free.pad, free.flags, main.flags) != (size, _INTEGER_KEYS, 0) or map_size > LARGEST_MAP:
            raise Damage(f"head {number} of the file is altered")
        if not free.possible or not main.possible:
            raise Damage(f"head {number} of the file is altered")
        if transaction and transaction & 1 != number:
            raise Damage(f"head {number} of the file carries the number of the other one")
        if last < 1 or (last + 1) * size > end:
            raise Damage(f"the file is cut short ({end} bytes, {(last + 1) * size} are needed)")
        found.append(Meta(transaction, last, map_size, free, main))
    return size, found


class Pages:
    """The pages that one head leads to."""

    def __init__(self, file: int, size: int, meta: Meta) -> None:
        self.file = file
        self.size = size
        self.meta = meta
        self._cache: OrderedDict[int, Page] = OrderedDict()

    def raw(self, number: int) -> bytes:
        """Return a page's bytes."""
        if not 2 <= number <= self.meta.last_page:
            raise Damage(f"page {number} lies outside the file")
        data = os.pread(self.file, self.size, number * self.size)
        if len(data) != self.size:
            raise Damage("the file is cut short")
        return data

    def page(self, number: int, leaf: bool) -> Page:
        """Return a branch or leaf page, checked in itself."""
        page = self._cache.get(number)
        if page is None:
            page = self._cache[number] = self.parse(number)
            if len(self._cache) > CACHED:
                self._cache.popitem(last=False)
        if page.branch is leaf:
            raise Damage(f"page {number} stands at the wrong depth of its table")
        return page

    def parse(self, number: int, *, integers: bool = False) -> Page:
        """Read a branch or leaf page and check it in itself; ``integers`` orders its keys as numbers."""
        data = self.raw(number)
        own, _, kind, lower, upper = _PAGE.unpack_from(data)
        count = (lower - _HEAD) >> 1
        branch = kind == _BRANCH
        if own != number or kind not in (_BRANCH, _LEAF):
            raise Damage(f"page {number} carries the head of another page")
        if lower & 1 or not _HEAD < lower <= upper <= self.size or (branch and count < 2):
            raise Damage(f"page {number} has impossible bounds")
        places = struct.unpack_from(f"<{count}H", data, _HEAD)
        if max(places) > self.size - _NODE_HEAD:
            raise Damage(f"the nodes of page {number} overlap or leave gaps")
        read = _NODE.unpack_from
        keys, nodes, ends = [], [], []
        for at in places:
            low, high, flags, length = read(data, at)
            end = at + _NODE_HEAD + length
            keys.append(data[at + _NODE_HEAD : end])
            if branch:
                nodes.append(low | high << 16 | flags << 32)
            else:
                size = low | high << 16
                nodes.append((end, size, flags))
                end += 8 if flags == _BIG else size
                if flags not in _FLAGS:
                    raise Damage(f"page {number} holds a node of a kind that no ledger has")
            ends.append(end + (end & 1))
        if [upper, *sorted(ends)] != [*sorted(places), self.size]:
            raise Damage(f"the nodes of page {number} overlap or leave gaps")
        if max(map(len, keys)) > LONGEST_KEY:
            raise Damage(f"page {number} holds a key longer than {LONGEST_KEY} bytes")
        if branch:
            keys[0] = b""  # never looked at
        order: list[Any] = keys
        if integers:
            if any(len(key) != 8 for key in keys[branch:]):
                raise Damage(f"page {number} holds a key that is no number")
            order = [int.from_bytes(key, "little") for key in keys]
        if not all(map(lt, order, order[1:])):
            raise Damage(f"the keys of page {number} are not in order")
        return Page(branch, keys, nodes, b"" if branch else data)

    def value(self, page: Page, at: int) -> bytes:
        """Return the value of a leaf's node."""
        start, size, flags = page.nodes[at]
        if flags != _BIG:
            return page.data[start : start + size]
        number = int.from_bytes(page.data[start : start + 8], "little")
        self.overflow_pages(number, size)
        data = os.pread(self.file, size, number * self.size + _HEAD)
        if len(data) != size:
            raise Damage("the file is cut short")
        return data

    def overflow_pages(self, number: int, size: int) -> int:
        """Return how many pages a large value occupies, after a look at the first one's head."""
        head = self.raw(number)[:_HEAD]
        own, _, kind = struct.unpack_from("<QHH", head)
        pages: int = struct.unpack_from("<I", head, 12)[0]
        needed = (_HEAD - 1 + size) // self.size + 1
        if own != number or kind != _OVERFLOW or pages < needed or number + pages - 1 > self.meta.last_page:
            raise Damage(f"page {number} is no start of a value of {size} bytes")
        return pages

    def record(self, page: Page, at: int) -> TableRecord | None:
        """Return the table that a node of the main table describes, if it describes one."""
        start, size, flags = page.nodes[at]
        if flags != _SUBDATA:
            return None
        if size != _DB.size:
            raise Damage(f"the record of table {page.keys[at]!r} is altered")
        tree = TableRecord(*_DB.unpack_from(page.data, start))
        if tree.flags or not tree.possible:
            raise Damage(f"the record of table {page.keys[at]!r} is altered")
        return tree


def check_pages(path: Path, transaction: Any) -> None:
    """Walk every page of a store that an LMDB ``transaction`` can reach, and the list of free ones.

    Each page must be sound in itself, used once, and stand where its parent says; each table must hold what its record
    counts. Raises Damage, OSError.
    """
    with (path / "data.mdb").open("rb") as file:
        size, metas = read_metas(file.fileno())
        meta = next((m for m in metas if m.transaction == transaction.id()), None)
        if meta is None:
            raise Damage("neither head of the file is the one that the lock file names")
        _Walk(Pages(file.fileno(), size, meta)).run()


class _Walk:
    def __init__(self, pages: Pages) -> None:
        self.pages = pages
        self.used = bytearray(pages.meta.last_page + 1)

    def run(self) -> None:
        meta = self.pages.meta
        self._plain_table(meta.main, self._record)
        self._plain_table(meta.free, self._freed, integers=True)

    def _record(self, page: Page, at: int) -> None:
        tree = self.pages.record(page, at)
        if tree is not None:
            self._table(tree)

    def _freed(self, page: Page, at: int) -> None:
        data = self.pages.value(page, at)
        count = int.from_bytes(data[:8], "little")
        if len(data) % 8 or not 8 <= 8 + 8 * count <= len(data):
            raise Damage("the list of free pages is altered")
        before = NOWHERE
        for number in struct.unpack_from(f"<{count}Q", data, 8):
            if number >= before:
                raise Damage("the list of free pages is not in order")
            before = number
            self._take(number)

    def _take(self, number: int, count: int = 1) -> None:
        if number < 2 or number + count - 1 > self.pages.meta.last_page:
            raise Damage(f"page {number} lies outside the file")
        if any(self.used[number : number + count]):
            raise Damage(f"page {number} is used twice")
        self.used[number : number + count] = b"\1" * count

    def _table(self, tree: TableRecord) -> None:
        """Walk a table of the ledger; compiled, only where that finds something is it walked again, to say what."""
        if native is not None:
            before = bytes(self.used)
            found = native.walk_table(self.pages.file, self.pages.size, self.used, tree.root, tree.depth)
            if found == (tree.branches, tree.leaves, tree.overflows, tree.entries):
                return
            self.used[:] = before
        self._plain_table(tree)

    def _plain_table(
        self, tree: TableRecord, each: Callable[[Page, int], None] | None = None, *, integers: bool = False
    ) -> None:
        found = [0, 0, 0, 0]  # branches, leaves, overflows, entries
        work: list[tuple[int, int, bytes, bytes | None]] = [(tree.root, 1, b"", None)] if tree.depth else []
        while work:
            number, depth, low, high = work.pop()
            self._take(number)
            page = self.pages.parse(number, integers=integers)
            if page.branch is (depth == tree.depth):
                raise Damage(f"page {number} stands at the wrong depth of its table")
            keys = page.keys
            if page.branch:
                found[0] += 1
                ends = [*keys[1:], high]
                keys[0] = low
                work += [(n, depth + 1, a, b) for n, a, b in zip(page.nodes, keys, ends, strict=True)]
            else:
                found[1] += 1
                found[3] += len(keys)
                for at, (start, size, flags) in enumerate(page.nodes):
                    if flags == _BIG:
                        first = int.from_bytes(page.data[start : start + 8], "little")
                        pages = self.pages.overflow_pages(first, size)
                        self._take(first, pages)
                        found[2] += pages
                    if each is not None:
                        each(page, at)
            if not integers and (keys[page.branch] < low or (high is not None and keys[-1] >= high)):
                raise Damage(f"page {number} holds keys that belong elsewhere")
        if tuple(found) != (tree.branches, tree.leaves, tree.overflows, tree.entries):
            raise Damage("a table does not hold what its record counts")
