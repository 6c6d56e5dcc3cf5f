"""Every transition of the state machine, and every default when nobody acts in time."""

import pytest
from msgspec.structs import replace
from slice_market import (
    AMOUNTS,
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
    UTILITY,
    WEST,
    Market,
    digest,
    offer_call,
    phases,
    request,
)

from gridpool.contracts.members import Rekey
from gridpool.contracts.slices.assignments import AssignmentItem, RecordAssignment, ReleaseAssignment
from gridpool.contracts.slices.awards import PostChoice
from gridpool.contracts.slices.changes import (
    AcceptExtension,
    BuySlice,
    EndForBreach,
    ExtendSlice,
    ReleaseSlice,
    SellSlice,
)
from gridpool.contracts.slices.deployment import ConfirmDeployment, ConfirmReservation
from gridpool.contracts.slices.networks import AttestLinks, LinkStatement, MvnoShare, RegisterLinks, RegisterNetwork
from gridpool.contracts.slices.offers import (
    OFFERS,
    AcceptTerms,
    CancelOrder,
    CommitOffer,
    RevealOffer,
    WithdrawOffer,
    commitment,
)
from gridpool.contracts.slices.orders import NodeSlice, OrderSlice, Requirement
from gridpool.contracts.slices.pools import Amount, RegisterPool, SetCapacity
from gridpool.contracts.slices.samples import sample_leaf, sample_path, sample_root
from gridpool.contracts.slices.statements import statement, violated_intervals
from gridpool.contracts.slices.supervision import (
    DISPUTES,
    VERDICTS,
    DemandSample,
    IntervalReport,
    Measure,
    ProveSample,
    ReportIntervals,
)
from gridpool.contracts.slices.templates import ServiceProfile
from gridpool.contracts.slices.terms import Kpis, PenaltyStep, Terms
from gridpool.ledger.keys import KeyPair


@pytest.fixture
def market():
    return Market()


