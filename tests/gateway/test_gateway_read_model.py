"""The read model on SQLite, and on a real PostgreSQL server where one is installed."""

import ast
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import text
from toy_contract import ALICE, BOB, COUNTS, GENESIS, NODE, TOY, Add, AddLater, Remove, signed

from gridpool.engines.embedded import Embedded
from gridpool.errors import RefusedInput
from gridpool.gateway import read_model
from gridpool.gateway.read_model import ReadModel
from gridpool.ledger.inspection import plain

POSTGRES = next((path for path in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Embedded]:
    with Embedded.create(tmp_path / "home", GENESIS, TOY, key=NODE, interval_ms=None) as made:
        yield made


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """Run a PostgreSQL server on loopback as an unprivileged user; its URL."""
    if POSTGRES is None:
        pytest.skip("PostgreSQL is not installed (Debian: postgresql)")
    base = Path(tempfile.mkdtemp(prefix="gridpool-postgres-"))
    user = None
    if os.geteuid() == 0:  # the server refuses to run as root
        user = "nobody"
        os.chown(base, pwd.getpwnam(user).pw_uid, -1)
    data = base / "data"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def run(*command: object) -> None:
        subprocess.run([str(c) for c in command], check=True, stdout=subprocess.DEVNULL, cwd=base, user=user)

    run(POSTGRES / "initdb", "-D", data, "-A", "trust", "-U", "gridpool", "--no-sync")
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={base} -c fsync=off"
    control = [POSTGRES / "pg_ctl", "-D", data, "-w", "-l", base / "log"]
    run(*control, "-o", options, "start")
    try:
        yield f"postgresql+psycopg://gridpool@127.0.0.1:{port}/postgres"
    finally:
        run(*control, "-m", "immediate", "stop")
        shutil.rmtree(base, ignore_errors=True)


def play(engine: Embedded, first: int, last: int) -> None:
    for nonce in range(first, last + 1):
        engine.submit(signed(ALICE, nonce, Add("a", nonce), Add(f"n{nonce}", 1), AddLater(1, nonce)).wire)
        engine.submit(signed(BOB, nonce, Add("b", 13)).wire)
        engine.seal(1_000 * nonce + 1_000)
    engine.submit(signed(ALICE, last + 100, Remove(f"n{first}")).wire)
    engine.seal(1_000 * last + 1_500)


def holds(model: ReadModel, engine: Embedded) -> None:
    with engine.view() as view, model.database.connect() as connection:
        blocks = connection.execute(text("SELECT height, app_hash FROM block ORDER BY height")).all()
        assert [tuple(row) for row in blocks] == [
            (h, view.header(h).header.app_hash.hex()) for h in range(view.height + 1)
        ]
        receipts = [(h, p, r.tx.hex(), r.code) for h in range(view.height + 1) for p, r in enumerate(view.receipts(h))]
        stored = connection.execute(text("SELECT height, position, tx, code FROM transaction_ ORDER BY 1, 2")).all()
        assert [tuple(row) for row in stored] == [row for row in receipts if row[2] != "00" * 32]
        events = connection.execute(text("SELECT count(*) FROM event")).scalar()
        assert events == sum(len(r.events) for h in range(view.height + 1) for r in view.receipts(h))
        entries = connection.execute(
            text("SELECT key, value FROM entry WHERE table_name = 'counter.count' ORDER BY key")
        ).all()
        assert {row[0] for row in entries} == {COUNTS.key_text(key) for key, _ in view.state.scan(COUNTS)}
        assert len(entries) == len({row[0] for row in entries})
        total = connection.execute(text("SELECT count(*) FROM entry")).scalar()
        assert total == view.snapshot.count("state")
        assert plain(view.state.get(COUNTS, (ALICE.public, "a"))) is not None


def exercise(url: str, engine: Embedded) -> None:
    play(engine, 1, 4)
    model = ReadModel(url, TOY)
    try:
        with engine.view() as view:
            model.rebuild(view)
        holds(model, engine)
        model.follow(engine)
        play(engine, 201, 206)
        end = time.monotonic() + 20
        while model.state_height < engine.height and time.monotonic() < end:
            time.sleep(0.02)
        assert model.failure is None
        holds(model, engine)
        rows = model.transactions_of(ALICE.public.hex(), limit=3)
        assert len(rows) == 3
        assert rows[0]["height"] == engine.height
    finally:
        model.close()


def test_sqlite_follows_the_ledger(engine: Embedded, tmp_path: Path) -> None:
    exercise(f"sqlite:///{tmp_path / 'read.sqlite'}", engine)


@pytest.mark.engine
def test_postgresql_follows_the_ledger(engine: Embedded, postgres: str) -> None:
    exercise(postgres, engine)


def test_a_database_of_another_chain_is_rebuilt(engine: Embedded, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'read.sqlite'}"
    with Embedded.create(tmp_path / "other", GENESIS, TOY, key=ALICE, interval_ms=None) as other:
        play(other, 5, 7)
        model = ReadModel(url, TOY)
        with other.view() as view:
            model.catch_up(view)
        holds(model, other)
    play(engine, 1, 9)
    with engine.view() as view:
        model.catch_up(view)
    holds(model, engine)
    engine.ledger.rollback()
    with engine.view() as view:
        model.catch_up(view)
    holds(model, engine)
    model.close()


CATCH_UP = """
import sys; sys.path.insert(0, sys.argv[1])
from pathlib import Path
from toy_contract import TOY
from gridpool.gateway.read_model import ReadModel
from gridpool.ledger.chain import Ledger
with Ledger.open(Path(sys.argv[2]), TOY, writable=False) as ledger, ledger.view() as view:
    ReadModel(sys.argv[3], TOY).catch_up(view)
"""


@pytest.mark.parametrize(
    "place",
    ["read_model.block:1", "read_model.block:4", "read_model.block:19", "read_model.block:31", "read_model.state"],
)
def test_a_projection_that_is_killed_goes_on_where_it_was(engine: Embedded, tmp_path: Path, place: str) -> None:
    url = f"sqlite:///{tmp_path / 'read.sqlite'}"
    tests = Path(__file__).parents[1] / "ledger"
    play(engine, 1, 19)  # 21 blocks: sixteen that are written together, and five

    def project(fail_at: str) -> int:
        command = [sys.executable, "-c", CATCH_UP, str(tests), str(tmp_path / "home" / "ledger"), url]
        return subprocess.run(command, env=os.environ | {"GRIDPOOL_FAIL_AT": fail_at}, check=False).returncode

    first = project(place)
    assert first == (-9 if place != "read_model.block:31" else 0)
    with closing(ReadModel(url, TOY)) as cut:
        assert cut.height == {"read_model.block:19": 15, "read_model.state": 20, "read_model.block:31": 20}.get(
            place, -1
        )
    play(engine, 201, 206)
    if first == 0:
        assert project("read_model.block:5") == -9
    model = ReadModel(url, TOY)
    with engine.view() as view:
        model.catch_up(view)
    holds(model, engine)
    play(engine, 301, 301)
    with engine.view() as view:
        model.catch_up(view)
    holds(model, engine)
    model.close()


def test_an_unusable_database_is_named_without_its_password() -> None:
    with pytest.raises(RefusedInput) as refused:
        ReadModel("postgresql+psycopg://me:secret@127.0.0.1:1/none", TOY)
    assert "secret" not in str(refused.value)
    assert "me:***@127.0.0.1" in str(refused.value)


def test_a_database_that_failed_is_tried_again(
    engine: Embedded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_model, "RETRY_S", 0.1)
    play(engine, 1, 4)
    model = ReadModel(f"sqlite:///{tmp_path / 'read.sqlite'}", TOY)
    with model.database.begin() as connection:
        connection.execute(text("ALTER TABLE event RENAME TO hidden"))
    try:
        model.follow(engine)
        assert model.failure is not None
        with model.database.begin() as connection:
            connection.execute(text("ALTER TABLE hidden RENAME TO event"))
        end = time.monotonic() + 20
        while model.failure is not None and time.monotonic() < end:
            time.sleep(0.02)
        assert model.failure is None
        holds(model, engine)
    finally:
        model.close()


def test_nothing_below_the_gateway_knows_of_a_database() -> None:
    source = Path(read_model.__file__).parents[1]
    for room in ("ledger", "contracts"):
        for file in (source / room).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                for name in names:
                    assert not name.startswith(("sqlalchemy", "sqlite3", "psycopg", "gridpool.gateway")), (file, name)


def test_unusable_database_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RefusedInput, match="cannot be used"):
        ReadModel(f"sqlite:///{tmp_path / 'no' / 'such' / 'folder' / 'x.sqlite'}", TOY)
    with pytest.raises(RefusedInput, match="cannot be used"):
        ReadModel("nonsense", TOY)
