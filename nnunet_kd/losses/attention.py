"""Attention transfer: where the network is active, whatever its channels mean."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from nnunet_kd.losses.contract import FeatureLoss, check_choice, check_number
from nnunet_kd.losses.maps import check_maps, inverse_length
from nnunet_kd.losses.reference import Reference

NORMALISATIONS = ("spatial", "batch")
DISTANCES = ("squared", "l1")


def attention_map(features: Tensor, exponent: float = 2.0) -> Tensor:
    """Return the flattened map ``sum over c of |A_c|^p`` of each sample, of length 1 (all zeros for zeros).

    Args:
        features: ``(B, C, *spatial)``.
        exponent: p >= 1.

    Returns:
        Float32, ``(B, n_voxels)``, >= 0.
    """
    features = features.float()
    largest = features.detach().abs().flatten(1).amax(dim=1).view(-1, *[1] * (features.ndim - 1))
    energy = _energy(features, largest, exponent)
    return energy * inverse_length(energy, dim=1)


def batch_attention_map(features: Tensor, exponent: float = 2.0) -> Tensor:
    """Return the flattened map ``sum over c of |A_c|^p``, of length 1 over the batch at each voxel, as KD-MRI's code.

    The map of a sample then depends on what else is in the batch, and for a batch of one it is 1 everywhere.

    Args:
        features: ``(B, C, *spatial)``.
        exponent: p >= 1.

    Returns:
        Float32, ``(B, n_voxels)``, >= 0.
    """
    features = features.float()
    return normalize(_energy(features, features.detach().abs().amax(), exponent), dim=0)


def _energy(features: Tensor, largest: Tensor, exponent: float) -> Tensor:
    # the length is taken out anyway; without this, half precision's largest values to the fourth power overflow
    largest = torch.where(largest > 0, largest, torch.ones_like(largest))
    return (features / largest).abs().pow(exponent).sum(dim=1).flatten(1)


def attention_transfer(
    student: Tensor,
    teacher: Tensor,
    exponent: float = 2.0,
    *,
    normalisation: str = "spatial",
    distance: str = "squared",
) -> Tensor:
    """Average squared distance between the unit attention maps of student and teacher over samples.

    ``mean over samples of |Q_s / |Q_s| - Q_t / |Q_t||^2``, Q the flattened ``sum over c of |A_c|^p`` [1, eq. 2].
    It lies in [0, 2], being ``2 - 2 cos(Q_s, Q_t)``, and so depends neither on the number of voxels nor on the scale or
    the order of channels. Two changes to [1]: the distance is squared, as in the authors' code and in [2], because a
    distance has no gradient at 0; and the authors' code then divides by the number of voxels, which is left out, so
    that a weight holds for every patch size (their weight of 1000 for a map of 8x8 is 1000 / 64 here).

    KD-MRI [3] compares other maps by another distance; as published they are ``batch`` and ``l1``.

    Args:
        student: Features, ``(B, C_s, *spatial)``. Gradients flow into these only.
        teacher: Features, ``(B, C_t, *spatial)``; detached here.
        exponent: p >= 1; 2 in [1], 4 in [2]. The higher, the more the strongest activations count.
        normalisation: ``spatial``, maps of length 1 per sample; ``batch``, of length 1 over the batch at each voxel,
            see :func:`batch_attention_map`.
        distance: ``squared``, the sum of squares over a unit map, or ``l1``, the absolute difference: its mean over
            everything for ``batch``, as published; for ``spatial`` the sum over voxels by the root of their number,
            which no patch size changes, in [0, sqrt(2)].

    Returns:
        A scalar in float32.

    Raises:
        ValueError: If batch or space differ.

    References:
        [1] Zagoruyko and Komodakis, Paying More Attention to Attention: Improving the Performance of Convolutional
            Neural Networks via Attention Transfer, 2017, https://arxiv.org/abs/1612.03928
        [2] Qin et al., Efficient Medical Image Segmentation Based on Knowledge Distillation, 2021,
            https://arxiv.org/abs/2108.09987
        [3] Murugesan et al., KD-MRI, 2020, https://arxiv.org/abs/2004.05319

    Example:
        >>> left, right = torch.tensor([[[[1.0, 0.0]]], [[[0.0, 5.0]]]]).split(1)
        >>> attention_transfer(left, right), attention_transfer(left, 3 * left)
        (tensor(2.), tensor(0.))
    """
    check_maps(student, teacher, channels=False)
    unit_map, axis = (batch_attention_map, 0) if normalisation == "batch" else (attention_map, 1)
    difference = unit_map(student, exponent) - unit_map(teacher.detach(), exponent)
    if distance == "squared":
        return difference.square().sum(dim=axis).mean()
    return difference.abs().mean() * (1 if axis == 0 else difference.shape[1] ** 0.5)


@dataclass(frozen=True, kw_only=True)
class AttentionTransfer(FeatureLoss):
    """Settings of :func:`attention_transfer` in the ``kd`` block.

    Attributes:
        pairs: Which stages are compared, see :class:`nnunet_kd.losses.contract.FeatureLoss`.
        exponent: p >= 1 of the attention map.
        normalisation: ``spatial`` or ``batch``.
        distance: ``squared`` or ``l1``.
    """

    exponent: float = 2.0
    normalisation: str = "spatial"
    distance: str = "squared"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("exponent", self.exponent, at_least=1)
        check_choice("normalisation", self.normalisation, NORMALISATIONS)
        check_choice("distance", self.distance, DISTANCES)

    def __call__(self, student: Tensor, teacher: Tensor, reference: Reference) -> Tensor:  # noqa: ARG002
        """Compare one pair of feature maps."""
        return attention_transfer(
            student, teacher, self.exponent, normalisation=self.normalisation, distance=self.distance
        )
