"""How commands speak: one JSON object or readable text on standard output, everything else on standard error."""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import msgspec

__all__ = ["Advance", "emit", "note", "percent", "progress", "table", "track"]

T = TypeVar("T")


class Advance(Protocol):
    """Reports that ``steps`` more units of work are done."""

    def __call__(self, steps: int = 1) -> None:
        """Advance by ``steps``."""


def emit(result: Mapping[str, Any], *, json: bool, text: str | None = None) -> None:
    """Print a result: exactly one JSON object with ``json``, else ``text`` or aligned ``key: value`` lines."""
    if json:
        sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(result), indent=0) + b"\n")
        sys.stdout.buffer.flush()
        return
    if text is None:
        width = max((len(key) for key in result), default=0)
        text = "\n".join(f"{key.replace('_', ' '):<{width}}  {_plain(value)}" for key, value in result.items())
    print(text)


def note(message: str) -> None:
    """Print one line for a person on standard error."""
    print(message, file=sys.stderr, flush=True)


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Lay rows out in aligned columns, numbers to the right."""
    body = [[_plain(cell) for cell in row] for row in rows]
    right = [all(_is_number(row[i]) for row in body) if body else False for i in range(len(header))]
    widths = [max(len(line[i]) for line in [list(header), *body]) for i in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.rjust(w) if r else cell.ljust(w) for cell, w, r in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in [list(header), *body]
    )


@contextmanager
def progress(title: str, total: int) -> Iterator[Advance]:
    """Show a progress bar on standard error while the block runs (nothing where standard error is no terminal)."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=total)

        def advance(steps: int = 1) -> None:
            bar.advance(task, steps)

        yield advance


@contextmanager
def percent(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show progress in percent; gives what takes (done, in all)."""
    with progress(what, 100) as advance:
        shown = 0

        def tell(done: int, total: int) -> None:
            nonlocal shown
            advance(100 * done // total - shown)
            shown = 100 * done // total

        yield tell


def track(items: Sequence[T], title: str) -> Iterator[T]:
    """Iterate over ``items`` under a progress bar."""
    with progress(title, len(items)) as advance:
        for item in items:
            yield item
            advance()


def _plain(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping | list | tuple):
        return msgspec.json.encode(value).decode()
    return str(value)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return cell == "-"
    return True