def test_a_slice_is_ordered_awarded_deployed_served_and_settled(market):
    market.order()
    assert market.coins(TENANT) == COINS - 1_000
    market.offer_all()
    assert market.coins(NORTH) == COINS - 100
    market.decide()
    assert market.progress().phase == "awarded"
    assert market.party("ran") == NORTH
    market.reserve()
    assert market.progress().phase == "deploying"
    market.deploy()
    assert market.progress().phase == "active"
    assert market.coins(SOUTH) == COINS
    assert market.coins(TENANT) == COINS - 200
    for interval in range(5):
        assert all(receipt.ok for receipt in market.report(interval))
        held = 100 if interval < 4 else 0
        assert market.coins(NORTH) == COINS - held + 2 * (100 * (interval + 1) // 5)
    progress = market.progress()
    assert progress.phase == "settled"
    assert progress.money.left == 0
    assert market.coins(NORTH) == COINS + 200
    assert market.coins(TENANT) == COINS - 200


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


def test_published_is_cancelled_by_its_tenant_until_offers_close(market):
    market.order()
    market.offer_all()
    assert market.submit(UTILITY, CancelOrder("s")).code == "not_the_tenant"
    market.expect(TENANT, CancelOrder("s"))
    assert market.progress().phase == "cancelled"
    assert [market.coins(key) for key in (TENANT, NORTH, SOUTH)] == [COINS] * 3
    market.order()
    market.offer_all()
    market.decide()
    assert market.submit(TENANT, CancelOrder("s")).code == "too_late"


def test_a_cancelled_sealed_order_returns_its_sealed_deposits(market):
    market.order(schedule={"reveal_ms": MINUTE})
    market.expect(NORTH, CommitOffer("s", "ran", "o", digest("o")))
    market.expect(TENANT, CancelOrder("s"))
    assert market.coins(NORTH) == market.coins(TENANT) == COINS


@pytest.mark.parametrize("changes", [{"schedule": {"reveal_ms": MINUTE}}, {"decision": "posted", "bond": 30}])
def test_once_offers_are_closed_nothing_is_cancelled(market, changes):
    timing = {"post_ms": 5 * MINUTE, "challenge_ms": 3 * MINUTE}
    market.order(**(changes | {"schedule": timing | changes.get("schedule", {})}))
    market.advance(20 * MINUTE)
    assert market.progress().phase == "published"
    assert market.submit(TENANT, CancelOrder("s")).code == "too_late"


def test_published_expires_without_a_feasible_choice(market):
    market.order()
    market.offer("north", "ran", 100)
    market.decide()
    assert market.progress().phase == "expired"
    assert market.coins(TENANT) == market.coins(NORTH) == COINS


def test_published_expires_when_the_budget_cannot_pay_vcg(market):
    market.order(payment="vcg", budget=250)
    assert market.coins(TENANT) == COINS - 250
    market.offer_all(prices=(("north", 100), ("south", 200)))
    market.decide()
    assert market.progress().phase == "expired"
    assert [market.coins(key) for key in (TENANT, NORTH, SOUTH)] == [COINS] * 3


def test_vcg_falls_back_to_offered_prices_where_the_tenant_allowed_it(market):
    market.order(payment="vcg", budget=250, fall_back=True)
    market.offer_all(prices=(("north", 100), ("south", 200)))
    market.serve()
    assert sum(market.sub(s).payment for s in ("ran", "core")) == 200


def test_vcg_pays_the_winner_what_it_saves(market):
    market.order(payment="vcg")
    market.offer_all(prices=(("north", 100), ("south", 200)))
    market.serve()
    assert sum(market.sub(s).payment for s in ("ran", "core")) == 400


def test_awarded_and_silent_forfeits_and_the_next_best_is_taken(market):
    market.order()
    market.offer("north", "ran", 100)
    market.offer("south", "ran", 110)
    market.offer("west", "core", 100)
    market.decide()
    market.reserve(skip=("ran",))
    market.advance(market.progress().deadline)
    assert market.progress().phase == "awarded"
    assert (market.party("ran"), market.party("core")) == (SOUTH, WEST)
    assert market.coins(NORTH) == COINS - 50
    assert market.coins(TENANT) == COINS - 1_000 + 50
    assert not market.sub("core").confirmed
    assert market.submit(NORTH, ConfirmReservation("s", "ran")).code == "not_the_party"
    market.expect(NORTH, SetCapacity("north-ran", market.now, (Amount("resource_blocks", 0),)))  # promised to nobody
    held = SetCapacity("south-ran", market.now, (Amount("resource_blocks", 0),))
    assert market.submit(SOUTH, held).code == "already_promised"


def test_deploying_and_late_forfeits_releases_the_others_and_retries(market):
    market.order()
    market.offer_all()
    market.decide()
    market.reserve()
    market.deploy(skip=("core",))
    market.advance(market.progress().deadline)
    assert (market.party("ran"), market.party("core")) == (NORTH, SOUTH)
    assert not market.sub("ran").deployed
    market.reserve()
    market.deploy()
    for interval in range(5):
        market.report(interval)
    assert market.progress().phase == "settled"
    assert market.coins(NORTH) == COINS + 100 - 50


def test_when_nobody_is_left_the_order_fails_and_everything_returns(market):
    market.order()
    market.offer_all(prices=(("north", 100),))
    market.decide()
    market.advance(market.progress().deadline)
    assert market.progress().phase == "failed"
    assert market.coins(NORTH) == COINS - 100
    assert market.coins(TENANT) == COINS + 100


def test_who_does_not_deploy_and_leaves_nobody_fails_the_order(market):
    market.order()
    market.offer("north", "ran", 100)
    market.offer("south", "core", 100)
    market.decide()
    market.reserve()
    market.deploy(skip=("core",))
    market.advance(market.progress().deadline)
    assert market.progress().phase == "failed"
    assert [market.coins(key) for key in (TENANT, NORTH, SOUTH)] == [COINS + 50, COINS, COINS - 50]


def test_rounds_are_bounded(market):
    market.order(segments=("ran",), end=START + 60 * MINUTE)
    for who in ("north", "south"):
        for number in range(3):
            market.offer(who, "ran", 100 + number, offer=f"{who}{number}", pool=f"{who}-ran")
    market.decide()
    rounds = 0
    while market.progress().phase == "awarded":
        market.advance(market.progress().deadline)
        rounds += 1
    assert market.progress().phase == "failed"
    assert rounds == 4


def test_no_award_when_no_time_is_left_to_deploy(market):
    market.order(schedule={"offers_until": START, "confirm_ms": 4 * MINUTE, "deploy_ms": 2 * MINUTE})
    market.offer_all()
    market.decide()
    assert market.progress().phase == "expired"


def test_late_deployment_is_paid_from_the_next_whole_interval(market):
    quick = {"offers_until": START, "confirm_ms": 2 * MINUTE, "deploy_ms": 2 * MINUTE}
    market.order(segments=("ran",), schedule=quick)
    market.offer_all(prices=(("north", 100),))
    market.decide()
    market.advance(START + MINUTE)
    market.reserve()
    market.advance(START + 2 * MINUTE + 1)
    market.deploy()
    assert market.progress().active_from == 3
    assert market.report(2)[0].code == "not_served"
    market.report(3)
    market.report(4)
    assert market.progress().phase == "settled"
    assert market.progress().money.paid == 40


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


def test_active_becomes_ended_and_waits_for_its_last_verdict(market):
    market.order(segments=("ran",))
    market.offer_all()
    market.serve()
    for interval in range(4):
        market.report(interval)
    market.advance(START + 5 * MINUTE)
    assert market.progress().phase == "ended"
    market.report(4)
    assert market.progress().phase == "settled"


def test_degraded_becomes_ended_by_its_window_or_by_notice(market):
    for name, notice in (("window", None), ("notice", MINUTE)):
        market.order(name, segments=("ran",), terms=Terms(notice_ms=MINUTE))
        market.offer("north" if notice else "south", "ran", 100, name)
    for name in ("window", "notice"):
        market.serve(name)
    for interval in range(5):
        for name in ("window", "notice"):
            if market.progress(name).phase != "settled":
                market.report(interval, party=BAD, tenant=BAD, name=name)
        if interval == 0:
            assert market.sub("ran", "notice").degraded
            market.expect(TENANT, ReleaseSlice("notice"))
    assert [market.progress(name).phase for name in ("window", "notice")] == ["settled"] * 2
    assert [market.progress(name).money.penalties for name in ("window", "notice")] == [100, 40]
    assert all(market.sub("ran", name).degraded for name in ("window", "notice"))


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


def test_repeated_breach_ends_early_forfeits_and_is_arbitrated_again(market):
    market.order(segments=("ran",), end=START + 60 * MINUTE)
    market.offer_all(prices=(("north", 600), ("south", 660)))
    market.serve()
    for interval in range(3):
        assert market.submit(TENANT, EndForBreach("s")).code == "no_breach"
        market.report(interval, party=BAD, tenant=BAD)
    market.expect(TENANT, EndForBreach("s"))
    assert market.progress().until == START + 3 * MINUTE
    market.advance(START + 3 * MINUTE + 1)
    assert market.progress().phase == "settled"
    money = market.progress().money
    assert money.paid == 0
    assert money.penalties == 30 + 50
    assert market.coins(NORTH) == COINS - 50
    market.order(
        segments=("ran",),
        start=START + 30 * MINUTE,
        end=START + 60 * MINUTE,
        schedule={"offers_until": START + 10 * MINUTE},
    )
    assert market.generation("s") == 1
    market.offer("south", "ran", 330)
    market.serve()
    assert market.party("ran") == SOUTH


@pytest.mark.parametrize(("third", "code"), [(GOOD, "no_breach"), (None, "ok")])
def test_a_good_interval_ends_a_row_of_violations_and_one_that_nobody_reports_does_not(market, third, code):
    market.order(segments=("ran",), end=START + 60 * MINUTE)
    market.offer_all(prices=(("north", 600),))
    market.serve()
    for interval, kpis in ((0, BAD), (1, BAD), (2, third)):
        market.report(interval, party=kpis, tenant=kpis)
    market.advance(START + 5 * MINUTE)  # an interval without reports is judged when their time is over
    market.report(3, party=BAD, tenant=BAD, advance=False)
    assert market.submit(TENANT, EndForBreach("s")).code == code


def test_a_deposit_is_forfeit_once_however_often_the_tenant_ends_for_breach(market):
    market.order(segments=("ran",), end=START + 60 * MINUTE)
    market.offer_all(prices=(("north", 600),))
    market.serve()
    for interval in range(3):
        market.report(interval, party=BAD, tenant=BAD)
    market.advance(START + 3 * MINUTE + 1)
    market.expect(TENANT, EndForBreach("s"))
    held = market.coins(TENANT)
    assert market.submit(TENANT, EndForBreach("s")).code == "already_ended"
    assert market.coins(TENANT) == held
    market.report(3)
    assert market.progress().phase == "settled"
    assert market.coins(NORTH) == COINS - 50 + 10


def test_early_release_with_notice_stops_payment_and_frees_the_pool(market):
    market.order(segments=("ran",), end=START + 60 * MINUTE, terms=Terms(notice_ms=2 * MINUTE))
    market.offer_all(prices=(("north", 600),))
    market.serve()
    market.report(0)
    market.expect(TENANT, ReleaseSlice("s"))
    assert market.progress().until == START + 3 * MINUTE
    market.report(1)
    market.report(2)
    assert market.progress().phase == "settled"
    assert market.coins(NORTH) == COINS + 30
    assert market.coins(TENANT) == COINS - 30
    for name in ("a", "b"):
        window = {"start": START + 10 * MINUTE, "end": START + 60 * MINUTE, "segments": ("ran",)}
        market.order(name, **window, schedule={"offers_until": START + 5 * MINUTE})
        market.offer("north", "ran", 100, name)
    market.advance(START + 5 * MINUTE)
    assert {market.progress(name).phase for name in ("a", "b")} == {"awarded"}


def test_an_extension_holds_when_every_party_agrees(market):
    market.order()
    market.offer("north", "ran", 100)
    market.offer("south", "core", 50)
    market.serve()
    market.report(0)
    market.expect(TENANT, ExtendSlice("s", START + 8 * MINUTE))
    assert market.submit(TENANT, ExtendSlice("s", START + 9 * MINUTE)).code == "already_asked"
    assert market.submit(WEST, AcceptExtension("s")).code == "not_asked"
    market.expect(NORTH, AcceptExtension("s"))
    assert market.progress().until == START + 5 * MINUTE
    market.expect(SOUTH, AcceptExtension("s"))
    assert market.progress().until == START + 8 * MINUTE
    for interval in range(1, 8):
        market.report(interval)
    assert market.progress().phase == "settled"
    assert market.coins(NORTH) == COINS + 160
    assert market.coins(SOUTH) == COINS + 80


def test_an_extension_lapses_in_silence(market):
    market.order(segments=("ran",), schedule={"confirm_ms": 2 * MINUTE})
    market.offer_all(prices=(("north", 100),))
    market.serve()
    market.report(0)
    market.expect(TENANT, ExtendSlice("s", START + 8 * MINUTE))
    assert market.coins(TENANT) == COINS - 100 - 60
    market.advance(START + 3 * MINUTE)
    assert market.coins(TENANT) == COINS - 100
    assert market.submit(NORTH, AcceptExtension("s")).code == "no_extension"
    market.advance(START + 5 * MINUTE)
    assert market.progress().until == START + 5 * MINUTE
    market.advance(START + 30 * MINUTE)
    assert market.progress().phase == "settled"


@pytest.mark.parametrize("how", ["breach", "release", "sale"])
def test_an_extension_that_waits_ends_with_the_service_or_the_sale(market, how):
    market.order(segments=("ran",), end=START + 10 * MINUTE, terms=Terms(resale=True, notice_ms=0, breach_after=1))
    market.offer_all(prices=(("north", 100),))
    market.serve()
    market.report(0, party=BAD, tenant=BAD)
    market.advance(START + 90_000)
    held = market.coins(TENANT)
    market.expect(TENANT, ExtendSlice("s", START + 20 * MINUTE))
    assert market.coins(TENANT) == held - 100
    if how == "sale":
        market.expect(TENANT, SellSlice("s", UTILITY.public, 7))
        market.expect(UTILITY, BuySlice("s"))
    else:
        market.expect(TENANT, EndForBreach("s") if how == "breach" else ReleaseSlice("s"))
    assert market.coins(TENANT) == held + {"breach": 50, "release": 0, "sale": 7}[how]
    assert market.submit(NORTH, AcceptExtension("s")).code == "no_extension"


def test_an_extended_slice_is_served_beyond_its_first_end(market):
    market.order(segments=("ran",))
    market.offer_all(prices=(("north", 100),))
    market.serve()
    market.report(0)
    market.expect(TENANT, ExtendSlice("s", START + 8 * MINUTE))
    market.expect(NORTH, AcceptExtension("s"))
    market.advance(START + 6 * MINUTE)
    assert market.progress().phase == "active"


def test_parts_that_were_offered_one_after_the_other_never_make_more_than_the_whole(market):
    market.order(segments=("ran",), terms=Terms(resale=True))
    market.offer_all(prices=(("north", 100),))
    market.serve()
    for share, code in ((600_000, "ok"), (400_000, "ok"), (1, "more_than_is_left")):
        assert market.submit(TENANT, SellSlice("s", WEST.public, 1, share)).code == code
        if code == "ok":
            market.expect(WEST, BuySlice("s"))


def test_an_extension_needs_free_capacity(market):
    market.order(segments=("ran",))
    market.offer_all(prices=(("north", 100),))
    market.serve()
    market.expect(NORTH, SetCapacity("north-ran", START + 5 * MINUTE, (Amount("resource_blocks", 5),)))
    market.advance(START)
    market.expect(TENANT, ExtendSlice("s", START + 8 * MINUTE))
    assert market.submit(NORTH, AcceptExtension("s")).code == "capacity_not_free"


def test_resale_of_a_slice_and_of_a_part(market):
    market.order(segments=("ran",), terms=Terms(resale=True))
    market.offer_all(prices=(("north", 100),))
    market.serve()
    assert market.submit(TENANT, SellSlice("s", NORTH.public, 1)).code == "no_such_tenant"
    market.expect(TENANT, SellSlice("s", WEST.public, 40, 300_000))
    assert market.submit(UTILITY, BuySlice("s")).code == "not_for_sale"
    market.expect(WEST, BuySlice("s"))
    assert market.submit(TENANT, SellSlice("s", UTILITY.public, 1, 800_000)).code == "more_than_is_left"
    market.expect(TENANT, SellSlice("s", UTILITY.public, 90))
    market.expect(UTILITY, BuySlice("s"))
    assert market.coins(TENANT) == COINS - 100 + 40 + 90
    assert market.progress().tenant == UTILITY.public
    for interval in range(5):
        assert all(receipt.ok for receipt in market.report(interval, party=BAD, tenant=BAD))
    assert market.coins(UTILITY) == COINS - 90 + 100


def test_resale_is_refused_where_the_terms_do_not_allow_it(market):
    market.order(segments=("ran",))
    market.offer_all()
    market.serve()
    assert market.submit(TENANT, SellSlice("s", UTILITY.public, 90)).code == "not_for_resale"


def sealed(who, salt=b"s" * 32, cost=100, segment="ran"):
    figures = offer_call(who, segment, cost).figures
    key = {"north": NORTH, "south": SOUTH}[who]
    commit = CommitOffer("s", segment, who, commitment(figures, salt, key.public))
    return key, commit, RevealOffer("s", segment, who, figures, salt)


def test_sealed_offers_are_revealed_or_forfeited(market):
    market.order(segments=("ran",), schedule={"reveal_ms": 5 * MINUTE})
    north, commit, reveal = sealed("north")
    south, other_commit, other_reveal = sealed("south", cost=90)
    assert market.submit(NORTH, offer_call("north", "ran", 100)).code == "sealed_market"
    market.expect(north, commit)
    market.expect(south, other_commit)
    assert market.submit(north, reveal).code == "not_the_reveal_window"
    market.advance(20 * MINUTE)
    assert market.submit(south, reveal).code == "wrong_opening"
    stolen = RevealOffer("s", "ran", "north", other_reveal.figures, other_reveal.salt)
    assert market.submit(north, stolen).code in ("wrong_opening", "not_the_operators_pool")
    market.expect(north, reveal)
    market.advance(25 * MINUTE)
    assert market.party("ran") == NORTH
    assert market.coins(SOUTH) == COINS - 50
    assert market.submit(south, other_reveal).code == "offers_closed"


def test_a_posted_choice_is_overturned_by_a_better_one_which_wins_the_bond(market):
    timing = {"post_ms": 5 * MINUTE, "challenge_ms": 3 * MINUTE}
    market.order(decision="posted", bond=30, schedule=timing)
    market.offer_all()
    assert market.submit(PROBE, PostChoice("s", ("south-ran", "south-core"))).code == "not_the_posting_window"
    market.decide()
    assert market.progress().phase == "published"
    assert market.submit(PROBE, PostChoice("s", ("south-ran", "ghost"))).code == "unknown_offer"
    market.expect(PROBE, PostChoice("s", ("south-ran", "south-core")))
    assert market.submit(WEST, PostChoice("s", ("south-ran", "south-core"))).code == "no_better"
    market.expect(WEST, PostChoice("s", ("north-ran", "north-core")))
    assert market.coins(PROBE) == COINS - 30
    market.advance(market.progress().deadline)
    assert market.party("ran") == NORTH
    assert market.coins(WEST) == COINS + 30
    market.advance(25 * MINUTE)  # when posting would have ended without a choice
    assert market.progress().phase == "awarded"


def test_an_infeasible_posted_choice_is_refused_and_silence_expires(market):
    timing = {"post_ms": 5 * MINUTE, "challenge_ms": 3 * MINUTE}
    market.order(decision="posted", bond=30, schedule=timing, reserve=150)
    market.offer_all()
    market.decide()
    receipt = market.submit(PROBE, PostChoice("s", ("north-ran", "north-core")))
    assert receipt.code == "infeasible_choice"
    assert "reserve" in receipt.info
    market.advance(25 * MINUTE)
    assert market.progress().phase == "expired"
    assert market.coins(TENANT) == COINS


def test_a_posted_choice_whose_capacity_is_gone_expires(market):
    timing = {"post_ms": 5 * MINUTE, "challenge_ms": 3 * MINUTE}
    market.order(segments=("ran",), decision="posted", bond=30, schedule=timing)
    market.offer("north", "ran", 100)
    market.decide()
    market.expect(PROBE, PostChoice("s", ("north-ran",)))
    market.expect(NORTH, SetCapacity("north-ran", START, (Amount("resource_blocks", 5),)))
    market.advance(market.progress().deadline)
    assert market.progress().phase == "expired"
    assert [market.coins(key) for key in (TENANT, NORTH, PROBE)] == [COINS] * 3


def test_a_posted_choice_stays_within_the_budget(market):
    timing = {"post_ms": 5 * MINUTE, "challenge_ms": 3 * MINUTE}
    market.order(segments=("ran",), decision="posted", bond=30, schedule=timing, budget=99)
    market.offer("north", "ran", 100)
    market.decide()
    assert market.submit(PROBE, PostChoice("s", ("north-ran",))).code == "over_budget"


def test_amended_terms_take_part_only_when_the_tenant_accepts_them_by_name(market):
    softer = Terms(steps=(PenaltyStep(500_000, 100_000),))
    for accept, winner in ((False, SOUTH), (True, NORTH)):
        name = f"s{accept}"
        market.order(name, segments=("ran",), schedule={"offers_until": market.now + 5 * MINUTE})
        market.offer("north", "ran", 90, name, terms=softer)
        market.offer("south", "ran", 100, name)
        assert market.submit(UTILITY, AcceptTerms(name, "ran", "north-ran")).code == "not_the_tenant"
        assert market.submit(TENANT, AcceptTerms(name, "ran", "south-ran")).code == "nothing_to_accept"
        if accept:
            market.expect(TENANT, AcceptTerms(name, "ran", "north-ran"))
        market.decide(name)
        assert market.party("ran", name) == winner
        assert (market.sub("ran", name).terms == softer) == accept


def test_an_offer_is_withdrawn_before_offers_close_and_stands_afterwards(market):
    market.order(segments=("ran",), decision="posted", bond=1, schedule={"post_ms": MINUTE, "challenge_ms": MINUTE})
    market.offer_all()
    assert market.submit(SOUTH, WithdrawOffer("s", "ran", "north-ran")).code == "not_the_party"
    market.expect(NORTH, WithdrawOffer("s", "ran", "north-ran"))
    assert market.coins(NORTH) == COINS
    market.expect(NORTH, offer_call("north", "ran", 1))
    assert market.submit(NORTH, offer_call("north", "ran", 1)).code == "name_taken"
    market.decide()
    assert market.submit(SOUTH, WithdrawOffer("s", "ran", "south-ran")).code == "offers_closed"
    assert market.submit(NORTH, offer_call("north", "ran", 1, offer="late")).code == "offers_closed"


def test_an_expired_offer_is_not_the_next_best(market):
    market.order(segments=("ran",))
    market.offer("north", "ran", 100)
    market.offer("south", "ran", 110, valid_until=20 * MINUTE)
    market.decide()
    market.advance(market.progress().deadline)
    assert market.progress().phase == "failed"
    assert market.coins(SOUTH) == COINS


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"cost": 1_001}, "hopeless_offer"),
        ({"delay_us": 50_001}, "hopeless_offer"),
        ({"risk_nano": 20_001}, "hopeless_offer"),
        ({"bandwidth_kbps": 1_999}, "hopeless_offer"),
        ({"pool": "south-ran"}, "not_the_operators_pool"),
        ({"pool": "north-core"}, "not_the_operators_pool"),
        ({"pool": "nowhere"}, "unknown_pool"),
        ({"valid_until": 20 * MINUTE - 1}, "too_short_lived"),
    ],
)
def test_offers_that_cannot_win_or_are_not_backed_are_refused(market, changes, code):
    market.order(segments=("ran",))
    figures = {"cost": 100} | changes
    assert market.submit(NORTH, offer_call("north", "ran", **figures)).code == code


