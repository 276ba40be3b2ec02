"""Small segmentations on disk."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
from numpy.typing import NDArray

SaveLabels = Callable[..., Path]


@pytest.fixture
def save_labels() -> SaveLabels:
    """Write an array (z first) with a spacing in array order."""

    def save(
        file: Path,
        array: NDArray[Any],
        spacing: Sequence[float] | None = None,
        origin: Sequence[float] | None = None,
        direction: Sequence[float] | None = None,
    ) -> Path:
        image = SimpleITK.GetImageFromArray(array)
        image.SetSpacing([float(size) for size in reversed(spacing or [1.0] * array.ndim)])
        if origin is not None:
            image.SetOrigin(list(origin))
        if direction is not None:
            image.SetDirection(list(direction))
        file.parent.mkdir(parents=True, exist_ok=True)
        SimpleITK.WriteImage(image, str(file))
        return file

    return save


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(3)


@pytest.fixture
def arms(tmp_path: Path, save_labels: SaveLabels, random: np.random.Generator) -> Path:
    """A reference of 8 cases with two nested structures, and three arms of falling quality."""
    errors = {"teacher": 1, "kd": 2, "student": 3}
    grid = np.indices((12, 14, 16))
    for number in range(8):
        centre = np.array([6, 7, 8]) + random.integers(-1, 2, size=3)

        def ball(shift: int, centre: NDArray[Any] = centre) -> NDArray[np.uint8]:
            distance = np.sqrt(((grid - (centre + np.array([0, 0, shift]))[:, None, None, None]) ** 2).sum(axis=0))
            return np.asarray((distance < 5).astype(np.uint8) + (distance < 3))

        save_labels(tmp_path / "labels" / f"case_{number}.nii.gz", ball(0), (2.0, 1.0, 1.0))
        for arm, shift in errors.items():
            moved = ball(shift if random.random() < 0.8 else shift - 1)
            save_labels(tmp_path / arm / f"case_{number}.nii.gz", moved, (2.0, 1.0, 1.0))
    return tmp_path


@pytest.fixture
def stock_summary() -> Callable[..., Path]:
    """Let nnU-Net itself evaluate a folder and write its summary.json."""
    from nnunetv2.evaluation.evaluate_predictions import compute_metrics, save_summary_json
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
    from nnunetv2.utilities.json_export import recursive_fix_for_json_export

    def write(
        reference: Path, predictions: Path, file: Path, labels: Sequence[Any] = (1, 2), ignore: int | None = None
    ) -> Path:
        cases = [
            compute_metrics(str(reference / p.name), str(p), SimpleITKIO(), list(labels), ignore)
            for p in sorted(predictions.glob("*.nii.gz"))
        ]
        means = {label: {"Dice": float(np.nanmean([c["metrics"][label]["Dice"] for c in cases]))} for label in labels}
        for case in cases:
            recursive_fix_for_json_export(case)
        file.parent.mkdir(parents=True, exist_ok=True)
        save_summary_json({"metric_per_case": cases, "mean": means, "foreground_mean": {}}, str(file))
        return file

    return write
