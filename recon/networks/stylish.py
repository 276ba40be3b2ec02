"""The published generative form for extreme accelerations: one texture vector, AdaIN and noise in nine places."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, instance_norm, interpolate, leaky_relu, pad

from nnunet_kd.errors import UsageError
from nnunet_kd.recon.networks.channels import n_channels, network_input, to_channels, to_image
from nnunet_kd.recon.networks.generative import GenerativeNetwork, Latent, NoiseInjection, halved_noise
from nnunet_kd.recon.networks.multi_scale import SoftThreshold, check_sizes, scale_widths
from nnunet_kd.recon.physics.acquisition import Acquisition
from nnunet_kd.recon.physics.priors import consistency_image

SLOPE = 0.01
MAPPING_LAYERS = 4
LARGEST_LOG_VARIANCE = 10.0


class StyledBlock(nn.Module):
    """Two convolutions, noise, and adaptive instance normalisation by the texture vector.

    Statistics are per channel, and gamma counts from 1; both start as if there were no style.

    Args:
        n_in: Channels of the input.
        channels: Of the output.
        style: Length of the texture vector.
    """

    def __init__(self, n_in: int, channels: int, style: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(n, channels, 3, padding=1) for n in (n_in, channels))
        self.noise = NoiseInjection(channels)
        self.style = nn.Linear(style, 2 * channels)
        nn.init.zeros_(self.style.weight)
        nn.init.zeros_(self.style.bias)

    def forward(self, features: Tensor, style: Tensor, noise: Tensor) -> Tensor:
        """Return ``(B, C, H, W)``."""
        features = leaky_relu(self.second(leaky_relu(self.first(features), SLOPE)), SLOPE)
        gamma, beta = self.style(style).float()[:, :, None, None].chunk(2, dim=1)
        styled: Tensor = instance_norm(self.noise(features, noise).float()) * (1 + gamma) + beta
        return styled


class StyledUNet(nn.Module):
    """U-Net with a texture vector in every block and learnt thresholds on its skips.

    Args:
        n_in: Channels of the input.
        channels: Of the finest stage, doubled by each pooling.
        pools: How often the resolution is halved; ``2 pools + 1`` blocks take the vector, 9 as published.
        style: Length of the vector.
    """

    def __init__(self, n_in: int, channels: int, pools: int, style: int) -> None:
        super().__init__()
        widths = scale_widths(channels, pools + 1)
        self.encoder = nn.ModuleList(
            StyledBlock(a, b, style) for a, b in zip([n_in, *widths[:-2]], widths[:-1], strict=True)
        )
        self.bottleneck = StyledBlock(widths[-2], widths[-1], style)
        self.shrink = nn.ModuleList(SoftThreshold(width) for width in widths[:-1])
        self.decoder = nn.ModuleList(StyledBlock(3 * width, width, style) for width in reversed(widths[:-1]))
        self.head = nn.Conv2d(channels, 2, 1)

    def forward(self, channels: Tensor, style: Tensor, noise: Tensor) -> Tensor:
        """Return ``(B, 2, H, W)`` of ``(B, n_in, H, W)``, of any size."""
        height, width = channels.shape[2:]
        multiple = 2 ** len(self.encoder)
        sizes = [max(2 * multiple, -(-size // multiple) * multiple) - size for size in (width, height)]
        features, noise = (pad(values, (0, sizes[0], 0, sizes[1])) for values in (channels, noise))
        kept, noises = [], []
        for encode, shrink in zip(self.encoder, self.shrink, strict=True):
            features = encode(features, style, noise)
            kept.append(shrink(features))
            noises.append(noise)
            features, noise = avg_pool2d(features, 2), halved_noise(noise)
        features = self.bottleneck(features, style, noise)
        for decode in self.decoder:
            doubled = interpolate(features, scale_factor=2.0, mode="nearest")
            features = decode(torch.cat([doubled, kept.pop()], dim=1), style, noises.pop())
        output: Tensor = self.head(features)
        return output[:, :, :height, :width]


class StyleEncoder(nn.Module):
    """Mean and logarithm of the variance of the texture code of a zero-filled image.

    Args:
        channels: Of the first of four convolutions, each of which halves the resolution.
        style: Length of the code.
    """

    def __init__(self, channels: int, style: int) -> None:
        super().__init__()
        widths = [1, *scale_widths(channels, 4)]
        self.convolutions = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairwise(widths))
        self.code = nn.Linear(widths[-1], 2 * style)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return two ``(B, style)`` of a magnitude ``(B, H, W)``."""
        features = image[:, None]
        for convolution in self.convolutions:
            features = leaky_relu(convolution(features), SLOPE)
        mean, log_variance = self.code(features.mean(dim=(2, 3))).float().chunk(2, dim=1)
        return mean, log_variance.clamp(-LARGEST_LOG_VARIANCE, LARGEST_LOG_VARIANCE)


