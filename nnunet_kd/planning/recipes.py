"""How each trainer trains where its plans do not say otherwise: nnU-Net's recipe, or a method's published one."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from nnunet_kd.planning.kd_block import Budget
from nnunet_kd.planning.presets import PRESETS


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Loss on the labels, optimiser and schedule. The defaults are nnU-Net's.

    Attributes:
        method: Preset of losses for plans without a kd block.
        supervision: Name in ``nnunet_kd.losses.supervised.SUPERVISIONS``; ``None`` is nnU-Net's Dice and cross-entropy.
        optimizer: Name in ``nnunet_kd.distillation.optimization.OPTIMIZERS``.
        schedule: Name in ``nnunet_kd.distillation.optimization.SCHEDULES``.
        initial_lr: First learning rate.
        weight_decay: Factor of the L2 penalty (of the decoupled decay with AdamW).
        num_epochs: Epochs.
        num_iterations_per_epoch: Training steps per epoch.
    """

    method: str = "kd"
    supervision: str | None = None
    optimizer: str = "SGD"
    schedule: str = "poly"
    initial_lr: float = 1e-2
    weight_decay: float = 3e-5
    num_epochs: int = 1000
    num_iterations_per_epoch: int = 250


NNUNET = Recipe()
FIRST_RATES = {"SGD": 1e-2, "AdamW": 1e-3, "Adam": 1e-3, "AMSGrad": 1e-3}

RECIPES: Mapping[str, Recipe] = {
    "KDTrainer": NNUNET,
    # Lachinov et al. 2019. Its rate is halved every 16,000 steps, so that after 160,000 it is a thousandth
    # of the first; the published 500 epochs of 8000 steps are an upper bound that nothing is learnt in.
    "BraTSKDTrainer": Recipe(
        method="brats",
        supervision="region_dice_bce",
        optimizer="AMSGrad",
        schedule="halving",
        initial_lr=2e-5,
        weight_decay=1e-6,
        num_epochs=640,
    ),
    # Gorade et al. 2024: 120 epochs for students
    "HLFDTrainer": Recipe(
        method="hlfd",
        supervision="focal_dice",
        optimizer="Adam",
        schedule="cosine",
        weight_decay=0.0,
        num_epochs=120,
    ),
    # Maheshwari et al. 2021; the number of epochs is not published
    "DistillDSMTrainer": Recipe(
        method="distill_dsm",
        supervision="channel_dice",
        optimizer="Adam",
        schedule="plateau",
        initial_lr=1e-4,
        weight_decay=0.0,
    ),
}


def with_budget(recipe: Recipe, budget: Budget) -> Recipe:
    """Return a recipe with what a kd block's budget replaces.

    Another optimiser brings nnU-Net's decay of the rate, nnU-Net's weight decay and its own usual first rate.

    Args:
        recipe: The trainer's.
        budget: The kd block's; ``None`` entries keep the recipe's.

    Example:
        >>> with_budget(RECIPES["HLFDTrainer"], Budget(optimizer="AdamW", num_epochs=10)).schedule
        'poly'
    """
    if budget.optimizer is not None and budget.optimizer != recipe.optimizer:
        recipe = replace(
            recipe,
            optimizer=budget.optimizer,
            schedule=NNUNET.schedule,
            initial_lr=FIRST_RATES[budget.optimizer],
            weight_decay=NNUNET.weight_decay,
        )
    return replace(
        recipe,
        initial_lr=budget.initial_lr or recipe.initial_lr,
        num_epochs=budget.num_epochs or recipe.num_epochs,
        num_iterations_per_epoch=budget.num_iterations_per_epoch or recipe.num_iterations_per_epoch,
    )


def trainer_of(method: str) -> str:
    """Return the trainer that a planned method is meant for.

    Args:
        method: The ``method`` of a kd block.
    """
    return PRESETS[method].trainer if method in PRESETS else "KDTrainer"
