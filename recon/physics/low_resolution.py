"""The smooth part of an image, which the centre of k-space says, and what is left without it."""

import torch
from torch import Tensor

from nnunet_kd.recon.physics.acquisition import Acquisition
from nnunet_kd.recon.physics.coils import combine
from nnunet_kd.recon.physics.fourier import image_to_kspace, kspace_to_image

CUTOFF = 0.06  # of the highest frequency: about the half width of the sampled centre at accelerations 4 to 8


def low_pass_window(height: int, width: int, cutoff: float = CUTOFF, device: torch.device | None = None) -> Tensor:
    """Return a Gaussian about the centre of k-space.

    Args:
        height: Of the matrix.
        width: Of the matrix.
        cutoff: Where it has fallen to one half, as a share of each axis's highest frequency.
        device: Of the result.

    Returns:
        ``(H, W)`` in (0, 1].
    """
    sides = []
    for size in (height, width):
        frequency = (torch.arange(size, device=device) - size // 2) * (2 / size)
        sides.append(torch.exp2(-(frequency / cutoff).square()))
    return torch.outer(*sides)


def high_pass(image: Tensor, cutoff: float = CUTOFF) -> Tensor:
    """Return an image without its low frequencies, ``F^H (1 - W) F x``: edges and texture.

    Args:
        image: ``(..., H, W)``, complex or real.
        cutoff: See :func:`low_pass_window`.

    Returns:
        As ``image``, in single precision.
    """
    kspace = image_to_kspace(image)
    kept = 1 - low_pass_window(image.shape[-2], image.shape[-1], cutoff, image.device)
    found = kspace_to_image(kspace * kept)
    return found if image.is_complex() else found.real


def low_resolution(acquisition: Acquisition, cutoff: float = CUTOFF) -> Tensor:
    """Return the image of the centre of the measured k-space, complex64, ``(B, H, W)``.

    Args:
        acquisition: What was measured.
        cutoff: See :func:`low_pass_window`.
    """
    kspace = acquisition.kspace
    window = low_pass_window(kspace.shape[-2], kspace.shape[-1], cutoff, kspace.device)
    return combine(kspace_to_image(kspace * window), acquisition.sensitivities)
