"""Attacks on the life cycle of a slice: each is tried on the contract, and gains the attacker nothing."""

import pytest
from slice_market import (
    AMOUNTS,
    BAD,
    COINS,
    COUNCIL,
    GOOD,
    MINUTE,
    NORTH,
    PROBE,
    SOUTH,
    START,
    TENANT,
    WEST,
    Market,
    digest,
    offer_call,
    request,
)

from gridpool.agents.slice_orchestrator import choice_to_post
from gridpool.contracts import members
from gridpool.contracts.members import BanMember, propose
from gridpool.contracts.slices import offers
from gridpool.contracts.slices.awards import PostChoice
from gridpool.contracts.slices.deployment import ConfirmReservation
from gridpool.contracts.slices.offers import (
    MOST_DECIDED,
    MOST_PER_PARTY,
    OFFERS,
    CommitOffer,
    PlaceOffer,
    WithdrawOffer,
)
from gridpool.contracts.slices.orders import OrderSlice
from gridpool.contracts.slices.pools import Amount, RegisterPool
from gridpool.contracts.slices.samples import sample_leaf, sample_path, sample_root
from gridpool.contracts.slices.supervision import (
    VERDICTS,
    DemandSample,
    IntervalReport,
    Measure,
    ProveSample,
    ReportIntervals,
)
from gridpool.ledger.keys import KeyPair


@pytest.fixture
def market():
    return Market()


def test_a_party_cannot_award_the_same_capacity_twice(market):
    for name in ("a", "b", "c"):
        market.order(name, segments=("ran",))
        market.offer("north", "ran", 100, name)
    market.decide("a")
    phases = [market.progress(name).phase for name in ("a", "b", "c")]
    assert phases == ["awarded", "awarded", "expired"]  # the pool holds two of them
    assert market.submit(TENANT, OrderSlice("d", request(segments=("ran",)))).code == "bad_deadline"
    late = {"offers_until": 30 * MINUTE}
    market.order("d", segments=("ran",), schedule=late)
    assert market.submit(NORTH, offer_call("north", "ran", 1, "d")).code == "capacity_not_free"


def test_a_party_cannot_back_two_segments_with_one_pool(market):
    market.expect(NORTH, RegisterPool("one", "ran", (), AMOUNTS["ran"]))
    market.order()
    assert market.submit(NORTH, offer_call("north", "core", 1, pool="one")).code == "not_the_operators_pool"


def test_a_winner_that_withdraws_after_the_award_loses_its_deposit_and_the_tenant_is_served(market):
    market.order(segments=("ran",))
    market.offer_all(prices=(("north", 100), ("south", 110)))
    market.decide()
    assert market.submit(NORTH, WithdrawOffer("s", "ran", "north-ran")).code == "offers_closed"
    market.advance(market.progress().deadline)
    market.reserve()
    market.deploy()
    assert market.party("ran") == SOUTH
    assert market.coins(NORTH) == COINS - 50
    assert market.submit(NORTH, ConfirmReservation("s", "ran")).code == "not_the_party"


def test_a_winner_that_confirms_and_does_not_deploy_loses_its_deposit(market):
    market.order(segments=("ran",))
    market.offer_all(prices=(("north", 100), ("south", 110)))
    market.decide()
    market.reserve()
    market.advance(market.progress().deadline)
    assert market.party("ran") == SOUTH
    assert market.coins(NORTH) == COINS - 50
    assert market.coins(TENANT) == COINS - 1_000 + 50


def serving(market, **changes):
    market.order(segments=("ran",), **changes)
    market.offer_all(prices=(("north", 100),))
    market.serve()


def test_a_party_that_signs_flattering_indicators_is_overruled_by_the_probe(market):
    serving(market)
    market.report(0, party=GOOD, tenant=BAD)
    market.expect(PROBE, Measure("s", 0, IntervalReport("ran", 0, BAD, digest("p"), 1)))
    verdict = market.get(VERDICTS, ("s", 0, "ran", 0))
    assert (verdict.paid, verdict.penalty) == (0, 20)


