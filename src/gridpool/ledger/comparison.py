"""Comparing two ledgers: the first height at which they part, and the keys in which their states differ."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from gridpool.ledger.rules import Rules
from gridpool.ledger.store import Snapshot, Store
from gridpool.ledger.tree import difference
from gridpool.ledger.view import KnownRules, View, by_version, locate, rules_for, walking_the_tree

__all__ = ["Comparison", "Difference", "compare_ledgers"]


class Difference(msgspec.Struct, frozen=True):
    """A key that two states do not hold alike."""

    table: str
    key: str


class Comparison(msgspec.Struct, frozen=True):
    """Two ledgers side by side; ``height`` is the first that differs, None where all that both have are equal."""

    equal: bool
    height: int | None
    keys: tuple[Difference, ...]


def compare_ledgers(path_a: Path, path_b: Path, known: KnownRules, *, deep: bool = False) -> Comparison:
    """Find the first height with different application hashes, and every key of the present states that differs.

    Walks the two trees, so that it takes O(log n) hashes a key; ``deep`` compares all stored pairs instead, for a
    store that was altered without its tree.
    """
    rules = by_version(known)
    store_a, store_b = Store.open(locate(path_a), writable=False), Store.open(locate(path_b), writable=False)
    try:
        with store_a.snapshot() as a, store_b.snapshot() as b:
            height = _first_differing(a, b)
            with walking_the_tree():
                keys = list(_unlike_pairs(a, b) if deep else difference(a.node, b.node))
            if height is None and keys:
                height = View(a).height
            return Comparison(height is None, height, tuple(Difference(*_name(rules, a, key)) for key in keys))
    finally:
        store_a.close()
        store_b.close()


def _first_differing(a: Snapshot, b: Snapshot) -> int | None:
    """Find the first differing height by bisection: application hashes are chained."""
    view_a, view_b = View(a), View(b)
    top_a, top_b = view_a.height, view_b.height
    low, high = 0, min(top_a, top_b)
    if _same(view_a, view_b, high):
        return None if top_a == top_b else high + 1
    while low < high:
        middle = (low + high) // 2
        if _same(view_a, view_b, middle):
            low = middle + 1
        else:
            high = middle
    return low


def _same(a: View, b: View, height: int) -> bool:
    return a.header(height).header.app_hash == b.header(height).header.app_hash


def _unlike_pairs(a: Snapshot, b: Snapshot) -> Iterator[bytes]:
    left, right = a.items("state"), b.items("state")
    one, two = next(left, None), next(right, None)
    while one is not None or two is not None:
        if two is None or (one is not None and one[0] < two[0]):
            assert one is not None
            yield one[0]
            one = next(left, None)
        elif one is None or two[0] < one[0]:
            yield two[0]
            two = next(right, None)
        else:
            if one[1] != two[1]:
                yield one[0]
            one, two = next(left, None), next(right, None)


def _name(known: Mapping[int, Rules], snapshot: Snapshot, key: bytes) -> tuple[str, str]:
    return rules_for(known, snapshot, View(snapshot).height + 1).name_key(key)
