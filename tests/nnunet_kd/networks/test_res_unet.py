"""Claims about the student of the BraTS distillation: published size and function, and its fit to nnU-Net's plans."""

import json
import pickle
from collections.abc import Iterable
from copy import deepcopy
from io import BytesIO
from typing import Any

import pytest
import torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from torch import Tensor, nn
from torch.nn.functional import conv3d, group_norm, interpolate, leaky_relu

from nnunet_kd.distillation.features import resolve_pairs
from nnunet_kd.errors import UsageError
from nnunet_kd.networks.cost import network_cost
from nnunet_kd.networks.res_unet import GroupNorm, ResUNet, student_block
from nnunet_kd.planning.students import student_architecture

Block = dict[str, Any]
UPSAMPLINGS = pytest.mark.parametrize("upsampling", ["linear", "nearest"])
# strides and kernel sizes of nnU-Net's plans: 2d, isotropic, and two kinds of thick slices
GEOMETRIES = {
    "2d": ([[1, 1], [2, 2], [2, 2], [2, 2]], [[3, 3]] * 4),
    "3d": ([[1, 1, 1], [2, 2, 2], [2, 2, 2], [2, 2, 2]], [[3, 3, 3]] * 4),
    "thick slices": ([[1, 1, 1], [1, 2, 2], [2, 2, 2], [1, 2, 2]], [[1, 3, 3], [1, 3, 3], [3, 3, 3], [3, 3, 3]]),
    "five stages": ([[1, 1, 1], [1, 2, 2], [2, 2, 2], [2, 1, 2], [1, 2, 1]], [[1, 3, 3], *[[3, 3, 3]] * 4]),
}
EVERY_GEOMETRY = pytest.mark.parametrize("geometry", GEOMETRIES)


