"""Coil sensitivities that a network learns to read off the calibration region."""

import torch
from torch import Tensor, nn

from nnunet_kd.recon.networks.channels import to_channels, to_image
from nnunet_kd.recon.networks.unet_body import SMALLEST_VARIANCE, UNetBody, standardised
from nnunet_kd.recon.physics.fourier import kspace_to_image


def calibration_window(mask: Tensor) -> Tensor:
    """Return where k-space is sampled without a gap around its centre, symmetrically.

    Along each axis it is the largest even number of samples, one at least, around the centre, as fastMRI's network
    counts them; a mask that is the same along an axis, of size 1 there, is open along it.

    Args:
        mask: 1 where k-space was sampled, ``(B, H or 1, W or 1)``.

    Returns:
        Boolean, same shape.

    Example:
        >>> calibration_window(torch.tensor([[[1, 0, 1, 1, 1, 1, 1, 0]]])).int()
        tensor([[[0, 0, 1, 1, 1, 1, 0, 0]]], dtype=torch.int32)
    """
    height, width = mask.shape[1:]
    rows = _central_run(mask[:, :, width // 2])
    columns = _central_run(mask[:, height // 2, :])
    return rows[:, :, None] & columns[:, None, :]


def _central_run(samples: Tensor) -> Tensor:
    """Return the symmetric run of samples around the centre, ``(B, N)``, of ``(B, N)``."""
    size = samples.shape[1]
    centre = size // 2
    left, right = (side.int().cumprod(dim=1).sum(dim=1) for side in (samples[:, :centre].flip(1), samples[:, centre:]))
    length = (2 * torch.minimum(left, right)).clamp(min=1)[:, None]
    start = (size - length + 1) // 2
    index = torch.arange(size, device=samples.device)
    return (index >= start) & (index < start + length)


class SensitivityNetwork(nn.Module):
    """A small U-Net that turns the coil images of the calibration region into sensitivities, as in E2E-VarNet [1].

    Each coil goes through it alone, so that any number of coils fits.

    Args:
        channels: Of its finest stage.
        pools: How often it halves the resolution.

    References:
        [1] Sriram et al., End-to-End Variational Networks for Accelerated MRI Reconstruction, 2020,
            https://arxiv.org/abs/2004.06688
    """

    def __init__(self, channels: int = 8, pools: int = 4) -> None:
        super().__init__()
        self.body = UNetBody(2, 2, channels, pools)

    def forward(self, kspace: Tensor, mask: Tensor) -> Tensor:
        """Return the sensitivities, complex64, ``(B, C, H, W)``, their squares summing to 1 over the coils.

        Args:
            kspace: Complex64, ``(B, C, H, W)``.
            mask: 1 where it was sampled, ``(B, H or 1, W or 1)``.
        """
        images = kspace_to_image(kspace * calibration_window(mask)[:, None])
        coils = to_image(standardised(self.body, to_channels(images.flatten(0, 1)[:, None]))).view_as(images)
        energy = (coils.real.square() + coils.imag.square()).sum(dim=1, keepdim=True)
        return coils / (energy + SMALLEST_VARIANCE).sqrt()
