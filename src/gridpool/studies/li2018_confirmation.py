"""Fig. 5: how long trades wait for confirmation on two chains, and how many a pair finishes an hour."""

from collections.abc import Sequence
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

__all__ = ["SCHEMES", "PairResult", "mean_and_interval", "simulate_pairs"]

Spacing = Literal["even", "poisson"]
SCHEMES = ("classic chain", "energy chain", "credit-based payment")


class PairResult(msgspec.Struct, frozen=True):
    """Means over the pairs of one run: minutes waited for confirmation a pair and a trade, trades an hour a pair."""

    total_wait_min: float
    wait_min: float
    finished_per_hour: float
    begun_per_hour: float


def simulate_pairs(
    rng: np.random.Generator,
    *,
    pairs: int,
    horizon_min: float,
    frequency: float,
    confirmation_min: float,
    in_flight: int | None,
    spacing: Spacing,
) -> PairResult:
    """Let pairs of nodes trade for a while, each trade confirmed ``confirmation_min`` after it starts.

    A trade may start while fewer than ``in_flight`` of the pair's trades await confirmation (None: always, because a
    bank lends the coins); until then it queues. Counted are the trades that finish within the horizon: at their
    confirmation, or with credit at their start; and those that begin within it. Requests come ``frequency`` an hour.
    """
    total = 0.0
    finished = begun = 0
    waits: list[float] = []
    for _ in range(pairs):
        arrivals = _requests(rng, horizon_min, frequency, spacing)
        confirmed: list[float] = []
        for index, arrival in enumerate(arrivals):
            start = arrival
            if in_flight is not None and index >= in_flight:
                start = max(arrival, confirmed[index - in_flight])
            confirmed.append(start + confirmation_min)
            done = start if in_flight is None else confirmed[-1]
            finished += done <= horizon_min
            begun += start <= horizon_min
            wait = (arrival if in_flight is None else confirmed[-1]) - arrival
            waits.append(wait)
            total += min(wait, max(horizon_min - arrival, 0.0))
    return PairResult(
        total_wait_min=total / pairs,
        wait_min=float(np.mean(waits)) if waits else 0.0,
        finished_per_hour=finished / pairs / (horizon_min / 60),
        begun_per_hour=begun / pairs / (horizon_min / 60),
    )


def mean_and_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Give the mean of independent runs and its 95 % interval (normal)."""
    data = np.asarray(values, dtype=np.float64)
    mean = float(data.mean())
    half = 1.96 * float(data.std(ddof=1)) / len(data) ** 0.5 if len(data) > 1 else 0.0
    return mean, mean - half, mean + half


def _requests(rng: np.random.Generator, horizon_min: float, frequency: float, spacing: Spacing) -> NDArray[np.float64]:
    gap = 60.0 / frequency
    if spacing == "even":
        return np.arange(rng.uniform(0.0, gap), horizon_min, gap)
    count = rng.poisson(horizon_min / gap)
    return np.sort(rng.uniform(0.0, horizon_min, count))
