"""Monte Carlo of the alternative-history attack, one race at a time or one in every vector lane."""

import math
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from gridpool.errors import RefusedInput
from gridpool.lab.attack import Attack
from gridpool.lab.xoshiro import next_word, next_words, states

__all__ = ["race_lanes", "race_trials"]

i32 = np.int32

_LANES = 64
_LANES_STEP = 16
_PAIRS_PER_CHECK = 64
_LONGEST_RACE = 50_000
_UNFINISHED = 1e-12


def race_trials(
    attack: Attack, *, trials: int, replicas: int, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Play ``trials`` attacks in all, spread over ``replicas``, block by block.

    Returns the share of successes and the mean number of race blocks of each replica. A race that is never given up
    is stopped where its chance of success is below 1e-12.

    Raises RefusedInput where races that are never given up would be too long to play.
    """
    seeds = states(rng, replicas)
    top = _top(attack)
    found = np.zeros((replicas, 2))
    for replica, quota in enumerate(_quotas(trials, replicas)):
        wins, blocks = _play(seeds[:, replica], _threshold(attack), attack.needed, attack.honest_blocks, top, quota)
        found[replica] = (wins / quota, blocks / quota) if quota else np.nan
    return found[:, 0], found[:, 1]


def race_lanes(attack: Attack, *, trials: int, replicas: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Play the same races with a replica in every vector lane; returns the share of successes of each replica."""
    top = int(min(_top(attack), 2**30))
    quotas = _quotas(trials, replicas)
    shares = np.zeros(replicas)
    for start in range(0, replicas, _LANES):
        group = quotas[start : start + _LANES]
        width = -(-len(group) // _LANES_STEP) * _LANES_STEP
        words = np.zeros(width, np.uint64)
        quota = np.zeros(width, np.int32)
        quota[: len(group)] = group
        settings = np.zeros((4, width), np.int32)
        settings[0] = (int(_threshold(attack)) >> 32) - 2**31
        settings[1], settings[2], settings[3] = attack.needed, attack.honest_blocks, top
        state = np.zeros((4, width), np.int32)
        state[0], state[1] = attack.needed, attack.honest_blocks
        _play_lanes(states(rng, width), words, words.view(np.int32).reshape(2, width), state, quota, settings)
        shares[start : start + len(group)] = state[3, : len(group)] / np.array(group)
    return shares


def _quotas(trials: int, replicas: int) -> list[int]:
    if trials >= 2**31 * replicas:
        raise RefusedInput(f"--events must be below {2**31} a replica")
    return [trials // replicas + (1 if n < trials % replicas else 0) for n in range(replicas)]


def _threshold(attack: Attack) -> np.uint64:
    """Return the 64-bit threshold below which a block is the attacker's."""
    return np.uint64(min(int(attack.beta / (1 + attack.beta) * 2.0**64), 2**64 - 1))


def _top(attack: Attack) -> int:
    """Return the deficit at which a race stops."""
    if attack.abandoned_at < math.inf:
        return int(attack.abandoned_at)
    if attack.beta == 0:
        return 0
    slope = abs(math.log(attack.beta))
    if slope < -math.log(_UNFINISHED) / _LONGEST_RACE:
        raise RefusedInput("races that are never given up last too long near beta = 1; set --give-up")
    return 2**30 if attack.beta > 1 else math.ceil(-math.log(_UNFINISHED) / slope)


@numba.njit(cache=True, boundscheck=False, error_model="numpy")
def _play(seed: Any, threshold: Any, needed: Any, honest: Any, top: Any, quota: Any) -> Any:
    """Play ``quota`` attacks; return how many succeed and the blocks of their races."""
    s0, s1, s2, s3 = seed[0], seed[1], seed[2], seed[3]
    wins = np.int64(0)
    blocks = np.int64(0)
    limit = threshold
    for _ in range(quota):
        missing = needed
        wait = honest
        while wait > 0:
            word, s0, s1, s2, s3 = next_word(s0, s1, s2, s3)
            if word < limit:
                missing -= 1
            else:
                wait -= 1
        while 0 < missing < top:
            word, s0, s1, s2, s3 = next_word(s0, s1, s2, s3)
            missing += -1 if word < limit else 1
            blocks += 1
        if missing <= 0:
            wins += 1
    return wins, blocks


@numba.njit(cache=True, boundscheck=False, error_model="numpy")
def _play_lanes(seeds: Any, words: Any, halves: Any, state: Any, quota: Any, settings: Any) -> None:
    """Play until every lane has its quota; ``state`` rows are missing, waiting, trials and successes."""
    width = len(words)
    while True:
        for _ in range(_PAIRS_PER_CHECK):
            next_words(seeds, words)
            for half in range(2):
                for lane in range(width):
                    needed, honest, top = settings[1, lane], settings[2, lane], settings[3, lane]
                    missing, wait = state[0, lane], state[1, lane]
                    trials, wins = state[2, lane], state[3, lane]
                    hit = i32(1) if halves[half, lane] < settings[0, lane] else i32(0)
                    # Until the confirmations are there an honest block shortens the wait, afterwards it widens the gap.
                    waits = i32(1) if wait > 0 else i32(0)
                    missing = i32(missing - hit + (i32(1) - hit) * (i32(1) - waits))
                    wait = i32(wait - (i32(1) - hit) * waits)
                    won = i32(1) if missing <= 0 else i32(0)
                    lost = i32(1) if missing >= top else i32(0)
                    over = (won | lost) & (i32(1) if wait <= 0 else i32(0))
                    counted = over & (i32(1) if trials < quota[lane] else i32(0))
                    state[0, lane] = needed if over > 0 else missing
                    state[1, lane] = honest if over > 0 else wait
                    state[2, lane] = i32(trials + counted)
                    state[3, lane] = i32(wins + (won & counted))
        short = 0
        for lane in range(width):
            short += 1 if state[2, lane] < quota[lane] else 0
        if short == 0:
            return
