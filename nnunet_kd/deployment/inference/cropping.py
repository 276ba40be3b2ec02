"""The box around what is not zero, as nnU-Net crops images before anything else."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

BoundingBox = tuple[tuple[int, int], ...]


def nonzero_box(data: NDArray[np.floating]) -> BoundingBox:
    """Return the smallest box with every voxel that is not zero in some channel.

    Holes are not filled for it, because they cannot change it.

    Args:
        data: ``(C, x, y, z)``.

    Returns:
        Half-open stretches of the three axes; the whole image where all is zero.
    """
    n_axes = data.ndim - 1
    found: list[NDArray[np.bool_]] = [np.zeros(n, dtype=bool) for n in data.shape[1:]]
    for channel in data:
        nonzero = channel != 0
        for axis in range(n_axes):
            found[axis] |= nonzero.any(axis=tuple(other for other in range(n_axes) if other != axis))
    return tuple(_stretch(along) for along in found)


def _stretch(along: NDArray[np.bool_]) -> tuple[int, int]:
    hits = np.flatnonzero(along)
    return (int(hits[0]), int(hits[-1]) + 1) if hits.size else (0, along.size)


def as_slices(box: Sequence[Sequence[int]]) -> tuple[slice, ...]:
    """Return the index of a box in an array of labels.

    Example:
        >>> as_slices([(0, 2), (1, 5)])
        (slice(0, 2, None), slice(1, 5, None))
    """
    return tuple(slice(int(start), int(stop)) for start, stop in box)


def body_mask(data: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Return where some channel is not zero, with holes filled.

    Args:
        data: ``(C, x, y, z)``, already cropped: what is filled inside the box is what is filled in the whole image,
            since all beyond the box is zero.
    """
    from scipy.ndimage import binary_fill_holes

    nonzero = data[0] != 0
    for channel in data[1:]:
        nonzero |= channel != 0
    filled: NDArray[np.bool_] = binary_fill_holes(nonzero)
    return filled
