"""The wait of a confirmed request for a link, from the Markov chain of pending requests and links."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.linalg import SuperLU, splu

from gridpool.lab.access import Access, require_stable
from gridpool.lab.inclusion import inclusion
from gridpool.lab.published import erlang_c

__all__ = ["LinkWait", "link_wait", "link_wait_far"]

Array = NDArray[np.float64]
Move = tuple[NDArray[np.signedinteger[Any]], NDArray[np.signedinteger[Any]], float | Array]

_TAIL = 1e-12
_COARSE_TAIL = 1e-9
_MANY_STATES = 150_000
_MOST_STATES = 400_000
_MOST_WORK = 2e11
_CONVERGED = 1e-11
_KRYLOV = 60


@dataclass(frozen=True, kw_only=True)
class LinkWait:
    """Mean wait for a link, in units of time, excluding the service itself.

    ``method`` is how it was found, ``truncation_mass`` the probability on the edge of the truncated chain and
    ``states`` the number of its states (0 for a closed form).
    """

    mean: float
    method: Literal["closed form", "chain"]
    truncation_mass: float
    states: int


def link_wait(access: Access) -> LinkWait | None:
    """Return the exact mean wait for a link, or None where only simulation gives it.

    Blocks hand requests over in batches, so an M/M/s queue is right only for k = 1 and N = 1 (Burke). Otherwise:
    N = 1 by the sparse chain of (pending, at the links); N = 2, or a frozen block with N = 1, by the same chain with
    the batch that waits for its last block. None for larger N, for a block nibbled at by rejections, and where the
    chain would need too many states.

    Raises RefusedInput for an unstable network.
    """
    accepted_share = inclusion(access).accepted_share
    require_stable(access, accepted_share)
    accepted = access.arrival * accepted_share
    one_by_one = access.block_size == 1 and (
        not access.rejects or access.reject_size == 1 or access.template == "frozen"
    )
    if access.confirmations == 1 and one_by_one:
        mean = erlang_c(access.links, accepted / access.service_rate) / (access.links * access.service_rate - accepted)
        return LinkWait(mean=mean, method="closed form", truncation_mass=0.0, states=0)
    held_back = access.confirmations - (1 if access.template == "refresh" or access.block_size == 1 else 0)
    if held_back > 1 or access.partial_rejection:
        return None
    return _solve(access, accepted, "now" if held_back == 0 else "next")


def link_wait_far(access: Access) -> LinkWait | None:
    """Return the mean wait for a link in the limit of many confirmations, under ``template="refresh"``.

    The batch delivered by a block is then independent of the time since the block before it. None where the chain
    would need too many states.

    Raises RefusedInput for an unstable network.
    """
    accepted_share = inclusion(access).accepted_share
    require_stable(access, accepted_share)
    return _solve(access, access.arrival * accepted_share, "far")


def _solve(access: Access, accepted: float, delivery: Literal["now", "next", "far"]) -> LinkWait | None:
    """Truncate the chain where its tails fall below 1e-12 (1e-9 if large), and widen it if an edge still shows."""
    u = access.decay_exponent()
    drain = -math.log(accepted / (access.links * access.service_rate))
    if delivery == "far":
        drain = _batch_drain(access, u, drain)
    slowest = min(drain, u) if access.block_size == math.inf else drain
    # Batches of one time of many pending requests come in a row.
    in_a_row = 1.5 if delivery == "far" and access.block_size < math.inf else 1.0
    for tail in (_TAIL, _COARSE_TAIL):
        pending_span = -math.log(tail) / u
        link_span = in_a_row * (access.links + min(access.block_size, pending_span) - math.log(tail) / slowest)
        if pending_span * link_span < _MANY_STATES:
            break
    for _ in range(4):
        if (pending_span + 2) * (link_span + 2) > _MOST_STATES:
            return None
        grid = _Grid(access, math.ceil(pending_span), math.ceil(link_span))
        shares: Array | None
        if delivery == "now":
            shares = grid.stationary()
        else:
            shares = grid.embedded(delivery) if grid.work(delivery) <= _MOST_WORK else None
        if shares is None:
            return None
        edge = float(shares[-1].sum() + shares[:, -1].sum())
        if edge < 10 * tail:
            queued = np.maximum(np.arange(len(shares)) - access.links, 0)
            linked = grid.drain(shares) if delivery == "next" else shares.sum(axis=1)
            return LinkWait(
                mean=float(queued @ linked) / accepted, method="chain", truncation_mass=edge, states=shares.size
            )
        pending_span, link_span = (
            span * (1.5 if mass > 5 * tail else 1.0)
            for span, mass in ((pending_span, shares[:, -1].sum()), (link_span, shares[-1].sum()))
        )
    return None


def _batch_drain(access: Access, u: float, single: float) -> float:
    """Return the rate at which the tail of the links falls where independent batches arrive at every block.

    It solves block_rate (E[exp(x batch)] - 1) = links service_rate (1 - exp(-x)) and lies below ``single``, the rate
    where requests arrive one by one.
    """
    most = int(min(access.block_size, -math.log(_TAIL) / u))
    sizes = np.arange(most + 1)
    shares = -math.expm1(-u) * np.exp(-u * sizes)
    shares[-1] = math.exp(-u * most)
    low, high = 0.0, single
    for _ in range(60):
        middle = (low + high) / 2
        inflow = access.block_rate * float(shares @ np.expm1(np.minimum(middle * sizes, 700.0)))
        outflow = access.links * access.service_rate * -math.expm1(-middle)
        low, high = (middle, high) if inflow < outflow else (low, middle)
    return max(low, 0.1 * single)


class _Grid:
    """The truncated chain on [at the links, pending]; arrays of probabilities have these two axes."""

    def __init__(self, access: Access, most_pending: int, most_linked: int) -> None:
        self.access = access
        self.shape = (most_linked + 1, most_pending + 1)
        self.batch = np.minimum(np.arange(most_pending + 1), int(min(access.block_size, most_pending)))
        self.busy = np.minimum(np.arange(most_linked + 1), access.links) * access.service_rate
        frozen = access.template == "frozen"
        self.clock = access.epoch_rate if frozen else access.block_rate
        self.delivered = access.block_rate / self.clock
        dropped = int(min(access.reject_size, most_pending)) if access.rejects else 0
        self.dropped = np.minimum(np.arange(most_pending + 1), self.batch if frozen else dropped)

    def stationary(self) -> Array:
        """Return the share of time in each state where a block hands its requests over at once."""
        solver, _ = self._factored()
        return self._null_vector(solver)

    def embedded(self, delivery: Literal["next", "far"]) -> Array | None:
        """Return the distribution over [at the links, pending just before the epoch] that repeats epoch after epoch.

        With ``next``, just after an epoch, whose batch is handed over by the next block; with ``far`` just before an
        epoch, where an independent older batch is handed over. Solved by GMRES, preconditioned by the chain that
        hands over at once, which has nearly the same slow modes; None if that does not converge.
        """
        solver, evolution = self._factored()
        start = self._null_vector(solver)
        null = start / start.sum()
        step = self._next_step() if delivery == "next" else self._far_step()

        def residual(flat: Array) -> Array:
            return flat - step(flat.reshape(self.shape)).ravel()

        def precondition(flat: Array) -> Array:
            right = evolution @ flat
            found = np.concatenate([[0.0], solver.solve(right[1:])])
            change: Array = found - found.sum() * null.ravel()
            return change

        guess = null.ravel()
        for _ in range(8):
            missing = -residual(guess)
            if np.abs(missing).sum() < 1e-13:
                break
            change = _krylov(lambda flat: precondition(residual(flat)), precondition(missing))
            guess = guess + change
            guess = guess / guess.sum()
        shares: Array = guess.reshape(self.shape)
        return shares if np.abs(residual(guess)).sum() < _CONVERGED else None

    def drain(self, shares: Array) -> Array:
        """Return the distribution over the links just before the next epoch, which is also that at any time."""
        linked: Array = self._drained(shares.sum(axis=1)[:, None])[:, 0]
        return linked

    def work(self, delivery: Literal["next", "far"]) -> float:
        """Return the multiplications that solving will roughly need."""
        linked, pending = self.shape
        if delivery == "far":
            return 40.0 * linked * pending * (linked + pending)
        levels = self.access.links + 1
        if levels * pending**2 > 3e7:
            return math.inf
        return float(40.0 * linked * pending**2 * (self.batch[-1] + 1) + levels * pending**3)

    def _factored(self) -> tuple[SuperLU, sp.csr_matrix]:
        """Factor the chain that hands over at once, less its first state; also its evolution between epochs."""
        linked, pending = self.shape
        j, i = (a.ravel() for a in np.meshgrid(np.arange(linked), np.arange(pending), indexing="ij"))
        number = j * pending + i
        access, batch, dropped = self.access, self.batch[i], self.dropped[i]
        size = len(number)
        room, linked_now = i < pending - 1, j > 0
        between: list[Move] = [
            (number[room], number[room] + 1, access.arrival),
            (number[linked_now], number[linked_now] - pending, self.busy[j][linked_now]),
        ]
        rejection: list[Move] = [(number, number - dropped, access.reject_rate)] if access.rejects else []
        frozen = access.template == "frozen"
        block: list[Move] = [(number, np.minimum(j + batch, linked - 1) * pending + i - batch, access.block_rate)]
        quiet = _flow(between + ([] if frozen else rejection), size)
        epoch = _flow(block + (rejection if frozen else []), size)
        chain = (quiet + epoch - sp.diags(_leaving(quiet + epoch))).tocsc()
        order = "MMD_AT_PLUS_A" if size < 150_000 and access.block_size > pending else "COLAMD"
        solver = splu(-chain[1:, 1:], permc_spec=order, diag_pivot_thresh=0.0, options={"SymmetricMode": True})
        self._first = chain[1:, 0].toarray().ravel()
        evolution = (sp.diags(_leaving(quiet) + self.clock) - quiet).tocsr()
        return solver, evolution

    def _null_vector(self, solver: SuperLU) -> Array:
        found = np.concatenate([[1.0], solver.solve(self._first)])
        shares: Array = (found / found.sum()).reshape(self.shape)
        return shares

    def _next_step(self) -> Callable[[Array], Array]:
        """Return the step from epoch to epoch where the next block hands over the batch taken by this one."""
        linked, pending = self.shape
        most = int(self.batch[-1])
        inverses = self._level_inverses()
        level = np.minimum(np.arange(linked), self.access.links)
        frozen = self.access.template == "frozen"
        left = np.arange(pending) - self.batch

        def step(shares: Array) -> Array:
            # held[j, i, b]: b in the batch, i pending behind it.
            held = np.zeros((linked, pending, most + 1))
            held[:, left, self.batch] = shares
            above = np.zeros((pending, most + 1))
            for j in range(linked - 1, -1, -1):
                flow = held[j] if j == linked - 1 else held[j] + self.busy[j + 1] * above
                above = inverses[level[j]] @ flow
                held[j] = self.clock * above
            if frozen:
                # An empty block takes the first arrival.
                held[:, :-1, 1] += held[:, 1:, 0]
                held[:, 1:, 0] = 0.0
            after = held[:, :, 0].copy()
            for b in range(1, most + 1):
                _hand_over(after, held[:, :, b], b, self.delivered)
            return after

        return step

    def _far_step(self) -> Callable[[Array], Array]:
        """Return the step where the links evolve independently of the requests that pend meanwhile."""
        pending = self.shape[1]
        arrivals = self._level_inverses(levels=1)[0] * self.clock
        left = np.arange(pending) - self.batch

        def step(shares: Array) -> Array:
            after = np.zeros(self.shape)
            for b in range(int(self.batch[-1]) + 1):
                taken = self.batch == b
                moved = np.zeros(self.shape)
                moved[:, left[taken]] = shares[:, taken]
                _hand_over(after, moved, b, 1.0)
            return self._drained(after) @ arrivals.T

        return step

    def _drained(self, shares: Array) -> Array:
        """Let the links serve for one exponential interval between epochs."""
        out = np.empty_like(shares)
        above = np.zeros(shares.shape[1])
        for j in range(len(shares) - 1, -1, -1):
            flow = shares[j] * self.clock + above
            out[j] = flow / (self.clock + self.busy[j])
            above = out[j] * self.busy[j]
        return out

    def _level_inverses(self, levels: int | None = None) -> list[Array]:
        """Return, for 0, 1, ... busy links, the inverse of the evolution of the pending requests."""
        pending = self.shape[1]
        i = np.arange(pending)
        moves = np.zeros((pending, pending))
        moves[i[1:], i[:-1]] += self.access.arrival
        if self.access.rejects and self.access.template == "refresh":
            np.add.at(moves, (i - self.dropped, i), self.access.reject_rate)
        leaving = np.diag(moves.sum(axis=0)) - moves
        count = self.access.links + 1 if levels is None else levels
        served = [(self.clock + n * self.access.service_rate) * np.eye(pending) for n in range(count)]
        return [np.asarray(np.linalg.inv(leaving + rate), np.float64) for rate in served]


def _krylov(apply: Callable[[Array], Array], right: Array) -> Array:
    """Solve ``apply(x) = right`` by GMRES to about nine digits, or as far as ``_KRYLOV`` directions go.

    Written out, without BLAS: its threads wait for each other for most of the time where the cores are shared.
    """
    basis = np.empty((_KRYLOV + 1, right.size))
    projected = np.zeros((_KRYLOV + 1, _KRYLOV))
    length = _norm(right)
    basis[0] = right / length
    weights: Array = np.zeros(0)
    for n in range(_KRYLOV):
        new = apply(basis[n])
        for _ in range(2):
            share = np.einsum("ji,i->j", basis[: n + 1], new)
            new = new - np.einsum("j,ji->i", share, basis[: n + 1])
            projected[: n + 1, n] += share
        projected[n + 1, n] = _norm(new)
        target = np.zeros(n + 2)
        target[0] = length
        small = projected[: n + 2, : n + 1]
        weights = np.asarray(np.linalg.lstsq(small, target, rcond=None)[0], np.float64)
        if _norm(target - small @ weights) < 1e-9 * length or projected[n + 1, n] < 1e-14 * length:
            break
        basis[n + 1] = new / projected[n + 1, n]
    solution: Array = np.einsum("j,ji->i", weights, basis[: len(weights)])
    return solution


def _norm(vector: Array) -> float:
    return math.sqrt(float(np.einsum("i,i->", vector, vector)))


def _flow(moves: Sequence[Move], size: int) -> sp.csc_matrix:
    """Return the matrix of rates [to, from]."""
    rates = np.concatenate([np.broadcast_to(rate, source.shape) for source, _, rate in moves])
    to = np.concatenate([target for _, target, _ in moves])
    source = np.concatenate([source for source, _, _ in moves])
    return sp.csc_matrix((rates, (to, source)), shape=(size, size))


def _leaving(flow: sp.csc_matrix) -> Array:
    """Return the rate at which each state is left."""
    total: Array = np.asarray(flow.sum(axis=0)).ravel()
    return total


def _hand_over(after: Array, moved: Array, batch: int, share: float) -> None:
    """Add ``moved`` to ``after`` with ``batch`` more at the links for the ``share`` that is handed over."""
    top = len(after)
    kept = max(top - batch, 0)
    after[batch:] += share * moved[:kept]
    after[-1] += share * moved[kept:].sum(axis=0)
    if share < 1:
        after += (1 - share) * moved
