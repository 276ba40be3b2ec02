"""Claims about imitation."""

import pytest
import torch
from torch import Tensor

from nnunet_kd.losses import Imitation, imitation

IMAGES = pytest.mark.parametrize("is_complex", [False, True], ids=["magnitude", "complex"])


def images(*, is_complex: bool) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    dtype = torch.complex64 if is_complex else torch.float32
    student, teacher = torch.randn(2, 3, 4, 5, dtype=dtype, generator=generator)
    return student, teacher


@IMAGES
@pytest.mark.parametrize(("norm", "power"), [("l1", 1), ("l2", 2)])
@pytest.mark.parametrize("published_scale", [False, True])
def test_agrees_with_the_mean_written_out(is_complex: bool, norm: str, power: int, published_scale: bool) -> None:
    student, teacher = (x.requires_grad_() for x in images(is_complex=is_complex))
    total = sum(abs(a - b) ** power for a, b in zip(student.flatten(), teacher.flatten(), strict=True))
    expected = total / student.numel() ** (2 if published_scale else 1)
    value = imitation(student, teacher, norm, published_scale=published_scale)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(*(torch.autograd.grad(x, student)[0] for x in (value, expected)))


@IMAGES
def test_only_the_student_learns_and_a_perfect_one_has_a_finite_gradient(is_complex: bool) -> None:
    student = images(is_complex=is_complex)[0].requires_grad_()
    teacher = student.detach().clone().requires_grad_()
    loss = Imitation()(student, teacher)
    loss.backward()
    assert float(loss.detach()) == 0
    assert teacher.grad is None
    assert student.grad is not None
    assert not student.grad.any()


def test_where_one_side_is_a_magnitude_magnitudes_are_compared() -> None:
    student, teacher = images(is_complex=True)
    expected = imitation(student.abs(), teacher.abs())
    torch.testing.assert_close(imitation(student.abs(), teacher), expected)
    torch.testing.assert_close(imitation(student, teacher.abs()), expected)


def test_half_precision_is_averaged_in_single() -> None:
    student, teacher = images(is_complex=False)
    loss = imitation(student.bfloat16(), teacher)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, imitation(student, teacher), rtol=1e-2, atol=0)


def test_wrong_settings_and_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="norm: expected one of l1, l2, got 'l3'"):
        Imitation(norm="l3")
    with pytest.raises(ValueError, match="published_scale: expected true or false"):
        Imitation(published_scale=1)  # type: ignore[arg-type]
    student, teacher = images(is_complex=False)
    with pytest.raises(ValueError, match="differ in shape"):
        imitation(student[:1], teacher)
