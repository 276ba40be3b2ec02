"""Claims about similarity-preserving distillation."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from nnunet_kd.losses import similarity_preserving


def written_out(student: Tensor, teacher: Tensor) -> Tensor:
    total, n = student.new_zeros(()), len(student)
    for i in range(n):
        rows = []
        for features in (student, teacher):
            products = [(features[i] * features[j]).sum() for j in range(n)]
            length = sum(product**2 for product in products) ** 0.5
            rows.append([product / length for product in products])
        total = total + sum((a - b) ** 2 for a, b in zip(*rows, strict=True))
    return total / n**2


@pytest.mark.parametrize("spatial", [(5, 4), (3, 4, 5)], ids=["2d", "3d"])
def test_agrees_with_equations_1_to_4_written_out(spatial: tuple[int, ...], assert_agrees: Callable[..., None]) -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(4, channels, *spatial, generator=generator) for channels in (3, 5))
    assert_agrees(similarity_preserving, written_out, student, teacher)


@pytest.mark.parametrize("scale", [1e-12, 1e15])
def test_the_scale_of_the_features_means_nothing(scale: float, features: Callable[..., tuple[Tensor, Tensor]]) -> None:
    student, teacher = features(4, 4)
    expected = similarity_preserving(student, teacher)
    torch.testing.assert_close(similarity_preserving(scale * student, teacher), expected)
    torch.testing.assert_close(similarity_preserving(student, scale * teacher), expected)


def test_a_batch_of_one_says_nothing(features: Callable[..., tuple[Tensor, Tensor]]) -> None:
    student, teacher = (maps[:1].abs() for maps in features(4, 4))
    assert float(similarity_preserving(student, teacher)) == pytest.approx(0, abs=1e-12)


def test_unequal_batches_are_refused(features: Callable[..., tuple[Tensor, Tensor]]) -> None:
    student, teacher = features(4, 4)
    with pytest.raises(ValueError, match="differ in shape"):
        similarity_preserving(student[:1], teacher)
