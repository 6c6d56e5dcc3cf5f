"""The spectrum register at scale: 10^5 licences and 10^6 leases held in memory, asked and added to on one core."""

import contextlib
import ctypes
import gc
import os
import resource
import time
from pathlib import Path
from typing import Any

import h3.api.basic_int as h3
import msgspec
import numpy as np

from bench.harness import Row
from gridpool.agents.spectrum_inquiry import Question, answer
from gridpool.agents.spectrum_register_file import RegisterFile, founding, leases_of
from gridpool.agents.spectrum_synthetic import Extent, make_register
from gridpool.contracts import coins, members
from gridpool.contracts.spectrum import spectrum
from gridpool.contracts.spectrum_leases import RequestLease, request_lease
from gridpool.contracts.spectrum_records import IDLE
from gridpool.contracts.spectrum_register import put_leases
from gridpool.ledger.contract import Context, Refused
from gridpool.ledger.genesis import Genesis, apply_genesis
from gridpool.ledger.rules import Rules
from gridpool.ledger.state import Layer, MemoryReader, State

LICENCES = int(os.environ.get("GRIDPOOL_BENCH_LICENCES", "100000"))
LEASES = int(os.environ.get("GRIDPOOL_BENCH_LEASES", "1000000"))
INQUIRIES, GRANTS, BATCH = 4_000, 1_000, 50_000
RANGE_HZ = 40_000_000


def run() -> list[Row]:
    """Build the register, then measure; a target that is missed is shown as such."""
    reader, register, extent, wallet, built_s = build()
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    gc.freeze()
    inquiries(reader, extent, 20)  # loads or compiles what is compiled
    grant_times(reader, register, wallet, 20)
    held = resident_bytes()
    times = inquiries(reader, extent, INQUIRIES)
    grants = grant_times(reader, register, wallet, GRANTS)
    detail: dict[str, Any] = {
        "licences": LICENCES,
        "leases": LEASES,
        "built_s": built_s,
        "cpu": "process time, one thread",
        "range_hz": RANGE_HZ,
    }
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    def row(figure: str, ratio: float, target: float, sense: Any, peer: str) -> Row:
        return Row(room="spectrum", figure=figure, ratio=ratio, target=target, sense=sense, peer=peer, detail=detail)

    return [
        row("inquiries a second", len(times) / sum(times), 2_000, "at least", "one core, absolute"),
        row("inquiry p99 in ms", float(np.percentile(times, 99)) * 1e3, 5.0, "at most", "one core, absolute"),
        row("grant in ms, mean", float(np.mean(grants)) * 1e3, 1.0, "at most", "one core, absolute"),
        row("memory held in GB", held / 1e9, 2.0, "at most", "resident, register and interpreter"),
        row("memory at its peak while building, GB", peak / 1e9, 2.0, "at most", "resident"),
    ]


def build() -> tuple[MemoryReader, RegisterFile, Extent, bytes, float]:
    """Make and store the register batch by batch, as a node that catches up would hold it."""
    start = time.perf_counter()
    whole, extent = make_register(LICENCES, LEASES, np.random.default_rng(1), seed=1)
    register, entries = msgspec.structs.replace(whole, leases=()), list(whole.leases)
    del whole
    begun = founding(register, "bench")
    wallet = begun.keys["lessee-1"].public
    rules = Rules([members.members, coins.coins, spectrum])
    genesis = Genesis(chain="bench", time_ms=begun.start, parameters=begun.parameters)
    reader = MemoryReader()
    reader.apply(apply_genesis(rules, genesis, reader).encoded())
    while entries:
        batch = leases_of(register, entries[-BATCH:])
        del entries[-BATCH:]
        layer = Layer()
        put_leases(context(reader, layer, begun.start, wallet), batch)
        reader.apply(layer.encoded())
    return reader, register, extent, wallet, time.perf_counter() - start


def context(reader: MemoryReader, layer: Layer, now: int, sender: bytes) -> Context:
    """Return what a call would see."""
    return Context(
        reader, (layer,), chain="bench", height=1, block_time=now, now=now, sender=sender, tx_id=bytes(32), events=[]
    )


def inquiries(reader: MemoryReader, extent: Extent, count: int) -> list[float]:
    """Return the CPU time of each of many inquiries at random places, bands and times."""
    rng = np.random.default_rng(2)
    state = State(reader)
    times = []
    for _ in range(count):
        low = int(rng.integers(extent.low_hz // 10**7, (extent.high_hz - RANGE_HZ) // 10**7)) * 10**7
        question = Question(
            float(rng.uniform(*extent.lat)),
            float(rng.uniform(*extent.lon)),
            50.0,
            5.0,
            low,
            low + RANGE_HZ,
            10_000_000,
            1_767_225_600_000 + int(rng.integers(0, 357 * 86_400_000)),
        )
        start = time.process_time()
        answer(state, question)
        times.append(time.process_time() - start)
    return times


def grant_times(reader: MemoryReader, register: RegisterFile, wallet: bytes, count: int) -> list[float]:
    """Return the CPU time of grants, those refused included, each as a contract carries it out."""
    rng = np.random.default_rng(3)
    state = State(reader)
    times = []
    now = 1_767_225_600_000
    while len(times) < count:
        number = int(rng.integers(1, LICENCES + 1))
        idle = state.get(IDLE, number)
        if idle is None or idle.pricing == "auction":
            continue
        start_ms = now + int(rng.integers(0, 350 * 86_400_000))
        cell = idle.cells[int(rng.integers(0, len(idle.cells)))]
        wish = RequestLease(
            number,
            idle.low,
            idle.low + 10_000_000,
            (cell,),
            start_ms,
            start_ms + 86_400_000,
            int(rng.integers(0, 15_000)),
        )
        ctx = context(reader, Layer(), now, wallet)
        start = time.process_time()
        with contextlib.suppress(Refused):
            request_lease(ctx, wish)
        times.append(time.process_time() - start)
    return times


def resident_bytes() -> int:
    """Return the resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    print(msgspec.json.encode(run()).decode(), h3.versions())
