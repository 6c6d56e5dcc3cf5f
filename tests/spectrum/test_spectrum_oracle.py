"""A brute-force register over a small area, compared on random histories; and random lives of leases."""

from dataclasses import dataclass

import h3.api.basic_int as h3
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule
from spectrum_stage import CELLS, CENTRE, HOUR, LOSSES, LOW, MHZ, RULES, START, idle, key, stage

from gridpool.agents.spectrum_inquiry import Question, answer
from gridpool.contracts.spectrum_leases import (
    Heartbeat,
    RecallLease,
    RelinquishLease,
    RequestLease,
    ResumeLease,
    SuspendLease,
)
from gridpool.contracts.spectrum_power import density
from gridpool.contracts.spectrum_records import LEASES, LIVE, ProtectedUse
from gridpool.contracts.spectrum_transfers import AcceptSublease, MergeLeases, MoveLease, OfferSublease, SplitLease

PEOPLE = ("one", "two", "three")
GUARDED = CELLS[30]
GUARD_LIMIT = -95_000
USE = ProtectedUse(
    key("incumbent").public,
    1,
    LOW + 40 * MHZ,
    LOW + 50 * MHZ,
    (GUARDED,),
    ((START + 6 * HOUR, START + 12 * HOUR), (START + 30 * HOUR, START + 36 * HOUR)),
    GUARD_LIMIT,
    "test",
)


@dataclass(frozen=True)
class Sent:
    """One lease in the slow register."""

    number: int
    low: int
    high: int
    cells: tuple[int, ...]
    start: int
    end: int
    eirp: int
    general: bool


