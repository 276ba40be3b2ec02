"""Complex images as the real channels that convolutions take, and back."""

import torch
from torch import Tensor

from nnunet_kd.errors import UsageError
from nnunet_kd.recon.physics.acquisition import Acquisition


def n_channels(n_images: int, *, complex_data: bool) -> int:
    """Return the real channels of so many images: two each if they are complex, else one."""
    return 2 * n_images if complex_data else n_images


def to_channels(images: Tensor) -> Tensor:
    """Return images as float32 channels, ``(B, 2N or N, H, W)``: all real parts first, then all imaginary ones.

    Args:
        images: ``(B, N, H, W)``, complex64, or real.
    """
    if images.is_complex():
        return torch.cat([images.real, images.imag], dim=1)
    return images.float()


def to_image(channels: Tensor) -> Tensor:
    """Return ``(B, H, W)`` of channels of one image: complex64 of two channels, float32 of one.

    Args:
        channels: ``(B, 2 or 1, H, W)``, of any precision: what mixed precision left is widened here.
    """
    channels = channels.float()
    if channels.shape[1] == 2:
        return torch.complex(channels[:, 0], channels[:, 1])
    return channels[:, 0]


def starting_image(acquisition: Acquisition, *, complex_data: bool) -> Tensor:
    """Return the zero-filled image, ``(B, H, W)``: complex64, or its magnitude in float32."""
    return acquisition.image if complex_data else acquisition.image.abs()


def network_input(image: Tensor, acquisition: Acquisition, n_context: int) -> Tensor:
    """Return an image and the neighbouring slices as float32 channels, the image's own first.

    Args:
        image: ``(B, H, W)``, complex64 or real; the neighbours become what it is.
        acquisition: Holds the neighbours.
        n_context: How many neighbours the network was built for.

    Returns:
        ``(B, 2 * (1 + n_context), H, W)`` of a complex image, ``(B, 1 + n_context, H, W)`` of a real one.

    Raises:
        UsageError: If there are more or fewer neighbours.
    """
    channels = to_channels(image[:, None])
    if not n_context:
        return channels
    context = acquisition.context
    if context.shape[1] != n_context:
        raise UsageError(
            f"the network expects {n_context} neighbouring slices, got {context.shape[1]}; "
            "'n_context' of the plans' architecture is twice their 'n_neighbours'"
        )
    return torch.cat([channels, to_channels(context if image.is_complex() else context.abs())], dim=1)
