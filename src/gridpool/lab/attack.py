"""The alternative-history attack: how likely it succeeds, and how many blocks it costs."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc, gammaln

from gridpool.errors import RefusedInput

__all__ = ["Attack", "attack_success", "published_success", "race_blocks", "ratio_from_share"]

_LARGEST_CONFIRMATIONS = 100_000
_LARGEST_GIVE_UP = 10**9


@dataclass(frozen=True, kw_only=True)
class Attack:
    """An attacker mines in secret from before the attacked block until the confirmations are there, then races.

    Parameters
    ----------
    beta
        Attacker's block rate over the honest one.
    confirmations
        Blocks of the honest chain, the attacked one included, before the race starts.
    give_up
        Deficit in blocks at which the attacker gives up, or ``math.inf``.
    abort
        Whether the attacker gives up when the deficit ``exceeds`` or already ``reaches`` ``give_up``.
    success
        Whether the attacker must get one block ``ahead`` or a ``tie`` is enough.
    pre_mined
        Blocks that the attacker has before the attacked block is found.
    attacked_block_counts
        Whether the attacked block is its own first confirmation; if not, one more honest block is needed.

    Raises
    ------
    RefusedInput
        A value is out of its range.
    """

    beta: float
    confirmations: int
    give_up: float = math.inf
    abort: Literal["exceeds", "reaches"] = "exceeds"
    success: Literal["ahead", "tie"] = "ahead"
    pre_mined: int = 0
    attacked_block_counts: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.beta <= 1e12:
            raise RefusedInput(f"--beta must be from 0 to 1e12, not {self.beta:g}")
        if not 1 <= self.confirmations <= _LARGEST_CONFIRMATIONS:
            raise RefusedInput(
                f"--confirmations must be a whole number from 1 to {_LARGEST_CONFIRMATIONS}, not {self.confirmations}"
            )
        if self.give_up != math.inf and not (
            0 <= self.give_up <= _LARGEST_GIVE_UP and self.give_up == int(self.give_up)
        ):
            raise RefusedInput(
                f"--give-up must be a whole number from 0 to {_LARGEST_GIVE_UP} or inf, not {self.give_up:g}"
            )
        if not 0 <= self.pre_mined <= _LARGEST_CONFIRMATIONS:
            raise RefusedInput(f"--pre-mined must be from 0 to {_LARGEST_CONFIRMATIONS}, not {self.pre_mined}")
        if self.abort not in ("exceeds", "reaches") or self.success not in ("ahead", "tie"):
            raise RefusedInput("--abort must be exceeds or reaches, --success ahead or tie")

    @property
    def honest_blocks(self) -> int:
        """Honest blocks found before the race starts."""
        return self.confirmations + (0 if self.attacked_block_counts else 1)

    @property
    def needed(self) -> int:
        """Blocks that the attacker must find in all to succeed without a race."""
        return self.honest_blocks - self.pre_mined + (1 if self.success == "ahead" else 0)

    @property
    def abandoned_at(self) -> float:
        """Blocks still missing at which the race is given up (T), or ``math.inf``."""
        return self.give_up + (1 if self.abort == "exceeds" else 0) + (1 if self.success == "ahead" else 0)


def ratio_from_share(share: float) -> float:
    """Return attacker's rate over honest rate from the attacker's share of all blocks, in [0, 1).

    Raises RefusedInput outside that range.
    """
    if not 0 <= share < 1:
        raise RefusedInput(f"--beta as a share must be at least 0 and below 1, not {share:g}")
    return share / (1 - share)


def attack_success(attack: Attack) -> float:
    """Return the exact probability that the attack succeeds, for any beta, give-up threshold and confirmations.

    The attacker finds n blocks while the honest chain finds its own (negative binomial), and then plays a gambler's
    ruin between success and giving up. All terms are positive, so small probabilities keep their relative accuracy.

    Source: the sum of Kouvakis et al. 2024, equation (8), with the ruin probability of a finite threshold.
    """
    if attack.beta == 0:
        return 1.0 if attack.needed <= 0 else 0.0
    if attack.beta >= 1 and attack.abandoned_at == math.inf:
        return 1.0
    head_start, missing, weights = _race(attack)
    return min(1.0, head_start + float(weights @ _ruin(attack.beta, missing, attack.abandoned_at)))


def published_success(attack: Attack) -> float:
    """Return equation (8) of Kouvakis et al. 2024 as printed: no threshold, one block ahead, 1 from beta = 1 on."""
    if attack.beta >= 1:
        return 1.0
    return attack_success(Attack(beta=attack.beta, confirmations=attack.confirmations))


def race_blocks(attack: Attack) -> float | None:
    """Return the expected number of blocks found by both sides during the race, or None where it is infinite."""
    if attack.beta == 0:
        # Honest blocks only: the race lasts until the deficit is too large.
        x, top = max(attack.needed, 0), attack.abandoned_at
        return None if top == math.inf and x > 0 else float(max(top - x, 0.0)) if x > 0 else 0.0
    head_start, missing, weights = _race(attack)
    if attack.abandoned_at == math.inf:
        if attack.beta > 1:
            return float(weights @ missing) * (attack.beta + 1) / (attack.beta - 1)
        return None if len(missing) and head_start < 1 else 0.0
    return float(weights @ _duration(attack.beta, missing, attack.abandoned_at))


def _race(attack: Attack) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
    """Return the probability of succeeding without a race, and the blocks missing at its start with their weights."""
    if attack.needed <= 0:
        return 1.0, np.zeros(0), np.zeros(0)
    honest, needed = attack.honest_blocks, attack.needed
    n = np.arange(needed)
    log_weights = gammaln(n + honest) - gammaln(honest) - gammaln(n + 1)
    log_weights += n * math.log(attack.beta) - (honest + n) * math.log1p(attack.beta)
    head_start = float(betainc(needed, honest, attack.beta / (1 + attack.beta)))
    return head_start, (needed - n).astype(np.float64), np.exp(log_weights)


def _ruin(beta: float, missing: NDArray[np.float64], top: float) -> NDArray[np.float64]:
    """Return the probability of winning the race from each number of missing blocks, given up at ``top``."""
    inside = missing < top
    if top == math.inf:
        return np.where(inside, 1.0 if beta >= 1 else np.exp(missing * math.log(beta)), 0.0)
    x = np.where(inside, missing, 0.0)
    if beta == 1:
        chance = (top - x) / max(top, 1)
    else:
        slope = abs(math.log(beta))
        chance = np.expm1(-(top - x) * slope) / math.expm1(-top * slope) if top > 0 else np.zeros_like(x)
        if beta < 1:
            chance = chance * np.exp(-x * slope)
    return np.where(inside, chance, 0.0)


def _duration(beta: float, missing: NDArray[np.float64], top: float) -> NDArray[np.float64]:
    """Return the expected number of blocks of the race from each number of missing blocks."""
    inside = missing < top
    if not inside.any():
        return np.zeros_like(missing)
    x = np.where(inside, missing, 0.0)
    slope = math.log(beta)
    if slope == 0:
        length = x * (top - x)
    elif abs(slope) * top < 0.5:
        # (T (1 - h) - x) / (p - q) without its cancellation near beta = 1.
        spread = top * _second(np.array([slope * top]))[0] - x * _second(slope * x)
        length = x * slope * spread / (math.expm1(slope * top) / (slope * top) * math.tanh(slope / 2))
    else:
        lost = np.expm1(-x * abs(slope)) / math.expm1(-top * abs(slope))
        if beta > 1:
            lost = lost * np.exp((x - top) * slope)
        length = (top * lost - x) * (1 + beta) / (1 - beta)
    return np.where(inside, length, 0.0)


def _second(u: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (exp(u) - 1 - u) / u^2 for |u| < 1, by its series."""
    total = np.zeros_like(u)
    for m in range(20, 1, -1):
        total = (total * u) + 1.0 / math.factorial(m)
    return total
