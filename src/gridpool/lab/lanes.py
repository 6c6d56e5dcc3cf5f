"""Monte Carlo of whole curves: independent copies of the chain side by side in the lanes of vector instructions.

The chain is uniformised: every step takes the same exponential time on average, and one 32-bit half of a random word
decides by integer thresholds whether it is an arrival, a block, a rejection, the end of a service or nothing. There
are no branches, so the compiler turns the loop over lanes into vector instructions. Lanes may hold different networks.
"""

import math
from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from gridpool.errors import RefusedInput
from gridpool.lab.access import Access
from gridpool.lab.xoshiro import next_words, states

__all__ = ["draw_words", "lanes_replicas", "load_lanes"]

i32 = np.int32

_LANES = 64
"""Lanes of one kernel call at most: their state stays in the first-level cache."""
_LANES_STEP = 16
"""Lanes of a call are a multiple of this, so that no scalar remainder is left."""
_PAIRS_PER_FLUSH = 256
_WARM_SHARE = 0.2
_LARGEST_MEAN = 1e5
_MOST_CONFIRMATIONS = 10_000
_UNLIMITED = 2**30


def lanes_replicas(
    networks: Sequence[Access], *, events: int, replicas: int, rng: np.random.Generator
) -> tuple[NDArray[np.float64], int]:
    """Simulate ``replicas`` lanes of each network, each network for ``events`` steps in all.

    The first fifth of the steps only warms the lanes up. Latencies follow from time averages by Little's law.

    Returns
    -------
    tuple
        Array [network, replica, figure] with mean latency without service, mean wait for a link, mean number pending,
        mean number at the links, share of requests accepted; and the steps made for each network.

    Raises
    ------
    RefusedInput
        A network whose numbers do not fit in 32 bits, or whose rejections nibble at a frozen block (how long accepted
        requests wait then does not follow from averages over all; use the recursion).
    """
    pairs = max(1, math.ceil(events / replicas / 2))
    warm = int(pairs * _WARM_SHARE)
    for access in networks:
        _check(access, 2 * warm)
    found = np.zeros((len(networks), replicas, 5))
    places = [(n, m) for n in range(len(networks)) for m in range(replicas)]
    places.sort(key=lambda place: (_is_plain(networks[place[0]]), networks[place[0]].confirmations))
    start = 0
    while start < len(places):
        first = networks[places[start][0]]
        stop = start
        while (
            stop < min(start + _LANES, len(places))
            and networks[places[stop][0]].confirmations == first.confirmations
            and _is_plain(networks[places[stop][0]]) == _is_plain(first)
        ):
            stop += 1
        group = places[start:stop]
        width = -(-len(group) // _LANES_STEP) * _LANES_STEP
        lanes = [networks[n] for n, _ in group] + [first] * (width - len(group))
        figures = _run(lanes, warm, pairs - warm, rng)
        for lane, (n, m) in enumerate(group):
            found[n, m] = figures[lane]
        start = stop
    return found, 2 * pairs * replicas


def load_lanes() -> None:
    """Load the compiled kernels by a short run of each."""
    rng = np.random.default_rng(0)
    for confirmations in (1, 2):
        small = Access(
            arrival=0.5, block_rate=1.0, service_rate=1.0, links=1, block_size=1.0, confirmations=confirmations
        )  # fmt: skip
        _run([small] * _LANES_STEP, 1, 1, rng)


def _check(access: Access, warm: int) -> None:
    """Refuse what the lanes cannot hold or measure."""
    if access.partial_rejection:
        raise RefusedInput("--engine lanes cannot tell accepted requests apart here; use --engine recursion")
    served = access.links * access.service_rate
    spare = served - access.arrival if access.arrival < served else served
    waiting = access.arrival / access.block_rate * access.confirmations
    if max(1 / access.decay_exponent(), access.arrival / spare, waiting) > _LARGEST_MEAN:
        raise RefusedInput(f"more than {_LARGEST_MEAN:g} requests wait on average; use --engine recursion")
    if access.confirmations > _MOST_CONFIRMATIONS:
        raise RefusedInput(f"--engine lanes holds {_MOST_CONFIRMATIONS} confirmations at most; use --engine recursion")
    if access.confirmations > 1 and warm * access.block_rate / _pace(access) < access.confirmations:
        raise RefusedInput(f"too few --events to fill the wait for {access.confirmations} confirmations; ask for more")


def _is_plain(access: Access) -> bool:
    return access.confirmations == 1 and not access.rejects and access.template == "refresh"


def _run(lanes: Sequence[Access], warm: int, pairs: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Run one group of lanes and return its figures, one row a lane."""
    width = len(lanes)
    seeds = states(rng, width)
    words = np.zeros(width, np.uint64)
    halves = words.view(np.int32).reshape(2, width)
    settings = np.array([_thresholds(access) for access in lanes], np.int32).T.copy()
    if _is_plain(lanes[0]):
        state = np.zeros((4, width), np.int32)
        total = np.zeros((2, width), np.int64)
        _plain_lanes(seeds, warm, words, halves, state, settings, total)
        total[:] = 0
        _plain_lanes(seeds, pairs, words, halves, state, settings, total)
        pending, queued = total / (2.0 * pairs)
        waiting = np.zeros(width)
        arrived = accepted = np.array([a.arrival for a in lanes])
    else:
        state = np.zeros((11, width), np.int32)
        total = np.zeros((5, width), np.int64)
        register = np.zeros((lanes[0].confirmations, width), np.int32)
        _general_lanes(seeds, warm, words, halves, state, register, settings, total)
        total[:] = 0
        _general_lanes(seeds, pairs, words, halves, state, register, settings, total)
        pending, waiting, queued, taken, dropped = total / (2.0 * pairs)
        pace = np.array([_pace(a) for a in lanes])
        accepted = taken * pace
        arrived = (taken + dropped) * pace
    with np.errstate(divide="ignore", invalid="ignore"):
        wait = queued / accepted
        latency = pending / arrived + waiting / accepted + wait
        linked = queued + accepted / np.array([a.service_rate for a in lanes])
        return np.stack([latency, wait, pending, linked, accepted / arrived], axis=1)


def _pace(access: Access) -> float:
    """Return the steps per unit of time."""
    return access.arrival + access.epoch_rate + access.links * access.service_rate


def _thresholds(access: Access) -> tuple[int, ...]:
    """Return the lane's settings: cumulative thresholds as signed 32-bit numbers, sizes, links and template."""
    unit = 2.0**32 / _pace(access)
    service = int(access.service_rate * unit)
    if service < 1000:
        raise RefusedInput("one link's rate is too small beside the others for 32-bit thresholds; use recursion")
    ends = np.rint(np.cumsum([access.arrival, access.block_rate, access.reject_rate]) * unit)
    within = [min(int(end), 2**32 - 1 - service * access.links) for end in ends]
    k, r = (int(min(size, _UNLIMITED)) for size in (access.block_size, access.reject_size))
    frozen = -1 if access.template == "frozen" else 0
    return (*(end - 2**31 for end in within), service, k, access.links, r, frozen)


@numba.njit(cache=True, boundscheck=False, error_model="numpy")
def draw_words(seeds: Any, count: Any, words: Any) -> None:
    """Draw ``count`` words in each lane, keeping the last: what the random numbers of the lanes cost alone."""
    for _ in range(count):
        next_words(seeds, words)


@numba.njit(inline="always")
def _plain_event(
    u: Any, pending: Any, linked: Any, t_arrival: Any, t_block: Any, service: Any, k: Any, links: Any
) -> Any:
    """Make one step of a lane without confirmations, rejections or frozen blocks."""
    arrives = u < t_arrival
    below = u < t_block
    moved = min(pending, k) if below else i32(0)
    moved = i32(0) if arrives else moved
    served = i32(1) if u < i32(t_block + min(linked, links) * service) else i32(0)
    served = i32(0) if below else served
    pending = i32(pending - moved + (i32(1) if arrives else i32(0)))
    linked = i32(linked + moved - served)
    return pending, linked


@numba.njit(cache=True, boundscheck=False, error_model="numpy")
def _plain_lanes(
    seeds: Any, pairs: Any, words: Any, halves: Any, state: Any, settings: Any, total: Any
) -> None:  # fmt: skip
    """Make ``pairs`` times two steps in every lane; ``total`` gathers pending and queued requests."""
    width = len(words)
    left = pairs
    while left > 0:
        for _ in range(min(left, _PAIRS_PER_FLUSH)):
            next_words(seeds, words)
            for lane in range(width):
                pending, linked = state[0, lane], state[1, lane]
                pending_sum, queued_sum = state[2, lane], state[3, lane]
                t_arrival, t_block = settings[0, lane], settings[1, lane]
                service, k, links = settings[3, lane], settings[4, lane], settings[5, lane]
                pending, linked = _plain_event(
                    halves[0, lane], pending, linked, t_arrival, t_block, service, k, links
                )  # fmt: skip
                pending_sum = i32(pending_sum + pending)
                queued_sum = i32(queued_sum + max(i32(linked - links), i32(0)))
                pending, linked = _plain_event(
                    halves[1, lane], pending, linked, t_arrival, t_block, service, k, links
                )  # fmt: skip
                state[0, lane] = pending
                state[1, lane] = linked
                state[2, lane] = i32(pending_sum + pending)
                state[3, lane] = i32(queued_sum + max(i32(linked - links), i32(0)))
        for row in range(2):
            for lane in range(width):
                total[row, lane] += state[2 + row, lane]
                state[2 + row, lane] = 0
        left -= _PAIRS_PER_FLUSH


@numba.njit(cache=True, boundscheck=False, error_model="numpy")
def _general_lanes(
    seeds: Any, pairs: Any, words: Any, halves: Any, state: Any, register: Any, settings: Any, total: Any
) -> None:  # fmt: skip
    """Make ``pairs`` times two steps in every lane, with confirmations, rejections and frozen blocks.

    ``register`` holds the batches of the last blocks, newest first; its last row is handed over. ``total`` gathers
    requests pending, waiting for confirmations, queued at the links, taken and dropped.
    """
    width = len(words)
    last = len(register) - 1
    left = pairs
    while left > 0:
        for _ in range(min(left, _PAIRS_PER_FLUSH)):
            next_words(seeds, words)
            for half in range(2):
                _take_and_drop(halves[half], state, settings)
                for row in range(last, 0, -1):
                    for lane in range(width):
                        kept = register[row, lane]
                        register[row, lane] = register[row - 1, lane] if state[4, lane] > 0 else kept
                for lane in range(width):
                    kept = register[0, lane]
                    register[0, lane] = state[5, lane] if state[4, lane] > 0 else kept
                _hand_over_and_serve(halves[half], state, register[last], settings)
        for row in range(5):
            for lane in range(width):
                total[row, lane] += state[6 + row, lane]
                state[6 + row, lane] = 0
        left -= _PAIRS_PER_FLUSH


@numba.njit(inline="always")
def _take_and_drop(draws: Any, state: Any, settings: Any) -> None:
    """Let requests arrive, be taken by a block or be rejected."""
    for lane in range(len(draws)):
        u = draws[lane]
        pending, held = state[0, lane], state[2, lane]
        t_arrival, t_block, t_reject = settings[0, lane], settings[1, lane], settings[2, lane]
        k, r, frozen = settings[4, lane], settings[6, lane], settings[7, lane]
        arrived = i32(1) if u < t_arrival else i32(0)
        below = i32(1) if u < t_block else i32(0)
        found = i32(below - arrived)
        rejecting = i32((i32(1) if u < t_reject else i32(0)) - below)
        fits = min(pending, k)
        open_to_block = held if frozen < 0 else fits
        open_to_rejection = held if frozen < 0 else pending
        moved = open_to_block if found > 0 else i32(0)
        gone = min(open_to_rejection, r) if rejecting > 0 else i32(0)
        pending = i32(pending - moved - gone + arrived)
        held = i32(held - moved - gone)
        fresh = min(pending, k)
        state[0, lane] = pending
        state[2, lane] = held if held > 0 else fresh
        state[4, lane] = found
        state[5, lane] = moved
        state[6, lane] = i32(state[6, lane] + pending)
        state[9, lane] = i32(state[9, lane] + moved)
        state[10, lane] = i32(state[10, lane] + gone)


@numba.njit(inline="always")
def _hand_over_and_serve(draws: Any, state: Any, oldest: Any, settings: Any) -> None:
    """Hand confirmed requests over to the links, and let a link finish."""
    for lane in range(len(draws)):
        u = draws[lane]
        linked, waiting = state[1, lane], state[3, lane]
        t_reject, service, links = settings[2, lane], settings[3, lane], settings[5, lane]
        handed = oldest[lane]
        handed = handed if state[4, lane] > 0 else i32(0)
        served = i32(1) if u < i32(t_reject + min(linked, links) * service) else i32(0)
        served = i32(served - (i32(1) if u < t_reject else i32(0)))
        linked = i32(linked + handed - max(served, i32(0)))
        waiting = i32(waiting + state[5, lane] - handed)
        state[1, lane] = linked
        state[3, lane] = waiting
        state[7, lane] = i32(state[7, lane] + waiting)
        state[8, lane] = i32(state[8, lane] + max(i32(linked - links), i32(0)))
