"""Claims about soft Dice between student and teacher."""

from collections.abc import Callable

import pytest
import torch
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from torch import Tensor

from nnunet_kd.losses import SoftDice, soft_dice
from nnunet_kd.losses.logits import probabilities

SHAPES = pytest.mark.parametrize("spatial", [(5, 4), (3, 4, 5)], ids=["2d", "3d"])
REGIONS = pytest.mark.parametrize("regions", [False, True], ids=["classes", "regions"])
BATCH = pytest.mark.parametrize("batch_dice", [False, True], ids=["sample", "batch"])
Features = Callable[..., tuple[Tensor, Tensor]]


def slow(student: Tensor, teacher: Tensor, *, regions: bool, batch_dice: bool) -> Tensor:
    """The formula in loops over groups of voxels and classes, in the precision of its arguments."""
    q = torch.sigmoid(student) if regions else torch.softmax(student, dim=1)
    groups = [slice(None)] if batch_dice else [slice(i, i + 1) for i in range(len(q))]
    terms = []
    for group in groups:
        for c in range(0 if regions else 1, q.shape[1]):
            ours, theirs = q[group, c], teacher[group, c]
            overlap = ours.sum() + theirs.sum() - (ours - theirs).abs().sum()
            terms.append(1 - overlap / (ours.sum() + theirs.sum()))
    return torch.stack(terms).mean()


@SHAPES
@REGIONS
@BATCH
def test_agrees_with_the_formula_in_a_loop(
    spatial: tuple[int, ...], regions: bool, batch_dice: bool, features: Features, assert_agrees: Callable[..., None]
) -> None:
    student, logits = features(*spatial)
    assert_agrees(
        lambda s, t: soft_dice(s, t, regions=regions, batch_dice=batch_dice, smooth=1e-9),
        lambda s, t: slow(s, t, regions=regions, batch_dice=batch_dice),
        student,
        probabilities(logits, regions=regions),
    )


@SHAPES
@BATCH
def test_is_nnunets_soft_dice_for_a_teacher_without_doubt(
    spatial: tuple[int, ...], batch_dice: bool, features: Features
) -> None:
    student, teacher = features(*spatial)
    labels = teacher.argmax(dim=1, keepdim=True)
    hard = torch.zeros_like(teacher).scatter_(1, labels, 1.0)
    theirs = MemoryEfficientSoftDiceLoss(
        apply_nonlin=probabilities, batch_dice=batch_dice, do_bg=False, smooth=0, ddp=False
    )
    torch.testing.assert_close(
        soft_dice(student, hard, batch_dice=batch_dice), 1 + theirs(student, labels), rtol=1e-3, atol=0
    )


def test_the_teacher_itself_is_better_than_the_teacher_rounded(features: Features) -> None:
    """The product form of Dice would prefer the rounded one."""
    _, teacher = features(4, 4)
    p = probabilities(teacher)
    assert float(soft_dice(teacher, p)) == pytest.approx(0, abs=1e-6)
    assert float(soft_dice(teacher * 100, p)) > 0.1


def test_a_class_that_neither_sees_hardly_counts(features: Features) -> None:
    student, teacher = features(16, 16)
    student[:, 2], teacher[:, 2] = -30, -40
    both = soft_dice(student, probabilities(teacher), temperature=1.0)
    alone = soft_dice(student[:, :2], probabilities(teacher[:, :2]))
    torch.testing.assert_close(both, alone / 2, rtol=1e-4, atol=1e-6)


def test_smooth_is_a_share_of_the_voxels(features: Features) -> None:
    student, logits = features(4, 4)
    p = probabilities(logits)
    tiled = [torch.cat([x, x], dim=2) for x in (student, p)]
    assert soft_dice(student, p, smooth=0.5) < 0.7 * soft_dice(student, p)
    torch.testing.assert_close(soft_dice(*tiled, smooth=0.5), soft_dice(student, p, smooth=0.5))


def test_wrong_settings_are_named() -> None:
    with pytest.raises(ValueError, match="smooth: expected a number > 0, got 0"):
        SoftDice(smooth=0)
    with pytest.raises(ValueError, match="batch_dice: expected true or false"):
        SoftDice(batch_dice=1)  # type: ignore[arg-type]
