"""Compiled loops over columns of orders, behind ``order_columns``; callers have checked every bound."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = [
    "Integers",
    "add_up",
    "extremes",
    "fill_winners",
    "fills_of_owners",
    "lower_bars",
    "marginal",
    "own_residues",
    "sums_from_top",
    "walk",
    "whole_amounts",
    "worth_of",
]

F = TypeVar("F", bound=Callable[..., Any])
Integers = NDArray[Any]


def compiled(function: F) -> F:
    """Compile with numba and keep the machine code on disk."""
    return cast(F, njit(cache=True)(function))


@compiled
def whole_amounts(values: NDArray[np.int64], tick: int) -> NDArray[np.int64]:
    """Round values in ticks x Wh down to micro-coins; what is missing to the sum goes to the largest remainders."""
    amounts = np.empty(values.size, np.int64)
    with_remainder = np.zeros(1000, np.int64)
    missing = np.int64(0)
    for i in range(values.size):
        value = np.uint64(values[i]) * np.uint64(tick)  # unsigned: the compiler turns the division into a product
        amount = value // np.uint64(1000)
        remainder = value - amount * np.uint64(1000)
        amounts[i] = amount
        with_remainder[remainder] += 1
        missing += np.int64(remainder)
    missing //= 1000
    bar = 999
    while missing > with_remainder[bar]:
        missing -= with_remainder[bar]
        bar -= 1
    for i in range(values.size):
        remainder = np.uint64(values[i]) * np.uint64(tick) % np.uint64(1000)
        if remainder > np.uint64(bar):
            amounts[i] += 1
        elif remainder == np.uint64(bar) and missing > 0:
            amounts[i] += 1
            missing -= 1
    return amounts


@compiled
def extremes(price: Integers, quantity: Integers) -> tuple[int, int, int, int]:
    """Find the lowest and highest price and quantity; the columns are not empty."""
    low = high = price[0]
    least = most = quantity[0]
    for i in range(price.size):
        low = min(low, price[i])
        high = max(high, price[i])
        least = min(least, quantity[i])
        most = max(most, quantity[i])
    return low, high, least, most


@compiled
def add_up(price: Integers, quantity: Integers, curve: Integers) -> None:
    """Add quantities to their levels; the prices were checked, for nothing is checked here."""
    for i in range(price.size):
        curve[np.uint32(price[i])] += quantity[i]


@compiled
def walk(demand: NDArray[np.int64], supply: NDArray[np.int64]) -> tuple[Any, int, Any, int, Any, int, int]:
    """Walk down the bids and up the asks; give volume, last bid level and Wh there, the asks', and the interval."""
    count = demand.size
    volume = np.int64(0)
    last_bid = last_ask = -1
    last_bid_wh = last_ask_wh = np.int64(0)
    bid, ask = count, -1
    bid_left = ask_left = np.int64(0)
    while True:
        while bid_left == 0 and bid >= 0:
            bid -= 1
            if bid >= 0:
                bid_left = demand[bid]
        while ask_left == 0 and ask < count:
            ask += 1
            if ask < count:
                ask_left = supply[ask]
        if bid < 0 or ask >= count or bid < ask:
            break
        quantity = min(bid_left, ask_left)
        volume += quantity
        bid_left -= quantity
        ask_left -= quantity
        last_bid, last_bid_wh = bid, demand[bid] - bid_left
        last_ask, last_ask_wh = ask, supply[ask] - ask_left
    lower = max(last_ask, bid)
    upper = min(last_bid, ask) if ask < count else last_bid
    return volume, last_bid, last_bid_wh, last_ask, last_ask_wh, lower, upper


@compiled
def marginal(price: Integers, quantity: Integers, flipped: bool, last: int, last_wh: int) -> tuple[int, Any, int]:
    """Find the order that is filled last; give its index, the Wh before it at its level, and how many are better."""
    before = np.int64(0)
    better = 0
    marginal = -1
    at_level = 0
    sign = np.int64(-1) if flipped else np.int64(1)
    for i in range(price.size):
        p = price[i]
        better += int(sign * (np.int64(p) - last) > 0)
        if p == last and marginal < 0:
            if before + quantity[i] >= last_wh:
                marginal = i
            else:
                before += quantity[i]
                at_level += 1
    return marginal, before, better + at_level


