"""``gridpool ledger``: verify, show, prove, compare, export and prune a ledger."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
from cyclopts import App, Parameter

from gridpool.cli.output import emit, progress
from gridpool.errors import RefusedInput, VerificationFault

if TYPE_CHECKING:
    from gridpool.ledger.rules import Rules

__all__ = ["app"]

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
    from gridpool.ledger.verification import verify_ledger

    with progress("verifying", 100) as advance:
        shown = 0

        def tell(done: int, total: int) -> None:
            nonlocal shown
            advance(100 * done // total - shown)
            shown = 100 * done // total

        result = verify_ledger(directory, _known_rules(), advance=tell)
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
    from gridpool.ledger.chain import Ledger, locate

    if sum(choice is not None for choice in (height, tx, account)) > 1:
        raise RefusedInput("--height, --tx and --account exclude one another; give one")
    with Ledger.open(locate(directory), _known_rules(), writable=False) as ledger, ledger.view() as view:
        if height is not None:
            shown = inspection.show_height(view, height)
        elif tx is not None:
            shown = inspection.show_transaction(view, ledger.known, inspection.parse_hash(tx, "transaction id"))
        elif account is not None:
            shown = inspection.show_account(view, ledger.known, inspection.parse_hash(account, "wallet address"))
        else:
            shown = inspection.show_ledger(view, ledger.known)
    emit(shown, json=json)


def _known_rules() -> "dict[int, Rules]":
    """Return the rules of this version of gridpool, by rules version."""
    from gridpool import contracts
    from gridpool.ledger.chain import by_version

    return by_version(contracts.RULES)
