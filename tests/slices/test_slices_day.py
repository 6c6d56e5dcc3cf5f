"""The day's slices: the utility's two orders from a plan to settlement, with a failed sector in between."""

import datetime
from types import SimpleNamespace

import pytest
from slice_market import CLOCK, COUNCIL, MINUTE, NORTH, TENANT

from gridpool.contracts import coins, members
from gridpool.contracts.coins import CoinParameters, Payment
from gridpool.contracts.members import FoundingMember, MemberParameters, NewSeat, Role
from gridpool.contracts.slices import slices
from gridpool.contracts.slices.networks import AttestLinks, LinkStatement, MvnoShare, RegisterLinks, RegisterNetwork
from gridpool.contracts.slices.orders import PROGRESS
from gridpool.contracts.slices.supervision import VERDICTS
from gridpool.day.opening import OPENS_BEFORE_MS
from gridpool.day.scenario import Slices
from gridpool.day.slice_market import OPENING_BLOCKS, SliceMarket
from gridpool.day.slice_story import _renewal
from gridpool.ledger.genesis import Genesis
from gridpool.ledger.keys import KeyPair
from gridpool.ledger.rehearsal import Rehearsal
from gridpool.ledger.rules import Rules
from gridpool.ledger.types import encode

QUARTER = 15 * MINUTE
MIDNIGHT = 1_782_000_000_000
COUNT = 8


def made_up_day(lost):
    """Two nodes with both slices and one with mMTC alone; node ``b`` has no link in the intervals ``lost``."""
    blocks = {
        ("a", "mmtc"): (0,),
        ("b", "mmtc"): (1,),
        ("c", "mmtc"): (2,),
        ("a", "urllc"): (3, 4),
        ("b", "urllc"): (5, 6),
    }
    grants = [
        SimpleNamespace(node=node, slice=kind, cell=1, zone=0, mvno="u", slot=0, resource_blocks=b, rate_bps=2_000_000)
        for (node, kind), b in blocks.items()
    ]
    links = tuple(
        SimpleNamespace(
            observed=tuple(n for n in "abc" if n != "b" or k not in lost),
            controlled=tuple(n for n in "ab" if n != "b" or k not in lost),
        )
        for k in range(COUNT)
    )
    local = tuple(datetime.datetime(2026, 6, 21) + k * datetime.timedelta(minutes=15) for k in range(COUNT))

    class Calendar(SimpleNamespace):
        def __len__(self):
            return COUNT

    starts = tuple(MIDNIGHT + k * QUARTER for k in range(COUNT))
    return SimpleNamespace(
        calendar=Calendar(starts_ms=starts, end_ms=MIDNIGHT + COUNT * QUARTER, local=local),
        allocation=SimpleNamespace(grants=grants),
        links=links,
        scenario=SimpleNamespace(seed=1, slices=Slices()),
    )


def play(day):
    cast = SimpleNamespace(
        clock=CLOCK,
        utility=TENANT,
        operator=NORTH,
        rivals=(KeyPair(b"2" * 32), KeyPair(b"3" * 32)),
    )
    market = SliceMarket(day, cast)
    founders = (
        FoundingMember(TENANT.public, "Utility", (Role.UTILITY, Role.TENANT)),
        FoundingMember(NORTH.public, "Operator", (Role.OPERATOR,)),
        *(FoundingMember(key.public, "Rival", (Role.OPERATOR,)) for key in cast.rivals),
    )
    seats = (NewSeat(COUNCIL.public, "Council", 1),)
    genesis = Genesis(
        chain="day",
        time_ms=MIDNIGHT - OPENS_BEFORE_MS,
        market_clock="ticks",
        clock_keeper=CLOCK.public,
        parameters=(
            ("members", encode(MemberParameters(founders=founders, seats=seats, threshold=1))),
            ("coins", encode(CoinParameters((Payment(TENANT.public, 10**9),)))),
        ),
    )
    chain = Rehearsal(Rules([members.members, coins.coins, slices]), genesis, clock_keeper=CLOCK)
    chain.expect(NORTH, RegisterNetwork("feeder", 20, (20, 0, 0, 0), 1, 20, 1, 1, (MvnoShare("u", 20),)))
    links = tuple(LinkStatement(n, 1, 0, "u", (2_000_000,), (1_000_000,)) for n in "abc")
    chain.expect(NORTH, RegisterLinks("feeder", links))
    chain.expect(TENANT, AttestLinks("feeder", tuple("abc")))
    for number in range(OPENING_BLOCKS):
        carry_out(chain, market.opening(number, chain.state))
    for k in range(COUNT + 8):
        now = MIDNIGHT + k * QUARTER - 10 * MINUTE
        chain.advance(now)
        carry_out(chain, market.reports(chain.state, now))
        chain.advance(now + 5 * MINUTE)
    return chain


def carry_out(chain, signed):
    for key, calls in signed:
        receipt = chain.submit(key, *calls)
        assert receipt.ok, (receipt.code, receipt.info, calls)


@pytest.mark.parametrize("lost", [(), (3, 4, 5)])
def test_the_days_slices_are_settled_and_a_failed_sector_costs_its_operator(lost):
    chain = play(made_up_day(lost))
    for name in ("metering", "control"):
        progress = chain.get(PROGRESS, (name, 0))
        assert progress.phase == "settled"
        assert progress.money.left == 0
        verdicts = {key[2:]: verdict for key, verdict in chain.scan(VERDICTS, (name,))}
        assert len(verdicts) == 3 * COUNT
        assert {key for key, verdict in verdicts.items() if verdict.severity} == {("ran", k) for k in lost}
        assert {verdict.basis for verdict in verdicts.values()} == {"agreed"}
        assert (progress.money.penalties > 0) == bool(lost)


def test_a_day_whose_plan_serves_nobody_orders_nothing():
    day = made_up_day(())
    day.allocation.grants.clear()
    market = SliceMarket(day, SimpleNamespace(operator=NORTH, rivals=()))
    assert market.opening(0, None) == []


def violated(*intervals, segment="ran"):
    return [SimpleNamespace(segment=segment, interval=k) for k in intervals]


def offered(*parties, segment="ran"):
    return [SimpleNamespace(segment=segment, party=party, chosen=party == "north") for party in parties]


@pytest.mark.parametrize(
    ("offers", "violations", "words"),
    [
        (offered("north"), [], ""),
        (offered("north", "south"), violated(1, 2, 4, 5, 8), "at most 2, so it went on"),
        (offered("north"), violated(1, 2, 3), "nobody else had offered ran"),
        (offered("north", "south", "west"), violated(1, 5, 6, 7), "2 operators more had offered ran"),
        (offered("north") + offered("south", segment="core"), violated(1, 2, 3), "nobody else had offered ran"),
        (offered("north"), violated(1, 2) + violated(3, segment="core"), "at most 2, so it went on"),
    ],
)
def test_the_report_says_why_a_slice_was_not_arbitrated_again(offers, violations, words):
    said = _renewal(3, offers, violations)
    assert words in said
    assert bool(said) == bool(violations)
