"""Attention transfer: where the network is active, whatever its channels mean."""

from dataclasses import dataclass

from torch import Tensor, ones_like, where

from nnunet_kd.losses.contract import FeatureLoss, check_number
from nnunet_kd.losses.maps import check_maps, inverse_length
from nnunet_kd.losses.reference import Reference


def attention_map(features: Tensor, exponent: float = 2.0) -> Tensor:
    """Return the flattened map ``sum over c of |A_c|^p`` of each sample, of length 1 (all zeros for zeros).

    Args:
        features: ``(B, C, *spatial)``.
        exponent: p >= 1.

    Returns:
        Float32, ``(B, n_voxels)``, >= 0.
    """
    features = features.float()
    # the length is taken out anyway; without this, half precision's largest values to the fourth power overflow
    largest = features.detach().abs().flatten(1).amax(dim=1).view(-1, *[1] * (features.ndim - 1))
    largest = where(largest > 0, largest, ones_like(largest))
    energy = (features / largest).abs().pow(exponent).sum(dim=1).flatten(1)
    return energy * inverse_length(energy, dim=1)


def attention_transfer(student: Tensor, teacher: Tensor, exponent: float = 2.0) -> Tensor:
    """Average squared distance between the unit attention maps of student and teacher over samples.

    ``mean over samples of |Q_s / |Q_s| - Q_t / |Q_t||^2``, Q the flattened ``sum over c of |A_c|^p`` [1, eq. 2].
    It lies in [0, 2], being ``2 - 2 cos(Q_s, Q_t)``, and so depends neither on the number of voxels nor on the scale or
    the order of channels. Two changes to [1]: the distance is squared, as in the authors' code and in [2], because a
    distance has no gradient at 0; and the authors' code then divides by the number of voxels, which is left out, so
    that a weight holds for every patch size (their weight of 1000 for a map of 8x8 is 1000 / 64 here).

    Args:
        student: Features, ``(B, C_s, *spatial)``. Gradients flow into these only.
        teacher: Features, ``(B, C_t, *spatial)``; detached here.
        exponent: p >= 1; 2 in [1], 4 in [2]. The higher, the more the strongest activations count.

    Returns:
        A scalar in float32.

    Raises:
        ValueError: If batch or space differ.

    References:
        [1] Zagoruyko and Komodakis, Paying More Attention to Attention: Improving the Performance of Convolutional
            Neural Networks via Attention Transfer, 2017, https://arxiv.org/abs/1612.03928
        [2] Qin et al., Efficient Medical Image Segmentation Based on Knowledge Distillation, 2021,
            https://arxiv.org/abs/2108.09987

    Example:
        >>> import torch
        >>> left, right = torch.tensor([[[[1.0, 0.0]]], [[[0.0, 5.0]]]]).split(1)
        >>> attention_transfer(left, right), attention_transfer(left, 3 * left)
        (tensor(2.), tensor(0.))
    """
    check_maps(student, teacher, channels=False)
    difference = attention_map(student, exponent) - attention_map(teacher.detach(), exponent)
    return difference.square().sum(dim=1).mean()


@dataclass(frozen=True, kw_only=True)
class AttentionTransfer(FeatureLoss):
    """Settings of :func:`attention_transfer` in the ``kd`` block.

    Attributes:
        pairs: Which stages are compared, see :class:`nnunet_kd.losses.contract.FeatureLoss`.
        exponent: p >= 1 of the attention map.
    """

    exponent: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("exponent", self.exponent, at_least=1)

    def __call__(self, student: Tensor, teacher: Tensor, reference: Reference) -> Tensor:  # noqa: ARG002
        """Compare one pair of feature maps."""
        return attention_transfer(student, teacher, self.exponent)
