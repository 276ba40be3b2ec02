"""Figures of Matplotlib: drawn without a window system, written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(**options: Any) -> Figure:  # noqa: ANN401  # as Matplotlib's Figure takes them
    """Return an empty figure whose parts make room for each other.

    Not pyplot's: that would keep every figure and choose a window system.

    Args:
        **options: Of ``matplotlib.figure.Figure``, such as ``figsize``.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(layout="constrained", **options)
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, file: Path, dpi: int) -> None:
    """Write a figure as PNG under a temporary name, then rename.

    Args:
        figure: What :func:`new_figure` returned.
        file: Its place; replaced if it exists.
        dpi: Pixels per inch.

    Raises:
        OSError: If the place may not be written; what was there stays.
    """
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        figure.savefig(temporary, dpi=dpi, format="png")
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
