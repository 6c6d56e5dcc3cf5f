"""Links between four nodes are cut, stalled, delayed and reset; the ledger waits where it must and stays one."""

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults_consortium import Consortium, Load, engines_missing
from faults_proxy import Proxies

pytestmark = [pytest.mark.engine, pytest.mark.timeout(180), pytest.mark.slow]

Linked = tuple[Consortium, Proxies]


@pytest.fixture
def linked(tmp_path: Path) -> Iterator[Linked]:
    """Four validators whose connections all pass through proxies."""
    missing = engines_missing()
    if missing:
        pytest.skip(missing)
    net = Consortium(tmp_path / "net", offset=9)
    proxies = Proxies([net.home(number) for number in range(4)])
    try:
        net.start()
        net.await_blocks(2, within_s=30)
        yield net, proxies
    finally:
        net.stop()
        proxies.close()


def test_two_halves_make_no_block_and_go_on_when_joined(linked: Linked) -> None:
    net, proxies = linked
    proxies.stall((0, 1), (2, 3))
    time.sleep(3)  # a block whose votes had all crossed may still be made
    before = net.heights()
    time.sleep(10)
    assert net.heights() == before
    assert len(before) == 4
    proxies.heal()
    net.await_blocks(3, within_s=20)
    net.assert_sound()


def test_three_go_on_without_the_fourth_which_catches_up(linked: Linked) -> None:
    net, proxies = linked
    load = Load(net, rate=40, seconds=6)
    time.sleep(3)
    proxies.cut((0, 1, 2), (3,))
    net.await_blocks(5, within_s=20, nodes=3)
    apart = net.heights()
    assert apart["node3"] < min(apart[f"node{number}"] for number in range(3))
    time.sleep(5)
    assert net.heights()["node3"] <= apart["node3"] + 1
    proxies.heal()
    result = load.result()
    assert result.included > 0
    # A persistent peer is dialled again every five to eight seconds.
    net.await_blocks(3, within_s=30)
    net.assert_sound()


def test_slow_links_that_break_now_and_then(linked: Linked) -> None:
    net, proxies = linked
    proxies.delay(0.2)
    choice = random.Random(7)
    load = Load(net, rate=20, seconds=10)
    for _ in range(6):
        time.sleep(choice.uniform(1.0, 2.5))
        proxies.reset_one(choice)
    net.await_blocks(3, within_s=30)
    result = load.result()
    assert result.included > 0
    assert result.p50_s is not None
    # A receipt takes a proposal and two rounds of votes, each 200 ms over the slowest link: the delay was there.
    assert result.p50_s > 0.6
    proxies.heal()
    net.assert_sound()
