"""The life of a lease, its money, the four sharing modes, and access thresholds at their exact boundaries."""

import h3.api.basic_int as h3
import msgspec
import pytest
from spectrum_stage import CELLS, CENTRE, DAY, HOUR, LOSSES, LOW, MHZ, RULES, START, idle, key, licence, stage

from gridpool.contracts import coins
from gridpool.contracts.members import propose
from gridpool.contracts.spectrum_access import DENIALS, HISTORY, jain_ppm
from gridpool.contracts.spectrum_leases import (
    DeclareUse,
    Heartbeat,
    RecallLease,
    RelinquishLease,
    RequestLease,
    ResumeLease,
    SuspendLease,
)
from gridpool.contracts.spectrum_modes import MODES
from gridpool.contracts.spectrum_records import LEASES, SHEETS, AccessRule, Losses, ProtectedUse
from gridpool.contracts.spectrum_register import DeclareIdle, Protect, SetBandClass, WithdrawIdle
from gridpool.contracts.spectrum_transfers import AcceptSublease, MergeLeases, MoveLease, OfferSublease, SplitLease
from gridpool.ledger.contract import Refused

FAR = CELLS[0]


def wish(**changes) -> RequestLease:
    base = {
        "idle": 1,
        "low": LOW,
        "high": LOW + 10 * MHZ,
        "cells": (CENTRE,),
        "start": START,
        "end": START + 2 * DAY,
        "eirp": 10_000,
    }
    return RequestLease(**(base | changes))


def refused(ledger, name, call) -> str:
    return ledger.submit(key(name), call).code


def test_a_lease_is_granted_authorised_for_240_seconds_and_expires():
    ledger = stage()
    ledger.expect(key("one"), wish())
    assert ledger.get(LEASES, 1).standing == "granted"
    ledger.expect(key("one"), Heartbeat(1))
    lease = ledger.get(LEASES, 1)
    assert (lease.standing, lease.authorized_until) == ("authorized", START + 240_000)
    ledger.advance(START + 2 * DAY - 1)
    ledger.expect(key("one"), Heartbeat(1))
    assert ledger.get(LEASES, 1).authorized_until == START + 2 * DAY
    ledger.advance(START + 2 * DAY)
    assert ledger.get(LEASES, 1).standing == "expired"
    assert not list(ledger.scan(SHEETS))
    assert refused(ledger, "one", Heartbeat(1)) == "lease_has_ended"


def test_pay_as_you_go_is_charged_by_the_started_hour_and_divided_to_the_unit():
    ledger = stage()
    ledger.expect(key("one"), wish())
    ledger.expect(key("one"), Heartbeat(1))
    lease = ledger.get(LEASES, 1)
    assert lease.charged == 100 * 10  # 100 a MHz, hour and cell; 10 MHz, 1 hour, 1 cell
    assert (lease.paid_out, lease.fees) == (980, 20)
    ledger.advance(START + HOUR - 240_000)
    ledger.expect(key("one"), Heartbeat(1))
    assert ledger.get(LEASES, 1).charged == 1000
    ledger.advance(START + HOUR - 239_999)
    ledger.expect(key("one"), Heartbeat(1))
    assert ledger.get(LEASES, 1).charged == 2000
    assert coins.balance(ledger.state, key("fees").public) == 10**9 + 40


def test_a_heartbeat_is_refused_unpaid():
    ledger = stage()
    ledger.expect(key("one"), wish())
    ledger.expect(key("one"), coins.Transfer(key("two").public, 10**9 - 500))
    assert refused(ledger, "one", Heartbeat(1)) == "unpaid"


