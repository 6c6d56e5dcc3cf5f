"""Telemetry's rows: a million signed readings against raw verification, codes against signatures, a proof's size."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from bench.harness import Row
from gridpool.agents.edge_aggregator import EdgeAggregator
from gridpool.agents.records_home import MEMBER_FILE, found_where_none
from gridpool.agents.telemetry import prove_reading
from gridpool.agents.telemetry_file import make_readings, read_lines
from gridpool.agents.wallet_keys import load_wallet
from gridpool.ledger.keys import KeyPair, verify

READINGS = int(os.environ.get("GRIDPOOL_BENCH_READINGS", "1000000"))
DEVICES = READINGS // 100
CORES = 2
RAW = 20_000
SCRIPT = """
import sys
from pathlib import Path
import msgspec
from gridpool.agents.records_home import member_keys
from gridpool.agents.slice_ledger import slice_session
from gridpool.agents.telemetry import ingest
home = Path(sys.argv[2])
with slice_session(str(home), writable=True) as session:
    result = ingest(Path(sys.argv[1]), session=session, key=member_keys(home, None).certificate, threads=2)
# Not ru_maxrss: a process inherits that from the one that started it.
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
facts = {"seconds": result.seconds, "accepted": result.gathered.accepted, "anchored": result.anchored is not None,
         "bytes": 1024 * int(peak.split()[1])}
print(msgspec.json.encode(facts).decode())
"""
"""Runs in a process of its own, so that its memory is its own."""


def run() -> list[Row]:
    """Measure every row; several minutes, most of them spent on making and verifying signatures."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        found_where_none(folder / "home")
        key = load_wallet(folder / "home" / MEMBER_FILE).certificate
        signed, coded = folder / "signed.jsonl", folder / "coded.jsonl"
        make_files(signed, coded, key.public)
        before = raw_seconds()
        by_signature = ingested(signed, folder / "home")
        raw = (before + raw_seconds()) / 2
        by_code = ingested(coded, folder / "home")
        largest = largest_proof(coded, key)
    detail = {"raw_s": raw, "seconds": by_signature["seconds"], "readings": READINGS, "devices": DEVICES}
    return [
        Row(
            room="telemetry",
            figure=f"{READINGS:,} signed readings loaded, verified, treed, anchored on two cores",
            ratio=by_signature["seconds"] / raw,
            target=1.5,
            sense="at most",
            peer="raw PyNaCl verification of as many, two cores",
            detail=detail,
        ),
        Row(
            room="telemetry",
            figure="its memory over 1 GB",
            ratio=by_signature["bytes"] / 1e9,
            target=1.0,
            sense="at most",
            peer="1 GB",
        ),
        Row(
            room="telemetry",
            figure=f"codes under one signature a session, {READINGS // DEVICES} readings each",
            ratio=by_signature["seconds"] / by_code["seconds"],
            target=5.0,
            sense="at least",
            peer="a signature a reading, same readings",
            detail={"seconds": by_code["seconds"]},
        ),
        Row(
            room="telemetry",
            figure="largest of 2,000 proofs of a reading, over 1.5 kB",
            ratio=largest / 1_500,
            target=1.0,
            sense="at most",
            peer="1.5 kB",
            detail={"bytes": largest},
        ),
    ]


def make_files(signed: Path, coded: Path, aggregator: bytes) -> None:
    """Make both files in parts, one a core: JSON lines of other devices can be put one behind the other."""
    files = ((signed, None), (coded, aggregator))
    jobs = [(path.with_name(f"{part}-{path.name}"), part, hub) for path, hub in files for part in range(1, CORES + 1)]
    with ProcessPoolExecutor(CORES, mp_context=get_context("spawn")) as pool:
        list(pool.map(_make_part, jobs))
    for path, _ in files:
        with path.open("wb") as whole:
            for part in [job[0] for job in jobs if job[0].name.endswith(f"-{path.name}")]:
                with part.open("rb") as piece:
                    shutil.copyfileobj(piece, whole)
                part.unlink()


def raw_seconds() -> float:
    """Seconds that two processes need to verify as many signatures and nothing else, from a part of them."""
    with ProcessPoolExecutor(CORES, mp_context=get_context("spawn")) as pool:
        list(pool.map(_verify_raw, [10] * CORES))  # started and warm
        begun = time.perf_counter()
        list(pool.map(_verify_raw, [RAW] * CORES))
        return (time.perf_counter() - begun) * READINGS / (CORES * RAW)


def ingested(file: Path, home: Path) -> dict[str, Any]:
    """Ingest a file in a process of its own and check that nothing was refused."""
    answer = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(file), str(home)], capture_output=True, check=True, text=True
    )
    facts: dict[str, Any] = msgspec.json.decode(answer.stdout)
    assert facts["accepted"] == READINGS, facts
    assert facts["anchored"], facts
    return facts


def largest_proof(file: Path, key: KeyPair) -> int:
    """Size in bytes of the largest proof among 2,000 readings spread over the tree."""
    aggregator = EdgeAggregator(key=key)
    for _ in aggregator.take(read_lines(file)):
        pass
    tree = aggregator.gather().tree
    rows = [tree.row(position) for position in range(0, tree.count, max(1, tree.count // 2_000))]
    return max(len(prove_reading(tree, row[:32], int.from_bytes(row[32:40], "big"))) for row in rows)


def _make_part(job: tuple[Path, int, bytes | None]) -> None:
    path, part, aggregator = job
    readings, devices = READINGS * part // CORES - READINGS * (part - 1) // CORES, max(1, DEVICES // CORES)
    generator = np.random.default_rng([1, part])
    make_readings(path, readings=readings, devices=devices, generator=generator, aggregator=aggregator)


def _verify_raw(count: int) -> None:
    key = KeyPair(bytes(32))
    message = b"gridpool/reading/1\0" + bytes(48)
    signature = key.sign(message)
    for _ in range(count):
        assert verify(key.public, signature, message)