class Stylish(GenerativeNetwork):
    """The generative network of "Generating details for FastMRI on extremely sparse inputs" [1], its defects mended.

    A code is drawn from what an encoder says of the zero-filled image, four layers map it to one texture vector, and
    that modulates all blocks of a U-Net, with noise, as in StyleGAN [2]. The idea is kept: one vector for the whole
    image, and detail that may contradict the measurement. What differs from the release: images are complex on their
    full grid and the misfit is one of their physics; the U-Net says what to add; a second pass sees the misfit of the
    first, by the same weights, and a step towards the measurement ends it; statistics are per channel; thresholds and
    noise start small; there is no dropout, no clamping to [0, 1], and no network from photographs.

    Args:
        channels: Of the U-Net's finest stage.
        pools: How often it halves the resolution.
        style_channels: Length of code and texture vector.
        encoder_channels: Of the encoder's first convolution.
        iterations: Passes through the U-Net. The misfit is nothing before the first for a single coil.
        n_context: Neighbouring slices that the U-Net sees too: both sides together.

    Raises:
        UsageError: If the numbers make no network.

    References:
        [1] Kulikov, Mqawass et al., 2021, https://github.com/ghaith-mq/stylish-fastmri
        [2] Karras et al., A Style-Based Generator Architecture for Generative Adversarial Networks, 2019,
            https://arxiv.org/abs/1812.04948
    """

    def __init__(
        self,
        channels: int = 32,
        pools: int = 4,
        *,
        style_channels: int = 320,
        encoder_channels: int = 32,
        iterations: int = 2,
        n_context: int = 0,
    ) -> None:
        super().__init__()
        check_sizes(channels, pools + 1)
        if min(style_channels, encoder_channels, iterations) < 1:
            raise UsageError(
                "architecture: expected at least 1 of style_channels, encoder_channels and iterations, got "
                f"{style_channels}, {encoder_channels} and {iterations}"
            )
        self.n_context = n_context
        self.latent_size = style_channels
        self.encoder = StyleEncoder(encoder_channels, style_channels)
        layers: list[nn.Module] = []
        for _ in range(MAPPING_LAYERS):
            layers += [nn.Linear(style_channels, style_channels), nn.LeakyReLU(SLOPE)]
        self.mapping = nn.Sequential(*layers[:-1])
        self.body = StyledUNet(n_channels(2 + n_context, complex_data=True), channels, pools, style_channels)
        self.steps = nn.Parameter(torch.ones(iterations + 1))

    def parts(self, acquisition: Acquisition, latent: Latent) -> dict[str, Tensor]:
        """Return ``image``, ``baseline`` (the zero-filled image), ``detail`` (all that was added, not only unseen).

        Also ``style``, the texture vector ``(B, style_channels)``, and ``mean`` and ``log_variance`` of its code.
        """
        mean, log_variance = self.encoder(acquisition.image.abs())
        style = self.mapping(mean + latent.vector * torch.exp(0.5 * log_variance))
        image = acquisition.image
        for step in self.steps[:-1]:
            misfit = consistency_image(image, acquisition)
            shown = [network_input(image, acquisition, self.n_context), to_channels(misfit[:, None])]
            image = image - step * misfit + to_image(self.body(torch.cat(shown, dim=1), style, latent.noise))
        image = image - self.steps[-1] * consistency_image(image, acquisition)
        code = {"style": style.float(), "mean": mean, "log_variance": log_variance}
        return {"image": image, "baseline": acquisition.image, "detail": image - acquisition.image, **code}

    def stage_names(self) -> dict[str, str]:
        """Return the stages of encoder and decoder, the bottleneck as the encoder's deepest."""
        names = {f"body.encoder.{stage}": "encoder" for stage in range(len(self.body.encoder))}
        names["body.bottleneck"] = "encoder"
        return names | {f"body.decoder.{stage}": "decoder" for stage in range(len(self.body.decoder))}

    def middle_layers(self) -> list[str]:
        """Return the bottleneck's name."""
        return ["body.bottleneck"]
