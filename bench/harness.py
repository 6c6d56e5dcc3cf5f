"""What every benchmark shares: timing, the row it reports, and where rows go."""

import time
from collections.abc import Callable
from typing import Any, Literal

import msgspec

__all__ = ["Row", "best_time"]


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One measured ratio beside its target.

    ``sense`` says on which side of ``target`` the ratio should lie; ``peer`` names what it was measured against.
    """

    room: str
    figure: str
    ratio: float
    target: float
    sense: Literal["at least", "at most"]
    peer: str
    detail: dict[str, Any] = {}

    @property
    def met(self) -> bool:
        """Whether the target was reached."""
        return self.ratio >= self.target if self.sense == "at least" else self.ratio <= self.target


def best_time(call: Callable[[], object], *, repeats: int = 5, warmup: int = 1) -> float:
    """Return the shortest of ``repeats`` wall times of ``call`` in seconds, after ``warmup`` uncounted calls."""
    for _ in range(warmup):
        call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)
