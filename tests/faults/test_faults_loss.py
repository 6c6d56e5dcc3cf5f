"""200 ms of delay and 5 % of all packets lost on every link between nodes.

The proxy delays; the kernel drops, by nftables in a network namespace of its own (``tc netem`` does both, but many
kernels are built without it). Where namespaces are not permitted, ``test_faults_links`` has delays and resets alone.
"""

import ctypes
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults_consortium import Consortium, Load, engines_missing
from faults_proxy import Proxies

from gridpool.engines.network import node_file_at

pytestmark = [pytest.mark.timeout(240), pytest.mark.slow]

CLONE_NEWNET = 0x4000_0000
DELAY_S = 0.2
LOST_PERCENT = 5
ELSEWHERE = "test_faults_links has delays and resets without it"


@pytest.fixture
def own_network() -> Iterator[None]:
    """Put this thread, and whatever it starts, into a network namespace of its own; leave it afterwards."""
    for tool, package in (("nft", "nftables"), ("ip", "iproute2")):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not on this machine (Debian: {package}); {ELSEWHERE}")
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        if libc.unshare(CLONE_NEWNET):
            pytest.skip(f"network namespaces are refused ({os.strerror(ctypes.get_errno())}); {ELSEWHERE}")
        run("ip", "link", "set", "lo", "up")
        yield
    finally:
        assert libc.setns(before, CLONE_NEWNET) == 0
        os.close(before)


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def lose_packets(ports: list[int]) -> None:
    """Drop packets from and to these ports at random; TCP has to send them again."""
    listed = ", ".join(map(str, ports))
    rules = "\n".join(
        f"tcp {side} {{ {listed} }} numgen random mod 100 < {LOST_PERCENT} counter drop" for side in ("sport", "dport")
    )
    chain = f"chain lost {{ type filter hook output priority 0;\n{rules}\n}}"
    run("nft", f"table ip faults {{\n{chain}\n}}")


def lost_packets() -> int:
    return sum(int(count) for count in re.findall(r"counter packets (\d+)", run("nft", "list", "ruleset")))


@pytest.mark.usefixtures("own_network")
def test_delay_and_loss_on_every_link(tmp_path: Path) -> None:
    if engines_missing():
        pytest.skip(engines_missing())
    net = Consortium(tmp_path / "net", offset=19)
    files = [file for number in range(4) if (file := node_file_at(net.home(number))) is not None]
    proxies = Proxies([net.home(number) for number in range(4)])
    try:
        net.start()
        assert Load(net, rate=20, seconds=2).result().included > 0
        proxies.delay(DELAY_S)
        lose_packets([file.ports.p2p for file in files])
        load = Load(net, rate=20, seconds=10)
        net.await_blocks(3, within_s=60)
        result = load.result()
        assert lost_packets() > 50, "nothing was lost"
        # A proposal and two rounds of votes cross the links.
        assert result.p50_s is not None
        assert result.p50_s > 3 * DELAY_S
        assert result.included + result.refused > 0.9 * result.submitted
        proxies.heal()
        run("nft", "flush", "ruleset")
        net.assert_sound()
    finally:
        net.stop()
        proxies.close()
