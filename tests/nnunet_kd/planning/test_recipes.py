"""Recipes: what holds for all of them, and how a budget replaces parts."""

import pytest

import nnunet_kd.trainers
from nnunet_kd.distillation.optimization import OPTIMIZERS, SCHEDULES
from nnunet_kd.losses.supervised import SUPERVISIONS
from nnunet_kd.planning.kd_block import Budget
from nnunet_kd.planning.presets import PRESETS
from nnunet_kd.planning.recipes import NNUNET, RECIPES, trainer_of, with_budget


def test_every_trainer_has_its_recipe_and_every_method_a_trainer() -> None:
    assert set(RECIPES) == set(nnunet_kd.trainers.__all__)
    for name, recipe in RECIPES.items():
        assert getattr(nnunet_kd.trainers, name).recipe == recipe
        assert recipe.method in PRESETS
        assert recipe.supervision is None or recipe.supervision in SUPERVISIONS
        assert recipe.optimizer in OPTIMIZERS
        assert recipe.schedule in SCHEDULES
    assert {trainer_of(method) for method in PRESETS} == set(RECIPES)
    assert trainer_of("custom") == "KDTrainer"


@pytest.mark.parametrize(
    ("trainer", "budget", "expected"),
    [
        ("HLFDTrainer", Budget(), ("Adam", "cosine", 1e-2, 0.0, 120, 250)),
        ("HLFDTrainer", Budget(initial_lr=0.5, num_epochs=3), ("Adam", "cosine", 0.5, 0.0, 3, 250)),
        ("HLFDTrainer", Budget(optimizer="Adam"), ("Adam", "cosine", 1e-2, 0.0, 120, 250)),
        ("HLFDTrainer", Budget(optimizer="AdamW"), ("AdamW", "poly", 1e-3, 3e-5, 120, 250)),
        ("KDTrainer", Budget(optimizer="SGD", num_iterations_per_epoch=7), ("SGD", "poly", 1e-2, 3e-5, 1000, 7)),
    ],
)
def test_a_budget_replaces_what_it_names(trainer: str, budget: Budget, expected: tuple[object, ...]) -> None:
    recipe = with_budget(RECIPES[trainer], budget)
    found = (recipe.optimizer, recipe.schedule, recipe.initial_lr, recipe.weight_decay)
    assert (*found, recipe.num_epochs, recipe.num_iterations_per_epoch) == expected
    assert recipe.supervision == RECIPES[trainer].supervision


def test_the_default_is_nnunets_own() -> None:
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    source = nnUNetTrainer.__init__.__code__.co_consts
    for value in (NNUNET.initial_lr, NNUNET.weight_decay, NNUNET.num_epochs, NNUNET.num_iterations_per_epoch):
        assert value in source
