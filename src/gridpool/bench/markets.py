"""Clearing a million orders against one vectorised read of the same columns."""

import time
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numba import njit
from numpy.typing import NDArray

from gridpool.markets.order_columns import SideColumns, clear_columns

__all__ = ["draw_columns", "read_columns", "run"]

ORDERS = 1_000_000
TICKS = 10_000
COPIES = 8
SEED = 5


def run(orders: int = ORDERS, *, dtype: type[np.signedinteger[Any]] = np.int64, repeats: int = 160) -> dict[str, Any]:
    """Time one read of the columns, and clearing them by each fast rule, one core; seconds, the shortest of many.

    The repeats walk through several books in turn, together larger than the cache, so that every call reads memory.
    Prices and owners are int32, quantities ``dtype``. ``sort_s`` is numpy's sort of the two price columns alone, what
    a sort-based clearing would begin with.
    """
    rng = np.random.default_rng(SEED)
    books = [draw_columns(orders, rng, dtype=dtype) for _ in range(COPIES)]
    clearing: dict[str, Callable[[SideColumns, SideColumns], object]] = {
        "read_s": read_columns,
        "uniform_s": _by("uniform"),
        "vcg_s": _by("vcg"),
        "trade_reduction_s": _by("trade_reduction"),
        "sort_s": lambda bids, asks: (np.sort(bids.price), np.sort(asks.price)),
    }
    times: dict[str, list[float]] = {name: [] for name in clearing}
    for call in clearing.values():
        call(*books[0])
    turn = 0
    for k in range(repeats):  # in turn, so that all meet the same neighbours on the machine
        for name, call in clearing.items():
            if name in ("read_s", "uniform_s") or k % 8 == 0:
                turn += 1
                book = books[turn % COPIES]  # never the book that was looked at just before
                start = time.perf_counter()
                call(*book)
                times[name].append(time.perf_counter() - start)
    best = {name: min(values) for name, values in times.items()}
    return {
        "orders": orders,
        **best,
        "uniform_ratio": best["uniform_s"] / best["read_s"],
        "vcg_ratio": best["vcg_s"] / best["read_s"],
        "trade_reduction_ratio": best["trade_reduction_s"] / best["read_s"],
    }


def draw_columns(
    orders: int, rng: np.random.Generator, *, dtype: type[np.signedinteger[Any]] = np.int64, ticks: int = TICKS
) -> tuple[SideColumns, SideColumns]:
    """Draw a book with as many bids as asks, prices uniform over the ticks and ten orders an owner."""
    half = max(orders // 2, 1)
    owners = max(orders // 10, 2)

    def side(first: int) -> SideColumns:
        return SideColumns(
            price=rng.integers(0, ticks, half).astype(np.int32),
            quantity=rng.integers(1, 5_000, half).astype(dtype),
            owner=rng.integers(first, first + owners // 2, half).astype(np.int32),
        )

    return side(0), side(owners // 2)


def read_columns(bids: SideColumns, asks: SideColumns) -> int:
    """Read price and quantity of every order once, as fast as one core can (a vectorised sum)."""
    return int(_sum(bids.price) + _sum(bids.quantity) + _sum(asks.price) + _sum(asks.quantity))


def _by(rule: Literal["uniform", "vcg", "trade_reduction"]) -> Callable[[SideColumns, SideColumns], object]:
    return lambda bids, asks: clear_columns(bids, asks, rule=rule, ticks=TICKS)


def _add(column: NDArray[Any]) -> int:
    total = 0
    for i in range(column.size):
        total += column[i]
    return total


_sum = njit(cache=True)(_add)
