"""Betweenness and degree of trees against networkx."""

import networkx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridpool.errors import RefusedInput
from gridpool.radio import BETAS, betweenness, node_weights
from gridpool.radio.weights import degree


@st.composite
def trees(draw):
    n = draw(st.integers(1, 40))
    parent = [-1] + [draw(st.integers(0, i - 1)) for i in range(1, n)]
    order = draw(st.permutations(range(n)))
    place = {old: new for new, old in enumerate(order)}
    return [-1 if parent[old] < 0 else place[parent[old]] for old in order]


def graph(parent):
    tree = networkx.Graph()
    tree.add_nodes_from(range(len(parent)))
    tree.add_edges_from((p, i) for i, p in enumerate(parent) if p >= 0)
    return tree


@settings(deadline=None, max_examples=120)
@given(trees())
def test_betweenness_and_degree_equal_networkx(parent):
    tree = graph(parent)
    theirs = networkx.betweenness_centrality(tree, normalized=False)
    assert betweenness(parent).tolist() == [theirs[i] for i in range(len(parent))]
    assert degree(parent).tolist() == [tree.degree(i) for i in range(len(parent))]


@settings(deadline=None, max_examples=40)
@given(trees(), st.integers(0, 10**6))
def test_weights_are_a_distribution(parent, seed):
    power = np.random.default_rng(seed).integers(0, 3, len(parent)) * 1e4
    for beta in BETAS:
        weights = node_weights(beta, parent, power)
        assert weights.sum() == pytest.approx(1.0)
        assert (weights >= 0.0).all()


def test_endpoints_keep_leaves_in_play():
    star = [-1, 0, 0, 0]
    assert node_weights("bc_power", star, [1.0] * 4)[1] == 0.0
    endpoints = networkx.betweenness_centrality(graph(star), normalized=False, endpoints=True)
    ours = node_weights("bc_endpoints_power", star, [1.0] * 4)
    assert ours == pytest.approx([endpoints[i] / sum(endpoints.values()) for i in range(4)])


def test_junctions_without_load_have_a_hundredth_of_the_mean_power():
    weights = node_weights("power", [-1, 0, 1], [0.0, 300.0, 0.0])
    assert weights == pytest.approx([1 / 302, 300 / 302, 1 / 302])


def test_betweenness_of_a_long_line_needs_no_recursion():
    n = 200_000
    values = betweenness(list(range(-1, n - 1)))
    assert values[1] == n - 2
    assert values[n // 2] == pytest.approx((n // 2) * (n - 1 - n // 2))


@pytest.mark.parametrize("parent", [[-1, -1], [1, 0], [-1, 2, 1], [-1, 7], [0]])
def test_what_is_no_tree_is_refused(parent):
    with pytest.raises(RefusedInput):
        betweenness(parent)
