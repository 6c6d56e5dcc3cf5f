"""Figs 4 and 5: latency over traffic intensity and over confirmations."""

import csv
import math
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from matplotlib.figure import Figure

from gridpool.lab.access import Access
from gridpool.lab.inclusion import inclusion
from gridpool.lab.links import link_wait
from gridpool.lab.published import published_latency
from gridpool.lab.simulation import Simulated, simulate_latency_curve
from gridpool.studies.study import Claim, Verdict

if TYPE_CHECKING:
    from gridpool.studies.kouvakis2024 import Params

__all__ = ["confirmations_figure", "traffic_figure"]

_ASSUMED = "conventional = one request a block; the paper states neither rates nor block sizes"

_COLUMNS = (
    "network", "intensity", "arrival", "block_size", "confirmations", "exact", "simulated", "low95", "high95",
    "printed_upper", "printed_lower",
)  # fmt: skip


class _Point(msgspec.Struct, frozen=True, kw_only=True):
    network: str
    intensity: float
    access: Access
    exact: float | None
    simulated: Simulated
    upper: float | None
    lower: float

    @property
    def error(self) -> float:
        low, high = self.simulated.ci95
        return (high - low) / 2 / 1.96

    @property
    def latency(self) -> float:
        return self.simulated.mean if self.exact is None else self.exact


def traffic_figure(params: "Params", out: Path) -> list[Claim]:
    """Draw Fig. 4 and judge its claims, with one confirmation."""
    sizes = [1.0, *map(float, params.block_sizes), math.inf]
    rhos = np.linspace(params.intensity_low, params.intensity_high, params.intensity_points)
    points = _points(params, sizes, [float(rho) for rho in rhos], [1])
    _write(out / "fig4.csv", points)
    figure = Figure(figsize=(6 * len(params.networks), 4.8), layout="constrained")
    for column, name in enumerate(params.networks, 1):
        axes = figure.add_subplot(1, len(params.networks), column)
        mine = [p for p in points if p.network == name]
        for size in sizes:
            line = [p for p in mine if p.access.block_size == size]
            label = "conventional (k = 1)" if size == 1 else f"proposed, k = {size:g}"
            (drawn,) = axes.plot([p.intensity for p in line], [p.latency for p in line], label=label)
            axes.plot([p.intensity for p in line], [p.simulated.mean for p in line], "s", ms=4, color=drawn.get_color())
        line = [p for p in mine if p.access.block_size == 1]
        axes.plot([p.intensity for p in line], [p.upper or math.nan for p in line], "k--", label="bounds (6), (7)")
        axes.plot([p.intensity for p in line], [p.lower for p in line], "k--")
        axes.plot([], [], "s", ms=4, color="grey", label="simulated (lanes)")
        given = params.networks[name]
        plural = "s" if given.links > 1 else ""
        axes.set_title(f"{name}: block rate {given.block_rate:g}, {given.links} link{plural} of {given.service_rate:g}")
        axes.set_xlabel("traffic intensity")
        axes.set_ylabel("mean latency before service, units of time")
        axes.set_yscale("log")
        axes.grid(visible=True, alpha=0.3)
        axes.legend()
    figure.savefig(out / "fig4.png", dpi=130)
    claims = []
    for name in params.networks:
        mine = [p for p in points if p.network == name]
        claims += _traffic_claims(name, mine, sizes)
    return claims


