"""What members do in each quarter hour: order on forecasts, borrow when short, send readings, pay loans back.

Two blocks an interval. ``before_closure`` (ten minutes before the interval): tags, loans, orders, and the readings
that have come in. ``at_closure`` (five minutes before): market time passes gate closure, the market clears, loans that
fall due are repaid. Every decision follows from the scenario and the ledger's state, so that a day that was
interrupted goes on as it would have.
"""

import hashlib
import hmac
from collections.abc import Iterator

import numpy as np

from gridpool.contracts import coins, credit, members
from gridpool.contracts.energy_market import EnergyParameters, MoveMeter, PostQuote
from gridpool.contracts.energy_orders import PlaceOrder, cost_of
from gridpool.contracts.energy_readings import MeterReading, ReportMissing, SubmitReadings
from gridpool.contracts.energy_settlement import ARREARS, PayArrears
from gridpool.day.calendar import INTERVAL_MS
from gridpool.day.cast import Cast
from gridpool.day.opening import CREDIT, HOUR_MS, LEAD_MS, Proposals, Signed, latest_proposal
from gridpool.day.physics import PhysicalDay
from gridpool.ledger.clock import AdvanceClock
from gridpool.ledger.state import State
from gridpool.ledger.types import Call

__all__ = ["BLOCKS_AFTERWARDS", "LATEST_READING", "ORDERS_BEFORE_MS", "Trading"]

ORDERS_BEFORE_MS = 600_000
MINUTE_MS = 60_000
COIN = 1_000_000
BOND_PPM = EnergyParameters().bond_ppm
LATE_MS = 65 * MINUTE_MS
HOURS_AFTERWARDS = (2, 3, 6, *range(25, 7 * 24 + 2, 24))
"""Market time of the blocks after the day, in hours from its end: the last settlement run is seven days later."""
READ_ON_SITE_HOUR = 6
"""Meters whose link never came back are read on site this long after the day."""
ON_SITE = -1
LATEST_READING = 6
"""A late reading comes in before the sixth interval after its own."""
BLOCKS_AFTERWARDS = len(HOURS_AFTERWARDS) + 3
"""A block carries a bounded amount of due work, so two more let it catch up; the last pays coins out."""
MISSING_AFTER = 5
"""Meters that have said nothing are reported missing this many intervals after the one in question began."""
REPAY_BEFORE_MS = 30 * MINUTE_MS
NEED_AHEAD = 16
"""A borrower asks for what it expects to need in this many intervals."""
VEHICLES_LEAVE, VEHICLES_RETURN = "08:00", "18:00"


