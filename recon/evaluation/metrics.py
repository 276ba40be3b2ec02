"""Scores of a reconstructed volume against the true one, on the scale of the truth.

Volumes are magnitudes, ``(S, H, W)``: slices first. PSNR, SSIM and NMSE are those of fastMRI's own ``evaluate.py``
(facebookresearch/fastMRI, MIT): one number per volume, whose largest true value is the data range. Slice-wise or
batch-wise means, other windows and other ranges give other numbers; they are not comparable.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_kd.evaluation.score_sets import Metric
from nnunet_kd.optional import require

Volume = NDArray[np.floating[Any]]

_WINDOW = 7  # of the SSIM, uniform
_LOG_SIGMA = 1.5  # pixels; with a kernel of 15 x 15 as in [1] of hfen
_LOG_RADIUS = 7


def check_volumes(target: Volume, prediction: Volume) -> None:
    """Refuse volumes that cannot be compared.

    Raises:
        ValueError: If shapes differ, there are no three axes, or something is not finite.
    """
    if target.shape != prediction.shape:
        raise ValueError(f"expected a volume of the target's shape {target.shape}, got {prediction.shape}")
    if target.ndim != 3 or not target.size:
        raise ValueError(f"expected a volume with the axes slice, row, column, got the shape {target.shape}")
    for name, volume in (("target", target), ("prediction", prediction)):
        if not np.isfinite(volume).all():
            raise ValueError(f"expected finite values in the {name}, found others")


def centre_crop(volume: Volume, size: tuple[int, int]) -> Volume:
    """Cut the centre out of every slice, beginning at ``(N - n) // 2``; an axis that is smaller stays.

    Args:
        volume: ``(..., H, W)``.
        size: Wanted height and width.
    """
    height, width = (min(wanted, there) for wanted, there in zip(size, volume.shape[-2:], strict=True))
    top, left = (volume.shape[-2] - height) // 2, (volume.shape[-1] - width) // 2
    return volume[..., top : top + height, left : left + width]


def mse(target: Volume, prediction: Volume) -> float:
    """Return the mean squared error over the volume."""
    return float(np.mean((target.astype(np.float64) - prediction) ** 2))


def nmse(target: Volume, prediction: Volume) -> float:
    """Return ``|target - prediction|^2 / |target|^2`` over the volume; ``nan`` for a target of zeros."""
    energy = float(np.sum(target.astype(np.float64) ** 2))
    return mse(target, prediction) * target.size / energy if energy else float("nan")


def psnr(target: Volume, prediction: Volume) -> float:
    """Return ``10 log10(max(target)^2 / MSE)`` in dB over the volume; infinite for equal volumes."""
    error, largest = mse(target, prediction), float(target.max())
    if largest <= 0:
        return float("nan")
    return float(10 * np.log10(largest**2 / error)) if error else float("inf")


def ssim(target: Volume, prediction: Volume) -> float:
    """Return the mean over slices of the structural similarity.

    Uniform window of 7 x 7, sample covariance, K1 = 0.01, K2 = 0.03, data range the volume's largest true value.

    Raises:
        ValueError: If a slice is smaller than the window.
    """
    from skimage import metrics

    similarity: Any = metrics.structural_similarity  # without types
    if min(target.shape[-2:]) < _WINDOW:
        raise ValueError(f"expected slices of at least {_WINDOW} x {_WINDOW} for the SSIM, got {target.shape[-2:]}")
    largest = float(target.max())
    if largest <= 0:
        return float("nan")
    pairs = zip(target, prediction, strict=True)
    return float(np.mean([similarity(a, b, data_range=largest, win_size=_WINDOW) for a, b in pairs]))


def hfen(target: Volume, prediction: Volume) -> float:
    """Return the high-frequency error norm: relative L2 error after a Laplacian of Gaussian in the slices [1].

    Sigma 1.5 pixels, kernel 15 x 15.

    References:
        [1] Ravishankar and Bresler, MR Image Reconstruction From Highly Undersampled k-Space Data by Dictionary
            Learning, 2011, https://doi.org/10.1109/TMI.2010.2090538
    """
    from scipy.ndimage import gaussian_laplace

    def edges(volume: Volume) -> NDArray[np.float64]:
        sigma = (0.0, _LOG_SIGMA, _LOG_SIGMA)
        planes = [gaussian_laplace(plane, sigma[1:], truncate=_LOG_RADIUS / _LOG_SIGMA) for plane in volume]
        return np.stack(planes)

    true = edges(target.astype(np.float64))
    norm = float(np.linalg.norm(true))
    return float(np.linalg.norm(true - edges(prediction.astype(np.float64)))) / norm if norm else float("nan")


def hfn(target: Volume, prediction: Volume) -> float:
    """Return KD-MRI's high-frequency norm: mean over slices of the relative squared error after a 3 x 3 Laplacian.

    Its authors' program clips the prediction to [0, 1] first, which their data lie in; here the clip is to the range
    of the target's volume.
    """
    from skimage import filters

    laplace: Any = filters.laplace  # without types
    clipped = np.clip(prediction, 0.0, float(target.max()))
    shares = []
    for true, found in zip(target, clipped, strict=True):
        edges = laplace(true.astype(np.float64), ksize=3)
        energy = float(np.sum(edges**2))
        if energy:
            shares.append(float(np.sum((edges - laplace(found.astype(np.float64), ksize=3)) ** 2)) / energy)
    return float(np.mean(shares)) if shares else float("nan")


def _piq(name: str) -> Callable[[Volume, Volume], float]:
    """Return a metric of piq, a mean over slices scaled by the volume's largest true value."""

    def score(target: Volume, prediction: Volume) -> float:
        import torch

        largest = float(target.max())
        if largest <= 0:
            return float("nan")
        true, found = (
            torch.as_tensor(np.clip(np.asarray(v, np.float64) / largest, 0, 1), dtype=torch.float32)[:, None]
            for v in (target, prediction)
        )
        return float(getattr(require("piq"), name)(found, true, data_range=1.0, reduction="mean"))

    return score


