"""Monte Carlo of single requests: arrivals, blocks and the workload of the links, without an event list."""

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from gridpool.errors import RefusedInput
from gridpool.lab.access import Access
from gridpool.lab.xoshiro import exponential_pool, fill_exponentials

__all__ = ["BINS", "bin_edges", "recursion_replicas"]

_MANTISSA_BITS = 8
_OCTAVES = 64
BINS = _OCTAVES << _MANTISSA_BITS
"""Number of bins of the histogram of latencies: 256 an octave over 64 octaves."""

_WARM_SHARE = 0.2
_RING = 1 << 12
_LARGEST_RING = 1 << 24
_FEW_LINKS = 12


def recursion_replicas(
    access: Access, *, events: int, replicas: int, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Simulate ``replicas`` independent networks for ``events`` events in all.

    An event is an arrival, a block, a rejection epoch or the start of a service. The first fifth of each replica only
    warms it up.

    Returns
    -------
    tuple
        One row a replica: mean latency without service, mean wait for a link, mean number pending, mean number at the
        links, share of requests accepted; and the histogram of latencies of all replicas over ``bin_edges``.
    """
    unlimited = np.iinfo(np.int64).max // 4
    k = unlimited if access.block_size == np.inf else int(access.block_size)
    r = unlimited if access.reject_size == np.inf else int(access.reject_size)
    rates = (access.arrival, access.block_rate, access.reject_rate, access.service_rate)
    counts = (access.links, k, access.confirmations, r)
    found = np.zeros((replicas, 5))
    histogram = np.zeros(BINS, np.int64)
    for replica in range(replicas):
        quota = events // replicas + (1 if replica < events % replicas else 0)
        room = _RING
        while True:
            trial = np.zeros(BINS, np.int64)
            enough = _requests(
                exponential_pool(rng), rates, counts, access.template == "frozen", quota, int(quota * _WARM_SHARE),
                np.zeros(room), found[replica], trial, _scale(access),
            )  # fmt: skip
            if enough:
                break
            room *= 16
            if room > _LARGEST_RING:
                raise RefusedInput(f"more than {_LARGEST_RING} requests pend at once; lower --arrival")
        histogram += trial
    return found, histogram


def bin_edges(access: Access) -> NDArray[np.float64]:
    """Return the ``BINS + 1`` edges of the histogram of latencies, in units of time."""
    index = np.arange(BINS + 1)
    octave, part = index >> _MANTISSA_BITS, index & ((1 << _MANTISSA_BITS) - 1)
    edges: NDArray[np.float64] = np.ldexp(1.0 + part / (1 << _MANTISSA_BITS), octave - _OCTAVES // 2) / _scale(access)
    edges[0] = 0.0
    return edges


def _scale(access: Access) -> float:
    """Return the factor that brings latencies to the middle of the histogram."""
    return access.block_rate / access.confirmations


@numba.njit(cache=True, boundscheck=False, error_model="numpy")
def _requests(
    pool: Any, rates: Any, counts: Any, frozen: Any, quota: Any, warm: Any, ring: Any, found: Any, histogram: Any,
    scale: Any,
) -> bool:  # fmt: skip
    """Run one replica; return whether the ring had room for all pending requests."""
    arrival, block_rate, reject_rate, service_rate = rates
    links, k, confirmations, r = counts
    # Variates are taken from the pool in place: a function would count references to its arrays at every draw.
    values = pool[3]
    at = room = len(values)
    mean_gap, mean_block, mean_service = 1.0 / arrival, 1.0 / block_rate, 1.0 / service_rate
    mean_reject = 1.0 / reject_rate if reject_rate > 0 else np.inf
    mask = len(ring) - 1
    bits = np.zeros(1, np.float64)
    as_integer = bits.view(np.int64)
    top_bin = len(histogram) - 1
    bias = (1023 - _OCTAVES // 2) << _MANTISSA_BITS

    # The next `confirmations` block times: a request of this block is confirmed at the last of them.
    blocks = np.zeros(confirmations)
    clock = 0.0
    for n in range(confirmations):
        if at == room:
            fill_exponentials(pool)
            at = 0
        gap = values[at]
        at += 1
        clock += gap * mean_block
        blocks[n] = clock
    oldest_block = 0

    if at == room:
        fill_exponentials(pool)
        at = 0
    gap = values[at]
    at += 1
    next_arrival = gap * mean_gap
    next_reject = np.inf
    if reject_rate > 0:
        if at == room:
            fill_exponentials(pool)
            at = 0
        gap = values[at]
        at += 1
        next_reject = gap * mean_reject

    # Times at which links fall free; a heap where there are many.
    free = np.zeros(links)
    few = links <= _FEW_LINKS
    head = tail = np.int64(0)
    held = np.int64(0)
    done = np.int64(0)
    started = -1.0
    accepted = rejected = np.int64(0)
    latency_sum = wait_sum = pending_sum = linked_sum = 0.0
    now = 0.0
    while done < quota:
        if started < 0 and done >= warm:
            started = now
            accepted = rejected = np.int64(0)
            latency_sum = wait_sum = pending_sum = linked_sum = 0.0
        block = blocks[oldest_block]
        rejecting = next_reject < block
        now = next_reject if rejecting else block
        while next_arrival < now and done < quota:
            if tail - head > mask:
                return False
            ring[tail & mask] = next_arrival
            tail += 1
            if held == 0:
                held = np.int64(1)
            if at == room:
                fill_exponentials(pool)
                at = 0
            gap = values[at]
            at += 1
            next_arrival += gap * mean_gap
            done += 1
        if done == quota:
            break
        done += 1
        if rejecting:
            dropped = min(r, held if frozen else tail - head)
            for n in range(dropped):
                pending_sum += now - ring[(head + n) & mask]
            head += dropped
            held -= dropped
            rejected += dropped
            if held <= 0 or not frozen:
                held = min(k, tail - head)
            if at == room:
                fill_exponentials(pool)
                at = 0
            gap = values[at]
            at += 1
            next_reject += gap * mean_reject
            continue
        confirmed = blocks[oldest_block - 1 if oldest_block > 0 else confirmations - 1]
        if at == room:
            fill_exponentials(pool)
            at = 0
        gap = values[at]
        at += 1
        clock += gap * mean_block
        blocks[oldest_block] = clock
        oldest_block = oldest_block + 1 if oldest_block + 1 < confirmations else 0
        taken = min(held if frozen else min(k, tail - head), quota - done)
        for n in range(taken):
            came = ring[(head + n) & mask]
            pending_sum += block - came
            place = 0
            earliest = free[0]
            if few:
                # Few links: look at all of them, without a branch that the processor could mispredict.
                for link in range(1, links):
                    sooner = free[link] < earliest
                    place = link if sooner else place
                    earliest = free[link] if sooner else earliest
            start = earliest if earliest > confirmed else confirmed
            if at == room:
                fill_exponentials(pool)
                at = 0
            gap = values[at]
            at += 1
            until = start + gap * mean_service
            if not few:
                place = _sift(free, until)
            free[place] = until
            wait_sum += start - confirmed
            linked_sum += until - confirmed
            latency = start - came
            latency_sum += latency
            if started >= 0:
                bits[0] = latency * scale
                index = (as_integer[0] >> (52 - _MANTISSA_BITS)) - bias
                histogram[min(max(index, 0), top_bin)] += 1
        accepted += taken
        done += taken
        head += taken
        held = min(k, tail - head)
    span = now - started
    found[0] = latency_sum / accepted if accepted > 0 else np.nan
    found[1] = wait_sum / accepted if accepted > 0 else np.nan
    found[2] = pending_sum / span
    found[3] = linked_sum / span
    found[4] = accepted / (accepted + rejected) if accepted + rejected > 0 else np.nan
    return True


@numba.njit(inline="always")
def _sift(heap: Any, value: Any) -> Any:
    """Move smaller entries up from below the root, and return the place where ``value`` belongs."""
    place = 0
    size = len(heap)
    while True:
        child = 2 * place + 1
        if child >= size:
            return place
        if child + 1 < size and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= value:
            return place
        heap[place] = heap[child]
        place = child
