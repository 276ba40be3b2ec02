"""ImageNet classifiers of torchvision as encoders: in stages, for any number of channels, pretrained if wished."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, hub, nn
from torch.nn.functional import interpolate

from nnunet_kd.errors import UsageError
from nnunet_kd.networks.planar import PlanarNetwork, Stages, Strides

COLOURS = 3


def load_imagenet(classifier: nn.Module, weights: Any) -> None:  # noqa: ANN401  # torchvision has no type hints
    """Load torchvision's ImageNet weights into a classifier; on the meta device there is nothing to load.

    Args:
        classifier: One of ``torchvision.models``.
        weights: Its weights, e.g. ``ResNet18_Weights.IMAGENET1K_V1``.

    Raises:
        UsageError: If they are neither in torch's cache nor to be had from the net.
    """
    if next(classifier.parameters()).is_meta:
        return
    try:
        state = weights.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:  # no net, a disk that is full, a damaged download
        target = Path(hub.get_dir(), "checkpoints", Path(weights.url).name)
        raise UsageError(
            f"pretrained: no weights at {target} and none to download ({error!s:.80}); "
            f"copy {weights.url} there, or set pretrained to false"
        ) from None
    classifier.load_state_dict(state)


def first_convolution(convolution: nn.Conv2d, input_channels: int, *, pretrained: bool) -> nn.Conv2d:
    """Return a classifier's first convolution for another number of channels.

    Grey images and colours keep it: a grey slice is repeated, see :func:`as_colours`. Else it is made anew. Its
    pretrained weights are then the mean over the colours, scaled such that equal channels give what equal colours gave.

    Args:
        convolution: Of three input channels, without bias.
        input_channels: > 0.
        pretrained: Whether the weights are worth keeping.
    """
    if input_channels in (1, COLOURS):
        return convolution
    new = nn.Conv2d(
        input_channels,
        convolution.out_channels,
        kernel_size=convolution.kernel_size,  # type: ignore[arg-type]  # torch types it as a tuple of any length
        stride=convolution.stride,  # type: ignore[arg-type]
        padding=convolution.padding,  # type: ignore[arg-type]
        bias=False,
    )
    nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
    if pretrained:
        with torch.no_grad():
            new.weight.copy_(convolution.weight.mean(dim=1, keepdim=True) * COLOURS / input_channels)
    return new


def as_colours(image: Tensor) -> Tensor:
    """Repeat a grey image ``(B, 1, H, W)`` to three channels; others stay as they are."""
    return image.expand(-1, COLOURS, -1, -1) if image.shape[1] == 1 else image


def resnet_stages(depth: int, input_channels: int, *, pretrained: bool) -> list[nn.Module]:
    """Return the five stages of a ResNet: stem, max-pooling and first residual stage, three residual stages.

    Their strides are 2, 4, 8, 16, 32, their channels 64, 64, 128, 256, 512.

    Args:
        depth: 18 or 34.
        input_channels: > 0.
        pretrained: Start from ImageNet weights.

    Raises:
        UsageError: If the weights cannot be had.

    References:
        He et al., Deep Residual Learning for Image Recognition, 2016, https://arxiv.org/abs/1512.03385
    """
    from torchvision import models

    resnet = getattr(models, f"resnet{depth}")()
    if pretrained:
        load_imagenet(resnet, getattr(models, f"ResNet{depth}_Weights").IMAGENET1K_V1)
    convolution = first_convolution(resnet.conv1, input_channels, pretrained=pretrained)
    return [
        nn.Sequential(convolution, resnet.bn1, resnet.relu),
        nn.Sequential(resnet.maxpool, resnet.layer1),
        resnet.layer2,
        resnet.layer3,
        resnet.layer4,
    ]


class Echo(nn.Module):
    """The encoder's maps once more, deepest but one first, under names of their own.

    A network without decoder has nothing to compare with a teacher's decoder. HLFD takes the encoder's maps
    up-sampled to full size; the up-sampling is left to the loss, which brings both sides to one size anyway.

    Args:
        n_stages: Of the encoder.
    """

    def __init__(self, n_stages: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList(nn.Identity() for _ in range(n_stages - 1))

    def forward(self, maps: Sequence[Tensor]) -> None:
        """Pass each map through its name."""
        for stage, features in zip(self.stages, reversed(maps[:-1]), strict=True):
            stage(features)


class ClassifierAsSegmenter(PlanarNetwork):
    """Stages of a classifier, a 1x1 convolution, bilinear up-sampling to the input's size with aligned corners.

    Args:
        stages: Of the encoder.
        features: Channels of the last stage.
        num_classes: Outputs.
        strides: The plans' strides.
        fixed: The network's own.
        auxiliary_heads: Must be false.
        deep_supervision: Kept, without effect.
    """

    def __init__(
        self,
        stages: Sequence[nn.Module],
        features: int,
        num_classes: int,
        *,
        strides: Strides | None,
        fixed: Strides,
        auxiliary_heads: bool,
        deep_supervision: bool,
    ) -> None:
        super().__init__(strides, fixed, auxiliary_heads=auxiliary_heads, deep_supervision=deep_supervision)
        self.encoder = Stages(stages)
        self.decoder = Echo(len(stages))
        self.head = nn.Conv2d(features, num_classes, kernel_size=1)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits ``(B, num_classes, H, W)`` of ``image``, ``(B, input_channels, H, W)``."""
        maps = self.encoder(as_colours(image))
        self.decoder(maps)
        return interpolate(self.head(maps[-1]), size=image.shape[2:], mode="bilinear", align_corners=True)
