"""ERFNet: residual blocks of one-dimensional convolutions, two million parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from nnunet_kd.errors import UsageError
from nnunet_kd.networks.planar import PlanarNetwork, Stages, Strides, crop, halvings, pad_to_multiple, planar_block

STRIDES = halvings(3)
FEATURES = (16, 64, 128)
DILATIONS = (2, 4, 8, 16, 2, 4, 8, 16)
_STEP = 8
_EPSILON = 1e-3


def _norm(features: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(features, eps=_EPSILON)


class Downsampler(nn.Module):
    """Half the resolution: a strided convolution beside max-pooling, normalised and rectified together.

    Args:
        inputs: Channels, less than ``outputs``.
        outputs: Channels of both together.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(inputs, outputs - inputs, kernel_size=3, stride=2, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.finish = nn.Sequential(_norm(outputs), nn.ReLU(inplace=True))

    def forward(self, features: Tensor) -> Tensor:
        """Return the map ``(B, outputs, H / 2, W / 2)``; sizes are even."""
        both: Tensor = self.finish(torch.cat([self.convolution(features), self.pool(features)], dim=1))
        return both


def _pair(features: int, dilation: int) -> list[nn.Module]:
    """Return a 3x1 and a 1x3 convolution with a rectifier between them."""
    return [
        nn.Conv2d(features, features, kernel_size=(3, 1), padding=(dilation, 0), dilation=(dilation, 1)),
        nn.ReLU(inplace=True),
        nn.Conv2d(features, features, kernel_size=(1, 3), padding=(0, dilation), dilation=(1, dilation)),
    ]


class FactorisedBlock(nn.Module):
    """The paper's non-bottleneck-1D: ``relu(x + f(x))``, f two pairs of 3x1 and 1x3 convolutions.

    Args:
        features: Channels in and out.
        dilation: Of the second pair.
        dropout: Probability that a channel of f is left out in training.
    """

    def __init__(self, features: int, dilation: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            *_pair(features, 1),
            _norm(features),
            nn.ReLU(inplace=True),
            *_pair(features, dilation),
            _norm(features),
            nn.Dropout2d(dropout),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Return a map of the same shape."""
        total: Tensor = features + self.residual(features)
        return total.relu()


def _decoder_stage(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.ConvTranspose2d(inputs, outputs, kernel_size=3, stride=2, padding=1, output_padding=1),
        _norm(outputs),
        nn.ReLU(inplace=True),
        FactorisedBlock(outputs),
        FactorisedBlock(outputs),
    )


class ERFNet(PlanarNetwork):
    """ERFNet as published: 16, 64 and 128 channels at 1/2, 1/4 and 1/8 of the resolution, a decoder of two stages.

    Sizes that 8 does not divide are padded with zeros and the logits are cut.

    Args:
        input_channels: 1 to 15: the first stage's 16 channels hold the input's, pooled, beside a convolution's.
        num_classes: Outputs.
        strides: Accepted if they are the network's own: three halvings.
        auxiliary_heads: Must be false.
        deep_supervision: Kept, without effect.

    Raises:
        UsageError: If there are too many channels, or strides or heads are others.

    References:
        Romera et al., ERFNet: Efficient Residual Factorized ConvNet for Real-Time Semantic Segmentation, IEEE
        Transactions on Intelligent Transportation Systems 19(1), 2018, https://doi.org/10.1109/TITS.2017.2750080
    """

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        *,
        strides: Strides | None = None,
        auxiliary_heads: bool = False,
        deep_supervision: bool = False,
    ) -> None:
        super().__init__(strides, STRIDES, auxiliary_heads=auxiliary_heads, deep_supervision=deep_supervision)
        fine, middle, coarse = FEATURES
        if input_channels >= fine:
            raise UsageError(f"ERFNet: expected fewer than {fine} input channels, got {input_channels}; plan another")
        self.encoder = Stages(
            [
                Downsampler(input_channels, fine),
                nn.Sequential(Downsampler(fine, middle), *(FactorisedBlock(middle, dropout=0.03) for _ in range(5))),
                nn.Sequential(
                    Downsampler(middle, coarse),
                    *(FactorisedBlock(coarse, dilation, dropout=0.3) for dilation in DILATIONS),
                ),
            ]
        )
        self.decoder = Stages([_decoder_stage(coarse, middle), _decoder_stage(middle, fine)])
        self.head = nn.ConvTranspose2d(fine, num_classes, kernel_size=2, stride=2)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits ``(B, num_classes, H, W)`` of ``image``, ``(B, input_channels, H, W)``."""
        maps = self.decoder(self.encoder(pad_to_multiple(image, _STEP))[-1])
        return crop(self.head(maps[-1]), image.shape[2:])


def student_block(architecture: Mapping[str, Any]) -> dict[str, Any]:
    """Return ERFNet (2 million parameters, 2-D).

    Args:
        architecture: The teacher's block.

    Raises:
        UsageError: If the teacher is 3-D.
    """
    return planar_block("erfnet", architecture, "ERFNet", strides=STRIDES)
