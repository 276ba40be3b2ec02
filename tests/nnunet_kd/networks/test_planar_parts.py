"""Claims about the parts of the 2-D networks: nesting, un-pooling, attention, tables of blocks, pretrained weights."""

from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, max_pool2d, max_unpool2d
from torchvision.models import MobileNet_V2_Weights, ResNet18_Weights, ResNet34_Weights, WeightsEnum

from nnunet_kd.distillation.features import stage_names
from nnunet_kd.errors import UsageError
from nnunet_kd.networks.enet import ENet, unpool
from nnunet_kd.networks.erfnet import ERFNet
from nnunet_kd.networks.mobilenetv2 import MobileNetV2
from nnunet_kd.networks.pretrained import first_convolution
from nnunet_kd.networks.ra_unet import AugmentedAttention, RAUNet
from nnunet_kd.networks.resnet18 import ResNet18
from nnunet_kd.networks.unet_plus_plus import UNetPlusPlus
from nnunet_kd.planning.students import student_architecture

PRETRAINED = pytest.mark.parametrize(
    ("network", "weights"),
    [(ResNet18, ResNet18_Weights), (RAUNet, ResNet34_Weights), (MobileNetV2, MobileNet_V2_Weights)],
    ids=["resnet18", "ra_unet", "mobilenetv2"],
)


def enlarged(coarse: Tensor, fine: Tensor) -> Tensor:
    return interpolate(coarse, size=fine.shape[2:], mode="bilinear", align_corners=True)


def test_unet_plus_plus_agrees_with_its_triangle_written_out() -> None:
    network = UNetPlusPlus(2, 3, features_per_stage=[4, 6, 8]).eval()
    x, image = network.nodes, torch.randn(1, 2, 12, 16)
    x0_0 = x["x0_0"](image)
    x1_0 = x["x1_0"](max_pool2d(x0_0, 2))
    x2_0 = x["x2_0"](max_pool2d(x1_0, 2))
    x0_1 = x["x0_1"](torch.cat([x0_0, enlarged(x1_0, x0_0)], dim=1))
    x1_1 = x["x1_1"](torch.cat([x1_0, enlarged(x2_0, x1_0)], dim=1))
    x0_2 = x["x0_2"](torch.cat([x0_0, x0_1, enlarged(x1_1, x0_0)], dim=1))
    torch.testing.assert_close(network(image), network.head(x0_2))


@pytest.mark.parametrize(
    ("n_stages", "encoder", "decoder"),
    [
        (3, "x1_0 x2_0", "x0_1 x1_1"),
        (4, "x1_0 x2_0 x1_1 x3_0", "x0_1 x0_2 x1_2"),
        (5, "x1_0 x2_0 x1_1 x3_0 x4_0", "x0_1 x0_2 x0_3 x1_3"),
    ],
)
def test_unet_plus_plus_names_hlfds_nodes_in_its_order(n_stages: int, encoder: str, decoder: str) -> None:
    named = list(stage_names(UNetPlusPlus(1, 2, features_per_stage=[4] * n_stages)).items())
    expected = [(node, kind) for kind, nodes in (("encoder", encoder), ("decoder", decoder)) for node in nodes.split()]
    assert named == [(f"nodes.{node}", kind) for node, kind in expected]


def test_unet_plus_plus_shrinks_and_loses_stages_by_the_planner() -> None:
    teacher = {"network_class_name": "", "arch_kwargs": {"strides": [[1, 1]]}, "_kw_requires_import": []}
    block = student_architecture(teacher, student="unet_plus_plus", factor=16, depth=4)
    network = UNetPlusPlus(1, 2, **block["arch_kwargs"])
    assert [network.nodes[f"x{row}_0"][0].out_channels for row in range(4)] == [4, 8, 16, 32]
    assert network(torch.randn(2, 1, 16, 24)).shape == (2, 2, 16, 24)


def test_unet_plus_plus_takes_strides_that_differ_per_axis() -> None:
    network = UNetPlusPlus(1, 2, features_per_stage=[4, 4, 4], strides=[[1, 1], [2, 1], [3, 2]])
    sizes = {}
    for name in ("x1_0", "x2_0"):
        network.nodes[name].register_forward_hook(lambda _m, _i, out, name=name: sizes.update({name: out.shape[2:]}))
    assert network(torch.randn(1, 1, 12, 8)).shape == (1, 2, 12, 8)
    assert sizes == {"x1_0": (6, 8), "x2_0": (2, 4)}


@pytest.mark.parametrize(
    "wrong",
    [{"n_stages": 4}, {"features_per_stage": [4, 4]}, {"strides": [[1, 1], [2, 2]]}],
    ids=["n_stages", "two stages", "strides"],
)
def test_unet_plus_plus_refuses_numbers_of_stages_that_differ(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="at least 3 stages with features and strides for each"):
        UNetPlusPlus(1, 2, **{"features_per_stage": [4, 4, 4], **wrong})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_unpool_agrees_with_torchs(dtype: torch.dtype) -> None:
    pooled, places = max_pool2d(torch.randn(2, 3, 6, 8), 2, return_indices=True)
    values = torch.randn_like(pooled)
    torch.testing.assert_close(unpool(values.to(dtype), places), max_unpool2d(values, places, 2).to(dtype))


