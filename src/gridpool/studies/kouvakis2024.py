"""Kouvakis et al. 2024, "Markov Chain-based Model of Blockchain Radio Access Networks": Figs 4 to 6."""

import math
from pathlib import Path

import msgspec

from gridpool.errors import RefusedInput
from gridpool.studies.kouvakis2024_attack import attack_figure
from gridpool.studies.kouvakis2024_latency import confirmations_figure, traffic_figure
from gridpool.studies.study import Study, StudyResult

__all__ = ["STUDY", "Network", "Params"]


class Network(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Rates per unit of time and number of links; the paper does not state them."""

    block_rate: float
    links: int
    service_rate: float


def _networks() -> dict[str, Network]:
    return {
        "A": Network(block_rate=1.0, links=5, service_rate=0.2),
        "B": Network(block_rate=30.0, links=1, service_rate=4.0),
    }


class Params(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the paper leaves open: rates, block sizes, intensities, thresholds, and how much to simulate.

    ``block_sizes`` are those of the proposed model; the conventional one is taken to hold one request a block, and
    unlimited blocks are shown beside. Traffic intensity is arrival rate / (links x service rate).
    """

    networks: dict[str, Network] = msgspec.field(default_factory=_networks)
    block_sizes: list[int] = msgspec.field(default_factory=lambda: [2, 5])
    intensity_low: float = 0.05
    intensity_high: float = 0.95
    intensity_points: int = 19
    intensities: list[float] = msgspec.field(default_factory=lambda: [0.1, 0.5, 0.9])
    confirmations: int = 10
    give_ups: list[int] = msgspec.field(default_factory=lambda: [3, 10])
    beta_low: float = 0.1
    beta_high: float = 1.2
    beta_points: int = 23
    events: int = 40_000_000
    trials: int = 1_000_000
    replicas: int = 32
    seed: int = 1


def _run(params: Params, out: Path, smoke: bool, scheduler: str | None) -> StudyResult:
    _check(params)
    if smoke:
        params = msgspec.structs.replace(
            params,
            intensity_points=min(params.intensity_points, 7),
            confirmations=min(params.confirmations, 6),
            beta_points=min(params.beta_points, 12),
            events=min(params.events, 4_000_000),
            trials=min(params.trials, 100_000),
        )
    claims = [
        *traffic_figure(params, out),
        *confirmations_figure(params, out),
        *attack_figure(params, out),
    ]
    files = [f"fig{n}.{suffix}" for n in (4, 5, 6) for suffix in ("csv", "png")]
    return StudyResult(
        study="kouvakis2024", claims=claims, files=files, seed=params.seed, params=msgspec.to_builtins(params)
    )


def _check(params: Params) -> None:
    if not params.networks or not params.block_sizes or not params.intensities or not params.give_ups:
        raise RefusedInput("networks, block_sizes, intensities and give_ups must not be empty")
    if not 0 < params.intensity_low < params.intensity_high < 1 or not all(0 < x < 1 for x in params.intensities):
        raise RefusedInput("intensities must be above 0, below 1 and in rising order")
    if not 0 < params.beta_low < 1 < params.beta_high < math.inf:
        raise RefusedInput("beta_low must be below 1 and beta_high above")
    if min(params.intensity_points, params.beta_points, params.confirmations) < 2 or params.replicas < 20:
        raise RefusedInput("figures need two points or more on each axis and 20 replicas or more")
    if min(params.intensity_points, params.beta_points, params.confirmations) > 1000 or params.confirmations > 200:
        raise RefusedInput("figures have at most 1000 points on an axis and 200 confirmations")


STUDY = Study(params=Params, run=_run)
