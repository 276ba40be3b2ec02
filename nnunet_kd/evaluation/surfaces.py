"""Distances between the surfaces of two masks, in the two ways that challenges measure them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nnunet_kd.optional import require

Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class SurfaceScores:
    """How far two surfaces are apart.

    Attributes:
        hd95: Larger of the two 95th percentiles of the distances, in mm; infinite if one mask is empty.
        surface_dice: Share of both surfaces' areas within the tolerance; 0 if one mask is empty.
    """

    hd95: float
    surface_dice: float


def surface_scores(
    reference: Mask, prediction: Mask, spacing: Sequence[float], *, tolerance: float = 1.0
) -> SurfaceScores:
    """Compare the surfaces of two masks as DeepMind's library does.

    A surface is made of elements between voxels, weighted by their area; distances lie between their centres.

    Args:
        reference: The truth, 3-D.
        prediction: Of the same shape.
        spacing: Voxel size in mm, in array order.
        tolerance: In mm, for the surface Dice; a distance equal to it is within.

    Returns:
        See :class:`SurfaceScores`; both ``nan`` if both masks are empty.

    References:
        Nikolov et al., Deep learning to achieve clinically applicable segmentation of head and neck anatomy for
        radiotherapy, 2018, https://arxiv.org/abs/1809.04430; code https://github.com/google-deepmind/surface-distance
    """
    if not (reference.any() or prediction.any()):
        return SurfaceScores(hd95=float("nan"), surface_dice=float("nan"))
    if not (reference.any() and prediction.any()):
        # the library's last release reaches for numpy.Inf here, which NumPy 2 has no longer
        return SurfaceScores(hd95=float("inf"), surface_dice=0.0)
    library = require("surface_distance")  # DeepMind's
    with warnings.catch_warnings():
        # that release imports SciPy's functions from places that SciPy 2 will close
        warnings.simplefilter("ignore", DeprecationWarning)
        distances = library.compute_surface_distances(reference, prediction, [float(size) for size in spacing])
    return SurfaceScores(
        hd95=float(library.compute_robust_hausdorff(distances, 95)),
        surface_dice=float(library.compute_surface_dice_at_tolerance(distances, tolerance)),
    )


def _border(mask: Mask, connectivity: int) -> Mask:
    from scipy.ndimage import binary_erosion, generate_binary_structure

    return np.asarray(mask & ~binary_erosion(mask, generate_binary_structure(mask.ndim, connectivity)))


def _around(first: Mask, second: Mask) -> tuple[Mask, Mask]:
    """Crop to the box that holds both masks, which keeps their borders: what is outside counts as background."""
    from scipy.ndimage import find_objects

    box = find_objects((first | second).astype(np.uint8))[0]
    return first[box], second[box]


def border_distances(
    reference: Mask, prediction: Mask, spacing: Sequence[float], *, connectivity: int = 1
) -> tuple[Floats, Floats]:
    """Return the distances between the border voxels of two masks, from centre to centre.

    Args:
        reference: The truth, not empty.
        prediction: Of the same shape, not empty.
        spacing: Voxel size in mm, in array order.
        connectivity: A voxel is at the border if one of its neighbours is background or outside of the
            image: those with a common face for 1, with a common edge too for 2.

    Returns:
        In mm, for each border voxel of the reference the distance to the prediction's border, and the reverse.

    Example:
        >>> near, far = np.zeros((2, 1, 1, 6), dtype=bool)
        >>> near[..., 0], far[..., 3:5] = True, True
        >>> border_distances(near, far, (1.0, 1.0, 2.0))
        (array([6.]), array([6., 8.]))
    """
    from scipy.ndimage import distance_transform_edt

    borders = [_border(mask, connectivity) for mask in _around(reference, prediction)]
    to_reference, to_prediction = (distance_transform_edt(~border, sampling=spacing) for border in borders)
    return to_prediction[borders[0]], to_reference[borders[1]]


def hausdorff(reference: Mask, prediction: Mask, spacing: Sequence[float]) -> float:
    """Return the largest distance from a border voxel of one mask to the border of the other, in mm.

    Args:
        reference: The truth, not empty.
        prediction: Of the same shape, not empty.
        spacing: Voxel size in mm, in array order.
    """
    return max(float(distances.max()) for distances in border_distances(reference, prediction, spacing))
