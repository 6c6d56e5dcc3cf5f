"""The access lab's engines against ciw, simpy and raw draws, requests a second of the same networks in one run."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bench.harness import Row, best_time
from gridpool.bench.lab import NETWORK
from gridpool.bench.lab import run as measure
from gridpool.lab.access import Access
from gridpool.lab.lanes import lanes_replicas
from gridpool.lab.recursion import recursion_replicas

ROOT = Path(__file__).resolve().parent.parent
PEERS = ROOT / ".tools" / "bench-lab"
REQUIREMENTS = ("ciw==3.2.7", "simpy==4.1.2")
HORIZON = 50_000.0
RECURSION_EVENTS = 10_000_000
LANES_EVENTS = 1 << 28


def run() -> list[Row]:
    """Compare requests a second, which no definition of an event can favour."""
    python = peer_environment()
    single = replace(NETWORK, block_size=1.0)
    # The peers run before, between and after, and their best run counts, as ours does.
    rounds = [run_peers(python)]
    figures = measure()
    rounds.append(run_peers(python))
    ours = {
        "recursion, one request a block": recursion_requests(single),
        "recursion, five requests a block": recursion_requests(NETWORK),
        "lanes, one request a block": lanes_requests(single),
    }
    rounds.append(run_peers(python))
    peers = {
        name: max((each[name] for each in rounds), key=lambda found: found["requests_per_s"]) for name in rounds[0]
    }
    detail = {"peers": peers, "ours": ours, "engines": figures}

    def row(figure: str, rate: float, peer: str, target: float, label: str) -> Row:
        return Row(
            room="lab",
            figure=figure,
            ratio=rate / peers[peer]["requests_per_s"],
            target=target,
            sense="at least",
            peer=label,
            detail=detail,
        )

    return [
        row("latency by recursion, k = 1, one core", ours["recursion, one request a block"], "ciw", 400, "ciw 3.2"),
        row(
            "latency by recursion, k = 5, one core", ours["recursion, five requests a block"], "simpy", 150, "simpy 4.1"
        ),
        row("latency by lanes, k = 1, one core", ours["lanes, one request a block"], "ciw", 5_000, "ciw 3.2"),
        Row(
            room="lab",
            figure="time of a lanes event, k = 5, one core",
            ratio=figures["raw_draws_per_s"] / figures["lanes_events_per_s"],
            target=2.0,
            sense="at most",
            peer="one raw 64-bit draw of the same generator",
            detail=detail,
        ),
    ]


def peer_environment() -> Path:
    """Build the peers' environment once and give its interpreter."""
    python = PEERS / "bin" / "python"
    ready = PEERS / "ready"
    if not ready.exists():
        subprocess.run([sys.executable, "-m", "venv", str(PEERS)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *REQUIREMENTS], check=True)
        ready.touch()
    return python


def run_peers(python: Path) -> dict[str, Any]:
    """Run ciw and simpy, each on one core, and give their requests a second and their waits for a link."""
    given = {
        "arrival": NETWORK.arrival,
        "block_rate": NETWORK.block_rate,
        "service_rate": NETWORK.service_rate,
        "links": NETWORK.links,
        "block_size": int(NETWORK.block_size),
        "horizon": HORIZON,
    }
    done = subprocess.run(
        [str(python), str(ROOT / "bench" / "lab_peers.py"), json.dumps(given)],
        check=True,
        capture_output=True,
        text=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def recursion_requests(access: Access) -> float:
    """Give requests a second of the recursion; its events are arrivals, blocks and services."""
    rng = np.random.default_rng(1)
    seconds = best_time(lambda: recursion_replicas(access, events=RECURSION_EVENTS, replicas=20, rng=rng))
    return RECURSION_EVENTS / seconds * access.arrival / (2 * access.arrival + access.block_rate)


def lanes_requests(access: Access) -> float:
    """Give requests a second of the lanes; their events are steps of the uniformised chain."""
    rng = np.random.default_rng(1)
    seconds = best_time(lambda: lanes_replicas([access], events=LANES_EVENTS, replicas=64, rng=rng))
    steps = access.arrival + access.block_rate + access.links * access.service_rate
    return LANES_EVENTS / seconds * access.arrival / steps
