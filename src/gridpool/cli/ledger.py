"""``gridpool ledger``: verify, show, prove, compare, export and prune a ledger."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from cyclopts import App, Parameter

from gridpool.cli.output import emit, percent
from gridpool.errors import RefusedInput, VerificationFault

if TYPE_CHECKING:
    from gridpool.ledger.block import SignedHeader
    from gridpool.ledger.chain import Ledger
    from gridpool.ledger.rules import Rules

__all__ = ["app"]

LARGEST_PROOF = 16 << 20

app = App(name="ledger", help="Verify, show, prove, compare, export and prune a ledger.")


@app.command
def verify(directory: Path, /, *, json: Annotated[bool, Parameter(negative="")] = False) -> None:
    """Replay a ledger from genesis and compare every stored byte; exit 3 where one differs.

    Example: ``gridpool ledger verify out/day``

    Parameters
    ----------
    directory
        A day's folder, a node's home or a ledger's folder.
    json
        Print one JSON object.
    """
    from contextlib import closing

    from gridpool.engines.verifying import VerifyingThreads
    from gridpool.ledger.verification import verify_ledger

    with percent("verifying") as tell, closing(VerifyingThreads()) as verifier:
        result = verify_ledger(directory, _known_rules(), advance=tell, verifier=verifier)
    emit(msgspec.to_builtins(result), json=json)
    if result.fault is not None:
        fault = result.fault
        raise VerificationFault(
            f"the ledger in {directory} is not what its blocks make: height {fault.height}, {fault.table} {fault.key}; "
            "restore it from a backup or another node"
        )
    if not result.ok:
        raise VerificationFault(f"broken at height {result.height}: {', '.join(result.broken_invariants)}")


@app.command
def show(
    directory: Path,
    /,
    *,
    height: int | None = None,
    tx: str | None = None,
    account: str | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Show a ledger, one of its blocks, transactions or accounts.

    Example: ``gridpool ledger show out/day --height 12``

    Parameters
    ----------
    directory
        A day's folder, a node's home or a ledger's folder.
    height
        Show this block.
    tx
        Show the transaction with this id (64 hexadecimal digits).
    account
        Show the wallet with this address (64 hexadecimal digits).
    json
        Print one JSON object.
    """
    from gridpool.ledger import inspection

    if sum(choice is not None for choice in (height, tx, account)) > 1:
        raise RefusedInput("--height, --tx and --account exclude one another; give one")
    with _open(directory) as ledger, ledger.view() as view:
        if height is not None:
            shown = inspection.show_height(view, height)
        elif tx is not None:
            shown = inspection.show_transaction(view, ledger.known, inspection.parse_hash(tx, "transaction id"))
        elif account is not None:
            shown = inspection.show_account(view, ledger.known, inspection.parse_hash(account, "wallet address"))
        else:
            shown = inspection.show_ledger(view, ledger.known)
    emit(shown, json=json)


@app.command
def keys(directory: Path, /, *, table: str, json: Annotated[bool, Parameter(negative="")] = False) -> None:
    """List the keys of a table as ``ledger proof`` takes them.

    Example: ``gridpool ledger keys out/day --table coins.account``

    Parameters
    ----------
    directory
        A day's folder, a node's home or a ledger's folder.
    table
        Name of the table; ``gridpool ledger show`` names them.
    json
        Print one JSON object.
    """
    from gridpool.ledger.inspection import table_keys

    with _open(directory) as ledger, ledger.view() as view:
        found = table_keys(view, ledger.known, table)
    emit({"table": table, "keys": found}, json=json, text="\n".join(found))


