"""One synthetic case: two nested structures among look-alikes, with noise and bias field."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion

Array = NDArray[np.float64]

_MIN_VOXELS = 4  # each structure has at least this many, so that every case can be scored
_MAX_TRIES = 50


@dataclass(frozen=True, kw_only=True)
class _Blob:
    """A deformed ellipsoid, as a level function that is negative inside."""

    centre: Array
    level: Array

    def mask(self, threshold: float = 0.0) -> NDArray[np.bool_]:
        return self.level < threshold


def _coordinates(shape: Sequence[int]) -> Array:
    """Return voxel centres in [-1, 1] per axis, ``(3, *shape)``; 0 on an axis of one voxel."""
    axes = [(np.arange(n) - (n - 1) / 2) / max((n - 1) / 2, 0.5) for n in shape]
    return np.stack(np.meshgrid(*axes, indexing="ij"))


def _waves(rng: np.random.Generator, points: Array, *, frequencies: tuple[float, float], n_waves: int) -> Array:
    """Sum random cosine waves to a smooth field of mean 0 and variance 1.

    Args:
        rng: Source of the directions, frequencies and phases.
        points: Coordinates, ``(3, *shape)``.
        frequencies: Lowest and highest frequency, in periods per unit of ``points``.
        n_waves: How many are summed.
    """
    directions = rng.normal(size=(n_waves, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    speeds = 2 * math.pi * rng.uniform(*frequencies, size=n_waves)
    phases = rng.uniform(0, 2 * math.pi, size=n_waves)
    field = np.zeros(points.shape[1:])
    for direction, speed, phase in zip(directions, speeds, phases, strict=True):
        field += np.cos(np.tensordot(speed * direction, points, axes=1) + phase)
    return field * math.sqrt(2 / n_waves)


def _blob(rng: np.random.Generator, points: Array, *, centre: Array, radii: Array, roughness: float) -> _Blob:
    """Return an ellipsoid in a random orientation with a smooth random boundary."""
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    turned = np.tensordot(rotation, points - centre.reshape(3, 1, 1, 1), axes=1)
    distance = np.sqrt(((turned / radii.reshape(3, 1, 1, 1)) ** 2).sum(axis=0))
    bumps = _waves(rng, points / radii.mean(), frequencies=(0.15, 0.5), n_waves=8)
    return _Blob(centre=centre, level=distance - 1 + roughness * bumps)


def _structures(rng: np.random.Generator, points: Array) -> tuple[_Blob, NDArray[np.uint8]]:
    """Draw the outer and the inner structure until both can be seen on this grid."""
    for _ in range(_MAX_TRIES):
        radii = rng.uniform(0.45, 0.7) * rng.uniform(0.75, 1.3, size=3)
        outer = _blob(rng, points, centre=rng.uniform(-0.25, 0.25, size=3), radii=radii, roughness=0.1)
        centre = outer.centre + rng.uniform(-0.15, 0.15, size=3) * radii
        inner = _blob(rng, points, centre=centre, radii=radii * rng.uniform(0.5, 0.75), roughness=0.1)
        label = outer.mask().astype(np.uint8)
        # one voxel of the outer structure stays around the inner one, whatever the grid
        label[inner.mask() & binary_erosion(outer.mask(), border_value=1)] = 2
        if min((label == 1).sum(), (label == 2).sum()) >= _MIN_VOXELS:
            return outer, label
    raise ValueError(f"shape {points.shape[1:]} is too small for two nested structures")


def _decoys(rng: np.random.Generator, points: Array, outer: _Blob, n_decoys: int) -> list[NDArray[np.bool_]]:
    """Draw small blobs outside of the outer structure."""
    masks = []
    for _ in range(n_decoys):
        radii = rng.uniform(0.15, 0.4) * rng.uniform(0.7, 1.4, size=3)
        decoy = _blob(rng, points, centre=rng.uniform(-0.95, 0.95, size=3), radii=radii, roughness=0.1)
        masks.append(decoy.mask() & ~outer.mask(0.1))
    return masks


def phantom_case(
    seed: int | Sequence[int],
    *,
    shape: tuple[int, int, int],
    n_channels: int = 1,
    contrast: float = 0.9,
    noise: float = 0.7,
    bias: float = 0.25,
    n_decoys: int = 10,
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Make one case: an outer structure (label 1) around an inner one (label 2).

    Both are deformed ellipsoids of random size, place and orientation, the outer one bright and
    the inner one dark. Around them lie decoys with the very intensities of the two, so that
    brightness alone does not tell a voxel's class, on a textured background, under a
    multiplicative bias field and white noise. Sizes are relative to the field of view: the same
    seed shows the same anatomy on any grid.

    Args:
        seed: Anything that seeds NumPy's generator.
        shape: Voxels per axis; an axis of one voxel makes a two-dimensional case.
        n_channels: Images of the same anatomy with different contrast.
        contrast: How far the structures differ from the background on average, > 0.
        noise: Standard deviation of the noise, on the scale of ``contrast``.
        bias: Standard deviation of the logarithm of the bias field.
        n_decoys: Number of look-alikes.

    Returns:
        The image, ``(n_channels, *shape)``, and the label map, ``shape``.

    Raises:
        ValueError: If the grid is too coarse to hold two nested structures.

    Example:
        >>> image, label = phantom_case(0, shape=(24, 28, 20))
        >>> image.shape, label.shape, sorted(set(label.flat))
        ((1, 24, 28, 20), (24, 28, 20), [np.uint8(0), np.uint8(1), np.uint8(2)])
    """
    rng = np.random.default_rng(seed)
    points = _coordinates(shape)
    outer, label = _structures(rng, points)
    decoys = _decoys(rng, points, outer, n_decoys)
    channels = []
    for channel in range(n_channels):
        # the second channel shows the inner structure bright, the third dark again, ...
        inner = contrast * (-1.0 if channel % 2 == 0 else 2.0)
        tissue = 0.35 * _waves(rng, points, frequencies=(0.5, 2.0), n_waves=16)
        for number, mask in enumerate(decoys):
            tissue[mask] += contrast if number % 2 else inner
        tissue[label == 1] += contrast
        tissue[label == 2] += inner
        shading = np.exp(bias * _waves(rng, points, frequencies=(0.1, 0.4), n_waves=4))
        channels.append((3 + tissue) * shading + rng.normal(0, noise, size=shape))
    return np.stack(channels).astype(np.float32), label
