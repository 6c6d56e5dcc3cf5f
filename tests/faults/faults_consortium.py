"""What fault tests do to a consortium, and what must hold of it afterwards."""

import contextlib
import os
import signal
import socket
import threading
import time
from pathlib import Path

import pytest

from gridpool.agents.consortium import init_network
from gridpool.agents.load import LoadResult, funded_wallets, load_network
from gridpool.agents.network_replay import Replay, replay_network
from gridpool.contracts import RULES
from gridpool.contracts.coins import Transfer
from gridpool.engines.cometbft import find_cometbft
from gridpool.engines.cometbft_rpc import Rpc, RpcError
from gridpool.engines.etcd import find_etcd
from gridpool.engines.network import (
    node_file_at,
    read_network,
    spawn_node,
    start_network,
    status_network,
    stop_network,
)
from gridpool.errors import MissingComponent
from gridpool.ledger.chain import Ledger
from gridpool.ledger.keys import load_key
from gridpool.ledger.transaction import sign


def engines_missing() -> str:
    """Say in one line which engine is missing and how to get it; empty where both are here."""
    for find in (find_cometbft, find_etcd):
        try:
            find()
        except MissingComponent as missing:
            return str(missing)
    return ""


def other_build(name: str) -> str:
    """Return the path of another build of CometBFT that scripts/install-engines makes for tests."""
    path = find_cometbft().with_name(name)
    if not path.exists():
        pytest.skip(f"{name} is not on this machine; run scripts/install-engines")
    return str(path)


def free_base_port(count: int, offset: int) -> int:
    """Return the first of ``count`` consecutive free ports; where it looks first differs between runs and workers."""
    places = range(20_000, 32_000, 50)
    first = os.getpid() * 7 + offset * 20
    for turn in range(len(places)):
        base = places[(first + turn) % len(places)]
        with contextlib.ExitStack() as stack:
            try:
                for port in range(base, base + count):
                    held = stack.enter_context(socket.socket())
                    held.bind(("127.0.0.1", port))
            except OSError:
                continue
            return base
    raise RuntimeError("no free ports")


