"""The scores of BraTS 2023: lesion-wise Dice and HD95, and those of whole tumours as in the years before.

References:
    https://github.com/rachitsaluja/BraTS-2023-Metrics, the organisers' program
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nnunet_kd.errors import UsageError
from nnunet_kd.evaluation.challenge_labels import (
    Anatomy,
    Target,
    check_label_maps,
    fit_anatomy,
    read_volumes,
    structure_masks,
)
from nnunet_kd.evaluation.labels import LabelScheme
from nnunet_kd.evaluation.lesion_scores import LesionRules, lesion_scores
from nnunet_kd.evaluation.score_sets import Metric, ScoreSet
from nnunet_kd.evaluation.scores import Mask, dice
from nnunet_kd.evaluation.surfaces import surface_scores
from nnunet_kd.optional import require

PENALTY = 374.0  # mm, about the diagonal of 240 x 240 x 155 voxels of 1 mm

# what the data sets are called in case names, and their rules: adult gliomas (GLI), Africa (SSA), children (PED)
RULES = {
    "brats2023": (("GLI", "SSA", "PED"), LesionRules(n_dilations=3, smallest=50, penalty=PENALTY)),
    "brats2023-men": (("MEN",), LesionRules(n_dilations=1, smallest=50, penalty=PENALTY)),
    "brats2023-met": (("MET",), LesionRules(n_dilations=1, smallest=2, penalty=PENALTY)),
}

ANATOMY = Anatomy(
    classes={
        "edema": ("oedema", "ED", "SNFH", "peritumoral edema", "surrounding non-enhancing FLAIR hyperintensity"),
        "necrosis": (
            *("NCR", "NETC", "NCR/NET", "necrotic tumor core", "necrotic core", "non-enhancing tumor"),
            *("non-enhancing tumor core", "necrotic and non-enhancing tumor core"),
        ),
        "enhancing tumor": ("ET", "enhancing", "enhancing tissue", "GD-enhancing tumor"),
    },
    targets=(
        Target(name="whole tumor", classes=("edema", "necrosis", "enhancing tumor"), synonyms=("WT",)),
        Target(name="tumor core", classes=("necrosis", "enhancing tumor"), synonyms=("TC",)),
        Target(name="enhancing tumor", classes=("enhancing tumor",), synonyms=("ET",)),
    ),
)

METRICS = (
    Metric(name="lesion_dice", title="Lesion-wise Dice"),
    Metric(name="lesion_hd95", title="Lesion-wise HD95", unit="mm", higher_is_better=False),
    Metric(name="dice", title="Dice"),
    Metric(name="hd95", title="HD95", unit="mm", higher_is_better=False),
    Metric(name="sensitivity", title="Sensitivity"),
    Metric(name="specificity", title="Specificity"),
)


def whole_scores(reference: Mask, prediction: Mask, spacing: tuple[float, ...]) -> tuple[float, float, float, float]:
    """Return Dice, HD95 in mm, sensitivity and specificity of a whole structure.

    Both masks empty: 1, 0, 1 and 1. One of them: Dice and sensitivity 0, HD95 374.
    """
    found = int((reference & prediction).sum())
    true, predicted = int(reference.sum()), int(prediction.sum())
    negative = reference.size - true
    specificity = 1 - (predicted - found) / negative if negative else 0.0
    if not (true or predicted):
        return 1.0, 0.0, 1.0, specificity
    hd95 = surface_scores(reference, prediction, spacing).hd95
    return (
        dice(reference, prediction),
        hd95 if np.isfinite(hd95) else PENALTY,
        found / true if true else 0.0,
        specificity,
    )


def score_files(files: tuple[Path, Path], scheme: LabelScheme, *, rules: LesionRules) -> NDArray[np.float64]:
    """Score the files of one case, reference and prediction.

    Returns:
        ``(structure, metric)`` in the order of the scheme and of :data:`METRICS`.

    Raises:
        UsageError: If one cannot be read or holds values that the scheme does not name.
    """
    reference, prediction, spacing = read_volumes(files, scheme)
    rows = []
    for true, found in structure_masks(reference, prediction, scheme):
        lesions = lesion_scores(true, found, spacing=spacing, rules=rules)
        rows.append((lesions.dice, lesions.hd95, *whole_scores(true, found, spacing)))
    return np.array(rows, dtype=np.float64)


def check_files(source: str, files: Mapping[str, Path], scheme: LabelScheme, *, name: str) -> None:
    """Check that cases named as the organisers name them are of a data set with these rules.

    Raises:
        UsageError: If they are of another, or a library is not installed.
    """
    check_label_maps(source, files, scheme)
    require("cc3d")
    for case in files:
        match = re.match(r"BraTS-([A-Z]+)-", case)
        kinds = {kind: other for other, (names, _) in RULES.items() for kind in names}
        if match and kinds.get(match.group(1)) not in {name, None}:
            raise UsageError(
                f"expected cases of BraTS-{', BraTS-'.join(RULES[name][0])} for --scores {name}, found '{case}' in "
                f"{source}; type --scores {kinds[match.group(1)]}"
            )


def notes(scheme: LabelScheme, *, rules: LesionRules) -> list[str]:  # noqa: ARG001  # what every set's notes are given
    """Say how the scores were made, a line each."""
    return [
        "Lesion-wise: 26-connected components of the reference whose dilations "
        f"({rules.n_dilations}x, 18 neighbours) touch are one lesion; the predicted components that touch the dilated "
        "lesion are its prediction. Mean over the reference's lesions above "
        f"{rules.smallest:g} mm^3 and the predicted components that touch none, which have Dice 0 and HD95 "
        f"{rules.penalty:g} mm as missed lesions have. Nothing to find and nothing found: Dice 1, HD95 0.",
        "Dice, HD95, sensitivity, specificity: of the whole structure. Absent from reference and prediction: 1, 0, 1, "
        f"1. Absent from one of them: Dice 0, HD95 {PENALTY:g} mm. HD95 weights surfaces by area (DeepMind's library).",
    ]


def _score_set(name: str) -> ScoreSet:
    rules = RULES[name][1]
    return ScoreSet(
        name=name,
        metrics=METRICS,
        score_files=partial(score_files, rules=rules),
        notes=partial(notes, rules=rules),
        check_files=partial(check_files, name=name),
        fit=partial(fit_anatomy, anatomy=ANATOMY, scores=name),
    )


SCORES, MEN, MET = (_score_set(name) for name in RULES)
