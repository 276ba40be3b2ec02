"""The training log with the distillation terms in it, and its picture ``progress.png``."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from nnunetv2.training.logging.nnunet_logger import LocalLogger

from nnunet_kd.figures import new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PREFIX = "kd_"
SUPERVISION = "supervision"  # nnU-Net's own loss among the parts


class DistillationLogger(LocalLogger):
    """nnU-Net's local log with one more list per part of the objective.

    Args:
        parts: Names of the parts, e.g. ``supervision`` and ``logits_kl``.
    """

    def __init__(self, parts: Sequence[str]) -> None:
        super().__init__()
        self.parts = list(parts)
        self._add_parts()

    def _add_parts(self) -> None:
        # nnU-Net takes the shortest list for the number of epochs, so a log from before gets NaN for what it lacks
        n_epochs = len(self.my_fantastic_logging["train_losses"])
        for part in self.parts:
            values = self.my_fantastic_logging.setdefault(PREFIX + part, [])
            values.extend([float("nan")] * (n_epochs - len(values)))

    def load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take over a stored log; parts that it lacks start with NaN, parts not in use are dropped."""
        known = {PREFIX + part for part in self.parts}
        kept = {key: values for key, values in checkpoint.items() if not key.startswith(PREFIX) or key in known}
        super().load_checkpoint(kept)
        self._add_parts()

    def plot_progress_png(self, output_folder: str) -> None:
        """Write ``progress.png``: nnU-Net's panels with the parts of the objective apart.

        The first panel compares like with like: nnU-Net's loss in training and in validation. What is minimised
        holds the distillation too, and would seem to diverge where a term's weight rises.
        """
        from matplotlib.ticker import MaxNLocator

        log = self.my_fantastic_logging
        n_epochs = min(len(values) for values in log.values())
        terms = [part for part in self.parts if part != SUPERVISION]
        figure = new_figure(figsize=(12, 18))
        losses, parts, times, rates = figure.subplots(4, 1, sharex=True)
        supervision = {"nnU-Net's loss, training": log[PREFIX + SUPERVISION], "validation": log["val_losses"]}
        _draw(losses, "nnU-Net's loss", supervision, n_epochs)
        dice = losses.twinx()
        _draw(
            dice,
            "pseudo Dice",
            {"pseudo Dice": log["mean_fg_dice"], "its average": log["ema_fg_dice"]},
            n_epochs,
            first=2,
        )
        distilled = {f"{term}, unweighted": log[PREFIX + term] for term in terms}
        _draw(parts, "training loss", {"minimised sum": log["train_losses"], **distilled}, n_epochs)
        stamps = zip(log["epoch_end_timestamps"], log["epoch_start_timestamps"], strict=False)
        _draw(times, "epoch duration [s]", {"": [end - start for end, start in stamps]}, n_epochs)
        _draw(rates, "learning rate", {"": log["lrs"]}, n_epochs)
        times.set_ylim(0, 1.1 * times.get_ylim()[1])
        rates.set_xlabel("epoch")
        rates.xaxis.set_major_locator(MaxNLocator(integer=True))
        save_figure(figure, Path(output_folder) / "progress.png", dpi=80)


def _draw(axes: "Axes", label: str, curves: dict[str, list[float]], n_epochs: int, first: int = 0) -> None:
    colours = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
    style = "." if n_epochs == 1 else None
    for i, (name, values) in enumerate(curves.items()):
        colour = colours[(first + i) % len(colours)]
        axes.plot(np.arange(n_epochs), values[:n_epochs], color=colour, label=name or label, marker=style)
    axes.set_ylabel(label)
    if any(curves):  # above the panel, where it covers no curve
        side: Literal["lower right", "lower left"] = "lower right" if first else "lower left"
        axes.legend(loc=side, bbox_to_anchor=(1.0 if first else 0.0, 1.0), ncols=4, frameon=False)