def test_offers_cover_the_ordered_area(market):
    market.expect(NORTH, RegisterPool("area", "ran", ("671", "675"), (Amount("resource_blocks", 12),)))
    market.order(segments=("ran",), profile=ServiceProfile(coverageArea=("671", "680")))
    assert market.submit(NORTH, offer_call("north", "ran", 1, pool="area")).code == "area_not_covered"
    market.order("t", segments=("ran",), profile=ServiceProfile(coverageArea=("671",)))
    market.expect(NORTH, offer_call("north", "ran", 1, "t", pool="area"))


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"end": START}, "bad_window"),
        ({"end": START + 90_001}, "bad_window"),
        ({"schedule": {"offers_until": 10 * MINUTE}}, "bad_deadline"),
        ({"schedule": {"offers_until": START + 1}}, "bad_deadline"),
        ({"schedule": {"report_ms": 0}}, "bad_deadline"),
        ({"payment": "vcg", "objective": "delay"}, "vcg_needs_cost"),
        ({"decision": "posted"}, "posted_needs_time_and_bond"),
        ({"decision": "posted", "payment": "vcg"}, "posted_pays_offers"),
        ({"profile": ServiceProfile(latency=49_999)}, "laxer_than_profile"),
        ({"terms": Terms(steps=(PenaltyStep(5, 1), PenaltyStep(5, 2)))}, "steps_not_ascending"),
        ({"segments": ("ran", "ran")}, "segment_twice"),
        ({"reserve": COINS + 1}, "not_enough_coins"),
    ],
)
def test_orders_that_make_no_sense_are_refused(market, changes, code):
    assert market.submit(TENANT, OrderSlice("s", request(**changes))).code == code


