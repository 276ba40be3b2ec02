"""Decoupled distillation: how sure the teacher is of the right class, and how it ranks the wrong ones."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from nnunet_kd.losses.contract import OutputLoss, check_number
from nnunet_kd.losses.logits import SMALLEST_PROBABILITY, bernoulli_kl, check_same_shape, p_log_p
from nnunet_kd.losses.reference import Reference
from nnunet_kd.losses.weighting import mean_over_voxels


def dkd(
    student: Tensor,
    teacher: Tensor,
    temperature: float = 1.0,
    *,
    target: Tensor | None = None,
    alpha: float = 1.0,
    beta: float = 0.25,
    regions: bool = False,
    weight: Tensor | None = None,
) -> Tensor:
    """Average decoupled divergence from teacher to student over voxels.

    ``T^2 * mean over voxels of (alpha TCKD + beta NCKD)`` [1, eq. 7]. With the voxel's target class t,
    TCKD is the divergence of ``(p_t, 1 - p_t)``, and NCKD the divergence of the other classes' probabilities,
    ``p_c / (1 - p_t)``. :func:`nnunet_kd.losses.logits.logits_kl` is ``TCKD + (1 - p_t) NCKD``.

    NCKD is 0 for two classes, where :func:`dkd` is ``alpha`` times ``logits_kl``. So it is with ``regions``: a channel
    is a Bernoulli variable, which has one other value only, and beta has no effect. NCKD is 0, too, in a voxel where
    the teacher gives all other classes together less than 1/510: what they share then is rounding.

    Args:
        student: Logits, ``(B, C, *spatial)``. Gradients flow into these only.
        teacher: Probabilities at the same temperature, same shape, in [0, 1]; detached here.
        temperature: T > 0. The factor ``T^2`` keeps the scale of the gradient when T changes.
        target: The class of each voxel, ``(B, 1, *spatial)``, int64. ``None``: the teacher's likeliest.
        alpha: Factor of TCKD.
        beta: Factor of NCKD.
        regions: Overlapping regions (sigmoid) instead of exclusive labels (softmax).
        weight: How much each voxel counts, or a mask, ``(B, 1, *spatial)``. ``None`` counts all alike.

    Returns:
        A scalar in float32, 0 when no voxel counts.

    Raises:
        ValueError: If shapes differ.

    References:
        [1] Zhao et al., Decoupled Knowledge Distillation, CVPR 2022, https://arxiv.org/abs/2203.08679

    Example:
        >>> import torch
        >>> logits = torch.zeros(1, 3, 4, 4)
        >>> dkd(logits, logits.softmax(1)).abs().round(decimals=6)
        tensor(0.)
    """
    check_same_shape(student, teacher)
    scaled = student.float() / temperature
    p = teacher.detach().float()
    if regions:
        divergence = alpha * bernoulli_kl(p, scaled)
    else:
        if target is None:
            target = p.argmax(dim=1, keepdim=True)
        is_target = torch.zeros_like(p, dtype=torch.bool).scatter_(1, target, value=True)
        divergence = alpha * _target_kl(p, scaled, is_target) + beta * _others_kl(p, scaled, is_target)
    return mean_over_voxels(divergence, weight) * temperature**2


def _target_kl(p: Tensor, scaled: Tensor, is_target: Tensor) -> Tensor:
    log_q = log_softmax(scaled, dim=1)
    p_target, p_others = ((p * mask).sum(dim=1, keepdim=True) for mask in (is_target, ~is_target))
    log_q_target = log_q.masked_fill(~is_target, 0).sum(dim=1, keepdim=True)
    # from the logarithms, not log(1 - q): a sure student in float32 has q = 1
    log_q_others = log_q.masked_fill(is_target, -torch.inf).logsumexp(dim=1, keepdim=True)
    entropy = p_log_p(p_target) + p_log_p(p_others)
    return entropy - p_target * log_q_target - p_others * log_q_others


def _others_kl(p: Tensor, scaled: Tensor, is_target: Tensor) -> Tensor:
    p = p.masked_fill(is_target, 0)
    total = p.sum(dim=1, keepdim=True)
    p = p / total.clamp(min=SMALLEST_PROBABILITY)
    log_q = log_softmax(scaled.masked_fill(is_target, -torch.inf), dim=1).masked_fill(is_target, 0)
    divergence = (p_log_p(p) - p * log_q).sum(dim=1, keepdim=True)
    return divergence.masked_fill(total < SMALLEST_PROBABILITY, 0)


def target_class(teacher: Tensor, reference: Reference) -> Tensor:
    """Return the label of each voxel, or the teacher's likeliest class where the label is ignored.

    Args:
        teacher: Probabilities, ``(B, C, *spatial)``.
        reference: Exclusive labels.

    Returns:
        Classes in int64, ``(B, 1, *spatial)``.
    """
    labelled = reference.masks.any(dim=1, keepdim=True)
    return torch.where(labelled, reference.labels.long(), teacher.argmax(dim=1, keepdim=True))


@dataclass(frozen=True, kw_only=True)
class DKD(OutputLoss):
    """Settings of :func:`dkd` in the ``kd`` block. The target is the label; an ignored one, the teacher's choice.

    The paper's beta of 2 to 8 suits images of one class each. Nearly all voxels of a scan are sure background, whose
    other classes say little; beta is therefore that of the authors' code for object detection (alpha 1, beta 0.25).

    Attributes:
        temperature: T > 0, the same for teacher and student.
        guide_ignored: Whether voxels of the ignore label, which have no supervision, keep the teacher's guidance.
        weighting: How much each voxel counts, see :func:`nnunet_kd.losses.weighting.voxel_weights`.
        alpha: Factor >= 0 of the target class's part.
        beta: Factor >= 0 of the other classes' part; without effect for two classes and for regions.
    """

    temperature: float = 2.0
    alpha: float = 1.0
    beta: float = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("alpha", self.alpha, at_least=0)
        check_number("beta", self.beta, at_least=0)

    def __call__(self, student: Tensor, teacher: Tensor, reference: Reference) -> Tensor:
        """Compare one scale."""
        return dkd(
            student,
            teacher,
            self.temperature,
            target=None if reference.regions else target_class(teacher, reference),
            alpha=self.alpha,
            beta=self.beta,
            regions=reference.regions,
            weight=self.weights(reference),
        )
