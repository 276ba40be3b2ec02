"""Claims about the presets of hierarchical feedback: they suit every pair of networks that can be planned."""

import json
from typing import Any

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from torch import nn

from nnunet_kd import networks
from nnunet_kd.distillation.features import resolve_pairs, stage_names
from nnunet_kd.distillation.hierarchy import expand_row
from nnunet_kd.distillation.objective import feature_losses
from nnunet_kd.planning.kd_block import KDSettings, TeacherSource, parse_settings, settings_to_json
from nnunet_kd.planning.presets import PRESETS

OF_HLFD = [name for name, preset in PRESETS.items() if preset.trainer == "HLFDTrainer"]
TEACHER = TeacherSource(model_folder="T")


def network(n_stages: int, n_axes: int, *, residual: bool = False) -> nn.Module:
    """Return a network as nnU-Net plans them."""
    settings: dict[str, Any] = {
        "input_channels": 1,
        "n_stages": n_stages,
        "features_per_stage": [4] * n_stages,
        "conv_op": nn.Conv3d if n_axes == 3 else nn.Conv2d,
        "kernel_sizes": 3,
        "strides": [1] + [2] * (n_stages - 1),
        "num_classes": 2,
        "n_conv_per_stage_decoder": 1,
        "deep_supervision": True,
    }
    if residual:
        return ResidualEncoderUNet(**settings, n_blocks_per_stage=1)
    return PlainConvUNet(**settings, n_conv_per_stage=1)


def test_every_branch_of_the_method_is_a_preset() -> None:
    branches = {"attention", "no_feedback", "deep", "individual", "concatenated"}
    assert set(OF_HLFD) == {"hlfd", "emkd", *(f"hlfd_{branch}" for branch in branches)}


@pytest.mark.parametrize("name", OF_HLFD)
def test_presets_are_plain_json_that_reads_back_unchanged(name: str) -> None:
    settings = KDSettings(teachers=(TEACHER,), losses=PRESETS[name].losses)
    block = json.loads(json.dumps(settings_to_json(settings)))
    assert parse_settings(block, "here") == settings
    assert all(len(str(term["weight"])) <= 4 for term in block["losses"])  # for people to read


@pytest.mark.parametrize("name", OF_HLFD)
@pytest.mark.parametrize(("n_student", "n_teacher", "n_axes"), [(3, 3, 2), (3, 6, 2), (5, 4, 3)])
def test_presets_suit_networks_of_any_depth_from_three_stages_on(
    name: str, n_student: int, n_teacher: int, n_axes: int
) -> None:
    student, teacher = network(n_student, n_axes), network(n_teacher, n_axes, residual=True)
    for term, loss in feature_losses(KDSettings(losses=PRESETS[name].losses)).items():
        pairs = resolve_pairs(loss.pairs, student, teacher, (1, 1, *[32] * n_axes))
        assert pairs, term
        assert all(len(t.size) == n_axes for _, t in pairs)


def hierarchy(method: str, student: nn.Module, teacher: nn.Module) -> list[str]:
    """Return what a method compares, stages numbered as the paper does: e1 is the finest, d2 too."""

    def short(modules: tuple[str, ...], net: nn.Module) -> str:
        kinds = list(stage_names(net).values())
        encoder = [f"e{i + 1}" for i in range(kinds.count("encoder"))]
        decoder = [f"d{i + 2}" for i in reversed(range(kinds.count("decoder")))]
        paper = {"output": "o"}
        for name, kind in stage_names(net).items():
            paper[name] = (encoder if kind == "encoder" else decoder).pop(0)
        return "+".join(paper[name] for name in modules)

    return [
        f"{short(ours, student)} < {short(theirs, teacher)}"
        for loss in feature_losses(KDSettings(losses=PRESETS[method].losses)).values()
        for row in loss.pairs
        for ours, theirs in expand_row(row, stage_names(student), stage_names(teacher))
    ]


def test_the_hierarchy_on_networks_of_unequal_depth() -> None:
    pairs = hierarchy("hlfd", network(4, 2), network(6, 2))
    assert pairs == ["e1 < e2+e3+e4+e5", "e2 < e6", "e3 < e6", "d4 < d6+d5+d4+d3", "d3 < o", "d2 < o"]


@pytest.mark.parametrize("student", ["ResNet18", "MobileNetV2", "ENet", "ERFNet", "RAUNet", "UNetPlusPlus"])
def test_every_branch_suits_the_published_networks(student: str) -> None:
    with torch.device("meta"):
        ours, teacher = (getattr(networks, name)(input_channels=1, num_classes=2) for name in (student, "UNetPlusPlus"))
    pairs = {method: hierarchy(method, ours, teacher) for method in OF_HLFD}
    assert all(pairs.values())
    if list(stage_names(ours).values()).count("encoder") == 5:
        (loss, *_) = feature_losses(KDSettings(losses=PRESETS["hlfd"].losses)).values()
        assert resolve_pairs(loss.pairs, ours, teacher, (1, 1, 64, 64))[0][1].channels == 256 + 128 + 512
        assert pairs["hlfd"] == [
            *("e1 < e2+e3+e4", "e2 < e5", "e3 < e5", "e4 < e5"),
            *("d5 < d5+d4+d3", "d4 < o", "d3 < o", "d2 < o"),
        ]
        assert pairs["hlfd_individual"] == ["e5 < e5", "e2 < e5", "e4 < e5", "d4 < o", "d2 < o"]
        assert pairs["hlfd_concatenated"] == ["e5 < e5", "e1+e2+e3+e4 < e5", "d5+d4+d3+d2 < o"]
        assert pairs["emkd"] == ["e1 < e1", "e3 < e3"] * 2