def teacher(geometry: str, **changes: Any) -> Block:
    """Write nnU-Net's block for a plain U-Net."""
    strides, kernels = GEOMETRIES[geometry]
    axes, n = len(strides[0]), len(strides)
    kwargs: Block = {
        "n_stages": n, "features_per_stage": [8, 16, 24, 32, 32][:n], "conv_op": f"torch.nn.modules.conv.Conv{axes}d",
        "kernel_sizes": kernels, "strides": strides, "n_conv_per_stage": [2] * n,
        "n_conv_per_stage_decoder": [2] * (n - 1), "conv_bias": True,
        "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{axes}d",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True}, "dropout_op": None, "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU", "nonlin_kwargs": {"inplace": True},
    }  # fmt: skip
    return {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {**kwargs, **changes},
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def build(block: Block, *, deep_supervision: bool = False) -> nn.Module:
    """Build as nnU-Net does, from what a plans file keeps."""
    read = json.loads(json.dumps(block))
    network: nn.Module = get_network_from_plans(
        *(read["network_class_name"], read["arch_kwargs"], read["_kw_requires_import"], 2, 3),
        deep_supervision=deep_supervision,
    )
    return network


def image(geometry: str = "3d") -> Tensor:
    return torch.randn(2, 2, *[16] * len(GEOMETRIES[geometry][0][0]))


def small(**settings: Any) -> ResUNet:
    return ResUNet(2, 3, n_stages=3, features_per_stage=(8, 16, 24), **settings)


def written_out(data: Tensor, parameters: Iterable[Tensor]) -> Tensor:
    """Compute the published network from its weights in the order of computation."""
    weights = iter(parameters)

    def normed(x: Tensor) -> Tensor:
        return group_norm(conv3d(x, next(weights), padding=1), 8, next(weights), next(weights))

    def block(x: Tensor) -> Tensor:
        return x + leaky_relu(normed(leaky_relu(normed(x), 0.01)), 0.01)

    data = block(normed(data))
    skips = []
    for n_blocks in (2, 2, 4):
        skips.append(data)
        data = conv3d(data, next(weights), stride=2)
        for _ in range(n_blocks):
            data = block(data)
    for skip in reversed(skips):
        data = interpolate(data, scale_factor=2, mode="trilinear", align_corners=False)
        data = leaky_relu(conv3d(data, next(weights)), 0.01)
        data = block(conv3d(torch.cat([skip, data], dim=1), next(weights)))
    return conv3d(data, next(weights), next(weights), padding=1)


@UPSAMPLINGS
def test_the_published_network_has_the_published_size(upsampling: str) -> None:
    cost = network_cost(ResUNet(input_channels=4, num_classes=3, upsampling=upsampling), (1, 4, 128, 128, 128))
    assert cost.parameters == 4_509_939
    assert round(cost.macs / 1e9, 3) == 149.686


def test_the_published_network_computes_what_is_published() -> None:
    network, data = ResUNet(), torch.randn(1, 4, 16, 8, 16)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.ndim == 1 and "head" not in name:  # else all scales are 1, all shifts 0
                parameter.add_(0.1 * torch.randn_like(parameter))
        torch.testing.assert_close(network(data), written_out(data, network.parameters()), atol=1e-4, rtol=1e-4)


def test_the_published_network_from_a_plan_of_six_stages() -> None:
    strides = [[1, 1, 1], *[[2, 2, 2]] * 5]
    kernels = [[1, 3, 3], *[[3, 3, 3]] * 5]
    changes = {"n_stages": 6, "features_per_stage": [32] * 6, "strides": strides, "kernel_sizes": kernels}
    block = student_block(teacher("3d", **changes), published=True)
    expected = {name: value.shape for name, value in ResUNet(2, 3).state_dict().items()}
    assert {name: value.shape for name, value in build(block).state_dict().items()} == expected


@EVERY_GEOMETRY
def test_outputs_lie_where_nnunets_own_network_has_them(geometry: str) -> None:
    block = teacher(geometry)
    theirs = build(block, deep_supervision=True)(image(geometry))
    ours = build(student_block(block, auxiliary_heads=True), deep_supervision=True)(image(geometry))
    assert [x.shape for x in ours] == [x.shape for x in theirs]


@EVERY_GEOMETRY
def test_without_auxiliary_heads_there_is_one_output_in_any_case(geometry: str) -> None:
    network = build(student_block(teacher(geometry)), deep_supervision=True)
    data = image(geometry)
    assert network(data).shape == (2, 3, *data.shape[2:])


@EVERY_GEOMETRY
@pytest.mark.parametrize("auxiliary_heads", [False, True], ids=["one head", "all heads"])
def test_prediction_loads_the_weights_of_training(geometry: str, auxiliary_heads: bool) -> None:
    block, data = student_block(teacher(geometry), auxiliary_heads=auxiliary_heads), image(geometry)
    training, prediction = build(block, deep_supervision=True), build(block)
    prediction.load_state_dict(training.state_dict(), strict=True)
    expected = training(data)
    torch.testing.assert_close(prediction(data), expected[0] if auxiliary_heads else expected, atol=0, rtol=0)


def test_convolutions_have_the_kernels_of_their_stage_and_strided_ones_those_of_their_stride() -> None:
    strides, kernels = GEOMETRIES["five stages"]
    network = build(student_block(teacher("five stages")))
    for stage, encoded in enumerate(network.encoder.stages):
        entrance = kernels[0] if stage == 0 else strides[stage]
        found = [list(module.kernel_size) for module in encoded.modules() if isinstance(module, nn.Conv3d)]
        assert found == [entrance, *[kernels[stage]] * 2 * [1, 2, 2, 4, 4][stage]]
    for stage, decoded in enumerate(reversed(network.decoder.stages)):
        found = [list(module.kernel_size) for module in decoded.modules() if isinstance(module, nn.Conv3d)]
        assert found == [[1, 1, 1], [1, 1, 1], *[kernels[stage]] * 2]
    assert list(network.decoder.head.kernel_size) == kernels[0]


def test_deep_supervision_is_switched_on_the_network_or_on_its_decoder() -> None:
    """Ours switch the first, nnU-Net's own trainers the second."""
    network, data = small(auxiliary_heads=True), torch.randn(1, 2, 8, 8, 8)
    for module in (network, network.decoder):
        module.deep_supervision = True
        assert [tuple(x.shape[2:]) for x in network(data)] == [(8, 8, 8), (4, 4, 4)]
        module.deep_supervision = False
        assert network(data).shape == (1, 3, 8, 8, 8)


@UPSAMPLINGS
@EVERY_GEOMETRY
def test_no_parameter_is_dead(geometry: str, upsampling: str) -> None:
    network = build(
        student_block(teacher(geometry), upsampling=upsampling, auxiliary_heads=True), deep_supervision=True
    )
    torch.stack([output.square().sum() for output in network(image(geometry))]).sum().backward()
    assert not [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]


def test_weights_fit_both_upsamplings_but_results_differ() -> None:
    linear, nearest = small(), small(upsampling="nearest")
    nearest.load_state_dict(linear.state_dict(), strict=True)
    data = torch.randn(1, 2, 8, 8, 8)
    assert (linear(data) - nearest(data)).abs().max() > 0.01


def test_the_initialisation_is_the_published_one() -> None:
    network = ResUNet(4, 2000)
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv3d)]
    for module in convolutions:
        fan_in = module.weight[0].numel()
        tolerance = 6 / module.weight.numel() ** 0.5  # about 8 standard errors of a standard deviation
        assert float(module.weight.detach().std()) == pytest.approx((2 / (1.0001 * fan_in)) ** 0.5, rel=tolerance)
    biases = [module.bias for module in convolutions if module.bias is not None]
    assert len(biases) == 1
    assert float(biases[0].detach().std()) == pytest.approx(1, abs=0.15)


