"""What is agreed and how it is judged: terms, measured indicators, and the penalty that a shortfall earns."""

from typing import Annotated

from msgspec import Meta

from gridpool.ledger.types import Millis, Natural, PartsPerMillion, Value

__all__ = ["Kpis", "PenaltyStep", "Terms", "agree", "mean", "median", "penalty_ppm", "shortfall_ppm"]

MILLION = 1_000_000
Figure = Annotated[int, Meta(ge=0, le=10**15)]
Share = Annotated[int, Meta(ge=0, le=MILLION)]


class PenaltyStep(Value):
    """From a shortfall on, this share of the interval's price is paid back."""

    shortfall_ppm: Annotated[int, Meta(ge=1, le=10**9)]
    penalty_ppm: Share


class Terms(Value, kw_only=True):
    """What holds while a slice is served.

    ``tolerance_ppm`` is how far two measurements may differ and still agree; ``steps`` grade violations, ``cap_ppm``
    bounds all penalties to a share of the price; after ``breach_after`` violated intervals in a row the tenant may
    end the slice. ``loss_ppm`` and ``availability_ppm`` are the limits of one interval.
    """

    tolerance_ppm: Share = 20_000
    steps: Annotated[tuple[PenaltyStep, ...], Meta(min_length=1, max_length=8)] = (
        PenaltyStep(10_000, 250_000),
        PenaltyStep(100_000, 500_000),
        PenaltyStep(500_000, 1_000_000),
    )
    cap_ppm: Share = MILLION
    breach_after: Annotated[int, Meta(ge=1, le=10_000)] = 3
    loss_ppm: Share = 1_000
    availability_ppm: Share = 999_000
    notice_ms: Millis = 900_000
    resale: bool = False


class Kpis(Value):
    """One interval of one sub-slice as somebody measured it: kbit/s asked for and carried, us, ppm."""

    demand_kbps: Figure
    throughput_kbps: Figure
    delay_p99_us: Figure
    loss_ppm: Share
    availability_ppm: Share


def agree(one: Kpis, other: Kpis, tolerance_ppm: PartsPerMillion) -> bool:
    """Tell whether two measurements differ by no more than the tolerance in every figure."""
    for a, b in (
        (one.demand_kbps, other.demand_kbps),
        (one.throughput_kbps, other.throughput_kbps),
        (one.delay_p99_us, other.delay_p99_us),
    ):
        if abs(a - b) * MILLION > tolerance_ppm * max(a, b):
            return False
    return (
        abs(one.loss_ppm - other.loss_ppm) <= tolerance_ppm
        and abs(one.availability_ppm - other.availability_ppm) <= tolerance_ppm
    )


def mean(one: Kpis, other: Kpis) -> Kpis:
    """Average two measurements that agree, figure by figure, rounded down."""
    return Kpis(*((getattr(one, name) + getattr(other, name)) // 2 for name in Kpis.__struct_fields__))


def median(first: Kpis, second: Kpis, third: Kpis) -> Kpis:
    """Take the middle of three measurements, figure by figure."""
    return Kpis(*(sorted(getattr(kpis, name) for kpis in (first, second, third))[1] for name in Kpis.__struct_fields__))


def shortfall_ppm(kpis: Kpis, terms: Terms, bandwidth_kbps: Natural, delay_us: Natural) -> int:
    """Return the worst relative miss of what was offered, in ppm; 0 where everything was kept.

    Less than the smaller of demand and bandwidth carried, a longer delay than offered, more loss or less availability
    than the terms allow.
    """
    asked = min(kpis.demand_kbps, bandwidth_kbps)
    worst = max(0, kpis.loss_ppm - terms.loss_ppm)
    if kpis.throughput_kbps < asked:
        worst = max(worst, (asked - kpis.throughput_kbps) * MILLION // asked)
    if kpis.delay_p99_us > delay_us:
        worst = max(worst, min(10**9, (kpis.delay_p99_us - delay_us) * MILLION // max(delay_us, 1)))
    if kpis.availability_ppm < terms.availability_ppm:
        worst = max(worst, (terms.availability_ppm - kpis.availability_ppm) * MILLION // terms.availability_ppm)
    return worst


def penalty_ppm(shortfall: int, terms: Terms) -> tuple[int, int]:
    """Return (severity, penalty in ppm of the interval's price); severity 0 is no violation."""
    severity, share = 0, 0
    for rank, step in enumerate(terms.steps, 1):
        if shortfall >= step.shortfall_ppm:
            severity, share = rank, step.penalty_ppm
    return severity, share
