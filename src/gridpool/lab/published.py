"""The latency formulas of the paper as printed, undefined where they are undefined."""

import math
from dataclasses import dataclass

from gridpool.lab.access import Access

__all__ = ["PublishedLatency", "erlang_c", "published_latency"]


@dataclass(frozen=True, kw_only=True)
class PublishedLatency:
    """Equations (1)-(7) of Kouvakis et al. 2024 in units of time; None where a formula has no value.

    ``undefined`` says why, one entry a missing value.
    """

    inclusion: float | None
    service_wait: float | None
    confirmation: float
    latency: float | None
    upper: float | None
    lower: float
    undefined: tuple[str, ...]


def published_latency(access: Access) -> PublishedLatency:
    """Evaluate the printed formulas, which know neither block size, nor template, nor rejections.

    Inclusion is (1), the wait for a link (2) less its service time, confirmation (3), latency (5), bounds (6) and (7).
    """
    undefined: list[str] = []
    inclusion = wait = latency = None
    slow = f"arrival {access.arrival:g} >= block-rate {access.block_rate:g}"
    full = (
        f"arrival {access.arrival:g} >= links x service-rate = {access.links} x {access.service_rate:g} = "
        f"{access.links * access.service_rate:g}"
    )
    reasons = []
    if access.arrival < access.block_rate:
        inclusion = 1 / (access.block_rate - access.arrival)
    else:
        reasons.append(slow)
        undefined.append(f"inclusion: (1) is undefined, {slow}")
    if access.arrival < access.links * access.service_rate:
        wait = erlang_c(access.links, access.arrival / access.service_rate) / (
            access.links * access.service_rate - access.arrival
        )
    else:
        reasons.append(full)
        undefined.append(f"service_wait: (2) is undefined, {full}")
    confirmation = (access.confirmations - 1) / access.block_rate
    if inclusion is not None and wait is not None:
        latency = inclusion + wait + confirmation
    else:
        undefined.append(f"latency: (5) is undefined, {' and '.join(reasons)}")
        undefined.append(f"upper: (6) is undefined, {' and '.join(reasons)}")
    return PublishedLatency(
        inclusion=inclusion,
        service_wait=wait,
        confirmation=confirmation,
        latency=latency,
        upper=latency,
        lower=access.confirmations / access.block_rate,
        undefined=tuple(undefined),
    )


def erlang_c(links: int, load: float) -> float:
    """Return the probability that a request waits at ``links`` links under ``load`` = arrival rate / service rate."""
    if load >= links:
        return math.nan
    blocked = 1.0
    for n in range(1, links + 1):
        blocked = load * blocked / (n + load * blocked)
    return links * blocked / (links - load * (1 - blocked))
