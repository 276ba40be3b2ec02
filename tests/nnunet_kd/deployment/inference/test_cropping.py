"""Claims about cropping, against nnU-Net's own function."""

import numpy as np
import pytest
from nnunetv2.preprocessing.cropping.cropping import crop_to_nonzero

from nnunet_kd.deployment.inference.cropping import as_slices, body_mask, nonzero_box


@pytest.mark.parametrize("spots", [[], [(0, 3, 4, 5)], [(0, 2, 2, 2), (1, 6, 1, 7)], [(1, 0, 0, 0), (1, 7, 8, 9)]])
def test_box_and_mask_are_nnunets(spots: list[tuple[int, ...]]) -> None:
    """A shell with a hole in it, and single negative voxels in either channel."""
    data = np.zeros((2, 8, 9, 10), dtype=np.float32)
    if spots:
        data[0, 3:6, 3:6, 3:6] = 1
        data[0, 4, 4, 4] = 0
    for spot in spots:
        data[spot] = -1
    _, seg, box = crop_to_nonzero(data)
    assert [list(side) for side in nonzero_box(data)] == box
    np.testing.assert_array_equal(body_mask(data[(slice(None), *as_slices(box))]), seg[0] >= 0)
