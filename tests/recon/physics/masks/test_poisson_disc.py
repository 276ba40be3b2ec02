"""Claims about Poisson-disc masks."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from nnunet_kd.recon.physics.masks import SamplingSettings, make_mask
from nnunet_kd.recon.physics.masks.poisson_disc import find_scale, radii


def drawn(shape: tuple[int, int], acceleration: float, seed: int = 0) -> np.ndarray:
    settings = SamplingSettings(mask="poisson_disc", acceleration=acceleration, n_calibration=4)
    return make_mask(settings, shape, seed=seed)


@pytest.mark.parametrize("acceleration", [4, 7.5])
@pytest.mark.parametrize("shape", [(48, 40), (33, 47)], ids=str)
def test_points_keep_their_distance(shape: tuple[int, int], acceleration: float) -> None:
    """No two points beside the centre are nearer than the smaller of their radii."""
    mask = drawn(shape, acceleration)
    n_wanted = round(shape[0] * shape[1] / acceleration)
    assert mask.sum() == n_wanted
    rows, columns = (n // 2 for n in shape)
    assert mask[rows - 2 : rows + 2, columns - 2 : columns + 2].all()
    mask[rows - 2 : rows + 2, columns - 2 : columns + 2] = 0
    points = np.argwhere(mask)
    radius = radii(shape, find_scale(shape, (4, 4), n_wanted))[tuple(points.T)]
    distance = cdist(points, points) + 1e3 * np.eye(len(points))
    assert (distance >= np.minimum(radius[:, None], radius) - 1e-9).all()
    assert radius.max() > 1.7


def test_points_lie_denser_near_the_centre() -> None:
    often = np.mean([drawn((32, 32), 5, seed) for seed in range(20)], axis=0)
    assert often[8:24, 8:24].mean() > 1.3 * often[:4].mean() > 0


@pytest.mark.parametrize("acceleration", [1, 2, 16])
@pytest.mark.parametrize("shape", [(9, 8), (16, 30)], ids=str)
def test_the_count_is_exact_on_small_matrices_too(shape: tuple[int, int], acceleration: int) -> None:
    settings = SamplingSettings(mask="poisson_disc", acceleration=acceleration, n_calibration=1)
    for seed in range(5):
        assert make_mask(settings, shape, seed=seed).sum() == round(shape[0] * shape[1] / acceleration)
