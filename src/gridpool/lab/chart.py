"""Curves of a sweep as an image."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from gridpool.errors import RefusedInput

__all__ = ["check_image", "draw_curves"]

_SUFFIXES = (".png", ".svg", ".pdf")


def check_image(path: Path) -> None:
    """Refuse an image file whose suffix is unknown or whose folder does not exist."""
    if path.suffix.lower() not in _SUFFIXES:
        raise RefusedInput(f"--plot {path} must end in {', '.join(_SUFFIXES)}")
    if not path.parent.is_dir():
        raise RefusedInput(f"--plot {path}: there is no folder {path.parent}; make it first")


def draw_curves(
    path: Path,
    *,
    x: Sequence[float],
    curves: Mapping[str, Sequence[float | None]],
    x_label: str,
    y_label: str,
    log: bool = False,
    bands: Mapping[str, Sequence[tuple[float, float]]] | None = None,
) -> None:
    """Draw the curves over ``x`` into ``path`` (PNG, SVG or PDF by its suffix), with intervals given in ``bands``.

    Raises RefusedInput for another suffix; the file appears whole or not at all.
    """
    from matplotlib.figure import Figure

    check_image(path)
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for name, values in curves.items():
        (line,) = axes.plot(x, [float("nan") if value is None else value for value in values], label=name)
        band = (bands or {}).get(name)
        if band:
            axes.fill_between(
                x, [low for low, _ in band], [high for _, high in band], color=line.get_color(), alpha=0.2
            )
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    if log:
        axes.set_yscale("log")
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    unfinished = path.with_name(f".{path.name}.part")
    figure.savefig(unfinished, format=path.suffix[1:].lower(), dpi=130)
    os.replace(unfinished, path)
