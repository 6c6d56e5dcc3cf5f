"""The work of the study of slicing feeders: allocations of every channel draw, and their scores, each computed once."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import IO, Annotated, Any, Literal, NamedTuple

import msgspec
import numpy as np
from msgspec import Meta

from gridpool.grid import draw_outage, load_feeder, serve_under_outage, served_power
from gridpool.planner import feeder_instance, feeder_tree
from gridpool.radio import Beta, Layout, Method, RadioProfile, Requirement, allocate, node_weights
from gridpool.studies.farhadi2022_workers import Workers

__all__ = [
    "Cell",
    "OutageKey",
    "OutageTask",
    "Outcome",
    "Params",
    "Profile",
    "allocate_draw",
    "outage_scores",
    "outages",
    "score_pairs",
    "scores",
]

FeederName = Literal["ieee13", "ieee34", "ieee37"]
Share = Annotated[float, Meta(gt=0.0, lt=1.0)]
Ratio = Annotated[float, Meta(gt=0.0, le=1000.0)]
Blocks = Annotated[int, Meta(ge=1, le=106)]


class Params(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Free choices of the study; the paper leaves most of them open."""

    seed: Annotated[int, Meta(ge=0)] = 1
    feeders: Annotated[tuple[FeederName, ...], Meta(min_length=1)] = ("ieee13", "ieee34", "ieee37")
    draws: Annotated[int, Meta(ge=2, le=100_000)] = 100
    outages: Annotated[int, Meta(ge=2, le=100_000)] = 100
    resource_blocks: tuple[Blocks, ...] = (5, 10, 15, 20, 25, 30, 35, 40, 45, 50)
    fixed_resource_blocks: Blocks = 20
    methods: tuple[Method, ...] = ("greedy", "exact", "bc", "top_k", "random")
    betas: tuple[Beta, ...] = ("degree", "bc", "power", "power_degree", "bc_power", "bc_endpoints_power")
    beta: Beta = "bc_power"
    alpha_ratio: Ratio = 3.0
    alpha_ratios: tuple[Ratio, ...] = (0.25, 0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0)
    layout: Layout = "onecell"
    sigma_db: Annotated[float, Meta(ge=0.0, le=40.0)] = 8.0
    packet_bits: Annotated[int, Meta(ge=1, le=10**7)] = 2048
    blind_error: Annotated[float, Meta(ge=0.0, lt=1.0)] = 0.5
    dg_share: Annotated[float, Meta(ge=0.0, le=10.0)] = 0.2
    stressed_scale: Annotated[float, Meta(gt=0.0, le=10.0)] = 2.0
    outage_shares: tuple[Share, ...] = (0.05, 0.10)
    trip_pu: Share = 0.9
    tolerance_points: Annotated[float, Meta(gt=0.0, le=100.0)] = 2.0


class Profile(NamedTuple):
    """A feeder at a multiple of its nominal demand."""

    feeder: str
    scale: float


class Cell(NamedTuple):
    """One setting of an allocation."""

    resource_blocks: int
    method: Method
    beta: Beta
    alpha_ratio: float


class Outcome(NamedTuple):
    """Who got slices in one setting and draw: bit i of ``observed`` and ``controlled`` is node i of the feeder.

    Nodes without load are left out of ``observed``: knowing a demand of zero changes no served power.
    """

    cell: Cell
    draw: int
    observed: int
    controlled: int
    value: float


class OutageTask(NamedTuple):
    """One outage of one feeder; ``slices`` are the nodes that a plan observes and controls."""

    feeder: str
    share: float
    number: int
    centres: tuple[str, ...]
    slices: tuple[tuple[str, ...], tuple[str, ...]]


class OutageKey(NamedTuple):
    """What one score of an outage belongs to."""

    feeder: str
    share: float
    number: int
    technology: str
    rule: str
    centre: str


Pair = tuple[int, int]


