"""One slice as people look at it: truth, arms, their errors, a zoom; k-space and mask where they are known."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nnunet_kd.evaluation.report import PICTURES
from nnunet_kd.figures import new_figure, save_figure
from nnunet_kd.recon.evaluation.metrics import centre_crop, psnr
from nnunet_kd.recon.evaluation.volumes import fitting, read_prediction, read_target, slice_axis

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

(PICTURE,) = PICTURES
ERROR_GAIN = 5.0  # errors are shown so many times brighter than the images

Image = NDArray[np.floating[Any]]


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How a slice was measured, for the picture.

    Attributes:
        kspace: Magnitude of the measured k-space, ``(H, W)``, centred, combined over coils.
        mask: ``(H or 1, W or 1)``.
        image: Zero-filled magnitude, which networks begin with, ``(H, W)``.
        acceleration: The true one.
        arm: Whose it is, where the arms' masks differ; else empty.
    """

    kspace: Image
    mask: Image
    image: Image
    acceleration: float
    arm: str = ""


def shown_slice(target: Image) -> int:
    """Return the slice of the middle, the one nobody chose."""
    return len(target) // 2


def zoom_window(target: Image, share: float = 0.3) -> tuple[slice, slice]:
    """Return the window of a slice with the strongest edges, ``share`` of each side.

    Args:
        target: ``(H, W)``.
        share: In (0, 1].
    """
    from scipy.ndimage import uniform_filter

    size = tuple(max(1, round(length * share)) for length in target.shape)
    vertical, horizontal = np.gradient(target.astype(np.float64))
    edges = uniform_filter(np.hypot(vertical, horizontal), size=size, mode="constant")
    top, left = (
        int(np.clip(centre - length // 2, 0, whole - length))
        for centre, length, whole in zip(
            np.unravel_index(int(edges.argmax()), edges.shape), size, target.shape, strict=True
        )
    )
    return slice(top, top + size[0]), slice(left, left + size[1])


def plot_slice(
    target: Image, arms: Mapping[str, Image], file: Path, *, sampling: Sampling | None = None, title: str = ""
) -> None:
    """Draw a slice: truth and arms above, their errors below, then the window with the strongest edges.

    Args:
        target: ``(H, W)``.
        arms: Name to reconstruction, same shape and scale.
        file: PNG to write.
        sampling: Adds a column with input, k-space and mask.
        title: Above all.
    """
    n_columns = 1 + len(arms) + (sampling is not None)
    ratio = target.shape[0] / target.shape[1]
    figure = new_figure(figsize=(2.5 * n_columns + 0.6, 2.5 * ratio * 3 + 1.0))
    grid = figure.subplots(3, n_columns, squeeze=False)
    for axes in grid.ravel():
        axes.set_axis_off()
    first = 0 if sampling is None else 1
    if sampling is not None:
        _draw_sampling(grid[:, 0], sampling, target)
    window, top = zoom_window(target), float(target.max()) or 1.0
    _draw_image(grid[0, first], target, top, "target")
    _draw_frame(grid[0, first], window)
    _draw_image(grid[2, first], target[window], top, "zoom")
    for column, (name, image) in enumerate(arms.items(), first + 1):
        score = psnr(target[None], image[None])
        _draw_image(grid[0, column], image, top, f"{name}\n{score:.2f} dB (slice)")
        error = grid[1, column].imshow(np.abs(image - target), cmap="inferno", vmin=0, vmax=top / ERROR_GAIN)
        _draw_image(grid[2, column], image[window], top, "")
    _draw_scale(figure, grid[1, first], error if arms else None, target.shape)
    if title:
        figure.suptitle(title, fontsize=10)
    save_figure(figure, file, dpi=140)


def _draw_image(axes: "Axes", image: Image, top: float, title: str) -> None:
    axes.imshow(image, cmap="gray", vmin=0, vmax=top, interpolation="nearest")
    axes.set_title(title, fontsize=10)


def _draw_frame(axes: "Axes", window: tuple[slice, slice]) -> None:
    from matplotlib.patches import Rectangle

    rows, columns = window
    place = (columns.start - 0.5, rows.start - 0.5)
    size = (columns.stop - columns.start, rows.stop - rows.start)
    axes.add_patch(Rectangle(place, *size, fill=False, edgecolor="#E69F00", linewidth=1.5))


def _draw_scale(figure: "Figure", axes: "Axes", error: Any, shape: tuple[int, ...]) -> None:  # noqa: ANN401
    """Put the scale of the errors where the target would have its own, which is nothing."""
    axes.imshow(np.ones(shape), cmap="gray", vmin=0, vmax=1, alpha=0)
    axes.text(0.5, 0.9, "absolute error", transform=axes.transAxes, ha="center", va="top", fontsize=10)
    if error is not None:
        inset = axes.inset_axes((0.1, 0.45, 0.8, 0.09))
        bar = figure.colorbar(error, cax=inset, orientation="horizontal")
        bar.ax.tick_params(labelsize=8)
        bar.ax.locator_params(nbins=3)


def _draw_sampling(column: "NDArray[Any]", sampling: Sampling, target: Image) -> None:
    image = centre_crop(sampling.image, (target.shape[0], target.shape[1]))
    if image.shape == target.shape:
        whose = f" of {sampling.arm}" if sampling.arm else ""
        score = psnr(target[None], image[None])
        _draw_image(column[0], image, float(target.max()) or 1.0, f"input{whose}, zero-filled\n{score:.2f} dB (slice)")
    kspace = np.log10(np.maximum(sampling.kspace, sampling.kspace.max() * 1e-4 or 1e-12))
    column[1].imshow(kspace, cmap="gray", interpolation="nearest")
    column[1].set_title("measured k-space (log)", fontsize=10)
    mask = np.broadcast_to(sampling.mask, sampling.kspace.shape)
    column[2].imshow(mask, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    column[2].set_title(f"mask, true R {sampling.acceleration:.2f}", fontsize=10)
    for axes in column[1:]:
        axes.set_axis_on()
        axes.set_xticks([])
        axes.set_yticks([])


def plot_case(
    reference: Path,
    predictions: Mapping[str, Path],
    file: Path,
    *,
    crop: int | None = None,
    sampled: Callable[[int], Sampling | None] | None = None,
) -> None:
    """Draw the middle slice of a case.

    Args:
        reference: File with the target.
        predictions: Arm to file of its reconstruction.
        file: PNG to write.
        crop: Side of the square that is shown.
        sampled: Returns how a slice was measured, if known, of its number.

    Raises:
        UsageError: If a file cannot be read or volumes do not fit.
    """
    target = read_target(reference)
    arms = {}
    true = target
    for name, source in predictions.items():
        true, found = fitting(target, read_prediction(source, slice_axis(reference)), crop, source)
        arms[name] = found
    number = shown_slice(true)
    title = f"{reference.name.split('.')[0]}, slice {number} of {len(true)} (the middle one)"
    shown = {name: volume[number] for name, volume in arms.items()}
    sampling = None if sampled is None else sampled(number)
    plot_slice(true[number], shown, file, sampling=sampling, title=title)
