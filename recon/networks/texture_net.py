"""TextureNet: a trained reconstruction, and texture that a generator adds where nothing was measured."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, pad, silu

from nnunet_kd.errors import UsageError
from nnunet_kd.recon.networks.acceleration import AccelerationEmbedding
from nnunet_kd.recon.networks.adaptive_cs_net import EMBEDDING, PRIORS, AdaptiveCSNet
from nnunet_kd.recon.networks.channels import to_channels, to_image
from nnunet_kd.recon.networks.generative import GenerativeNetwork, Latent, halved_noise
from nnunet_kd.recon.networks.multi_scale import check_choices, check_sizes, scale_widths
from nnunet_kd.recon.networks.tokens import MODULATIONS, ModulatedBlock, TextureTokens, block
from nnunet_kd.recon.physics.acquisition import Acquisition
from nnunet_kd.recon.physics.null_space import null_space


class Texture(NamedTuple):
    """What the generator says.

    Attributes:
        detail: Complex64, ``(B, H, W)``.
        tokens: ``(B, K, width)``.
        style: Mixture of tokens at the coarsest scale, ``(B, width, H', W')``, or ``(B, width, 1, 1)``.
        attention: How much of each token the finest scale takes, ``(B, K, H, W)``, or ``(B, K, 1, 1)``.
    """

    detail: Tensor
    tokens: Tensor
    style: Tensor
    attention: Tensor


class TextureGenerator(nn.Module):
    """A U-Net whose decoder is modulated by texture tokens; its last convolution starts at 0.

    Args:
        channels: Of the finest scale.
        scales: At least 2.
        n_tokens: K.
        width: Of each token.
        modulation: See :class:`nnunet_kd.recon.networks.tokens.TokenModulation`.
        attention: See :class:`nnunet_kd.recon.networks.tokens.TextureTokens`.
    """

    def __init__(
        self, channels: int, scales: int, n_tokens: int, width: int, *, modulation: str, attention: bool
    ) -> None:
        super().__init__()
        widths = scale_widths(channels, scales)
        self.embedding = AccelerationEmbedding(EMBEDDING)
        self.encoder = nn.ModuleList(block(a, b) for a, b in zip([4 + EMBEDDING, *widths[:-1]], widths, strict=True))
        self.tokens = TextureTokens(n_tokens, width, widths[-1], attention=attention)
        inputs = [widths[-1], *[coarse + fine for fine, coarse in zip(widths[-2::-1], widths[:0:-1], strict=True)]]
        # the finest scale is not normalised, so that the detail knows how bright the image is
        self.decoder = nn.ModuleList(
            ModulatedBlock(n_in, n_out, width, modulation, normalise=n_out != channels)
            for n_in, n_out in zip(inputs, reversed(widths), strict=True)
        )
        self.head = nn.Conv2d(channels, 2, 3, padding=1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]  # it has one

    def forward(self, encoded: Sequence[Tensor], latent: Latent) -> Texture:
        """Return what may be added to the image whose features :meth:`encode` returned."""
        height, width = latent.noise.shape[2:]
        tokens = self.tokens(encoded[-1], latent.vector)
        features, style, attention = self._decode(list(encoded), tokens, pad(latent.noise, self._margin(height, width)))
        detail = to_image(self.head(features)[:, :, :height, :width])
        return Texture(detail, tokens, style, attention[:, :, :height, :width])

    def _margin(self, height: int, width: int) -> tuple[int, int, int, int]:
        multiple = 2 ** (len(self.encoder) - 1)
        right, below = (max(2 * multiple, -(-n // multiple) * multiple) - n for n in (width, height))
        return (0, right, 0, below)

    def encode(self, image: Tensor, acquisition: Acquisition) -> list[Tensor]:
        """Return the features of an image ``(B, H, W)``, finest first; nothing in them is random."""
        height, width = image.shape[1:]
        told = self.embedding(acquisition.mask).float()[:, :, None, None].expand(-1, -1, height, width)
        channels = torch.cat([to_channels(torch.stack([image, acquisition.image], dim=1)), told], dim=1)
        features = pad(channels, self._margin(height, width))
        kept: list[Tensor] = []
        for scale, convolutions in enumerate(self.encoder):
            features = silu(convolutions(avg_pool2d(features, 2) if scale else features))
            kept.append(features)
        return kept

    def _decode(self, kept: list[Tensor], tokens: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        noises = [noise]
        for _ in kept[1:]:
            noises.append(halved_noise(noises[-1]))
        features, attentions = kept.pop(), []
        for scale, modulated in enumerate(self.decoder):
            if scale:
                doubled = interpolate(features, scale_factor=2.0, mode="nearest")
                features = torch.cat([doubled, kept.pop().to(doubled.dtype)], dim=1)
            features, attention = modulated(features, tokens, noises.pop())
            attentions.append(attention)
        style = torch.einsum("bkhw,bkd->bdhw", attentions[0], tokens.float()).float()
        return features, style, attentions[-1]


class TextureNet(GenerativeNetwork):
    """``x = B(y) + (I - A^+ A) g(B(y), y, noise)``: a baseline, and detail that no measured sample contradicts.

    The detail is generated: it can look right and be wrong. What it adds is told apart from the baseline by
    :meth:`parts`. Nothing is added before training, so that the network then is its baseline bit for bit: load a
    trained one into ``baseline``. One texture vector for the whole image, as in [1], becomes K tokens that each image
    refines and each pixel picks from.

    Args:
        blocks: Of the baseline, see :class:`nnunet_kd.recon.networks.adaptive_cs_net.AdaptiveCSNet`.
        channels: Of its finest scale.
        scales: Of baseline and generator, at least 2.
        tokens: How many texture tokens; ``global_adain`` has one whatever is said here.
        token_channels: Of each.
        texture_channels: Of the generator's finest scale.
        modulation: ``spatial``, ``token_adain`` or ``global_adain``, see
            :class:`nnunet_kd.recon.networks.tokens.TokenModulation`.
        attention: Whether tokens look for features of the image, or get their mean.
        null_space: Whether the detail is confined to what was not measured. Without it, it may contradict the
            measurement: for comparison only.
        n_context: Of the baseline.
        priors: Of the baseline.
        embed_acceleration: Of the baseline.

    Raises:
        UsageError: If the settings make no network.

    References:
        [1] Karras et al., A Style-Based Generator Architecture for Generative Adversarial Networks, 2019,
            https://arxiv.org/abs/1812.04948
    """

    def __init__(  # noqa: PLR0913  # plans name each of them
        self,
        blocks: int = 8,
        channels: int = 16,
        scales: int = 3,
        *,
        tokens: int = 32,
        token_channels: int = 64,
        texture_channels: int = 16,
        modulation: str = "spatial",
        attention: bool = True,
        null_space: bool = True,
        n_context: int = 0,
        priors: Sequence[str] = PRIORS,
        embed_acceleration: bool = True,
    ) -> None:
        super().__init__()
        check_choices("modulation", [modulation], MODULATIONS)
        check_sizes(texture_channels, scales)
        if tokens < 1 or token_channels < 1:
            raise UsageError(f"architecture: expected at least 1 token of 1 channel, got {tokens} of {token_channels}")
        self.null_space = null_space
        self.baseline = AdaptiveCSNet(
            blocks, channels, scales, n_context=n_context, priors=priors, embed_acceleration=embed_acceleration
        )
        n_tokens = 1 if modulation == "global_adain" else tokens
        self.latent_size = n_tokens * token_channels
        self.generator = TextureGenerator(
            texture_channels, scales, n_tokens, token_channels, modulation=modulation, attention=attention
        )

    def parts(self, acquisition: Acquisition, latent: Latent) -> dict[str, Tensor]:
        """Return ``image``, ``baseline``, ``detail``, and ``tokens``, ``style``, ``attention`` of :class:`Texture`."""
        return next(self.add_textures(self.baseline(acquisition), acquisition, [latent]))

    def add_textures(
        self, baseline: Tensor, acquisition: Acquisition, latents: Iterable[Latent]
    ) -> Iterator[dict[str, Tensor]]:
        """Yield :meth:`parts` of each sample for a baseline image that is known already, ``(B, H, W)``.

        What is not random, the features of the baseline, is computed once.
        """
        encoded = self.generator.encode(baseline, acquisition)
        for latent in latents:
            texture: Texture = self.generator(encoded, latent)
            detail = null_space(texture.detail, acquisition) if self.null_space else texture.detail
            yield {**texture._asdict(), "image": baseline + detail, "baseline": baseline, "detail": detail}

    def samples(self, acquisition: Acquisition, seeds: Iterable[int | None]) -> Tensor:
        """Return one image per seed, complex64, ``(P, B, H, W)``; the baseline is computed once."""
        latents = (self.latent(acquisition, seed) for seed in seeds)
        found = self.add_textures(self.baseline(acquisition), acquisition, latents)
        return torch.stack([parts["image"] for parts in found])

    def stage_names(self) -> dict[str, str]:
        """Return the baseline's stages."""
        return {f"baseline.{name}": kind for name, kind in self.baseline.stage_names().items()}

    def middle_layers(self) -> list[str]:
        """Return the baseline's middle layers."""
        return [f"baseline.{name}" for name in self.baseline.middle_layers()]
