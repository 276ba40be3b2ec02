"""Similarity-preserving distillation: which samples of a batch look alike to the network."""

from dataclasses import dataclass

import torch
from torch import Tensor

from nnunet_kd.losses.contract import FeatureLoss
from nnunet_kd.losses.maps import check_maps, inverse_length
from nnunet_kd.losses.reference import Reference


def similarity_preserving(student: Tensor, teacher: Tensor) -> Tensor:
    """Average squared difference of the similarity of samples over all pairs of samples.

    ``1 / B^2 * |G_s - G_t|^2`` with ``G`` the inner products of the flattened features of any two samples, each row
    scaled to length 1 [1, eq. 1 to 4]. It lies in [0, 4 / B]; a batch of one says nothing and costs 0.

    Args:
        student: Features, ``(B, C_s, *spatial)``. Gradients flow into these only.
        teacher: Features, ``(B, C_t, *spatial)``; detached here.

    Returns:
        A scalar in float32.

    Raises:
        ValueError: If batch or space differ.

    References:
        [1] Tung and Mori, Similarity-Preserving Knowledge Distillation, 2019, https://arxiv.org/abs/1907.09682

    Example:
        >>> teacher = torch.eye(2).view(2, 1, 1, 2)
        >>> similarity_preserving(3 * teacher, teacher), similarity_preserving(torch.ones(2, 1, 1, 2), teacher)
        (tensor(0.), tensor(0.2929))
    """
    check_maps(student, teacher, channels=False)
    return (_similarities(student.float()) - _similarities(teacher.detach().float())).square().mean()


def _similarities(features: Tensor) -> Tensor:
    """Return the inner products of all samples, ``(B, B)``, rows of length 1 or zeros."""
    vectors = features.flatten(1)
    # rows are scaled to length 1 anyway; without this, products of large or small features leave float32's range
    largest = vectors.detach().abs().amax().clamp(min=torch.finfo(torch.float32).tiny)
    vectors = vectors / largest
    with torch.autocast(device_type=vectors.device.type, enabled=False):
        products = vectors @ vectors.mT
    return products * inverse_length(products, dim=1)


@dataclass(frozen=True, kw_only=True)
class SimilarityPreserving(FeatureLoss):
    """Settings of :func:`similarity_preserving` in the ``kd`` block. It wants batches of more than two samples.

    Attributes:
        pairs: Which stages are compared, see :class:`nnunet_kd.losses.contract.FeatureLoss`.
    """

    def __call__(self, student: Tensor, teacher: Tensor, reference: Reference) -> Tensor:  # noqa: ARG002
        """Compare one pair of feature maps."""
        return similarity_preserving(student, teacher)
