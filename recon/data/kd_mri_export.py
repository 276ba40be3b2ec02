"""KD-MRI's ``experiments/`` tree and its ``report.txt``, so that results lie beside the published ones.

``experiments/{dataset}/acc_{4x}/attention_imitation_{teacher|student|feature|kd}/`` with ``results/*.h5`` and
``report.txt`` (arXiv 2004.05319). In the report, plus-minus is **two** standard deviations, as in fastMRI's
``fastmri/evaluate.py`` (https://github.com/facebookresearch/fastMRI), from which it derives.
"""

import os
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_kd.errors import UsageError
from nnunet_kd.recon.data.cases import ENDING
from nnunet_kd.recon.data.hdf5 import written

ARMS = ("teacher", "student", "feature", "kd")
PREDICTION, REPORT = "reconstruction", "report.txt"


def experiment_folder(root: Path, dataset: str, acceleration: str, arm: str) -> Path:
    """Return where an arm's results lie.

    Args:
        root: Holds ``experiments``.
        dataset: Such as ``cardiac``.
        acceleration: Such as ``4x``.
        arm: One of :data:`ARMS`.

    Raises:
        UsageError: If there is no such arm.

    Example:
        >>> experiment_folder(Path("."), "cardiac", "4x", "kd").as_posix()
        'experiments/cardiac/acc_4x/attention_imitation_kd'
    """
    if arm not in ARMS:
        raise UsageError(f"expected an arm of KD-MRI's ({', '.join(ARMS)}), got '{arm}'")
    return root / "experiments" / dataset / f"acc_{acceleration}" / f"attention_imitation_{arm}"


def report_line(scores: Mapping[str, Sequence[float]]) -> str:
    """Return the one line of ``report.txt``.

    Metrics come in the order of their names, with four significant digits; the spread is twice the sample's standard
    deviation over volumes, ``nan`` for a single volume.

    Args:
        scores: Of every volume, by metric.

    Example:
        >>> report_line({"SSIM": [0.9, 0.8], "PSNR": [32, 34]})
        'PSNR = 33 +/- 2.828 SSIM = 0.85 +/- 0.1414'
    """
    return " ".join(
        f"{name} = {statistics.fmean(values):.4g} +/- {2 * _deviation(values):.4g}"
        for name, values in sorted(scores.items())
    )


def _deviation(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else float("nan")


def export_experiment(
    folder: Path,
    predictions: Iterable[tuple[str, NDArray[Any]]],
    scores: Mapping[str, Sequence[float]],
) -> Path:
    """Write an arm's predictions and report; each file gets its name when it is whole.

    Args:
        folder: As :func:`experiment_folder` returns it; other files there, such as checkpoints, stay.
        predictions: Name of each case and its magnitude, ``(S, H, W)``; taken one at a time.
        scores: Of every volume, by metric.

    Returns:
        The report's file.
    """
    results = folder / "results"
    results.mkdir(parents=True, exist_ok=True)
    for name, volume in predictions:
        with written(results / f"{name}{ENDING}") as file:
            file[PREDICTION] = volume.astype(np.float32)
    write_report(scores, folder / REPORT)
    return folder / REPORT


def write_report(scores: Mapping[str, Sequence[float]], file: Path) -> None:
    """Write :func:`report_line` into a file, which gets its name when it is whole."""
    temporary = file.with_name(f"{file.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(report_line(scores) + "\n", encoding="utf-8")
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
