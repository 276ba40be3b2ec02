"""UNet++: the nested U-Net that HLFD takes as teacher, with every node of the triangle and one output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from nnunet_kd.errors import UsageError
from nnunet_kd.networks.planar import PlanarNetwork, Strides, halvings, planar_block

FEATURES = (64, 128, 256, 512, 1024)
MINIMUM_STAGES = 3


def _name(row: int, column: int) -> str:
    return f"x{row}_{column}"


def _node(inputs: int, outputs: int) -> nn.Sequential:
    """Return two units of 3x3 convolution, batch normalisation, rectifier."""
    units = (
        layer
        for channels in (inputs, outputs)
        for layer in (
            nn.Conv2d(channels, outputs, kernel_size=3, padding=1),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        )
    )
    return nn.Sequential(*units)


class UNetPlusPlus(PlanarNetwork):
    """UNet++ without deep supervision; 36,628,546 parameters for 1 channel and 2 classes.

    Node ``x[i, j]`` has the resolution of stage i; it takes ``x[i, 0] .. x[i, j - 1]`` and the bilinearly enlarged
    ``x[i + 1, j - 1]``. Sizes need not be divisible: a node is enlarged to the size of the one it meets.

    The paper's deep supervision has an output per node of the full resolution; nnU-Net's has one per resolution.
    They do not fit, hence no auxiliary heads.

    Args:
        input_channels: > 0.
        num_classes: Outputs.
        n_stages: Resolutions, >= 3; ``None`` takes as many as there are features.
        features_per_stage: Channels of the nodes of each resolution, finest first.
        strides: Per stage and axis, the first all 1; ``None`` halves each time.
        auxiliary_heads: Must be false.
        deep_supervision: Kept, without effect.

    Raises:
        UsageError: If the numbers of stages do not agree, or strides or heads are not as said.

    References:
        Zhou et al., UNet++: A Nested U-Net Architecture for Medical Image Segmentation, 2018,
        https://arxiv.org/abs/1807.10165
    """

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        *,
        n_stages: int | None = None,
        features_per_stage: Sequence[int] = FEATURES,
        strides: Strides | None = None,
        auxiliary_heads: bool = False,
        deep_supervision: bool = False,
    ) -> None:
        n_stages = len(features_per_stage) if n_stages is None else n_stages
        strides = halvings(n_stages - 1) if strides is None else strides
        _check_stages(n_stages, features_per_stage, strides)
        super().__init__(strides, strides, auxiliary_heads=auxiliary_heads, deep_supervision=deep_supervision)
        self.n_stages = n_stages
        # partial windows count at the border: an odd size keeps its last row, and none vanishes
        self.pools = nn.ModuleList(
            nn.MaxPool2d((stride[0], stride[1]), stride=(stride[0], stride[1]), ceil_mode=True)
            for stride in strides[1:]
        )
        self.nodes = nn.ModuleDict()
        for row, features in enumerate(features_per_stage):
            above = features_per_stage[row - 1] if row else input_channels
            self.nodes[_name(row, 0)] = _node(above, features)
            for column in range(1, n_stages - row):
                inputs = column * features + features_per_stage[row + 1]
                self.nodes[_name(row, column)] = _node(inputs, features)
        self.head = nn.Conv2d(features_per_stage[0], num_classes, kernel_size=1)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits ``(B, num_classes, H, W)`` of ``image``, ``(B, input_channels, H, W)``."""
        rows: list[list[Tensor]] = []
        for depth in range(self.n_stages):
            entrance = self.pools[depth - 1](rows[-1][0]) if depth else image
            rows.append([self.nodes[_name(depth, 0)](entrance)])
            for row in reversed(range(depth)):
                size = rows[row][0].shape[2:]
                coarse = interpolate(rows[row + 1][-1], size=size, mode="bilinear", align_corners=True)
                node = self.nodes[_name(row, depth - row)]
                rows[row].append(node(torch.cat([*rows[row], coarse], dim=1)))
        logits: Tensor = self.head(rows[0][-1])
        return logits

    def stage_names(self) -> dict[str, str]:
        """Return the nodes that HLFD compares: e1 to e5, then d5 to d2, in its order.

        Encoder: x1_0, x2_0, x1_1, x3_0, x4_0. Decoder: x0_1, x0_2, x0_3, x1_3. Other numbers of stages
        follow the same rule.
        """
        last = self.n_stages - 1
        encoder = [_name(row, 0) for row in range(1, self.n_stages)]
        if last > 2:  # with three stages x1_1 is the decoder's
            encoder.insert(2, _name(1, 1))
        decoder = [*(_name(0, column) for column in range(1, last)), _name(1, last - 1)]
        kinds = {"encoder": encoder, "decoder": decoder}
        return {f"nodes.{name}": kind for kind, names in kinds.items() for name in names}


def _check_stages(n_stages: int, features_per_stage: Sequence[int], strides: Strides) -> None:
    if n_stages < MINIMUM_STAGES or not n_stages == len(features_per_stage) == len(strides):
        raise UsageError(
            f"UNetPlusPlus: expected at least {MINIMUM_STAGES} stages with features and strides for each, got n_stages "
            f"{n_stages}, {len(features_per_stage)} features_per_stage and {len(strides)} strides; plan it again"
        )
    if any(not isinstance(s, Sequence) or len(s) != 2 for s in strides) or list(strides[0]) != [1, 1]:
        raise UsageError(
            f"UNetPlusPlus, strides: expected two per stage, the first [1, 1], got {strides!r:.80}; plan it again"
        )


def student_block(architecture: Mapping[str, Any]) -> dict[str, Any]:
    """Return UNet++ in its published width (HLFD's teacher, 2-D).

    Args:
        architecture: The teacher's block.

    Raises:
        UsageError: If the teacher is 3-D.
    """
    return planar_block(
        "unet_plus_plus",
        architecture,
        "UNetPlusPlus",
        strides=halvings(len(FEATURES) - 1),
        n_stages=len(FEATURES),
        features_per_stage=list(FEATURES),
    )
