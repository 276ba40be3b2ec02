"""Claims about attention transfer."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from nnunet_kd.losses import AttentionTransfer, attention_map, attention_transfer

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
def test_the_largest_half_precision_values_do_not_overflow(exponent: float, features: Features) -> None:
    student, teacher = features(4, 4)
    loud = (student.clamp(-1, 1) * 65504).half()
    loss = attention_transfer(loud.requires_grad_(), teacher, exponent)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, attention_transfer(loud.detach().double() / 65504, teacher, exponent))
    assert torch.isfinite(torch.autograd.grad(loss, loud)[0]).all()


def test_silence_costs_one_and_has_no_gradient(features: Features) -> None:
    silent = torch.zeros(2, 3, 4, 4, requires_grad=True)
    loss = attention_transfer(silent, features(4, 4)[1])
    assert float(loss.detach()) == pytest.approx(1)
    assert not torch.autograd.grad(loss, silent)[0].any()


def test_the_map_has_length_one(features: Features) -> None:
    torch.testing.assert_close(attention_map(features(4, 4)[0]).norm(dim=1), torch.ones(2))


def test_wrong_settings_and_shapes_are_refused(features: Features) -> None:
    with pytest.raises(ValueError, match=r"exponent: expected a number >= 1, got 0\.5"):
        AttentionTransfer(exponent=0.5)
    with pytest.raises(ValueError, match="differ in shape"):
        attention_transfer(features(4, 4)[0], features(4, 2)[0])
