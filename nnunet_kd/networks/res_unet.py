"""ResUNet: the residual U-Net with group normalisation of the BraTS 2019 distillation, on any nnU-Net plan."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from math import gcd
from typing import Any

import torch
from torch import Tensor, nn

from nnunet_kd.errors import UsageError

FEATURES = (16, 32, 64, 128)
BLOCKS = (1, 2, 2, 4)
GROUPS = 8
SLOPE = 0.01
UPSAMPLINGS = ("linear", "nearest")

Convolution = type[nn.Conv2d] | type[nn.Conv3d]
PerAxis = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Stages:
    """Resolution stages of a U-Net, finest first; kernels and strides per stage and axis.

    Attributes:
        conv_op: ``torch.nn.Conv2d`` or ``torch.nn.Conv3d``.
        features: Channels of each stage.
        kernels: Odd kernel sizes.
        strides: Of each stage against the one before; 1 in the first.
        blocks: Residual blocks of the encoder.
        decoder_blocks: Residual blocks of every decoder stage.

    Raises:
        ValueError: If they make no network.
    """

    conv_op: Convolution
    features: tuple[int, ...]
    kernels: tuple[PerAxis, ...]
    strides: tuple[PerAxis, ...]
    blocks: tuple[int, ...]
    decoder_blocks: int

    def __post_init__(self) -> None:
        n_stages, n_axes = len(self.features), _n_axes(self.conv_op)
        if n_stages < 2:
            raise ValueError(f"features_per_stage: expected at least 2 stages, got {list(self.features)}")
        lists = {"kernel_sizes": self.kernels, "strides": self.strides, "n_blocks_per_stage": self.blocks}
        for name, values in lists.items():
            if len(values) != n_stages:
                raise ValueError(f"{name}: expected {n_stages} entries, got {len(values)}")
        if any(len(values) != n_axes for values in (*self.kernels, *self.strides)):
            raise ValueError(f"kernel_sizes and strides: expected {n_axes} axes each, as {self.conv_op.__name__} has")
        if any(size % 2 == 0 for kernel in self.kernels for size in kernel):
            raise ValueError(f"kernel_sizes: expected odd numbers, got {self.kernels}")
        if set(self.strides[0]) != {1}:
            raise ValueError(f"strides: expected 1 in the first stage, got {self.strides[0]}")


def _n_axes(conv_op: Convolution) -> int:
    return 3 if issubclass(conv_op, nn.Conv3d) else 2


def default_blocks(n_stages: int) -> tuple[int, ...]:
    """Return the residual blocks of the encoder: 1, 2, 2, 4 as published, and 4 for each further stage."""
    return tuple(BLOCKS[min(stage, len(BLOCKS) - 1)] for stage in range(n_stages))


def n_groups(features: int) -> int:
    """Return the groups of a normalisation: 8, or the largest divisor of 8 that divides the features."""
    return gcd(GROUPS, features)


def _convolution(conv_op: Convolution, n_in: int, n_out: int, kernel: PerAxis, *, bias: bool = False) -> nn.Module:
    settings: dict[str, Any] = {"padding": tuple(size // 2 for size in kernel), "bias": bias}
    return conv_op(n_in, n_out, kernel, **settings)  # type: ignore[arg-type]  # as many axes as the class has


def _mean(values: Tensor) -> Tensor:
    for axis in range(values.ndim - 1, 1, -1):
        values = values.mean(dim=axis, keepdim=True)
    return values


class GroupNorm(nn.GroupNorm):
    """Group normalisation with :func:`n_groups` groups, which stays exact in ONNX Runtime.

    PyTorch exports it as ``InstanceNormalization``, where ONNX Runtime adds up all voxels of a group in single
    precision: at 128^3 the logits of the published network are off by 10^-3. Exported, this one takes the means axis
    by axis, in standard operators.
    """

    def __init__(self, features: int) -> None:
        super().__init__(n_groups(features), features)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  # the parent's name
        """Return a map of the same shape, ``(B, C, *spatial)``."""
        if not torch.onnx.is_in_onnx_export():
            return super().forward(input)
        grouped = input.reshape(input.shape[0], self.num_groups, -1, *input.shape[2:])
        centred = grouped - _mean(grouped)
        normed = (centred * torch.rsqrt(_mean(centred * centred) + self.eps)).reshape(input.shape)
        scale, shift = (values.view(-1, *[1] * (input.ndim - 2)) for values in (self.weight, self.bias))
        scaled: Tensor = normed * scale + shift
        return scaled


class ResidualBlock(nn.Module):
    """``x + f(x)``, f being twice convolution, group normalisation, leaky ReLU; nothing follows the sum.

    Args:
        conv_op: ``torch.nn.Conv2d`` or ``torch.nn.Conv3d``.
        features: Channels in and out.
        kernel: Odd, per axis.
    """

    def __init__(self, conv_op: Convolution, features: int, kernel: PerAxis) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(2):
            layers += [_convolution(conv_op, features, features, kernel), GroupNorm(features)]
            layers += [nn.LeakyReLU(SLOPE, inplace=True)]
        self.residual = nn.Sequential(*layers)

    def forward(self, features: Tensor) -> Tensor:
        """Return a map of the same shape, ``(B, C, *spatial)``."""
        total: Tensor = features + self.residual(features)
        return total


class Encoder(nn.Module):
    """Stages of residual blocks; each but the first begins with a strided convolution that changes the width."""

    def __init__(self, input_channels: int, stages: Stages) -> None:
        super().__init__()
        conv_op, widths = stages.conv_op, stages.features
        modules = []
        for index, (width, kernel, stride) in enumerate(zip(widths, stages.kernels, stages.strides, strict=True)):
            entrance = [_convolution(conv_op, input_channels, width, kernel), GroupNorm(width)]
            if index > 0:
                entrance = [conv_op(widths[index - 1], width, stride, stride=stride, bias=False)]  # type: ignore[arg-type]
            blocks = [ResidualBlock(conv_op, width, kernel) for _ in range(stages.blocks[index])]
            modules.append(nn.Sequential(*entrance, *blocks))
        self.stages = nn.ModuleList(modules)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the maps of all stages, finest first."""
        maps = []
        for stage in self.stages:
            image = stage(image)
            maps.append(image)
        return maps


