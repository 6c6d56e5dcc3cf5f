"""``python tests/faults/soak.py --minutes 60``: a consortium under load, with a fault drawn at random again and again.

Load is 70 % of what the consortium sustains on this machine, in windows of 25 s. A shared machine changes its speed by
half for minutes, so before each window signatures are verified for a moment, and the load follows the rate at which
that goes: it knows nothing of the consortium, so a consortium that became slower would not be spared. In most windows a
fault, drawn from a seed, hits node1 to node3 (node0 is the one whose receipts are timed): 1 the engine is killed; 2 the
application, or both, are killed; 3 the node dies at a crash point of its commit; 4 the engine or the application is
stopped for ten seconds. Every fourth window is calm: what faults cost is compared with calm windows of the same hour.
In the end the whole chain is replayed and compared with every node.

Exit 1 where a node did not come back, a hash or an invariant differs, a transaction was lost or applied twice, the
99th percentile of all times to a receipt under faults exceeds three times that of all calm ones, or memory grew.
"""

import argparse
import contextlib
import os
import random
import re
import signal
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np
from faults_consortium import Consortium, engines_missing
from numpy.typing import NDArray
from scipy.stats import theilslopes
from soak_report import Memory, Soak, Window, keep_report, report

from gridpool.agents.load import load_network, timed_load
from gridpool.engines.network import node_file_at, spawn_node
from gridpool.engines.verifying import VerifyingThreads
from gridpool.ledger.keys import KeyPair

SHARE = 0.7
PROBE_S = 10.0
SUSTAINED_S = 60.0
SIGNATURES = 1_000
"""Verified on each of two threads to tell how fast the machine is: a tenth of a second."""
TRIES = 5
WINDOW_S = 25.0
STOPPED_S = 10.0
CALM_EVERY = 4
CRASH_POINTS = ("abci.finalized:4", "abci.committing:4", "abci.committed:4")
FAULTS = (
    "engine killed",
    "application killed",
    "both killed",
    "crash point",
    "engine stopped 10 s",
    "application stopped 10 s",
)
MOST_P99 = 3.0
SAMPLE_S = 5.0
HEAP_EVERY_S = 30.0
WARM_UP_S = 600.0
"""Caches of transactions fill and find their size, and so does Go's collector."""
JUDGED_S = 1_200.0
MOST_GROWTH = 0.10
"""Most growth of a process's memory over the judged time, as a share of its median there."""
READY_S = 60.0


def main() -> int:
    """Run and print the summary."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=None, help="keep the summary here (between its marks in a page)")
    arguments = parser.parse_args()
    missing = engines_missing()
    if missing:
        print(missing, file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the nodes are ended on the way out
    command = f".venv/bin/python tests/faults/soak.py --minutes {arguments.minutes:g} --seed {arguments.seed}"
    with tempfile.TemporaryDirectory(prefix="gridpool-soak-") as folder:
        net = Consortium(Path(folder) / "net", offset=12)
        heap = Heap(net.home(0))
        watch = MemoryWatch(net, heap)
        try:
            net.start()
            watch.start()
            found = soak(net, arguments.minutes * 60, arguments.seed, watch)
            heap.keep(Path("out") / "soak-engine.heap")
        finally:
            watch.stop()
            net.stop()
        judge(net, found, watch)
        if not found.ok:
            keep_logs(net, Path("out") / f"soak-{time.strftime('%Y%m%d-%H%M%S')}")
    text = report(found, command)
    print(text)
    if arguments.out is not None:
        keep_report(arguments.out, text)
    return 0 if found.ok else 1


def soak(net: Consortium, seconds: float, seed: int, watch: "MemoryWatch") -> Soak:
    """Find the sustained rate, then load and hurt the consortium for ``seconds``."""
    choice = random.Random(seed)
    with Speed() as speed:
        sustained, reference = sustained_rate(net, speed)
        return windows(net, seconds, choice, watch, speed, Soak(seed, seconds / 60, sustained, reference))


def windows(
    net: Consortium, seconds: float, choice: random.Random, watch: "MemoryWatch", speed: "Speed", found: Soak
) -> Soak:
    """Load and hurt the consortium window by window."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        calm = len(found.windows) % CALM_EVERY == 0
        fault, number = ("", 0) if calm else (choice.choice(FAULTS), choice.randrange(1, 4))
        now = speed.measure()
        rate = SHARE * found.sustained * now / found.speed
        note(f"{f'{fault} at node{number}' if fault else 'calm'}, {rate:.0f} tx/s (verifying {now:.0f} a second)")
        wounded = hurt(net, fault, number, choice) if fault else None
        result, latencies = timed_load(net.folder, rate=rate, seconds=WINDOW_S)
        if wounded is not None:
            wounded()
        found.windows.append(Window(fault, number, rate, result, latencies))
        note(f"  {result.included} of {result.submitted} included, p50 {result.p50_s} s, p99 {result.p99_s} s")
        watch.mark()
        try:
            net.await_blocks(3, within_s=READY_S)
        except AssertionError as error:
            found.faults.append(f"after {fault or 'a calm window'} at node{number}: {error}")
            break
    return found


