"""Data consistency: an image is brought back to what was measured, and keeps its own k-space elsewhere."""

from math import expm1, log
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from nnunet_kd.errors import UsageError
from nnunet_kd.recon.physics.acquisition import Acquisition
from nnunet_kd.recon.physics.coils import coil_images, combine
from nnunet_kd.recon.physics.fourier import image_to_kspace, kspace_to_image
from nnunet_kd.recon.physics.sampling import sampled
from nnunet_kd.recon.physics.symmetry import fill_conjugates

Mode = Literal["hard", "weighted", "learnable", "hermitian", "real"]


def hard(image: Tensor, acquisition: Acquisition) -> Tensor:
    """Replace the samples of an image's k-space by the measured ones, ``S^H F^H (M y + (1 - M) F S x)``.

    For a single coil the result has exactly the measured samples. For several coils that holds for the coils' images
    before they are combined; the combination returns to what the sensitivities can explain, so that some of the misfit
    may be left, and never more than there was: both steps are projections (POCS).

    Args:
        image: ``(B, H, W)``, complex or real.
        acquisition: What was measured.

    Returns:
        ``(B, H, W)``, complex64.

    References:
        Schlemper et al., A Deep Cascade of Convolutional Neural Networks for Dynamic MR Image Reconstruction, 2018,
        https://arxiv.org/abs/1704.02422
    """
    estimated = image_to_kspace(coil_images(image, acquisition.sensitivities))
    replaced = torch.where(sampled(acquisition.mask), acquisition.kspace, estimated)
    return combine(kspace_to_image(replaced), acquisition.sensitivities)


def weighted(image: Tensor, acquisition: Acquisition, noise_level: float | Tensor) -> Tensor:
    """Average measured samples with an image's own, by how far each can be trusted.

    A sample becomes ``(k + y / v^2) / (1 + 1 / v^2)``, its expectation for normal errors: ``lambda = 1 / v^2`` in [1].

    Args:
        image: ``(B, H, W)``, complex or real.
        acquisition: What was measured.
        noise_level: v >= 0: the standard deviation of the measurement's noise over that of the image's own error, in
            k-space. 0 is :func:`hard`, and at 1 both count alike. A number, or ``(B,)``.

    Returns:
        ``(B, H, W)``, complex64.

    References:
        [1] Schlemper et al., 2018, equation 8, see :func:`hard`.
    """
    level = torch.as_tensor(noise_level, dtype=torch.float32, device=acquisition.mask.device)
    return _move(image, acquisition, 1 / (1 + level.square()))


def _move(image: Tensor, acquisition: Acquisition, share: Tensor) -> Tensor:
    """Move the samples of an image's k-space by a share in [0, 1], a scalar or ``(B,)``, to the measured ones."""
    estimated = image_to_kspace(coil_images(image, acquisition.sensitivities))
    moved = torch.lerp(estimated, acquisition.kspace, share.to(estimated.dtype).reshape(-1, 1, 1, 1))
    kspace = torch.where(sampled(acquisition.mask), moved, estimated)
    return combine(kspace_to_image(kspace), acquisition.sensitivities)


def hermitian(image: Tensor, acquisition: Acquisition) -> Tensor:
    """Replace the samples and their opposites, for data that were made from real images: magnitudes.

    A sample of a real image says its opposite too: nearly twice as much of k-space is known as was sampled, and the
    result keeps the samples exactly, where :func:`real_part` does not. See :mod:`nnunet_kd.recon.physics.symmetry`.

    Args:
        image: ``(B, H, W)``; of a complex one the real part counts.
        acquisition: What was measured, of a single coil.

    Returns:
        ``(B, H, W)``, real, float32.

    Raises:
        ValueError: If there are several coils: their images are never real.
    """
    _check_single_coil(acquisition, "hermitian")
    known, mask = fill_conjugates(acquisition.kspace, acquisition.mask)
    own = image.real if image.is_complex() else image
    replaced = torch.where(sampled(mask), known, image_to_kspace(own.unsqueeze(-3)))
    return kspace_to_image(replaced).real.squeeze(-3)