def test_features_that_eight_does_not_divide_have_fewer_groups() -> None:
    network = ResUNet(1, 2, features_per_stage=(4, 12, 20, 7))
    groups = {m.num_channels: m.num_groups for m in network.modules() if isinstance(m, nn.GroupNorm)}
    assert groups == {4: 4, 12: 4, 20: 4, 7: 1}


def compiled(network: nn.Module) -> Any:
    return torch.compile(network, backend="eager", fullgraph=True)


def pickled(network: nn.Module) -> Any:
    return pickle.loads(pickle.dumps(network))


@pytest.mark.parametrize("made", [compiled, pickled, deepcopy])
@UPSAMPLINGS
def test_it_can_be_compiled_pickled_and_copied(made: Any, upsampling: str) -> None:
    network = small(upsampling=upsampling, auxiliary_heads=True, deep_supervision=True)
    data = torch.randn(1, 2, 8, 8, 8)
    for ours, expected in zip(made(network)(data), network(data), strict=True):
        torch.testing.assert_close(ours, expected)


@UPSAMPLINGS
@EVERY_GEOMETRY
def test_it_runs_in_bfloat16(geometry: str, upsampling: str) -> None:
    network, data = build(student_block(teacher(geometry), upsampling=upsampling)), image(geometry)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = network(data)
    assert output.dtype == torch.bfloat16
    expected = network(data)
    assert (output - expected).norm() < 0.05 * expected.norm()


def test_its_stages_pair_with_those_of_a_plain_unet() -> None:
    block = teacher("thick slices")
    pairs = resolve_pairs("auto", build(student_block(block)), build(block), (1, 2, 16, 16, 16))
    names = [*[f"encoder.stages.{i}" for i in range(4)], *[f"decoder.stages.{i}" for i in range(3)]]
    assert [(ours.name, theirs.name) for ours, theirs in pairs] == [(name, name) for name in names]
    assert all(ours.size == theirs.size and ours.channels == theirs.channels for ours, theirs in pairs)


def test_the_block_takes_over_stages_and_shrinks() -> None:
    block = teacher("five stages")
    before = deepcopy(block)
    ours = student_block(block, upsampling="nearest")["arch_kwargs"]
    taken = {key: ours[key] for key in ("n_stages", "features_per_stage", "conv_op", "kernel_sizes", "strides")}
    assert taken == {key: block["arch_kwargs"][key] for key in taken}
    for values in (ours["features_per_stage"], ours["kernel_sizes"][0], ours["strides"][0]):
        values.clear()  # must not reach the teacher's
    assert (ours["n_blocks_per_stage"], ours["upsampling"]) == ([1, 2, 2, 4, 4], "nearest")
    smaller = student_architecture(block, student="res_unet", factor=2, depth=3)
    assert build(smaller)(image("five stages")).shape == (2, 3, 16, 16, 16)
    assert smaller["arch_kwargs"]["features_per_stage"] == [4, 8, 12]
    assert block == before


