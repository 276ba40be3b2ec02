"""The game on tiny data: who learns from whom and when, and that an interruption leaves no trace."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from nnunet_kd.recon.training.adversarial import AdversarialTrainer
from nnunet_kd.recon.training.batches import read_batches, to_device
from nnunet_kd.recon.training.generated import gather_images
from nnunet_kd.recon.training.run import find_run
from nnunet_kd.recon.training.trainers import find_trainer
from nnunet_kd.recon.training.validation import validate_epoch

Planned = Callable[..., dict[str, Any]]
BASE = {"blocks": 1, "channels": 4, "scales": 2}
TEXTURE = {
    "network_class_name": "nnunet_kd.recon.networks.TextureNet",
    "arch_kwargs": {**BASE, "tokens": 3, "token_channels": 4, "texture_channels": 4},
}
STYLISH = {
    "network_class_name": "nnunet_kd.recon.networks.Stylish",
    "arch_kwargs": {"channels": 4, "pools": 2, "style_channels": 6, "encoder_channels": 2},
}
SMALL = {"discriminator": {"channels": 4, "layers": 2}, "proxy": {"features": 4, "channels": 2, "steps": 5}}
STYLISH_BLOCK = {
    **SMALL,
    "n_samples": 1,
    "discriminator": {"channels": 4, "layers": 2, "judges": "image", "game": "logistic", "cutoff": None},
    "proxy": {"compares": "vector", "channels": 2, "steps": 5},
}
BASELINE = "Dataset950_Discs/AdaptiveCSNetTrainer__nnUNetReconPlans__2d"
NAME = "nnUNetReconTexturePlans"


def texture_plans(planned: Planned, *, stylish: bool = False, block: Any = None, **changes: Any) -> dict[str, Any]:
    """Return plans at accelerations 8 and 16; ``block`` changes the generative one."""
    generative = {**(STYLISH_BLOCK if stylish else SMALL), "warm_up": 0.25, "r1_interval": 2, **(block or {})}
    content = planned(NAME, **{"architecture": STYLISH if stylish else TEXTURE, "num_epochs": 4, **changes})
    content["configurations"]["2d"]["generative"] = generative
    content["sampling"] = {"mask": "random", "acceleration": [8, 16]}
    return content


def make(site: Any, content: dict[str, Any], name: str = "TextureNetTrainer") -> Any:
    site.write(content)
    trainer = find_trainer(name)(find_run("950", "2d", "0", name, NAME), torch.device("cpu"))
    assert isinstance(trainer, AdversarialTrainer)
    trainer.prepare(batch(trainer))
    return trainer


def batch(trainer: Any, step: int = 0) -> Any:
    (sample,) = read_batches(trainer.cases, trainer.settings, [[2 * step, 2 * step + 1]], seed=1, epoch=0)
    return to_device(sample, trainer.device)


def take(trainer: Any, n_steps: int, progress: float) -> list[dict[str, torch.Tensor]]:
    trainer.network.train()
    return [trainer.step(batch(trainer, step % 4), trainer.stages[0], progress) for step in range(n_steps)]


@pytest.fixture
def with_baseline(site: Any, planned: Planned) -> Any:
    """A site with a trained baseline."""
    architecture = {"network_class_name": "nnunet_kd.recon.networks.AdaptiveCSNet", "arch_kwargs": BASE}
    assert site.train("AdaptiveCSNetTrainer", planned("nnUNetReconPlans", architecture=architecture)) == 0
    return site


@pytest.mark.parametrize(("name", "stylish"), [("TextureNetTrainer", False), ("StylishTrainer", True)])
def test_neither_player_gets_the_other_s_gradients(site: Any, planned: Planned, name: str, stylish: bool) -> None:
    trainer = make(site, texture_plans(planned, stylish=stylish), name)
    take(trainer, 1, 0.9)
    for network in (trainer.generator, trainer.opponent.network):
        network.zero_grad(set_to_none=True)
    parts, baseline = trainer.generate(batch(trainer).acquisition)
    generated = gather_images(batch(trainer), parts, baseline)
    trainer.opponent.generator_losses(generated).mean().backward(retain_graph=True)
    assert all(weights.grad is None for weights in trainer.opponent.network.parameters())
    assert any(weights.grad is not None for weights in trainer.generator.parameters())
    trainer.generator.zero_grad(set_to_none=True)
    before = [weights.detach().clone() for weights in trainer.opponent.network.parameters()]
    trainer.opponent.step(generated)
    assert all(weights.grad is None for weights in trainer.generator.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(before, trainer.opponent.network.parameters(), strict=True))


@pytest.mark.parametrize("frozen", [True, False])
def test_every_weight_learns_but_a_frozen_baseline_s(with_baseline: Any, planned: Planned, frozen: bool) -> None:
    block = {"baseline": BASELINE, "freeze_baseline": frozen}
    trainer = make(with_baseline, texture_plans(planned, block=block, initial_lr=0.01))
    before = {name: weights.detach().clone() for name, weights in trainer.generator.named_parameters()}
    take(trainer, 8, 0.9)
    still = {name for name, weights in trainer.generator.named_parameters() if torch.equal(before[name], weights)}
    assert still == ({name for name in before if name.startswith("baseline.")} if frozen else set())


def test_every_weight_of_the_published_form_learns(site: Any, planned: Planned) -> None:
    trainer = make(site, texture_plans(planned, stylish=True, initial_lr=0.01), "StylishTrainer")
    before = {name: weights.detach().clone() for name, weights in trainer.generator.named_parameters()}
    take(trainer, 6, 0.9)
    assert not {name for name, weights in trainer.generator.named_parameters() if torch.equal(before[name], weights)}


def test_the_start_is_the_baseline(with_baseline: Any, planned: Planned) -> None:
    """Its scores are the trained baseline's, before any step; a network without it would score otherwise."""
    trainer = make(with_baseline, texture_plans(planned, block={"baseline": f"{BASELINE}:0", "freeze_baseline": True}))
    acquisition = batch(trainer).acquisition
    with torch.no_grad():
        for network in (trainer.generator, trainer.average.network):
            assert torch.equal(network.sample(acquisition, 5), network.baseline(acquisition))
    found = torch.load(
        with_baseline.fold("AdaptiveCSNetTrainer", "nnUNetReconPlans") / "checkpoint_final.pth", weights_only=True
    )
    for key, weights in found["network_weights"].items():
        assert torch.equal(trainer.average.network.baseline.state_dict()[key], weights)


