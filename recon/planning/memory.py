"""How many slices fit into a step: an estimate from what autograd keeps of a small one."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nnunet_kd.recon.physics.operators import acquire

SMALL = 64  # side of the matrix on which is counted; networks with up to 5 poolings take it
USED = 0.5  # share of the budget for what is kept; the rest is for gradients, workspaces and teachers
LARGEST_BATCH = 16
LARGEST_SHARE = 0.05  # of the training slices in one step, as nnU-Net limits batches
SMALL_BATCH = 4  # KD-MRI's; small data sets may have it all the same


def kept_bytes_per_pixel(network: nn.Module, n_coils: int, n_context: int = 0) -> float:
    """Count what autograd keeps of a forward pass for the backward pass.

    Tensors are counted once however often they are kept; parameters are left out.

    Args:
        network: Takes an :class:`nnunet_kd.recon.physics.acquisition.Acquisition`.
        n_coils: Coils.
        n_context: Neighbouring slices.

    Returns:
        Bytes per pixel of one slice, inputs included.
    """
    kspace = torch.randn(1, n_coils, SMALL, SMALL, dtype=torch.complex64)
    maps = torch.full_like(kspace, n_coils**-0.5)
    context = torch.randn(1, n_context, SMALL, SMALL, dtype=torch.complex64)
    acquisition = acquire(kspace, torch.ones(SMALL, SMALL), maps, context)
    weights = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage().data_ptr()
        if storage not in weights:
            kept[storage] = tensor  # held, so that no other tensor gets the same address
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        network.train()(acquisition)
    inputs = sum(tensor.numel() * tensor.element_size() for tensor in acquisition)
    total = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    return (total + inputs) / SMALL**2


def planned_batch_size(
    bytes_per_pixel: float, matrices: Sequence[Sequence[int]], n_slices: int, gpu_memory: float
) -> int:
    """Return the batch size that a memory budget allows.

    Args:
        bytes_per_pixel: As :func:`kept_bytes_per_pixel` counts.
        matrices: Of the data set; the largest decides.
        n_slices: Training slices; a batch is at most a twentieth of them, or 4.
        gpu_memory: Budget [GB].

    Returns:
        1 to :data:`LARGEST_BATCH`.

    Example:
        >>> planned_batch_size(4e3, [(640, 368)], 10000, 8)
        4
    """
    slice_bytes = bytes_per_pixel * max(height * width for height, width in matrices)
    fits = int(USED * gpu_memory * 1e9 / slice_bytes)
    return max(1, min(fits, LARGEST_BATCH, max(SMALL_BATCH, int(LARGEST_SHARE * n_slices))))
