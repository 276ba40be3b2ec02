"""Claims about the squared difference of logits."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from nnunet_kd.losses import logits_kl, logits_mse
from nnunet_kd.losses.logits import probabilities

SHAPES = pytest.mark.parametrize("spatial", [(5, 4), (3, 4, 5)], ids=["2d", "3d"])
REGIONS = pytest.mark.parametrize("regions", [False, True], ids=["classes", "regions"])


def slow(student: Tensor, teacher: Tensor, temperature: float, *, regions: bool) -> Tensor:
    """The formula in a loop over voxels, in the precision of its arguments."""
    total = student.sum() * 0
    rows = [x.movedim(1, -1).flatten(0, -2) for x in (student, teacher)]
    for z, p in zip(*rows, strict=True):
        y = p.clamp(min=1 / 510).log() - ((1 - p).clamp(min=1 / 510).log() if regions else 0)
        x = z / temperature
        difference = x - y if regions else (x - x.mean()) - (y - y.mean())
        total = total + temperature**2 * (difference**2).sum() / len(z)
    return total / len(rows[0])


@SHAPES
@REGIONS
def test_agrees_with_the_formula_in_a_loop(
    spatial: tuple[int, ...],
    regions: bool,
    features: Callable[..., tuple[Tensor, Tensor]],
    assert_agrees: Callable[..., None],
) -> None:
    student, logits = features(*spatial)
    teacher = probabilities(logits * 6, 2.0, regions=regions)
    assert teacher.min() < 1 / 510  # the bound is in use
    assert_agrees(
        lambda s, t: logits_mse(s, t, 2.0, regions=regions),
        lambda s, t: slow(s, t, 2.0, regions=regions),
        student,
        teacher,
    )


def test_the_unit_is_the_logit_whatever_the_temperature(features: Callable[..., tuple[Tensor, Tensor]]) -> None:
    student, teacher = features(4, 4)
    values = [float(logits_mse(student, probabilities(teacher, t), t)) for t in (1.0, 5.0)]
    assert values[0] == pytest.approx(values[1], rel=1e-4)


def test_is_twice_the_divergence_at_high_temperatures(features: Callable[..., tuple[Tensor, Tensor]]) -> None:
    """Of the higher terms one part in a hundred is left at T = 50."""
    student, teacher = features(4, 4)
    p = probabilities(teacher, 50.0)
    assert float(logits_mse(student, p, 50.0)) == pytest.approx(2 * float(logits_kl(student, p, 50.0)), rel=0.02)


def test_a_shift_of_all_logits_is_free(features: Callable[..., tuple[Tensor, Tensor]]) -> None:
    student, teacher = features(4, 4)
    p = probabilities(teacher)
    torch.testing.assert_close(logits_mse(student + 7, p), logits_mse(student, p))
