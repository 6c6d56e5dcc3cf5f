"""Tables and charts of the study of energy trading and credit."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["Band", "bands", "bars", "boxes", "lines", "write_rows"]

Band = tuple[str, str, str, Sequence[float], Sequence[float], Sequence[float], Sequence[float]]
"""A panel of title, x label, y label, x, mean, low and high."""

COLOURS = ("#0b6e99", "#d1495b", "#edae49", "#66a182")


def write_rows(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Write a CSV file, whole or not at all."""
    unfinished = path.with_name(path.name + ".part")
    with unfinished.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
    unfinished.replace(path)


def lines(
    path: Path,
    panels: Sequence[tuple[str, str, str, Sequence[float], Mapping[str, Sequence[float]]]],
    *,
    marks: bool = True,
    levels: Mapping[int, float] | None = None,
) -> None:
    """Draw panels of (title, x label, y label, x, curves by name); ``levels`` adds a dashed line to a panel."""
    figure, axes = _panels(len(panels))
    for index, (axis, (title, x_label, y_label, x, curves)) in enumerate(zip(axes, panels, strict=True)):
        for colour, mark, (name, y) in zip(COLOURS, "osD^", curves.items(), strict=False):
            axis.plot(x, y, color=colour, marker=mark if marks else None, markersize=4, label=name)
        if levels and index in levels:
            axis.axhline(levels[index], color="black", linestyle="--", linewidth=1, label="closed form")
        _finish(axis, title, x_label, y_label)
        if len(curves) > 1 or (levels and index in levels):
            axis.legend(frameon=False, fontsize=8)
    _save(figure, path)


def bands(
    path: Path,
    panels: Sequence[Band],
) -> None:
    """Draw panels of (title, x label, y label, x, mean, low, high), the interval as a band."""
    figure, axes = _panels(len(panels))
    for axis, (title, x_label, y_label, x, mean, low, high) in zip(axes, panels, strict=True):
        axis.plot(x, mean, color=COLOURS[0], marker="o", markersize=4)
        axis.fill_between(x, low, high, color=COLOURS[0], alpha=0.2, linewidth=0)
        _finish(axis, title, x_label, y_label)
    _save(figure, path)


def bars(path: Path, labels: Sequence[str], shares: Sequence[float], *, title: str, x_label: str, y_label: str) -> None:
    """Draw one bar a label."""
    figure, (axis,) = _panels(1, width=9.0)
    axis.bar(range(len(labels)), shares, color=COLOURS[0])
    axis.set_xticks(range(len(labels)), labels, rotation=90 if len(labels) > 9 else 0, fontsize=8)
    _finish(axis, title, x_label, y_label)
    _save(figure, path)


def boxes(
    path: Path,
    panels: Sequence[tuple[str, str, Mapping[str, Any], Mapping[str, float]]],
) -> None:
    """Draw panels of (title, y label, samples by name, the paper's figure by name) as boxes over 95 % whiskers."""
    figure, axes = _panels(len(panels))
    for axis, (title, y_label, samples, paper) in zip(axes, panels, strict=True):
        axis.boxplot(list(samples.values()), whis=(2.5, 97.5), showfliers=False, medianprops={"color": COLOURS[1]})
        axis.set_xticks(range(1, len(samples) + 1), list(samples))
        places = [list(samples).index(name) + 1 for name in paper]
        axis.plot(places, list(paper.values()), "D", color=COLOURS[0], label="paper")
        _finish(axis, title, "", y_label)
        axis.axhline(0.0, color="black", linewidth=0.8)
        axis.legend(frameon=False, fontsize=8)
    _save(figure, path)


def _panels(count: int, width: float | None = None) -> tuple[Any, list[Any]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width or 4.6 * count, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(1, count, squeeze=False)[0])


def _finish(axis: Any, title: str, x_label: str, y_label: str) -> None:
    axis.set_title(title, fontsize=10)
    axis.set_xlabel(x_label)
    axis.set_ylabel(y_label)
    axis.grid(alpha=0.3)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)


def _save(figure: Any, path: Path) -> None:
    unfinished = path.with_name(path.name + ".part")
    figure.savefig(unfinished, format="png", dpi=130, metadata={"Software": None})
    unfinished.replace(path)
