"""DSMUNet: a 2-D U-Net over the slices of a volume with a depth shift in every block, on any 3-D plan of nnU-Net.

Maheshwari et al., Distill DSM: Computationally efficient method for segmentation of medical imaging volumes, MIDL 2021,
https://proceedings.mlr.press/v143/maheshwari21a.html.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import gcd
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

from nnunet_kd.errors import UsageError
from nnunet_kd.networks.depth_shift import (
    DepthShift,
    DistillDSM,
    ResidualShift,
    selected_channels,
    to_slices,
    to_volumes,
)
from nnunet_kd.planning.json_blocks import check_choice, check_number

FEATURES = (16, 32, 64, 128, 128)
MINIMUM_STAGES = 2
SHIFTS = ("distill", "residual", "none")

Shift = Literal["distill", "residual", "none"]
InPlane = tuple[int, int]
ShiftMaker = Callable[[int, int], DepthShift | None]


def depth_shift(shift: Shift, channels: int, alpha: float) -> DepthShift | None:
    """Return what stands between the two convolutions of a block; ``None`` for a 2-D network.

    Args:
        shift: ``distill``, ``residual`` or ``none``.
        channels: Channels between the convolutions.
        alpha: Share of them that the shift reads, in [0, 1].

    Raises:
        ValueError: If there is no such shift, or alpha does not fit the channels.
    """
    if shift not in SHIFTS:
        raise ValueError(f"shift: expected one of {', '.join(SHIFTS)}, got {shift!r}")
    if shift == "none":
        return None
    return DistillDSM(channels, alpha) if shift == "distill" else ResidualShift(channels, alpha)


def _shift_of_stage(shift: Shift, alpha: float, stage: int, channels: int) -> DepthShift | None:
    try:
        return depth_shift(shift, channels, alpha)
    except ValueError as error:
        raise ValueError(f"stage {stage}: {error}") from error


def _unit(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class Block(nn.Module):
    """Convolution, batch normalisation, ReLU; the shift; the same three once more.

    Args:
        inputs: Channels in.
        between: Channels at the shift.
        outputs: Channels out.
        shift: ``None`` leaves the slices alone.
    """

    def __init__(self, inputs: int, between: int, outputs: int, shift: DepthShift | None = None) -> None:
        super().__init__()
        self.first = _unit(inputs, between)
        self.shift = shift
        self.second = _unit(between, outputs)

    def forward(self, slices: Tensor, n_slices: int) -> Tensor:
        """Return volumes ``(B, C', T, h, w)``, a view of the slices, for slices ``(B*T, C, h, w)``."""
        slices = self.first(slices)
        if self.shift is not None:
            slices = self.shift(slices, n_slices)
        return to_volumes(self.second(slices), n_slices)


class EncoderStage(nn.Module):
    """Max-pooling within the slices, then a block.

    Args:
        block: The block.
        stride: Of the pooling, (h, w); 1, 1 for none.
    """

    def __init__(self, block: Block, stride: InPlane) -> None:
        super().__init__()
        self.pool = nn.Identity() if stride == (1, 1) else nn.MaxPool2d(stride)
        self.block = block

    def forward(self, volumes: Tensor) -> Tensor:
        """Return volumes ``(B, C', T, h', w')`` for volumes ``(B, C, T, h, w)``."""
        output: Tensor = self.block(self.pool(to_slices(volumes)), volumes.shape[2])
        return output


class DecoderStage(nn.Module):
    """Bilinear up-sampling within the slices, padded to the size of the skip connection, then a block on both.

    Args:
        block: The block; its input is the skip connection's channels, then the coarser ones.
        stride: Of the up-sampling, (h, w).
    """

    def __init__(self, block: Block, stride: InPlane) -> None:
        super().__init__()
        self.stride = stride
        self.block = block

    def forward(self, coarse: Tensor, skip: Tensor) -> Tensor:
        """Return volumes ``(B, C', T, h, w)`` for coarser ones and those of the encoder."""
        up, beside = to_slices(coarse), to_slices(skip)
        if self.stride != (1, 1):
            size = [length * factor for length, factor in zip(up.shape[2:], self.stride, strict=True)]
            up = interpolate(up, size=size, mode="bilinear", align_corners=True)
        output: Tensor = self.block(torch.cat([beside, _padded(up, beside.shape[2:])], dim=1), skip.shape[2])
        return output


def _padded(slices: Tensor, size: Sequence[int]) -> Tensor:
    """Pad with zeros on all sides to (h, w), where pooling dropped a row or column of an odd size."""
    (h, w), (height, width) = slices.shape[2:], size
    if h == height and w == width:
        return slices
    left, top = (width - w) // 2, (height - h) // 2
    return pad(slices, [left, width - w - left, top, height - h - top])


class Encoder(nn.Module):
    """A first block without shift, then the stages that pool."""

    def __init__(self, stages: Sequence[EncoderStage]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the maps of all stages, finest first."""
        maps = []
        for stage in self.stages:
            image = stage(image)
            maps.append(image)
        return maps


class Decoder(nn.Module):
    """Stages from the coarsest to the finest, and 1x1 convolutions to the classes.

    Attributes:
        deep_supervision: Whether forward returns all outputs; without meaning if there is one.
    """

    def __init__(self, stages: Sequence[DecoderStage], seg_layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        # nnU-Net's name, which -pretrained_weights leaves out; one for each of the last stages, the finest last
        self.seg_layers = nn.ModuleList(seg_layers)
        self.deep_supervision = False

    def forward(self, maps: Sequence[Tensor]) -> Tensor | list[Tensor]:
        """Return the logits for the maps of the encoder, finest first."""
        features, found = maps[-1], []
        for stage, skip in zip(self.stages, reversed(maps[:-1]), strict=True):
            features = stage(features, skip)
            found.append(features)
        if not self.deep_supervision or len(self.seg_layers) == 1:
            return _logits(self.seg_layers[-1], features)
        return [_logits(head, each) for head, each in zip(self.seg_layers, found, strict=True)][::-1]


def _logits(head: nn.Module, features: Tensor) -> Tensor:
    # few channels: losses may take views of them
    return to_volumes(head(to_slices(features)), features.shape[2]).contiguous()


def _in_plane_strides(n_features: int, n_stages: int | None, strides: Sequence[Sequence[int]] | None) -> list[InPlane]:
    """Return the strides within the slices, after checking that they are for these stages and leave T alone."""
    if n_stages not in (None, n_features) or n_features < MINIMUM_STAGES:
        raise ValueError(f"features_per_stage: expected {n_stages or MINIMUM_STAGES} stages or more, got {n_features}")
    given = [(1, 1, 1), *[(1, 2, 2)] * (n_features - 1)] if strides is None else [tuple(each) for each in strides]
    if len(given) != n_features:
        raise ValueError(f"strides: expected {n_features} stages, got {len(given)}")
    for stage, stride in enumerate(given):
        if len(stride) != 3 or stride[0] != 1 or (stage == 0 and stride != (1, 1, 1)):
            expected = "[1, 1, 1]" if stage == 0 else "[1, s_h, s_w], slices are not pooled together"
            raise ValueError(f"strides: expected {expected} in stage {stage}, got {list(stride)}")
    return [(stride[1], stride[2]) for stride in given]


def _encoder(inputs: int, widths: Sequence[int], in_plane: Sequence[InPlane], make: ShiftMaker) -> Encoder:
    stages = []
    for stage, (width, stride) in enumerate(zip(widths, in_plane, strict=True)):
        shift = make(stage, width) if stage else None
        stages.append(EncoderStage(Block(inputs, width, width, shift), stride))
        inputs = width
    return Encoder(stages)


def _decoder(
    outputs: int, widths: Sequence[int], in_plane: Sequence[InPlane], make: ShiftMaker, *, auxiliary_heads: bool
) -> Decoder:
    stages, heads, coarse = [], [], widths[-1]
    for stage in reversed(range(len(widths) - 1)):
        width, finer = widths[stage], widths[max(stage - 1, 0)]
        stages.append(DecoderStage(Block(width + coarse, width, finer, make(stage, width)), in_plane[stage + 1]))
        if auxiliary_heads or stage == 0:
            heads.append(nn.Conv2d(finer, outputs, 1))
        coarse = finer
    return Decoder(stages, heads)


class DSMUNet(nn.Module):
    """The U-Net of [1]: 2-D convolutions on all slices, with a depth shift in every block but the first.

    Blocks of twice convolution, batch normalisation and ReLU; max-pooling down; bilinear up, aligned at the corners.
    The defaults are the published network: 1,216,715 parameters for 4 channels and 3 outputs, 1,082,211 with
    ``shift="residual"`` or ``"none"``. A decoder stage goes from its skip connection's width to the next finer one's
    in its second convolution, as published. The outputs are logits.

    All stages return volumes ``(B, C, T, h, w)``, so that they compare with those of 3-D networks; inside, a batch of
    slices is what lies in memory, and nothing is copied between the two. T may be any number, another at every call;
    h and w any that the pooling leaves something of (16 and more, as published).

    Args:
        input_channels: Channels of the images.
        num_classes: Outputs; in [1] the foreground's regions, with nnU-Net its classes or regions.
        n_stages: Resolutions; given, it must be the number of features.
        features_per_stage: Channels of each resolution.
        strides: Per stage ``(1, s_h, s_w)``: slices are never pooled together. ``None`` is 2 within the slices for
            every stage but the first.
        alpha: Share of the channels that the shift reads, in [0, 1]; without meaning for ``none``.
        shift: ``distill`` (learned), ``residual`` (without parameters) or ``none`` (a 2-D network).
        auxiliary_heads: Whether every decoder stage has an output.
        deep_supervision: Whether forward returns them all, finest first; without auxiliary heads there is one tensor.

    Raises:
        ValueError: If the settings do not fit one another; names the stage.

    References:
        [1] Maheshwari et al., Distill DSM, MIDL 2021, https://proceedings.mlr.press/v143/maheshwari21a.html

    Example:
        >>> sum(p.numel() for p in DSMUNet(4, 3).parameters())
        1216715
        >>> DSMUNet(1, 2)(torch.zeros(1, 1, 3, 32, 32)).shape
        torch.Size([1, 2, 3, 32, 32])
    """

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        *,
        n_stages: int | None = None,
        features_per_stage: Sequence[int] = FEATURES,
        strides: Sequence[Sequence[int]] | None = None,
        alpha: float = 0.5,
        shift: Shift = "distill",
        auxiliary_heads: bool = False,
        deep_supervision: bool = False,
    ) -> None:
        super().__init__()
        widths = [int(width) for width in features_per_stage]
        in_plane = _in_plane_strides(len(widths), n_stages, strides)
        make = partial(_shift_of_stage, shift, alpha)
        self.input_channels = input_channels
        self.encoder = _encoder(input_channels, widths, in_plane, make)
        self.decoder = _decoder(num_classes, widths, in_plane, make, auxiliary_heads=auxiliary_heads)
        self.deep_supervision = deep_supervision

    @property
    def deep_supervision(self) -> bool:
        """Whether forward returns all outputs; nnU-Net switches it at the decoder."""
        return self.decoder.deep_supervision

    @deep_supervision.setter
    def deep_supervision(self, enabled: bool) -> None:
        """Switch it."""
        self.decoder.deep_supervision = enabled

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        """Return logits ``(B, num_classes, T, H, W)``, or with deep supervision a list, finest first.

        Args:
            image: ``(B, C, T, H, W)``; T is axis 0 of nnU-Net's transposed array.

        Raises:
            ValueError: If it has not five axes.
        """
        if image.ndim != 5:
            raise ValueError(
                f"expected a batch of volumes (B, {self.input_channels}, T, H, W), got {tuple(image.shape)}"
            )
        output: Tensor | list[Tensor] = self.decoder(self.encoder(image))
        return output


def student_block(
    architecture: Mapping[str, Any],
    *,
    alpha: float = 0.5,
    shift: str = "distill",
    published: bool = False,
    auxiliary_heads: bool = False,
) -> dict[str, Any]:
    """Return Distill DSM's 2-D U-Net that shifts features between slices, on the teacher's 3-D stages.

    Features and strides are the teacher's, but for the strides along the slices, which become 1. ``conv_op`` is
    left out: the convolutions are 2-D inside a 3-D configuration.

    Args:
        architecture: The teacher's block of its plans.
        alpha: Share of the channels that the shift reads, in [0, 1].
        shift: ``distill``, ``residual`` or ``none``.
        published: Take the published widths, 16-32-64-128-128, and strides instead of the teacher's.
        auxiliary_heads: Give every decoder stage an output, for deep supervision.

    Raises:
        UsageError: For other values, a 2-D teacher, or features that alpha does not fit.
    """
    check_choice(shift, SHIFTS, "--student dsm_unet: shift")
    check_number(alpha, "--student dsm_unet: alpha", at_least=0, at_most=1)
    for name, value in (("published", published), ("auxiliary_heads", auxiliary_heads)):
        check_choice(value, (True, False), f"--student dsm_unet: {name}")
    if str(architecture["arch_kwargs"].get("conv_op")).endswith("2d"):
        raise UsageError(
            "--student dsm_unet: expected a 3-D configuration, since features move between slices, got a 2-D one; "
            "type -c 3d_fullres, or take --student plain_unet"
        )
    features, strides = _published_stages() if published else _stages_of(architecture)
    if shift != "none":
        _check_alpha(features, alpha, 4 if shift == "distill" else 2)
    kwargs = {"n_stages": len(features), "features_per_stage": features, "strides": strides, "shift": shift}
    kwargs |= {"auxiliary_heads": bool(auxiliary_heads)} | ({} if shift == "none" else {"alpha": alpha})
    return {
        "network_class_name": f"{DSMUNet.__module__}.{DSMUNet.__qualname__}",
        "arch_kwargs": kwargs,
        "_kw_requires_import": [],
    }


def _published_stages() -> tuple[list[int], list[list[int]]]:
    return list(FEATURES), [[1, 1, 1], *([1, 2, 2] for _ in FEATURES[1:])]


def _stages_of(architecture: Mapping[str, Any]) -> tuple[list[int], list[list[int]]]:
    kwargs = architecture["arch_kwargs"]
    for key in ("features_per_stage", "strides"):
        if not isinstance(kwargs.get(key), list | tuple):
            raise UsageError(
                f"--student dsm_unet: the teacher's network {architecture['network_class_name']} has no list '{key}' "
                "in its plans, so its stages cannot be taken over; type --student dsm_unet:published=true"
            )
    per_axis = [[each] * 3 if isinstance(each, int) else list(each) for each in kwargs["strides"]]
    return list(kwargs["features_per_stage"]), [[1, *stride[1:]] for stride in per_axis]


def _check_alpha(features: Sequence[int], alpha: float, multiple: int) -> None:
    """Refuse an alpha that does not fit the widths, naming the nearest that fits all of them."""
    for stage, width in enumerate(features):
        try:
            selected_channels(width, alpha, multiple)
        except ValueError:
            step = multiple / gcd(*features)  # alpha * C is such a multiple for all C at multiples of this
            fitting = [n * step for n in (int(alpha / step), int(alpha / step) + 1) if n * step <= 1]
            raise UsageError(
                f"--student dsm_unet: alpha {alpha:g} of the {width} channels of stage {stage} is {alpha * width:g}, "
                f"expected a multiple of {multiple}; type --alpha {' or '.join(f'{value:g}' for value in fitting)}"
            ) from None
