"""One picture of a comparison: what each case gained, and accuracy against cost."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nnunet_kd.evaluation.markdown import p_equation
from nnunet_kd.figures import new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from nnunet_kd.evaluation.analysis import Row
    from nnunet_kd.evaluation.report import Report

# Okabe and Ito's colours that stay apart for every kind of colour vision; shapes say it again
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P")
GREY = "#666666"
DARK = "#222222"

_STYLE: dict[Any, Any] = {"font.size": 12, "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 13}


def _style(report: Report, arm: str) -> tuple[str, str]:
    """Return colour and marker of an arm, the same in both panels; the baseline is grey."""
    if arm == report.baseline:
        return GREY, "o"
    others = [name for name in report.arms if name != report.baseline]
    number = others.index(arm)
    return COLOURS[number % len(COLOURS)], MARKERS[(number + 1) % len(MARKERS)]


def spread_out(values: NDArray[np.float64], *, n_bins: int = 60) -> NDArray[np.float64]:
    """Return an offset in [-1, 1] for each value, so that dots of equal height lie side by side.

    Example:
        >>> spread_out(np.array([0.1, 0.1, 0.9])).tolist()
        [-0.5, 0.5, 0.0]
    """
    if not len(values):
        return np.zeros(0)
    width = np.ptp(values) / n_bins or 1.0
    bins = np.floor((values - values.min()) / width).astype(int)
    offsets = np.zeros(len(values))
    for number in np.unique(bins):
        members = np.flatnonzero(bins == number)
        offsets[members] = np.arange(len(members)) - (len(members) - 1) / 2
    largest = np.abs(offsets).max()
    return np.asarray(offsets / max(1.0, largest))


def _row_label(report: Report, arm: str) -> str:
    row = report.row(arm, report.structures[0], report.headline.name)
    difference = row.difference if row else None
    if difference is None:
        estimate = row.mean if row else None
        return f"{arm}: {estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]" if estimate else arm
    interval = f"[{difference.low:+.3f}, {difference.high:+.3f}]"
    return f"{arm}: {difference.value:+.3f} {interval}, {p_equation(difference.p)}"


def _draw_row(axes: Axes, report: Report, arm: str, height: float) -> None:
    structure = report.structures[0]
    row = report.row(arm, structure, report.headline.name)
    if row is None:
        return
    values = report.arms[arm].per_case(structure, report.headline.name)
    estimate = row.mean
    if row.difference is not None:
        values = values - report.arms[report.baseline].per_case(structure, report.headline.name)
        estimate = row.difference
    values = values[np.isfinite(values)]
    colour, marker = _style(report, arm)
    axes.scatter(values, height + 0.16 * spread_out(values), s=26, c=colour, marker=marker, alpha=0.55, linewidths=0)
    ends = np.nan_to_num([[estimate.value - estimate.low], [estimate.high - estimate.value]])
    point: dict[str, Any] = {
        "fmt": "D",
        "color": "black",
        "markersize": 7,
        "capsize": 5,
        "elinewidth": 2.2,
        "zorder": 5,
    }
    axes.errorbar([estimate.value], [height - 0.27], xerr=ends, **point)
    # white behind it: the line at 0 and the dots of the row above must not cross the letters
    label: dict[str, Any] = {"color": DARK, "weight": "bold", "bbox": {"fc": "white", "ec": "none", "pad": 1.5}}
    axes.text(0.0, height + 0.27, _row_label(report, arm), transform=axes.get_yaxis_transform(), **label)


def _draw_cases(axes: Axes, report: Report) -> None:
    """One row of dots per arm: its differences to the baseline, or its scores if it is alone."""
    structure = report.structures[0]
    shown = [arm for arm in report.arms if arm != report.baseline] or [report.baseline]
    paired = shown != [report.baseline]
    for number, arm in enumerate(reversed(shown)):
        _draw_row(axes, report, arm, float(number))
    name = f"{report.headline.title} ({structure})"
    if paired:
        axes.axvline(0.0, color=GREY, linewidth=1.2, linestyle="--", zorder=0)
    shown_as = f"{name} minus that of {report.baseline}" if paired else name
    axes.set_xlabel(f"{shown_as}\n◆ mean, {report.resampling.level:.0%} interval over cases")
    hint = f", right of the line better than {report.baseline}" if paired else ""
    axes.set_title(f"Each dot one of {len(report.cases.names)} cases{hint}", loc="left", pad=12)
    axes.set_ylim(-0.55, len(shown) - 0.4)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.margins(x=0.04)


def _cost(report: Report, arm: str) -> float:
    return report.timings[arm].seconds_per_case if report.timings else report.costs[arm].macs / 1e9


def _side_by_side(costs: Mapping[str, float]) -> dict[str, tuple[float, int]]:
    """Place each arm, and its label left (-1) or right (1), so that equal costs do not hide each other."""
    placed: dict[str, tuple[float, int]] = {}
    for arm, cost in costs.items():
        twins = [name for name in placed if abs(np.log(cost / costs[name])) < 0.02]
        placed[arm] = (cost * 1.12 ** len(twins), 1)
        placed.update({name: (placed[name][0], -1) for name in twins[:1]})
    return placed


def _draw_point(axes: Axes, report: Report, row: Row, x: float, side: int) -> None:
    colour, marker = _style(report, row.arm)
    estimate = row.mean
    ends = np.nan_to_num([[estimate.value - estimate.low], [estimate.high - estimate.value]])
    axes.errorbar([x], [estimate.value], yerr=ends, color=colour, marker=marker, markersize=11, capsize=5, elinewidth=2)
    axes.annotate(
        f"{row.arm}\n{_short(report.costs[row.arm].parameters)} parameters",
        (x, estimate.value),
        xytext=(13 * side, 0),
        textcoords="offset points",
        color=DARK,
        va="center",
        ha="left" if side > 0 else "right",
    )


def _set_cost_axis(axes: Axes, places: Mapping[str, tuple[float, int]]) -> None:
    """Leave a third of the axis free on each side that has labels."""
    from matplotlib.ticker import LogLocator, NullFormatter

    logs = [float(np.log10(x)) for x, _ in places.values()]
    left, right = (0.34 if any(side < 0 for _, side in places.values()) else 0.08), 0.34
    span = max(max(logs) - min(logs), 0.4)
    total = span / (1 - left - right)
    axes.set_xscale("log")
    axes.set_xlim(10 ** (min(logs) - left * total), 10 ** (max(logs) + right * total))
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if total > 2 else (1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())


def _draw_costs(axes: Axes, report: Report) -> None:
    structure = report.structures[0]
    places = _side_by_side({arm: _cost(report, arm) for arm in report.costs})
    for arm, (x, side) in places.items():
        row = report.row(arm, structure, report.headline.name)
        if row is not None:
            _draw_point(axes, report, row, x, side)
    _set_cost_axis(axes, places)
    axes.margins(y=0.15)
    axes.set_xlabel("seconds per case, measured" if report.timings else "GMAC per patch (one forward pass)")
    axes.set_ylabel(f"{report.headline.title} ({structure})")
    axes.set_title("Accuracy against cost", loc="left", pad=12)
    axes.grid(alpha=0.25)


def _short(number: int) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {letter}"
    return str(number)


def plot_report(report: Report, file: Path) -> None:
    """Draw a report as PNG.

    Left, for each arm the difference of every case to the baseline, with mean and interval;
    right, where model folders were given, accuracy against measured seconds or else against
    multiply-accumulates.
    """
    import matplotlib as mpl

    n_rows = max(1, len(report.arms) - 1)
    size: dict[str, Any] = {"figsize": (12 if report.costs else 7, 2.2 + 1.15 * max(2, n_rows))}
    with mpl.rc_context(_STYLE):
        figure = new_figure(**size)
        panels = figure.subplots(1, 2 if report.costs else 1, squeeze=False)[0]
        _draw_cases(panels[0], report)
        if report.costs:
            _draw_costs(panels[1], report)
        if report.scores.caution:
            figure.suptitle(report.scores.caution, fontsize=11, color=DARK)
        save_figure(figure, file, dpi=160)
