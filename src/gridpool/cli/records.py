"""``gridpool records``: store encrypted data sets, share them, take them back, and find altered chunks."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
from cyclopts import App, Parameter

from gridpool.cli.output import emit, progress, table

if TYPE_CHECKING:
    from gridpool.agents.chunk_store import ChunkStore
    from gridpool.agents.wallet_session import Session

__all__ = ["app"]

app = App(name="records", help="Store, share and audit encrypted records.")

Json = Annotated[bool, Parameter(negative="")]


@app.command
def put(
    file: Path,
    /,
    *,
    home: Path,
    wallet: Path | None = None,
    number: int | None = None,
    chunk_bytes: int = 65_536,
    purpose: str = "",
    role: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    keep_until: str | None = None,
    store: str | None = None,
    json: Json = False,
) -> None:
    """Encrypt a file in chunks, store it, and put root, size and policy on the ledger.

    A folder without ledger gets one with a single member and its key (DIR/member.wallet; keep a copy of it).

    Example: ``gridpool records put inspection.csv --home out/records --json``

    Parameters
    ----------
    file
        What to store.
    home
        Home of a node on this machine.
    wallet
        Wallet file of the owner; by default the one made with the home.
    number
        Which of the owner's wallets stores it.
    chunk_bytes
        Bytes a chunk, before encryption.
    purpose
        What the data may be used for; everybody can read it.
    role
        Roles that may be granted access (repeat for several); by default any.
    keep_until
        When all grants end at the latest (RFC 3339, or ms of market time).
    store
        Folder or fsspec address of the store, as in s3://bucket/records; by default the home.
    json
        Print one JSON object.
    """
    from gridpool.agents.chunk_store import ChunkStore
    from gridpool.agents.meter import parse_time
    from gridpool.agents.records import check_source, put_data_set
    from gridpool.agents.records_home import found_where_none, member_keys
    from gridpool.contracts.members import FOREVER, Role
    from gridpool.contracts.records_data import Policy, chunks_for
    from gridpool.errors import RefusedInput

    check_source(file, chunk_bytes)
    known = {one.value: one for one in Role}
    for name in role:
        if name not in known:
            raise RefusedInput(f"no role {name!r}; the roles are {', '.join(known)}")
    if len(purpose) > 256 or "\0" in purpose:
        raise RefusedInput("a purpose has at most 256 characters, none of them NUL")
    end = FOREVER if keep_until is None else parse_time(keep_until)
    policy = Policy(purpose, tuple(dict.fromkeys(known[name] for name in role)), end)
    ChunkStore(home if store is None else store)  # refused before anything is made
    if wallet is None:
        found_where_none(home)
    keys = member_keys(home, wallet)
    total = chunks_for(file.stat().st_size, chunk_bytes)
    with _opened(home, store, writable=True) as (session, chunks), progress("encrypting", total) as advance:
        stored = put_data_set(
            session,
            keys,
            chunks,
            file,
            chunk_bytes=chunk_bytes,
            policy=policy,
            number=number,
            advance=advance,
        )
    emit(msgspec.to_builtins(stored), json=json)


@app.command
def get(
    id: str,
    /,
    *,
    home: Path,
    out: Path,
    wallet: Path | None = None,
    store: str | None = None,
    json: Json = False,
) -> None:
    """Decrypt a data set into a file and note the read on the ledger; an altered chunk is named and nothing written.

    Example: ``gridpool records get 3f7c... --home out/records --out inspection.csv``

    Parameters
    ----------
    id
        The data set (64 hexadecimal digits).
    home
        Home of a node on this machine.
    out
        File to write; it appears whole or not at all.
    wallet
        Wallet file of the reader; by default the one made with the home.
    store
        Folder or fsspec address of the store; by default the home.
    json
        Print one JSON object.
    """
    from gridpool.agents.records import get_data_set, known_data_set
    from gridpool.agents.records_home import member_keys

    data_set, keys = _id(id), member_keys(home, wallet)
    with _opened(home, store, writable=True) as (session, chunks):
        total = known_data_set(session.state, data_set).chunks
        with progress("decrypting", total) as advance:
            data = get_data_set(session, keys, chunks, data_set, out, advance=advance)
    emit({"id": id, "file": str(out), "size": data.size, "chunks": data.chunks, "version": data.version}, json=json)


@app.command
def locate(
    id: str,
    /,
    *,
    home: Path,
    report: Annotated[bool, Parameter(negative="")] = False,
    wallet: Path | None = None,
    store: str | None = None,
    json: Json = False,
) -> None:
    """Name the chunks that the store holds altered or lost; exit 3 where there are any. It needs no key.

    Example: ``gridpool records locate 3f7c... --home out/records --json``

    Parameters
    ----------
    id
        The data set (64 hexadecimal digits).
    home
        Home of a node on this machine.
    report
        Put what was found on the data set's audit trail, as its owner or a reader.
    wallet
        Wallet file of who reports; by default the one made with the home.
    store
        Folder or fsspec address of the store; by default the home.
    json
        Print one JSON object.
    """
    from gridpool.agents.records import known_data_set, locate_altered, report_altered
    from gridpool.agents.records_home import member_keys
    from gridpool.errors import VerificationFault

    data_set = _id(id)
    with _opened(home, store, writable=report) as (session, chunks):
        total = known_data_set(session.state, data_set).chunks
        with progress("comparing", total) as advance:
            data, found = locate_altered(session.state, chunks, data_set, advance=advance)
        if report and found.altered:
            report_altered(session, member_keys(home, wallet), data_set, found.altered)
    emit(msgspec.to_builtins(found), json=json)
    if not found.ok:
        raise VerificationFault(
            f"{len(found.altered)} of {data.chunks} chunks of {id} are not what the ledger committed to; "
            "restore them from a copy"
        )


@app.command
def grant(
    id: str,
    /,
    *,
    to: str,
    home: Path,
    until: str | None = None,
    wallet: Path | None = None,
    json: Json = False,
) -> None:
    """Let another member read a data set: its key is sealed to that member's wallet.

    Example: ``gridpool records grant 3f7c... --to bob.wallet --home out/records``

    Parameters
    ----------
    id
        The data set (64 hexadecimal digits).
    to
        The reader's wallet address or certificate key (64 hexadecimal digits), or a wallet file.
    home
        Home of a node on this machine.
    until
        When the grant ends (RFC 3339, or ms of market time); by default with the policy.
    wallet
        Wallet file of the owner; by default the one made with the home.
    json
        Print one JSON object.
    """
    from gridpool.agents.meter import parse_time
    from gridpool.agents.records import grant_data_set
    from gridpool.agents.records_home import member_keys
    from gridpool.agents.wallet_founding import public_of
    from gridpool.contracts.records_data import GRANTS

    data_set, keys, reader = _id(id), member_keys(home, wallet), public_of(to)
    end = None if until is None else parse_time(until)
    with _opened(home, None, writable=True) as (session, _):
        receipt = grant_data_set(session, keys, data_set, reader, until=end)
        stands = session.state.get(GRANTS, (data_set, reader))
    emit(
        {"id": id, "to": reader.hex(), "until": None if stands is None else stands.until, "tx": receipt.tx.hex()},
        json=json,
    )


@app.command
def revoke(
    id: str,
    /,
    *,
    reader: Annotated[str, Parameter(name=["--from", "--to"])],
    home: Path,
    wallet: Path | None = None,
    store: str | None = None,
    json: Json = False,
) -> None:
    """Take a grant back: the data set is encrypted anew, and the new key sealed to all readers who stay.

    What the reader has read already cannot be unread.

    Example: ``gridpool records revoke 3f7c... --from bob.wallet --home out/records``

    Parameters
    ----------
    id
        The data set (64 hexadecimal digits).
    reader
        The reader's address or key (64 hexadecimal digits), or a wallet file.
    home
        Home of a node on this machine.
    wallet
        Wallet file of the owner; by default the one made with the home.
    store
        Folder or fsspec address of the store; by default the home.
    json
        Print one JSON object.
    """
    from gridpool.agents.records import known_data_set, revoke_data_set
    from gridpool.agents.records_home import member_keys
    from gridpool.agents.wallet_founding import public_of

    data_set, keys, gone = _id(id), member_keys(home, wallet), public_of(reader)
    with _opened(home, store, writable=True) as (session, chunks):
        total = known_data_set(session.state, data_set).chunks
        with progress("encrypting anew", total) as advance:
            stored = revoke_data_set(session, keys, chunks, data_set, gone, advance=advance)
        version = known_data_set(session.state, data_set).version
    emit(msgspec.to_builtins(stored) | {"version": version, "revoked": gone.hex()}, json=json)


@app.command
def audit(id: str, /, *, home: Path, json: Json = False) -> None:
    """Show who put, granted, revoked and read a data set, each line with its transaction.

    Example: ``gridpool records audit 3f7c... --home out/records``

    Parameters
    ----------
    id
        The data set (64 hexadecimal digits).
    home
        Home of a node on this machine.
    json
        Print one JSON object.
    """
    from gridpool.agents.meter import time_text
    from gridpool.agents.records import audit_trail, known_data_set
    from gridpool.contracts.records_data import GRANTS

    data_set = _id(id)
    with _opened(home, None, writable=False) as (session, _):
        data = known_data_set(session.state, data_set)
        trail = list(audit_trail(session.state, data_set))
        entries = [
            {
                "kind": entry.kind,
                "who": entry.who.hex(),
                "whom": entry.whom.hex() or None,
                "at": entry.at,
                "version": entry.version,
                "tx": entry.tx.hex(),
                "chunks": list(entry.chunks),
            }
            for entry in trail
        ]
        grants = [
            {"to": reader.hex(), "until": grant.until} for (_, reader), grant in session.state.scan(GRANTS, (data_set,))
        ]
    rows = [(time_text(e.at), e.kind, e.who.hex(), e.whom.hex() or None, e.tx.hex()) for e in trail]
    emit(
        {
            "id": id,
            "owner": data.owner.hex(),
            "purpose": data.policy.purpose,
            "roles": [role.value for role in data.policy.roles],
            "keep_until": data.policy.keep_until,
            "version": data.version,
            "grants": grants,
            "entries": entries,
        },
        json=json,
        text=table(("at", "what", "who", "whom", "transaction"), rows),
    )


def _id(text: str) -> bytes:
    from gridpool.agents.wallet_text import parse_hash

    return parse_hash(text, "id of a data set")


@contextmanager
def _opened(home: Path, store: str | None, *, writable: bool) -> "Iterator[tuple[Session, ChunkStore]]":
    """Open a home's ledger (or that of the node running on it) and its store."""
    from gridpool.agents.chunk_store import ChunkStore
    from gridpool.agents.slice_ledger import slice_session

    chunks = ChunkStore(home if store is None else store)
    with slice_session(str(home), writable=writable) as session:
        yield session, chunks
