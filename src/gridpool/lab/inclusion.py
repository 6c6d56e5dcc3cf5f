"""How long a request waits for its block and its confirmations, before any link serves it."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.sparse.linalg import splu
from scipy.special import gammainc, gammaincc, gammaln

from gridpool.errors import RefusedInput
from gridpool.lab.access import Access, require_stable_blocks

__all__ = ["Inclusion", "inclusion", "tagged_epochs"]

_TAIL = 1e-15
_LONGEST = 5_000_000


@dataclass(frozen=True, kw_only=True)
class Inclusion:
    """What happens to a request until it is confirmed.

    The wait for the block, of requests that are not rejected, is either exponential stages (``stages``: rates one
    after the other, each with the probability that it is passed at all) or, where rejections eat into a frozen block,
    a number of epochs at ``access.epoch_rate`` with the distribution ``epochs``. ``blocks - 1`` further blocks follow.

    Attributes
    ----------
    access
        The network.
    mean
        Mean wait from arrival to the request's block, in units of time, over accepted requests.
    accepted_share
        Share of the requests that are accepted.
    stages
        Rate and probability of each exponential stage of the wait for the block.
    epochs
        ``epochs[m]`` is the probability that an accepted request waits for m epochs; empty if ``stages`` hold.
    """

    access: Access
    mean: float
    accepted_share: float
    stages: tuple[tuple[float, float], ...]
    epochs: NDArray[np.float64]

    @property
    def confirmation(self) -> float:
        """Mean time from the request's block to its last confirmation."""
        return (self.access.confirmations - 1) / self.access.block_rate

    @cached_property
    def _epochs_to_confirmation(self) -> NDArray[np.float64]:
        return _with_blocks(self.access, self.epochs)

    def survival(self, time: float) -> float:
        """Return the probability that an accepted request is not confirmed ``time`` after its arrival."""
        blocks, block_rate = self.access.confirmations - 1, self.access.block_rate
        if time <= 0:
            return 1.0
        if len(self.epochs):
            return _after_epochs(time, self.access, self._epochs_to_confirmation)
        if len(self.stages) == 1:
            return _exponential_then_blocks(time, self.stages[0][0], blocks, block_rate)
        (first, _), (second, share) = self.stages
        alone = _exponential_then_blocks(time, first, blocks, block_rate)
        both = (
            first * _exponential_then_blocks(time, second, blocks, block_rate) - second * alone
        ) / (first - second)  # fmt: skip
        return (1 - share) * alone + share * both

    def density(self, time: float) -> float:
        """Return the probability density of the confirmation ``time`` after arrival, by central differences."""
        step = 1e-5 * (self.mean + self.confirmation)
        low = max(time - step, 0.0)
        return (self.survival(low) - self.survival(time + step)) / (time + step - low)

    def percentile(self, share: float) -> float:
        """Return the time within which the ``share`` of accepted requests, in (0, 1), are confirmed."""
        high = self.mean + self.confirmation
        while self.survival(high) > 1 - share:
            high *= 2
        return float(brentq(lambda t: self.survival(t) - (1 - share), 0.0, high, xtol=1e-300, rtol=1e-13))


