"""Slices as a radiologist looks at them: image, error, unsupported detail, added detail, where samples differ."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nnunet_kd.figures import new_figure, save_figure
from nnunet_kd.recon.evaluation.invention.case_files import read_images
from nnunet_kd.recon.evaluation.invention.detail import injected_detail, sample_mean
from nnunet_kd.recon.evaluation.invention.measures import SAMPLE
from nnunet_kd.recon.evaluation.invention.scan import scan
from nnunet_kd.recon.evaluation.invention.spread import pixel_spread
from nnunet_kd.recon.evaluation.pictures import ERROR_GAIN, shown_slice

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from nnunet_kd.recon.evaluation.invention.report import ArmReport, Findings

Image = NDArray[np.floating[Any]]
MARK = "#FF3B30"


@dataclass(frozen=True, kw_only=True)
class Panel:
    """What is shown of an arm in one slice, ``(H, W)`` each.

    Attributes:
        image: The first sample.
        marked: Where the truth does not support its detail.
        detail: What it added to the baseline or the samples' mean; ``None`` if there is neither.
        spread: Standard deviation over samples; ``None`` for one.
    """

    image: Image
    marked: NDArray[np.bool_]
    detail: Image | None
    spread: Image | None


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A file and what it shows.

    Attributes:
        file: Name.
        caption: Case, slice, and why that one.
    """

    file: str
    caption: str


def plot_slices(findings: "Findings", folder: Path, prefix: str) -> dict[float | None, list[Picture]]:
    """Draw two slices of every acceleration: a middle one that nobody chose, and the one with the most marks.

    Args:
        findings: What was found.
        folder: Where to write.
        prefix: Of the file names.

    Returns:
        The pictures of each acceleration.
    """
    pictures: dict[float | None, list[Picture]] = {}
    for rate, arms in findings.groups.items():
        part = "" if rate is None else f"x{rate:g}_"
        chosen = {"middle": _median_case(arms, findings.inquiry.baseline)}
        worst = _most_marked(arms, findings.inquiry.baseline)
        if worst is not None:
            chosen["most_marked"] = worst
        pictures[rate] = []
        for why, (case, number) in chosen.items():
            name = f"{prefix}{part}{why}.png"
            caption = _plot_case(arms, case, number, folder / name, _REASONS[why])
            pictures[rate].append(Picture(file=name, caption=caption))
    return pictures


_REASONS = {"middle": "the middle slice of the median case", "most_marked": "the slice with the most marked pixels"}


