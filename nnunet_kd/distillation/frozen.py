"""Frozen networks compiled with their weights as constants, which on CPUs halves a teacher's time.

PyTorch then packs the weights once for the processor's matrix units instead of at every call. It needs a C++
compiler and up to a minute at the first batch, so it is done only when nnU-Net's variable ``nnUNet_compile`` asks.
"""

import os
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from nnunet_kd.distillation.features import WithFeatures


def compile_is_asked_for() -> bool:
    """Return whether ``nnUNet_compile`` is set to true; nnU-Net itself never compiles on CPUs."""
    return os.environ.get("nnUNet_compile", "").lower() in ("true", "1", "t")


class FrozenOnCPU(nn.Module):
    """A network whose weights are constants of the compiled code.

    Args:
        network: In evaluation mode; it is copied and left as it is.
        dtype: Arithmetic, e.g. ``torch.bfloat16``.
        taps: Modules whose maps are returned beside the output.
    """

    def __init__(self, network: nn.Module, dtype: torch.dtype, taps: Sequence[str] = ()) -> None:
        super().__init__()
        self.dtype = dtype
        copy = deepcopy(network).to(dtype)
        self.compiled = torch.compile(WithFeatures(copy, taps) if taps else copy)

    @torch.no_grad()
    def forward(self, data: Tensor) -> Any:  # noqa: ANN401  # whatever the network returns
        """Return the network's output for ``data``, ``(B, C, *spatial)``, in :attr:`dtype`."""
        from torch._inductor import config

        # set around the call, because PyTorch reads it when it compiles, at the first call of a shape
        with config.patch(freezing=True), torch.autocast("cpu", enabled=False):
            return self.compiled(data.to(self.dtype))
