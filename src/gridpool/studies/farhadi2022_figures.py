"""Figures and tables of the study of slicing feeders."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

__all__ = ["Interval", "Series", "draw_curves", "draw_outages", "draw_ratios", "draw_weights", "write_rows"]

COLOURS = ("#0b6e99", "#d1495b", "#edae49", "#66a182", "#574d68", "#8d6a4f")
MARKS = "osD^vP"
LABELS = {
    "greedy": "greedy (Algorithm 1)",
    "exact": "exact",
    "bc": "betweenness",
    "top_k": "Top-K",
    "random": "random",
    "bc_power": "betweenness x power",
    "bc_endpoints_power": "betweenness with endpoints x power",
    "power_degree": "power x degree",
}
SCORE = "served power, % of full connectivity"


class Interval(NamedTuple):
    """A mean and its 95 % interval."""

    mean: float
    low: float
    high: float


class Series(NamedTuple):
    """A line or group of bars: its name, positions and values."""

    name: str
    x: Sequence[float]
    y: list[Interval]


def write_rows(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Write a table as CSV, whole or not at all."""
    unfinished = path.with_name(path.name + ".part")
    with unfinished.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows([["" if cell is None else cell for cell in row] for row in rows])
    unfinished.replace(path)


def draw_weights(path: Path, groups: Sequence[str], series: Sequence[Series], blocks: int) -> None:
    """Draw Fig. 4: the score under each node weight, grouped by feeder."""
    figure, axes = _axes(9.0, 4.6)
    width = 0.7 / len(series)
    for i, one in enumerate(series):
        x = [group + (i - (len(series) - 1) / 2) * width for group in one.x]
        axes.errorbar(x, [y.mean for y in one.y], yerr=_errors(one), color=COLOURS[i % 6], marker=MARKS[i % 6], ls="",
                      ms=7, elinewidth=1.0, capsize=2.5, label=LABELS.get(one.name, one.name))  # fmt: skip
    axes.set_xticks(range(len(groups)), groups)
    _scale(axes, series)
    axes.set_ylabel(SCORE)
    axes.set_title(f"Node weights, greedy on {blocks} resource blocks", loc="left")
    axes.legend(ncols=3, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.09))
    _save(figure, path)


def draw_ratios(path: Path, series: Sequence[Series], blocks: int) -> None:
    """Draw Fig. 5: score against the ratio of priorities."""
    _lines(path, series, "priority of URLLC over mMTC", f"Priorities, greedy on {blocks} resource blocks", mark=3.0)


def draw_curves(path: Path, feeder: str, series: Sequence[Series]) -> None:
    """Draw Figs 6-8: score against the number of resource blocks."""
    _lines(path, series, "resource blocks", f"Methods on {feeder}")


def draw_outages(path: Path, bars: Sequence[tuple[str, dict[str, Interval], float | None]]) -> None:
    """Draw Table IV: power-line links beside links over the air under the same outages, and the printed figures."""
    figure, axes = _axes(8.5, 4.4)
    names = list(bars[0][1])
    labels = {"plcc": "power-line links", "5g full": "5G, full connectivity", "5g slices": "5G, planned slices"}
    width = 0.8 / len(names)
    for i, name in enumerate(names):
        x = [group + (i - (len(names) - 1) / 2) * width for group in range(len(bars))]
        one = Series(name, x, [found[name] for _, found, _ in bars])
        axes.bar(x, [y.mean for y in one.y], width * 0.94, color=COLOURS[i], label=labels[name],
                 yerr=_errors(one), error_kw={"lw": 0.8, "capsize": 2})  # fmt: skip
    printed = [(i - (len(names) - 1) / 2 * width, paper) for i, (_, _, paper) in enumerate(bars) if paper is not None]
    axes.plot([x for x, _ in printed], [y for _, y in printed], "k_", ms=16, mew=2, label="power-line links as printed")
    axes.set_xticks(range(len(bars)), [name for name, _, _ in bars])
    axes.set_ylim(0, 104)
    axes.set_ylabel(SCORE)
    axes.set_title("Buses out (no tripping, no islands)", loc="left")
    axes.legend(ncols=4, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.14), fontsize=8.5)
    _save(figure, path)


def _lines(path: Path, series: Sequence[Series], label: str, title: str, mark: float | None = None) -> None:
    figure, axes = _axes(7.2, 4.4)
    for i, one in enumerate(series):
        axes.errorbar(one.x, [y.mean for y in one.y], yerr=_errors(one), color=COLOURS[i % 6], marker=MARKS[i % 6],
                      ms=4.5, lw=1.5, elinewidth=0.8, capsize=2, label=LABELS.get(one.name, one.name),
                      ls="--" if one.name == "exact" else "-")  # fmt: skip
    if mark is not None:
        axes.axvline(mark, color="0.6", lw=0.8, ls=":")
    _scale(axes, series)
    axes.set_xlabel(label)
    axes.set_ylabel(SCORE)
    axes.set_title(title, loc="left")
    axes.legend(frameon=False, loc="lower right")
    _save(figure, path)


def _scale(axes, series: Sequence[Series]) -> None:  # type: ignore[no-untyped-def]
    lowest = min(y.low for one in series for y in one.y)
    axes.set_ylim(max(0.0, 10.0 * ((lowest - 2.0) // 10.0)), 101.5)


def _errors(one: Series) -> list[list[float]]:
    return [[y.mean - y.low for y in one.y], [y.high - y.mean for y in one.y]]


def _axes(width: float, height: float):  # type: ignore[no-untyped-def]
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="0.9")
    axes.set_axisbelow(True)
    return figure, axes


def _save(figure, path: Path) -> None:  # type: ignore[no-untyped-def]
    figure.savefig(path, dpi=130, format="png")