@pytest.mark.parametrize(
    ("geometry", "changes", "options", "message"),
    [
        ("3d", {}, {"upsampling": "cubic"}, "expected upsampling=linear or nearest, got 'cubic'"),
        ("3d", {}, {"published": "yes"}, "expected published=true or false, got 'yes'"),
        ("3d", {}, {"auxiliary_heads": 1}, "expected auxiliary_heads=true or false, got '1'"),
        ("3d", {"strides": None}, {}, "PlainConvUNet has no list 'strides' in its plans"),
        ("3d", {"features_per_stage": 32}, {}, "has no list 'features_per_stage' in its plans"),
        ("3d", {"strides": [[1, 1, 1]] * 3}, {"published": True}, "at least 4 stages for published=true, got 3"),
    ],
    ids=["upsampling", "published", "heads", "strides", "features", "few stages"],
)
def test_a_mistake_is_one_line(geometry: str, changes: Block, options: Block, message: str) -> None:
    with pytest.raises(UsageError, match=message) as refused:
        student_block(teacher(geometry, **changes), **options)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_stages": 5}, "features_per_stage: expected 5 entries, got 4"),
        ({"n_stages": 1, "features_per_stage": [8]}, "expected at least 2 stages"),
        ({"strides": [1, 2, 2]}, "strides: expected 4 entries, got 3"),
        ({"strides": [2, 2, 2, 2]}, "strides: expected 1 in the first stage"),
        ({"strides": [[1, 1], *[[2, 2]] * 3]}, "expected 3 axes each, as Conv3d has"),
        ({"kernel_sizes": [3, 3, 4, 3]}, "expected odd numbers"),
        ({"n_blocks_per_stage": [1, 2]}, "n_blocks_per_stage: expected 4 entries, got 2"),
        ({"upsampling": "cubic"}, "expected linear or nearest, got 'cubic'"),
    ],
    ids=["stages", "one stage", "few strides", "first stride", "axes", "even kernel", "blocks", "upsampling"],
)
def test_settings_that_make_no_network_are_refused(settings: Block, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ResUNet(**settings)


def error_in_onnx_runtime(network: nn.Module, data: Tensor) -> float:
    """Return the largest difference to PyTorch of a graph of standard operators, normalisation decomposed."""
    onnx = pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    file = BytesIO()
    torch.onnx.export(network, (data,), file, opset_version=17, dynamo=False, input_names=["image"])
    nodes = onnx.load_from_string(file.getvalue()).graph.node
    assert {node.domain for node in nodes} <= {"", "ai.onnx"}
    assert not {"InstanceNormalization", "GroupNormalization"} & {node.op_type for node in nodes}
    session = runtime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    output = torch.from_numpy(session.run(None, {"image": data.numpy()})[0])
    with torch.no_grad():
        return float((output - network(data)).abs().max())


@UPSAMPLINGS
@EVERY_GEOMETRY
def test_onnx_runtime_computes_the_same(geometry: str, upsampling: str) -> None:
    torch.manual_seed(0)  # five stages of random weights can give logits of 100, which float32 itself holds to 1e-4
    network = build(student_block(teacher(geometry), upsampling=upsampling)).eval()
    assert error_in_onnx_runtime(network, image(geometry)) < 1e-4


def test_onnx_runtime_normalises_large_maps_as_exactly() -> None:
    """With ``InstanceNormalization``, PyTorch's own export, it is off by 2e-5 at this size, and grows with it."""
    assert error_in_onnx_runtime(GroupNorm(16), 2 * torch.randn(1, 16, 64, 64, 64) + 1) < 5e-6


@EVERY_GEOMETRY
def test_normalisation_is_the_same_while_exporting(geometry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network, data = build(student_block(teacher(geometry))), image(geometry)
    for parameter in network.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)  # else all scales are 1, all shifts 0
    expected = network(data)
    monkeypatch.setattr(torch.onnx, "is_in_onnx_export", lambda: True)
    assert (network(data) - expected).norm() < 1e-5 * expected.norm()
