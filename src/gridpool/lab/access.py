"""Blockchain access to a radio network: who arrives, how blocks take them in, and when that is stable."""

import math
from dataclasses import dataclass
from typing import Any, Literal

from scipy.optimize import brentq

from gridpool.errors import RefusedInput

__all__ = ["Access", "Template", "require_stable"]

Template = Literal["refresh", "frozen"]

_LARGEST_RATE = 1e12
_LARGEST_COUNT = 10**6


@dataclass(frozen=True, kw_only=True)
class Access:
    """One access network: Poisson requests, blocks that take them in, links that serve them once confirmed.

    Rates are per unit of time, whichever unit the caller uses. A block takes the ``block_size`` oldest pending
    requests; a request is confirmed by its own block and ``confirmations - 1`` further ones, empty ones included. A
    rejection epoch drops the ``reject_size`` oldest pending requests. With ``template="refresh"`` a block takes
    whatever is pending when it is found. With ``"frozen"`` it holds what was pending when the search for it began (an
    empty one takes the next arrival), and a rejection epoch drops requests of the block in progress only.

    Source: Kouvakis et al. 2024, section II, with its misprints put right (a block that finds i < k pending requests
    hands over i; j requests at s links are served at min(j, s) times the service rate).

    Parameters
    ----------
    arrival
        Requests per unit of time.
    block_rate
        Blocks per unit of time.
    service_rate
        Services per unit of time of one link.
    links
        Number of links.
    block_size
        Requests that fit in a block, or ``math.inf``.
    confirmations
        Blocks that must hold or follow a request before it is served.
    reject_rate
        Rejection epochs per unit of time.
    reject_size
        Requests dropped by one epoch, or ``math.inf``.
    template
        Whether the block in progress takes new requests.

    Raises
    ------
    RefusedInput
        A rate or a count is out of its range.
    """

    arrival: float
    block_rate: float
    service_rate: float
    links: int
    block_size: float
    confirmations: int
    reject_rate: float = 0.0
    reject_size: float = math.inf
    template: Template = "refresh"

    def __post_init__(self) -> None:
        for name in ("arrival", "block_rate", "service_rate"):
            value = getattr(self, name)
            if not 0 < value <= _LARGEST_RATE:
                raise RefusedInput(f"{_option(name)} must be positive and at most {_LARGEST_RATE:g}, not {value:g}")
        if not 0 <= self.reject_rate <= _LARGEST_RATE:
            raise RefusedInput(f"--reject-rate must be from 0 to {_LARGEST_RATE:g}, not {self.reject_rate:g}")
        for name in ("links", "confirmations", "block_size", "reject_size"):
            value = getattr(self, name)
            unlimited = name.endswith("size") and value == math.inf
            if not unlimited and not (1 <= value <= _LARGEST_COUNT and value == int(value)):
                allowed = f"a whole number from 1 to {_LARGEST_COUNT}" + (" or inf" if name.endswith("size") else "")
                raise RefusedInput(f"{_option(name)} must be {allowed}, not {value:g}")
        if self.template not in ("refresh", "frozen"):
            raise RefusedInput(f"--template must be refresh or frozen, not {self.template}")

    @property
    def epoch_rate(self) -> float:
        """Blocks and rejection epochs together, per unit of time."""
        return self.block_rate + self.reject_rate

    @property
    def rejects(self) -> bool:
        """Whether requests can be rejected at all."""
        return self.reject_rate > 0

    @property
    def partial_rejection(self) -> bool:
        """Whether one epoch can drop a part of a frozen block."""
        return self.rejects and self.template == "frozen" and self.reject_size < self.block_size

    @property
    def capacity(self) -> float:
        """Requests per unit of time that blocks and rejections can remove when requests never run out."""
        if not self.rejects:
            return self.block_size * self.block_rate
        if self.template == "refresh":
            return self.block_size * self.block_rate + self.reject_size * self.reject_rate
        if self.block_size == math.inf:
            return math.inf
        drops = math.ceil(self.block_size / self.reject_size) if self.partial_rejection else 1
        emptied = (self.reject_rate / self.epoch_rate) ** drops
        return self.block_size * self.block_rate / (1 - emptied)

    def decay_exponent(self) -> float:
        """Return u > 0 with z = exp(-u), where z^i (1 - z) is the share of time with i requests pending.

        z in (0, 1) solves block_rate z^(k+1) + reject_rate z^(r+1) - (sum of the rates) z + arrival = 0. For a frozen
        template it is the ratio of the requests that wait behind the block in progress, and an epoch that drops the
        whole block counts as one more block.
        """
        k = self.block_size
        r = k if self.template == "frozen" else self.reject_size

        def surplus(u: float) -> float:
            """Requests removed minus requests arrived, per unit of time, under the ratio exp(-u)."""
            return self.block_rate * _sum(u, k) + self.reject_rate * _sum(u, r) - self.arrival

        high = math.log1p(self.epoch_rate / self.arrival)
        low = high
        while surplus(low) <= 0:
            high, low = low, low / 2
            if low < 1e-300:
                raise RefusedInput(f"arrival {self.arrival:g} is too close to the capacity {self.capacity:g}")
        if low == high:
            return high
        return float(brentq(surplus, low, high, xtol=1e-300, rtol=1e-15, maxiter=500))

    def as_dict(self) -> dict[str, Any]:
        """Give the parameters as JSON-ready data; unlimited sizes are the string ``inf``."""
        names = ["arrival", "block_rate", "service_rate", "links", "block_size", "confirmations"]
        names += ["reject_rate", "reject_size"] if self.rejects else []
        return {name: _plain(name, getattr(self, name)) for name in (*names, "template")}


def require_stable(access: Access, accepted_share: float) -> None:
    """Refuse an access network whose pending requests or whose links pile up for ever.

    Raises RefusedInput with the violated condition and its numbers.
    """
    require_stable_blocks(access)
    accepted, served = access.arrival * accepted_share, access.links * access.service_rate
    if accepted >= served:
        raise RefusedInput(
            f"unstable: the accepted rate must stay below links x service-rate, but {accepted:.9g} >= "
            f"{access.links} x {access.service_rate:g} = {served:.9g}"
        )


def require_stable_blocks(access: Access) -> None:
    """Refuse an access network whose pending requests pile up for ever, with the violated condition."""
    if access.arrival < access.capacity:
        return
    numbers = f"{access.block_size:g} x {access.block_rate:g}"
    rule = "block-size x block-rate"
    if access.rejects and access.template == "refresh":
        rule += " + reject-size x reject-rate"
        numbers += f" + {access.reject_size:g} x {access.reject_rate:g}"
    elif access.rejects:
        rule = "what blocks and rejections of a frozen block remove"
        numbers = f"size {access.block_size:g}, rates {access.block_rate:g} and {access.reject_rate:g}"
    raise RefusedInput(
        f"unstable: arrival must stay below {rule}, but {access.arrival:.9g} >= {numbers} = {access.capacity:.9g}"
    )


def _sum(u: float, size: float) -> float:
    """Return z + z^2 + ... + z^size for z = exp(-u)."""
    return math.exp(-u) * (math.expm1(-u * size) / math.expm1(-u))


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _plain(name: str, value: float | str) -> float | int | str:
    if value == math.inf:
        return "inf"
    return int(value) if name.endswith("size") else value
