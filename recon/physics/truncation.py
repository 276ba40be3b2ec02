"""Truncation of k-space: how low resolution comes about for super-resolution, at the same matrix size.

A factor need not divide the size nor be whole: of N frequencies ``round(N / factor)`` are kept, at least one, so that
the true factor is N over that number. Cutting leaves Gibbs ringing, as scanners' zero-filling does.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, fft

from nnunet_kd.errors import UsageError
from nnunet_kd.planning.json_blocks import check_number
from nnunet_kd.recon.physics.fourier import to_complex
from nnunet_kd.recon.physics.sampling import apply_mask, central_block


def n_kept(size: int, factor: float) -> int:
    """Return how many frequencies of an axis a factor leaves.

    Args:
        size: Of the axis.
        factor: >= 1.

    Raises:
        UsageError: If the factor is no number, or below 1.

    Example:
        >>> n_kept(256, 4), n_kept(151, 2.5), n_kept(3, 8)
        (64, 60, 1)
    """
    check_number(factor, "truncation, factor", at_least=1)
    return max(1, round(size / factor))


def truncate_kspace(kspace: Tensor, factor: float | Sequence[float]) -> tuple[Tensor, Tensor]:
    """Keep the centre of each slice's k-space, and zeros around it.

    Args:
        kspace: Complex, ``(..., C, H, W)``.
        factor: By which the resolution along H and W falls, ``(fy, fx)`` >= 1, or one number for both. 4 of 256x256
            keeps 64x64, as in KD-MRI.

    Returns:
        K-space of the same shape, and the mask of what was kept, float32, ``(H, W)``.

    Raises:
        UsageError: If a factor is no number, below 1, or there are not one or two.
    """
    factors = tuple(factor) if isinstance(factor, Sequence) else (factor, factor)
    if len(factors) != 2:
        raise UsageError(f"truncation, factor: expected [fy, fx], got {len(factors)} numbers")
    mask = torch.zeros(kspace.shape[-2:], device=kspace.device)
    mask[tuple(central_block(size, n_kept(size, f)) for size, f in zip(mask.shape, factors, strict=True))] = 1
    return apply_mask(kspace, mask), mask


def truncate_slices(volume: Tensor, factor: float, dim: int = 0) -> Tensor:
    """Lower the resolution through the slices: their Fourier transform keeps its centre only.

    Args:
        volume: Slices of images or of k-space alike, complex or real, the slices along ``dim``.
        factor: >= 1.
        dim: The axis of the slices.

    Returns:
        Complex, as ``volume``; as many slices, each a mixture of neighbours.

    Raises:
        UsageError: If the factor is no number or below 1.
    """
    n_slices = volume.shape[dim]
    kept = torch.zeros(n_slices, device=volume.device)
    kept[central_block(n_slices, n_kept(n_slices, factor))] = 1
    shape = [1] * volume.ndim
    shape[dim] = n_slices
    # the shift of the slices' own origin would cancel out
    frequencies = fft.fft(to_complex(volume), dim=dim)
    truncated: Tensor = fft.ifft(frequencies * fft.ifftshift(kept).reshape(shape), dim=dim)
    return truncated
