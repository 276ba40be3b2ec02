"""Every measure on a phantom with a planted invention, on a blurred one, and on numbers known beforehand."""

from typing import Any

import numpy as np
import pytest

from nnunet_kd.errors import UsageError
from nnunet_kd.recon.evaluation.invention.detail import detail_agreement, detail_share, injected_detail
from nnunet_kd.recon.evaluation.invention.measures import measured_of, residual_of
from nnunet_kd.recon.evaluation.invention.residual import measured_residual, true_image
from nnunet_kd.recon.evaluation.invention.ring_correlation import correlate
from nnunet_kd.recon.evaluation.invention.scan import ScanSettings, scan
from nnunet_kd.recon.evaluation.invention.spectrum import fine_detail_excess, power_error, spectral_distance
from nnunet_kd.recon.evaluation.invention.spread import calibration_curve, correlation, error_to_spread, moments

SLICE = 0


def test_planted_disc_is_marked_and_nothing_else(planted: Any) -> None:
    found = scan(planted.target, planted.invented)
    assert found.marked[SLICE][planted.disc].all()
    assert found.marked[SLICE].mean() < 0.08  # patches about the disc, no others
    rows, columns = np.nonzero(found.marked[SLICE])
    assert np.hypot(rows - 52, columns - 44).max() < ScanSettings().patch
    assert not found.marked[1].any()


def test_blur_is_no_invention_but_lacks_power(planted: Any) -> None:
    assert not scan(planted.target, planted.blurred).marked.any()
    blurred = power_error(planted.target, planted.blurred)
    assert fine_detail_excess(blurred) < -10
    assert spectral_distance(blurred) > 10
    assert spectral_distance(power_error(planted.target, planted.invented)) < 0.5


def test_equal_images_are_perfect(planted: Any) -> None:
    found = scan(planted.target, planted.target)
    assert not found.marked.any()
    assert found.crossing.min() == 1
    assert spectral_distance(power_error(planted.target, planted.target)) == 0


def test_detail_map_shows_the_disc(planted: Any) -> None:
    added = injected_detail(planted.invented, planted.target)[SLICE]
    place = np.unravel_index(np.abs(added).argmax(), added.shape)
    assert planted.disc[place]
    assert np.abs(added[planted.disc]).mean() > 10 * np.abs(added[~planted.disc]).mean()
    assert 0 < detail_share(planted.target, planted.invented, planted.target) < 0.2


@pytest.mark.parametrize(("added", "expected"), [(0.5, 1.0), (-0.5, -1.0)])
def test_agreement_says_whether_detail_was_missing(planted: Any, added: float, expected: float) -> None:
    sample = planted.blurred + added * (planted.target - planted.blurred)
    assert detail_agreement(planted.target, sample, planted.blurred) == pytest.approx(expected, abs=1e-5)


def test_disc_of_the_null_space_leaves_the_measured_samples(planted: Any) -> None:
    """With its magnitude alone the phase's share of the invention is lost, so that is small but not zero."""
    measured = measured_of(planted.case, planted.mask)
    assert residual_of(planted.target, measured) < 1e-5
    assert residual_of(planted.invented, measured) < 0.3 * residual_of(planted.blurred, measured)
    assert residual_of(planted.target * 1.1, measured) == pytest.approx(0.1, rel=1e-3)
    assert measured_residual(true_image(planted.case), planted.case, planted.mask) < 1e-6


def test_cropped_magnitudes_are_filled_up(planted: Any) -> None:
    measured = measured_of(planted.case, planted.mask)
    assert residual_of(planted.target[:, 10:-10, 4:-4], measured) < 1e-5


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
def test_spread_of_one_distribution_is_calibrated(scale: float) -> None:
    """Truth and samples scatter alike for 1; samples are too sure where their spread is half of that."""
    random = np.random.default_rng(0)
    mean, width = random.uniform(1, 2, (4, 64, 64)), random.uniform(0.02, 0.1, (4, 64, 64))
    target = mean + width * random.normal(size=mean.shape)
    samples = [mean + scale * width * random.normal(size=mean.shape) for _ in range(6)]
    found = moments(target, samples)
    expected = np.sqrt(1 + scale**2 / 6) / (scale * np.sqrt(1 + 1 / 6))
    assert error_to_spread(found) == pytest.approx(expected, rel=0.05)
    assert 0.1 < correlation(found) < 1
    curve = calibration_curve(found)
    assert sum(count for _, _, count in curve) > 16000
    assert curve[-1][1] > curve[0][1]


def test_moments_add_up() -> None:
    random = np.random.default_rng(1)
    target, samples = random.uniform(1, 2, (2, 16, 16)), random.uniform(1, 2, (3, 2, 16, 16))
    target[:, 0, 0] = 3  # the same scale for both halves
    whole, parts = moments(target, list(samples)), [moments(target[i : i + 1], samples[:, i : i + 1]) for i in (0, 1)]
    both = parts[0] + parts[1]
    assert correlation(both) == pytest.approx(correlation(whole))
    assert error_to_spread(both) == pytest.approx(error_to_spread(whole))


def test_uncorrelated_patches_cross_at_once() -> None:
    random = np.random.default_rng(2)
    found = correlate(*random.normal(size=(2, 5, 24, 24)).astype(np.float32), 0.75)
    assert found.crossing.max() < 0.25
    assert found.added.min() > 0.3
    assert found.rings[:, 4:].mean() < 0.4


@pytest.mark.parametrize("settings", [{"patch": 7}, {"stride": 13}, {"threshold": 0.0}, {"cutoff": 1.5}])
def test_settings_that_mean_nothing_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"--{next(iter(settings))}"):
        ScanSettings(**settings)
