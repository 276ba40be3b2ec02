"""Claims about the game's formulas: when and for whom the verdict counts, and what each loss wants."""

import pytest
import torch
from torch import nn

from nnunet_kd.recon.training.averaging import WeightAverage
from nnunet_kd.recon.training.game import (
    acceleration_weights,
    discriminator_loss,
    generator_losses,
    grown,
    slope_penalty,
    verdicts,
)
from nnunet_kd.recon.training.spread import divergence, posterior_loss, spread
from nnunet_kd.recon.training.texture_proxy import local_moments


def test_the_weight_is_zero_in_the_warm_up_then_grows_with_acceleration() -> None:
    rates = torch.tensor([2.0, 4.0, 8.0, 16.0, 32.0]).log()
    weights = acceleration_weights(rates)
    torch.testing.assert_close(weights, torch.tensor([0, 0, 1 / 3, 2 / 3, 1]))
    assert [grown(progress, 0.2) for progress in (0.0, 0.1, 0.2)] == [0, 0, 0]
    ramp = [grown(progress, 0.2) for progress in (0.25, 0.3, 0.39, 0.4, 1.0)]
    assert ramp == sorted(ramp)
    assert (ramp[0], ramp[-1]) == (pytest.approx(0.25), 1)
    assert grown(0.0, 0.0) == 1


@pytest.mark.parametrize("game", ["hinge", "logistic"])
def test_players_want_opposite_verdicts(game: str) -> None:
    low, high = ([torch.full((2, 1, 3, 3), value), torch.full((2, 1, 1, 1), value)] for value in (-0.5, 0.5))
    assert (generator_losses(high, game) < generator_losses(low, game)).all()
    assert float(discriminator_loss(high, low, game)) < float(discriminator_loss(low, high, game))
    sure = [torch.full((2, 1, 3, 3), value) for value in (30.0, -30.0)]
    assert float(discriminator_loss(sure[:1], sure[1:], game)) == pytest.approx(0, abs=1e-6)


def test_each_image_has_its_own_loss_and_resolutions_count_alike() -> None:
    fine, coarse = torch.zeros(2, 1, 4, 4), torch.zeros(2, 1, 2, 2)
    fine[1], coarse[1] = 1, 3
    assert generator_losses([fine, coarse], "hinge").tolist() == [0, -2]


def test_one_verdict_per_image_is_the_mean_of_its_patches() -> None:
    logits = [torch.tensor([[[[1.0, -3.0]]]])]
    assert verdicts(logits, "patches")[0] is logits[0]
    assert verdicts(logits, "image")[0].tolist() == [[[[-1.0]]]]
    zeros = [torch.zeros(1, 1, 1, 2)]
    assert float(discriminator_loss(verdicts(logits, "image"), zeros, "hinge")) == 3.0  # max(0, 1 + 1) + 1
    assert float(discriminator_loss(verdicts(logits, "patches"), zeros, "hinge")) == 3.0  # (0 + 4) / 2 + 1


@pytest.mark.parametrize("size", [4, 9])
def test_the_slope_does_not_depend_on_the_image_s_size(size: int) -> None:
    image = torch.rand(3, size, size, requires_grad=True)
    weight = torch.tensor(3.0, requires_grad=True)
    penalty = slope_penalty([weight * image[:, None], weight * image[:, None]], image)
    assert float(penalty.detach()) == pytest.approx(4.5)  # 3 squared, halved
    penalty.backward()
    assert float(weight.grad or 0) == pytest.approx(3)


def test_the_mean_of_weights_is_as_by_hand() -> None:
    network = nn.Sequential(nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1))
    average = WeightAverage(network, 0.5)
    values = [1.0, 2.0, -4.0, 8.0, 8.0, 8.0, 8.0, 8.0, 8.0, 8.0]
    expected = float(network[0].weight)
    for step, value in enumerate(values):
        network[0].weight.data.fill_(value)
        network[1].running_mean.fill_(value)  # type: ignore[operator,union-attr]
        average.update(network)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
    assert float(average.network[0].weight) == pytest.approx(expected)  # type: ignore[index]
    assert float(average.network[1].running_mean) == 8  # type: ignore[index]
    assert not any(weights.requires_grad for weights in average.network.parameters())
    average.restart(network)
    assert (float(average.network[0].weight), average.steps) == (8, 0)  # type: ignore[index]


def test_the_spread_is_the_standard_deviation_of_normal_samples() -> None:
    generator = torch.Generator().manual_seed(0)
    for n_samples in (2, 5):
        samples = 0.3 * torch.randn(n_samples, 4, 64, 64, generator=generator)
        assert float(spread(samples)) == pytest.approx(0.3, rel=0.02)


def test_samples_as_far_apart_as_the_truth_are_best() -> None:
    """Of normal samples about the right mean, those with the posterior's own deviation have the lowest loss."""
    generator = torch.Generator().manual_seed(0)
    target, noise = (torch.randn(*shape, generator=generator) for shape in ((4, 128, 128), (2, 4, 128, 128)))
    losses = {width: float(posterior_loss(width * noise, target)) for width in (0.0, 0.6, 1.0, 1.4)}
    assert min(losses, key=losses.__getitem__) == 1.0


def test_divergence_is_a_mean_with_free_bits() -> None:
    mean, log_variance = torch.tensor([[2.0, 0.0]]), torch.zeros(1, 2)
    assert float(divergence(mean, log_variance, 0.0)) == pytest.approx(1.0)  # (2 + 0) / 2
    assert float(divergence(mean, log_variance, 0.1)) == pytest.approx(1.05)
    assert float(divergence(mean.repeat(7, 9), log_variance.repeat(7, 9), 0.0)) == pytest.approx(1.0)
    free = torch.full((1, 2), 0.1, requires_grad=True)
    divergence(free, log_variance, 0.1).backward()
    assert free.grad is not None
    assert not free.grad.any()


def test_moments_tell_texture_but_not_its_phase() -> None:
    columns = torch.arange(16.0)
    wave = torch.stack([torch.cos(1.5708 * columns), torch.sin(1.5708 * columns)])[None, :, None].expand(1, 2, 16, 16)
    moments = local_moments(wave)
    assert moments.shape == (1, 3, 7, 7)
    torch.testing.assert_close(local_moments(wave.roll(1, dims=-1)), moments, atol=1e-3, rtol=0)
    torch.testing.assert_close(local_moments(2 * wave), 4 * moments)
    half = torch.cat([wave[..., :8], 0 * wave[..., 8:]], dim=-1)
    torch.testing.assert_close(local_moments(half)[..., :3], moments[..., :3])  # it stays where it is
    assert not local_moments(half)[..., 5:].any()
