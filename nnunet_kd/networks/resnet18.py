"""ResNet-18 as the student of EMKD and HLFD: no decoder, one 1x1 convolution at 1/32 of the resolution."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nnunet_kd.networks.planar import Strides, halvings, planar_block
from nnunet_kd.networks.pretrained import ClassifierAsSegmenter, resnet_stages
from nnunet_kd.planning.json_blocks import check_choice

STRIDES = halvings(5)


class ResNet18(ClassifierAsSegmenter):
    """ResNet-18 with a 1x1 convolution and bilinear up-sampling by 32; 11,177,538 parameters for 2 classes.

    Grey slices are repeated to three channels; other numbers of channels get a first convolution of their own.
    Encoder stages e1 to e5 are ``encoder.stages.0`` to ``.4``; ``decoder.stages`` are e4 to e1 under other names.

    Args:
        input_channels: > 0.
        num_classes: Outputs.
        strides: Accepted if they are the network's own: five halvings.
        pretrained: Start from torchvision's ImageNet weights; the published student does not.
        auxiliary_heads: Must be false.
        deep_supervision: Kept, without effect.

    Raises:
        UsageError: If strides or heads are others, or pretrained weights cannot be had.

    References:
        Qin et al., Efficient Medical Image Segmentation Based on Knowledge Distillation, 2021,
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
        super().__init__(
            resnet_stages(18, input_channels, pretrained=pretrained),
            512,
            num_classes,
            strides=strides,
            fixed=STRIDES,
            auxiliary_heads=auxiliary_heads,
            deep_supervision=deep_supervision,
        )


def student_block(architecture: Mapping[str, Any], *, pretrained: bool = False) -> dict[str, Any]:
    """Return a ResNet-18 with a 1x1 head (HLFD's student, 2-D).

    Args:
        architecture: The teacher's block.
        pretrained: Start from ImageNet weights.

    Raises:
        UsageError: If the teacher is 3-D.
    """
    check_choice(pretrained, (True, False), "resnet18: pretrained")
    return planar_block("resnet18", architecture, "ResNet18", strides=STRIDES, pretrained=bool(pretrained))
