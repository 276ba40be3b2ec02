"""Claims about channel-wise distillation."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from nnunet_kd.losses import CWD, cwd

SHAPES = pytest.mark.parametrize("spatial", [(5, 4), (3, 4, 5)], ids=["2d", "3d"])
Features = Callable[..., tuple[Tensor, Tensor]]


def written_out(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    total = student.new_zeros(())
    n_channels = student.shape[1]
    for one, other in zip(student, teacher, strict=True):
        for c in range(n_channels):
            q, p = ([math.e ** (v / temperature) for v in x[c].flatten()] for x in (one, other))
            total = total + temperature**2 / n_channels * sum(
                b / sum(p) * torch.log((b / sum(p)) / (a / sum(q))) for a, b in zip(q, p, strict=True)
            )
    return total / len(student)


@SHAPES
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_agrees_with_the_paper_written_out(
    spatial: tuple[int, ...], temperature: float, features: Features, assert_agrees: Callable[..., None]
) -> None:
    assert_agrees(lambda s, t: cwd(s, t, temperature), lambda s, t: written_out(s, t, temperature), *features(*spatial))


@SHAPES
def test_a_constant_added_to_a_channel_changes_nothing(spatial: tuple[int, ...], features: Features) -> None:
    student, teacher = features(*spatial)
    shift = torch.tensor([-3.0, 0.0, 40.0]).view(1, 3, *[1] * len(spatial))
    torch.testing.assert_close(cwd(student + shift, teacher), cwd(student, teacher), rtol=1e-4, atol=1e-5)
    assert float(cwd(teacher - shift, teacher)) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("axis", [0, 1, 2, 3], ids=["batch", "channels", "height", "width"])
def test_the_value_does_not_depend_on_sizes(axis: int, features: Features) -> None:
    student, teacher = features(4, 6)
    doubled = [torch.cat([x, x], dim=axis) for x in (student, teacher)]
    torch.testing.assert_close(cwd(*doubled), cwd(student, teacher))


def test_at_high_temperature_it_is_half_the_variance_of_the_difference(features: Features) -> None:
    student, teacher = features(8, 8)
    variance = (student - teacher).flatten(2).var(dim=2, unbiased=False).mean()
    torch.testing.assert_close(cwd(student, teacher, 100.0), variance / 2, rtol=0.05, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_features_are_compared_in_float32(dtype: torch.dtype, features: Features) -> None:
    """In half precision the tail of a softmax over a patch would be zero and its logarithm infinite."""
    student, teacher = (30 * x for x in features(64, 64))
    student = student.to(dtype).requires_grad_()
    loss = cwd(student, teacher.to(dtype), 1.0)
    (gradient,) = torch.autograd.grad(loss, student)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, cwd(student.detach().double(), teacher.to(dtype).double(), 1.0))
    assert torch.isfinite(gradient).all()


def test_channels_are_adapted_only_if_their_number_differs() -> None:
    assert CWD().adapter(4, 4, 3) is None
    adapter = CWD().adapter(4, 6, 3)
    assert adapter is not None
    assert adapter(torch.zeros(1, 4, 2, 3, 5)).shape == (1, 6, 2, 3, 5)


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="temperature: expected a number > 0, got 0"):
        CWD(temperature=0)
