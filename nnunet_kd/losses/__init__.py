"""Distillation losses: one family per file, the pure function first, then its settings in :data:`LOSSES`."""

from dataclasses import fields

from nnunet_kd.losses.logits import LogitsKL, log_probabilities, logits_kl

# the names that a kd block may use
LOSSES: dict[str, type[LogitsKL]] = {"logits_kl": LogitsKL}

__all__ = ["LOSSES", "LogitsKL", "log_probabilities", "logits_kl", "loss_options"]


def loss_options(name: str) -> tuple[str, ...]:
    """Return the settings a loss of the registry takes in the kd block.

    Example:
        >>> loss_options("logits_kl")
        ('temperature', 'guide_ignored')
    """
    return tuple(field.name for field in fields(LOSSES[name]))
