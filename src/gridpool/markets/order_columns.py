"""The same clearings over columns of many orders: one histogram a side, no sort, two curves walked towards each other.

Prices are whole ticks. Where the ticks would be more than ``MAX_TICKS`` the distinct prices are sorted once and their
ranks take the ticks' place; everything after that is the same.
"""

from collections.abc import Callable
from typing import Any, Literal, TypeVar, cast

import msgspec
import numpy as np
from numba import njit
from numpy.typing import NDArray

from gridpool.errors import RefusedInput

__all__ = ["MAX_TICKS", "ColumnClearing", "SideColumns", "clear_columns"]

MAX_TICKS = 2**20
PPM = 1_000_000
VALUE_LIMIT = 2**62

F = TypeVar("F", bound=Callable[..., Any])
Integers = NDArray[Any]


def compiled(function: F) -> F:
    """Compile with numba and keep the machine code on disk."""
    return cast(F, njit(cache=True)(function))


class SideColumns(msgspec.Struct, frozen=True):
    """One side's orders in order of arrival: price in ticks, quantity in Wh, owner number (0 up; for vcg only).

    All are one-dimensional int32 or int64 arrays of one length.
    """

    price: Integers
    quantity: Integers
    owner: Integers | None = None


class ColumnClearing(msgspec.Struct, frozen=True):
    """The outcome: prices in ticks; fills as prices and the Wh served at each side's last tick, in order of arrival.

    ``bought`` and ``sold`` (Wh of each order) stand for ``trade_reduction`` alone, whose fills follow no price;
    ``paid`` and ``received`` (micro-coins of each owner) for ``vcg`` alone.
    """

    volume_wh: int
    price: int | None = None
    buy_price: int | None = None
    sell_price: int | None = None
    last_bid: int | None = None
    last_bid_wh: int = 0
    last_ask: int | None = None
    last_ask_wh: int = 0
    bought: Integers | None = None
    sold: Integers | None = None
    paid: Integers | None = None
    received: Integers | None = None


def clear_columns(
    bids: SideColumns,
    asks: SideColumns,
    *,
    rule: Literal["uniform", "trade_reduction", "vcg"] = "uniform",
    ticks: int,
    k_ppm: int = 500_000,
    tick: int = 1,
) -> ColumnClearing:
    """Clear one area's orders, served in order of arrival at the last tick.

    Parameters
    ----------
    ticks
        Prices are 0 to ``ticks`` - 1.
    tick
        Micro-coins per kWh of a tick; owners' amounts under ``vcg`` are in micro-coins.

    Raises RefusedInput for columns of unlike length or kind, prices outside 0..ticks - 1, quantities below 1, and sums
    beyond 64 bits. Owners that cross themselves are the caller's to refuse.
    """
    for side in (bids, asks):
        _check(side, ticks, rule, owners=bids.price.size + asks.price.size)
    if ticks > MAX_TICKS:
        levels, ranks = np.unique(np.concatenate((bids.price, asks.price)), return_inverse=True)
        levels = levels.astype(np.int64)
        bids = msgspec.structs.replace(bids, price=ranks[: bids.price.size])
        asks = msgspec.structs.replace(asks, price=ranks[bids.price.size :])
        count = max(levels.size, 1)
    else:
        count = ticks
        levels = np.arange(count, dtype=np.int64)
    demand, supply = _curve(bids, count), _curve(asks, count)
    top = max(int(levels[-1]) if levels.size else 0, 1) * tick
    if (int(demand.sum()) + int(supply.sum())) * top > VALUE_LIMIT:
        raise RefusedInput("the orders' quantities times their highest price pass 2^62; clear them as single orders")
    volume, b, b_wh, a, a_wh, lower, upper = (int(x) for x in _walk(demand, supply))
    if not volume:
        return ColumnClearing(volume_wh=0)
    low, high = int(levels[lower]), int(levels[upper])
    if rule == "uniform":
        price = low + k_ppm * (high - low) // PPM
        return ColumnClearing(
            volume_wh=volume,
            price=price,
            buy_price=price,
            sell_price=price,
            last_bid=int(levels[b]),
            last_bid_wh=b_wh,
            last_ask=int(levels[a]),
            last_ask_wh=a_wh,
        )
    if rule == "trade_reduction":
        return _reduce(bids, asks, levels, volume, (b, b_wh), (a, a_wh))
    # what stays unfilled of one side, with what is filled of the other, is what an owner's Wh compete with
    bought, sold = demand.copy(), supply.copy()
    bought[:b], bought[b] = 0, b_wh
    sold[a + 1 :], sold[a] = 0, a_wh
    paid = _pivot(bids, False, b, b_wh, demand - bought + sold, levels)
    received = _pivot(asks, True, a, a_wh, (supply - sold + bought)[::-1].copy(), levels[::-1].copy())
    return ColumnClearing(
        volume_wh=volume,
        last_bid=int(levels[b]),
        last_bid_wh=b_wh,
        last_ask=int(levels[a]),
        last_ask_wh=a_wh,
        paid=_whole_amounts(paid, tick),
        received=_whole_amounts(received, tick),
    )


