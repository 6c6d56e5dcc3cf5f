"""A chain in a real etcd of one member: blocks are trimmed once they are of no more use, and none is decided anew."""

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from toy_contract import ALICE, COUNTS, GENESIS, TOY, Add, AddLater, signed

from gridpool.engines import etcd_chain
from gridpool.engines.cometbft_files import Ports
from gridpool.engines.etcd import Etcd, find_etcd
from gridpool.engines.etcd_chain import EtcdChain
from gridpool.engines.etcd_client import EtcdClient, EtcdUnavailable
from gridpool.engines.etcd_files import etcd_command
from gridpool.engines.network import NodeFile
from gridpool.errors import MissingComponent, RefusedInput

pytestmark = [
    pytest.mark.engine,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"),
]
"""A member that halts lets its thread end with the error, which the process's log shows."""


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[str]:
    """Run an etcd of one member, called node0; the address where it answers."""
    try:
        binary = find_etcd()
    except MissingComponent as missing:
        pytest.skip(str(missing))
    home = tmp_path / "node0"
    home.mkdir()
    peer, client = free_ports(2)
    node = NodeFile(
        engine="etcd",
        name="node0",
        chain="toy",
        ports=Ports(p2p=peer, rpc=client, http=0),
        cluster=(("node0", f"http://127.0.0.1:{peer}"),),
    )
    with (tmp_path / "etcd.log").open("wb") as log:
        process = subprocess.Popen(etcd_command(binary, home, node), stdout=log, stderr=log)
    url = f"http://127.0.0.1:{client}"
    asked = EtcdClient((url,))
    try:
        end = time.monotonic() + 30
        while True:
            try:
                if asked.members() == ["node0"] and asked.get("nothing") is None:
                    break
            except EtcdUnavailable:
                assert time.monotonic() < end, (tmp_path / "etcd.log").read_text()[-2_000:]
                time.sleep(0.05)
        yield url
    finally:
        asked.close()
        process.terminate()
        process.wait(20)


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        taken = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in taken:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in taken]


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(etcd_chain, "TRIM_EVERY", 5)
    monkeypatch.setattr(etcd_chain, "KEPT", 3)
    monkeypatch.setattr(etcd_chain, "LOOK_EVERY_S", 0.1)


def member(home: Path, name: str, endpoint: str) -> Etcd:
    return Etcd(home, GENESIS, TOY, name=name, endpoints=(endpoint,), interval_ms=1)


def grow(engine: Etcd, first: int, last: int) -> None:
    for nonce in range(first, last + 1):
        sent = signed(ALICE, nonce, Add("a", 1))
        engine.submit(sent.wire)
        receipt = engine.wait(sent.id, timeout_s=20)
        assert receipt is not None
        assert receipt.ok


def await_fault(engine: Etcd) -> BaseException:
    assert engine.stopped(20)
    assert engine.fault is not None
    return engine.fault


@pytest.mark.usefixtures("few")
def test_blocks_that_every_member_holds_leave_etcd_and_none_is_decided_anew(tmp_path: Path, endpoint: str) -> None:
    client = EtcdClient((endpoint,))
    chain = EtcdChain(client, GENESIS.chain, "node0")
    engine = member(tmp_path / "node0", "node0", endpoint)
    try:
        grow(engine, 1, 21)
        assert engine.height == 21
        assert chain.trimmed() == 17
        assert [height for height in range(1, 22) if chain.block(height) is not None] == list(range(18, 22))
        for height in (1, 16, 17):
            with pytest.raises(RefusedInput, match="after height 17"):
                chain.offer(height, b"another block")
            assert chain.block(height) is None
        chain.offer(21, b"another block")
        assert chain.block(21) != b"another block"
        copy = Path(str(engine.backup(tmp_path / "backups")["path"]))
        # A member with an empty ledger, or an old one, says what it needs; with a copy it goes on.
        behind = member(tmp_path / "empty", "node1", endpoint)
        assert "copy of another member's ledger" in str(await_fault(behind))
        behind.close()
        shutil.copytree(copy, tmp_path / "copied" / "ledger")
        other = member(tmp_path / "copied", "node1", endpoint)
        grow(engine, 22, 24)
        end = time.monotonic() + 20
        while other.height < 24:
            assert time.monotonic() < end
            time.sleep(0.02)
        assert other.app_hash == engine.app_hash
        other.close()
    finally:
        engine.close()
        client.close()


@pytest.mark.usefixtures("few")
def test_nothing_is_trimmed_while_a_member_has_said_nothing_or_stays_behind(tmp_path: Path, endpoint: str) -> None:
    client = EtcdClient((endpoint,))
    try:
        stranger = EtcdChain(client, GENESIS.chain, "not-a-member")
        stranger.begin(0)
        for height in range(1, 41):
            stranger.offer(height, b"%d" % height)
            stranger.carried_out(height)
        assert stranger.trimmed() == 0
        slow = EtcdChain(client, GENESIS.chain, "node0")
        slow.begin(10)
        stranger.carried_out(40)
        assert stranger.trimmed() == 7
        with pytest.raises(RefusedInput, match="ends at height 2,"):  # its ledger was restored from an older copy
            slow.begin(2)
    finally:
        client.close()


@pytest.mark.usefixtures("few")
def test_a_member_that_falls_behind_while_it_rests_notices(tmp_path: Path, endpoint: str) -> None:
    engine = member(tmp_path / "node0", "node0", endpoint)
    client = EtcdClient((endpoint,))
    try:
        grow(engine, 1, 2)
        base = f"gridpool/{GENESIS.chain}/base"
        assert client.trim(base, b"%020d" % 9, "a", "b")
        assert not client.trim(base, b"%020d" % 9, "a", "b")
        assert "ends at height 2" in str(await_fault(engine))
    finally:
        engine.close()
        client.close()


def test_deferred_work_runs_without_transactions_where_blocks_move_time(tmp_path: Path, endpoint: str) -> None:
    engine = member(tmp_path / "node0", "node0", endpoint)
    try:
        sent = signed(ALICE, 1, AddLater(int(time.time() * 1_000) + 500, 7))
        engine.submit(sent.wire)
        assert engine.wait(sent.id, timeout_s=20) is not None
        end = time.monotonic() + 20
        while True:
            with engine.view() as view:
                if [row.number for _, row in view.state.scan(COUNTS)]:
                    break
            assert time.monotonic() < end, "the work that fell due was not done"
            time.sleep(0.02)
        assert engine.height == 2
    finally:
        engine.close()
