"""What physics expects of an image, as images that are zero, or small, where the expectation is met.

Unrolled networks see them beside the image, in the manner of Adaptive-CS-Net [1]; formulas for phase and background are
this package's own.

References:
    [1] Pezzotti et al., An Adaptive Intelligence Algorithm for Undersampled Knee MRI Reconstruction, 2020,
        https://arxiv.org/abs/2004.07339
"""

import torch
from torch import Tensor

from nnunet_kd.recon.physics.acquisition import Acquisition
from nnunet_kd.recon.physics.operators import adjoint, forward

BACKGROUND = 0.1  # of the largest intensity at low resolution


def consistency_image(image: Tensor, acquisition: Acquisition) -> Tensor:
    """Return ``S^H F^H M (F S x - y)``: the gradient of half the squared misfit, zero for the true image.

    Args:
        image: ``(B, H, W)``, complex or real.
        acquisition: What was measured.

    Returns:
        ``(B, H, W)``, complex64.
    """
    mask, sensitivities = acquisition.mask, acquisition.sensitivities
    return adjoint(forward(image, mask, sensitivities) - acquisition.kspace, mask, sensitivities)


def phase_image(image: Tensor, low: Tensor) -> Tensor:
    """Return the part of an image that is out of phase with its smooth phase, ``Im(x conj(low) / |low|)``.

    Args:
        image: ``(B, H, W)``, complex.
        low: The same at low resolution, see :func:`nnunet_kd.recon.physics.low_resolution.low_resolution`.

    Returns:
        ``(B, H, W)``, real.
    """
    return (image * torch.sgn(low).conj()).imag


def background_image(image: Tensor, low: Tensor) -> Tensor:
    """Return what an image has where nothing is expected: weighted by how dark it is at low resolution.

    Args:
        image: ``(B, H, W)``, complex or real.
        low: The same at low resolution; the weight is ``exp(-(|low| / (0.1 max |low|))^2)``.

    Returns:
        As ``image``.
    """
    brightness = low.abs()
    level = BACKGROUND * brightness.amax(dim=(-2, -1), keepdim=True)
    level = torch.where(level > 0, level, torch.ones_like(level))
    return image * torch.exp(-(brightness / level).square())
