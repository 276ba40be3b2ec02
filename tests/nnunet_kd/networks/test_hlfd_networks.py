"""Claims about the 2-D networks of EMKD and HLFD that hold for each of them."""

import pickle
from collections.abc import Callable
from copy import deepcopy
from importlib import import_module
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from torch import Tensor, nn

from nnunet_kd.distillation.features import Taps, match_stages, tap_points
from nnunet_kd.errors import UsageError
from nnunet_kd.networks.cost import network_cost
from nnunet_kd.networks.enet import ENet
from nnunet_kd.networks.erfnet import ERFNet
from nnunet_kd.networks.mobilenetv2 import MobileNetV2
from nnunet_kd.networks.ra_unet import RAUNet
from nnunet_kd.networks.resnet18 import ResNet18
from nnunet_kd.networks.unet_plus_plus import UNetPlusPlus
from nnunet_kd.planning.checks import total_stride
from nnunet_kd.planning.students import shrink

NETWORKS: dict[str, Any] = {
    "unet_plus_plus": UNetPlusPlus,
    "ra_unet": RAUNet,
    "resnet18": ResNet18,
    "mobilenetv2": MobileNetV2,
    "enet": ENet,
    "erfnet": ERFNet,
}
DOCUMENT = Path(__file__).parents[3] / "docs" / "reference" / "networks.md"
EACH = pytest.mark.parametrize("name", NETWORKS)
CLASSIFIERS = pytest.mark.parametrize("name", ["resnet18", "mobilenetv2", "ra_unet"])
TEACHER: dict[str, Any] = {
    "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
    "arch_kwargs": {"n_stages": 4, "conv_op": "torch.nn.modules.conv.Conv2d", "strides": [[1, 1]] + [[2, 2]] * 3},
    "_kw_requires_import": ["conv_op"],
}
# (channels, stride) of the stages as the specification lists them: e1 .. e5, then from the deepest to the finest
RESNET = [(64, 2), (64, 4), (128, 8), (256, 16), (512, 32)]
STAGES = {
    "unet_plus_plus": (
        [(128, 2), (256, 4), (128, 2), (512, 8), (1024, 16)],
        [(64, 1), (64, 1), (64, 1), (128, 2)],
    ),
    "ra_unet": (RESNET, [(256, 16), (128, 8), (64, 4), (64, 2)]),
    "resnet18": (RESNET, RESNET[-2::-1]),
    "mobilenetv2": ([(32, 2), (24, 2), (32, 4), (96, 4), (1280, 8)], [(96, 4), (32, 4), (24, 2), (32, 2)]),
    "enet": ([(16, 2), (64, 4), (128, 8), (128, 8)], [(64, 4), (16, 2)]),
    "erfnet": ([(16, 2), (64, 4), (128, 8)], [(64, 4), (16, 2)]),
}


def block_of(name: str, **options: object) -> dict[str, Any]:
    block: dict[str, Any] = import_module(f"nnunet_kd.networks.{name}").student_block(TEACHER, **options)
    return block


def planned(name: str, inputs: int = 1, outputs: int = 2, *, deep_supervision: bool = False) -> nn.Module:
    """Build a network from its plans as nnU-Net does, UNet++ a sixteenth as wide."""
    block = block_of(name)
    if name == "unet_plus_plus":
        block = shrink(block, 16)
    torch.manual_seed(0)
    network: nn.Module = get_network_from_plans(
        block["network_class_name"],
        block["arch_kwargs"],
        block["_kw_requires_import"],
        inputs,
        outputs,
        deep_supervision=deep_supervision,
    )
    return network


def on_meta(name: str, inputs: int, outputs: int, **options: object) -> nn.Module:
    with torch.device("meta"):
        network: nn.Module = NETWORKS[name](input_channels=inputs, num_classes=outputs, **options)
    return network


def link_net(inputs: int, outputs: int) -> int:
    inner = inputs // 4
    return (inputs + 3) * inner + (16 * inner + 3) * inner + (inner + 3) * outputs


RESNET34 = 21_797_672 - 1000 * 513  # torchvision's published count without its classifier
RA_UNET_DECODER = sum(link_net(*pair) for pair in ((512, 256), (256, 128), (128, 64), (64, 64)))
RA_UNET_ATTENTION = sum(4 * c * (c + 1) + 3 * 2 * c for c in (256, 128, 64))
RA_UNET_HEAD = (64 * 9 + 1) * 32 + (32 * 9 + 1) * 32 + (32 * 4 * 2 + 2)