def test_who_may_order_and_offer(market):
    assert market.submit(OUTSIDER, OrderSlice("s", request())).code == "unknown_wallet"
    assert market.submit(NORTH, OrderSlice("s", request())).code == "role_missing"
    market.order()
    assert market.submit(UTILITY, OrderSlice("s", request())).code == "name_taken"
    assert market.submit(TENANT, OrderSlice("s", request())).code == "still_running"
    assert market.submit(PROBE, offer_call("north", "ran", 1)).code == "role_missing"
    market.order("w", key=WEST)
    assert market.submit(WEST, offer_call("west", "ran", 1, "w")).code == "own_order"
    assert market.submit(NORTH, offer_call("north", "transport", 1)).code == "unknown_segment"


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


def test_a_ran_for_named_nodes_is_deployed_by_a_recorded_assignment(market):
    ran = Requirement("ran", AMOUNTS["ran"], (NodeSlice("671", "urllc"), NodeSlice("671", "mmtc")))
    market.expect(
        TENANT,
        OrderSlice("s", replace(request(), segments=(ran,))),
    )
    market.offer_all(prices=(("north", 100),))
    market.decide()
    market.reserve()
    network = RegisterNetwork("net", 12, (12, 0, 0, 0), 1, 12, 1_000, 1, (MvnoShare("u", 12),))
    market.expect(NORTH, network, RegisterLinks("net", (LinkStatement("671", 1, 0, "u", (900,), (900,)),)))
    market.expect(PROBE, AttestLinks("net", ("671",)))

    def assign(name, *kinds, end=START + 5 * MINUTE):
        blocks = {"urllc": (0, 1), "mmtc": (2,)}
        items = tuple(AssignmentItem("671", kind, 1, 0, "u", 0, blocks[kind], 0) for kind in kinds)
        market.expect(NORTH, RecordAssignment(name, "net", START, end, items))

    assign("short", "urllc", "mmtc", end=START + MINUTE)

    def deploy(assignment):
        return market.submit(NORTH, ConfirmDeployment("s", "ran", digest("e"), assignment)).code

    assert deploy("") == "assignment_needed"
    assert deploy("ghost") == "unknown_assignment"
    assert deploy("short") == "assignment_too_short"
    market.expect(NORTH, ReleaseAssignment("short"))
    assign("half", "urllc")
    assert deploy("half") == "node_not_carried"
    market.expect(NORTH, ReleaseAssignment("half"))
    assign("whole", "urllc", "mmtc")
    assert deploy("whole") == "ok"
    assert market.progress().phase == "active"


