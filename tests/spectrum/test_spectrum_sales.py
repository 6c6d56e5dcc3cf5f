"""Sales on the ledger: sealed bids, deposits, bonds, conflicts by interference, outside outcomes and challenges."""

import pytest
from spectrum_stage import CELLS, CENTRE, DAY, HOUR, LOW, MHZ, START, idle, key, stage

from gridpool.contracts import coins
from gridpool.contracts.spectrum_leases import RequestLease
from gridpool.contracts.spectrum_records import LEASES, ProtectedUse
from gridpool.contracts.spectrum_sales import (
    SALES,
    ChallengeOutcome,
    CommitBid,
    OpenSale,
    PackageBid,
    ProposeOutcome,
    RevealBid,
    bid_hash,
)
from gridpool.markets import spectrum_vcg

FAR = CELLS[0]
LOTS = tuple(
    idle(low=LOW + i * 20 * MHZ, high=LOW + i * 20 * MHZ + 10 * MHZ, pricing="auction", price=0) for i in range(2)
)


def sale_stage(rule: str = "second_price", lots: tuple[int, ...] = (1,), reserve: int = 0, **changes):
    ledger = stage(idle=LOTS, fee_ppm=0, fee_account=b"", **changes)
    ledger.expect(
        key("holder"),
        OpenSale(
            lots,
            (reserve,) * len(lots),
            rule,
            START + DAY,
            START + 2 * DAY,
            START + HOUR,
            START + 2 * HOUR,
            50,
        ),
    )
    return ledger


def bid(who: str, *bids: tuple[tuple[int, ...], int], cells=(CENTRE,), eirp=0) -> RevealBid:
    packages = tuple(PackageBid(lots, price) for lots, price in bids)
    return RevealBid(1, packages, tuple(sorted(cells)), eirp, 0, who.encode().ljust(32, b"."))


def commit(ledger, who: str, call: RevealBid, deposit: int) -> None:
    ledger.expect(key(who), CommitBid(1, bid_hash(1, key(who).public, call), deposit))


def balance(ledger, who: str) -> int:
    return coins.balance(ledger.state, key(who).public) - 10**9


def test_second_price_sale_with_a_bidder_that_does_not_reveal():
    ledger = sale_stage(reserve=100)
    calls = {"one": bid("one", ((1,), 900)), "two": bid("two", ((1,), 700)), "three": bid("three", ((1,), 999))}
    for who, call in calls.items():
        commit(ledger, who, call, 1_000)
    ledger.advance(START + HOUR)
    for who in ("one", "two"):
        ledger.expect(key(who), calls[who])
    ledger.advance(START + 2 * HOUR)
    assert (balance(ledger, "one"), balance(ledger, "two"), balance(ledger, "three")) == (-700, 0, -50)
    assert balance(ledger, "holder") == 750
    lease = ledger.get(LEASES, 1)
    assert (lease.lessee, lease.start, lease.low) == (key("one").public, START + DAY, LOW)
    assert ledger.get(SALES, 1).standing == "settled"


def test_a_bid_counts_only_if_the_deposit_covers_it_and_it_is_what_was_committed():
    ledger = sale_stage()
    call = bid("one", ((1,), 900))
    assert (
        ledger.submit(key("one"), CommitBid(1, bid_hash(1, key("one").public, call), 49)).code == "deposit_below_bond"
    )
    commit(ledger, "one", call, 899)
    assert ledger.submit(key("one"), call).code == "not_the_time_to_reveal"
    ledger.advance(START + HOUR)
    assert ledger.submit(key("one"), call).code == "deposit_does_not_cover_the_bid"
    assert ledger.submit(key("one"), bid("one", ((1,), 100))).code == "not_what_was_committed"
    assert ledger.submit(key("two"), call).code == "nothing_committed"


def test_protected_uses_are_part_of_the_feasibility_test():
    use = ProtectedUse(
        key("incumbent").public, 1, LOW, LOW + 10 * MHZ, (CENTRE,), ((START + DAY, START + 2 * DAY),), -100_000, "x"
    )
    ledger = sale_stage(protected=(use,))
    call = bid("one", ((1,), 900))
    commit(ledger, "one", call, 900)
    ledger.advance(START + HOUR)
    assert ledger.submit(key("one"), call).code == "interference"


