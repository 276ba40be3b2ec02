"""What was measured of one slice, as every network here takes it."""

from typing import NamedTuple

from torch import Tensor


class Acquisition(NamedTuple):
    """The measured data of a batch of slices, all on one intensity scale.

    Attributes:
        kspace: What was measured, complex64, ``(B, C, H, W)``, zero where nothing was; C = 1 for a single coil.
        mask: 1 where k-space was sampled, else 0, float32, ``(B, H or 1, W or 1)``.
        sensitivities: Of the coils, complex64, ``(B, C, H, W)``; ones for a single coil.
        image: Zero-filled image ``S^H F^H y``, complex64, ``(B, H, W)``.
        context: Zero-filled images of the neighbouring slices, complex64, ``(B, N, H, W)``; N = 0 without them.
    """

    kspace: Tensor
    mask: Tensor
    sensitivities: Tensor
    image: Tensor
    context: Tensor
