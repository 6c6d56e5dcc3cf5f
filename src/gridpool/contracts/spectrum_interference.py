"""Who hears whom: levels that add up at cells over time, and how much a newcomer may add.

A transmitter in a cell is heard in every cell up to the last ring of its class's path-loss table, in its own bins at
the table's loss and in the bins next door at that loss plus the class's adjacent-channel loss. A level at a cell is
the greatest sum over time; a newcomer is granted only if no limit is broken with it, at any instant.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import h3.api.basic_int as h3
import msgspec

from gridpool.ledger.state import State

if TYPE_CHECKING:
    from gridpool.contracts.spectrum_scene import Scene

__all__ = ["Newcomer", "ring", "scene"]


class Newcomer(msgspec.Struct, frozen=True, gc=False):
    """A transmission that somebody asks for; ``protected`` says whether its own receivers enjoy the class's limit."""

    band: int
    low: int
    high: int
    cells: tuple[int, ...]
    start: int
    end: int
    eirp: int
    height: int
    protected: bool


def scene(
    state: State,
    band: int,
    bands: Sequence[tuple[int, int]],
    cells: Sequence[int],
    start: int,
    end: int,
    *,
    rings: int,
) -> "Scene":
    """Collect what stands within ``rings`` of the cells in a time and can be heard in the ``bands`` or by who is there.

    ``rings`` is the class's reach to judge what is heard at the cells, twice that to judge others too. Raises KeyError
    for a class that there is not.
    """
    # Brings numpy with it, which a device that only signs calls can do without.
    from gridpool.contracts.spectrum_scene import gather

    return gather(state, band, bands, cells, start, end, rings=rings)


def ring(a: int, b: int, reach: int) -> int:
    """Return the H3 grid distance of two cells, or ``reach + 1`` where it is larger.

    Where H3 cannot measure (across one of the twelve pentagons), cells are looked for ring by ring.
    """
    try:
        steps: int = h3.grid_distance(a, b)
        return min(steps, reach + 1)
    except h3.H3BaseException:
        for k in range(reach + 1):
            if b in h3.grid_disk(a, k):
                return k
        return reach + 1