def test_a_recall_is_effective_within_its_notice_and_refunds_a_fixed_price():
    ledger = stage(idle=(idle(pricing="fixed", price=48_000),))
    ledger.expect(key("one"), wish())
    assert coins.balance(ledger.state, key("one").public) == 10**9 - 48_000
    ledger.advance(START + DAY - HOUR)
    ledger.expect(key("one"), Heartbeat(1))
    ledger.expect(key("holder"), RecallLease(1))
    ledger.expect(key("one"), Heartbeat(1))
    ledger.advance(START + DAY - 60_000)
    ledger.expect(key("one"), Heartbeat(1))
    assert ledger.get(LEASES, 1).authorized_until == START + DAY
    ledger.advance(START + DAY)
    lease = ledger.get(LEASES, 1)
    assert (lease.standing, lease.refunded, lease.paid_out, lease.fees) == ("terminated", 24_000, 23_520, 480)
    assert not list(ledger.scan(SHEETS))


def test_suspension_stops_heartbeats_until_resumed():
    ledger = stage()
    ledger.expect(key("one"), wish())
    ledger.expect(key("one"), Heartbeat(1))
    assert refused(ledger, "two", SuspendLease(1, "x")) == "not_the_holder_or_incumbent"
    ledger.expect(key("holder"), SuspendLease(1, "maintenance"))
    assert refused(ledger, "one", Heartbeat(1)) == "suspended"
    ledger.expect(key("holder"), ResumeLease(1))
    ledger.expect(key("one"), Heartbeat(1))


def test_an_incumbent_suspends_a_lessee_of_its_class():
    use = ProtectedUse(
        key("incumbent").public, 1, LOW, LOW + 10 * MHZ, (FAR,), ((START, START + HOUR),), -80_000, "test"
    )
    ledger = stage(protected=(use,))
    ledger.expect(key("one"), wish())
    ledger.expect(key("incumbent"), SuspendLease(1, "radar is on", 1))
    assert ledger.get(LEASES, 1).standing == "suspended"


def test_relinquished_bands_are_free_at_once():
    ledger = stage()
    ledger.expect(key("one"), wish())
    assert refused(ledger, "two", wish()) == "leased_already"
    ledger.expect(key("one"), RelinquishLease(1))
    ledger.expect(key("two"), wish())
    assert refused(ledger, "one", RelinquishLease(2)) == "not_the_lessee"


def test_split_sublease_and_merge():
    ledger = stage(idle=(idle(pricing="fixed", price=1001),))
    ledger.expect(key("one"), wish(high=LOW + 20 * MHZ))
    assert refused(ledger, "one", SplitLease(1, "band", LOW + 5 * MHZ)) == "parts_would_disturb"
    ledger.expect(key("one"), SplitLease(1, "band", LOW + 10 * MHZ))
    first, second = ledger.get(LEASES, 1), ledger.get(LEASES, 2)
    assert (first.high, second.low, second.high) == (LOW + 10 * MHZ, LOW + 10 * MHZ, LOW + 20 * MHZ)
    assert (first.held, second.held) == (501, 500)
    ledger.expect(key("one"), SplitLease(2, "time", START + DAY))
    ledger.expect(key("one"), OfferSublease(3, key("two").public, 70))
    assert refused(ledger, "three", AcceptSublease(3, 70)) == "not_offered_to_you"
    assert refused(ledger, "two", AcceptSublease(3, 69)) == "price_has_risen"
    ledger.expect(key("two"), AcceptSublease(3, 70))
    assert ledger.get(LEASES, 3).lessee == key("two").public
    assert coins.balance(ledger.state, key("two").public) == 10**9 - 70
    assert refused(ledger, "one", MergeLeases(1, 2)) == "leases_do_not_meet"
    ledger.expect(key("two"), OfferSublease(3, key("one").public, 0))
    ledger.expect(key("one"), AcceptSublease(3, 0))
    ledger.expect(key("one"), MergeLeases(2, 3))
    ledger.expect(key("one"), MergeLeases(1, 2))
    whole = ledger.get(LEASES, 1)
    assert (whole.low, whole.high, whole.start, whole.end) == (LOW, LOW + 20 * MHZ, START, START + 2 * DAY)
    assert whole.held == whole.charged == 1001
    ledger.advance(START + 2 * DAY)
    assert ledger.get(LEASES, 1).standing == "expired"


