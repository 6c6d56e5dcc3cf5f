"""Reports, verdicts and disputes: intervals are judged by what was said, shown and measured, or by who was silent."""

import pytest
from slice_market import (
    BAD,
    COINS,
    GOOD,
    MINUTE,
    NORTH,
    OUTSIDER,
    PROBE,
    SOUTH,
    START,
    TENANT,
    digest,
    phases,
)

from gridpool.contracts.slices.samples import sample_leaf, sample_path, sample_root
from gridpool.contracts.slices.statements import violated_intervals
from gridpool.contracts.slices.supervision import (
    DISPUTES,
    VERDICTS,
    DemandSample,
    IntervalReport,
    Measure,
    ProveSample,
    ReportIntervals,
)
from gridpool.contracts.slices.terms import Kpis, PenaltyStep, Terms


def test_violations_are_graded_paid_back_and_capped(market):
    terms = Terms(steps=(PenaltyStep(10_000, 500_000), PenaltyStep(500_000, 1_000_000)), cap_ppm=400_000)
    market.order(segments=("ran",), terms=terms)
    market.offer_all(prices=(("north", 500),))
    market.serve()
    market.report(0, party=Kpis(4_000, 3_600, 900, 0, 10**6), tenant=Kpis(4_000, 3_600, 900, 0, 10**6))
    assert market.get(VERDICTS, ("s", 0, "ran", 0)).penalty == 50
    assert market.sub("ran").degraded
    market.report(1, party=BAD, tenant=BAD)
    assert market.get(VERDICTS, ("s", 0, "ran", 1)).penalty == 100
    market.report(2, party=BAD, tenant=BAD)
    assert market.get(VERDICTS, ("s", 0, "ran", 2)).penalty == 50
    market.report(3)
    assert not market.sub("ran").degraded
    market.report(4)
    money = market.progress().money
    assert (money.paid, money.penalties) == (300, 200)
    assert violated_intervals(market.state) == 3


def test_degraded_and_back_to_active_is_announced(market):
    market.order(segments=("ran",))
    market.offer_all()
    market.serve()
    assert phases(market.report(0, party=BAD, tenant=BAD)) == ["degraded"]
    assert phases(market.report(1)) == ["active"]


@pytest.mark.parametrize(
    ("party", "tenant", "basis", "paid", "penalty"),
    [
        (GOOD, None, "tenant_silent", 20, 0),
        (None, GOOD, "party_silent", 20, 0),
        (None, BAD, "party_silent", 0, 20),
        (None, None, "both_silent", 0, 0),
    ],
)
def test_an_unreported_interval_is_judged_by_who_spoke(market, party, tenant, basis, paid, penalty):
    market.order(segments=("ran",))
    market.offer_all(prices=(("north", 100),))
    market.serve()
    market.report(0, party=party, tenant=tenant)
    market.advance(START + 3 * MINUTE)
    verdict = market.get(VERDICTS, ("s", 0, "ran", 0))
    assert (verdict.basis, verdict.paid, verdict.penalty) == (basis, paid, penalty)


def test_nobody_ever_reports_and_the_slice_still_settles(market):
    market.order()
    market.offer_all()
    market.serve()
    market.advance(START + 30 * MINUTE)
    assert market.progress().phase == "settled"
    assert market.coins(TENANT) == market.coins(NORTH) == COINS


def test_measurements_within_the_tolerance_are_averaged(market):
    market.order(segments=("ran",))
    market.offer_all(prices=(("north", 100),))
    market.serve()
    market.report(0, party=Kpis(4_000, 4_000, 900, 10, 10**6), tenant=Kpis(4_000, 3_920, 914, 31, 10**6))
    verdict = market.get(VERDICTS, ("s", 0, "ran", 0))
    assert (verdict.basis, verdict.kpis) == ("agreed", Kpis(4_000, 3_960, 907, 20, 10**6))
    market.report(1, party=GOOD, tenant=Kpis(4_000, 3_919, 900, 0, 10**6))
    assert market.get(DISPUTES, ("s", 0, "ran", 1)) is not None


def test_a_slice_that_waits_for_its_last_verdict_may_be_ordered_again(market):
    disputed(market, end=START + MINUTE)
    market.order(
        segments=("ran",),
        start=START + 30 * MINUTE,
        end=START + 35 * MINUTE,
        schedule={"offers_until": START + 20 * MINUTE},
    )
    assert [market.progress(generation=number).phase for number in (0, 1)] == ["ended", "published"]
    market.expect(PROBE, Measure("s", 0, IntervalReport("ran", 0, BAD, digest("probe"), 1)))
    assert [market.progress(generation=number).phase for number in (0, 1)] == ["settled", "published"]


def disputed(market, **changes):
    market.order(segments=("ran",), **changes)
    market.offer_all(prices=(("north", 100),))
    market.serve()
    market.report(0, party=GOOD, tenant=BAD)
    assert market.get(DISPUTES, ("s", 0, "ran", 0)) is not None


