"""Relations within a feature map: between voxels and their class, between classes, between places.

All of them are cosines, so that the number, the order and the scale of the channels do not matter and no adapter
is needed.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, adaptive_avg_pool3d

from nnunet_kd.losses.contract import FeatureLoss, check_number
from nnunet_kd.losses.maps import check_maps, inverse_length
from nnunet_kd.losses.reference import Reference
from nnunet_kd.losses.weighting import mean_over_voxels


def segments(reference: Reference) -> Tensor:
    """Return the masks whose mean features are compared, ``(B, K, *spatial)``, False where the label is ignored.

    The classes with the background, K = C; or the regions and, as the last one, the background outside them, K = C + 1.
    """
    if not reference.regions:
        return reference.masks
    background = ~reference.foreground
    if reference.ignored is not None:
        background = background & ~reference.ignored
    return torch.cat([reference.masks, background], dim=1)


def ifvd(student: Tensor, teacher: Tensor, masks: Tensor) -> Tensor:
    """Average squared difference of the intra-class feature variation over voxels.

    ``mean over voxels of (M_s - M_t)^2`` with ``M`` the cosine between a voxel's feature and the mean feature of its
    class in its sample [1]. It lies in [0, 4]. A voxel counts once per mask that holds it: regions overlap.

    Args:
        student: Features, ``(B, C_s, *spatial)``. Gradients flow into these only, through voxels and class means.
        teacher: Features, ``(B, C_t, *spatial)``; detached here.
        masks: True inside each class, ``(B, K, *spatial)``; voxels in no mask do not count. Two maps of this shape in
            float32 are held for the gradient.

    Returns:
        A scalar in float32, 0 when no voxel counts.

    Raises:
        ValueError: If batch or space differ.

    References:
        [1] Wang et al., Intra-class Feature Variation Distillation for Semantic Segmentation, 2020, the IFV loss,
            https://www.ecva.net/papers/eccv_2020/papers_ECCV/html/230_ECCV_2020_paper.php
    """
    check_maps(student, teacher, channels=False)
    inside = masks.flatten(2).float()
    variation = _variation(student.float().flatten(2), inside)
    target = _variation(teacher.detach().float().flatten(2), inside)
    return mean_over_voxels((variation - target).square(), inside)


def region_affinity(student: Tensor, teacher: Tensor, masks: Tensor) -> Tensor:
    """Average squared difference of the affinity of classes over pairs of classes, then over samples.

    The affinity of two classes is the cosine of their mean features [1]. [1] has tumour or organ against
    background; here every pair of masks that has a voxel in the sample counts once. Samples with fewer than two such
    masks do not count. It lies in [0, 4] and has no voxels to average over: two classes weigh as much as twenty.

    Args:
        student: Features, ``(B, C_s, *spatial)``. Gradients flow into these only.
        teacher: Features, ``(B, C_t, *spatial)``; detached here.
        masks: True inside each class, ``(B, K, *spatial)``.

    Returns:
        A scalar in float32, 0 when no sample counts.

    Raises:
        ValueError: If batch or space differ.

    References:
        [1] Qin et al., Efficient Medical Image Segmentation Based on Knowledge Distillation, 2021, the module of region
            affinity, https://arxiv.org/abs/2108.09987
    """
    check_maps(student, teacher, channels=False)
    inside = masks.flatten(2).float()
    affinity = _cosines(_class_means(student.float().flatten(2), inside))
    target = _cosines(_class_means(teacher.detach().float().flatten(2), inside))
    present = inside.amax(dim=2)
    counts = (present[:, :, None] * present[:, None, :]).triu(diagonal=1)
    n_pairs = counts.sum(dim=(1, 2))
    per_sample = ((affinity - target).square() * counts).sum(dim=(1, 2)) / n_pairs.clamp(min=1)
    return per_sample.sum() / (n_pairs > 0).sum().clamp(min=1)


def pairwise_affinity(student: Tensor, teacher: Tensor, max_tokens: int = 8) -> Tensor:
    """Average squared difference of the affinity of places over all pairs of places and samples.

    ``mean over i, j of (a_ij^s - a_ij^t)^2`` with ``a_ij`` the cosine of the features at two places [1],
    each place the mean over a block of voxels. It lies in [0, 4].

    Args:
        student: Features, ``(B, C_s, *spatial)``. Gradients flow into these only.
        teacher: Features, ``(B, C_t, *spatial)``; detached here.
        max_tokens: Most places per axis. Finer maps are pooled; the matrix has ``max_tokens^(2 * axes)`` entries, 1 MB
            per sample for 8 in 3-D.

    Returns:
        A scalar in float32.

    Raises:
        ValueError: If batch or space differ.

    References:
        [1] Liu et al., Structured Knowledge Distillation for Semantic Segmentation, 2019, the pair-wise term,
            https://arxiv.org/abs/1903.04197
    """
    check_maps(student, teacher, channels=False)
    affinity, target = (_cosines(_tokens(x, max_tokens)) for x in (student.float(), teacher.detach().float()))
    return (affinity - target).square().mean()


def _tokens(features: Tensor, max_tokens: int) -> Tensor:
    """Return the features at the places of a coarse grid, ``(B, n_tokens, C)``."""
    size = [min(n, max_tokens) for n in features.shape[2:]]
    pool = adaptive_avg_pool3d if features.ndim == 5 else adaptive_avg_pool2d
    pooled = pool(features, size)  # type: ignore[arg-type]  # typed for tuples of one length
    return pooled.flatten(2).mT


def _class_means(features: Tensor, masks: Tensor) -> Tensor:
    """Return the mean feature inside each mask, ``(B, K, C)``, zeros for an empty one.

    Args:
        features: ``(B, C, V)``.
        masks: 0 or 1, ``(B, K, V)``.
    """
    return _products(masks, features) / masks.sum(dim=2, keepdim=True).clamp(min=1)


def _variation(features: Tensor, masks: Tensor) -> Tensor:
    """Return the cosine of every voxel with every class mean, ``(B, K, V)``."""
    means = _class_means(features, masks)
    # scaled after the product: unit features of all voxels would be one more map to hold
    return _products(means * inverse_length(means, dim=2), features.mT) * inverse_length(features, dim=1)


def _cosines(vectors: Tensor) -> Tensor:
    """Return the cosines between all vectors of a sample, ``(B, N, N)``, of ``(B, N, C)``."""
    unit = vectors * inverse_length(vectors, dim=2)
    return _products(unit, unit)


def _products(left: Tensor, right: Tensor) -> Tensor:
    """Return the inner products of ``(B, M, C)`` and ``(B, N, C)``, ``(B, M, N)``, in float32 even under autocast."""
    with torch.autocast(device_type=left.device.type, enabled=False):
        return left @ right.mT


@dataclass(frozen=True, kw_only=True)
class IFVD(FeatureLoss):
    """Settings of :func:`ifvd` in the ``kd`` block: classes or regions, and the background, of the labels.

    Attributes:
        pairs: Which stages are compared, see :class:`nnunet_kd.losses.contract.FeatureLoss`.
    """

    def __call__(self, student: Tensor, teacher: Tensor, reference: Reference) -> Tensor:
        """Compare one pair of feature maps."""
        return ifvd(student, teacher, segments(reference))


@dataclass(frozen=True, kw_only=True)
class RegionAffinity(FeatureLoss):
    """Settings of :func:`region_affinity` in the ``kd`` block: classes or regions, and the background, of the labels.

    Attributes:
        pairs: Which stages are compared, see :class:`nnunet_kd.losses.contract.FeatureLoss`.
    """

    def __call__(self, student: Tensor, teacher: Tensor, reference: Reference) -> Tensor:
        """Compare one pair of feature maps."""
        return region_affinity(student, teacher, segments(reference))


@dataclass(frozen=True, kw_only=True)
class PairwiseAffinity(FeatureLoss):
    """Settings of :func:`pairwise_affinity` in the ``kd`` block.

    Attributes:
        pairs: Which stages are compared, see :class:`nnunet_kd.losses.contract.FeatureLoss`.
        max_tokens: Most places per axis, a whole number >= 1.
    """

    max_tokens: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("max_tokens", self.max_tokens, above=0)
        if not isinstance(self.max_tokens, int):
            raise ValueError(f"max_tokens: expected a whole number, got {self.max_tokens!r}")

    def __call__(self, student: Tensor, teacher: Tensor, reference: Reference) -> Tensor:  # noqa: ARG002
        """Compare one pair of feature maps."""
        return pairwise_affinity(student, teacher, self.max_tokens)