def test_statements_name_every_line_by_its_transaction(market):
    market.order(segments=("ran",))
    market.offer_all(prices=(("north", 100),))
    market.serve()
    market.report(0, party=BAD, tenant=BAD)
    for interval in range(1, 5):
        market.report(interval)
    lines = statement(market.state, NORTH.public)
    assert [line.kind for line in lines if line.interval is None] == ["deposit", "awarded", "deposit returned"]
    earned = sum(line.amount for line in lines if line.kind == "earned")
    lost = sum(line.amount for line in lines if line.kind == "penalty")
    assert (earned, lost) == (80, 20)
    assert all(bytes.fromhex(line.tx) in market.receipts for line in lines)
    used = statement(market.state, TENANT.public, START, START + 2 * MINUTE)
    assert {line.kind for line in used} == {"used", "compensation"}


def test_pools_are_named_once_and_never_shrink_below_promises(market):
    assert market.submit(SOUTH, RegisterPool("north-ran", "ran", (), ())).code == "name_taken"
    assert market.submit(TENANT, RegisterPool("t", "ran", (), ())).code == "role_missing"
    twice = (Amount("kbps", 1), Amount("kbps", 2))
    assert market.submit(NORTH, RegisterPool("t", "ran", (), twice)).code == "resource_twice"
    market.order(segments=("ran",))
    market.offer_all(prices=(("north", 100),))
    market.decide()
    shrink = SetCapacity("north-ran", START + MINUTE, (Amount("resource_blocks", 5),))
    assert market.submit(NORTH, shrink).code == "already_promised"
    assert market.submit(SOUTH, shrink).code == "not_the_operator"
    market.expect(NORTH, SetCapacity("north-ran", START + 5 * MINUTE, (Amount("resource_blocks", 0),)))
    market.expect(NORTH, SetCapacity("north-ran", START, (Amount("resource_blocks", 6),)))
    assert market.get(OFFERS, ("s", 0, "ran", "north-ran")).status == "awarded"


