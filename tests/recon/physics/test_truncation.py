"""Claims about truncation."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from nnunet_kd.errors import UsageError
from nnunet_kd.recon.physics.fourier import image_to_kspace, kspace_to_image
from nnunet_kd.recon.physics.truncation import truncate_kspace, truncate_slices


def test_factor_4_of_256_keeps_the_published_64() -> None:
    _, mask = truncate_kspace(torch.ones(1, 1, 256, 256) + 0j, 4)
    assert mask[96:160, 96:160].sum() == mask.sum() == 64 * 64


@pytest.mark.parametrize("factor", [(1, 1), (2, 3), (1, 2.5), (1.7, 1), (100, 100)], ids=str)
def test_any_factor_keeps_the_centre_of_any_size(
    factor: tuple[float, float], shape: tuple[int, int], random_complex: Callable[..., Tensor]
) -> None:
    kspace = random_complex(2, 3, *shape)
    kept, mask = truncate_kspace(kspace, factor)
    assert kept.shape == kspace.shape
    assert mask.sum() == torch.tensor([max(1, round(n / f)) for n, f in zip(shape, factor, strict=True)]).prod()
    assert mask[shape[0] // 2, shape[1] // 2] == 1
    assert torch.equal(kept, kspace * mask)


def test_a_constant_image_is_of_low_resolution(shape: tuple[int, int]) -> None:
    image = torch.ones(1, *shape) + 0j
    torch.testing.assert_close(kspace_to_image(truncate_kspace(image_to_kspace(image), (3, 2))[0]), image)


@pytest.mark.parametrize("n_slices", [6, 7])
@pytest.mark.parametrize("factor", [1, 2, 2.5, 9])
def test_slices_lose_the_frequencies_above_the_factor(n_slices: int, factor: float) -> None:
    """A wave along the slices stays if the kept frequencies have it, and else is gone."""
    n_kept = max(1, round(n_slices / factor))
    places = torch.arange(n_slices)
    for frequency in range(-(n_slices // 2), (n_slices + 1) // 2):
        wave = torch.exp(2j * torch.pi * frequency * places / n_slices)
        volume = wave.reshape(1, -1, 1).expand(2, -1, 3)
        kept = -(n_kept // 2) <= frequency < (n_kept + 1) // 2
        torch.testing.assert_close(truncate_slices(volume, factor, dim=1), volume * kept, rtol=1e-5, atol=1e-5)


def test_slices_of_images_and_of_kspace_are_truncated_alike(random_complex: Callable[..., Tensor]) -> None:
    images = random_complex(5, 1, 4, 6)
    torch.testing.assert_close(truncate_slices(image_to_kspace(images), 2), image_to_kspace(truncate_slices(images, 2)))


@pytest.mark.parametrize(
    ("factor", "message"),
    [
        (0.5, "factor: expected a number >= 1, got 0.5"),
        (("2", 2), "factor: expected a number >= 1, got '2'"),
        ((2, 2, 2), r"expected \[fy, fx\], got 3 numbers"),
    ],
    ids=["below 1", "text", "three"],
)
def test_bad_factors_are_refused(factor: float, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        truncate_kspace(torch.ones(1, 1, 8, 8) + 0j, factor)
