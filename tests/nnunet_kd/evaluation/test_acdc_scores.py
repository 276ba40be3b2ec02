"""ACDC's scores by hand."""

import numpy as np
import pytest

from nnunet_kd.evaluation.acdc_scores import score_masks


@pytest.mark.parametrize(
    ("true", "found", "expected"),
    [
        ([], [], (0, np.nan)),
        ([0], [], (0, np.nan)),
        ([], [0], (0, np.nan)),
        # slices of 10 mm: one is common; the farthest voxel of the prediction is three slices from the reference
        ([0, 1], [1, 4], (2 / 4, 30)),
        ([1, 4], [0, 1], (2 / 4, 30)),
    ],
)
def test_scores_by_hand(true: list[int], found: list[int], expected: tuple[float, float]) -> None:
    reference, prediction = np.zeros((2, 5, 3, 3), dtype=bool)
    reference[true, 1, 1], prediction[found, 1, 1] = True, True
    np.testing.assert_allclose(score_masks(reference, prediction, (10.0, 1.5, 1.5)), expected)


def test_the_inside_of_a_mask_is_no_border() -> None:
    """A full block of 5 x 5 x 5 and its border: nothing is apart, though the middle is 2 voxels inside."""
    full = np.pad(np.ones((5, 5, 5), dtype=bool), 1)
    hollow = full.copy()
    hollow[2:5, 2:5, 2:5] = False
    # the hollow's inner border touches its outer one: all its voxels are border, each within 0 of the block's
    np.testing.assert_allclose(score_masks(full, hollow, (1.0, 1.0, 1.0)), (2 * 98 / (98 + 125), 0))
