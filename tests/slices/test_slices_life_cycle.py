"""From an order to its end: each phase, who may leave it and how, and what happens when nobody acts in time."""

import pytest
from msgspec.structs import replace
from slice_market import (
    AMOUNTS,
    BAD,
    COINS,
    MINUTE,
    NORTH,
    PROBE,
    SOUTH,
    START,
    TENANT,
    UTILITY,
    WEST,
    digest,
    request,
)

from gridpool.contracts.slices.assignments import AssignmentItem, RecordAssignment, ReleaseAssignment
from gridpool.contracts.slices.changes import (
    ReleaseSlice,
)
from gridpool.contracts.slices.deployment import ConfirmDeployment, ConfirmReservation
from gridpool.contracts.slices.networks import AttestLinks, LinkStatement, MvnoShare, RegisterLinks, RegisterNetwork
from gridpool.contracts.slices.offers import (
    CancelOrder,
    CommitOffer,
)
from gridpool.contracts.slices.orders import NodeSlice, OrderSlice, Requirement
from gridpool.contracts.slices.pools import Amount, SetCapacity
from gridpool.contracts.slices.statements import statement
from gridpool.contracts.slices.terms import Terms


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
