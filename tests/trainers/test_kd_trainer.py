"""Claims about training with KDTrainer, on the toy data set."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from nnunet_kd.distillation.base_trainer import BaseTrainer
from nnunet_kd.distillation.checkpoints import load_checkpoint_safely
from nnunet_kd.distillation.teachers import TeacherEnsemble

Make = Callable[..., Any]
Plan = Callable[..., int]


def weights(trainer: Any) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in trainer.bare_network().state_dict().items()}


def largest_difference(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    return max(float((a[name] - b[name]).abs().max()) for name in a)


def log_text(trainer: Any) -> str:
    return Path(trainer.log_file).read_text()


def change_kd(site: Any, **changes: Any) -> None:
    plans = site.plans("nnUNetKDPlans")
    plans["kd"]["configurations"]["3d_fullres"].update(changes)
    site.write_plans(plans)


def started(trainer: Any) -> Any:
    """Start training without running an epoch."""
    trainer.on_train_start()
    trainer.on_epoch_start()
    trainer.on_train_epoch_start()
    return trainer


# ---- it trains, and says what it does ----


def test_a_run_logs_its_parts_and_saves_a_checkpoint_that_is_data(plan: Plan, make_trainer: Make, site: Any) -> None:
    assert plan("--seed", "1") == 0
    trainer = make_trainer()
    trainer.run_training()
    text = log_text(trainer)
    for claim in ("Teacher nnUNetTrainer__nnUNetPlans__3d_fullres fold 0", "Teacher's pseudo Dice", "expected end"):
        assert claim in text
    folder = Path(trainer.output_folder)
    checkpoint = torch.load(folder / "checkpoint_final.pth", weights_only=True)  # no allow-list
    log = checkpoint["logging"]
    assert len(log["kd_supervision"]) == len(log["kd_logits_kl"]) == len(log["train_losses"]) == 2
    assert all(np.isfinite(log["kd_logits_kl"]))
    assert (folder / "progress.png").stat().st_size > 10_000
    assert not list(folder.glob("*.tmp"))
    # nothing of the teacher travels with the student
    student_keys = set(trainer.bare_network().state_dict())
    assert set(checkpoint["network_weights"]) == student_keys
    assert json.loads((folder.parent / "plans.json").read_text())["kd"]


def test_the_teacher_is_frozen_and_outside_network_and_optimiser(plan: Plan, make_trainer: Make) -> None:
    plan()
    trainer = started(make_trainer())
    network = trainer.teachers.members[0].network
    before = {name: value.clone() for name, value in network.state_dict().items()}
    trainer.train_step(next(trainer.dataloader_train))
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())
    assert largest_difference(before, dict(network.state_dict())) == 0
    ours = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
    assert not ours & {id(p) for p in network.parameters()}


def test_another_teacher_gives_another_gradient(plan: Plan, make_trainer: Make) -> None:
    plan("--seed", "1")
    results = []
    for scale in (1.0, 3.0):
        trainer = started(make_trainer())
        for parameter in trainer.teachers.members[0].network.parameters():
            parameter.mul_(scale)
        trainer.train_step(next(trainer.dataloader_train))
        results.append(weights(trainer))
    assert largest_difference(*results) > 1e-6


def test_the_same_seed_gives_the_same_step(plan: Plan, make_trainer: Make) -> None:
    plan("--seed", "1")
    results = []
    for _ in range(2):
        trainer = started(make_trainer())
        trainer.train_step(next(trainer.dataloader_train))
        results.append(weights(trainer))
    assert largest_difference(*results) == 0


def test_the_control_makes_nnunets_own_first_step(site: Any, plan: Plan, make_trainer: Make) -> None:
    """``losses: []`` in float32 against nnUNetTrainer on the same plans, weights and batch."""
    plan("--method", "none", "--precision", "float32", with_teacher=False)
    ours = make_trainer()
    change_kd(site, budget={})  # nnU-Net's own optimiser and schedule
    ours, theirs = started(make_trainer()), make_trainer(trainer="nnUNetTrainer")
    theirs.initialize()
    theirs.network.load_state_dict(ours.network.state_dict())
    theirs.set_deep_supervision_enabled(True)
    theirs.network.train()
    theirs.lr_scheduler.step(0)
    batch = next(ours.dataloader_train)
    losses = [float(t.train_step({k: v for k, v in batch.items()})["loss"]) for t in (ours, theirs)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    assert largest_difference(weights(ours), theirs.network.state_dict()) < 1e-6


def test_budget_and_precision_come_from_the_plans(plan: Plan, make_trainer: Make, site: Any) -> None:
    plan("--precision", "float32", "--lr", "0.004")
    trainer = make_trainer()
    trainer.initialize()
    assert (trainer.num_epochs, trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch) == (2, 2, 1)
    assert type(trainer.optimizer).__name__ == "AdamW"
    assert trainer.optimizer.param_groups[0]["lr"] == 0.004
    assert trainer.cpu_dtype is None
    assert "compute in float32" in log_text(trainer)


def test_an_empty_budget_keeps_nnunets_schedule(plan: Plan, make_trainer: Make, site: Any) -> None:
    plan()
    change_kd(site, budget={})
    trainer = make_trainer()
    trainer.initialize()
    assert (trainer.num_epochs, trainer.num_iterations_per_epoch, trainer.initial_lr) == (1000, 250, 1e-2)
    assert type(trainer.optimizer).__name__ == "SGD"


def test_plans_without_a_block_distil_the_teacher_of_the_same_plans(make_trainer: Make, teacher: Path) -> None:
    trainer = make_trainer("nnUNetPlans")
    trainer.num_epochs = 1
    started(trainer)
    assert [member.name for member in trainer.teachers.members] == [f"{teacher.name} fold 0"]
    assert trainer.objective.names == ["logits_kl"]
    result = trainer.train_step(next(trainer.dataloader_train))
    # the student is as large as the teacher but untrained, so it differs from it
    assert result["kd_logits_kl"] > 0


def test_full_resolution_teachers_are_pooled_to_the_students_scales() -> None:
    class Fine(torch.nn.Module):
        def forward(self, data: Tensor) -> Tensor:
            return data

    from nnunet_kd.distillation.teachers import Member

    member = Member(name="m", source="s", fold=0, network=Fine(), weight=1.0)
    data = torch.randn(1, 3, 8, 8)
    fine, coarse, unused = TeacherEnsemble([member], regions=False).targets(data, [(8, 8), (4, 4), (2, 2)], [2.0])[2.0]
    torch.testing.assert_close(fine, (data / 2).softmax(1))
    torch.testing.assert_close(coarse, torch.nn.functional.avg_pool2d((data / 2).softmax(1), 2))
    assert unused is None  # scales of weight 0 are not computed


def test_members_are_averaged_as_probabilities_by_weight() -> None:
    class Constant(torch.nn.Module):
        def __init__(self, logits: list[float]) -> None:
            super().__init__()
            self.logits = torch.tensor(logits).reshape(1, -1, 1, 1)

        def forward(self, data: Tensor) -> list[Tensor]:
            return [self.logits.expand(1, -1, 4, 4), self.logits.expand(1, -1, 2, 2) * 100]

    from nnunet_kd.distillation.teachers import Member

    rows = [[0.0, 1.0, 2.0], [5.0, 0.0, 0.0]]
    members = [
        Member(name="", source="", fold=i, network=Constant(row), weight=w)
        for i, (row, w) in enumerate(zip(rows, (1.0, 3.0), strict=True))
    ]
    targets = TeacherEnsemble(members, regions=False).targets(torch.zeros(1, 1, 4, 4), [(4, 4), (2, 2), (1, 1)], [1.0])
    p = [torch.tensor(row).softmax(0) for row in rows]
    fine, coarse, _ = targets[1.0]
    assert fine is not None
    assert coarse is not None
    torch.testing.assert_close(fine[0, :, 0, 0], (p[0] + 3 * p[1]) / 4)
    # the coarsest head of a teacher was never trained: pooled from its finest output instead
    torch.testing.assert_close(coarse[0, :, 0, 0], fine[0, :, 0, 0])


# ---- interrupted, resumed, damaged ----


def test_resumed_equals_uninterrupted(plan: Plan, make_trainer: Make, site: Any) -> None:
    plan("--seed", "5", "--epochs", "3")
    whole = make_trainer()
    whole.run_training()
    expected = weights(whole)
    shutil.rmtree(whole.output_folder)

    first = make_trainer()
    original = first.on_epoch_end

    def stop_after_the_first() -> None:
        original()
        raise KeyboardInterrupt

    first.on_epoch_end = stop_after_the_first
    with pytest.raises(KeyboardInterrupt):
        first.run_training()
    second = make_trainer(continue_training=True)
    second.load_checkpoint(str(Path(second.output_folder) / "checkpoint_latest.pth"))
    assert second.current_epoch == 1
    torch.manual_seed(999)  # the stored state must win
    second.run_training()
    assert largest_difference(expected, weights(second)) < 1e-6
    ours, theirs = (t.logger.local_logger.my_fantastic_logging for t in (second, whole))
    assert {key: len(v) for key, v in ours.items()} == {key: len(v) for key, v in theirs.items()}
    assert ours["kd_logits_kl"] == pytest.approx(theirs["kd_logits_kl"], abs=1e-6)
    assert ours["lrs"] == theirs["lrs"]


def test_a_damaged_checkpoint_is_passed_over_for_the_next(plan: Plan, make_trainer: Make) -> None:
    plan("--seed", "5")
    trainer = make_trainer()
    trainer.run_training()
    folder = Path(trainer.output_folder)
    final, best = folder / "checkpoint_final.pth", folder / "checkpoint_best.pth"
    final.write_bytes(final.read_bytes()[:1000])
    resumed = make_trainer(continue_training=True)
    resumed.load_checkpoint(str(final))
    assert "Passed over" in log_text(resumed)
    assert "Continuing from checkpoint_best.pth" in log_text(resumed)
    best.write_bytes(b"")
    fresh = make_trainer(continue_training=True)
    fresh.load_checkpoint(str(final))
    assert fresh.current_epoch == 0
    assert "starting afresh" in log_text(fresh)


def test_validation_refuses_a_damaged_checkpoint(
    plan: Plan, make_trainer: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    plan()
    trainer = make_trainer()
    final = Path(trainer.output_folder) / "checkpoint_final.pth"
    final.write_bytes(b"damaged")
    with pytest.raises(SystemExit) as stop:
        trainer.load_checkpoint(str(final))
    assert stop.value.code == 2
    assert "truncated or no checkpoint" in capsys.readouterr().err


def test_a_stock_checkpoint_continues_with_gaps_in_the_new_parts(plan: Plan, make_trainer: Make, teacher: Path) -> None:
    """Someone trains with nnUNetTrainer for a while and then changes to KDTrainer."""
    trainer = make_trainer("nnUNetPlans", continue_training=True)
    checkpoint = torch.load(teacher / "fold_0" / "checkpoint_final.pth", weights_only=False)
    for key in [key for key in checkpoint["logging"] if key.startswith("kd_")]:
        del checkpoint["logging"][key]
    del checkpoint["kd"]
    target = Path(trainer.output_folder) / "checkpoint_latest.pth"
    torch.save(checkpoint, target)
    trainer.load_checkpoint(str(target))
    log = trainer.logger.local_logger.my_fantastic_logging
    assert len(log["kd_logits_kl"]) == len(log["train_losses"]) == 2
    assert np.isnan(log["kd_logits_kl"]).all()


def test_short_trainings_save_every_epoch_and_long_ones_by_the_clock(
    plan: Plan, make_trainer: Make, site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[str] = []
    monkeypatch.setattr(BaseTrainer, "save_checkpoint", lambda self, name: saved.append(Path(name).name))
    plan()
    for n_epochs, waited, expected in ((50, 0.0, True), (500, 0.0, False), (500, 1e6, True)):
        change_kd(site, budget={"num_epochs": n_epochs, "num_iterations_per_epoch": 1, "num_val_iterations_per_epoch": 1})
        trainer = started(make_trainer())
        trainer._last_saved -= waited
        trainer.on_train_epoch_end([trainer.train_step(next(trainer.dataloader_train))])
        trainer.on_validation_epoch_start()
        with torch.no_grad():
            trainer.on_validation_epoch_end([trainer.validation_step(next(trainer.dataloader_val))])
        saved.clear()
        trainer.on_epoch_end()
        assert ("checkpoint_latest.pth" in saved) is expected


def test_leftovers_of_a_killed_save_are_removed(plan: Plan, make_trainer: Make) -> None:
    plan()
    trainer = make_trainer()
    leftover = Path(trainer.output_folder) / "checkpoint_latest.pth.tmp"
    leftover.write_bytes(b"half")
    started(trainer)
    assert not leftover.exists()


# ---- folds and ensembles ----


def test_an_ensemble_uses_all_folds_and_says_that_scores_are_contaminated(plan: Plan, make_trainer: Make) -> None:
    plan("--folds", "all")
    trainer = started(make_trainer())
    assert [member.fold for member in trainer.teachers.members] == [0, 1]
    assert [member.weight for member in trainer.teachers.members] == [0.5, 0.5]
    assert "contaminated" in log_text(trainer)


@pytest.mark.parametrize("fold", [1, "all"])
def test_same_takes_the_teacher_of_the_fold_being_trained(plan: Plan, make_trainer: Make, fold: int | str) -> None:
    plan()
    trainer = started(make_trainer(fold=fold))
    assert [member.fold for member in trainer.teachers.members] == [fold]
    assert "contaminated" not in log_text(trainer)


def test_a_random_teacher_has_other_weights_than_student_and_teacher(plan: Plan, make_trainer: Make) -> None:
    plan("--random-teacher", "--seed", "1")
    trainer = started(make_trainer())
    (member,) = trainer.teachers.members
    assert member.sha256 is None
    assert "random weights" in member.name
    trainer.train_step(next(trainer.dataloader_train))
    assert "near chance" in log_text(trainer)


def test_loading_a_teacher_leaves_the_students_random_stream_alone(plan: Plan, make_trainer: Make) -> None:
    """So that control, random and trained teacher see the same patches for the same seed."""
    batches = []
    for method in (("--method", "none"), ("--random-teacher",), ()):
        plan("--seed", "4", *method, "--overwrite")
        trainer = started(make_trainer())
        batches.append(next(trainer.dataloader_train)["data"])
    assert torch.equal(batches[0], batches[1])
    assert torch.equal(batches[0], batches[2])


# ---- bad input ----


def stops(trainer: Any, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stop:
        started(trainer)
    assert stop.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("nnunet_kd: ")]
    assert len(lines) == 1
    return lines[0]


def test_a_missing_teacher_is_named_with_the_folder_looked_in(
    plan: Plan, make_trainer: Make, teacher: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan()
    shutil.rmtree(teacher)
    line = stops(make_trainer(), capsys)
    assert str(teacher) in line
    assert "nnUNetv2_train" in line


def test_a_missing_fold_is_named_with_the_command(
    plan: Plan, make_trainer: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    plan()
    line = stops(make_trainer(fold=3), capsys)
    assert "expected fold 3" in line
    assert "nnUNetv2_train Dataset900_Toy 3d_fullres 3 -tr nnUNetTrainer" in line


def test_a_teacher_that_changed_since_planning_is_refused(
    plan: Plan, make_trainer: Make, teacher: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan()
    path = teacher / "fold_0" / "checkpoint_final.pth"
    checkpoint = torch.load(path, weights_only=False)
    checkpoint["current_epoch"] = 77
    torch.save(checkpoint, path)
    assert "changed since it was planned" in stops(make_trainer(), capsys)


def test_a_teacher_that_changed_between_two_sessions_is_refused(
    plan: Plan, make_trainer: Make, teacher: Path, site: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without hashes in the plans the checkpoint remembers the first use."""
    plan()
    kd = site.plans("nnUNetKDPlans")["kd"]["configurations"]["3d_fullres"]
    kd["teachers"][0]["sha256"] = {}
    change_kd(site, **kd)
    trainer = started(make_trainer())
    trainer.save_checkpoint(str(Path(trainer.output_folder) / "checkpoint_latest.pth"))
    path = teacher / "fold_0" / "checkpoint_final.pth"
    checkpoint = load_checkpoint_safely(path)
    torch.save(checkpoint, path)
    with path.open("ab") as file:
        file.write(b"\0")
    resumed = make_trainer(continue_training=True)
    resumed.load_checkpoint(str(Path(trainer.output_folder) / "checkpoint_latest.pth"))
    capsys.readouterr()
    assert "changed since it was planned" in stops(resumed, capsys)


