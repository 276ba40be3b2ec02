"""Cropping, padding and the Fourier transform for arrays on their way into files."""

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T", bound=np.generic)


def centre_crop(array: NDArray[T], size: tuple[int, int]) -> NDArray[T]:
    """Return the centre of the last two axes, from ``(N - n) // 2`` on, as fastMRI crops.

    Args:
        array: ``(..., H, W)``.
        size: ``(h, w)``, at most ``(H, W)``.

    Raises:
        ValueError: If the array is smaller.

    Example:
        >>> centre_crop(np.arange(5)[None], (1, 2)).tolist()
        [[1, 2]]
    """
    if array.shape[-2] < size[0] or array.shape[-1] < size[1]:
        raise ValueError(f"expected at least {size} pixels, got {array.shape[-2:]}")
    top, left = ((full - part) // 2 for full, part in zip(array.shape[-2:], size, strict=True))
    return array[..., top : top + size[0], left : left + size[1]]


def fitted(array: NDArray[T], size: tuple[int, int]) -> NDArray[T]:
    """Crop or pad with zeros about the centre of the last two axes.

    The pixel ``N // 2``, where the centred Fourier transform has its origin, stays at ``n // 2``.

    Args:
        array: ``(..., H, W)``.
        size: ``(h, w)``.

    Example:
        >>> fitted(np.arange(1, 4)[None], (1, 6)).tolist()
        [[0, 0, 1, 2, 3, 0]]
    """
    result = np.zeros((*array.shape[:-2], *size), array.dtype)
    to_rows, from_rows = _overlap(array.shape[-2], size[0])
    to_columns, from_columns = _overlap(array.shape[-1], size[1])
    result[..., to_rows, to_columns] = array[..., from_rows, from_columns]
    return result


def _overlap(full: int, part: int) -> tuple[slice, slice]:
    """Return where an axis goes to, and where that comes from."""
    shift = part // 2 - full // 2
    start, stop = max(0, shift), min(part, full + shift)
    return slice(start, stop), slice(start - shift, stop - shift)


def fit_offset(full: int, part: int) -> int:
    """Return the place of the first pixel of :func:`fitted`'s result on the axis it came from; negative if padded.

    Example:
        >>> fit_offset(6, 3), fit_offset(3, 6)
        (2, -2)
    """
    return full // 2 - part // 2


def to_kspace(images: NDArray[Any]) -> NDArray[np.complex64]:
    """Return the centred, orthonormal Fourier transform over the last two axes.

    Args:
        images: Real or complex, ``(..., H, W)``.
    """
    import torch

    from nnunet_kd.recon.physics.fourier import image_to_kspace

    kspace: NDArray[np.complex64] = image_to_kspace(torch.from_numpy(images.astype(np.complex64))).numpy()
    return kspace


def to_images(kspace: NDArray[np.complexfloating[Any, Any]]) -> NDArray[np.complex64]:
    """Return the inverse of :func:`to_kspace`."""
    import torch

    from nnunet_kd.recon.physics.fourier import kspace_to_image

    images: NDArray[np.complex64] = kspace_to_image(torch.from_numpy(kspace.astype(np.complex64))).numpy()
    return images


def root_sum_of_squares(coil_images: NDArray[Any]) -> NDArray[np.float32]:
    """Return ``sqrt(sum_c |x_c|^2)``, fastMRI's multi-coil target.

    Args:
        coil_images: ``(..., C, H, W)``.
    """
    result: NDArray[np.float32] = np.sqrt((np.abs(coil_images) ** 2).sum(axis=-3)).astype(np.float32)
    return result
