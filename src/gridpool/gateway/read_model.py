"""The read model: blocks, transactions, events, accounts and state in SQL, so that history can be asked about.

It is made from the ledger alone and can be thrown away at any time; contracts never read it. SQLite by default,
PostgreSQL by URL (``postgresql+psycopg://...``).
"""

import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    delete,
    func,
    insert,
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

from gridpool.engines.engine import Engine
from gridpool.errors import RefusedInput
from gridpool.ledger import failpoints
from gridpool.ledger.chain import KnownRules, Undo, View, by_version, rules_for
from gridpool.ledger.inspection import plain, show_receipt
from gridpool.ledger.rules import Rules
from gridpool.ledger.transaction import Malformed, TransactionDecoder
from gridpool.ledger.verification import name_key

__all__ = ["ReadModel"]

POLL_S = 1.0
RETRY_S = 5.0
START_PATIENCE_S = 5.0
"""So long a node waits for its read model before it answers without it."""
REST = 10.0
"""Under load the whole state is projected again only after so many times as long as that took."""
ROWS = 500

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
    Column("tx", String(64), nullable=False, index=True),
    Column("sender", String(64), index=True),
    Column("nonce", BigInteger),
    Column("mode", String(8)),
    Column("code", Text, nullable=False),
    Column("info", Text, nullable=False),
    Column("calls", Text, nullable=False),
)
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

    def catch_up(self, view: View, *, advance: Callable[[int, int], None] | None = None, patient: bool = False) -> None:
        """Project the blocks that are new since the last time, and bring the projected state to the view's height.

        A database that was made from another chain, or from blocks since taken back, is rebuilt. ``advance`` is told
        (heights done, heights in all). A ``patient`` caller comes again: it lets the state lag behind the blocks while
        several arrive at once, so that they are not held up.
        """
        top = self.height
        if top >= 0 and not self._fits(view, top):
            self.rebuild(view, advance=advance)
            return
        state = self.state_height
        for height in range(max(top + 1, view.base + 1 if view.base else 0), view.height + 1):
            if self._stop.is_set():
                return
            follows = height == view.height and state == height - 1
            self._project_block(view, height, with_state=follows)
            state = height if follows else state
            if advance is not None:
                advance(height, view.height)
        if state != view.height and not (patient and time.monotonic() < self._state_not_before):
            start = time.monotonic()
            self._project_state(view)
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
                    feed.next(POLL_S)
                    with engine.view() as view:
                        self.catch_up(view, patient=True)

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

    def _project_block(self, view: View, height: int, *, with_state: bool) -> None:
        header = view.header(height).header
        rules = rules_for(self.known, view.snapshot, height)
        decoder = TransactionDecoder(rules)
        wires, receipts = view.transactions(height), view.receipts(height)
        rows, events = [], []
        for position, receipt in enumerate(receipts):
            shown = show_receipt(receipt, rules)
            if position < len(wires):
                rows.append(
                    {"height": height, "position": position, "tx": receipt.tx.hex(), "code": receipt.code}
                    | {"info": _text(receipt.info)}
                    | _body(decoder, wires[position])
                )
            for number, happened in enumerate(shown["events"]):
                events.append(
                    {
                        "height": height,
                        "position": position,
                        "number": number,
                        "tx": receipt.tx.hex(),
                        "type": str(happened.get("type", "undecoded")),
                        "data": _json(happened),
                    }
                )
        with self.database.begin() as connection:
            connection.execute(
                insert(BLOCKS),
                {
                    "height": height,
                    "time_ms": header.time_ms,
                    "app_hash": header.app_hash.hex(),
                    "rules_version": header.rules_version,
                    "transactions": len(wires),
                },
            )
            for table, found in ((TRANSACTIONS, rows), (EVENTS, events)):
                for at in range(0, len(found), ROWS):
                    connection.execute(insert(table), found[at : at + ROWS])
            failpoints.reach("read_model.block")
            if with_state:
                undo = view.snapshot.read("undo", height.to_bytes(8, "big"))
                changed = [] if undo is None else [key for key, _ in msgspec.msgpack.decode(undo, type=Undo).state]
                _store_entries(connection, rules, ((key, view.snapshot.get(key)) for key in changed), fresh=False)
                _note_state(connection, height)

    def _project_state(self, view: View) -> None:
        rules = rules_for(self.known, view.snapshot, view.height + 1)
        with self.database.begin() as connection:
            connection.execute(delete(ENTRIES))
            connection.execute(delete(ACCOUNTS))
            _store_entries(connection, rules, view.snapshot.items("state"), fresh=True)
            failpoints.reach("read_model.state")
            _note_state(connection, view.height)


def _note_state(connection: Any, height: int) -> None:
    connection.execute(delete(PROJECTED))
    connection.execute(insert(PROJECTED), {"what": "state", "height": height})


def _store_entries(connection: Any, rules: Rules, pairs: Iterable[tuple[bytes, bytes | None]], *, fresh: bool) -> None:
    entries: list[dict[str, Any]] = []
    accounts: list[dict[str, Any]] = []

    def flush() -> None:
        for table, rows in ((ENTRIES, entries), (ACCOUNTS, accounts)):
            if rows:
                connection.execute(insert(table), list(rows))
                rows.clear()

    for key, data in pairs:
        name, text = name_key(rules, key)
        if not fresh:
            connection.execute(delete(ENTRIES).where(ENTRIES.c.table_name == name, ENTRIES.c.key == text))
            if name == "coins.account":
                connection.execute(delete(ACCOUNTS).where(ACCOUNTS.c.wallet == text))
        if data is None or name not in rules.tables:
            continue
        value = plain(rules.tables[name].decode_value(data))
        entries.append({"table_name": name, "key": text, "value": _json(value)})
        if name == "coins.account":
            accounts.append({"wallet": text, "balance": value["balance"], "reserved": value["reserved"]})
        if len(entries) >= ROWS:
            flush()
    flush()


def _body(decoder: TransactionDecoder, wire: bytes) -> dict[str, Any]:
    try:
        body = decoder.decode(wire).body
    except Malformed:
        return {"sender": None, "nonce": None, "mode": None, "calls": "[]"}
    calls = _json([plain(call) for call in body.calls])
    return {"sender": body.sender.hex(), "nonce": body.nonce, "mode": body.mode, "calls": calls}


def _json(value: Any) -> str:
    return _text(msgspec.json.encode(value).decode())


def _text(text: str) -> str:
    """PostgreSQL stores no NUL."""
    return text.replace("\\u0000", "\\ufffd").replace("\0", "\ufffd")


def _tune_sqlite(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.close()
