"""Losses that ask for correlated outputs instead of equal ones."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from nnunet_kd.losses.contract import OutputLoss, check_number
from nnunet_kd.losses.logits import SMALLEST_PROBABILITY, check_same_shape, probabilities
from nnunet_kd.losses.reference import Reference
from nnunet_kd.losses.weighting import mean_over_voxels, weighted_mean

# what varies by less than half a step of an 8-bit soft label counts as constant
SMALLEST_VARIANCE = SMALLEST_PROBABILITY**2


def dist(
    student: Tensor,
    teacher: Tensor,
    temperature: float = 1.0,
    *,
    beta: float = 1.0,
    gamma: float = 1.0,
    regions: bool = False,
    weight: Tensor | None = None,
) -> Tensor:
    """Average 1 - Pearson correlation between the student's and the teacher's probabilities.

    ``beta * inter + gamma * intra`` [1, L_inter and L_intra]. Inter: the correlation over the classes of a voxel,
    averaged over voxels. Intra: the correlation over all voxels of the batch for one class, averaged over classes.

    Probabilities that hardly vary have no direction to compare; see :func:`pearson_distance` for what is done. So an
    absent class and a teacher of 0 and 1 are safe. For two classes the inter part says which one is likelier and no
    more, since any two pairs are collinear. With ``regions`` it compares the order of the channels in a voxel; with one
    region it is 0. The authors' code multiplies by ``T^2``; here it is left out, because a correlation does not shrink
    when T grows.

    Args:
        student: Logits, ``(B, C, *spatial)``. Gradients flow into these only.
        teacher: Probabilities at the same temperature, same shape, in [0, 1]; detached here.
        temperature: T > 0.
        beta: Factor of the inter-class part.
        gamma: Factor of the intra-class part.
        regions: Overlapping regions (sigmoid) instead of exclusive labels (softmax).
        weight: How much each voxel counts, or a mask, ``(B, 1, *spatial)``. ``None`` counts all alike.

    Returns:
        A scalar in float32 in [0, 2 (beta + gamma)], 0 when no voxel counts.

    Raises:
        ValueError: If shapes differ.

    References:
        [1] Huang et al., Knowledge Distillation from A Stronger Teacher, NeurIPS 2022, section 3,
        https://arxiv.org/abs/2205.10536

    Example:
        >>> import torch
        >>> logits = torch.tensor([[0.0, 2.0], [3.0, 1.0]])[..., None]
        >>> dist(logits, logits.softmax(1)).abs().round(decimals=5)
        tensor(0.)
    """
    check_same_shape(student, teacher)
    q = probabilities(student, temperature, regions=regions)
    p = teacher.detach().float()
    inter = mean_over_voxels(pearson_distance(q, p, [1]), weight)
    intra = pearson_distance(q, p, [axis for axis in range(q.ndim) if axis != 1], weight).mean()
    return beta * inter + gamma * intra


def pearson_distance(u: Tensor, v: Tensor, axes: Sequence[int], weight: Tensor | None = None) -> Tensor:
    """Return 1 - Pearson correlation of two arrays along some axes, which are kept with length 1.

    ``1 - (cov(u, v) + e) / sqrt((var(u) + e) (var(v) + e))`` with ``e = 1/510^2``: as if both had, besides, a common
    part of standard deviation 1/510. Two constants are equal then, and a constant is far from all that varies.

    Args:
        u: Values around [0, 1], float32.
        v: Values of the same shape.
        axes: The axes to correlate along.
        weight: Weights >= 0 that broadcast to ``u``; ``None`` counts all alike.

    Example:
        >>> import torch
        >>> u = torch.tensor([0.0, 0.5, 1.0])
        >>> pearson_distance(u, 1 - u, [0]).round(decimals=3)
        tensor([2.])
    """

    def mean(values: Tensor) -> Tensor:
        return weighted_mean(values, weight, axes, keepdim=True)

    u, v = u - mean(u), v - mean(v)
    covariance = mean(u * v) + SMALLEST_VARIANCE
    variances = [mean(x * x) + SMALLEST_VARIANCE for x in (u, v)]
    return 1 - covariance / (variances[0] * variances[1]).sqrt()


@dataclass(frozen=True, kw_only=True)
class DIST(OutputLoss):
    """Settings of :func:`dist` in the ``kd`` block.

    Attributes:
        temperature: T > 0, the same for teacher and student.
        guide_ignored: Whether voxels of the ignore label, which have no supervision, keep the teacher's guidance.
        weighting: How much each voxel counts, see :func:`nnunet_kd.losses.weighting.voxel_weights`.
        beta: Factor >= 0 of the correlation over the classes of a voxel; of little use for two classes.
        gamma: Factor >= 0 of the correlation over the voxels of a class.
    """

    beta: float = 1.0
    gamma: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("beta", self.beta, at_least=0)
        check_number("gamma", self.gamma, at_least=0)

    def __call__(self, student: Tensor, teacher: Tensor, reference: Reference) -> Tensor:
        """Compare one scale."""
        return dist(
            student,
            teacher,
            self.temperature,
            beta=self.beta,
            gamma=self.gamma,
            regions=reference.regions,
            weight=self.weights(reference),
        )
