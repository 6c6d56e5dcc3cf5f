"""How much each node of a tree matters: betweenness, degree, power and their products."""

from collections.abc import Sequence
from typing import Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from gridpool.errors import RefusedInput

__all__ = ["BETAS", "Beta", "betweenness", "degree", "node_weights", "subtree_sizes"]

Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]

Beta = Literal["bc_power", "bc_endpoints_power", "degree", "bc", "power", "power_degree"]
BETAS: tuple[Beta, ...] = get_args(Beta)

POWER_FLOOR = 0.01
"""Least node power as a share of the mean: junctions carry no load, yet their product with it must not vanish."""


def node_weights(beta: Beta, parent: Sequence[int], power_w: Sequence[float] | Floats) -> Floats:
    """Return the weight of each node, summing to 1.

    Parameters
    ----------
    beta
        ``bc_power`` is betweenness x power as published; ``bc_endpoints_power`` counts paths that end at a node too,
        so that leaves (most nodes of a feeder) keep a weight.
    parent
        Parent of each node, -1 for the root.
    power_w
        Real power injected or drawn at each node in W.
    """
    power = np.abs(np.asarray(power_w, dtype=np.float64))
    if power.shape != (len(parent),):
        raise RefusedInput(f"{power.size} node powers for {len(parent)} nodes; give one each")
    mean = float(power.mean()) if power.size else 0.0
    power = np.maximum(power, POWER_FLOOR * mean) if mean > 0 else np.ones_like(power)
    between = betweenness(parent)
    weight = {
        "bc_power": between * power,
        "bc_endpoints_power": (between + len(parent) - 1) * power,
        "degree": degree(parent),
        "bc": between,
        "power": power,
        "power_degree": power * degree(parent),
    }[beta]
    total = float(weight.sum())
    if total <= 0:
        return np.full(len(parent), 1.0 / max(len(parent), 1))
    return np.asarray(weight / total, dtype=np.float64)


def betweenness(parent: Sequence[int]) -> Floats:
    """Return each node's betweenness centrality in a tree (unordered pairs, endpoints left out), in O(n).

    Removing v leaves its children's subtrees and the rest; every path between two different parts passes through v,
    hence BC(v) = ((n-1)^2 - sum of children's sizes squared - (n - size)^2) / 2.
    """
    size = subtree_sizes(parent).astype(np.float64)
    above = np.asarray(parent, dtype=np.int64)
    n = len(above)
    squares = np.zeros(n)
    inner = above >= 0
    np.add.at(squares, above[inner], size[inner] ** 2)
    return np.asarray(((n - 1.0) ** 2 - squares - (n - size) ** 2) / 2.0, dtype=np.float64)


def degree(parent: Sequence[int]) -> Floats:
    """Return the degree of each node of a tree."""
    above = np.asarray(parent, dtype=np.int64)
    inner = above >= 0
    count = inner.astype(np.float64)
    np.add.at(count, above[inner], 1.0)
    return count


def subtree_sizes(parent: Sequence[int]) -> Ints:
    """Return the number of nodes at and below each node.

    Raises RefusedInput where the parents are not those of one tree.
    """
    above = [int(p) for p in parent]
    n = len(above)
    if sum(p == -1 for p in above) != 1 or any(not -1 <= p < n for p in above):
        raise RefusedInput("the parents are not those of one tree: exactly one node has parent -1")
    waiting = [0] * n
    for p in above:
        if p >= 0:
            waiting[p] += 1
    size = [1] * n
    ready = [node for node in range(n) if waiting[node] == 0]
    done = 0
    while ready:
        node = ready.pop()
        done += 1
        p = above[node]
        if p >= 0:
            size[p] += size[node]
            waiting[p] -= 1
            if waiting[p] == 0:
                ready.append(p)
    if done != n:
        raise RefusedInput("the parents form a cycle: a tree is needed")
    return np.asarray(size, dtype=np.int64)
