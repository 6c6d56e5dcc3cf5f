"""A store read without LMDB's own reader: every page is checked as it is touched, no other page is read.

``PageFile`` stands in for ``lmdb.Environment`` wherever a store is opened for reading only, so that a question about a
doubtful store costs no more than the pages it touches and ends in an answer or a refusal, whatever those pages hold.
"""

import os
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import lmdb

from gridpool.ledger.pages import Damage, Page, Pages, TableRecord, read_metas

__all__ = ["Cursor", "PageFile", "Reading"]


class Cursor:
    """Walks one table; the same few calls as ``lmdb.Cursor``."""

    def __init__(self, pages: Pages, tree: TableRecord) -> None:
        self.pages = pages
        self.tree = tree
        self.stack: list[tuple[Page, int]] = []

    def __enter__(self) -> "Cursor":
        return self

    def __exit__(self, *_: object) -> None:
        self.stack = []

    def key(self) -> bytes:
        """Return the key it stands on."""
        page, at = self.stack[-1]
        return page.keys[at]

    def value(self) -> bytes:
        """Return the value it stands on."""
        page, at = self.stack[-1]
        return self.pages.value(page, at)

    def first(self) -> bool:
        """Go to the first key; tells whether there is one."""
        return self._descend([], lambda _: 0)

    def last(self) -> bool:
        """Go to the last key; tells whether there is one."""
        return self._descend([], lambda page: len(page.keys) - 1)

    def set_range(self, key: bytes) -> bool:
        """Go to the first key that is not below ``key``; tells whether there is one."""

        def choose(page: Page) -> int:
            return bisect_right(page.keys, key, lo=1) - 1 if page.branch else bisect_left(page.keys, key)

        if not self._descend([], choose):
            return False
        page, at = self.stack[-1]
        return at < len(page.keys) or self._step(1)

    def prev(self) -> bool:
        """Go one key back; tells whether there is one."""
        return self._step(-1)

    def iternext(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield the pairs from here on."""
        more = bool(self.stack) or self.first()
        while more:
            yield self.key(), self.value()
            more = self._step(1)

    def iterprev(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield the pairs from here back."""
        more = bool(self.stack) or self.last()
        while more:
            yield self.key(), self.value()
            more = self._step(-1)

    def _step(self, by: int) -> bool:
        page, at = self.stack[-1]
        if 0 <= at + by < len(page.keys):
            self.stack[-1] = (page, at + by)
            return True
        for level in range(len(self.stack) - 2, -1, -1):
            page, at = self.stack[level]
            if 0 <= at + by < len(page.keys):
                above = [*self.stack[:level], (page, at + by)]
                return self._descend(above, (lambda _: 0) if by > 0 else (lambda page: len(page.keys) - 1))
        return False

    def _descend(self, above: list[tuple[Page, int]], choose: Callable[[Page], int]) -> bool:
        """Go down to a leaf below the chosen place, holding each page to the range that its parents give it."""
        depth = self.tree.depth
        if not depth:
            return False
        while len(above) < depth:
            number = above[-1][0].nodes[above[-1][1]] if above else self.tree.root
            leaf = len(above) == depth - 1
            page = self.pages.page(number, leaf)
            low = next((p.keys[at] for p, at in reversed(above) if at), b"")
            high = next((p.keys[at + 1] for p, at in reversed(above) if at + 1 < len(p.keys)), None)
            if page.keys[page.branch] < low or (high is not None and page.keys[-1] >= high):
                raise Damage(f"page {number} holds keys that belong elsewhere")
            above.append((page, choose(page)))
        self.stack = above
        return True


class PageFile:
    """A store opened for reading; offers what the store uses of ``lmdb.Environment``.

    Where a lock file can be had, LMDB registers each reader in it, so that a live node does not overwrite pages that a
    snapshot still reads. Of the data LMDB itself reads nothing but the heads.
    """

    def __init__(self, path: Path, pin: Any) -> None:
        """Read ``path``/data.mdb; ``pin`` is an LMDB environment of the same folder, and is closed with this one."""
        self._pin = pin
        self._file = os.open(path / "data.mdb", os.O_RDONLY | os.O_CLOEXEC)
        self._latest: Pages | None = None

    def begin(self) -> "Reading":
        """Begin to read the present state of the file."""
        for _ in range(1_000):
            pin = self._pin.begin()
            try:
                size, metas = read_metas(self._file)
                meta = next((m for m in metas if m.transaction == pin.id()), None)
                if meta is not None:
                    pages = self._latest
                    if pages is None or pages.meta != meta:
                        pages = self._latest = Pages(self._file, size, meta)
                    return Reading(pages, pin)
            except BaseException:
                pin.abort()
                raise
            pin.abort()  # a writer has taken this head meanwhile
        raise Damage("neither head of the file is the one that the lock file names")

    def close(self) -> None:
        """Close the file."""
        self._pin.close()
        os.close(self._file)


class Reading:
    """A snapshot of a ``PageFile``; offers what the store uses of ``lmdb.Transaction``. Tables go by name."""

    def __init__(self, pages: Pages, pin: Any) -> None:
        self._pages = pages
        self._pin = pin
        self._tables: dict[bytes, TableRecord] = {}

    def get(self, key: bytes, default: bytes | None = None, db: bytes = b"") -> bytes | None:
        """Return the value under ``key``."""
        cursor = self.cursor(db)
        if cursor.set_range(key) and cursor.key() == key:
            return cursor.value()
        return default

    def cursor(self, db: bytes) -> Cursor:
        """Return a cursor over a table."""
        tree = self._tables.get(db)
        if tree is None:
            tree = self._tables[db] = self._named(db)
        return Cursor(self._pages, tree)

    def _named(self, name: bytes) -> TableRecord:
        cursor = Cursor(self._pages, self._pages.meta.main)
        tree = None
        if cursor.set_range(name) and cursor.key() == name:
            tree = self._pages.record(*cursor.stack[-1])
        if tree is None:
            raise lmdb.NotFoundError(f"there is no table {name.decode()}")
        return tree

    def stat(self, db: bytes) -> dict[str, int]:
        """Return how large a table says it is."""
        tree = self.cursor(db).tree
        return {
            "psize": self._pages.size,
            "branch_pages": tree.branches,
            "leaf_pages": tree.leaves,
            "overflow_pages": tree.overflows,
            "entries": tree.entries,
        }

    def abort(self) -> None:
        """End the snapshot."""
        self._pin.abort()

    def __enter__(self) -> "Reading":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()
