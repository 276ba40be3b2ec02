"""Claims about Adaptive-CS-Net: sizes, thresholds, what it does before it has learnt, every mask and acceleration."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from nnunet_kd.recon.networks import AdaptiveCSNet
from nnunet_kd.recon.networks.acceleration import log_acceleration
from nnunet_kd.recon.networks.multi_scale import FIRST_THRESHOLD, SoftThreshold
from nnunet_kd.recon.physics.acquisition import Acquisition
from nnunet_kd.recon.physics.masks import MASKS, SamplingSettings, make_mask
from nnunet_kd.recon.physics.operators import acquire
from nnunet_kd.recon.physics.priors import consistency_image

Measure = Callable[..., Acquisition]


def test_thresholds_shrink_towards_zero_and_start_small() -> None:
    shrink = SoftThreshold(2, first=0.5)
    features = torch.tensor([-2.0, -0.3, 0.0, 0.4, 1.0]).expand(1, 2, 1, 5)
    expected = torch.tensor([-1.5, 0, 0, 0, 0.5]).expand(1, 2, 1, 5)
    torch.testing.assert_close(shrink(features), expected)
    assert float(shrink(features, torch.full((1, 2), 9.0)).abs().max()) == 0  # a shift makes them larger
    assert 0.01 <= FIRST_THRESHOLD <= 0.05


def silenced(network: nn.Module) -> nn.Module:
    for name, parameter in network.named_parameters():
        if ".head." in name:
            nn.init.zeros_(parameter)
    return network


@pytest.mark.parametrize("coils", [1, 3])
def test_without_a_transform_it_descends_to_the_measurement(coils: int, acquisition: Measure) -> None:
    measured = acquisition((12, 10), coils=coils)
    image = silenced(AdaptiveCSNet(6, 2, 2))(measured)
    before = consistency_image(measured.image, measured).norm()
    after = consistency_image(image, measured).norm()
    assert float(after) <= (1e-5 if coils == 1 else 0.5 * float(before))


def test_a_new_network_keeps_the_samples_of_a_single_coil(acquisition: Measure) -> None:
    measured = acquisition((13, 10))
    image = AdaptiveCSNet(2, 4, 2)(measured)
    assert float((image - measured.image).abs().max()) > 1e-3  # the transforms do add something
    assert float(consistency_image(image, measured).abs().max()) < 1e-5


@pytest.mark.parametrize("acceleration", [4, 8, 16, 32])
@pytest.mark.parametrize("family", sorted(set(MASKS) - {"file"}))
def test_one_network_takes_every_mask_and_acceleration(family: str, acceleration: int) -> None:
    settings = SamplingSettings(mask=family, acceleration=(acceleration,), n_calibration=max(1, 16 // acceleration))
    mask = torch.from_numpy(make_mask(settings, (64, 64), seed=1))
    kspace = torch.randn(1, 1, 64, 64, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    measured = acquire(kspace, mask)
    told = float(log_acceleration(measured.mask))
    assert told == pytest.approx(float(torch.log(64 * 64 / mask.expand(64, 64).sum())), rel=1e-5)
    image = AdaptiveCSNet(1, 2, 2)(measured)
    assert bool(torch.isfinite(image.abs()).all())
    assert float(consistency_image(image, measured).abs().max()) < 1e-4


def test_the_acceleration_matters_once_it_is_learnt(acquisition: Measure) -> None:
    measured = acquisition()
    torch.manual_seed(0)
    network = AdaptiveCSNet(2, 4, 2)
    more = measured._replace(mask=torch.ones_like(measured.mask))

    def seen(sample: Acquisition) -> Tensor:
        assert network.embedding is not None
        return network.embedding(sample.mask)

    assert not torch.allclose(seen(measured), seen(more))
    first = network.blocks[0].transform.analysis[0]  # type: ignore[union-attr,index]
    features = torch.randn(2, first.first.in_channels, 8, 8)  # type: ignore[union-attr]
    assert torch.equal(first(features, seen(measured))[1], first(features, seen(more))[1])
    nn.init.normal_(first.condition.weight)
    assert not torch.allclose(first(features, seen(measured))[1], first(features, seen(more))[1])
    assert AdaptiveCSNet(1, 2, 2, embed_acceleration=False).embedding is None


def test_priors_can_be_left_out_and_magnitudes_have_no_phase() -> None:
    n_inputs = [
        AdaptiveCSNet(1, 2, 2, priors=priors, complex_data=is_complex).blocks[0].transform.analysis[0].first.in_channels  # type: ignore[union-attr,index]
        for priors, is_complex in (
            ((), True), (("consistency",), True), (("phase",), True), (("background",), True),
            (("consistency", "phase", "background"), False),
        )
    ]  # fmt: skip
    assert n_inputs == [2, 4, 3, 4, 3]


def test_every_parameter_gets_a_gradient_after_a_step(acquisition: Measure) -> None:
    """Conditions start at 0, so what comes before them learns from the second step on."""
    torch.manual_seed(0)
    network, measured = AdaptiveCSNet(2, 4, 2), acquisition()
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(2):
        optimizer.zero_grad()
        network(measured).abs().square().sum().backward()
        optimizer.step()
    silent = [name for name, p in network.named_parameters() if p.grad is None or not float(p.grad.abs().sum())]
    assert silent == []
