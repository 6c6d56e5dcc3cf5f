"""A circle of uncertainty against the outline of a cell, compiled: an inquiry asks it of every cell near by."""

from math import asin, cos, hypot, radians, sin, sqrt

import numpy as np
import numpy.typing as npt

from gridpool.markets.slice_arbitration_join import compiled

__all__ = ["inside", "touches"]

EARTH_M = 6_371_007.2
Floats = npt.NDArray[np.float64]


@compiled
def _plane(corners: Floats, latitude: float, longitude: float) -> Floats:
    """Return the offsets of corners (degrees) east and north in metres: true distance and bearing from the centre."""
    found = np.zeros_like(corners)
    lat1 = radians(latitude)
    for n in range(len(corners)):
        lat2 = radians(corners[n, 0])
        turn = radians((corners[n, 1] - longitude + 540.0) % 360.0 - 180.0)
        half = sin((lat2 - lat1) / 2) ** 2 + cos(lat1) * cos(lat2) * sin(turn / 2) ** 2
        distance = 2 * EARTH_M * asin(min(1.0, sqrt(half)))
        east, north = sin(turn) * cos(lat2), cos(lat1) * sin(lat2) - sin(lat1) * cos(lat2) * cos(turn)
        size = hypot(east, north)
        if size > 0:
            found[n, 0], found[n, 1] = distance * east / size, distance * north / size
    return found


@compiled
def inside(corners: Floats, latitude: float, longitude: float, reach_m: float) -> bool:
    """Tell whether a circle around a place in a cell with these corners (degrees) certainly stays in it."""
    flat = _plane(corners, latitude, longitude)
    for n in range(len(flat)):
        x1, y1, x2, y2 = flat[n - 1, 0], flat[n - 1, 1], flat[n, 0], flat[n, 1]
        if abs(x1 * y2 - x2 * y1) <= reach_m * hypot(x2 - x1, y2 - y1):
            return False
    return True


@compiled
def touches(corners: Floats, latitude: float, longitude: float, reach_m: float) -> bool:
    """Tell whether a circle may touch a cell with these corners (degrees), in the plane around the circle's centre."""
    flat = _plane(corners, latitude, longitude)
    within = False
    for n in range(len(flat)):
        x1, y1, x2, y2 = flat[n - 1, 0], flat[n - 1, 1], flat[n, 0], flat[n, 1]
        if (y1 > 0) != (y2 > 0) and x1 + (x2 - x1) * (-y1) / (y2 - y1) > 0:
            within = not within
        length = (x2 - x1) ** 2 + (y2 - y1) ** 2
        t = 0.0 if length == 0 else min(1.0, max(0.0, -(x1 * (x2 - x1) + y1 * (y2 - y1)) / length))
        if hypot(x1 + t * (x2 - x1), y1 + t * (y2 - y1)) <= reach_m:
            return True
    return within