@dataclass(frozen=True, kw_only=True)
class Score:
    """A metric and how it is computed.

    Attributes:
        metric: Name, title, unit and direction.
        compute: From target and prediction, ``(S, H, W)`` each, to a number.
    """

    metric: Metric
    compute: Callable[[Volume, Volume], float]


METRICS = {
    score.metric.name: score
    for score in (
        Score(metric=Metric(name="PSNR", title="PSNR", unit="dB"), compute=psnr),
        Score(metric=Metric(name="SSIM", title="SSIM"), compute=ssim),
        Score(metric=Metric(name="NMSE", title="NMSE", higher_is_better=False), compute=nmse),
        Score(metric=Metric(name="HFEN", title="HFEN", higher_is_better=False), compute=hfen),
        Score(metric=Metric(name="MSE", title="MSE", higher_is_better=False), compute=mse),
        Score(metric=Metric(name="HFN", title="HFN (KD-MRI)", higher_is_better=False), compute=hfn),
        Score(metric=Metric(name="HaarPSI", title="HaarPSI"), compute=_piq("haarpsi")),
        Score(metric=Metric(name="GMSD", title="GMSD", higher_is_better=False), compute=_piq("gmsd")),
        Score(metric=Metric(name="VIF", title="VIF"), compute=_piq("vif_p")),
    )
}
DEFAULT = ("PSNR", "SSIM", "NMSE", "HFEN")


def score_volume(target: Volume, prediction: Volume, names: tuple[str, ...] = DEFAULT) -> dict[str, float]:
    """Return the named scores of a volume.

    Args:
        target: The truth, ``(S, H, W)``, magnitudes.
        prediction: Same shape and scale.
        names: Of :data:`METRICS`.

    Raises:
        ValueError: If the volumes do not fit, see :func:`check_volumes`.
        KeyError: For an unknown name.

    Example:
        >>> volume = np.arange(128.0).reshape(2, 8, 8)
        >>> score_volume(volume, volume + 1, ("MSE",))
        {'MSE': 1.0}
    """
    check_volumes(target, prediction)
    return {name: METRICS[name].compute(target, prediction) for name in names}
