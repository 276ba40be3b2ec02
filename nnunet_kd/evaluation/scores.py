"""How well a segmentation agrees with its reference: Dice, HD95 and surface Dice, per case and structure.

Empty masks: a structure absent from reference and prediction has no score (``nan``) and is left
out of every mean, as in nnU-Net. Absent from one of them only, Dice and surface Dice are 0 and
HD95 is the length of the image's diagonal in mm, the worst that the image allows.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from nnunet_kd.cases import map_cases
from nnunet_kd.errors import UsageError
from nnunet_kd.evaluation.cases import read_segmentation, some
from nnunet_kd.evaluation.labels import LabelScheme
from nnunet_kd.hardware import n_cores

_START_UP = 20.0  # seconds in which new processes load torch and MONAI

Key = TypeVar("Key", bound=Hashable)
Mask = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A score and how to speak of it.

    Attributes:
        name: In files.
        title: In tables and plots.
        unit: Empty for shares.
        higher_is_better: Direction of the good.
    """

    name: str
    title: str
    unit: str = ""
    higher_is_better: bool = True


METRICS = (
    Metric(name="dice", title="Dice"),
    Metric(name="hd95", title="HD95", unit="mm", higher_is_better=False),
    Metric(name="surface_dice", title="Surface Dice"),
)


@dataclass(frozen=True, kw_only=True)
class RunScores:
    """The scores of one folder of predictions.

    Attributes:
        cases: In order.
        structures: Names, in order.
        metrics: Names of those that were computed, in order.
        values: ``(case, structure, metric)``, ``nan`` where there is no score.
    """

    cases: tuple[str, ...]
    structures: tuple[str, ...]
    metrics: tuple[str, ...]
    values: NDArray[np.float64]


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


def _score_files(files: tuple[Path, Path], scheme: LabelScheme) -> NDArray[np.float64]:
    reference, spacing = read_segmentation(files[0])
    prediction, _ = read_segmentation(files[1])
    for file, segmentation in zip(files, (reference, prediction), strict=True):
        if unknown := scheme.unknown(segmentation):
            raise UsageError(
                f"expected only labels that dataset.json or the reference names in '{file}', found "
                f"{some([str(value) for value in unknown])}; write it again or give --dataset-json"
            )
    return score_case(reference, prediction, spacing=spacing, scheme=scheme)


def _map(
    function: Callable[[tuple[Path, Path]], NDArray[np.float64]],
    tasks: Sequence[tuple[Path, Path]],
    n_processes: int | None,
) -> list[NDArray[np.float64]]:
    """Do two cases here, to load the libraries and to take the time; then the rest where it is quicker."""
    results, seconds = [], 0.0
    for task in tasks[:2]:
        begin = perf_counter()
        results.append(function(task))
        seconds = perf_counter() - begin
    rest = tasks[2:]
    if not rest:
        return results
    n_workers = min(n_processes or n_cores(), len(rest))
    pays = n_workers > 1 and seconds * len(rest) > _START_UP
    return results + map_cases(
        function, rest, description="scoring", name=lambda task: str(task[1]), n_workers=n_workers if pays else 0
    )


def score_runs(
    reference: Mapping[str, Path],
    runs: Mapping[Key, Mapping[str, Path]],
    *,
    scheme: LabelScheme,
    n_processes: int | None = None,
) -> dict[Key, RunScores]:
    """Score folders of predictions against one reference.

    Args:
        reference: File of each case.
        runs: For each run the file of each case; grids must have been checked.
        scheme: What is scored.
        n_processes: At most so many work at once, ``None`` for one per core; they are started only
            where that is quicker.

    Returns:
        Scores under the keys of ``runs``, in the order of the reference's cases.

    Raises:
        UsageError: If files cannot be read as labels; names all of them.
    """
    tasks = [(file, cases[case]) for cases in runs.values() for case, file in reference.items()]
    results = iter(_map(partial(_score_files, scheme=scheme), tasks, n_processes))
    names = tuple(structure.name for structure in scheme.structures)
    metrics = tuple(metric.name for metric in METRICS)
    return {
        key: RunScores(
            cases=tuple(reference),
            structures=names,
            metrics=metrics,
            values=np.stack([next(results) for _ in reference]),
        )
        for key in runs
    }
