"""Small pieces of the trainer that know nothing of nnU-Net."""

import functools
import random
import sys
from collections.abc import Callable, Sequence
from typing import ParamSpec, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from nnunet_kd.errors import UsageError

P = ParamSpec("P")
R = TypeVar("R")


def ends_on_usage_error(method: Callable[P, R]) -> Callable[P, R]:
    """Turn a user's mistake into its line and exit status 2, also inside nnU-Net's own commands."""

    @functools.wraps(method)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return method(*args, **kwargs)
        except UsageError as error:
            print(f"nnunet_kd: {' '.join(str(error).split())}", file=sys.stderr, flush=True)  # noqa: T201
            raise SystemExit(2) from None

    return wrapped


class FullPrecision(nn.Module):
    """A loss that sees float32 logits whatever the network computed in."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, outputs: Tensor | Sequence[Tensor], targets: Tensor | Sequence[Tensor]) -> Tensor:
        """Cast the outputs, ``(B, C, *spatial)`` or a list of them, and call the loss."""
        if not isinstance(outputs, Tensor):
            value: Tensor = self.loss([output.float() for output in outputs], targets)
        else:
            value = self.loss(outputs.float(), targets)
        return value


def to_device(target: Tensor | list[Tensor], device: torch.device) -> Tensor | list[Tensor]:
    """Move labels, one tensor or one per scale."""
    if isinstance(target, list):
        return [scale.to(device, non_blocking=True) for scale in target]
    return target.to(device, non_blocking=True)


def seed_everything(seed: int) -> None:
    """Seed python, numpy and torch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  # nnU-Net's loaders draw from the global generator
    torch.manual_seed(seed)
