"""What `network_cost` counts, against counts made by hand."""

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import Tensor, nn

from nnunet_kd.errors import UsageError
from nnunet_kd.networks.build import build_network, n_channels
from nnunet_kd.networks.cost import _LiveMemory, _own_tensors, network_cost, read_model_cost
from nnunet_kd.planning.model_folder import open_model_folder


def unet(features: list[int], *, deep_supervision: bool = False) -> PlainConvUNet:
    strides = [1, *[2] * (len(features) - 1)]
    return PlainConvUNet(
        1, len(features), features, nn.Conv3d, 3, strides, 2, 3, 2, conv_bias=True, norm_op=nn.InstanceNorm3d,
        norm_op_kwargs={"affine": True, "eps": 1e-5}, nonlin=nn.LeakyReLU, nonlin_kwargs={"inplace": True},
        deep_supervision=deep_supervision,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("network", "shape", "parameters", "macs", "peak_floats"),
    [
        # 8x8 stays 8x8: every output voxel takes 3*3*2 products per output channel
        (nn.Conv2d(2, 4, 3, padding=1), (1, 2, 8, 8), 3 * 3 * 2 * 4 + 4, 64 * 9 * 2 * 4, 2 * 64 + 4 * 64),
        # stride 2 in two axes of three
        (nn.Conv3d(1, 2, 3, (1, 2, 2), 1), (1, 1, 4, 8, 8), 27 * 2 + 2, 4 * 4 * 4 * 27 * 2, 256 + 2 * 64),
        # groups divide the inputs of each output channel
        (nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False), (2, 4, 5, 5), 36, 2 * 25 * 9 * 4, 2 * 2 * 4 * 25),
        # a transposed convolution multiplies every input voxel with the whole kernel
        (nn.ConvTranspose3d(2, 4, 2, 2, bias=False), (1, 2, 4, 4, 4), 64, 64 * 8 * 2 * 4, 2 * 64 + 4 * 512),
        (nn.Linear(6, 3), (5, 6), 21, 5 * 6 * 3, 5 * 6 + 5 * 3),
    ],
    ids=["2d", "3d strided", "grouped", "transposed", "linear"],
)
def test_single_layers_agree_with_counts_by_hand(
    network: nn.Module, shape: tuple[int, ...], parameters: int, macs: int, peak_floats: int
) -> None:
    cost = network_cost(network, shape)
    assert (cost.parameters, cost.macs, cost.peak_activation_bytes) == (parameters, macs, 4 * peak_floats)
    assert cost.megabytes == pytest.approx(4 * parameters / 1e6)


def test_freed_tensors_leave_the_peak() -> None:
    """Of a chain only the input, one operand and its result live together."""
    chain = nn.Sequential(*[nn.Conv2d(1, 1, 3, padding=1) for _ in range(6)])
    assert network_cost(chain, (1, 1, 10, 10)).peak_activation_bytes == 3 * 100 * 4


def test_views_and_operations_in_place_need_no_memory() -> None:
    chain = nn.Sequential(nn.ReLU(inplace=True), nn.Flatten())
    assert network_cost(chain, (1, 2, 10, 10)).peak_activation_bytes == 200 * 4


def test_shared_tensors_count_once() -> None:
    layer = nn.Conv2d(3, 3, 3, padding=1)
    twice = nn.Sequential(layer, layer)
    once, shared = network_cost(layer, (1, 3, 6, 6)), network_cost(twice, (1, 3, 6, 6))
    assert (shared.parameters, shared.megabytes) == (once.parameters, once.megabytes)
    assert shared.macs == 2 * once.macs


def test_buffers_belong_to_the_weights_but_are_no_parameters() -> None:
    cost = network_cost(nn.BatchNorm2d(8), (1, 8, 4, 4))
    assert cost.parameters == 16
    assert cost.megabytes == pytest.approx(
        (4 * 16 + 4 * 16 + 8) / 1e6
    )  # scale, shift; mean, variance; an int64 counter


def test_half_precision_networks_are_measured_in_float32() -> None:
    network = nn.Conv2d(2, 4, 3)
    assert network_cost(deepcopy(network).half(), (1, 2, 8, 8)) == network_cost(network, (1, 2, 8, 8))


def test_nnunet_counts_each_shared_encoder_weight_once() -> None:
    network = unet([4, 8])
    cost = network_cost(network, (1, 1, 8, 8, 8))
    # two convolutions with norm per stage, then up, two convolutions on the concatenation, head
    convolutions = [(1, 4, 512), (4, 4, 512), (4, 8, 64), (8, 8, 64), (8, 4, 512), (4, 4, 512)]
    macs = sum(27 * i * o * voxels for i, o, voxels in convolutions) + 64 * 8 * 8 * 4 + 512 * 4 * 3
    parameters = sum(27 * i * o + 3 * o for i, o, _ in convolutions) + (8 * 8 * 4 + 4) + (4 * 3 + 3)
    assert (cost.macs, cost.parameters) == (macs, parameters)
    assert len(network.state_dict()) > len(list(network.parameters()))  # nnU-Net's state does repeat them


