"""A small market for the tests: tenants, three operators, a probe, and a clock that the test moves."""

import hashlib

from gridpool.contracts import coins, members
from gridpool.contracts.coins import CoinParameters, Payment
from gridpool.contracts.members import FoundingMember, MemberParameters, NewSeat, Role
from gridpool.contracts.slices import slices
from gridpool.contracts.slices.deployment import ConfirmDeployment, ConfirmReservation
from gridpool.contracts.slices.offers import OfferFigures, PlaceOffer
from gridpool.contracts.slices.orders import (
    ORDERS,
    PROGRESS,
    SUBSLICES,
    OrderSlice,
    Request,
    Requirement,
    Schedule,
    SliceMoved,
)
from gridpool.contracts.slices.pools import Amount, RegisterPool
from gridpool.contracts.slices.supervision import IntervalReport, ReportIntervals
from gridpool.contracts.slices.templates import ServiceProfile
from gridpool.contracts.slices.terms import Kpis
from gridpool.ledger.genesis import Genesis
from gridpool.ledger.keys import KeyPair
from gridpool.ledger.rehearsal import Rehearsal
from gridpool.ledger.rules import Rules
from gridpool.ledger.types import decode, encode

MINUTE = 60_000
NOW = 10 * MINUTE
START = 60 * MINUTE
CLOCK, COUNCIL, TENANT, UTILITY, NORTH, SOUTH, WEST, PROBE, OUTSIDER = (KeyPair(bytes([n]) * 32) for n in range(20, 29))
OPERATORS = {"north": NORTH, "south": SOUTH, "west": WEST}
COINS = 1_000_000
SEGMENTS = ("ran", "transport", "core")
GOOD = Kpis(4_000, 4_000, 900, 0, 1_000_000)
BAD = Kpis(4_000, 1_000, 900, 0, 1_000_000)
AMOUNTS = {
    "ran": (Amount("resource_blocks", 6),),
    "transport": (Amount("kbps", 5_000),),
    "core": (Amount("devices", 10),),
}


