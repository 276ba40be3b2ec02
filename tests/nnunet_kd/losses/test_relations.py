"""Claims about the losses on relations: intra-class variation, affinity of classes, affinity of places."""

from collections.abc import Callable
from itertools import combinations, product

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from nnunet_kd.losses import (
    IFVD,
    PairwiseAffinity,
    Reference,
    RegionAffinity,
    ifvd,
    pairwise_affinity,
    region_affinity,
    segments,
)

SHAPES = pytest.mark.parametrize("spatial", [(5, 4), (3, 4, 5)], ids=["2d", "3d"])
Features = Callable[..., tuple[Tensor, Tensor]]
Agreement = Callable[..., None]


def masks_of(*spatial: int, n_masks: int = 3, overlapping: bool = False) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    if overlapping:
        return torch.rand(2, n_masks, *spatial, generator=generator) < 0.4
    labels = torch.randint(n_masks, (2, 1, *spatial), generator=generator)
    return torch.cat([labels == k for k in range(n_masks)], dim=1)


def voxels(features: Tensor, mask: Tensor) -> list[Tensor]:
    """List the feature vectors inside a mask of one sample."""
    return [features[(slice(None), *index)] for index in mask.nonzero().tolist()]


def cosine(one: Tensor, other: Tensor) -> Tensor:
    return (one * other).sum() / ((one * one).sum() * (other * other).sum()) ** 0.5


def ifvd_written_out(student: Tensor, teacher: Tensor, masks: Tensor) -> Tensor:
    terms = []
    for b, k in product(range(masks.shape[0]), range(masks.shape[1])):
        inside = [voxels(x[b], masks[b, k]) for x in (student, teacher)]
        means = [sum(vectors) / max(len(vectors), 1) for vectors in inside]
        terms += [(cosine(s, means[0]) - cosine(t, means[1])) ** 2 for s, t in zip(*inside, strict=True)]
    return torch.stack(terms).mean()


def region_affinity_written_out(student: Tensor, teacher: Tensor, masks: Tensor) -> Tensor:
    samples = []
    for b in range(masks.shape[0]):
        present = [k for k in range(masks.shape[1]) if masks[b, k].any()]
        means = [{k: torch.stack(voxels(x[b], masks[b, k])).mean(0) for k in present} for x in (student, teacher)]
        pairs = [
            (cosine(means[0][i], means[0][j]) - cosine(means[1][i], means[1][j])) ** 2
            for i, j in combinations(present, 2)
        ]
        samples += [torch.stack(pairs).mean()] if pairs else []
    return torch.stack(samples).mean()


def pairwise_written_out(student: Tensor, teacher: Tensor, max_tokens: int) -> Tensor:
    """For maps whose axes have at most ``max_tokens`` voxels or a multiple of it."""
    terms = []
    sizes = [max(1, n // max_tokens) for n in student.shape[2:]]
    corners = list(product(*(range(0, n, size) for n, size in zip(student.shape[2:], sizes, strict=True))))
    blocks = [tuple(slice(c, c + size) for c, size in zip(corner, sizes, strict=True)) for corner in corners]
    for b in range(student.shape[0]):
        s, t = ([x[(b, slice(None), *block)].flatten(1).mean(1) for block in blocks] for x in (student, teacher))
        n = range(len(blocks))
        terms += [(cosine(s[i], s[j]) - cosine(t[i], t[j])) ** 2 for i, j in product(n, n)]
    return torch.stack(terms).mean()


RELATIONS = pytest.mark.parametrize(
    "relation",
    [
        lambda s, t: ifvd(s, t, masks_of(*s.shape[2:])),
        lambda s, t: region_affinity(s, t, masks_of(*s.shape[2:])),
        lambda s, t: pairwise_affinity(s, t, 2),
    ],
    ids=["ifvd", "region_affinity", "pairwise_affinity"],
)


@SHAPES
@pytest.mark.parametrize("overlapping", [False, True], ids=["classes", "regions"])
@pytest.mark.parametrize(
    ("loss", "reference"), [(ifvd, ifvd_written_out), (region_affinity, region_affinity_written_out)]
)
def test_relations_of_classes_agree_with_loops(
    loss: Callable[..., Tensor],
    reference: Callable[..., Tensor],
    overlapping: bool,
    spatial: tuple[int, ...],
    features: Features,
    assert_agrees: Agreement,
) -> None:
    masks = masks_of(*spatial, overlapping=overlapping)
    masks[1, 1] = False  # a class that is absent in one sample
    student, teacher = features(*spatial, n_teacher=5)
    assert_agrees(lambda s, t: loss(s, t, masks), lambda s, t: reference(s, t, masks), student, teacher)


@pytest.mark.parametrize("spatial", [(4, 6), (2, 1, 4)], ids=["2d", "3d"])
@pytest.mark.parametrize("max_tokens", [2, 8])
def test_affinity_of_places_agrees_with_loops(
    max_tokens: int, spatial: tuple[int, ...], features: Features, assert_agrees: Agreement
) -> None:
    student, teacher = features(*spatial, n_teacher=5)
    assert_agrees(
        lambda s, t: pairwise_affinity(s, t, max_tokens),
        lambda s, t: pairwise_written_out(s, t, max_tokens),
        student,
        teacher,
    )


@RELATIONS
@SHAPES
def test_scale_and_rotation_of_channels_mean_nothing(
    relation: Callable[..., Tensor], spatial: tuple[int, ...], features: Features
) -> None:
    student, teacher = features(*spatial)
    rotation = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(2)))[0]
    turned = 50 * torch.einsum("dc,bc...->bd...", rotation, student)
    torch.testing.assert_close(relation(turned, teacher), relation(student, teacher), rtol=1e-4, atol=1e-6)
    assert float(relation(turned, student)) == pytest.approx(0, abs=1e-9)
    assert float(relation(student, teacher)) > 1e-3


