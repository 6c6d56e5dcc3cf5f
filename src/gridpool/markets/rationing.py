"""Whole units shared out exactly: largest remainders, equal burdens, and orders that compete at one tick."""

from collections.abc import Sequence

from gridpool.markets.orders import WH_PER_KWH

__all__ = ["amounts_of", "bear_equally", "share_by_weight"]


def share_by_weight(total: int, weights: Sequence[int]) -> list[int]:
    """Share ``total`` units in proportion to ``weights`` by largest remainder; ties go to the earlier entry.

    Weights are not negative and not all zero where ``total`` is positive; the shares add up to ``total``.
    """
    whole = sum(weights)
    if not whole:
        return [0] * len(weights)
    return _complete(total, [divmod(total * weight, whole) for weight in weights])


def amounts_of(values: Sequence[int], total: int | None = None) -> list[int]:
    """Turn exact values in micro-coin thousandths (price x Wh) into whole micro-coins by largest remainder.

    The amounts add up to ``total``, by default the sum of the values rounded down, and each is its value rounded down
    or up by less than one.
    """
    if total is None:
        total = sum(values) // WH_PER_KWH
    return _complete(total, [divmod(value, WH_PER_KWH) for value in values])


def bear_equally(burden: int, limits: Sequence[int]) -> list[int]:
    """Take ``burden`` units from entries in equal parts, from none more than its limit.

    What an exhausted entry cannot bear falls on the others in equal parts; single units left over fall on the last
    entries that can still bear them. Requires ``burden <= sum(limits)``.
    """
    taken = list(limits)
    able = sorted(range(len(limits)), key=lambda index: limits[index], reverse=True)
    while able and limits[able[-1]] * len(able) <= burden:
        burden -= limits[able.pop()]
    if able:
        part, left = divmod(burden, len(able))
        for place, index in enumerate(sorted(able, reverse=True)):
            taken[index] = part + (place < left)
    return taken


def _complete(total: int, parts: list[tuple[int, int]]) -> list[int]:
    shares = [whole for whole, _ in parts]
    missing = total - sum(shares)
    for index in sorted(range(len(parts)), key=lambda i: (-parts[i][1], i))[:missing]:
        shares[index] += 1
    return shares
