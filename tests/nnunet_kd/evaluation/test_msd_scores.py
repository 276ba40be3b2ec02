"""The Decathlon's scores by hand, at each task's tolerance."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nnunet_kd.evaluation.labels import LabelScheme, Structure
from nnunet_kd.evaluation.msd_scores import SCORES, TASKS

# in mm, from secondary sources; written out here a second time
TOLERANCES = {"Brain": 5, "Heart": 4, "Liver": 7, "Hippo": 1, "Prost": 4, "Lung": 2, "Panc": 5, "Hepat": 3, "Spl": 3}
SaveLabels = Callable[..., Path]


@pytest.mark.parametrize("task", TASKS)
def test_surfaces_as_far_apart_as_the_tolerance_agree(task: str, tmp_path: Path, save_labels: SaveLabels) -> None:
    """Two voxels side by side: half of either surface is one voxel away, which is the tolerance, then a bit more.

    A label in neither has no score, in one of them it has 0.
    """
    tolerance = next((value for name, value in TOLERANCES.items() if task[7:].startswith(name)), 4)
    names = TASKS[task][1]
    plain = LabelScheme(structures=tuple(Structure(name=n, labels=(i,)) for i, n in enumerate(names, start=1)))
    assert SCORES.fit is not None
    scheme = SCORES.fit(plain, "dataset.json")
    assert f"({task})" in SCORES.notes(scheme)[0]
    reference, prediction = np.zeros((2, 1, 3, 5), np.uint8)
    reference[0, 0, 1], prediction[0, 0, 2] = 1, 1
    prediction[0, 2, 4] = min(2, len(names))
    if len(names) == 1:
        prediction[0, 2, 4] = 0
    for spacing, surface_dice in ((float(tolerance), 1.0), (1.01 * tolerance, 0.5)):
        files = [
            save_labels(tmp_path / f"{n}.nii.gz", a, (1.0, 9.0, spacing))
            for n, a in zip("ab", (reference, prediction), strict=True)
        ]
        found = SCORES.score_files((files[0], files[1]), scheme)
        np.testing.assert_allclose(found, [(0, surface_dice), (0, 0), (np.nan, np.nan)][: len(names)])
