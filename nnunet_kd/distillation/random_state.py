"""The random states of a run, as plain values, so that a resumed run draws what an uninterrupted one would."""

import random
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from nnunet_kd.errors import UsageError


def _own_state() -> dict[str, Any]:
    name, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002  # what nnU-Net draws from
    return {
        "python": random.getstate(),
        "numpy": (name, np.asarray(keys).tolist(), *map(float, rest)),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def random_state() -> list[dict[str, Any]]:
    """Return the states of python, numpy and torch, one entry per rank. A collective call under DDP."""
    own = _own_state()
    if not (dist.is_available() and dist.is_initialized()):
        return [own]
    states: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(states, own)
    return states


def restore_random_state(states: list[dict[str, Any]] | None, *, rank: int = 0) -> None:
    """Set the states stored by :func:`random_state`; ranks that did not exist then keep their own.

    Raises:
        UsageError: If they have another form.
    """
    if not states:
        return
    try:
        if rank < len(states):
            _restore(states[rank])
    except (LookupError, TypeError, ValueError, RuntimeError) as error:
        raise UsageError(
            f"the checkpoint's random states are not as a trainer stores them ({' '.join(str(error).split())[:120]}); "
            "train again without --c"
        ) from error


def _restore(state: dict[str, Any]) -> None:
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, np.asarray(keys, dtype=np.uint32), int(position), int(has_gauss), cached))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
