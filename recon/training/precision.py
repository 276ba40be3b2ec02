"""What training computes in: convolutions in half precision where that is fast, Fourier transforms never."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler

from nnunet_kd.hardware import has_native_bf16


@dataclass(frozen=True, kw_only=True)
class Precision:
    """The arithmetic of a device.

    Attributes:
        device: Where the networks run.
        dtype: Of convolutions under autocast; ``None``: float32.
    """

    device: torch.device
    dtype: torch.dtype | None

    def context(self) -> AbstractContextManager[Any]:
        """Return the context in which networks run."""
        return nullcontext() if self.dtype is None else torch.autocast(self.device.type, dtype=self.dtype)

    def scaler(self) -> GradScaler | None:
        """Return what keeps the gradients of float16 from vanishing; the other types need none."""
        return GradScaler("cuda") if self.dtype == torch.float16 else None

    def describe(self) -> str:
        """Return a phrase for the log."""
        return "float32" if self.dtype is None else f"{str(self.dtype).removeprefix('torch.')} under autocast"


def choose_precision(device: torch.device, wanted: str | None) -> Precision:
    """Return what a device computes in.

    Args:
        device: The device.
        wanted: Of the plans: ``float32``, ``bfloat16``, or ``None``: bfloat16 where the device has it natively, float16
            on older CUDA devices, else float32.
    """
    if wanted is not None:
        return Precision(device=device, dtype=None if wanted == "float32" else torch.bfloat16)
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return Precision(device=device, dtype=torch.bfloat16 if native else torch.float16)
    native = device.type == "cpu" and has_native_bf16()
    return Precision(device=device, dtype=torch.bfloat16 if native else None)


def placed(network: nn.Module, device: torch.device) -> nn.Module:
    """Move a network to a device, the weights of its convolutions laid out channels last.

    Convolutions then need not rearrange their input in either direction; the values are the same.
    """
    network = network.to(device)
    if device.type != "mps":
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                module.to(memory_format=torch.channels_last)
    return network
