"""The engines' rows: applications behind real framing, four CometBFT validators beside its own kvstore, and etcd.

All figures of one run share one machine, its other work included: ``load_average`` in a row's detail says how busy it
was. The load generator takes its part of the same cores.
"""

import contextlib
import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec

from bench.harness import Row
from gridpool import contracts
from gridpool.agents.consortium import init_network
from gridpool.agents.load import funded_wallets, load_network
from gridpool.contracts.coins import CoinParameters, Payment, Transfer
from gridpool.contracts.members import FoundingMember, MemberParameters, Role
from gridpool.engines.abci import abci_pb2 as pb
from gridpool.engines.abci.application import Application, write_app_state
from gridpool.engines.abci.framing import Deframer, frame
from gridpool.engines.abci.server import Server
from gridpool.engines.collector import collect_seldom
from gridpool.engines.cometbft import find_cometbft
from gridpool.engines.cometbft_rpc import Rpc, RpcError
from gridpool.engines.etcd_client import EtcdClient
from gridpool.engines.network import NodeFile, node_file_at, start_network, stop_network
from gridpool.ledger.genesis import Genesis
from gridpool.ledger.keys import KeyPair, verify, verify_all
from gridpool.ledger.transaction import sign, signed_messages
from gridpool.ledger.types import encode

CHAIN = "bench"
TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
BLOCK = 2_000
BLOCKS = 8
SECONDS = 15.0
WARM_S = 3.0
WINDOW = 1_500
"""Most transactions under way: enough to keep the validators busy, no more, so that nothing is measured but work."""
CONNECTIONS_A_NODE = 3
BATCH = 25
SIGNED = 60_000
"""More than gridpool carries in a run; its peers get twice as many."""


class Sustained(msgspec.Struct, frozen=True):
    """What four validators sustained, and the CPU each part took for a transaction, all validators together (us)."""

    tx_per_s: float
    application_us: float
    engine_us: float
    generator_us: float
    verification_us: float
    """CPU of verifying one signature, taken amid the same work."""

    @property
    def cpu_us(self) -> float:
        """CPU a transaction costs in all."""
        return self.application_us + self.engine_us + self.generator_us


def run() -> list[Row]:
    """Measure every row; takes about five minutes."""
    rows = [framing()]
    with _network() as folder:
        nodes = [_node(folder / f"node{i}") for i in range(4)]
        wallets = funded_wallets(folder, nodes)
        ours = _saturate(folder, nodes, _transfers(nodes[0].chain, wallets))
        rows.append(_bundles(folder))
        # At half of what was sustained, as an operator would plan.
        calm = load_network(folder, rate=max(1.0, ours.tx_per_s / 2), seconds=SECONDS)
        ours_idle = _load_average()
    corrected = _bare(find_cometbft(), "noop")
    released = _bare(find_cometbft().with_name("cometbft-released"), "noop")
    kvstore = _bare(find_cometbft(), "kvstore")
    beside = compared(ours, corrected) | {
        "gridpool_tx_per_s": round(ours.tx_per_s),
        "noop_tx_per_s": round(corrected.tx_per_s),
        "noop_released_tx_per_s": round(released.tx_per_s),
        "kvstore_tx_per_s": round(kvstore.tx_per_s),
        "load_average": ours_idle,
    }

    def beside_row(figure: str, rate: float, peer: Sustained, target: float, unit: str) -> Row:
        return _row(figure, rate / peer.tx_per_s, target, "at least", unit, beside)

    single = "four validators, single transfers"
    rows += [
        _row(f"{single}, tx/s", ours.tx_per_s, 600.0, "at least", "tx/s", beside),
        _row(f"{single}, second stage, tx/s", ours.tx_per_s, 1_000.0, "at least", "tx/s", beside),
        beside_row(single, ours.tx_per_s, corrected, 0.6, "no-op application"),
        beside_row(f"{single}, beside kvstore", ours.tx_per_s, kvstore, 0.15, "kvstore"),
        beside_row("corrected flush timer, no-op application", corrected.tx_per_s, released, 1.0, "as released"),
    ]
    times = {"p50_s": calm.p50_s, "p99_s": calm.p99_s, "tx_per_s": calm.tx_per_s, "load_average": ours_idle}
    rows += [
        _row(f"submit to receipt at half load, {name}", value or 99.0, target, "at most", "s", times)
        for name, value, target in (("p50", calm.p50_s, 0.6), ("p99", calm.p99_s, 1.2))
    ]
    return [*rows, *etcd()]


