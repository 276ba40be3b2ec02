"""Checks that every reconstruction network must pass, whoever adds it."""

import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nnunet_kd.distillation.features import Taps, stage_names
from nnunet_kd.errors import UsageError
from nnunet_kd.recon import networks
from nnunet_kd.recon.networks import DCCNN, VDSR, AdaptiveCSNet, Stylish, TextureNet, UNet, VarNet
from nnunet_kd.recon.physics.acquisition import Acquisition

Measure = Callable[..., Acquisition]


def texture_net(n_context: int, **changes: Any) -> nn.Module:
    """In evaluation, where it is not random; with texture, of which a new one has none."""
    network = TextureNet(2, 4, 2, tokens=3, token_channels=4, texture_channels=4, n_context=n_context, **changes).eval()
    for module in network.generator.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.normal_(module.weight, std=0.1)
    return network


# small ones of each class: how to build it with so many neighbours, the type of its image
NETWORKS: dict[str, tuple[Callable[[int], nn.Module], torch.dtype]] = {
    "dc_cnn": (lambda n: DCCNN(2, 3, 4, n_context=n), torch.complex64),
    "dc_cnn-learnable": (lambda n: DCCNN(2, 3, 4, data_consistency="learnable", n_context=n), torch.complex64),
    "dc_cnn-magnitude": (lambda n: DCCNN(2, 3, 4, complex_data=False, n_context=n), torch.float32),
    "vdsr": (lambda n: VDSR(3, 4, n_context=n), torch.float32),
    "vdsr-complex": (lambda n: VDSR(3, 4, complex_data=True, n_context=n), torch.complex64),
    "unet": (lambda n: UNet(4, 2, n_context=n), torch.float32),
    "unet-complex": (lambda n: UNet(4, 2, complex_data=True, n_context=n), torch.complex64),
    "varnet": (lambda n: VarNet(2, 4, 2, sensitivities="given", n_context=n), torch.complex64),
    "varnet-rss": (lambda n: VarNet(2, 4, 2, sensitivities="given", combination="rss", n_context=n), torch.float32),
    "adaptive_cs_net": (lambda n: AdaptiveCSNet(2, 4, 2, n_context=n), torch.complex64),
    "adaptive_cs_net-magnitude": (lambda n: AdaptiveCSNet(2, 4, 2, complex_data=False, n_context=n), torch.float32),
    "texture_net": (texture_net, torch.complex64),
    "texture_net-global": (lambda n: texture_net(n, modulation="global_adain", attention=False), torch.complex64),
    "stylish": (lambda n: Stylish(4, 1, style_channels=4, encoder_channels=2, n_context=n).eval(), torch.complex64),
}
EVERY = pytest.mark.parametrize("name", NETWORKS)


def build(name: str, n_context: int = 0) -> nn.Module:
    torch.manual_seed(0)
    return NETWORKS[name][0](n_context)


def test_every_network_is_here() -> None:
    assert {type(build(name)).__name__ for name in NETWORKS} == set(networks.__all__)


@EVERY
@pytest.mark.parametrize("n_context", [0, 2])
def test_the_image_has_the_size_of_what_was_measured(name: str, n_context: int, acquisition: Measure) -> None:
    image = build(name, n_context)(acquisition((13, 10), context=n_context))
    assert (image.shape, image.dtype) == ((2, 13, 10), NETWORKS[name][1])


@EVERY
def test_neighbours_matter_and_their_number_is_checked(name: str, acquisition: Measure) -> None:
    network, measured = build(name, 2), acquisition(context=2)
    changed = measured._replace(context=measured.context.flip(1))
    assert not torch.equal(network(measured), network(changed))
    with pytest.raises(UsageError, match="expects 2 neighbouring slices, got 0"):
        network(acquisition())


@EVERY
def test_slices_of_a_batch_do_not_see_each_other(name: str, acquisition: Measure) -> None:
    network, measured = build(name), acquisition()
    alone = Acquisition(*(part[:1] for part in measured))
    torch.testing.assert_close(network(measured)[:1], network(alone), rtol=1e-4, atol=1e-5)


@EVERY
def test_every_weight_learns_and_an_empty_slice_breaks_nothing(name: str, acquisition: Measure) -> None:
    measured = acquisition()
    for sample in (measured, Acquisition(*(torch.zeros_like(part) for part in measured))):
        network = build(name)
        network(sample).abs().square().sum().backward()
        gradients = [parameter.grad for parameter in network.parameters()]
        assert all(gradient is not None and torch.isfinite(gradient).all() for gradient in gradients)


@EVERY
def test_convolutions_follow_autocast_and_the_image_does_not(name: str, acquisition: Measure) -> None:
    network, measured = build(name), acquisition()
    types: list[torch.dtype] = []

    def note(module: nn.Module, inputs: object, output: Tensor) -> None:
        types.append(output.dtype)

    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(note)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        image = network(measured)
    assert set(types) == {torch.bfloat16}
    assert image.dtype == NETWORKS[name][1]
    torch.testing.assert_close(image, network(measured), rtol=0.1, atol=0.1)


@EVERY
def test_stages_and_middle_layers_can_be_tapped(name: str, acquisition: Measure) -> None:
    network = build(name)
    stages = stage_names(network)
    assert set(stages.values()) <= {"encoder", "decoder"}
    assert set(network.middle_layers()) <= set(stages)  # type: ignore[operator]  # a method of ours
    taps = Taps(network, stages)
    network(acquisition())
    maps = taps.take()
    assert maps
    assert set(maps) == set(stages)
    assert all(features.ndim == 4 and len(features) == 2 for features in maps.values())


@EVERY
def test_a_stored_network_is_the_same_network(name: str, acquisition: Measure) -> None:
    network, file = build(name), io.BytesIO()
    torch.save(network.state_dict(), file)
    torch.manual_seed(1)
    again = NETWORKS[name][0](0)
    again.load_state_dict(torch.load(io.BytesIO(file.getvalue()), weights_only=True))
    assert torch.equal(again(acquisition()), network(acquisition()))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DCCNN(cascades=0), "cascades: expected at least 1, got 0"),
        (lambda: DCCNN(convs=1), "at least 2 convolutions and 1 channel, got 1 and 32"),
        (lambda: DCCNN(data_consistency="soft"), "data_consistency: expected one of"),
        (lambda: DCCNN(data_consistency="real"), r"'real' is for magnitudes \(complex_data false\)"),
        (lambda: VDSR(channels=0), "1 channel, got 11 and 0"),
        (lambda: UNet(pools=0), "1 pooling, got 32 and 0"),
        (lambda: AdaptiveCSNet(blocks=0), "blocks: expected at least 1, got 0"),
        (lambda: AdaptiveCSNet(scales=1), "1 channel and 2 scales, got 16 and 1"),
        (lambda: AdaptiveCSNet(priors=["edges"]), "priors: expected among consistency, phase, background, got 'edges'"),
        (lambda: TextureNet(modulation="spade"), "modulation: expected among .*spatial, got 'spade'"),
        (lambda: TextureNet(tokens=0), "at least 1 token of 1 channel, got 0 of 64"),
        (lambda: Stylish(iterations=0), "iterations, got 320, 32 and 0"),
        (lambda: VarNet(cascades=0), "cascades: expected at least 1, got 0"),
        (lambda: VarNet(sensitivities="espirit"), "sensitivities: expected one of learned, given, got 'espirit'"),
        (lambda: VarNet(combination="sum"), "combination: expected one of sensitivities, rss, got 'sum'"),
    ],
)
def test_what_makes_no_network_is_refused(make: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make()
