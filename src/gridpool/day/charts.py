"""The pictures of the report, as inline SVG."""

import io
import re
from collections.abc import Iterable, Sequence
from typing import Any

from gridpool.day.results import DayResult, FeederView, Interval

__all__ = ["coins_chart", "connectivity_chart", "feeder_map", "market_chart", "power_chart"]

INK, TEAL, ORANGE, BLUE, RED, GREY = "#1f2933", "#0f766e", "#d97706", "#2563eb", "#b91c1c", "#94a3b8"


def power_chart(result: DayResult) -> str:
    """Demand, served power and what full connectivity would serve."""
    figure, axes = _axes(result.intervals)
    hours = _hours(result.intervals)
    axes.plot(hours, [row.demand_w / 1e6 for row in result.intervals], color=GREY, label="demand")
    axes.plot(
        hours, [row.served_full_w / 1e6 for row in result.intervals], color=BLUE, ls="--", label="served, all connected"
    )
    axes.plot(hours, [row.served_w / 1e6 for row in result.intervals], color=TEAL, lw=2.2, label="served")
    axes.set_ylabel("MW")
    axes.set_ylim(bottom=0)
    return _svg(figure, axes, "power")


def connectivity_chart(result: DayResult) -> str:
    """Observed nodes and controlled devices."""
    figure, axes = _axes(result.intervals)
    hours = _hours(result.intervals)
    axes.step(hours, [row.observed for row in result.intervals], where="post", color=TEAL, label="nodes observed")
    axes.step(
        hours, [row.controlled for row in result.intervals], where="post", color=ORANGE, label="devices controlled"
    )
    axes.set_ylabel("links")
    axes.set_ylim(bottom=0)
    axes.yaxis.get_major_locator().set_params(integer=True)
    return _svg(figure, axes, "links")


def market_chart(result: DayResult) -> str:
    """Traded energy and price."""
    figure, axes = _axes(result.intervals)
    hours = _hours(result.intervals)
    axes.bar(
        hours, [row.traded_wh / 1e3 for row in result.intervals], width=0.25, align="edge", color=TEAL, alpha=0.55,
        label="traded energy",
    )  # fmt: skip
    axes.set_ylabel("kWh")
    right = axes.twinx()
    points = [(hour, row.price / 1e6) for hour, row in zip(hours, result.intervals, strict=True) if row.price]
    right.plot([x for x, _ in points], [y for _, y in points], ".", color=ORANGE, ms=5, label="price")
    right.set_ylabel("coins per kWh")
    right.set_ylim(bottom=0)
    right.spines["top"].set_visible(False)
    return _svg(figure, axes, "market", right)


def coins_chart(result: DayResult) -> str:
    """Coins lent and loans open."""
    figure, axes = _axes(result.intervals)
    hours = _hours(result.intervals)
    axes.step(
        hours, [row.coins_lent / 1e6 for row in result.intervals], where="post", color=BLUE, label="coins lent, so far"
    )
    axes.set_ylabel("coins")
    axes.set_ylim(bottom=0)
    right = axes.twinx()
    right.step(hours, [row.loans_open for row in result.intervals], where="post", color=RED, label="loans open")
    right.set_ylabel("loans")
    right.set_ylim(bottom=0)
    right.spines["top"].set_visible(False)
    return _svg(figure, axes, "coins", right)


def feeder_map(view: FeederView) -> str:
    """The feeder on its coordinates: who is observed, who is controlled, and the lowest voltages."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(5.6, 4.8))
    place = view.coordinates
    for a, b in view.edges:
        if a in place and b in place:
            axes.plot(*zip(place[a], place[b], strict=True), color=GREY, lw=1.6, zorder=1)
    drawn = [node for node in view.nodes if node in place]
    observed, controlled, devices = set(view.observed), set(view.controlled), set(view.devices)
    _dots(axes, place, [n for n in drawn if n not in observed], "white", GREY, "o", "no slice")
    _dots(axes, place, [n for n in drawn if n in observed], TEAL, TEAL, "o", "observed")
    _dots(axes, place, [n for n in drawn if n in devices - controlled], "none", RED, "s", "device without control")
    _dots(axes, place, [n for n in drawn if n in controlled], "none", ORANGE, "s", "device controlled")
    crowded = len(drawn) > 60
    for node in drawn:
        label = node if node not in view.voltages else f"{node}\n{view.voltages[node]:.3f}"
        axes.annotate(
            node if crowded else label, place[node], xytext=(9, 6), textcoords="offset points",
            fontsize=5 if crowded else 7.5, color=INK,
        )  # fmt: skip
    axes.margins(0.12)
    axes.set_axis_off()
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=2, frameon=False, fontsize=9.5)
    return _render(figure, "feeder")


def _dots(
    axes: Any,
    place: dict[str, tuple[float, float]],
    nodes: Sequence[str],
    face: str,
    edge: str,
    marker: str,
    label: str,
) -> None:
    if nodes:
        size = 150 if marker == "s" else 55
        axes.scatter(
            [place[n][0] for n in nodes], [place[n][1] for n in nodes], s=size, marker=marker,
            facecolors=face, edgecolors=edge, linewidths=1.6, zorder=2, label=label,
        )  # fmt: skip


def _axes(intervals: Sequence[Interval]) -> tuple[Any, Any]:
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(5.6, 2.9))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e2e8f0", lw=0.7)
    axes.set_axisbelow(True)
    hours = len(intervals) / 4
    axes.set_xlim(0, hours)
    axes.set_xticks(range(0, int(hours) + 1, 4))
    axes.set_xlabel("hour of the day")
    for label, begin, end in _events(intervals):
        axes.axvspan(begin, end, color="#fde68a", alpha=0.6, lw=0)
        axes.annotate(
            label, ((begin + end) / 2, 1.0), xycoords=("data", "axes fraction"), xytext=(0, 2),
            textcoords="offset points", ha="center", va="bottom", fontsize=8.5, color="#92400e",
        )  # fmt: skip
    return figure, axes


def _hours(intervals: Sequence[Interval]) -> list[float]:
    return [row.interval / 4 for row in intervals]


def _events(intervals: Sequence[Interval]) -> Iterable[tuple[str, float, float]]:
    begin = None
    for row in (*intervals, None):
        label = row.event if row is not None else ""
        if begin is not None and (row is None or label != begin[0]):
            yield begin[0], begin[1], (row.interval if row is not None else len(intervals)) / 4
            begin = None
        if label and begin is None and row is not None:
            begin = (label, row.interval / 4)


def _svg(figure: Any, axes: Any, name: str, right: Any = None) -> str:
    handles, labels = axes.get_legend_handles_labels()
    if right is not None:
        more, names = right.get_legend_handles_labels()
        handles, labels = handles + more, labels + names
    axes.legend(handles, labels, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3, frameon=False, fontsize=9.5)
    return _render(figure, name)


def _render(figure: Any, name: str) -> str:
    import matplotlib
    import matplotlib.pyplot as plt

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
    plt.close(figure)
    text = buffer.getvalue()
    body = text[text.index("<svg") :]
    # Fixed sizes go, so that the picture follows the width of the page.
    return re.sub(r'^(<svg[^>]*?) width="[^"]*" height="[^"]*"|^(<svg[^>]*?) height="[^"]*"', r"\1\2", body, count=1)
