import pytest
import torch

from nnunet_kd.recon.planning.plan_blocks import OPTIMIZERS, Training
from nnunet_kd.recon.training.rates import build_optimizer, learning_rate, plan_stages


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_of_the_plans_takes_steps(name: str) -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = build_optimizer(name, [weight], 0.1)
    weight.square().sum().backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    assert (weight < 1).all()


def test_step_is_torch_s_own() -> None:
    training = Training(lr_step=3, lr_gamma=0.5)
    optimizer = build_optimizer("Adam", [torch.nn.Parameter(torch.ones(1))], training.initial_lr)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 3, 0.5)
    for epoch in range(10):
        assert learning_rate(training, epoch, 10) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize("name", ["cosine", "poly"])
def test_the_others_fall_to_zero(name: str) -> None:
    training = Training(lr_schedule=name)
    rates = [learning_rate(training, epoch, 20) for epoch in range(21)]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] == training.initial_lr
    assert rates[-1] == pytest.approx(0, abs=1e-12)


def test_stages_share_the_budget_of_one() -> None:
    joint = plan_stages(Training(num_epochs=301), has_features=True)
    staged = plan_stages(Training(num_epochs=301, schedule="staged"), has_features=True)
    assert [stage.length for stage in joint] == [301]
    assert [(stage.first, stage.length) for stage in staged] == [(0, 150), (150, 151)]
    assert [(s.supervision, s.features, s.images) for s in staged] == [(False, True, False), (True, False, True)]
    assert [staged[1].contains(epoch) for epoch in (149, 150, 300, 301)] == [False, True, True, False]


def test_a_control_has_no_first_stage() -> None:
    assert len(plan_stages(Training(num_epochs=4, schedule="staged"), has_features=False)) == 1
