"""Vehicles on a trip through three areas, and an observer who reads every transaction and links what he can."""

import hashlib
from collections.abc import Callable

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from gridpool.agents.device_wallets import AreaWallets, carried_deposits
from gridpool.agents.wallet_keys import WalletKeys
from gridpool.contracts import coins, devices, members
from gridpool.contracts.coins import Mint, Payment, Transfer
from gridpool.contracts.device_receipts import CoSigned, Receipt, sign_receipt
from gridpool.contracts.devices import OpenDeposit, Settle
from gridpool.contracts.members import (
    Admit,
    FoundingMember,
    MemberParameters,
    NewMember,
    NewSeat,
    NewWallet,
    RegisterWallets,
    Role,
    commitment_of,
    propose,
)
from gridpool.errors import RefusedInput
from gridpool.ledger.genesis import Genesis
from gridpool.ledger.keys import KeyPair
from gridpool.ledger.rehearsal import Rehearsal
from gridpool.ledger.rules import Rules
from gridpool.ledger.transaction import Delegated, Transaction
from gridpool.ledger.types import encode

START = 1_782_000_000_000
DAY, HOUR = 86_400_000, 3_600_000
AREAS = ("west", "middle", "east")
VEHICLES = 8
AMOUNT = 1_000


def key(name: str) -> KeyPair:
    return KeyPair(hashlib.sha256(name.encode()).digest())


KEEPER, HUB = key("keeper"), key("hub")
CHARGERS = {area: key(f"charger {area}") for area in AREAS}


class Trip:
    """A pool of vehicles with one wallet an area; what is sealed is what the observer reads."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.vehicles = [WalletKeys(self.rng.bytes(32)) for _ in range(VEHICLES)]
        founders = (
            FoundingMember(HUB.public, "Hub", (Role.AGGREGATOR,)),
            *(FoundingMember(k.public, area, (Role.OPERATOR,)) for area, k in CHARGERS.items()),
        )
        genesis = Genesis(
            chain="trip",
            time_ms=START,
            market_clock="ticks",
            clock_keeper=KEEPER.public,
            parameters=(
                ("members", encode(MemberParameters((NewSeat(KEEPER.public, "council"),), founders=founders))),
            ),
        )
        self.chain = Rehearsal(Rules([members.members, coins.coins, devices.devices]), genesis, clock_keeper=KEEPER)
        self.seen: list[Transaction] = []
        admitted = (NewMember(v.certificate.public, "", (Role.PROSUMER,), HUB.public) for v in self.vehicles)
        self.seal(KEEPER, propose(Admit(tuple(admitted))))
        entries = (
            NewWallet(v.wallet(i).public, commitment_of(v.certificate.public, v.wallet(i).public, v.salt(i)))
            for v in self.vehicles
            for i in range(len(AREAS))
        )
        self.seal(HUB, RegisterWallets(tuple(sorted(entries, key=lambda entry: entry.wallet))))

    def seal(self, signer: KeyPair, *calls: object, mode: str = "atomic") -> None:
        transaction = self.chain.sign(signer, *calls, mode=mode)  # type: ignore[arg-type]
        (receipt,) = self.chain.seal([transaction])
        assert receipt.ok, (receipt.code, receipt.info)
        assert all(result.code == "ok" for result in receipt.results)
        self.seen.append(transaction)

    def settle(self, area: str, payers: list[KeyPair]) -> None:
        charger = CHARGERS[area]
        for payer in sorted(payers, key=lambda wallet: wallet.public):
            units = int(self.rng.integers(1, 20))
            receipt = Receipt("trip", payer.public, charger.public, 1, units, units * 10)
            signed = CoSigned(
                receipt, sign_receipt(payer, receipt, payer=True), sign_receipt(charger, receipt, payer=False)
            )
            self.seal(charger, Settle(signed))


def rotated(trip: Trip) -> list[list[bytes]]:
    """Wallets change at the borders; all is funded, opened and settled alike and in order of address."""
    wallets = [[v.wallet(i) for i in range(len(AREAS))] for v in trip.vehicles]
    everything = sorted((w for row in wallets for w in row), key=lambda wallet: wallet.public)
    trip.seal(KEEPER, propose(Mint(tuple(Payment(w.public, AMOUNT) for w in everything), "charging")))
    shown: list[list[KeyPair]] = []
    for vehicle in trip.vehicles:
        own = AreaWallets(vehicle, trip.rng.permutation(len(AREAS)).tolist())
        shown.append([own.enter(area) for area in AREAS])
    for i, area in enumerate(AREAS):
        for bundle in carried_deposits(
            "trip", [(row[i], 1) for row in shown], CHARGERS[area].public, AMOUNT, START + 30 * DAY
        ):
            trip.seal(HUB, *bundle, mode="each")
    trip.chain.advance(START + DAY)
    for i, area in enumerate(AREAS):
        trip.settle(area, [row[i] for row in shown])
    return [[wallet.public for wallet in row] for row in shown]


def careless(trip: Trip) -> list[list[bytes]]:
    """Wallets change, but each pays the next one's way, and deposits are opened when it suits."""
    wallets = [[v.wallet(i) for i in range(len(AREAS))] for v in trip.vehicles]
    first = tuple(Payment(row[0].public, 3 * AMOUNT) for row in wallets)
    trip.seal(KEEPER, propose(Mint(first, "charging")))
    for i, area in enumerate(AREAS):
        for number in trip.rng.permutation(VEHICLES):
            row = wallets[number]
            if i:
                trip.seal(row[i - 1], Transfer(row[i].public, (3 - i) * AMOUNT))
            trip.seal(row[i], OpenDeposit(CHARGERS[area].public, AMOUNT, START + 30 * DAY))
        trip.settle(area, [row[i] for row in wallets])
    return [[wallet.public for wallet in row] for row in wallets]