@RELATIONS
def test_dead_and_constant_features_stay_finite(relation: Callable[..., Tensor], features: Features) -> None:
    """Where a feature is zero there is no direction: it costs, but has no gradient to follow."""
    student, teacher = features(4, 4)
    for dead in (0 * student, torch.ones_like(student), student * (student[:, :1] > 0)):
        dead = dead.requires_grad_()  # noqa: PLW2901
        loss = relation(dead, teacher)
        (gradient,) = torch.autograd.grad(loss, dead)
        assert torch.isfinite(loss)
        assert float(gradient.abs().max()) < 1e3
        assert torch.isfinite(relation(student, dead))


@RELATIONS
def test_autocast_does_not_reach_the_products(relation: Callable[..., Tensor], features: Features) -> None:
    student, teacher = features(4, 6)
    expected = relation(student, teacher)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(relation(student, teacher), expected)


@RELATIONS
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_finite(relation: Callable[..., Tensor], dtype: torch.dtype, features: Features) -> None:
    student, teacher = ((20000 * x.clamp(-3, 3)).to(dtype) for x in features(4, 6))
    loss = relation(student.requires_grad_(), teacher)
    (gradient,) = torch.autograd.grad(loss, student)
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("loss", [ifvd, region_affinity])
def test_where_nothing_can_be_compared_there_is_no_gradient(loss: Callable[..., Tensor], features: Features) -> None:
    """No mask at all; and, for pairs of classes, one class only."""
    student, teacher = features(4, 4)
    masks = torch.zeros(2, 3, 4, 4, dtype=torch.bool)
    masks[:, 0] = loss is region_affinity
    value = loss(student.requires_grad_(), teacher, masks)
    (gradient,) = torch.autograd.grad(value, student)
    assert float(value.detach()) == 0
    assert not gradient.any()


def test_a_sample_of_one_class_does_not_dilute_the_affinity_of_classes(features: Features) -> None:
    student, teacher = features(4, 4)
    masks = masks_of(4, 4)
    masks[1, 1:] = False
    expected = region_affinity(student[:1], teacher[:1], masks[:1])
    torch.testing.assert_close(region_affinity(student, teacher, masks), expected)


@pytest.mark.parametrize("regions", [False, True], ids=["classes", "regions"])
@pytest.mark.parametrize("loss", [IFVD(), RegionAffinity()], ids=["ifvd", "region_affinity"])
def test_ignored_voxels_do_not_count(loss: IFVD | RegionAffinity, regions: bool, features: Features) -> None:
    student, teacher = features(6, 4)
    labels = (masks_of(6, 4) if regions else masks_of(6, 4).long().argmax(1, keepdim=True)).long()
    ignored = torch.zeros(2, 1, 6, 4, dtype=torch.bool)
    ignored[:, :, 4:] = True
    whole = Reference(labels=labels, n_channels=3, regions=regions, ignored=ignored)
    part = Reference(labels=labels[:, :, :4], n_channels=3, regions=regions)
    torch.testing.assert_close(loss(student, teacher, whole), loss(student[:, :, :4], teacher[:, :, :4], part))


def test_segments_of_regions_end_with_the_background_outside_them() -> None:
    regions = torch.tensor([[1, 1, 0, 0], [1, 0, 0, 0]]).view(1, 2, 1, 4)
    ignored = torch.tensor([0, 0, 0, 1]).view(1, 1, 1, 4) > 0
    reference = Reference(labels=regions, n_channels=2, regions=True, ignored=ignored)
    assert segments(reference).int().flatten(1).tolist() == [[1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0]]


def test_two_classes_are_the_published_affinity(features: Features) -> None:
    student, teacher = features(4, 4, n_teacher=6)
    masks = masks_of(4, 4, n_masks=2)
    means = [
        [(x * m[:, None]).sum((2, 3)) / m.sum((1, 2))[:, None] for m in masks.unbind(1)] for x in (student, teacher)
    ]
    expected = (cosine_similarity(*means[0]) - cosine_similarity(*means[1])).square().mean()
    torch.testing.assert_close(region_affinity(student, teacher, masks), expected)


def test_few_tokens_bound_the_cost(features: Features) -> None:
    """Maps of other sizes give matrices of the same size: constant blocks give the same value."""
    student, teacher = features(4, 4)
    larger = [x.repeat_interleave(3, 2).repeat_interleave(2, 3) for x in (student, teacher)]
    torch.testing.assert_close(pairwise_affinity(*larger, 4), pairwise_affinity(student, teacher, 4))


@pytest.mark.parametrize("value", [0, 2.5, None])
def test_wrong_numbers_of_tokens_are_refused(value: object) -> None:
    with pytest.raises(ValueError, match="max_tokens: expected a"):
        PairwiseAffinity(max_tokens=value)  # type: ignore[arg-type]
