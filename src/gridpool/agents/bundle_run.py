"""Played bundles: a scenario's offers and purchases on a ledger in memory, and every way to kill a purchase.

Each purchase is tried with each of its parts killed at each step and in each place of the order, on a ledger of its
own; afterwards nothing may be bound: no capacity promised, no band leased, no coin moved. Then the scenario is played
through, failures included, with all invariants checked after every block.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, dataclass_transform

import msgspec

from gridpool.agents.path_loss_table import losses_for
from gridpool.agents.spectrum_place import cells_under
from gridpool.contracts import coins, members
from gridpool.contracts.coins import CoinParameters
from gridpool.contracts.members import FoundingMember, MemberParameters, Role
from gridpool.contracts.settlement import settlement
from gridpool.contracts.settlement_bundles import (
    BUNDLES,
    GRACE_MS,
    PARTS,
    AdmitFailure,
    BuyBundle,
    OfferPart,
    WithdrawPart,
)
from gridpool.contracts.slices import slices
from gridpool.contracts.slices.pools import PROMISES, Amount, RegisterPool, SetCapacity, peak
from gridpool.contracts.spectrum import spectrum
from gridpool.contracts.spectrum_leases import RequestLease
from gridpool.contracts.spectrum_records import LEASES, LIVE, BandClass, IdleBand, Licence
from gridpool.contracts.spectrum_register import SpectrumParameters
from gridpool.errors import RefusedInput
from gridpool.ledger.genesis import Genesis
from gridpool.ledger.keys import KeyPair
from gridpool.ledger.rehearsal import Rehearsal
from gridpool.ledger.rules import Rules
from gridpool.ledger.transaction import Receipt
from gridpool.ledger.types import Call, encode
from gridpool.markets.netting import Obligation, net

__all__ = ["SCENARIOS", "BundleScenario", "Kill", "Played", "kills", "play", "read_scenario", "run_scenario"]

SCENARIOS = ("offgrid",)
DAY_MS = 86_400_000
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern="^[a-z0-9-]+$")]
Coins = Annotated[int, msgspec.Meta(ge=0, le=10**15)]
Ppm = Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]
Instant = Annotated[datetime, msgspec.Meta(tz=True)]
Step = Literal["withdrawn", "sold", "exhausted", "begun", "unpaid", "repriced"]
STEPS: tuple[Step, ...] = ("withdrawn", "sold", "exhausted", "begun", "unpaid", "repriced")


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(msgspec.field,))
class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of what a scenario file holds: named fields, none unknown."""


class MemberEntry(_Part):
    """A member with its coins."""

    name: Name
    roles: Annotated[tuple[Role, ...], msgspec.Meta(min_length=1, max_length=8)]
    coins: Coins


class PoolEntry(_Part):
    """A pool of resources."""

    name: Name
    operator: Name
    segment: Literal["ran", "transport", "core", "compute", "storage"]
    amounts: dict[str, Coins]


class BandEntry(_Part):
    """The idle band of the scenario, in one cell."""

    holder: Name
    low_hz: Annotated[int, msgspec.Meta(ge=100_000_000, le=10**11)]
    high_hz: Annotated[int, msgspec.Meta(ge=100_000_000, le=10**11)]
    latitude: float
    longitude: float
    price: Coins


class PartEntry(_Part):
    """A part on offer."""

    name: Name
    kind: Literal["slice", "compute", "band", "energy"]
    provider: Name
    start: Instant
    end: Instant
    price: Coins
    penalty_ppm: Ppm
    pool: str = ""
    amounts: dict[str, Coins] = {}
    low_hz: int = 0
    high_hz: int = 0
    eirp_mdbm_per_mhz: int = 0
    quantity_wh: Coins = 0


class BundleEntry(_Part):
    """A purchase."""

    buyer: Name
    parts: Annotated[tuple[Name, ...], msgspec.Meta(min_length=1, max_length=16)]


class FailureEntry(_Part):
    """A part that its provider admits to have served in part only."""

    part: Name
    served_ppm: Ppm


class BundleScenario(_Part):
    """A whole scenario."""

    name: Name
    start: Instant
    members: tuple[MemberEntry, ...]
    parts: tuple[PartEntry, ...]
    bundles: tuple[BundleEntry, ...]
    pools: tuple[PoolEntry, ...] = ()
    band: BandEntry | None = None
    failures: tuple[FailureEntry, ...] = ()


@dataclass(frozen=True, slots=True)
class Kill:
    """One way to stop a purchase: which part, at which step, and how far the order of the parts is turned."""

    bundle: int
    part: str
    step: Step
    turn: int