def test_split_by_area_and_no_transfer_where_terms_forbid():
    ledger = stage()
    cells = tuple(sorted((CENTRE, FAR)))
    ledger.expect(key("one"), wish(cells=cells, eirp=0))
    ledger.expect(key("one"), SplitLease(1, "area", 0, (FAR,)))
    assert (ledger.get(LEASES, 1).cells, ledger.get(LEASES, 2).cells) == ((CENTRE,), (FAR,))
    near = next(cell for cell in CELLS if _ring(cell, CENTRE) == 1)
    together = wish(cells=tuple(sorted((CENTRE, near))), low=LOW + 50 * MHZ, high=LOW + 60 * MHZ)
    ledger.expect(key("one"), together)
    assert refused(ledger, "one", SplitLease(3, "area", 0, (near,))) == "parts_would_disturb"
    strict = stage(idle=(idle(transferable=False),))
    strict.expect(key("one"), wish())
    assert refused(strict, "one", SplitLease(1, "band", LOW + MHZ)) == "terms_do_not_allow_it"


SIX = tuple(cell for cell in CELLS if h3.grid_distance(CENTRE, cell) == 2)
SIX = tuple(cell for cell in SIX if h3.grid_distance(SIX[0], cell) % 2 == 0)
"""Six cells around the centre: from there five at full power can be borne in it in one bin, six cannot."""


def bin_wish(first: int, last: int, cell: int, eirp: int = 30_000) -> RequestLease:
    return wish(low=LOW + 10 * first * MHZ, high=LOW + 10 * (last + 1) * MHZ, cells=(cell,), eirp=eirp)


def test_a_wide_lessee_is_protected_in_all_of_its_bins_at_once():
    """Newcomers far apart in frequency do not hear each other, but a receiver as wide as the band hears all of them."""
    ledger = stage()
    ledger.expect(key("one"), bin_wish(0, 9, CENTRE, -10_000))
    for number, cell in zip((0, 2, 4, 6, 8), SIX, strict=False):
        ledger.expect(key("two"), bin_wish(number, number, cell))
    assert refused(ledger, "two", bin_wish(0, 0, SIX[5])) == "interference"
    assert refused(ledger, "two", bin_wish(9, 9, SIX[5])) == "interference"
    ledger.expect(key("one"), RelinquishLease(1))
    ledger.expect(key("two"), bin_wish(9, 9, SIX[5]))


def test_parts_of_a_lease_may_not_be_too_much_for_somebody_else():
    ledger = stage()
    ledger.expect(key("one"), bin_wish(0, 9, CENTRE, -10_000))
    for number, cell in zip((0, 2, 4, 6), SIX, strict=False):
        ledger.expect(key("two"), bin_wish(number, number, cell))
    ledger.expect(key("two"), bin_wish(8, 9, SIX[4]))
    assert refused(ledger, "two", SplitLease(6, "band", LOW + 90 * MHZ)) == "parts_would_disturb"
    ledger.expect(key("two"), RelinquishLease(5))
    ledger.expect(key("two"), SplitLease(6, "band", LOW + 90 * MHZ))


def test_a_merged_lease_may_not_hear_too_much():
    ledger = stage()
    ledger.expect(key("one"), bin_wish(0, 1, CENTRE, -10_000))
    ledger.expect(key("one"), bin_wish(2, 5, CENTRE, -10_000))
    for number, cell in zip((3, 3, 5, 0, 0, 0), SIX, strict=True):
        ledger.expect(key("two"), bin_wish(number, number, cell))
    assert refused(ledger, "one", MergeLeases(1, 2)) == "interference"
    ledger.expect(key("two"), RelinquishLease(8))
    ledger.expect(key("one"), MergeLeases(1, 2))


