"""Counts and times of a node in Prometheus' text format."""

import threading
from bisect import bisect_left
from collections.abc import Mapping

__all__ = ["Metrics"]

BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class Metrics:
    """Counters by label and one histogram of request times; safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._submitted: dict[str, int] = {}
        self._buckets = [0] * (len(BOUNDS_S) + 1)
        self._seconds = 0.0

    def submitted(self, outcome: str, seconds: float) -> None:
        """Count a submission by its outcome (``accepted`` or the code of its refusal)."""
        with self._lock:
            # Codes come from contracts, so there are few; anything beyond that is one label.
            label = outcome if outcome in self._submitted or len(self._submitted) < 200 else "other"
            self._submitted[label] = self._submitted.get(label, 0) + 1
            self._buckets[bisect_left(BOUNDS_S, seconds)] += 1
            self._seconds += seconds

    def text(self, gauges: Mapping[str, tuple[str, int]]) -> str:
        """Write all metrics; ``gauges`` maps a name to its help and present value."""
        lines = []
        for name, (explanation, value) in gauges.items():
            lines += [f"# HELP {name} {explanation}", f"# TYPE {name} gauge", f"{name} {value}"]
        with self._lock:
            name = "gridpool_submissions_total"
            lines += [f"# HELP {name} Transactions submitted, by outcome.", f"# TYPE {name} counter"]
            lines += [f'{name}{{outcome="{label}"}} {count}' for label, count in sorted(self._submitted.items())]
            name = "gridpool_submission_seconds"
            lines += [f"# HELP {name} Time to check and queue a transaction.", f"# TYPE {name} histogram"]
            total = 0
            for bound, count in zip((*BOUNDS_S, "+Inf"), self._buckets, strict=True):
                total += count
                lines.append(f'{name}_bucket{{le="{bound}"}} {total}')
            lines += [f"{name}_sum {self._seconds:.6f}", f"{name}_count {total}"]
        return "\n".join(lines) + "\n"
