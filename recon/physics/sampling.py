"""Cartesian sampling: which points of k-space were measured, and how many."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# a mask as NumPy or as PyTorch holds it
Mask = Tensor | NDArray[np.float32]


def apply_mask(kspace: Tensor, mask: Tensor) -> Tensor:
    """Return k-space with exact zeros where nothing was sampled.

    Zeros are chosen, not multiplied: a product leaves negative zeros, from which the original's sign could be read, and
    carries over what is not finite.

    Args:
        kspace: ``(..., C, H, W)``, complex.
        mask: 0 or 1, ``(..., H or 1, W or 1)``; one mask for all coils.

    Returns:
        As ``kspace``.
    """
    return torch.where(sampled(mask), kspace, torch.zeros((), dtype=kspace.dtype, device=kspace.device))


def sampled(mask: Tensor) -> Tensor:
    """Return the mask as booleans with an axis for coils, ``(..., 1, H or 1, W or 1)``."""
    return mask.ne(0).unsqueeze(-3)


def true_acceleration(mask: Mask, padding: tuple[int, int] | None = None) -> float:
    """Return how many points of k-space there were for each one sampled.

    That is what a mask reached, which its nominal acceleration need not be: equally spaced lines come on top of the
    fully sampled centre, random ones scatter about what was asked for.

    Args:
        mask: 0 or 1, of one slice, ``(W,)`` or ``(H or 1, W or 1)``.
        padding: Which columns the scanner acquired, ``(first, one after the last)``, as fastMRI's headers give them.
            The others are zeros that were filled in, and count neither as sampled nor as left out.

    Returns:
        At least 1; infinity for a mask without any sample.

    Example:
        >>> import torch
        >>> mask = torch.tensor([[0, 1, 0, 1, 1, 0, 1, 0.0]])
        >>> true_acceleration(mask), true_acceleration(mask, padding=(1, 7))
        (2.0, 1.5)
    """
    known = torch.as_tensor(mask).ne(0)
    if padding is not None:
        if known.shape[-1] == 1:
            raise ValueError("a mask of whole rows, whose last axis is 1, has no padding columns")
        known = known[..., slice(*padding)]
    n_sampled = int(known.sum())
    return known.numel() / n_sampled if n_sampled else float("inf")


def without_padding(mask: Tensor, padding: tuple[int, int]) -> Tensor:
    """Return the mask with zeros in the columns that the scanner did not acquire.

    Args:
        mask: ``(..., H or 1, W)``.
        padding: Which columns it did acquire, ``(first, one after the last)``.
    """
    acquired = torch.zeros_like(mask)
    acquired[..., slice(*padding)] = mask[..., slice(*padding)]
    return acquired


def calibration_size(mask: Mask) -> int:
    """Return the side of the largest fully sampled square about the centre of k-space.

    An axis of length 1 stands for whole rows or columns, and so does not limit the square. 0 if the centre itself was
    not sampled.

    Args:
        mask: 0 or 1, of one slice, ``(H or 1, W or 1)``.

    Example:
        >>> import torch
        >>> calibration_size(torch.tensor([[1, 0, 1, 1, 1, 0.0]]))
        3
    """
    known = np.asarray(mask).astype(bool)
    limits = [size for size in known.shape if size > 1] or [1]
    side = 0
    while side < min(limits) and known[tuple(central_block(size, side + 1) for size in known.shape)].all():
        side += 1
    return side


def central_block(size: int, n_kept: int) -> slice:
    """Return the ``n_kept`` indices about the zero frequency ``size // 2``; an even block has one more below it.

    Example:
        >>> central_block(256, 64), central_block(5, 2)
        (slice(96, 160, None), slice(1, 3, None))
    """
    n_kept = min(n_kept, size)
    start = size // 2 - n_kept // 2
    return slice(start, start + n_kept)