@dataclass(frozen=True, slots=True)
class Played:
    """What a run came to."""

    bought: int
    price: int
    refused: str
    bound: int
    """Records that bind somebody after a refused purchase: must be 0."""
    changes: dict[str, int]
    """Member -> coins won or lost."""
    settled: dict[str, dict[str, Any]]
    gross: int
    net: int


def read_scenario(name: str) -> BundleScenario:
    """Read a shipped scenario by name, or a file; raises RefusedInput saying what does not fit."""
    where = name
    if name in SCENARIOS:
        data = files("gridpool.agents").joinpath("bundle_scenarios", f"{name}.toml").read_bytes()
    else:
        path = Path(name)
        if not path.is_file():
            raise RefusedInput(f"no scenario {name!r}: neither a file nor one of {', '.join(SCENARIOS)}")
        data = path.read_bytes()
    try:
        scenario = msgspec.toml.decode(data, type=BundleScenario)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise RefusedInput(f"{where}: {error}") from None
    _check(scenario, where)
    return scenario


def run_scenario(scenario: BundleScenario, *, advance: Callable[[], None] | None = None) -> dict[str, Any]:
    """Play a scenario and every kill of it; returns JSON-ready data.

    Raises RefusedInput where the scenario itself cannot be bought.
    """
    killed = []
    for kill in kills(scenario):
        played = play(scenario, kill)
        killed.append(
            {
                "buyer": scenario.bundles[kill.bundle].buyer,
                "part": kill.part,
                "step": kill.step,
                "turn": kill.turn,
                "refused": played.refused,
                "bound": played.bound,
            }
        )
        if advance is not None:
            advance()
    whole = play(scenario, None)
    if whole.refused:
        raise RefusedInput(f"scenario {scenario.name} cannot be bought: {whole.refused}")
    return {
        "scenario": scenario.name,
        "bought": True,
        "bundles": whole.bought,
        "price": whole.price,
        "parts": [{"part": name, **settled} for name, settled in whole.settled.items()],
        "members": whole.changes,
        "gross": whole.gross,
        "net": whole.net,
        "kills": len(killed),
        "bound_after_kills": sum(item["bound"] for item in killed),
        "bought_despite_kill": sum(1 for item in killed if not item["refused"]),
        "killed": killed,
    }


def kills(scenario: BundleScenario) -> Iterator[Kill]:
    """Yield every kill: each bundle, each of its parts, each step that applies, each turn of the order."""
    parts = {part.name: part for part in scenario.parts}
    for number, bundle in enumerate(scenario.bundles):
        for name in bundle.parts:
            for step in STEPS:
                if step == "exhausted" and parts[name].kind == "energy":
                    continue
                if step == "unpaid" and not parts[name].price:
                    continue
                for turn in range(len(bundle.parts)):
                    yield Kill(number, name, step, turn)


def play(scenario: BundleScenario, kill: Kill | None) -> Played:
    """Play a scenario; with ``kill``, up to the purchase that it must stop."""
    stage = _Stage(scenario)
    numbers = stage.offer()
    prices = {part.name: part.price for part in scenario.parts}
    bought = total = 0
    for number, bundle in enumerate(scenario.bundles):
        order = list(bundle.parts)
        price = sum(prices[name] for name in order)
        if kill is not None and kill.bundle == number:
            order = order[kill.turn :] + order[: kill.turn]
            price += stage.stop(kill, bundle, order, numbers)
            before = stage.bindings()
            receipt = stage.submit(bundle.buyer, BuyBundle(tuple(numbers[name] for name in order), price))
            after = stage.bindings()
            return Played(bought, total, "" if receipt.ok else receipt.code, int(before != after), {}, {}, 0, 0)
        receipt = stage.submit(bundle.buyer, BuyBundle(tuple(numbers[name] for name in order), price))
        if not receipt.ok:
            return Played(bought, total, f"{receipt.code} {receipt.info}".strip(), 0, {}, {}, 0, 0)
        bought += 1
        total += price
    return stage.finish(numbers, bought, total)


