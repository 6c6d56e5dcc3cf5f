"""Random numbers inside compiled kernels: xoshiro256++ and exponential variates by the ziggurat.

Sources: Blackman and Vigna 2021, "Scrambled linear pseudorandom number generators"; Marsaglia and Tsang 2000, "The
ziggurat method for generating random variables", with 256 layers.
"""

import math
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

__all__ = ["LAYER_EDGES", "LAYER_HEIGHTS", "exponential", "next_word", "states", "uniform"]

State = tuple[Any, Any, Any, Any]


def states(rng: np.random.Generator, count: int) -> NDArray[np.uint64]:
    """Draw the states of ``count`` generators, shape (4, count), from ``rng``."""
    drawn = rng.integers(0, 2**64, size=(4, count), dtype=np.uint64)
    drawn[0] |= np.uint64(1)
    return drawn


@numba.njit(inline="always")
def next_word(s0: Any, s1: Any, s2: Any, s3: Any) -> tuple[Any, Any, Any, Any, Any]:
    """Return the next 64 random bits, and the state after them."""
    total = s0 + s3
    word = ((total << np.uint64(23)) | (total >> np.uint64(41))) + s0
    shifted = s1 << np.uint64(17)
    s2 ^= s0
    s3 ^= s1
    s1 ^= s2
    s0 ^= s3
    s2 ^= shifted
    s3 = (s3 << np.uint64(45)) | (s3 >> np.uint64(19))
    return word, s0, s1, s2, s3


@numba.njit(inline="always")
def uniform(word: Any) -> Any:
    """Return a number in (0, 1) from 64 random bits."""
    return (np.float64(word >> np.uint64(12)) + 0.5) * 2.0**-52


def _ziggurat() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the right edges of 256 layers of equal area under exp(-x), widest first, and exp(-edge)."""

    def build(tail: float) -> tuple[list[float], float]:
        area = (tail + 1.0) * math.exp(-tail)
        edges = [area / math.exp(-tail), tail]
        for _ in range(254):
            height = math.exp(-edges[-1]) + area / edges[-1]
            if height >= 1.0:
                return edges, height - 1.0
            edges.append(-math.log(height))
        return edges, math.exp(-edges[-1]) + area / edges[-1] - 1.0

    low, high = 6.0, 9.0
    for _ in range(200):
        middle = (low + high) / 2
        if build(middle)[1] > 0:
            low = middle
        else:
            high = middle
    edges = np.array([*build(high)[0], 0.0])
    return edges, np.exp(-edges)


LAYER_EDGES, LAYER_HEIGHTS = _ziggurat()


@numba.njit(inline="always")
def exponential(s0: Any, s1: Any, s2: Any, s3: Any) -> tuple[Any, Any, Any, Any, Any]:
    """Return an exponential variate with mean 1, and the state after it."""
    offset = 0.0
    while True:
        word, s0, s1, s2, s3 = next_word(s0, s1, s2, s3)
        layer = np.int64(word & np.uint64(255))
        x = uniform(word) * LAYER_EDGES[layer]
        if x < LAYER_EDGES[layer + 1]:
            return offset + x, s0, s1, s2, s3
        if layer == 0:
            # Beyond the last edge the exponential starts afresh.
            offset += LAYER_EDGES[1]
            continue
        word, s0, s1, s2, s3 = next_word(s0, s1, s2, s3)
        height = LAYER_HEIGHTS[layer] + uniform(word) * (LAYER_HEIGHTS[layer + 1] - LAYER_HEIGHTS[layer])
        if height < math.exp(-x):
            return offset + x, s0, s1, s2, s3