def compared(ours: Sustained, noop: Sustained) -> dict[str, float]:
    """Return where a transaction's CPU goes, and how near the no-op application any application can come.

    Each of four validators verifies each signature once, whatever else it does; on machines whose cores are all busy
    the rate is the reciprocal of the CPU a transaction costs. ``limit`` is that of an application that does no more.
    """
    verification_us = 4 * ours.verification_us
    return {
        "application_cpu_us": round(ours.application_us),
        "engine_cpu_us": round(ours.engine_us),
        "generator_cpu_us": round(ours.generator_us),
        "noop_application_cpu_us": round(noop.application_us),
        "noop_engine_cpu_us": round(noop.engine_us),
        "noop_generator_cpu_us": round(noop.generator_us),
        "verification_cpu_us": round(verification_us),
        "cpu_ratio": round(noop.cpu_us / ours.cpu_us, 3),
        "limit": round(noop.cpu_us / (noop.cpu_us + verification_us), 3),
    }


def framing() -> Row:
    """Four applications, each a process behind its socket, asked what an engine asks of four validators."""
    keys = [KeyPair(os.urandom(32)) for _ in range(2_000)]
    genesis = Genesis(
        chain=CHAIN,
        time_ms=0,
        validators=((KeyPair(os.urandom(32)).public, 10),),
        parameters=(
            ("members", encode(MemberParameters(founders=tuple(_prosumer(key) for key in keys)))),
            ("coins", encode(CoinParameters(tuple(Payment(key.public, 10**9) for key in keys)))),
        ),
    )
    blocks = [
        [sign(key, CHAIN, number, 10**9, [Transfer(keys[i - 1].public, 1)]) for i, key in enumerate(keys)]
        for number in range(1, BLOCKS + 1)
    ]
    with _folder() as folder:
        children = [
            subprocess.Popen([sys.executable, "-m", "bench.engines", "application", str(folder / str(i))])
            for i in range(4)
        ]
        try:
            peers = [_Peer(folder / str(i) / "abci.sock") for i in range(4)]
            begin = pb.RequestInitChain(
                chain_id=CHAIN, app_state_bytes=b'"' + write_app_state(genesis).encode() + b'"', initial_height=1
            )
            _all(peers, [pb.Request(init_chain=begin)])
            raw = working = raw_cpu = 0.0
            begun = [_process_cpu_s(child.pid) for child in children]
            engine_cpu = time.process_time()
            for height, block in enumerate(blocks, 1):
                messages = signed_messages(block)
                start, cpu = time.perf_counter(), time.process_time()
                assert all(verify(*message) for message in messages)
                raw += time.perf_counter() - start
                raw_cpu += time.process_time() - cpu
                start = time.perf_counter()
                _decide(peers, height, [transaction.wire for transaction in block])
                working += time.perf_counter() - start
            applications = sum(_process_cpu_s(child.pid) for child in children) - sum(begun)
            engine_cpu = time.process_time() - engine_cpu - raw_cpu
            for peer in peers:
                peer.close()
        finally:
            _end(children)
    count = BLOCKS * BLOCK
    cores = 2
    spent = {"verification": raw_cpu, "application": applications / 4, "peer": engine_cpu}
    detail = {f"{name}_cpu_us": round(seconds / count * 1e6, 1) for name, seconds in spent.items()}
    # What two cores of their own would give: nearer the truth where others use this machine's.
    detail["cpu_ratio"] = round(cores * raw_cpu / (applications + engine_cpu), 3)
    return _row(
        "four applications behind ABCI framing, no engine",
        (count / working) / (count / raw),
        0.2,
        "at least",
        "raw PyNaCl verification, one core",
        {"tx_per_s": count / working, "verify_per_s": count / raw, "load_average": _load_average()} | detail,
    )