def _median_case(arms: Sequence["ArmReport"], baseline: str | None) -> tuple[str, int | None]:
    """Return the case whose PSNR (or first score) under the baseline, or the first arm, is the median."""
    found = next((arm for arm in arms if arm.arm.name == baseline), arms[0])
    scores = found.cases[next(iter(found.cases))].scores[SAMPLE]
    order = np.argsort(found.values(SAMPLE, "PSNR" if "PSNR" in scores else next(iter(scores))))
    return list(found.cases)[int(order[len(order) // 2])], None


def _most_marked(arms: Sequence["ArmReport"], baseline: str | None) -> tuple[str, int] | None:
    others = [arm for arm in arms if arm.arm.name != baseline] or list(arms)
    share, case, number = max(
        (float(result.marked.max()), case, int(result.marked.argmax()))
        for arm in others
        for case, result in arm.cases.items()
    )
    return (case, number) if share > 0 else None


def _plot_case(arms: Sequence["ArmReport"], case: str, number: int | None, file: Path, why: str) -> str:
    panels: dict[str, Panel] = {}
    target: Image = np.zeros((0, 0, 0))
    for found in arms:
        images = read_images(found.job, case)
        target = images.target
        number = shown_slice(target) if number is None else number
        one = slice(number, number + 1)
        several = len(images.samples) > 1
        samples = [sample[one] for sample in images.samples]
        base = images.base[one] if images.base is not None else sample_mean(samples) if several else None
        top = float(target.max())
        panels[found.arm.name] = Panel(
            image=samples[0][0],
            marked=_marked(target, images.samples[0], number, found.job.scan),
            detail=None if base is None else injected_detail(samples[0], base)[0] / top,
            spread=pixel_spread(samples)[0] / top if several else None,
        )
    caption = f"{case}, slice {number} of {len(target)}: {why}"
    plot_panels(target[number or 0], panels, file, top=float(target.max()), title=caption)
    return caption


def _marked(target: Image, sample: Image, number: int, settings: Any) -> NDArray[np.bool_]:  # noqa: ANN401
    """Scan one slice on the scale of its volume, so that the marks are those of the tables."""
    from dataclasses import replace

    one = slice(number, number + 1)
    share = float(target.max()) / (float(target[one].max()) or 1.0)
    return np.asarray(
        scan(target[one], sample[one], replace(settings, floor=min(1.0, settings.floor * share))).marked[0]
    )


def plot_panels(target: Image, panels: Mapping[str, Panel], file: Path, *, top: float, title: str = "") -> None:
    """Draw a slice: one column per arm, one row per question.

    Args:
        target: ``(H, W)``.
        panels: Arm to what is shown of it.
        file: PNG to write.
        top: White of the images; errors are white at a fifth of it.
        title: Above all.
    """
    rows = _rows(target, panels, top)
    ratio = target.shape[0] / target.shape[1]
    n_columns = 1 + len(panels)
    figure = new_figure(figsize=(2.6 * n_columns + 0.4, 2.6 * ratio * len(rows) + 0.9))
    grid = figure.subplots(len(rows), n_columns, squeeze=False)
    for axes in grid.ravel():
        axes.set_axis_off()
    for line, (words, draw) in zip(grid, rows.items(), strict=True):
        line[0].text(0.5, 0.5, words, transform=line[0].transAxes, ha="center", va="center", fontsize=9)
        drawn = [draw(axes, panel) for axes, panel in zip(line[1:], panels.values(), strict=True)]
        scale = next((image for image in drawn if image is not None), None)
        if scale is not None:
            inset = line[0].inset_axes((0.1, 0.2, 0.8, 0.06))
            bar = figure.colorbar(scale, cax=inset, orientation="horizontal")
            bar.ax.tick_params(labelsize=7)
            bar.ax.locator_params(nbins=3)
    grid[0, 0].texts[0].remove()
    _gray(grid[0, 0], target, top)
    grid[0, 0].set_title("target", fontsize=10)
    for axes, name in zip(grid[0, 1:], panels, strict=True):
        axes.set_title(name, fontsize=10)
    figure.suptitle(title, fontsize=10)
    save_figure(figure, file, dpi=140)


Draw = Callable[["Axes", Panel], Any]


def _rows(target: Image, panels: Mapping[str, Panel], top: float) -> dict[str, Draw]:
    """Return the words beside each row, and what draws its images; rows that no arm has are left out."""
    rows: dict[str, Draw] = {
        "": lambda axes, panel: _gray(axes, panel.image, top),
        "absolute error\n(share of the largest value)": lambda axes, panel: axes.imshow(
            np.abs(panel.image - target) / top, cmap="inferno", vmin=0, vmax=1 / ERROR_GAIN
        ),
        "red: detail that\nthe target does not support\n(local ring correlation)": _draw_marks(top),
    }
    details = [np.abs(panel.detail).max() for panel in panels.values() if panel.detail is not None]
    if details:
        rows["added detail\nred: brighter, blue: darker"] = _shown("detail", "RdBu_r", -max(details), max(details))
    spreads = [panel.spread.max() for panel in panels.values() if panel.spread is not None]
    if spreads:
        rows["standard deviation\nover samples"] = _shown("spread", "viridis", 0.0, max(spreads))
    return rows


def _gray(axes: "Axes", image: Image, top: float) -> None:
    axes.imshow(image, cmap="gray", vmin=0, vmax=top, interpolation="nearest")


def _draw_marks(top: float) -> Draw:
    def draw(axes: "Axes", panel: Panel) -> None:
        _gray(axes, panel.image, top)
        if panel.marked.any():
            red = np.zeros((*panel.marked.shape, 4))
            red[panel.marked] = (1.0, 0.23, 0.19, 0.3)
            axes.imshow(red, interpolation="nearest")
            axes.contour(panel.marked, levels=[0.5], colors=MARK, linewidths=1.2)

    return draw


def _shown(name: str, colours: str, low: float, high: float) -> Draw:
    def draw(axes: "Axes", panel: Panel) -> Any:  # noqa: ANN401  # an image, or nothing
        values = getattr(panel, name)
        if values is None:
            axes.text(0.5, 0.5, "-", transform=axes.transAxes, ha="center")
            return None
        return axes.imshow(values, cmap=colours, vmin=low, vmax=high or 1.0, interpolation="nearest")

    return draw
