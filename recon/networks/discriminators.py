"""Discriminators of texture: which patches of an image look measured, given what was measured."""

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d
from torch.nn.utils.parametrizations import spectral_norm

from nnunet_kd.errors import UsageError
from nnunet_kd.recon.networks.acceleration import MIDDLE, STEP
from nnunet_kd.recon.physics.low_resolution import CUTOFF, high_pass

SLOPE = 0.2
STRIDES = 2  # layers that halve the resolution
SMALLEST_SIDE = 8  # of the coarsest image, or its patches would not fit


class PatchDiscriminator(nn.Module):
    """Logits for overlapping patches, at several resolutions, conditional as pix2pix's is [1].

    No logit is averaged over the image, which could not tell local texture. All convolutions are spectrally normalised
    [2]; there is no batch normalisation, so that one image's logits do not depend on another.

    Args:
        channels: Of the first layer.
        layers: Convolutions before the logits, at least 1; the first two halve the resolution.
        resolutions: How many, each half the one before.
        cutoff: Below it frequencies are taken out of the image that is judged, as a share of the highest one, so that
            its texture counts and not its content; ``None`` leaves it as it is.

    Raises:
        UsageError: If the numbers make no network.

    References:
        [1] Isola et al., Image-to-Image Translation with Conditional Adversarial Networks, 2017,
            https://arxiv.org/abs/1611.07004
        [2] Miyato et al., Spectral Normalization for Generative Adversarial Networks, 2018,
            https://arxiv.org/abs/1802.05957
    """

    def __init__(
        self, channels: int = 32, layers: int = 3, resolutions: int = 2, *, cutoff: float | None = CUTOFF
    ) -> None:
        super().__init__()
        if min(channels, layers, resolutions) < 1:
            raise UsageError(
                "discriminator: expected at least 1 channel, layer and resolution, got "
                f"{channels}, {layers} and {resolutions}"
            )
        self.cutoff = cutoff
        self.patches = nn.ModuleList(_patch_layers(channels, layers) for _ in range(resolutions))

    def forward(self, image: Tensor, condition: Tensor, log_acceleration: Tensor) -> list[Tensor]:
        """Return how real the patches look.

        Args:
            image: Magnitudes that are judged, real, ``(B, h, w)``.
            condition: Magnitudes of the zero-filled image, same shape and scale.
            log_acceleration: ``(B,)``, see :func:`nnunet_kd.recon.networks.acceleration.log_acceleration`.

        Returns:
            Logits ``(B, 1, h', w')`` in float32, per resolution.

        Raises:
            ValueError: If the shapes differ, or the image is too small.
        """
        if image.shape != condition.shape:
            raise ValueError(f"expected a condition of the image's shape {image.shape}, got {condition.shape}")
        if min(image.shape[1:]) >> (len(self.patches) - 1) < SMALLEST_SIDE:
            raise ValueError(f"{len(self.patches)} resolutions need larger images than {tuple(image.shape[1:])}")
        judged = image if self.cutoff is None else high_pass(image, self.cutoff)
        told = ((log_acceleration - MIDDLE) / STEP)[:, None, None].expand_as(image)
        channels = torch.stack([judged, condition, told], dim=1)
        logits = []
        for number, layers in enumerate(self.patches):
            channels = avg_pool2d(channels, 2) if number else channels
            logits.append(layers(channels).float())
        return logits


def _patch_layers(channels: int, layers: int) -> nn.Sequential:
    modules: list[nn.Module] = []
    n_in = 3
    for layer in range(layers):
        n_out = channels * 2 ** min(layer, 3)
        size, stride, padding = (4, 2, 1) if layer < STRIDES else (3, 1, 1)
        modules += [spectral_norm(nn.Conv2d(n_in, n_out, size, stride, padding)), nn.LeakyReLU(SLOPE)]
        n_in = n_out
    return nn.Sequential(*modules, spectral_norm(nn.Conv2d(n_in, 1, 3, 1, 1)))
