"""A curious observer reads the whole ledger and tries to pair the wallets of each member.

Every member trades with one wallet in the first epoch and with another in the second. The observer sees every block,
every stored value and every receipt, and ranks the second epoch's wallets for each wallet of the first by whatever it
can think of. Over many seeds it must do no better than chance; with the openings of a ban it must do perfectly, and
with the pool's key too (else the attack would prove nothing).
"""

import hashlib
from collections.abc import Callable, Sequence

import msgspec
import numpy as np
import pytest
from scipy.stats import binom

from gridpool.agents.aggregator import apply_for, issue_tags, links, openings, register_wallets
from gridpool.agents.wallet_keys import WalletKeys
from gridpool.agents.wallet_sealing import box_key_of
from gridpool.contracts import coins, credit, energy, members
from gridpool.contracts.coins import Mint, Payment
from gridpool.contracts.energy import EnergyParameters, MeterReading, NewMeter, PlaceOrder, SubmitReadings
from gridpool.contracts.members import (
    FOREVER,
    Admit,
    BanMember,
    FoundingMember,
    MemberParameters,
    NewMember,
    NewSeat,
    propose,
)
from gridpool.contracts.members import Role as R
from gridpool.ledger.genesis import Genesis
from gridpool.ledger.keys import KeyPair
from gridpool.ledger.rehearsal import Rehearsal
from gridpool.ledger.rules import Rules
from gridpool.ledger.transaction import Transaction, delegate
from gridpool.ledger.types import encode

QUARTER = 900_000
NOW = 1_782_000_000_000
MEMBERS = 8
EPOCH = 4
SEEDS = 25
Score = Callable[["Ledger", bytes, bytes], float]