@pytest.mark.parametrize(
    ("name", "inputs", "outputs", "parameters"),
    [
        ("unet_plus_plus", 1, 2, 36_628_546),
        ("resnet18", 1, 2, 11_177_538),
        ("resnet18", 3, 2, 11_177_538),
        ("resnet18", 4, 2, 11_177_538 + 64 * 49),
        ("mobilenetv2", 1, 2, 3_504_872 - 1281 * 1000 + 1281 * 2),
        ("ra_unet", 1, 2, RESNET34 + RA_UNET_DECODER + RA_UNET_ATTENTION + RA_UNET_HEAD),
    ],
)
def test_has_the_published_number_of_parameters(name: str, inputs: int, outputs: int, parameters: int) -> None:
    assert network_cost(on_meta(name, inputs, outputs), (1, inputs, 64, 64)).parameters == parameters


@pytest.mark.parametrize(
    ("name", "outputs", "millions"), [("enet", 12, 0.37), ("enet", 20, 0.37), ("erfnet", 20, 2.06)]
)
def test_has_about_the_published_number_of_parameters(name: str, outputs: int, millions: float) -> None:
    """The papers give two digits, for colours."""
    parameters = sum(parameter.numel() for parameter in on_meta(name, 3, outputs).parameters())
    assert parameters == pytest.approx(millions * 1e6, rel=0.025)


@EACH
@pytest.mark.skipif(not DOCUMENT.is_file(), reason="the documents are not beside the tests")
def test_the_documents_say_what_it_costs(name: str) -> None:
    rows = [row.split("|") for row in DOCUMENT.read_text(encoding="utf-8").splitlines() if f"| `{name}` | `" in row]
    assert len(rows) == 1
    cost = network_cost(on_meta(name, 1, 2), (1, 1, 384, 384))
    assert rows[0][4].strip() == f"{cost.parameters:,}"
    assert rows[0][5].split(";")[0].strip() == f"{cost.macs / 1e9:.3f}"


@EACH
def test_stages_are_those_of_the_specification(name: str) -> None:
    points = tap_points(on_meta(name, 1, 2), (1, 1, 384, 384))
    found = {kind: [(p.channels, *p.stride) for p in points if p.kind == kind] for kind in ("encoder", "decoder")}
    for kind, expected in zip(found, STAGES[name], strict=True):
        assert found[kind] == [(channels, stride, stride) for channels, stride in expected]


@EACH
def test_strides_in_the_plans_are_what_the_patch_must_suit(name: str) -> None:
    """A patch that they divide has whole numbers of pixels in all stages."""
    step = total_stride(block_of(name)["arch_kwargs"]["strides"])
    points = tap_points(on_meta(name, 1, 2), (1, 1, 3 * step[0], 5 * step[1]))
    assert max(p.stride[0] for p in points) == step[0]
    assert all(axis == int(axis) for p in points for axis in p.stride)


@EACH
def test_stages_pair_with_a_teachers_of_another_kind(name: str) -> None:
    ours, theirs = (tap_points(on_meta(n, 1, 2), (1, 1, 64, 64)) for n in (name, "unet_plus_plus"))
    assert {s.kind for s, _ in match_stages(ours, theirs)} == {"encoder", "decoder"}


@EACH
@pytest.mark.parametrize("size", [(32, 64), (45, 38), (9, 7)], ids=str)
def test_logits_have_the_size_of_the_image(name: str, size: tuple[int, int]) -> None:
    network = planned(name, inputs=2, outputs=3).eval()
    logits = network(torch.randn(1, 2, *size))
    assert logits.shape == (1, 3, *size)
    assert torch.isfinite(logits).all()


@EACH
def test_logits_are_no_probabilities(name: str) -> None:
    """EMKD's RA-UNet ends on a logarithm of probabilities; nnU-Net's losses begin with it."""
    logits = planned(name).eval()(torch.randn(1, 1, 32, 32))
    assert not torch.allclose(logits.exp().sum(dim=1), torch.ones(1, 32, 32), atol=1e-2)


@EACH
def test_deep_supervision_can_be_switched_and_changes_nothing(name: str) -> None:
    network = planned(name, deep_supervision=True).eval()
    image = torch.randn(1, 1, 32, 32)
    assert network.deep_supervision is True
    before = network(image)
    network.deep_supervision = False
    assert isinstance(before, Tensor)
    torch.testing.assert_close(network(image), before)


@EACH
def test_gradient_reaches_every_parameter(name: str) -> None:
    """In evaluation mode: in training, batch normalisation takes the gradient from the biases before it."""
    network, images = planned(name), torch.randn(2, 1, 64, 64)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    network(images)  # with the statistics of these images no node is silent
    network.eval()(images).square().mean().backward()
    without = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


@EACH
def test_trains_in_bfloat16(name: str) -> None:
    network = planned(name).train()
    with torch.autocast("cpu", torch.bfloat16):
        loss = network(torch.randn(2, 1, 64, 64)).float().square().mean()
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)