def test_the_median_of_three_decides_a_dispute(market):
    disputed(market)
    for kpis, key, code in ((GOOD, NORTH, "role_missing"), (GOOD, PROBE, "ok"), (GOOD, PROBE, "no_dispute")):
        report = IntervalReport("ran", 0, kpis, digest("probe"), 1)
        assert market.submit(key, Measure("s", 0, report)).code == code
    verdict = market.get(VERDICTS, ("s", 0, "ran", 0))
    assert (verdict.basis, verdict.paid, verdict.kpis) == ("median", 20, GOOD)


def test_an_undecided_dispute_halves_the_price(market):
    disputed(market)
    market.advance(market.get(DISPUTES, ("s", 0, "ran", 0)).until)
    verdict = market.get(VERDICTS, ("s", 0, "ran", 0))
    assert (verdict.basis, verdict.paid, verdict.penalty, verdict.severity) == ("undecided", 10, 0, 0)


def test_a_dispute_may_outlive_the_service(market):
    disputed(market, end=START + MINUTE)
    market.advance(START + 2 * MINUTE)
    assert market.progress().phase == "ended"
    market.advance(START + 20 * MINUTE)
    assert market.progress().phase == "settled"


@pytest.mark.parametrize("answers", [True, False])
def test_a_demanded_sample_is_proved_or_the_interval_is_lost(market, answers):
    market.order(segments=("ran",))
    market.offer_all(prices=(("north", 100),))
    market.serve()
    market.advance(START + MINUTE)
    samples = [f"sample {n}".encode() for n in range(5)]
    leaves = [sample_leaf("s", 0, "ran", 0, n, sample) for n, sample in enumerate(samples)]
    market.expect(NORTH, ReportIntervals("s", 0, (IntervalReport("ran", 0, GOOD, sample_root(leaves), 5),)))
    market.expect(TENANT, ReportIntervals("s", 0, (IntervalReport("ran", 0, BAD, digest("t"), 3),)))
    assert market.submit(OUTSIDER, DemandSample("s", 0, "ran", 0, "party", 4)).code == "not_the_other_side"
    assert market.submit(NORTH, DemandSample("s", 0, "ran", 0, "party", 4)).code == "not_the_other_side"
    assert market.submit(TENANT, DemandSample("s", 0, "ran", 0, "party", 5)).code == "no_such_sample"
    market.expect(TENANT, DemandSample("s", 0, "ran", 0, "party", 4))
    if answers:
        for index in range(5):
            proof = ProveSample("s", 0, "ran", 0, index, samples[index], sample_path(leaves, index))
            assert market.submit(NORTH, proof).code == ("ok" if index == 4 else "not_demanded")
        market.expect(NORTH, DemandSample("s", 0, "ran", 0, "tenant", 2))
    else:
        wrong = ProveSample("s", 0, "ran", 0, 4, samples[3], sample_path(leaves, 3))
        assert market.submit(NORTH, wrong).code == "wrong_sample"
    market.advance(market.get(DISPUTES, ("s", 0, "ran", 0)).until)
    verdict = market.get(VERDICTS, ("s", 0, "ran", 0))
    assert verdict.basis == "sample"
    assert verdict.kpis == (GOOD if answers else BAD)


def test_a_dispute_in_which_neither_side_proves_a_sample_is_undecided(market):
    disputed(market)
    market.expect(TENANT, DemandSample("s", 0, "ran", 0, "party", 0))
    market.expect(NORTH, DemandSample("s", 0, "ran", 0, "tenant", 0))
    market.advance(market.get(DISPUTES, ("s", 0, "ran", 0)).until)
    verdict = market.get(VERDICTS, ("s", 0, "ran", 0))
    assert (verdict.basis, verdict.paid, verdict.penalty) == ("undecided", 10, 0)


def test_demands_come_in_the_first_half_and_are_few(market):
    disputed(market)
    for index in range(4):
        market.expect(TENANT, DemandSample("s", 0, "ran", 0, "party", index))
    assert market.submit(TENANT, DemandSample("s", 0, "ran", 0, "party", 4)).code == "enough_demands"
    market.advance(market.get(DISPUTES, ("s", 0, "ran", 0)).until - 5 * MINUTE)
    assert market.submit(NORTH, DemandSample("s", 0, "ran", 0, "tenant", 0)).code == "too_late"


def test_reports_come_from_the_sides_in_their_window(market):
    market.order(segments=("ran",))
    market.offer_all(prices=(("north", 100),))
    market.serve()
    one = IntervalReport("ran", 0, GOOD, digest("x"), 1)
    assert market.submit(NORTH, ReportIntervals("s", 0, (one,))).code == "not_the_reporting_window"
    market.advance(START + MINUTE)
    assert market.submit(SOUTH, ReportIntervals("s", 0, (one,))).code == "not_a_side"
    market.expect(NORTH, ReportIntervals("s", 0, (one,)))
    assert market.submit(NORTH, ReportIntervals("s", 0, (one,))).code == "already_reported"