def allocate_draw(params: Params, feeder: str, draw: int, cells: Sequence[Cell]) -> list[Outcome]:
    """Allocate every setting on one draw of places and channels (the same for all: common random numbers)."""
    grid = load_feeder(feeder)
    tree = feeder_tree(grid, dg_share=params.dg_share)
    bit = {node: 1 << i for i, node in enumerate(grid.nodes)}
    loaded = {item.node for item in grid.loads}
    towns = {
        blocks: feeder_instance(
            grid,
            resource_blocks=blocks,
            layout=params.layout,
            requirement=Requirement(packet_bits=params.packet_bits),
            profile=RadioProfile(sigma_db=params.sigma_db),
            dg_share=params.dg_share,
            seed=_seed(params.seed, draw),
        )
        for blocks in sorted({cell.resource_blocks for cell in cells})
    }
    weights = {beta: node_weights(beta, tree.parent, tree.power_w).tolist() for beta in {cell.beta for cell in cells}}
    found = []
    for cell in cells:
        town = towns[cell.resource_blocks]
        links = [
            msgspec.structs.replace(link, weight=weight)
            for link, weight in zip(town.links, weights[cell.beta], strict=True)
        ]
        instance = msgspec.structs.replace(town, links=links, alpha_ratio=cell.alpha_ratio)
        done = allocate(instance, method=cell.method, rng=np.random.default_rng([params.seed, draw, 1]))
        seen = sum(bit[node] for node in done.observed if node in loaded)
        steered = sum(bit[node] for node in done.controlled)
        found.append(Outcome(cell, draw, seen, steered, done.value))
    return found


def score_pairs(params: Params, profile: Profile, pairs: Sequence[Pair]) -> list[tuple[Pair, float]]:
    """Return S(M, U) / S(all, all) of each pair of node sets."""
    grid = load_feeder(profile.feeder)
    full = _full_w(profile, params.blind_error, params.dg_share)
    found = []
    for seen, steered in pairs:
        part = served_power(
            grid,
            [node for i, node in enumerate(grid.nodes) if seen >> i & 1],
            [node for i, node in enumerate(grid.nodes) if steered >> i & 1],
            demand_scale=profile.scale,
            blind_error=params.blind_error,
            dg_share=params.dg_share,
        )
        found.append(((seen, steered), min(1.0, part.served_w / full)))
    return found


def outage_scores(params: Params, task: OutageTask) -> list[tuple[str, str, str, float]]:
    """Return (technology, rule, control centre, score) of one outage under every rule.

    Rules: ``none`` and ``forming`` islands, and ``tripping`` (under-voltage tripping, no islands). 5G keeps M and U,
    once as full connectivity, once as the plan's slices.
    """
    grid = load_feeder(task.feeder)
    full = _full_w(Profile(task.feeder, 1.0), params.blind_error, params.dg_share)
    rng = np.random.default_rng([params.seed, task.number, round(task.share * 1e6)])
    failed = draw_outage(grid, task.share, rng)
    rows: list[tuple[str, str, str, float]] = []

    def add(
        technology: Literal["plcc", "5g"],
        label: str,
        centre: str,
        trip_pu: float | None,
        slices: tuple[Sequence[str], Sequence[str]] | None = None,
    ) -> None:
        done = serve_under_outage(
            grid,
            failed,
            technology=technology,
            observed=None if slices is None else slices[0],
            controlled=None if slices is None else slices[1],
            control_centre=centre,
            islanding="none" if trip_pu else "forming",
            trip_pu=trip_pu,
            blind_error=params.blind_error,
            dg_share=params.dg_share,
        )
        if trip_pu:
            rows.append((label, "tripping", centre, done.served_w / full))
        else:
            rows.append((label, "none", centre, (done.served_w - done.islanded_w) / full))
            rows.append((label, "forming", centre, done.served_w / full))

    for centre in task.centres:
        add("plcc", "plcc", centre, None)
    first = task.centres[0]
    add("plcc", "plcc", first, params.trip_pu)
    add("5g", "5g full", first, None)
    add("5g", "5g full", first, params.trip_pu)
    add("5g", "5g slices", first, None, task.slices)
    return rows


def scores(params: Params, profile: Profile, pairs: Iterable[Pair], file: Path, each: Workers) -> dict[Pair, float]:
    """Return the scores of all pairs, reading those that ``file`` has and adding the others to it as they come."""
    kept = _Kept(file, {"feeder": profile.feeder, "scale": profile.scale} | _power_choices(params))
    known = {(int(seen, 16), int(steered, 16)): float(score) for seen, steered, score in kept.rows(3)}
    missing = sorted(set(pairs) - set(known))
    chunks = [(params, profile, missing[i : i + 25]) for i in range(0, len(missing), 25)]
    with kept:
        for found in each(f"power of {profile.feeder} x {profile.scale:g}", score_pairs, chunks):
            kept.add((f"{seen:x}", f"{steered:x}", repr(score)) for (seen, steered), score in found)
            known.update(found)
    return known