def inclusion(access: Access) -> Inclusion:
    """Return the exact wait for block and confirmations.

    With ``template="refresh"`` requests pending are geometric with ratio z. What is ahead of a tagged request stays
    geometric as epochs pass, so its wait is exponential with rate block_rate (1 - z^k) + reject_rate (1 - z^r), and
    whether it is accepted does not depend on it. With ``"frozen"`` the block in progress adds one exponential epoch.

    Raises RefusedInput if pending requests pile up for ever.

    Source: Kouvakis et al. 2024 give the case k = 1 as equation (1) and the case k = infinity in (7); bulk service
    with a frozen block: Gross and Harris, Fundamentals of Queueing Theory, section on bulk service.
    """
    require_stable_blocks(access)
    none = np.zeros(0)
    if access.partial_rejection:
        epochs, accepted = _frozen_epochs(access)
        mean = float(np.arange(len(epochs)) @ epochs) / access.epoch_rate
        return Inclusion(access=access, mean=mean, accepted_share=accepted, stages=(), epochs=epochs)
    u = access.decay_exponent()
    taken = -math.expm1(-u * access.block_size)
    if access.template == "refresh":
        blocked = access.block_rate * taken
        dropped = -access.reject_rate * math.expm1(-u * access.reject_size) if access.rejects else 0.0
        rate = blocked + dropped
        return Inclusion(
            access=access, mean=1 / rate, accepted_share=blocked / rate, stages=((rate, 1.0),), epochs=none
        )  # fmt: skip
    rate = access.epoch_rate
    busy = 1 / -math.expm1(-u)
    waits = busy / (busy + rate / access.arrival)
    accepted = access.block_rate / rate
    mean = waits / (rate * taken) + 1 / rate
    if taken > 0.5:
        # The two stages have nearly the same rate: add up epochs instead of taking a difference.
        more = max(1, math.ceil(math.log(_TAIL) / math.log1p(-taken))) if taken < 1 else 1
        epochs = np.zeros(more + 2)
        epochs[1] = 1 - waits
        epochs[2:] = waits * taken * (1 - taken) ** np.arange(more)
        return Inclusion(access=access, mean=mean, accepted_share=accepted, stages=(), epochs=epochs)
    stages = ((rate, 1.0), (rate * taken, waits))
    return Inclusion(access=access, mean=mean, accepted_share=accepted, stages=stages, epochs=none)


def tagged_epochs(access: Access) -> tuple[NDArray[np.float64], float]:
    """Follow a tagged request epoch by epoch through what is ahead of it, under ``template="refresh"``.

    Returns the distribution of the number of epochs that an accepted request waits for (index = epochs), and the
    accepted share. The wait is that many exponential times at ``access.epoch_rate``. Slower than ``inclusion``, and
    independent of it: only the distribution of the requests found on arrival is shared.
    """
    u = access.decay_exponent()
    size = math.ceil(-math.log(_TAIL) / u) + 1
    ahead = -math.expm1(-u) * np.exp(-u * np.arange(size))
    block, reject = access.block_rate / access.epoch_rate, access.reject_rate / access.epoch_rate
    k, r = (int(min(n, size)) for n in (access.block_size, access.reject_size))
    epochs = [0.0]
    while ahead.sum() > _TAIL and len(epochs) < _LONGEST:
        epochs.append(block * float(ahead[:k].sum()))
        left = np.zeros(size)
        left[: size - k] += block * ahead[k:]
        left[: size - r] += reject * ahead[r:]
        ahead = left
    found = np.array(epochs)
    return found / found.sum(), float(found.sum())


def _frozen_epochs(access: Access) -> tuple[NDArray[np.float64], float]:
    """Follow a tagged request where rejections drop a part (r < k) of the frozen block in progress."""
    found = _frozen_state(access)
    deepest = found.shape[1]
    k = len(found) - 1
    r = int(min(access.reject_size, k))
    block, reject = access.block_rate / access.epoch_rate, access.reject_rate / access.epoch_rate
    # waiting[t, n]: t left in the block in progress, n ahead behind it. inside[a]: a ahead within the block.
    waiting = found.copy()
    waiting[0] = 0.0
    inside = np.zeros(max(k, deepest) + 1)
    inside[0] = found[0, 0]
    epochs = [0.0]
    while waiting.sum() + inside.sum() > _TAIL and len(epochs) < _LONGEST:
        epochs.append(block * float(inside.sum()))
        moved = np.zeros_like(inside)
        moved[: len(inside) - r] = reject * inside[r:]
        # A block, or a rejection that finds at most r requests in the block, starts the next block.
        starts = block * waiting.sum(axis=0) + reject * waiting[: r + 1].sum(axis=0)
        kept = np.zeros_like(waiting)
        kept[1 : len(waiting) - r] = reject * waiting[r + 1 :]
        moved[:k] += starts[:k]
        kept[k, : deepest - k] += starts[k:]
        waiting, inside = kept, moved
    spread = np.array(epochs)
    return spread / spread.sum(), float(spread.sum())


