"""The scores of the Medical Segmentation Decathlon: Dice and surface Dice of each label.

References:
    Antonelli et al., The Medical Segmentation Decathlon, 2022, https://doi.org/10.1038/s41467-022-30695-9
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nnunet_kd.errors import UsageError
from nnunet_kd.evaluation.challenge_labels import (
    check_label_maps,
    plain_name,
    read_volumes,
    refuse_ignore,
    structure_masks,
)
from nnunet_kd.evaluation.labels import LabelScheme
from nnunet_kd.evaluation.score_sets import Metric, ScoreSet
from nnunet_kd.evaluation.scores import dice
from nnunet_kd.evaluation.surfaces import surface_scores

# tolerance in mm and labels of each task, from 1 on, as its dataset.json names them
TASKS: dict[str, tuple[float, tuple[str, ...]]] = {
    "Task01_BrainTumour": (5.0, ("edema", "non-enhancing tumor", "enhancing tumour")),
    "Task02_Heart": (4.0, ("left atrium",)),
    "Task03_Liver": (7.0, ("liver", "cancer")),
    "Task04_Hippocampus": (1.0, ("Anterior", "Posterior")),
    "Task05_Prostate": (4.0, ("PZ", "TZ")),
    "Task06_Lung": (2.0, ("cancer",)),
    "Task07_Pancreas": (5.0, ("pancreas", "cancer")),
    "Task08_HepaticVessel": (3.0, ("Vessel", "Tumour")),
    "Task09_Spleen": (3.0, ("spleen",)),
    "Task10_Colon": (4.0, ("colon cancer primaries",)),
}

METRICS = (Metric(name="dice", title="Dice"), Metric(name="surface_dice", title="Surface Dice"))


def find_task(scheme: LabelScheme) -> str | None:
    """Return the task whose labels these are, by name and number; ``None`` if there is no such."""
    found = sorted((structure.labels, plain_name(structure.name)) for structure in scheme.structures)
    for task, (_, names) in TASKS.items():
        if found == [((number,), plain_name(name)) for number, name in enumerate(names, start=1)]:
            return task
    return None


def fit(scheme: LabelScheme, source: str) -> LabelScheme:
    """Give every label the tolerance of the task that has these labels.

    Raises:
        UsageError: If no task has them, or there is an ignore label.
    """
    refuse_ignore(scheme, source, "msd")
    task = find_task(scheme)
    if task is None:
        found = ", ".join(f"'{s.name}' ({', '.join(map(str, s.labels))})" for s in scheme.structures)
        expected = "; ".join(f"{task} {', '.join(names)}" for task, (_, names) in TASKS.items())
        raise UsageError(
            f"expected for --scores msd the labels of a Decathlon task ({expected}), found {found} in {source}; give "
            "the dataset.json that names them with --dataset-json"
        )
    return replace(scheme, structures=tuple(replace(s, tolerance=TASKS[task][0]) for s in scheme.structures))


def score_files(files: tuple[Path, Path], scheme: LabelScheme) -> NDArray[np.float64]:
    """Score the files of one case, reference and prediction.

    Returns:
        ``(structure, metric)`` in the order of the scheme and of :data:`METRICS`; ``nan`` where both masks
        are empty, 0 where one of them is.

    Raises:
        UsageError: If one cannot be read or holds values that the scheme does not name.
    """
    reference, prediction, spacing = read_volumes(files, scheme)
    masks = structure_masks(reference, prediction, scheme)
    rows = [
        (dice(true, found), surface_scores(true, found, spacing, tolerance=structure.tolerance).surface_dice)
        for structure, (true, found) in zip(scheme.structures, masks, strict=True)
    ]
    return np.array(rows, dtype=np.float64)


def notes(scheme: LabelScheme) -> list[str]:
    """Say how the scores were made, a line each."""
    return [
        f"Surface Dice ({find_task(scheme)}): share of both surfaces' areas within {scheme.structures[0].tolerance:g} "
        "mm of the other surface (DeepMind's library).",
        "A label absent from reference and prediction has no score, as in that library, and is left out ('cases' "
        "counts the rest); absent from one of them it has 0.",
    ]


SCORES = ScoreSet(
    name="msd", metrics=METRICS, score_files=score_files, notes=notes, check_files=check_label_maps, fit=fit
)
