"""One day, end to end: the physical day, the members' transactions, the ledger that keeps them, and what came of it."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from functools import partial
from pathlib import Path

import msgspec

from gridpool.contracts import RULES
from gridpool.day.accounts import day_result
from gridpool.day.calendar import INTERVAL_MS
from gridpool.day.cast import Cast, make_cast
from gridpool.day.network_day import ConsortiumLedger, consortium_of, finality_text
from gridpool.day.opening import OPENS_BEFORE_MS, Signed, genesis_of, opening_steps
from gridpool.day.physics import PhysicalDay, make_physical_day
from gridpool.day.report import report_page
from gridpool.day.results import DayResult, write_results
from gridpool.day.scenario import Scenario
from gridpool.day.slice_market import OPENING_BLOCKS, SliceMarket
from gridpool.day.trading import BLOCKS_AFTERWARDS, LATEST_READING, ORDERS_BEFORE_MS, Trading
from gridpool.engines.embedded import Embedded
from gridpool.engines.engine import Refusal
from gridpool.engines.verifying import VerifyingThreads
from gridpool.errors import GridpoolError, RefusedInput
from gridpool.ledger.chain import Ledger
from gridpool.ledger.clock import AdvanceClock
from gridpool.ledger.execution import market_time
from gridpool.ledger.state import State
from gridpool.ledger.transaction import sign
from gridpool.ledger.verification import verify_ledger

__all__ = ["play_day"]

MANIFEST = "day.json"
FORMAT = 2
NONCES_A_BLOCK = 1_000_000
NEVER_EXPIRES = 2**62
LARGEST_BLOCK = 100_000

Progress = Callable[[str, int], AbstractContextManager[Callable[[], None]]]
"""Opens a progress bar with a title and a number of steps; gives what to call after each."""
Step = Callable[[State], Sequence[Signed]]
"""Gives the transactions of a block from the state before it."""


class Manifest(msgspec.Struct, frozen=True):
    """What a day's folder says of itself: the scenario that it plays."""

    format: int
    scenario: Scenario


@contextmanager
def _silent(title: str, total: int) -> Iterator[Callable[[], None]]:
    yield lambda: None


def play_day(
    scenario: Scenario,
    out: Path,
    *,
    network: Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress = _silent,
) -> DayResult:
    """Play one day into the folder ``out`` and leave its ledger, tables and report there.

    Parameters
    ----------
    scenario
        From ``read_scenario``.
    out
        A new or empty folder; with ``resume`` one that holds this same day, interrupted or not.
    network
        A running consortium (ticks clock) to play against instead of the embedded engine; its ledger stays there.
    resume
        Continue an interrupted day; it ends with the hash it would have had.
    overwrite
        Replace a day that lies in ``out``.
    progress
        Shows how far it is.

    Raises RefusedInput for an unusable feeder or folder.
    """
    _check_folder(scenario, out, resume=resume, overwrite=overwrite)
    if network is not None and resume:
        raise RefusedInput("a day on a consortium cannot be resumed; play it on a fresh network")
    with progress("physical day", 96) as advance:
        day = make_physical_day(scenario, advance)
    consortium = None if network is None else consortium_of(network)
    cast = make_cast(scenario.seed, len(day.fleet), scenario.aggregators, consortium=consortium)
    if overwrite and out.exists():
        shutil.rmtree(out)
    _claim(scenario, out)
    steps = _steps(day, cast)
    if network is None:
        result = _play_embedded(day, cast, steps, out, progress)
    else:
        result = _play_on_consortium(day, cast, steps, network, out, progress)
    write_results(result, out, report_page(result))
    return result


def _play_embedded(day: PhysicalDay, cast: Cast, steps: list[Step], out: Path, progress: Progress) -> DayResult:
    with _engine(day, cast, out) as engine, progress("ledger", len(steps)) as advance:
        for number, step in enumerate(steps):
            if engine.height <= number:
                _seal(engine, number, step)
            advance()
    with closing(VerifyingThreads()) as verifier:
        verification = verify_ledger(out, RULES, verifier=verifier)
    with Ledger.open(out / "ledger", RULES, writable=False) as ledger, ledger.view() as view:
        return day_result(day, cast, view, verified=verification.ok, report=str(out / "report.html"))