class _Stage:
    """A scenario's ledger in memory."""

    def __init__(self, scenario: BundleScenario) -> None:
        self.scenario = scenario
        self.keys = {m.name: _key(scenario.name, m.name) for m in scenario.members}
        keeper = _key(scenario.name, "")
        self.start = _ms(scenario.start)
        accounts = tuple(coins.Payment(self.keys[m.name].public, m.coins) for m in scenario.members)
        founders = tuple(FoundingMember(self.keys[m.name].public, m.name, m.roles) for m in scenario.members)
        genesis = Genesis(
            chain=f"bundle-{scenario.name}",
            time_ms=self.start,
            market_clock="ticks",
            clock_keeper=keeper.public,
            max_step_ms=2**60,
            parameters=(
                ("members", encode(MemberParameters(founders=founders))),
                ("coins", encode(CoinParameters(accounts))),
                ("spectrum", encode(self._spectrum())),
            ),
        )
        rules = Rules([members.members, coins.coins, slices, spectrum, settlement])
        self.ledger = Rehearsal(rules, genesis, clock_keeper=keeper)
        for pool in scenario.pools:
            self._expect(pool.operator, RegisterPool(pool.name, pool.segment, (), _amounts(pool.amounts)))

    def submit(self, name: str, *calls: Call) -> Receipt:
        """Submit calls of a member."""
        return self.ledger.submit(self.keys[name], *calls)

    def offer(self) -> dict[str, int]:
        """Put every part on offer; returns their numbers."""
        numbers = {}
        for number, part in enumerate(self.scenario.parts, 1):
            self._expect(
                part.provider,
                OfferPart(
                    part.kind,
                    _ms(part.start),
                    _ms(part.end),
                    part.price,
                    part.penalty_ppm,
                    part.pool,
                    _amounts(part.amounts),
                    self._lease(part) if part.kind == "band" else None,
                    part.quantity_wh,
                ),
            )
            numbers[part.name] = number
        return numbers

    def stop(self, kill: Kill, bundle: BundleEntry, order: list[str], numbers: dict[str, int]) -> int:
        """Do what kills the purchase; returns by how much the buyer's price is wrong."""
        part = next(one for one in self.scenario.parts if one.name == kill.part)
        rival = next(m.name for m in self.scenario.members if m.name not in (bundle.buyer, part.provider))
        if kill.step == "withdrawn":
            self._expect(part.provider, WithdrawPart(numbers[part.name]))
        elif kill.step == "sold":
            self._expect(rival, BuyBundle((numbers[part.name],), part.price))
        elif kill.step == "begun":
            self.ledger.advance(_ms(part.start) + 1)
        elif kill.step == "repriced":
            return -1 if part.price else 1
        elif kill.step == "unpaid":
            prices = {one.name: one.price for one in self.scenario.parts}
            keep = sum(prices[name] for name in order[: order.index(part.name) + 1]) - 1
            have = coins.free(self.ledger.state, self.keys[bundle.buyer].public)
            self._expect(bundle.buyer, coins.Transfer(self.keys[rival].public, have - keep))
        elif part.kind == "band":
            tenants = [m.name for m in self.scenario.members if Role.TENANT in m.roles and m.name != bundle.buyer]
            self._expect(tenants[0], self._lease(part))
        else:
            pool = next(one for one in self.scenario.pools if one.name == part.pool)
            free = peak(self.ledger.state, part.pool, self.ledger.now, 2**62)
            promised = {name: amount - free.get(name, 0) for name, amount in pool.amounts.items()}
            self._expect(part.provider, SetCapacity(part.pool, self.ledger.now, _amounts(promised)))
        return 0

    def bindings(self) -> tuple[object, ...]:
        """Return all that binds anybody: promises, live leases, purchases, sold parts, balances."""
        state = self.ledger.state
        return (
            list(state.scan(PROMISES)),
            [(number, lease) for number, lease in state.scan(LEASES) if lease.standing in LIVE],
            list(state.scan(BUNDLES)),
            list(state.scan(PARTS)),
            list(state.scan(coins.ACCOUNTS)),
            list(state.scan(coins.ESCROWS)),
        )

    def finish(self, numbers: dict[str, int], bought: int, price: int) -> Played:
        """Let time pass, failures be admitted and parts be settled."""
        owed: list[Obligation] = []
        names = {key.public: name for name, key in self.keys.items()}
        parts = {part.name: part for part in self.scenario.parts}
        sold = {name for bundle in self.scenario.bundles for name in bundle.parts}
        for failure in sorted(self.scenario.failures, key=lambda one: parts[one.part].end):
            self.ledger.advance(max(_ms(parts[failure.part].end), self.ledger.now))
            self._expect(parts[failure.part].provider, AdmitFailure(numbers[failure.part], failure.served_ppm))
        self.ledger.advance(max(_ms(part.end) for part in self.scenario.parts) + 2 * GRACE_MS)
        state = self.ledger.state
        settled = {}
        for name in sorted(sold, key=numbers.__getitem__):
            part = state.get(PARTS, numbers[name])
            bundle = None if part is None else state.get(BUNDLES, part.bundle)
            if part is None or bundle is None or part.standing != "settled":
                raise RefusedInput(f"part {name} was not settled")
            refund = part.price * (1_000_000 - part.served_ppm) // 1_000_000
            penalty = part.price * part.penalty_ppm // 1_000_000 * (1_000_000 - part.served_ppm) // 1_000_000
            settled[name] = {
                "kind": part.kind,
                "provider": names[part.provider],
                "buyer": names[bundle.buyer],
                "price": part.price,
                "served_ppm": part.served_ppm,
                "paid": part.price - refund,
                "refunded": refund,
                "penalty": penalty,
            }
            amount = part.price - refund - penalty
            if amount > 0:
                owed.append(Obligation(names[bundle.buyer], names[part.provider], amount))
            elif amount < 0:
                owed.append(Obligation(names[part.provider], names[bundle.buyer], -amount))
        changes = {m.name: coins.balance(state, self.keys[m.name].public) - m.coins for m in self.scenario.members}
        netted = net(owed)
        return Played(bought, price, "", 0, changes, settled, netted.gross, netted.net)

    def _expect(self, name: str, *calls: Call) -> None:
        receipt = self.submit(name, *calls)
        if not receipt.ok:
            raise RefusedInput(
                f"scenario {self.scenario.name}: {name} is refused: {receipt.code} {receipt.info}".strip()
            )

    def _spectrum(self) -> SpectrumParameters:
        band = self.scenario.band
        if band is None:
            return SpectrumParameters()
        width = 10_000_000
        rules = BandClass(
            "local",
            band.low_hz // width * width,
            -(-band.high_hz // width) * width,
            7,
            width,
            45_000,
            -90_000,
            -10_000,
            30_000,
            (10, 30),
        )
        cells = cells_under(band.latitude, band.longitude, 0.0, 7)
        holder = self.keys[band.holder].public
        end = self.start + 30 * DAY_MS
        extent = (band.low_hz, band.high_hz, cells, self.start, end, 30_000)
        return SpectrumParameters(
            classes=((rules, losses_for(rules, 6)),),
            licences=(Licence(holder, 1, *extent, "exclusive", True),),
            idle=(IdleBand(1, holder, 1, *extent, "exclusive", "payg", band.price, 3_600_000, True),),
        )

    def _lease(self, part: PartEntry) -> RequestLease:
        band = self.scenario.band
        if band is None:
            raise RefusedInput("a band part needs [band]")
        cells = cells_under(band.latitude, band.longitude, 0.0, 7)
        return RequestLease(1, part.low_hz, part.high_hz, cells, _ms(part.start), _ms(part.end), part.eirp_mdbm_per_mhz)


def _check(scenario: BundleScenario, where: str) -> None:
    names = {member.name for member in scenario.members}
    parts = [part.name for part in scenario.parts]
    if len(names) != len(scenario.members) or len(set(parts)) != len(parts):
        raise RefusedInput(f"{where}: a name stands twice")
    if not 1970 < scenario.start.year < 9000:
        raise RefusedInput(f"{where}: a scenario starts between the years 1971 and 8999, not at {scenario.start}")
    pools = {pool.name for pool in scenario.pools}
    for what, who in (
        *(("pool", pool.operator) for pool in scenario.pools),
        *(("part", part.provider) for part in scenario.parts),
        *(("bundle", bundle.buyer) for bundle in scenario.bundles),
        *((("band", scenario.band.holder),) if scenario.band is not None else ()),
    ):
        if who not in names:
            raise RefusedInput(f"{where}: a {what} names {who!r}, who is no member")
    if len(names) < 3:
        raise RefusedInput(f"{where}: a scenario has at least three members")
    for part in scenario.parts:
        if part.kind in ("slice", "compute") and part.pool not in pools:
            raise RefusedInput(f"{where}: part {part.name} names pool {part.pool!r}, which there is not")
        if part.kind == "band" and scenario.band is None:
            raise RefusedInput(f"{where}: part {part.name} needs a [band]")
        if not _ms(scenario.start) < _ms(part.start) < _ms(part.end):
            raise RefusedInput(f"{where}: part {part.name} begins after the scenario and before its own end")
    sold = [name for bundle in scenario.bundles for name in bundle.parts]
    for name in (*sold, *(failure.part for failure in scenario.failures)):
        if name not in parts:
            raise RefusedInput(f"{where}: there is no part {name!r}")
    if len(set(sold)) != len(sold):
        raise RefusedInput(f"{where}: a part is bought once")
    unsold = [failure.part for failure in scenario.failures if failure.part not in sold]
    if unsold:
        raise RefusedInput(f"{where}: part {unsold[0]!r} fails, but nobody buys it")
    if not scenario.bundles:
        raise RefusedInput(f"{where}: nobody buys anything")


def _amounts(amounts: dict[str, int]) -> tuple[Amount, ...]:
    try:
        return msgspec.convert([[name, amount] for name, amount in sorted(amounts.items())], tuple[Amount, ...])
    except msgspec.ValidationError as error:
        raise RefusedInput(f"amounts {amounts}: {error}") from None


def _key(scenario: str, name: str) -> KeyPair:
    return KeyPair(hashlib.sha256(f"gridpool/bundle/{scenario}/{name}".encode()).digest())


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)
