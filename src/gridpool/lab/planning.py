"""How many confirmations, how large a block and how fast a chain a target latency and a risk allow."""

import math
from dataclasses import dataclass, replace
from typing import Literal

import msgspec

from gridpool.errors import RefusedInput
from gridpool.lab.access import Access, require_stable
from gridpool.lab.attack import Attack, attack_success
from gridpool.lab.inclusion import inclusion
from gridpool.lab.latency import exact_latency

__all__ = ["AccessPlan", "Statistic", "plan_access"]

Statistic = Literal["mean", "p50", "p90", "p99"]

_MOST_CONFIRMATIONS = 50_000
_MOST_AGAINST_STRONGER = 300
_LARGEST_BLOCK = 1_000_000
_MOST_SIZES = 400
_FASTEST = 1e4
_RATE_TOLERANCE = 1e-6


class AccessPlan(msgspec.Struct, frozen=True, kw_only=True):
    """The smallest confirmations, then the smallest block, then the slowest chain that meet both targets.

    Where none does, ``feasible`` is false, ``binding`` names the constraint that cannot be met, and the other fields
    hold the best choice looked at, or None. ``latency`` is in units of time; its percentiles are those of inclusion
    plus confirmation, before any link serves the request.
    """

    feasible: bool
    confirmations: int | None
    block_size: int | Literal["inf"] | None
    block_rate: float | None
    latency: float | None
    risk: float | None
    binding: Literal["latency", "risk"] | None


def plan_access(
    *,
    access: Access,
    attack: Attack,
    target_latency: float,
    statistic: Statistic,
    max_risk: float,
    free_block_size: bool = True,
    free_block_rate: bool = False,
    seed: int = 1,
) -> AccessPlan:
    """Choose confirmations from the risk, then block size and block rate from the latency.

    ``access`` and ``attack`` hold everything that is given; their confirmations are ignored, and so are the block
    size and the block rate where they are free. More confirmations never shorten the latency, so the fewest that the
    risk allows are taken first.

    Raises RefusedInput for targets out of range or links that cannot serve the requests.
    """
    if not 0 < target_latency < math.inf:
        raise RefusedInput(f"--target-latency must be positive, not {target_latency:g}")
    if not 0 < max_risk <= 1:
        raise RefusedInput(f"--max-risk must be above 0 and at most 1, not {max_risk:g}")
    if statistic not in ("mean", "p50", "p90", "p99"):
        raise RefusedInput(f"--statistic must be mean, p50, p90 or p99, not {statistic}")
    served = access.links * access.service_rate
    if not access.rejects and access.arrival >= served:
        raise RefusedInput(
            f"unstable: arrival must stay below links x service-rate, but {access.arrival:g} >= "
            f"{access.links} x {access.service_rate:g} = {served:g}"
        )
    confirmations, risk = _fewest_confirmations(attack, max_risk)
    if confirmations is None:
        return AccessPlan(
            feasible=False, confirmations=None, block_size=None, block_rate=None, latency=None, risk=risk,
            binding="risk",
        )  # fmt: skip
    access = replace(access, confirmations=confirmations)
    target = _Target(target_latency, statistic, seed)
    if free_block_size:
        access = replace(access, block_size=1.0 if free_block_rate else math.inf)
    if free_block_rate:
        chosen, reached = _slowest_chain(access, target)
    elif free_block_size:
        chosen, reached = _smallest_block(access, target)
    else:
        require_stable(access, inclusion(access).accepted_share)
        chosen, reached = access, target.latency(access)
    feasible = reached <= target_latency
    return AccessPlan(
        feasible=feasible,
        confirmations=confirmations,
        block_size="inf" if chosen.block_size == math.inf else int(chosen.block_size),
        block_rate=chosen.block_rate,
        latency=None if reached == math.inf else reached,
        risk=risk,
        binding=None if feasible else "latency",
    )