@compiled
def fill_winners(
    price: Integers,
    quantity: Integers,
    flipped: bool,
    last: int,
    marginal: int,
    burden: int,
    able: int,
    filled: Integers,
) -> None:
    """Fill every order better than the marginal one, less equal parts of the burden, into ``filled``."""
    part = burden // able
    counts = np.array([0, 1])
    sign = np.int64(-1) if flipped else np.int64(1)
    left = np.int64(burden)
    still_able = 0
    for i in range(price.size):
        p = price[i]
        wins = counts[np.int64(sign * (np.int64(p) - last) > 0)]
        if p == last and i < marginal:
            wins = np.int64(1)
        kept = np.int64(quantity[i]) - min(np.int64(quantity[i]), np.int64(part))
        filled[i] = kept * wins
        left -= (np.int64(quantity[i]) - kept) * wins
        still_able += np.int64(kept > 0) * wins
    while still_able > 0 and left >= still_able:
        part = int(left // still_able)
        still_able = 0
        for i in range(price.size):
            taken = min(filled[i], np.int64(part))
            filled[i] -= taken
            left -= taken
            still_able += filled[i] > 0
    i = price.size - 1
    while left > 0:
        if filled[i] > 0:
            filled[i] -= 1
            left -= 1
        i -= 1


@compiled
def sums_from_top(ladder: NDArray[np.int64], levels: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Add up the Wh at each level or better, and what they are worth."""
    end = np.zeros(ladder.size + 1, np.int64)
    worth = np.zeros(ladder.size + 1, np.int64)
    for level in range(ladder.size - 1, -1, -1):
        end[level] = end[level + 1] + ladder[level]
        worth[level] = worth[level + 1] + ladder[level] * levels[level]
    return end, worth


@compiled
def fills_of_owners(
    price: Integers, quantity: Integers, owner: Integers, owners: int, flipped: bool, last: int, last_wh: int
) -> NDArray[np.int64]:
    """Add up what each owner buys (or sells, ``flipped``) at better levels than the last and, in order, at the last."""
    filled = np.zeros(owners, np.int64)
    counts = np.array([0, 1])
    sign = np.int64(-1) if flipped else np.int64(1)
    left = np.int64(last_wh)
    for i in range(price.size):
        better = sign * (np.int64(price[i]) - last) > 0
        # a table, not a choice: compilers make a branch of a choice, and half of them would be mispredicted
        filled[owner[i]] += np.int64(quantity[i]) * counts[np.int64(better)]
        if price[i] == last and left > 0:
            taken = min(np.int64(quantity[i]), left)
            filled[owner[i]] += taken
            left -= taken
    return filled


@compiled
def own_residues(
    price: Integers,
    quantity: Integers,
    owner: Integers,
    flipped: bool,
    last: int,
    last_wh: int,
    filled: NDArray[np.int64],
    bar: NDArray[np.int64],
    lowest: int,
    levels: NDArray[np.int64],
    own: NDArray[np.int64],
    own_worth: NDArray[np.int64],
) -> None:
    """Add up what each filled owner leaves unfilled itself at its bar or better."""
    left = np.int64(last_wh)
    span = np.uint64(last - lowest)
    for i in range(price.size):
        level = levels.size - 1 - price[i] if flipped else price[i]
        if np.uint64(level - lowest) > span:  # one branch, seldom not taken
            continue
        residue = np.int64(quantity[i])
        if level == last:
            taken = min(residue, left)
            left -= taken
            residue -= taken
        o = owner[i]
        if residue > 0 and filled[o] > 0 and level >= bar[o]:
            own[o] += residue
            own_worth[o] += residue * levels[level]


@compiled
def worth_of(
    filled: NDArray[np.int64],
    own: NDArray[np.int64],
    own_worth: NDArray[np.int64],
    bar: NDArray[np.int64],
    end: NDArray[np.int64],
    worth: NDArray[np.int64],
    levels: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Value what each owner displaces: the best Wh down to its bar, less its own among them."""
    pivots = np.zeros(filled.size, np.int64)
    for o in range(filled.size):
        if filled[o] > 0:
            beyond = bar[o] + 1
            pivots[o] = worth[beyond] + (filled[o] + own[o] - end[beyond]) * levels[bar[o]] - own_worth[o]
    return pivots


@compiled
def lower_bars(
    filled: NDArray[np.int64], own: NDArray[np.int64], end: NDArray[np.int64], bar: NDArray[np.int64], lowest: int
) -> tuple[bool, int]:
    """Lower each owner's bar to where its own and its displaced Wh end; say whether any moved, and the lowest."""
    moved = False
    reach = lowest
    for o in range(filled.size):
        if filled[o] > 0:
            if end[bar[o]] < filled[o] + own[o]:
                bar[o] = level_of(end, filled[o] + own[o], bar[o])
                moved = True
            reach = min(reach, bar[o])
    return moved or reach < lowest, reach


@compiled
def level_of(end: NDArray[np.int64], wanted: int, high: int) -> int:
    """Best level below ``high`` down to which at least ``wanted`` Wh lie, by doubling steps, then by halving."""
    step = 1
    low = max(high - step, 0)
    while end[low] < wanted and low > 0:
        high = low
        step *= 2
        low = max(high - step, 0)
    while high - low > 1:
        middle = (low + high) // 2
        if end[middle] >= wanted:
            low = middle
        else:
            high = middle
    return low
