"""Optimisers and learning rates of the plans' ``training`` block, and the stages they are started anew in."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim import Optimizer

from nnunet_kd.distillation.optimization import OPTIMIZERS
from nnunet_kd.recon.planning.plan_blocks import Training

DECOUPLED_DECAY = 1e-2  # AdamW's own default; the others have none, as published


def build_optimizer(name: str, parameters: Iterable[nn.Parameter], rate: float) -> Optimizer:
    """Return an optimiser by its name in plans: Adam, AdamW, RMSprop (as fastMRI's U-Net) or SGD (as nnU-Net)."""
    if name == "RMSprop":
        return torch.optim.RMSprop(parameters, lr=rate)
    return OPTIMIZERS[name](parameters, rate, DECOUPLED_DECAY if name == "AdamW" else 0.0)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Consecutive epochs with one objective; optimiser and learning rate start anew in each.

    Attributes:
        first: Number of its first epoch, from 0.
        length: Its epochs.
        supervision: Whether the fully sampled images count.
        features: Whether terms on features count.
        images: Whether terms on output images count.
    """

    first: int
    length: int
    supervision: bool = True
    features: bool = True
    images: bool = True

    def contains(self, epoch: int) -> bool:
        """Tell whether an epoch belongs to the stage."""
        return self.first <= epoch < self.first + self.length


def plan_stages(training: Training, *, has_features: bool) -> tuple[Stage, ...]:
    """Return the stages of a training: two if it is staged and features are compared, else one.

    Args:
        training: The recipe.
        has_features: Whether a term compares features. Without one a first stage would have nothing to learn, and
            the whole budget goes to the second's objective.
    """
    n_first = training.first_stage_epochs if has_features else 0
    if n_first == 0:
        return (Stage(first=0, length=training.num_epochs),)
    return (
        Stage(first=0, length=n_first, supervision=False, images=False),
        Stage(first=n_first, length=training.num_epochs - n_first, features=False),
    )


def learning_rate(training: Training, epoch: int, length: int) -> float:
    """Return the rate of an epoch of a stage.

    Args:
        training: The recipe; ``step``: torch's ``StepLR``; ``cosine``: half a cosine to 0; ``poly``: nnU-Net's,
            ``lr (1 - epoch / length)^0.9``.
        epoch: Counted from the stage's first, 0.
        length: Epochs of the stage.

    Example:
        >>> [learning_rate(Training(), epoch, 150) for epoch in (0, 39, 40)]
        [0.001, 0.001, 0.0001]
    """
    if training.lr_schedule == "step":
        return training.initial_lr * training.lr_gamma ** (epoch // training.lr_step)
    if training.lr_schedule == "cosine":
        return training.initial_lr * (1 + math.cos(math.pi * epoch / length)) / 2
    return float(training.initial_lr * (1 - epoch / length) ** 0.9)
