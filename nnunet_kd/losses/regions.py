"""Losses between the regions that the outputs of student and teacher mark out."""

from dataclasses import dataclass

from torch import Tensor

from nnunet_kd.losses.contract import OutputLoss, check_flag, check_number
from nnunet_kd.losses.logits import check_same_shape, probabilities
from nnunet_kd.losses.reference import Reference
from nnunet_kd.losses.weighting import weighted_mean


def soft_dice(
    student: Tensor,
    teacher: Tensor,
    temperature: float = 1.0,
    *,
    regions: bool = False,
    batch_dice: bool = True,
    smooth: float = 1e-5,
    weight: Tensor | None = None,
) -> Tensor:
    """Average over classes of 1 - soft Dice between the student's and the teacher's probabilities.

    ``mean over c of m|q_c - p_c| / (m(q_c + p_c) + smooth)``, where ``m`` is the mean over voxels: the Dice semimetric
    DML_1 of [1]. For targets of 0 and 1 this is 1 minus nnU-Net's soft Dice. For soft targets that product form
    would be lowest at a rounded teacher, not at the teacher; this form is 0 at the teacher and nowhere else.

    Like nnU-Net's Dice it leaves the background of exclusive labels out and takes every region. It is a ratio of means:
    neither patch size nor batch size nor the size of a structure changes its scale, and no factor ``T^2`` is needed.

    Args:
        student: Logits, ``(B, C, *spatial)``. Gradients flow into these only.
        teacher: Probabilities at the same temperature, same shape, in [0, 1]; detached here.
        temperature: T > 0.
        regions: Overlapping regions (sigmoid) instead of exclusive labels (softmax).
        batch_dice: One Dice over all voxels of the batch instead of the mean of each sample's.
        smooth: Share of the voxels, > 0: a class with less than that in both outputs hardly counts.
        weight: How much each voxel counts, or a mask, ``(B, 1, *spatial)``. ``None`` counts all alike.

    Returns:
        A scalar in float32 in [0, 1], 0 when no voxel counts.

    Raises:
        ValueError: If shapes differ.

    References:
        [1] Wang et al., Dice Semimetric Losses: Optimizing the Dice Score with Soft Labels, MICCAI 2023,
        https://arxiv.org/abs/2303.16296

    Example:
        >>> import torch
        >>> logits = torch.zeros(1, 2, 4, 4)
        >>> soft_dice(logits, logits.softmax(1))
        tensor(0.)
    """
    check_same_shape(student, teacher)
    first = 0 if regions else 1
    q = probabilities(student, temperature, regions=regions)[:, first:]
    p = teacher.detach().float()[:, first:]
    axes = [axis for axis in range(q.ndim) if axis > 1 or (axis == 0 and batch_dice)]
    difference, total = (weighted_mean(values, weight, axes) for values in ((q - p).abs(), q + p))
    return (difference / (total + smooth)).mean()


@dataclass(frozen=True, kw_only=True)
class SoftDice(OutputLoss):
    """Settings of :func:`soft_dice` in the ``kd`` block.

    Attributes:
        temperature: T > 0, the same for teacher and student.
        guide_ignored: Whether voxels of the ignore label, which have no supervision, keep the teacher's guidance.
        weighting: How much each voxel counts, see :func:`nnunet_kd.losses.weighting.voxel_weights`.
        batch_dice: One Dice over all voxels of the batch instead of the mean of each sample's.
        smooth: Share of the voxels, > 0, below which a class hardly counts.
    """

    batch_dice: bool = True
    smooth: float = 1e-5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_flag("batch_dice", self.batch_dice)
        check_number("smooth", self.smooth, above=0)

    def __call__(self, student: Tensor, teacher: Tensor, reference: Reference) -> Tensor:
        """Compare one scale."""
        return soft_dice(
            student,
            teacher,
            self.temperature,
            regions=reference.regions,
            batch_dice=self.batch_dice,
            smooth=self.smooth,
            weight=self.weights(reference),
        )
