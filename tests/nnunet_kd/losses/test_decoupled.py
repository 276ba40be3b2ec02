"""Claims about decoupled distillation."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from nnunet_kd.losses import DKD, Reference, dkd, logits_kl
from nnunet_kd.losses.decoupled import target_class
from nnunet_kd.losses.logits import probabilities

SHAPES = pytest.mark.parametrize("spatial", [(5, 4), (3, 4, 5)], ids=["2d", "3d"])
Features = Callable[..., tuple[Tensor, Tensor]]


def slow(student: Tensor, teacher: Tensor, target: Tensor, temperature: float, alpha: float, beta: float) -> Tensor:
    """The paper's formula in a loop over voxels, in the precision of its arguments."""
    q = torch.softmax(student / temperature, dim=1)
    rows = [x.movedim(1, -1).flatten(0, -2) for x in (q, teacher, target)]
    total = student.sum() * 0
    for ours, theirs, (t,) in zip(*rows, strict=True):
        binary = [torch.stack([x[t], 1 - x[t]]) for x in (ours, theirs)]
        rest = [i for i in range(len(ours)) if i != t]
        others = [x[rest] / x[rest].sum() for x in (ours, theirs)]
        tckd, nckd = ((p * (p / q).log()).sum() for q, p in (binary, others))
        total = total + temperature**2 * (alpha * tckd + beta * nckd)
    return total / len(rows[0])


@SHAPES
def test_agrees_with_the_formula_in_a_loop(
    spatial: tuple[int, ...], features: Features, assert_agrees: Callable[..., None]
) -> None:
    student, logits = features(*spatial)
    target = features(*spatial)[1].roll(1, dims=1).argmax(dim=1, keepdim=True)
    assert_agrees(
        lambda s, t: dkd(s, t, 2.0, target=target, alpha=0.7, beta=3.0),
        lambda s, t: slow(s, t, target, 2.0, 0.7, 3.0),
        student,
        probabilities(logits, 2.0),
    )


def test_its_parts_add_up_to_the_divergence(features: Features) -> None:
    """Equation 6 of the paper: KD = TCKD + (1 - p_t) NCKD, voxel by voxel."""
    student, logits = features(3, 3)
    p = probabilities(logits)
    target = p.argmin(dim=1, keepdim=True)
    tckd = dkd(student, p, target=target, alpha=1, beta=0)
    nckd = dkd(student, p, target=target, alpha=0, beta=1, weight=1 - p.gather(1, target))
    others = (1 - p.gather(1, target)).mean()  # the weighted mean divided by the sum of the weights
    torch.testing.assert_close(tckd + others * nckd, logits_kl(student, p))


@pytest.mark.parametrize("regions", [False, True], ids=["two classes", "regions"])
def test_is_the_divergence_where_there_is_one_other_value(regions: bool, features: Features) -> None:
    student, logits = (x[:, :2] for x in features(4, 4))
    p = probabilities(logits, 2.0, regions=regions)
    expected = 3 * logits_kl(student, p, 2.0, regions=regions)
    torch.testing.assert_close(dkd(student, p, 2.0, alpha=3, beta=8, regions=regions), expected)


def test_the_others_say_nothing_where_the_teacher_is_sure(features: Features) -> None:
    student, logits = features(4, 4)
    hard = torch.zeros_like(logits).scatter_(1, logits.argmax(dim=1, keepdim=True), 1.0)
    assert float(dkd(student, hard, alpha=0, beta=1)) == 0
    assert float(dkd(student, hard * 0.9985 + 0.0005, alpha=0, beta=1)) == 0
    assert float(dkd(student, hard * 0.99 + 0.01 / 3, alpha=0, beta=1)) > 0


def test_a_sure_and_wrong_student_gets_a_gradient() -> None:
    """1 - q would be 0 in float32, and its logarithm infinite."""
    student = torch.tensor([[[60.0], [0.0], [0.0]]]).requires_grad_()
    teacher = torch.tensor([[[0.2], [0.5], [0.3]]])
    dkd(student, teacher, target=torch.tensor([[[0]]])).backward()
    assert student.grad is not None
    torch.testing.assert_close(student.grad[0, 0, 0], torch.tensor(0.8))


def test_the_target_is_the_label_and_the_teachers_choice_where_that_is_ignored() -> None:
    teacher = torch.tensor([0.1, 0.7, 0.2]).reshape(1, 3, 1, 1).expand(1, 3, 1, 2)
    ignored = torch.tensor([False, True]).reshape(1, 1, 1, 2)
    reference = Reference(labels=torch.full((1, 1, 1, 2), 2.0), n_channels=3, ignored=ignored)
    assert target_class(teacher, reference).flatten().tolist() == [2, 1]


def test_the_settings_reach_the_formula(features: Features) -> None:
    student, logits = features(4, 4)
    p = probabilities(logits)
    labels = logits.roll(1, dims=1).argmax(dim=1, keepdim=True)
    reference = Reference(labels=labels, n_channels=3)
    expected = dkd(student, p, 1.5, target=labels, alpha=2.0, beta=0.5)
    assert DKD(temperature=1.5, alpha=2.0, beta=0.5)(student, p, reference) == expected
    with pytest.raises(ValueError, match=r"beta: expected a number >= 0, got -0.5"):
        DKD(beta=-0.5)
