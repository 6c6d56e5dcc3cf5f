"""Cells on a hexagonal lattice, their zones under fractional frequency reuse, and where nodes stand."""

import math
from collections import deque
from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from gridpool.errors import RefusedInput
from gridpool.radio.propagation import RadioProfile, path_loss_db

__all__ = [
    "LARGEST_CARRIER",
    "ZONES",
    "Layout",
    "check_resource_blocks",
    "lattice",
    "place",
    "zone_blocks",
    "zone_of",
    "zone_sizes",
]

Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]
Layout = Literal["onecell", "streets"]

ZONES = 4
"""Zone 0 is the inner one; 1 to 3 are the outer sectors of 120 degrees."""

LARGEST_CARRIER = 106
"""Resource blocks of a 20 MHz carrier at 15 kHz spacing (3GPP TS 38.101-1, table 5.3.2-1)."""

STREET_M = (100.0, 200.0)


def check_resource_blocks(resource_blocks: int) -> None:
    """Refuse a number of resource blocks that no 20 MHz carrier has.

    Raises RefusedInput below 1 and above 106.
    """
    if resource_blocks < 1:
        raise RefusedInput(f"{resource_blocks} resource blocks leave nothing to allocate; give from 1 to 106 a cell")
    if resource_blocks > LARGEST_CARRIER:
        raise RefusedInput(
            f"{resource_blocks} resource blocks are more than the band holds: 20 MHz at 15 kHz spacing has "
            f"{LARGEST_CARRIER}; give at most {LARGEST_CARRIER} a cell"
        )


def zone_sizes(resource_blocks: int) -> tuple[int, int, int, int]:
    """Split a cell's blocks 2/3 to the inner and 1/9 to each outer zone, by largest remainder, ties to outer zones."""
    ninths = (6, 1, 1, 1)
    sizes = [resource_blocks * share // 9 for share in ninths]
    rest = [resource_blocks * share % 9 for share in ninths]
    left = resource_blocks - sum(sizes)
    for zone in sorted(range(ZONES), key=lambda z: (-rest[z], z == 0, z))[:left]:
        sizes[zone] += 1
    return sizes[0], sizes[1], sizes[2], sizes[3]


def zone_blocks(sizes: Sequence[int]) -> tuple[range, ...]:
    """Return the resource blocks of each zone: consecutive, the inner zone's first."""
    starts = [sum(sizes[:zone]) for zone in range(len(sizes))]
    return tuple(range(start, start + size) for start, size in zip(starts, sizes, strict=True))


def zone_of(offset_m: Floats, loss_db: Floats, profile: RadioProfile) -> Ints:
    """Return the zone of each node from its offset to its gNB (n by 2, m) and its path loss with shadowing in dB.

    Inner where the loss is at most the median loss at two thirds of the radius, else the sector of its bearing.
    """
    edge_db = float(path_loss_db(2.0 * profile.cell_radius_m / 3.0, profile))
    bearing = np.mod(np.arctan2(offset_m[:, 1], offset_m[:, 0]), 2.0 * math.pi)
    sector = 1 + np.minimum((bearing / (2.0 * math.pi / 3.0)).astype(np.int64), 2)
    return np.where(loss_db <= edge_db, 0, sector).astype(np.int64)


def place(
    parent: Sequence[int], layout: Layout, profile: RadioProfile, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Place the nodes of a tree in a town; return their positions and the gNB sites (each n by 2, m).

    ``parent[i]`` is the parent of node i, -1 for the root. Nodes take free neighbouring city blocks breadth first from
    the root, in an order drawn from ``rng``. ``streets`` keeps the blocks' size and covers them by a hexagonal lattice;
    ``onecell`` shrinks the town to the radius of one cell around its only gNB.
    """
    town = _streets(parent, rng)
    middle = (town.min(axis=0) + town.max(axis=0)) / 2.0
    if layout == "onecell":
        town = town - middle
        reach = float(np.hypot(town[:, 0], town[:, 1]).max())
        return town * (profile.cell_radius_m / reach if reach > 0 else 1.0), np.zeros((1, 2))
    sites = lattice(town, profile.cell_radius_m)
    return town, sites


def lattice(points: Floats, radius_m: float) -> Floats:
    """Return the sites of a hexagonal lattice of cells with this radius that serve at least one point (m by 2)."""
    step = math.sqrt(3.0) * radius_m
    low, high = points.min(axis=0) - 2 * step, points.max(axis=0) + 2 * step
    rows = np.arange(math.floor(low[1] / (1.5 * radius_m)), math.ceil(high[1] / (1.5 * radius_m)) + 1)
    columns = np.arange(math.floor(low[0] / step), math.ceil(high[0] / step) + 1)
    sites = np.array([((c + 0.5 * (r % 2)) * step, r * 1.5 * radius_m) for r in rows for c in columns])
    used = np.unique(nearest(points, sites))
    return sites[used]


def nearest(points: Floats, sites: Floats) -> Ints:
    """Return the index of each point's nearest site, the lowest where two are as near."""
    squared = ((points[:, None, :] - sites[None, :, :]) ** 2).sum(axis=2)
    return np.asarray(np.argmin(np.round(squared, 6), axis=1), dtype=np.int64)


def _streets(parent: Sequence[int], rng: np.random.Generator) -> Floats:
    children: list[list[int]] = [[] for _ in parent]
    roots: list[int] = []
    for node, above in enumerate(parent):
        (children[above] if above >= 0 else roots).append(node)
    taken: dict[tuple[int, int], int] = {}
    spot: dict[int, tuple[int, int]] = {}
    queue = deque(roots)
    while queue:
        node = queue.popleft()
        start = spot.get(parent[node], (0, 0))
        spot[node] = _free_block(start, taken, rng)
        taken[spot[node]] = node
        queue.extend(children[node])
    if len(spot) != len(parent):
        raise RefusedInput("the nodes do not form a tree: some have no way to the root; check the parents")
    blocks = np.array([spot[node] for node in range(len(parent))], dtype=np.float64)
    return np.asarray(blocks * np.array(STREET_M), dtype=np.float64)


def _free_block(start: tuple[int, int], taken: dict[tuple[int, int], int], rng: np.random.Generator) -> tuple[int, int]:
    """Return the nearest free city block, one of the equally near ones by chance."""
    ring = 0
    while True:
        free = [
            (start[0] + i, start[1] + j)
            for i in range(-ring, ring + 1)
            for j in (sorted({-(ring - abs(i)), ring - abs(i)}))
            if (start[0] + i, start[1] + j) not in taken
        ]
        if free:
            return free[int(rng.integers(len(free)))]
        ring += 1
