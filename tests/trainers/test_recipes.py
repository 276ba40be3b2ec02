"""The published recipes through nnU-Net's loop."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch

import nnunet_kd.trainers
from nnunet_kd.distillation.supervision import Supervision, confidences
from nnunet_kd.errors import UsageError
from nnunet_kd.losses.supervised import SUPERVISIONS
from nnunet_kd.planning.recipes import RECIPES

Plan = Callable[..., int]
Make = Callable[..., Any]
OWN = [name for name in nnunet_kd.trainers.__all__ if RECIPES[name].supervision is not None]


@pytest.fixture
def plan_own(site: Any, teacher: Any) -> Callable[..., int]:
    """Plan without optimiser or rate, which are the recipe's then."""
    from nnunet_kd.cli import main

    def run(method: str, *options: str) -> int:
        budget = ["--epochs", "2", "--iterations", "2", "--val-iterations", "1"]
        given = ["plan", "-d", "900", "-c", "3d_fullres", "--shrink", "2", "--method", method, *budget]
        return main([*given, "--teacher", str(teacher), "-p", "nnUNetKDPlans", "--seed", "0", *options])

    return run


@pytest.mark.parametrize("name", OWN)
def test_a_published_recipe_trains_validates_and_resumes(
    name: str, site: Any, plan_own: Plan, make_trainer: Make, of: Any
) -> None:
    recipe = RECIPES[name]
    assert plan_own(recipe.method) == 0
    trainer = of.interrupted(make_trainer(trainer=name))
    assert isinstance(trainer.loss, Supervision)
    (group,) = trainer.optimizer.param_groups
    assert (group["lr"], group["weight_decay"]) == (pytest.approx(recipe.initial_lr), recipe.weight_decay)
    resumed = make_trainer(trainer=name, continue_training=True)
    resumed.load_checkpoint(str(site.model("nnUNetKDPlans", trainer=name) / "fold_0" / "checkpoint_latest.pth"))
    resumed.run_training()
    whole = make_trainer(trainer=name, fold=1)
    whole.run_training()
    assert resumed.current_epoch == whole.current_epoch == 2
    rates = resumed.logger.get_value("lrs", None)
    assert rates == pytest.approx(whole.logger.get_value("lrs", None))


@pytest.mark.parametrize("name", OWN)
def test_one_output_is_trained_where_the_network_has_one(
    name: str, site: Any, plan_own: Plan, make_trainer: Make, of: Any
) -> None:
    assert plan_own(RECIPES[name].method, "--student", "res_unet") == 0
    trainer = of.started(make_trainer(trainer=name))
    assert not trainer.enable_deep_supervision
    result = trainer.train_step(next(trainer.dataloader_train))
    assert result["loss"] > 0


def test_a_doubtful_case_counts_less(site: Any, plan_own: Plan, make_trainer: Make, of: Any) -> None:
    assert plan_own("brats", "--sample-weights", "confidence") == 0
    folder = site.preprocessed / site.dataset
    dataset = json.loads((folder / "dataset.json").read_text())
    cases = sorted(path.name.split(".")[0] for path in (folder / "gt_segmentations").glob("*.nii.gz"))
    dataset["nnunet_kd"] = {"pseudo_labels": {case: {"confidence": 0.0} for case in cases[1:]}}
    (folder / "dataset.json").write_text(json.dumps(dataset))
    trainer = of.started(make_trainer(trainer="BraTSKDTrainer"))
    batch = next(trainer.dataloader_train)
    batch["keys"] = [cases[0], cases[1]]
    seen = []
    loss = trainer.loss._loss
    trainer.loss._loss = lambda *a: (seen.append(a[2]), loss(*a))[1]
    trainer.train_step(batch)
    assert all(torch.equal(weights, torch.tensor([1.0, 0.0])) for weights in seen)
    assert len(seen) > 0
    trainer.validation_step(next(trainer.dataloader_val))
    assert seen[-1] is None  # weights belong to the batch they were given for


@pytest.mark.parametrize(
    ("trainer", "message"),
    [
        ("KDTrainer", "cannot weigh cases; train with -tr BraTSKDTrainer"),
        ("BraTSKDTrainer", "expected pseudo-labelled cases"),
    ],
)
def test_weights_that_nobody_can_use_are_refused(
    trainer: str, message: str, plan_own: Plan, make_trainer: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan_own("brats", "--sample-weights", "confidence") == 0
    with pytest.raises(SystemExit):
        make_trainer(trainer=trainer).initialize()
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "entry", [None, [], {"a": 0.5}, {"a": {}}, *({"a": {"confidence": bad}} for bad in ("0.5", float("nan"), -1, True))]
)
def test_confidences_of_another_form_are_named(entry: Any) -> None:
    with pytest.raises(UsageError, match="label the pool again"):
        confidences({"nnunet_kd": {"pseudo_labels": entry}})


def test_scales_count_as_in_nnunet() -> None:
    loss = Supervision(SUPERVISIONS["channel_dice"], regions=False, ignore_label=None)
    outputs = [torch.randn(1, 2, n, n) for n in (8, 4, 2)]
    labels = [torch.ones(1, 1, n, n) for n in (8, 4, 2)]
    whole = loss(outputs, labels)
    parts = [loss(output, label) for output, label in zip(outputs, labels, strict=True)]
    assert torch.allclose(whole, parts[0] * 2 / 3 + parts[1] / 3)