def _check(side: SideColumns, ticks: int, rule: str, owners: int) -> None:
    columns = [side.price, side.quantity, *([] if side.owner is None else [side.owner])]
    if any(c.ndim != 1 or c.dtype not in (np.int32, np.int64) or c.size != side.price.size for c in columns):
        raise RefusedInput("the columns of one side must be int32 or int64 arrays of one length")
    if rule == "vcg" and (
        side.owner is None or (side.owner.size and not 0 <= side.owner.min() <= side.owner.max() < owners)
    ):
        raise RefusedInput("vcg needs each order's owner as a number from 0 up, below the number of orders")
    if ticks < 1:
        raise RefusedInput(f"there are {ticks} ticks; give at least 1")
    if ticks > MAX_TICKS and side.price.size and not 0 <= int(side.price.min()) <= int(side.price.max()) < ticks:
        raise RefusedInput(f"a price is outside 0 to {ticks - 1} ticks")


def _reduce(
    bids: SideColumns,
    asks: SideColumns,
    levels: NDArray[np.int64],
    volume: int,
    last_bid: tuple[int, int],
    last_ask: tuple[int, int],
) -> ColumnClearing:
    bid, wanted, buyers = _marginal(bids.price, bids.quantity, False, *last_bid)
    ask, offered, sellers = _marginal(asks.price, asks.quantity, True, *last_ask)
    wanted += volume - last_bid[1]
    offered += volume - last_ask[1]
    if not wanted or not offered:
        return ColumnClearing(volume_wh=0)
    bought = _winners(bids.price, bids.quantity, False, last_bid[0], bid, max(wanted - offered, 0), buyers)
    sold = _winners(asks.price, asks.quantity, True, last_ask[0], ask, max(offered - wanted, 0), sellers)
    buy_price, sell_price = int(levels[last_bid[0]]), int(levels[last_ask[0]])
    return ColumnClearing(
        volume_wh=int(min(wanted, offered)),
        price=buy_price if buy_price == sell_price else None,
        buy_price=buy_price,
        sell_price=sell_price,
        bought=bought,
        sold=sold,
    )


