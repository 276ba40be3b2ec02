"""One picture of a search: how large each measured student is against what it takes, and where its seconds go."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunet_kd.figures import new_figure, save_figure
from nnunet_kd.planning.budget_report import Search, limits_text
from nnunet_kd.planning.budget_search import Candidate, Measurement

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours that stay apart for every kind of colour vision
_CHOSEN, _KEPT, _OVER, _LIMIT, _DARK = "#009E73", "#56B4E9", "#D55E00", "#222222", "#222222"
_STAGES = {
    "load": "#56B4E9",
    "preprocess": "#E69F00",
    "window": "#CC79A7",
    "network": "#0072B2",
    "resample": "#D55E00",
    "write": "#009E73",
}
_STYLE: dict[Any, Any] = {"font.size": 12, "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 13}
_PLAIN: dict[str, Any] = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}  # over the line of the limit
_MOST_BARS = 16  # those nearest to the chosen one in size


def plot_search(search: Search, file: Path) -> None:
    """Draw a search as PNG.

    Left every measured student, its parameters against its seconds with the limit as a line; right the measured ones
    nearest in size to the chosen one, their seconds by stage.
    """
    import matplotlib as mpl

    shown = _nearest(search)
    with mpl.rc_context(_STYLE):
        figure = new_figure(figsize=(15, max(5.2, 2.0 + 0.42 * len(shown))))
        left, right = figure.subplots(1, 2, width_ratios=(1, 1.25))
        _draw_all(left, search)
        _draw_stages(right, search, shown)
        figure.suptitle(f"Students measured on case {search.case}: {limits_text(search.found.limits)}")
        handles = [mpl.patches.Patch(color=colour, label=stage) for stage, colour in _STAGES.items()]
        figure.legend(handles=handles, loc="outside lower right", ncols=len(handles), frameon=False)
        save_figure(figure, file, dpi=130)


def _colour(search: Search, candidate: Candidate) -> str:
    if candidate == search.found.chosen:
        return _CHOSEN
    return _OVER if search.found.limits.over(search.found.measured[candidate]) else _KEPT


def _draw_all(axes: Axes, search: Search) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    groups = {_OVER: "over the budget", _KEPT: "kept, but smaller", _CHOSEN: "chosen"}
    for colour, label in groups.items():
        members = [c for c in search.found.measured if _colour(search, c) == colour]
        if members:
            axes.scatter(
                [search.found.measured[c].seconds for c in members],
                [c.size for c in members],
                s=190 if colour == _CHOSEN else 75,
                marker="*" if colour == _CHOSEN else "o",
                color=colour,
                label=label,
                zorder=3,
            )
    axes.set_xscale("log")
    axes.set_yscale("log")
    # plain numbers, also between the powers of ten
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    if isfinite(search.found.limits.seconds):
        axes.axvline(search.found.limits.seconds, color=_LIMIT, linestyle="--", linewidth=1.2, label="limit of seconds")
    axes.grid(which="major", color="#DDDDDD", linewidth=0.7, zorder=0)
    axes.set_xlabel("seconds for the case, start-up apart")
    axes.set_ylabel("parameters x resolution")
    axes.set_title("Every measured student", loc="left")
    axes.legend(frameon=False, loc="upper left")


def _nearest(search: Search) -> list[Candidate]:
    """Return the measured candidates to draw as bars, the smallest first."""
    measured = [c for c in search.found.candidates if c in search.found.measured]
    reference = search.found.chosen or search.found.cheapest()
    if reference is None:
        return []
    place = measured.index(reference)
    kept = sorted(measured, key=lambda c: abs(measured.index(c) - place))[:_MOST_BARS]
    return [c for c in measured if c in kept]


def _draw_stages(axes: Axes, search: Search, shown: Sequence[Candidate]) -> None:
    longest = max((search.found.measured[c].seconds for c in shown), default=1.0)
    limit = search.found.limits.seconds
    # bars far over the limit would leave no room to read those near it
    edge = min(longest, 2.5 * limit) if isfinite(limit) else longest
    for row, candidate in enumerate(shown):
        taken = search.found.measured[candidate]
        left = 0.0
        for stage, seconds in _parts(taken).items():
            axes.barh(row, max(min(seconds, edge - left), 0.0), left=left, height=0.68, color=_STAGES[stage])
            left = min(left + seconds, edge)
        more = " (cut)" if taken.seconds > edge else ""
        axes.text(left + 0.01 * edge, row, f"{taken.seconds:.3g} s{more}", va="center", color=_DARK, bbox=_PLAIN)
    if isfinite(limit):
        axes.axvline(limit, color=_LIMIT, linestyle="--", linewidth=1.2)
    axes.set_xlim(0, 1.22 * edge)
    axes.set_yticks(range(len(shown)), [candidate.name for candidate in shown])
    for label, candidate in zip(axes.get_yticklabels(), shown, strict=True):
        if candidate == search.found.chosen:
            label.set_color(_CHOSEN)
            label.set_fontweight("bold")
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("seconds")
    axes.set_title("Where they go", loc="left")


def _parts(taken: Measurement) -> dict[str, float]:
    parts = {**taken.stages, "network": taken.network_seconds}
    return {stage: parts[stage] for stage in _STAGES}
