"""Path loss, noise, rates, zones and layouts against closed forms."""

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridpool.errors import RefusedInput
from gridpool.radio import RadioProfile, Requirement, model_instance, zone_sizes
from gridpool.radio.cells import lattice, nearest, place, zone_of
from gridpool.radio.propagation import block_rate_bps, gain, noise_w, path_loss_db

STANDARD = RadioProfile()
LINE = list(range(-1, 29))


def names(n):
    return [f"n{i}" for i in range(n)]


def model(seed=1, n=30, **options):
    options = {"resource_blocks": 20, **options}
    return model_instance(
        names(n), LINE[:n], [1e4] * n, [i % 5 == 0 for i in range(n)], rng=np.random.default_rng(seed), **options
    )


def test_path_loss_follows_the_macro_model():
    expected = 40 * (1 - 4e-3 * 15) * math.log10(0.25) - 18 * math.log10(15) + 21 * math.log10(2000) + 80
    assert path_loss_db(250.0, STANDARD) == pytest.approx(expected)
    assert path_loss_db(1.0, STANDARD) == path_loss_db(10.0, STANDARD)


def test_noise_is_thermal_plus_the_noise_figure():
    assert 10 * math.log10(noise_w(9.0) * 1e3) == pytest.approx(-174 + 10 * math.log10(180e3) + 9)


def test_rate_is_shannons():
    snr = 1.0 * gain(100.0) / noise_w(5.0)
    assert block_rate_bps(gain(100.0), STANDARD, noise_figure_db=5.0) == pytest.approx(180e3 * math.log2(1 + snr))


def test_power_allows_twenty_urllc_blocks():
    assert STANDARD.urllc_blocks == 20


def test_requirement_keeps_the_delay_outage():
    need = Requirement()
    assert need.required_bps == math.ceil(2048 * (100 + math.log(1e5) / 0.005))
    assert need.delay_outage(need.required_bps) <= 1e-5
    assert need.delay_outage(need.required_bps - 2) > 1e-5
    assert need.delay_outage(0) == 1.0


@given(st.integers(1, 106))
def test_zone_split_is_by_largest_remainder(blocks):
    sizes = zone_sizes(blocks)
    assert sum(sizes) == blocks
    assert abs(sizes[0] - blocks * 6 / 9) < 1
    assert all(abs(size - blocks / 9) < 1 for size in sizes[1:])
    assert sizes[1] >= sizes[2] >= sizes[3]


def test_known_splits():
    assert zone_sizes(20) == (14, 2, 2, 2)
    assert zone_sizes(5) == (3, 1, 1, 0)
    assert zone_sizes(106) == (70, 12, 12, 12)


def test_zones_are_inner_by_loss_and_outer_by_bearing():
    at = np.array([[100.0, 0.0], [0.0, 249.0], [-249.0, -1.0], [200.0, -100.0]])
    loss = path_loss_db(np.hypot(at[:, 0], at[:, 1]), STANDARD)
    assert zone_of(at, loss, STANDARD).tolist() == [0, 1, 2, 3]
    assert zone_of(at[:1], loss[:1] + 40.0, STANDARD).tolist() == [1]


def test_towns_have_one_node_a_block_and_neighbours_near():
    for seed in range(5):
        town, sites = place(LINE, "streets", STANDARD, np.random.default_rng(seed))
        assert len({tuple(spot) for spot in town.tolist()}) == len(LINE)
        assert (np.mod(town, (100.0, 200.0)) == 0).all()
        assert np.hypot(*(town - sites[nearest(town, sites)]).T).max() <= 250.0 + 1e-6


def test_one_cell_holds_the_whole_town():
    town, sites = place(LINE, "onecell", STANDARD, np.random.default_rng(1))
    assert len(sites) == 1
    assert np.hypot(*town.T).max() == pytest.approx(250.0)
    single, _ = place([-1], "onecell", STANDARD, np.random.default_rng(1))
    assert single.tolist() == [[0.0, 0.0]]


