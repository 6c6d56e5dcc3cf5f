"""Monte Carlo results with intervals, the same for both engines."""

import time
from collections.abc import Sequence
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from gridpool.errors import RefusedInput
from gridpool.lab.access import Access, require_stable
from gridpool.lab.attack import Attack
from gridpool.lab.inclusion import inclusion
from gridpool.lab.lanes import lanes_replicas, load_lanes
from gridpool.lab.races import race_lanes, race_trials
from gridpool.lab.recursion import bin_edges, recursion_replicas

__all__ = ["Engine", "Simulated", "check_size", "simulate_attack", "simulate_latency", "simulate_latency_curve"]

Engine = Literal["recursion", "lanes"]

_LARGEST_EVENTS = 10**12
_MOST_REPLICAS = 4096


class Simulated(msgspec.Struct, frozen=True, kw_only=True):
    """One Monte Carlo estimate; what an engine does not measure is None.

    ``mean`` is the mean latency without the service itself, in units of time (of attacks: the probability of
    success), ``ci95`` its 95 % interval from independent replicas, ``p50`` to ``p99`` percentiles of the same latency,
    ``pending_mean`` and ``links_mean`` the mean numbers pending and at the links, ``service_wait`` the mean wait for a
    link with its interval ``service_wait_ci95``, ``rejected_share`` the share of requests rejected, ``race_blocks``
    the mean number of blocks of the race. ``events`` counts steps (of attacks: trials) over all replicas, warm-up
    included; ``seconds`` and ``events_per_s`` time the whole call that gave this result.
    """

    mean: float
    ci95: tuple[float, float]
    p50: float | None
    p90: float | None
    p99: float | None
    pending_mean: float | None
    links_mean: float | None
    events: int
    seconds: float
    events_per_s: float
    engine: Engine
    replicas: int
    seed: int
    service_wait: float | None = None
    service_wait_ci95: tuple[float, float] | None = None
    rejected_share: float | None = None
    race_blocks: float | None = None


def simulate_latency(access: Access, *, engine: Engine, events: int, replicas: int, seed: int) -> Simulated:
    """Simulate one network.

    Raises RefusedInput for an unstable network, fewer than 2 replicas, or too few events.
    """
    return simulate_latency_curve([access], engine=engine, events=events, replicas=replicas, seed=seed)[0]


def simulate_latency_curve(
    networks: Sequence[Access], *, engine: Engine, events: int, replicas: int, seed: int
) -> list[Simulated]:
    """Simulate several networks, each for ``events`` events; the lanes engine takes them all at once.

    Raises RefusedInput for an unstable network, fewer than 2 replicas, or too few events.
    """
    check_size(events, replicas)
    for access in networks:
        require_stable(access, inclusion(access).accepted_share)
    rng = np.random.default_rng(seed)
    if engine == "lanes":
        # A first short run loads the compiled kernels, which is not what is timed.
        load_lanes()
        start = time.perf_counter()
        figures, made = lanes_replicas(networks, events=events, replicas=replicas, rng=rng)
        seconds = time.perf_counter() - start
        rate = made * len(networks) / seconds
        return [_result(rows, None, made, seconds, rate, engine, seed) for rows in figures]
    if engine != "recursion":
        raise RefusedInput(f"--engine must be recursion or lanes, not {engine}")
    recursion_replicas(networks[0], events=10, replicas=1, rng=np.random.default_rng(seed))
    results = []
    for access in networks:
        start = time.perf_counter()
        rows, histogram = recursion_replicas(access, events=events, replicas=replicas, rng=rng)
        seconds = time.perf_counter() - start
        percentiles = _percentiles(histogram, bin_edges(access))
        results.append(_result(rows, percentiles, events, seconds, events / seconds, engine, seed))
    return results


def simulate_attack(attack: Attack, *, engine: Engine, events: int, replicas: int, seed: int) -> Simulated:
    """Play ``events`` attacks in all.

    Raises RefusedInput for fewer than 2 replicas, too few trials, or races that would never end.
    """
    check_size(events, replicas)
    rng = np.random.default_rng(seed)
    blocks = None
    if engine == "lanes":
        race_lanes(attack, trials=replicas, replicas=replicas, rng=np.random.default_rng(seed))
        start = time.perf_counter()
        shares = race_lanes(attack, trials=events, replicas=replicas, rng=rng)
    elif engine == "recursion":
        race_trials(attack, trials=1, replicas=1, rng=np.random.default_rng(seed))
        start = time.perf_counter()
        shares, lengths = race_trials(attack, trials=events, replicas=replicas, rng=rng)
        blocks = float(lengths.mean()) if attack.abandoned_at < np.inf or attack.beta > 1 else None
    else:
        raise RefusedInput(f"--engine must be recursion or lanes, not {engine}")
    seconds = time.perf_counter() - start
    mean = float(shares.mean())
    low, high = _success_interval(mean, events)
    return Simulated(
        mean=mean, ci95=(low, high), p50=None, p90=None, p99=None, pending_mean=None, links_mean=None,
        events=events, seconds=seconds, events_per_s=events / seconds, engine=engine, replicas=replicas, seed=seed,
        race_blocks=blocks,
    )  # fmt: skip


def check_size(events: int, replicas: int) -> None:
    """Refuse a simulation with too few or too many replicas or events."""
    if not 2 <= replicas <= _MOST_REPLICAS:
        raise RefusedInput(f"--replicas must be from 2 to {_MOST_REPLICAS}, not {replicas}; intervals need 20 or more")
    if not 10 * replicas <= events <= _LARGEST_EVENTS:
        raise RefusedInput(f"--events must be from 10 a replica to {_LARGEST_EVENTS} in all, not {events}")


def _result(
    rows: NDArray[np.float64],
    percentiles: tuple[float, float, float] | None,
    events: int,
    seconds: float,
    rate: float,
    engine: Engine,
    seed: int,
) -> Simulated:
    latency, wait, pending, linked, accepted = rows.T
    if not np.isfinite(rows).all():
        raise RefusedInput(f"--events {events} leave a replica without a single served request; ask for more")
    p50, p90, p99 = percentiles or (None, None, None)
    return Simulated(
        mean=float(latency.mean()), ci95=_interval(latency), p50=p50, p90=p90, p99=p99,
        pending_mean=float(pending.mean()), links_mean=float(linked.mean()), events=events, seconds=seconds,
        events_per_s=rate, engine=engine, replicas=len(rows), seed=seed, service_wait=float(wait.mean()),
        service_wait_ci95=_interval(wait), rejected_share=1 - float(accepted.mean()),
    )  # fmt: skip


def _interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return the 95 % interval of the mean of independent replicas."""
    half = float(student.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    mean = float(values.mean())
    return mean - half, mean + half


def _success_interval(share: float, trials: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a probability, which stays honest where no trial succeeds."""
    z = 1.959963984540054
    centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * np.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    return max(0.0, min(share, float(centre - half))), min(1.0, max(share, float(centre + half)))


def _percentiles(histogram: NDArray[np.int64], edges: NDArray[np.float64]) -> tuple[float, float, float]:
    """Read the median, the 90th and the 99th percentile off a histogram, linearly within a bin."""
    below = np.concatenate([[0], np.cumsum(histogram)]) / max(int(histogram.sum()), 1)
    kept = np.concatenate([[True], np.diff(below) > 0])
    p50, p90, p99 = np.interp([0.5, 0.9, 0.99], below[kept], edges[kept])
    return float(p50), float(p90), float(p99)
