"""Latency of blockchain access: the printed formulas, the exact values and bounds that hold, side by side."""

import math
from dataclasses import replace

import msgspec

from gridpool.lab.access import Access, require_stable
from gridpool.lab.inclusion import inclusion
from gridpool.lab.links import link_wait, link_wait_far
from gridpool.lab.published import published_latency
from gridpool.lab.simulation import simulate_latency

__all__ = ["Bounds", "ExactLatency", "LatencyReport", "Percentiles", "Printed", "exact_latency", "latency_report"]

_SAME = 1e-9
"""Relative difference below which a value does not count as beyond a bound."""


class Printed(msgspec.Struct, frozen=True, kw_only=True):
    """Equations (1) to (7) as printed, in units of time."""

    inclusion: float | None
    service_wait: float | None
    confirmation: float
    latency: float | None
    upper: float | None
    lower: float


class Percentiles(msgspec.Struct, frozen=True, kw_only=True):
    """Percentiles of inclusion plus confirmation, before any link serves the request."""

    p50: float
    p90: float
    p99: float


class ExactLatency(msgspec.Struct, frozen=True, kw_only=True):
    """Means in units of time over accepted requests.

    ``latency`` is inclusion + confirmation + service_wait, ``sojourn`` adds the service itself. ``method`` says how
    service_wait was found, which is the hardest part; the rest is in closed form or from the tagged request's chain.
    ``interval`` is the 95 % interval of latency (and sojourn minus the service) where service_wait is simulated.
    """

    inclusion: float
    service_wait: float
    confirmation: float
    latency: float
    sojourn: float
    pre_service_percentiles: Percentiles
    rejected_share: float
    method: str
    interval: tuple[float, float] | None
    truncation_mass: float | None


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds on the mean latency that do hold; None where there is none."""

    upper: float | None
    lower: float


class LatencyReport(msgspec.Struct, frozen=True, kw_only=True):
    """The three views of one network; ``violated`` names printed bounds that fail and undefined values."""

    published: Printed
    exact: ExactLatency
    bounds: Bounds
    violated: list[str]


def exact_latency(access: Access, *, seed: int = 1, events: int = 20_000_000, replicas: int = 32) -> ExactLatency:
    """Return the exact latency; ``events``, ``replicas`` and ``seed`` matter only where the link wait is simulated.

    Raises RefusedInput for an unstable network.
    """
    before = inclusion(access)
    require_stable(access, before.accepted_share)
    found = link_wait(access)
    method: str
    if found is not None:
        wait, interval, mass, method = found.mean, None, found.truncation_mass, found.method
    else:
        simulated = simulate_latency(access, engine="recursion", events=events, replicas=replicas, seed=seed)
        assert simulated.service_wait is not None
        assert simulated.service_wait_ci95 is not None
        wait, mass, method = simulated.service_wait, None, "simulation"
        low, high = (before.mean + before.confirmation + edge for edge in simulated.service_wait_ci95)
        interval = (low, high)
    latency = before.mean + before.confirmation + wait
    return ExactLatency(
        inclusion=before.mean,
        service_wait=wait,
        confirmation=before.confirmation,
        latency=latency,
        sojourn=latency + 1 / access.service_rate,
        pre_service_percentiles=Percentiles(
            p50=before.percentile(0.5), p90=before.percentile(0.9), p99=before.percentile(0.99)
        ),
        rejected_share=1 - before.accepted_share,
        method=method,
        interval=interval,
        truncation_mass=mass,
    )


def latency_report(access: Access, *, seed: int = 1, events: int = 20_000_000, replicas: int = 32) -> LatencyReport:
    """Return printed formulas, exact values and bounds that hold, and say which printed bound is violated.

    The printed upper bound (6) holds for one confirmation only: further blocks hand over batches that earlier blocks
    gathered, so the wait for a link grows. The bound given here takes it from the chain of many confirmations with one
    request a block. The printed lower bound (7) knows no rejections, which let only the quick requests through.

    Raises RefusedInput for an unstable network.
    """
    exact = exact_latency(access, seed=seed, events=events, replicas=replicas)
    printed = published_latency(access)
    violated = list(printed.undefined)
    # A simulated latency counts as beyond a bound only with its whole interval.
    least, most = exact.interval or (exact.latency, exact.latency)
    if printed.upper is not None and least > printed.upper * (1 + _SAME):
        violated.append(f"upper: (6) prints {printed.upper:.9g}, the latency is {exact.latency:.9g}")
    if most < printed.lower * (1 - _SAME):
        violated.append(f"lower: (7) prints {printed.lower:.9g}, the latency is {exact.latency:.9g}")
    upper, why = _upper(access, printed.upper)
    if upper is None:
        violated.append(f"bounds.upper: none known, {why}")
    return LatencyReport(
        published=Printed(
            inclusion=printed.inclusion,
            service_wait=printed.service_wait,
            confirmation=printed.confirmation,
            latency=printed.latency,
            upper=printed.upper,
            lower=printed.lower,
        ),
        exact=exact,
        bounds=Bounds(upper=upper, lower=1 / access.epoch_rate + exact.confirmation),
        violated=violated,
    )


def _upper(access: Access, printed: float | None) -> tuple[float | None, str]:
    """Return an upper bound on the mean latency from the network with one request a block and no rejections."""
    single = replace(access, block_size=1.0, reject_rate=0.0, reject_size=math.inf, template="refresh")
    if access.arrival >= access.block_rate:
        return None, f"arrival {access.arrival:g} >= block-rate {access.block_rate:g} with one request a block"
    if access.arrival >= access.links * access.service_rate:
        return None, (
            f"arrival {access.arrival:g} >= links x service-rate = {access.links * access.service_rate:g} "
            "without rejections"
        )
    if access.confirmations == 1 and access.template == "refresh":
        return printed, ""
    far = link_wait_far(single)
    if far is None:
        return None, "the chain of many confirmations needs too many states"
    return inclusion(single).mean + (access.confirmations - 1) / access.block_rate + far.mean, ""
