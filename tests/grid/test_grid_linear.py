"""LinDist3Flow against derivatives of the replay, and the delivery programme against an outside solver."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import linprog, minimize_scalar

from gridpool.grid import load_feeder, served_power
from gridpool.grid.linear import build_linear_model
from gridpool.grid.replay import Replay
from gridpool.grid.served import served_model

NAMES = ("ieee13", "ieee34", "ieee37", "ieee123")

TWO_BUS = """
New Circuit.two basekv=12.47 pu=1.0 phases=3 bus1=src R1=0 X1=1e-6 R0=0 X0=1e-6
New Line.a bus1=src bus2=end phases=3 r1={r} x1={x} r0={r} x0={x} c1=0 c0=0 length=1 units=km
New Load.x bus1=end phases=3 conn=wye model=1 kv=12.47 kw={kw} kvar={kvar}
Set Voltagebases=[12.47]
Calcv
"""


@pytest.mark.parametrize("name", NAMES)
def test_sensitivities_are_derivatives_of_the_power_flow_at_no_load(name: str) -> None:
    feeder = load_feeder(name)
    terminals = [(item.bus, item.phases) for item in feeder.loads]
    model = build_linear_model(feeder, terminals)
    replay = Replay(feeder)
    constant_power = np.array([k for k, item in enumerate(feeder.loads) if item.model == 1])
    zero = np.zeros(len(feeder.loads))
    replay.set_taps(dict.fromkeys(replay.tap_names, 0))
    replay.set_powers(zero, zero)
    base = replay.solve() ** 2
    rng = np.random.default_rng(3)
    for k in rng.choice(constant_power, size=6, replace=False):
        step = zero.copy()
        step[k] = 2e3
        for columns, powers in ((model.real_full, (step, zero)), (model.reactive_full, (zero, step))):
            replay.set_powers(*powers)
            slope = (replay.solve() ** 2 - base) / 2e3
            below = ~model.upstream_of_limits
            assert np.abs(columns[:, k] - slope)[below].max() < 0.01 * np.abs(slope).max()


@pytest.mark.parametrize("name", NAMES)
def test_voltages_without_load_are_those_of_the_replay(name: str) -> None:
    feeder = load_feeder(name)
    model = served_model(feeder)
    rest = model.delivery.at_rest()
    voltages = model.default_voltages(np.zeros(len(feeder.loads)))
    problem = model.delivery.problem(frozenset(), frozenset(), np.zeros(len(feeder.loads)), frozenset())
    predicted = model.delivery.rows @ problem.solve().columns + model.linear.constant
    assert set(rest.taps.values()) == {0}
    assert np.abs(predicted - voltages**2).max() < 0.012  # charging at 1.05 instead of 1 p.u. on the 34


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("seen", "steered"), [(0.0, 1.0), (0.5, 0.5), (1.0, 0.0)])
def test_programme_has_the_optimum_of_an_outside_solver(name: str, seen: float, steered: float) -> None:
    feeder = load_feeder(name)
    model = served_model(feeder)
    nodes = feeder.nodes
    problem = model.delivery.problem(
        frozenset(nodes[: int(seen * len(nodes))]),
        frozenset(nodes[: int(steered * len(nodes))]),
        np.ones(len(feeder.loads)),
        frozenset(),
    )
    ours = problem.solve()
    lp = problem.exported()
    finite_low, finite_high = np.isfinite(lp.row_lower), np.isfinite(lp.row_upper)
    outside = linprog(
        -lp.cost,
        A_ub=np.concatenate([-lp.matrix[finite_low], lp.matrix[finite_high]]),
        b_ub=np.concatenate([-lp.row_lower[finite_low], lp.row_upper[finite_high]]),
        bounds=np.stack([lp.column_lower, lp.column_upper], axis=1),
        method="highs-ipm",
    )
    assert outside.status == 0
    assert ours.objective_w / 1e6 == pytest.approx(-outside.fun, rel=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_programme_is_exactly_monotone_under_nested_links(name: str) -> None:
    feeder = load_feeder(name)
    model = served_model(feeder)
    rng = np.random.default_rng(11)
    ones = np.ones(len(feeder.loads))
    for _ in range(6):
        order, devices = rng.permutation(feeder.nodes), rng.permutation(feeder.device_nodes())
        values = []
        for share in (0.0, 0.3, 0.6, 1.0):
            m = frozenset(order[: int(share * len(order))].tolist())
            u = frozenset(devices[: int(share * len(devices))].tolist())
            values.append(model.delivery.problem(m, u, ones, frozenset()).solve().objective_w)
        assert all(b >= a - 1e-3 for a, b in pairwise(values))


@pytest.mark.parametrize("blind", [0.0, 0.5])
def test_two_buses_have_the_closed_form(tmp_path: Path, blind: float) -> None:
    """One balanced load P + jQ behind r + jx: |V2|^2 solves W^2 + (2(Pr + Qx) - 1) W + (P^2 + Q^2)|z|^2 = 0."""
    r, x, kw, kvar = 1.2, 2.0, 9000.0, 3000.0
    path = tmp_path / "two.dss"
    path.write_text(TWO_BUS.format(r=r, x=x, kw=kw, kvar=kvar))
    feeder = load_feeder(path)
    base_ohm = 12.47e3**2 / 9e6

    def voltage(part: float) -> float:
        p, q = part, part * kvar / kw
        a, b = r / base_ohm, x / base_ohm
        half = 2.0 * (p * a + q * b) - 1.0
        return float(np.sqrt((-half + np.sqrt(half**2 - 4.0 * (p * p + q * q) * (a * a + b * b))) / 2.0))

    most = minimize_scalar(lambda y: abs(voltage(y * (1.0 + blind)) - 0.95), bounds=(0.0, 1.0), method="bounded").x
    observed = feeder.nodes if blind == 0.0 else ()
    result = served_power(feeder, observed, (), blind_error=blind or 0.5)
    assert result.served_share == pytest.approx(most, abs=2e-4)
