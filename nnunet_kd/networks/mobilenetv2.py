"""MobileNetV2 as a student: the classifier's features, one 1x1 convolution at 1/8 of the resolution as in EMKD."""

from __future__ import annotations

from collections.abc import Mapping
from math import log2
from typing import Any

from torch import nn

from nnunet_kd.networks.planar import Strides, halvings, planar_block
from nnunet_kd.networks.pretrained import ClassifierAsSegmenter, first_convolution, load_imagenet
from nnunet_kd.planning.json_blocks import check_choice

# expansion, channels, blocks of each group; then the stride of its first block at each output stride
_GROUPS = ((1, 16, 1), (6, 24, 2), (6, 32, 3), (6, 64, 4), (6, 96, 3), (6, 160, 3), (6, 320, 1))
_GROUP_STRIDES = {8: (1, 1, 2, 1, 1, 2, 1), 32: (1, 2, 2, 2, 1, 2, 1)}
_STAGE_ENDS = (1, 4, 7, 14, 19)
_LAST = 1280


class MobileNetV2(ClassifierAsSegmenter):
    """MobileNetV2's features, a 1x1 convolution, bilinear up-sampling; 2,226,434 parameters for 2 classes.

    Grey slices are repeated to three channels; other numbers of channels get a first convolution of their own.
    Encoder stages e1 to e5 (32, 24, 32, 96 and 1280 channels) are ``encoder.stages.0`` to ``.4``; ``decoder.stages``
    are e4 to e1 under other names.

    Args:
        input_channels: > 0.
        num_classes: Outputs.
        strides: Accepted if they are the network's own: three halvings, or five at ``output_stride`` 32.
        output_stride: 8 as in EMKD [2], or 32 as in the classifier [1], which costs less and sees less detail.
        pretrained: Start from torchvision's ImageNet weights; they were trained at 32.
        auxiliary_heads: Must be false.
        deep_supervision: Kept, without effect.

    Raises:
        UsageError: If strides, output stride or heads are others, or pretrained weights cannot be had.

    References:
        [1] Sandler et al., MobileNetV2: Inverted Residuals and Linear Bottlenecks, 2018,
            https://arxiv.org/abs/1801.04381
        [2] Qin et al., Efficient Medical Image Segmentation Based on Knowledge Distillation, 2021,
            https://arxiv.org/abs/2108.09987
    """

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        *,
        strides: Strides | None = None,
        output_stride: int = 8,
        pretrained: bool = False,
        auxiliary_heads: bool = False,
        deep_supervision: bool = False,
    ) -> None:
        fixed = _strides(output_stride)
        super().__init__(
            _stages(input_channels, output_stride, pretrained=pretrained),
            _LAST,
            num_classes,
            strides=strides,
            fixed=fixed,
            auxiliary_heads=auxiliary_heads,
            deep_supervision=deep_supervision,
        )


def _strides(output_stride: int) -> list[list[int]]:
    check_choice(output_stride, _GROUP_STRIDES, "mobilenetv2: output_stride")
    return halvings(int(log2(output_stride)))


def _stages(input_channels: int, output_stride: int, *, pretrained: bool) -> list[nn.Module]:
    from torchvision import models

    setting = [[*group, stride] for group, stride in zip(_GROUPS, _GROUP_STRIDES[output_stride], strict=True)]
    classifier = models.MobileNetV2(inverted_residual_setting=setting)
    if pretrained:
        load_imagenet(classifier, models.MobileNet_V2_Weights.IMAGENET1K_V1)
    features = classifier.features
    features[0][0] = first_convolution(features[0][0], input_channels, pretrained=pretrained)
    starts = (0, *_STAGE_ENDS[:-1])
    return [features[start:end] for start, end in zip(starts, _STAGE_ENDS, strict=True)]


def student_block(
    architecture: Mapping[str, Any], *, output_stride: int = 8, pretrained: bool = False
) -> dict[str, Any]:
    """Return a MobileNetV2 with a 1x1 head (EMKD's student, 2-D).

    Args:
        architecture: The teacher's block.
        output_stride: 8 or 32.
        pretrained: Start from ImageNet weights.

    Raises:
        UsageError: If the teacher is 3-D or the output stride another.
    """
    check_choice(pretrained, (True, False), "mobilenetv2: pretrained")
    return planar_block(
        "mobilenetv2",
        architecture,
        "MobileNetV2",
        strides=_strides(output_stride),
        output_stride=output_stride,
        pretrained=bool(pretrained),
    )
