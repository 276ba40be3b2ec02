"""Networks as files: every architecture computes the same, folds are averaged as logits, norms stay exact."""

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from torch import nn

from nnunet_kd.deployment.conversion import MeanOfFolds, save_onnx, save_openvino, to_openvino, with_standard_norms
from nnunet_kd.deployment.runtimes import network_from_file
from nnunet_kd.errors import UsageError
from nnunet_kd.planning.students import NNUNETS, STUDENTS, block_function

RUNTIMES = ("openvino", "onnx")
SHAPES = {2: (1, 3, 32, 48), 3: (1, 3, 4, 16, 24)}
VOLUMES = ("same", "plain_unet", "resenc_unet", "res_unet", "dsm_unet")


def teacher_block(n_axes: int) -> dict[str, Any]:
    """nnU-Net's block of a small plain U-Net; the first axis is thick."""
    kernels, strides = [[1] + [3] * (n_axes - 1)] + [[3] * n_axes] * 2, [[1] * n_axes] + [[1] + [2] * (n_axes - 1)] * 2
    if n_axes == 2:
        kernels, strides = [[3, 3]] * 3, [[1, 1], [2, 2], [2, 2]]
    return {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": 3,
            "features_per_stage": [8, 16, 16],
            "conv_op": f"torch.nn.modules.conv.Conv{n_axes}d",
            "kernel_sizes": kernels,
            "strides": strides,
            "n_conv_per_stage": [1, 1, 1],
            "n_conv_per_stage_decoder": [1, 1],
            "conv_bias": True,
            "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{n_axes}d",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def build(student: str, n_axes: int, seed: int = 0) -> nn.Module:
    block = block_function(student)(teacher_block(n_axes))
    torch.manual_seed(seed)
    names = (block["network_class_name"], block["arch_kwargs"], block["_kw_requires_import"])
    return get_network_from_plans(*names, 3, 4, deep_supervision=False).eval()


def save(network: nn.Module, shape: tuple[int, ...], runtime: str, folder: Path) -> Path:
    for name in ("openvino",) if runtime == "openvino" else ("onnx", "onnxruntime"):
        pytest.importorskip(name)
    if runtime == "onnx":
        return save_onnx(network, shape, folder)
    return save_openvino(to_openvino(network, shape), folder)


def error(network: nn.Module, shape: tuple[int, ...], runtime: str, folder: Path) -> float:
    """Largest difference from PyTorch, relative to the largest logit, on an input that is not centred."""
    patch = 2 * torch.randn(shape) + 1
    with torch.no_grad():
        expected = network(patch).numpy()
    found = network_from_file(save(network, shape, runtime, folder), runtime, "f32", threads=1)(patch.numpy())
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize(
    ("student", "n_axes"),
    [
        pytest.param(student, n_axes, marks=[] if student in NNUNETS else pytest.mark.slow)
        for student in STUDENTS
        for n_axes in (2, 3)
        if (student in VOLUMES if n_axes == 3 else student != "dsm_unet")  # which has three axes
    ],
)
def test_every_architecture_computes_the_same(student: str, n_axes: int, runtime: str, tmp_path: Path) -> None:
    assert error(build(student, n_axes), SHAPES[n_axes], runtime, tmp_path) < 2e-5


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_folds_are_averaged_as_logits(runtime: str, tmp_path: Path) -> None:
    folds = [build("same", 2, seed) for seed in range(3)]
    patch = torch.randn(SHAPES[2])
    with torch.no_grad():
        expected = sum(network(patch) for network in folds) / 3
    file = save(MeanOfFolds(folds).eval(), SHAPES[2], runtime, tmp_path)
    found = network_from_file(file, runtime, "f32", threads=1)(patch.numpy())
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)


@pytest.mark.parametrize(
    "norm",
    [
        nn.InstanceNorm3d(4, affine=True),
        nn.InstanceNorm3d(4),
        nn.GroupNorm(2, 4),
        nn.GroupNorm(2, 4, affine=False),
        nn.InstanceNorm3d(4, affine=True, track_running_stats=True),
    ],
    ids=["instance", "without_weights", "group", "group_without_weights", "running_statistics"],
)
def test_standard_norms_are_the_same_function(norm: nn.Module) -> None:
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    network = nn.Sequential(norm).eval()
    copy = with_standard_norms(network)
    features = 0.01 * torch.randn(2, 4, 5, 6, 7) + 0.02  # where the norm's epsilon counts
    torch.testing.assert_close(copy(features), network(features))
    assert network[0] is norm


def test_onnx_runtime_normalises_large_maps_exactly(tmp_path: Path) -> None:
    """With ``InstanceNormalization`` the error is larger than 10^-5."""
    network = nn.Sequential(nn.InstanceNorm3d(4, affine=True)).eval()
    assert error(network, (1, 4, 64, 64, 64), "onnx", tmp_path) < 1e-6


def test_no_norm_of_nnunets_is_left_and_the_network_is_not_changed(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    network = build("resenc_unet", 3)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    file = save(network, SHAPES[3], "onnx", tmp_path)
    graph = onnx.load(file).graph
    assert "InstanceNormalization" not in {node.op_type for node in graph.node}
    assert {node.domain for node in graph.node} <= {"", "ai.onnx"}
    assert any(isinstance(module, nn.InstanceNorm3d) for module in network.modules())
    torch.testing.assert_close(dict(network.state_dict()), before, rtol=0, atol=0)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_no_path_of_this_machine_is_in_the_files(runtime: str, tmp_path: Path) -> None:
    save(build("same", 2), SHAPES[2], runtime, tmp_path)
    here = {str(Path(__file__).parent.parent.parent.parent), str(Path.home()), str(tmp_path)}
    content = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert not [path for path in here if path.encode() in content]
    assert not re.search(rb"site-packages|\.py\b", content)


def test_half_weights_halve_the_file(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    model = to_openvino(build("same", 2), SHAPES[2])
    sizes = {}
    for half in (False, True):
        (tmp_path / str(half)).mkdir()
        sizes[half] = save_openvino(model, tmp_path / str(half), half_weights=half).with_suffix(".bin").stat().st_size
    assert 0.45 < sizes[True] / sizes[False] < 0.6


@pytest.mark.parametrize("before", [None, "yes"])
def test_the_converter_reports_nothing_and_the_environment_is_as_before(
    before: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    ov = pytest.importorskip("openvino")
    monkeypatch.delenv("CI", raising=False)
    if before is not None:
        monkeypatch.setenv("CI", before)
    seen: list[str | None] = []
    convert = ov.convert_model
    monkeypatch.setattr(ov, "convert_model", lambda *a, **k: (seen.append(os.environ.get("CI")), convert(*a, **k))[1])
    to_openvino(nn.Conv2d(1, 1, 1), (1, 1, 2, 2))
    assert (seen, os.environ.get("CI")) == (["true"], before)


class Untraceable(nn.Module):
    """A network whose own code fails."""

    def forward(self, patch: torch.Tensor) -> torch.Tensor:
        raise RuntimeError(f"cannot take\n{tuple(patch.shape)}")


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_network_that_cannot_be_converted_is_one_line(runtime: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot be converted to .*; try the other --format") as caught:
        save(Untraceable(), (1, 1, 4, 4), runtime, tmp_path)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_written_is_an_os_error(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    (tmp_path / "model.bin").mkdir()
    with pytest.raises(OSError, match=r"model\.xml"):
        save_openvino(to_openvino(nn.Conv2d(1, 1, 1), (1, 1, 2, 2)), tmp_path)
