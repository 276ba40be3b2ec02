"""The scores of the HLFD paper as its own program computes them; no challenge computes them so.

References:
    Gorade, Mittal, Jha, Bagci, Rethinking Intermediate Layers Design in Knowledge Distillation for Kidney and Liver
    Tumor Segmentation, 2024, https://arxiv.org/abs/2311.16700; code https://github.com/vangorade/RethinkingKD_ISBI24
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nnunet_kd.errors import UsageError
from nnunet_kd.evaluation.cases import some
from nnunet_kd.evaluation.labels import LabelScheme, read_known
from nnunet_kd.evaluation.probabilities import (
    check_probabilities,
    probabilities_file,
    read_channels,
    read_probabilities,
)
from nnunet_kd.evaluation.score_sets import Metric, ScoreSet

THRESHOLD = 0.4

METRICS = (
    Metric(name="hlfd_dice", title="Dice, HLFD's own"),
    Metric(name="hlfd_voe", title="VOE, HLFD's own, non-standard", higher_is_better=False),
    Metric(name="hlfd_rvd", title="RVD, HLFD's own, signed", higher_is_better=None),
)


def overlap_scores(reference: NDArray[np.bool_], prediction: NDArray[np.bool_]) -> tuple[float, float, float]:
    """Return Dice, VOE and RVD of the paper from the voxels of a whole case.

    With I common voxels, P predicted and G true ones, these are (2 I + 1) / (P + G + 1),
    2 (P - I) / (P + G) and P / G - 1. The VOE is not the usual 1 - I / (P + G - I): voxels that were
    missed do not count. The RVD keeps its sign.

    Args:
        reference: The truth.
        prediction: Of the same shape.

    Returns:
        Three ``nan`` where the truth is empty: the paper leaves such cases out.

    Example:
        >>> truth, found = np.array([1, 1, 1, 1, 0, 0], bool), np.array([1, 1, 1, 0, 1, 1], bool)
        >>> dice, voe, rvd = overlap_scores(truth, found)  # I = 3, P = 5, G = 4
        >>> f"{dice:.4f} {voe:.4f} {rvd:+.4f}"
        '0.7000 0.4444 +0.2500'
    """
    common, predicted, true = (int(mask.sum()) for mask in (reference & prediction, prediction, reference))
    if not true:
        return float("nan"), float("nan"), float("nan")
    dice = (2 * common + 1) / (predicted + true + 1)
    return dice, 2 * (predicted - common) / (predicted + true), predicted / true - 1


def score_files(files: tuple[Path, Path], scheme: LabelScheme) -> NDArray[np.float64]:
    """Score the probabilities beside a prediction against the reference.

    A structure is predicted where its probability is above 0.4; structures may overlap so. Voxels that
    the reference marks as ignored belong to no structure.

    Args:
        files: Reference and prediction.
        scheme: What is scored.

    Returns:
        ``(structure, metric)`` in the order of the scheme and of :data:`METRICS`.

    Raises:
        UsageError: If a file cannot be read, the probabilities do not belong to the prediction, or
            lack a structure.
    """
    reference, _ = read_known(files[0], scheme)
    segmentation, _ = read_known(files[1], scheme)
    channels = read_channels(files[1])
    probabilities = read_probabilities(files[1], segmentation, channels)
    counted = np.ones(reference.shape, dtype=bool) if scheme.ignore is None else reference != scheme.ignore
    rows = []
    for structure in scheme.structures:
        numbers = channels.numbers_of(structure)
        if numbers is None:
            raise _without(structure.name, files[1].parent)
        prediction = sum(probabilities[number] for number in numbers) > THRESHOLD
        rows.append(overlap_scores(structure.mask(reference) & counted, prediction & counted))
    return np.array(rows, dtype=np.float64)


def _without(structure: str, folder: Path) -> UsageError:
    return UsageError(
        f"expected a probability of '{structure}' in '{folder}', but the dataset.json of these predictions names no "
        "such classes or region; predict with a model of these structures, or give its dataset.json with --dataset-json"
    )


def check_files(source: str, files: Mapping[str, Path], scheme: LabelScheme) -> None:
    """Check, from headers alone, that every prediction has probabilities of every structure beside it.

    Args:
        source: Of the predictions, for messages.
        files: Prediction of each case.
        scheme: What will be scored.

    Raises:
        UsageError: For the first thing that is wrong; names all cases without probabilities.
    """
    missing = [case for case, file in files.items() if not probabilities_file(file).is_file()]
    if missing:
        raise UsageError(
            f"expected probabilities (CASE.npz) beside the predictions of {source} for --scores hlfd, found none for "
            f"{some(missing)}; predict again with nnUNetv2_predict --save_probabilities"
        )
    folders = {file.parent: file for file in files.values()}
    channels = {folder: read_channels(file) for folder, file in folders.items()}
    for folder, found in channels.items():
        lacking = [structure.name for structure in scheme.structures if found.numbers_of(structure) is None]
        if lacking:
            raise _without(lacking[0], folder)
    for file in files.values():
        check_probabilities(file, channels[file.parent])


def notes(scheme: LabelScheme) -> list[str]:
    """Say how the scores were made, a line each."""
    summed = any(len(structure.labels) > 1 for structure in scheme.structures)
    together = " (summed over its labels, or that of its region)" if summed else ""
    return [
        f"Scores as in the HLFD paper's own program, not comparable with challenge numbers. A structure is predicted "
        f"where its probability{together} is above {THRESHOLD:g}, whatever label map was written.",
        "With I common voxels, P predicted and G true ones, counted over the whole case: Dice = (2 I + 1) / "
        "(P + G + 1); VOE = 2 (P - I) / (P + G), which is not the usual 1 - I / (P + G - I); RVD = P / G - 1, with its "
        "sign, so that errors of both signs cancel in its mean.",
        "Cases without the structure in the reference are left out ('cases' counts the rest): what was wrongly found "
        "in them costs nothing. The paper has one structure at a time; a mean over structures is ours.",
    ]


SCORES = ScoreSet(
    name="hlfd",
    metrics=METRICS,
    score_files=score_files,
    notes=notes,
    check_files=check_files,
    caution="Scores: the HLFD paper's own, not comparable with challenge numbers",
)
