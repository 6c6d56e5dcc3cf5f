"""``gridpool study``: reproduce published figures and judge their claims."""

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from gridpool.cli.output import emit, table

__all__ = ["app"]

app = App(name="study", help="Reproduce published figures, with a verdict on each claim.")


@app.command
def run(
    name: str,
    *,
    out: Path,
    params: Path | None = None,
    smoke: bool = False,
    scheduler: str | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Run a study: its figures as CSV and PNG, and a verdict on each published claim.

    Example: ``gridpool study run li2018 --smoke --out out/li2018``

    Parameters
    ----------
    name
        Name of the study; ``gridpool study list`` names them.
    out
        Folder that receives the figures and ``claims.json``.
    params
        TOML file with the free choices of the study.
    smoke
        Run a reduced version in under a minute.
    scheduler
        Address of a Dask scheduler for studies that scale out.
    json
        Print one JSON object.
    """
    from gridpool.studies import run_study

    result = run_study(name, out=out, params=params, smoke=smoke, scheduler=scheduler)
    rows = [(c.figure, c.claim, c.paper, c.ours, c.verdict) for c in result.claims]
    emit(
        result.as_dict(),
        json=json,
        text=table(("figure", "claim", "paper", "ours", "verdict"), rows) + f"\n\n{len(result.files)} files in {out}",
    )


@app.command(name="list")
def list_studies(*, json: Annotated[bool, Parameter(negative="")] = False) -> None:
    """List the studies that this version can run.

    Example: ``gridpool study list``

    Parameters
    ----------
    json
        Print one JSON object.
    """
    from gridpool.studies import STUDIES

    emit({"studies": sorted(STUDIES)}, json=json, text="\n".join(sorted(STUDIES)))