def _decide(peers: list["_Peer"], height: int, wires: list[bytes]) -> None:
    """Ask what an engine asks for one block: each transaction checked, one proposal, four opinions, four commits."""
    _all(peers, [pb.Request(check_tx=pb.RequestCheckTx(tx=wire)) for wire in wires])
    proposal = pb.RequestPrepareProposal(max_tx_bytes=4 << 20, txs=wires, height=height)
    chosen = list(peers[height % 4].ask([pb.Request(prepare_proposal=proposal)])[0].prepare_proposal.txs)
    opinions = _all(peers, [pb.Request(process_proposal=pb.RequestProcessProposal(txs=chosen, height=height))])
    assert {answer.process_proposal.status for (answer,) in opinions} == {pb.ResponseProcessProposal.ACCEPT}
    decided = pb.RequestFinalizeBlock(txs=chosen, height=height)
    decided.time.FromMilliseconds(height * 1_000)
    finals = _all(peers, [pb.Request(finalize_block=decided)])
    assert len({answer.finalize_block.app_hash for (answer,) in finals}) == 1
    assert not any(result.code for result in finals[0][0].finalize_block.tx_results)
    assert len(finals[0][0].finalize_block.tx_results) == len(wires)
    _all(peers, [pb.Request(commit=pb.RequestCommit())])


class _Peer:
    """The engine's side of a connection."""

    def __init__(self, path: Path) -> None:
        end = time.monotonic() + 30
        while True:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                self._socket.connect(str(path))
                break
            except OSError:
                self._socket.close()
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)
        self._deframer = Deframer()

    def send(self, requests: list[pb.Request]) -> None:
        self._socket.sendall(b"".join(frame(request.SerializeToString()) for request in requests))

    def receive(self, count: int) -> list[pb.Response]:
        answers: list[pb.Response] = []
        while len(answers) < count:
            data = self._socket.recv(1 << 18)
            assert data, "the application ended"
            answers += [pb.Response.FromString(message) for message in self._deframer.feed(data)]
        return answers

    def ask(self, requests: list[pb.Request]) -> list[pb.Response]:
        self.send(requests)
        return self.receive(len(requests))

    def close(self) -> None:
        self._socket.close()


def _all(peers: list[_Peer], requests: list[pb.Request]) -> list[list[pb.Response]]:
    """Ask all peers at once; the requests of one turn go out before any answer is awaited."""
    answers: list[list[pb.Response]] = []
    for at in range(0, len(requests), 500):
        turn = requests[at : at + 500]
        for peer in peers:
            peer.send(turn)
        answers = [peer.receive(len(turn)) for peer in peers]
    return answers


def _bundles(folder: Path) -> Row:
    """Bundles of 50 transfers at a rate above the target."""
    result = load_network(folder, rate=160.0, seconds=SECONDS, bundle=50)
    return _row(
        "four validators, bundles of 50 calls, calls/s",
        result.calls_per_s,
        5_000.0,
        "at least",
        "calls/s",
        {
            "tx_per_s": result.tx_per_s,
            "refused": result.refused,
            "p50_s": result.p50_s,
            "load_average": _load_average(),
        },
    )


def _saturate(folder: Path, nodes: list[NodeFile], wires: list[list[bytes]]) -> Sustained:
    """Keep ``WINDOW`` transactions under way and return what blocks include a second, warm-up not counted.

    ``wires`` has a list for each connection; whoever answers them, the generator and its count are the same.
    """
    lock = threading.Lock()
    sent, failed = 0, 0
    stop = threading.Event()
    blocks = _Blocks(nodes[0])

    def hand_in(number: int) -> None:
        nonlocal sent, failed
        rpc = Rpc(nodes[number % len(nodes)].ports.rpc)
        own = wires[number]
        at = 0
        while not stop.is_set() and at < len(own):
            with lock:
                room = sent - failed - blocks.included < WINDOW
                if room:
                    sent += BATCH
            if not room:
                time.sleep(0.005)
                continue
            try:
                answers = rpc.broadcast(own[at : at + BATCH])
                refused = BATCH - sum(answer.code == 0 for answer in answers)
            except RpcError:
                refused = BATCH
            at += BATCH
            with lock:
                failed += refused
        rpc.close()

    threads = [threading.Thread(target=hand_in, args=(number,), daemon=True) for number in range(len(wires))]
    with blocks:
        for thread in threads:
            thread.start()
        time.sleep(WARM_S)
        start, before, spent = time.monotonic(), blocks.included, _cpu_s(folder)
        time.sleep(SECONDS / 2)
        verification_s, own_s = _verification_s()
        time.sleep(SECONDS / 2)
        count, elapsed, after = max(blocks.included - before, 1), time.monotonic() - start, _cpu_s(folder)
        stop.set()
        for thread in threads:
            thread.join()
    application, engine, generator = ((now - then) / count * 1e6 for now, then in zip(after, spent, strict=True))
    return Sustained(count / elapsed, application, engine, generator - own_s / count * 1e6, verification_s * 1e6)


