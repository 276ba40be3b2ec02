"""Masks drawn from a density that falls with the distance from the centre of k-space; their counts are exact."""

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray

from nnunet_kd.errors import UsageError
from nnunet_kd.recon.physics.masks.settings import Draw
from nnunet_kd.recon.physics.sampling import central_block

Flags = NDArray[np.bool_]
_KD_MRI_CENTER = 10


def variable_density(n: int, draw: Draw, rng: RandomState) -> Flags:
    """Sample ``int(n / R)`` lines as the authors of KD-MRI do: a Gaussian density over a uniform floor.

    ``p(i) = exp(-(i - n // 2)^2 / (2 s^2)) + 1 / (2 R)`` with ``s = n / 10``, beside the central lines, 10 unless the
    settings say otherwise, which are all sampled. The generator is that of the dynamic cascade of Schlemper et al.; the
    masks published with KD-MRI have these counts for its cardiac and brain data.

    Args:
        n: Lines in all.
        draw: Its acceleration R and ``n_calibration`` count.
        rng: Source of randomness.

    Returns:
        ``(n,)``.

    Raises:
        UsageError: If fewer lines are to be sampled than the centre has.

    References:
        Murugesan et al., KD-MRI, 2020, https://arxiv.org/abs/2004.05319
        Schlemper et al., A Deep Cascade of Convolutional Neural Networks for Dynamic MR Image Reconstruction, 2018,
        https://arxiv.org/abs/1704.02422
    """
    n_center = _KD_MRI_CENTER if draw.n_calibration is None else draw.n_calibration
    density = _gaussian(n, n / 10) + 1 / (2 * draw.acceleration)
    return _draw_points(density, int(n / draw.acceleration), (n_center,), rng)


def gaussian(n: int, draw: Draw, rng: RandomState) -> Flags:
    """Sample ``round(n / R)`` lines, the centre fully, the others by a Gaussian density: ``(n,)``."""
    return _draw_points(_gaussian(n, n * draw.density_std), round(n / draw.acceleration), (draw.n_center(n),), rng)


def gaussian_2d(shape: tuple[int, int], draw: Draw, rng: RandomState) -> Flags:
    """Sample ``round(H W / R)`` points, a central rectangle fully, the others by a Gaussian density: ``(H, W)``."""
    rows, columns = (_gaussian(n, n * draw.density_std) for n in shape)
    n_wanted = round(shape[0] * shape[1] / draw.acceleration)
    center = (draw.n_center(shape[0]), draw.n_center(shape[1]))
    return _draw_points(rows[:, None] * columns, n_wanted, center, rng)


def _gaussian(n: int, std: float) -> NDArray[np.float64]:
    density: NDArray[np.float64] = np.exp(-0.5 * ((np.arange(n) - n // 2) / std) ** 2)
    return density


def center_flags(shape: tuple[int, ...], center: tuple[int, ...], n_wanted: int) -> Flags:
    """Return the fully sampled centre of a mask.

    Args:
        shape: Of the mask.
        center: Size of the centre.
        n_wanted: How many samples the mask is to have.

    Raises:
        UsageError: If the centre alone has more.
    """
    flags = np.zeros(shape, dtype=bool)
    flags[tuple(central_block(size, n_kept) for size, n_kept in zip(shape, center, strict=True))] = True
    if flags.sum() > n_wanted:
        raise UsageError(
            f"sampling: the fully sampled centre has {flags.sum()} samples, more than the {n_wanted} that the "
            "acceleration leaves; choose a smaller n_calibration or center_fraction"
        )
    return flags


def _draw_points(density: NDArray[np.float64], n_wanted: int, center: tuple[int, ...], rng: RandomState) -> Flags:
    flags = center_flags(density.shape, center, n_wanted)
    chances = np.where(flags, 0, density).ravel()
    n_left = n_wanted - int(flags.sum())
    if n_left:
        chosen = rng.choice(chances.size, size=n_left, replace=False, p=chances / chances.sum())
        flags.reshape(-1)[chosen] = True
    return flags
