"""Claims about tapping feature maps and about which stages belong together."""

import shutil
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from nnunet_kd.distillation.feature_guidance import FeatureGuidance
from nnunet_kd.distillation.features import (
    Taps,
    WithFeatures,
    combined,
    match_stages,
    resolve_pairs,
    side_by_side,
    tap_points,
    to_common_size,
)
from nnunet_kd.distillation.frozen import FrozenOnCPU
from nnunet_kd.errors import UsageError
from nnunet_kd.losses.contract import FeatureLoss, pointwise_convolution

ISOTROPIC = [[1, 1, 1], [2, 2, 2], [2, 2, 2], [2, 2, 2]]
ANISOTROPIC = [[1, 1, 1], [1, 2, 2], [2, 2, 2], [2, 2, 2]]
DEEP = [*ISOTROPIC, [1, 2, 2]]
FLAT = [[1, 1], [2, 2], [2, 2], [2, 2]]


def network(strides: list[list[int]], *, residual: bool = False, width: int = 4) -> nn.Module:
    """Return a network as nnU-Net plans them."""
    n, n_axes = len(strides), len(strides[0])
    shared: dict[str, Any] = {
        "input_channels": 1,
        "n_stages": n,
        "features_per_stage": [width * 2**i for i in range(n)],
        "conv_op": nn.Conv3d if n_axes == 3 else nn.Conv2d,
        "kernel_sizes": 3,
        "strides": strides,
        "num_classes": 2,
        "n_conv_per_stage_decoder": 1,
        "norm_op": nn.InstanceNorm3d if n_axes == 3 else nn.InstanceNorm2d,
        "norm_op_kwargs": {"affine": True},
        "nonlin": nn.LeakyReLU,
        "deep_supervision": True,
    }
    if residual:
        return ResidualEncoderUNet(**shared, n_blocks_per_stage=1)
    return PlainConvUNet(**shared, n_conv_per_stage=1)


def shape(strides: list[list[int]]) -> tuple[int, ...]:
    return (2, 1, *([16] * len(strides[0])))


# ---- tap points ----


def test_stages_are_found_with_their_strides_and_the_network_stays_as_it_was() -> None:
    net = network(ANISOTROPIC)
    points = tap_points(net, (1, 1, 16, 16, 16))
    strides = {point.name: point.stride for point in points if point.kind == "encoder"}
    assert strides == {
        "encoder.stages.0": (1, 1, 1),
        "encoder.stages.1": (1, 2, 2),
        "encoder.stages.2": (2, 4, 4),
        "encoder.stages.3": (4, 8, 8),
    }
    assert [point.channels for point in points] == [4, 8, 16, 32, 16, 8, 4]
    assert not any(module._forward_hooks for module in net.modules())
    assert all(parameter.device.type == "cpu" for parameter in net.parameters())


def test_described_sizes_are_those_of_a_real_pass() -> None:
    net = network(ANISOTROPIC, residual=True)
    points = tap_points(net, (1, 1, 16, 16, 16))
    taps = Taps(net, [point.name for point in points])
    net(torch.zeros(1, 1, 16, 16, 16))
    maps = taps.take()
    assert {name: tuple(m.shape[1:]) for name, m in maps.items()} == {
        point.name: (point.channels, *point.size) for point in points
    }


def test_a_wrong_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(
        UsageError, match=r"no module 'encoder.stage.2'; nearest are: .*encoder\.stages\.2.*--show-taps"
    ):
        tap_points(network(FLAT), (1, 1, 16, 16), ["encoder.stage.2"])


def test_modules_without_a_map_are_refused() -> None:
    with pytest.raises(UsageError, match="'decoder' returns list, expected a map of features with 2 axes"):
        tap_points(network(FLAT), (1, 1, 16, 16), ["decoder"])
    with pytest.raises(UsageError, match=r"'decoder\.seg_layers' is not reached"):
        tap_points(network(FLAT), (1, 1, 16, 16), ["decoder.seg_layers"])


