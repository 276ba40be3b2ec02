"""The scores of ACDC: Dice and Hausdorff distance of the heart's three structures.

References:
    https://www.creatis.insa-lyon.fr/Challenge/acdc/evaluation.html, and the organisers' program there, which
    measures with MedPy: https://loli.github.io/medpy/metric.html
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nnunet_kd.evaluation.challenge_labels import (
    Anatomy,
    Target,
    check_nothing_else,
    fit_anatomy,
    read_volumes,
    structure_masks,
)
from nnunet_kd.evaluation.labels import LabelScheme
from nnunet_kd.evaluation.score_sets import Metric, ScoreSet
from nnunet_kd.evaluation.scores import Mask, dice
from nnunet_kd.evaluation.surfaces import hausdorff

ANATOMY = Anatomy(
    classes={
        "RV": ("right ventricle", "RV cavity", "right ventricular cavity", "RVC"),
        "MYO": ("MLV", "LVM", "myocardium", "LV myocardium", "left ventricular myocardium"),
        "LV": ("LVC", "left ventricle", "LV cavity", "left ventricular cavity"),
    },
    targets=(
        Target(name="LV", classes=("LV",)),
        Target(name="RV", classes=("RV",)),
        Target(name="MYO", classes=("MYO",)),
    ),
)

METRICS = (
    Metric(name="dice", title="Dice"),
    Metric(name="hausdorff", title="Hausdorff distance", unit="mm", higher_is_better=False),
)


def score_masks(reference: Mask, prediction: Mask, spacing: tuple[float, ...]) -> tuple[float, float]:
    """Return Dice and Hausdorff distance in mm: 0 and ``nan`` if a mask is empty, or both are."""
    if not (reference.any() and prediction.any()):
        return 0.0, float("nan")
    return dice(reference, prediction), hausdorff(reference, prediction, spacing)


def score_files(files: tuple[Path, Path], scheme: LabelScheme) -> NDArray[np.float64]:
    """Score the files of one case, reference and prediction.

    Returns:
        ``(structure, metric)`` in the order of the scheme and of :data:`METRICS`.

    Raises:
        UsageError: If one cannot be read or holds values that the scheme does not name.
    """
    reference, prediction, spacing = read_volumes(files, scheme)
    masks = structure_masks(reference, prediction, scheme)
    return np.array([score_masks(true, found, spacing) for true, found in masks], dtype=np.float64)


def notes(scheme: LabelScheme) -> list[str]:  # noqa: ARG001  # what every set's notes are given
    """Say how the scores were made, a line each."""
    return [
        "Hausdorff distance: largest distance in 3-D from a border voxel of one mask to the border of the other, "
        "between voxel centres; a border voxel has a face at the outside.",
        "Absent from reference, prediction or both, a structure has Dice 0, as MedPy has it, and no Hausdorff "
        "distance, where the organisers' program ends; 'cases' counts the rest. They tabulate end-diastole and "
        "end-systole apart: score them apart with --cases.",
    ]


SCORES = ScoreSet(
    name="acdc",
    metrics=METRICS,
    score_files=score_files,
    notes=notes,
    check_files=check_nothing_else,
    fit=partial(fit_anatomy, anatomy=ANATOMY, scores="acdc"),
)
