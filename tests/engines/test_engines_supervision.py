"""When a node's processes are started anew, when they are not, and what is said then."""

import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from gridpool.engines.cometbft_rpc import RpcError
from gridpool.engines.cometbft_watch import EngineWatch, progress
from gridpool.engines.supervisor import HALTED, Process, Supervisor
from gridpool.errors import GridpoolError

SLEEP = (sys.executable, "-c", "import time; time.sleep(60)")


def answers(height: int, peers: list[int], *, catching_up: bool = False) -> list[Any]:
    listed = [{"peer_state": {"round_state": {"height": str(peer)}}} for peer in peers]
    return [{"sync_info": {"latest_block_height": str(height), "catching_up": catching_up}}, {"peers": listed}]


class Engine:
    """An engine's RPC and the time of day, as a test sets them."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (home / "logs").mkdir()
        self.log = home / "logs" / "engine.log"
        self.log.touch()
        self.now = 0.0
        self.answer: list[Any] | None = None
        self.watch = EngineWatch(home, 1, clock=lambda: self.now)
        monkeypatch.setattr(self.watch._rpc, "batch", self._batch)
        self.watch.begin()

    def after(self, seconds: float) -> str:
        """Let time pass in steps; returns what the watch says first."""
        end = self.now + seconds
        while self.now < end:
            self.now += 1.0
            reason = self.watch()
            if reason:
                return reason
        return ""

    def _batch(self, _calls: Any) -> list[Any]:
        if self.answer is None:
            raise RpcError("no answer")
        return self.answer


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    return Engine(tmp_path, monkeypatch)


def test_engine_that_stands_while_most_peers_are_ahead_is_noticed(engine: Engine) -> None:
    engine.answer = answers(10, [13, 13, 11])
    assert "stands at height 10 for 20 s while 2 of 3 peers are ahead" in engine.after(30)


@pytest.mark.parametrize(
    ("height", "peers"),
    [(10, [12, 12, 12]), (10, [10**9, 10, 11]), (10, []), (10, [13, 13, 10, 10])],
    ids=["at work", "one peer that boasts", "no peers", "half of them"],
)
def test_engine_that_nobody_or_no_majority_has_left_behind_is_let_be(
    engine: Engine, height: int, peers: list[int]
) -> None:
    engine.answer = answers(height, peers)
    assert engine.after(200) == ""


def test_engine_that_catches_up_has_time_and_one_that_moves_has_all_of_it(engine: Engine) -> None:
    engine.answer = answers(10, [99, 99, 99], catching_up=True)
    assert engine.after(40) == ""
    for height in range(11, 20):
        engine.answer = answers(height, [99, 99, 99])
        assert engine.after(15) == ""
    assert "height 19" in engine.after(30)


def test_engine_that_does_not_answer_is_left_to_the_watch_over_its_process(engine: Engine) -> None:
    assert engine.after(200) == ""


def test_failure_in_the_log_is_noticed_at_once_and_quoted(engine: Engine) -> None:
    engine.answer = answers(10, [10, 10, 10])
    with engine.log.open("a") as log:
        log.write('E[2026] CONSENSUS FAILURE!!!  module=consensus err="write wal: file too ')
    assert engine.after(5) == "", "half a line"
    with engine.log.open("a") as log:
        log.write('large" stack="x"\n')
    assert engine.after(5) == "the engine takes no part any more: write wal: file too large"
    engine.watch.begin()
    assert engine.after(20) == "", "what was said before the restart counts no more"


def test_complaint_in_the_log_is_quoted_where_the_engine_stands(engine: Engine) -> None:
    engine.answer = answers(10, [13, 13, 13])
    with engine.log.open("a") as log:
        log.write(
            'E[2026] Error in validation    module=blocksync height=7 err="block time is too far in the future"\n'
        )
    assert engine.after(30).endswith("ahead: block time is too far in the future")


def test_log_that_shrank_or_went_away_is_no_harm(engine: Engine) -> None:
    engine.log.write_bytes(b"x" * 3_000_000)
    engine.after(3)
    engine.log.write_bytes(b"E CONSENSUS FAILURE!!! err=short\n")
    assert engine.after(3) == "the engine takes no part any more: short"
    engine.log.unlink()
    assert engine.after(3) == ""


@pytest.mark.parametrize(
    ("status", "state"),
    [({}, {"peers": []}), (None, None), ({"sync_info": {"latest_block_height": "x"}}, {"peers": []})],
)
def test_answers_of_another_shape_raise_what_the_watch_catches(status: Any, state: Any) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        progress(status, state)


def process(name: str, command: tuple[str, ...], folder: Path) -> Process:
    return Process(name, command, folder / f"{name}.log")


def test_halt_is_a_halt_also_where_another_process_died_first(tmp_path: Path) -> None:
    """The engine's connection ends with the application's fault, so its death may be seen before the halt."""
    code = f"import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit({HALTED})); time.sleep(60)"
    halting = (sys.executable, "-c", code)
    dying = (sys.executable, "-c", "import time; time.sleep(1)")
    supervisor = Supervisor(
        [process("application", halting, tmp_path), process("engine", dying, tmp_path)], environment={}
    )
    with pytest.raises(GridpoolError, match=r"application halted; see .*application\.log"):
        supervisor.run()


class Useless:
    """A watch that always complains."""

    height = 7

    def begin(self) -> None:
        self.began = time.monotonic()

    def __call__(self) -> str:
        return "it stands" if time.monotonic() - self.began > 0.2 else ""


def test_restarts_in_vain_end_with_the_reason_and_what_the_disk_says(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    supervisor = Supervisor(
        [process("engine", SLEEP, tmp_path)], environment={}, watch=Useless(), diagnose=lambda: "; the disk is full"
    )
    with pytest.raises(GridpoolError, match="3 restarts did not help: it stands; the disk is full"):
        supervisor.run()
    assert capfd.readouterr().err.count("it stands; the disk is full; starting it anew") == 3


def test_stop_ends_everything_quietly(tmp_path: Path) -> None:
    supervisor = Supervisor([process("engine", SLEEP, tmp_path)], environment={})
    running = threading.Timer(0.5, supervisor.stop)
    running.start()
    supervisor.run()
    assert supervisor._running == []


def test_log_that_grows_becomes_the_one_before_while_its_process_writes_on(tmp_path: Path) -> None:
    code = """
import pathlib, sys, time
print("first" + "x" * 30_000, flush=True)
while not pathlib.Path(sys.argv[1]).exists():
    time.sleep(0.01)
time.sleep(0.5)
print("second", flush=True)
time.sleep(60)
"""
    before = tmp_path / "engine.log.1"
    writing = process("engine", (sys.executable, "-c", code, str(before)), tmp_path)
    supervisor = Supervisor([writing], environment={}, largest_log_bytes=20_000)
    running = threading.Thread(target=supervisor.run)
    running.start()
    end = time.monotonic() + 30
    while not writing.log.exists() or "second" not in writing.log.read_text():
        assert time.monotonic() < end, "the line after the cut did not come"
        time.sleep(0.05)
    supervisor.stop()
    running.join()
    assert before.read_text() == "first" + "x" * 30_000 + "\n"
    assert writing.log.read_text() == "second\n"


def test_log_that_cannot_be_set_aside_is_cut_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "engine.log").write_bytes(b"x" * 30_000)
    (tmp_path / "engine.log.1").mkdir()
    supervisor = Supervisor([process("engine", SLEEP, tmp_path)], environment={}, largest_log_bytes=20_000)
    threading.Timer(1.0, supervisor.stop).start()
    supervisor.run()
    assert (tmp_path / "engine.log").stat().st_size == 0
