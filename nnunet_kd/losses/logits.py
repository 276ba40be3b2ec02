"""Losses between the student's logits and the teachers' mean probabilities."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import log_softmax, logsigmoid

# the lowest probability that is told apart from zero: half a step of an 8-bit soft label
SMALLEST_PROBABILITY = 1 / 510


def logits_kl(
    student: Tensor,
    teacher: Tensor,
    temperature: float = 1.0,
    *,
    regions: bool = False,
    mask: Tensor | None = None,
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
        mask: Voxels that count, ``(B, 1, *spatial)``. ``None`` counts all.

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
    return _mean_over_voxels(divergence, mask) * temperature**2


def _bernoulli_kl(p: Tensor, scaled: Tensor) -> Tensor:
    entropy = torch.xlogy(p, p) + torch.xlogy(1 - p, 1 - p)
    return (entropy - p * logsigmoid(scaled) - (1 - p) * logsigmoid(-scaled)).sum(dim=1, keepdim=True)


def _mean_over_voxels(per_voxel: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return per_voxel.mean()
    mask = mask.to(per_voxel.dtype)
    return (per_voxel * mask).sum() / mask.sum().clamp(min=1)


def log_probabilities(probabilities: Tensor) -> Tensor:
    """Return ``log(max(p, 1/510))``: logits, up to a constant, for losses that need them from mean probabilities."""
    return probabilities.float().clamp(min=SMALLEST_PROBABILITY).log()


@dataclass(frozen=True, kw_only=True)
class LogitsKL:
    """Settings of :func:`logits_kl` in the ``kd`` block.

    Attributes:
        temperature: T > 0, the same for teacher and student.
        guide_ignored: Whether voxels of the ignore label, which have no supervision, keep the teacher's guidance.
    """

    temperature: float = 2.0
    guide_ignored: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.temperature, int | float) or not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature: expected a number > 0, got {self.temperature!r}")
        if not isinstance(self.guide_ignored, bool):
            raise ValueError(f"guide_ignored: expected true or false, got {self.guide_ignored!r}")

    def __call__(self, student: Tensor, teacher: Tensor, *, regions: bool, ignored: Tensor | None) -> Tensor:
        """Compare one scale.

        Args:
            student: Logits, ``(B, C, *spatial)``.
            teacher: Probabilities at :attr:`temperature`, same shape.
            regions: Whether channels are overlapping regions.
            ignored: True where the ignore label lies, ``(B, 1, *spatial)``, or ``None``.
        """
        mask = None if ignored is None or self.guide_ignored else ~ignored
        return logits_kl(student, teacher, self.temperature, regions=regions, mask=mask)
