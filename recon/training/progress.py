"""The picture of a training, ``progress.png``: losses, scores, seconds per epoch, learning rate."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from nnunet_kd.evaluation.plots import COLOURS
from nnunet_kd.figures import new_figure, save_figure
from nnunet_kd.recon.training.log import LOSS, PART, RATE, SCORE, EpochLog

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes


def plot_progress(log: EpochLog, path: Path) -> None:
    """Draw the epochs so far and write the picture.

    Args:
        log: At least one epoch.
        path: A file ending in ``.png``; written under another name and renamed.
    """
    from matplotlib.ticker import MaxNLocator

    figure = new_figure(figsize=(12, 18))
    losses, scores, times, rates = figure.subplots(4, 1, sharex=True)
    parts = {f"{name.removeprefix(PART)}, unweighted": row for name, row in _starting(log, PART).items()}
    _draw(losses, "training loss", {"minimised sum": log.values[LOSS], **(parts if len(parts) > 1 else {})})
    measured = {name.removeprefix(SCORE): row for name, row in _starting(log, SCORE).items()}
    _draw(scores, "validation PSNR [dB]", {name: row for name, row in measured.items() if name.startswith("PSNR")})
    if "SSIM" in measured:
        _draw(scores.twinx(), "validation SSIM", {"SSIM": measured["SSIM"]}, first=1)
    _draw(times, "epoch duration [s]", {"": log.durations()})
    _draw(rates, "learning rate", {"": log.values[RATE]})
    times.set_ylim(bottom=0)
    rates.set_xlabel("epoch")
    rates.xaxis.set_major_locator(MaxNLocator(integer=True))
    save_figure(figure, path, dpi=80)


def _starting(log: EpochLog, prefix: str) -> "dict[str, list[float]]":
    return {name: row for name, row in log.values.items() if name.startswith(prefix)}


def _draw(axes: "Axes", label: str, curves: "Mapping[str, Sequence[float]]", first: int = 0) -> None:
    for number, (name, row) in enumerate(curves.items(), start=first):
        axes.plot(range(len(row)), row, color=COLOURS[number % len(COLOURS)], label=name or label, marker=".")
    axes.set_ylabel(label)
    if any(curves):  # above the panel, where it covers no curve
        side: Literal["lower right", "lower left"] = "lower right" if first else "lower left"
        axes.legend(loc=side, bbox_to_anchor=(1.0 if first else 0.0, 1.0), ncols=4, frameon=False)
