"""Claims about trainings that compare features: adapters, schedules, resuming."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nnunet_kd.cli import main

Make = Callable[..., Any]
Plan = Callable[..., int]

HINTS = ["--losses", "fitnet:weight=0.5,schedule=cosine", "logits_kl:until=0.5"]


def test_resumed_equals_uninterrupted_with_adapters_and_schedules(plan: Plan, make_trainer: Make, of: Any) -> None:
    plan(*HINTS, "--seed", "5", "--epochs", "3")
    whole = make_trainer()
    whole.run_training()
    weights, adapters = of.weights(whole), dict(whole.features.adapters.state_dict())
    shutil.rmtree(whole.output_folder)

    of.interrupted(make_trainer())
    second = make_trainer(continue_training=True)
    second.load_checkpoint(str(Path(second.output_folder) / "checkpoint_latest.pth"))
    second.run_training()
    assert of.largest_difference(weights, of.weights(second)) < 1e-6
    assert of.largest_difference(adapters, dict(second.features.adapters.state_dict())) < 1e-6
    log = second.logger.local_logger.my_fantastic_logging
    assert np.isnan(log["kd_logits_kl"]).tolist() == [False, False, True]  # its time is over, in the second epoch
    assert all(value > 0 for value in log["kd_fitnet"])


def test_adapters_learn_and_stay_out_of_the_student(plan: Plan, make_trainer: Make, of: Any) -> None:
    plan(*HINTS, "--seed", "5")
    trainer = of.started(make_trainer())
    before = {name: value.clone() for name, value in trainer.features.adapters.state_dict().items()}
    assert before
    trainer.train_step(next(trainer.dataloader_train))
    assert of.largest_difference(before, trainer.features.adapters.state_dict()) > 0
    inside = {id(parameter) for group in trainer.optimizer.param_groups for parameter in group["params"]}
    assert not inside & {id(parameter) for parameter in trainer.features.adapters.parameters()}
    trainer.save_checkpoint(str(Path(trainer.output_folder) / "checkpoint_final.pth"))
    stored = torch.load(Path(trainer.output_folder) / "checkpoint_final.pth", weights_only=False)
    assert set(stored["kd"]["adapters"]["weights"]) == set(before)
    assert set(stored["network_weights"]) == set(trainer.bare_network().state_dict())
    trainer.features.taps.remove()
    assert not any(module._forward_hooks for module in trainer.bare_network().modules())


def test_a_checkpoint_with_other_adapters_is_refused(
    plan: Plan, make_trainer: Make, of: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    plan("--losses", "fitnet:pairs=encoder")
    trainer = of.started(make_trainer())
    trainer.save_checkpoint(str(Path(trainer.output_folder) / "checkpoint_latest.pth"))
    plan("--losses", "fitnet:pairs=decoder", "--overwrite")
    resumed = make_trainer(continue_training=True)
    resumed.load_checkpoint(str(Path(resumed.output_folder) / "checkpoint_latest.pth"))
    with pytest.raises(SystemExit):
        resumed.on_train_start()
    assert "adapters do not fit the losses" in capsys.readouterr().err


def test_a_term_that_turns_nan_stops_the_run_by_name(
    plan: Plan, make_trainer: Make, of: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    plan(*HINTS)
    trainer = of.started(make_trainer())
    with torch.no_grad():
        next(trainer.features.adapters.parameters()).fill_(float("nan"))
    with pytest.raises(SystemExit) as stop:
        trainer.train_step(next(trainer.dataloader_train))
    assert stop.value.code == 2
    assert "fitnet became nan in epoch 0, step 0" in capsys.readouterr().err


def test_names_that_do_not_exist_are_refused_when_planned(
    plan: Plan, site: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan("--losses", 'fitnet:pairs=[["encoder.stages.0","encoder.stage.0"]]') == 2
    error = capsys.readouterr().err
    assert "fitnet: the network PlainConvUNet has no module 'encoder.stage.0'; nearest are: " in error
    assert "encoder.stages.0" in error
    assert not (site.preprocessed / site.dataset / "nnUNetKDPlans.json").exists()


def test_taps_are_shown_without_planning(plan: Plan, site: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert plan("--show-taps") == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split()[0] == line.split()[3] == "encoder.stages.1" for line in lines if len(line.split()) == 6)
    assert not (site.preprocessed / site.dataset / "nnUNetKDPlans.json").exists()


def test_methods_losses_and_students_are_listed_without_a_data_set(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["plan", "--list"])
    assert stop.value.code == 0
    output = capsys.readouterr().out
    for claim in ("kd  ", "logits_kl  ", "fitnet  ", "plain_unet  ", "pairs"):
        assert claim in output
