"""The running mean of a network's weights, which is validated and saved in its stead."""

from copy import deepcopy

import torch
from torch import nn


class WeightAverage:
    """Exponential moving average, ``m <- d m + (1 - d) w`` with ``d = min(decay, (1 + n) / (10 + n))`` in step n.

    The smaller decay of the first steps keeps fresh weights from lasting; buffers are copied.

    Attributes:
        network: Holds the mean; never trained.
        steps: How many went in.

    Args:
        network: In training.
        decay: In [0, 1); 0 is a copy of the last weights.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = deepcopy(network).eval().requires_grad_(requires_grad=False)
        self.decay = decay
        self.steps = 0

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Take the weights of one more step."""
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        self.steps += 1
        for mean, weight in zip(self.network.parameters(), network.parameters(), strict=True):
            mean.lerp_(weight, 1 - decay)
        self._copy_buffers(network)

    @torch.no_grad()
    def restart(self, network: nn.Module) -> None:
        """Take weights as they are, and count anew."""
        self.steps = 0
        for mean, weight in zip(self.network.parameters(), network.parameters(), strict=True):
            mean.copy_(weight)
        self._copy_buffers(network)

    def _copy_buffers(self, network: nn.Module) -> None:
        for ours, theirs in zip(self.network.buffers(), network.buffers(), strict=True):
            ours.copy_(theirs)