def test_a_replaced_wallet_hands_its_slices_over(market):
    market.order(segments=("ran",))
    market.offer_all(prices=(("north", 100),))
    market.serve()
    tenant, north = KeyPair(b"n" * 32), KeyPair(b"m" * 32)
    market.expect(TENANT, Rekey(tenant.public, digest("t")))
    market.expect(NORTH, Rekey(north.public, digest("n")))
    market.advance(START + MINUTE)
    one = IntervalReport("ran", 0, GOOD, digest("a"), 1)
    assert market.submit(NORTH, ReportIntervals("s", 0, (one,))).code == "not_a_side"
    market.expect(north, ReportIntervals("s", 0, (one,)))
    market.expect(tenant, ReportIntervals("s", 0, (IntervalReport("ran", 0, GOOD, digest("b"), 1),)))
    assert market.coins(north) == COINS - 50 + 20
    market.expect(tenant, ReleaseSlice("s"))
    market.expect(north, SetCapacity("north-ran", START + 50 * MINUTE, (Amount("resource_blocks", 1),)))


def test_a_replaced_wallet_opens_the_offer_that_it_sealed_before(market):
    market.order(segments=("ran",), schedule={"reveal_ms": 5 * MINUTE})
    north, commit, reveal = sealed("north")
    market.expect(north, commit)
    heir = KeyPair(b"m" * 32)
    market.expect(north, Rekey(heir.public, digest("n")))
    market.advance(20 * MINUTE)
    assert market.submit(north, reveal).code == "certificate_not_valid_now"
    market.expect(heir, reveal)
    market.advance(25 * MINUTE)
    assert market.sub("ran").party == heir.public