def test_no_discriminator_changes_the_baseline(site: Any, planned: Planned) -> None:
    """One that is trained along goes the way of its own supervision only."""
    ends = []
    for weight in (0.0, 5.0):
        trainer = make(site, texture_plans(planned, block={"adversarial_weight": weight}))
        take(trainer, 4, 0.9)
        ends.append(trainer.generator.baseline.state_dict())
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])


def test_the_warm_up_has_no_discriminator(site: Any, planned: Planned) -> None:
    trainer = make(site, texture_plans(planned))
    (early,) = take(trainer, 1, 0.2)
    assert {"adversarial", "discriminator", "r1"}.isdisjoint(early)
    first, second, third = take(trainer, 3, 0.6)
    assert {"adversarial", "discriminator", "r1"} <= set(first)
    assert "r1" not in second  # every second step
    assert "r1" in third


def test_the_proxy_is_trained_first_and_then_fixed(site: Any, planned: Planned) -> None:
    trainer = make(site, texture_plans(planned, block={"proxy": {"features": 4, "channels": 2, "steps": 60}}))
    take(trainer, 1, 0.0)
    fixed = {key: value.clone() for key, value in trainer.proxy.encoder.state_dict().items()}
    features = trainer.proxy.features(batch(trainer).target)
    torch.testing.assert_close(features.square().mean(), torch.tensor(1.0), rtol=0.7, atol=0)
    target = batch(trainer).target
    assert float(trainer.proxy.gram_loss(target[None], target)) == 0
    assert float(trainer.proxy.gram_loss(torch.rand_like(target)[None], target)) > 0.1
    take(trainer, 2, 0.9)
    assert all(torch.equal(fixed[key], value) for key, value in trainer.proxy.encoder.state_dict().items())


def test_the_saved_weights_are_the_mean_over_steps(site: Any, planned: Planned) -> None:
    trainer = make(site, texture_plans(planned, block={"ema": 0.25}))
    name = "generator.head.weight"
    mean = dict(trainer.generator.named_parameters())[name].detach().clone()
    for decay in (0.1, 2 / 11, 0.25, 0.25):  # (1 + n) / (10 + n) until it exceeds the plans'
        take(trainer, 1, 0.9)
        mean = decay * mean + (1 - decay) * dict(trainer.generator.named_parameters())[name].detach()
        torch.testing.assert_close(dict(trainer.bare_network().named_parameters())[name], mean, rtol=1e-4, atol=1e-8)
    assert not torch.equal(trainer.bare_network().state_dict()[name], trainer.generator.state_dict()[name])