# ---- taps ----


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_taps_return_the_maps_of_the_last_pass_and_leave_no_trace(compiled: bool) -> None:
    net = network(FLAT)
    data = torch.randn(1, 1, 16, 16)
    expected = net.encoder(data)[1]
    run: Any = torch.compile(net, backend="eager") if compiled else net
    taps = Taps(run, ["encoder.stages.1"], only_in_training=True)
    outputs = run(data)
    (tapped,) = taps.take().values()
    torch.testing.assert_close(tapped, expected)
    outputs[0].sum().backward()
    assert taps.take() == {}
    run.eval()
    run(data)
    assert taps.take() == {}  # validation holds no memory
    taps.remove()
    assert not any(module._forward_hooks for module in net.modules())


def test_gradients_flow_through_a_tap_into_the_student() -> None:
    net = network(FLAT)
    taps = Taps(net, ["encoder.stages.2"])
    net(torch.randn(1, 1, 16, 16))
    taps.take()["encoder.stages.2"].square().sum().backward()
    touched = {name.split(".")[2] for name, p in net.named_parameters() if p.grad is not None}
    assert touched == {"0", "1", "2"}


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_a_network_with_features_is_a_pure_function(compiled: bool) -> None:
    net = network(FLAT).eval()
    tapped: Any = WithFeatures(net, ["decoder.stages.2", "encoder.stages.0"])
    tapped = torch.compile(tapped, backend="eager") if compiled else tapped
    data = torch.randn(2, 1, 1, 16, 16)
    first, second = tapped(data[0]), tapped(data[1])
    torch.testing.assert_close(first[0], net(data[0]))
    torch.testing.assert_close(second[1][1], net.encoder(data[1])[0])
    assert [m.shape[1] for m in first[1]] == [4, 4]


