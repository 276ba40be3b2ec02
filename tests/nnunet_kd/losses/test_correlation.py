"""Claims about the correlation of outputs."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from nnunet_kd.losses import DIST, dist
from nnunet_kd.losses.correlation import pearson_distance
from nnunet_kd.losses.logits import probabilities

SHAPES = pytest.mark.parametrize("spatial", [(5, 4), (3, 4, 5)], ids=["2d", "3d"])
REGIONS = pytest.mark.parametrize("regions", [False, True], ids=["classes", "regions"])
Features = Callable[..., tuple[Tensor, Tensor]]


def slow(student: Tensor, teacher: Tensor, beta: float, gamma: float, *, regions: bool) -> Tensor:
    """The formula in loops over voxels and classes, in the precision of its arguments."""

    def distance(u: Tensor, v: Tensor) -> Tensor:
        u, v, e = u - u.mean(), v - v.mean(), 510.0**-2
        return 1 - ((u * v).mean() + e) / (((u**2).mean() + e) * ((v**2).mean() + e)).sqrt()

    q = torch.sigmoid(student) if regions else torch.softmax(student, dim=1)
    q, p = (x.movedim(1, -1).flatten(0, -2) for x in (q, teacher))
    inter, intra = (
        torch.stack([distance(*pair) for pair in zip(*pairs, strict=True)]) for pairs in ((q, p), (q.T, p.T))
    )
    return beta * inter.mean() + gamma * intra.mean()


@SHAPES
@REGIONS
def test_agrees_with_the_formula_in_a_loop(
    spatial: tuple[int, ...], regions: bool, features: Features, assert_agrees: Callable[..., None]
) -> None:
    student, logits = features(*spatial)
    assert_agrees(
        lambda s, t: dist(s, t, beta=0.7, gamma=3.0, regions=regions),
        lambda s, t: slow(s, t, 0.7, 3.0, regions=regions),
        student,
        probabilities(logits, regions=regions),
    )


def test_the_distance_is_that_of_numpys_correlation() -> None:
    u, v = np.random.default_rng(0).random((2, 1000))
    expected = 1 - np.corrcoef(u, v)[0, 1]
    assert float(pearson_distance(torch.tensor(u), torch.tensor(v), [0])) == pytest.approx(expected, abs=1e-4)


def test_the_distance_does_not_see_scale_and_offset() -> None:
    u, v = torch.rand(2, 1000, generator=torch.Generator().manual_seed(0))
    expected = pearson_distance(u, v, [0])
    torch.testing.assert_close(pearson_distance(0.5 * u + 0.2, 2 * v, [0]), expected, rtol=1e-3, atol=0)


def test_constants_are_equal_to_each_other_and_far_from_the_rest() -> None:
    constant, varied = torch.full((100,), 0.3), torch.linspace(0, 1, 100)
    assert float(pearson_distance(constant, constant * 2, [0])) == pytest.approx(0, abs=1e-6)
    assert float(pearson_distance(constant, varied, [0])) == pytest.approx(1, abs=0.01)


def test_two_classes_leave_the_inter_class_part_nothing_but_the_order(features: Features) -> None:
    student, logits = (x[:, :2] for x in features(4, 4))
    opposite = (student.argmax(dim=1) != logits.argmax(dim=1)).float().mean()
    value = dist(student * 9, probabilities(logits * 9), gamma=0)
    torch.testing.assert_close(value, 2 * opposite, rtol=1e-3, atol=1e-3)


@REGIONS
def test_masked_voxels_do_not_count(regions: bool, features: Features) -> None:
    student, logits = features(4, 4)
    p = probabilities(logits, regions=regions)
    mask = torch.zeros(2, 1, 4, 4, dtype=torch.bool)
    mask[..., :2] = True
    expected = dist(student[..., :2], p[..., :2], regions=regions)
    torch.testing.assert_close(dist(student, p, regions=regions, weight=mask), expected)


def test_wrong_settings_are_named() -> None:
    with pytest.raises(ValueError, match="gamma: expected a number >= 0, got -1"):
        DIST(gamma=-1)