def steady(trip: Trip) -> list[list[bytes]]:
    """One wallet for the whole trip; deposits have numbers of their own."""
    wallets = [v.wallet(0) for v in trip.vehicles]
    trip.seal(KEEPER, propose(Mint(tuple(Payment(w.public, 3 * AMOUNT) for w in wallets), "charging")))
    for area in AREAS:
        for wallet in wallets:
            trip.seal(wallet, OpenDeposit(CHARGERS[area].public, AMOUNT, START + 30 * DAY))
    return [[wallet.public] * len(AREAS) for wallet in wallets]


def observe(seen: list[Transaction]) -> dict[str, list[bytes]]:
    """Read all blocks: which wallets opened a deposit in which area."""
    visits: dict[str, list[bytes]] = {area: [] for area in AREAS}
    by_charger = {wallet.public: area for area, wallet in CHARGERS.items()}
    for transaction in seen:
        for sender, call in acts(transaction):
            if isinstance(call, OpenDeposit):
                visits[by_charger[call.payee]].append(sender)
    return visits


def acts(transaction: Transaction) -> list[tuple[bytes, object]]:
    """List (acting wallet, call), delegated ones by their own signer."""
    return [
        (call.signer, call.call) if isinstance(call, Delegated) else (transaction.body.sender, call)
        for call in transaction.body.calls
    ]


def likeness(seen: list[Transaction], one: bytes, other: bytes) -> float:
    """Score how much two wallets look like one vehicle: identity, payments between them, places in lists, totals."""
    if one == other:
        return 1e6
    score = 0.0
    places: dict[bytes, list[tuple[int, int]]] = {one: [], other: []}
    for at, transaction in enumerate(seen):
        for position, (sender, call) in enumerate(acts(transaction)):
            raw = encode(call)
            named = [wallet for wallet in (one, other) if wallet in raw or wallet == sender]
            if len(named) == 2 and isinstance(call, Transfer):
                score += 1e3
            for wallet in named:
                places[wallet].append((at, position if sender == wallet else raw.find(wallet)))
    pairs = zip(places[one], places[other], strict=False)
    score -= sum(abs(a - c) + abs(b - d) / 100 for (a, b), (c, d) in pairs)
    totals = [
        call.receipt.receipt.total
        for transaction in seen
        for _, call in acts(transaction)
        if isinstance(call, Settle) and call.receipt.receipt.payer in (one, other)
    ]
    return score - (abs(totals[0] - totals[1]) / 100 if len(totals) == 2 else 0)


def linked(behave: Callable[[Trip], list[list[bytes]]], seeds: range) -> float:
    """Give the share of border crossings that the observer's best assignment links right."""
    right = crossings = 0
    for seed in seeds:
        trip = Trip(seed)
        truth = behave(trip)
        visits = observe(trip.seen)
        for here, there in ((0, 1), (1, 2)):
            before, after = visits[AREAS[here]], visits[AREAS[there]]
            assert sorted(before) == sorted(row[here] for row in truth)
            scores = np.array([[likeness(trip.seen, one, other) for other in after] for one in before])
            rows, columns = linear_sum_assignment(-scores)
            pairs = {(row[here], row[there]) for row in truth}
            right += sum((before[r], after[c]) in pairs for r, c in zip(rows, columns, strict=True))
            crossings += len(before)
    return right / crossings


@pytest.mark.slow
def test_an_observer_of_the_ledger_cannot_link_a_trip() -> None:
    """Chance is 1/8 with a standard deviation of about 1/sqrt(number of assignments)/8; the bound is four of them."""
    seeds = range(30)
    share = linked(rotated, seeds)
    bound = 1 / VEHICLES + 4 / VEHICLES / np.sqrt(2 * len(seeds))
    assert share < bound, f"{share:.3f} of the crossings linked, chance is {1 / VEHICLES:.3f}"


def test_the_observer_does_link_who_takes_no_care() -> None:
    """Without this the test above could pass with a blind observer."""
    assert linked(steady, range(1)) == 1.0
    assert linked(careless, range(2)) == 1.0


def test_a_wallet_is_shown_in_one_area_alone() -> None:
    own = AreaWallets(WalletKeys(bytes(32)), [4, 2])
    west = own.enter("west")
    assert own.enter("west").public == west.public == WalletKeys(bytes(32)).wallet(4).public
    assert own.enter("east").public == WalletKeys(bytes(32)).wallet(2).public
    with pytest.raises(RefusedInput, match="register more"):
        own.enter("west")
    with pytest.raises(RefusedInput, match="twice"):
        AreaWallets(WalletKeys(bytes(32)), [1, 1])
