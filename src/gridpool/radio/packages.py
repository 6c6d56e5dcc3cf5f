"""The requests of an instance as arrays: how many blocks each needs and what granting it is worth."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from gridpool.radio.cells import zone_blocks
from gridpool.radio.instance import Instance, SliceKind
from gridpool.radio.propagation import BLOCK_HZ

__all__ = ["URLLC", "Objective", "Packages", "packages", "share_blocks"]

Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]

Objective = Literal["value", "coverage"]

URLLC, MMTC = 1, 0
SLICES: tuple[SliceKind, SliceKind] = ("mmtc", "urllc")


@dataclass(frozen=True, slots=True)
class Packages:
    """Items, one for each node and slice it asks for, in node order, URLLC before mMTC (all arrays of n).

    ``link`` is the index of the item's link, ``cell`` the index into ``cell_names``, ``blocks`` the k resource blocks
    of the package (0 where no number of the zone's blocks would do), ``rate`` bit/s a block, ``value`` the contribution
    to (7a) in bit/s/Hz if granted, ``worth`` the contribution to the chosen objective. With fading ``rates`` (n by N)
    holds the rate on each block, and ``value`` and ``worth`` are what the k best blocks of the zone would give.
    """

    instance: Instance
    cell_names: tuple[int, ...]
    link: Ints
    slice: Ints
    cell: Ints
    zone: Ints
    mvno: Ints
    blocks: Ints
    rate: Ints
    weight: Floats
    value: Floats
    worth: Floats
    objective: Objective
    rates: npt.NDArray[np.int64] | None

    def __len__(self) -> int:
        return len(self.link)

    @property
    def block_value(self) -> Floats:
        """Contribution to (7a) of one bit/s granted to each item."""
        return self.weight / (BLOCK_HZ * self.instance.resource_blocks)

    def node(self, item: int) -> str:
        """Return the name of the item's node."""
        return self.instance.links[int(self.link[item])].node

    def slice_name(self, item: int) -> SliceKind:
        """Return the name of the item's slice."""
        return SLICES[int(self.slice[item])]


def packages(instance: Instance, objective: Objective = "value", *, zone_room: Sequence[int] | None = None) -> Packages:
    """Turn an instance into items with the least blocks each needs: k = ceil(R_min / r) for URLLC, 1 for mMTC.

    ``zone_room`` is the most blocks that each zone might get where its size is still open.
    """
    links = instance.links
    wants = np.array([link.urllc for link in links], dtype=bool)
    link = np.repeat(np.arange(len(links), dtype=np.int64), 1 + wants)
    first = np.ones(len(link), dtype=bool)
    first[1:] = link[1:] != link[:-1]
    kind = np.where(first & wants[link], URLLC, MMTC).astype(np.int64)
    weights = np.array([one.weight for one in links], dtype=np.float64)
    weights = weights / weights.sum() if len(links) else weights
    alpha = np.array([instance.alpha["mmtc"], instance.alpha["urllc"]])
    weight = alpha[kind] * weights[link]
    zone = np.array([one.zone for one in links], dtype=np.int64)[link]
    names = tuple(sorted({one.cell for one in links} | {site.cell for site in instance.sites}))
    index = {name: i for i, name in enumerate(names)}
    cell = np.array([index[one.cell] for one in links], dtype=np.int64)[link]
    order = {one.name: i for i, one in enumerate(instance.mvnos)}
    mvno = np.array([order[one.mvno] for one in links], dtype=np.int64)[link]
    rates: npt.NDArray[np.int64] | None = None
    if instance.fading == "none":
        pair = np.array([(one.uplink_bps, one.downlink_bps) for one in links], dtype=np.int64).reshape(-1, 2)
        rate = pair[link, kind]
        needed = np.where(kind == URLLC, instance.urllc_requirement.required_bps, 1)
        width = np.where(kind == URLLC, instance.numerology.width, 1)
        blocks = np.where(rate > 0, -(-needed // np.maximum(rate * width, 1)) * width, 0)
        best = blocks * rate
    else:
        rates = np.array(
            [
                one.downlink_blocks_bps if urllc else one.uplink_blocks_bps
                for one, urllc in zip([links[i] for i in link], kind == URLLC, strict=True)
            ],
            dtype=np.int64,
        ).reshape(len(link), instance.resource_blocks)
        blocks, best = _fewest_blocks(rates, zone, kind, instance)
        rate = np.where(blocks > 0, best // np.maximum(blocks, 1), 0)
    room = np.array(instance.zones if zone_room is None else zone_room, dtype=np.int64)
    ceiling = np.where(kind == URLLC, np.minimum(room[zone], instance.urllc_blocks), room[zone])
    blocks = np.where(blocks <= ceiling, blocks, 0)
    repeats = np.where(kind == URLLC, instance.slots, 1)
    value = np.where(blocks > 0, weight * best * repeats / (BLOCK_HZ * instance.resource_blocks), 0.0)
    worth = value if objective == "value" else np.where(blocks > 0, weight, 0.0)
    return Packages(instance, names, link, kind, cell, zone, mvno, blocks, rate, weight, value, worth, objective, rates)


def share_blocks(instance: Instance) -> Ints:
    """Return the most blocks of each MVNO a cell and slot, floor(kappa N) (7c)."""
    return np.array([int(one.share * instance.resource_blocks + 1e-9) for one in instance.mvnos], dtype=np.int64)


def _fewest_blocks(rates: Ints, zone: Ints, kind: Ints, instance: Instance) -> tuple[Ints, Ints]:
    """Return the fewest blocks of its zone that can meet each item's need, and the best rate of so many."""
    spans = zone_blocks(instance.zones)
    blocks = np.zeros(len(zone), dtype=np.int64)
    best = np.zeros(len(zone), dtype=np.int64)
    needed = instance.urllc_requirement.required_bps
    for item in range(len(zone)):
        span = spans[zone[item]]
        if len(span) == 0:
            continue
        sums = np.cumsum(np.sort(rates[item, span.start : span.stop])[::-1])
        k = int(np.searchsorted(sums, needed if kind[item] == URLLC else 1)) + 1
        if k <= len(span):
            blocks[item], best[item] = k, sums[k - 1]
    return blocks, best