def outages(params: Params, tasks: Sequence[OutageTask], file: Path, each: Workers) -> dict[OutageKey, float]:
    """Return the score of every outage under every rule, reading and extending ``file`` as `scores` does."""
    choices = {"seed": params.seed, "trip_pu": params.trip_pu} | _power_choices(params)
    kept = _Kept(file, choices | {"slices": _digest([task.slices for task in tasks])})
    known: dict[OutageKey, float] = {}
    for feeder, share, number, technology, rule, centre, score in kept.rows(7):
        known[OutageKey(feeder, float(share), int(number), technology, rule, centre)] = float(score)
    counted = Counter((key.feeder, key.share, key.number) for key in known)
    # two rules a control centre, one of tripping, and 5G: two rules each for full and planned links, one of tripping
    missing = [task for task in tasks if counted[task.feeder, task.share, task.number] < 2 * len(task.centres) + 6]
    chunks = [(params, missing[i : i + 10]) for i in range(0, len(missing), 10)]
    with kept:
        for found in each("outages", _outage_chunk, chunks):
            kept.add((*map(str, key), repr(score)) for key, score in found)
            known.update(found)
    return known


def _outage_chunk(params: Params, tasks: Sequence[OutageTask]) -> list[tuple[OutageKey, float]]:
    return [
        (OutageKey(task.feeder, task.share, task.number, technology, rule, centre), score)
        for task in tasks
        for technology, rule, centre, score in outage_scores(params, task)
    ]


class _Kept:
    """Rows of results in a file whose first line names the choices behind them; others' rows are not used."""

    def __init__(self, file: Path, choices: dict[str, Any]) -> None:
        self._file = file
        self._pedigree = "# " + json.dumps(choices, sort_keys=True)
        self._log: IO[str] | None = None

    def rows(self, columns: int) -> list[list[str]]:
        """Return the complete rows of an earlier run under the same choices (its last one may be cut off)."""
        if not self._file.exists():
            return []
        text = self._file.read_text(encoding="utf-8")
        lines = text[: text.rfind("\n") + 1].splitlines()
        if not lines or lines[0] != self._pedigree:
            return []
        return [cells for cells in (line.split(",") for line in lines[1:]) if len(cells) == columns]

    def __enter__(self) -> None:
        rows = self._file.read_text(encoding="utf-8") if self._file.exists() else ""
        same = rows.startswith(self._pedigree + "\n")
        whole = rows[: rows.rfind("\n") + 1] if same else self._pedigree + "\n"
        self._file.write_text(whole, encoding="utf-8")
        self._log = self._file.open("a", encoding="utf-8")

    def __exit__(self, *exception: object) -> None:
        assert self._log is not None
        self._log.close()

    def add(self, rows: Iterable[tuple[str, ...]]) -> None:
        """Append rows and hand them to the system, so that an interrupted run keeps them."""
        assert self._log is not None
        self._log.writelines(",".join(row) + "\n" for row in rows)
        self._log.flush()


def _power_choices(params: Params) -> dict[str, Any]:
    return {"blind_error": params.blind_error, "dg_share": params.dg_share, "certified": "worst_case"}


def _digest(value: Any) -> str:
    return hashlib.sha256(msgspec.json.encode(value)).hexdigest()[:16]


@lru_cache(maxsize=32)
def _full_w(profile: Profile, blind_error: float, dg_share: float) -> float:
    grid = load_feeder(profile.feeder)
    full = served_power(
        grid, grid.nodes, grid.nodes, demand_scale=profile.scale, blind_error=blind_error, dg_share=dg_share
    )
    return full.served_w


def _seed(seed: int, draw: int) -> int:
    """Return a seed of its own for each draw."""
    return int(np.random.SeedSequence([seed, draw]).generate_state(1, np.uint64)[0] >> np.uint64(1))
