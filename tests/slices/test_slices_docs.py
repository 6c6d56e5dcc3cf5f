"""The documentation of slices says what the code does."""

import json
import re
from pathlib import Path

import pytest

from gridpool.agents.resource_orchestrator import OrchestratorFault, SubSliceOrder
from gridpool.contracts.slices import orders
from gridpool.contracts.slices.awards import MOST_ROUNDS
from gridpool.contracts.slices.offers import MOST_DECIDED, MOST_PER_PARTY
from gridpool.markets.slice_arbitration import OfferBook, arbitrate
from gridpool.markets.slice_arbitration_files import parse_offers, parse_request

DOCS = Path(__file__).parents[2] / "docs"


def block(page, language, number=0):
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.S)[number]


def test_the_tutorials_decision_pays_what_it_says():
    page = "tutorials/slice-for-a-substation.md"
    request = parse_request(block(page, "json").encode(), "tutorial")
    offers = parse_offers(block(page, "text").splitlines(), request, "tutorial")
    answer = arbitrate(request, OfferBook(request.segments, offers), payment="vcg")
    assert answer.payments == {"north": 810_000, "west": 90_000}
    assert not answer.over_budget
    text = (DOCS / page).read_text(encoding="utf-8")
    assert "paid 810,000 for segments that it offered for 660,000" in text
    assert sum(o.cost for o in answer.chosen if o.party == "north") == 660_000
    assert json.loads(block(page, "json"))["budget"] == 1_500_000


def test_the_guides_driver_works():
    names = {"measured_delays_us": lambda name, start, end: [900, 700, 800]}
    exec(compile(block("guides/resource-orchestrator-driver.md", "python"), "guide", "exec"), names)
    driver = names["LabOrchestrator"](1_000)
    order = SubSliceOrder(name="s/0/transport", segment="transport", bandwidth_kbps=600, delay_us=1_000)
    driver.reserve(order)
    with pytest.raises(OrchestratorFault):
        driver.reserve(SubSliceOrder(name="t", segment="transport", bandwidth_kbps=600, delay_us=1_000))
    assert driver.instantiate(order.name)
    measured = driver.metrics(order.name, 0, 60_000, 800)
    assert (measured.kpis.throughput_kbps, measured.kpis.delay_p99_us, len(measured.samples)) == (600, 900, 3)
    driver.terminate(order.name)
    driver.terminate(order.name)
    assert driver.status(order.name).state == "terminated"
    assert driver.left_kbps == 1_000


def test_the_guides_trial_prints_what_it_says(capsys):
    names = {}
    for number in (0, 1):
        exec(compile(block("guides/resource-orchestrator-driver.md", "python", number), "guide", "exec"), names)
    printed = capsys.readouterr().out.splitlines()
    text = block("guides/resource-orchestrator-driver.md", "python", 1)
    assert printed[0] in text
    assert printed[1] in text
    kpis = names["measured"].kpis
    assert (kpis.demand_kbps, kpis.throughput_kbps, kpis.delay_p99_us) == (800, 600, 900)


def test_the_reference_names_every_phase_and_the_limits():
    text = (DOCS / "reference" / "slice-states.md").read_text(encoding="utf-8")
    drawing = (DOCS / "pictures" / "slice-states.svg").read_text(encoding="utf-8")
    for phase in (*orders.Phase.__args__, "degraded"):
        assert phase in text
        assert f">{phase}<" in drawing
    assert f"at most {MOST_ROUNDS} rounds" in text
    assert MOST_PER_PARTY == 4
    assert (
        f"{MOST_DECIDED[3]} offers a segment stand ({MOST_DECIDED[4]} for\nfour segments, {MOST_DECIDED[5]} for five)"
        in text
    )
