"""Cropping and padding about the centre."""

import numpy as np
import pytest

from nnunet_kd.recon.data.arrays import centre_crop, fit_offset, fitted, to_images, to_kspace

SIZES = [(4, 2), (5, 2), (5, 3), (4, 3), (3, 5), (2, 5), (4, 4)]


@pytest.mark.parametrize(("full", "part"), SIZES)
def test_the_pixel_of_the_origin_stays_the_origin(full: int, part: int) -> None:
    image = np.zeros((1, full, full))
    image[0, full // 2, full // 2] = 1
    assert fitted(image, (part, part))[0, part // 2, part // 2] == 1


@pytest.mark.parametrize(("full", "part"), SIZES)
def test_the_offset_tells_where_pixels_came_from(full: int, part: int) -> None:
    result = fitted(np.arange(1, full + 1)[None], (1, part))[0]
    kept = np.flatnonzero(result)
    assert (result[kept] - 1 == kept + fit_offset(full, part)).all()
    assert len(kept) == min(full, part)


def test_a_crop_starts_where_fastmris_does() -> None:
    assert centre_crop(np.arange(6)[None], (1, 3)).tolist() == [[1, 2, 3]]
    with pytest.raises(ValueError, match="at least"):
        centre_crop(np.zeros((2, 2)), (3, 1))


def test_the_transform_is_centred_and_orthonormal() -> None:
    kspace = to_kspace(np.ones((1, 4, 6)))
    assert kspace[0, 2, 3] == pytest.approx(np.sqrt(24))
    assert np.allclose(to_images(kspace), 1)
