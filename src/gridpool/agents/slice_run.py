"""Play whole life cycles of slices on a ledger of their own: order, offers, choice, service, disputes, money."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from gridpool.agents.slice_parties import (
    MINUTE_MS,
    Party,
    Tenant,
    key_of,
    node_name,
    parties_of,
)
from gridpool.agents.slice_scenario import SliceScenario, minute_of_day
from gridpool.agents.slice_turns import Play, StoryLine, minute
from gridpool.contracts import RULES
from gridpool.contracts.coins import CoinParameters, Payment
from gridpool.contracts.members import FoundingMember, MemberParameters, NewSeat, Role
from gridpool.contracts.slices.networks import AttestLinks
from gridpool.contracts.slices.orders import (
    FINAL,
    PROGRESS,
    SLICES,
    Money,
    sub_slices,
)
from gridpool.contracts.slices.statements import violated_intervals
from gridpool.engines.embedded import Embedded
from gridpool.errors import RefusedInput
from gridpool.ledger.clock import AdvanceClock
from gridpool.ledger.genesis import Genesis
from gridpool.ledger.keys import KeyPair
from gridpool.ledger.state import State
from gridpool.ledger.types import encode

__all__ = ["SliceRun", "play"]

BEFORE_MS = 5 * MINUTE_MS
AFTER_MS = 30 * MINUTE_MS


class SliceRun(msgspec.Struct, frozen=True, kw_only=True):
    """What a played scenario came to.

    ``ordered``, ``awarded``, ``failed`` count slices (one that was arbitrated again counts once; failed are those that
    never came into service); coins in micro-coins, ``escrowed`` = ``paid`` + ``penalties`` + ``refunded`` +
    ``escrow_left``.
    """

    scenario: str
    seed: int
    ordered: int
    awarded: int
    failed: int
    violated_intervals: int
    escrowed: int
    paid: int
    penalties: int
    refunded: int
    escrow_left: int
    height: int
    transactions: int
    refused: int
    app_hash: str
    slices: list[dict[str, Any]]
    story: list[StoryLine]


def play(scenario: SliceScenario, out: Path, *, advance: Callable[[int, int], None] | None = None) -> SliceRun:
    """Play a scenario to its end on a new ledger in the folder ``out``; the result lies there as ``results.json``.

    ``advance(done, total)`` hears of the minutes played. The same scenario gives the same application hash.
    Raises RefusedInput where the folder holds something already.
    """
    if out.exists() and any(out.iterdir()):
        raise RefusedInput(f"{out} is not empty; choose another folder")
    midnight = int(datetime.fromisoformat(scenario.date).replace(tzinfo=UTC).timestamp()) * 1000
    first = midnight + min(minute_of_day(wanted.order_at) for wanted in scenario.slices) * MINUTE_MS - BEFORE_MS
    last = midnight + max(minute_of_day(wanted.start) + wanted.minutes for wanted in scenario.slices) * MINUTE_MS
    tenants = {one.name: Tenant(one, key_of(scenario.seed, "tenant", one.name)) for one in scenario.tenants}
    parties = parties_of(scenario, midnight)
    clock, probe = key_of(scenario.seed, "clock"), key_of(scenario.seed, "probe")
    genesis = _genesis(scenario, tenants, parties, clock, probe, first)
    with Embedded.create(out, genesis, RULES, key=key_of(scenario.seed, "node"), interval_ms=None) as engine:
        game = Play(scenario, engine, genesis.chain, midnight, tenants, parties, clock, probe)
        _open(game, first)
        total = (last + AFTER_MS - first) // MINUTE_MS
        for number in range(1, total + 1):
            now = first + number * MINUTE_MS
            with engine.view() as view:
                calls = minute(game, view.state, now)
            game.seal(now, [(clock, (AdvanceClock(now),)), *calls])
            if advance is not None:
                advance(number, total)
            with engine.view() as view:
                if now >= last and all(progress.phase in FINAL for _, progress in view.state.scan(PROGRESS)):
                    break
        with engine.view() as view:
            played = _summary(scenario, view.state, game, engine)
    partial = out / "results.json.part"
    partial.write_bytes(msgspec.json.format(msgspec.json.encode(played), indent=1) + b"\n")
    partial.rename(out / "results.json")
    return played


def _summary(scenario: SliceScenario, state: State, game: Play, engine: Embedded) -> SliceRun:
    """Add up what a played scenario came to, from the ledger's state."""
    money = [progress.money for _, progress in state.scan(PROGRESS)]
    names = [name for name, _ in state.scan(SLICES)]
    return SliceRun(
        scenario=scenario.title,
        seed=scenario.seed,
        ordered=len(names),
        awarded=len(game.awarded),
        failed=sum(name not in game.served for name in names),
        violated_intervals=violated_intervals(state),
        escrowed=sum(one.escrowed for one in money),
        paid=sum(one.paid for one in money),
        penalties=sum(one.penalties for one in money),
        refunded=sum(one.refunded for one in money),
        escrow_left=sum(one.left for one in money),
        height=engine.height,
        transactions=game.transactions,
        refused=game.refused,
        app_hash=engine.app_hash.hex(),
        slices=[_slice_row(state, key, progress.phase, progress.money) for key, progress in state.scan(PROGRESS)],
        story=game.story,
    )


def _slice_row(state: State, key: tuple[str, int], phase: str, money: Money) -> dict[str, Any]:
    return {
        "slice": key[0],
        "generation": key[1],
        "phase": phase,
        "offers": {segment: sub.offer for segment, sub in sub_slices(state, key).items()},
        "paid": money.paid,
        "penalties": money.penalties,
        "refunded": money.refunded,
    }


def _genesis(
    scenario: SliceScenario,
    tenants: dict[str, Tenant],
    parties: list[Party],
    clock: KeyPair,
    probe: KeyPair,
    first: int,
) -> Genesis:
    founders = [
        *(FoundingMember(one.key.public, one.plan.name, (Role.TENANT,)) for one in tenants.values()),
        *(FoundingMember(one.key.public, one.plan.name, (Role.OPERATOR,)) for one in parties),
        FoundingMember(probe.public, "probe", (Role.PROBE,)),
    ]
    accounts = [
        *(Payment(one.key.public, one.plan.coins) for one in tenants.values()),
        *(Payment(one.key.public, one.plan.coins) for one in parties),
    ]
    council = NewSeat(key_of(scenario.seed, "council").public, "council", 1)
    node = key_of(scenario.seed, "node").public
    return Genesis(
        chain=f"slices-{scenario.date}-{scenario.seed}",
        time_ms=first,
        market_clock="ticks",
        clock_keeper=clock.public,
        validators=((node, 1),),
        parameters=(
            ("members", encode(MemberParameters(founders=tuple(founders), seats=(council,), threshold=1))),
            ("coins", encode(CoinParameters(tuple(accounts)))),
        ),
    )


def _open(game: Play, now: int) -> None:
    wanted = list(game.scenario.slices)
    game.seal(now, [(party.key, tuple(party.opening(wanted))) for party in game.parties])
    attest = [
        AttestLinks(party.network, tuple(node_name(one, n) for n in range(one.devices)))
        for party in game.parties
        if party.offer_for("ran")
        for one in wanted
    ]
    game.seal(now, [(game.probe, tuple(attest))])
