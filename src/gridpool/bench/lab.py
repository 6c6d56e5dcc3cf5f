"""Events a second of the access lab's engines against raw draws of their random numbers, in one run."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from gridpool.lab.access import Access
from gridpool.lab.attack import Attack
from gridpool.lab.lanes import draw_words, lanes_replicas
from gridpool.lab.races import race_lanes, race_trials
from gridpool.lab.recursion import recursion_replicas
from gridpool.lab.xoshiro import states

__all__ = ["NETWORK", "run"]

NETWORK = Access(arrival=0.8, block_rate=1.0, service_rate=0.2, links=5, block_size=5.0, confirmations=1)
"""The network measured: load 0.8 on five links, five requests a block."""

_WIDTH = 64
_ROUNDS = 5


def run() -> dict[str, Any]:
    """Measure one core: the best of several rounds, the kinds of work taking turns.

    ``raw_draws_per_s`` counts 64-bit words of the lanes' own generator (xoshiro256++, 64 lanes); a lanes event is a
    step of the uniformised chain, of which ``lanes_real_share`` change the state or are blocks found empty; a
    recursion event is an arrival, a block or the start of a service.
    """
    rng = np.random.default_rng(1)
    seeds, words = states(rng, _WIDTH), np.zeros(_WIDTH, np.uint64)
    attack = Attack(beta=0.5, confirmations=6, give_up=10.0)
    delayed = Access(arrival=0.8, block_rate=1.0, service_rate=0.2, links=5, block_size=5.0, confirmations=3)
    work: dict[str, tuple[int, Callable[[int], object]]] = {
        "raw_draws_per_s": (1 << 28, lambda n: draw_words(seeds, n // _WIDTH, words)),
        "lanes_events_per_s": (1 << 28, lambda n: lanes_replicas([NETWORK], events=n, replicas=_WIDTH, rng=rng)),
        "lanes_confirmations_events_per_s": (
            1 << 25,
            lambda n: lanes_replicas([delayed], events=n, replicas=_WIDTH, rng=rng),
        ),
        "recursion_events_per_s": (10_000_000, lambda n: recursion_replicas(NETWORK, events=n, replicas=20, rng=rng)),
        "attack_lanes_trials_per_s": (4_000_000, lambda n: race_lanes(attack, trials=n, replicas=_WIDTH, rng=rng)),
        "attack_recursion_trials_per_s": (1_000_000, lambda n: race_trials(attack, trials=n, replicas=20, rng=rng)),
    }
    for _, call in work.values():
        call(_WIDTH * 1000)
    best = dict.fromkeys(work, 0.0)
    for _ in range(_ROUNDS):
        for name, (count, call) in work.items():
            start = time.perf_counter()
            call(count)
            best[name] = max(best[name], count / (time.perf_counter() - start))
    steps = NETWORK.arrival + NETWORK.block_rate + NETWORK.links * NETWORK.service_rate
    return {
        **best,
        "lanes_to_raw": best["lanes_events_per_s"] / best["raw_draws_per_s"],
        "lanes_real_share": (2 * NETWORK.arrival + NETWORK.block_rate) / steps,
        "lanes_requests_per_s": best["lanes_events_per_s"] * NETWORK.arrival / steps,
        "recursion_requests_per_s": best["recursion_events_per_s"]
        * NETWORK.arrival
        / (2 * NETWORK.arrival + NETWORK.block_rate),
        "seed": 1,
    }