class DecoderStage(nn.Module):
    """Up-sampling, 1x1x1 convolution to the skip's width, leaky ReLU; both merged by 1x1x1; residual blocks.

    Args:
        stages: The network's.
        index: Which of them, 0 being the finest.
        upsampling: ``linear`` or ``nearest``.
    """

    def __init__(self, stages: Stages, index: int, upsampling: str) -> None:
        super().__init__()
        conv_op, features, factors = stages.conv_op, stages.features[index], stages.strides[index + 1]
        mode = {"nearest": "nearest", "linear": "trilinear" if len(factors) == 3 else "bilinear"}[upsampling]
        self.up = nn.Sequential(
            # without a value for align_corners, PyTorch takes False where the mode knows it, as published
            nn.Upsample(scale_factor=tuple(float(factor) for factor in factors), mode=mode),
            conv_op(stages.features[index + 1], features, 1, bias=False),
            nn.LeakyReLU(SLOPE, inplace=True),
        )
        self.merge = conv_op(2 * features, features, 1, bias=False)
        self.blocks = nn.Sequential(
            *[ResidualBlock(conv_op, features, stages.kernels[index]) for _ in range(stages.decoder_blocks)]
        )

    def forward(self, below: Tensor, skip: Tensor) -> Tensor:
        """Return a map of the skip's shape from the coarser map and the encoder's map of this resolution."""
        refined: Tensor = self.blocks(self.merge(torch.cat((skip, self.up(below)), dim=1)))
        return refined


class Decoder(nn.Module):
    """Decoder stages from the deepest to the finest, and the heads on them.

    Args:
        stages: The network's.
        num_classes: Outputs.
        upsampling: ``linear`` or ``nearest``.
        auxiliary_heads: Whether the coarser stages have a head, 1x1x1 as in nnU-Net's networks.

    Attributes:
        deep_supervision: Whether all heads answer, or the finest alone.
    """

    def __init__(self, stages: Stages, num_classes: int, upsampling: str, *, auxiliary_heads: bool) -> None:
        super().__init__()
        self.deep_supervision = False
        self._has_auxiliary_heads = auxiliary_heads
        coarse_to_fine = range(len(stages.features) - 2, -1, -1)
        self.stages = nn.ModuleList(DecoderStage(stages, index, upsampling) for index in coarse_to_fine)
        self.head = _convolution(stages.conv_op, stages.features[0], num_classes, stages.kernels[0], bias=True)
        self.auxiliary_heads = nn.ModuleList(
            stages.conv_op(stages.features[index], num_classes, 1)
            for index in coarse_to_fine
            if auxiliary_heads and index > 0
        )

    def forward(self, maps: Sequence[Tensor]) -> Tensor | list[Tensor]:
        """Return the logits of the encoder's maps, finest first: one tensor, or with deep supervision all heads'."""
        below = maps[-1]
        decoded = []
        for stage, skip in zip(self.stages, maps[-2::-1], strict=True):
            below = stage(below, skip)
            decoded.append(below)
        finest: Tensor = self.head(below)
        if not (self.deep_supervision and self._has_auxiliary_heads):
            return finest
        coarser = [head(features) for head, features in zip(self.auxiliary_heads, decoded[:-1], strict=True)]
        return [finest, *coarser[::-1]]


