"""What disks do to a node: an engine's log cut short, no room left, snapshots with a wrong byte."""

import resource
import signal
import time
from pathlib import Path

import msgspec
import pytest
from faults_consortium import Consortium, Load

from gridpool.agents.consortium import Organisation, lay_home
from gridpool.agents.network_council import Council
from gridpool.contracts import RULES
from gridpool.contracts.validators import NameNode
from gridpool.engines.cometbft_files import Ports, node_id, node_key_id
from gridpool.engines.cometbft_rpc import Rpc
from gridpool.engines.network import NodeFile, node_file_at, read_network, spawn_node, write_document
from gridpool.ledger.chain import Ledger
from gridpool.ledger.keys import KeyPair

pytestmark = [pytest.mark.engine, pytest.mark.timeout(400), pytest.mark.slow]


@pytest.mark.parametrize("missing_bytes", [1, 777])
def test_engine_log_cut_short_is_repaired(consortium: Consortium, missing_bytes: int) -> None:
    assert Load(consortium, rate=30, seconds=3).result().included > 0
    consortium.kill(1)
    log = consortium.home(1) / "cometbft" / "data" / "cs.wal" / "wal"
    size = log.stat().st_size
    assert size > missing_bytes
    with log.open("r+b") as file:
        file.truncate(size - missing_bytes)
    consortium.restart(1)
    consortium.assert_sound()


def test_node_without_room_is_noticed_and_goes_on_with_room(consortium: Consortium) -> None:
    """A limit on the size of files stands for the full disk: writes beyond it fail as there."""
    consortium.await_blocks(2, within_s=20)
    log = consortium.home(2) / "logs" / "node.log"
    (engine,) = consortium.pids(2, "engine")
    (supervisor,) = consortium.pids(2, "supervisor")
    resource.prlimit(engine, resource.RLIMIT_FSIZE, (16_384, resource.RLIM_INFINITY))
    load = Load(consortium, rate=40, seconds=5)
    # The engine's consensus ends on the first write that fails while its process lives on. Its supervisor, which has
    # room here, notices and starts it anew.
    end = time.monotonic() + 50
    while engine in consortium.pids(2, "engine"):
        assert time.monotonic() < end, f"an engine that takes no part goes unnoticed: {log.read_text()}"
        time.sleep(0.2)
    assert consortium.pids(2, "supervisor") == [supervisor]
    assert load.result().included > 0
    consortium.assert_sound()


def test_node_whose_disk_stays_full_stops_and_says_so(consortium: Consortium) -> None:
    consortium.await_blocks(2, within_s=20)
    limited = [pid for role in ("engine", "application", "supervisor") for pid in consortium.pids(2, role)]
    for pid in limited:
        # What the supervisor starts anew has the same limit.
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (16_384, resource.RLIM_INFINITY))
    load = Load(consortium, rate=40, seconds=5)
    end = time.monotonic() + 100
    while consortium.pids(2, "all"):
        assert time.monotonic() < end, "the node neither works nor stops"
        time.sleep(0.5)
    assert load.result().included > 0
    said = (consortium.home(2) / "logs" / "node.log").read_text()
    assert "died 8 times within a minute" in said or "restarts did not help" in said
    consortium.await_blocks(3, within_s=30, nodes=3)
    consortium.restart(2)
    consortium.assert_sound()


def test_engine_that_keeps_few_blocks_drops_the_others_and_goes_on(consortium: Consortium) -> None:
    consortium.end(3)
    file = node_file_at(consortium.home(3))
    assert file is not None
    write_document(consortium.home(3) / "node.json", msgspec.structs.replace(file, retain_blocks=4))
    consortium.restart(3)
    assert Load(consortium, rate=30, seconds=3).result().included > 0
    consortium.await_blocks(6, within_s=40)
    first = {}
    for number in (0, 3):
        node = node_file_at(consortium.home(number))
        assert node is not None
        rpc = Rpc(node.ports.rpc)
        status = rpc.call("status")["sync_info"]
        first[number] = int(status["earliest_block_height"])
        rpc.close()
    assert first[0] == 1
    assert first[3] > 3
    # It drops and it crashes like the others.
    consortium.send(3, "engine", signal.SIGKILL)
    consortium.await_blocks(3, within_s=40)
    consortium.assert_sound()


