"""Claims about the students' architectures."""

from typing import Any

import pytest
import torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

from nnunet_kd.errors import UsageError
from nnunet_kd.planning.students import NNUNETS, student_architecture

Block = dict[str, Any]


def teacher(kind: str, axes: int) -> Block:
    """Write architecture blocks as nnU-Net's planners write them."""
    strides = [[1] * axes, [1, *[2] * (axes - 1)], [2] * axes, [2] * axes]
    kwargs: Block = {
        "n_stages": 4, "features_per_stage": [32, 64, 128, 256],
        "conv_op": f"torch.nn.modules.conv.Conv{axes}d", "kernel_sizes": [[1, *[3] * (axes - 1)], *[[3] * axes] * 3],
        "strides": strides, "n_conv_per_stage_decoder": [2, 2, 2] if kind == "PlainConvUNet" else [1, 1, 1],
        "conv_bias": True, "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{axes}d",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True}, "dropout_op": None, "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU", "nonlin_kwargs": {"inplace": True},
    }  # fmt: skip
    kwargs["n_conv_per_stage" if kind == "PlainConvUNet" else "n_blocks_per_stage"] = [2, 2, 3, 4]
    return {
        "network_class_name": f"dynamic_network_architectures.architectures.unet.{kind}",
        "arch_kwargs": kwargs,
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def build(block: Block) -> torch.nn.Module:
    network: torch.nn.Module = get_network_from_plans(
        block["network_class_name"], block["arch_kwargs"], block["_kw_requires_import"], 1, 3, deep_supervision=True
    )
    return network


@pytest.mark.parametrize("student", NNUNETS)
@pytest.mark.parametrize("kind", ["PlainConvUNet", "ResidualEncoderUNet"])
@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("depth", [None, 3])
def test_every_student_of_every_teacher_runs_at_the_teachers_scales(
    student: str, kind: str, axes: int, depth: int | None
) -> None:
    block = teacher(kind, axes)
    smaller = student_architecture(block, student=student, factor=8, depth=depth)
    image = torch.randn(1, 1, *[16] * axes)
    theirs = [tuple(x.shape) for x in build(block)(image)]
    ours = [tuple(x.shape) for x in build(smaller)(image)]
    assert ours == theirs[: len(ours)]
    assert len(ours) == (depth or 4) - 1


def test_same_with_factor_one_is_the_teacher() -> None:
    block = teacher("PlainConvUNet", 3)
    assert student_architecture(block, student="same", factor=1, depth=None) == block


def test_shrinking_divides_and_keeps_four_channels() -> None:
    block = teacher("PlainConvUNet", 3)
    kwargs = student_architecture(block, student="same", factor=16, depth=None)["arch_kwargs"]
    assert kwargs["features_per_stage"] == [4, 4, 8, 16]
    assert block["arch_kwargs"]["features_per_stage"] == [32, 64, 128, 256]


def test_cutting_keeps_the_finest_stages_of_the_decoder() -> None:
    block = teacher("PlainConvUNet", 3)
    block["arch_kwargs"]["n_conv_per_stage_decoder"] = [3, 2, 1]  # from the bottleneck up
    kwargs = student_architecture(block, student="same", factor=1, depth=3)["arch_kwargs"]
    assert kwargs["n_conv_per_stage_decoder"] == [2, 1]
    assert len(kwargs["strides"]) == 3


@pytest.mark.parametrize("depth", [2, 5])
def test_depths_that_cannot_be_are_refused(depth: int) -> None:
    with pytest.raises(UsageError, match="expected 3 to 4"):
        student_architecture(teacher("PlainConvUNet", 3), student="same", factor=1, depth=depth)


def test_a_teacher_without_stages_is_refused_by_name() -> None:
    block = {"network_class_name": "some.Transformer", "arch_kwargs": {"embed_dim": 8}, "_kw_requires_import": []}
    for student, factor in (("plain_unet", 1), ("same", 2)):
        with pytest.raises(UsageError, match=r"some\.Transformer"):
            student_architecture(block, student=student, factor=factor, depth=None)
