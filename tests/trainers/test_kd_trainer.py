"""Claims about training with KDTrainer, on the toy data set."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from nnunet_kd.distillation.teachers import Member, TeacherEnsemble

Make = Callable[..., Any]
Plan = Callable[..., int]


def test_a_run_logs_its_parts_and_saves_a_checkpoint_that_is_data(plan: Plan, make_trainer: Make, of: Any) -> None:
    assert plan("--seed", "1") == 0
    trainer = make_trainer()
    trainer.run_training()
    text = of.log(trainer)
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


def test_the_teacher_is_frozen_and_outside_network_and_optimiser(plan: Plan, make_trainer: Make, of: Any) -> None:
    plan()
    trainer = of.started(make_trainer())
    network = trainer.teachers.members[0].network
    before = {name: value.clone() for name, value in network.state_dict().items()}
    trainer.train_step(next(trainer.dataloader_train))
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())
    assert of.largest_difference(before, dict(network.state_dict())) == 0
    ours = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
    assert not ours & {id(p) for p in network.parameters()}


def test_another_teacher_gives_another_gradient(plan: Plan, make_trainer: Make, of: Any) -> None:
    plan("--seed", "1", "--losses", "logits_kl")
    results = []
    for scale in (1.0, 3.0):
        trainer = of.started(make_trainer())
        for parameter in trainer.teachers.members[0].network.parameters():
            parameter.mul_(scale)
        trainer.train_step(next(trainer.dataloader_train))
        results.append(of.weights(trainer))
    assert of.largest_difference(*results) > 1e-6


def test_the_same_seed_gives_the_same_step(plan: Plan, make_trainer: Make, of: Any) -> None:
    plan("--seed", "1")
    results = []
    for _ in range(2):
        trainer = of.started(make_trainer())
        trainer.train_step(next(trainer.dataloader_train))
        results.append(of.weights(trainer))
    assert of.largest_difference(*results) == 0


def test_the_control_makes_nnunets_own_first_step(
    plan: Plan, make_trainer: Make, of: Any, change_kd: Callable[..., None]
) -> None:
    """``losses: []`` in float32 against nnUNetTrainer on the same plans, weights and batch."""
    plan("--method", "none", "--precision", "float32", with_teacher=False)
    change_kd(budget={})  # nnU-Net's own optimiser and schedule
    ours, theirs = of.started(make_trainer()), make_trainer(trainer="nnUNetTrainer")
    theirs.initialize()
    theirs.network.load_state_dict(ours.network.state_dict())
    theirs.set_deep_supervision_enabled(True)
    theirs.network.train()
    theirs.lr_scheduler.step(0)
    batch = next(ours.dataloader_train)
    losses = [float(t.train_step(dict(batch))["loss"]) for t in (ours, theirs)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    assert of.largest_difference(of.weights(ours), theirs.network.state_dict()) < 1e-6


def test_budget_and_precision_come_from_the_plans(plan: Plan, make_trainer: Make, of: Any) -> None:
    plan("--precision", "float32", "--lr", "0.004")
    trainer = make_trainer()
    trainer.initialize()
    assert (trainer.num_epochs, trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch) == (2, 2, 1)
    assert type(trainer.optimizer).__name__ == "AdamW"
    assert trainer.optimizer.param_groups[0]["lr"] == 0.004
    assert trainer.cpu_dtype is None
    assert "compute in float32" in of.log(trainer)


def test_an_empty_budget_keeps_nnunets_schedule(plan: Plan, make_trainer: Make, change_kd: Callable[..., None]) -> None:
    plan()
    change_kd(budget={})
    trainer = make_trainer()
    trainer.initialize()
    assert (trainer.num_epochs, trainer.num_iterations_per_epoch, trainer.initial_lr) == (1000, 250, 1e-2)
    assert type(trainer.optimizer).__name__ == "SGD"


def test_plans_without_a_block_distil_the_teacher_of_the_same_plans(make_trainer: Make, teacher: Path, of: Any) -> None:
    trainer = make_trainer("nnUNetPlans")
    trainer.num_epochs = 1
    of.started(trainer)
    assert [member.name for member in trainer.teachers.members] == [f"{teacher.name} fold 0"]
    assert trainer.objective.names == ["logits_kl"]
    result = trainer.train_step(next(trainer.dataloader_train))
    # the student is as large as the teacher but untrained, so it differs from it
    assert result["kd_logits_kl"] > 0


def test_full_resolution_teachers_are_pooled_to_the_students_scales() -> None:
    class Fine(torch.nn.Module):
        def forward(self, data: Tensor) -> Tensor:
            return data

    member = Member(name="m", source="s", fold=0, network=Fine(), weight=1.0)
    data = torch.randn(1, 3, 8, 8)
    fine, coarse, unused = (
        TeacherEnsemble([member], regions=False).guide(data, [(8, 8), (4, 4), (2, 2)], [2.0]).targets[2.0]
    )
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

    rows = [[0.0, 1.0, 2.0], [5.0, 0.0, 0.0]]
    members = [
        Member(name="", source="", fold=i, network=Constant(row), weight=w)
        for i, (row, w) in enumerate(zip(rows, (1.0, 3.0), strict=True))
    ]
    targets = (
        TeacherEnsemble(members, regions=False).guide(torch.zeros(1, 1, 4, 4), [(4, 4), (2, 2), (1, 1)], [1.0]).targets
    )
    p = [torch.tensor(row).softmax(0) for row in rows]
    fine, coarse, _ = targets[1.0]
    assert fine is not None
    assert coarse is not None
    torch.testing.assert_close(fine[0, :, 0, 0], (p[0] + 3 * p[1]) / 4)
    # the coarsest head of a teacher was never trained: pooled from its finest output instead
    torch.testing.assert_close(coarse[0, :, 0, 0], fine[0, :, 0, 0])


def test_an_ensemble_uses_all_folds_and_says_that_scores_are_contaminated(
    plan: Plan, make_trainer: Make, of: Any
) -> None:
    plan("--folds", "all")
    trainer = of.started(make_trainer())
    assert [member.fold for member in trainer.teachers.members] == [0, 1]
    assert [member.weight for member in trainer.teachers.members] == [0.5, 0.5]
    assert "contaminated" in of.log(trainer)


@pytest.mark.parametrize("fold", [1, "all"])
def test_same_takes_the_teacher_of_the_fold_being_trained(
    plan: Plan, make_trainer: Make, fold: int | str, of: Any
) -> None:
    plan()
    trainer = of.started(make_trainer(fold=fold))
    assert [member.fold for member in trainer.teachers.members] == [fold]
    assert "contaminated" not in of.log(trainer)


def test_a_random_teacher_has_other_weights_than_student_and_teacher(plan: Plan, make_trainer: Make, of: Any) -> None:
    plan("--random-teacher", "--seed", "1")
    trainer = of.started(make_trainer())
    (member,) = trainer.teachers.members
    assert member.sha256 is None
    assert "random weights" in member.name
    trainer.train_step(next(trainer.dataloader_train))
    assert "near chance" in of.log(trainer)


def test_loading_a_teacher_leaves_the_students_random_stream_alone(plan: Plan, make_trainer: Make, of: Any) -> None:
    """So that control, random and trained teacher see the same patches for the same seed."""
    batches = []
    for method in (("--method", "none"), ("--random-teacher",), ()):
        plan("--seed", "4", *method, "--overwrite")
        trainer = of.started(make_trainer())
        batches.append(next(trainer.dataloader_train)["data"])
    assert torch.equal(batches[0], batches[1])
    assert torch.equal(batches[0], batches[2])


# ---- nnU-Net's other ways to start ----


def test_pretrained_weights_are_taken_over_but_for_the_outputs(plan: Plan, make_trainer: Make, of: Any) -> None:
    from nnunetv2.run.run_training import maybe_load_checkpoint

    plan("--seed", "1")
    first = make_trainer()
    first.initialize()
    path = Path(first.output_folder) / "checkpoint_final.pth"
    first.current_epoch = 1
    first.save_checkpoint(str(path))
    plan("--seed", "2", "--overwrite")
    second = make_trainer()
    maybe_load_checkpoint(second, continue_training=False, validation_only=False, pretrained_weights_file=str(path))
    ours, theirs = of.weights(second), of.weights(first)
    assert torch.equal(ours["encoder.stages.0.0.convs.0.conv.weight"], theirs["encoder.stages.0.0.convs.0.conv.weight"])
    assert not torch.equal(ours["decoder.seg_layers.0.weight"], theirs["decoder.seg_layers.0.weight"])


def test_other_loggers_receive_the_parts_too(plan: Plan, make_trainer: Make, of: Any) -> None:
    """As Weights & Biases does, through nnU-Net's own MetaLogger."""

    class Recorder:
        def __init__(self) -> None:
            self.keys: list[str] = []

        def log(self, key: str, value: Any, step: int) -> None:
            self.keys.append(key)

        def update_config(self, config: dict[str, Any]) -> None:
            self.keys.extend(config)

    plan()
    trainer, recorder = make_trainer(), Recorder()
    trainer.logger.loggers.append(recorder)
    of.started(trainer)
    trainer.on_train_epoch_end([trainer.train_step(next(trainer.dataloader_train))])
    assert {"hparas", "kd_supervision", "kd_logits_kl", "train_losses"} <= set(recorder.keys)