class Trading:
    """The members' decisions for one day."""

    def __init__(self, day: PhysicalDay, cast: Cast) -> None:
        self.day = day
        self.cast = cast
        market, count = day.scenario.market, (len(day.fleet), len(day.calendar))
        rng = np.random.default_rng([day.scenario.seed, 1])
        span = (market.retail_price - market.feed_in_price) // market.tick
        # Buyers bid above the middle of the range more often than below it, sellers ask below it.
        self._bids = market.feed_in_price + market.tick * np.rint(span * rng.beta(2.0, 1.4, count)).astype(np.int64)
        self._asks = market.feed_in_price + market.tick * np.rint(span * rng.beta(1.4, 2.0, count)).astype(np.int64)
        self._reliable = rng.random(len(day.fleet)) < day.scenario.credit.repay
        self._readings = _arrivals(day, rng)

    def before_closure(self, k: int, state: State) -> list[Signed]:
        """Return the transactions of the block ten minutes before interval ``k`` (also for ``k`` just past the day)."""
        start = self.day.calendar.starts_ms[0] + k * INTERVAL_MS
        steps: list[Signed] = [(self.cast.clock, (AdvanceClock(start - ORDERS_BEFORE_MS),))]
        if k < len(self.day.calendar):
            steps += self._moves(k)
            steps += self._tags(k, start)
            loans = {held.borrower: loan for loan, held in state.scan(credit.LOANS) if held.status in ("open", "late")}
            for prosumer in range(len(self.day.fleet)):
                steps += self._order(prosumer, k, start, state, loans)
        return steps + list(self._submit(self._readings.get(k, {})))

    def at_closure(self, k: int, state: State) -> list[Signed]:
        """Return the transactions of the block five minutes before interval ``k``, when its gate closes."""
        start = self.day.calendar.starts_ms[0] + k * INTERVAL_MS
        now = start - LEAD_MS
        return [
            (self.cast.clock, (AdvanceClock(now),)),
            *self._missing(k - MISSING_AFTER),
            *self._repayments(now, state),
        ]

    def afterwards(self, number: int, state: State) -> list[Signed]:
        """Return block ``number`` after the day, of ``BLOCKS_AFTERWARDS``.

        They settle the day's last hours, read meters on site, and let the revised and the final runs pass.
        """
        if number >= len(HOURS_AFTERWARDS):
            return self._redemption(state) if number == BLOCKS_AFTERWARDS - 1 else []
        hour = HOURS_AFTERWARDS[number]
        now = self.day.calendar.end_ms + hour * HOUR_MS
        on_site = self._submit(self._readings.get(ON_SITE, {})) if hour == READ_ON_SITE_HOUR else ()
        return [(self.cast.clock, (AdvanceClock(now),)), *on_site, *self._repayments(now, state)]

    def _moves(self, k: int) -> Iterator[Signed]:
        """Vehicles drive to another aggregator's area in the morning and come back in the evening."""
        aggregators = self.cast.aggregators
        if len(aggregators) < 2:
            return
        for clock, shift in ((VEHICLES_LEAVE, 1), (VEHICLES_RETURN, 0)):
            if k != self.day.calendar.interval_at(clock):
                continue
            for i in np.flatnonzero(self.day.fleet.is_vehicle):
                host = aggregators[(self.cast.aggregator_of(int(i)) + shift) % len(aggregators)]
                yield self.cast.wallets[i], (MoveMeter(host.public, ""),)

    def _tags(self, k: int, start: int) -> Iterator[Signed]:
        posted = self.day.scenario.market.mode == "posted"
        for number, aggregator in enumerate(self.cast.aggregators):
            own = [i for i in range(len(self.day.fleet)) if self.cast.aggregator_of(i) == number]
            pool = self.cast.secret("pool", number)
            tags = tuple(
                (self.cast.wallets[i].public, members_tag(pool, self.cast.members[i].public, start)) for i in own
            )
            for at in range(0, len(tags), 2_000):
                yield aggregator, (members.IssueTags(start, tags[at : at + 2_000]),)
            if posted and number == 0:
                yield aggregator, (PostQuote(start, self._quote(k)),)

    def _quote(self, k: int) -> int:
        """Quote between feed-in and retail price, the higher the scarcer the expected surplus."""
        market = self.day.scenario.market
        expected = self.day.forecast_wh[:, k]
        need, surplus = int(expected.clip(min=0).sum()), int((-expected).clip(min=0).sum())
        span = (market.retail_price - market.feed_in_price) // market.tick
        return market.feed_in_price + market.tick * (span * need // max(1, need + surplus))

    def _order(self, i: int, k: int, start: int, state: State, loans: dict[bytes, bytes]) -> Iterator[Signed]:
        wallet = self.cast.wallets[i]
        expected = int(self.day.forecast_wh[i, k])
        posted = self._quote(k) if self.day.scenario.market.mode == "posted" else None
        if expected < 0:
            efficiency = round(self.day.scenario.transfer.efficiency * 1_000_000)
            quantity = -expected * efficiency // 1_000_000
            if quantity and coins.free(state, wallet.public) >= self._bond(quantity):
                price = int(self._asks[i, k]) if posted is None else posted
                yield wallet, (PlaceOrder(start, "sell", quantity, price),)
        elif expected > 0:
            price = int(self._bids[i, k]) if posted is None else posted
            loan = loans.get(wallet.public)
            if coins.free(state, wallet.public) >= cost_of(expected, price):
                yield wallet, (PlaceOrder(start, "buy", expected, price),)
            elif loan is None:
                yield from self._borrow(i, k, start, expected, price, state)
            elif self._valid(loan, state):
                affordable = min(expected, credit.token_free(state, loan) * 1000 // price)
                if affordable:
                    yield wallet, (PlaceOrder(start, "buy", affordable, price, loan=loan),)

    def _bond(self, quantity: int) -> int:
        """Return the coins that back a sale."""
        return cost_of(quantity, self.day.scenario.market.retail_price) * BOND_PPM // 1_000_000

    def _borrow(self, i: int, k: int, start: int, quantity: int, price: int, state: State) -> Iterator[Signed]:
        wallet, bank = self.cast.wallets[i], self.cast.banks[self.cast.aggregator_of(i)]
        digest = self.cast.secret("loan", i, k)
        loan = credit.loan_id(wallet.public, digest)
        yield wallet, (credit.RequestLoan(bank.public, digest),)
        now = start - ORDERS_BEFORE_MS
        account = state.get(coins.ACCOUNTS, wallet.public)
        record = state.get(credit.RECORDS, wallet.public)
        wealth = account is not None and account.balance > 0
        income = account is not None and account.last_income + CREDIT.income_window_ms >= now
        if record is None or not wealth or not income:
            return
        demand = max(1, int(self.day.forecast_wh[i, k : k + NEED_AHEAD].clip(min=0).sum()))
        retail = self.day.scenario.market.retail_price
        offer, _ = credit.price_for(record, CREDIT, demand_wh=demand, price=retail)
        if offer is None or record.value < 0:
            return
        yield bank, (credit.OfferLoan(loan, demand, retail, wealth, income),)
        affordable = min(quantity, offer.amount * 1000 // price)
        order = (PlaceOrder(start, "buy", affordable, price, loan=loan),) if affordable else ()
        yield wallet, (credit.AcceptLoan(loan), *order)

    def _valid(self, loan: bytes, state: State) -> bool:
        held = state.get(credit.LOANS, loan)
        return held is not None and held.status == "open"

    def _repayments(self, now: int, state: State) -> Iterator[Signed]:
        """Reliable members pay what they owe: late bills at once, loans half an hour before it is too late.

        Who is short of coins pays money in, for which the council mints coins.
        """
        owner = {wallet.public: i for i, wallet in enumerate(self.cast.wallets)}
        wanted: dict[int, int] = {}
        calls: dict[int, list[Call]] = {}
        for (debtor, _), owed in state.scan(ARREARS):
            i = owner.get(debtor)
            if i is not None and self._reliable[i]:
                wanted[i] = wanted.get(i, 0) + owed.amount
                calls.setdefault(i, [PayArrears()])
        for loan, held in state.scan(credit.LOANS):
            i = owner.get(held.borrower)
            if i is None or held.status != "open" or not self._reliable[i] or held.due - now > REPAY_BEFORE_MS:
                continue
            left = credit.outstanding(held)
            unspent = min(left, credit.token_free(state, loan))
            wanted[i] = wanted.get(i, 0) + left - unspent
            if unspent:
                calls.setdefault(i, []).append(credit.RepayLoan(loan, unspent, from_token=True))
            if left > unspent:
                calls.setdefault(i, []).append(credit.RepayLoan(loan, left - unspent))
        short = [
            coins.Payment(wallet, amount - coins.free(state, wallet))
            for i, amount in sorted(wanted.items())
            if coins.free(state, wallet := self.cast.wallets[i].public) < amount
        ]
        proposals = Proposals(self.cast, after=latest_proposal(state))
        for at in range(0, len(short), 500):
            yield from proposals.decide(coins.Mint(tuple(short[at : at + 500]), "coins bought to pay what is owed"))
        for i, asked in sorted(calls.items()):
            yield self.cast.wallets[i], tuple(asked)

    def _redemption(self, state: State) -> list[Signed]:
        """Whoever earned more than it began with has whole coins paid out."""
        now = self.day.calendar.end_ms + HOURS_AFTERWARDS[-1] * HOUR_MS
        asked: list[Signed] = []
        decisions: list[members.Decision] = []
        for wallet, begun in zip(self.cast.wallets, self.day.fleet.coins, strict=True):
            gain = coins.free(state, wallet.public) - int(begun)
            if gain < COIN:
                continue
            request = coins.RequestRedemption(gain - gain % COIN, "earned on the day")
            asked.append((wallet, (request,)))
            decisions.append(coins.Redeem(coins.redemption_id(wallet.public, request, now), True))
        proposals = Proposals(self.cast, after=latest_proposal(state))
        return [*asked, *proposals.decide_all(decisions)]

    def _missing(self, k: int) -> Iterator[Signed]:
        """Aggregators name the meters that have not said anything about interval ``k``."""
        if not 0 <= k < len(self.day.calendar):
            return
        start = self.day.calendar.starts_ms[k]
        heard = {
            prosumer
            for at, sent in self._readings.items()
            if 0 <= at <= k + MISSING_AFTER
            for prosumer, readings in sent.items()
            if any(reading.interval == start for reading in readings)
        }
        for number, aggregator in enumerate(self.cast.aggregators):
            silent = tuple(
                self.cast.wallets[i].public
                for i in range(len(self.day.fleet))
                if i not in heard and self.cast.aggregator_of(i) == number and not self.day.fleet.is_vehicle[i]
            )
            if silent:
                yield aggregator, (ReportMissing(start, silent),)

    def _submit(self, sent: dict[int, list[MeterReading]]) -> Iterator[Signed]:
        for prosumer, readings in sent.items():
            yield self.cast.wallets[prosumer], (SubmitReadings(tuple(readings)),)


def members_tag(pool_key: bytes, member: bytes, interval: int) -> bytes:
    """Return the mark of a member in an interval, HMAC(pool key, member || interval), which all its wallets share."""
    return hmac.digest(pool_key, member + interval.to_bytes(8, "big"), hashlib.sha256)


def _arrivals(day: PhysicalDay, rng: np.random.Generator) -> dict[int, dict[int, list[MeterReading]]]:
    """Return which readings arrive when: interval before which (or ``ON_SITE``) -> prosumer -> readings.

    A reading is sent five minutes after its interval if the bus has its uplink then, else when the link is back.
    """
    meters, intervals = day.scenario.meters, len(day.calendar)
    shape = (len(day.fleet), intervals)
    late, missing, corrected = (rng.random(shape) < p for p in (meters.late, meters.missing, meters.corrected))
    misread = 1.0 + 0.1 * rng.standard_normal(shape)
    arrivals: dict[int, dict[int, list[MeterReading]]] = {}
    for i in range(len(day.fleet)):
        for j in range(intervals):
            if missing[i, j]:
                continue
            taken = (int(day.import_wh[i, j]), int(day.export_wh[i, j]))
            at = j + 2 if not late[i, j] else j + 1 + -(-(LATE_MS + ORDERS_BEFORE_MS) // INTERVAL_MS)
            while at <= intervals and not day.reads(i, min(at - 1, intervals - 1)):
                at += 1
            if at > intervals + LATEST_READING - 1 or (at > intervals and not day.reads(i, intervals - 1)):
                at = ON_SITE
            start = day.calendar.starts_ms[j]
            if corrected[i, j] and at != ON_SITE:
                read_in, read_out = (max(0, round(wh * float(misread[i, j]))) for wh in taken)
                arrivals.setdefault(at, {}).setdefault(i, []).append(MeterReading(start, read_in, read_out))
                arrivals.setdefault(ON_SITE, {}).setdefault(i, []).append(MeterReading(start, *taken, "corrected"))
            else:
                arrivals.setdefault(at, {}).setdefault(i, []).append(MeterReading(start, *taken))
    return arrivals
