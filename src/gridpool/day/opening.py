"""How a day's ledger begins: genesis, and the transactions that admit members, mint coins and register links."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from gridpool.contracts import coins, credit, members
from gridpool.contracts.energy_market import (
    EnergyParameters,
    NewMeter,
    Profile,
    RegisterMeters,
    RegisterProfile,
    SetEnergyParameters,
)
from gridpool.contracts.members import Role
from gridpool.contracts.slices.networks import (
    AttestLinks,
    LinkStatement,
    MvnoShare,
    RegisterLinks,
    RegisterNetwork,
)
from gridpool.day.calendar import INTERVAL_MS
from gridpool.day.cast import Cast
from gridpool.day.physics import PhysicalDay
from gridpool.ledger.genesis import Genesis
from gridpool.ledger.keys import KeyPair
from gridpool.ledger.state import State
from gridpool.ledger.types import Call, encode
from gridpool.planner import link_rows, network_row

__all__ = [
    "ASSIGNMENT",
    "CREDIT",
    "NETWORK",
    "OPENS_BEFORE_MS",
    "Proposals",
    "Signed",
    "genesis_of",
    "latest_proposal",
    "opening_steps",
]

T = TypeVar("T")
Signed = tuple[KeyPair, tuple[Call, ...]]
"""Who signs a transaction, and its calls."""

NETWORK = "feeder"
ASSIGNMENT = "day"
PROFILE = "household"
HOUR_MS = 3_600_000
OPENS_BEFORE_MS = 6 * HOUR_MS
"""The ledger begins this long before midnight, so that the first intervals can be traded."""
LEAD_MS = 300_000
CREDIT = credit.CreditParameters(buffer_ms=4 * HOUR_MS)
"""Loans of a day are short: what is not paid back within four hours is late."""
BATCH = 250


def genesis_of(day: PhysicalDay, cast: Cast, chain: str) -> Genesis:
    """Return the day's genesis: three council keys of which two decide, and market time by ticks."""
    seats = tuple(
        members.NewSeat(key.public, name)
        for key, name in zip(cast.council, ("utility", "operator", "aggregator"), strict=True)
    )
    return Genesis(
        chain=chain,
        time_ms=day.calendar.starts_ms[0] - OPENS_BEFORE_MS,
        market_clock="ticks",
        clock_keeper=cast.clock.public,
        validators=((cast.node.public, 1),),
        parameters=(("members", encode(members.MemberParameters(seats=seats, threshold=2))),),
    )


def opening_steps(day: PhysicalDay, cast: Cast) -> list[list[Signed]]:
    """Return the transactions of the first blocks, a list a block."""
    proposals = Proposals(cast)
    return [
        [*proposals.decide(members.Admit(_organisations(cast))), *proposals.decide_all(_prosumers(cast))],
        [
            *_wallets(cast),
            *proposals.decide(SetEnergyParameters(_market(day, cast))),
            *proposals.decide(credit.SetCreditParameters(CREDIT)),
            *proposals.decide_all(_mint(day, cast)),
            *proposals.decide_all(_histories(day, cast)),
        ],
        [*_meters(day, cast), *_links(day, cast)],
    ]


class Proposals:
    """Turns decisions into what council keys sign; proposals are numbered in order, ``after`` being the last."""

    def __init__(self, cast: Cast, *, after: int = 0) -> None:
        self._deciders = cast.deciders
        self._count = after

    def decide(self, decided: members.Decision) -> Iterator[Signed]:
        """Yield the proposal of a decision and the further signatures, the last of which carries it out."""
        self._count += 1
        proposal = members.propose(decided)
        digest = hashlib.sha256(proposal.data).digest()
        first, *others = self._deciders
        yield first, (proposal,)
        for key in others:
            yield key, (members.Approve(self._count, digest),)

    def decide_all(self, decisions: Iterable[members.Decision]) -> Iterator[Signed]:
        """Yield the transactions of several decisions."""
        for decided in decisions:
            yield from self.decide(decided)


def latest_proposal(state: State) -> int:
    """Return the number of the council's last proposal, 0 where there is none."""
    return next((number for number, _ in state.scan(members.PROPOSALS, reverse=True, limit=1)), 0)


def _organisations(cast: Cast) -> tuple[members.NewMember, ...]:
    def organisation(key: KeyPair, name: str, *roles: Role) -> members.NewMember:
        return members.NewMember(key.public, name, roles, public_wallets=(key.public,))

    many = len(cast.aggregators) > 1
    return (
        organisation(cast.utility, "Utility", Role.UTILITY, Role.TENANT),
        organisation(cast.operator, "Operator", Role.OPERATOR),
        *(organisation(key, f"Operator {number}", Role.OPERATOR) for number, key in enumerate(cast.rivals, 2)),
        organisation(cast.back_stop, "Back-stop supplier", Role.BACK_STOP),
        organisation(cast.regulator, "Regulator", Role.REGULATOR),
        *(
            organisation(key, f"Aggregator {i + 1}" if many else "Aggregator", Role.AGGREGATOR)
            for i, key in enumerate(cast.aggregators)
        ),
        *(organisation(key, f"Bank {i + 1}" if many else "Bank", Role.BANK) for i, key in enumerate(cast.banks)),
    )