class Ledger:
    """A played ledger: what the observer sees, and the truth it does not."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)

        def keys(name: str) -> WalletKeys:
            return WalletKeys(hashlib.sha256(f"{seed} {name}".encode()).digest())

        self.hub, self.council, self.auditor = keys("hub"), keys("council"), keys("auditor")
        hub, stop, clock = self.hub.certificate, keys("stop").certificate, keys("clock").certificate
        register = MemberParameters(
            seats=(NewSeat(self.council.certificate.public, "council"),),
            audit_key=box_key_of(self.auditor.certificate)[0],
            founders=(
                FoundingMember(hub.public, "Hub", (R.AGGREGATOR,)),
                FoundingMember(stop.public, "Back-stop", (R.BACK_STOP,)),
            ),
        )
        market = EnergyParameters(back_stop=stop.public, grid=stop.public, market=stop.public, reward=0)
        genesis = Genesis(
            chain="privacy",
            time_ms=NOW,
            market_clock="ticks",
            clock_keeper=clock.public,
            parameters=(("members", encode(register)), ("energy", encode(market))),
        )
        rules = Rules([members.members, coins.coins, energy.energy, credit.credit])
        self.chain = Rehearsal(rules, genesis, clock_keeper=clock)
        self.blocks: list[Transaction] = []
        self.people = [keys(f"member {i}") for i in range(MEMBERS)]
        self.truth = {p.wallet(0).public: p.wallet(1).public for p in self.people}
        council = self.council.certificate
        parameters = register
        applications = [apply_for(p, f"member {i}", hub.public, parameters, count=2) for i, p in enumerate(self.people)]
        admitted = tuple(
            NewMember(a.key, "", (R.PROSUMER,), hub.public, sealed=a.sealed_identity) for a in applications
        )
        self._send(council, propose(Admit(admitted)))
        for call in register_wallets(applications, valid_until=FOREVER):
            self._send(hub, call)
        wallets = sorted(w for p in self.people for w in (p.wallet(0).public, p.wallet(1).public))
        payments = (*(Payment(w, 5_000_000) for w in wallets), Payment(stop.public, 10**9))
        self._send(council, propose(Mint(payments, "start")))
        meters = tuple(NewMeter(w, "battery", "", 2_000, 2_000) for w in wallets)
        self._send(hub, energy.RegisterMeters(meters))
        nonces: dict[bytes, int] = {}
        for epoch in range(2):
            acting = [p.wallet(epoch) for p in self.people]
            for step in range(EPOCH):
                self._interval(rng, epoch * EPOCH + step, acting, nonces)
        self.chain.advance(NOW + (4 * EPOCH + 12) * QUARTER)

    def _interval(
        self, rng: np.random.Generator, step: int, acting: Sequence[KeyPair], nonces: dict[bytes, int]
    ) -> None:
        start = NOW + (2 * step + 2) * QUARTER
        self.chain.advance(start - QUARTER)
        hub = self.hub.certificate
        pool = links(self.chain.state, hub)
        self._send(hub, issue_tags(self.hub, pool, start, [key.public for key in acting]))
        self._carry(rng, acting, nonces, lambda: _order(rng, start))
        self.chain.advance(start + QUARTER)
        self._carry(rng, acting, nonces, lambda: _reading(rng, start))

    def _carry(
        self,
        rng: np.random.Generator,
        acting: Sequence[KeyPair],
        nonces: dict[bytes, int],
        make: Callable[[], PlaceOrder | SubmitReadings],
    ) -> None:
        carried = []
        for i in rng.permutation(len(acting)):
            wallet = acting[int(i)]
            nonces[wallet.public] = nonces.get(wallet.public, 0) + 1
            carried.append(delegate(wallet, "privacy", nonces[wallet.public], 2**40, make()))
        transaction = self.chain.sign(self.hub.certificate, *carried, mode="each")
        self.blocks.append(transaction)
        (receipt, *_) = self.chain.seal([transaction])
        assert all(result.code == "ok" for result in receipt.results)

    def _send(self, key: KeyPair, *calls: object) -> None:
        transaction = self.chain.sign(key, *calls)  # type: ignore[arg-type]
        self.blocks.append(transaction)
        assert self.chain.seal([transaction])[0].ok

    def hits(self, score: Score) -> int:
        """How many wallets of the first epoch the observer pairs rightly with its best guess."""
        first, second = sorted(self.truth), sorted(self.truth.values())
        found = 0
        for wallet in first:
            best = max(second, key=lambda other: (score(self, wallet, other), other))
            found += best == self.truth[wallet]
        return found

    def orders(self, wallet: bytes) -> list[PlaceOrder]:
        return [
            call.call
            for transaction in self.blocks
            for call in transaction.body.calls
            if getattr(call, "signer", b"") == wallet and isinstance(call.call, PlaceOrder)
        ]

    def places(self, wallet: bytes) -> list[int]:
        return [
            place
            for transaction in self.blocks
            for place, call in enumerate(transaction.body.calls)
            if getattr(call, "signer", b"") == wallet
        ]


def _order(rng: np.random.Generator, start: int) -> PlaceOrder:
    side = "buy" if rng.random() < 0.5 else "sell"
    return PlaceOrder(start, side, int(rng.integers(100, 2_000)), int(rng.integers(80, 300)) * 1_000)  # type: ignore[arg-type]


def _reading(rng: np.random.Generator, start: int) -> SubmitReadings:
    return SubmitReadings((MeterReading(start, int(rng.integers(0, 2_000)), int(rng.integers(0, 2_000))),))


def likeness(feature: Callable[[Ledger, bytes], float]) -> Score:
    return lambda ledger, a, b: -abs(feature(ledger, a) - feature(ledger, b))


def same_bits(a: bytes, b: bytes) -> int:
    return -sum((x ^ y).bit_count() for x, y in zip(a, b, strict=False))


def by_amounts_moved_between(ledger: Ledger, a: bytes, b: bytes) -> float:
    trades = [t for _, t in ledger.chain.scan(energy.TRADES)]
    return sum(t.amount for t in trades if {t.buyer, t.seller} == {a, b})


def by_transfers(ledger: Ledger, a: bytes, b: bytes) -> float:
    sent = [
        msgspec.msgpack.decode(event, type=coins.Transferred)
        for receipt in ledger.chain.receipts.values()
        for event in receipt.events
        if b"coins.transferred" in bytes(event)
    ]
    return sum({transfer.sender, transfer.to} == {a, b} for transfer in sent)


def by_common_partners(ledger: Ledger, a: bytes, b: bytes) -> float:
    def partners(wallet: bytes) -> set[bytes]:
        return {
            t.seller if t.buyer == wallet else t.buyer
            for _, t in ledger.chain.scan(energy.TRADES)
            if wallet in (t.buyer, t.seller)
        }

    return len(partners(a) & partners(b))


def by_tags(ledger: Ledger, a: bytes, b: bytes) -> float:
    def tags(wallet: bytes) -> list[bytes]:
        found = []
        for transaction in ledger.blocks:
            for call in transaction.body.calls:
                if isinstance(call, members.IssueTags):
                    found += [tag for w, tag in call.tags if w == wallet]
        return found

    return max(same_bits(x, y) for x in tags(a) for y in tags(b))


def by_register(ledger: Ledger, a: bytes, b: bytes) -> float:
    records = dict(ledger.chain.scan(members.WALLETS))
    sealed = {wallet: held.data for wallet, held in ledger.chain.scan(members.SEALED)}
    assert len({len(data) for data in sealed.values()}) == 1
    assert (
        len({(record.roles, record.valid_until, record.aggregator) for w, record in records.items() if w in sealed})
        == 1
    )
    return same_bits(records[a].commitment, records[b].commitment) + same_bits(sealed[a], sealed[b])


OBSERVERS: dict[str, Score] = {
    "addresses": lambda ledger, a, b: same_bits(a, b),
    "register entries": by_register,
    "tags": by_tags,
    "order sizes": likeness(lambda ledger, w: float(np.mean([o.quantity_wh for o in ledger.orders(w)]))),
    "prices": likeness(lambda ledger, w: float(np.mean([o.price for o in ledger.orders(w)]))),
    "share of sales": likeness(lambda ledger, w: float(np.mean([o.side == "sell" for o in ledger.orders(w)]))),
    "places in bundles": likeness(lambda ledger, w: float(np.mean(ledger.places(w)))),
    "balances": likeness(lambda ledger, w: coins.balance(ledger.chain.state, w)),
    "transfers between them": by_transfers,
    "trades between them": by_amounts_moved_between,
    "common partners": by_common_partners,
}


@pytest.fixture(scope="module")
def ledgers() -> list[Ledger]:
    return [Ledger(seed) for seed in range(SEEDS)]


def test_observer_links_wallets_no_better_than_chance(ledgers: list[Ledger]) -> None:
    tries = SEEDS * MEMBERS
    most = int(binom.ppf(1 - 0.001 / len(OBSERVERS), tries, 1 / MEMBERS))
    found = {name: sum(ledger.hits(score) for ledger in ledgers) for name, score in OBSERVERS.items()}
    assert all(hits <= most for hits in found.values()), (found, most)


def test_attack_succeeds_with_the_pools_key_and_after_a_ban(ledgers: list[Ledger]) -> None:
    ledger = ledgers[0]
    pool = links(ledger.chain.state, ledger.hub.certificate)

    def with_pool_key(_: Ledger, a: bytes, b: bytes) -> float:
        return float(pool[a].member == pool[b].member)

    assert ledger.hits(with_pool_key) == MEMBERS
    banned = ledger.people[0]
    opened = openings(ledger.chain.state, ledger.auditor.certificate, banned.certificate.public)
    ban = BanMember(banned.certificate.public, NOW + 10**12, "council", "why", opened)
    ledger.chain.expect(ledger.council.certificate, propose(ban))

    def after_ban(_: Ledger, a: bytes, b: bytes) -> float:
        known = [ledger.chain.get(members.OPENINGS, wallet) for wallet in (a, b)]
        return float(None not in known and known[0].member == known[1].member)  # type: ignore[union-attr]

    first, second = banned.wallet(0).public, banned.wallet(1).public
    assert max(ledger.truth.values(), key=lambda other: after_ban(ledger, first, other)) == second
    assert {w for w, _ in ledger.chain.scan(members.OPENINGS)} == {first, second}


def test_same_observer_links_who_pays_from_one_wallet_to_the_other() -> None:
    ledger = Ledger(1_000)
    careless = ledger.people[3]
    first, second = careless.wallet(0), careless.wallet(1)
    ledger.chain.expect(first, coins.Transfer(second.public, 1))
    guesses = sorted(ledger.truth.values())
    assert max(guesses, key=lambda other: by_transfers(ledger, first.public, other)) == second.public
