"""``python -m bench [ROOM ...]``: run benchmarks, write ``bench/results.json`` and the table in the documentation."""

import importlib
import os
import platform
import sys
from pathlib import Path

import msgspec

from bench.harness import Row

ROOMS = (
    "ledger",
    "markets",
    "radio",
    "grid",
    "lab",
    "slices",
    "access",
    "telemetry",
    "spectrum",
    "auctions",
    "settlement",
    "engines",
)
HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
TABLE = HERE.parent / "docs" / "reference" / "benchmarks.md"


def main(names: list[str]) -> None:
    """Measure the rooms named (all by default) and keep the rows of the others as they were."""
    chosen = names or [room for room in ROOMS if (HERE / f"{room}.py").exists()]
    kept: list[Row] = []
    if RESULTS.exists():
        kept = [row for row in msgspec.json.decode(RESULTS.read_bytes(), type=list[Row]) if row.room not in chosen]
    fresh: list[Row] = []
    for room in chosen:
        print(f"bench {room} ...", file=sys.stderr, flush=True)
        fresh += importlib.import_module(f"bench.{room}").run()
    rows = sorted(kept + fresh, key=lambda row: ROOMS.index(row.room))
    RESULTS.write_bytes(msgspec.json.format(msgspec.json.encode(rows), indent=1) + b"\n")
    TABLE.parent.mkdir(parents=True, exist_ok=True)
    TABLE.write_text(page(rows), encoding="utf-8")
    print(page(rows))


def page(rows: list[Row]) -> str:
    """Lay the rows out as the page of the documentation."""
    lines = [
        "# Benchmarks",
        "",
        "Ratios measured in one run each by `make bench` (one room: `.venv/bin/python -m bench ROOM`),",
        f"last on {os.cpu_count()} cores, Python {platform.python_version()}. Absolute times on shared machines mean",
        "little; compare the ratio to a named peer in the same run, and mind that other work on the machine moves it.",
        "Targets that are missed are shown as such; where the specification names none, the one shown is the project's",
        "own. Rooms without a row have not been run for this page.",
        "",
        "| room | figure | measured | target | against | met |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.room} | {row.figure} | {row.ratio:.3g} | {row.sense} {row.target:g} | {row.peer} "
        f"| {'yes' if row.met else '**no**'} |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main(sys.argv[1:])
