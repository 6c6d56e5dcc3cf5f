"""What a soak found, and how a page of the documentation shows it."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gridpool.agents.load import LoadResult
from gridpool.agents.network_replay import Replay

BEGIN, END = "<!-- soak: begin -->", "<!-- soak: end -->"


@dataclass(frozen=True)
class Window:
    """A load of some seconds at a rate (tx/s) with a fault ("" for none) at a node."""

    fault: str
    node: int
    rate: float
    result: LoadResult
    latencies: NDArray[np.float64]


@dataclass(frozen=True)
class Memory:
    """MB of a process by minute; the fitted slope (MB an hour) and growth as a share, None where not judged."""

    by_minute: list[float]
    slope: float | None
    growth: float | None


@dataclass
class Soak:
    """A run; ``sustained`` (tx/s) was measured while the machine verified ``speed`` signatures a second."""

    seed: int
    minutes: float
    sustained: float
    speed: float
    windows: list[Window] = field(default_factory=list)
    memory: dict[str, Memory] = field(default_factory=dict)
    live_heap: list[float] = field(default_factory=list)
    """MB of node0's engine in use after collections, in equal steps of time."""
    replay: Replay | None = None
    load_average: float = 0.0
    faults: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether everything held."""
        return self.replay is not None and not self.faults

    def latencies(self, *, calm: bool) -> NDArray[np.float64]:
        """Return the seconds to a receipt over all calm windows, or all windows with a fault."""
        chosen = [window.latencies for window in self.windows if (window.fault == "") == calm]
        return np.concatenate(chosen) if chosen else np.array([])

    def p99(self, *, calm: bool) -> float:
        """Return the 99th percentile of ``latencies``."""
        return float(np.percentile(self.latencies(calm=calm), 99))

    def beside_calm(self) -> list[float]:
        """Return for each window with a fault its 99th percentile over the mean of the calm ones next to it.

        What else happens on a machine, or to it, often lasts for minutes: neighbours in time share it.
        """
        calm = [i for i, window in enumerate(self.windows) if not window.fault]
        ratios = []
        for i, window in enumerate(self.windows):
            before, after = [c for c in calm if c < i][-1:], [c for c in calm if c > i][:1]
            beside = [_p99(self.windows[c]) for c in before + after]
            if window.fault and beside and min(beside) > 0:
                ratios.append(_p99(window) / float(np.mean(beside)))
        return ratios

    def included(self) -> int:
        """Return how many transactions of the windows have a receipt that says ok."""
        return sum(window.result.included for window in self.windows)


def report(found: Soak, command: str) -> str:
    """Return the summary in Markdown."""
    lines = [
        f"`{command}`: {'everything held' if found.ok else 'NOT everything held'}.",
        *(f"- **missed:** {fault}" for fault in found.faults),
        "",
        _load(found),
        "",
        "| fault | windows | submitted | included | refused | unanswered | p50 s | p99 s | worst window's p99 s |",
        "|---|---|---|---|---|---|---|---|---|",
        *(_row(found, fault) for fault in sorted({window.fault for window in found.windows})),
        "",
    ]
    calm, hurt = found.latencies(calm=True), found.latencies(calm=False)
    if len(calm) and len(hurt):
        calm_p99, hurt_p99 = found.p99(calm=True), found.p99(calm=False)
        worst = max(_p99(window) for window in found.windows if window.fault)
        lines += [
            f"All windows with a fault together: p99 {hurt_p99:.2f} s, **{hurt_p99 / calm_p99:.2f} times** that of all "
            f"calm ones ({calm_p99:.2f} s); the worst single window: {worst / calm_p99:.2f} times.",
            "",
        ]
    if ratios := sorted(found.beside_calm()):
        lines += [
            f"Each window's p99 against the calm windows before and after it: {np.median(ratios):.2f} times in the "
            f"median, {np.percentile(ratios, 90):.2f} in nine of ten, {ratios[-1]:.2f} in the worst; more than three "
            f"times in {sum(ratio > 3 for ratio in ratios)} of {len(ratios)}.",
            "",
        ]
    for role, memory in found.memory.items():
        if not memory.by_minute:
            continue
        slope, growth = memory.slope, memory.growth
        shown = _steps(memory.by_minute)
        judged = (
            f"{slope:+.1f} MB an hour after warm-up, {growth:+.1%} over the judged time"
            if slope is not None and growth is not None
            else "too short a run to judge growth"
        )
        lines.append(f"- node0's {role}, anonymous MB from beginning to end: {shown} ({judged}).")
    if found.live_heap:
        lines.append(f"- of the engine's, MB in use after collections: {_steps(found.live_heap)}.")
    if found.replay is not None:
        replay = found.replay
        lines += [
            "",
            f"Replay: {replay.height} blocks, {replay.transactions} transactions, "
            f"{'every hash equal' if replay.ok else 'a difference'} on {len(replay.nodes)} nodes.",
        ]
    return "\n".join(lines) + "\n"


def keep_report(path: Path, text: str) -> None:
    """Write the summary; where the page has marks for it, between them."""
    page = path.read_text(encoding="utf-8") if path.exists() else ""
    if BEGIN in page and END in page:
        before, _, rest = page.partition(BEGIN)
        after = rest.partition(END)[2]
        text = f"{before}{BEGIN}\n{text}{END}{after}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _steps(series: list[float]) -> str:
    """Show seven values from the first to the last."""
    chosen = [series[round(i * (len(series) - 1) / 6)] for i in range(7)] if len(series) >= 7 else series
    return ", ".join(f"{value:.0f}" for value in chosen)


def _load(found: Soak) -> str:
    rates = [window.rate for window in found.windows]
    if not rates:
        return "No window was loaded."
    return (
        f"Sustained {found.sustained:.0f} transactions a second while the machine verified {found.speed:.0f} "
        f"signatures a second; 70 % of that, scaled by the machine's speed before each window, was {min(rates):.0f} to "
        f"{max(rates):.0f} ({np.mean(rates):.0f} in the mean). Load average at the end {found.load_average:.1f}."
    )


def _row(found: Soak, fault: str) -> str:
    windows = [window for window in found.windows if window.fault == fault]
    results = [window.result for window in windows]
    latencies = np.concatenate([window.latencies for window in windows])
    submitted, included, refused = (
        sum(getattr(result, name) for result in results) for name in ("submitted", "included", "refused")
    )
    middle, high = (f"{np.percentile(latencies, q):.2f}" if len(latencies) else "-" for q in (50, 99))
    worst = f"{max(_p99(window) for window in windows):.2f}"
    return (
        f"| {fault or 'none (calm)'} | {len(windows)} | {submitted} | {included} | {refused} "
        f"| {submitted - included - refused} | {middle} | {high} | {worst} |"
    )


def _p99(window: Window) -> float:
    return window.result.p99_s or 0.0
