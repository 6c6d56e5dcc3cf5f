"""A consortium's nodes on this machine: their homes, their processes, and how they are doing."""

import contextlib
import http.client
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from gridpool.engines.cometbft_files import Ports
from gridpool.engines.cometbft_rpc import Rpc, RpcError
from gridpool.errors import GridpoolError, RefusedInput

__all__ = [
    "NetworkFile",
    "NodeFile",
    "NodeStatus",
    "node_file_at",
    "read_network",
    "refuse_running",
    "spawn_node",
    "start_network",
    "start_node",
    "status_network",
    "stop_network",
    "write_document",
]

START_PATIENCE_S = 120.0
STOP_PATIENCE_S = 15.0
EngineName = Literal["cometbft", "etcd"]
T = TypeVar("T", bound=msgspec.Struct)


class NodeFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``HOME/node.json``: what runs in a node's home."""

    engine: EngineName
    name: str
    chain: str
    ports: Ports
    peers: tuple[str, ...] = ()
    """etcd: the client addresses of all members, this one's first."""
    cluster: tuple[tuple[str, str], ...] = ()
    """etcd: name and peer address of every member."""
    joins: bool = False
    """etcd: whether this member joins a running cluster, as one does that lost its disk."""
    snapshot_interval: Annotated[int, msgspec.Meta(ge=0)] = 1_000
    """cometbft: heights between the snapshots from which others may start; 0 takes none."""
    retain_blocks: Annotated[int, msgspec.Meta(ge=0)] = 0
    """cometbft: blocks that the engine keeps beside the ledger's own; 0 keeps all."""
    idle_s: Annotated[int, msgspec.Meta(ge=1, le=3600)] = 2
    """cometbft: seconds after which there is a block without transactions. It lets work fall due, and shows a node that
    it is in touch."""


class NetworkFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``DIR/network.json``: the nodes that were laid in this folder."""

    engine: EngineName
    chain: str
    market_clock: Literal["block", "ticks"]
    nodes: tuple[str, ...]


class NodeStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How a node is doing; height and hash are null where it does not answer."""

    name: str
    up: bool
    height: int | None
    app_hash: str | None


def write_document(path: Path, document: msgspec.Struct) -> None:
    """Write a node's or network's file, whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n")
    partial.replace(path)


def read_network(folder: Path) -> NetworkFile:
    """Read ``DIR/network.json``; raises RefusedInput where there is none."""
    return _read(folder / "network.json", NetworkFile, "no network; gridpool network init makes one")


def node_file_at(home: Path) -> NodeFile | None:
    """Read ``HOME/node.json``; None where the home is not a consortium node's."""
    path = home / "node.json"
    return _read(path, NodeFile, "") if path.exists() else None


def start_network(folder: Path) -> None:
    """Start every node and return when all accept transactions; where one does not, all are ended again.

    Raises RefusedInput where a node runs already, GridpoolError where one does not come up in time.
    """
    network = read_network(folder)
    homes = [folder / name for name in network.nodes]
    for home in homes:
        if _processes_of(home):
            raise RefusedInput(f"{home} has running processes; stop the network first: gridpool network stop {folder}")
    started: list[subprocess.Popen[bytes]] = []
    try:
        started += [spawn_node(home) for home in homes]
        _await_ready(homes, started, peers=len(homes) - 1)
    except BaseException:
        stop_network(folder)
        raise


def start_node(home: Path) -> None:
    """Start one node and return when it answers and is connected; raises GridpoolError where it does not come up."""
    refuse_running(home)
    _await_ready([home], [spawn_node(home)], peers=1)


def refuse_running(home: Path) -> None:
    """Raise RefusedInput where processes of a node's home run."""
    if _processes_of(home):
        raise RefusedInput(f"{home} has running processes; stop them first")