def test_moves_arrivals_and_departures():
    ledger = stage()
    ledger.expect(key("one"), wish())
    ledger.expect(key("two"), wish(cells=(FAR,), eirp=0))
    assert refused(ledger, "one", MoveLease(1, (FAR,))) == "leased_already"
    assert ledger.get(LEASES, 1).cells == (CENTRE,)
    ledger.expect(key("one"), MoveLease(1, (CELLS[-1],)))
    ledger.expect(key("three"), wish(eirp=-10_000))
    ledger.expect(key("one"), DeclareUse(1, True))
    assert refused(ledger, "one", DeclareUse(1, True)) == "already_declared"
    ledger.expect(key("one"), DeclareUse(1, False))


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"idle": 9}, "no_such_idle_band"),
        ({"low": LOW - 10 * MHZ}, "outside_the_band_class"),
        ({"high": LOW}, "outside_the_band_class"),
        ({"eirp": 31_000}, "outside_the_idle_band"),
        ({"height": 5}, "antenna_too_high"),
        ({"cells": (1,)}, "not_on_offer"),
        ({"end": START + 61 * DAY}, "outside_the_idle_band"),
        ({"end": START}, "time_is_empty_or_too_long"),
        ({"most_price": 99}, "price_has_risen"),
    ],
)
def test_a_lease_outside_its_offer_is_refused(changes, code):
    assert refused(stage(), "one", wish(**changes)) == code


def test_a_lease_over_too_many_bins_is_refused():
    narrow = msgspec.structs.replace(RULES, bin_hz=10_000)  # 10,000 bins in its band
    ledger = stage(classes=((narrow, LOSSES),))
    assert refused(ledger, "one", wish(high=LOW + 2 * MHZ + 10_000)) == "band_too_wide"
    ledger.expect(key("one"), wish(high=LOW + 2 * MHZ))
    ledger.expect(key("one"), wish(low=LOW + 3 * MHZ, high=LOW + 5 * MHZ, cells=(FAR,)))
    windows = tuple((START + 2 * at, START + 2 * at + 1) for at in range(1_000))
    use = ProtectedUse(key("incumbent").public, 1, LOW, LOW + 100 * MHZ, (FAR,), windows, -80_000, "test")
    assert ledger.submit(key("seat"), propose(Protect((use,)))).code == "too_much_protected_at_once"


def test_a_sublease_is_not_accepted_once_the_lease_is_recalled_or_suspended():
    ledger = stage()
    ledger.expect(key("one"), wish())
    ledger.expect(key("one"), OfferSublease(1, key("two").public, 70))
    ledger.expect(key("holder"), SuspendLease(1, "maintenance"))
    assert refused(ledger, "two", AcceptSublease(1, 70)) == "recalled_or_suspended"
    ledger.expect(key("holder"), ResumeLease(1))
    ledger.expect(key("holder"), RecallLease(1))
    assert refused(ledger, "two", AcceptSublease(1, 70)) == "recalled_or_suspended"
    assert coins.balance(ledger.state, key("two").public) == 10**9


def test_holders_declare_and_withdraw_idle_bands():
    ledger = stage(idle=())
    offer = DeclareIdle(1, LOW, LOW + 20 * MHZ, (CENTRE,), START, START + DAY, 20_000, "exclusive", "fixed", 5, HOUR)
    assert refused(ledger, "one", offer) == "not_the_holder"
    ledger.expect(key("holder"), offer)
    ledger.expect(key("one"), wish(end=START + DAY))
    ledger.expect(key("holder"), WithdrawIdle(1))
    assert refused(ledger, "two", wish(low=LOW + 10 * MHZ, high=LOW + 20 * MHZ, end=START + DAY)) == "not_on_offer"