def _play_on_consortium(
    day: PhysicalDay, cast: Cast, steps: list[Step], network: Path, out: Path, progress: Progress
) -> DayResult:
    opens = (cast.clock, (AdvanceClock(day.calendar.starts_ms[0] - OPENS_BEFORE_MS),))
    with ConsortiumLedger(network, cast.aggregators[0]) as ledger, progress("consortium", len(steps)) as advance:
        ledger.carry_out(0, [opens])
        for number, step in enumerate(steps, 1):
            with ledger.view() as view:
                signed = step(view.state)
            ledger.carry_out(number, signed)
            advance()
        with closing(VerifyingThreads()) as verifier:
            verification = verify_ledger(ledger.home, RULES, verifier=verifier)
        with ledger.view() as view:
            result = day_result(day, cast, view, verified=verification.ok, report=str(out / "report.html"))
        method = result.method | {
            "ledger": f"consortium of {len(cast.council)} organisations on CometBFT",
            "finality": finality_text(ledger.finality_s),
        }
    return msgspec.structs.replace(result, method=method)


def _steps(day: PhysicalDay, cast: Cast) -> list[Step]:
    """Return what each block holds, in order; block ``n`` of the ledger is step ``n - 1``."""
    trading, slices = Trading(day, cast), SliceMarket(day, cast)
    steps: list[Step] = [partial(_given, block) for block in opening_steps(day, cast)]
    steps += [partial(slices.opening, number) for number in range(OPENING_BLOCKS)]
    for k in range(len(day.calendar) + LATEST_READING):
        steps += [partial(_quarter, trading, slices, k), partial(trading.at_closure, k)]
    return [*steps, *(partial(trading.afterwards, number) for number in range(BLOCKS_AFTERWARDS))]


def _quarter(trading: Trading, slices: SliceMarket, k: int, state: State) -> Sequence[Signed]:
    """Return the block before gate closure of interval ``k``: the energy market's, and reports on the slices."""
    now = trading.day.calendar.starts_ms[0] + k * INTERVAL_MS - ORDERS_BEFORE_MS
    return [*trading.before_closure(k, state), *slices.reports(state, now)]


def _given(block: Sequence[Signed], _: State) -> Sequence[Signed]:
    return block


def _engine(day: PhysicalDay, cast: Cast, out: Path) -> Embedded:
    if (out / "ledger").exists():
        return Embedded.open(out, RULES, interval_ms=None, max_transactions=LARGEST_BLOCK, max_waiting=LARGEST_BLOCK)
    chain = f"day-{day.feeder.name}-{day.scenario.date}-{day.scenario.seed}"
    return Embedded.create(
        out,
        genesis_of(day, cast, chain),
        RULES,
        key=cast.node,
        interval_ms=None,
        max_transactions=LARGEST_BLOCK,
        max_waiting=LARGEST_BLOCK,
    )


def _seal(engine: Embedded, number: int, step: Step) -> None:
    """Sign a block's transactions and seal it. Nonces follow from the block's number, so a resumed day has the same."""
    with engine.view() as view:
        signed = step(view.state)
        now = market_time(view.state)
    for position, (key, calls) in enumerate(signed):
        transaction = sign(
            key, engine.ledger.genesis.chain, number * NONCES_A_BLOCK + position + 1, NEVER_EXPIRES, calls
        )
        answer = engine.submit(transaction.wire)
        if isinstance(answer, Refusal):
            raise GridpoolError(f"block {number + 1}: {answer.code} {answer.info}: {calls!r}")
    engine.seal(max(now, engine.ledger.head.header.time_ms))


def _check_folder(scenario: Scenario, out: Path, *, resume: bool, overwrite: bool) -> None:
    """Refuse a folder that this day must not touch, before anything is computed or written."""
    held = _held(out)
    if held is None:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise RefusedInput(f"{out} holds other files; choose a new or empty folder with --out")
        return
    if overwrite:
        return
    if held.scenario != scenario or held.format != FORMAT:
        raise RefusedInput(f"{out} holds another day; choose another folder with --out, or --overwrite it")
    if not resume:
        raise RefusedInput(f"{out} holds this day already; --resume continues it, --overwrite plays it anew")


def _held(out: Path) -> Manifest | None:
    path = out / MANIFEST
    if not path.is_file():
        return None
    try:
        return msgspec.json.decode(path.read_bytes(), type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise RefusedInput(f"{path} is damaged; choose another folder with --out") from None


def _claim(scenario: Scenario, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    partial = out / f"{MANIFEST}.partial"
    partial.write_bytes(msgspec.json.format(msgspec.json.encode(Manifest(FORMAT, scenario)), indent=1) + b"\n")
    partial.replace(out / MANIFEST)
