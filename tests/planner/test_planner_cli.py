"""``gridpool plan`` as users call it: its fields, its files, and what it refuses."""

import json
import math

import pytest

from gridpool.cli import main
from gridpool.grid import load_feeder, served_power
from gridpool.radio import METHODS, read_instance, zone_sizes
from gridpool.radio.allocation import Grant
from gridpool.radio.check import violations
from gridpool.radio.weights import betweenness

FIELDS = {
    "value", "bound", "gap", "urllc_granted", "mmtc_granted", "urllc_requested", "mmtc_requested",
    "resource_blocks_used", "zones", "allocation", "served_power_w", "served_share", "score",
}  # fmt: skip
ROW = {"node", "slice", "cell", "zone", "mvno", "slot", "resource_blocks", "rate_bps", "required_bps", "delay_outage"}


@pytest.fixture
def run(capsys):
    def call(*arguments):
        try:
            main(["plan", *map(str, arguments)])
        except SystemExit as stop:
            captured = capsys.readouterr()
            assert captured.out == ""
            return stop.code, captured.err
        return json.loads(capsys.readouterr().out)

    return call


def test_plan_has_every_field_and_adds_up(run, tmp_path):
    file = tmp_path / "instance.json"
    plan = run("--feeder", "ieee13", "--resource-blocks", 20, "--write-instance", file, "--json")
    assert set(plan) >= FIELDS
    assert plan["zones"] == {str(zone): size for zone, size in enumerate(zone_sizes(20))}
    assert (plan["urllc_requested"], plan["mmtc_requested"]) == (5, 13)
    instance = read_instance(file)
    weight = {link.node: link.weight for link in instance.links}
    total = 0.0
    for row in plan["allocation"]:
        assert set(row) == ROW
        alpha = 0.75 if row["slice"] == "urllc" else 0.25
        total += alpha * weight[row["node"]] / sum(weight.values()) * row["rate_bps"] / (180e3 * 20)
        if row["slice"] == "urllc":
            assert row["rate_bps"] >= row["required_bps"]
            assert row["delay_outage"] <= 1e-5
            assert row["delay_outage"] == pytest.approx(math.exp(-(row["rate_bps"] / 2048 - 100) * 0.005))
    assert plan["value"] == pytest.approx(total)
    assert plan["gap"] == pytest.approx(1 - plan["value"] / plan["bound"])
    assert plan["resource_blocks_used"] == sum(len(row["resource_blocks"]) for row in plan["allocation"])
    grants = [Grant(**(row | {"resource_blocks": tuple(row["resource_blocks"])})) for row in plan["allocation"]]
    assert violations(instance, grants) == []


def test_plan_and_served_certify_alike(run, capsys):
    plan = run("--feeder", "ieee13", "--resource-blocks", 10, "--json")
    seen = ",".join(row["node"] for row in plan["allocation"] if row["slice"] == "mmtc")
    steered = ",".join(row["node"] for row in plan["allocation"] if row["slice"] == "urllc") or "none"
    main(["served", "--feeder", "ieee13", "--observed", seen, "--controlled", steered, "--json"])
    served = json.loads(capsys.readouterr().out)
    assert plan["served_power_w"] == pytest.approx(served["served_w"], rel=1e-9)
    assert plan["served_share"] == pytest.approx(served["served_share"], rel=1e-9)
    assert plan["score"] == pytest.approx(served["score"], rel=1e-9)
    assert plan["certified"] == served["certified"]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_deterministic_and_below_its_bound(run, method):
    first, second = (
        run("--feeder", "ieee13", "--resource-blocks", 8, "--method", method, "--seed", 4, "--json") for _ in range(2)
    )
    assert first == second
    assert first["method"] == method
    assert first["value"] <= first["bound"]
    exact = run("--feeder", "ieee13", "--resource-blocks", 8, "--method", "exact", "--seed", 4, "--json")
    assert first["value"] <= exact["value"] * (1 + 1e-9)
    if method in ("milp", "exact", "lagrangian"):
        assert first["value"] == pytest.approx(exact["value"], rel=1e-7)
    if method == "greedy":
        reference = run(
            "--feeder", "ieee13", "--resource-blocks", 8, "--method", "greedy_reference", "--seed", 4, "--json"
        )
        assert first["allocation"] == reference["allocation"]