@app.command
def proof(
    directory: Path,
    /,
    *,
    key: tuple[str, str] | None = None,
    tx: str | None = None,
    out: Path | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Prove to an outsider what a key holds (or that it holds nothing), or that a transaction was carried out.

    Example: ``gridpool ledger proof out/day --key coins.supply coins --out proof.json``

    Parameters
    ----------
    directory
        A day's folder, a node's home or a ledger's folder.
    key
        Table and key, as ``gridpool ledger keys`` prints them.
    tx
        Id of a transaction (64 hexadecimal digits).
    out
        File for the proof; standard output without it.
    json
        With ``--out``: print one JSON object about the proof.
    """
    from gridpool.ledger import proof as proofs
    from gridpool.ledger.inspection import parse_hash

    if (key is None) == (tx is None):
        raise RefusedInput("give either --key TABLE KEY or --tx ID")
    with _open(directory) as ledger, ledger.view() as view:
        if key is not None:
            made = proofs.key_proof(view, ledger.known, *key)
            about: dict[str, Any] = {"height": view.proven_height, "present": made["value"] is not None}
        else:
            wanted = parse_hash(tx or "", "transaction id")
            place = view.find(wanted)
            made = proofs.transaction_proof(view, wanted)
            about = {"height": 0 if place is None else place.height, "present": True}
        made |= _steps(directory, ledger, about["height"])
    _deliver(made, out, about, json)


@app.command
def trust(
    directory: Path, /, *, out: Path | None = None, json: Annotated[bool, Parameter(negative="")] = False
) -> None:
    """Write what a light client must trust: the chain and the key that signs its headers.

    Example: ``gridpool ledger trust out/day --out trust.json``

    Parameters
    ----------
    directory
        A day's folder, a node's home or a ledger's folder.
    out
        File for the trust; standard output without it.
    json
        With ``--out``: print one JSON object about it.
    """
    from gridpool.ledger.proof import trust as trust_of

    with _open(directory) as ledger, ledger.view() as view:
        made = trust_of(view)
    _deliver(made, out, {"chain": made["chain"]}, json)


@app.command
def check(
    file: Path,
    /,
    *,
    trust: Path,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Check a proof offline against a trust file; exit 3 where it does not hold.

    Example: ``gridpool ledger check proof.json --trust trust.json``

    Parameters
    ----------
    file
        A proof, as ``gridpool ledger proof`` writes it.
    trust
        What to trust, as ``gridpool ledger trust`` writes it.
    json
        Print one JSON object.
    """
    from gridpool.ledger import light

    claimed, trusted = _read_json(file), _read_json(trust)
    try:
        answer = light.check(claimed, trusted)
    except light.Invalid as error:
        emit({"ok": False, "height": None, "present": None, "value": None, "reason": str(error)}, json=json)
        raise VerificationFault(f"{file} does not hold: {error}") from None
    if "key" in answer:
        answer = answer | _named_key(answer)
    emit(answer, json=json)


@app.command
def diff(
    first: Path,
    second: Path,
    /,
    *,
    deep: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Find the first height and the exact keys in which two ledgers differ; exit 3 where they do.

    Example: ``gridpool ledger diff node0 node1``

    Parameters
    ----------
    first
        A day's folder, a node's home or a ledger's folder.
    second
        Another one.
    deep
        Compare every stored pair instead of the trees, for a store that was altered without its tree.
    json
        Print one JSON object.
    """
    from gridpool.ledger.comparison import compare_ledgers

    result = compare_ledgers(first, second, _known_rules(), deep=deep)
    emit(msgspec.to_builtins(result), json=json)
    if not result.equal:
        raise VerificationFault(f"the ledgers differ from height {result.height} on, now in {len(result.keys)} keys")


@app.command
def export(directory: Path, /, *, out: Path, json: Annotated[bool, Parameter(negative="")] = False) -> None:
    """Write all blocks to a file: JSON lines, one line a block, or Parquet by suffix.

    Example: ``gridpool ledger export out/day --out day.jsonl``

    Parameters
    ----------
    directory
        A day's folder, a node's home or a ledger's folder.
    out
        The file; ``.parquet`` makes it Parquet.
    json
        Print one JSON object.
    """
    from gridpool.ledger.archive import export_ledger

    with _open(directory) as ledger, ledger.view() as view:
        export_ledger(view, out)
        head = ledger.head
    _tell_head(head, json)


@app.command(name="import")
def import_(file: Path, /, *, out: Path, json: Annotated[bool, Parameter(negative="")] = False) -> None:
    """Replay an exported file into a new folder; an altered file is refused whole.

    Example: ``gridpool ledger import day.jsonl --out copy``

    Parameters
    ----------
    file
        A file written by ``gridpool ledger export``.
    out
        Folder that receives ``ledger``.
    json
        Print one JSON object.
    """
    from gridpool.ledger.archive import import_ledger

    with percent("importing") as tell:
        head = import_ledger(file, out, _known_rules(), advance=tell)
    _tell_head(head, json)


@app.command
def snapshot(directory: Path, /, *, out: Path, json: Annotated[bool, Parameter(negative="")] = False) -> None:
    """Write the present state and all headers to one file.

    Example: ``gridpool ledger snapshot out/day --out day.snapshot``

    Parameters
    ----------
    directory
        A day's folder, a node's home or a ledger's folder.
    out
        The file.
    json
        Print one JSON object.
    """
    from gridpool.ledger.snapshots import write_snapshot

    with _open(directory) as ledger, ledger.view() as view:
        write_snapshot(view, out)
        head = ledger.head
    _tell_head(head, json)


@app.command
def restore(file: Path, /, *, out: Path, json: Annotated[bool, Parameter(negative="")] = False) -> None:
    """Make a ledger from a snapshot; an altered file is refused whole.

    Example: ``gridpool ledger restore day.snapshot --out copy``

    Parameters
    ----------
    file
        A file written by ``gridpool ledger snapshot``.
    out
        Folder that receives ``ledger``.
    json
        Print one JSON object.
    """
    from gridpool.ledger.snapshots import restore_snapshot

    _tell_head(restore_snapshot(file, out / "ledger", _known_rules()), json)


@app.command
def prune(directory: Path, /, *, keep: int, json: Annotated[bool, Parameter(negative="")] = False) -> None:
    """Drop transactions and receipts of all but the last blocks; headers stay, and the ledger still verifies.

    Example: ``gridpool ledger prune out/day --keep 100``

    Parameters
    ----------
    directory
        A day's folder, a node's home or a ledger's folder.
    keep
        How many blocks to keep whole.
    json
        Print one JSON object.
    """
    from gridpool.ledger.archive import prune_ledger
    from gridpool.ledger.view import locate

    with percent("replaying what is pruned") as tell:
        head = prune_ledger(locate(directory), _known_rules(), keep=keep, advance=tell)
    _tell_head(head, json)


def _open(directory: Path) -> "Ledger":
    from gridpool.ledger.chain import Ledger
    from gridpool.ledger.view import locate

    return Ledger.open(locate(directory), _known_rules(), writable=False)


def _tell_head(head: "SignedHeader", json: bool) -> None:
    emit({"height": head.header.height, "app_hash": head.header.app_hash.hex()}, json=json)


def _deliver(made: dict[str, Any], out: Path | None, about: dict[str, Any], json: bool) -> None:
    """Print JSON, or write it to a file whole and say so."""
    from gridpool.ledger.store import give_name

    data = msgspec.json.format(msgspec.json.encode(made), indent=1) + b"\n"
    if out is None:
        emit(made, json=True)
        return
    partial = out.with_name(out.name + ".partial")
    partial.write_bytes(data)
    give_name(partial, out, "proof")
    emit(about | {"file": str(out), "bytes": len(data)}, json=json)


def _read_json(file: Path) -> Any:
    if file.stat().st_size > LARGEST_PROOF:
        raise RefusedInput(f"{file} is too large for a proof or a trust file")
    try:
        return msgspec.json.decode(file.read_bytes())
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RefusedInput(f"{file} is not JSON: {error}") from None


def _named_key(answer: dict[str, Any]) -> dict[str, Any]:
    """Write the key as people do; the names come from the rules here, not from whoever made the proof."""

    known = _known_rules()
    table, key = known[max(known)].name_key(bytes.fromhex(answer["key"]))
    return {"table": table, "key": key}


def _steps(directory: Path, ledger: "Ledger", height: int) -> dict[str, Any]:
    """Return the engine's part of a proof for a consortium's node, nothing for a ledger that signs its own headers."""
    from gridpool.engines.cometbft_trust import steps_at

    steps = steps_at(directory, ledger.genesis.chain, dict(ledger.genesis.validators), height)
    return {} if steps is None else {"steps": steps}


def _known_rules() -> "dict[int, Rules]":
    """Return the rules of this version of gridpool, by rules version."""
    from gridpool import contracts
    from gridpool.ledger.view import by_version

    return by_version(contracts.RULES)
