"""The same clearings over columns of many orders: one histogram a side, no sort, two curves walked towards each other.

Prices are whole ticks. Where the ticks would be more than ``MAX_TICKS`` the distinct prices are sorted once and their
ranks take the ticks' place; everything after that is the same.
"""

from typing import Literal, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from gridpool.errors import RefusedInput
from gridpool.markets.double_auction import PPM, check_price_rule
from gridpool.markets.order_kernels import (
    Integers,
    add_up,
    extremes,
    fill_winners,
    fills_of_owners,
    lower_bars,
    marginal,
    own_residues,
    sums_from_top,
    walk,
    whole_amounts,
    worth_of,
)

__all__ = ["MAX_TICKS", "ColumnClearing", "SideColumns", "clear_columns"]

MAX_TICKS = 2**20
VALUE_LIMIT = 2**62


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
    check_price_rule(k_ppm, tick)
    if rule not in ("uniform", "trade_reduction", "vcg"):
        raise RefusedInput(f"columns are cleared by uniform, trade_reduction or vcg, not {rule!r}")
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
    volume, b, b_wh, a, a_wh, lower, upper = (int(x) for x in walk(demand, supply))
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
        paid=whole_amounts(paid, tick),
        received=whole_amounts(received, tick),
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
    bid, wanted, buyers = marginal(bids.price, bids.quantity, False, *last_bid)
    ask, offered, sellers = marginal(asks.price, asks.quantity, True, *last_ask)
    wanted += volume - last_bid[1]
    offered += volume - last_ask[1]
    if not wanted or not offered:
        return ColumnClearing(volume_wh=0)
    bought, sold = _room_for_fills(bids), _room_for_fills(asks)
    fill_winners(bids.price, bids.quantity, False, last_bid[0], bid, max(wanted - offered, 0), buyers, bought)
    fill_winners(asks.price, asks.quantity, True, last_ask[0], ask, max(offered - wanted, 0), sellers, sold)
    buy_price, sell_price = int(levels[last_bid[0]]), int(levels[last_ask[0]])
    return ColumnClearing(
        volume_wh=int(min(wanted, offered)),
        price=buy_price if buy_price == sell_price else None,
        buy_price=buy_price,
        sell_price=sell_price,
        bought=bought,
        sold=sold,
    )


def _room_for_fills(side: SideColumns) -> Integers:
    """Make an array for a side's fills, in 32 bits where they fit: fresh memory costs more than the loop over it."""
    return np.empty(side.quantity.size, np.int32 if side.quantity.max() < 2**31 else np.int64)


def _pivot(
    side: SideColumns, flipped: bool, last: int, last_wh: int, ladder: NDArray[np.int64], levels: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Owners' Clarke pivots in ticks x Wh; with ``flipped``, level 0 of the ladder is the highest price."""
    owner = cast(Integers, side.owner)
    owners = int(owner.max()) + 1 if owner.size else 0
    filled = fills_of_owners(side.price, side.quantity, owner, owners, flipped, last, last_wh)
    if flipped:
        last = levels.size - 1 - last
    end, worth = sums_from_top(ladder, levels)
    top = int(np.flatnonzero(ladder)[-1])
    own, own_worth = np.zeros(owners, np.int64), np.zeros(owners, np.int64)
    bar = np.full(owners, top, np.int64)  # level of the last Wh that the owner displaces
    lowest = top + 1
    while True:
        moved, lowest = lower_bars(filled, own, end, bar, lowest)
        if not moved:
            break
        own[:] = 0
        own_worth[:] = 0
        own_residues(
            side.price, side.quantity, owner, flipped, last, last_wh, filled, bar, lowest, levels, own, own_worth
        )
    return worth_of(filled, own, own_worth, bar, end, worth, levels)


def _curve(side: SideColumns, count: int) -> NDArray[np.int64]:
    """Add up the Wh at each level, in 32-bit counters (half the cache) where they cannot overflow."""
    if not side.price.size:
        return np.zeros(count, np.int64)
    low, high, least, most = extremes(side.price, side.quantity)
    if low < 0 or high >= count or least < 1:
        raise RefusedInput(f"a price is outside 0 to {count - 1} ticks or a quantity below 1 Wh")
    if int(most) * side.price.size > VALUE_LIMIT:
        raise RefusedInput("the quantities may add up to more than 2^62 Wh; clear them as single orders")
    narrow = int(most) * side.price.size < 2**32
    curve = np.zeros(count, np.uint32 if narrow else np.int64)
    add_up(side.price, side.quantity, curve)
    return curve.astype(np.int64)
