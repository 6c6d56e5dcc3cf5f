"""``python tests/faults/soak.py --minutes 60``: a consortium under load, with a fault drawn at random again and again.

Load is 70 % of what the consortium sustains on this machine. Faults, all from a seed, hit node1 to node3 (node0 is the
one whose receipts are timed): 1 the engine is killed; 2 the application, or both, are killed; 3 the node dies at a
crash point of its commit; 4 the engine is stopped for ten seconds. In the end the whole chain is replayed and compared
with every node. Prints a summary as JSON; exit 1 where a node did not come back, a hash differs, the 99th percentile
of the time to a receipt exceeds three times the calm one, or memory grew by more than a quarter.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from faults_consortium import Consortium, engines_missing

from gridpool.agents.load import LoadResult, load_network
from gridpool.engines.network import spawn_node

SHARE = 0.7
WINDOW_S = 25.0
STOPPED_S = 10.0
CRASH_POINTS = ("abci.finalized:4", "abci.committing:4", "abci.committed:4")
FAULTS = ("engine killed", "application killed", "both killed", "crash point", "engine stopped 10 s")
MOST_P99 = 3.0
MOST_GROWTH = 1.25


def main() -> int:
    """Run and print the summary."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=None, help="also write the summary here")
    arguments = parser.parse_args()
    missing = engines_missing()
    if missing:
        print(missing, file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="gridpool-soak-") as folder:
        net = Consortium(Path(folder) / "net", offset=12)
        try:
            net.start()
            summary = soak(net, arguments.minutes * 60, arguments.seed)
        finally:
            net.stop()
    text = json.dumps(summary, indent=1)
    print(text)
    if arguments.out is not None:
        arguments.out.write_text(text + "\n")
    return 0 if summary["ok"] else 1


def soak(net: Consortium, seconds: float, seed: int) -> dict[str, Any]:
    """Find the sustained rate, measure calm, then hurt the consortium for ``seconds``."""
    choice = random.Random(seed)
    sustained = load_network(net.folder, rate=1_000, seconds=10).tx_per_s
    rate = SHARE * sustained
    calm = load_network(net.folder, rate=rate, seconds=min(60.0, WINDOW_S))
    windows: list[dict[str, Any]] = []
    memory = [memory_mb(net)]
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        fault, number = choice.choice(FAULTS), choice.randrange(1, 4)
        note(f"{fault} at node{number}")
        result = hurt(net, fault, number, rate, choice)
        net.await_blocks(3, within_s=40.0)
        memory.append(memory_mb(net))
        windows.append({"fault": fault, "node": number, **figures(result)})
    net.stop()
    replay = net.replay()
    p99 = [window["p99_s"] for window in windows if window["p99_s"] is not None]
    ratio = float(np.median(p99)) / (calm.p99_s or 1.0)
    growth = {
        role: memory[-1][role] / np.mean([row[role] for row in memory[: max(1, len(memory) // 4)]])
        for role in memory[0]
    }
    return {
        "ok": bool(replay.ok and ratio <= MOST_P99 and max(growth.values()) <= MOST_GROWTH),
        "minutes": round(seconds / 60, 1),
        "seed": seed,
        "load_average": round(os.getloadavg()[0], 1),
        "sustained_tx_per_s": round(sustained, 1),
        "rate_tx_per_s": round(rate, 1),
        "calm": figures(calm),
        "faults": len(windows),
        "windows": windows,
        "p99_over_calm": {"median": round(ratio, 2), "worst": round(max(p99) / (calm.p99_s or 1.0), 2)},
        "node0_anonymous_memory_mb": {role: [round(row[role], 1) for row in memory] for role in memory[0]},
        "replay": {
            "ok": replay.ok,
            "height": replay.height,
            "transactions": replay.transactions,
            "nodes": replay.nodes,
            "fault": None if replay.fault is None else str(replay.fault),
        },
    }


def hurt(net: Consortium, fault: str, number: int, rate: float, choice: random.Random) -> LoadResult:
    """Load the consortium for a window in which one node suffers."""
    results: list[LoadResult] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            results.append(load_network(net.folder, rate=rate, seconds=WINDOW_S))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    time.sleep(choice.uniform(3.0, 10.0))
    if fault in ("engine killed", "both killed"):
        net.send(number, "engine", signal.SIGKILL)
    if fault in ("application killed", "both killed"):
        net.send(number, "application", signal.SIGKILL)
    if fault == "crash point":
        net.end(number)
        os.environ["GRIDPOOL_FAIL_AT"] = choice.choice(CRASH_POINTS)
        try:
            spawn_node(net.home(number))
        finally:
            del os.environ["GRIDPOOL_FAIL_AT"]
    if fault == "engine stopped 10 s":
        net.send(number, "engine", signal.SIGSTOP)
        time.sleep(STOPPED_S)
        net.send(number, "engine", signal.SIGCONT)
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def figures(result: LoadResult) -> dict[str, Any]:
    """Return what is kept of a load."""
    return {
        "submitted": result.submitted,
        "included": result.included,
        "refused": result.refused,
        "p50_s": None if result.p50_s is None else round(result.p50_s, 3),
        "p99_s": None if result.p99_s is None else round(result.p99_s, 3),
    }


def memory_mb(net: Consortium) -> dict[str, float]:
    """Return the anonymous memory of node0's processes, which no fault restarts."""
    found = {}
    for role in ("application", "engine"):
        (pid,) = net.pids(0, role)
        line = next(row for row in Path(f"/proc/{pid}/status").read_text().splitlines() if row.startswith("RssAnon"))
        found[role] = int(line.split()[1]) / 1024
    return found


def note(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
