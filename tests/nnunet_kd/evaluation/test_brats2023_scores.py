"""BraTS 2023's scores of files, and which rules belong to which data set."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nnunet_kd.errors import UsageError
from nnunet_kd.evaluation.brats2023_scores import whole_scores
from nnunet_kd.evaluation.labels import LabelScheme, Structure
from nnunet_kd.evaluation.score_sets import score_set

SaveLabels = Callable[..., Path]
SCHEME = LabelScheme(
    structures=(
        Structure(name="whole tumor", labels=(1, 2, 3)),
        Structure(name="tumor core", labels=(2, 3)),
        Structure(name="enhancing tumor", labels=(3,)),
    )
)


@pytest.mark.parametrize(
    ("true", "found", "expected"),
    [
        ([], [], (1, 0, 1, 1)),
        ([], [0, 1], (0, 374, 0, 8 / 10)),
        ([0, 1], [], (0, 374, 0, 1)),
        # two of ten voxels true, two found, one common: 2 / 4; half of each surface and more is in place, and the far
        # corners are one voxel of 2 mm away
        ([0, 1], [1, 2], (1 / 2, 2, 1 / 2, 7 / 8)),
    ],
    ids=["both_empty", "truth_empty", "prediction_empty", "shifted"],
)
def test_whole_structures_by_hand(true: list[int], found: list[int], expected: tuple[float, ...]) -> None:
    reference, prediction = np.zeros((2, 10, 1, 1), dtype=bool)
    reference[true], prediction[found] = True, True
    assert whole_scores(reference, prediction, (2.0, 1.0, 1.0)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("name", "rod", "dice", "hd95"),
    [
        # 8 mm^3 count in metastases; one dilation does not reach the rod: missed, and false, (0 + 0) / 2
        ("brats2023-met", 3, (1, 1, 0), (0, 0, 374)),
        ("brats2023-met", 2, (1, 1, 0), (0, 0, 374)),  # missed
        # elsewhere they are too small to count; three dilations reach the rod: neither found nor false
        ("brats2023", 3, (1, 1, 1), (0, 0, 0)),
        ("brats2023", 2, (1, 1, 1), (0, 0, 0)),
        # one does not: false
        ("brats2023-men", 3, (1, 1, 0), (0, 0, 374)),
        ("brats2023-men", 2, (1, 1, 1), (0, 0, 0)),
    ],
)
def test_each_data_set_has_its_rules(
    name: str, rod: int, dice: tuple[float, ...], hd95: tuple[float, ...], tmp_path: Path, save_labels: SaveLabels
) -> None:
    """In a core of 6 x 6 x 6 an enhancing cube of 2 x 2 x 2; beyond a gap of two, two voxels are found as ``rod``."""
    reference = np.zeros((24, 12, 12), np.uint8)
    reference[2:8, 2:8, 2:8] = 2
    prediction = reference.copy()
    reference[3:5, 3:5, 3:5], prediction[7, 3:5, 3] = 3, rod
    files = [save_labels(tmp_path / f"{n}.nii.gz", a) for n, a in (("truth", reference), ("found", prediction))]
    scores = score_set(name).score_files((files[0], files[1]), SCHEME)
    np.testing.assert_allclose(scores[:, 0], dice)
    np.testing.assert_allclose(scores[:, 1], hd95)


@pytest.mark.parametrize(
    ("name", "case", "said"),
    [
        ("brats2023", "BraTS-MET-00002-000", "type --scores brats2023-met"),
        ("brats2023", "BraTS-MEN-00004-000", "expected cases of BraTS-GLI, BraTS-SSA, BraTS-PED for"),
        ("brats2023-men", "BraTS-SSA-00004-000", "type --scores brats2023"),
        ("brats2023", "BraTS-PED-00004-000", None),
        ("brats2023-met", "case_1", None),
    ],
)
def test_cases_of_another_data_set_are_refused(name: str, case: str, said: str | None) -> None:
    check = score_set(name).check_files
    assert check is not None
    if said is None:
        check("arm 'a'", {case: Path(case)}, SCHEME)
    else:
        with pytest.raises(UsageError, match=said):
            check("arm 'a'", {case: Path(case)}, SCHEME)
