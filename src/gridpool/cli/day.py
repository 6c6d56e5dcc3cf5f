"""``gridpool day``: play one day of a feeder, its slices, markets and ledger."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date as Date
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import Parameter

from gridpool.cli.output import emit, note, progress

__all__ = ["day"]


def day(
    *,
    feeder: str | None = None,
    scenario: str | None = None,
    date: Date | None = None,
    resource_blocks: int | None = None,
    prosumers: int | None = None,
    seed: int | None = None,
    out: Path = Path("out/day"),
    network: Path | None = None,
    resume: Annotated[bool, Parameter(negative="")] = False,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
    write_scenario: Path | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Play one day of a feeder, its slices, its energy market, credit and ledger, and write a report.

    Example: ``gridpool day --feeder ieee13 --seed 1 --out out/day``

    Parameters
    ----------
    feeder
        ieee13, ieee34, ieee37, or an OpenDSS master file. [default: ieee13]
    scenario
        A shipped scenario (default, microgrid, harvesting, v2g) or a TOML file.
    date
        The day, as in 2026-06-21. [default: 2026-06-21]
    resource_blocks
        Resource blocks that the cell offers, 1 to 106. [default: 20]
    prosumers
        How many prosumers trade. [default: 60]
    seed
        Seed of everything random. [default: 1]
    out
        Folder for the ledger, the tables and the report.
    network
        Folder of a running consortium (laid with --market-clock ticks) to play against.
    resume
        Continue the day in the folder after an interruption.
    overwrite
        Replace the day in the folder.
    write_scenario
        Write the default scenario as a commented file, and do nothing else.
    json
        Print one JSON object.
    """
    from gridpool.day import play_day, read_scenario
    from gridpool.day.scenario import write_scenario as write

    if write_scenario is not None:
        write(write_scenario)
        emit({"scenario": str(write_scenario)}, json=json, text=f"wrote {write_scenario}")
        return
    chosen = read_scenario(
        scenario,
        feeder=feeder,
        date=date,
        radio__resource_blocks=resource_blocks,
        prosumers__count=prosumers,
        seed=seed,
    )
    result = play_day(chosen, out, network=network, resume=resume, overwrite=overwrite, progress=_bar)
    emit(msgspec.to_builtins(result.headline), json=json)
    note(f"open {result.headline.report} in a browser")


@contextmanager
def _bar(title: str, total: int) -> Iterator[Callable[[], None]]:
    with progress(title, total) as advance:
        yield lambda: advance(1)
