"""Claims about attention transfer."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from nnunet_kd.losses import AttentionTransfer, Reference, attention_map, attention_transfer

SHAPES = pytest.mark.parametrize("spatial", [(5, 4), (3, 4, 5)], ids=["2d", "3d"])
Features = Callable[..., tuple[Tensor, Tensor]]


def written_out(student: Tensor, teacher: Tensor, exponent: float) -> Tensor:
    total = student.new_zeros(())
    for one, other in zip(student, teacher, strict=True):
        maps = [sum(channel.abs() ** exponent for channel in x).flatten() for x in (one, other)]
        unit = [q / sum(value**2 for value in q) ** 0.5 for q in maps]
        total = total + sum((a - b) ** 2 for a, b in zip(*unit, strict=True))
    return total / len(student)


@SHAPES
@pytest.mark.parametrize("exponent", [1.0, 2.0, 4.0])
def test_agrees_with_equation_2_written_out(
    spatial: tuple[int, ...], exponent: float, features: Features, assert_agrees: Callable[..., None]
) -> None:
    student, teacher = features(*spatial, n_teacher=5)
    assert_agrees(
        lambda s, t: attention_transfer(s, t, exponent), lambda s, t: written_out(s, t, exponent), student, teacher
    )


@SHAPES
def test_order_sign_and_scale_of_channels_mean_nothing(spatial: tuple[int, ...], features: Features) -> None:
    student, teacher = features(*spatial)
    changed = 1e-3 * -student[:, [2, 0, 1]]
    torch.testing.assert_close(attention_transfer(changed, teacher), attention_transfer(student, teacher))
    assert float(attention_transfer(changed, student)) == pytest.approx(0, abs=1e-6)


def test_the_value_does_not_depend_on_patch_or_batch_size(features: Features) -> None:
    student, teacher = features(4, 6)
    value = attention_transfer(student, teacher)
    for axis in (0, 2, 3):
        doubled = [torch.cat([x, x], dim=axis) for x in (student, teacher)]
        torch.testing.assert_close(attention_transfer(*doubled), value)


def test_samples_are_normalised_one_by_one(features: Features) -> None:
    """Over the batch, as some code does it, a loud sample would silence the others."""
    student, teacher = features(4, 4)
    louder = student * torch.tensor([1.0, 1e4]).view(2, 1, 1, 1)
    torch.testing.assert_close(attention_transfer(louder, teacher, 4.0), attention_transfer(student, teacher, 4.0))


def test_opposite_maps_cost_two() -> None:
    left, right = torch.eye(2).view(2, 1, 1, 2).split(1)
    assert float(attention_transfer(left, right)) == pytest.approx(2)


@pytest.mark.parametrize("exponent", [2.0, 4.0])
@pytest.mark.parametrize("normalisation", ["spatial", "batch"])
def test_the_largest_half_precision_values_do_not_overflow(
    exponent: float, normalisation: str, features: Features
) -> None:
    student, teacher = features(4, 4)
    loud = (student.clamp(-1, 1) * 65504).half()
    loss = attention_transfer(loud.requires_grad_(), teacher, exponent, normalisation=normalisation)
    assert loss.dtype == torch.float32
    quiet = loud.detach().double() / 65504
    torch.testing.assert_close(loss, attention_transfer(quiet, teacher, exponent, normalisation=normalisation))
    assert torch.isfinite(torch.autograd.grad(loss, loud)[0]).all()


def test_silence_costs_one_and_has_no_gradient(features: Features) -> None:
    silent = torch.zeros(2, 3, 4, 4, requires_grad=True)
    loss = attention_transfer(silent, features(4, 4)[1])
    assert float(loss.detach()) == pytest.approx(1)
    assert not torch.autograd.grad(loss, silent)[0].any()


def test_the_map_has_length_one(features: Features) -> None:
    torch.testing.assert_close(attention_map(features(4, 4)[0]).norm(dim=1), torch.ones(2))


def published(student: Tensor, teacher: Tensor, *, over_batch: bool, absolute: bool) -> Tensor:
    """The two other axes of choice, pixel by pixel; KD-MRI's code is both of them."""
    unit = []
    for x in (student, teacher):
        energy = sum(x[:, c] ** 2 for c in range(x.shape[1])).flatten(1)  # type: ignore[union-attr]
        groups = energy.T if over_batch else energy
        unit.append([[value / sum(v**2 for v in group) ** 0.5 for value in group] for group in groups])
    difference = [[a - b for a, b in zip(*groups, strict=True)] for groups in zip(*unit, strict=True)]
    if not absolute:
        return sum(d**2 for group in difference for d in group) / len(difference)  # type: ignore[return-value]
    mean = sum(abs(d) for group in difference for d in group) / (len(difference) * len(difference[0]))
    return mean * (1 if over_batch else len(difference[0]) ** 0.5)


@SHAPES
@pytest.mark.parametrize("normalisation", ["spatial", "batch"])
@pytest.mark.parametrize("distance", ["squared", "l1"])
def test_other_normalisations_and_distances_agree_with_loops(
    spatial: tuple[int, ...], normalisation: str, distance: str, features: Features, assert_agrees: Callable[..., None]
) -> None:
    choice = {"over_batch": normalisation == "batch", "absolute": distance == "l1"}
    assert_agrees(
        lambda s, t: attention_transfer(s, t, normalisation=normalisation, distance=distance),
        lambda s, t: published(s, t, **choice),
        *features(*spatial, n_teacher=5),
    )


@pytest.mark.parametrize("distance", ["squared", "l1"])
@pytest.mark.parametrize("normalisation", ["spatial", "batch"])
def test_no_choice_makes_the_value_depend_on_the_patch_size(
    normalisation: str, distance: str, features: Features
) -> None:
    loss = AttentionTransfer(normalisation=normalisation, distance=distance)
    student, teacher = features(4, 6)
    doubled = [torch.cat([x, x], dim=2) for x in (student, teacher)]
    reference = Reference(labels=torch.zeros(2, 1, 4, 6), n_channels=2)
    torch.testing.assert_close(loss(*doubled, reference), loss(student, teacher, reference))


def test_over_a_batch_of_one_every_map_is_the_same(features: Features) -> None:
    """The published form's defect, which the default does not share."""
    student, teacher = (x[:1] for x in features(4, 4))
    assert float(attention_transfer(student, teacher, normalisation="batch", distance="l1")) < 1e-6
    assert float(attention_transfer(student, teacher, distance="l1")) > 0.1


def test_wrong_settings_and_shapes_are_refused(features: Features) -> None:
    with pytest.raises(ValueError, match="normalisation: expected one of spatial, batch, got 'pixel'"):
        AttentionTransfer(normalisation="pixel")
    with pytest.raises(ValueError, match="distance: expected one of squared, l1, got 'l2'"):
        AttentionTransfer(distance="l2")
    with pytest.raises(ValueError, match=r"exponent: expected a number >= 1, got 0\.5"):
        AttentionTransfer(exponent=0.5)
    with pytest.raises(ValueError, match="differ in shape"):
        attention_transfer(features(4, 4)[0], features(4, 2)[0])
