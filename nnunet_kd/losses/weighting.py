"""How much each voxel counts in a mean over voxels."""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d, max_pool3d

from nnunet_kd.losses.reference import Reference

# the values that a loss's ``weighting`` may have
WEIGHTINGS = ("uniform", "foreground", "boundary")


def mean_over_voxels(per_voxel: Tensor, weight: Tensor | None = None) -> Tensor:
    """Return the weighted mean of a map ``(B, 1, *spatial)``, 0 when no voxel counts.

    Args:
        per_voxel: Values, float32.
        weight: Weights >= 0 or a mask, same shape; ``None`` counts all alike.
    """
    return weighted_mean(per_voxel, weight, range(per_voxel.ndim))


def weighted_mean(values: Tensor, weight: Tensor | None, axes: Iterable[int], *, keepdim: bool = False) -> Tensor:
    """Return the weighted mean along some axes, 0 where nothing counts.

    Args:
        values: Any shape, float32.
        weight: Weights >= 0 or a mask with as many axes, of the size of ``values`` or 1 along those kept; ``None``
            counts all alike.
        axes: The axes to average over.
        keepdim: Whether they stay, with length 1.
    """
    over = list(axes)
    if weight is None:
        return values.mean(over, keepdim=keepdim)
    weight = weight.to(values.dtype)
    total = weight.sum(over, keepdim=keepdim)
    return (values * weight).sum(over, keepdim=keepdim) / torch.where(total > 0, total, torch.ones_like(total))


def voxel_weights(reference: Reference, weighting: str = "uniform", *, guide_ignored: bool = True) -> Tensor | None:
    """Return the weight of each voxel, ``(B, 1, *spatial)``, or ``None`` where all count alike.

    Args:
        reference: The labels.
        weighting: ``uniform``. ``foreground``: the foreground of the batch has half the weight, its background
            the other half, so that small structures are not drowned. ``boundary``: voxels with a voxel of another
            class or region beside them have half the weight, all others the other half. Where one
            of the two sets is empty, the other has it all.
        guide_ignored: Whether voxels of the ignore label, which have no supervision, count. They are
            background for ``weighting``.

    Raises:
        ValueError: For another name.
    """
    if weighting not in WEIGHTINGS:
        raise ValueError(f"weighting: expected one of {', '.join(WEIGHTINGS)}, got {weighting!r}")
    counts = None if guide_ignored or reference.ignored is None else ~reference.ignored
    if weighting == "uniform":
        return counts
    chosen = reference.foreground if weighting == "foreground" else boundary(reference.masks)
    return _halves(chosen, counts)


def _halves(chosen: Tensor, counts: Tensor | None) -> Tensor:
    inside, outside = chosen, ~chosen
    if counts is not None:
        inside, outside = inside & counts, outside & counts
    return inside / inside.sum().clamp(min=1) + outside / outside.sum().clamp(min=1)


def boundary(masks: Tensor) -> Tensor:
    """Return where a neighbour (diagonals included) belongs to another class or region, ``(B, 1, *spatial)``.

    Args:
        masks: True inside each class or region, ``(B, C, *spatial)`` in 2-D or 3-D.
    """
    pool = max_pool3d if masks.ndim == 5 else max_pool2d
    inside = masks.float()
    dilated = pool(inside, kernel_size=3, stride=1, padding=1)
    eroded = 1 - pool(1 - inside, kernel_size=3, stride=1, padding=1)
    return (dilated != eroded).any(dim=1, keepdim=True)
