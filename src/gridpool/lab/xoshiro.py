"""Random numbers inside compiled kernels: xoshiro256++ words and exponential variates, many at a time.

Source: Blackman and Vigna 2021, "Scrambled linear pseudorandom number generators".
"""

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

__all__ = ["exponential_pool", "fill_exponentials", "next_word", "next_words", "states"]

_WIDTH = 16
_POOL = 1024
_ONE = np.uint64(0x3FF0000000000000)
_HALF_ROOT = np.uint64(0x3FE6A09E667F3BCD)
"""The bits of sqrt(1/2): mantissas are taken from there to sqrt(2), where the series of the logarithm is short."""
_INTEGER = np.uint64(0x4330000000000000)
"""The bits of 2^52, to which small integers are added as bits to make them floats."""
_MANTISSA = np.uint64(0x000FFFFFFFFFFFFF)

Words = NDArray[np.uint64]
Numbers = NDArray[np.float64]
Pool = tuple[Words, Words, Words, Numbers, Words, Numbers]


def states(rng: np.random.Generator, count: int) -> NDArray[np.uint64]:
    """Draw the states of ``count`` generators, shape (4, count), from ``rng``."""
    drawn = rng.integers(0, 2**64, size=(4, count), dtype=np.uint64)
    drawn[0] |= np.uint64(1)
    return drawn


def exponential_pool(rng: np.random.Generator) -> Pool:
    """Return generators seeded from ``rng`` and the room that ``fill_exponentials`` fills."""
    bits, exponents = np.zeros(_POOL, np.uint64), np.zeros(_POOL, np.uint64)
    words = np.zeros(_WIDTH, np.uint64)
    return states(rng, _WIDTH), words, bits, bits.view(np.float64), exponents, exponents.view(np.float64)


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
def next_words(seeds: Any, words: Any) -> None:
    """Step the generator of every lane; the loop becomes vector instructions."""
    for lane in range(len(words)):
        word, s0, s1, s2, s3 = next_word(seeds[0, lane], seeds[1, lane], seeds[2, lane], seeds[3, lane])
        words[lane] = word
        seeds[0, lane] = s0
        seeds[1, lane] = s1
        seeds[2, lane] = s2
        seeds[3, lane] = s3


@numba.njit(cache=True, boundscheck=False, error_model="numpy")
def fill_exponentials(pool: Any) -> None:
    """Fill ``pool[3]`` with exponential variates of mean 1: -log(u), loop by loop, so that each becomes vector code."""
    seeds, words, bits, values, exponent_bits, exponents = pool
    width = len(words)
    for row in range(len(bits) // width):
        next_words(seeds, words)
        for lane in range(width):
            bits[row * width + lane] = (words[lane] >> np.uint64(12)) | _ONE
    for n in range(len(values)):
        # From [1, 2) to the middles of 2^52 equal parts of (0, 1).
        values[n] = values[n] - (1.0 - 2.0**-53)
    for n in range(len(values)):
        moved = bits[n] + (_ONE - _HALF_ROOT)
        exponent_bits[n] = (moved >> np.uint64(52)) | _INTEGER
        bits[n] = (moved & _MANTISSA) + _HALF_ROOT
    for n in range(len(values)):
        exponent = exponents[n] - (2.0**52 + 1023.0)
        mantissa = values[n]
        ratio = (mantissa - 1.0) / (mantissa + 1.0)
        square = ratio * ratio
        # log(mantissa) = 2 artanh(ratio), and square is below 0.03.
        series = 1.0 / 19.0
        series = series * square + 1.0 / 17.0
        series = series * square + 1.0 / 15.0
        series = series * square + 1.0 / 13.0
        series = series * square + 1.0 / 11.0
        series = series * square + 1.0 / 9.0
        series = series * square + 1.0 / 7.0
        series = series * square + 1.0 / 5.0
        series = series * square + 1.0 / 3.0
        values[n] = -(exponent * 0.6931471805599453 + 2.0 * ratio * (1.0 + square * series))
