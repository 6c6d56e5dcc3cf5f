"""``gridpool bundle``: buy slice, band, energy and computing together, all of them or none."""

from typing import Annotated

from cyclopts import App, Parameter

from gridpool.cli.output import emit, progress, table

__all__ = ["app"]

app = App(name="bundle", help="Buy slice, band and energy in one atomic purchase.")


@app.command
def run(scenario: str, /, *, json: Annotated[bool, Parameter(negative="")] = False) -> None:
    """Play a scenario of bundles, and every way to kill one of its purchases: nobody may be left bound.

    Example: ``gridpool bundle run offgrid``

    Parameters
    ----------
    scenario
        ``offgrid``, or a TOML file in its form.
    json
        Print one JSON object.
    """
    from gridpool.agents.bundle_run import kills, read_scenario, run_scenario
    from gridpool.errors import VerificationFault

    read = read_scenario(scenario)
    with progress("killing purchases", sum(1 for _ in kills(read))) as advance:
        result = run_scenario(read, advance=advance)
    columns = ("part", "kind", "provider", "buyer", "price", "served_ppm", "paid", "refunded", "penalty")
    rows = [[part[name] for name in columns] for part in result["parts"]]
    text = table(columns, rows)
    text += f"\n\n{result['bundles']} bundles for {result['price']} micro-coins; {result['kills']} kills, "
    text += f"{result['bound_after_kills']} left anybody bound; {result['net']} of {result['gross']} need to move"
    emit(result, json=json, text=text)
    if result["bound_after_kills"] or result["bought_despite_kill"]:
        raise VerificationFault("a killed purchase left somebody bound; this is a fault of gridpool, please report it")
