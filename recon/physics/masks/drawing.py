"""Draws a mask: the registry of families, and the seed of a volume."""

from collections.abc import Callable

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray

from nnunet_kd.recon.physics.masks import density, fastmri
from nnunet_kd.recon.physics.masks.from_file import mask_from_file
from nnunet_kd.recon.physics.masks.poisson_disc import poisson_disc
from nnunet_kd.recon.physics.masks.settings import Draw, SamplingSettings

Flags = NDArray[np.bool_]
MaskFunction = Callable[[SamplingSettings, tuple[int, int], RandomState], Flags]


def _of_lines(family: Callable[[int, Draw, RandomState], Flags]) -> MaskFunction:
    def draw_lines(settings: SamplingSettings, shape: tuple[int, int], rng: RandomState) -> Flags:
        draw = settings.draw(rng)
        if settings.axis == "rows":
            return family(shape[0], draw, rng)[:, None]
        return family(shape[1], draw, rng)[None]

    return draw_lines


def _of_points(family: Callable[[tuple[int, int], Draw, RandomState], Flags]) -> MaskFunction:
    return lambda settings, shape, rng: family(shape, settings.draw(rng), rng)


# the names that ``sampling`` may use
MASKS: dict[str, MaskFunction] = {
    "random": _of_lines(fastmri.random_lines),
    "equispaced": _of_lines(fastmri.equispaced),
    "equispaced_fraction": _of_lines(fastmri.equispaced_fraction),
    "magic": _of_lines(fastmri.magic),
    "magic_fraction": _of_lines(fastmri.magic_fraction),
    "variable_density": _of_lines(density.variable_density),
    "gaussian": _of_lines(density.gaussian),
    "gaussian_2d": _of_points(density.gaussian_2d),
    "poisson_disc": _of_points(poisson_disc),
    "file": lambda settings, shape, rng: mask_from_file(settings, shape),  # noqa: ARG005
}


def make_mask(
    settings: SamplingSettings, shape: tuple[int, int], *, seed: int | tuple[int, ...] | None
) -> NDArray[np.float32]:
    """Draw a mask.

    Args:
        settings: Which.
        shape: Of k-space, ``(H, W)``.
        seed: The same seed gives the same mask; :func:`seed_of` a volume gives all its slices one. ``None`` draws
            afresh.

    Returns:
        0 or 1 on the centred grid: ``(1, W)`` for whole columns, ``(H, 1)`` for whole rows, else ``(H, W)``.

    Raises:
        UsageError: If the settings do not suit the matrix.

    Example:
        >>> make_mask(SamplingSettings(mask="equispaced", acceleration=(4,)), (8, 12), seed=seed_of("file1000001"))
        array([[0., 0., 0., 1., 0., 0., 1., 1., 0., 0., 0., 1.]], dtype=float32)
    """
    rng = RandomState(seed)  # fastMRI's generator: a new one would draw other masks
    return MASKS[settings.mask](settings, shape, rng).astype(np.float32)


def seed_of(name: str) -> tuple[int, ...]:
    """Return the seed of a volume as fastMRI has it: the characters of its file's name, ``.h5`` included.

    Args:
        name: Of the case, or of its file.

    Example:
        >>> seed_of("a1"), seed_of("a1.h5")
        ((97, 49, 46, 104, 53), (97, 49, 46, 104, 53))
    """
    return tuple(map(ord, name if name.endswith(".h5") else f"{name}.h5"))
