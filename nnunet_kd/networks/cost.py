"""What a network costs: parameters, multiply-accumulates, activation memory, size of its weights."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from nnunet_kd.networks.build import build_network, n_channels
from nnunet_kd.planning.model_folder import ModelFolder, open_model_folder

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_forward_hooks_with_kwargs", "_forward_pre_hooks_with_kwargs")


@dataclass(frozen=True, kw_only=True)
class NetworkCost:
    """The cost of one forward pass of a network in float32.

    Attributes:
        parameters: Number of parameters; a tensor used at several places counts once.
        macs: Multiply-accumulates of all convolutions and matrix products. Normalisation,
            non-linearities, pooling and interpolation are not counted.
        peak_activation_bytes: Largest sum, over the pass, of the memory behind all tensors
            that are alive: the input and every result of an operation, without the weights
            and without the scratch memory inside a kernel.
        megabytes: Weights and buffers in units of 10^6 bytes, floating point as float32.
    """

    parameters: int
    macs: int
    peak_activation_bytes: int
    megabytes: float


class _LiveMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch has no hints here
    """Follow the bytes of all storages that are alive, and their peak."""

    def __init__(self, ignored: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch has no hints here
        self.live = 0
        self.peak = 0
        # kept, so that no new storage can take the address of an ignored one
        self._ignored = [tensor.untyped_storage() for tensor in ignored]
        self._known = {storage._cdata for storage in self._ignored}

    def add(self, tensor: Tensor) -> None:
        """Count the storage behind a tensor, once, until it is freed."""
        storage = tensor.untyped_storage()
        if storage._cdata in self._known:
            return
        self._known.add(storage._cdata)
        self.live += storage.nbytes()
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._free, storage._cdata, storage.nbytes())

    def _free(self, key: int, n_bytes: int) -> None:
        self._known.discard(key)
        self.live -= n_bytes

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401  # an operator of PyTorch
        types: Any,  # noqa: ANN401
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401  # whatever the operator returns
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self.add(leaf)
        return result


def _own_tensors(network: nn.Module) -> dict[int, Tensor]:
    """Return parameters, buffers and tensors kept as plain attributes, each once."""
    own: dict[int, Tensor] = {}
    for module in network.modules():
        for value in (*module._parameters.values(), *module._buffers.values(), *vars(module).values()):
            if isinstance(value, Tensor):
                own[id(value)] = value
    return own


def _shape_only(tensor: Tensor) -> Tensor:
    dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
    empty = torch.empty(tensor.shape, dtype=dtype, device="meta")
    return nn.Parameter(empty, requires_grad=False) if isinstance(tensor, nn.Parameter) else empty


def meta_copy(network: nn.Module) -> nn.Module:
    """Copy a network without its weights: shapes only, float32, no hooks, evaluation mode."""
    # the copy finds each tensor as copied already, so that none is ever allocated twice
    memo: dict[int, Any] = {key: _shape_only(tensor) for key, tensor in _own_tensors(network).items()}
    copy = deepcopy(network, memo)
    for module in copy.modules():
        for name in _HOOKS:
            getattr(module, name).clear()  # hooks act on objects outside the network
    return copy.eval()


def network_cost(network: nn.Module, input_shape: Sequence[int]) -> NetworkCost:
    """Measure a network from its shapes alone.

    The pass runs on the meta device: nothing is computed or allocated, and the network is
    neither moved nor changed. It is measured as it is: switch deep supervision off first,
    if the cost of a prediction is wanted. Forward hooks are left out.

    Args:
        network: Any module that takes one tensor.
        input_shape: ``(B, C, *spatial)``.

    Returns:
        The cost of this input; see :class:`NetworkCost` for what is counted.

    Example:
        >>> cost = network_cost(nn.Conv2d(2, 4, kernel_size=3, padding=1, bias=False), (1, 2, 8, 8))
        >>> cost.parameters, cost.macs, cost.peak_activation_bytes
        (72, 4608, 1536)
    """
    network = getattr(network, "_orig_mod", network)  # torch.compile's wrapper
    copy = meta_copy(network)
    image = torch.empty(tuple(input_shape), dtype=torch.float32, device="meta")
    memory = _LiveMemory(list(_own_tensors(copy).values()))
    memory.add(image)
    with torch.no_grad(), FlopCounterMode(display=False) as counter, memory:
        copy(image)
    parameters = list(copy.parameters())
    tensors = {id(tensor): tensor for tensor in (*parameters, *copy.buffers())}
    return NetworkCost(
        parameters=sum(tensor.numel() for tensor in parameters),
        macs=counter.get_total_flops() // 2,
        peak_activation_bytes=memory.peak,
        megabytes=sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()) / 1e6,
    )


def read_model_cost(model_folder: ModelFolder | Path, patch: Sequence[int] | None = None) -> NetworkCost:
    """Return the cost of one patch of an nnU-Net model, batch 1, from its plans alone.

    No checkpoint is opened; deep supervision is off, as in a prediction.

    Args:
        model_folder: ``TRAINER__PLANS__CONFIGURATION`` with ``plans.json`` and ``dataset.json``.
        patch: Voxels per axis; ``None`` takes the configuration's own.

    Raises:
        UsageError: If the folder is no model folder or its network cannot be built here.
    """
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    folder = model_folder if isinstance(model_folder, ModelFolder) else open_model_folder(model_folder)
    if patch is None:
        patch = PlansManager(folder.plans).get_configuration(folder.configuration).patch_size
    return network_cost(build_network(folder, deep_supervision=False), (1, n_channels(folder)[0], *patch))
