"""The sparsifying transform of Adaptive-CS-Net: features at several scales, each shrunk towards zero, and back."""

from collections.abc import Sequence
from itertools import pairwise
from math import expm1, log

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, softplus

from nnunet_kd.errors import UsageError

SLOPE = 0.1
FIRST_THRESHOLD = 0.02
FIRST_CORRECTION = 0.1  # what a new network adds to the image, as a share of what default weights would


class SoftThreshold(nn.Module):
    """Shrinks features by a learnt threshold > 0 per channel, ``sign(u) max(|u| - t, 0)``.

    Args:
        channels: Of the features.
        first: Threshold of a new network, > 0; features have the order of 1.
    """

    def __init__(self, channels: int, first: float = FIRST_THRESHOLD) -> None:
        super().__init__()
        self.raw = nn.Parameter(torch.full((channels,), log(expm1(first))))

    def forward(self, features: Tensor, shift: Tensor | None = None) -> Tensor:
        """Return the shrunk features.

        Args:
            features: ``(B, C, H, W)``.
            shift: Of the threshold before its softplus, ``(B, C)``.
        """
        raw = self.raw[None] if shift is None else self.raw + shift
        threshold = softplus(raw.float())[:, :, None, None].to(features.dtype)
        return features - torch.maximum(torch.minimum(features, threshold), -threshold)


class Analysis(nn.Module):
    """Two convolutions of one scale, and the shrinkage of what goes on to the synthesis.

    Args:
        n_in: Channels of the input.
        channels: Of the features.
        n_condition: Numbers that shift thresholds and features; 0: none.
    """

    def __init__(self, n_in: int, channels: int, n_condition: int) -> None:
        super().__init__()
        self.first, self.second = _convolution(n_in, channels), _convolution(channels, channels)
        self.shrink = SoftThreshold(channels)
        self.condition = nn.Linear(n_condition, 2 * channels) if n_condition else None
        if self.condition is not None:
            nn.init.zeros_(self.condition.weight)
            nn.init.zeros_(self.condition.bias)

    def forward(self, features: Tensor, condition: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the features for the next scale, and the shrunk ones, ``(B, C, H, W)`` each."""
        features = _activated(self.first(features))
        if self.condition is None or condition is None:
            features = self.second(features)
            return features, self.shrink(features)
        bias, shift = self.condition(condition).chunk(2, dim=1)
        features = self.second(features + bias[:, :, None, None])
        return features, self.shrink(features, shift)


class Synthesis(nn.Module):
    """Joins a coarser scale with the shrunk features of a finer one by a convolution.

    Args:
        coarse: Channels of the coarser scale.
        fine: Channels of the finer one, and of the output.
    """

    def __init__(self, coarse: int, fine: int) -> None:
        super().__init__()
        self.convolution = _convolution(coarse + fine, fine)

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """Return ``(B, fine, H, W)``."""
        doubled = interpolate(coarse, scale_factor=2.0, mode="nearest")
        return _activated(self.convolution(torch.cat([doubled, fine.to(doubled.dtype)], dim=1)))


class MultiScaleTransform(nn.Module):
    """``U^(tau(U(.)))``: analysis at several scales, soft thresholds on all of them, synthesis [1]. No normalisation.

    Args:
        n_in: Channels of the input.
        n_out: Channels of the output.
        channels: Of the finest scale, doubled with each coarser one.
        scales: At least 2, each half the resolution of the one before.
        n_condition: Numbers that every scale's thresholds and features depend on; 0: none.

    Raises:
        UsageError: If the numbers make no network.

    References:
        [1] Pezzotti et al., An Adaptive Intelligence Algorithm for Undersampled Knee MRI Reconstruction, 2020,
            https://arxiv.org/abs/2004.07339
    """

    def __init__(self, n_in: int, n_out: int, channels: int, scales: int, n_condition: int = 0) -> None:
        super().__init__()
        check_sizes(channels, scales)
        widths = scale_widths(channels, scales)
        self.scales = scales
        self.analysis = nn.ModuleList(
            Analysis(a, b, n_condition) for a, b in zip([n_in, *widths[:-1]], widths, strict=True)
        )
        self.synthesis = nn.ModuleList(Synthesis(coarse, fine) for fine, coarse in reversed(list(pairwise(widths))))
        self.head = nn.Conv2d(channels, n_out, 3, padding=1)
        with torch.no_grad():
            self.head.weight *= FIRST_CORRECTION
            nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]  # it has one

    def forward(self, features: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return ``(B, n_out, H, W)`` of ``(B, n_in, H, W)``, H and W multiples of ``2^(scales - 1)``."""
        kept: list[Tensor] = []
        for scale, analysis in enumerate(self.analysis):
            features, shrunk = analysis(avg_pool2d(features, 2) if scale else features, condition)
            kept.append(shrunk)
        features = kept.pop()
        for synthesis in self.synthesis:
            features = synthesis(features, kept.pop())
        output: Tensor = self.head(features)
        return output

    def last_features(self) -> str:
        """Return the name of the module whose features become the output: all scales together, at full resolution."""
        return f"synthesis.{self.scales - 2}"


def scale_widths(channels: int, scales: int) -> list[int]:
    """Return the channels of each scale, finest first.

    Example:
        >>> scale_widths(16, 3)
        [16, 32, 64]
    """
    return [channels * 2**scale for scale in range(scales)]


def check_sizes(channels: int, scales: int) -> None:
    """Refuse sizes that make no network.

    Raises:
        UsageError: If there are too few channels or scales.
    """
    if channels < 1 or scales < 2:
        raise UsageError(f"architecture: expected at least 1 channel and 2 scales, got {channels} and {scales}")


def check_choices(name: str, values: Sequence[str], choices: Sequence[str]) -> None:
    """Refuse a name that is none of the choices.

    Raises:
        UsageError: Names the argument, the choices and what came.
    """
    for value in values:
        if value not in choices:
            raise UsageError(f"architecture, {name}: expected among {', '.join(choices)}, got {value!r}")


def _convolution(n_in: int, n_out: int) -> nn.Conv2d:
    """Return a 3x3 convolution that keeps the size of features, so that one threshold suits every depth."""
    convolution = nn.Conv2d(n_in, n_out, 3, padding=1)
    nn.init.kaiming_normal_(convolution.weight, a=SLOPE, nonlinearity="leaky_relu")
    nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]  # it has one
    return convolution


def _activated(features: Tensor) -> Tensor:
    return nn.functional.leaky_relu(features, SLOPE, inplace=True)
