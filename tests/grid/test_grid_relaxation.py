"""The semidefinite formulation against the linear one, a closed form, and what makes it inexact."""

from pathlib import Path

import numpy as np
import pytest

from gridpool.errors import RefusedInput
from gridpool.grid import load_feeder, served_power
from gridpool.grid.branchflow import SYMMETRICAL
from gridpool.grid.network import build_network
from gridpool.grid.optimal import optimal_power_flow
from gridpool.grid.semidefinite import Relaxation
from gridpool.grid.served import served_model

TWO_BUS = """
New Circuit.two basekv=12.47 pu=1.0 phases=3 bus1=src R1=0 X1=1e-6 R0=0 X0=1e-6
New Line.a bus1=src bus2=end phases=3 r1=1.2 x1=2 r0=1.2 x0=2 c1=0 c0=0 length=1 units=km
New Load.x bus1=end phases=3 conn=wye model=1 kv=12.47 kw=4000 kvar=1000
Set Voltagebases=[12.47]
Calcv
"""


@pytest.mark.parametrize("observed", [(), ("671", "675", "692"), "all"])
@pytest.mark.parametrize("controlled", [(), ("650",), ("675", "684"), "all"])
def test_linear_with_replay_equals_the_relaxation_with_priced_losses_on_13(
    observed: tuple[str, ...] | str, controlled: tuple[str, ...] | str
) -> None:
    feeder = load_feeder("ieee13")
    seen = feeder.nodes if observed == "all" else observed
    steered = feeder.nodes if controlled == "all" else controlled
    linear = served_power(feeder, seen, steered)
    relaxed = served_power(feeder, seen, steered, formulation="sdp")
    assert relaxed.formulation == "sdp"
    assert relaxed.max_violation_pu < 1e-5
    assert relaxed.eigenvalue_ratio is not None
    assert relaxed.eigenvalue_ratio < 1e-3
    assert relaxed.served_share == pytest.approx(linear.served_share, abs=0.005)
    if not steered:  # no device to place: both find the same optimum
        assert relaxed.served_share == pytest.approx(linear.served_share, abs=5e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ieee34", "ieee37", "ieee123"])
@pytest.mark.parametrize("seen", [False, True])
@pytest.mark.parametrize("steered", [False, True])
def test_both_formulations_agree_on_the_other_feeders(name: str, seen: bool, steered: bool) -> None:
    feeder = load_feeder(name)
    observed, controlled = feeder.nodes if seen else (), feeder.nodes if steered else ()
    linear = served_power(feeder, observed, controlled)
    relaxed = served_power(feeder, observed, controlled, formulation="sdp")
    assert relaxed.formulation == "sdp"
    assert relaxed.served_share == pytest.approx(linear.served_share, abs=0.01)


def relaxed_claim(loss_price: float, components: str = "phase") -> tuple[float, float]:
    feeder = load_feeder("ieee13")
    model = served_model(feeder)
    scale = np.ones(len(feeder.loads))
    problem = model.delivery.problem(frozenset(feeder.nodes), frozenset(), scale, frozenset())
    start = model.certified(problem, scale, "nominal").solution
    relaxation = Relaxation(
        model.delivery,
        problem,
        start.taps,
        loss_price=loss_price,
        components=components,  # type: ignore[arg-type]
    )
    solution = relaxation.solve(model.volts_at(start))
    assert relaxation.solved is not None
    return solution.objective_w / feeder.nominal_w, relaxation.solved.eigenvalue_ratio


def test_without_a_price_on_losses_the_relaxation_claims_load_that_cannot_be_carried() -> None:
    claim, ratio = relaxed_claim(0.0)
    assert claim > 0.99
    assert ratio > 0.1
    priced, exact = relaxed_claim(1.5)
    assert priced == pytest.approx(0.67, abs=0.01)
    assert exact < 1e-3
    assert relaxed_claim(3.0)[0] == pytest.approx(priced, abs=1e-4)


def test_symmetrical_components_are_the_same_problem() -> None:
    assert np.allclose(SYMMETRICAL @ np.conj(SYMMETRICAL.T), np.eye(3))
    phase, _ = relaxed_claim(2.0)
    symmetrical, ratio = relaxed_claim(2.0, "symmetrical")
    assert symmetrical == pytest.approx(phase, abs=1e-4)
    assert ratio < 1e-3


def test_two_buses_have_the_closed_form(tmp_path: Path) -> None:
    path = tmp_path / "two.dss"
    path.write_text(TWO_BUS)
    flow = optimal_power_flow(load_feeder(path), objective="cost")
    base_ohm = 12.47e3**2 / 1e6
    p, q, r, x = 4.0, 1.0, 1.2 / base_ohm, 2.0 / base_ohm
    half = 2.0 * (p * r + q * x) - 1.0
    square = (-half + np.sqrt(half**2 - 4.0 * (p * p + q * q) * (r * r + x * x))) / 2.0
    loss = r * (p * p + q * q) / square
    assert flow.formulation == "sdp"
    assert flow.voltages["end"] == pytest.approx([np.sqrt(square)] * 3, abs=1e-6)
    assert flow.loss_w == pytest.approx(loss * 1e6, rel=1e-4)
    assert flow.cost == pytest.approx((p + loss) * 1e6, rel=1e-5)
    assert flow.relaxation_gap < 1e-5


@pytest.mark.parametrize("name", ["ieee13", "ieee37"])
def test_least_cost_flow_serves_all_load_and_is_exact(name: str) -> None:
    feeder = load_feeder(name)
    relaxed = optimal_power_flow(feeder, objective="cost")
    linear = optimal_power_flow(feeder, objective="cost", formulation="linear")
    assert relaxed.formulation == "sdp"
    assert relaxed.served_w == pytest.approx(feeder.nominal_w, rel=1e-6)
    assert relaxed.relaxation_gap < 1e-3
    assert relaxed.max_violation_pu < 1e-5
    assert relaxed.cost is not None
    assert linear.cost is not None
    assert relaxed.cost <= linear.cost * (1.0 + 1e-6)
    # generation is free, so all of it is used
    assert sum(relaxed.set_points.generation_w.values()) == pytest.approx(0.2 * feeder.nominal_w, rel=1e-3)
    dear = optimal_power_flow(feeder, objective="cost", generation_price=2.0)
    assert sum(dear.set_points.generation_w.values()) < 1e-2 * feeder.nominal_w


def test_a_fixed_demand_that_cannot_be_carried_is_refused() -> None:
    with pytest.raises(RefusedInput, match="not all load"):
        optimal_power_flow(load_feeder("ieee34"), objective="cost")


def test_most_load_served_is_the_served_power_at_full_connectivity() -> None:
    feeder = load_feeder("ieee34")
    flow = optimal_power_flow(feeder, objective="served", formulation="linear")
    assert flow.served_w == served_power(feeder, feeder.nodes, feeder.nodes).served_w
    assert flow.source_w + sum(flow.set_points.generation_w.values()) - flow.loss_w > 0.85 * flow.served_w


def test_near_zero_branches_are_merged() -> None:
    network = build_network(load_feeder("ieee13"), {"reg1": 0, "reg2": 0, "reg3": 0})
    assert network.places["692"].bus == network.places["671"].bus
    assert network.places["rg60"].bus == network.places["sourcebus"].bus == 0
    assert network.places["680"].bus == network.places["671"].bus  # nothing hangs on 680
    assert len(network.spans) == 11
    assert build_network(load_feeder("ieee37"), {"reg1a": 0, "reg1c": 0}).delta