def real_part(image: Tensor, acquisition: Acquisition) -> Tensor:
    """Return the real part of :func:`hard`, as KD-MRI published it, for comparison with it.

    The real part averages each frequency with the conjugate of its opposite. Unless the mask is symmetric, the result
    no longer has the measured samples.

    Args:
        image: ``(B, H, W)``, complex or real.
        acquisition: What was measured, of a single coil.

    Returns:
        ``(B, H, W)``, real, float32.

    Raises:
        ValueError: If there are several coils.

    References:
        Murugesan et al., KD-MRI: A knowledge distillation framework for image reconstruction and image restoration in
        MRI workflow, 2020, https://arxiv.org/abs/2004.05319
    """
    _check_single_coil(acquisition, "real")
    return hard(image, acquisition).real


def _check_single_coil(acquisition: Acquisition, mode: str) -> None:
    if (n_coils := acquisition.kspace.shape[1]) != 1:
        raise ValueError(f"data consistency '{mode}' is for magnitudes of a single coil, got {n_coils} coils")


class DataConsistency(nn.Module):
    """One step of data consistency, as a layer of a network.

    Args:
        mode: ``hard``; ``weighted`` by a known noise level; ``learnable``: weighted by ``lambda >= 0``, which is
            learnt, for any number of coils; ``hermitian`` and ``real`` for a single coil's magnitude-derived data.
        noise_level: Of ``weighted``, see :func:`weighted`.
        initial_lambda: Of ``learnable``, > 0: the first weight of a measured sample, beside 1 for the image's own.

    Raises:
        UsageError: If a setting is out of its range.

    Example:
        >>> DataConsistency("learnable", initial_lambda=2.0).weight()
        tensor(2., grad_fn=<SoftplusBackward0>)
    """

    def __init__(self, mode: str = "hard", *, noise_level: float = 0.0, initial_lambda: float = 10.0) -> None:
        super().__init__()
        if mode not in get_args(Mode):
            raise UsageError(f"data_consistency: expected one of {', '.join(get_args(Mode))}, got '{mode}'")
        if not noise_level >= 0:
            raise UsageError(f"data_consistency, noise_level: expected a number >= 0, got {noise_level}")
        if not initial_lambda > 0:
            raise UsageError(f"data_consistency, initial_lambda: expected a number > 0, got {initial_lambda}")
        self.mode, self.noise_level = mode, noise_level
        # the softplus of it is the weight: log(e^w - 1), written so that a large one does not overflow
        raw = initial_lambda if initial_lambda > 20 else log(expm1(initial_lambda))
        self.raw_lambda = nn.Parameter(torch.tensor(float(raw))) if mode == "learnable" else None

    def weight(self) -> Tensor:
        """Return lambda >= 0 of the mode ``learnable``.

        Raises:
            ValueError: If the mode is another.
        """
        if self.raw_lambda is None:
            raise ValueError(f"data consistency '{self.mode}' learns no weight")
        return softplus(self.raw_lambda.float())

    def forward(self, image: Tensor, acquisition: Acquisition) -> Tensor:
        """Return the image, ``(B, H, W)``: complex64, or float32 in the modes ``hermitian`` and ``real``."""
        if self.mode == "learnable":
            weight = self.weight()
            return _move(image, acquisition, weight / (1 + weight))
        if self.mode == "weighted":
            return weighted(image, acquisition, self.noise_level)
        return {"hard": hard, "hermitian": hermitian, "real": real_part}[self.mode](image, acquisition)

    def extra_repr(self) -> str:
        """Return the mode for the printed network."""
        return f"mode='{self.mode}'" + (f", noise_level={self.noise_level}" if self.mode == "weighted" else "")