def _per_axis(values: int | Sequence[int], n_axes: int) -> PerAxis:
    return (values,) * n_axes if isinstance(values, int) else tuple(int(value) for value in values)


class ResUNet(nn.Module):
    """The student of "Knowledge Distillation for Brain Tumor Segmentation" [1].

    A residual U-Net: encoder stages of 1, 2, 2, 4 blocks, decoder stages of one, group normalisation with 8 groups,
    leaky ReLU *before* each sum, linear up-sampling and then a 1x1x1 convolution. It returns logits; the published
    sigmoid is applied by nnU-Net, where labels are regions. The defaults are the published network of 4 509 939
    parameters; the authors' code holds 918 016 more in a decoder stage that is never called, which is left out here.

    Args:
        input_channels: Channels of the image.
        num_classes: Outputs.
        n_stages: Resolution stages, >= 2.
        features_per_stage: Channels of each stage. Where 8 does not divide them, there are fewer groups, see
            :func:`n_groups`.
        conv_op: ``torch.nn.Conv2d`` or ``torch.nn.Conv3d``.
        kernel_sizes: Odd; one for all, one per stage, or per stage and axis. A decoder stage has its encoder stage's,
            the head the finest.
        strides: Per stage, or per stage and axis: 1 in the first. Kernel and stride of the down-sampling convolutions
            and factor of the up-sampling; an image must be divisible by their product. ``None`` is 2 after the first.
        n_blocks_per_stage: Residual blocks of the encoder; ``None`` as published, and 4 in stages beyond the fourth.
        n_blocks_per_stage_decoder: The decoder's, in every stage.
        upsampling: ``linear``, or ``nearest`` for runtimes without a linear one. The weights fit both, but the results
            differ: train with the one that will be deployed.
        auxiliary_heads: Whether the coarser decoder stages have outputs. It decides which weights exist.
        deep_supervision: Whether the forward pass returns a list with these outputs, finest first. Without auxiliary
            heads it returns one tensor in any case. Can be switched on a built network.

    Raises:
        ValueError: If the settings make no network.

    References:
        [1] Lachinov et al., 2020, https://arxiv.org/abs/2002.03688

    Example:
        >>> with torch.device("meta"):
        ...     network = ResUNet(input_channels=4, num_classes=3)
        >>> sum(parameter.numel() for parameter in network.parameters())
        4509939
        >>> network(torch.empty(1, 4, 16, 16, 16, device="meta")).shape
        torch.Size([1, 3, 16, 16, 16])
    """

    def __init__(  # noqa: PLR0913  # nnU-Net passes the plans' keys by these names
        self,
        input_channels: int = 4,
        num_classes: int = 3,
        *,
        n_stages: int = len(FEATURES),
        features_per_stage: Sequence[int] = FEATURES,
        conv_op: Convolution = nn.Conv3d,
        kernel_sizes: int | Sequence[int] | Sequence[Sequence[int]] = 3,
        strides: Sequence[int] | Sequence[Sequence[int]] | None = None,
        n_blocks_per_stage: Sequence[int] | None = None,
        n_blocks_per_stage_decoder: int = 1,
        upsampling: str = "linear",
        auxiliary_heads: bool = False,
        deep_supervision: bool = False,
    ) -> None:
        super().__init__()
        if len(features_per_stage) != n_stages:
            raise ValueError(f"features_per_stage: expected {n_stages} entries, got {len(features_per_stage)}")
        if upsampling not in UPSAMPLINGS:
            raise ValueError(f"upsampling: expected {' or '.join(UPSAMPLINGS)}, got {upsampling!r}")
        n_axes = _n_axes(conv_op)
        kernels = [kernel_sizes] * n_stages if isinstance(kernel_sizes, int) else kernel_sizes
        stages = Stages(
            conv_op=conv_op,
            features=tuple(features_per_stage),
            kernels=tuple(_per_axis(kernel, n_axes) for kernel in kernels),
            strides=tuple(_per_axis(stride, n_axes) for stride in strides or [1] + [2] * (n_stages - 1)),
            blocks=tuple(n_blocks_per_stage or default_blocks(n_stages)),
            decoder_blocks=n_blocks_per_stage_decoder,
        )
        self.encoder = Encoder(input_channels, stages)
        self.decoder = Decoder(stages, num_classes, upsampling, auxiliary_heads=auxiliary_heads)
        self.deep_supervision = deep_supervision
        self.apply(self.initialize)

    @property
    def deep_supervision(self) -> bool:
        """Whether the coarser outputs are returned too; kept where nnU-Net's own trainers switch it."""
        return self.decoder.deep_supervision

    @deep_supervision.setter
    def deep_supervision(self, enabled: bool) -> None:
        """Switch it."""
        self.decoder.deep_supervision = enabled

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        """Return logits ``(B, num_classes, *spatial)`` of an image ``(B, input_channels, *spatial)``, see the class."""
        logits: Tensor | list[Tensor] = self.decoder(self.encoder(image))
        return logits

    @staticmethod
    def initialize(module: nn.Module) -> None:
        """Draw a convolution's weights from Kaiming's normal distribution and its bias from N(0, 1), as published."""
        if not isinstance(module, nn.Conv2d | nn.Conv3d):
            return
        nn.init.kaiming_normal_(module.weight, a=SLOPE)
        if module.bias is not None:
            nn.init.normal_(module.bias)


