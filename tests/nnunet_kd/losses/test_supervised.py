"""The published losses on labels, against their formulas written out in float64."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from nnunet_kd.losses.reference import Reference, references
from nnunet_kd.losses.supervised import SUPERVISIONS, SupervisedLoss

E = 1e-6
LOSSES = pytest.mark.parametrize("loss", SUPERVISIONS.values(), ids=list(SUPERVISIONS))
KINDS = pytest.mark.parametrize("regions", [False, True], ids=["labels", "regions"])


def example(*, regions: bool, axes: int = 3, ignore: bool = False) -> tuple[Tensor, Reference]:
    generator = torch.Generator().manual_seed(0)
    space = [4, 6, 5][:axes]
    logits = torch.randn(2, 3, *space, generator=generator)
    n_ignore = 1 if ignore else 0
    if regions:
        labels = (torch.rand(2, 3 + n_ignore, *space, generator=generator) > 0.6).float()
    else:
        labels = torch.randint(0, 3 + n_ignore, (2, 1, *space), generator=generator).float()
    (reference,) = references(labels, 3, regions=regions, ignore_label=3 if ignore else None)
    if ignore:  # nnU-Net puts the ignore label behind the regions
        assert reference.ignored is not None
        assert torch.equal(reference.ignored, labels[:, 3:] > 0 if regions else labels == 3)
    return logits, reference


def by_channel(logits: Tensor, reference: Reference, weights: list[float]) -> list[list[tuple[float, float, float]]]:
    """Return (probability, truth, weight) of every voxel that counts, per region or foreground class."""
    logits = logits.double()
    p = logits.sigmoid() if reference.regions else logits.softmax(dim=1)
    channels: list[list[tuple[float, float, float]]] = []
    for c in range(0 if reference.regions else 1, 3):
        voxels = []
        for b in range(2):
            for index in torch.cartesian_prod(*(torch.arange(n) for n in logits.shape[2:])).tolist():
                at = (b, slice(None), *index)
                if reference.ignored is not None and bool(reference.ignored[at][0]):
                    continue
                truth = reference.labels[at][c] > 0 if reference.regions else reference.labels[at][0] == c
                voxels.append((float(p[at][c]), float(truth), weights[b]))
        channels.append(voxels)
    return channels


def slow_region_dice_bce(channels: list[list[tuple[float, float, float]]]) -> float:
    dice, entropy, total = 0.0, 0.0, 0.0
    for voxels in channels:
        overlap = sum(w * p * g for p, g, w in voxels)
        sizes = sum(w * (p * p + g) for p, g, w in voxels)
        dice += 2 * (overlap + E) / (sizes + 2 * E) / len(channels)
        entropy += sum(w * (g * math.log(p + E) + 0.01 * (1 - g) * math.log(1 + E - p)) for p, g, w in voxels)
        total += sum(w for _, _, w in voxels)
    return (1 - dice - entropy / total) / 2


def slow_channel_dice(channels: list[list[tuple[float, float, float]]]) -> float:
    ratios = [
        2 * sum(w * p * g for p, g, w in voxels) / max(sum(w * (p * p + g * g) for p, g, w in voxels), E)
        for voxels in channels
    ]
    return 1 - sum(ratios) / len(ratios)


def slow_dice_part(channels: list[list[tuple[float, float, float]]]) -> float:
    ratios = [
        (2 * sum(w * p * g for p, g, w in voxels) + 1) / (sum(w * (p + g) for p, g, w in voxels) + 1)
        for voxels in channels
    ]
    return 1 - sum(ratios) / len(ratios)


def slow_focal_regions(channels: list[list[tuple[float, float, float]]]) -> float:
    values, total = 0.0, 0.0
    for voxels in channels:
        for p, g, w in voxels:
            truth = p if g else 1 - p
            values += w * -((1 - truth) ** 2) * math.log(truth)
            total += w
    return values / total


@KINDS
@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("ignore", [False, True])
@pytest.mark.parametrize("weights", [[1.0, 1.0], [0.25, 2.0]], ids=["equal", "weighted"])
def test_losses_are_their_formulas(*, regions: bool, axes: int, ignore: bool, weights: list[float]) -> None:
    logits, reference = example(regions=regions, axes=axes, ignore=ignore)
    channels = by_channel(logits, reference, weights)
    given = None if weights == [1.0, 1.0] else torch.tensor(weights)

    def value(name: str) -> float:
        return float(SUPERVISIONS[name](logits, reference, given))

    assert value("region_dice_bce") == pytest.approx(slow_region_dice_bce(channels), rel=1e-5)
    assert value("channel_dice") == pytest.approx(slow_channel_dice(channels), rel=1e-5)
    focal = slow_focal_regions(channels) if regions else slow_focal_classes(logits, reference, weights)
    assert value("focal_dice") == pytest.approx((focal + slow_dice_part(channels)) / 2, rel=1e-5)


def slow_focal_classes(logits: Tensor, reference: Reference, weights: list[float]) -> float:
    p, values, total = logits.double().softmax(dim=1), 0.0, 0.0
    for b in range(2):
        for index in torch.cartesian_prod(*(torch.arange(n) for n in logits.shape[2:])).tolist():
            label = int(reference.labels[(b, 0, *index)])
            if label < 3:
                truth = float(p[(b, label, *index)])
                values += weights[b] * -((1 - truth) ** 2) * math.log(truth)
                total += weights[b]
    return values / total


@LOSSES
@KINDS
def test_a_perfect_prediction_costs_next_to_nothing_and_a_wrong_one_much(
    loss: SupervisedLoss, *, regions: bool
) -> None:
    _, reference = example(regions=regions)
    right = 40.0 * reference.masks.float() - 20
    assert abs(float(loss(right, reference, None))) < 1e-4
    assert float(loss(-right, reference, None)) > 0.4


@LOSSES
@KINDS
def test_the_weight_of_a_sample_is_its_share(loss: SupervisedLoss, *, regions: bool) -> None:
    logits, reference = example(regions=regions)
    alone = Reference(labels=reference.labels[:1], n_channels=3, regions=regions)
    assert torch.allclose(loss(logits, reference, torch.tensor([1.0, 0.0])), loss(logits[:1], alone, None))
    assert torch.allclose(loss(logits, reference, torch.ones(2)), loss(logits, reference, None))


@LOSSES
@KINDS
@pytest.mark.parametrize(
    "change", [lambda x: 1e4 * x, lambda x: x.bfloat16(), lambda x: 0 * x], ids=["huge", "bf16", "0"]
)
def test_gradients_stay_finite_also_without_any_foreground(
    loss: SupervisedLoss, change: Callable[[Tensor], Tensor], *, regions: bool
) -> None:
    logits, reference = example(regions=regions)
    empty = Reference(labels=torch.zeros_like(reference.labels), n_channels=3, regions=regions)
    for labels in (reference, empty):
        given = change(logits).detach().requires_grad_()
        value = loss(given, labels, None)
        value.backward()
        assert value.dtype == torch.float32
        assert bool(torch.isfinite(value))
        assert given.grad is not None
        assert bool(torch.isfinite(given.grad).all())
