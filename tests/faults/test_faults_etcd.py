"""A private domain on etcd: the leader dies, two members sequence at once, a member falls behind."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults_consortium import Consortium, Load, engines_missing

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
