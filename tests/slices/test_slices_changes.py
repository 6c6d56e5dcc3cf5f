"""What changes a contract under way: breach, early release, extension, resale, and a wallet that is replaced."""

import pytest
from slice_market import (
    BAD,
    COINS,
    GOOD,
    MINUTE,
    NORTH,
    SOUTH,
    START,
    TENANT,
    UTILITY,
    WEST,
    digest,
)

from gridpool.contracts.members import Rekey
from gridpool.contracts.slices.changes import (
    AcceptExtension,
    BuySlice,
    EndForBreach,
    ExtendSlice,
    ReleaseSlice,
    SellSlice,
)
from gridpool.contracts.slices.pools import Amount, SetCapacity
from gridpool.contracts.slices.supervision import (
    IntervalReport,
    ReportIntervals,
)
from gridpool.contracts.slices.terms import Terms
from gridpool.ledger.keys import KeyPair


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
