"""The scores of KiTS23: Dice and surface Dice of three nested structures.

References:
    https://github.com/neheller/kits23, kits23/evaluation/metrics.py and kits23/configuration/labels.py
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nnunet_kd.evaluation.challenge_labels import (
    Anatomy,
    Target,
    check_label_maps,
    fit_anatomy,
    read_volumes,
    structure_masks,
)
from nnunet_kd.evaluation.labels import LabelScheme
from nnunet_kd.evaluation.score_sets import Metric, ScoreSet
from nnunet_kd.evaluation.scores import Mask, dice
from nnunet_kd.evaluation.surfaces import surface_scores

ANATOMY = Anatomy(
    classes={"kidney": (), "tumor": (), "cyst": ()},
    targets=(
        Target(
            name="kidney and masses",
            classes=("kidney", "tumor", "cyst"),
            synonyms=("kidney", "kidneys", "kidney and mass"),
            tolerance=1.0330772532390826,
        ),
        Target(name="masses", classes=("tumor", "cyst"), synonyms=("mass",), tolerance=1.1328796488598762),
        Target(name="tumor", classes=("tumor",), tolerance=1.1498198361434828),
    ),
)

METRICS = (Metric(name="dice", title="Dice"), Metric(name="surface_dice", title="Surface Dice"))


def score_masks(reference: Mask, prediction: Mask, spacing: tuple[float, ...], tolerance: float) -> tuple[float, float]:
    """Return Dice and surface Dice: 1 if both masks are empty, 0 if one of them is."""
    if not (reference.any() or prediction.any()):
        return 1.0, 1.0
    surface = surface_scores(reference, prediction, spacing, tolerance=tolerance)
    return dice(reference, prediction), surface.surface_dice


def score_files(files: tuple[Path, Path], scheme: LabelScheme) -> NDArray[np.float64]:
    """Score the files of one case, reference and prediction.

    Returns:
        ``(structure, metric)`` in the order of the scheme and of :data:`METRICS`.

    Raises:
        UsageError: If one cannot be read or holds values that the scheme does not name.
    """
    reference, prediction, spacing = read_volumes(files, scheme)
    masks = structure_masks(reference, prediction, scheme)
    rows = [
        score_masks(true, found, spacing, structure.tolerance)
        for structure, (true, found) in zip(scheme.structures, masks, strict=True)
    ]
    return np.array(rows, dtype=np.float64)


def notes(scheme: LabelScheme) -> list[str]:
    """Say how the scores were made, a line each."""
    tolerances = ", ".join(f"{s.name} {s.tolerance:.4f} mm" for s in scheme.structures)
    return [
        f"Surface Dice: share of both surfaces' areas within the organisers' tolerance ({tolerances}) of the other "
        "surface (DeepMind's library).",
        "A structure absent from reference and prediction has 1 in both scores, absent from one of them 0. The "
        "organisers' two means are those over structures.",
    ]


SCORES = ScoreSet(
    name="kits23",
    metrics=METRICS,
    score_files=score_files,
    notes=notes,
    check_files=check_label_maps,
    fit=partial(fit_anatomy, anatomy=ANATOMY, scores="kits23"),
)
