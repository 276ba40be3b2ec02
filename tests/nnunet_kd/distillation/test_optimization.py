"""Learning rates against torch's and nnU-Net's own schedulers."""

from types import SimpleNamespace

import pytest
import torch
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler

from nnunet_kd.distillation.optimization import OPTIMIZERS, LearningRate
from nnunet_kd.planning import kd_block

COURSE = SimpleNamespace(initial_lr=0.01, num_epochs=120, num_iterations_per_epoch=250)


def rates(schedule: str, course: SimpleNamespace, val_losses: list[float], epochs: range) -> list[float]:
    optimizer = OPTIMIZERS["Adam"]([torch.nn.Parameter(torch.zeros(1))], 1.0, 0.0)
    rate = LearningRate(optimizer, schedule, course, lambda: val_losses)
    found = []
    for epoch in epochs:
        rate.step(epoch)
        found.append(optimizer.param_groups[0]["lr"])
    return found


def test_the_kd_block_knows_every_optimiser() -> None:
    assert set(kd_block.OPTIMIZERS) == set(OPTIMIZERS)


@pytest.mark.parametrize(("name", "kind"), [("SGD", "SGD"), ("AdamW", "AdamW"), ("Adam", "Adam"), ("AMSGrad", "Adam")])
def test_optimisers_are_torchs_with_what_the_name_says(name: str, kind: str) -> None:
    optimizer = OPTIMIZERS[name]([torch.nn.Parameter(torch.zeros(1))], 0.5, 0.25)
    (group,) = optimizer.param_groups
    assert type(optimizer).__name__ == kind
    assert (group["lr"], group["weight_decay"]) == (0.5, 0.25)
    assert group.get("amsgrad", False) == (name == "AMSGrad")
    assert (group.get("momentum"), group.get("nesterov")) == ((0.99, True) if name == "SGD" else (None, None))


def test_poly_is_nnunets() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.01)
    scheduler = PolyLRScheduler(optimizer, 0.01, 120)
    for epoch, rate in enumerate(rates("poly", COURSE, [], range(120))):
        scheduler.step(epoch)
        assert rate == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)


def test_cosine_is_torchs() -> None:
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=0.01)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 120, eta_min=1e-6)
    for rate in rates("cosine", COURSE, [], range(121)):
        assert rate == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-6)
        optimizer.step()
        scheduler.step()


def test_halving_counts_steps_not_epochs() -> None:
    assert rates("halving", COURSE, [], range(63, 65)) == [0.01, 0.005]  # 16,000 steps are 64 epochs of 250
    published = SimpleNamespace(initial_lr=0.01, num_epochs=500, num_iterations_per_epoch=8000)
    assert rates("halving", published, [], range(5)) == [0.01, 0.01, 0.005, 0.005, 0.0025]


def test_plateau_is_torchs_and_goes_on_after_a_resume() -> None:
    generator = torch.Generator().manual_seed(0)
    losses = (torch.rand(200, generator=generator) - torch.linspace(0, 0.3, 200)).tolist()
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=0.01)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=20, min_lr=1e-9)
    expected = []
    for loss in losses:
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step(loss)
    assert len(set(expected)) > 3
    assert rates("plateau", COURSE, losses, range(200)) == pytest.approx(expected)
    assert rates("plateau", COURSE, losses, range(150, 200)) == pytest.approx(expected[150:])