class Consortium:
    """A network on this machine."""

    def __init__(
        self, folder: Path, *, offset: int, validators: int = 4, engine: str = "cometbft", market_clock: str = "block"
    ) -> None:
        self.folder = folder
        base = free_base_port(3 * (validators + 2), offset)
        init_network(
            folder,
            validators=validators,
            engine=engine,  # type: ignore[arg-type]
            base_port=base,
            market_clock=market_clock,  # type: ignore[arg-type]
        )

    def start(self) -> None:
        start_network(self.folder)

    def restart(self, number: int) -> None:
        """Start a node again without waiting for it to answer."""
        spawn_node(self.home(number))

    def stop(self) -> None:
        stop_network(self.folder)

    def home(self, number: int) -> Path:
        return self.folder / f"node{number}"

    def pids(self, number: int, role: str) -> list[int]:
        """Return the processes of a node: ``engine``, ``application``, ``supervisor`` or ``all``."""
        home = os.fsencode(self.home(number).resolve())
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            with contextlib.suppress(OSError):
                line = (entry / "cmdline").read_bytes()
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                if (home + b"\0" not in line and home + b"/" not in line) or state == "Z":
                    continue
                kind = "supervisor"
                if b"--application" in line:
                    kind = "application"
                elif b"cometbft" in line.split(b"\0")[0] or b"etcd" in line.split(b"\0")[0]:
                    kind = "engine"
                if role in ("all", kind):
                    found.append(int(entry.name))
        return found

    def send(self, number: int, role: str, what: signal.Signals) -> None:
        """Send a signal to a node's process; there must be one."""
        pids = self.pids(number, role)
        assert pids, f"node{number} has no {role}"
        for pid in pids:
            os.kill(pid, what)

    def end(self, number: int) -> None:
        """Let a node end as its operator would, and wait until it has."""
        self.send(number, "supervisor", signal.SIGTERM)
        end = time.monotonic() + 20
        while self.pids(number, "all"):
            assert time.monotonic() < end, f"node{number} does not end"
            time.sleep(0.1)

    def kill(self, number: int) -> None:
        """End all of a node's processes without a warning."""
        for role in ("supervisor", "engine", "application"):
            for pid in self.pids(number, role):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        end = time.monotonic() + 20
        while self.pids(number, "all"):
            assert time.monotonic() < end, f"node{number} does not end"
            time.sleep(0.1)

    def await_voting(self, number: int, *, within_s: float) -> None:
        """Wait until a node has caught up and takes part; a height like the others' does not say so."""
        file = node_file_at(self.home(number))
        assert file is not None
        end = time.monotonic() + within_s
        while time.monotonic() < end:
            rpc = Rpc(file.ports.rpc, timeout_s=2.0)
            with contextlib.suppress(RpcError):
                if not rpc.call("status")["sync_info"]["catching_up"]:
                    return
            rpc.close()
            time.sleep(0.2)
        raise AssertionError(f"node{number} does not take part within {within_s} s")

    def heights(self) -> dict[str, int]:
        """Return the heights of the nodes that answer."""
        return {node.name: node.height for node in status_network(self.folder) if node.height is not None}

    def await_blocks(self, count: int, *, within_s: float, nodes: int = 4) -> None:
        """Wait until ``nodes`` nodes have ``count`` more blocks than the highest has now."""
        self.await_height(max(self.heights().values(), default=0) + count, within_s=within_s, nodes=nodes)

    def await_height(self, goal: int, *, within_s: float, nodes: int = 4) -> None:
        """Wait until ``nodes`` nodes have that height."""
        heights = self.heights()
        end, news = time.monotonic() + within_s, time.monotonic()
        while time.monotonic() < end:
            before, heights = heights, self.heights()
            if sum(height >= goal for height in heights.values()) >= nodes:
                return
            if heights != before:
                news = time.monotonic()
            elif time.monotonic() - news > 1.0:
                self.nudge()
            time.sleep(0.2)
        raise AssertionError(f"{nodes} nodes did not reach height {goal} within {within_s} s: {self.heights()}")

    def nudge(self) -> None:
        """Hand every node a transaction that uses up a nonce only: without one, nobody needs a block.

        It is of the last founder whom the ledger still lets in: decisions of the council need the first ones' nonces.
        """
        homes = [self.folder / name for name in read_network(self.folder).nodes]
        files = [file for home in homes if (file := node_file_at(home)) is not None and file.engine == "cometbft"]
        for home in reversed([home for home in homes[:4] if (home / "member.key").exists()]):
            key = load_key(home / "member.key")
            taken = False
            for file in files:
                wire = sign(key, file.chain, time.time_ns() // 1_000, 2**62, [Transfer(key.public, 1)]).wire
                rpc = Rpc(file.ports.rpc, timeout_s=2.0)
                with contextlib.suppress(RpcError):
                    taken = rpc.broadcast([wire])[0].code == 0 or taken
                rpc.close()
            if taken:
                return

    def replay(self) -> Replay:
        """Replay the block stream on the embedded core and compare every node with it."""
        return replay_network(self.folder)

    def assert_sound(self, *, nodes: int = 4) -> None:
        """After any fault: blocks go on, all hashes agree with a replay, nothing is lost or applied twice."""
        self.await_blocks(3, within_s=40.0, nodes=nodes)
        replay = self.replay()
        assert replay.ok, replay.fault
        self.assert_kept()

    def assert_kept(self) -> int:
        """Check invariants and that nothing was applied twice; returns how many transactions were carried out."""
        with Ledger.open(self.home(0) / "ledger", RULES, writable=False) as ledger, ledger.view() as view:
            assert RULES.broken_invariants(view.state) == []
            carried = [
                receipt.tx
                for height in range(1, view.height + 1)
                for receipt in view.receipts(height)[: len(view.transactions(height))]
                if receipt.ok
            ]
            assert len(carried) == len(set(carried)), "a transaction was applied twice"
            return len(carried)


class Load:
    """A load in the background; ``result`` waits for it."""

    def __init__(self, net: Consortium, *, rate: float, seconds: float) -> None:
        # Its wallets are founded here and now: the council's nonces are not for two threads at once.
        nodes = [file for name in read_network(net.folder).nodes if (file := node_file_at(net.folder / name))]
        funded_wallets(net.folder, nodes)
        self._results: list[LoadResult] = []
        self._errors: list[BaseException] = []

        def run() -> None:
            try:
                self._results.append(load_network(net.folder, rate=rate, seconds=seconds))
            except BaseException as error:
                self._errors.append(error)

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()

    def result(self) -> LoadResult:
        self._thread.join(timeout=120)
        if self._errors:
            raise self._errors[0]
        return self._results[0]
