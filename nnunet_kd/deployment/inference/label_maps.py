"""Label maps on another grid, as nnU-Net resamples the previous stage's segmentation of a cascade."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_kd.deployment.inference.plan import Resampling
from nnunet_kd.deployment.inference.resampling import separate_axis

Labels = NDArray[np.floating]


def resample_labels(
    labels: Labels,
    target: Sequence[int],
    spacing: Sequence[float],
    new_spacing: Sequence[float],
    settings: Resampling,
) -> Labels:
    """Bring a label map to another grid: each label's indicator is interpolated, the largest wins.

    Ties go to the nearest voxel's label if it is one of those tied, else to the smallest (batchgenerators 0.25.5).
    SciPy's own interpolation is called here, because ties are exact equalities of what it returns.

    Args:
        labels: ``(x, y, z)``; -1 is a label as others are.
        target: Shape of the result.
        spacing: Before, millimetres.
        new_spacing: After.
        settings: The resampling of the plans.

    Returns:
        Labels of the same type.
    """
    if settings.name == "no_resampling_hack" or tuple(labels.shape) == tuple(target):
        return labels
    axis = separate_axis(spacing, new_spacing, settings)
    if axis is None:
        return _resized(labels, target, settings.order)
    plane = [n for other, n in enumerate(target) if other != axis]
    slices = [_resized(piece, plane, settings.order) for piece in np.moveaxis(labels, axis, 0)]
    stacked = np.stack(slices, axis=axis)
    return stacked if stacked.shape[axis] == target[axis] else _along_axis(stacked, target, settings.order_z)


def _resized(labels: Labels, target: Sequence[int], order: int) -> Labels:
    if order == 0:
        return _zoomed(labels, target, 0).astype(labels.dtype)
    found = np.unique(labels)
    if len(found) == 1:
        return np.full(target, found[0], dtype=labels.dtype)
    return _winner(found, lambda label: _zoomed(labels == label, target, order), _zoomed(labels, target, 0))


def _winner(found: Labels, score_of: Callable[[float], NDArray[np.float64]], nearest: Labels) -> Labels:
    """Return the label of the largest score, keeping one score besides the best so far."""
    best = score_of(found[0])
    label = np.full(best.shape, found[0], dtype=found.dtype)
    on_top = (nearest == found[0]) & (best > 0)
    for value in found[1:]:
        score = score_of(value)
        is_nearest = nearest == value
        on_top |= (score == best) & (score > 0) & is_nearest
        better = score > best
        np.copyto(on_top, is_nearest, where=better)
        np.copyto(label, value, where=better)
        np.maximum(best, score, out=best)
    np.copyto(label, nearest.astype(found.dtype), where=on_top)
    return label


def _zoomed(values: NDArray[np.generic], target: Sequence[int], order: int) -> NDArray[np.float64]:
    """Do what ``skimage.transform.resize(mode="edge", anti_aliasing=False)`` does, without loading it."""
    from scipy import ndimage

    sampling: Any = ndimage  # its stubs take orders as literals
    image = values.astype(np.float64)
    factors = [1 / (before / after) for before, after in zip(image.shape, target, strict=True)]
    zoomed: NDArray[np.float64] = sampling.zoom(image, factors, order=order, mode="nearest", grid_mode=True)
    return np.clip(zoomed, image.min(), image.max(), out=zoomed)


def _along_axis(labels: Labels, target: Sequence[int], order: int) -> Labels:
    from scipy import ndimage

    sampling: Any = ndimage
    scales = [float(before) / after for before, after in zip(labels.shape, target, strict=True)]
    grid = np.meshgrid(
        *(scale * (np.arange(n) + 0.5) - 0.5 for scale, n in zip(scales, target, strict=True)), indexing="ij"
    )
    values = labels.astype(np.float64)
    if order == 0:
        nearest: Labels = sampling.map_coordinates(values, grid, order=0, mode="nearest").astype(labels.dtype)
        return nearest
    result = np.zeros(target, dtype=labels.dtype)
    for label in np.unique(labels):
        indicator = (values == label).astype(np.float64)
        result[np.round(sampling.map_coordinates(indicator, grid, order=order, mode="nearest")) > 0.5] = label
    return result