@dataclass(frozen=True)
class _Target:
    """A latency not to be exceeded, and the statistic that it is about."""

    latest: float
    statistic: Statistic
    seed: int

    def before_service(self, access: Access) -> float:
        """Return the statistic of inclusion plus confirmation; infinite where requests pile up."""
        if access.arrival >= access.capacity:
            return math.inf
        found = inclusion(access)
        if self.statistic == "mean":
            return found.mean + found.confirmation
        return found.percentile({"p50": 0.5, "p90": 0.9, "p99": 0.99}[self.statistic])

    def latency(self, access: Access) -> float:
        """Return the statistic, for means with the wait for a link; infinite where requests pile up."""
        early = self.before_service(access)
        if self.statistic != "mean" or early == math.inf:
            return early
        if access.arrival * inclusion(access).accepted_share >= access.links * access.service_rate:
            return math.inf
        return exact_latency(access, seed=self.seed).latency


def _fewest_confirmations(attack: Attack, max_risk: float) -> tuple[int | None, float]:
    """Return the fewest confirmations that meet the risk, and the risk; None and the least risk seen if none do."""

    def risk(confirmations: int) -> float:
        return attack_success(replace(attack, confirmations=confirmations))

    if attack.beta >= 1:
        risks = [risk(n) for n in range(1, _MOST_AGAINST_STRONGER + 1)]
        return next(((n, r) for n, r in enumerate(risks, 1) if r <= max_risk), (None, min(risks)))
    high = 1
    while risk(high) > max_risk:
        high *= 2
        if high > _MOST_CONFIRMATIONS:
            return None, risk(_MOST_CONFIRMATIONS)
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if risk(middle) > max_risk else (low, middle)
    return high, risk(high)


def _smallest_block(access: Access, target: _Target) -> tuple[Access, float]:
    """Return the network with the smallest block that meets the target, or with the best block, and its latency.

    Larger blocks shorten the wait for a block but hand over larger batches, so that the wait for a link grows. The
    smallest size that could do is found on the former alone; from there sizes are tried one by one, until even the
    shortest wait for a block would not make up for the wait for a link.
    """
    unlimited = replace(access, block_size=math.inf)
    floor = target.before_service(unlimited)
    if floor > target.latest:
        return unlimited, target.latency(unlimited)
    low, high = 0, 1
    while target.before_service(replace(access, block_size=float(high))) > target.latest:
        low, high = high, 2 * high
        if high > _LARGEST_BLOCK:
            return unlimited, target.latency(unlimited)
    while high - low > 1:
        middle = (low + high) // 2
        enough = target.before_service(replace(access, block_size=float(middle))) <= target.latest
        low, high = (low, middle) if enough else (middle, high)
    best, best_latency = unlimited, math.inf
    for size in range(high, high + _MOST_SIZES):
        tried = replace(access, block_size=float(size))
        reached = target.latency(tried)
        if reached < best_latency:
            best, best_latency = tried, reached
        wait_for_link = reached - target.before_service(tried)
        if reached <= target.latest or (math.isfinite(reached) and floor + wait_for_link > target.latest):
            break
    return best, best_latency


def _slowest_chain(access: Access, target: _Target) -> tuple[Access, float]:
    """Return the network with the smallest block rate that meets the target, or with a very fast chain."""

    def at(rate: float) -> Access:
        return replace(access, block_rate=rate)

    start = 1 / target.latest
    while target.before_service(at(start)) > target.latest:
        start *= 2
    low, high = (0.0, start) if start == 1 / target.latest else (start / 2, start)
    while high - low > _RATE_TOLERANCE * high:
        middle = (low + high) / 2
        low, high = (middle, high) if target.before_service(at(middle)) > target.latest else (low, middle)
    reached = target.latency(at(high))
    if reached <= target.latest:
        return at(high), reached
    limit = high * _FASTEST
    while reached > target.latest and high < limit:
        low, high = high, high * 2
        reached = target.latency(at(high))
    if reached > target.latest:
        return at(high), reached
    while high - low > _RATE_TOLERANCE * high:
        middle = (low + high) / 2
        tried = target.latency(at(middle))
        if tried > target.latest:
            low = middle
        else:
            high, reached = middle, tried
    return at(high), reached