def _pivot(
    side: SideColumns, flipped: bool, last: int, last_wh: int, ladder: NDArray[np.int64], levels: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Owners' Clarke pivots in ticks x Wh; with ``flipped``, level 0 of the ladder is the highest price."""
    owner = cast(Integers, side.owner)
    owners = int(owner.max()) + 1 if owner.size else 0
    filled = _fills_of_owners(side.price, side.quantity, owner, owners, flipped, last, last_wh)
    if flipped:
        last = levels.size - 1 - last
    end, worth = _sums_from_top(ladder, levels)
    top = int(np.flatnonzero(ladder)[-1])
    own, own_worth = np.zeros(owners, np.int64), np.zeros(owners, np.int64)
    bar = np.full(owners, top, np.int64)  # level of the last Wh that the owner displaces
    lowest = top + 1
    while True:
        moved, lowest = _lower_bars(filled, own, end, bar, lowest)
        if not moved:
            break
        own[:] = 0
        own_worth[:] = 0
        _own_residues(
            side.price, side.quantity, owner, flipped, last, last_wh, filled, bar, lowest, levels, own, own_worth
        )
    return _worth_of(filled, own, own_worth, bar, end, worth, levels)


@compiled
def _whole_amounts(values: NDArray[np.int64], tick: int) -> NDArray[np.int64]:
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


def _curve(side: SideColumns, count: int) -> NDArray[np.int64]:
    """Add up the Wh at each level, in 32-bit counters (half the cache) where they cannot overflow."""
    if not side.price.size:
        return np.zeros(count, np.int64)
    low, high, least, most = _extremes(side.price, side.quantity)
    if low < 0 or high >= count or least < 1:
        raise RefusedInput(f"a price is outside 0 to {count - 1} ticks or a quantity below 1 Wh")
    if int(most) * side.price.size > VALUE_LIMIT:
        raise RefusedInput("the quantities may add up to more than 2^62 Wh; clear them as single orders")
    narrow = int(most) * side.price.size < 2**32
    curve = np.zeros(count, np.uint32 if narrow else np.int64)
    _add_up(side.price, side.quantity, curve)
    return curve.astype(np.int64)


@compiled
def _extremes(price: Integers, quantity: Integers) -> tuple[int, int, int, int]:
    low = high = price[0]
    least = most = quantity[0]
    for i in range(price.size):
        low = min(low, price[i])
        high = max(high, price[i])
        least = min(least, quantity[i])
        most = max(most, quantity[i])
    return low, high, least, most


@compiled
def _add_up(price: Integers, quantity: Integers, curve: Integers) -> None:
    """Add quantities to their levels; the prices were checked, for nothing is checked here."""
    for i in range(price.size):
        curve[np.uint32(price[i])] += quantity[i]


@compiled
def _walk(demand: NDArray[np.int64], supply: NDArray[np.int64]) -> tuple[Any, int, Any, int, Any, int, int]:
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
def _marginal(price: Integers, quantity: Integers, flipped: bool, last: int, last_wh: int) -> tuple[int, Any, int]:
    """Find the order that is filled last; give its index, the Wh before it at its level, and how many are better."""
    before = np.int64(0)
    better = 0
    marginal = -1
    at_level = 0
    for i in range(price.size):
        p = price[i]
        better += (p < last) if flipped else (p > last)
        if p == last and marginal < 0:
            if before + quantity[i] >= last_wh:
                marginal = i
            else:
                before += quantity[i]
                at_level += 1
    return marginal, before, better + at_level


@compiled
def _winners(
    price: Integers, quantity: Integers, flipped: bool, last: int, marginal: int, burden: int, able: int
) -> Integers:
    """Fill every order better than the marginal one, less equal parts of the burden."""
    filled = np.empty(price.size, quantity.dtype)
    part = burden // able
    left = np.int64(burden)
    still_able = 0
    for i in range(price.size):
        p = price[i]
        q = np.int64(quantity[i]) * ((p < last) if flipped else (p > last))
        if p == last and i < marginal:
            q = np.int64(quantity[i])
        taken = min(q, np.int64(part))
        filled[i] = q - taken
        left -= taken
        still_able += q > taken
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
    return filled


@compiled
def _sums_from_top(ladder: NDArray[np.int64], levels: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Add up the Wh at each level or better, and what they are worth."""
    end = np.zeros(ladder.size + 1, np.int64)
    worth = np.zeros(ladder.size + 1, np.int64)
    for level in range(ladder.size - 1, -1, -1):
        end[level] = end[level + 1] + ladder[level]
        worth[level] = worth[level + 1] + ladder[level] * levels[level]
    return end, worth


@compiled
def _fills_of_owners(
    price: Integers, quantity: Integers, owner: Integers, owners: int, flipped: bool, last: int, last_wh: int
) -> NDArray[np.int64]:
    filled = np.zeros(owners, np.int64)
    left = np.int64(last_wh)
    for i in range(price.size):
        better = (price[i] < last) if flipped else (price[i] > last)
        filled[owner[i]] += np.int64(quantity[i]) * better  # no branch: half of them would be mispredicted
        if price[i] == last and left > 0:
            taken = min(np.int64(quantity[i]), left)
            filled[owner[i]] += taken
            left -= taken
    return filled


@compiled
def _own_residues(
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
def _worth_of(
    filled: NDArray[np.int64],
    own: NDArray[np.int64],
    own_worth: NDArray[np.int64],
    bar: NDArray[np.int64],
    end: NDArray[np.int64],
    worth: NDArray[np.int64],
    levels: NDArray[np.int64],
) -> NDArray[np.int64]:
    pivots = np.zeros(filled.size, np.int64)
    for o in range(filled.size):
        if filled[o] > 0:
            beyond = bar[o] + 1
            pivots[o] = worth[beyond] + (filled[o] + own[o] - end[beyond]) * levels[bar[o]] - own_worth[o]
    return pivots


@compiled
def _lower_bars(
    filled: NDArray[np.int64], own: NDArray[np.int64], end: NDArray[np.int64], bar: NDArray[np.int64], lowest: int
) -> tuple[bool, int]:
    """Lower each owner's bar to where its own and its displaced Wh end; say whether any moved, and the lowest."""
    moved = False
    reach = lowest
    for o in range(filled.size):
        if filled[o] > 0:
            if end[bar[o]] < filled[o] + own[o]:
                bar[o] = _level_of(end, filled[o] + own[o], bar[o])
                moved = True
            reach = min(reach, bar[o])
    return moved or reach < lowest, reach


@compiled
def _level_of(end: NDArray[np.int64], wanted: int, high: int) -> int:
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
