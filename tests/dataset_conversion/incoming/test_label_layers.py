"""Claims about label maps that come as masks."""

from pathlib import Path

import nibabel
import numpy as np
import pytest

from nnunet_kd.dataset_conversion.incoming.label_layers import painted

AFFINE = np.array([[0, 0, -0.7, 3], [0, -0.8, 0, 1], [-2.5, 0, 0, 0], [0, 0, 0, 1]])


def _mask(path: Path, box: slice, dtype: type = np.uint8) -> Path:
    mask = np.zeros((6, 2, 3), dtype)
    mask[box] = 7  # any value but 0
    image = nibabel.Nifti1Image(mask, AFFINE)
    if dtype is np.uint16:
        image.header.set_slope_inter(0.5, 0)
    nibabel.save(image, path)
    return path


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float32, np.uint16])
def test_later_masks_lie_above_earlier_ones(dtype: type, tmp_path: Path) -> None:
    layers = [
        (_mask(tmp_path / "a.nii.gz", np.s_[:4], dtype), 1),
        (_mask(tmp_path / "b.nii.gz", np.s_[2:5], dtype), 3),
        (_mask(tmp_path / "c.nii.gz", np.s_[3:4], dtype), 2),
    ]
    labels = painted(layers)
    assert labels.stored[:, 0, 0].tolist() == [1, 1, 3, 2, 3, 0]
    assert labels.stored.dtype == np.uint8
    assert labels.scale == (1.0, 0.0)
    np.testing.assert_array_equal(labels.affine, nibabel.load(layers[0][0]).affine)  # type: ignore[attr-defined]
