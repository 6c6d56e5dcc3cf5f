"""200 ms of delay and 5 % loss on every link between nodes, by the kernel, in a network namespace of its own.

Where namespaces are not permitted, ``test_faults_links`` has the variant with delays and resets in a proxy.
"""

import ctypes
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults_consortium import Consortium, Load, engines_missing

from gridpool.engines.network import node_file_at

pytestmark = [pytest.mark.timeout(180), pytest.mark.slow]

CLONE_NEWNET = 0x4000_0000
DELAY_MS, LOSS_PERCENT = 200, 5


@pytest.fixture
def own_network() -> Iterator[None]:
    """Put this thread, and whatever it starts, into a network namespace of its own; leave it afterwards."""
    for tool in ("tc", "ip"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not on this machine (Debian: iproute2); test_faults_links has the proxy's variant")
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        if libc.unshare(CLONE_NEWNET):
            pytest.skip(
                f"network namespaces are not permitted here ({os.strerror(ctypes.get_errno())}); "
                "test_faults_links has the proxy's variant"
            )
        run("ip", "link", "set", "lo", "up")
        yield
    finally:
        assert libc.setns(before, CLONE_NEWNET) == 0
        os.close(before)


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def lay_netem(ports: list[int]) -> None:
    """Delay and lose what comes from or goes to these ports; the nodes' other faces stay as they are."""
    run("tc", "qdisc", "add", "dev", "lo", "root", "handle", "1:", "prio", "bands", "3", "priomap", *["0"] * 16)
    run(
        *("tc", "qdisc", "add", "dev", "lo", "parent", "1:3", "handle", "30:", "netem"),
        *("limit", "100000", "delay", f"{DELAY_MS}ms", "loss", f"{LOSS_PERCENT}%"),
    )
    for port in ports:
        for side in ("sport", "dport"):
            run(
                *("tc", "filter", "add", "dev", "lo", "parent", "1:", "protocol", "ip", "u32"),
                *("match", "ip", "protocol", "6", "0xff", "match", "ip", side, str(port), "0xffff", "flowid", "1:3"),
            )


@pytest.mark.usefixtures("own_network")
def test_delay_and_loss_on_every_link(tmp_path: Path) -> None:
    if engines_missing():
        pytest.skip(engines_missing())
    net = Consortium(tmp_path / "net", offset=19)
    files = [file for number in range(4) if (file := node_file_at(net.home(number))) is not None]
    try:
        net.start()
        quick = Load(net, rate=20, seconds=4).result()
        lay_netem([file.ports.p2p for file in files])
        load = Load(net, rate=20, seconds=10)
        net.await_blocks(3, within_s=40)
        result = load.result()
        shaped = run("tc", "-s", "qdisc", "show", "dev", "lo")
        assert quick.p50_s is not None
        assert result.p50_s is not None
        # A proposal and two rounds of votes cross the links; without the delay a receipt takes a fraction of this.
        assert result.p50_s > 3 * DELAY_MS / 1000
        assert result.p50_s > quick.p50_s
        dropped = int(shaped.partition("netem")[2].partition("dropped ")[2].split(",")[0])
        assert dropped > 10, shaped
        assert result.included + result.refused > 0.9 * result.submitted
        run("tc", "qdisc", "del", "dev", "lo", "root")
        time.sleep(1)
        net.assert_sound()
    finally:
        net.stop()
