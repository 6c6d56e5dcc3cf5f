"""A machine that trades, lends, reads, errs and defaults at random, under every rule, and tries to break a promise.

Every block is followed by every invariant of every contract (see ``Rehearsal``); here stand those that only a test can
know: what is reserved is exactly what open orders, commitments, bonds and redemptions need, and all coins are found.
"""

import hashlib

import pytest
from contracts_world import BANK, COUNCIL, DAY, HOUR, HUB, MARKET, QUARTER, START, STOP, World
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from gridpool.contracts import coins, credit, energy, members
from gridpool.contracts.coins import Redeem
from gridpool.contracts.credit import CreditParameters
from gridpool.contracts.energy import AreaFee

NAMES = "abcdef"
names = st.sampled_from(NAMES)
offsets = st.integers(0, 3)
prices = st.integers(0, 12).map(lambda p: p * 30_000)
quantities = st.integers(1, 3_000)


class MarketDay(RuleBasedStateMachine):
    """A few intervals of a small market."""

    @initialize(
        market_rule=st.sampled_from(["uniform", "pay_as_bid", "mcafee", "trade_reduction", "vcg"]),
        rationing=st.sampled_from(["arrival", "pro_rata"]),
        coupled=st.booleans(),
        start_coins=st.sampled_from([0, 1_500_000, 10_000_000]),
        same=st.sampled_from(["", "ab"]),
        sealed=st.booleans(),
    )
    def begin(self, market_rule: str, rationing: str, coupled: bool, start_coins: int, same: str, sealed: bool) -> None:
        self.sealed = sealed
        self.world = World(
            NAMES,
            coins_each=start_coins,
            areas=dict(zip(NAMES, ("north", "south", "north", "south", "west", ""), strict=True)) if coupled else None,
            rule=market_rule,
            rationing=rationing,
            coupling="fee" if coupled and market_rule == "uniform" else "none",
            fees=(AreaFee("north", "south", 20_000), AreaFee("south", "west", 1)),
            sealed=sealed,
            loans=CreditParameters(buffer_ms=4 * HOUR, write_off_ms=3 * DAY, validity_ms=3 * HOUR),
        )
        self.chain = self.world.chain
        self.same = same
        self.secrets: dict[tuple[int, int], tuple[str, str, int, int]] = {}
        self.loans: list[tuple[str, bytes]] = []

    def _start(self, offset: int) -> int:
        return (self.chain.now // QUARTER + 1 + offset) * QUARTER

    def _submit(self, name: str, *calls: object) -> str:
        return self.chain.submit(self.world.wallets[name], *calls).code  # type: ignore[arg-type]

    def _tag(self, start: int) -> None:
        known = {wallet for (_, wallet), _ in self.chain.scan(members.TAGS, (start,))}
        if not known and start > self.chain.now:
            self.world.tags(start, same=self.same)

    @rule(name=names, offset=offsets, side=st.sampled_from(["buy", "sell"]), q=quantities, p=prices, use=st.booleans())
    def order(self, name: str, offset: int, side: str, q: int, p: int, use: bool) -> None:
        start = self._start(offset)
        self._tag(start)
        mine = [loan for owner, loan in self.loans if owner == name]
        loan = mine[-1] if use and mine and side == "buy" else b""
        if not self.sealed:
            self._submit(name, energy.PlaceOrder(start, side, q, p, loan=loan))  # type: ignore[arg-type]
            return
        wallet = self.world.wallets[name].public
        digest = energy.sealed_digest("world", wallet, start, side, q, p, bytes(32))  # type: ignore[arg-type]
        if self._submit(name, energy.CommitOrder(start, digest, energy.cost_of(q, p) + 1, loan)) == "ok":
            interval = self.chain.get(energy.INTERVALS, start)
            assert interval is not None
            self.secrets[start, interval.orders - 1] = (name, side, q, p)

    @rule(
        buys=st.lists(st.tuples(names, quantities, prices), min_size=2, max_size=7),
        sells=st.lists(st.tuples(names, quantities, prices), min_size=2, max_size=7),
        read=st.lists(st.tuples(names, quantities, quantities), max_size=6),
        signs=st.lists(st.tuples(names, st.booleans()), max_size=4),
        later=st.sampled_from([0, 0, 3 * HOUR, DAY]),
    )
    def session(
        self,
        buys: list[tuple[str, int, int]],
        sells: list[tuple[str, int, int]],
        read: list[tuple[str, int, int]],
        signs: list[tuple[str, bool]],
        later: int,
    ) -> None:
        """Play one interval through: orders, clearing, some readings, some yes and no."""
        self.chain.advance((self.chain.now // QUARTER + 1) * QUARTER)
        start = self._start(0)
        for name, q, p in buys:  # mostly above the asks, so that there is something to settle
            self.order(name=name, offset=0, side="buy", q=q, p=p // 2 + 150_000, use=q % 2 == 0)
        for name, q, p in sells:
            self.order(name=name, offset=0, side="sell", q=q, p=p // 2, use=False)
        self.reveal_and_clear(skip=0 if len(buys) % 3 == 0 else 99)
        self.chain.advance(start + QUARTER)
        for name, i, e in read:
            self.world.read(name, start, i, e)
        self.chain.advance(start + QUARTER + HOUR)
        for name, yes in signs:
            self._submit(name, energy.Countersign(start) if yes else energy.Object(start, "no"))
        if later:
            self.chain.advance(self.chain.now + later)
            for name, i, e in read:
                self.world.read(name, start, e, i, "corrected")

    @rule(pick=st.integers(0, 20))
    def cancel(self, pick: int) -> None:
        books = [(start, order) for (start, _), book in self.chain.scan(energy.BOOKS) for order in book.orders]
        if books:
            start, order = books[pick % len(books)]
            name = next(n for n, w in self.world.wallets.items() if w.public == order.wallet)
            self._submit(name, energy.CancelOrder(start, order.serial))

    @rule(pick=st.integers(0, 20), q=quantities, p=prices)
    def replace(self, pick: int, q: int, p: int) -> None:
        books = [(start, order) for (start, _), book in self.chain.scan(energy.BOOKS) for order in book.orders]
        if books:
            start, order = books[pick % len(books)]
            name = next(n for n, w in self.world.wallets.items() if w.public == order.wallet)
            self._submit(name, energy.ReplaceOrder(start, order.serial, q, p))

    @rule(skip=st.integers(0, 3))
    def reveal_and_clear(self, skip: int) -> None:
        start = self._start(0)
        self.chain.advance(max(self.chain.now + 1, start - self.world.market.lead_ms))
        for (when, serial), (name, side, q, p) in self.secrets.items():
            if when == start and serial != skip:
                self._submit(name, energy.RevealOrder(start, serial, side, q, p, bytes(32)))  # type: ignore[arg-type]
        self.chain.advance(start)

    @rule(quarters=st.sampled_from([1, 2, 6, 97, 800]))
    def wait(self, quarters: int) -> None:
        self.chain.advance(self.chain.now + quarters * QUARTER)

    @rule(name=names, back=st.integers(1, 8), i=quantities, e=quantities, late=st.booleans())
    def read(self, name: str, back: int, i: int, e: int, late: bool) -> None:
        start = self.chain.now // QUARTER * QUARTER - back * QUARTER
        self.world.read(name, start, i, e, "corrected" if late else "measured")

    @rule(name=names, back=st.integers(1, 8))
    def say_yes(self, name: str, back: int) -> None:
        self._submit(name, energy.Countersign(self.chain.now // QUARTER * QUARTER - back * QUARTER))

    @rule(name=names, back=st.integers(1, 8))
    def say_no(self, name: str, back: int) -> None:
        self._submit(name, energy.Object(self.chain.now // QUARTER * QUARTER - back * QUARTER, "no"))

    @rule(name=names, back=st.integers(1, 8))
    def miss(self, name: str, back: int) -> None:
        start = self.chain.now // QUARTER * QUARTER - back * QUARTER
        self.chain.submit(HUB, energy.ReportMissing(start, (self.world.wallets[name].public,)))

    @rule(name=names, demand=st.integers(0, 6_000), price=st.integers(1, 400_000))
    def borrow(self, name: str, demand: int, price: int) -> None:
        digest = hashlib.sha256(str(len(self.loans)).encode()).digest()
        loan = credit.loan_id(self.world.wallets[name].public, digest)
        if self._submit(name, credit.RequestLoan(BANK.public, digest)) == "ok":
            self.loans.append((name, loan))
            self.chain.submit(BANK, credit.OfferLoan(loan, demand, price, True, True))
            self._submit(name, credit.AcceptLoan(loan))

    @rule(pick=st.integers(0, 9), amount=st.sampled_from([0, 1, 50_000]), own=st.booleans())
    def repay(self, pick: int, amount: int, own: bool) -> None:
        if self.loans:
            name, loan = self.loans[pick % len(self.loans)]
            self._submit(name, credit.RepayLoan(loan, amount, not own))

    @rule(pick=st.integers(0, 9), to=names, amount=st.integers(0, 300_000))
    def bill(self, pick: int, to: str, amount: int) -> None:
        if self.loans:
            name, loan = self.loans[pick % len(self.loans)]
            self._submit(name, credit.PayBill(loan, self.world.wallets[to].public, amount))

    @rule(name=names, to=names, amount=st.integers(0, 300_000))
    def send(self, name: str, to: str, amount: int) -> None:
        self._submit(name, coins.Transfer(self.world.wallets[to].public, amount))

    @rule(name=names, amount=st.integers(1, 300_000), granted=st.booleans())
    def redeem(self, name: str, amount: int, granted: bool) -> None:
        if self._submit(name, coins.RequestRedemption(amount, "cash")) == "ok" and granted:
            request = next(iter(self.chain.scan(coins.REDEMPTIONS)))[0]
            self.chain.submit(COUNCIL, members.propose(Redeem(request, granted)))

    @invariant()
    def exactly_what_is_needed_is_reserved(self) -> None:
        if not hasattr(self, "world"):
            return
        needed: dict[bytes, int] = {}

        def need(wallet: bytes, amount: int) -> None:
            needed[wallet] = needed.get(wallet, 0) + amount

        for _, book in self.chain.scan(energy.BOOKS):
            for order in book.orders:
                need(order.loan or order.wallet, order.reserved)
        for _, held in self.chain.scan(energy.COMMITMENTS):
            if not held.revealed:
                need(held.loan or held.wallet, held.cap)
        for (_, wallet), position in self.chain.scan(energy.POSITIONS):
            need(wallet, position.bond)
        for _, request in self.chain.scan(coins.REDEMPTIONS):
            need(request.wallet, request.amount)
        for wallet, account in self.chain.scan(coins.ACCOUNTS):
            assert account.reserved == needed.pop(wallet, 0)
        for loan, token in self.chain.scan(credit.TOKENS):
            assert token.reserved == needed.pop(loan, 0)
        assert not any(needed.values())

    def teardown(self) -> None:
        """Let everything fall due: then nothing is held anywhere but in accounts and live tokens."""
        if not hasattr(self, "world"):
            return
        self.chain.advance(self.chain.now + 9 * DAY)
        for _, interval in self.chain.scan(energy.INTERVALS):
            assert interval.status == "final"
        for _, trade in self.chain.scan(energy.TRADES):
            assert trade.status == "paid"
        open_tokens = {credit.token_escrow(loan) for loan, _ in self.chain.scan(credit.TOKENS)}
        assert all(name in open_tokens for name, _ in self.chain.scan(coins.ESCROWS))
        assert not list(self.chain.scan(energy.BOOKS))
        assert self.chain.now > START
        for account in (STOP, MARKET, BANK):
            assert coins.free(self.chain.state, account.public) == coins.balance(self.chain.state, account.public)


TestMarketDay = MarketDay.TestCase
TestMarketDay.settings = settings(
    max_examples=60, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)


RULES = ("uniform", "pay_as_bid", "mcafee", "trade_reduction", "vcg")
wish = st.tuples(names, quantities, prices)
sessions = st.lists(
    st.tuples(
        st.lists(wish, min_size=3, max_size=6),
        st.lists(wish, min_size=3, max_size=6),
        st.lists(st.tuples(names, quantities, quantities), max_size=6),
        st.lists(st.tuples(names, st.booleans()), max_size=4),
        st.sampled_from([0, 3 * HOUR, DAY]),
    ),
    min_size=1,
    max_size=3,
)


@pytest.mark.parametrize("market_rule", RULES)
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    played=sessions,
    rationing=st.sampled_from(["arrival", "pro_rata"]),
    coupled=st.booleans(),
    start_coins=st.sampled_from([1_500_000, 10_000_000]),
    same=st.sampled_from(["", "ab"]),
    sealed=st.booleans(),
    borrowers=names,
)
def test_every_rule_conserves_coins_and_energy_through_all_runs(
    market_rule: str,
    played: list[tuple[list[tuple[str, int, int]], list[tuple[str, int, int]], list, list, int]],  # type: ignore[type-arg]
    rationing: str,
    coupled: bool,
    start_coins: int,
    same: str,
    sealed: bool,
    borrowers: str,
) -> None:
    day = MarketDay()
    day.begin(
        market_rule=market_rule,
        rationing=rationing,
        coupled=coupled,
        start_coins=start_coins,
        same=same,
        sealed=sealed,
    )
    day.borrow(name=borrowers, demand=2_000, price=200_000)
    for buys, sells, read, signs, later in played:
        day.session(buys=buys, sells=sells, read=read, signs=signs, later=later)
        day.exactly_what_is_needed_is_reserved()
    day.teardown()
