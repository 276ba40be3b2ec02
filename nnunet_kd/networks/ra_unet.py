"""RA-UNet: EMKD's teacher, a ResNet-34 encoder with LinkNet's decoder and attention on the skip connections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from nnunet_kd.networks.planar import (
    PlanarNetwork,
    Stages,
    Strides,
    crop,
    halvings,
    pad_to_multiple,
    planar_block,
)
from nnunet_kd.networks.pretrained import as_colours, resnet_stages
from nnunet_kd.planning.json_blocks import check_choice

STRIDES = halvings(5)
FEATURES = (64, 64, 128, 256, 512)
_STEP = 32
_HEAD = 32


def _unit(convolution: nn.Module, features: int) -> nn.Sequential:
    return nn.Sequential(convolution, nn.BatchNorm2d(features), nn.ReLU(inplace=True))


class AugmentedAttention(nn.Module):
    """``high + w * f(low)``: one weight per channel, which both maps' averages decide and which add to 1.

    The averages are normalised over the batch, so that training takes at least two samples.

    Args:
        features: Channels of both maps.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.high = _unit(nn.Conv2d(features, features, kernel_size=1), features)
        self.low = _unit(nn.Conv2d(features, features, kernel_size=1), features)
        self.weight = nn.Conv2d(features, features, kernel_size=1)
        self.projection = _unit(nn.Conv2d(features, features, kernel_size=1), features)

    def forward(self, high: Tensor, low: Tensor) -> Tensor:
        """Return the sum of the decoder's map and the weighted skip connection, all ``(B, C, H, W)``."""
        averages = self.high(adaptive_avg_pool2d(high, 1)) + self.low(adaptive_avg_pool2d(low, 1))
        total: Tensor = high + self.weight(averages).softmax(dim=1) * self.projection(low)
        return total


class DecoderStage(nn.Module):
    """LinkNet's block, which doubles the resolution through a quarter of the channels, then attention on the skip.

    Args:
        inputs: Channels of the coarser map.
        outputs: Channels of its own.
        attention: Whether there is a skip connection.
    """

    def __init__(self, inputs: int, outputs: int, *, attention: bool) -> None:
        super().__init__()
        inner = inputs // 4
        self.enlarge = nn.Sequential(
            _unit(nn.Conv2d(inputs, inner, kernel_size=1), inner),
            _unit(nn.ConvTranspose2d(inner, inner, kernel_size=4, stride=2, padding=1), inner),
            _unit(nn.Conv2d(inner, outputs, kernel_size=1), outputs),
        )
        self.attention = AugmentedAttention(outputs) if attention else None

    def forward(self, coarse: Tensor, skip: Tensor) -> Tensor:
        """Return the map of twice the resolution."""
        fine: Tensor = self.enlarge(coarse)
        return fine if self.attention is None else self.attention(fine, skip)


class Decoder(nn.Module):
    """Four stages, from 1/32 to 1/2 of the resolution; the last has no skip connection, as published."""

    def __init__(self) -> None:
        super().__init__()
        pairs = zip(FEATURES[:0:-1], FEATURES[-2::-1], strict=True)
        self.stages = nn.ModuleList(
            DecoderStage(inputs, outputs, attention=stage < 3) for stage, (inputs, outputs) in enumerate(pairs)
        )

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return the finest map from the encoder's, finest first."""
        features = maps[-1]
        for stage, skip in zip(self.stages, maps[-2::-1], strict=True):
            features = stage(features, skip)
        return features


class RAUNet(PlanarNetwork):
    """RA-UNet with logits as output: ResNet-34, LinkNet's decoder, three attention modules, a transposed convolution.

    Grey slices are repeated to three channels; other numbers of channels get a first convolution of their own.
    Sizes that 32 does not divide are padded with zeros and the logits are cut. In EMKD the low and high features are
    ``encoder.stages.0`` and ``encoder.stages.2``.

    Args:
        input_channels: > 0.
        num_classes: Outputs.
        strides: Accepted if they are the network's own: five halvings.
        pretrained: Start the encoder from torchvision's ImageNet weights, as published.
        auxiliary_heads: Must be false.
        deep_supervision: Kept, without effect.

    Raises:
        UsageError: If strides or heads are others, or pretrained weights cannot be had.

    References:
        [1] Ni et al., RAUNet: Residual Attention U-Net for Semantic Segmentation of Cataract Surgical Instruments,
            2019, https://arxiv.org/abs/1909.10360
        [2] Qin et al., Efficient Medical Image Segmentation Based on Knowledge Distillation, 2021,
            https://arxiv.org/abs/2108.09987
    """

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        *,
        strides: Strides | None = None,
        pretrained: bool = False,
        auxiliary_heads: bool = False,
        deep_supervision: bool = False,
    ) -> None:
        super().__init__(strides, STRIDES, auxiliary_heads=auxiliary_heads, deep_supervision=deep_supervision)
        self.encoder = Stages(resnet_stages(34, input_channels, pretrained=pretrained))
        self.decoder = Decoder()
        self.head = nn.Sequential(
            nn.ConvTranspose2d(FEATURES[0], _HEAD, kernel_size=3, stride=2),  # 2n + 1
            nn.ReLU(inplace=True),
            nn.Conv2d(_HEAD, _HEAD, kernel_size=3),  # 2n - 1
            nn.ReLU(inplace=True),
            nn.Conv2d(_HEAD, num_classes, kernel_size=2, padding=1),  # 2n
        )

    def forward(self, image: Tensor) -> Tensor:
        """Return logits ``(B, num_classes, H, W)`` of ``image``, ``(B, input_channels, H, W)``."""
        maps = self.encoder(as_colours(pad_to_multiple(image, _STEP)))
        return crop(self.head(self.decoder(maps)), image.shape[2:])


def student_block(architecture: Mapping[str, Any], *, pretrained: bool = False) -> dict[str, Any]:
    """Return RA-UNet (EMKD's teacher, 2-D).

    Args:
        architecture: The teacher's block.
        pretrained: Start the encoder from ImageNet weights.

    Raises:
        UsageError: If the teacher is 3-D.
    """
    check_choice(pretrained, (True, False), "ra_unet: pretrained")
    return planar_block("ra_unet", architecture, "RAUNet", strides=STRIDES, pretrained=bool(pretrained))