def test_a_party_that_forges_its_samples_cannot_prove_them(market):
    serving(market)
    market.advance(START + MINUTE)
    real = [sample_leaf("s", 0, "ran", 0, n, b"slow") for n in range(4)]
    market.expect(NORTH, ReportIntervals("s", 0, (IntervalReport("ran", 0, GOOD, sample_root(real), 4),)))
    market.expect(TENANT, ReportIntervals("s", 0, (IntervalReport("ran", 0, BAD, digest("t"), 4),)))
    market.expect(TENANT, DemandSample("s", 0, "ran", 0, "party", 2))
    for sample, path in (
        (b"fast", sample_path(real, 2)),
        (b"slow", sample_path(real, 1)),
        (b"slow", (*sample_path(real, 2), digest("more"))),
        (b"slow", ()),
    ):
        assert market.submit(NORTH, ProveSample("s", 0, "ran", 0, 2, sample, path)).code == "wrong_sample"
    market.advance(START + 12 * MINUTE)
    assert market.get(VERDICTS, ("s", 0, "ran", 0)).penalty == 20


def test_a_tenant_that_denies_good_service_pays_when_a_probe_measures(market):
    serving(market)
    for interval in range(5):
        market.report(interval, party=GOOD, tenant=BAD)
        report = IntervalReport("ran", interval, GOOD, digest(f"p{interval}"), 1)
        market.expect(PROBE, Measure("s", 0, report))
    assert market.progress().phase == "settled"
    assert market.coins(NORTH) == COINS + 100


def test_neither_side_measures_as_its_own_probe(market):
    market.order(key=WEST, segments=("ran",))
    market.offer_all(prices=(("north", 100),))
    market.serve()
    market.report(0, party=GOOD, tenant=BAD)
    report = IntervalReport("ran", 0, BAD, digest("p"), 1)
    assert market.submit(WEST, Measure("s", 0, report)).code == "not_independent"


def test_a_tenant_without_coins_orders_nothing(market):
    for receipt in (
        market.submit(TENANT, OrderSlice("s", request(reserve=COINS + 1))),
        market.submit(TENANT, OrderSlice("s", request(reserve=600_000)), OrderSlice("t", request(reserve=600_000))),
    ):
        assert receipt.code == "not_enough_coins"
    assert market.coins(TENANT) == COINS
    assert market.submit(TENANT, OrderSlice("s", request(reserve=900_000))).ok
    assert market.submit(TENANT, OrderSlice("t", request(reserve=900_000))).code == "not_enough_coins"


def test_a_tenant_that_replays_an_old_measurement_is_refused(market):
    serving(market)
    market.advance(START + MINUTE)
    old = IntervalReport("ran", 0, BAD, digest("old"), 4)
    market.expect(TENANT, ReportIntervals("s", 0, (old,)))
    assert market.submit(TENANT, ReportIntervals("s", 0, (old,))).code == "already_reported"
    market.advance(START + 2 * MINUTE)
    replay = IntervalReport("ran", 1, BAD, digest("old"), 4)
    assert market.submit(TENANT, ReportIntervals("s", 0, (replay,))).code == "root_replayed"
    late = IntervalReport("ran", 0, BAD, digest("new"), 4)
    market.advance(START + 3 * MINUTE)
    assert market.submit(TENANT, ReportIntervals("s", 0, (late,))).code == "already_judged"


def test_an_interval_is_judged_and_paid_once(market):
    serving(market)
    market.report(0)
    held = market.coins(NORTH)
    for key, text in ((NORTH, "n"), (TENANT, "t")):
        again = IntervalReport("ran", 0, BAD, digest(text), 8)
        assert market.submit(key, ReportIntervals("s", 0, (again,))).code == "already_judged"
    assert market.coins(NORTH) == held


def test_samples_of_one_interval_prove_nothing_in_another():
    leaf = sample_leaf("s", 0, "ran", 0, 1, b"x")
    others = [
        sample_leaf(*place, b"x")
        for place in (("s", 0, "ran", 1, 1), ("s", 1, "ran", 0, 1), ("s", 0, "core", 0, 1), ("t", 0, "ran", 0, 1))
    ]
    assert leaf not in others
    assert leaf != sample_leaf("s", 0, "ran", 0, 2, b"x")


def many_operators(market, count):
    keys = [KeyPair(n.to_bytes(32, "big")) for n in range(1_000, 1_000 + count)]
    new = tuple(
        members.NewMember(key.public, f"Flood {n}", (members.Role.OPERATOR,), public_wallets=(key.public,))
        for n, key in enumerate(keys)
    )
    market.expect(COUNCIL, propose(members.Admit(new)))
    for n, key in enumerate(keys):
        market.expect(key, RegisterPool(f"flood-{n}", "ran", (), (Amount("resource_blocks", 6),)))
    return keys


