"""A folder of reconstructions scored against the truth: nnU-Net's ``summary.json`` with other metrics."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_kd.cases import map_cases
from nnunet_kd.errors import UsageError
from nnunet_kd.recon.evaluation.metrics import score_volume
from nnunet_kd.recon.evaluation.volumes import check_same_cases, fitting, read_prediction, read_target, slice_axis

FILE = "summary.json"
STRUCTURE = "volume"  # what nnU-Net has labels for: all pixels of a volume are one


def score_files(files: tuple[Path, Path], names: tuple[str, ...], crop: int | None) -> dict[str, float]:
    """Return the named scores of one case.

    Args:
        files: Of reference and prediction.
        names: Of :data:`nnunet_kd.recon.evaluation.metrics.METRICS`.
        crop: Side of the square that is compared, ``None`` for the target's own size.

    Raises:
        UsageError: If a file cannot be read or volumes do not fit.
    """
    target, prediction = fitting(read_target(files[0]), read_prediction(files[1], slice_axis(files[0])), crop, files[1])
    try:
        return score_volume(target, prediction, names)
    except ValueError as error:
        raise UsageError(f"{files[1]}: {error}") from error


def evaluate_folder(
    reference: Mapping[str, Path],
    predictions: Mapping[str, Path],
    names: Sequence[str],
    *,
    crop: int | None = None,
    n_workers: int | None = None,
) -> dict[str, Any]:
    """Score every case of the reference.

    Returns:
        nnU-Net's summary: ``metric_per_case`` with files and scores of each case, ``mean``, ``foreground_mean``; and,
        beyond nnU-Net, ``std``, the sample's, over cases.

    Raises:
        UsageError: If a case is missing or volumes do not fit; all faulty cases are named.
    """
    check_same_cases(reference, predictions, "the predictions")
    pairs = [(file, predictions[case]) for case, file in reference.items()]
    found = map_cases(
        partial(score_files, names=tuple(names), crop=crop),
        pairs,
        description="scoring",
        name=lambda pair: str(pair[1]),
        n_workers=n_workers,
        seconds_per_case=1.0,
    )
    return summarise(pairs, found)


def summarise(pairs: Sequence[tuple[Path, Path]], scores: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Return the content of a summary from the files and the scores of each case."""
    values = {name: np.array([case[name] for case in scores], dtype=np.float64) for name in scores[0]}
    mean = {name: _mean(column) for name, column in values.items()}
    return {
        "foreground_mean": mean,
        "mean": {STRUCTURE: mean},
        "std": {STRUCTURE: {name: _std(column) for name, column in values.items()}},
        "metric_per_case": [
            {"metrics": {STRUCTURE: dict(case)}, "prediction_file": str(found), "reference_file": str(true)}
            for (true, found), case in zip(pairs, scores, strict=True)
        ],
    }


def _mean(column: "np.ndarray[Any, Any]") -> float:
    return float(np.nanmean(column)) if np.isfinite(column).any() else float("nan")


def _std(column: "np.ndarray[Any, Any]") -> float:
    return float(np.nanstd(column, ddof=1)) if np.isfinite(column).sum() > 1 else float("nan")
