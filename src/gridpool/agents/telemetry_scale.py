"""How validators, aggregators and devices scale: a simulation of intervals from readings to anchored roots.

Each device sends one reading an interval, at a moment spread over ``jitter_s``. An aggregator (``cores`` of them each)
verifies readings as they come, then builds its tree and sends one transaction. Blocks follow each other every
``block_s`` at best; each takes what waits, has to reach all validators over links of ``link_mbit_s``, and is executed.
The rates are those measured on one core of the machine at hand, or what is given.
"""

import time
from collections.abc import Callable
from hashlib import sha256
from typing import Annotated

import msgspec
import numpy as np

from gridpool.contracts.records_tree import Reading, reading_message, reading_row
from gridpool.errors import RefusedInput
from gridpool.ledger.keys import KeyPair, verify

__all__ = ["Rates", "Scaling", "measure_rates", "simulate_scaling"]

MOST_DEVICES = 100_000_000
READING_BYTES = 200
"""A signed reading on its way to the aggregator, with transport overhead."""
ANCHOR_BYTES = 320
"""A transaction that anchors a root."""
VOTE_BYTES = 250
STAGES = ("aggregator_verification", "aggregator_link", "block_execution", "block_dissemination")


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """What one core and one link do: per second, and Mbit/s."""

    verify_per_s: Annotated[float, msgspec.Meta(gt=0)]
    tree_per_s: Annotated[float, msgspec.Meta(gt=0)]
    execute_per_s: Annotated[float, msgspec.Meta(gt=0)]
    link_mbit_s: Annotated[float, msgspec.Meta(gt=0)] = 1_000.0
    round_trip_s: Annotated[float, msgspec.Meta(ge=0)] = 0.04


class Scaling(msgspec.Struct, frozen=True, kw_only=True):
    """A simulated consortium: seconds from a reading to its anchored root, loads of each stage, and the bottleneck.

    ``load`` is busy time over available time; above 1 a stage falls behind for ever (``sustained`` is False).
    ``most_devices`` is how many devices the bottleneck carries: with as many aggregators where it lies in them, with as
    many devices an aggregator where it lies in the ledger.
    """

    devices: int
    aggregators: int
    validators: int
    interval_s: float
    median_s: float
    p99_s: float
    load: dict[str, float]
    bottleneck: str
    sustained: bool
    most_devices: int
    bytes_per_interval: int


def measure_rates(*, seconds: float = 0.3) -> Rates:
    """Measure verification and tree building on this machine; execution counts two verifications an anchor."""
    key = KeyPair(bytes(32))
    row = reading_row(Reading(key.public, 0, 0))
    signature, message = key.sign(reading_message(row)), reading_message(row)
    verifying = _rate(lambda: verify(key.public, signature, message), seconds)
    hashing = _rate(lambda: sha256(row + row).digest(), seconds / 10)
    return Rates(verify_per_s=verifying, tree_per_s=hashing / 6, execute_per_s=verifying / 2)


def simulate_scaling(
    *,
    devices: int,
    aggregators: int,
    validators: int,
    rates: Rates,
    generator: np.random.Generator,
    interval_s: float = 900.0,
    jitter_s: float = 60.0,
    block_s: float = 1.0,
    cores: int = 2,
    intervals: int = 3,
    advance: Callable[[int], None] | None = None,
) -> Scaling:
    """Simulate ``intervals`` with every aggregator's backlog and every block; see the module for the model.
    ``advance`` hears of every hundredth of the work.

    Raises RefusedInput for numbers out of range.
    """
    if not (1 <= devices <= MOST_DEVICES and 1 <= aggregators <= devices and 1 <= validators <= 1_000):
        raise RefusedInput(
            f"1 to {MOST_DEVICES} devices, at most as many aggregators, 1 to 1000 validators; change what lies outside"
        )
    if not (0 < jitter_s <= interval_s and block_s > 0 and cores >= 1 and 1 <= intervals <= 100):
        raise RefusedInput("jitter lies within the interval, and block time, cores and intervals are positive")
    each = np.full(aggregators, devices // aggregators) + (np.arange(aggregators) < devices % aggregators)
    per_reading = 1 / (rates.verify_per_s * cores)
    per_tree = 1 / rates.tree_per_s
    wire = 8 * READING_BYTES / (rates.link_mbit_s * 1e6)
    free = np.zeros(aggregators)
    ready = np.zeros((intervals, aggregators))
    for interval in range(intervals):
        begun = interval * interval_s
        first = begun + jitter_s * generator.beta(1, each)
        # readings come evenly over the jitter: the last to arrive or the backlog decides, whichever ends later
        spread = jitter_s * generator.beta(each, 1)
        busy = each * max(per_reading, wire)
        verified = np.maximum(np.maximum(first, free) + busy, begun + spread)
        ready[interval] = free = verified + each * per_tree
    # dissemination: the proposer sends the block to all others, and all votes go to all
    votes = 2 * validators * VOTE_BYTES * 8 / (rates.link_mbit_s * 1e6)
    fan_out = max(1, validators - 1)
    per_anchor_wire = fan_out * ANCHOR_BYTES * 8 / (rates.link_mbit_s * 1e6)
    per_block = 3 * rates.round_trip_s * (validators > 1) + votes
    waits = np.sort(ready.ravel())
    anchored = np.empty_like(waits)
    executing = sending = 0.0
    clock, at, told = 0.0, 0, 0
    while at < len(waits):
        clock = max(clock, float(waits[at]))
        end = int(np.searchsorted(waits, clock, side="right"))
        count = end - at
        execution, wires = count / rates.execute_per_s, count * per_anchor_wire
        executing, sending = executing + execution, sending + wires
        done = clock + per_block + execution + wires
        anchored[at:end] = done
        clock, at = max(clock + block_s, done), end
        if advance is not None and 100 * at // len(waits) > told:
            advance(100 * at // len(waits) - told)
            told = 100 * at // len(waits)
    order = np.argsort(ready.ravel(), kind="stable")
    latency = np.empty(len(waits))
    latency[order] = anchored
    since = latency - np.repeat(np.arange(intervals) * interval_s, aggregators)
    span = interval_s * intervals
    load = {
        STAGES[0]: float(each.max() * (per_reading + per_tree) / interval_s),
        STAGES[1]: float(each.max() * wire / interval_s),
        STAGES[2]: executing / span,
        STAGES[3]: sending / span,
    }
    worst = max(STAGES, key=lambda stage: load[stage])
    weights = np.tile(each, intervals)
    return Scaling(
        devices=devices,
        aggregators=aggregators,
        validators=validators,
        interval_s=interval_s,
        median_s=_weighted(since, weights, 0.5),
        p99_s=_weighted(since, weights, 0.99),
        load=load,
        bottleneck=worst,
        sustained=load[worst] <= 1,
        most_devices=int(devices / load[worst]),
        bytes_per_interval=ANCHOR_BYTES * aggregators * (1 + fan_out),
    )


def _weighted(values: "np.ndarray[tuple[int, ...], np.dtype[np.float64]]", weights: object, share: float) -> float:
    order = np.argsort(values)
    reached = np.cumsum(np.asarray(weights)[order])
    return float(values[order][np.searchsorted(reached, share * reached[-1])])


def _rate(call: object, seconds: float) -> float:
    assert callable(call)
    count, begun = 0, time.perf_counter()
    while time.perf_counter() - begun < seconds:
        for _ in range(100):
            call()
        count += 100
    return count / (time.perf_counter() - begun)
