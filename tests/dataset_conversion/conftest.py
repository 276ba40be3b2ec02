"""Small trees in the layouts that the organisers publish."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

# The head of Task04_Hippocampus/dataset.json as distributed on http://medicaldecathlon.com/ ("relase" is theirs).
PUBLISHED = {
    "name": "Hippocampus",
    "description": "Left and right hippocampus segmentation",
    "reference": " Vanderbilt University Medical Center",
    "licence": "CC-BY-SA 4.0",
    "relase": "1.0 04/05/2018",
    "tensorImageSize": "3D",
    "modality": {"0": "MRI"},
    "labels": {"0": "background", "1": "Anterior", "2": "Posterior"},
}


def _save(array: np.ndarray[Any, Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, np.diag([1.0, 1.5, 2.0, 1.0])), path)


@pytest.fixture
def decathlon_task(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a task folder: three training cases, two test cases, one AppleDouble file."""

    def write(name: str = "Task04_Hippocampus", *, n_train: int = 3, n_test: int = 2, **changes: Any) -> Path:
        folder = tmp_path / "download" / name
        rng = np.random.default_rng(0)
        training = [f"hippocampus_{3 * number + 1:03d}.nii.gz" for number in range(n_train)]
        test = [f"hippocampus_{3 * number + 2:03d}.nii.gz" for number in range(n_test)]
        modality = changes.get("modality")
        n_channels = len(modality) if isinstance(modality, dict) else 1
        shape = (7, 8, 9) if n_channels == 1 else (7, 8, 9, n_channels)
        for file in training:
            _save(rng.normal(100, 20, shape).astype(np.float32), folder / "imagesTr" / file)
            _save(rng.integers(0, 3, (7, 8, 9)).astype(np.uint8), folder / "labelsTr" / file)
        for file in test:
            _save(rng.normal(100, 20, shape).astype(np.float32), folder / "imagesTs" / file)
        # the organisers' archives were packed on macOS and carry such files beside the real ones
        (folder / "imagesTr" / f"._{training[0]}").write_bytes(b"\x00\x05\x16\x07")
        listing = {
            "numTraining": n_train,
            "numTest": n_test,
            "training": [{"image": f"./imagesTr/{file}", "label": f"./labelsTr/{file}"} for file in training],
            "test": [f"./imagesTs/{file}" for file in test],
        }
        (folder / "dataset.json").write_text(json.dumps(PUBLISHED | listing | changes))
        return folder

    return write


@pytest.fixture
def nnunet_raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Set nnUNet_raw to an empty folder."""
    folder = tmp_path / "raw"
    folder.mkdir()
    monkeypatch.setenv("nnUNet_raw", str(folder))
    return folder
