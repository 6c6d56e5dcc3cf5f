"""The table of commands, each loaded only when it is called, and the exit codes they share."""

import os
import sys
from collections.abc import Sequence

from gridpool.errors import GridpoolError, VerificationFault
from gridpool.version import __version__

__all__ = ["COMMANDS", "main"]

COMMANDS: dict[str, tuple[str, str]] = {
    "day": ("gridpool.cli.day:day", "Play one day of a feeder, its slices, markets and ledger."),
    "plan": ("gridpool.cli.plan:plan", "Choose which sensors and actuators get a slice, and what that is worth."),
    "served": ("gridpool.cli.served:served", "Compute the load that can be served under given links."),
    "opf": ("gridpool.cli.served:opf", "Solve an unbalanced optimal power flow."),
    "feeder": ("gridpool.cli.feeder:app", "Show, check, solve and import feeders."),
    "market": ("gridpool.cli.market:app", "Clear an energy market from a file of orders."),
    "loan": ("gridpool.cli.loan:app", "Price, request and repay loans of coins."),
    "wallet": ("gridpool.cli.wallet:app", "Make keys, look at accounts, send coins."),
    "energy": ("gridpool.cli.energy:app", "Place and follow energy orders."),
    "meter": ("gridpool.cli.meter:app", "Submit signed meter readings."),
    "invoice": ("gridpool.cli.invoice:invoice", "Show what a member pays and receives, line by line."),
    "council": ("gridpool.cli.council:app", "Propose, sign and list decisions of the council."),
    "slice": ("gridpool.cli.slice:app", "Order slices, offer resources, follow contracts."),
    "access": ("gridpool.cli.access:app", "Set, check and audit access rules."),
    "records": ("gridpool.cli.records:app", "Store, share and audit encrypted records."),
    "telemetry": ("gridpool.cli.telemetry:app", "Make and ingest signed readings at scale."),
    "device": ("gridpool.cli.device:app", "Exchange data or energy between two devices."),
    "spectrum": ("gridpool.cli.spectrum:app", "Load a register, inquire, lease and auction bands."),
    "settle": ("gridpool.cli.settle:app", "Match usage records and net obligations."),
    "bundle": ("gridpool.cli.bundle:app", "Buy slice, band and energy in one atomic purchase."),
    "ledger": ("gridpool.cli.ledger:app", "Verify, show, prove, compare, export and prune a ledger."),
    "serve": ("gridpool.cli.serve:serve", "Run a node and its HTTP face."),
    "network": ("gridpool.cli.network:app", "Set up and run a consortium of validators."),
    "lab": ("gridpool.cli.lab:app", "Latency, security and consensus models."),
    "study": ("gridpool.cli.study:app", "Reproduce published figures, with a verdict on each claim."),
    "bench": ("gridpool.cli.bench:app", "Quick speed ratios against named peers, in one run."),
}
"""Command name -> (where its cyclopts app or function lives, its one-line help)."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit: 0 done, 1 refused input, 2 wrong usage, 3 a verification found a fault."""
    from cyclopts import App, CycloptsError

    app = App(
        name="gridpool",
        version=__version__,
        help="Pool spectrum, 5G slices and energy on a shared ledger.",
        suppress_keyboard_interrupt=False,
        result_action="return_value",
    )
    asked = list(sys.argv[1:] if arguments is None else arguments)[:1]
    for name, (target, summary) in COMMANDS.items():
        # The line is for the list of commands; a command that is a function has help of its own, with an example.
        own = asked == [name] and not target.endswith(":app")
        app.command(target, name=name, help=None if own else summary)
    try:
        app(arguments, exit_on_error=False, print_error=True)
    except CycloptsError:
        sys.exit(2)
    except VerificationFault as fault:
        _complain(str(fault))
        sys.exit(3)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except (GridpoolError, OSError) as error:
        _complain(str(error))
        sys.exit(1)
    except KeyboardInterrupt:
        _complain("interrupted; what was finished is kept")
        sys.exit(130)


def _complain(message: str) -> None:
    print("gridpool: " + " ".join(message.split()), file=sys.stderr)