def test_another_seed_is_another_town(run):
    plans = [run("--feeder", "ieee13", "--resource-blocks", 8, "--seed", seed, "--json") for seed in (1, 2)]
    assert plans[0]["allocation"] != plans[1]["allocation"]


def test_instance_from_file_gives_the_same_plan(run, tmp_path):
    file = tmp_path / "instance.json"
    options = ("--feeder", "ieee13", "--layout", "streets", "--alpha-ratio", 2, "--packet-bits", 1024, "--sigma-db", 4)
    modelled = run(*options, "--resource-blocks", 12, "--write-instance", file, "--json")
    read = run("--feeder", "ieee13", "--resource-blocks", 12, "--instance", file, "--json")
    assert read == modelled
    assert run("--feeder", "ieee13", "--instance", file, "--json") == modelled
    fewer = run("--feeder", "ieee13", "--resource-blocks", 6, "--instance", file, "--json")
    assert sum(fewer["zones"].values()) == 6
    weighed = run("--feeder", "ieee13", "--instance", file, "--beta", "power", "--alpha-ratio", 9, "--json")
    assert weighed["value"] != modelled["value"]


def test_measured_link_changes_the_plan(run, tmp_path):
    file = tmp_path / "instance.json"
    before = run("--feeder", "ieee13", "--resource-blocks", 20, "--write-instance", file, "--json")
    node = before["allocation"][0]["node"]
    data = json.loads(file.read_text())
    for link in data["links"]:
        if link["node"] == node:
            link["uplink_bps"] = link["downlink_bps"] = 0
    file.write_text(json.dumps(data))
    after = run("--feeder", "ieee13", "--instance", file, "--json")
    assert node not in {row["node"] for row in after["allocation"]}


def test_compare_tables_all_methods_and_write_and_report_leave_files(run, tmp_path):
    written, page = tmp_path / "plan.json", tmp_path / "plan.html"
    plan = run(
        "--feeder", "ieee13", "--resource-blocks", 8, "--compare", "--prices", "example",
        "--write", written, "--report", page, "--json",
    )  # fmt: skip
    assert [row["method"] for row in plan["methods"]] == list(METHODS)
    assert json.loads(written.read_text()) == plan
    html = page.read_text()
    assert html.count("<svg") == 2
    assert "http" not in html.replace("http-equiv", "")
    worth = plan["worth"]
    assert set(worth) >= {"value_per_year", "cost_per_year", "baselines", "assumptions"}
    assert set(worth["baselines"]) >= {"none", "plcc", "private_fibre"}
    assert worth["value_per_year"] > 0 < worth["cost_per_year"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plan.html", "plan.json"]


@pytest.mark.parametrize("variant", ["literal", "conditional", "coverage"])
def test_variants(run, variant):
    plan = run(
        "--feeder",
        "ieee13",
        "--resource-blocks",
        60,
        "--variant",
        variant,
        "--packet-bits",
        256,
        "--method",
        "exact",
        "--json",
    )
    assert plan["variant"] == variant
    assert plan["value"] <= plan["bound"]
    if variant == "literal":
        assert plan["urllc_granted"] == plan["urllc_requested"]
        assert plan["resource_blocks_used"] > 18
    if variant == "coverage":
        assert plan["objective_bound"] == plan["objective"]


def test_slots_mvnos_fading_numerology_zones_interference(run):
    base = ("--feeder", "ieee13", "--resource-blocks", 12, "--method", "exact", "--json")
    plain = run(*base)
    slots = run(*base, "--slots", 3)
    assert {row["slot"] for row in slots["allocation"]} == {0, 1, 2}
    assert slots["mmtc_granted"] >= plain["mmtc_granted"]
    shared = run(*base, "--mvno", "city=0.5", "--mvno", "rural=0.5")
    assert {row["mvno"] for row in shared["allocation"]} <= {"city", "rural"}
    assert shared["resource_blocks_used"] <= 12
    assert run(*base, "--fading", "rayleigh")["value"] > 0
    assert run(*base, "--numerology", 1, "--guard-blocks", 1)["value"] <= plain["value"]
    assert run(*base, "--free-zones")["value"] >= plain["value"]
    sharing = ("--feeder", "ieee13", "--resource-blocks", 12, "--urllc-activity", 0.05, "--overflow", 1e-3, "--json")
    assert run(*sharing)["urllc_granted"] >= plain["urllc_granted"]
    assert len(run(*sharing, "--compare")["methods"]) == 5
    street = ("--feeder", "ieee34", "--resource-blocks", 12, "--layout", "streets", "--json")
    quiet = run(*street)
    loud = run(*street, "--interference", "fixed", "--neighbour-load", 1)
    settled = run(*street, "--interference", "fixed_point")
    assert loud["value"] < settled["value"] < quiet["value"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--resource-blocks", 0), "from 1 to 106"),
        (("--resource-blocks", -3), "from 1 to 106"),
        (("--resource-blocks", 107), "at most 106"),
        ((), "--resource-blocks"),
        (("--resource-blocks", 10, "--sigma-db", "nan"), "sigma_db"),
        (("--resource-blocks", 10, "--alpha-ratio", -1), "alpha_ratio"),
        (("--resource-blocks", 10, "--packet-bits", 0), "packet_bits"),
        (("--resource-blocks", 10, "--slots", 0), "slots"),
        (("--resource-blocks", 10, "--seed", -1), "seed"),
        (("--resource-blocks", 10, "--mvno", "half"), "NAME=SHARE"),
        (("--resource-blocks", 10, "--mvno", "a=0.7", "--mvno", "b=0.7"), "shares"),
        (("--resource-blocks", 5, "--variant", "literal"), "infeasible"),
        (("--resource-blocks", 10, "--prices", "/nowhere/prices.toml"), "prices"),
        (("--resource-blocks", 10, "--instance", "/nowhere/instance.json"), "cannot be read"),
        (("--resource-blocks", 10, "--write", "/nowhere/plan.json"), "/nowhere"),
        (("--resource-blocks", 10, "--blind-error", 2), "blind_error"),
        (("--resource-blocks", 10, "--overflow", 0.1), "--urllc-activity"),
        (("--resource-blocks", 10, "--urllc-activity", 0), "activity"),
        (("--resource-blocks", 10, "--urllc-activity", 0.1, "--method", "exact"), "order"),
    ],
)
def test_bad_input_is_one_line_and_exit_one(run, options, message):
    code, line = run("--feeder", "ieee13", *options)
    assert code == 1
    assert message in line
    assert line.count("\n") == 1


