"""Integer arithmetic of power: thousandths of a decibel, and linear units in which powers add.

A power density is written in mdBm per MHz; in linear units one is 10^-18 mW per MHz (-180 dBm/MHz). Conversions round
against whoever wants to transmit, so that an answer is never too generous, and no float is ever used.
"""

from functools import lru_cache

__all__ = ["CAP", "CAP_MDBM", "FLOOR_MDBM", "densities", "density"]

FLOOR_MDBM = -180_000
"""The level of one linear unit."""
CAP_MDBM = -30_000
CAP = 10**15
"""The largest contribution that is counted (-30 dBm/MHz); every limit lies below it, so that it breaks them all."""
_SHIFT = 60


def _root(value: int, degree: int) -> int:
    """Return the least integer whose ``degree``-th power is at least ``value``."""
    low, high = 1, 1 << (value.bit_length() // degree + 1)
    while low < high:
        middle = (low + high) // 2
        if middle**degree >= value:
            high = middle
        else:
            low = middle + 1
    return low


def _powers(factor: int) -> tuple[int, ...]:
    """Return 2^60 and its products with ``factor`` / 2^60, a hundred in all, each rounded up."""
    values = [1 << _SHIFT]
    for _ in range(99):
        values.append(-(-values[-1] * factor >> _SHIFT))
    return tuple(values)


_COARSE = _powers(_root(10 << (_SHIFT * 100), 100))
"""10^(i / 100)."""
_FINE = _powers(_root(_COARSE[1] << (_SHIFT * 99), 100))
"""10^(i / 10^4)."""


@lru_cache(maxsize=1 << 16)
def density(mdbm: int) -> int:
    """Return the linear units of a level in mdBm per MHz, rounded up, at least 1 and at most ``CAP``."""
    if mdbm >= CAP_MDBM:
        return CAP
    if mdbm <= FLOOR_MDBM:
        return 1
    decades, rest = divmod(mdbm - FLOOR_MDBM, 10_000)
    mantissa = -(-_COARSE[rest // 100] * _FINE[rest % 100] >> _SHIFT)
    power: int = 10**decades
    return min(-(-(mantissa * power) >> _SHIFT), CAP)


def densities() -> list[int]:
    """Return ``density`` of every level from ``FLOOR_MDBM`` to ``CAP_MDBM``, for those who look many up at once."""
    mantissas = [-(-coarse * fine >> _SHIFT) for coarse in _COARSE for fine in _FINE]
    powers = (10**decades for decades in range((CAP_MDBM - FLOOR_MDBM) // 10_000))
    found = [-(-(mantissa * power) >> _SHIFT) for power in powers for mantissa in mantissas]
    return [1, *found[1:], CAP]