def test_a_flood_of_offers_is_bounded_and_cannot_keep_a_better_one_out(market):
    market.order(segments=("ran",), deposit=0)
    keys = many_operators(market, MOST_DECIDED[1] // MOST_PER_PARTY + 1)
    codes = []
    for n, key in enumerate(keys):
        for number in range(MOST_PER_PARTY + 1):
            figures = offer_call("north", "ran", 900 + number, pool=f"flood-{n}").figures
            codes.append(market.submit(key, PlaceOffer("s", "ran", f"f{n}-{number}", figures)).code)
    assert codes[:5] == ["ok"] * 4 + ["too_many_offers"]
    assert codes[-1] in ("too_many_offers", "segment_full")
    standing = list(market.scan(OFFERS, ("s",)))
    assert len(standing) == MOST_DECIDED[1]
    market.offer("north", "ran", 100)
    standing = list(market.scan(OFFERS, ("s",)))
    assert len(standing) == MOST_DECIDED[1]
    market.decide()
    assert market.party("ran") == NORTH


def test_floods_of_sealed_offers_and_of_offers_decided_outside_are_bounded(market, monkeypatch):
    monkeypatch.setitem(offers.MOST_DECIDED, 1, 3)
    monkeypatch.setattr(offers, "MOST_POSTED", 2)
    market.order("sealed", segments=("ran",), schedule={"reveal_ms": MINUTE})
    timing = {"post_ms": 5 * MINUTE, "challenge_ms": 3 * MINUTE}
    market.order("posted", segments=("ran",), decision="posted", bond=30, schedule=timing)
    for at, (who, key) in enumerate((("north", NORTH), ("south", SOUTH), ("north", NORTH), ("south", SOUTH))):
        sealed = CommitOffer("sealed", "ran", f"o{at}", digest(at))
        assert market.submit(key, sealed).code == ("ok" if at < 3 else "segment_full")
        posted = offer_call(who, "ran", 100 - at, "posted", f"o{at}")
        assert market.submit(key, posted).code == ("ok" if at < 2 else "segment_full")
    assert market.coins(NORTH) == COINS - 3 * 50
    assert market.coins(SOUTH) == COINS - 2 * 50


def test_a_large_order_is_decided_outside_and_no_worse_choice_survives(market):
    timing = {"post_ms": 5 * MINUTE, "challenge_ms": 3 * MINUTE}
    market.order(segments=("ran",), decision="posted", bond=30, deposit=0, schedule=timing)
    for n, key in enumerate(many_operators(market, 50)):
        for number in range(MOST_PER_PARTY):
            figures = offer_call("north", "ran", 900 - n - 50 * number, pool=f"flood-{n}").figures
            market.expect(key, PlaceOffer("s", "ran", f"f{n}-{number}", figures))
    market.decide()
    best = choice_to_post(market.state, ("s", 0), market.now)
    assert best == ("f49-3",)
    market.expect(WEST, PostChoice("s", ("f48-3",)))
    market.expect(PROBE, PostChoice("s", best))
    assert market.submit(WEST, PostChoice("s", ("f48-2",))).code == "no_better"
    market.advance(market.progress().deadline)
    assert market.sub("ran").cost == 900 - 49 - 150
    assert market.coins(PROBE) == COINS + 30


def test_offering_and_withdrawing_in_turns_leaves_nothing_behind(market):
    market.order(segments=("ran",))
    for _ in range(MOST_PER_PARTY + 2):
        market.offer("north", "ran", 100)
        market.expect(NORTH, WithdrawOffer("s", "ran", "north-ran"))
    assert not list(market.scan(OFFERS, ("s",)))
    assert market.coins(NORTH) == COINS


def test_a_banned_party_wins_nothing(market):
    market.order(segments=("ran",))
    market.offer_all(prices=(("north", 100), ("south", 110)))
    market.expect(COUNCIL, propose(BanMember(NORTH.public, START + 60 * MINUTE, "council", "fraud")))
    market.decide()
    assert market.party("ran") == SOUTH


def test_someone_elses_offer_and_order_are_out_of_reach(market):
    market.order(segments=("ran",))
    market.offer("north", "ran", 100)
    assert market.submit(SOUTH, offer_call("north", "ran", 1, offer="x")).code == "not_the_operators_pool"
    assert market.submit(SOUTH, offer_call("south", "ran", 1, offer="north-ran")).code == "name_taken"
    assert market.submit(SOUTH, WithdrawOffer("s", "ran", "north-ran")).code == "not_the_party"
