"""Fourier ring correlation of small patches: up to which frequency a reconstruction agrees with the truth [1].

References:
    [1] Kc, Zeng, Soni and Badano, sFRC for assessing hallucinations in medical image restoration, 2026,
        https://arxiv.org/abs/2603.04673
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from nnunet_kd.recon.evaluation.invention.spectrum import ring_numbers

Patches = NDArray[np.floating[Any]]


class Correlation(NamedTuple):
    """What is known of patches.

    Attributes:
        rings: Fourier ring correlation, ``(N, n // 2)`` for patches of n x n pixels, 0 to 1; 1 in rings in which both
            patches are empty.
        crossing: Frequency of the first ring below the threshold, as a share of Nyquist, ``(N,)``; 1 if there is none.
        added: Root mean square of what such rings hold that is no attenuated truth, ``(N,)``, in units of the image.
    """

    rings: NDArray[np.float64]
    crossing: NDArray[np.float64]
    added: NDArray[np.float64]


def correlate(target: Patches, prediction: Patches, threshold: float) -> Correlation:
    """Correlate patches ring by ring.

    Args:
        target: ``(N, n, n)``.
        prediction: Same shape and scale.
        threshold: Of the correlation, 0 to 1.
    """
    size = target.shape[-1]
    window = np.hanning(size + 2)[1:-1].astype(np.float32)  # no sample of it is 0
    window = window[:, None] * window
    true, found = (fft.fftshift(fft.fft2(patches * window), axes=(-2, -1)) for patches in (target, prediction))
    n_rings = size // 2
    inside = _Rings(ring_numbers((size, size), n_rings).ravel(), n_rings)
    shared = inside.sums((true * found.conj()).real)
    energy = inside.sums(np.abs(true) ** 2) * inside.sums(np.abs(found) ** 2)
    rings = np.where(energy > 0, np.abs(shared) / np.sqrt(np.maximum(energy, np.finfo(float).tiny)), 1.0)
    below = rings < threshold
    first = np.where(below.any(axis=1), below.argmax(axis=1), n_rings) / n_rings
    added = (inside.sums(added_energy(true, found)) * below).sum(axis=1)
    return Correlation(rings=rings, crossing=first, added=np.sqrt(added / size**2 / (window**2).sum()))


def added_energy(true: NDArray[Any], found: NDArray[Any]) -> NDArray[Any]:
    """Return the energy at each frequency that is no attenuated truth: ``min over 0 <= g <= 1 of |found - g true|^2``.

    What blurring or leaving out lines of k-space does is an attenuation at each frequency, along one axis as along
    both, and adds nothing. What has another phase, or more energy than the truth, does.

    Example:
        >>> added_energy(np.array([2 + 0j, 2, 2, 0]), np.array([1 + 0j, 3, 1j, 1])).tolist()
        [0.0, 1.0, 1.0, 1.0]
    """
    power = np.abs(true) ** 2
    gain = np.clip((found * true.conj()).real / np.where(power > 0, power, 1), 0, 1)
    return np.asarray(np.abs(found - gain * true) ** 2)


class _Rings(NamedTuple):
    numbers: NDArray[np.intp]
    n_rings: int

    def sums(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Add values ``(N, n, n)`` up in every ring, ``(N, n_rings)``; the corners are left out."""
        flat = values.reshape(len(values), -1)
        belongs = (self.numbers[:, None] == np.arange(self.n_rings)).astype(flat.dtype)
        return np.asarray(flat @ belongs, np.float64)
