"""The read model on SQLite, and on a real PostgreSQL server where one is installed."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text
from toy_contract import ALICE, BOB, COUNTS, GENESIS, NODE, TOY, Add, AddLater, Remove, signed

from gridpool.engines.embedded import Embedded
from gridpool.errors import RefusedInput
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
        while model.height < engine.height and time.monotonic() < end:
            time.sleep(0.02)
        time.sleep(0.1)
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


def test_unusable_database_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RefusedInput, match="cannot be used"):
        ReadModel(f"sqlite:///{tmp_path / 'no' / 'such' / 'folder' / 'x.sqlite'}", TOY)
    with pytest.raises(RefusedInput, match="cannot be used"):
        ReadModel("nonsense", TOY)