def test_snapshot_that_nobody_serves_rightly_is_set_aside_for_another(consortium: Consortium) -> None:
    """All four nodes hold wrong chunks of their newest snapshot and right ones of the one before."""
    shelves = keep_snapshots(consortium, 15, at_least=2)
    held = [{int(part.name) for part in shelf.glob("*") if part.name.isdigit()} for shelf in shelves]
    good = min(set.intersection(*held))
    newest = {max(heights) for heights in held}
    assert good < min(newest)
    for shelf, heights in zip(shelves, held, strict=True):
        for height in heights - {good}:
            for chunk in (shelf / str(height)).glob("[0-9]*"):
                data = bytearray(chunk.read_bytes())
                data[len(data) // 2] ^= 1
                chunk.write_bytes(data)
    consortium.start()
    home = lay_newcomer(consortium)
    spawn_node(home)
    end = time.monotonic() + 120
    while "node4" not in consortium.heights():
        assert time.monotonic() < end, "the newcomer did not turn to the other snapshot"
        time.sleep(0.5)
    said = (home / "logs" / "application.log").read_text()
    assert any(f"the snapshot of height {height} send chunks that do not belong to it" in said for height in newest)
    consortium.await_blocks(3, within_s=30, nodes=5)
    with Ledger.open(home / "ledger", RULES, writable=False) as ours, ours.view() as mine:
        assert mine.snapshot.read("body", (1).to_bytes(8, "big")) is None, "it replayed from genesis"
    replay = consortium.replay()
    assert replay.ok, replay.fault


def keep_snapshots(net: Consortium, interval: int, *, at_least: int) -> list[Path]:
    """Let every node take snapshots until it has so many, then end all; returns the nodes' shelves."""
    set_interval(net, interval)
    net.start()
    assert Load(net, rate=30, seconds=3).result().included > 0
    shelves = [net.home(number) / "snapshots" for number in range(4)]
    end = time.monotonic() + 60
    while not all(sum(part.name.isdigit() for part in shelf.glob("*")) >= at_least for shelf in shelves):
        assert time.monotonic() < end, "no snapshots"
        net.nudge()
        time.sleep(0.2)
    set_interval(net, 0)
    return shelves


def set_interval(net: Consortium, interval: int) -> None:
    for number in range(4):
        net.end(number)
        file = node_file_at(net.home(number))
        assert file is not None
        write_document(net.home(number) / "node.json", msgspec.structs.replace(file, snapshot_interval=interval))


def test_new_node_starts_from_a_snapshot_and_refuses_a_wrong_chunk(consortium: Consortium) -> None:
    # From here on no new snapshots; those of three nodes of four get a wrong byte. The
    # newcomer asks nodes at random, so it hardly ever (once in sixteen times) meets right chunks alone.
    kept = keep_snapshots(consortium, 15, at_least=1)
    for folder in kept[:3]:
        for chunk in folder.glob("*/[0-9]*"):
            data = bytearray(chunk.read_bytes())
            data[len(data) // 2] ^= 1
            chunk.write_bytes(data)
    consortium.start()
    home = lay_newcomer(consortium)
    spawn_node(home)
    end = time.monotonic() + 60
    while "node4" not in consortium.heights():
        assert time.monotonic() < end, "the newcomer did not start from the good snapshot"
        time.sleep(0.5)
    consortium.await_blocks(3, within_s=30, nodes=5)
    with (
        Ledger.open(home / "ledger", RULES, writable=False) as ours,
        Ledger.open(consortium.home(3) / "ledger", RULES, writable=False) as theirs,
        ours.view() as mine,
        theirs.view() as other,
    ):
        common = min(mine.height, other.height)
        assert mine.header(common).header == other.header(common).header
        assert mine.snapshot.read("body", (1).to_bytes(8, "big")) is None, "it replayed from genesis"


def lay_newcomer(net: Consortium) -> Path:
    """Lay node4, admitted by the council, that starts from a snapshot which two members' headers vouch for."""
    files = [file for number in range(4) if (file := node_file_at(net.home(number))) is not None]
    net.await_blocks(1, within_s=40, nodes=3)
    first = max(file.ports.p2p for file in files) + 3
    member = Organisation("newcomer", KeyPair.generate(), KeyPair.generate(), KeyPair.generate())
    node = NodeFile(
        engine="cometbft",
        name="node4",
        chain=files[0].chain,
        ports=Ports(p2p=first, rpc=first + 1, http=first + 2),
        snapshot_interval=0,
    )
    with Ledger.open(net.home(0) / "ledger", RULES, writable=False) as ledger:
        genesis = ledger.genesis
    peers = [
        f"{node_key_id(net.home(number) / 'cometbft')}@127.0.0.1:{file.ports.p2p}" for number, file in enumerate(files)
    ]
    lay_home(net.folder, net.folder, node, member, genesis, peers)
    Council(net.folder).decide(NameNode(node_id(member.node.public), "newcomer"))
    rpc = Rpc(files[0].ports.rpc)
    trusted = rpc.call("commit", height="2")["signed_header"]["commit"]["block_id"]["hash"]
    rpc.close()
    config = net.home(4) / "cometbft" / "config" / "config.toml"
    section = (
        f'enable = true\nrpc_servers = "127.0.0.1:{files[0].ports.rpc},127.0.0.1:{files[1].ports.rpc}"\n'
        f'trust_height = 2\ntrust_hash = "{trusted}"\ntrust_period = "168h0m0s"\ndiscovery_time = "5s"\n'
    )
    text = config.read_text()
    assert "[statesync]\nenable = false" in text
    config.write_text(text.replace("[statesync]\nenable = false", "[statesync]\n" + section))
    network = read_network(net.folder)
    write_document(net.folder / "network.json", msgspec.structs.replace(network, nodes=(*network.nodes, "node4")))
    return net.home(4)
