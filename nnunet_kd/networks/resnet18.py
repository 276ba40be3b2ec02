"""ResNet-18 as the student of EMKD and HLFD: no decoder, one 1x1 convolution, published at 1/32 of the resolution."""

from __future__ import annotations

from collections.abc import Mapping
from math import log2
from typing import Any

from torch import nn

from nnunet_kd.networks.planar import Strides, halvings, planar_block
from nnunet_kd.networks.pretrained import ClassifierAsSegmenter, resnet_stages
from nnunet_kd.planning.json_blocks import check_choice

OUTPUT_STRIDES = (32, 16, 8)


class ResNet18(ClassifierAsSegmenter):
    """ResNet-18 with a 1x1 convolution and bilinear up-sampling; 11,177,538 parameters for 2 classes.

    Grey slices are repeated to three channels; other numbers of channels get a first convolution of their own.
    Encoder stages e1 to e5 are ``encoder.stages.0`` to ``.4``; ``decoder.stages`` are e4 to e1 under other names.

    Args:
        input_channels: > 0.
        num_classes: Outputs.
        strides: Accepted if they are the network's own: as many halvings as ``output_stride`` says.
        output_stride: 32 as published, for slices of 512x512; 16 or 8 keep the last stages finer, for structures of
            less than about 100 pixels. The number of parameters stays.
        pretrained: Start from torchvision's ImageNet weights; the published student does not.
        auxiliary_heads: Must be false.
        deep_supervision: Kept, without effect.

    Raises:
        UsageError: If strides, output stride or heads are others, or pretrained weights cannot be had.

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
        output_stride: int = 32,
        pretrained: bool = False,
        auxiliary_heads: bool = False,
        deep_supervision: bool = False,
    ) -> None:
        fixed = _strides(output_stride)
        super().__init__(
            _finer(resnet_stages(18, input_channels, pretrained=pretrained), output_stride),
            512,
            num_classes,
            strides=strides,
            fixed=fixed,
            auxiliary_heads=auxiliary_heads,
            deep_supervision=deep_supervision,
        )


def _strides(output_stride: int) -> list[list[int]]:
    check_choice(output_stride, OUTPUT_STRIDES, "resnet18: output_stride")
    return halvings(int(log2(output_stride)))


def _finer(stages: list[nn.Module], output_stride: int) -> list[nn.Module]:
    """Take the stride out of the stages beyond an output stride, in their first block's two convolutions."""
    for stage in stages[int(log2(output_stride)) :]:
        first = next(stage.children())
        for convolution in (module for module in first.modules() if isinstance(module, nn.Conv2d)):
            convolution.stride = (1, 1)
    return stages


def student_block(
    architecture: Mapping[str, Any], *, output_stride: int = 32, pretrained: bool = False
) -> dict[str, Any]:
    """Return a ResNet-18 with a 1x1 head (HLFD's student, 2-D).

    Args:
        architecture: The teacher's block.
        output_stride: 32 as published, 16 or 8.
        pretrained: Start from ImageNet weights.

    Raises:
        UsageError: If the teacher is 3-D or the output stride another.
    """
    check_choice(pretrained, (True, False), "resnet18: pretrained")
    return planar_block(
        "resnet18",
        architecture,
        "ResNet18",
        strides=_strides(output_stride),
        output_stride=output_stride,
        pretrained=bool(pretrained),
    )
