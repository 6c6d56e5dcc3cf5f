"""Access to one band by many users: slotted ALOHA, CSMA/CA, and leases granted by the ledger.

All three carry the same frames at the same rate; what differs is who may send when. Users are saturated unless a
burst is given. Throughput is the share of time in which payload gets through, collisions the share of transmissions
that are lost, fairness Jain's index of what each user got, over the whole run and over short windows.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Outcome", "aloha", "aloha_throughput", "csma", "csma_throughput", "jain", "leased"]

SLOT_S = 9e-6
"""IEEE 802.11 (OFDM): slot, short and distributed interframe space."""
SIFS_S = 16e-6
DIFS_S = SIFS_S + 2 * SLOT_S
ACK_S = 44e-6
FRAME_S = 1e-3
"""Payload time of a frame."""
WINDOW_MIN, STAGES = 16, 6
"""First contention window, and how often it doubles."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a scheme gave: shares in 0..1, Jain's index overall and in windows of ten frames a user."""

    throughput: float
    collisions: float
    fairness: float
    short_fairness: float
    shares: npt.NDArray[np.float64]


def jain(amounts: npt.ArrayLike) -> float:
    """Return Jain's fairness index; 1 where nobody got anything."""
    values = np.asarray(amounts, dtype=np.float64)
    squares = float(np.sum(values**2))
    return 1.0 if squares == 0.0 else float(np.sum(values)) ** 2 / (len(values) * squares)


def aloha_throughput(users: int, probability: float) -> float:
    """Return slotted ALOHA's throughput n p (1 - p)^(n - 1) for saturated users."""
    return users * probability * (1.0 - probability) ** (users - 1)


def aloha(users: int, frames: int, rng: np.random.Generator) -> Outcome:
    """Simulate slotted ALOHA at its best: every user sends with probability 1/n in each of ``frames`` slots."""
    senders = rng.binomial(users, 1.0 / users, size=frames)
    winners = np.where(senders == 1, rng.integers(0, users, size=frames), -1)
    sent = int(senders.sum())
    good = winners[winners >= 0]
    return _outcome(users, good, len(good) / frames, 1.0 - len(good) / max(sent, 1))


def csma_throughput(users: int, *, window: int = WINDOW_MIN, stages: int = STAGES) -> float:
    """Return saturated CSMA/CA's throughput by Bianchi's fixed point (IEEE JSAC 18(3), 2000), basic access."""
    low, high = 0.0, 1.0
    for _ in range(200):
        middle = (low + high) / 2
        if _attempts(middle, window, stages, users) > middle:
            low = middle
        else:
            high = middle
    tau = _tau(low, window, stages)
    busy = 1.0 - (1.0 - tau) ** users
    success = users * tau * (1.0 - tau) ** (users - 1)
    good, bad = FRAME_S + SIFS_S + ACK_S + DIFS_S, FRAME_S + DIFS_S
    time = (1.0 - busy) * SLOT_S + success * good + (busy - success) * bad
    return float(success * FRAME_S / time)


def csma(users: int, frames: int, rng: np.random.Generator, *, greedy: float = 0.0) -> Outcome:
    """Simulate saturated CSMA/CA until ``frames`` transmissions; a share ``greedy`` of users never doubles its window.

    No rule of the band keeps them from that.
    """
    selfish = np.arange(users) < round(greedy * users)
    stage = np.zeros(users, dtype=np.int64)
    counter = rng.integers(0, WINDOW_MIN, size=users)
    elapsed = payload = 0.0
    attempts = lost = 0
    winners = []
    for _ in range(frames):
        least = counter.min()
        elapsed += least * SLOT_S
        counter -= least
        sending = np.flatnonzero(counter == 0)
        attempts += len(sending)
        if len(sending) == 1:
            winners.append(int(sending[0]))
            payload += FRAME_S
            elapsed += FRAME_S + SIFS_S + ACK_S + DIFS_S
            stage[sending] = 0
        else:
            lost += len(sending)
            elapsed += FRAME_S + DIFS_S
            stage[sending] = np.minimum(stage[sending] + 1, STAGES)
        windows = np.where(selfish[sending], WINDOW_MIN, WINDOW_MIN << stage[sending])
        counter -= 1  # a busy period counts as one slot for everybody who waits
        counter[sending] = rng.integers(0, windows)
    return _outcome(users, np.array(winners, dtype=np.int64), payload / elapsed, lost / max(attempts, 1))


def leased(
    users: int,
    leases: int,
    rng: np.random.Generator,
    *,
    latency_s: float,
    lease_s: float,
    burst_s: float | None = None,
    guard_s: float = DIFS_S,
) -> Outcome:
    """Simulate leases of one band, granted in turn by the ledger.

    A lease that runs its course is followed at once by the next, requested in time; a user whose burst (exponential
    with mean ``burst_s``; None: saturated) ends early relinquishes, and the band lies idle for ``latency_s`` until the
    next user's request is on the ledger. Access goes to whoever has used least, which is what thresholds enforce.
    """
    used = np.zeros(users)
    left = np.full(users, np.inf) if burst_s is None else rng.exponential(burst_s, size=users)
    winners = np.empty(leases, dtype=np.int64)
    lengths = np.empty(leases)
    elapsed = latency_s
    order = rng.permutation(users)
    for i in range(leases):
        user = int(order[np.argmin(used[order])])
        winners[i] = user
        length = min(lease_s, left[user])
        lengths[i] = length
        used[user] += length
        elapsed += length + guard_s
        if length < lease_s:
            elapsed += latency_s
        if burst_s is not None:
            left[user] -= length
            if left[user] <= 0.0:
                left[user] = rng.exponential(burst_s)
    payload = float(lengths.sum()) * FRAME_S / (FRAME_S + SIFS_S + ACK_S)
    return _outcome(users, winners, payload / elapsed, 0.0, weights=lengths)


def _tau(collision: float, window: int, stages: int) -> float:
    """Return the attempt probability of a station that collides with probability ``collision``."""
    if abs(collision - 0.5) < 1e-12:
        return 2.0 / (1.0 + window + 0.5 * window * stages)
    twice = 2.0 * collision
    return 2.0 * (1.0 - twice) / ((1.0 - twice) * (window + 1) + collision * window * (1.0 - twice**stages))


def _attempts(collision: float, window: int, stages: int, users: int) -> float:
    return float(1.0 - (1.0 - _tau(collision, window, stages)) ** (users - 1))


def _outcome(
    users: int,
    winners: npt.NDArray[np.int64],
    throughput: float,
    collisions: float,
    *,
    weights: npt.NDArray[np.float64] | None = None,
) -> Outcome:
    shares = np.bincount(winners, weights=weights, minlength=users).astype(np.float64)
    window = 10 * users
    short = [
        jain(
            np.bincount(
                winners[at : at + window],
                weights=None if weights is None else weights[at : at + window],
                minlength=users,
            )
        )
        for at in range(0, len(winners) - window + 1, window)
    ]
    return Outcome(throughput, collisions, jain(shares), float(np.mean(short)) if short else jain(shares), shares)
