"""Offers and choices: sealed, posted, amended, withdrawn, expired; orders, offers and pools that are refused."""

import pytest
from slice_market import (
    COINS,
    MINUTE,
    NORTH,
    OUTSIDER,
    PROBE,
    SOUTH,
    START,
    TENANT,
    UTILITY,
    WEST,
    digest,
    offer_call,
    request,
)

from gridpool.contracts.members import Rekey
from gridpool.contracts.slices.awards import PostChoice
from gridpool.contracts.slices.offers import (
    OFFERS,
    AcceptTerms,
    CommitOffer,
    RevealOffer,
    WithdrawOffer,
    commitment,
)
from gridpool.contracts.slices.orders import OrderSlice
from gridpool.contracts.slices.pools import Amount, RegisterPool, SetCapacity
from gridpool.contracts.slices.templates import ServiceProfile
from gridpool.contracts.slices.terms import PenaltyStep, Terms
from gridpool.ledger.keys import KeyPair


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
