"""Two curves of every acceleration: the error of the power spectrum, and the error against the spread of samples."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nnunet_kd.evaluation.plots import COLOURS, DARK, GREY, MARKERS
from nnunet_kd.figures import new_figure, save_figure
from nnunet_kd.recon.evaluation.invention.measures import MEAN, SAMPLE
from nnunet_kd.recon.evaluation.invention.spread import calibration_curve, expected_error

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from nnunet_kd.recon.evaluation.invention.report import ArmReport, Findings

_LIMIT = 20.0  # dB; a zero-filled image would make everything else a straight line


def plot_curves(findings: "Findings", file: Path) -> None:
    """Draw both curves as PNG, one row for each acceleration."""
    groups = findings.groups
    calibrated = any(found.moments is not None for found in findings.arms)
    figure = new_figure(figsize=(11 if calibrated else 6.5, 4.2 * len(groups)))
    grid = figure.subplots(len(groups), 2 if calibrated else 1, squeeze=False)
    names = list(dict.fromkeys(found.arm.name for found in findings.arms))
    for row, (rate, arms) in zip(grid, groups.items(), strict=True):
        where = "" if rate is None else f", x{rate:g}"
        _draw_spectra(row[0], arms, names, where)
        if calibrated:
            _draw_calibration(row[1], arms, names, where)
    save_figure(figure, file, dpi=130)


def _style(name: str, names: Sequence[str]) -> tuple[str, str]:
    number = names.index(name)
    return COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]


def _draw_spectra(axes: "Axes", arms: Sequence["ArmReport"], names: Sequence[str], where: str) -> None:
    for found in arms:
        colour, _ = _style(found.arm.name, names)
        for kind in found.kinds:
            error = found.spectrum(kind)
            centres = (np.arange(len(error)) + 0.5) / len(error)
            label = found.arm.name if kind == SAMPLE else f"{found.arm.name}, {MEAN}"
            axes.plot(centres, error, color=colour, linestyle="-" if kind == SAMPLE else ":", linewidth=2, label=label)
    axes.axhline(0, color=GREY, linewidth=1, linestyle="--")
    low, high = axes.get_ylim()
    axes.set_ylim(max(min(low, -1.0), -_LIMIT), min(max(high, 1.0), _LIMIT))
    axes.set_xlim(0, 1)
    axes.set_xlabel("spatial frequency, share of Nyquist")
    axes.set_ylabel("power against the target [dB]")
    axes.set_title(f"Power spectrum{where}: below 0 too smooth, above too rough", fontsize=10, loc="left")
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8, frameon=False)


def _draw_calibration(axes: "Axes", arms: Sequence["ArmReport"], names: Sequence[str], where: str) -> None:
    shown = [(found, found.moments) for found in arms]
    ends: list[float] = []
    for found, pooled in shown:
        if pooled is None or not (curve := calibration_curve(pooled)):
            continue
        colour, marker = _style(found.arm.name, names)
        expected = [expected_error(spread, pooled.n_samples) for spread, _, _ in curve]
        errors = [error for _, error, _ in curve]
        axes.plot(expected, errors, color=colour, marker=marker, label=f"{found.arm.name}, {pooled.n_samples} samples")
        ends += [*expected, *errors]
    if not ends:
        axes.set_axis_off()
        axes.text(0.5, 0.5, "one sample per arm: no spread", ha="center", color=DARK, transform=axes.transAxes)
        return
    limits = (max(min(ends), 1e-5) / 1.5, max(ends) * 1.5)
    axes.plot(limits, limits, color=GREY, linewidth=1, linestyle="--")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("error expected of the spread (share of the largest value)")
    axes.set_ylabel("error of the samples' mean (the same)")
    axes.set_title(f"Spread against error{where}: above the line too sure", fontsize=10, loc="left")
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8, frameon=False)