def _verification_s() -> tuple[float, float]:
    """Return the CPU seconds of verifying one transfer's signature, and those that finding out took."""
    begin = time.thread_time()
    key = KeyPair(bytes(32))
    messages = signed_messages([sign(key, CHAIN, i, 1, [Transfer(key.public, 1)]) for i in range(1, 2_001)])
    start = time.thread_time()
    assert 0 not in verify_all(messages)
    end = time.thread_time()
    return (end - start) / len(messages), end - begin


def _cpu_s(folder: Path) -> tuple[float, float, float]:
    """Return the CPU seconds that applications and engines of the nodes in a folder, and this process, have used."""
    application = engine = 0.0
    wanted = os.fsencode(folder.resolve()) + b"/"
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            arguments = (entry / "cmdline").read_bytes().split(b"\0")
            if not any(argument.startswith(wanted) for argument in arguments):
                continue
            spent = _process_cpu_s(int(entry.name))
            if b"start" in arguments:
                engine += spent
            else:
                application += spent
    return application, engine, time.process_time()


def _process_cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_A_SECOND


class _Blocks:
    """Counts the transactions in new blocks of a node."""

    def __init__(self, node: NodeFile) -> None:
        self.included = 0
        self._rpc = Rpc(node.ports.rpc)
        self._height = self._top()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "_Blocks":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._rpc.close()

    def _top(self) -> int:
        return int(self._rpc.call("status")["sync_info"]["latest_block_height"])

    def _run(self) -> None:
        while not self._stop.wait(0.05):
            with contextlib.suppress(RpcError):
                top = self._top()
                if top <= self._height:
                    continue
                last = min(top, self._height + 20)
                asked = {"minHeight": str(self._height + 1), "maxHeight": str(last)}
                metas = self._rpc.call("blockchain", **asked)["block_metas"]
                self.included += sum(int(meta["num_txs"]) for meta in metas)
                self._height = last


def _transfers(chain: str, wallets: list[KeyPair]) -> list[list[bytes]]:
    """Sign transfers for every connection, a wallet's always on the same one."""
    connections = 4 * CONNECTIONS_A_NODE
    nonce = time.time_ns() // 1_000
    made: list[list[bytes]] = [[] for _ in range(connections)]
    for i in range(SIGNED):
        sender = i % len(wallets)
        call = Transfer(wallets[(sender + 1) % len(wallets)].public, 1)
        made[sender % connections].append(sign(wallets[sender], chain, nonce + i, 2**62, [call]).wire)
    return made