def mode_stage(name: str):
    mode = MODES[name]
    use = ProtectedUse(
        key("incumbent").public, 1, LOW, LOW + 10 * MHZ, (FAR,), ((START, START + DAY),), -100_000, "test"
    )
    kind = "exclusive" if mode.kind == "exclusive" else mode.kind
    return mode, stage(
        licences=(licence(kind=kind),),
        idle=(
            idle(
                kind=mode.kind,
                pricing=mode.pricing,
                price=100 if mode.pricing == "payg" else 0,
                notice_ms=mode.notice_ms,
                transferable=mode.transferable,
            ),
        ),
        protected=(use,) if mode.incumbent else (),
    )


def test_primary_cooperative_sharing_gives_an_exclusive_protected_band():
    _, ledger = mode_stage("primary_cooperative")
    ledger.expect(key("one"), wish(cells=(FAR,), eirp=0, high=LOW + 20 * MHZ))
    assert refused(ledger, "two", wish(cells=(FAR,), eirp=0)) == "leased_already"
    near = next(cell for cell in CELLS if cell != FAR and _ring(cell, FAR) == 1)
    assert refused(ledger, "two", wish(cells=(near,), eirp=20_000)) == "interference"
    ledger.expect(key("one"), SplitLease(1, "band", LOW + 10 * MHZ))


def test_primary_noncooperative_sharing_lets_equals_coexist_unprotected():
    _, ledger = mode_stage("primary_noncooperative")
    for name in ("one", "two", "three"):
        ledger.expect(key(name), wish(cells=(FAR,), eirp=20_000))
    assert refused(ledger, "one", SplitLease(1, "band", LOW + 5 * MHZ)) == "terms_do_not_allow_it"


def test_secondary_cooperative_sharing_protects_the_incumbent_and_the_licensed_sharer():
    _, ledger = mode_stage("secondary_cooperative")
    assert refused(ledger, "one", wish(cells=(FAR,), eirp=0)) == "interference"
    # After the incumbent's hours the same lease is granted, and then it is exclusive.
    ledger.expect(key("one"), wish(cells=(FAR,), eirp=0, start=START + DAY))
    assert refused(ledger, "two", wish(cells=(FAR,), eirp=0, start=START + DAY)) == "leased_already"


def test_secondary_noncooperative_sharing_keeps_the_incumbents_limit_and_nothing_else():
    _, ledger = mode_stage("secondary_noncooperative")
    assert refused(ledger, "one", wish(cells=(FAR,), eirp=0)) == "interference"
    for name in ("one", "two"):
        ledger.expect(key(name), wish(cells=(FAR,), eirp=0, start=START + DAY))


def _ring(a: int, b: int) -> int:
    import h3.api.basic_int as h3

    return h3.grid_distance(a, b)


def rule(**changes) -> AccessRule:
    base = {
        "name": "fair",
        "band": 0,
        "window_ms": 1_000_000,
        "most_share_ppm": 0,
        "most_grants": 0,
        "deny_ms": 500_000,
    }
    return AccessRule(**(base | changes))


def test_a_share_of_time_is_denied_exactly_when_it_is_reached():
    # 240 s of a window of 1000 s are 24 %: one ppm more is not reached, exactly that is.
    for share, denied in ((240_001, False), (240_000, True)):
        ledger = stage(access_rules=(rule(most_share_ppm=share),))
        ledger.expect(key("one"), wish())
        ledger.expect(key("one"), Heartbeat(1))
        denial = ledger.get(DENIALS, (key("one").public, 1, CENTRE))
        assert (denial is not None) == denied
        if denied:
            assert denial.until == START + 240_000 + 500_000
            receipt = ledger.submit(key("one"), Heartbeat(1))
            assert receipt.code == "access_denied"
            assert "fair" in receipt.info
            assert str(denial.until) in receipt.info
            ledger.advance(denial.until - 1)
            assert refused(ledger, "one", Heartbeat(1)) == "access_denied"
            ledger.advance(denial.until)
            ledger.expect(key("one"), Heartbeat(1))


