"""Texture tokens: a codebook that each image refines, and how features are modulated by it."""

import torch
from torch import Tensor, nn
from torch.nn.functional import instance_norm, silu

from nnunet_kd.recon.networks.generative import NoiseInjection

MODULATIONS = ("global_adain", "token_adain", "spatial")
QUERY = 16  # numbers by which pixels and tokens are compared


class TextureTokens(nn.Module):
    """K learnt vectors, varied by random numbers and refined by an image's features.

    Args:
        n_tokens: K.
        width: Of each.
        features: Channels of the features.
        attention: Whether each token looks for its own features (cross-attention); else all get the mean feature.
    """

    def __init__(self, n_tokens: int, width: int, features: int, *, attention: bool) -> None:
        super().__init__()
        self.attention = attention
        self.codebook = nn.Parameter(torch.randn(n_tokens, width))
        self.spread = nn.Parameter(torch.zeros(width))
        self.values = nn.Linear(features, width)
        self.norm, self.mixed = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mixing = nn.Sequential(nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width))
        if attention:
            # a bias of the keys would add the same to all scores
            self.queries, self.keys = nn.Linear(width, width), nn.Linear(features, width, bias=False)

    def forward(self, features: Tensor, vector: Tensor) -> Tensor:
        """Return tokens ``(B, K, width)`` of features ``(B, C, H, W)`` and random numbers ``(B, K * width)``."""
        n_tokens, width = self.codebook.shape
        tokens = self.codebook + self.spread * vector.reshape(-1, n_tokens, width)
        pixels = features.flatten(2).transpose(1, 2)
        values = self.values(pixels)
        if self.attention:
            queries, keys = self.queries(self.norm(tokens)), self.keys(pixels)
            found = torch.softmax((queries @ keys.transpose(1, 2)).float() * width**-0.5, dim=-1).to(values.dtype)
            tokens = tokens + found @ values
        else:
            tokens = tokens + self.norm(values.mean(dim=1, keepdim=True))
        refined: Tensor = tokens + self.mixing(self.mixed(tokens))
        return refined


class TokenModulation(nn.Module):
    """``n(f) (1 + gamma) + beta``: tokens say gamma and beta, 0 at first, for an image or for each of its pixels [1].

    Args:
        channels: Of the features.
        width: Of the tokens.
        mode: ``spatial``: each pixel mixes the tokens that suit it; ``token_adain``: the image does, for all pixels;
            ``global_adain``: there is one token.
        normalise: Whether ``n`` brings each channel to mean 0 and variance 1; else it leaves intensities alone.

    References:
        [1] Park et al., Semantic Image Synthesis with Spatially-Adaptive Normalization, 2019,
            https://arxiv.org/abs/1903.07291
    """

    def __init__(self, channels: int, width: int, mode: str, *, normalise: bool) -> None:
        super().__init__()
        self.mode, self.normalise = mode, normalise
        self.modulation = nn.Linear(width, 2 * channels)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)
        if mode != "global_adain":
            self.queries, self.keys = nn.Conv2d(channels, QUERY, 1), nn.Linear(width, QUERY, bias=False)

    def forward(self, features: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Modulate features.

        Args:
            features: ``(B, C, H, W)``.
            tokens: ``(B, K, width)``.

        Returns:
            Features ``(B, C, H, W)``, and how much of each token: ``(B, K, H, W)``, or ``(B, K, 1, 1)``; sums are 1.
        """
        attention = self._attention(features, tokens)
        said = torch.einsum("bkhw,bkc->bchw", attention, self.modulation(tokens).float())
        gamma, beta = said.chunk(2, dim=1)
        normal = instance_norm(features.float()) if self.normalise else features.float()
        return normal * (1 + gamma) + beta, attention

    def _attention(self, features: Tensor, tokens: Tensor) -> Tensor:
        if self.mode == "global_adain":
            return torch.ones_like(tokens[:, :, :1, None], dtype=torch.float32)
        seen = features if self.mode == "spatial" else features.mean(dim=(2, 3), keepdim=True)
        queries, keys = self.queries(seen).float(), self.keys(tokens).float()
        scores = torch.einsum("bqhw,bkq->bkhw", queries, keys) * QUERY**-0.5
        return torch.softmax(scores, dim=1)


def block(n_in: int, n_out: int) -> nn.Sequential:
    """Return two 3x3 convolutions, a SiLU after the first."""
    first, second = (nn.Conv2d(n, n_out, 3, padding=1) for n in (n_in, n_out))
    return nn.Sequential(first, nn.SiLU(), second)


class ModulatedBlock(nn.Module):
    """Convolutions, modulation by tokens, noise and SiLU.

    Args:
        n_in: Channels of the input.
        channels: Of the output.
        width: Of the tokens.
        mode: Of the modulation.
        normalise: See :class:`TokenModulation`.
    """

    def __init__(self, n_in: int, channels: int, width: int, mode: str, *, normalise: bool) -> None:
        super().__init__()
        self.convolutions = block(n_in, channels)
        self.modulation = TokenModulation(channels, width, mode, normalise=normalise)
        self.noise = NoiseInjection(channels)

    def forward(self, features: Tensor, tokens: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return features ``(B, C, H, W)`` and the attention of :class:`TokenModulation`."""
        features, attention = self.modulation(self.convolutions(features), tokens)
        return silu(self.noise(features, noise)), attention