def touched(low: int, high: int) -> set[int]:
    return set(range(low // RULES.bin_hz, (high - 1) // RULES.bin_hz + 1))


def received(sent: Sent, cell: int, bins: set[int]) -> int:
    """Linear units of a lease at a cell that listens in ``bins``, all its cells together."""
    mine = touched(sent.low, sent.high)
    if mine & bins:
        extra = 0
    elif any(b + 1 in bins or b - 1 in bins for b in mine):
        extra = RULES.adjacent_mdb
    else:
        return 0
    total = 0
    for source in sent.cells:
        ring = h3.grid_distance(source, cell)
        if ring < len(LOSSES.rings[0]):
            total += density(sent.eirp - LOSSES.rings[0][ring] - extra)
    return total


def lawful(leases: list[Sent]) -> bool:
    """Check every limit at every instant at which anything changes, by looking at everything."""
    instants = sorted({time for sent in leases for time in (sent.start, sent.end)} | {w[0] for w in USE.windows})
    for now in instants:
        on = [sent for sent in leases if sent.start <= now < sent.end]
        for one in on:
            for two in on:
                if one.number < two.number and set(one.cells) & set(two.cells):
                    overlap = one.low < two.high and two.low < one.high
                    if overlap and not (one.general and two.general):
                        return False
            if not one.general:
                bins = touched(one.low, one.high)
                for cell in one.cells:
                    level = sum(received(two, cell, bins) for two in on if two.number != one.number)
                    if level > density(RULES.lessee_limit):
                        return False
        if any(a <= now < b for a, b in USE.windows):
            bins = touched(USE.low, USE.high)
            if sum(received(sent, GUARDED, bins) for sent in on) > density(GUARD_LIMIT):
                return False
    return True


class Lives(RuleBasedStateMachine):
    """Leases asked for, moved, divided, passed on, recalled and left to expire; the ledger checks its invariants."""

    leases = Bundle("leases")

    def __init__(self) -> None:
        super().__init__()
        general = idle(
            low=LOW + 60 * MHZ, kind="general", pricing="fixed", price=700, cells=CELLS[:40], transferable=False
        )
        exclusive = idle(high=LOW + 60 * MHZ, pricing="fixed", price=997)
        self.ledger = stage(idle=(exclusive, general), protected=(USE,))
        self.numbers = 0

    def sent(self) -> list[Sent]:
        return [
            Sent(n, at.low, at.high, at.cells, at.start, at.end, at.eirp, at.kind == "general")
            for n, at in self.ledger.scan(LEASES)
            if at.standing in LIVE
        ]

    @rule(
        target=leases,
        who=st.sampled_from(PEOPLE),
        offer=st.sampled_from((1, 1, 2)),
        step=st.integers(0, 5),
        width=st.sampled_from((1, 1, 2, 2, 4, 6)),
        cells=st.lists(st.sampled_from(CELLS[:40]), min_size=1, max_size=2, unique=True),
        begin=st.integers(0, 30),
        hours=st.integers(1, 30),
        eirp=st.sampled_from((-10_000, 0, 10_000, 20_000, 30_000)),
    )
    def ask(self, who, offer, step, width, cells, begin, hours, eirp):
        bins = 6 if offer == 1 else 4
        width = min(width, bins)
        low = LOW + (60 * MHZ if offer == 2 else 0) + 10 * MHZ * min(step, bins - width)
        start = max(START + begin * HOUR, self.ledger.now)
        wish = RequestLease(offer, low, low + 10 * MHZ * width, tuple(sorted(cells)), start, start + hours * HOUR, eirp)
        after = [
            *self.sent(),
            Sent(self.numbers + 1, wish.low, wish.high, wish.cells, start, wish.end, eirp, offer == 2),
        ]
        allowed = lawful(after)
        receipt = self.ledger.submit(key(who), wish)
        assert receipt.ok == allowed, (receipt.code, receipt.info, wish)
        if not receipt.ok:
            return multiple()
        self.numbers += 1
        return self.numbers

    def try_(self, who, call):
        return self.ledger.submit(key(who), call).ok

    def owner(self, number):
        wallet = self.ledger.get(LEASES, number).lessee
        return next(name for name in PEOPLE if key(name).public == wallet)

    @rule(number=leases)
    def beat(self, number):
        before = self.ledger.get(LEASES, number)
        now = self.ledger.now
        done = self.try_(self.owner(number), Heartbeat(number))
        end = min(before.end, before.recalled_at or before.end)
        assert done == (before.standing in ("granted", "authorized") and before.start <= now < end)
        if done:
            assert now < self.ledger.get(LEASES, number).authorized_until <= min(now + 240_000, end)

    @rule(number=leases)
    def recall(self, number):
        self.try_("holder", RecallLease(number))

    @rule(number=consumes(leases))
    def relinquish(self, number):
        self.try_(self.owner(number), RelinquishLease(number))

    @rule(number=leases, on=st.booleans())
    def suspend(self, number, on):
        self.try_("holder", ResumeLease(number) if on else SuspendLease(number, "test"))

    @rule(number=leases, cells=st.lists(st.sampled_from(CELLS[:40]), min_size=1, max_size=2, unique=True))
    def move(self, number, cells):
        before = self.ledger.get(LEASES, number)
        others = [sent for sent in self.sent() if sent.number != number]
        cells = tuple(sorted(cells))
        moved = Sent(
            number, before.low, before.high, cells, before.start, before.end, before.eirp, before.kind == "general"
        )
        possible = before.standing in LIVE and len(cells) == len(before.cells) and lawful([*others, moved])
        assert self.try_(self.owner(number), MoveLease(number, cells)) == possible

    @rule(target=leases, number=leases, by=st.sampled_from(("band", "time", "area")), share=st.integers(1, 3))
    def split(self, number, by, share):
        at = self.ledger.get(LEASES, number)
        where = {
            "band": at.low + 10 * MHZ,
            "time": at.start + share * HOUR,
            "area": 0,
        }[by]
        if self.try_(self.owner(number), SplitLease(number, by, where, at.cells[:1] if by == "area" else ())):
            self.numbers += 1
            return self.numbers
        return multiple()

    @rule(one=leases, two=leases)
    def merge(self, one, two):
        self.try_(self.owner(one), MergeLeases(one, two))

    @rule(number=leases, to=st.sampled_from(PEOPLE), price=st.integers(0, 1000))
    def pass_on(self, number, to, price):
        owner = self.owner(number)
        if to != owner and self.try_(owner, OfferSublease(number, key(to).public, price)):
            assert self.try_(to, AcceptSublease(number, price))

    @rule(minutes=st.integers(1, 900))
    def wait(self, minutes):
        self.ledger.advance(self.ledger.now + minutes * 60_000)

    @invariant()
    def the_slow_register_agrees_that_all_limits_hold(self):
        assert lawful(self.sent())

    @invariant()
    def nothing_outlives_its_end(self):
        for _, lease in self.ledger.scan(LEASES):
            if lease.standing in LIVE:
                assert self.ledger.now < min(lease.end, lease.recalled_at or lease.end)

    @rule(
        cell=st.sampled_from(CELLS[:40]),
        smaller=st.sampled_from((0.0, 300.0)),
        larger=st.sampled_from((700.0, 2_500.0)),
        height=st.sampled_from((5.0, 25.0)),
        who=st.sampled_from(PEOPLE),
    )
    def inquire(self, cell, smaller, larger, height, who):
        lat, lon = h3.cell_to_latlng(cell)
        state = self.ledger.state

        def ask(uncertainty: float, tall: float):
            return answer(
                state,
                Question(lat, lon, uncertainty, tall, LOW, LOW + 100 * MHZ, 10 * MHZ, self.ledger.now, 24 * HOUR),
            ).channels

        sure, unsure = ask(smaller, height), ask(larger, height)
        for channel in unsure:
            assert any(
                near.idle == channel.idle
                and near.low <= channel.low
                and channel.high <= near.high
                and near.max_eirp >= channel.max_eirp
                and near.until >= channel.until
                for near in sure
            ), "uncertainty let a channel grow"
        # What is offered where one certainly is can be had, at its power, until its end.
        for channel in ask(0.0, 5.0)[:1]:
            wish = RequestLease(
                channel.idle,
                channel.low,
                channel.high,
                (cell,),
                self.ledger.now,
                channel.until,
                channel.max_eirp,
            )
            receipt = self.ledger.submit(key(who), wish)
            assert receipt.ok, (receipt.code, receipt.info, channel)
            self.numbers += 1
            assert self.try_(who, RelinquishLease(self.numbers))


def test_a_lease_that_the_asker_may_stand_in_opens_no_channel_that_is_closed_around_it():
    """The lease cuts the offer in two, and the other part disturbs nobody; who stands beside it has no such cut."""
    ledger = stage(idle=(idle(high=LOW + 60 * MHZ),))
    beside = next(cell for cell in CELLS if h3.grid_distance(cell, CENTRE) == 1)
    lease = RequestLease(1, LOW, LOW + 10 * MHZ, (beside,), ledger.now, ledger.now + HOUR, -10_000)
    ledger.expect(key("one"), lease)

    def ask(cell: int, uncertainty: float):
        lat, lon = h3.cell_to_latlng(cell)
        question = Question(lat, lon, uncertainty, 5.0, LOW, LOW + 100 * MHZ, 10 * MHZ, ledger.now, 24 * HOUR)
        return answer(ledger.state, question)

    assert [(part.low, part.high) for part in ask(beside, 0.0).channels] == [(LOW + 10 * MHZ, LOW + 60 * MHZ)]
    assert not ask(CENTRE, 0.0).channels
    unsure = ask(CENTRE, 2_500.0)
    assert unsure.cells > 1
    assert not unsure.channels
    assert {part.reason for part in unsure.refused} == {"leased", "interference here"}


Lives.TestCase.settings = settings(
    deadline=None, max_examples=25, stateful_step_count=25, suppress_health_check=list(HealthCheck)
)
TestLives = Lives.TestCase