def confirmations_figure(params: "Params", out: Path) -> list[Claim]:
    """Draw Fig. 5 and judge its claims, for the first network and the largest block."""
    name = next(iter(params.networks))
    proposed = float(max(params.block_sizes))
    counts = list(range(1, params.confirmations + 1))
    one = msgspec.structs.replace(params, networks={name: params.networks[name]})
    points = _points(one, [1.0, proposed], sorted(params.intensities), counts)
    _write(out / "fig5.csv", points)
    figure = Figure(figsize=(7, 4.8), layout="constrained")
    axes = figure.add_subplot()
    for n, rho in enumerate(sorted(params.intensities)):
        for size, style in ((proposed, "-"), (1.0, "--")):
            line = [p for p in points if p.intensity == rho and p.access.block_size == size]
            kind = "conventional" if size == 1 else f"proposed, k = {size:g}"
            axes.plot(counts, [p.latency for p in line], f"C{n}{style}", label=f"{kind}, intensity {rho:g}")
            axes.plot(counts, [p.simulated.mean for p in line], f"C{n}s", ms=4)
    axes.set_xlabel("confirmations N")
    axes.set_ylabel("mean latency before service, units of time")
    axes.grid(visible=True, alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(out / "fig5.png", dpi=130)
    return _confirmation_claims(name, points, proposed)


def _points(params: "Params", sizes: list[float], rhos: list[float], counts: list[int]) -> list[_Point]:
    """Simulate every combination in one call of the lanes engine, and solve the chain where there is one."""
    places = []
    networks = []
    for name, given in params.networks.items():
        for size in sizes:
            for rho in rhos:
                arrival = rho * given.links * given.service_rate
                if arrival >= size * given.block_rate:
                    continue
                for count in counts:
                    places.append((name, rho))
                    networks.append(
                        Access(
                            arrival=arrival, block_rate=given.block_rate, service_rate=given.service_rate,
                            links=given.links, block_size=size, confirmations=count,
                        )
                    )  # fmt: skip
    simulated = simulate_latency_curve(
        networks, engine="lanes", events=params.events, replicas=params.replicas, seed=params.seed
    )
    points = []
    for (name, rho), access, found in zip(places, networks, simulated, strict=True):
        before = inclusion(access)
        wait = link_wait(access) if access.confirmations == 1 else None
        printed = published_latency(access)
        points.append(
            _Point(
                network=name, intensity=rho, access=access, simulated=found, upper=printed.upper, lower=printed.lower,
                exact=None if wait is None else before.mean + before.confirmation + wait.mean,
            )
        )  # fmt: skip
    return points


def _write(path: Path, points: list[_Point]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_COLUMNS)
        for p in points:
            row = [p.access.arrival, p.access.block_size, p.access.confirmations, p.exact, p.simulated.mean]
            row += [*p.simulated.ci95, p.upper, p.lower]
            cells = ["" if value is None else f"{value:.10g}" for value in (p.intensity, *row)]
            writer.writerow([p.network, *cells])


def _traffic_claims(name: str, points: list[_Point], sizes: list[float]) -> list[Claim]:
    low, high = min(p.intensity for p in points), max(p.intensity for p in points)
    first = {p.access.block_size: p for p in points if p.intensity == low}
    last = {p.access.block_size: p for p in points if p.intensity == high}
    finite = [size for size in sizes if size < math.inf]
    claims = []
    at_low = [p.latency for p in first.values()]
    spread = max(at_low) / min(at_low) - 1
    claims.append(
        Claim(
            figure="4", claim=f"{name}: all curves converge in low traffic (relative spread at intensity {low:g})",
            paper=0.0, ours=spread, verdict=_verdict(spread < 0.1), assumptions=f"{_ASSUMED}; converged = below 10 %",
        )
    )  # fmt: skip
    if 1.0 in last:
        proposed = last[max(finite)]
        ratio = last[1.0].latency / proposed.latency
        claims.append(
            Claim(
                figure="4", claim=f"{name}: at intensity {high:g} the conventional model has the highest latency "
                f"(ratio to k = {max(finite):g})", paper=None, ours=ratio,
                verdict=_verdict(all(last[1.0].latency > 1.05 * last[size].latency for size in finite if size > 1)),
                assumptions=_ASSUMED + "; a noticeable spike = 5 % or more above the proposed model",
            )
        )  # fmt: skip
        ordered = [last[size].latency for size in sorted(finite)]
        steps = [before - after for before, after in pairwise(ordered)]
        claims.append(
            Claim(
                figure="4", claim=f"{name}: at intensity {high:g} the larger the block, the lower the latency "
                "(smallest step from one block size to the next)", paper=None, ours=min(steps),
                verdict=_verdict(min(steps) > 1e-6 * ordered[-1]), assumptions=_ASSUMED,
            )
        )  # fmt: skip
    beyond = max(
        max(p.latency - (p.upper or math.inf), p.lower - p.latency) / p.latency for p in points
    )  # fmt: skip
    claims.append(
        Claim(
            figure="4", claim=f"{name}: (6) and (7) bound the latency (largest relative excess, one confirmation)",
            paper=0.0, ours=max(beyond, 0.0), verdict=_verdict(beyond < 1e-9), assumptions=_ASSUMED,
        )
    )  # fmt: skip
    far = max(abs(p.simulated.mean - p.exact) / p.error for p in points if p.exact is not None)
    claims.append(
        Claim(
            figure="4", claim=f"{name}: Monte Carlo agrees with the analysis (largest difference in standard errors; "
            "analysis = the exact chain)", paper=None, ours=far, verdict=_verdict(far < 4.5), assumptions=_ASSUMED,
        )
    )  # fmt: skip
    return claims


def _confirmation_claims(name: str, points: list[_Point], proposed: float) -> list[Claim]:
    rhos = sorted({p.intensity for p in points})
    curve = {
        (rho, size): [p for p in points if p.intensity == rho and p.access.block_size == size]
        for rho in rhos
        for size in (1.0, proposed)
    }
    claims = []
    steps = [after.latency - before.latency for line in curve.values() for before, after in pairwise(line)]
    claims.append(
        Claim(
            figure="5", claim=f"{name}: latency rises with every confirmation (smallest step)", paper=None,
            ours=min(steps), verdict=_verdict(min(steps) > 0), assumptions=_ASSUMED,
        )
    )  # fmt: skip
    low, high = rhos[0], rhos[-1]
    pairs = list(zip(curve[low, 1.0], curve[low, proposed], strict=True))
    apart = max(abs(a.latency / b.latency - 1) for a, b in pairs)
    claims.append(
        Claim(
            figure="5", claim=f"{name}: at intensity {low:g} both models have similar latency for every N (largest "
            "relative difference)", paper=0.0, ours=apart, verdict=_verdict(apart < 0.15),
            assumptions=_ASSUMED + "; similar = within 15 %",
        )
    )  # fmt: skip
    pairs = list(zip(curve[high, 1.0], curve[high, proposed], strict=True))
    gaps = [a.latency - b.latency for a, b in pairs]
    worst = gaps.index(min(gaps))
    half = 1.96 * math.hypot(pairs[worst][0].error, pairs[worst][1].error)
    claims.append(
        Claim(
            figure="5", claim=f"{name}: at intensity {high:g} the conventional model is slower for every N (smallest "
            "difference)", paper=None, ours=gaps[worst], interval=(gaps[worst] - half, gaps[worst] + half),
            verdict=_verdict(gaps[worst] - half > 0), assumptions=_ASSUMED,
        )
    )  # fmt: skip
    second = next(p for p in curve[high, 1.0] if p.access.confirmations == 2)
    wait = link_wait(second.access)
    if wait is not None and second.upper is not None:
        before = inclusion(second.access)
        excess = before.mean + before.confirmation + wait.mean - second.upper
        claims.append(
            Claim(
                figure="5", claim=f"{name}: (6) is an upper bound for every N (excess of the exact latency over it, "
                f"intensity {high:g}, N = 2, k = 1)", paper=0.0, ours=max(excess, 0.0),
                verdict=_verdict(excess < 1e-9 * second.upper),
                assumptions=_ASSUMED + "; further blocks hand requests over in batches, which an M/M/s queue ignores",
            )
        )  # fmt: skip
    return claims


def _verdict(holds: bool) -> Verdict:
    return "reproduced under stated assumptions" if holds else "not reproduced"
