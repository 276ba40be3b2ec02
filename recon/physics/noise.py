"""Thermal noise: complex, Gaussian, white, independent of the object."""

from math import log, sqrt

import torch
from torch import Tensor

from nnunet_kd.recon.physics.sampling import apply_mask


def add_noise(
    kspace: Tensor, std: float, *, mask: Tensor | None = None, generator: torch.Generator | None = None
) -> Tensor:
    """Add complex Gaussian noise to k-space.

    The Fourier transform being unitary, the noise of a fully sampled image has the same standard deviation.

    Args:
        kspace: Complex, ``(..., C, H, W)``.
        std: Standard deviation of the real part, and of the imaginary one, >= 0.
        mask: Where to add it, ``(..., H or 1, W or 1)``; ``None``: everywhere.
        generator: Source of randomness, of the device of ``kspace``.

    Returns:
        As ``kspace``.

    Raises:
        ValueError: If the standard deviation is negative or no number.
    """
    if not std >= 0:
        raise ValueError(f"expected a standard deviation >= 0, got {std}")
    # PyTorch's complex normal numbers have variance 1 in both parts together
    noise = torch.randn(kspace.shape, dtype=kspace.dtype, device=kspace.device, generator=generator) * (sqrt(2) * std)
    return kspace + (noise if mask is None else apply_mask(noise, mask))


def estimate_noise(kspace: Tensor) -> float:
    """Estimate the standard deviation of the noise from the corners of k-space, where there is little else.

    The modulus of noise has the median ``std * sqrt(2 ln 2)`` (Rayleigh's distribution); a median is hardly moved by
    signal that reaches the corners.

    Args:
        kspace: Complex, ``(..., C, H, W)``. Zeros count as not sampled.

    Returns:
        Of the real part, and of the imaginary one; 0 if the corners hold nothing.
    """
    height, width = (max(size // 8, 1) for size in kspace.shape[-2:])
    rows = torch.cat([kspace[..., :height, :], kspace[..., -height:, :]], dim=-2)
    modulus = torch.cat([rows[..., :width], rows[..., -width:]], dim=-1).abs()
    modulus = modulus[modulus > 0]
    return float(modulus.median()) / sqrt(2 * log(2)) if modulus.numel() else 0.0
