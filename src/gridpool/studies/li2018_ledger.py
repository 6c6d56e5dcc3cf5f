"""A small energy consortium on a rehearsed ledger, on which the study plays attacks with the real contracts."""

import hashlib
from typing import Any

from gridpool.contracts import coins, credit, energy, members
from gridpool.contracts.coins import Mint, Payment
from gridpool.contracts.credit import AcceptLoan, OfferLoan, RequestLoan, loan_id
from gridpool.contracts.energy import EnergyParameters, MeterReading, NewMeter, PlaceOrder, RegisterMeters
from gridpool.contracts.members import (
    Admit,
    FoundingMember,
    IssueTags,
    MemberParameters,
    NewMember,
    NewSeat,
    NewWallet,
    RegisterWallets,
    Role,
    commitment_of,
    propose,
)
from gridpool.ledger.genesis import Genesis
from gridpool.ledger.keys import KeyPair
from gridpool.ledger.rehearsal import Rehearsal
from gridpool.ledger.rules import Rules
from gridpool.ledger.transaction import Receipt
from gridpool.ledger.types import Call, encode

__all__ = ["HOUR_MS", "INTERVAL_MS", "NAMES", "Consortium"]

HOUR_MS = 3_600_000
INTERVAL_MS = 900_000
NAMES = ("ann", "bob", "cyd", "dan")
START_MS = 1_782_000_000_000 // 86_400_000 * 86_400_000
COINS = 10_000_000


class Consortium:
    """A council, an aggregator with four members of one wallet each, a bank, a back-stop; keys follow from the seed."""

    def __init__(self, seed: int, *, matcher_ms: int = 0, reward_period_ms: int = 24 * HOUR_MS) -> None:
        self.seed = seed
        keeper = self.key("clock keeper")
        self.council, self.aggregator, self.bank = self.key("council"), self.key("aggregator"), self.key("bank")
        self.back_stop, self.market = self.key("back-stop"), self.key("market")
        founders = tuple(
            FoundingMember(key.public, name, (role,))
            for key, name, role in (
                (self.aggregator, "Aggregator", Role.AGGREGATOR),
                (self.bank, "Bank", Role.BANK),
                (self.back_stop, "Back-stop", Role.BACK_STOP),
                (self.market, "Market", Role.UTILITY),
            )
        )
        self.parameters = EnergyParameters(
            back_stop=self.back_stop.public,
            grid=self.market.public,
            market=self.market.public,
            matcher_ms=matcher_ms,
            reward_period_ms=reward_period_ms,
        )
        self.genesis = Genesis(
            chain=f"li2018-{seed}",
            time_ms=START_MS,
            market_clock="ticks",
            clock_keeper=keeper.public,
            parameters=(
                ("members", encode(MemberParameters((NewSeat(self.council.public, "council"),), founders=founders))),
                ("energy", encode(self.parameters)),
            ),
        )
        self.rules = Rules([members.members, coins.coins, energy.energy, credit.credit])
        self.chain = Rehearsal(self.rules, self.genesis, clock_keeper=keeper)
        self.members = {name: self.key(f"member {name}") for name in NAMES}
        self.wallets = {name: self.key(f"wallet {name}") for name in NAMES}
        self.interval = START_MS + 4 * INTERVAL_MS
        self._populate()

    def key(self, name: str) -> KeyPair:
        """Give the key pair of a name."""
        return KeyPair(hashlib.sha256(f"{self.seed} {name}".encode()).digest())

    def balance(self, name: str) -> int:
        """Coins of a member's wallet, in micro-coins."""
        return coins.balance(self.chain.state, self.wallets[name].public)

    def accepted(self, key: KeyPair, *calls: Any) -> bool:
        """Submit calls in a block of their own and say whether the ledger carried them out."""
        return self.chain.submit(key, *calls).ok

    def sent(self, wire: bytes) -> Receipt:
        """Seal a block with raw transaction bytes and return their receipt."""
        return self.chain.carry_out([wire]).receipts[0]

    def tags(self, start: int) -> None:
        """Let the aggregator mark each wallet's member for an interval."""
        marks = tuple(
            (wallet.public, hashlib.sha256(f"{self.seed} {name} {start}".encode()).digest())
            for name, wallet in self.wallets.items()
        )
        self.chain.expect(self.aggregator, IssueTags(start, marks))

    def order(self, name: str, start: int, side: Any, quantity_wh: int, price: int, **more: Any) -> None:
        """Place an order that must be accepted."""
        self.chain.expect(self.wallets[name], PlaceOrder(start, side, quantity_wh, price, **more))

    def close(self, start: int) -> list[energy.Trade]:
        """Let the gate close and the market clear; returns the trades."""
        self.chain.advance(start - self.parameters.lead_ms + self.parameters.matcher_ms)
        return [trade for _, trade in self.chain.scan(energy.TRADES, (start,))]

    def read(self, name: str, start: int, import_wh: int, export_wh: int) -> None:
        """Hand in a member's meter reading."""
        self.chain.expect(self.wallets[name], energy.SubmitReadings((MeterReading(start, import_wh, export_wh),)))

    def settle(self, start: int) -> tuple[Receipt, ...]:
        """Let the initial settlement run and the time of silent consent pass."""
        waited = INTERVAL_MS + self.parameters.initial_ms + self.parameters.consent_intervals * INTERVAL_MS
        return self.chain.advance(start + waited)

    def borrow(self, name: str, sealed: bytes) -> bytes:
        """Let the bank lend to a member; returns the loan, whose token holds the coins."""
        wallet, digest = self.wallets[name], hashlib.sha256(sealed).digest()
        loan = loan_id(wallet.public, digest)
        steps: tuple[tuple[KeyPair, Call], ...] = (
            (wallet, RequestLoan(self.bank.public, digest, sealed)),
            (self.bank, OfferLoan(loan, 1_000, 200_000, True, True)),
            (wallet, AcceptLoan(loan)),
        )
        for key, call in steps:
            self.chain.expect(key, call)
        return loan

    def _populate(self) -> None:
        admitted = tuple(
            NewMember(key.public, "", (Role.PROSUMER,), self.aggregator.public) for key in self.members.values()
        )
        self.chain.expect(self.council, propose(Admit(admitted)))
        entries = [
            NewWallet(wallet.public, commitment_of(self.members[name].public, wallet.public, self.key(name).seed))
            for name, wallet in self.wallets.items()
        ]
        self.chain.expect(self.aggregator, RegisterWallets(tuple(sorted(entries, key=lambda entry: entry.wallet))))
        rich = (self.bank, self.back_stop, self.market)
        payments = tuple(Payment(key.public, 100 * COINS) for key in rich)
        payments += tuple(Payment(wallet.public, COINS) for wallet in self.wallets.values())
        self.chain.expect(self.council, propose(Mint(payments, "start")))
        meters = tuple(NewMeter(wallet.public, "battery", "", 10_000, 10_000) for wallet in self.wallets.values())
        self.chain.expect(self.aggregator, RegisterMeters(meters))
        self.tags(self.interval)