def test_a_count_of_grants_is_denied_exactly_when_it_is_reached():
    ledger = stage(access_rules=(rule(most_grants=2),))
    for number in (1, 2):
        ledger.expect(key("one"), wish())
        ledger.expect(key("one"), RelinquishLease(number))
    assert refused(ledger, "one", wish()) == "access_denied"
    ledger.expect(key("one"), wish(cells=(FAR,)))
    ledger.expect(key("two"), wish(eirp=-10_000))


def test_grants_leave_the_window_exactly_when_it_has_passed():
    for pause, denied in ((1_000_000 - 1, True), (1_000_000, False)):
        ledger = stage(access_rules=(rule(most_grants=2),))
        ledger.expect(key("one"), wish())
        ledger.expect(key("one"), RelinquishLease(1))
        ledger.advance(START + pause)
        ledger.expect(key("one"), wish())
        assert (ledger.get(DENIALS, (key("one").public, 1, CENTRE)) is not None) == denied


def test_use_slides_out_of_the_window():
    ledger = stage(access_rules=(rule(most_share_ppm=480_000),))
    ledger.expect(key("one"), wish())
    ledger.expect(key("one"), Heartbeat(1))
    ledger.advance(START + 760_001)
    ledger.expect(key("one"), Heartbeat(1))
    assert ledger.get(DENIALS, (key("one").public, 1, CENTRE)) is None
    history = ledger.get(HISTORY, (key("one").public, 1, CENTRE))
    assert history.used == ((START, START + 240_000), (START + 760_001, START + 1_000_001))


def test_jains_index():
    assert jain_ppm([5, 5, 5]) == 1_000_000
    assert jain_ppm([1, 0, 0, 0]) == 250_000
    assert jain_ppm([]) == jain_ppm([0, 0]) == 1_000_000


def test_unknown_wallets_lease_nothing():
    with pytest.raises(Refused, match="role_missing"):
        stage().expect(key("sensor0"), wish())


def test_the_council_protects_uses_and_replaces_tables_only_where_no_lease_stands_in_the_way():
    ledger = stage()
    ledger.expect(key("one"), wish(eirp=20_000))
    window = ((START, START + DAY),)
    use = ProtectedUse(key("incumbent").public, 1, LOW, LOW + 10 * MHZ, (CENTRE,), window, -100_000, "test")
    assert ledger.submit(key("seat"), propose(Protect((use,)))).code == "leases_in_the_way"
    beside = msgspec.structs.replace(use, low=LOW + 50 * MHZ, high=LOW + 60 * MHZ)
    ledger.expect(key("seat"), propose(Protect((beside,))))
    deaf = msgspec.structs.replace(use, limit=-160_000, low=LOW + 80 * MHZ, high=LOW + 90 * MHZ)
    assert ledger.submit(key("seat"), propose(Protect((deaf,)))).code == "limit_below_what_the_table_sees"
    ledger.expect(key("two"), wish(eirp=20_000, cells=(FAR,)))
    same = msgspec.structs.replace(LOSSES, version=2)
    ledger.expect(key("seat"), propose(SetBandClass(1, RULES, same)))
    assert ledger.submit(key("seat"), propose(SetBandClass(1, RULES, same))).code == "band_class"
    louder = Losses(3, "test", tuple(tuple(min(loss, 100_000) for loss in row) for row in LOSSES.rings))
    assert ledger.submit(key("seat"), propose(SetBandClass(1, RULES, louder))).code == "leases_in_the_way"
    other = msgspec.structs.replace(RULES, name="other", low=RULES.high, high=RULES.high + 100 * MHZ)
    ledger.expect(key("seat"), propose(SetBandClass(0, other, LOSSES)))
    assert ledger.submit(key("seat"), propose(SetBandClass(0, other, LOSSES))).code == "band_class"
    assert refused(ledger, "one", propose(Protect((beside,)))) != "ok"
