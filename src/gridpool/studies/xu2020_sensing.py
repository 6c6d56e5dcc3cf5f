"""Sensing: one detector against its closed form, and the ledger's fusion with sensors that lie."""

import numpy as np
import numpy.typing as npt

from gridpool.agents.energy_detector import detection, energies, false_alarm, threshold_for
from gridpool.contracts.spectrum_sensing import Report, Reputation, fuse

__all__ = ["liars", "roc"]

Floats = npt.NDArray[np.float64]


def roc(
    samples: int, snr: float, trials: int, rng: np.random.Generator
) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    """Return thresholds' false-alarm and detection probabilities: closed forms, then simulated shares.

    The tuple is (asked false alarm, its closed form, closed-form detection, then simulated false alarm and detection).
    """
    asked = np.logspace(-3, -0.05, 25)
    thresholds = threshold_for(asked, samples)
    noise = np.sort(energies(trials, samples, 0.0, rng))
    signal = np.sort(energies(trials, samples, snr, rng))
    return (
        asked,
        false_alarm(thresholds, samples),
        detection(thresholds, samples, snr),
        1.0 - np.searchsorted(noise, thresholds) / trials,
        1.0 - np.searchsorted(signal, thresholds) / trials,
    )


def liars(
    share: float,
    rounds: int,
    rng: np.random.Generator,
    *,
    sensors: int,
    false_alarm_rate: float,
    detection_rate: float,
    evidence: float,
    k: int,
    n: int,
) -> dict[str, float]:
    """Fuse rounds in which a share of the sensors always says the opposite of what it heard.

    ``evidence`` is the share of rounds whose truth becomes known later; reputations follow it. Returns detection and
    false-alarm rates of the ledger's fusion and of counting heads, over the second half of the rounds.
    """
    lying = np.arange(sensors) < round(share * sensors)
    agreed, judged = np.zeros(sensors, dtype=int), np.zeros(sensors, dtype=int)
    hits = {"weighted": [0, 0], "counted": [0, 0]}
    totals = [0, 0]
    for number in range(rounds):
        truth = bool(rng.random() < 0.5)
        heard = rng.random(sensors) < (detection_rate if truth else false_alarm_rate)
        votes = heard ^ lying
        reports = tuple(Report(bytes(32), 0, 1_000_000, bool(vote)) for vote in votes)
        reputations = tuple(Reputation(int(a), int(j)) for a, j in zip(agreed, judged, strict=True))
        if number >= rounds // 2:
            totals[truth] += 1
            hits["weighted"][truth] += fuse(reports, reputations, k, n)
            hits["counted"][truth] += bool(votes.sum() * n >= k * sensors)
        if rng.random() < evidence:
            agreed += votes == truth
            judged += 1
    return {
        "detection": hits["weighted"][1] / max(totals[1], 1),
        "false_alarm": hits["weighted"][0] / max(totals[0], 1),
        "detection_counted": hits["counted"][1] / max(totals[1], 1),
        "false_alarm_counted": hits["counted"][0] / max(totals[0], 1),
    }
