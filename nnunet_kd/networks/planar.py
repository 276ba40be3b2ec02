"""What the 2-D networks of published shape share: their block in the plans, its checks, sizes not divisible."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import pad

from nnunet_kd.errors import UsageError

Strides = Sequence[Sequence[int]]


def halvings(n: int) -> list[list[int]]:
    """Return nnU-Net's ``strides`` of a network that halves its input ``n`` times.

    Example:
        >>> halvings(2)
        [[1, 1], [2, 2], [2, 2]]
    """
    return [[1, 1], *([2, 2] for _ in range(n))]


def planar_block(
    student: str, architecture: Mapping[str, Any], network: str, *, strides: Strides, **kwargs: object
) -> dict[str, Any]:
    """Return the ``architecture`` block of a 2-D network for the plans.

    Args:
        student: The name after ``--student``.
        architecture: The teacher's block; only its number of axes counts.
        network: Name of the class in the module ``nnunet_kd.networks.<student>``.
        strides: Per stage and axis; nnU-Net reads from it what patch sizes suit.
        kwargs: Further arguments of the network, as JSON.

    Raises:
        UsageError: If the teacher is 3-D.
    """
    if _n_axes(architecture) == 3:
        raise UsageError(
            f"--student {student}: expected a 2d configuration, got a 3-D teacher; "
            "give -c 2d, or --student plain_unet, res_unet or dsm_unet"
        )
    return {
        "network_class_name": f"nnunet_kd.networks.{student}.{network}",
        "arch_kwargs": {"strides": [list(stride) for stride in strides], "auxiliary_heads": False, **kwargs},
        "_kw_requires_import": [],
    }


def _n_axes(architecture: Mapping[str, Any]) -> int:
    kwargs = architecture["arch_kwargs"]
    first = next(iter(kwargs.get("strides", ())), None)
    if isinstance(first, Sequence):
        return len(first)
    return 3 if str(kwargs.get("conv_op")).endswith("3d") else 2


def _lists(strides: Iterable[Any]) -> list[Any]:
    return [list(stride) if isinstance(stride, Sequence) else stride for stride in strides]


class PlanarNetwork(nn.Module):
    """A 2-D network with one output, behind nnU-Net's constructor.

    ``deep_supervision`` is an attribute as in nnU-Net's networks, but there is nothing to switch: none of the
    published networks has an output per resolution.

    Args:
        strides: The plans' strides; ``None`` takes ``fixed``.
        fixed: The only strides that the network has.
        auxiliary_heads: Must be false.
        deep_supervision: Kept, without effect.

    Raises:
        UsageError: If the strides are others or auxiliary heads are asked for.
    """

    def __init__(
        self, strides: Strides | None, fixed: Strides, *, auxiliary_heads: bool, deep_supervision: bool
    ) -> None:
        super().__init__()
        name = type(self).__name__
        if strides is not None and _lists(strides) != _lists(fixed):
            raise UsageError(f"{name}, strides: expected {_lists(fixed)}, got {strides!r:.80}; plan it again")
        if auxiliary_heads:
            raise UsageError(f"{name}, auxiliary_heads: it has one output, expected false; plan it again")
        self.deep_supervision = deep_supervision


class Stages(nn.Module):
    """Modules in sequence, all of whose results are kept.

    Args:
        stages: Each takes the map of the one before.
    """

    def __init__(self, stages: Iterable[nn.Module]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)

    def forward(self, features: Tensor) -> list[Tensor]:
        """Return the maps of all stages in their order."""
        maps = []
        for stage in self.stages:
            features = stage(features)
            maps.append(features)
        return maps


def pad_to_multiple(image: Tensor, step: int) -> Tensor:
    """Append zeros to rows and columns up to the next multiples of ``step``.

    Example:
        >>> import torch
        >>> pad_to_multiple(torch.ones(1, 1, 5, 8), 4).shape
        torch.Size([1, 1, 8, 8])
    """
    height, width = image.shape[2:]
    if height % step == 0 and width % step == 0:  # as planned patches are: nothing is copied, nor exported
        return image
    return pad(image, (0, -width % step, 0, -height % step))


def crop(logits: Tensor, size: Sequence[int]) -> Tensor:
    """Cut off what :func:`pad_to_multiple` appended."""
    if tuple(logits.shape[2:]) == tuple(size):
        return logits
    return logits[..., : size[0], : size[1]]
