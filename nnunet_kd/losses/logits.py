"""Losses between the student's logits and the teachers' mean probabilities."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import log_softmax, logsigmoid, softmax

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
    check_same_shape(student, teacher)
    # float32: under autocast the logits are half precision and the sum over classes would lose small terms
    scaled = student.float() / temperature
    p = teacher.detach().float()
    if regions:
        divergence = bernoulli_kl(p, scaled)
    else:
        divergence = (p_log_p(p) - p * log_softmax(scaled, dim=1)).sum(dim=1, keepdim=True)
    return mean_over_voxels(divergence, weight) * temperature**2


def p_log_p(p: Tensor) -> Tensor:
    """Return ``p log p`` with 0 at 0, like ``torch.xlogy(p, p)`` in less than half its time on CPUs."""
    return p * p.clamp(min=1e-30).log()


def bernoulli_kl(p: Tensor, scaled: Tensor) -> Tensor:
    """Return the divergence from ``p`` to ``sigmoid(scaled)`` per voxel, summed over channels, ``(B, 1, *spatial)``.

    Args:
        p: Probabilities, ``(B, C, *spatial)``, float32.
        scaled: Logits over temperature, same shape, float32.
    """
    entropy = p_log_p(p) + p_log_p(1 - p)
    return (entropy - p * logsigmoid(scaled) - (1 - p) * logsigmoid(-scaled)).sum(dim=1, keepdim=True)


def logits_mse(
    student: Tensor,
    teacher: Tensor,
    temperature: float = 1.0,
    *,
    regions: bool = False,
    weight: Tensor | None = None,
) -> Tensor:
    """Average squared difference of the logits over voxels.

    ``T^2 * mean over voxels of mean over c of (x_c - y_c)^2`` [1, L_MSE] with ``x = student / T`` and
    ``y = log p``, both freed of their mean over classes, which softmax does not see and ``p`` does not tell.
    With ``regions`` ``y = log(p / (1 - p))`` and nothing is removed.

    ``p`` is taken as at least 1/510 (with ``regions`` also as at most 509/510): beyond that a logit is not known.
    So the teacher's logits differ by at most ``6.2 T``, and only a student within that range can reach 0.
    The factor ``T^2`` makes the unit the logit, whatever T is; the gradient is then twice that of
    :func:`logits_kl` at high temperatures. Research code takes the teacher's logits themselves and removes no mean.

    Args:
        student: Logits, ``(B, C, *spatial)``. Gradients flow into these only.
        teacher: Probabilities at the same temperature, same shape, in [0, 1]; detached here.
        temperature: T > 0. The higher, the wider the range of logits that the probabilities still tell apart.
        regions: Overlapping regions (sigmoid) instead of exclusive labels (softmax).
        weight: How much each voxel counts, or a mask, ``(B, 1, *spatial)``. ``None`` counts all alike.

    Returns:
        A scalar in float32, in squared logits; 0 when no voxel counts.

    Raises:
        ValueError: If shapes differ.

    References:
        [1] Kim et al., Comparing Kullback-Leibler Divergence and Mean Squared Error Loss in Knowledge Distillation,
        IJCAI 2021, https://arxiv.org/abs/2105.08919

    Example:
        >>> import torch
        >>> logits = torch.tensor([[0.0, 2.0]])[..., None]
        >>> logits_mse(logits + 5, torch.softmax(logits, dim=1)).round(decimals=4)
        tensor(0.)
    """
    check_same_shape(student, teacher)
    scaled = student.float() / temperature
    p = teacher.detach().float()
    if regions:
        target = p.clamp(SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY).logit()
    else:
        scaled = scaled - scaled.mean(dim=1, keepdim=True)
        target = log_probabilities(p)
        target = target - target.mean(dim=1, keepdim=True)
    return mean_over_voxels((scaled - target).square().mean(dim=1, keepdim=True), weight) * temperature**2


def check_same_shape(student: Tensor, teacher: Tensor) -> None:
    """Refuse outputs that cannot be compared voxel by voxel.

    Raises:
        ValueError: With both shapes.
    """
    if student.shape != teacher.shape:
        raise ValueError(f"student and teacher differ in shape: {tuple(student.shape)} and {tuple(teacher.shape)}")


def probabilities(logits: Tensor, temperature: float = 1.0, *, regions: bool = False) -> Tensor:
    """Return ``softmax(logits / T)`` over channels, or the sigmoid for regions, in float32.

    Args:
        logits: ``(B, C, *spatial)``.
        temperature: T > 0.
        regions: Overlapping regions (sigmoid) instead of exclusive labels (softmax).
    """
    scaled = logits.float() / temperature
    return torch.sigmoid(scaled) if regions else softmax(scaled, dim=1)


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


@dataclass(frozen=True, kw_only=True)
class LogitsMSE(OutputLoss):
    """Settings of :func:`logits_mse` in the ``kd`` block.

    Attributes:
        temperature: T > 0, the same for teacher and student.
        guide_ignored: Whether voxels of the ignore label, which have no supervision, keep the teacher's guidance.
        weighting: How much each voxel counts, see :func:`nnunet_kd.losses.weighting.voxel_weights`.
    """

    temperature: float = 2.0

    def __call__(self, student: Tensor, teacher: Tensor, reference: Reference) -> Tensor:
        """Compare one scale."""
        weight = self.weights(reference)
        return logits_mse(student, teacher, self.temperature, regions=reference.regions, weight=weight)
