"""Claims about the U-Net of Distill DSM: the published constants, slices and samples, nnU-Net's plans, export."""

import pickle
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from torch import Tensor, nn
from torch.nn.functional import batch_norm, conv2d, interpolate, max_pool2d, pad, relu

from nnunet_kd.distillation.features import resolve_pairs, stage_names, tap_points
from nnunet_kd.errors import UsageError
from nnunet_kd.networks.cost import network_cost
from nnunet_kd.networks.dsm_unet import DSMUNet, student_block
from nnunet_kd.planning.geometries import GEOMETRIES
from nnunet_kd.planning.students import student_architecture

Block = dict[str, Any]
SMALL = (8, 16, 16)


def small(shift: str = "distill", alpha: float = 0.5, **options: Any) -> DSMUNet:
    """A network whose every layer has something to say, in evaluation mode."""
    torch.manual_seed(0)
    network = DSMUNet(2, 3, features_per_stage=SMALL, shift=shift, alpha=alpha, **options)  # type: ignore[arg-type]
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None  # statistics of what it has seen
    with torch.no_grad():
        network(image(9))
    return network.eval()


def image(n_slices: int = 5, size: tuple[int, int] = (12, 10), batch: int = 2) -> Tensor:
    return torch.randn(batch, 2, n_slices, *size, generator=torch.Generator().manual_seed(1))


# --- the published network ---


@pytest.mark.parametrize(
    ("channels", "expected"),
    [
        ((4, 3), [1_082_211, 1_115_911, 1_216_715, 1_619_635]),
        ((1, 2), [1_081_762, 1_115_462, 1_216_266, 1_619_186]),
        ((2, 2), [1_081_906, 1_115_606, 1_216_410, 1_619_330]),
        ((1, 1), [1_081_745, 1_115_445, 1_216_249, 1_619_169]),
    ],
    ids=["4 to 3", "1 to 2", "2 to 2", "1 to 1"],
)
def test_parameters_are_the_published_ones(channels: tuple[int, int], expected: list[int]) -> None:
    networks = [DSMUNet(*channels, alpha=alpha) for alpha in (0, 0.25, 0.5, 1)]
    networks += [DSMUNet(*channels, shift="none"), DSMUNet(*channels, shift="residual")]
    assert [sum(p.numel() for p in n.parameters()) for n in networks] == [*expected, expected[0], expected[0]]


@pytest.mark.parametrize(("alpha", "macs"), [(0, 38_640), (0.25, 39_684), (0.5, 42_816), (1, 55_344)])
def test_multiply_accumulates_per_voxel(alpha: float, macs: int) -> None:
    assert network_cost(DSMUNet(4, 3, alpha=alpha), (1, 4, 3, 32, 32)).macs == macs * 3 * 32 * 32