class Market(Rehearsal):
    """A rehearsal with founded members and pools that can carry two slices at once."""

    def __init__(self, *, deposit_pools=True):
        founders = (
            FoundingMember(TENANT.public, "Tenant", (Role.TENANT,)),
            FoundingMember(UTILITY.public, "Grid", (Role.UTILITY,)),
            FoundingMember(NORTH.public, "North", (Role.OPERATOR,)),
            FoundingMember(SOUTH.public, "South", (Role.OPERATOR,)),
            FoundingMember(WEST.public, "West", (Role.OPERATOR, Role.TENANT, Role.PROBE)),
            FoundingMember(PROBE.public, "Probe", (Role.PROBE,)),
        )
        wallets = (TENANT, UTILITY, NORTH, SOUTH, WEST, PROBE)
        parameters = (
            (
                "members",
                encode(
                    MemberParameters(founders=founders, seats=(NewSeat(COUNCIL.public, "Council", 1),), threshold=1)
                ),
            ),
            ("coins", encode(CoinParameters(tuple(Payment(key.public, COINS) for key in wallets)))),
        )
        genesis = Genesis(
            chain="slices", time_ms=NOW, market_clock="ticks", clock_keeper=CLOCK.public, parameters=parameters
        )
        super().__init__(Rules([members.members, coins.coins, slices]), genesis, clock_keeper=CLOCK)
        if deposit_pools:
            for name, key in OPERATORS.items():
                for segment, amounts in AMOUNTS.items():
                    twice = tuple(Amount(a.resource, 2 * a.amount) for a in amounts)
                    self.expect(key, RegisterPool(f"{name}-{segment}", segment, (), twice))

    def order(self, name="s", key=TENANT, **changes):
        self.expect(key, OrderSlice(name, request(**changes)))

    def offer(self, who, segment, cost, name="s", offer=None, **changes):
        self.expect(OPERATORS[who], offer_call(who, segment, cost, name, offer, **changes))

    def offer_all(self, name="s", prices=(("north", 100), ("south", 110))):
        for who, cost in prices:
            for segment in self.segments(name):
                self.offer(who, segment, cost, name)

    def segments(self, name):
        return [r.segment for r in self.get(ORDERS, (name, self.generation(name))).request.segments]

    def generation(self, name):
        return max(key[1] for key, _ in self.scan(ORDERS, (name,)))

    def progress(self, name="s", generation=None):
        return self.get(PROGRESS, (name, self.generation(name) if generation is None else generation))

    def sub(self, segment, name="s"):
        return self.get(SUBSLICES, (name, self.generation(name), segment))

    def party(self, segment, name="s"):
        public = self.sub(segment, name).party
        return next(key for key in OPERATORS.values() if key.public == public)

    def decide(self, name="s"):
        """Let offers close."""
        self.advance(self.get(ORDERS, (name, self.generation(name))).request.schedule.offers_until)

    def reserve(self, name="s", skip=()):
        for segment in self.segments(name):
            if segment not in skip:
                self.expect(self.party(segment, name), ConfirmReservation(name, segment))

    def deploy(self, name="s", skip=()):
        for segment in self.segments(name):
            if segment not in skip:
                self.expect(self.party(segment, name), ConfirmDeployment(name, segment, digest(segment)))

    def serve(self, name="s"):
        """Bring an order with offers into service."""
        self.decide(name)
        self.reserve(name)
        self.deploy(name)

    def report(self, interval, *, party=GOOD, tenant=GOOD, name="s", segments=None, generation=None, advance=True):
        """Let both sides (None: silent) report an interval of some segments once it is over."""
        generation = self.generation(name) if generation is None else generation
        end = START + (interval + 1) * MINUTE
        if advance and self.now < end:
            self.advance(end)
        receipts = []
        for segment in segments or self.segments(name):
            for key, kpis in ((self.party(segment, name), party), (self.tenant(name), tenant)):
                if kpis is not None:
                    one = IntervalReport(segment, interval, kpis, digest(f"{key.public}{interval}{segment}"), 8)
                    receipts.append(self.submit(key, ReportIntervals(name, generation, (one,))))
        return receipts

    def tenant(self, name):
        public = self.progress(name).tenant
        return next(key for key in (TENANT, UTILITY, WEST) if key.public == public)

    def coins(self, key):
        return coins.balance(self.state, key.public)


def digest(text):
    return hashlib.sha256(str(text).encode()).digest()


def request(segments=("ran", "core"), **changes):
    schedule = {"offers_until": 20 * MINUTE, "confirm_ms": 5 * MINUTE, "deploy_ms": 5 * MINUTE, "report_ms": 2 * MINUTE}
    schedule["dispute_ms"] = 10 * MINUTE
    schedule |= changes.pop("schedule", {})
    figures = {
        "sst": 2,
        "sd": 0x303,
        "profile": ServiceProfile(latency=50_000),
        "segments": tuple(Requirement(segment, AMOUNTS[segment]) for segment in segments),
        "start": START,
        "end": START + 5 * MINUTE,
        "max_delay_us": 50_000,
        "min_bandwidth_kbps": 2_000,
        "max_risk_nano": 20_000,
        "reserve": 1_000,
        "schedule": Schedule(**schedule),
        "deposit": 50,
    }
    return Request(**(figures | changes))


def offer_call(who, segment, cost, name="s", offer=None, **changes):
    figures = {
        "cost": cost,
        "delay_us": 1_000,
        "bandwidth_kbps": 4_000,
        "risk_nano": 1_000,
        "pool": f"{who}-{segment}",
        "valid_until": START + 60 * MINUTE,
    }
    return PlaceOffer(name, segment, offer or f"{who}-{segment}", OfferFigures(**(figures | changes)))


def phases(receipts):
    """List the phases that orders entered, from the events of receipts."""
    moved = []
    for receipt in receipts:
        for event in receipt.events:
            try:
                moved.append(decode(bytes(event), SliceMoved).phase)
            except Exception:
                continue
    return moved
