"""Path-loss tables for the register: from the radio model's floats to integers by ring, once, at the rim.

A ring's loss is the least that two points of two cells that many rings apart can have: the nearest distance that the
hexagons allow, the smaller cells of the H3 grid taken, free space as the floor, and a margin below the model's median.
"""

from math import floor, log10, pi

import h3.api.basic_int as h3

from gridpool.contracts.spectrum_records import BandClass, Losses
from gridpool.radio.propagation import RadioProfile, path_loss_db

__all__ = ["losses_for", "nearest_m"]

LIGHT_M_S = 299_792_458.0
NEAREST_M = 50.0
"""Two antennas of different parties are taken to stand at least this far apart."""
SMALL_CELL = 0.75
"""Edge of the smaller H3 cells against the average of their resolution."""
MARGIN_DB = 10.0


def nearest_m(rings: int, resolution: int) -> float:
    """Return the least distance in m between points of two cells that many rings apart."""
    edge = SMALL_CELL * h3.average_hexagon_edge_length(resolution, "m")
    return float(max((1.5 * rings - 2.0) * edge, NEAREST_M))


def losses_for(rules: BandClass, reach: int, *, version: int = 1) -> Losses:
    """Return a class's path-loss table up to ring ``reach``, in mdB, rounded down (so never too large a loss).

    Source: 3GPP TR 36.942 macro model less 10 dB, not below free space (ITU-R P.525), at the class's lower edge for
    the carrier and each height class's upper end for the antenna.
    """
    rows: list[list[int]] = []
    carrier = rules.low
    for height in rules.heights_m:
        profile = RadioProfile(antenna_m=float(min(height, 200)), carrier_mhz=carrier / 1e6)
        row: list[int] = []
        for ring in range(reach + 1):
            distance = nearest_m(ring, rules.resolution)
            free = 20.0 * log10(4.0 * pi * distance * carrier / LIGHT_M_S)
            median = float(path_loss_db(distance, profile))
            row.append(floor(1000.0 * max(free, median - MARGIN_DB)))
            if ring:
                row[ring] = max(row[ring], row[ring - 1])
        if rows:
            row = [min(mine, below) for mine, below in zip(row, rows[-1], strict=True)]
        rows.append(row)
    source = "3GPP TR 36.942 macro less 10 dB, at least free space"
    return Losses(version, source, tuple(tuple(row) for row in rows))