def spawn_node(home: Path) -> subprocess.Popen[bytes]:
    """Start one node's processes and return at once; its output goes to ``home/logs``."""
    (home / "logs").mkdir(exist_ok=True)
    with (home / "logs" / "node.log").open("ab") as log:
        return subprocess.Popen(
            (sys.executable, "-m", "gridpool", "serve", "--home", str(home.resolve())),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def stop_network(folder: Path) -> None:
    """End every process of every node; returns when none is left."""
    network = read_network(folder)
    homes = [folder / name for name in network.nodes]
    for how, patience in ((signal.SIGTERM, STOP_PATIENCE_S), (signal.SIGKILL, STOP_PATIENCE_S)):
        end = time.monotonic() + patience
        while pids := [pid for home in homes for pid in _processes_of(home)]:
            if how == signal.SIGKILL or time.monotonic() + patience - end < 0.2:
                for pid in pids:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, how)
                        # A stopped process cannot hear SIGTERM.
                        os.kill(pid, signal.SIGCONT)
            if time.monotonic() > end:
                break
            time.sleep(0.1)
        else:
            return
    raise GridpoolError(f"processes {pids} of {folder} do not end")


def status_network(folder: Path) -> list[NodeStatus]:
    """Ask every node how it is doing."""
    return [_status(folder / name, name) for name in read_network(folder).nodes]


def _status(home: Path, name: str) -> NodeStatus:
    node = node_file_at(home)
    if node is not None:
        with contextlib.suppress(OSError, http.client.HTTPException, msgspec.DecodeError, KeyError):
            answer = _get(node.ports, "/status", timeout_s=2.0)
            return NodeStatus(name=name, up=True, height=answer["height"], app_hash=answer["app_hash"])
    return NodeStatus(name=name, up=False, height=None, app_hash=None)


def _get(ports: Ports, path: str, *, timeout_s: float) -> dict[str, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", ports.http, timeout=timeout_s)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        if response.status != 200:
            raise http.client.HTTPException(f"status {response.status}")
        body: dict[str, Any] = msgspec.json.decode(response.read(1 << 20), type=dict[str, Any])
        return body
    finally:
        connection.close()


def _await_ready(homes: list[Path], started: list[subprocess.Popen[bytes]], *, peers: int) -> None:
    end = time.monotonic() + START_PATIENCE_S
    waiting = list(homes)
    while waiting:
        for home, process in zip(homes, started, strict=True):
            if process.poll() is not None:
                raise GridpoolError(f"{home.name} ended with code {process.returncode}; see {home / 'logs'}")
        if _accepts(waiting[0], peers=peers):
            waiting.pop(0)
            continue
        if time.monotonic() > end:
            raise GridpoolError(f"{waiting[0].name} does not accept transactions; see {waiting[0] / 'logs'}")
        time.sleep(0.1)


def _accepts(home: Path, *, peers: int) -> bool:
    """Tell whether a node's faces answer and its engine is connected to the others."""
    node = node_file_at(home)
    if node is None:
        return False
    try:
        _get(node.ports, "/status", timeout_s=2.0)
        if node.engine == "cometbft":
            rpc = Rpc(node.ports.rpc, timeout_s=2.0)
            try:
                return int(rpc.call("net_info")["n_peers"]) >= peers
            finally:
                rpc.close()
    except (OSError, http.client.HTTPException, msgspec.DecodeError, RpcError):
        return False
    return True


def _processes_of(home: Path) -> list[int]:
    """Return the processes (other than this one) that carry the home on their command line."""
    wanted = os.fsencode(home.resolve())
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            arguments = (entry / "cmdline").read_bytes().split(b"\0")
            carries = any(arg == wanted or arg.startswith(wanted + b"/") for arg in arguments)
            if carries and b"network" not in arguments and _alive(entry):
                found.append(int(entry.name))
    return found


def _alive(entry: Path) -> bool:
    """Tell a running process from one that has ended and waits to be reaped."""
    return (entry / "stat").read_text().rpartition(")")[2].split()[0] != "Z"


def _read(path: Path, kind: type[T], missing: str) -> T:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        raise RefusedInput(f"{path.parent} holds {missing}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RefusedInput(f"{path} is damaged: {error}") from None
