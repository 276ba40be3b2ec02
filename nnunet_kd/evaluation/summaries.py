"""Dice of each case from nnU-Net's own ``summary.json``."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_kd.errors import UsageError
from nnunet_kd.evaluation.cases import case_name
from nnunet_kd.evaluation.labels import LabelScheme, Structure
from nnunet_kd.evaluation.score_sets import RunScores
from nnunet_kd.planning.model_folder import read_json

FILE = "summary.json"

Labels = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What nnU-Net wrote about one folder of predictions.

    Attributes:
        source: The file.
        dice: For each case the Dice of each label or region, ``nan`` where both masks were empty.
    """

    source: Path
    dice: Mapping[str, Mapping[Labels, float]]

    @property
    def labels(self) -> list[Labels]:
        """Labels and regions in the order of the file."""
        return list(next(iter(self.dice.values())))


def _labels(key: str) -> Labels:
    """Read nnU-Net's way of writing a label or a region: ``1`` or ``(1, 2)``."""
    if not re.fullmatch(r"\d+|\(\s*\d+(\s*,\s*\d+)*\s*,?\s*\)", key):
        raise ValueError(f"'{key}' is no label")
    return tuple(map(int, re.findall(r"\d+", key)))


def _case(entry: Mapping[str, Any]) -> tuple[str, dict[Labels, float]]:
    files = [case_name(entry[key]) for key in ("prediction_file", "reference_file") if entry.get(key)]
    scores = {_labels(key): float(values["Dice"]) for key, values in entry["metrics"].items()}
    scores = {labels: score for labels, score in scores.items() if labels != (0,)}
    wrong = [score for score in scores.values() if not (0 <= score <= 1 or math.isnan(score))]
    if wrong or not scores:
        raise ValueError(f"Dice {wrong[0]}" if wrong else "no label")
    return files[0], scores


def read_summary(file: Path) -> Summary:
    """Read nnU-Net's ``summary.json``.

    Raises:
        UsageError: If it is no such file, a case is in it twice, or the cases differ in their labels.
    """
    content = read_json(file)
    try:
        entries = [_case(entry) for entry in content["metric_per_case"]]
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        raise UsageError(
            f"expected nnU-Net's summary.json (with 'metric_per_case' and a Dice of each label) in '{file}', "
            f"got something else: {type(error).__name__} {error}"
        ) from error
    dice = dict(entries)
    names = [name for name, _ in entries]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(f"'{file}' holds {', '.join(twice)} more than once; evaluate the folder again")
    if not dice or len({tuple(scores) for scores in dice.values()}) != 1:
        raise UsageError(f"expected the same labels in every case of '{file}', found {len(dice)} cases with others")
    return Summary(source=file, dice=dice)


def scheme_from_summary(summary: Summary) -> LabelScheme:
    """Name the structures by their numbers; regions as ``1+2``."""
    structures = [Structure(name="+".join(map(str, labels)), labels=labels) for labels in summary.labels]
    return LabelScheme(structures=tuple(structures))


def summary_scores(summary: Summary, cases: tuple[str, ...], scheme: LabelScheme) -> RunScores:
    """Take the Dice of the given cases and structures; distances are not in the file.

    Raises:
        UsageError: If the file lacks a structure.
    """
    by_set = {frozenset(labels): labels for labels in summary.labels}
    missing = [s.name for s in scheme.structures if frozenset(s.labels) not in by_set]
    if missing:
        raise UsageError(
            f"'{summary.source}' has no Dice of {', '.join(missing)}, only of labels "
            f"{', '.join(map(str, summary.labels))}; evaluate the predictions with the same dataset.json"
        )
    keys = [by_set[frozenset(structure.labels)] for structure in scheme.structures]
    values = np.array([[[summary.dice[case][key]] for key in keys] for case in cases], dtype=np.float64)
    names = tuple(structure.name for structure in scheme.structures)
    return RunScores(cases=cases, structures=names, metrics=("dice",), values=values)
