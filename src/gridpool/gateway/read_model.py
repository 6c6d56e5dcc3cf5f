"""The read model: blocks, transactions, events, accounts and state in SQL, so that history can be asked about.

It is made from the ledger alone and can be thrown away at any time; contracts never read it. SQLite by default,
PostgreSQL by URL (``postgresql+psycopg://...``).
"""

import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import msgspec
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    delete,
    func,
    select,
)
from sqlalchemy import (
    Engine as Database,
)
from sqlalchemy import (
    event as hooks,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from gridpool.engines.engine import Engine, Sealed, Subscription
from gridpool.errors import RefusedInput
from gridpool.ledger import failpoints
from gridpool.ledger.chain import Undo
from gridpool.ledger.inspection import plain, show_receipt
from gridpool.ledger.rules import Rules
from gridpool.ledger.transaction import Malformed, TransactionDecoder
from gridpool.ledger.view import KnownRules, View, by_version, rules_for

__all__ = ["ReadModel"]

POLL_S = 1.0
RETRY_S = 5.0
START_PATIENCE_S = 5.0
"""So long a node waits for its read model before it answers without it."""
REST = 10.0
"""Who follows rests so many times as long as it worked: under load it takes in several blocks at a time, and what they
have in common is written once."""
LONGEST_REST_S = 1.0
"""So far, at most, history stays behind the chain on purpose."""
ROWS = 500
MOST_TOGETHER = 16
"""Blocks in one transaction of the database."""
ACCOUNT = "coins.account"
Row = tuple[Any, ...]
Shown = tuple[str | None, int | None, str | None, str]
"""Sender, nonce, mode and calls (JSON) of a transaction."""
NO_BODY: Shown = (None, None, None, "[]")

SCHEMA = MetaData()
BLOCKS = Table(
    "block",
    SCHEMA,
    Column("height", BigInteger, primary_key=True, autoincrement=False),
    Column("time_ms", BigInteger, nullable=False),
    Column("app_hash", String(64), nullable=False),
    Column("rules_version", Integer, nullable=False),
    Column("transactions", Integer, nullable=False),
)
TRANSACTIONS = Table(
    "transaction_",
    SCHEMA,
    Column("height", BigInteger, primary_key=True, autoincrement=False),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("tx", String(64), nullable=False),
    Column("sender", String(64), index=True),
    Column("nonce", BigInteger),
    Column("mode", String(8)),
    Column("code", Text, nullable=False),
    Column("info", Text, nullable=False),
    Column("calls", Text, nullable=False),
    sqlite_with_rowid=False,
)
"""No index by identifier: each row would go to another page of it, however long history has become, and the ledger has
one that tells a transaction's height and position (``GET /tx/{id}``)."""
EVENTS = Table(
    "event",
    SCHEMA,
    Column("height", BigInteger, primary_key=True, autoincrement=False),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("tx", String(64), nullable=False),
    Column("type", Text, nullable=False),
    Column("data", Text, nullable=False),
    Index("event_type", "type", "height"),
    sqlite_with_rowid=False,
)
ENTRIES = Table(
    "entry",
    SCHEMA,
    Column("table_name", String(128), primary_key=True),
    Column("key", String(2048), primary_key=True),
    Column("value", Text, nullable=False),
)
ACCOUNTS = Table(
    "account",
    SCHEMA,
    Column("wallet", String(64), primary_key=True),
    Column("balance", BigInteger, nullable=False),
    Column("reserved", BigInteger, nullable=False),
)

PROJECTED = Table(
    "projected",
    SCHEMA,
    Column("what", String(16), primary_key=True),
    Column("height", BigInteger, nullable=False),
)
"""At which height the rows of ``entry`` and ``account`` are; they are written after the blocks that lead there."""


class ReadModel:
    """Projects a ledger into a database and keeps up with it.

    Every step is one transaction of the database and says in it how far it came, so the projection can be cut off at
    any moment and goes on from there.
    """

    def __init__(self, url: str, known: KnownRules) -> None:
        """Open or make the database at ``url`` (an SQLAlchemy URL); raises RefusedInput where that cannot be done."""
        self.known = by_version(known)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._current = threading.Event()
        self._state_not_before = 0.0
        self._decoders: dict[int, TransactionDecoder] = {}
        self.failure: str | None = None
        """Why the projection is behind, None while it keeps up."""
        shown = url.partition("://")[0]  # a URL may hold a password
        try:
            shown = make_url(url).render_as_string(hide_password=True)
            self.database: Database = create_engine(url, pool_pre_ping=True)
            if self.database.dialect.name == "sqlite":
                hooks.listen(self.database, "connect", _tune_sqlite)
            SCHEMA.create_all(self.database)
        except (SQLAlchemyError, ImportError) as error:
            raise RefusedInput(f"the read model's database {shown} cannot be used: {error}") from error

    @property
    def height(self) -> int:
        """Height of the last projected block, -1 for none."""
        with self.database.connect() as connection:
            top = connection.execute(select(func.max(BLOCKS.c.height))).scalar()
        return -1 if top is None else int(top)

    @property
    def state_height(self) -> int:
        """Height of the projected state, -1 for none."""
        with self.database.connect() as connection:
            height = connection.execute(select(PROJECTED.c.height).where(PROJECTED.c.what == "state")).scalar()
        return -1 if height is None else int(height)

    def rebuild(self, view: View, *, advance: Callable[[int, int], None] | None = None) -> None:
        """Throw everything away and project the ledger anew."""
        with self.database.begin() as connection:
            for table in SCHEMA.sorted_tables:
                connection.execute(delete(table))
        self.catch_up(view, advance=advance)

    def catch_up(
        self,
        view: View,
        changed: Collection[bytes] | None = None,
        *,
        advance: Callable[[int, int], None] | None = None,
        patient: bool = False,
    ) -> None:
        """Project the blocks that are new since the last time, and bring the projected state to the view's height.

        A database that was made from another chain, or from blocks since taken back, is rebuilt. ``changed`` are the
        full keys that the blocks above the projected state changed, where they are known: then nothing else is read
        again. ``advance`` is told (heights done, heights in all). A ``patient`` caller comes again: where the whole
        state must be projected, it lets it lag behind the blocks, so that they are not held up.
        """
        top = self.height
        if top >= 0 and not self._fits(view, top):
            self.rebuild(view, advance=advance)
            return
        state = self.state_height
        if changed is None and state == view.height - 1:
            changed = _last_changes(view)
        heights = range(max(top + 1, view.base + 1 if view.base else 0), view.height + 1)
        for at in range(0, len(heights), MOST_TOGETHER):
            if self._stop.is_set():
                return
            together = heights[at : at + MOST_TOGETHER]
            with self.database.begin() as connection:
                for height in together:
                    self._project_block(connection, view, height)
                    failpoints.reach("read_model.block")
                if together[-1] == view.height and changed is not None and state >= 0:
                    # Where that is quick the last block comes with the state: nobody sees one without the other.
                    self._project_keys(connection, view, changed)
                    state = view.height
            if advance is not None:
                advance(together[-1], view.height)
        if state != view.height and not (patient and time.monotonic() < self._state_not_before):
            start = time.monotonic()
            with self.database.begin() as connection:
                self._project_state(connection, view)
                failpoints.reach("read_model.state")
            self._state_not_before = (1 + REST) * time.monotonic() - REST * start

    def follow(self, engine: Engine) -> None:
        """Keep up with an engine in a thread of its own until ``close``; a database that fails is tried again.

        Returns once the database is current, at the latest after ``START_PATIENCE_S``.
        """

        def keep_up() -> None:
            with engine.view() as view:
                self.catch_up(view)
                height = view.height
            self.failure = None
            self._current.set()
            with engine.subscribe(after=height) as feed:
                while not self._stop.is_set() and not engine.closed:
                    sealed = feed.next(POLL_S)
                    start = time.monotonic()
                    self._take_in(engine, feed, sealed)
                    self._stop.wait(min(REST * (time.monotonic() - start), LONGEST_REST_S))

        def run() -> None:
            while not self._stop.is_set() and not engine.closed:
                try:
                    keep_up()
                except (SQLAlchemyError, RefusedInput) as error:
                    if self._stop.is_set() or engine.closed:
                        return
                    self.failure = str(error)
                    self._current.set()
                    self._stop.wait(RETRY_S)

        self._thread = threading.Thread(target=run, name="gridpool-read-model", daemon=True)
        self._thread.start()
        self._current.wait(START_PATIENCE_S)

    def _take_in(self, engine: Engine, feed: Subscription, sealed: Sealed | None) -> None:
        """Project a block and those that came meanwhile, together: what they changed is projected once."""
        with engine.view() as view:
            changed: set[bytes] | None = None
            if sealed is not None:
                changed = set() if self.state_height == sealed.height - 1 else None
                blocks = [sealed]
                while blocks[-1].height < view.height and (more := feed.next(0.0)) is not None:
                    blocks.append(more)
                for block in blocks:
                    changed = None if changed is None or block.changed is None else changed.union(block.changed)
                changed = changed if blocks[-1].height == view.height else None
            self.catch_up(view, changed, patient=True)

    def close(self) -> None:
        """Stop following and close the database."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(5)
        self.database.dispose()

    def transactions_of(self, wallet: str, *, limit: int = 100) -> list[dict[str, Any]]:
        """Return the latest transactions that a wallet signed, newest first."""
        wanted = (
            select(TRANSACTIONS.c.tx, TRANSACTIONS.c.height, TRANSACTIONS.c.position, TRANSACTIONS.c.code)
            .where(TRANSACTIONS.c.sender == wallet)
            .order_by(TRANSACTIONS.c.height.desc(), TRANSACTIONS.c.position.desc())
            .limit(limit)
        )
        with self.database.connect() as connection:
            return [dict(row._mapping) for row in connection.execute(wanted)]

    def _fits(self, view: View, top: int) -> bool:
        if top > view.height:
            return False
        with self.database.connect() as connection:
            known = connection.execute(select(BLOCKS.c.app_hash).where(BLOCKS.c.height == top)).scalar()
        return known == view.header(top).header.app_hash.hex()

    def _project_block(self, connection: Connection, view: View, height: int) -> None:
        header = view.header(height).header
        rules = rules_for(self.known, view.snapshot, height)
        decoder = self._decoders.get(rules.version)
        if decoder is None:
            decoder = self._decoders[rules.version] = TransactionDecoder(rules)
        wires, receipts = view.transactions(height), view.receipts(height)
        rows: list[Row] = []
        events: list[Row] = []
        for position, receipt in enumerate(receipts):
            tx = receipt.tx.hex()
            if position < len(wires):
                known = receipt.code != "malformed"
                sender, nonce, mode, calls = _body(decoder, wires[position]) if known else NO_BODY
                rows.append((height, position, tx, sender, nonce, mode, receipt.code, _text(receipt.info), calls))
            for number, happened in enumerate(show_receipt(receipt, rules)["events"] if receipt.events else ()):
                kind = str(happened.get("type", "undecoded"))
                events.append((height, position, number, tx, kind, _json(happened)))
        block = (height, header.time_ms, header.app_hash.hex(), header.rules_version, len(wires))
        for table, found in ((BLOCKS, [block]), (TRANSACTIONS, rows), (EVENTS, events)):
            _put(connection, table, found)

    def _project_keys(self, connection: Connection, view: View, changed: Collection[bytes]) -> None:
        rules = rules_for(self.known, view.snapshot, view.height + 1)
        pairs = [(rules.name_key(key), view.snapshot.get(key)) for key in changed]
        _note_state(connection, view.height)
        gone = [name for name, data in pairs if data is None or name[0] not in rules.tables]
        _remove(connection, ENTRIES, gone)
        _remove(connection, ACCOUNTS, [(text,) for name, text in gone if name == ACCOUNT])
        _store_entries(connection, rules, pairs)

    def _project_state(self, connection: Connection, view: View) -> None:
        rules = rules_for(self.known, view.snapshot, view.height + 1)
        _note_state(connection, view.height)
        connection.execute(delete(ENTRIES))
        connection.execute(delete(ACCOUNTS))
        pairs = ((rules.name_key(key), value) for key, value in view.snapshot.items("state"))
        _store_entries(connection, rules, pairs)


def _note_state(connection: Connection, height: int) -> None:
    """Say at which height the projected state is."""
    _put(connection, PROJECTED, [("state", height)])


def _last_changes(view: View) -> list[bytes] | None:
    """Return the full keys that the last block changed, None where that is not known any more."""
    undo = view.snapshot.read("undo", view.height.to_bytes(8, "big"))
    return None if undo is None else [key for key, _ in msgspec.msgpack.decode(undo, type=Undo).state]


def _store_entries(connection: Connection, rules: Rules, pairs: Iterable[tuple[tuple[str, str], bytes | None]]) -> None:
    """Write what keys, given by table and text, hold; ``None`` and tables that the rules do not know are left out."""
    entries: list[Row] = []
    accounts: list[Row] = []
    for (name, text), data in pairs:
        if data is None or name not in rules.tables:
            continue
        value = plain(rules.tables[name].decode_value(data))
        entries.append((name, text, _json(value)))
        if name == ACCOUNT:
            accounts.append((text, value["balance"], value["reserved"]))
        if len(entries) >= ROWS:
            _put(connection, ENTRIES, entries)
            _put(connection, ACCOUNTS, accounts)
            entries, accounts = [], []
    _put(connection, ENTRIES, entries)
    _put(connection, ACCOUNTS, accounts)


def _put(connection: Connection, table: Table, rows: Sequence[Row]) -> None:
    """Insert rows whose values stand in the order of the table's columns, or replace those with their primary keys.

    The driver gets them as they are: building each statement's parameters by name would cost more than the database.
    """
    if rows:
        quote, mark = connection.dialect.identifier_preparer.quote, _mark(connection)
        names = ", ".join(quote(column.name) for column in table.columns)
        keys = ", ".join(quote(column.name) for column in table.primary_key.columns)
        rest = ", ".join(f"{quote(c.name)} = excluded.{quote(c.name)}" for c in table.columns if not c.primary_key)
        statement = (
            f"INSERT INTO {table.name} ({names}) VALUES ({', '.join(mark for _ in table.columns)}) "
            f"ON CONFLICT ({keys}) DO UPDATE SET {rest}"
        )
        for at in range(0, len(rows), ROWS):
            connection.exec_driver_sql(statement, list(rows[at : at + ROWS]))


def _remove(connection: Connection, table: Table, keys: Sequence[Row]) -> None:
    """Delete the rows with these primary keys."""
    if keys:
        quote, mark = connection.dialect.identifier_preparer.quote, _mark(connection)
        where = " AND ".join(f"{quote(column.name)} = {mark}" for column in table.primary_key.columns)
        connection.exec_driver_sql(f"DELETE FROM {table.name} WHERE {where}", list(keys))


def _mark(connection: Connection) -> str:
    return "%s" if connection.dialect.name == "postgresql" else "?"


def _body(decoder: TransactionDecoder, wire: bytes) -> Shown:
    try:
        body = decoder.body(wire)
    except Malformed:
        return NO_BODY
    return body.sender.hex(), body.nonce, body.mode, _json([plain(call) for call in body.calls])


def _json(value: Any) -> str:
    return _text(msgspec.json.encode(value).decode())


def _text(text: str) -> str:
    """PostgreSQL stores no NUL."""
    return text.replace("\\u0000", "\\ufffd").replace("\0", "\ufffd")


def _tune_sqlite(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    # Senders fall all over their index: pages are read and written once for many of them.
    cursor.execute("PRAGMA cache_size=-16000")
    cursor.execute("PRAGMA wal_autocheckpoint=8000")
    cursor.close()
