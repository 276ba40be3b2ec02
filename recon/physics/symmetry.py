"""Conjugate symmetry: the k-space of a real image has ``k(-f) = conj(k(f))``, so half of it says the rest."""

import torch
from torch import Tensor

from nnunet_kd.recon.physics.sampling import apply_mask, sampled


def mirror(values: Tensor) -> Tensor:
    """Return ``v(-f)`` of values ``v(f)`` on a centred grid.

    The lowest frequency of an axis of even length is its own opposite. An axis of length 1 stays as it is, so that
    masks of whole rows or columns can be mirrored too.

    Args:
        values: ``(..., H, W)``.

    Example:
        >>> mirror(torch.tensor([[0, 1, 2, 3]])), mirror(torch.tensor([[0, 1, 2]]))
        (tensor([[0, 3, 2, 1]]), tensor([[2, 1, 0]]))
    """
    even = [axis for axis in (-2, -1) if values.shape[axis] % 2 == 0]
    return values.flip(-2, -1).roll([1] * len(even), even) if even else values.flip(-2, -1)


def fill_conjugates(kspace: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Fill in the opposites of the samples, as if the image were real.

    Where a frequency and its opposite were both sampled, both get the mean of the one and the other's conjugate, which
    for noise-free data of a real image changes nothing. Only data that were made from magnitude images are of a real
    image: a measured image has phase, and this would destroy it.

    Args:
        kspace: ``(..., C, H, W)``, complex.
        mask: 0 or 1, ``(..., H or 1, W or 1)``.

    Returns:
        K-space, conjugate symmetric, zero where neither a frequency nor its opposite was sampled; and its mask.
    """
    opposite_mask = mirror(mask)
    measured, opposite = apply_mask(kspace, mask), mirror(apply_mask(kspace, mask)).conj()
    both = sampled(mask) & sampled(opposite_mask)
    filled = measured + opposite
    return torch.where(both, filled / 2, filled), torch.maximum(mask, opposite_mask)
