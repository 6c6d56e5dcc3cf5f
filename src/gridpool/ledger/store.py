"""The ledger's store: one LMDB folder, one write transaction a block, read snapshots that never wait for it."""

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import lmdb
import msgspec

from gridpool.errors import RefusedInput
from gridpool.ledger import failpoints
from gridpool.ledger.page_file import PageFile
from gridpool.ledger.pages import Damage, check_pages, read_metas

__all__ = ["FORMAT", "TABLES", "Damaged", "Snapshot", "Store", "Writer", "give_name", "refuse_taken"]

FORMAT = b"gridpool-ledger-1"
"""What ``format`` in the table ``meta`` says."""
TABLES = ("state", "tree", "header", "body", "receipt", "transaction", "undo", "base", "meta")
"""The store's own tables: live state and tree; by height headers, bodies, receipts; transaction id -> place; the last
block's old values; the state from which a pruned ledger replays; genesis, head and the like."""
Damaged = lmdb.Error
"""What reading a snapshot raises where the file's own structure is damaged."""
FIRST_MAP = 1 << 30
"""Address space for the file, not disk: growing it has to wait for readers, so it should be rare."""
READERS = 512
PATIENCE_S = 60.0


class _Shared:
    """What all stores opened on one folder share: LMDB allows one environment a folder and process."""

    def __init__(self, place: str, environment: Any, handles: dict[str, Any], *, writable: bool) -> None:
        self.place = place
        self.environment = environment
        self.handles = handles
        self.writable = writable
        self.stores = 1
        self.readers = 0
        self.gate = threading.Condition()
        self.writing = threading.Lock()


_open: dict[str, _Shared] = {}
_opening = threading.Lock()


class Store:
    """An open store. Any number of threads may read; one at a time may write."""

    def __init__(self, path: Path, shared: _Shared, *, writable: bool) -> None:
        """Use ``Store.create`` or ``Store.open``."""
        self.path = path
        self.writable = writable
        self._shared: _Shared | None = shared

    @classmethod
    def create(cls, path: Path, *, map_size: int = FIRST_MAP) -> "Store":
        """Make an empty store in the folder ``path``; raises RefusedInput where something lies there already."""
        with _opening:
            refuse_taken(path)
            try:
                path.mkdir(parents=True, exist_ok=True)
                environment = _environment(path, map_size=map_size, readonly=False)
                handles = {name: environment.open_db(name.encode()) for name in TABLES}
            except (OSError, lmdb.Error) as error:
                raise RefusedInput(f"no ledger can be made in {path}: {error}") from error
            shared = _Shared(str(path.resolve()), environment, handles, writable=True)
            _open[shared.place] = shared
            return cls(path, shared, writable=True)

    @classmethod
    def open(cls, path: Path, *, writable: bool = True, doubtful: bool = False) -> "Store":
        """Open a whole store; raises RefusedInput where there is none, or only a part of one.

        ``doubtful`` leaves judging its contents to the caller (verification).
        """
        with _opening:
            place = str(path.resolve())
            shared = _open.get(place)
            if shared is None:
                shared = _open[place] = _Shared(place, *_look_and_open(path, writable), writable=writable)
            elif writable and not shared.writable:
                raise RefusedInput(f"{path} is open for reading in this process; close it before writing to it")
            else:
                shared.stores += 1
        store = cls(path, shared, writable=writable)
        try:
            with store.snapshot() as snapshot:
                found = snapshot.read("meta", b"format")
                whole = snapshot.read("meta", b"head") is not None
        except BaseException:
            store.close()
            raise
        if not doubtful and (found != FORMAT or not whole):
            store.close()
            raise RefusedInput(f"{path} holds no finished ledger of this version; make it anew or restore it")
        return store

    @contextmanager
    def snapshot(self) -> Iterator["Snapshot"]:
        """Read the store as it is now, whatever is written meanwhile.

        Raises RefusedInput where what is read proves damaged: its pages, or values that cannot be decoded.
        """
        transaction = self._begin_reading()
        try:
            yield Snapshot(transaction, self._core.handles)
        except (lmdb.Error, msgspec.DecodeError, UnicodeDecodeError) as error:
            raise RefusedInput(
                f"{self.path} is damaged ({error}); gridpool ledger verify says where, restore it from a backup or "
                "another node"
            ) from error
        finally:
            transaction.abort()
            self._end_reading()

    def write(self, work: Callable[["Writer"], None]) -> None:
        """Run ``work`` in one durable write transaction: all of it is stored, or nothing.

        Where the map is full it is grown and ``work`` runs again, so it must not depend on having run. Raises
        RefusedInput where the disk is full or read-only.
        """
        if not self.writable:
            raise RefusedInput(f"{self.path} was opened for reading only")
        core = self._core
        with core.writing:
            while True:
                try:
                    with core.environment.begin(write=True) as transaction:
                        failpoints.reach("store.write.begun")
                        work(Writer(transaction, core.handles))
                        failpoints.reach("store.write.filled")
                    failpoints.reach("store.write.committed")
                    return
                except lmdb.MapFullError:
                    self._grow()
                except lmdb.MapResizedError:
                    self._grow(0)
                except (lmdb.Error, OSError) as error:
                    raise RefusedInput(
                        f"{self.path} cannot be written ({error}); free some space or mend its permissions, the last "
                        "whole height is kept"
                    ) from error

    def copy(self, path: Path) -> None:
        """Write a compact copy of the live store into the empty folder ``path`` (a backup that can be opened).

        Raises RefusedInput, and leaves nothing there, where it cannot be written.
        """
        refuse_taken(path)
        if not self._core.writable:
            raise RefusedInput(f"{self.path} is open for reading only; copy its folder, or ask the node for a backup")
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._core.environment.copy(str(path), compact=True)
        except (lmdb.Error, OSError) as error:
            shutil.rmtree(path, ignore_errors=True)
            raise RefusedInput(f"no copy can be made in {path}: {error}; free some space") from error

    def close(self) -> None:
        """Close the store; its snapshots must be closed before. Closing twice does nothing."""
        with _opening:
            shared, self._shared = self._shared, None
            if shared is None:
                return
            shared.stores -= 1
            if shared.stores == 0:
                del _open[shared.place]
                shared.environment.close()

    @property
    def _core(self) -> _Shared:
        if self._shared is None:
            raise RefusedInput(f"the ledger in {self.path} was closed")
        return self._shared

    def _begin_reading(self) -> Any:
        core = self._core
        while True:
            with core.gate:
                core.readers += 1
            try:
                return core.environment.begin()
            except lmdb.MapResizedError:
                self._end_reading()
                self._grow(0)
            except lmdb.Error as error:
                self._end_reading()
                raise RefusedInput(f"{self.path} cannot be read: {error}") from error
            except BaseException:
                self._end_reading()
                raise

    def _end_reading(self) -> None:
        core = self._core
        with core.gate:
            core.readers -= 1
            if not core.readers:
                core.gate.notify_all()

    def _grow(self, size: int | None = None) -> None:
        """Enlarge the map once no snapshot of this process is open (LMDB's condition)."""
        core = self._core
        with core.gate:
            if not core.gate.wait_for(lambda: core.readers == 0, PATIENCE_S):
                raise RefusedInput(f"{self.path} must grow, but a reader has been open for {PATIENCE_S:.0f} s")
            core.environment.set_mapsize(2 * core.environment.info()["map_size"] if size is None else size)