class WrittenOut:
    """C.2 with functions only, for one sample and half of the channels, from the weights in their order."""

    def __init__(self, network: DSMUNet) -> None:
        self.weights = iter(network.state_dict().values())

    def take(self, count: int) -> list[Tensor]:
        return [next(self.weights) for _ in range(count)]

    def unit(self, x: Tensor) -> Tensor:
        weight, bias, scale, offset, mean, variance, _ = self.take(7)
        return relu(batch_norm(conv2d(x, weight, bias, padding=1), mean, variance, scale, offset))

    def shifted(self, x: Tensor) -> Tensor:
        n, q = x.shape[1] // 2, x.shape[1] // 8
        mixed = conv2d(x[:, :n], *self.take(2), padding=1)
        ends = torch.cat([torch.zeros_like(mixed[:1]), mixed, torch.zeros_like(mixed[:1])])
        return torch.cat([ends[:-2, :q], ends[2:, q : 2 * q], mixed[:, 2 * q :], x[:, n:]], dim=1)

    def block(self, x: Tensor) -> Tensor:
        return self.unit(self.shifted(self.unit(x)))

    def __call__(self, slices: Tensor) -> Tensor:
        maps = [self.unit(self.unit(slices))]
        for _ in SMALL[1:]:
            maps.append(self.block(max_pool2d(maps[-1], 2)))
        x = maps.pop()
        for skip in reversed(maps):
            x = interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
            rows, columns = skip.shape[2] - x.shape[2], skip.shape[3] - x.shape[3]
            x = pad(x, [columns // 2, columns - columns // 2, rows // 2, rows - rows // 2])
            x = self.block(torch.cat([skip, x], dim=1))
        logits = conv2d(x, *self.take(2))
        assert not list(self.weights)
        return logits


@pytest.mark.parametrize("size", [(12, 8), (11, 14)], ids=["even", "odd"])
def test_the_network_is_the_published_one_written_out(size: tuple[int, int]) -> None:
    network, volumes = small(), image(3, size)
    with torch.no_grad():
        expected = [WrittenOut(network)(sample.transpose(0, 1)).transpose(0, 1) for sample in volumes]
        torch.testing.assert_close(network(volumes), torch.stack(expected))


def test_alpha_zero_is_the_2d_network_bit_for_bit() -> None:
    zero, plain = small(alpha=0), small("none")
    plain.load_state_dict(zero.state_dict())
    assert torch.equal(zero(image()), plain(image()))
    residual = small("residual")
    residual.load_state_dict(zero.state_dict())
    assert not torch.equal(zero(image()), residual(image()))


@pytest.mark.parametrize("shape", [(1, 12, 8), (7, 9, 15), (145, 4, 4), (2, 33, 5)], ids=str)
@pytest.mark.parametrize("shift", ["distill", "residual", "none"])
def test_any_depth_and_size(shift: str, shape: tuple[int, int, int]) -> None:
    assert small(shift)(image(shape[0], shape[1:], batch=1)).shape == (1, 3, *shape)


@pytest.mark.parametrize(("shift", "reach"), [("none", 0), ("distill", 4), ("residual", 4)])
def test_slices_reach_as_far_as_there_are_shifts_and_no_other_sample(shift: str, reach: int) -> None:
    network, volumes = small(shift), image(13)
    changed = volumes.clone()
    changed[1, :, 2] += 5  # near enough to the sample before to reach it, were there a way
    with torch.no_grad():
        reached = (network(changed) - network(volumes)).abs().amax(dim=(1, 3, 4)) > 0
    assert reached.tolist() == [[False] * 13, [abs(i - 2) <= reach for i in range(13)]]


@pytest.mark.parametrize("shift", ["distill", "residual", "none"])
def test_copies_half_precision_and_compilation(shift: str) -> None:
    network = small(shift)
    expected = network(image())
    assert 0.1 < float(expected.detach().std()) < 10  # so that the comparisons below mean something
    for copy in (deepcopy(network), pickle.loads(pickle.dumps(network)), torch.compile(network, backend="eager")):
        torch.testing.assert_close(copy(image()), expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = network(image())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), expected, atol=0.15, rtol=0.1)
    assert network.to("meta")(image().to("meta")).shape == expected.shape


# --- deep supervision, features ---


def test_auxiliary_heads_decide_what_exists_and_deep_supervision_what_returns() -> None:
    network = small(auxiliary_heads=True, deep_supervision=True)
    outputs = network(image())
    assert [tuple(x.shape) for x in outputs] == [(2, 3, 5, 12, 10), (2, 3, 5, 6, 5)]
    assert all(x.is_contiguous() for x in outputs)
    prediction = DSMUNet(2, 3, features_per_stage=SMALL, auxiliary_heads=True).eval()
    prediction.load_state_dict(network.state_dict())
    assert torch.equal(prediction(image()), outputs[0])
    network.decoder.deep_supervision = False  # as nnU-Net switches it
    assert torch.equal(network(image()), outputs[0])
    assert not network.deep_supervision
    assert isinstance(small(deep_supervision=True)(image()), Tensor)


def test_every_stage_returns_volumes_without_copying_slices() -> None:
    network, seen = small(), {}
    for name in stage_names(network):
        network.get_submodule(name).register_forward_hook(lambda _, __, output, name=name: seen.update({name: output}))
    network(image())
    sizes = {"encoder.stages.0": (12, 10), "encoder.stages.1": (6, 5), "encoder.stages.2": (3, 2)}
    sizes |= {"decoder.stages.0": (6, 5), "decoder.stages.1": (12, 10)}
    assert {name: tuple(output.shape[2:]) for name, output in seen.items()} == {k: (5, *v) for k, v in sizes.items()}
    assert all(output.transpose(1, 2).is_contiguous() for output in seen.values())
    assert {point.name: point.stride for point in tap_points(network, (1, 2, 4, 8, 8))}["encoder.stages.2"] == (1, 4, 4)


def test_stages_pair_with_those_of_a_3d_teacher() -> None:
    teacher = PlainConvUNet(
        2, 3, SMALL, nn.Conv3d, 3, [1, 2, 2], 2, 3, 2, conv_bias=True, norm_op=nn.InstanceNorm3d,
        norm_op_kwargs={"affine": True}, nonlin=nn.LeakyReLU,
    )  # fmt: skip
    pairs = resolve_pairs("auto", small(), teacher, (1, 2, 8, 16, 16))
    assert {(ours.name, theirs.name) for ours, theirs in pairs} >= {
        (f"{kind}.stages.{n}", f"{kind}.stages.{n}") for kind, n in (("encoder", 0), ("encoder", 1), ("decoder", 1))
    }


# --- from a plan ---


def plan(axes: int = 3, features: tuple[int, ...] = (32, 64, 128, 256), **changes: Any) -> Block:
    """Write an architecture block as nnU-Net's planner writes it, or with other keywords."""
    kwargs = {
        "n_stages": len(features), "features_per_stage": list(features),
        "conv_op": f"torch.nn.modules.conv.Conv{axes}d",
        "strides": [[1] * axes, [1, *[2] * (axes - 1)], *[[2] * axes] * (len(features) - 2)],
    }  # fmt: skip
    return {"network_class_name": "some.UNet", "arch_kwargs": kwargs | changes, "_kw_requires_import": ["conv_op"]}


def built(block: Block, *, deep_supervision: bool = True) -> nn.Module:
    arguments = (block["network_class_name"], block["arch_kwargs"], block["_kw_requires_import"], 1, 3)
    network: nn.Module = get_network_from_plans(*arguments, deep_supervision=deep_supervision)
    return network


@pytest.mark.parametrize("shift", ["distill", "residual", "none"])
def test_a_plan_gives_a_network_with_nnunets_scales(shift: str) -> None:
    block = student_block(plan(), shift=shift, auxiliary_heads=True)
    strides = block["arch_kwargs"]["strides"]
    assert strides == [[1, 1, 1], [1, 2, 2], [1, 2, 2], [1, 2, 2]]
    outputs = built(block)(torch.zeros(1, 1, 3, 16, 8))
    scales = (1 / np.cumprod(np.vstack(strides), axis=0))[:-1]  # as nnU-Net's trainers scale the labels
    assert [list(x.shape[2:]) for x in outputs] == (scales * [3, 16, 8]).astype(int).tolist()
    prediction = built(block, deep_supervision=False)
    prediction.load_state_dict(built(block).state_dict())


def test_the_published_widths_replace_the_plans() -> None:
    block = student_block(plan(), published=True)
    assert sum(p.numel() for p in built(block).parameters()) == sum(p.numel() for p in DSMUNet(1, 3).parameters())
    assert np.prod(block["arch_kwargs"]["strides"], axis=0).tolist() == [1, 16, 16]


def test_planned_students_can_be_made_smaller() -> None:
    options = {"alpha": 0.25}
    block = student_architecture(plan(), student="dsm_unet", factor=2, depth=3, options=options)
    assert block["arch_kwargs"]["features_per_stage"] == [16, 32, 64]
    assert built(block)(torch.zeros(1, 1, 3, 16, 8)).shape == (1, 3, 3, 16, 8)


@pytest.mark.parametrize(
    ("block", "options", "said"),
    [
        (plan(axes=2), {}, r"expected a 3-D configuration, .* type -c 3d_fullres"),
        (plan(features=(32, 60, 120)), {"alpha": 0.1}, r"32 channels of stage 0 is 3\.2, .* type --alpha 0 or 1$"),
        (plan(features=(32, 48, 96)), {"alpha": 0.125}, r"48 channels of stage 1 is 6, .* type --alpha 0 or 0\.25$"),
        (plan(), {"alpha": 2}, "alpha: expected a number >= 0 and <= 1, got 2"),
        (plan(), {"alpha": "half"}, "alpha: expected a number"),
        (plan(), {"shift": "distil"}, r"got 'distil' \(did you mean 'distill'\?\)"),
        (plan(), {"published": "heart"}, "published: expected one of True, False, got 'heart'"),
        (plan(strides=None), {}, r"some\.UNet has no list 'strides' .*published=true"),
    ],
    ids=["2d", "alpha first stage", "alpha later stage", "range", "word", "shift", "published", "no strides"],
)
def test_what_cannot_be_planned_is_refused_in_one_line(block: Block, options: Block, said: str) -> None:
    with pytest.raises(UsageError, match=said) as refused:
        student_block(block, **options)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"strides": [[1, 1, 1], [2, 2, 2], [1, 2, 2]]}, r"\[1, s_h, s_w\].* in stage 1, got \[2, 2, 2\]"),
        ({"strides": [[1, 2, 2], [1, 2, 2], [1, 2, 2]]}, r"expected \[1, 1, 1\] in stage 0"),
        ({"strides": [[1, 1, 1]]}, "expected 3 stages, got 1"),
        ({"n_stages": 4}, "features_per_stage: expected 4 stages"),
        ({"alpha": 0.3}, r"stage 1: alpha 0\.3 of 16 channels"),
        ({"shift": "left"}, "expected one of distill, residual, none, got 'left'"),
    ],
    ids=["slices pooled", "first stage", "too few", "stages", "alpha", "shift"],
)
def test_settings_that_do_not_fit_are_refused(options: Block, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        DSMUNet(1, 2, features_per_stage=SMALL, **options)


def test_slices_without_volumes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(B, 2, T, H, W\), got \(3, 2, 8, 8\)"):
        small()(torch.zeros(3, 2, 8, 8))


# --- the data sets of the paper ---


@pytest.mark.parametrize(
    "in_plane", [8, pytest.param(1, marks=pytest.mark.slow)], ids=["narrow slices", "whole slices"]
)
@pytest.mark.parametrize("name", GEOMETRIES)
def test_one_step_at_each_data_sets_size_moves_every_layer(name: str, in_plane: int) -> None:
    geometry, generator = GEOMETRIES[name], torch.Generator().manual_seed(0)
    patch = [geometry.patch[0], *(max(side // in_plane, 16) for side in geometry.patch[1:])]
    images = torch.randn(1, geometry.input_channels, *patch, generator=generator)
    truth = (torch.rand(1, geometry.regions, *patch, generator=generator) > 0.5).float()
    torch.manual_seed(0)
    network = DSMUNet(geometry.input_channels, geometry.regions)
    before = deepcopy(network.state_dict())
    loss = nn.functional.binary_cross_entropy_with_logits(network(images), truth)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.optim.Adam(network.parameters(), lr=1e-3).step()
    assert bool(torch.isfinite(loss))
    assert not [key for key, value in network.state_dict().items() if torch.equal(value, before[key])]


# --- export ---


def _exported_by_dynamo(network: nn.Module, example: Tensor, path: Path) -> None:
    axes = {0: torch.export.Dim("batch"), 2: torch.export.Dim("slices")}
    torch.onnx.export(network, (example,), path, dynamo=True, dynamic_shapes=(axes,), verbose=False)


def _exported_by_tracing(network: nn.Module, example: Tensor, path: Path) -> None:
    axes = {"image": {0: "batch", 2: "slices"}}
    torch.onnx.export(network, (example,), path, dynamo=False, input_names=["image"], dynamic_axes=axes)


@pytest.mark.parametrize("export", [_exported_by_dynamo, _exported_by_tracing], ids=["dynamo", "tracing"])
@pytest.mark.parametrize("shift", ["distill", "residual"])
@pytest.mark.filterwarnings("ignore")
def test_onnx_takes_any_number_of_slices(
    export: Callable[[nn.Module, Tensor, Path], None], shift: str, tmp_path: Path
) -> None:
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    if export is _exported_by_dynamo:
        pytest.importorskip("onnxscript")
    network = small(shift)
    export(network, image(5), tmp_path / "student.onnx")
    session = runtime.InferenceSession(tmp_path / "student.onnx", providers=["CPUExecutionProvider"])
    (name,) = [each.name for each in session.get_inputs()]
    for n_slices, batch in ((1, 1), (4, 2), (5, 2), (12, 3)):
        volumes = image(n_slices, batch=batch)
        with torch.no_grad():
            expected = network(volumes).numpy()
        assert np.abs(session.run(None, {name: volumes.numpy()})[0] - expected).max() < 1e-5
