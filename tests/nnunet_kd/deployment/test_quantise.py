"""Int8 networks: which layers are quantised, with what they are calibrated, and the limit on the score."""

import sys
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from nnunet_kd.deployment.conversion import to_openvino
from nnunet_kd.deployment.example_patches import Patch
from nnunet_kd.deployment.quantise import border_convolutions, quantise
from nnunet_kd.errors import UsageError

SHAPE = (1, 2, 16, 16)


def patches(n: int) -> list[Patch]:
    rng = np.random.default_rng(0)
    return [Patch(case=str(i), image=rng.normal(size=SHAPE[1:]).astype(np.float32)) for i in range(n)]


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    widths = (2, 8, 8, 8, 3)
    layers = [
        layer for n_in, n_out in pairwise(widths) for layer in (nn.Conv2d(n_in, n_out, 3, padding=1), nn.LeakyReLU())
    ]
    return nn.Sequential(*layers[:-1]).eval()


def convolutions(model: object) -> list[str]:
    nodes = model.get_ordered_ops()  # type: ignore[attr-defined]
    return [node.get_friendly_name() for node in nodes if node.get_type_name() == "Convolution"]


def quantised_layers(model: object) -> int:
    nodes = model.get_ordered_ops()  # type: ignore[attr-defined]
    inputs = [node.input_value(0).get_node().get_type_name() for node in nodes if node.get_type_name() == "Convolution"]
    return inputs.count("FakeQuantize")


def test_first_and_last_convolution_are_found(network: nn.Module) -> None:
    pytest.importorskip("openvino")
    model = to_openvino(network, SHAPE)
    first, *_, last = convolutions(model)
    assert border_convolutions(model) == {first, last}


def test_the_inner_layers_are_int8_and_the_result_is_near(network: nn.Module) -> None:
    ov = pytest.importorskip("openvino")
    pytest.importorskip("nncf")
    model = to_openvino(network, SHAPE)
    quantised = quantise(model, patches(4))
    assert quantised_layers(quantised) == 2
    patch = torch.from_numpy(patches(1)[0].image[None])
    found = ov.Core().compile_model(quantised, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(patch.numpy())[0]
    expected = network(patch).detach().numpy()
    assert 0 < np.abs(found - expected).max() < 0.1 * np.abs(expected).max()


def test_layers_go_back_to_float_until_the_score_is_kept(network: nn.Module) -> None:
    """A score that nothing but float32 keeps undoes every layer."""
    pytest.importorskip("openvino")
    pytest.importorskip("nncf")
    checked = patches(2)
    with torch.no_grad():
        expected = [network(torch.from_numpy(patch.image[None]))[0].numpy() for patch in checked]

    def score(found: list[np.ndarray]) -> float:
        return -float(max(np.abs(a - b).max() for a, b in zip(found, expected, strict=True)))

    loose = quantise(to_openvino(network, SHAPE), patches(4), score=score, checked=checked, max_drop=100.0)
    strict = quantise(to_openvino(network, SHAPE), patches(4), score=score, checked=checked, max_drop=1e-9)
    assert quantised_layers(loose) == 2
    assert quantised_layers(strict) < 2


def test_nothing_to_calibrate_with_is_refused(network: nn.Module) -> None:
    pytest.importorskip("openvino")
    pytest.importorskip("nncf")
    with pytest.raises(UsageError, match=r"calibrated with real patches.*--cases"):
        quantise(to_openvino(network, SHAPE), [])


def test_a_missing_nncf_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(UsageError, match=r"pip install 'nnunet-kd\[int8\]'"):
        quantise(None, patches(1))
