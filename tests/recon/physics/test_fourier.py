"""Claims about the Fourier transform."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from nnunet_kd.recon.physics.fourier import image_to_kspace, kspace_to_image


def test_adjoint_and_inverse_are_one(
    shape: tuple[int, int], random_complex: Callable[..., Tensor], adjoint_error: Callable[..., float]
) -> None:
    x, y = random_complex(3, *shape), random_complex(3, *shape, seed=1)
    assert adjoint_error(image_to_kspace, kspace_to_image, x, y) < 1e-6
    torch.testing.assert_close(kspace_to_image(image_to_kspace(x)), x)
    torch.testing.assert_close(image_to_kspace(kspace_to_image(x)), x)


def test_agrees_with_the_sum_written_out(shape: tuple[int, int], random_complex: Callable[..., Tensor]) -> None:
    """``k(u) = 1 / sqrt(n) sum of x(r) exp(-2 pi i u r / n)``, both counted from the middle ``n // 2``."""
    image = random_complex(*shape, dtype=torch.complex128)
    rows, columns = (np.arange(n) - n // 2 for n in shape)
    by_rows = np.exp(-2j * np.pi * np.outer(rows, rows) / shape[0]) / np.sqrt(shape[0])
    by_columns = np.exp(-2j * np.pi * np.outer(columns, columns) / shape[1]) / np.sqrt(shape[1])
    expected = torch.from_numpy(by_rows @ image.numpy() @ by_columns)
    torch.testing.assert_close(image_to_kspace(image), expected)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (torch.bfloat16, torch.complex64),
        (torch.float32, torch.complex64),
        (torch.complex64, torch.complex64),
        (torch.float64, torch.complex128),
    ],
    ids=str,
)
def test_no_transform_runs_in_half_precision(given: torch.dtype, expected: torch.dtype) -> None:
    image = torch.ones(6, 6, dtype=given)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        kspace = image_to_kspace(image)
        back = kspace_to_image(kspace)
    assert kspace.dtype == back.dtype == expected
    torch.testing.assert_close(back.real, torch.ones(6, 6, dtype=back.real.dtype))
