"""A private domain on etcd: the leader dies, two members sequence at once, a member falls behind."""

import shutil
import signal
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest
from faults_consortium import Consortium, Load, engines_missing
from faults_proxy import MemberProxies

from gridpool.cli import main
from gridpool.engines.etcd_client import EtcdClient
from gridpool.engines.network import node_file_at

pytestmark = [pytest.mark.engine, pytest.mark.timeout(180)]


@pytest.fixture
def domain(tmp_path: Path) -> Iterator[Consortium]:
    missing = engines_missing()
    if missing:
        pytest.skip(missing)
    net = Consortium(tmp_path / "net", offset=5, validators=3, engine="etcd")
    try:
        net.start()
        yield net
    finally:
        net.stop()


def test_members_that_sequence_at_once_make_one_chain_through_kills(domain: Consortium) -> None:
    load = Load(domain, rate=60, seconds=10)
    time.sleep(3)
    domain.send(1, "engine", signal.SIGKILL)
    time.sleep(3)
    domain.send(2, "application", signal.SIGKILL)
    result = load.result()
    assert result.included > 0
    end = time.monotonic() + 20
    while len(set(domain.heights().values())) != 1 or len(domain.heights()) != 3:
        assert time.monotonic() < end, domain.heights()
        time.sleep(0.2)
    replay = domain.replay()
    assert replay.ok, replay.fault
    assert replay.transactions >= result.included


@pytest.mark.slow
def test_stopped_member_catches_up(domain: Consortium) -> None:
    domain.send(2, "application", signal.SIGSTOP)
    Load(domain, rate=40, seconds=3)
    time.sleep(8)
    domain.send(2, "application", signal.SIGCONT)
    end = time.monotonic() + 20
    while len(set(domain.heights().values())) != 1:
        assert time.monotonic() < end, domain.heights()
        time.sleep(0.2)
    assert domain.replay().ok


@pytest.mark.slow
def test_killed_leader_is_followed_by_another_within_seconds(domain: Consortium) -> None:
    leader = leader_of(domain)
    load = Load(domain, rate=40, seconds=10)
    time.sleep(3)
    before = max(domain.heights().values())
    domain.send(leader, "engine", signal.SIGKILL)
    killed = time.monotonic()
    while max(domain.heights().values()) < before + 3:
        assert time.monotonic() - killed < 20, domain.heights()
        time.sleep(0.1)
    result = load.result()
    assert result.included > 0
    await_level(domain, 20)
    assert domain.replay().ok


@pytest.mark.slow
@pytest.mark.parametrize("trimmed", [False, True], ids=["whole", "trimmed"])
def test_member_that_lost_its_disk_joins_again_and_reads_the_chain(domain: Consortium, trimmed: bool) -> None:
    assert Load(domain, rate=30, seconds=3).result().included > 0
    domain.send(2, "supervisor", signal.SIGTERM)
    end = time.monotonic() + 20
    while domain.pids(2, "all") and time.monotonic() < end:
        time.sleep(0.1)
    for part in ("etcd", "ledger"):
        shutil.rmtree(domain.home(2) / part)
    assert Load(domain, rate=30, seconds=3).result().included > 0
    if trimmed:
        trim(domain, domain.heights()["node0"] - 2)
    main(["network", "replace-member", str(domain.folder), "node2", "--json"])
    await_level(domain, 30)
    assert Load(domain, rate=30, seconds=3).result().included > 0
    await_level(domain, 20)
    replay = domain.replay()
    assert replay.ok, replay.fault
    assert replay.nodes["node2"] == replay.height


def trim(domain: Consortium, height: int) -> None:
    """Remove the chain's beginning from etcd, as the members do when all of them hold it."""
    node = node_file_at(domain.home(0))
    assert node is not None
    client = EtcdClient(node.peers)
    blocks = f"gridpool/{node.chain}/block/"
    keys = f"{blocks}{0:020d}", f"{blocks}{height + 1:020d}"
    assert client.trim(f"gridpool/{node.chain}/base", b"%020d" % height, *keys)
    assert client.get(f"{blocks}{1:020d}") is None
    client.close()