def test_a_teacher_with_other_weights_than_its_plans_is_refused(
    plan: Plan, make_trainer: Make, teacher: Path, site: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    plan()
    plans = json.loads((teacher / "plans.json").read_text())
    plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]["features_per_stage"][0] += 1
    (teacher / "plans.json").write_text(json.dumps(plans))
    assert "do not fit the network of its plans.json" in stops(make_trainer(), capsys)


def test_a_teacher_that_returns_nan_stops_the_run_by_name(
    plan: Plan, make_trainer: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    plan()
    trainer = started(make_trainer())
    next(trainer.teachers.members[0].network.parameters()).fill_(float("nan"))
    with pytest.raises(SystemExit) as stop:
        trainer.train_step(next(trainer.dataloader_train))
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert "teacher nnUNetTrainer__nnUNetPlans__3d_fullres fold 0 returned NaN" in error
    assert not list(Path(trainer.output_folder).glob("checkpoint*"))


def test_labels_that_differ_are_refused(
    plan: Plan, make_trainer: Make, teacher: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan()
    dataset = json.loads((teacher / "dataset.json").read_text())
    dataset["labels"] = {"background": 0, "outer": 2, "inner": 1}
    (teacher / "dataset.json").write_text(json.dumps(dataset))
    assert "labels" in stops(make_trainer(), capsys)


def test_an_unknown_key_in_the_block_stops_before_anything_starts(
    plan: Plan, make_trainer: Make, site: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    plan()
    change_kd(site, temprature=3)
    assert "unknown key 'temprature'" in stops(make_trainer(), capsys)


def test_missing_preprocessed_data_is_named_with_the_command(
    plan: Plan, make_trainer: Make, site: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    plan()
    shutil.rmtree(site.preprocessed / site.dataset / "nnUNetPlans_3d_fullres")
    assert "nnUNetv2_preprocess" in stops(make_trainer(), capsys)