def test_deep_supervision_heads_are_measured_only_when_switched_on() -> None:
    shape = (1, 1, 16, 16, 16)
    plain, supervised = (network_cost(unet([4, 8, 8], deep_supervision=on), shape) for on in (False, True))
    assert supervised.macs == plain.macs + 8**3 * 8 * 3
    assert supervised.parameters == plain.parameters


def test_the_peak_agrees_with_a_real_pass() -> None:
    """The same tracker around a real pass on the CPU, where tensors truly are allocated."""
    network, image = unet([4, 8, 8]).eval(), torch.zeros(1, 1, 16, 16, 16)
    memory = _LiveMemory(list(_own_tensors(network).values()))
    memory.add(image)
    with torch.no_grad(), memory:
        network(image)
    assert network_cost(network, image.shape).peak_activation_bytes == pytest.approx(memory.peak, rel=0.02)


def test_the_network_is_left_as_it_was() -> None:
    network, seen = unet([4, 8]).train(), []
    hook = network.register_forward_hook(lambda *_: seen.append(1))
    state = {key: (value.clone(), value.data_ptr()) for key, value in network.state_dict().items()}
    network_cost(network, (1, 1, 8, 8, 8))
    assert network.training
    assert seen == []
    assert list(network._forward_hooks) == [hook.id]
    for key, value in network.state_dict().items():
        assert value.data_ptr() == state[key][1]
        assert torch.equal(value, state[key][0])


def test_tensors_kept_as_plain_attributes_are_allowed() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1)) * 2  # no leaf: deepcopy alone would refuse it

        def forward(self, image: Tensor) -> Tensor:
            return image * self.scale

    assert network_cost(Scaled(), (1, 10)).peak_activation_bytes == 80


# --- model folders ---


@pytest.fixture
def model_folder(tmp_path: Path) -> Callable[..., Path]:
    def write(name: str = "nnUNetTrainer__nnUNetPlans__3d_fullres", *, previous_stage: bool = False) -> Path:
        kwargs = {
            "n_stages": 3, "features_per_stage": [4, 8, 8], "conv_op": "torch.nn.modules.conv.Conv3d",
            "kernel_sizes": [[3, 3, 3]] * 3, "strides": [1, 2, 2], "n_conv_per_stage": [2, 2, 2],
            "n_conv_per_stage_decoder": [2, 2], "conv_bias": True, "dropout_op": None, "dropout_op_kwargs": None,
            "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d", "norm_op_kwargs": {"affine": True},
            "nonlin": "torch.nn.LeakyReLU", "nonlin_kwargs": {"inplace": True},
        }  # fmt: skip
        architecture = {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": kwargs,
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        }
        configuration: dict[str, Any] = {
            "data_identifier": "nnUNetPlans_3d_fullres", "batch_size": 2, "patch_size": [8, 8, 8],
            "spacing": [1, 1, 1], "normalization_schemes": ["ZScoreNormalization"], "use_mask_for_norm": [False],
            "architecture": architecture,
        }  # fmt: skip
        if previous_stage:
            configuration["previous_stage"] = "3d_lowres"
        plans = {
            "plans_name": "nnUNetPlans",
            "dataset_name": "Dataset900_Toy",
            "transpose_forward": [0, 1, 2],
            "configurations": {"3d_fullres": configuration, "3d_lowres": dict(configuration)},
        }
        dataset = {"channel_names": {"0": "MRI"}, "labels": {"background": 0, "a": 1, "b": 2}, "file_ending": ".nii.gz"}
        folder = tmp_path / name
        folder.mkdir()
        (folder / "plans.json").write_text(json.dumps(plans))
        (folder / "dataset.json").write_text(json.dumps(dataset))
        return folder

    return write


def test_a_model_folder_costs_what_its_network_costs(model_folder: Callable[..., Path]) -> None:
    assert read_model_cost(model_folder()) == network_cost(unet([4, 8, 8]), (1, 1, 8, 8, 8))


def test_a_cascade_has_one_more_channel_per_structure(model_folder: Callable[..., Path]) -> None:
    folder = open_model_folder(model_folder(previous_stage=True))
    assert n_channels(folder) == (3, 3)
    assert read_model_cost(folder).macs > network_cost(unet([4, 8, 8]), (1, 1, 8, 8, 8)).macs


def test_building_leaves_the_random_state_alone(model_folder: Callable[..., Path]) -> None:
    folder, state = open_model_folder(model_folder()), torch.get_rng_state()
    build_network(folder, deep_supervision=True)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("name", "said"),
    [("renamed", "TRAINER__PLANS__CONFIGURATION"), ("NoTrainer__nnUNetPlans__3d_fullres", "NoTrainer")],
)
def test_folders_with_wrong_names_are_refused(model_folder: Callable[..., Path], name: str, said: str) -> None:
    folder = model_folder(name)
    with pytest.raises(UsageError, match=said):
        read_model_cost(folder)


@pytest.mark.parametrize("name", ["plans.json", "dataset.json"])
def test_missing_and_broken_files_are_named(model_folder: Callable[..., Path], name: str) -> None:
    folder = model_folder()
    (folder / name).write_text("{")
    with pytest.raises(UsageError, match=name):
        read_model_cost(folder)
    (folder / name).unlink()
    with pytest.raises(UsageError, match=name):
        read_model_cost(folder)