def test_unknown_words_are_wrong_usage(run):
    for options in (("--method", "magic"), ("--layout", "moon"), ("--resource-blocks", "many")):
        code, _ = run("--feeder", "ieee13", "--resource-blocks", 10, *options)
        assert code == 2


def test_instance_of_another_feeder_or_with_model_options_is_refused(run, tmp_path):
    file = tmp_path / "instance.json"
    run("--feeder", "ieee34", "--resource-blocks", 10, "--write-instance", file, "--json")
    code, line = run("--feeder", "ieee13", "--instance", file)
    assert code == 1
    assert "no node" in line
    for option, value in (
        ("--resource-blocks", 0),
        ("--resource-blocks", 107),
        ("--alpha-ratio", -1),
        ("--packet-bits", 0),
    ):
        code, line = run("--feeder", "ieee34", "--instance", file, option, value)
        assert code == 1
        assert line.count("\n") == 1
    code, line = run("--feeder", "ieee34", "--instance", file, "--layout", "streets")
    assert code == 1
    assert "--layout" in line


def test_betweenness_of_the_feeders_is_that_of_their_trees():
    import networkx

    for name in ("ieee13", "ieee34", "ieee37", "ieee123"):
        feeder = load_feeder(name)
        index = {node: i for i, node in enumerate(feeder.nodes)}
        parent = [-1] * len(index)
        for above, below in feeder.edges:
            parent[index[below]] = index[above]
        theirs = networkx.betweenness_centrality(networkx.Graph(feeder.edges), normalized=False)
        assert betweenness(parent).tolist() == [theirs[node] for node in feeder.nodes]


def test_more_slices_never_serve_less():
    feeder = load_feeder("ieee13")
    few = served_power(feeder, ["671"], ["650"]).served_w
    more = served_power(feeder, ["671", "675"], ["650", "611"]).served_w
    assert more >= few * (1 - 1e-3)


@pytest.mark.slow
def test_quick_bench_has_its_fields(capsys):
    main(["bench", "planner", "--json"])
    figures = json.loads(capsys.readouterr().out)
    assert set(figures) >= {"nodes", "read_s", "exact_s", "highs_s", "highs_nodes"}
    assert figures["highs_s"] / figures["highs_nodes"] > figures["exact_s"] / figures["nodes"]
