"""How much was left out, as networks for many accelerations are told: read from the mask, so known at all times."""

from math import log

import torch
from torch import Tensor, nn

MIDDLE, STEP = log(8), log(2)


def log_acceleration(mask: Tensor) -> Tensor:
    """Return the natural logarithm of the true acceleration of each mask of a batch.

    Args:
        mask: 0 or 1, ``(B, H or 1, W or 1)``.

    Returns:
        ``(B,)``, float32, >= 0. A mask without any sample counts as one with a single one.

    Example:
        >>> log_acceleration(torch.tensor([[[1.0, 0, 0, 1]]])).exp()
        tensor([2.])
    """
    n_sampled = mask.ne(0).sum(dim=(-2, -1)).clamp(min=1)
    return torch.log(mask[0].numel() / n_sampled.float())


class AccelerationEmbedding(nn.Module):
    """Turns the logarithm of the acceleration into numbers that layers can be conditioned on.

    Args:
        width: How many.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(1, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())

    def forward(self, mask: Tensor) -> Tensor:
        """Return ``(B, width)`` of masks ``(B, H or 1, W or 1)``; accelerations 4, 8 and 16 are told as -1, 0 and 1."""
        steps = (log_acceleration(mask) - MIDDLE) / STEP
        embedding: Tensor = self.layers(steps[:, None])
        return embedding
