"""A plan's worth recomputed by hand, price files that are refused, and the rows for a ledger."""

import pytest

from gridpool.errors import RefusedInput
from gridpool.grid import load_feeder, served_power
from gridpool.planner import assignment_rows, feeder_tree, link_rows, network_row, plan
from gridpool.planner.worth import Price, Prices, plan_worth, read_prices


def price(value):
    return Price(value=value, source="test")


@pytest.fixture(scope="module")
def feeder():
    return load_feeder("ieee13")


@pytest.fixture(scope="module")
def done(feeder):
    return plan(feeder, resource_blocks=12)


def test_worth_is_saved_load_less_fees_and_annuities(feeder, done):
    prices = Prices(
        currency="EUR",
        lost_load_per_kwh=price(10.0),
        stressed_hours_per_year=price(100.0),
        outage_share_of_hours=price(0.0),
        failed_share=price(0.05),
        mmtc_per_month=price(1.0),
        urllc_per_month=price(5.0),
        slice_terminal=price(200.0),
        plcc_terminal=price(100.0),
        fibre_per_m=price(20.0),
        fibre_terminal=price(300.0),
        upkeep_share_per_year=price(0.0),
        lifetime_years=price(10.0),
        discount_rate=price(0.0),
    )
    worth = plan_worth(feeder, done, prices)
    blind = served_power(feeder, (), ()).served_w
    assert worth.value_per_year == pytest.approx((done.served_power_w - blind) / 1e3 * 100 * 10)
    nodes = len(set(done.observed) | set(done.controlled))
    fees = 12 * (done.allocation.mmtc_granted + 5 * done.allocation.urllc_granted)
    assert worth.cost_per_year == pytest.approx(fees + nodes * 200 / 10)
    assert worth.baselines["none"].value_per_year == 0.0
    assert worth.baselines["plcc"].cost_per_year == pytest.approx(13 * 100 / 10)
    length = sum(line.length_m for branch in feeder.branches for line in branch.lines)
    assert worth.baselines["private_fibre"].cost_per_year == pytest.approx((13 * 300 + length * 20) / 10)
    assert len([note for note in worth.assumptions if "test" in note]) == 13


def test_example_prices_name_a_source_for_each_figure(tmp_path):
    from pathlib import Path

    prices = read_prices(Path("example"))
    for key in prices.__struct_fields__[1:]:
        assert len(getattr(prices, key).source) > 20, key


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("[lost_load_per_kwh]", "[lost_lode_per_kwh]"),
        ("value = 35.685", "value = -1.0"),
        ("value = 35.685", 'value = "much"'),
        ("value = 35.685", "value = inf"),
        ("value = 0.07", "value = 7.0"),
        ("value = 15.0", "value = 0.0"),
        ("value = 50.0", "value = 9000.0"),
        ('currency = "USD"', "currency = "),
    ],
)
def test_price_files_that_do_not_fit_are_refused(tmp_path, old, new):
    from importlib.resources import files

    text = (files("gridpool.planner") / "data" / "prices_example.toml").read_text()
    assert old in text
    path = tmp_path / "prices.toml"
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(RefusedInput, match=r"prices\.toml"):
        read_prices(path)


def test_rows_for_a_ledger_are_integers_that_bear_the_claims_out(done):
    network = network_row(done.instance)
    links = {row.node: row for row in link_rows(done.instance)}
    assert network.zones == tuple(done.instance.zones)
    assert network.shares == (("utility", 12),)
    taken = set()
    for row in assignment_rows(done.allocation):
        link = links[row.node]
        rates = link.downlink_bps if row.slice == "urllc" else link.uplink_bps
        assert all(type(x) is int for x in (*rates, *row.blocks, row.rate_bps, row.cell, row.zone, row.slot))
        assert (row.cell, row.zone, row.mvno) == (link.cell, link.zone, link.mvno)
        assert row.rate_bps == rates[0] * len(row.blocks)
        assert row.rate_bps >= (network.urllc_bps if row.slice == "urllc" else network.mmtc_bps)
        assert not taken & set(row.blocks)
        taken |= set(row.blocks)


def test_generators_count_as_power_of_their_node(feeder):
    with_dg, without = feeder_tree(feeder, dg_share=0.2), feeder_tree(feeder, dg_share=0.0)
    at = feeder.nodes.index("684")
    assert with_dg.power_w[at] - without.power_w[at] == pytest.approx(0.2 * feeder.nominal_w)
    assert sum(without.power_w) == pytest.approx(feeder.nominal_w)
