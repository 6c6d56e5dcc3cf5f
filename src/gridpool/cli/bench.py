"""``gridpool bench``: quick speed ratios against named peers, measured in one run."""

from importlib import import_module
from typing import Annotated, Literal

from cyclopts import App, Parameter

from gridpool.cli.output import emit

__all__ = ["app"]

app = App(name="bench", help="Quick speed ratios against named peers, in one run.")


@app.default
def bench(
    room: Literal["ledger", "markets", "planner", "lab"], *, json: Annotated[bool, Parameter(negative="")] = False
) -> None:
    """Measure one room for under 40 seconds; absolute times mean little, their ratios do.

    Example: ``gridpool bench lab --json``

    Parameters
    ----------
    room
        Which room to measure.
    json
        Print one JSON object.
    """
    emit(import_module(f"gridpool.bench.{room}").run(), json=json)
