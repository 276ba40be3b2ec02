"""Receiver coils: from one image to what each coil sees, and back."""

import torch
from torch import Tensor


def coil_images(image: Tensor, sensitivities: Tensor) -> Tensor:
    """Return what each coil sees of an image, ``S x``.

    Args:
        image: ``(..., H, W)``.
        sensitivities: ``(..., C, H, W)``, complex.

    Returns:
        ``(..., C, H, W)``, complex.
    """
    return sensitivities * image.unsqueeze(-3)


def combine(images: Tensor, sensitivities: Tensor) -> Tensor:
    """Return one image of the coils' images, ``S^H x``: the adjoint of :func:`coil_images`.

    Where the squared sensitivities of a pixel add up to 1 over coils, as those estimated here do, it is its inverse in
    the sense of least squares too.

    Args:
        images: ``(..., C, H, W)``, complex.
        sensitivities: ``(..., C, H, W)``, complex.

    Returns:
        ``(..., H, W)``, complex.
    """
    return (sensitivities.conj() * images).sum(dim=-3)


def root_sum_of_squares(images: Tensor) -> Tensor:
    """Return the combination that needs no sensitivities, ``sqrt(sum over coils of |x_c|^2)``.

    Args:
        images: ``(..., C, H, W)``, complex or real.

    Returns:
        ``(..., H, W)``, real, >= 0. The gradient at 0 is 0.
    """
    return torch.linalg.vector_norm(images, dim=-3)