def test_lots_are_reused_where_bidders_do_not_disturb_one_another():
    ledger = sale_stage("vcg", (1, 2))
    calls = {
        "one": bid("one", ((1,), 900), ((1, 2), 1_500), eirp=-10_000),
        "two": bid("two", ((1,), 800), cells=(FAR,), eirp=-10_000),
        "three": bid("three", ((2,), 700), eirp=-10_000),
    }
    for who, call in calls.items():
        commit(ledger, who, call, 2_000)
    ledger.advance(START + HOUR)
    for who, call in calls.items():
        ledger.expect(key(who), call)
    ledger.advance(START + 2 * HOUR)
    # One and two share lot 1 across the town; one would take lot 2 as well only at 600 more, three values it at 700.
    assert {lease.lessee for _, lease in ledger.scan(LEASES)} == {key(who).public for who in calls}
    assert balance(ledger, "one") == 0
    assert balance(ledger, "two") == 0
    assert balance(ledger, "three") == -600


@pytest.fixture
def waiting(monkeypatch):
    monkeypatch.setattr(spectrum_vcg, "SEARCH_STEPS", 0)
    ledger = sale_stage("vcg", (1, 2))
    calls = {"one": bid("one", ((1,), 900)), "two": bid("two", ((1,), 800)), "three": bid("three", ((2,), 700))}
    for who, call in calls.items():
        commit(ledger, who, call, 2_000)
    ledger.advance(START + HOUR)
    for who, call in calls.items():
        ledger.expect(key(who), call)
    ledger.advance(START + 2 * HOUR)
    assert ledger.get(SALES, 1).standing == "awaiting"
    return ledger


def test_an_outcome_from_outside_stands_after_its_challenge_window(waiting):
    choice = ((0, 0), (2, 0))
    assert waiting.submit(key("two"), ProposeOutcome(1, ((0, 0), (1, 0)), ((), ()))).code == "not_feasible"
    waiting.expect(key("two"), ProposeOutcome(1, choice, (((1, 0), (2, 0)), ((0, 0),))))
    assert waiting.submit(key("three"), ChallengeOutcome(1, 0, ((1, 0), (2, 0)))).code == "not_better"
    waiting.advance(waiting.now + 600_000)
    assert (balance(waiting, "one"), balance(waiting, "two"), balance(waiting, "three")) == (-800, 0, 0)
    assert len(list(waiting.scan(LEASES))) == 2


def test_a_better_choice_overturns_an_outcome_and_wins_the_bond(waiting):
    waiting.expect(key("two"), ProposeOutcome(1, ((1, 0),), (((2, 0),),)))
    waiting.expect(key("three"), ChallengeOutcome(1, 0, ((0, 0), (2, 0))))
    assert waiting.get(SALES, 1).proposed is None
    # Nobody posts again: the greedy rule decides, so that nothing waits for ever.
    waiting.advance(waiting.now + 600_000)
    assert waiting.get(SALES, 1).standing == "settled"
    assert balance(waiting, "two") == -50
    assert balance(waiting, "three") == 50
    assert balance(waiting, "one") == -800


def test_a_payment_that_is_too_low_is_challenged_too(waiting):
    # The proposer forgets that two would have had lot 1 without one.
    waiting.expect(key("one"), ProposeOutcome(1, ((0, 0), (2, 0)), (((2, 0),), ((0, 0),))))
    waiting.expect(key("two"), ChallengeOutcome(1, 1, ((1, 0), (2, 0))))
    assert waiting.get(SALES, 1).proposed is None


def test_idle_bands_for_auction_are_not_leased_directly():
    ledger = sale_stage()
    wish = RequestLease(1, LOW, LOW + 10 * MHZ, (CENTRE,), START, START + DAY, 0)
    assert ledger.submit(key("one"), wish).code == "sold_by_auction_only"
