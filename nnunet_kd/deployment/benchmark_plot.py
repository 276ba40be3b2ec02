"""One picture of a benchmark: start-up, seconds per case by stage, and where each model's time goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunet_kd.deployment.benchmark_report import Benchmark, significant
from nnunet_kd.deployment.stage_times import STAGES, START_UP
from nnunet_kd.figures import new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours that stay apart for every kind of colour vision
_COLOURS = {
    "libraries": "#666666",
    "model": "#BBBBBB",
    "load": "#56B4E9",
    "preprocess": "#E69F00",
    "network": "#0072B2",
    "resample": "#D55E00",
    "write": "#009E73",
}
_BRIGHT = ("load", "preprocess")  # colours that white letters do not stand out from
_DARK = "#222222"
_STYLE: dict[Any, Any] = {"font.size": 12, "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 13}
_ROOM = 1.45  # of the longest bar, for the numbers beside it
_NARROW = 0.09  # shares below this have no room for their number


def plot_benchmark(found: Benchmark, file: Path) -> None:
    """Draw a benchmark as PNG.

    Left what each process costs once, in the middle what each case costs, both stacked by part with the median of the
    whole beside the bar; right the stages as shares of a case, where fast models can be read, too.
    """
    import matplotlib as mpl

    times = found.times
    first = next(iter(times))
    start_ups = {name: {part: one.start_up_parts[part].median for part in START_UP} for name, one in times.items()}
    cases = {name: {stage: one.stages[stage].median for stage in STAGES} for name, one in times.items()}
    # no pyplot: it would keep the figure and choose a window system
    with mpl.rc_context(_STYLE):
        figure = new_figure(figsize=(15, 2.4 + 0.62 * len(times)))
        left, middle, right = figure.subplots(1, 3, sharey=True)
        _draw_stacks(left, start_ups, [f"{significant(one.start_up.median)} s" for one in times.values()])
        _draw_stacks(
            middle,
            cases,
            [
                f"{significant(one.case.median)} s" + ("" if name == first else f", {significant(one.speed.median)} x")
                for name, one in times.items()
            ],
        )
        _draw_shares(right, cases)
        left.set_title("Start-up, once per process", loc="left")
        middle.set_title("Each case after that", loc="left")
        middle.set_xlabel(f"seconds (medians); x: times as fast as {_cut(first)}")
        right.set_title("A case by stage", loc="left")
        left.set_yticks(range(len(times)), [_cut(name) for name in times])
        left.invert_yaxis()
        handles = [mpl.patches.Patch(color=colour, label=part) for part, colour in _COLOURS.items()]
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
        save_figure(figure, file, dpi=130)


def _draw_stacks(axes: Axes, parts: Mapping[str, Mapping[str, float]], labels: Sequence[str]) -> None:
    ends = [sum(values.values()) for values in parts.values()]
    for row, (values, end, label) in enumerate(zip(parts.values(), ends, labels, strict=True)):
        _draw_bar(axes, row, values)
        axes.text(end + 0.015 * max(ends), row, label, va="center", color=_DARK)
    axes.set_xlim(0, _ROOM * max(ends))
    axes.set_xlabel("seconds (medians)")
    axes.tick_params(axis="y", length=0)


def _draw_shares(axes: Axes, parts: Mapping[str, Mapping[str, float]]) -> None:
    for row, values in enumerate(parts.values()):
        total = sum(values.values())
        shares = {part: value / total for part, value in values.items()}
        _draw_bar(axes, row, shares)
        left = 0.0
        for part, share in shares.items():
            colour = _DARK if part in _BRIGHT else "white"
            if share >= _NARROW:
                axes.text(left + share / 2, row, f"{share:.0%}", ha="center", va="center", color=colour, weight="bold")
            left += share
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_xlabel("share of a case's seconds")
    axes.tick_params(axis="y", length=0)


def _draw_bar(axes: Axes, row: int, values: Mapping[str, float]) -> None:
    left = 0.0
    for part, value in values.items():
        axes.barh(row, value, left=left, height=0.62, color=_COLOURS[part], linewidth=0)
        left += value


def _cut(name: str, longest: int = 28) -> str:
    return name if len(name) <= longest else f"{name[: longest - 1]}…"
