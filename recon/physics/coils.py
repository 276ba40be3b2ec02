"""Receiver coils: from one image to what each coil sees, and back."""

import torch
from torch import Tensor

from nnunet_kd.planning.json_blocks import check_choice, check_number
from nnunet_kd.recon.physics.fourier import kspace_to_image
from nnunet_kd.recon.physics.sampling import central_block


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
    total: Tensor = torch.linalg.vector_norm(images, dim=-3)
    return total


def estimate_sensitivities(kspace: Tensor, n_calibration: int = 24, method: str = "lowres") -> Tensor:
    """Estimate sensitivities from the fully sampled centre of k-space.

    ``lowres`` divides each coil's image of low resolution by their root sum of squares. It takes a moment and is
    smooth, but keeps the object's own slow variation of phase, which the combined image then lacks. ``espirit`` finds
    what is common to all local neighbourhoods of the centre, through the library SigPy; see
    :func:`nnunet_kd.recon.physics.espirit.espirit`.

    Args:
        kspace: Complex64, ``(..., C, H, W)``; only the centre is read.
        n_calibration: Side of the fully sampled square about the centre, see
            :func:`nnunet_kd.recon.physics.sampling.calibration_size`. A longer side than an axis has is cut.
        method: ``lowres`` or ``espirit``.

    Returns:
        Complex64, as ``kspace``. Squares add up to 1 over coils, and to 0 where a slice is zero. Ones for a single
        coil, of which no sensitivity can be told from the object.

    Raises:
        UsageError: If the method is unknown or its library missing, or the centre too small for it.
    """
    check_choice(method, ("lowres", "espirit"), "sensitivities, method")
    check_number(n_calibration, "sensitivities, n_calibration", at_least=1, whole=True)
    if kspace.shape[-3] == 1:
        return torch.ones_like(kspace)
    if method == "espirit":
        from nnunet_kd.recon.physics.espirit import espirit

        return espirit(kspace, n_calibration)
    low = kspace_to_image(kspace * _window(kspace, n_calibration))
    total = root_sum_of_squares(low).unsqueeze(-3)
    return torch.where(total > 0, low / total, torch.zeros_like(low))


def _window(kspace: Tensor, n_calibration: int) -> Tensor:
    """Return squared cosines about the centre, which end beside the calibration region: ``(H, W)``."""
    sides = []
    for size in kspace.shape[-2:]:
        n_kept = min(n_calibration, size)
        distance = torch.arange(size, device=kspace.device) - size // 2
        inside = torch.zeros(size, device=kspace.device)
        inside[central_block(size, n_kept)] = 1
        sides.append(inside * torch.cos(torch.pi * distance / (n_kept + 1)).square())
    return torch.outer(*sides)
