"""What KDTrainer refuses: one line and status 2, before the data loaders start."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from nnunet_kd.distillation.checkpoints import load_checkpoint_safely

Make = Callable[..., Any]
Plan = Callable[..., int]


@pytest.fixture
def stops(of: Any, capsys: pytest.CaptureFixture[str]) -> Callable[[Any], str]:
    """Start a trainer that must refuse to, and return its one line."""

    def run(trainer: Any) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            of.started(trainer)
        assert stop.value.code == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("nnunet_kd: ")]
        assert len(lines) == 1
        return lines[0]

    return run


def test_a_missing_teacher_is_named_with_the_folder_looked_in(
    plan: Plan, make_trainer: Make, teacher: Path, stops: Callable[[Any], str]
) -> None:
    plan()
    shutil.rmtree(teacher)
    line = stops(make_trainer())
    assert str(teacher) in line
    assert "nnUNetv2_train" in line


def test_a_missing_fold_is_named_with_the_command(plan: Plan, make_trainer: Make, stops: Callable[[Any], str]) -> None:
    plan()
    line = stops(make_trainer(fold=3))
    assert "expected fold 3" in line
    assert "nnUNetv2_train Dataset900_Toy 3d_fullres 3 -tr nnUNetTrainer" in line


def test_a_teacher_that_changed_since_planning_is_refused(
    plan: Plan, make_trainer: Make, teacher: Path, stops: Callable[[Any], str]
) -> None:
    plan()
    path = teacher / "fold_0" / "checkpoint_final.pth"
    checkpoint = torch.load(path, weights_only=False)
    checkpoint["current_epoch"] = 77
    torch.save(checkpoint, path)
    assert "changed since it was planned" in stops(make_trainer())


def test_a_teacher_that_changed_between_two_sessions_is_refused(
    plan: Plan,
    make_trainer: Make,
    teacher: Path,
    site: Any,
    of: Any,
    change_kd: Callable[..., None],
    stops: Callable[[Any], str],
) -> None:
    """Without hashes in the plans the checkpoint remembers the first use."""
    plan()
    kd = site.plans("nnUNetKDPlans")["kd"]["configurations"]["3d_fullres"]
    kd["teachers"][0]["sha256"] = {}
    change_kd(**kd)
    trainer = of.started(make_trainer())
    trainer.save_checkpoint(str(Path(trainer.output_folder) / "checkpoint_latest.pth"))
    path = teacher / "fold_0" / "checkpoint_final.pth"
    checkpoint = load_checkpoint_safely(path)
    torch.save(checkpoint, path)
    with path.open("ab") as file:
        file.write(b"\0")
    resumed = make_trainer(continue_training=True)
    resumed.load_checkpoint(str(Path(trainer.output_folder) / "checkpoint_latest.pth"))
    assert "changed since it was planned" in stops(resumed)


def test_a_teacher_with_other_weights_than_its_plans_is_refused(
    plan: Plan, make_trainer: Make, teacher: Path, stops: Callable[[Any], str]
) -> None:
    plan()
    plans = json.loads((teacher / "plans.json").read_text())
    plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]["features_per_stage"][0] += 1
    (teacher / "plans.json").write_text(json.dumps(plans))
    assert "do not fit the network of its plans.json" in stops(make_trainer())


def test_a_teacher_that_returns_nan_stops_the_run_by_name(
    plan: Plan, make_trainer: Make, capsys: pytest.CaptureFixture[str], of: Any
) -> None:
    plan()
    trainer = of.started(make_trainer())
    next(trainer.teachers.members[0].network.parameters()).fill_(float("nan"))
    with pytest.raises(SystemExit) as stop:
        trainer.train_step(next(trainer.dataloader_train))
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert "teacher nnUNetTrainer__nnUNetPlans__3d_fullres fold 0 returned NaN" in error
    assert not list(Path(trainer.output_folder).glob("checkpoint*"))


def test_labels_that_differ_are_refused(
    plan: Plan, make_trainer: Make, teacher: Path, stops: Callable[[Any], str]
) -> None:
    plan()
    dataset = json.loads((teacher / "dataset.json").read_text())
    dataset["labels"] = {"background": 0, "outer": 2, "inner": 1}
    (teacher / "dataset.json").write_text(json.dumps(dataset))
    assert "labels" in stops(make_trainer())


def test_an_unknown_key_in_the_block_stops_before_anything_starts(
    plan: Plan,
    make_trainer: Make,
    change_kd: Callable[..., None],
    stops: Callable[[Any], str],
) -> None:
    plan()
    change_kd(temprature=3)
    assert "unknown key 'temprature'" in stops(make_trainer())


def test_missing_preprocessed_data_is_named_with_the_command(
    plan: Plan, make_trainer: Make, site: Any, stops: Callable[[Any], str]
) -> None:
    plan()
    shutil.rmtree(site.preprocessed / site.dataset / "nnUNetPlans_3d_fullres")
    assert "nnUNetv2_preprocess" in stops(make_trainer())