def test_attention_weighs_the_skip_by_shares_of_channels() -> None:
    attention = AugmentedAttention(6).eval()
    high, low = torch.randn(2, 2, 6, 4, 5).unbind()
    weights = (attention(high, low) - high) / attention.projection(low).clamp(min=1e-6)
    shares = weights.amax(dim=(2, 3))  # of a channel, wherever the projection is not 0
    assert (attention.projection(low).amax(dim=(2, 3)) > 0).all()
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(2), rtol=1e-3, atol=1e-3)


def kernels(stage: nn.Module, size: int) -> list[tuple[int, ...]]:
    """Return kernel and dilation, per axis, of the convolutions with a side of so many pixels."""
    found = [m for m in stage.modules() if isinstance(m, nn.Conv2d) and max(m.kernel_size) == size]
    return [(*m.kernel_size, *m.dilation) for m in found]


@pytest.mark.parametrize("section", [2, 3])
def test_enet_has_the_rows_of_its_table(section: int) -> None:
    """Table 1: regular, dilated 2, asymmetric 5, dilated 4, regular, dilated 8, asymmetric 5, dilated 16."""
    stage = ENet(1, 2).encoder.stages[section]
    assert kernels(stage, 3) == [(3, 3, dilation, dilation) for dilation in (1, 2, 4, 1, 8, 16)]
    assert kernels(stage, 5) == [(5, 1, 1, 1), (1, 5, 1, 1)] * 2
    assert [len(kernels(block, 5)) for block in stage] == [0, 0, 2, 0, 0, 0, 2, 0]


def test_enet_drops_channels_as_its_paper_says() -> None:
    rates = [(name, m.p) for name, m in ENet(1, 2).named_modules() if isinstance(m, nn.Dropout2d)]
    early = ("encoder.reductions.0", "encoder.stages.1")  # before bottleneck 2.0
    assert len(rates) == 27  # every bottleneck of the table
    assert all(p == (0.01 if name.startswith(early) else 0.1) for name, p in rates)


def test_enet_learns_a_slope_per_feature_map() -> None:
    slopes = [m.num_parameters for m in ENet(1, 2).modules() if isinstance(m, nn.PReLU)]
    assert set(slopes) == {4, 16, 32, 64, 128}  # channels of the bottlenecks, within and outside


def test_erfnet_has_the_rows_of_its_table() -> None:
    """Table I: five blocks of 64 channels, then dilations 2, 4, 8, 16 twice; the decoder drops nothing."""
    network = ERFNet(1, 2)
    assert kernels(network.encoder.stages[1], 3)[1:] == [(3, 1, 1, 1), (1, 3, 1, 1)] * 10
    dilations = [dilation for second in (2, 4, 8, 16) * 2 for dilation in (1, second)]
    pairs = [pair for dilation in dilations for pair in ((3, 1, dilation, 1), (1, 3, 1, dilation))]
    assert kernels(network.encoder.stages[2], 3)[1:] == pairs
    rates = [m.p for m in network.modules() if isinstance(m, nn.Dropout2d)]
    assert rates == [0.03] * 5 + [0.3] * 8 + [0.0] * 4


def test_pretrained_weights_of_other_channels_answer_equal_channels_alike() -> None:
    colours = nn.Conv2d(3, 8, kernel_size=3, padding=1, bias=False)
    other = first_convolution(colours, 5, pretrained=True)
    image = torch.randn(1, 1, 6, 6)
    torch.testing.assert_close(other(image.expand(-1, 5, -1, -1)), colours(image.expand(-1, 3, -1, -1)))


@PRETRAINED
def test_pretrained_weights_are_loaded(network: type[nn.Module], weights: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def published(chosen: WeightsEnum, **_: object) -> dict[str, Tensor]:
        asked.append(chosen)
        model = {"resnet18": "resnet18", "resnet34": "resnet34"}.get(chosen.url.split("/")[-1].split("-")[0], "")
        from torchvision import models

        classifier = getattr(models, model or "mobilenet_v2")()
        return {key: torch.full_like(value, 0.125) for key, value in classifier.state_dict().items()}

    monkeypatch.setattr(WeightsEnum, "get_state_dict", published)
    encoder = network(input_channels=1, num_classes=2, pretrained=True).encoder
    assert asked == [weights.IMAGENET1K_V1]
    assert all((parameter == 0.125).all() for parameter in encoder.parameters())


@PRETRAINED
def test_pretrained_weights_out_of_reach_are_told_in_a_line(
    network: type[nn.Module], weights: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr(WeightsEnum, "get_state_dict", unreachable)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    url = weights.IMAGENET1K_V1.url
    with pytest.raises(UsageError) as caught:
        network(input_channels=1, num_classes=2, pretrained=True)
    message = str(caught.value)
    assert "\n" not in message
    assert str(tmp_path / "hub" / "checkpoints" / url.rsplit("/", 1)[-1]) in message
    assert f"copy {url} there" in message
    with torch.device("meta"):  # there is nothing to fill, so nothing is asked for
        network(input_channels=1, num_classes=2, pretrained=True)
