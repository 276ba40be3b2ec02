"""Distillation losses: one family per file, the pure function first, then its settings in :data:`LOSSES`."""

from dataclasses import fields

from nnunet_kd.losses.contract import FeatureLoss, OutputLoss
from nnunet_kd.losses.logits import LogitsKL, log_probabilities, logits_kl
from nnunet_kd.losses.reference import Reference

# the names that a kd block may use
LOSSES: dict[str, type[OutputLoss] | type[FeatureLoss]] = {
    "logits_kl": LogitsKL,
}

__all__ = [
    "LOSSES",
    "FeatureLoss",
    "LogitsKL",
    "OutputLoss",
    "Reference",
    "log_probabilities",
    "logits_kl",
    "loss_options",
]


def loss_options(name: str) -> tuple[str, ...]:
    """Return the settings a loss of the registry takes in the kd block.

    Example:
        >>> loss_options("logits_kl")
        ('temperature', 'guide_ignored', 'weighting')
    """
    return tuple(field.name for field in fields(LOSSES[name]))
