"""A small consortium on a rehearsed ledger, for the tests of the contracts and agents."""

import hashlib
from typing import Any

from gridpool.contracts import coins, credit, energy, members
from gridpool.contracts.coins import Mint, Payment
from gridpool.contracts.credit import CreditParameters
from gridpool.contracts.energy import EnergyParameters, NewMeter, RegisterMeters
from gridpool.contracts.members import (
    Admit,
    Decision,
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
from gridpool.ledger.types import encode

QUARTER = 900_000
HOUR = 3_600_000
DAY = 86_400_000
START = 1_782_000_000_000 // DAY * DAY


def key(name: str) -> KeyPair:
    return KeyPair(hashlib.sha256(name.encode()).digest())


KEEPER, COUNCIL = key("keeper"), key("council")
HUB, BANK, STOP, GRID, MARKET = key("hub"), key("bank"), key("stop"), key("grid"), key("market")


class World:
    """Council, hub (aggregator), bank, back-stop, grid and market accounts, and prosumers with one wallet each."""

    def __init__(
        self, names: str = "abcd", *, coins_each: int = 10_000_000, areas: dict[str, str] | None = None, **market: Any
    ) -> None:
        organisations = (
            FoundingMember(HUB.public, "Hub", (Role.AGGREGATOR,)),
            FoundingMember(BANK.public, "Bank", (Role.BANK,)),
            FoundingMember(STOP.public, "Back-stop", (Role.BACK_STOP,)),
            FoundingMember(GRID.public, "Grid", (Role.UTILITY,)),
            FoundingMember(MARKET.public, "Market", (Role.UTILITY,)),
        )
        loans = market.pop("loans", CreditParameters())
        parameters = EnergyParameters(back_stop=STOP.public, grid=GRID.public, market=MARKET.public, **market)
        self.market = parameters
        genesis = Genesis(
            chain="world",
            time_ms=START,
            market_clock="ticks",
            clock_keeper=KEEPER.public,
            parameters=(
                ("members", encode(MemberParameters((NewSeat(COUNCIL.public, "council"),), founders=organisations))),
                ("energy", encode(parameters)),
                ("credit", encode(loans)),
            ),
        )
        rules = Rules([members.members, coins.coins, energy.energy, credit.credit])
        self.chain = Rehearsal(rules, genesis, clock_keeper=KEEPER)
        self.people = {name: key(f"prosumer {name}") for name in names}
        self.wallets = {name: key(f"wallet {name}") for name in names}
        self.decide(Admit(tuple(NewMember(k.public, "", (Role.PROSUMER,), HUB.public) for k in self.people.values())))
        entries = (
            NewWallet(self.wallets[n].public, commitment_of(self.people[n].public, self.wallets[n].public, bytes(32)))
            for n in names
        )
        self.chain.expect(HUB, RegisterWallets(tuple(sorted(entries, key=lambda entry: entry.wallet))))
        rich = [STOP, BANK, MARKET]
        payments = [Payment(k.public, 1_000_000_000) for k in rich]
        payments += [Payment(self.wallets[n].public, coins_each) for n in names if coins_each]
        self.decide(Mint(tuple(payments), "start"))
        meters = tuple(
            NewMeter(self.wallets[n].public, "battery", (areas or {}).get(n, ""), 100_000, 100_000) for n in names
        )
        self.chain.expect(HUB, RegisterMeters(meters))

    def decide(self, decision: Decision) -> None:
        self.chain.expect(COUNCIL, propose(decision))

    def tags(self, start: int, same: str = "") -> None:
        """Issue tags; the wallets named in ``same`` belong to one member."""
        issued = []
        for name, wallet in self.wallets.items():
            owner = "one member" if name in same else name
            issued.append((wallet.public, hashlib.sha256(f"{owner} {start}".encode()).digest()))
        self.chain.expect(HUB, IssueTags(start, tuple(issued)))

    def balance(self, name: str | KeyPair) -> int:
        wallet = name if isinstance(name, KeyPair) else self.wallets[name]
        return coins.balance(self.chain.state, wallet.public)

    def order(self, name: str, start: int, side: Any, quantity_wh: int, price: int, **more: Any) -> int:
        """Place an order; returns its serial."""
        self.chain.expect(self.wallets[name], energy.PlaceOrder(start, side, quantity_wh, price, **more))
        return self.chain.get(energy.INTERVALS, start).orders - 1  # type: ignore[union-attr]

    def read(self, name: str, start: int, import_wh: int, export_wh: int, quality: Any = "measured") -> str:
        reading = energy.MeterReading(start, import_wh, export_wh, quality)
        return self.chain.submit(self.wallets[name], energy.SubmitReadings((reading,))).code

    def close(self, start: int) -> list[energy.Trade]:
        """Let the gate close and the market clear; returns the trades."""
        self.chain.advance(
            start - self.market.lead_ms + self.market.reveal_ms * self.market.sealed + self.market.matcher_ms
        )
        return [trade for _, trade in self.chain.scan(energy.TRADES, (start,))]