def test_lattice_covers_the_plane():
    points = np.random.default_rng(3).uniform(-2000, 2000, (500, 2))
    sites = lattice(points, 250.0)
    assert np.hypot(*(points - sites[nearest(points, sites)]).T).max() <= 250.0 + 1e-6


def test_same_seed_same_instance_and_other_seed_another():
    assert msgspec.json.encode(model(3)) == msgspec.json.encode(model(3))
    assert model(3) != model(4)


def test_places_and_shadows_do_not_depend_on_the_number_of_blocks():
    def rates(blocks):
        return [(link.downlink_bps, link.zone) for link in model(2, resource_blocks=blocks).links]

    assert rates(5) == rates(50)


def test_shadowing_as_published_is_a_tenth():
    spread = {
        published: np.std(
            [
                math.log10(max(link.downlink_bps, 1))
                for link in model(1, profile=RadioProfile(sigma_db=10.0, as_published=published)).links
            ]
        )
        for published in (False, True)
    }
    assert spread[True] < spread[False]


def test_interference_lowers_rates_and_its_fixed_point_agrees_with_itself():
    def mean(**options):
        links = model(1, layout="streets", **options).links
        return np.mean([link.downlink_bps for link in links]), np.mean([link.uplink_bps for link in links])

    silent, half, full = (mean(interference="fixed", neighbour_load=load) for load in (0.0, 0.5, 1.0))
    assert silent == mean()
    assert silent[0] > half[0] > full[0]
    assert silent[1] > half[1] > full[1]
    settled = model(1, layout="streets", interference="fixed_point")
    between = np.mean([link.downlink_bps for link in settled.links])
    assert full[0] <= between <= silent[0]
    if settled.interference.converged:
        from gridpool.radio import allocate
        from gridpool.radio.interference import zone_loads

        again = zone_loads(settled, allocate(settled))
        assert np.abs(again - np.array(settled.interference.loads)).max() < 2e-3


@pytest.mark.parametrize(
    "options",
    [
        {"resource_blocks": 0},
        {"resource_blocks": 107},
        {"profile": RadioProfile(sigma_db=-1.0)},
        {"profile": RadioProfile(sigma_db=math.nan)},
        {"requirement": Requirement(packet_bits=0)},
        {"slots": 0},
        {"alpha_ratio": -1.0},
        {"alpha_ratio": math.inf},
        {"neighbour_load": 1.5, "interference": "fixed"},
    ],
)
def test_impossible_parameters_are_refused(options):
    with pytest.raises(RefusedInput):
        model(1, **options)


def test_full_load_of_the_neighbours_costs_an_inner_node_most_of_its_rate():
    """3.09 to 0.85 Mbit/s a block, the mean over an inner zone without shadowing, under all neighbours at full load."""
    rng = np.random.default_rng(1)
    radius, bearing = 250 * 2 / 3 * np.sqrt(rng.random(20_000)), rng.random(20_000) * 2 * np.pi
    nodes = np.column_stack([radius * np.cos(bearing), radius * np.sin(bearing)])
    step = math.sqrt(3) * 250
    sites = np.array([((c + 0.5 * (r % 2)) * step, r * 375.0) for r in range(-4, 5) for c in range(-4, 5)])
    gains = gain(path_loss_db(np.hypot(*(nodes[:, None] - sites[None]).transpose(2, 0, 1)), STANDARD))
    own = int(np.argmin((sites**2).sum(axis=1)))
    heard = gains.sum(axis=1) - gains[:, own]
    alone = block_rate_bps(gains[:, own], STANDARD, noise_figure_db=9.0).mean()
    loud = block_rate_bps(gains[:, own], STANDARD, noise_figure_db=9.0, interference_w=heard).mean()
    assert alone == pytest.approx(3.09e6, rel=0.01)
    assert loud == pytest.approx(0.85e6, rel=0.02)
