"""Served power: certificates, monotonicity, options and refusals."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridpool.errors import RefusedInput
from gridpool.grid import Feeder, load_feeder, score, served_power
from gridpool.grid.served import served_model

NAMES = ("ieee13", "ieee34", "ieee37", "ieee123")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("seen", "steered"), [(False, False), (True, False), (False, True), (True, True)])
def test_certified_set_points_survive_any_demand_within_the_blind_error(name: str, seen: bool, steered: bool) -> None:
    """An outside check: demands drawn at random and at random corners, replayed without the programme."""
    feeder = load_feeder(name)
    model = served_model(feeder)
    observed = feeder.nodes if seen else feeder.nodes[::3]
    result = served_power(feeder, observed, feeder.nodes if steered else ())
    assert result.max_violation_pu < 1e-5
    assert result.certified == "worst_case"
    scale = np.ones(len(feeder.loads))
    problem = model.delivery.problem(
        frozenset(observed), frozenset(feeder.nodes if steered else ()), scale, frozenset()
    )
    model.replay.restart()
    solution = model.certified(problem, scale, "worst_case").solution
    assert float(model.delivery.load_w @ solution.served) == pytest.approx(result.served_w, rel=1e-9)
    rng = np.random.default_rng(5)
    error = np.array([0.0 if item.node in observed else 0.5 for item in feeder.loads])
    limits = ~model.linear.upstream_of_limits
    model.replay.set_taps(solution.taps)
    for k in range(60):
        swing = rng.uniform(-1, 1, len(error)) if k % 2 else rng.choice([-1.0, 1.0], len(error))
        power = solution.served * (1.0 + error * swing)
        model.replay.set_powers(
            np.concatenate([model.delivery.load_w * power, solution.shunt_w]),
            np.concatenate([model.delivery.load_var * power, solution.shunt_var]),
        )
        voltages = model.replay.solve()
        assert model.violation(voltages, limits) < 2e-5


@st.composite
def nested_links(draw: st.DrawFn, feeder: Feeder) -> tuple[list[str], list[str], list[str], list[str]]:
    order, devices = draw(st.permutations(feeder.nodes)), draw(st.permutations(feeder.device_nodes()))
    a, b = sorted(draw(st.tuples(*[st.integers(0, len(order))] * 2)))
    c, d = sorted(draw(st.tuples(*[st.integers(0, len(devices))] * 2)))
    return order[:a], devices[:c], order[:b], devices[:d]


def check_monotone(name: str, data: st.DataObject) -> None:
    feeder = load_feeder(name)
    small_m, small_u, large_m, large_u = data.draw(nested_links(feeder))
    full = served_power(feeder, feeder.nodes, feeder.nodes).served_w
    less = served_power(feeder, small_m, small_u).served_w / full
    more = served_power(feeder, large_m, large_u).served_w / full
    assert more >= less - 1e-3
    assert -1e-9 <= less <= 1.0 + 1e-3


@settings(deadline=None, max_examples=20, derandomize=True)
@given(data=st.data())
@pytest.mark.parametrize("name", ["ieee13", "ieee37"])
def test_score_is_monotone_under_nested_links(name: str, data: st.DataObject) -> None:
    check_monotone(name, data)


@settings(deadline=None, max_examples=6, derandomize=True)
@given(data=st.data())
@pytest.mark.parametrize("name", ["ieee34", "ieee123"])
def test_score_is_monotone_under_nested_links_on_larger_feeders(name: str, data: st.DataObject) -> None:
    check_monotone(name, data)


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(data=st.data())
@pytest.mark.parametrize("name", NAMES)
def test_score_is_monotone_under_many_nested_links(name: str, data: st.DataObject) -> None:
    check_monotone(name, data)


@pytest.mark.parametrize("name", NAMES)
def test_score_is_one_at_full_connectivity(name: str) -> None:
    feeder = load_feeder(name)
    assert score(feeder, feeder.nodes, feeder.nodes) == 1.0
    assert 0.3 < score(feeder, (), ()) < 1.0


def test_about_two_thirds_of_the_13_can_be_carried_without_control() -> None:
    feeder = load_feeder("ieee13")
    assert served_power(feeder, feeder.nodes, ()).served_share == pytest.approx(0.67, abs=0.01)


def test_a_set_point_safe_at_nominal_alone_fails_at_higher_demand() -> None:
    feeder = load_feeder("ieee13")
    blind = served_power(feeder, (), (), certify="nominal")
    assert blind.certified == "nominal"
    assert blind.served_w >= served_power(feeder, (), ()).served_w
    ignorant = served_power(feeder, feeder.nodes, ())  # as if every demand were exact
    model = served_model(feeder)
    problem = model.delivery.problem(frozenset(feeder.nodes), frozenset(), np.ones(len(feeder.loads)), frozenset())
    solution = model.certified(problem, np.ones(len(feeder.loads)), "worst_case").solution
    model.replay.set_powers(
        np.concatenate([1.5 * model.delivery.load_w * solution.served, solution.shunt_w]),
        np.concatenate([1.5 * model.delivery.load_var * solution.served, solution.shunt_var]),
    )
    assert model.replay.solve().min() < 0.94
    assert ignorant.max_violation_pu < 1e-5


def test_without_blind_error_observing_is_worth_nothing() -> None:
    feeder = load_feeder("ieee13")
    blind = served_power(feeder, (), feeder.nodes, blind_error=0.0).served_w
    assert blind == pytest.approx(served_power(feeder, feeder.nodes, feeder.nodes).served_w, rel=1e-3)


def test_served_power_falls_as_the_blind_error_grows() -> None:
    feeder = load_feeder("ieee34")
    served = [served_power(feeder, (), (), blind_error=e).served_w for e in (0.0, 0.2, 0.5, 0.9)]
    assert served == sorted(served, reverse=True)
    assert served[0] > served[-1] * 1.2


def test_demand_scales_by_node() -> None:
    feeder = load_feeder("ieee13")
    light = served_power(feeder, (), (), demand_scale=0.2)
    assert light.served_share == pytest.approx(1.0)
    assert light.nominal_w == pytest.approx(0.2 * feeder.nominal_w)
    without = served_power(feeder, (), (), demand_scale={"671": 0.0})
    assert without.nominal_w == pytest.approx(feeder.nominal_w - feeder.node_power_w("671"))
    assert without.served_fraction["671"] == 1.0


def test_options_change_what_devices_do_without_control() -> None:
    feeder = load_feeder("ieee13")
    plain = served_power(feeder, feeder.nodes, ())
    assert set(plain.taps.values()) == {0}
    assert set(plain.capacitors.values()) == {0.0}
    assert set(plain.generation_w.values()) == {0.0}
    capacitors = served_power(feeder, feeder.nodes, (), default_capacitors="on")
    generation = served_power(feeder, feeder.nodes, (), default_generation=1.0)
    assert capacitors.served_w > plain.served_w
    assert generation.served_w > plain.served_w
    assert sum(generation.generation_w.values()) == pytest.approx(0.2 * feeder.nominal_w)
    with pytest.raises(RefusedInput, match="no load at all"):  # the published taps lift RG60 above 1.05 without load
        served_power(feeder, feeder.nodes, (), default_taps="published")
    lifted = served_power(feeder, feeder.nodes, (), default_taps="published", upper_pu=1.1)
    assert lifted.taps == {"reg1": 10, "reg2": 8, "reg3": 11}


def test_a_device_may_need_both_slices() -> None:
    feeder = load_feeder("ieee13")
    both = served_power(feeder, ["632"], ["650"], both_slices=True)
    assert both.served_w == pytest.approx(served_power(feeder, ["632"], ()).served_w, rel=1e-6)
    assert served_power(feeder, ["632", "650"], ["650"], both_slices=True).served_w > both.served_w * 1.05


def test_switchable_loads_are_served_whole_or_not_at_all() -> None:
    feeder = load_feeder("ieee37")
    result = served_power(feeder, (), (), switchable=True)
    whole = served_power(feeder, (), ())
    assert result.served_w <= whole.served_w * (1.0 + 1e-6)
    assert all(min(abs(v), abs(v - 1.0)) < 1e-6 for v in result.served_fraction.values())


def test_dark_nodes_serve_nothing() -> None:
    feeder = load_feeder("ieee13")
    result = served_power(feeder, feeder.nodes, feeder.nodes, failed=["671"])
    for bus in ("671", "692", "675", "611", "652"):
        assert result.served_fraction[bus] == 0.0
    assert result.served_fraction["634"] > 0.99
    assert served_power(feeder, feeder.nodes, feeder.nodes, failed=["650"]).served_w == 0.0


@pytest.mark.parametrize("name", NAMES)
def test_a_nominal_score_takes_at_most_six_rounds(name: str) -> None:
    feeder = load_feeder(name)
    for observed in ((), feeder.nodes):
        for controlled in ((), feeder.nodes):
            assert served_power(feeder, observed, controlled, certify="nominal").rounds <= 6


def test_repeated_calls_agree_to_the_bit_whatever_ran_between() -> None:
    feeder, other = load_feeder("ieee13"), load_feeder("ieee37")
    first = served_power(feeder, ["632"], ["650"], demand_scale=0.9)
    served_power(other, (), ())
    served_power(feeder, ["632"], ["650"], demand_scale=0.4)
    again = served_power(feeder, ["632"], ["650"], demand_scale=0.9)
    assert again == first


def test_a_day_of_intervals_is_cheap() -> None:
    feeder = load_feeder("ieee13")
    rng = np.random.default_rng(0)
    served_power(feeder, ["632", "671"], ["650"])
    start = time.process_time()
    for scale in rng.uniform(0.3, 1.0, 24):
        served_power(feeder, ["632", "671"], ["650"], demand_scale=dict.fromkeys(feeder.nodes, float(scale)))
        served_power(feeder, feeder.nodes, feeder.nodes, demand_scale=float(scale))
    assert time.process_time() - start < 6.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blind_error": 1.5}, "blind_error"),
        ({"blind_error": -0.1}, "blind_error"),
        ({"dg_share": -1.0}, "dg_share"),
        ({"lower_pu": 1.2}, "upper_pu"),
        ({"demand_scale": -1.0}, "demand_scale"),
        ({"demand_scale": float("nan")}, "demand_scale"),
        ({"demand_scale": {"999": 1.0}}, "no node"),
        ({"formulation": "magic"}, "formulation"),
        ({"certify": "hope"}, "certificate"),
        ({"failed": ["999"]}, "no node"),
    ],
)
def test_bad_parameters_are_refused(options: dict[str, object], message: str) -> None:
    feeder = load_feeder("ieee13")
    with pytest.raises(RefusedInput, match=message):
        served_power(feeder, (), (), **options)  # type: ignore[arg-type]
    with pytest.raises(RefusedInput, match="no node"):
        served_power(feeder, ["nowhere"], ())