def _frozen_state(access: Access) -> NDArray[np.float64]:
    """Return the stationary probability of [t in the block in progress, w behind it] under partial rejection."""
    deepest = 64
    while deepest <= 4096:
        k = int(min(access.block_size, deepest))
        r = int(access.reject_size)
        if (k + 1) * (deepest + 1) > 400_000:
            break
        t, w = (a.ravel() for a in np.meshgrid(np.arange(k + 1), np.arange(deepest + 1), indexing="ij"))
        number = t * (deepest + 1) + w
        fill = np.minimum(w, k)
        left = np.maximum(t - r, 0)
        moves = [
            (access.arrival, np.where(t == 0, 1, t), np.where(t == 0, w, np.minimum(w + 1, deepest))),
            (access.block_rate, fill, w - fill),
            (access.reject_rate, np.where(left > 0, left, fill), np.where(left > 0, w, w - fill)),
        ]
        to = np.concatenate([a * (deepest + 1) + b for _, a, b in moves])
        rates = np.repeat([rate for rate, _, _ in moves], len(number))
        flow = sp.csc_matrix((rates, (to, np.tile(number, 3))), shape=(len(number),) * 2)
        balance = (flow - sp.diags(np.asarray(flow.sum(axis=0)).ravel())).tocsc()
        rest = splu(balance[1:, 1:], permc_spec="COLAMD").solve(-balance[1:, 0].toarray().ravel())
        found = np.concatenate([[1.0], rest])
        shares = (found / found.sum()).reshape(k + 1, deepest + 1)
        if shares[:, -1].sum() < 1e-13 and (access.block_size != math.inf or shares[-1].sum() < 1e-13):
            return np.asarray(shares, np.float64)
        deepest *= 2
    raise RefusedInput("too many requests pend behind the frozen block for its chain; lower --arrival or use simulate")


def _exponential_then_blocks(time: float, rate: float, blocks: int, block_rate: float) -> float:
    """Return P(exponential(rate) + Erlang(blocks, block_rate) > time)."""
    if blocks == 0:
        return math.exp(-rate * time)
    late = float(gammaincc(blocks, block_rate * time))
    x = (block_rate - rate) * time
    log_scale = blocks * math.log(block_rate * time) - float(gammaln(blocks + 1))
    # blocks * x^-blocks * incomplete gamma(blocks, x), which is 1F1(blocks; blocks + 1; -x), in three regimes.
    if x > blocks + 1:
        log_kummer = math.log(float(gammainc(blocks, x))) + float(gammaln(blocks + 1)) - blocks * math.log(x)
    elif x >= 0:
        term = total = 1.0
        m = 1
        while term > 1e-17 * total:
            term *= x / (blocks + m)
            total += term
            m += 1
        log_kummer = -x + math.log(total)
    else:
        m_range = np.arange(int(-x + 12 * math.sqrt(-x) + 40))
        terms = m_range * math.log(-x) - gammaln(m_range + 1) + x
        log_kummer = -x + math.log(float((np.exp(terms) * blocks / (blocks + m_range)).sum()))
    return late + math.exp(-rate * time + log_scale + log_kummer)


def _after_epochs(time: float, access: Access, epochs: NDArray[np.float64]) -> float:
    """Return the probability that so many epochs take longer than ``time``."""
    last = np.flatnonzero(epochs)
    return float(epochs[last] @ gammaincc(last, access.epoch_rate * time))


def _with_blocks(access: Access, epochs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Add the confirming blocks, each a geometric number of epochs, to a distribution over epochs."""
    blocks = access.confirmations - 1
    share = access.block_rate / access.epoch_rate
    if blocks == 0:
        return epochs
    if share == 1.0:
        return np.concatenate([np.zeros(blocks), epochs])
    spare = math.ceil((blocks + 12 * math.sqrt(blocks) + 40) / share)
    n = np.arange(spare)
    weights = np.exp(
        gammaln(n + blocks) - gammaln(blocks) - gammaln(n + 1) + blocks * math.log(share) + n * math.log1p(-share)
    )  # fmt: skip
    return np.concatenate([np.zeros(blocks), np.convolve(epochs, weights)])
