"""The scores of LiTS: of the liver per case, of lesions that were found, and of all cases together.

References:
    https://github.com/PatrickChrist/lits-challenge-scoring, the organisers' program;
    Bilic et al., The Liver Tumor Segmentation Benchmark (LiTS), 2023, https://doi.org/10.1016/j.media.2022.102680
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nnunet_kd.evaluation.challenge_labels import Anatomy, Target, check_nothing_else, fit_anatomy, read_volumes
from nnunet_kd.evaluation.labels import LabelScheme
from nnunet_kd.evaluation.lesion_pairs import pair_lesions
from nnunet_kd.evaluation.score_sets import Metric, Pooled, ScoreSet
from nnunet_kd.evaluation.scores import Mask, dice
from nnunet_kd.evaluation.surfaces import border_distances

Floats = NDArray[np.float64]

PENALTY = 9001.0  # of volume difference and distances where there is nothing to measure
ENOUGH = 0.5  # intersection over union above which a lesion is found

NAN = float("nan")

ANATOMY = Anatomy(
    classes={"liver": (), "lesion": ("tumor", "cancer", "liver tumor", "liver lesion", "lesions", "tumors")},
    targets=(
        Target(name="liver", classes=("liver", "lesion"), synonyms=("whole liver", "liver and lesion")),
        Target(name="lesion", classes=("lesion",), synonyms=("tumor", "cancer", "liver tumor", "lesions", "tumors")),
    ),
)

_OBJECT = (
    Metric(name="voe", title="VOE", higher_is_better=False),
    Metric(name="rvd", title="RVD", higher_is_better=None),
    Metric(name="assd", title="ASSD", unit="mm", higher_is_better=False),
    Metric(name="rmsd", title="RMSD", unit="mm", higher_is_better=False),
    Metric(name="max_sd", title="Largest surface distance", unit="mm", higher_is_better=False),
)
METRICS = (Metric(name="dice", title="Dice per case"), *_OBJECT)
NOTHING = (1.0, PENALTY, PENALTY, PENALTY, PENALTY)

POOLED = (
    Metric(name="dice_global", title="Dice global"),
    *_OBJECT,
    Metric(name="precision", title="Precision (overlap > 0.5)"),
    Metric(name="recall", title="Recall (overlap > 0.5)"),
    Metric(name="precision_greater_zero", title="Precision (> 0)"),
    Metric(name="recall_greater_zero", title="Recall (> 0)"),
    Metric(name="burden_rmse", title="Tumour burden RMSE", higher_is_better=False),
    Metric(name="burden_max", title="Tumour burden, largest difference", higher_is_better=False),
)
# columns of a case: common voxels, sum of voxels, sums of _OBJECT over lesions found, lesions found at 0.5 and 0,
# predicted lesions, lesions of the reference, difference in tumour burden
N_COUNTS = 2 + len(_OBJECT) + 5


def object_scores(reference: Mask, prediction: Mask, spacing: tuple[float, ...]) -> tuple[float, ...]:
    """Return VOE, RVD, ASSD, RMSD and the largest surface distance of two masks that are not empty.

    VOE is 1 - intersection / union. RVD is (reference - prediction) / prediction in volumes, as the organisers'
    program has it: positive where too little was found. Distances in mm are those of all border voxels of both masks;
    a border voxel has a face or an edge at the outside.

    Example:
        >>> reference, prediction = np.zeros((2, 1, 1, 6), dtype=bool)
        >>> reference[..., :2], prediction[..., :4] = True, True  # two of four voxels
        >>> [round(score, 4) for score in object_scores(reference, prediction, (1.0, 1.0, 1.0))]
        [0.5, -0.5, 0.5, 0.9129, 2.0]
    """
    common, union = int((reference & prediction).sum()), int((reference | prediction).sum())
    true, found = int(reference.sum()), int(prediction.sum())
    distances = np.concatenate(border_distances(reference, prediction, spacing, connectivity=2))
    return (
        1 - common / union,
        (true - found) / found,
        float(distances.mean()),
        float(np.sqrt(np.square(distances).mean())),
        float(distances.max()),
    )


def liver_scores(reference: Mask, prediction: Mask, spacing: tuple[float, ...], *, labelled: bool) -> list[float]:
    """Return the metrics of the liver, lesions included, and its counts.

    Args:
        reference: The truth.
        prediction: Of the same shape.
        spacing: Voxel size in mm, in array order.
        labelled: Whether the prediction has a voxel of liver that is no lesion; without, nothing in it counts.
    """
    if not labelled:
        prediction = np.zeros_like(prediction)
    counts = [float((reference & prediction).sum()), float(reference.sum() + prediction.sum())]
    rest = [NAN] * (N_COUNTS - len(counts))
    if not (reference.any() and prediction.any()):
        return [0.0, *NOTHING, *counts, *rest]
    return [dice(reference, prediction), *object_scores(reference, prediction, spacing), *counts, *rest]


def lesion_scores(reference: Mask, prediction: Mask, spacing: tuple[float, ...], *, burden: float) -> list[float]:
    """Return the metrics of the lesions and their counts.

    Args:
        reference: The truth.
        prediction: Of the same shape.
        spacing: Voxel size in mm, in array order.
        burden: Tumour burden of the reference minus that of the prediction.
    """
    per_case = dice(reference, prediction) if reference.any() or prediction.any() else 1.0
    pairing = pair_lesions(reference, prediction)
    found = pairing.found(ENOUGH)
    objects = [object_scores(pair.reference, pair.prediction, spacing) for pair in found]
    sums = np.sum(objects, axis=0).tolist() if objects else [0.0] * len(_OBJECT)
    means = [value / len(found) for value in sums] if found else [NAN] * len(_OBJECT)
    counts = [float((reference & prediction).sum()), float(reference.sum() + prediction.sum()), *sums]
    numbers = [len(found), len(pairing.pairs), pairing.n_predicted, pairing.n_reference, burden]
    return [per_case, *means, *counts, *map(float, numbers)]


def _burden(liver: Mask, lesion: Mask) -> float:
    return int(lesion.sum()) / int(liver.sum()) if liver.any() else NAN


def score_files(files: tuple[Path, Path], scheme: LabelScheme) -> Floats:
    """Score the files of one case, reference and prediction.

    Returns:
        ``(structure, metric and count)``, liver and lesion, in the order of :data:`METRICS`, then the
        counts for :func:`combine`.

    Raises:
        UsageError: If one cannot be read or holds values that the scheme does not name.
    """
    reference, prediction, spacing = read_volumes(files, scheme)
    liver, lesion = scheme.structures
    true_liver, true_lesion = liver.mask(reference), lesion.mask(reference)
    found_liver, found_lesion = liver.mask(prediction), lesion.mask(prediction)
    labelled = bool((found_liver & ~found_lesion).any())
    burden = _burden(found_liver, found_lesion) if labelled else PENALTY
    return np.array(
        [
            liver_scores(true_liver, found_liver, spacing, labelled=labelled),
            lesion_scores(true_lesion, found_lesion, spacing, burden=_burden(true_liver, true_lesion) - burden),
        ],
        dtype=np.float64,
    )


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def combine(counts: Floats) -> Floats:
    """Return the scores of all cases together.

    Args:
        counts: ``(case, structure, count)``, liver and lesion, of :func:`score_files`.

    Returns:
        ``(structure, metric)`` in the order of :data:`POOLED`. The liver has a global Dice only.
    """
    sums = counts.sum(axis=0)
    common, voxels = sums[:, 0], sums[:, 1]
    overall = np.divide(2 * common, voxels, out=np.full_like(voxels, np.nan), where=voxels > 0)
    found, touched, predicted, true = sums[1, -5:-1]
    objects = (sums[1, 2:-5] / found).tolist() if found else list(NOTHING)
    detection = [_share(found, predicted), _share(found, true), _share(touched, predicted), _share(touched, true)]
    burdens = counts[:, 1, -1]
    burden = [float(np.sqrt(np.square(burdens).mean())), float(burdens.max())]
    return np.array([[overall[0], *[NAN] * (len(POOLED) - 1)], [overall[1], *objects, *detection, *burden]])


def notes(scheme: LabelScheme) -> list[str]:  # noqa: ARG001  # what every set's notes are given
    """Say how the scores were made, a line each."""
    return [
        "Liver: with its lesions. VOE = 1 - intersection / union; RVD = (reference - prediction) / prediction in "
        "volumes, so that too little is positive; ASSD, RMSD, largest: of the distances of all border voxels of both "
        "masks. A prediction without a voxel of plain liver has Dice 0, VOE 1 and 9001 for the others.",
        "Lesion, Dice per case: absent from reference and prediction 1, absent from one of them 0. Lesion, others: "
        "means over the lesions that were found (overlap, intersection / union, above 0.5); a case without has none. "
        "The organisers' numbers are those of all cases together, where VOE is 1 and the rest 9001 if none was found.",
        "Lesions are components with common faces. Those of the reference that one predicted lesion spans are joined, "
        "then predicted ones that overlap the same; precision and recall count each joined pair once. So the comments "
        "of the organisers' program say; its code takes some pairs' union from another lesion.",
        "Tumour burden: share of lesions in the liver, reference minus prediction.",
    ]


SCORES = ScoreSet(
    name="lits17",
    metrics=METRICS,
    score_files=score_files,
    notes=notes,
    check_files=check_nothing_else,
    fit=partial(fit_anatomy, anatomy=ANATOMY, scores="lits17"),
    pooled=Pooled(metrics=POOLED, n_counts=N_COUNTS, combine=combine),
)
