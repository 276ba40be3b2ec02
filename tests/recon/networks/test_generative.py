"""Claims about the generative networks: what a seed fixes, what is added where, and what learns."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from nnunet_kd.recon.networks import AdaptiveCSNet, Stylish, TextureNet
from nnunet_kd.recon.networks.acceleration import log_acceleration
from nnunet_kd.recon.networks.discriminators import PatchDiscriminator
from nnunet_kd.recon.networks.generative import GenerativeNetwork, NoiseInjection, draw_latent, halved_noise
from nnunet_kd.recon.networks.texture_encoder import TextureEncoder
from nnunet_kd.recon.networks.tokens import MODULATIONS
from nnunet_kd.recon.physics.acquisition import Acquisition
from nnunet_kd.recon.physics.null_space import visible_share

Measure = Callable[..., Acquisition]
KINDS = [(mode, attention) for mode in MODULATIONS for attention in (True, False)]
EVERY_KIND = pytest.mark.parametrize(("mode", "attention"), KINDS)


def texture_net(mode: str = "spatial", *, attention: bool = True, trained: bool = False, **changes: Any) -> TextureNet:
    torch.manual_seed(0)
    sizes = {"tokens": 3, "token_channels": 4, "texture_channels": 4}
    network = TextureNet(1, 2, 2, modulation=mode, attention=attention, **sizes, **changes)
    return randomised(network) if trained else network  # type: ignore[return-value]


def randomised(network: nn.Module) -> nn.Module:
    """Give every weight that starts at 0, noise among them, a value as if it had learnt."""
    for parameter in network.parameters():
        if not float(parameter.detach().abs().sum()):
            nn.init.normal_(parameter, std=0.3)
    return network


def stylish(*, trained: bool = False) -> Stylish:
    torch.manual_seed(0)
    network = Stylish(4, 2, style_channels=4, encoder_channels=2)
    return randomised(network) if trained else network  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("network", "parameters"),
    [
        (AdaptiveCSNet, 892_105),
        (lambda: AdaptiveCSNet(channels=8), 234_249),
        (TextureNet, 1_138_203),
        (Stylish, 9_757_157),
        (PatchDiscriminator, 218_818),
        (TextureEncoder, 68_289),
    ],
    ids=["adaptive_cs_net", "adaptive_cs_net-thin", "texture_net", "stylish", "discriminator", "texture_encoder"],
)
def test_the_sizes_are_as_documented(network: Callable[[], nn.Module], parameters: int) -> None:
    assert sum(parameter.numel() for parameter in network().parameters()) == parameters


@EVERY_KIND
@pytest.mark.parametrize("null_space", [True, False])
def test_a_new_network_is_its_baseline_bit_for_bit(
    mode: str, attention: bool, null_space: bool, acquisition: Measure
) -> None:
    measured, network = acquisition((13, 10)), texture_net(mode, attention=attention, null_space=null_space)
    baseline = AdaptiveCSNet(1, 2, 2)
    baseline.load_state_dict(network.baseline.state_dict())
    assert torch.equal(network(measured), baseline(measured))
    assert torch.equal(network.eval()(measured), baseline(measured))


@EVERY_KIND
def test_the_detail_is_not_seen_by_the_measurement(mode: str, attention: bool, acquisition: Measure) -> None:
    measured, network = acquisition((13, 10)), texture_net(mode, attention=attention, trained=True)
    parts = network.parts(measured, network.latent(measured, 1))
    assert float(parts["detail"].abs().max()) > 1e-3
    assert float(visible_share(parts["image"] - parts["baseline"], measured).max()) < 1e-6
    free = texture_net(mode, attention=attention, trained=True, null_space=False)
    assert float(visible_share(free.parts(measured, free.latent(measured, 1))["detail"], measured).max()) > 1e-3


def test_several_coils_see_little_of_the_detail(acquisition: Measure) -> None:
    measured, network = acquisition((16, 16), coils=2), texture_net(trained=True)
    parts = network.parts(measured, network.latent(measured, 1))
    free = texture_net(trained=True, null_space=False).parts(measured, network.latent(measured, 1))
    assert bool((visible_share(parts["detail"], measured) < 0.05 * visible_share(free["detail"], measured)).all())


@EVERY_KIND
def test_the_attention_sums_to_one(mode: str, attention: bool, acquisition: Measure) -> None:
    measured, network = acquisition((13, 10)), texture_net(mode, attention=attention, trained=True)
    parts = network.parts(measured, network.latent(measured, 1))
    n_tokens = 1 if mode == "global_adain" else 3
    assert parts["tokens"].shape == (2, n_tokens, 4)
    assert parts["attention"].shape == ((2, n_tokens, 13, 10) if mode == "spatial" else (2, n_tokens, 1, 1))
    torch.testing.assert_close(parts["attention"].sum(1), torch.ones_like(parts["attention"][:, 0]))
    assert parts["style"].shape == ((2, 4, 7, 5) if mode == "spatial" else (2, 4, 1, 1))


@pytest.mark.parametrize("make", [texture_net, stylish], ids=["texture_net", "stylish"])
def test_a_seed_gives_one_image_and_another_seed_another(
    make: Callable[..., GenerativeNetwork], acquisition: Measure
) -> None:
    measured, network = acquisition((13, 10)), make(trained=True)
    alone = Acquisition(*(part[1:] for part in measured))
    with torch.no_grad():
        images = network.samples(measured, [0, 1, 0])
        assert images.shape == (3, 2, 13, 10)
        assert torch.equal(images[0], images[2])
        assert float((images[0] - images[1]).abs().max()) > 1e-4
        torch.testing.assert_close(network.sample(alone, 1)[0], images[1][1], rtol=1e-4, atol=1e-5)
        assert not torch.equal(network(measured), network(measured))  # in training each call draws anew
        assert torch.equal(network.eval()(measured), images[0])


def test_numbers_are_standard_normal_at_every_scale(acquisition: Measure) -> None:
    measured = acquisition((64, 64))
    latent = draw_latent(measured, 4096, 3)
    assert torch.equal(latent.vector[0], latent.vector[1])
    for values in (latent.vector, latent.noise, halved_noise(latent.noise)):
        assert float(values.std()) == pytest.approx(1, abs=0.05)
    own = draw_latent(measured, 8, None)
    assert not torch.equal(own.vector[0], own.vector[1])
    features = torch.ones(2, 3, 64, 64)
    assert torch.equal(NoiseInjection(3)(features, latent.noise), features)


@pytest.mark.parametrize("make", [texture_net, stylish], ids=["texture_net", "stylish"])
def test_every_parameter_gets_a_gradient_after_some_steps(
    make: Callable[..., GenerativeNetwork], acquisition: Measure
) -> None:
    """Head, modulation and noise start at 0: the first step moves the head, the next ones what comes before it."""
    network, measured = make(), acquisition((16, 16))
    network.parts(measured, network.latent(measured))["image"].abs().square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(4):
        optimizer.zero_grad()
        network(measured).abs().square().sum().backward()
        optimizer.step()
    silent = [name for name, p in network.named_parameters() if not float(p.grad.abs().sum())]  # type: ignore[union-attr]
    assert silent == []


def test_the_published_form_has_nine_places_for_style_and_noise() -> None:
    places = [module for module in Stylish().modules() if isinstance(module, NoiseInjection)]
    assert len(places) == 9
    assert all(float(place.strength.abs().sum()) == 0 for place in places)


@pytest.mark.parametrize("cutoff", [0.06, None])
def test_the_discriminator_judges_patches(cutoff: float | None, acquisition: Measure) -> None:
    torch.manual_seed(0)
    network = PatchDiscriminator(4, cutoff=cutoff).eval()
    image, condition = torch.rand(2, 2, 40, 36).unbind(0)
    image.requires_grad_()
    told = log_acceleration(acquisition().mask)
    logits = network(image, condition, told)
    assert [scale.shape for scale in logits] == [(2, 1, 10, 9), (2, 1, 5, 4)]
    logits[0][0, 0, 0, 0].backward()
    assert image.grad is not None
    assert float(image.grad[1].abs().sum()) == 0  # slices of a batch are judged apart
    assert not torch.allclose(network(image, condition, told + 1)[0], logits[0])
    assert not torch.allclose(network(image, 0 * condition, told)[0], logits[0])
    brighter = network(image + 1, condition, told)[0]
    assert torch.allclose(brighter, logits[0], atol=1e-3) is (cutoff is not None)
    with pytest.raises(ValueError, match="resolutions need larger images"):
        network(image[:, :15], condition[:, :15], told)


def test_the_texture_encoder_sees_no_low_frequencies() -> None:
    torch.manual_seed(0)
    network, image = TextureEncoder(4, 2), torch.rand(2, 20, 17)
    truth, found = network(image)
    assert truth.shape == found.shape == (2, 16, 16)
    assert network.encode(image).shape == (2, 4, 2, 2)
    torch.testing.assert_close(network.encode(image + 3), network.encode(image), rtol=1e-3, atol=1e-4)
    (found - truth).abs().mean().backward()
    assert all(float(parameter.grad.abs().sum()) > 0 for parameter in network.parameters())  # type: ignore[union-attr]
