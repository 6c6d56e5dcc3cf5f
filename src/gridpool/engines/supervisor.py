"""One node's processes under one roof: where one dies or is of no use any more, all are ended and started again.

The children are ended with the supervisor itself, however it ends (Linux: parent-death signal), so nothing is left.
"""

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gridpool.errors import GridpoolError

__all__ = ["HALTED", "Process", "Supervisor", "Watch"]

HALTED = 70
"""Exit code of an application that must not be started again: a fault that a person has to look at."""
GRACE_S = 5.0
PATIENCE_S = 90.0
"""A busy machine takes its time to start an interpreter; a process that dies is noticed at once."""
MANY_RESTARTS = 8
MOST_VAIN = 3
"""Restarts after which a process still made no progress; another one would not help."""
LARGEST_LOG_BYTES = 32 << 20
PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Process:
    """A process to keep alive: its name, its command, where its output goes, and a file it makes once it is ready."""

    name: str
    command: tuple[str, ...]
    log: Path
    ready: Path | None = None


class Watch(Protocol):
    """Tells whether living processes are still of use; called several times a second, so it must be quick."""

    height: int
    """Grows with the progress that is made."""

    def begin(self) -> None:
        """Begin anew: the processes have just been started."""

    def __call__(self) -> str:
        """Return why they must be started anew, or ""."""


class Supervisor:
    """Starts processes in order and keeps them alive together until ``stop`` is called."""

    def __init__(
        self,
        processes: Sequence[Process],
        *,
        environment: dict[str, str],
        watch: Watch | None = None,
        diagnose: Callable[[], str] = lambda: "",
        largest_log_bytes: int = LARGEST_LOG_BYTES,
    ) -> None:
        """Keep ``processes`` alive; what ``diagnose`` finds is added to what is said of their failures.

        A log that has grown beyond ``largest_log_bytes`` becomes the one before (``.1``), and an empty one begins.
        """
        self._processes = tuple(processes)
        self._environment = {**os.environ, **environment}
        self._useful = watch
        self._diagnose = diagnose
        self._largest_log_bytes = largest_log_bytes
        self._stop = threading.Event()
        self._running: list[subprocess.Popen[bytes]] = []

    def stop(self) -> None:
        """Let ``run`` end the processes and return."""
        self._stop.set()

    def run(self) -> None:
        """Keep the processes alive; returns after ``stop``.

        Raises GridpoolError where one halted for good, where they die again and again within a minute, or where they
        live and are of no use after several restarts.
        """
        starts: list[float] = []
        vain, height = 0, 0
        try:
            while not self._stop.is_set():
                starts = [moment for moment in starts if time.monotonic() - moment < 60.0] + [time.monotonic()]
                if len(starts) > MANY_RESTARTS:
                    raise GridpoolError(
                        f"{self._names()} died {MANY_RESTARTS} times within a minute; see their logs{self._diagnose()}"
                    )
                self._start()
                died, reason = self._watch()
                codes = self._end()
                # A fail point of the tests strikes a node once, not again after each restart.
                self._environment.pop("GRIDPOOL_FAIL_AT", None)
                # One that halts takes the others down; which of them is seen first is a matter of chance.
                halted = [name for name, code in codes.items() if code == HALTED]
                if halted and (died is not None or reason):
                    raise GridpoolError(f"{halted[0]} halted; see {self._log(halted[0])}")
                if reason and self._useful is not None:
                    vain = vain + 1 if self._useful.height <= height else 1
                    height = self._useful.height
                    if vain > MOST_VAIN:
                        raise GridpoolError(f"{MOST_VAIN} restarts did not help: {reason}{self._diagnose()}")
                    print(f"gridpool: {reason}{self._diagnose()}; starting it anew", file=sys.stderr, flush=True)
                self._stop.wait(0.2 * len(starts))
        finally:
            self._end()

    def _start(self) -> None:
        self._running = []
        for process in self._processes:
            if process.ready is not None:
                process.ready.unlink(missing_ok=True)
            with process.log.open("ab") as log:
                self._running.append(
                    subprocess.Popen(
                        process.command,
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                        env=self._environment,
                        preexec_fn=_die_with_parent,  # noqa: PLW1509 (this process has one thread)
                    )
                )
            end = time.monotonic() + PATIENCE_S
            while process.ready is not None and not process.ready.exists():
                if self._running[-1].poll() is not None or self._stop.is_set() or time.monotonic() > end:
                    return
                time.sleep(0.02)

    def _watch(self) -> tuple[tuple[str, int] | None, str]:
        """Wait until a process dies (its name and exit code), the watch finds them useless (why), or ``stop``."""
        if self._useful is not None:
            self._useful.begin()
        while not self._stop.wait(0.1):
            for process, running in zip(self._processes, self._running, strict=False):
                code = running.poll()
                if code is not None:
                    return (process.name, code), ""
            if len(self._running) < len(self._processes):
                return (self._processes[len(self._running)].name, -1), ""
            reason = self._useful() if self._useful is not None else ""
            if reason:
                return None, reason
            for process in self._processes:
                _bound(process.log, self._largest_log_bytes)
        return None, ""

    def _end(self) -> dict[str, int]:
        """End all that run; returns the exit codes by name."""
        for running in reversed(self._running):
            if running.poll() is None:
                running.terminate()
        end = time.monotonic() + GRACE_S
        for running in reversed(self._running):
            try:
                running.wait(max(0.0, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                running.kill()
                running.wait()
        codes = {process.name: run.returncode for process, run in zip(self._processes, self._running, strict=False)}
        self._running = []
        return codes

    def _names(self) -> str:
        return " and ".join(process.name for process in self._processes)

    def _log(self, name: str) -> Path:
        return next(process.log for process in self._processes if process.name == name)


def _bound(log: Path, largest_bytes: int) -> None:
    """Set a log aside that has grown long.

    It is copied and cut, not renamed, because the process holds it open and appends; a line between the two is lost.
    """
    with contextlib.suppress(OSError):
        if log.stat().st_size <= largest_bytes:
            return
        try:
            shutil.copyfile(log, log.with_name(f"{log.name}.1"))
        finally:  # also where there is no room for the copy: a log must not fill the disk
            os.truncate(log, 0)


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
