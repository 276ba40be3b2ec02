"""What the tests of the losses on features share."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd import grad

MapLoss = Callable[[Tensor, Tensor], Tensor]


@pytest.fixture
def features() -> Callable[..., tuple[Tensor, Tensor]]:
    """Random maps of a student with 3 channels and a teacher with 3 (or ``n_teacher``), 2 samples."""

    def draw(*spatial: int, n_teacher: int = 3) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(0)
        student = torch.randn(2, 3, *spatial, generator=generator)
        return student, torch.randn(2, n_teacher, *spatial, generator=generator)

    return draw


@pytest.fixture
def assert_agrees() -> Callable[[MapLoss, MapLoss, Tensor, Tensor], None]:
    """Compare a loss, which computes in float32, with a slow reference in float64: value and gradient."""

    def check(loss: MapLoss, reference: MapLoss, student: Tensor, teacher: Tensor) -> None:
        exact, computed = student.double().requires_grad_(), student.float().requires_grad_()
        expected, value = reference(exact, teacher.double()), loss(computed, teacher.float())
        torch.testing.assert_close(value, expected.float(), rtol=1e-4, atol=1e-6)
        gradients = grad(value, computed)[0], grad(expected, exact)[0].float()
        torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-6)

    return check