def sustained_rate(net: Consortium, speed: "Speed") -> tuple[float, float]:
    """Return what the consortium carries for a minute where more is offered (tx/s), and the machine's speed then."""
    rate = 600.0
    while carried_of(net, rate, PROBE_S) >= 0.9 * rate:
        rate *= 1.5
    before = speed.measure()
    sustained = carried_of(net, rate, SUSTAINED_S)
    return sustained, (before + speed.measure()) / 2


def carried_of(net: Consortium, rate: float, seconds: float) -> float:
    """Offer a load and return how much of it is carried, in transactions a second."""
    carried = load_network(net.folder, rate=rate, seconds=seconds).tx_per_s
    note(f"{carried:.0f} tx/s of {rate:.0f} offered for {seconds:.0f} s")
    return carried


def hurt(net: Consortium, fault: str, number: int, choice: random.Random) -> Callable[[], None]:
    """Hurt a node a few seconds from now, in a thread; returns a function that waits for it and raises its error."""
    wait_s, place = choice.uniform(3.0, 10.0), choice.choice(CRASH_POINTS)
    errors: list[BaseException] = []

    def strike() -> None:
        time.sleep(wait_s)
        if fault in ("engine killed", "both killed"):
            net.send(number, "engine", signal.SIGKILL)
        if fault in ("application killed", "both killed"):
            net.send(number, "application", signal.SIGKILL)
        if fault == "crash point":
            net.end(number)
            os.environ["GRIDPOOL_FAIL_AT"] = place
            try:
                spawn_node(net.home(number))
            finally:
                del os.environ["GRIDPOOL_FAIL_AT"]
        if "stopped" in fault:
            role = fault.split()[0]
            net.send(number, role, signal.SIGSTOP)
            time.sleep(STOPPED_S)
            net.send(number, role, signal.SIGCONT)

    def guarded() -> None:
        try:
            strike()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=guarded, daemon=True)
    thread.start()

    def wait() -> None:
        thread.join()
        if errors:
            raise errors[0]

    return wait


class Speed:
    """The machine's speed: signatures verified a second on two threads, the best of a few tries.

    The best, because between windows the nodes still make a block now and then.
    """

    def __init__(self) -> None:
        key = KeyPair(bytes(32))
        messages = [i.to_bytes(8, "big") * 20 for i in range(SIGNATURES)]
        self._messages = [(key.public, key.sign(message), message) for message in messages]
        self._threads = VerifyingThreads(2)

    def __enter__(self) -> "Speed":
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.close()

    def measure(self) -> float:
        """Measure for half a second."""
        shortest = float("inf")
        for _ in range(TRIES):
            begin = time.perf_counter()
            answers = [self._threads.submit(self._messages) for _ in range(2)]
            assert all(all(answer.result()) for answer in answers)
            shortest = min(shortest, time.perf_counter() - begin)
        return 2 * SIGNATURES / shortest