@pytest.mark.slow
def test_without_a_majority_no_block_is_made(domain: Consortium) -> None:
    assert Load(domain, rate=30, seconds=2).result().included > 0
    for number in (1, 2):
        domain.send(number, "engine", signal.SIGSTOP)
    time.sleep(4)
    before = domain.heights()
    load = Load(domain, rate=20, seconds=4)
    time.sleep(5)
    assert domain.heights() == before
    for number in (1, 2):
        domain.send(number, "engine", signal.SIGCONT)
    # What was accepted while nobody could order it is ordered now.
    assert load.result().included > 0
    await_level(domain, 30)
    assert domain.replay().ok


@pytest.mark.slow
def test_leader_that_is_cut_off_makes_no_block_while_the_others_go_on(tmp_path: Path) -> None:
    if engines_missing():
        pytest.skip(engines_missing())
    net = Consortium(tmp_path / "net", offset=21, validators=3, engine="etcd")
    proxies = MemberProxies(net)
    try:
        net.start()
        assert Load(net, rate=30, seconds=2).result().included > 0
        await_level(net, 20)
        alone = leader_of(net)
        others = [number for number in range(3) if number != alone]
        proxies.cut((alone,), others)
        time.sleep(5)  # the others elect a leader, and the old one learns that it leads no more
        before = net.heights()
        # The others order what they are given; what the one cut off is given waits.
        load = Load(net, rate=20, seconds=4)
        end = time.monotonic() + 25
        while any(net.heights()[f"node{number}"] <= before[f"node{number}"] for number in others):
            assert time.monotonic() < end, f"the majority made no block: {before}, {net.heights()}"
            time.sleep(0.2)
        assert net.heights()[f"node{alone}"] == before[f"node{alone}"]
        assert status(net, alone)["stale"] is True
        end = time.monotonic() + 10
        while status(net, others[0])["stale"]:
            assert time.monotonic() < end, "the majority shows what is out of date"
            time.sleep(0.1)
        proxies.heal()
        result = load.result()
        assert result.included > 0.9 * result.submitted
        await_level(net, 30)
        replay = net.replay()
        assert replay.ok, replay.fault
        net.assert_kept()
    finally:
        net.stop()
        proxies.close()


def test_of_two_that_write_one_height_exactly_one_decides_it(domain: Consortium) -> None:
    nodes = [node for number in range(2) if (node := node_file_at(domain.home(number))) is not None]
    clients = [EtcdClient(node.peers[:1]) for node in nodes]
    with ThreadPoolExecutor(2) as pool:
        for height in range(100):
            key = f"race/{height:020d}"
            wrote = list(pool.map(lambda client, key=key: client.create(key, client_name(client)), clients))
            assert wrote.count(True) == 1
            held = clients[0].get(key)
            assert held == client_name(clients[wrote.index(True)])
    for client in clients:
        client.close()


def client_name(client: EtcdClient) -> bytes:
    return str(id(client)).encode()


def status(net: Consortium, number: int) -> dict[str, Any]:
    node = node_file_at(net.home(number))
    assert node is not None
    with urllib.request.urlopen(f"http://127.0.0.1:{node.ports.http}/status", timeout=5) as answer:
        return dict(msgspec.json.decode(answer.read()))


def leader_of(domain: Consortium) -> int:
    for number in range(3):
        node = node_file_at(domain.home(number))
        assert node is not None
        client = EtcdClient(node.peers[:1])
        try:
            if client.leads():
                return number
        finally:
            client.close()
    raise AssertionError("no member leads")


def await_level(domain: Consortium, within_s: float) -> None:
    """Wait until all three members are at one height."""
    end = time.monotonic() + within_s
    while len(set(domain.heights().values())) != 1 or len(domain.heights()) != 3:
        assert time.monotonic() < end, domain.heights()
        time.sleep(0.2)
