"""How well a segmentation agrees with its reference: Dice, HD95 and surface Dice, per case and structure.

Empty masks: a structure absent from reference and prediction has no score (``nan``) and is left
out of every mean, as in nnU-Net. Absent from one of them only, Dice and surface Dice are 0 and
HD95 is the length of the image's diagonal in mm, the worst that the image allows.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_kd.evaluation.labels import LabelScheme, read_known
from nnunet_kd.evaluation.score_sets import Metric, ScoreSet

Mask = NDArray[np.bool_]

METRICS = (
    Metric(name="dice", title="Dice"),
    Metric(name="hd95", title="HD95", unit="mm", higher_is_better=False),
    Metric(name="surface_dice", title="Surface Dice"),
)


def dice(reference: Mask, prediction: Mask) -> float:
    """Return twice the common volume over the sum of both, ``nan`` if both are empty.

    Example:
        >>> dice(np.array([True, True, False]), np.array([False, True, False]))
        0.6666666666666666
    """
    total = int(reference.sum()) + int(prediction.sum())
    return 2 * int((reference & prediction).sum()) / total if total else float("nan")


def _around(masks: Sequence[Mask]) -> list[Mask]:
    """Crop to the box that holds all masks: beyond it there is no surface."""
    union = np.logical_or.reduce(masks)
    box = []
    for axis in range(union.ndim):
        filled = np.flatnonzero(union.any(axis=tuple(other for other in range(union.ndim) if other != axis)))
        box.append(slice(int(filled[0]), int(filled[-1]) + 1))
    return [mask[tuple(box)] for mask in masks]


def _surface_scores(reference: Mask, prediction: Mask, spacing: Sequence[float], tolerance: float) -> list[float]:
    import torch
    from monai.metrics.hausdorff_distance import compute_hausdorff_distance
    from monai.metrics.surface_dice import compute_surface_dice

    first, second = (
        torch.from_numpy(np.ascontiguousarray(mask))[None, None] for mask in _around([prediction, reference])
    )
    settings: dict[str, Any] = {"include_background": True, "spacing": [float(size) for size in spacing]}
    # distances are float32: a surface exactly at the tolerance must not depend on their rounding
    allowed = [tolerance * (1 + 1e-5)]
    with warnings.catch_warnings():
        # MONAI 1.5 and 1.6 warn users about an argument that MONAI itself passes
        warnings.filterwarnings("ignore", message=".*always_return_as_numpy", category=FutureWarning)
        hd95 = compute_hausdorff_distance(first, second, percentile=95, **settings)
        surface = compute_surface_dice(first, second, class_thresholds=allowed, use_subvoxels=False, **settings)
    return [float(hd95), float(surface)]


def score_masks(
    reference: Mask, prediction: Mask, *, spacing: Sequence[float], tolerance: float = 1.0
) -> tuple[float, float, float]:
    """Score one structure of one case.

    The surface of a mask is its voxels with a face at the outside or at the image's border,
    each counted once; distances lie between voxel centres (MONAI).

    Args:
        reference: The truth.
        prediction: Of the same shape; axes of length 1 are left out of three.
        spacing: Voxel size in mm, in array order.
        tolerance: In mm.

    Returns:
        Dice; HD95 in mm, the larger of the 95th percentiles of the distances from each surface
        to the other; surface Dice, the share of both surfaces' voxels at most ``tolerance`` from
        the other surface. See the module for empty masks.
    """
    overlap = dice(reference, prediction)
    if np.isnan(overlap):
        return overlap, float("nan"), float("nan")
    if not reference.any() or not prediction.any():
        diagonal = float(np.linalg.norm(np.multiply(reference.shape, spacing)))
        return overlap, diagonal, 0.0
    # a single slice has no neighbours: as a volume, all of it would be surface
    flat = tuple(axis for axis, length in enumerate(reference.shape) if length == 1)[: max(0, reference.ndim - 2)]
    kept = [size for axis, size in enumerate(spacing) if axis not in flat]
    hd95, surface = _surface_scores(reference.squeeze(flat), prediction.squeeze(flat), kept, tolerance)
    return overlap, hd95, surface


def score_case(
    reference: NDArray[Any], prediction: NDArray[Any], *, spacing: Sequence[float], scheme: LabelScheme
) -> NDArray[np.float64]:
    """Score every structure of one case.

    Voxels that the reference marks as ignored belong to no structure in either segmentation.

    Returns:
        ``(structure, metric)`` in the order of the scheme and of :data:`METRICS`.
    """
    counted = np.ones(reference.shape, dtype=bool) if scheme.ignore is None else reference != scheme.ignore
    rows = [
        score_masks(
            structure.mask(reference) & counted,
            structure.mask(prediction) & counted,
            spacing=spacing,
            tolerance=structure.tolerance,
        )
        for structure in scheme.structures
    ]
    return np.array(rows, dtype=np.float64)


def score_files(files: tuple[Path, Path], scheme: LabelScheme) -> NDArray[np.float64]:
    """Score the files of one case, reference and prediction, as :func:`score_case` does.

    Raises:
        UsageError: If one cannot be read or holds values that the scheme does not name.
    """
    reference, spacing = read_known(files[0], scheme)
    prediction, _ = read_known(files[1], scheme)
    return score_case(reference, prediction, spacing=spacing, scheme=scheme)


def notes(scheme: LabelScheme) -> list[str]:
    """Say how the scores were made, a line each."""
    tolerances = sorted({structure.tolerance for structure in scheme.structures})
    return [
        "A structure absent from reference and prediction has no score and is left out ('cases' counts the rest). "
        "Absent from one of them: Dice and surface Dice 0, HD95 the diagonal of the image.",
        "HD95: larger of the two 95th percentiles of the distances from one surface to the other. Surface Dice: share "
        f"of both surfaces' voxels within {' or '.join(f'{t:g}' for t in tolerances)} mm of the other surface.",
    ]


SCORES = ScoreSet(name="nnunet", metrics=METRICS, score_files=score_files, notes=notes, has_tolerance=True)
