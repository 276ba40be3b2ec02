"""The processes of one training, and what they know of each other."""

import os
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from nnunet_kd.distillation.ranks import Place, meet, open_store, read_place
from nnunet_kd.errors import UsageError

T = TypeVar("T")

TIMEOUT = timedelta(hours=1)
ALONE = Place(rank=0, world_size=1, local_rank=0, local_world_size=1)


def started_by_torchrun() -> bool:
    """Return whether torchrun started this process."""
    return bool(os.environ.get("RANK")) and bool(os.environ.get("WORLD_SIZE"))


def join_ranks(device_name: str, example: str) -> tuple[Place, torch.device]:
    """Meet the other processes that torchrun started.

    Args:
        device_name: ``cpu`` or ``cuda``.
        example: What to type, for the error.

    Returns:
        Where this process stands, and its device.

    Raises:
        UsageError: If devices differ, there are too few GPUs, or some process never comes.
    """
    place = read_place(example)
    device = choose_device(device_name, place)
    store, seen = meet(open_store(), place, device.type)
    if len(set(seen)) > 1:
        raise UsageError(f"expected the same device everywhere, got {', '.join(seen)}; type -device cpu")
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=place.rank, world_size=place.world_size, timeout=TIMEOUT)
    return place, device


def choose_device(name: str, place: Place = ALONE) -> torch.device:
    """Return the device of a process.

    Raises:
        UsageError: If a machine has fewer GPUs than processes, or ``cuda`` or ``mps`` is not there.
    """
    if name == "cuda":
        if not torch.cuda.is_available():
            raise UsageError("-device cuda: expected a GPU of NVIDIA or AMD, found none here; type -device cpu")
        if place.local_world_size > torch.cuda.device_count():
            raise UsageError(
                f"expected a GPU per process, found {torch.cuda.device_count()}; type -num_gpus with that number"
            )
        torch.cuda.set_device(place.local_rank)
        torch.backends.cudnn.benchmark = True
        return torch.device("cuda", place.local_rank)
    if name == "mps":
        if not torch.backends.mps.is_available() or place.world_size > 1:
            raise UsageError("-device mps: expected one process on Apple's GPU, found none here; type -device cpu")
        return torch.device("mps")
    if place.local_world_size > 1:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // place.local_world_size))
    return torch.device("cpu")


def gather(value: T) -> list[T]:
    """Return the value of every rank, in order; the own one where there is only one process."""
    if not (dist.is_available() and dist.is_initialized()):
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def check_share(batch_size: int, world_size: int) -> None:
    """Refuse a number of processes among which a batch cannot be shared out equally.

    Raises:
        UsageError: With both numbers.
    """
    if batch_size % world_size:
        raise UsageError(f"expected a number of processes that divides the batch of {batch_size}, got {world_size}")
