"""Synthetic registers: licences, incumbents, idle bands and leases on a patch of hexagons, from a seed.

Blocks of 20 MHz between 3.4 and 4.2 GHz are licensed on patches of seven cells; each licence is offered idle, most of
it at a price as used. The leases of every other one follow one another in time in the middle cell of the patch. That
keeps every limit by construction; the loader checks all of them nevertheless.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import cos, radians, sqrt
from typing import Any

import h3.api.basic_int as h3
import numpy as np

from gridpool.agents.spectrum_place import Schedule
from gridpool.agents.spectrum_register_file import (
    FORMAT,
    AccessEntry,
    ClassEntry,
    IdleEntry,
    LeaseEntry,
    LicenceEntry,
    MemberEntry,
    ProtectedEntry,
    RegisterFile,
)
from gridpool.contracts.members import Role
from gridpool.errors import RefusedInput

__all__ = ["Extent", "make_register"]

LOW_HZ, HIGH_HZ = 3_400_000_000, 4_200_000_000
BLOCK_HZ = 20_000_000
BLOCKS = (HIGH_HZ - LOW_HZ) // BLOCK_HZ
START = datetime(2026, 1, 1, tzinfo=UTC)
DAYS = 364
CENTRE = (52.0, -1.5)
RESOLUTION = 7
LEASE_EIRP = (0, 15_000)
"""Least and most mdBm per MHz of a lease: in the middle of patches, no two of them come close to disturbing."""


@dataclass(frozen=True, slots=True)
class Extent:
    """Where a synthetic register is: degrees south to north, west to east, Hz, and its time."""

    lat: tuple[float, float]
    lon: tuple[float, float]
    low_hz: int
    high_hz: int
    start: str
    end: str


def make_register(licences: int, leases: int, rng: np.random.Generator, *, seed: int) -> tuple[RegisterFile, Extent]:
    """Make a register with so many licences and leases; the same seed makes the same file.

    Raises RefusedInput for counts outside 1..10^6 licences, 0..10^7 leases.
    """
    if not 1 <= licences <= 1_000_000 or not 0 <= leases <= 10_000_000:
        raise RefusedInput("a synthetic register has 1 to 10^6 licences and 0 to 10^7 leases")
    rings = 1
    while (3 * rings * rings + 3 * rings + 1) * BLOCKS < 1.5 * licences:
        rings += 1
    centre = h3.latlng_to_cell(*CENTRE, RESOLUTION - 1)
    patches = sorted(h3.grid_disk(centre, rings))
    end = START + timedelta(days=DAYS)
    holders = [f"operator-{i}" for i in range(1, max(2, min(20, licences // 5 + 1)) + 1)]
    lessees = [f"lessee-{i}" for i in range(1, max(2, min(200, leases // 20 + 2)) + 1)]
    slots = rng.permutation(len(patches) * BLOCKS)[:licences]
    guarded = _guarded(patches, slots, rng)
    cells = {patch: sorted(h3.cell_to_children(patch, RESOLUTION)) for patch in patches}
    texts = {patch: tuple(f"{cell:x}" for cell in inside) for patch, inside in cells.items()}
    licence_entries: list[LicenceEntry] = []
    idle_entries: list[IdleEntry] = []
    kinds = rng.choice(3, size=licences, p=(0.6, 0.25, 0.15))
    prices = rng.integers(50, 500, size=licences)
    auctioned = rng.random(licences) < 0.05
    auctioned[0] = False
    for number, slot in enumerate(slots.tolist()):
        patch, block = patches[slot // BLOCKS], slot % BLOCKS
        low = LOW_HZ + block * BLOCK_HZ
        licence_entries.append(
            LicenceEntry(
                holder=holders[number % len(holders)],
                band_class="midband",
                low_hz=low,
                high_hz=low + BLOCK_HZ,
                cells=texts[patch],
                start=START,
                end=end,
                max_eirp_mdbm_per_mhz=30_000,
                kind=("exclusive", "shared", "general")[kinds[number]],
            )
        )
        idle_entries.append(
            IdleEntry(
                licence=number + 1,
                pricing="auction" if auctioned[number] else ("fixed" if kinds[number] == 2 else "payg"),
                price=0 if kinds[number] == 2 else int(prices[number]),
                notice_s=3_600,
                transferable=bool(kinds[number] == 0),
            )
        )
    register = RegisterFile(
        format=FORMAT,
        name=f"synthetic-{seed}",
        start=START,
        end=end,
        classes=(
            ClassEntry(
                name="midband",
                low_hz=LOW_HZ,
                high_hz=HIGH_HZ,
                resolution=RESOLUTION,
                bin_hz=10_000_000,
                adjacent_mdb=45_000,
                lessee_limit_mdbm_per_mhz=-90_000,
                least_eirp_mdbm_per_mhz=-10_000,
                most_eirp_mdbm_per_mhz=30_000,
                heights_m=(10, 30),
                reach=4,
            ),
        ),
        members=(
            *(MemberEntry(name=name, roles=(Role.OPERATOR,), coins=10**9) for name in holders),
            *(MemberEntry(name=name, roles=(Role.TENANT,), coins=10**9) for name in lessees),
            MemberEntry(name="incumbent", roles=(Role.OPERATOR,)),
            MemberEntry(name="office", roles=(Role.REGULATOR,)),
        ),
        licences=tuple(licence_entries),
        protected=tuple(_protected(texts[patch], block) for patch, block in guarded),
        idle=tuple(idle_entries),
        leases=_leases(leases, slots, patches, guarded, auctioned, lessees, rng),
        access_rules=(AccessEntry(name="hour-share", window_s=86_400, deny_s=3_600, most_share_ppm=900_000),),
        key_seed=rng.bytes(32).hex(),
    )
    return register, _extent(rings, end)


def _guarded(patches: list[int], slots: np.ndarray[Any, Any], rng: np.random.Generator) -> list[tuple[int, int]]:
    """Choose patches and blocks with an incumbent: one for every 200 licences, at least one."""
    count = max(1, len(slots) // 200)
    picks = rng.choice(len(patches) * BLOCKS, size=count, replace=False)
    return [(patches[int(pick) // BLOCKS], int(pick) % BLOCKS) for pick in np.sort(picks)]


def _protected(cells: tuple[str, ...], block: int) -> ProtectedEntry:
    low = LOW_HZ + block * BLOCK_HZ
    last = (START + timedelta(days=DAYS - 1)).date()
    return ProtectedEntry(
        incumbent="incumbent",
        band_class="midband",
        low_hz=low,
        high_hz=low + BLOCK_HZ,
        cells=cells,
        limit_mdbm_per_mhz=-105_000,
        schedule=Schedule(
            timezone="Europe/London",
            first=START.date(),
            last=last,
            since="08:00",
            until="18:00",
            days=("mon", "tue", "wed", "thu", "fri"),
        ),
    )


def _leases(
    count: int,
    slots: np.ndarray[Any, Any],
    patches: list[int],
    guarded: list[tuple[int, int]],
    auctioned: np.ndarray[Any, Any],
    lessees: list[str],
    rng: np.random.Generator,
) -> tuple[LeaseEntry, ...]:
    """Lay leases one after another on the idle bands that lie away from every incumbent."""
    near: set[tuple[int, int]] = set()
    for patch, block in guarded:
        for other in h3.grid_disk(patch, 2):
            near.update((other, b) for b in (block - 1, block, block + 1))
    usable = [
        (number, patches[slot // BLOCKS])
        for number, slot in enumerate(slots.tolist())
        if not auctioned[number] and (patches[slot // BLOCKS], slot % BLOCKS) not in near
    ]
    if not usable or not count:
        return ()
    # Half of the bands stay free, as idle as they were declared.
    usable = [usable[i] for i in np.sort(rng.permutation(len(usable))[: -(-len(usable) // 2)])]
    each = -(-count // len(usable))
    span = timedelta(days=DAYS) / (each + 1)
    made: list[LeaseEntry] = []
    turn = 0
    while len(made) < count:
        starts = rng.random(len(usable)) * 0.4
        lengths = 0.2 + rng.random(len(usable)) * 0.4
        powers = rng.integers(LEASE_EIRP[0], LEASE_EIRP[1] + 1, size=len(usable))
        people = rng.integers(0, len(lessees), size=len(usable))
        for i, (number, patch) in enumerate(usable):
            if len(made) == count:
                break
            begin = START + span * (turn + float(starts[i]))
            made.append(
                LeaseEntry(
                    idle=number + 1,
                    lessee=lessees[int(people[i])],
                    cells=(f"{h3.cell_to_center_child(patch, RESOLUTION):x}",),
                    start=begin.replace(microsecond=0),
                    end=(begin + span * float(lengths[i])).replace(microsecond=0) + timedelta(seconds=1),
                    eirp_mdbm_per_mhz=int(powers[i]),
                    height_m=5.0,
                )
            )
        turn += 1
    return tuple(made)


def _extent(rings: int, end: datetime) -> Extent:
    """Return a box well inside the patches."""
    edge_m = 0.85 * h3.average_hexagon_edge_length(RESOLUTION - 1, "m")
    half_m = 1.5 * rings * edge_m / sqrt(2) * 0.9
    dlat = half_m / 111_200.0
    dlon = dlat / cos(radians(CENTRE[0]))
    return Extent(
        (round(CENTRE[0] - dlat, 6), round(CENTRE[0] + dlat, 6)),
        (round(CENTRE[1] - dlon, 6), round(CENTRE[1] + dlon, 6)),
        LOW_HZ,
        HIGH_HZ,
        START.isoformat().replace("+00:00", "Z"),
        end.isoformat().replace("+00:00", "Z"),
    )
