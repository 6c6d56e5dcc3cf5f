"""Where the study of slicing feeders does its work: the cores of this machine, or a Dask cluster."""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing import get_context
from threading import Thread
from typing import Any, Protocol, TypeVar

from rich.console import Console
from rich.progress import track

from gridpool.errors import MissingComponent, RefusedInput

__all__ = ["Workers", "workers"]

R = TypeVar("R")


class Workers(Protocol):
    """Yields the results of a call on each tuple of arguments as they come, under a progress bar with a title."""

    def __call__(self, title: str, call: Callable[..., R], arguments: Sequence[tuple[Any, ...]]) -> Iterator[R]:
        """Yield results in the order in which they are ready."""
        ...


@contextmanager
def workers(scheduler: str | None) -> Iterator[Workers]:
    """Work on all cores by processes, or on the Dask cluster whose scheduler is named.

    Raises MissingComponent where a scheduler is named but the extra that speaks to it is not installed, RefusedInput
    where none answers.
    """
    if scheduler is None:
        with ProcessPoolExecutor(
            os.cpu_count() or 1, get_context("spawn"), initializer=_end_with_parent, initargs=(os.getpid(),)
        ) as pool:

            def on_cores(title: str, call: Callable[..., R], arguments: Sequence[tuple[Any, ...]]) -> Iterator[R]:
                pending = [pool.submit(call, *one) for one in arguments]
                for future in _shown(title, as_completed(pending), len(pending)):
                    yield future.result()

            try:
                yield on_cores
            finally:
                pool.shutdown(cancel_futures=True)
        return
    try:
        from distributed import Client
        from distributed import as_completed as gathered
    except ImportError as error:
        raise MissingComponent("--scheduler needs Dask: pip install 'gridpool[scheduler]'") from error
    try:
        client = Client(scheduler, timeout=8)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise RefusedInput(f"no Dask scheduler answers at {scheduler}: {error}") from error

    def on_cluster(title: str, call: Callable[..., R], arguments: Sequence[tuple[Any, ...]]) -> Iterator[R]:
        pending = [client.submit(call, *one, pure=False) for one in arguments]
        for future in _shown(title, gathered(pending), len(pending)):  # type: ignore[no-untyped-call]
            yield future.result()

    with client:
        yield on_cluster


def _end_with_parent(parent: int) -> None:
    """Leave as soon as the study itself is gone: a pool's processes would otherwise work on for nobody."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    Thread(target=watch, daemon=True).start()


def _shown(title: str, ready: Iterable[R], total: int) -> Iterable[R]:
    """Show a progress bar on standard error while results are taken (nothing where that is no terminal)."""
    console = Console(stderr=True)
    return track(ready, title, total=total, console=console, disable=not console.is_terminal, transient=True)
