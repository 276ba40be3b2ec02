"""Claims about masks of a density."""

import numpy as np
import pytest

from nnunet_kd.errors import UsageError
from nnunet_kd.recon.physics.masks import SamplingSettings, make_mask
from nnunet_kd.recon.physics.sampling import calibration_size


def many(settings: SamplingSettings, shape: tuple[int, int], n: int = 300) -> np.ndarray:
    return np.stack([make_mask(settings, shape, seed=seed) for seed in range(n)])


@pytest.mark.parametrize(
    ("n", "acceleration", "expected"),
    [(150, 4, 37), (150, 5, 30), (150, 8, 18), (240, 4, 60), (240, 5, 48), (240, 8, 30), (151, 4, 37)],
)
@pytest.mark.parametrize("axis", ["columns", "rows"])
def test_variable_density_has_the_published_counts(n: int, acceleration: int, expected: int, axis: str) -> None:
    """Of KD-MRI's cardiac and brain masks; their ten central lines, too."""
    settings = SamplingSettings(mask="variable_density", acceleration=acceleration, axis=axis)
    mask = make_mask(settings, (n, n), seed=42)
    assert mask.shape == ((1, n) if axis == "columns" else (n, 1))
    assert mask.sum() == expected
    assert mask.ravel()[n // 2 - 5 : n // 2 + 5].all()


@pytest.mark.parametrize("name", ["variable_density", "gaussian", "gaussian_2d"])
def test_density_falls_with_the_distance(name: str) -> None:
    shape = (40, 40) if name == "gaussian_2d" else (1, 120)
    often = many(SamplingSettings(mask=name, n_calibration=6), shape).mean(axis=0)
    line = often[shape[0] // 2]
    middle, size = line.size // 2, line.size // 6
    near, far = line[middle + 4 : middle + 4 + size].mean(), line[-size:].mean()
    assert near > 1.5 * far > 0


def test_the_floor_of_variable_density_reaches_the_edge() -> None:
    """The outermost lines are drawn with 1 / (2 R) against 1 + 1 / (2 R) beside the centre."""
    often = many(SamplingSettings(mask="variable_density"), (1, 150), n=2000)[:, 0].mean(axis=0)
    edge, beside = often[:20].mean(), often[[68, 69, 80, 81]].mean()
    assert 4 < beside / edge < 9  # 9 for a first draw; without replacement near lines are soon used up


@pytest.mark.parametrize("shape", [(30, 40), (31, 41)], ids=str)
@pytest.mark.parametrize("acceleration", [2, 4, 6.5])
def test_gaussian_counts_are_exact(shape: tuple[int, int], acceleration: float) -> None:
    settings = {"acceleration": acceleration, "n_calibration": 5}
    lines = make_mask(SamplingSettings(mask="gaussian", **settings), shape, seed=1)
    points = make_mask(SamplingSettings(mask="gaussian_2d", **settings), shape, seed=1)
    assert lines.sum() == round(shape[1] / acceleration)
    assert points.sum() == round(shape[0] * shape[1] / acceleration)
    assert min(calibration_size(lines), calibration_size(points)) >= 5


@pytest.mark.parametrize("name", ["variable_density", "gaussian", "gaussian_2d", "poisson_disc"])
def test_a_centre_larger_than_the_mask_is_refused(name: str) -> None:
    settings = SamplingSettings(mask=name, n_calibration=20, acceleration=8)
    with pytest.raises(UsageError, match=r"centre has \d+ samples, more than the \d+ that the acceleration leaves"):
        make_mask(settings, (40, 40), seed=0)
