"""KiTS23's scores by hand: nested structures, their tolerances and empty masks."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nnunet_kd.evaluation.kits23_scores import SCORES
from nnunet_kd.evaluation.labels import LabelScheme, Structure

NAMES = {"kidney": 1, "tumor": 2, "cyst": 3}


@pytest.mark.parametrize(
    ("reference", "prediction", "spacing", "dice", "surface_dice"),
    [
        ([], [], 1.0, (1, 1, 1), (1, 1, 1)),
        ([(0, 1)], [], 1.0, (0, 1, 1), (0, 1, 1)),
        # a cyst belongs to two structures, kidney to one
        ([(0, 3)], [(0, 3)], 1.0, (1, 1, 1), (1, 1, 1)),
        ([(0, 3)], [(0, 1)], 1.0, (1, 0, 1), (1, 0, 1)),
        ([(0, 1), (1, 1), (4, 3)], [(0, 1), (1, 1), (4, 2)], 1.0, (1, 1, 0), (1, 1, 0)),
        # a voxel and its neighbour: half of either surface is common, half is one voxel away. The tolerances are
        # 1.033, 1.133 and 1.150 mm
        ([(0, 2)], [(1, 2)], 1.0, (0, 0, 0), (1, 1, 1)),
        ([(0, 2)], [(1, 2)], 1.1, (0, 0, 0), (0.5, 1, 1)),
        ([(0, 2)], [(1, 2)], 1.14, (0, 0, 0), (0.5, 0.5, 1)),
        ([(0, 2)], [(1, 2)], 1.2, (0, 0, 0), (0.5, 0.5, 0.5)),
    ],
)
def test_scores_by_hand(
    reference: list[tuple[int, int]],
    prediction: list[tuple[int, int]],
    spacing: float,
    dice: tuple[float, ...],
    surface_dice: tuple[float, ...],
    tmp_path: Path,
    save_labels: Callable[..., Path],
) -> None:
    files = []
    for name, voxels in (("truth", reference), ("found", prediction)):
        labels = np.zeros((1, 2, 6), np.uint8)
        for place, value in voxels:
            labels[0, 0, place] = value
        files.append(save_labels(tmp_path / f"{name}.nii.gz", labels, (5.0, 1.0, spacing)))
    assert SCORES.fit is not None
    plain = LabelScheme(structures=tuple(Structure(name=name, labels=(value,)) for name, value in NAMES.items()))
    found = SCORES.score_files((files[0], files[1]), SCORES.fit(plain, "dataset.json"))
    np.testing.assert_allclose(found, np.transpose([dice, surface_dice]))
