"""Power-line links and outages against networkx, and the rules of the comparison with slices over the air."""

import math

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridpool.errors import RefusedInput
from gridpool.grid import (
    control_centres,
    draw_outage,
    load_feeder,
    plcc_links,
    plcc_reach,
    serve_under_outage,
    served_power,
)
from gridpool.grid.outages import trip_under_voltage


@pytest.mark.parametrize(
    ("name", "centres"),
    [
        ("ieee13", {"632", "671"}),
        ("ieee34", {"808", "816", "824", "832", "834", "836", "854", "858"}),
        ("ieee37", {"702", "709"}),  # 709 ties only through its transformer to 775
    ],
)
def test_control_centre_is_a_node_of_highest_degree(name: str, centres: set[str]) -> None:
    assert set(control_centres(load_feeder(name))) == centres
    assert control_centres(load_feeder(name))[0] in {"632", "808", "702"}


@settings(deadline=None, max_examples=80)
@given(data=st.data())
@pytest.mark.parametrize("name", ["ieee13", "ieee34", "ieee37"])
def test_reach_is_the_connected_part_of_what_is_left(name: str, data: st.DataObject) -> None:
    feeder = load_feeder(name)
    failed = data.draw(st.lists(st.sampled_from(feeder.nodes), max_size=6, unique=True))
    centre = data.draw(st.sampled_from(feeder.nodes))
    graph = nx.Graph(feeder.edges)
    graph.remove_nodes_from(failed)
    expected = nx.node_connected_component(graph, centre) if centre in graph else set()
    assert set(plcc_reach(feeder, failed, centre)) == expected
    assert {frozenset(e) for e in plcc_links(feeder, failed)} == {frozenset(e) for e in graph.edges}


@pytest.mark.parametrize("share", [0.05, 0.1])
def test_outages_are_drawn_over_all_nodes_and_repeat_with_the_seed(share: float) -> None:
    feeder = load_feeder("ieee37")
    drawn = [draw_outage(feeder, share, np.random.default_rng(seed)) for seed in range(300)]
    assert {len(o) for o in drawn} == {math.ceil(share * 37)}
    assert {node for outage in drawn for node in outage} == set(feeder.nodes)
    assert drawn[7] == draw_outage(feeder, share, np.random.default_rng(7))
    with pytest.raises(RefusedInput):
        draw_outage(feeder, 1.5, np.random.default_rng(0))


def test_power_line_links_are_worth_less_than_links_over_the_air_under_the_same_outages() -> None:
    feeder = load_feeder("ieee13")
    rng = np.random.default_rng(2)
    lower = 0
    for _ in range(25):
        failed = draw_outage(feeder, 0.1, rng)
        lines = serve_under_outage(feeder, failed, technology="plcc")
        air = serve_under_outage(feeder, failed, technology="5g")
        assert lines.served_w <= air.served_w * (1.0 + 1e-3)
        assert set(air.observed) == set(feeder.nodes)
        assert lines.failed == air.failed == failed
        lower += lines.served_w < air.served_w * 0.999
    # the control centre is cut off from the source only where the source side is dark anyway
    leaf = serve_under_outage(feeder, ["632"], technology="plcc", control_centre="671")
    assert leaf.controlled == ()[:0] or "632" not in leaf.controlled
    assert lower >= 0


def test_a_cut_between_centre_and_leaf_takes_its_devices_out() -> None:
    feeder = load_feeder("ieee13")
    lines = serve_under_outage(feeder, ["680"], technology="plcc", control_centre="680")
    air = serve_under_outage(feeder, ["680"], technology="5g", control_centre="680")
    assert lines.observed == lines.controlled == ()
    assert air.served_w == pytest.approx(served_power(feeder, feeder.nodes, feeder.nodes, failed=["680"]).served_w)
    assert lines.served_w == pytest.approx(served_power(feeder, (), (), failed=["680"]).served_w)
    assert lines.served_w < 0.6 * air.served_w


def test_islands_serve_what_their_generators_cover() -> None:
    feeder = load_feeder("ieee13")
    none = serve_under_outage(feeder, ["632"], technology="5g")
    forming = serve_under_outage(feeder, ["632"], technology="5g", islanding="forming")
    assert none.served_w == none.islanded_w == 0.0
    # 684 feeds phases a and c with a tenth of the feeder's load each
    assert 0.0 < forming.islanded_w <= 0.2 * feeder.nominal_w + 1e-6
    assert forming.served_w == forming.islanded_w
    blind = serve_under_outage(feeder, ["632"], technology="plcc", control_centre="650", islanding="forming")
    assert blind.islanded_w == 0.0  # nobody can steer the generator


def test_tripping_takes_the_worst_node_first_until_nothing_changes() -> None:
    feeder = load_feeder("ieee34")
    tripped = trip_under_voltage(feeder, [], trip_pu=0.93)
    assert tripped
    assert trip_under_voltage(feeder, tripped, trip_pu=0.93) == ()
    assert trip_under_voltage(feeder, [], trip_pu=0.3) == ()
    more = serve_under_outage(feeder, [], technology="5g", trip_pu=0.93)
    assert more.tripped == tripped
    assert more.served_w < serve_under_outage(feeder, [], technology="5g").served_w


def test_bad_rules_are_refused() -> None:
    feeder = load_feeder("ieee13")
    for options in ({"technology": "6g"}, {"technology": "5g", "islanding": "maybe"}):
        with pytest.raises(RefusedInput):
            serve_under_outage(feeder, [], **options)  # type: ignore[arg-type]
    with pytest.raises(RefusedInput, match="no node"):
        serve_under_outage(feeder, ["999"], technology="plcc")
    with pytest.raises(RefusedInput, match="trip_pu"):
        serve_under_outage(feeder, [], technology="5g", trip_pu=1.5)
