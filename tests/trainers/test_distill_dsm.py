"""Claims about trainings of Distill DSM's student, alone and with a 3-D teacher."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from nnunet_kd.networks.dsm_unet import DSMUNet

Make = Callable[..., Any]
Plan = Callable[..., int]

STUDENT = ("--shrink", "1", "--seed", "5", "--student", "dsm_unet")
BIN = Path(sys.executable).parent


@pytest.fixture
def started(plan: Plan, make_trainer: Make, of: Any) -> Callable[..., Any]:
    """Plan a student and start its training."""

    def start(*options: str, **plan_options: Any) -> Any:
        assert plan(*STUDENT, *options, **plan_options) == 0
        return of.started(make_trainer(trainer="DistillDSMTrainer"))

    return start


def step(trainer: Any) -> dict[str, Any]:
    result: dict[str, Any] = trainer.train_step(next(trainer.dataloader_train))
    return result


@pytest.mark.parametrize("shift", ["distill", "residual", "none"])
def test_the_student_learns_from_labels_by_the_published_loss(
    shift: str, started: Callable[..., Any], site: Any, of: Any
) -> None:
    trainer = started("--method", "distill_dsm", "--student", f"dsm_unet:shift={shift}", with_teacher=False)
    network = trainer.bare_network()
    assert isinstance(network, DSMUNet)
    before = of.weights(trainer)
    result = step(trainer)
    assert 0 < result["loss"] < 1  # a Dice loss of probabilities
    assert result["loss"] == pytest.approx(float(result["kd_supervision"]))
    assert of.largest_difference(before, of.weights(trainer)) > 0
    strides = site.plans("nnUNetKDPlans")["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]["strides"]
    assert [stride[0] for stride in strides] == [1] * len(strides)
    assert strides[-1] == [1, 2, 2]


@pytest.mark.parametrize("depth", [7, 13])
def test_patches_of_odd_depth_train(depth: int, plan: Plan, make_trainer: Make, site: Any, of: Any) -> None:
    plan(*STUDENT, "--method", "distill_dsm", with_teacher=False)
    plans = site.plans("nnUNetKDPlans")
    plans["configurations"]["3d_fullres"]["patch_size"][0] = depth
    site.write_plans(plans)
    trainer = of.started(make_trainer(trainer="DistillDSMTrainer"))
    batch = next(trainer.dataloader_train)
    assert batch["data"].shape[2] == depth
    assert 0 < trainer.train_step(batch)["loss"] < 1


def test_a_geometry_sets_patch_and_batch(plan: Plan, site: Any) -> None:
    assert plan(*STUDENT, "--method", "distill_dsm", "--geometry", "pancreas", with_teacher=False) == 0
    planned = site.plans("nnUNetKDPlans")["configurations"]["3d_fullres"]
    assert (planned["patch_size"], planned["batch_size"]) == ([145, 128, 128], 4)


def test_a_3d_teacher_teaches_outputs_and_stages(started: Callable[..., Any], of: Any) -> None:
    pairs = '[["encoder[:]","encoder[:]"],["decoder[:]","decoder[:]"]]'
    trainer = started("--losses", "logits_kl", f"fitnet:pairs={pairs}", "--student", "dsm_unet:alpha=0.5")
    assert "encoder.stages.2 - encoder.stages.2" in of.log(trainer)
    result = step(trainer)
    assert result["kd_logits_kl"] > 0
    assert result["kd_fitnet"] > 0


def test_deep_supervision_has_nnunets_scales_and_the_teachers(started: Callable[..., Any]) -> None:
    trainer = started("--method", "distill_dsm_kd", "--student", "dsm_unet:auxiliary_heads=true")
    batch = next(trainer.dataloader_train)
    outputs = trainer.network(batch["data"])
    assert [x.shape[2:] for x in outputs] == [x.shape[2:] for x in batch["target"]]
    assert len(outputs) == len(trainer.bare_network().decoder.stages) > 1
    assert trainer.train_step(batch)["kd_logits_kl"] > 0
    trainer.set_deep_supervision_enabled(False)
    assert isinstance(trainer.network(batch["data"]), torch.Tensor)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("-c", "2d"), "--student dsm_unet: expected a 3-D configuration"),
        (("--alpha", "0.3"), "expected a multiple of 4; type --alpha "),
        (("--alpha", "-1"), "alpha: expected a number >= 0 and <= 1, got -1.0"),
    ],
    ids=["2d", "channels", "range"],
)
def test_what_cannot_be_planned_writes_nothing(
    options: tuple[str, ...], said: str, plan: Plan, site: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan(*STUDENT, "--method", "distill_dsm", *options, with_teacher=False) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (site.preprocessed / site.dataset / "nnUNetKDPlans.json").exists()