def _bare(binary: Path, application: Literal["noop", "kvstore"]) -> Sustained:
    """Four validators with the no-op application or CometBFT's own kvstore, under the same generator."""
    with _folder() as parent:
        folder = parent / "net"
        init_network(folder, validators=4, base_port=_free_base())
        processes: list[subprocess.Popen[bytes]] = []
        try:
            for number in range(4):
                home = folder / f"node{number}"
                config = home / "cometbft" / "config" / "config.toml"
                text = config.read_text().replace("filter_peers = true", "filter_peers = false")
                proxy = "kvstore"
                if application == "noop":
                    proxy = f"unix://{home / 'abci.sock'}"
                    command = [sys.executable, "-m", "bench.noop_application", str(home / "abci.sock")]
                    processes.append(subprocess.Popen(command))
                lines = [
                    f'proxy_app = "{proxy}"' if line.startswith("proxy_app") else line for line in text.splitlines()
                ]
                config.write_text("\n".join(lines) + "\n")
            for number in range(4):
                with (folder / f"node{number}" / "engine.log").open("wb") as log:
                    start = [str(binary), "start", "--home", str(folder / f"node{number}" / "cometbft")]
                    processes.append(subprocess.Popen(start, stdout=log, stderr=log))
            nodes = [_node(folder / f"node{i}") for i in range(4)]
            _await_engines(nodes)
            # kvstore wants key=value; the others take any bytes. All are as long as a signed transfer.
            choice = random.Random(1)
            connections = 4 * CONNECTIONS_A_NODE
            wires = [
                [b"%032x=" % choice.getrandbits(128) + b"x" * 180 for _ in range(2 * SIGNED // connections)]
                for _ in range(connections)
            ]
            return _saturate(folder, nodes, wires)
        finally:
            _end(processes[::-1])


def _await_engines(nodes: list[NodeFile]) -> None:
    end = time.monotonic() + 60
    for node in nodes:
        rpc = Rpc(node.ports.rpc, timeout_s=2.0)
        while True:
            with contextlib.suppress(RpcError):
                connected = int(rpc.call("net_info")["n_peers"]) >= len(nodes) - 1
                if connected and int(rpc.call("status")["sync_info"]["latest_block_height"]) >= 1:
                    break
            if time.monotonic() > end:
                raise TimeoutError(f"the engine on port {node.ports.rpc} does not come up")
            time.sleep(0.2)
        rpc.close()


def etcd() -> list[Row]:
    """Write blocks of 300 B and 300 kB through three members, and time a leader's death to the next write."""
    rows = []
    with _network(validators=3, engine="etcd") as folder:
        nodes = [_node(folder / f"node{i}") for i in range(3)]
        client = EtcdClient(nodes[0].peers)
        for size, target, text in ((300, 1.5, "300 B"), (300_000, 18.0, "300 kB")):
            spent = []
            for i in range(60):
                value = os.urandom(size)
                start = time.perf_counter()
                assert client.create(f"bench/{size}/{i}", value)
                spent.append((time.perf_counter() - start) * 1_000)
            median = statistics.median(spent)
            detail = {"p50_ms": median, "p99_ms": sorted(spent)[-1], "load_average": _load_average()}
            rows.append(_row(f"etcd, write of a block of {text}, ms", median, target, "at most", "ms", detail))
        client.close()
        leader = next(i for i, node in enumerate(nodes) if _leads(node))
        client = EtcdClient(nodes[(leader + 1) % 3].peers)
        os.kill(_engine_of(folder / f"node{leader}"), signal.SIGKILL)
        start = time.perf_counter()
        number = 0
        while True:
            with contextlib.suppress(Exception):
                if client.create(f"bench/after/{number}", b"x"):
                    break
            number += 1
            time.sleep(0.02)
        gap = time.perf_counter() - start
        client.close()
        rows.append(
            _row("etcd, leader killed to next write, s", gap, 2.0, "at most", "s", {"load_average": _load_average()})
        )
    return rows


def _leads(node: NodeFile) -> bool:
    client = EtcdClient(node.peers[:1])
    try:
        return client.leads()
    finally:
        client.close()


def _engine_of(home: Path) -> int:
    wanted = os.fsencode(str(home.resolve() / "etcd"))
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if wanted in (entry / "cmdline").read_bytes().split(b"\0"):
                    return int(entry.name)
    raise AssertionError(f"no etcd runs in {home}")


@contextlib.contextmanager
def _network(*, validators: int = 4, engine: Literal["cometbft", "etcd"] = "cometbft") -> Iterator[Path]:
    with _folder() as parent:
        folder = parent / "net"
        init_network(folder, validators=validators, engine=engine, base_port=_free_base())
        try:
            start_network(folder)
            yield folder
        finally:
            stop_network(folder)


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="gridpool-bench-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _free_base() -> int:
    """Return the first of twelve free consecutive ports."""
    for base in range(31_000, 32_600, 20):
        with contextlib.ExitStack() as stack:
            try:
                for port in range(base, base + 12):
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue
            return base
    raise RuntimeError("no free ports")


def _node(home: Path) -> NodeFile:
    node = node_file_at(home)
    assert node is not None
    return node


def _prosumer(key: KeyPair) -> FoundingMember:
    return FoundingMember(key.public, "", (Role.PROSUMER,))


def _end(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _load_average() -> float:
    return round(os.getloadavg()[0], 1)


def _row(
    figure: str, ratio: float, target: float, sense: Literal["at least", "at most"], peer: str, detail: dict[str, Any]
) -> Row:
    return Row(room="engines", figure=figure, ratio=ratio, target=target, sense=sense, peer=peer, detail=detail)


def _serve_application(home: Path) -> None:
    """Be one of the four applications of ``framing``."""
    home.mkdir(parents=True)
    application = Application(home / "ledger", contracts.RULES)
    server = Server(home / "abci.sock", application.answer, application.check)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    collect_seldom()
    server.wait()


if __name__ == "__main__":
    if sys.argv[1:2] == ["application"]:
        _serve_application(Path(sys.argv[2]))