def _prosumers(cast: Cast) -> Iterator[members.Admit]:
    for batch in _batches(range(len(cast.members))):
        yield members.Admit(
            tuple(
                members.NewMember(
                    cast.members[i].public,
                    "",
                    (Role.PROSUMER,),
                    aggregator=cast.aggregators[cast.aggregator_of(i)].public,
                )
                for i in batch
            )
        )


def _wallets(cast: Cast) -> Iterator[Signed]:
    for number, aggregator in enumerate(cast.aggregators):
        own = [i for i in range(len(cast.wallets)) if cast.aggregator_of(i) == number]
        entries = sorted(
            (
                members.NewWallet(
                    cast.wallets[i].public,
                    members.commitment_of(cast.members[i].public, cast.wallets[i].public, cast.secret("commitment", i)),
                )
                for i in own
            ),
            key=lambda entry: entry.wallet,
        )
        for batch in _batches(entries):
            yield aggregator, (members.RegisterWallets(tuple(batch)),)


def _market(day: PhysicalDay, cast: Cast) -> EnergyParameters:
    market = day.scenario.market
    return EnergyParameters(
        back_stop=cast.back_stop.public,
        grid=cast.utility.public,
        market=cast.aggregators[0].public,
        lead_ms=LEAD_MS,
        tick=market.tick,
        cap=2 * market.retail_price,
        rule="posted" if market.mode == "posted" else market.rule,
        retail=market.retail_price,
        feed_in=market.feed_in_price,
        imbalance_ppm=market.imbalance_ppm,
    )


def _mint(day: PhysicalDay, cast: Cast) -> Iterator[coins.Mint]:
    payments = [
        coins.Payment(cast.back_stop.public, 10**10),
        coins.Payment(cast.utility.public, 10**9),
        coins.Payment(cast.operator.public, 10**8),
        *(coins.Payment(key.public, 10**9) for key in cast.aggregators),
        *(coins.Payment(key.public, day.scenario.credit.bank_coins) for key in cast.banks),
    ]
    payments += [
        coins.Payment(wallet.public, int(amount))
        for wallet, amount in zip(cast.wallets, day.fleet.coins, strict=True)
        if amount > 0
    ]
    for batch in _batches(payments):
        yield coins.Mint(tuple(batch), "coins of the first day")


def _histories(day: PhysicalDay, cast: Cast) -> Iterator[credit.CreditHistory]:
    """The council vouches that prosumers had income before the first day."""
    begun = day.calendar.starts_ms[0] - OPENS_BEFORE_MS
    start = CREDIT.start_value
    for batch in _batches(cast.wallets):
        yield credit.CreditHistory(tuple(credit.History(wallet.public, start, 0, 0, begun) for wallet in batch))


def _meters(day: PhysicalDay, cast: Cast) -> Iterator[Signed]:
    """Register a metering point for each wallet, and the day's profile that stands in for missing readings."""
    fleet = day.fleet
    expected = day.forecast_wh.clip(min=0).mean(axis=0), (-day.forecast_wh).clip(min=0).mean(axis=0)
    shift = day.calendar.starts_ms[0] % 86_400_000 // INTERVAL_MS
    imports, exports = ([0] * 96, [0] * 96)
    for t in range(len(day.calendar)):
        imports[(t + shift) % 96] = round(float(expected[0][t]))
        exports[(t + shift) % 96] = round(float(expected[1][t]))
    yield cast.utility, (RegisterProfile(PROFILE, Profile(tuple(imports), tuple(exports))),)
    efficiency = round(day.scenario.transfer.efficiency * 1_000_000)
    for number, aggregator in enumerate(cast.aggregators):
        own = [i for i in range(len(fleet)) if cast.aggregator_of(i) == number]
        meters = [
            NewMeter(
                cast.wallets[i].public,
                "vehicle" if fleet.is_vehicle[i] else ("charger" if efficiency < 1_000_000 else "battery"),
                "",
                # A connection carries what the plant could ever draw or feed in a quarter hour, forecasts included.
                import_wh=2 * int(max(day.import_wh[i].max(), day.forecast_wh[i].max(), 1)) + 1_000,
                export_wh=2 * int(max(day.export_wh[i].max(), -day.forecast_wh[i].min(), 1)) + 1_000,
                efficiency_ppm=efficiency,
                profile=PROFILE,
            )
            for i in own
        ]
        for batch in _batches(meters):
            yield aggregator, (RegisterMeters(tuple(batch)),)


def _links(day: PhysicalDay, cast: Cast) -> Iterator[Signed]:
    """The operator describes its network and states its links, and the utility attests them."""
    limits = network_row(day.instance)
    yield (
        cast.operator,
        (
            RegisterNetwork(
                NETWORK,
                limits.resource_blocks,
                limits.zones,
                limits.slots,
                limits.urllc_blocks,
                limits.urllc_bps,
                limits.mmtc_bps,
                tuple(MvnoShare(name, blocks) for name, blocks in limits.shares),
            ),
        ),
    )
    links = link_rows(day.instance)
    for batch in _batches(links):
        statements = tuple(
            LinkStatement(row.node, row.cell, row.zone, row.mvno, row.uplink_bps, row.downlink_bps) for row in batch
        )
        yield cast.operator, (RegisterLinks(NETWORK, statements),)
        yield cast.utility, (AttestLinks(NETWORK, tuple(row.node for row in batch)),)


def _batches(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for at in range(0, len(items), BATCH):
        yield items[at : at + BATCH]