def student_block(
    architecture: Mapping[str, Any],
    *,
    upsampling: str = "linear",
    published: bool = False,
    auxiliary_heads: bool = False,
) -> dict[str, Any]:
    """Return the BraTS distillation's residual U-Net with group normalisation, on the teacher's stages.

    Args:
        architecture: The teacher's block of the plans.
        upsampling: ``linear`` or ``nearest``.
        published: Take the published 16, 32, 64, 128 features and kernels of 3 on the first four stages instead of the
            teacher's features and kernels on all.
        auxiliary_heads: Give the coarser decoder stages outputs, for deep supervision. The published network has none.

    Raises:
        UsageError: If an option has no such value, or the teacher's block lacks what is taken over.
    """
    _check_options(upsampling, published=published, auxiliary_heads=auxiliary_heads)
    features = list(FEATURES) if published else _taken_over(architecture, "features_per_stage")
    strides = _taken_over(architecture, "strides")[: len(features)]
    if len(strides) < len(features):
        raise UsageError(
            f"--student res_unet: expected a teacher of at least {len(features)} stages for published=true, got "
            f"{len(strides)}; leave it out, or give another teacher"
        )
    n_axes = len(strides[0])
    kernels = None if published else architecture["arch_kwargs"].get("kernel_sizes")
    return {
        "network_class_name": f"{ResUNet.__module__}.{ResUNet.__name__}",
        "arch_kwargs": {
            "n_stages": len(features),
            "features_per_stage": features,
            "conv_op": f"torch.nn.modules.conv.Conv{n_axes}d",
            "kernel_sizes": deepcopy(kernels) or [[3] * n_axes for _ in features],
            "strides": strides,
            "n_blocks_per_stage": list(default_blocks(len(features))),
            "n_blocks_per_stage_decoder": 1,
            "upsampling": upsampling,
            "auxiliary_heads": auxiliary_heads,
        },
        "_kw_requires_import": ["conv_op"],
    }


def _check_options(upsampling: object, **switches: object) -> None:
    if upsampling not in UPSAMPLINGS:
        raise UsageError(f"--student res_unet: expected upsampling={' or '.join(UPSAMPLINGS)}, got '{upsampling}'")
    for name, value in switches.items():
        if not isinstance(value, bool):
            raise UsageError(f"--student res_unet: expected {name}=true or false, got '{value}'")


def _taken_over(architecture: Mapping[str, Any], key: str) -> list[Any]:
    given = architecture["arch_kwargs"].get(key)
    if not isinstance(given, list):
        raise UsageError(
            f"--student res_unet: the teacher's network {architecture['network_class_name']} has no list '{key}' in "
            "its plans, so its stages cannot be taken over; give another teacher"
        )
    return deepcopy(given)
