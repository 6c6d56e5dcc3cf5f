"""A consortium node's two processes: a supervisor, and under it the application with its HTTP face and the engine."""

import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import NoReturn

from gridpool.contracts import RULES
from gridpool.contracts.validators import admits
from gridpool.engines.collector import collect_seldom
from gridpool.engines.cometbft import CometBFT, find_cometbft
from gridpool.engines.cometbft_watch import EngineWatch
from gridpool.engines.etcd import Etcd, find_etcd
from gridpool.engines.etcd_files import etcd_command
from gridpool.engines.home import genesis_at
from gridpool.engines.network import NodeFile
from gridpool.engines.supervisor import HALTED, Process, Supervisor
from gridpool.errors import AlteredState, GridpoolError, RefusedInput
from gridpool.gateway.node_api import Node, build_app
from gridpool.gateway.read_model import ReadModel
from gridpool.gateway.server import build_server
from gridpool.ledger.execution import ContractFault

__all__ = ["run_application", "supervise"]

GENESIS_PATIENCE_S = 600.0
ROOM_BYTES = 16 << 20


def supervise(home: Path, node: NodeFile) -> None:
    """Keep a node's application and engine alive until this process is told to end.

    Raises GridpoolError where the node halts for good; the logs in ``home/logs`` say why.
    """
    home = home.resolve()
    logs = home / "logs"
    logs.mkdir(exist_ok=True)
    command = (sys.executable, "-m", "gridpool", "serve", "--home", str(home), "--application")
    application = Process("application", command, logs / "application.log", home / "application.ready")
    if node.engine == "cometbft":
        start = (
            str(find_cometbft()), "start",
            "--home", str(home / "cometbft"),
            "--consensus.create_empty_blocks_interval", f"{node.idle_s}s",
        )  # fmt: skip
        processes = [application, Process("engine", start, logs / "engine.log")]
        watch = EngineWatch(home, node.ports.rpc)
    else:
        processes = [Process("engine", etcd_command(find_etcd(), home, node), logs / "engine.log"), application]
        watch = None

    def diagnose() -> str:
        found = os.statvfs(home)
        full = found.f_bavail * found.f_frsize < ROOM_BYTES
        return f"; the disk of {home} is full: make room" if full else ""

    supervisor = Supervisor(processes, environment={"GRIDPOOL_HOME": str(home)}, watch=watch, diagnose=diagnose)

    def end(_signal: int, _frame: FrameType | None) -> None:
        supervisor.stop()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    supervisor.run()


def run_application(home: Path, node: NodeFile) -> None:
    """Run a node's ledger and HTTP face until told to end; exits with a code of its own where the node must halt."""
    home = home.resolve()
    engine: CometBFT | Etcd
    if node.engine == "cometbft":
        try:
            engine = CometBFT(
                home,
                RULES,
                rpc_port=node.ports.rpc,
                admits=admits,
                snapshot_interval=node.snapshot_interval,
                retain_blocks=node.retain_blocks,
                idle_s=node.idle_s,
            )
        except AlteredState as altered:
            _halt(altered)
    else:
        engine = Etcd(home, genesis_at(home), RULES, name=node.name, endpoints=node.peers)
    (home / "application.ready").touch()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    read_model: ReadModel | None = None
    try:
        if isinstance(engine, CometBFT) and not engine.has_begun(GENESIS_PATIENCE_S):
            raise GridpoolError("the engine has brought neither genesis nor a snapshot")
        read_model = ReadModel(f"sqlite:///{home / 'read-model.sqlite'}", RULES)
        read_model.follow(engine)
        app = build_app(Node(engine, RULES, home=home, read_model=read_model))
        server = build_server(app, port=node.ports.http)

        def stop_with_the_engine() -> None:
            engine.stopped()
            server.should_exit = True

        threading.Thread(target=stop_with_the_engine, name="watch", daemon=True).start()
        collect_seldom()
        server.run()
    finally:
        fault = engine.fault
        if read_model is not None:
            read_model.close()
        engine.close()
        if fault is not None:
            # A restart cannot mend a contract's bug, altered state, or blocks that do not follow from this ledger. The
            # supervisor must learn it even where the engine died first and this process was told to end.
            _halt(fault, HALTED if isinstance(fault, ContractFault | RefusedInput | AlteredState) else 1)


def _halt(fault: BaseException, code: int = HALTED) -> NoReturn:
    print(f"gridpool: the node stops: {fault}", file=sys.stderr, flush=True)
    os._exit(code)
