"""Losses between the student's logits and the teachers' mean probabilities."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import log_softmax, logsigmoid

from nnunet_kd.losses.contract import OutputLoss
from nnunet_kd.losses.reference import Reference
from nnunet_kd.losses.weighting import mean_over_voxels

# the lowest probability that is told apart from zero: half a step of an 8-bit soft label
SMALLEST_PROBABILITY = 1 / 510


def logits_kl(
    student: Tensor,
    teacher: Tensor,
    temperature: float = 1.0,
    *,
    regions: bool = False,
    weight: Tensor | None = None,
) -> Tensor:
    """Average Kullback-Leibler divergence from teacher to student over voxels.

    ``T^2 * mean over voxels of sum over c of p_c (log p_c - log q_c)`` with ``q = softmax(student / T)`` [1].
    With ``regions`` each channel is a Bernoulli variable of its own, ``q = sigmoid(student / T)``,
    and the divergences of the channels are added.

    Args:
        student: Logits, ``(B, C, *spatial)``. Gradients flow into these only.
        teacher: Probabilities at the same temperature, same shape, in [0, 1]; detached here.
        temperature: T > 0. The factor ``T^2`` keeps the scale of the gradient when T changes.
        regions: Overlapping regions (sigmoid) instead of exclusive labels (softmax).
        weight: How much each voxel counts, or a mask, ``(B, 1, *spatial)``. ``None`` counts all alike.

    Returns:
        A scalar in float32, 0 when no voxel counts.

    Raises:
        ValueError: If shapes differ.

    References:
        [1] Hinton et al., Distilling the Knowledge in a Neural Network, 2015, https://arxiv.org/abs/1503.02531

    Example:
        >>> import torch
        >>> logits = torch.zeros(1, 2, 4, 4)
        >>> logits_kl(logits, logits.softmax(1), temperature=2.0)
        tensor(0.)
    """
    if student.shape != teacher.shape:
        raise ValueError(f"student and teacher differ in shape: {tuple(student.shape)} and {tuple(teacher.shape)}")
    # float32: under autocast the logits are half precision and the sum over classes would lose small terms
    scaled = student.float() / temperature
    p = teacher.detach().float()
    if regions:
        divergence = _bernoulli_kl(p, scaled)
    else:
        divergence = (torch.xlogy(p, p) - p * log_softmax(scaled, dim=1)).sum(dim=1, keepdim=True)
    return mean_over_voxels(divergence, weight) * temperature**2


def _bernoulli_kl(p: Tensor, scaled: Tensor) -> Tensor:
    entropy = torch.xlogy(p, p) + torch.xlogy(1 - p, 1 - p)
    return (entropy - p * logsigmoid(scaled) - (1 - p) * logsigmoid(-scaled)).sum(dim=1, keepdim=True)


def log_probabilities(probabilities: Tensor) -> Tensor:
    """Return ``log(max(p, 1/510))``: logits, up to a constant, for losses that need them from mean probabilities."""
    return probabilities.float().clamp(min=SMALLEST_PROBABILITY).log()


@dataclass(frozen=True, kw_only=True)
class LogitsKL(OutputLoss):
    """Settings of :func:`logits_kl` in the ``kd`` block.

    Attributes:
        temperature: T > 0, the same for teacher and student.
        guide_ignored: Whether voxels of the ignore label, which have no supervision, keep the teacher's guidance.
        weighting: How much each voxel counts, see :func:`nnunet_kd.losses.weighting.voxel_weights`.
    """

    temperature: float = 2.0

    def __call__(self, student: Tensor, teacher: Tensor, reference: Reference) -> Tensor:
        """Compare one scale."""
        weight = self.weights(reference)
        return logits_kl(student, teacher, self.temperature, regions=reference.regions, weight=weight)