@pytest.fixture
def one_rank(tmp_path: Path) -> Iterator[None]:
    """A process group of this process alone."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("one_rank")
@pytest.mark.parametrize("deep_supervision", [True, False], ids=["outputs", "output"])
@pytest.mark.parametrize("wrapped", ["eager", "compiled", "ddp", "compiled ddp"])
def test_the_finest_logits_are_tapped_beneath_every_wrapper(wrapped: str, deep_supervision: bool) -> None:
    net: Any = network(FLAT)
    net.decoder.deep_supervision = deep_supervision
    run = torch.compile(net, backend="eager") if "compiled" in wrapped else net
    run = DistributedDataParallel(run) if "ddp" in wrapped else run
    taps = Taps(run, ["output", "decoder.stages.0"], only_in_training=True)
    outputs = run(torch.randn(2, 1, 16, 16))
    maps = taps.take()
    torch.testing.assert_close(maps["output"], outputs[0] if deep_supervision else outputs)
    maps["output"].square().mean().backward()
    assert net.encoder.stages[0][0].convs[0].conv.weight.grad is not None
    with torch.no_grad():
        run.eval()(torch.randn(2, 1, 16, 16))
    assert taps.take() == {}
    taps.remove()
    assert not net._forward_hooks


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_teachers_frozen_into_compiled_code_give_their_logits_too() -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.LeakyReLU(), nn.Conv2d(4, 2, 1)).eval()
    data = torch.randn(1, 1, 8, 8)
    output, maps = FrozenOnCPU(net, torch.float32, ["output", "0"])(data)
    torch.testing.assert_close((output, *maps), (net(data), net(data), net[0](data)))


# ---- matching ----

_PLANNED = {
    f"{name}-{'resenc' if residual else 'plain'}": (strides, residual)
    for (name, strides), residual in product(
        {"isotropic": ISOTROPIC, "anisotropic": ANISOTROPIC, "deep": DEEP, "2d": FLAT}.items(), (False, True)
    )
}


# a network in 3-D teaches one in 2-D through the cache only
_PAIRS = [(a, b) for a, b in product(_PLANNED, repeat=2) if ("2d" in a) == ("2d" in b)]


@pytest.mark.parametrize(("student", "teacher"), _PAIRS)
def test_stages_of_every_pair_of_planned_architectures_are_matched(student: str, teacher: str) -> None:
    ours, theirs = (
        tap_points(network(strides, residual=residual), shape(strides))
        for strides, residual in (_PLANNED[student], _PLANNED[teacher])
    )
    matched = match_stages(ours, theirs)
    assert {s.kind for s, _ in matched} == {"encoder", "decoder"}
    assert all(s.kind == t.kind for s, t in matched)
    assert len({s for s, _ in matched}) == len({t for _, t in matched}) == len(matched)
    for point in ours:  # where the teacher has the resolution, it is taken
        same = [t for t in theirs if t.kind == point.kind and t.stride == point.stride]
        assert not same or (point, same[0]) in matched
    names = [s.name for s, _ in matched]
    assert names == [point.name for point in ours if point.name in names]


def test_stages_of_unlike_resolution_are_paired_only_without_a_nearer_one() -> None:
    fine = tap_points(network([[1, 1], [2, 2], [2, 2]]), (1, 1, 16, 16))
    coarse = tap_points(network([[1, 1], [4, 4], [2, 2]]), (1, 1, 16, 16))
    matched = match_stages(fine, coarse, ("encoder",))
    assert [(s.stride[0], t.stride[0]) for s, t in matched] == [(1, 1), (4, 4)]


def test_pairs_by_name_and_by_kind() -> None:
    student, teacher = network(FLAT), network([*FLAT, [2, 2]], width=8)
    size = (1, 1, 32, 32)
    named = resolve_pairs([("encoder.stages.1", "encoder.stages.3")], student, teacher, size)
    assert [(s.name, t.name) for s, t in named] == [("encoder.stages.1", "encoder.stages.3")]
    ((ours, theirs),) = resolve_pairs("bottleneck", student, teacher, size)
    assert (ours.name, theirs.name) == ("encoder.stages.3", "encoder.stages.3")  # by stride, not by position
    assert {s.kind for s, _ in resolve_pairs("decoder", student, teacher, size)} == {"decoder"}


def test_pairs_by_selectors_are_points_of_one_or_several_modules() -> None:
    student, teacher = network(FLAT), network([*FLAT, [2, 2]], width=8)
    rows = [("encoder[0]", "encoder[1:-1]"), ("decoder[1:]", "output"), (("decoder[0]", "x.y"), "decoder[0]")]
    pairs = resolve_pairs(rows[:2], student, teacher, (1, 1, 32, 32))
    assert [(s.name, s.channels, s.size) for s, _ in pairs] == [
        ("encoder.stages.0", 4, (32, 32)),
        ("decoder.stages.1", 8, (16, 16)),
        ("decoder.stages.2", 4, (32, 32)),
    ]
    several, *outputs = [t for _, t in pairs]
    assert several.name == "encoder.stages.1 + encoder.stages.2 + encoder.stages.3"
    assert several.names == tuple(f"encoder.stages.{i}" for i in (1, 2, 3))
    assert (several.kind, several.channels, several.size, several.stride) == ("encoder", 16 + 32 + 64, (4, 4), (8, 8))
    assert [(t.names, t.channels, t.size) for t in outputs] == [(("output",), 2, (32, 32))] * 2
    with pytest.raises(UsageError, match=r"has no module 'x\.y'"):
        resolve_pairs(rows, student, teacher, (1, 1, 32, 32))
    with pytest.raises(UsageError, match=r"encoder\[4\]: the student has encoder\[0\] to encoder\[3\]"):
        resolve_pairs([("encoder[4]", "encoder[4]")], student, teacher, (1, 1, 32, 32))


def test_networks_without_stages_are_told_how_to_name_them() -> None:
    plain = nn.Sequential(nn.Conv2d(1, 2, 1))
    with pytest.raises(UsageError, match="finds no stages in student Sequential"):
        resolve_pairs("auto", plain, plain, (1, 1, 8, 8))


def test_the_coarser_size_wins_axis_by_axis() -> None:
    a, b = to_common_size(torch.ones(1, 2, 8, 4, 4), torch.ones(1, 3, 4, 4, 8))
    assert tuple(a.shape) == (1, 2, 4, 4, 4)
    assert tuple(b.shape) == (1, 3, 4, 4, 4)


def test_combined_maps_are_pooled_to_the_smallest_axis_by_axis_in_float32() -> None:
    torch.manual_seed(0)
    maps = [torch.randn(2, 3, 4, 8, 2), torch.randn(2, 1, 8, 4, 2)]
    joint = combined(maps)
    torch.testing.assert_close(joint[:, :3], maps[0].unflatten(3, (4, 2)).mean(4))
    torch.testing.assert_close(joint[:, 3:], maps[1].unflatten(2, (4, 2)).mean(3))
    loud = combined([torch.full((1, 1, 4, 4), 65504.0).half(), torch.ones(1, 1, 2, 2).half()])
    assert loud.dtype == torch.float32
    assert float(loud.max()) == 65504  # half precision's sum of four would be infinite


def test_the_table_puts_paired_stages_in_one_line() -> None:
    student = tap_points(network(FLAT), (1, 1, 32, 32))
    teacher = tap_points(network([*FLAT, [2, 2]], width=8), (1, 1, 32, 32))
    lines = side_by_side(student, teacher).splitlines()
    assert any(line.split() == ["encoder.stages.3", "8x8", "32", "encoder.stages.3", "8x8", "64"] for line in lines)
    assert any(line.split() == ["-", "encoder.stages.4", "16x16", "128"] for line in lines)


# ---- guidance ----


class Hint(FeatureLoss):
    """Mean squared error through a convolution."""

    def adapter(self, student_channels: int, teacher_channels: int, n_axes: int) -> nn.Module | None:
        return pointwise_convolution(student_channels, teacher_channels, n_axes)

    def __call__(self, student: Tensor, teacher: Tensor, reference: Any) -> Tensor:
        return (student - teacher).square().mean()


def test_terms_compare_every_member_through_shared_adapters() -> None:
    torch.manual_seed(0)
    student, teacher = network(FLAT), network(FLAT, width=8).eval()
    state = torch.get_rng_state()
    guidance = FeatureGuidance(
        {"hint": Hint(pairs="encoder")}, student, {"T": teacher}, (1, 1, 16, 16), device=torch.device("cpu")
    )
    assert torch.equal(state, torch.get_rng_state())  # a control with the same seed draws the same batches
    assert [a.weight.shape[:2] for a in guidance.adapters.values()] == [(8 * 2**i, 4 * 2**i) for i in range(4)]
    tapped = WithFeatures(teacher, guidance.teacher_names("T"))
    data = torch.randn(1, 1, 16, 16)
    student(data)
    maps = dict(zip(guidance.teacher_names("T"), tapped(data)[1], strict=True))
    assert guidance([("T", 1.0, maps)], []) == {}  # its time is over
    student(data)
    pairs = guidance([("T", 0.25, maps), ("T", 0.75, maps)], ["hint"])["hint"]
    assert len(pairs) == 8
    assert sum(share for _, _, share in pairs) == pytest.approx(1)
    sum(share * Hint()(s, t, None) for s, t, share in pairs).backward()
    assert all(p.grad is not None for p in guidance.adapters.parameters())
    assert student.encoder.stages[0][0].convs[0].conv.weight.grad is not None
    assert all(p.grad is None for p in teacher.parameters())
    assert not set(dict(student.named_parameters())) & set(dict(guidance.adapters.named_parameters()))
