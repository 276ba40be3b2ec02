"""Optimisers and the course of their learning rates, by the names that recipes and kd blocks use."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import torch
from torch import nn
from torch.optim import Optimizer

STEPS_PER_HALVING = 16_000
LAST_COSINE_RATE = 1e-6
PLATEAU_FACTOR, PLATEAU_PATIENCE, PLATEAU_LAST_RATE = 0.5, 20, 1e-9
PLATEAU_THRESHOLD = 1e-4  # torch's own: what counts as better


def _sgd(parameters: Iterable[nn.Parameter], lr: float, weight_decay: float) -> Optimizer:
    return torch.optim.SGD(parameters, lr=lr, weight_decay=weight_decay, momentum=0.99, nesterov=True)


def _adamw(parameters: Iterable[nn.Parameter], lr: float, weight_decay: float) -> Optimizer:
    return torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay)


def _adam(parameters: Iterable[nn.Parameter], lr: float, weight_decay: float) -> Optimizer:
    return torch.optim.Adam(parameters, lr=lr, weight_decay=weight_decay)


def _amsgrad(parameters: Iterable[nn.Parameter], lr: float, weight_decay: float) -> Optimizer:
    return torch.optim.Adam(parameters, lr=lr, weight_decay=weight_decay, amsgrad=True)


OPTIMIZERS: dict[str, Callable[[Iterable[nn.Parameter], float, float], Optimizer]] = {
    "SGD": _sgd,  # nnU-Net's
    "AdamW": _adamw,
    "Adam": _adam,
    "AMSGrad": _amsgrad,
}


class Course(Protocol):
    """What a learning rate depends on.

    Attributes:
        initial_lr: First rate.
        num_epochs: Epochs of the whole training.
        num_iterations_per_epoch: Steps of an epoch.
    """

    initial_lr: float
    num_epochs: int
    num_iterations_per_epoch: int


def poly(epoch: int, course: Course, _: Sequence[float]) -> float:
    """Return nnU-Net's rate, ``lr (1 - epoch / n)^0.9``."""
    return float(course.initial_lr * (1 - epoch / course.num_epochs) ** 0.9)


def cosine(epoch: int, course: Course, _: Sequence[float]) -> float:
    """Return a rate that falls to 1e-6 along half a cosine (Loshchilov and Hutter 2017, no restarts)."""
    share = (1 + math.cos(math.pi * epoch / course.num_epochs)) / 2
    return LAST_COSINE_RATE + (course.initial_lr - LAST_COSINE_RATE) * share


def halving(epoch: int, course: Course, _: Sequence[float]) -> float:
    """Return a rate that is halved every 16,000 training steps, counted at the beginnings of epochs."""
    return float(course.initial_lr * 0.5 ** (epoch * course.num_iterations_per_epoch // STEPS_PER_HALVING))


def plateau(epoch: int, course: Course, val_losses: Sequence[float]) -> float:
    """Return a rate that is halved whenever the validation loss has not fallen for more than 20 epochs, to 1e-9.

    It is computed anew from the log, so that a resumed training goes on where it was; the rule is that
    of torch's ``ReduceLROnPlateau``.
    """
    rate, best, waited = course.initial_lr, math.inf, 0
    for loss in val_losses[:epoch]:
        better = loss < best * (1 - PLATEAU_THRESHOLD) if best >= 0 else loss < best * (1 + PLATEAU_THRESHOLD)
        best, waited = (loss, 0) if better else (best, waited + 1)
        if waited > PLATEAU_PATIENCE:
            rate, waited = max(rate * PLATEAU_FACTOR, PLATEAU_LAST_RATE), 0
    return rate


SCHEDULES: dict[str, Callable[[int, Course, Sequence[float]], float]] = {
    "poly": poly,
    "cosine": cosine,
    "halving": halving,
    "plateau": plateau,
}


class LearningRate:
    """Sets an optimiser's rate once per epoch; nnU-Net calls :meth:`step`.

    Args:
        optimizer: Whose rate is set.
        schedule: A name of :data:`SCHEDULES`.
        course: What it depends on.
        val_losses: Returns the validation losses of the epochs so far.
    """

    def __init__(
        self, optimizer: Optimizer, schedule: str, course: Course, val_losses: Callable[[], Sequence[float]]
    ) -> None:
        self._optimizer, self._course, self._val_losses = optimizer, course, val_losses
        self._rate = SCHEDULES[schedule]

    def step(self, epoch: int) -> None:
        """Set the rate of an epoch, counted from 0."""
        rate = self._rate(epoch, self._course, self._val_losses())
        for group in self._optimizer.param_groups:
            group["lr"] = rate
