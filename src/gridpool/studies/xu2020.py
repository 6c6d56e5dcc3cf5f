"""Xu et al. 2020, "Blockchain-enabled Resource Management and Sharing for 6G Communications": its claims in numbers.

The paper argues in words; each claim on access to spectrum gets a model, a figure and a verdict here: coordinated
access through the ledger against slotted ALOHA and CSMA/CA (throughput, collisions, fairness), and supervision by
sensors, some of which lie.
"""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np

from gridpool.agents.energy_detector import detection, threshold_for
from gridpool.errors import RefusedInput
from gridpool.lab.chart import draw_curves
from gridpool.studies.study import Claim, Study, StudyResult, Verdict
from gridpool.studies.xu2020_access import Outcome, aloha, csma, leased
from gridpool.studies.xu2020_latency import measured_latency
from gridpool.studies.xu2020_sensing import liars, roc

__all__ = ["STUDY", "Params"]

Share = Annotated[float, msgspec.Meta(gt=0.0, lt=1.0)]
Seconds = Annotated[float, msgspec.Meta(gt=0.0, le=86_400.0)]


class Params(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the paper leaves open.

    ``latency_s`` 0 means: measure it on this machine, on the embedded engine with 200 ms blocks. ``lease_s`` is the
    length of a lease, ``bursts_s`` the mean lengths of what users send. ``at_users`` is where claims are judged.
    """

    users: list[Annotated[int, msgspec.Meta(ge=2, le=2_000)]] = msgspec.field(
        default_factory=lambda: [5, 10, 20, 50, 100, 200]
    )
    at_users: Annotated[int, msgspec.Meta(ge=2, le=2_000)] = 50
    frames: Annotated[int, msgspec.Meta(ge=1_000, le=10_000_000)] = 40_000
    replicas: Annotated[int, msgspec.Meta(ge=3, le=200)] = 8
    latency_s: Annotated[float, msgspec.Meta(ge=0.0, le=3_600.0)] = 0.0
    lease_s: Seconds = 5.0
    burst_s: Seconds = 10.0
    bursts_s: list[Seconds] = msgspec.field(default_factory=lambda: [0.05, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0])
    greedy: Share = 0.1
    samples: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 100
    snr_db: Annotated[float, msgspec.Meta(ge=-30.0, le=30.0)] = -6.0
    trials: Annotated[int, msgspec.Meta(ge=1_000, le=10_000_000)] = 100_000
    sensors: Annotated[int, msgspec.Meta(ge=3, le=200)] = 15
    false_alarm: Share = 0.05
    lying: list[Annotated[float, msgspec.Meta(ge=0.0, lt=1.0)]] = msgspec.field(
        default_factory=lambda: [0.0, 0.1, 0.2, 0.3, 0.4]
    )
    rounds: Annotated[int, msgspec.Meta(ge=100, le=1_000_000)] = 2_000
    evidence: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)] = 0.3
    sensitivity_db: list[Annotated[float, msgspec.Meta(ge=-30.0, le=30.0)]] = msgspec.field(
        default_factory=lambda: [-8.0, -6.0, -5.0, -4.0, -3.0, -2.0, 0.0]
    )
    seed: Annotated[int, msgspec.Meta(ge=0, le=2**53)] = 1


class _Point(msgspec.Struct, frozen=True):
    """Means and 95 % intervals of one scheme at one point."""

    mean: dict[str, float]
    interval: dict[str, tuple[float, float]]


def _run(params: Params, out: Path, smoke: bool, scheduler: str | None) -> StudyResult:
    if not params.users or not params.bursts_s or not params.lying or not params.sensitivity_db:
        raise RefusedInput("users, bursts_s, lying and sensitivity_db must not be empty")
    if smoke:
        params = msgspec.structs.replace(
            params,
            frames=min(params.frames, 3_000),
            replicas=min(params.replicas, 3),
            trials=min(params.trials, 20_000),
            rounds=min(params.rounds, 400),
        )
    latency = params.latency_s or measured_latency(params.seed, leases=5 if smoke else 12)
    claims = [*_access(params, out, latency), *_bursts(params, out, latency), *_sensing(params, out)]
    files = [f"fig{n}_{what}.{suffix}" for n, what in _FIGURES for suffix in ("csv", "png")]
    shown = msgspec.to_builtins(params) | {"latency_used_s": latency}
    return StudyResult(study="xu2020", claims=claims, files=files, seed=params.seed, params=shown)


_FIGURES = (
    (1, "throughput"),
    (2, "collisions"),
    (3, "fairness"),
    (4, "bursts"),
    (5, "roc"),
    (6, "lying"),
    (7, "signal"),
)
LIAR_RUNS = 8
"""Runs of the fusion with liars at least, also in the reduced study: they cost little and vary much."""
_SCHEMES = ("ledger", "CSMA/CA", "slotted ALOHA")


def _access(params: Params, out: Path, latency: float) -> list[Claim]:
    """Draw throughput, collisions and fairness over the number of users; judge the claims at one number."""
    users = sorted({*params.users, params.at_users})
    points: dict[str, list[_Point]] = {name: [] for name in (*_SCHEMES, "CSMA/CA, some greedy", "ledger, some greedy")}
    for count in users:
        leases = max(1_000, 40 * count)
        makers: dict[str, Callable[[np.random.Generator], Outcome]] = {
            "ledger": lambda rng, n=count, m=leases: leased(  # type: ignore[misc]
                n, m, rng, latency_s=latency, lease_s=params.lease_s, burst_s=params.burst_s
            ),
            "CSMA/CA": lambda rng, n=count: csma(n, params.frames, rng),  # type: ignore[misc]
            "slotted ALOHA": lambda rng, n=count: aloha(n, params.frames, rng),  # type: ignore[misc]
            "CSMA/CA, some greedy": lambda rng, n=count: csma(n, params.frames, rng, greedy=params.greedy),  # type: ignore[misc]
            # Asking more often gains nothing where turns go to whoever has used least.
            "ledger, some greedy": lambda rng, n=count, m=leases: leased(  # type: ignore[misc]
                n, m, rng, latency_s=latency, lease_s=params.lease_s
            ),
        }
        for name, make in makers.items():
            points[name].append(_replicate(make, params, count))
    for number, what, figure, label in (
        (1, "throughput", "throughput", "share of time with payload"),
        (2, "collisions", "collisions", "share of transmissions lost"),
        (3, "fairness", "short_fairness", "Jain index in short windows"),
    ):
        names = list(points) if number == 3 else list(_SCHEMES)
        _write(
            out,
            f"fig{number}_{what}",
            "users",
            [float(count) for count in users],
            {name: [point.mean[figure] for point in points[name]] for name in names},
            {name: [point.interval[figure] for point in points[name]] for name in names},
            label,
        )
    at = users.index(params.at_users)
    ledger, carrier, slotted = (points[name][at] for name in _SCHEMES)
    greedy = points["CSMA/CA, some greedy"][at]
    where = f"{params.at_users} users, leases of {params.lease_s:g} s, bursts of {params.burst_s:g} s"
    where += f", {latency:.2f} s to a lease"
    gain = ledger.mean["throughput"] / slotted.mean["throughput"]
    gain_range = (
        ledger.interval["throughput"][0] / slotted.interval["throughput"][1],
        ledger.interval["throughput"][1] / slotted.interval["throughput"][0],
    )
    lost = carrier.interval["collisions"]
    others = carrier.interval["short_fairness"]
    assumed: Verdict = "reproduced under stated assumptions"
    return [
        Claim(
            figure="fig1",
            claim="access verified on the ledger gains significantly over ALOHA (section 2, reference 19)",
            paper=None,
            ours=gain,
            interval=gain_range,
            verdict=assumed if gain_range[0] > 1.0 else "not reproduced",
            assumptions=f"throughput ratio; ALOHA at its best probability 1/n; {where}",
        ),
        Claim(
            figure="fig2",
            claim="coordinated access avoids the collisions of uncoordinated access (section 2)",
            paper=0.0,
            ours=ledger.mean["collisions"],
            interval=ledger.interval["collisions"],
            verdict=assumed if ledger.mean["collisions"] == 0.0 < lost[0] else "not reproduced",
            assumptions=f"users keep to their leases; CSMA/CA loses {lost[0]:.3f} to {lost[1]:.3f} of what it sends",
        ),
        Claim(
            figure="fig3",
            claim="access fairness is achieved where access history is recorded (section 2)",
            paper=1.0,
            ours=ledger.mean["short_fairness"],
            interval=ledger.interval["short_fairness"],
            verdict=assumed if ledger.interval["short_fairness"][0] > others[1] else "not reproduced",
            assumptions=f"Jain index of time in windows of ten leases a user, turns by least use, against "
            f"{others[0]:.3f} to {others[1]:.3f} of CSMA/CA's frames; {where}",
        ),
        Claim(
            figure="fig3",
            claim="with CSMA, whose access is not coordinated, fairness is not achieved (section 2)",
            paper=None,
            ours=greedy.mean["fairness"],
            interval=greedy.interval["fairness"],
            verdict=assumed if greedy.interval["fairness"][1] < 0.9 else "not reproduced",
            assumptions=f"Jain index over the run with {params.greedy:.0%} greedy users; equal users share CSMA fairly "
            f"in the long run (index {carrier.mean['fairness']:.3f}), so the claim holds for selfish users only",
        ),
    ]


def _bursts(params: Params, out: Path, latency: float) -> list[Claim]:
    """Find from which burst length on coordination through the ledger beats CSMA/CA."""
    bursts = sorted({*params.bursts_s, params.burst_s})
    users = params.at_users
    carrier = _replicate(lambda rng: csma(users, params.frames, rng), params, 1)
    points = [
        _replicate(
            lambda rng, b=burst: leased(  # type: ignore[misc]
                users, max(1_000, 20 * users), rng, latency_s=latency, lease_s=params.lease_s, burst_s=b
            ),
            params,
            number,
        )
        for number, burst in enumerate(bursts)
    ]
    _write(
        out,
        "fig4_bursts",
        "mean burst in s",
        bursts,
        {
            "ledger": [point.mean["throughput"] for point in points],
            "CSMA/CA": [carrier.mean["throughput"]] * len(bursts),
        },
        {"ledger": [point.interval["throughput"] for point in points]},
        "share of time with payload",
    )
    short, chosen = points[0], points[bursts.index(params.burst_s)]
    shortest = short.mean["throughput"] / carrier.mean["throughput"]
    ours = chosen.mean["throughput"] / carrier.mean["throughput"]

    def span(point: _Point) -> tuple[float, float]:
        low, high = point.interval["throughput"]
        return low / carrier.interval["throughput"][1], high / carrier.interval["throughput"][0]

    return [
        Claim(
            figure="fig4",
            claim="recording idle spectrum on the ledger improves the efficiency of its use (section 2)",
            paper=None,
            ours=ours,
            interval=span(chosen),
            verdict="reproduced under stated assumptions" if span(chosen)[0] > 1.0 else "not reproduced",
            assumptions=f"throughput against CSMA/CA, {users} users, bursts of {params.burst_s:g} s",
        ),
        Claim(
            figure="fig4",
            claim="dynamic allocation according to the devices' demands improves efficiency, however short (section 1)",
            paper=None,
            ours=shortest,
            interval=span(short),
            verdict="reproduced" if span(short)[0] > 1.0 else "not reproduced",
            assumptions=f"throughput against CSMA/CA, bursts of {bursts[0]:g} s: {latency:.2f} s to a lease is longer",
        ),
    ]


def _sensing(params: Params, out: Path) -> list[Claim]:
    """Draw the detector's curve and the fusion with liars; judge supervision."""
    rng = np.random.default_rng((params.seed, 5))
    snr = 10.0 ** (params.snr_db / 10.0)
    asked, _, closed, alarms, found = roc(params.samples, snr, params.trials, rng)
    _write(
        out,
        "fig5_roc",
        "false alarm",
        asked.tolist(),
        {"closed form": closed.tolist(), "simulated": found.tolist(), "simulated false alarm": alarms.tolist()},
        {},
        "detection",
    )
    error = float(max(np.abs(found - closed).max(), np.abs(alarms - asked).max()))
    # Five binomial standard errors at most, over 25 thresholds and two curves.
    limit = 5.0 * 0.5 / params.trials**0.5
    rate = _detection(params, params.snr_db)
    rows = [_liars(params, share, params.snr_db, (6, number)) for number, share in enumerate(params.lying)]
    names = {
        "detection": "detection, by reputation",
        "detection_counted": "detection, heads counted",
        "false_alarm": "false alarm, by reputation",
        "false_alarm_counted": "false alarm, heads counted",
    }
    _write(
        out,
        "fig6_lying",
        "share of lying sensors",
        [float(share) for share in params.lying],
        {label: [row[name][0] for row in rows] for name, label in names.items()},
        {label: [row[name][1:] for row in rows] for name, label in names.items()},
        "probability",
    )
    at = max(i for i, share in enumerate(params.lying) if share <= 0.3)
    caught, alarm = rows[at]["detection"], rows[at]["false_alarm"]
    held = _sensitivity(params, out, at)
    return [
        Claim(
            figure="fig5",
            claim="sensing outcomes recorded on the ledger are those of the detector (closed form of its curve)",
            paper=0.0,
            ours=error,
            interval=(0.0, limit),
            verdict="reproduced" if error <= limit else "not reproduced",
            assumptions=f"largest distance of the simulated curve, {params.samples} samples, {params.snr_db:g} dB",
        ),
        Claim(
            figure="fig6",
            claim="users together can supervise and prevent unauthorised access (section 2)",
            paper=None,
            ours=caught[0],
            interval=(caught[1], caught[2]),
            verdict="reproduced under stated assumptions" if _supervised(rows[at]) else "not reproduced",
            assumptions=f"detection with {params.lying[at]:.0%} of {params.sensors} sensors lying, each finding "
            f"{rate:.2f} at {params.false_alarm:g} false alarms, evidence in {params.evidence:.0%} of rounds; "
            f"false alarms {alarm[0]:.4f}; the paper names no signal strength, and {held}",
        ),
    ]


def _detection(params: Params, snr_db: float) -> float:
    """Return one sensor's probability of detection."""
    snr = 10.0 ** (snr_db / 10.0)
    return float(detection(threshold_for(params.false_alarm, params.samples), params.samples, snr))


def _liars(params: Params, share: float, snr_db: float, stream: tuple[int, int]) -> dict[str, tuple[float, ...]]:
    """Return mean and 95 % interval of the fusion's rates with a share of lying sensors."""
    runs = [
        liars(
            share,
            params.rounds,
            np.random.default_rng((params.seed, *stream, replica)),
            sensors=params.sensors,
            false_alarm_rate=params.false_alarm,
            detection_rate=_detection(params, snr_db),
            evidence=params.evidence,
            k=1,
            n=2,
        )
        for replica in range(max(params.replicas, LIAR_RUNS))
    ]
    spans = {name: _interval([run[name] for run in runs]) for name in runs[0]}
    return {name: (mean, max(low, 0.0), min(high, 1.0)) for name, (mean, low, high) in spans.items()}


def _supervised(rates: dict[str, tuple[float, ...]]) -> bool:
    """Tell whether unauthorised access is found in over 95 % of rounds, and seen where there is none in under 5 %."""
    return rates["detection"][1] > 0.95 and rates["false_alarm"][2] < 0.05


def _sensitivity(params: Params, out: Path, at: int) -> str:
    """Draw what supervision gives at other signal strengths, and say from which on the claim would hold.

    The same random numbers as at the parameters' own strength, so that the two agree where they meet.
    """
    levels = sorted(set(params.sensitivity_db))
    rows = [_liars(params, params.lying[at], snr_db, (6, at)) for snr_db in levels]
    names = {"detection": "detection, by reputation", "false_alarm": "false alarm, by reputation"}
    _write(
        out,
        "fig7_signal",
        "signal to noise, dB",
        levels,
        {label: [row[name][0] for row in rows] for name, label in names.items()}
        | {"one sensor's detection": [_detection(params, snr_db) for snr_db in levels]},
        {label: [row[name][1:] for row in rows] for name, label in names.items()},
        "probability",
    )
    good = [_supervised(row) for row in rows]
    if not good[-1]:
        return f"it does not hold at {levels[-1]:g} dB either"
    first = len(good) - good[::-1].index(False) if False in good else 0
    return (
        f"of the strengths tried it holds from {levels[first]:g} dB on ({_detection(params, levels[first]):.2f} each)"
    )


def _replicate(make: Callable[[np.random.Generator], Outcome], params: Params, number: int) -> _Point:
    runs = [make(np.random.default_rng((params.seed, number, replica))) for replica in range(params.replicas)]
    figures = ("throughput", "collisions", "fairness", "short_fairness")
    spans = {name: _interval([getattr(run, name) for run in runs]) for name in figures}
    return _Point(
        {name: span[0] for name, span in spans.items()},
        {name: (max(span[1], 0.0), min(span[2], 1.0)) for name, span in spans.items()},
    )


def _interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return mean and 95 % Student interval."""
    from scipy.stats import t

    mean = float(np.mean(values))
    half = float(t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5)
    return mean, mean - half, mean + half


def _write(
    out: Path,
    name: str,
    x_label: str,
    x: Sequence[float],
    curves: dict[str, list[float]],
    bands: dict[str, list[tuple[float, ...]]],
    y_label: str,
) -> None:
    """Write a figure's data and image."""
    partial = out / f"{name}.csv.part"
    with partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([x_label, *(column for label in curves for column in (label, f"{label} low", f"{label} high"))])
        for i, value in enumerate(x):
            row: list[float | str] = [value]
            for label, values in curves.items():
                low, high = bands[label][i] if label in bands else ("", "")
                row += [values[i], low, high]
            writer.writerow(row)
    partial.replace(out / f"{name}.csv")
    spans = {label: [(span[0], span[1]) for span in values] for label, values in bands.items()}
    draw_curves(out / f"{name}.png", x=list(x), curves=curves, x_label=x_label, y_label=y_label, bands=spans)


STUDY = Study(params=Params, run=_run)