@EACH
@pytest.mark.parametrize("copy", [deepcopy, lambda n: pickle.loads(pickle.dumps(n))], ids=["deepcopy", "pickle"])
def test_copies_compute_the_same(name: str, copy: Callable[[nn.Module], nn.Module]) -> None:
    network = planned(name).eval()
    image = torch.randn(1, 1, 32, 32)
    torch.testing.assert_close(copy(network)(image), network(image))


@EACH
@pytest.mark.slow
def test_is_one_graph_for_the_compiler(name: str) -> None:
    network = planned(name).eval()
    image = torch.randn(1, 1, 45, 38)
    compiled: Any = torch.compile(network, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(image), network(image))


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv2"])
def test_decoder_names_give_the_encoders_maps(name: str) -> None:
    network = planned(name).eval()
    taps = Taps(network, [*(f"encoder.stages.{i}" for i in range(5)), *(f"decoder.stages.{i}" for i in range(4))])
    network(torch.randn(1, 1, 32, 32))
    maps = taps.take()
    assert all(maps[f"decoder.stages.{i}"] is maps[f"encoder.stages.{3 - i}"] for i in range(4))


@CLASSIFIERS
def test_a_grey_slice_is_repeated_as_colours(name: str) -> None:
    network = planned(name).eval()
    grey = torch.randn(1, 1, 40, 32)
    torch.testing.assert_close(network(grey), network(grey.repeat(1, 3, 1, 1)))


@CLASSIFIERS
def test_pretrained_is_true_or_false(name: str) -> None:
    assert block_of(name, pretrained=True)["arch_kwargs"]["pretrained"] is True
    with pytest.raises(UsageError, match=f"^{name}: pretrained: expected one of True, False, got 'yes'$"):
        block_of(name, pretrained="yes")


@EACH
def test_a_teacher_of_three_axes_is_refused(name: str) -> None:
    teacher = {"arch_kwargs": {"strides": [[1, 1, 1], [2, 2, 2]]}}
    for kwargs in (teacher["arch_kwargs"], {"conv_op": "torch.nn.modules.conv.Conv3d"}):
        with pytest.raises(UsageError, match=f"^--student {name}: .*3-D.* plain_unet, res_unet or dsm_unet$"):
            import_module(f"nnunet_kd.networks.{name}").student_block({"arch_kwargs": kwargs})


@EACH
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"strides": [[1, 1, 1]] * 4}, "strides"),
        ({"strides": [1, 2, 2, 2]}, "strides"),
        ({"strides": [[2, 2]] * 5}, "strides"),
        ({"auxiliary_heads": True}, "auxiliary_heads"),
    ],
    ids=["three axes", "numbers", "no full size", "heads"],
)
def test_plans_that_do_not_suit_are_refused(name: str, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=f"{NETWORKS[name].__name__}.*{message}"):
        on_meta(name, 1, 2, **wrong)


@pytest.mark.parametrize("name", ["enet", "erfnet"])
def test_more_channels_than_the_first_stage_holds_are_refused(name: str) -> None:
    assert on_meta(name, 15, 2)(torch.empty(1, 15, 16, 16, device="meta")).shape == (1, 2, 16, 16)
    with pytest.raises(UsageError, match="fewer than 16 input channels, got 16"):
        on_meta(name, 16, 2)


@pytest.mark.parametrize("value", [16, "8", [8], None], ids=str)
def test_other_output_strides_are_refused(value: object) -> None:
    with pytest.raises(UsageError, match="output_stride: expected one of 8, 32, got"):
        block_of("mobilenetv2", output_stride=value)


def test_the_classifiers_output_stride_costs_less_than_emkds() -> None:
    points = tap_points(
        on_meta("mobilenetv2", 1, 2, **block_of("mobilenetv2", output_stride=32)["arch_kwargs"]), (1, 1, 64, 64)
    )
    assert [prod(p.stride) ** 0.5 for p in points[:5]] == [2, 4, 8, 16, 32]
    costs = [network_cost(on_meta("mobilenetv2", 1, 2, output_stride=s), (1, 1, 64, 64)) for s in (8, 32)]
    assert costs[0].parameters == costs[1].parameters
    assert costs[0].macs > 8 * costs[1].macs


@pytest.mark.parametrize(("output_stride", "size"), [(32, 2), (16, 4), (8, 8)])
def test_resnet18_keeps_its_last_stages_finer(output_stride: int, size: int) -> None:
    network = ResNet18(1, 2, output_stride=output_stride)
    assert sum(parameter.numel() for parameter in network.parameters()) == 11_177_538
    assert network.encoder(torch.zeros(1, 3, 64, 64))[-1].shape[2:] == (size, size)
    assert network(torch.zeros(1, 1, 64, 64)).shape == (1, 2, 64, 64)


def test_resnet18_refuses_other_output_strides() -> None:
    with pytest.raises(UsageError, match="output_stride"):
        ResNet18(1, 2, output_stride=4)
