"""Scores of volumes, against fastMRI's own and against plain loops."""

import numpy as np
import pytest

from nnunet_kd.recon.evaluation import metrics


def volumes() -> tuple[np.ndarray, np.ndarray]:
    s, y, x = np.meshgrid(np.arange(3), np.arange(24), np.arange(20), indexing="ij")
    target = np.abs(np.sin(0.5 * x + 0.1 * s) * np.cos(0.3 * y)) + 0.1 * s
    return target, target + 0.05 * np.cos(1.7 * x + 2.3 * y + s)


# computed by the functions of fastmri 0.3.0 (fastmri/evaluate.py) on these volumes
GOLDEN = {
    "MSE": 0.001249926680505303,
    "NMSE": 0.003498985747015712,
    "PSNR": 30.61422403832205,
    "SSIM": 0.9917383675530601,
}


@pytest.mark.parametrize("name", GOLDEN)
def test_equal_to_fastmri(name: str) -> None:
    """A slice-wise range, another window or a mean over slices of the PSNR would all show."""
    assert metrics.METRICS[name].compute(*volumes()) == pytest.approx(GOLDEN[name], rel=1e-9)


def test_hfen_is_zero_for_equal_volumes_and_blind_to_a_constant() -> None:
    target, prediction = volumes()
    assert metrics.hfen(target, target) == 0
    assert metrics.hfen(target, target + 3) == pytest.approx(0, abs=1e-3)  # the kernel of 15 x 15 is cut off
    assert metrics.hfen(target, prediction) > 0.005


def test_hfn_is_the_loop_of_its_definition() -> None:
    target, prediction = volumes()
    kernel = np.array([[0, -1, 0], [-1, 4, -1], [0, -1, 0]])
    shares = []
    for true, found in zip(target, np.clip(prediction, 0, target.max()), strict=True):
        both = [np.pad(image, 1, mode="symmetric") for image in (true, found)]
        edges = [
            sum(kernel[i, j] * image[i : i + 24, j : j + 20] for i in range(3) for j in range(3)) for image in both
        ]
        shares.append(((edges[0] - edges[1]) ** 2).sum() / (edges[0] ** 2).sum())
    assert metrics.hfn(target, prediction) == pytest.approx(np.mean(shares))


@pytest.mark.parametrize(("name", "best"), [("HaarPSI", 1.0), ("GMSD", 0.0), ("VIF", 1.0)])
def test_perceptual_scores_know_the_best(name: str, best: float) -> None:
    pytest.importorskip("piq")
    target = np.random.default_rng(0).random((2, 64, 64))
    score = metrics.METRICS[name].compute
    assert score(target, target) == pytest.approx(best, abs=1e-4)
    worse = score(target, target + 0.1 * np.random.default_rng(1).random(target.shape))
    assert abs(worse - best) > abs(score(target, target) - best) + 1e-3


@pytest.mark.parametrize("name", ["PSNR", "SSIM", "NMSE", "HaarPSI"])
def test_a_target_of_zeros_has_no_score(name: str) -> None:
    assert np.isnan(metrics.METRICS[name].compute(np.zeros((1, 32, 32)), np.ones((1, 32, 32))))


def test_centre_crop_begins_where_fastmri_begins() -> None:
    volume = np.arange(7 * 6).reshape(1, 7, 6)
    cropped = metrics.centre_crop(volume, (4, 9))
    np.testing.assert_array_equal(cropped, volume[:, 1:5])  # (7 - 4) // 2 = 1; an axis that is smaller stays


@pytest.mark.parametrize(
    ("target", "prediction", "words"),
    [
        (np.zeros((1, 8, 8)), np.zeros((1, 8, 9)), "shape"),
        (np.zeros((8, 8)), np.zeros((8, 8)), "slice, row, column"),
        (np.ones((1, 8, 8)), np.full((1, 8, 8), np.nan), "finite values in the prediction"),
    ],
)
def test_volumes_that_do_not_fit(target: np.ndarray, prediction: np.ndarray, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        metrics.score_volume(target, prediction)
