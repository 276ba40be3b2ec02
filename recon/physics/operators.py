"""The forward operator ``A = M F S`` of Cartesian MRI, its adjoint, and what networks are given of a measurement."""

import torch
from torch import Tensor

from nnunet_kd.recon.physics.acquisition import Acquisition
from nnunet_kd.recon.physics.coils import coil_images, combine
from nnunet_kd.recon.physics.fourier import image_to_kspace, kspace_to_image
from nnunet_kd.recon.physics.sampling import apply_mask


def forward(image: Tensor, mask: Tensor, sensitivities: Tensor) -> Tensor:
    """Return the k-space that would be measured of an image, ``M F S x``.

    Args:
        image: ``(..., H, W)``, complex or real.
        mask: 0 or 1, ``(..., H or 1, W or 1)``.
        sensitivities: ``(..., C, H, W)``, complex; ones with C = 1 for a single coil.

    Returns:
        ``(..., C, H, W)``, complex64, zero where nothing is sampled.
    """
    return apply_mask(image_to_kspace(coil_images(image, sensitivities)), mask)


def adjoint(kspace: Tensor, mask: Tensor, sensitivities: Tensor) -> Tensor:
    """Return ``S^H F^H M y``, the zero-filled image.

    Args:
        kspace: ``(..., C, H, W)``, complex.
        mask: 0 or 1, ``(..., H or 1, W or 1)``.
        sensitivities: ``(..., C, H, W)``, complex.

    Returns:
        ``(..., H, W)``, complex64.
    """
    return combine(kspace_to_image(apply_mask(kspace, mask)), sensitivities)


def acquire(
    kspace: Tensor, mask: Tensor, sensitivities: Tensor | None = None, context: Tensor | None = None
) -> Acquisition:
    """Sample k-space and gather what a network is given of it.

    The scale is left as it is: divide k-space and context by one number before.

    Args:
        kspace: Fully sampled, or sampled by this mask already, complex64, ``(B, C, H, W)``.
        mask: 0 or 1, ``(H or 1, W or 1)`` for the whole batch, or ``(B, H or 1, W or 1)``.
        sensitivities: Of the coils, complex64, ``(B, C, H, W)``; may be left out for a single coil.
        context: Zero-filled images of neighbouring slices, complex64, ``(B, N, H, W)``.

    Raises:
        ValueError: If shapes do not fit each other, or several coils have no sensitivities.
    """
    _check(kspace, mask, sensitivities)
    if sensitivities is None:
        sensitivities = torch.ones_like(kspace)
    if context is None:
        context = kspace.new_zeros((kspace.shape[0], 0, *kspace.shape[-2:]))
    mask = mask.to(kspace.device, torch.float32).expand(kspace.shape[0], *mask.shape[-2:])
    measured = apply_mask(kspace, mask)
    image = combine(kspace_to_image(measured), sensitivities)
    return Acquisition(measured, mask, sensitivities, image, context)


def _check(kspace: Tensor, mask: Tensor, sensitivities: Tensor | None) -> None:
    if kspace.ndim != 4:
        raise ValueError(f"expected k-space of shape (B, C, H, W), got {tuple(kspace.shape)}")
    if mask.ndim not in (2, 3) or any(a not in (1, b) for a, b in zip(mask.shape[-2:], kspace.shape[-2:], strict=True)):
        raise ValueError(f"a mask of shape {tuple(mask.shape)} does not fit k-space of shape {tuple(kspace.shape)}")
    if sensitivities is None and kspace.shape[1] > 1:
        raise ValueError(f"expected sensitivities for {kspace.shape[1]} coils, got none")
    if sensitivities is not None and sensitivities.shape != kspace.shape:
        raise ValueError(f"expected sensitivities of shape {tuple(kspace.shape)}, got {tuple(sensitivities.shape)}")