class Heap:
    """What the engine of a home says of its heap: Go's profile, on loopback."""

    def __init__(self, home: Path) -> None:
        """Let the engine, which must not run yet, answer such questions."""
        node = node_file_at(home)
        assert node is not None
        self._port = node.ports.rpc + 1_000
        config = home / "cometbft" / "config" / "config.toml"
        text = config.read_text()
        assert text.count("[rpc]\n") == 1
        config.write_text(text.replace("[rpc]\n", f'[rpc]\npprof_laddr = "127.0.0.1:{self._port}"\n'))

    def live(self) -> float | None:
        """Return the MB that the last collection found in use: the next one is due at twice as much."""
        with contextlib.suppress(OSError, ValueError):
            found = re.search(rb"# NextGC = (\d+)", self._ask("debug=1"))
            return int(found[1]) / 2 / 2**20 if found else None
        return None

    def keep(self, path: Path) -> None:
        """Keep the profile, to be read by ``go tool pprof``."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self._ask("gc=1"))

    def _ask(self, query: str) -> bytes:
        url = f"http://127.0.0.1:{self._port}/debug/pprof/heap?{query}"
        with urllib.request.urlopen(url, timeout=5) as answer:
            data: bytes = answer.read()
        return data


class MemoryWatch:
    """Samples the anonymous memory of node0's processes, which no fault restarts, every few seconds."""

    def __init__(self, net: Consortium, heap: Heap) -> None:
        self._net = net
        self._heap = heap
        self.live: list[tuple[float, float]] = []
        """(Seconds since the beginning, MB) of the engine's heap that is in use."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._samples: dict[str, list[tuple[float, float]]] = {"application": [], "engine": []}
        self._begin = 0.0
        self.restarted = False

    def start(self) -> None:
        """Begin."""
        self._begin = time.monotonic()
        self._pids = {role: self._net.pids(0, role) for role in self._samples}
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def mark(self) -> None:
        """Take note of whether node0's processes are still those of the beginning."""
        self.restarted = self.restarted or any(self._net.pids(0, role) != pids for role, pids in self._pids.items())

    def series(self, role: str) -> NDArray[np.float64]:
        """Return rows of (seconds since the beginning, MB)."""
        return np.array(self._samples[role])

    def _run(self) -> None:
        while not self._stop.wait(SAMPLE_S):
            if not self.live or time.monotonic() - self._begin - self.live[-1][0] >= HEAP_EVERY_S:
                live = self._heap.live()
                if live is not None:
                    self.live.append((time.monotonic() - self._begin, live))
            for role, pids in self._pids.items():
                try:
                    status = Path(f"/proc/{pids[0]}/status").read_text()
                except OSError:
                    continue
                line = next((row for row in status.splitlines() if row.startswith("RssAnon")), None)
                if line is not None:
                    moment = time.monotonic() - self._begin
                    self._samples[role].append((moment, int(line.split()[1]) / 1024))


def judge(net: Consortium, found: Soak, watch: MemoryWatch) -> None:
    """Hold the run against what a soak must show; what is missed goes to ``found.faults``."""
    found.load_average = os.getloadavg()[0]
    calm, hurt_ = found.latencies(calm=True), found.latencies(calm=False)
    if len(calm) and len(hurt_) and found.p99(calm=False) > MOST_P99 * found.p99(calm=True):
        found.faults.append(f"p99 under faults is more than {MOST_P99:g} times the calm one")
    for role in ("application", "engine"):
        found.memory[role] = memory = judged_memory(watch.series(role), found.minutes * 60)
        if memory.growth is not None and memory.growth > MOST_GROWTH:
            found.faults.append(f"node0's {role} grew by {memory.growth:.0%} of its memory")
    found.live_heap = [megabytes for _, megabytes in watch.live]
    if watch.restarted:
        found.faults.append("a process of node0 was restarted, which no fault asked for")
    note("replaying")
    replay = net.replay()
    found.replay = replay
    if replay.fault is not None:
        found.faults.append(f"replay: {replay.fault}")
    if min(replay.nodes.values(), default=0) < replay.height - 2 or len(replay.nodes) < 4:
        found.faults.append(f"a node is behind in the end: {replay.nodes}")
    try:
        carried = net.assert_kept()
    except AssertionError as error:
        found.faults.append(str(error))
        return
    if carried < found.included():
        found.faults.append(f"{found.included()} receipts were seen, the chain holds {carried} transactions")


def judged_memory(series: NDArray[np.float64], seconds: float) -> Memory:
    """Fit a line that single samples cannot turn (Theil-Sen) to memory after warm-up; too short a run is not judged."""
    if len(series) == 0:
        return Memory([], None, None)
    minutes = [float(np.median(series[series[:, 0] // 60 == m, 1])) for m in np.unique(series[:, 0] // 60)]
    judged = series[series[:, 0] >= WARM_UP_S]
    if seconds < WARM_UP_S + JUDGED_S:
        return Memory(minutes, None, None)
    slope = float(theilslopes(judged[:, 1], judged[:, 0]).slope)
    span = float(judged[-1, 0] - judged[0, 0])
    return Memory(minutes, slope * 3600, slope * span / float(np.median(judged[:, 1])))


def keep_logs(net: Consortium, folder: Path) -> None:
    """Copy the nodes' logs, for whoever looks into a run that failed."""
    for number in range(4):
        target = folder / f"node{number}"
        target.mkdir(parents=True, exist_ok=True)
        for log in (net.home(number) / "logs").glob("*.log"):
            (target / log.name).write_bytes(log.read_bytes()[-20_000_000:])
    note(f"the nodes' logs are kept in {folder}")


def note(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