class Snapshot:
    """The store at one height. It is also a ``Reader`` of the state."""

    __slots__ = ("_get", "_handles", "_state", "_transaction", "node")

    def __init__(self, transaction: Any, handles: dict[str, Any]) -> None:
        self._transaction = transaction
        self._handles = handles
        self._get = transaction.get
        self._state = handles["state"]
        self.node: Callable[[bytes], bytes | None] = partial(transaction.get, default=None, db=handles["tree"])
        """Gives the tree's node at a prefix."""

    def read(self, table: str, key: bytes) -> bytes | None:
        """Return what one of the store's own tables holds under ``key``."""
        return self._get(key, None, self._handles[table])  # type: ignore[no-any-return]

    def items(self, table: str, start: bytes = b"", *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """Yield the pairs of one of the store's own tables in key order, from ``start`` on; backwards from the end."""
        with self._transaction.cursor(self._handles[table]) as cursor:
            if reverse:
                if cursor.last():
                    yield from cursor.iterprev()
            elif cursor.set_range(start) if start else cursor.first():
                yield from cursor.iternext()

    def count(self, table: str) -> int:
        """Return the number of pairs of a table."""
        return self._transaction.stat(self._handles[table])["entries"]  # type: ignore[no-any-return]

    def bytes_used(self) -> int:
        """Return the bytes that all tables occupy."""
        used = 0
        for handle in self._handles.values():
            stat = self._transaction.stat(handle)
            used += stat["psize"] * (stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"])
        return used

    def get(self, key: bytes) -> bytes | None:
        """Return the value of the state stored under ``key``."""
        return self._get(key, None, self._state)  # type: ignore[no-any-return]

    def scan(self, prefix: bytes, start: bytes, reverse: bool) -> Iterator[tuple[bytes, bytes]]:
        """Yield a range of the state in key order; see ``Reader.scan``."""
        with self._transaction.cursor(self._state) as cursor:
            if not reverse:
                found = cursor.set_range(max(prefix, start))
                steps = cursor.iternext()
            else:
                found = _step_onto_last(cursor, prefix, start)
                steps = cursor.iterprev()
            if found:
                for key, value in steps:
                    if not key.startswith(prefix):
                        return
                    yield key, value


class Writer(Snapshot):
    """A write transaction."""

    __slots__ = ()

    def put(self, table: str, key: bytes, value: bytes) -> None:
        """Store one pair."""
        self._transaction.put(key, value, db=self._handles[table])

    def delete(self, table: str, key: bytes) -> None:
        """Remove one pair, if there is one."""
        self._transaction.delete(key, db=self._handles[table])

    def put_many(self, table: str, pairs: list[tuple[bytes, bytes]]) -> None:
        """Store many pairs, best in key order."""
        with self._transaction.cursor(self._handles[table]) as cursor:
            cursor.putmulti(pairs)

    def clear(self, table: str) -> None:
        """Remove all pairs of a table."""
        self._transaction.drop(self._handles[table], delete=False)


def _step_onto_last(cursor: Any, prefix: bytes, start: bytes) -> bool:
    """Put the cursor on the last key with ``prefix`` that is not above ``start``."""
    if start:
        if cursor.set_range(start):
            return bool(cursor.key() == start or cursor.prev())
        return bool(cursor.last())
    trimmed = prefix.rstrip(b"\xff")
    if cursor.set_range(trimmed[:-1] + bytes((trimmed[-1] + 1,))):
        return bool(cursor.prev())
    return bool(cursor.last())


def _environment(path: Path, *, map_size: int, readonly: bool) -> Any:
    def attempt(lock: bool) -> Any:
        return lmdb.open(
            str(path),
            map_size=map_size,
            max_dbs=len(TABLES),
            max_readers=READERS,
            readonly=readonly,
            create=not readonly,
            lock=lock,
            readahead=False,
            meminit=False,
        )

    try:
        return attempt(True)
    except lmdb.Error:
        if not readonly:
            raise
        return attempt(False)  # a read-only folder has no room for the lock file


def refuse_taken(path: Path) -> None:
    """Refuse a folder that holds something already."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise RefusedInput(f"{path} exists and is not empty; choose another folder or remove it")


def give_name(partial: Path, final: Path, what: str) -> None:
    """Give what was made under a partial name its own name, durably: after a cut there is all of it, or nothing.

    ``what`` names the fail points before and after. An empty folder of the final name gives way.
    """
    failpoints.reach(f"{what}.made")
    for file in (partial / "data.mdb",) if partial.is_dir() else (partial,):
        _sync(file)
    if final.is_dir():
        final.rmdir()
    partial.rename(final)
    _sync(final.parent)
    failpoints.reach(f"{what}.named")


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _look_and_open(path: Path, writable: bool) -> tuple[Any, dict[str, Any]]:
    """Open a whole store, or refuse.

    LMDB trusts its file, so it is given none that was not looked at: to be written to, every page is; to be read,
    ``PageFile`` looks at the pages that are touched.
    """
    data = path / "data.mdb"
    if not data.is_file():
        raise RefusedInput(f"{path} holds no ledger (no data.mdb); name a day's folder, a ledger or a node's home")
    environment: Any = None
    try:
        size = data.stat().st_size
        with data.open("rb") as file:
            read_metas(file.fileno())
        environment = _environment(path, map_size=max(FIRST_MAP, 2 * size), readonly=not writable)
        if not writable:
            environment = PageFile(path, environment)
            return environment, _named_tables(environment)
        with environment.begin() as transaction:
            check_pages(path, transaction)
        return environment, {name: environment.open_db(name.encode(), create=False) for name in TABLES}
    except (OSError, lmdb.Error, RefusedInput) as error:
        if environment is not None:
            environment.close()
        if isinstance(error, RefusedInput):
            raise
        if isinstance(error, lmdb.NotFoundError):
            raise RefusedInput(f"{path} is no gridpool ledger; name a day's folder, a ledger or a home") from None
        if isinstance(error, Damage):
            raise RefusedInput(f"{data} is damaged: {error}; restore it from a backup or another node") from None
        raise RefusedInput(f"{path} cannot be opened as a ledger: {error}") from error


def _named_tables(pages: PageFile) -> dict[str, Any]:
    """Return what stands for the tables where LMDB does not read them: their names."""
    names = {name: name.encode() for name in TABLES}
    with pages.begin() as reading:
        for name in names.values():
            reading.stat(name)
    return names