@pytest.mark.parametrize(("name", "stylish"), [("TextureNetTrainer", False), ("StylishTrainer", True)])
def test_continuing_is_bit_exact(
    site: Any, planned: Planned, monkeypatch: pytest.MonkeyPatch, name: str, stylish: bool
) -> None:
    content = texture_plans(planned, stylish=stylish, num_epochs=3)
    assert site.train(name, content) == 0
    whole = torch.load(site.fold(name, NAME) / "checkpoint_final.pth", weights_only=True)
    again = {**content, "plans_name": "nnUNetReconAgainPlans"}
    with monkeypatch.context() as context:
        context.setattr("nnunet_kd.recon.training.loop.Loop._plot", stop_after(2))
        with pytest.raises(KeyboardInterrupt):
            site.train(name, again)
    assert site.train(name, again, "--c") == 0
    resumed = torch.load(site.fold(name, "nnUNetReconAgainPlans") / "checkpoint_final.pth", weights_only=True)
    losses = {key: row for key, row in whole["logging"].items() if not key.startswith("epoch_")}
    assert {"part_discriminator", "part_adversarial", "val_PSNR x8", "val_PSNR x16"} <= set(losses)
    for key, row in losses.items():
        assert torch.equal(torch.tensor(row).nan_to_num(-1), torch.tensor(resumed["logging"][key]).nan_to_num(-1)), key
    check_equal(whole["network_weights"], resumed["network_weights"])
    for part in ("generator", "discriminator", "proxy", "averaged_steps"):
        check_equal(whole["kd"][part], resumed["kd"][part])


def stop_after(epochs: int) -> Callable[[Any], None]:
    def stop(loop: Any) -> None:
        if loop.epoch == epochs:
            raise KeyboardInterrupt

    return stop


def check_equal(one: Any, other: Any) -> None:
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            check_equal(one[key], other[key])
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, list | tuple):
        for a, b in zip(one, other, strict=True):
            check_equal(a, b)
    else:
        assert one == other


def test_validation_is_of_the_mean_at_every_acceleration(site: Any, planned: Planned) -> None:
    trainer = make(site, texture_plans(planned))
    take(trainer, 4, 0.9)
    scores = validate_epoch(trainer)
    assert scores["PSNR"] == pytest.approx((scores["PSNR x8"] + scores["PSNR x16"]) / 2)
    assert scores["PSNR x8"] > scores["PSNR x16"]
    acquisition = batch(trainer).acquisition
    with torch.no_grad():
        each = [trainer.bare_network().eval().sample(acquisition, seed).abs() for seed in range(4)]
    torch.testing.assert_close(trainer.reconstruct(acquisition), sum(each[1:], each[0]) / 4)


@pytest.mark.usefixtures("pictures")
def test_every_epoch_has_a_picture(site: Any, planned: Planned) -> None:
    assert site.train("TextureNetTrainer", texture_plans(planned, num_epochs=2)) == 0
    folder = site.fold("TextureNetTrainer", NAME)
    names = {path.name for path in folder.glob("*.png")}
    assert names == {"progress.png", "samples_epoch_0.png", "samples_epoch_1.png", "samples_latest.png"}
    assert (folder / "samples_latest.png").read_bytes() == (folder / "samples_epoch_1.png").read_bytes()
    assert not list(folder.glob(".*png"))


@pytest.mark.parametrize("player", ["generator", "discriminator"])
def test_a_loss_that_is_lost_ends_in_one_line(
    site: Any, planned: Planned, player: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = {"generator": "posterior_loss", "discriminator": "slope_penalty"}[player]
    place = {"generator": "adversarial", "discriminator": "opponent"}[player]
    lost = torch.tensor(float("nan"))
    monkeypatch.setattr(f"nnunet_kd.recon.training.{place}.{name}", lambda *_: lost.clone().requires_grad_())
    assert site.train("TextureNetTrainer", texture_plans(planned, block={"warm_up": 0})) == 2
    message = capsys.readouterr().err
    assert f"the {player}'s loss became nan" in message
    assert len(message.strip().splitlines()) == 1
    assert not list(site.fold("TextureNetTrainer", NAME).glob("*.pth"))
