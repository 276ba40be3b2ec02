"""Radial power spectrum of a reconstruction against that of the truth: too smooth, right, or too rough."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_kd.recon.evaluation.metrics import Volume

N_RINGS = 32
_SMALLEST = 1e-12  # of the target's strongest ring: what single precision makes of nothing


def ring_numbers(shape: tuple[int, int], n_rings: int) -> NDArray[np.intp]:
    """Return the ring of every point of a centred spectrum; ``n_rings`` for points beyond the last ring.

    A ring is a share of the Nyquist frequency, of each axis its own, so that rings are ellipses for other matrices
    than squares: ring i holds radii from ``i / n_rings`` to ``(i + 1) / n_rings``. The corners lie beyond.

    Args:
        shape: ``(H, W)``.
        n_rings: From 1.

    Example:
        >>> ring_numbers((4, 4), 2).tolist()
        [[2, 2, 2, 2], [2, 1, 1, 1], [2, 1, 0, 1], [2, 1, 1, 1]]
    """
    rows, columns = (np.fft.fftshift(np.fft.fftfreq(n)) * 2 for n in shape)
    radius = np.hypot(rows[:, None], columns[None, :])
    # 1e-9: a radius that is a multiple of the width belongs to the ring it begins, whatever rounding did
    rings: NDArray[np.intp] = np.minimum((radius * n_rings + 1e-9).astype(np.intp), n_rings)
    return rings


def radial_power(volume: Volume, n_rings: int = N_RINGS) -> NDArray[np.float64]:
    """Return the mean power in each ring of the slices' spectra, over rings and slices.

    Args:
        volume: Magnitudes, ``(S, H, W)``.
        n_rings: From the zero frequency to Nyquist. Rings without a point, in small slices, are ``nan``.

    Returns:
        ``(n_rings,)``, >= 0.
    """
    spectrum = np.fft.fftshift(np.fft.fft2(volume.astype(np.float64), norm="ortho"), axes=(-2, -1))
    power = (np.abs(spectrum) ** 2).mean(axis=0)
    rings = ring_numbers((volume.shape[-2], volume.shape[-1]), n_rings).ravel()
    sums = np.bincount(rings, power.ravel(), n_rings + 1)[:n_rings]
    counts = np.bincount(rings, minlength=n_rings + 1)[:n_rings]
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def power_error(target: Volume, prediction: Volume, n_rings: int = N_RINGS) -> NDArray[np.float64]:
    """Return ``10 log10(power of the prediction / power of the target)`` of each ring, in dB.

    0 is right, below 0 is too smooth, above 0 is too rough. It says nothing about whether detail lies where it should.

    Args:
        target: ``(S, H, W)``.
        prediction: Same shape and scale.
        n_rings: See :func:`radial_power`.

    Returns:
        ``(n_rings,)``; ``nan`` where a ring has no point.
    """
    true, found = radial_power(target, n_rings), radial_power(prediction, n_rings)
    smallest = _SMALLEST * float(np.nanmax(true)) or _SMALLEST
    ratio: NDArray[Any] = np.maximum(found, smallest) / np.maximum(true, smallest)
    return np.asarray(10 * np.log10(ratio))


def spectral_distance(error: NDArray[np.float64]) -> float:
    """Return the mean over rings of the absolute error in dB, the zero frequency's ring left out."""
    return float(np.nanmean(np.abs(error[1:])))


def fine_detail_excess(error: NDArray[np.float64]) -> float:
    """Return the mean error in dB over the outer half of the rings: below 0 too smooth, above 0 too rough."""
    return float(np.nanmean(error[len(error) // 2 :]))
