"""Claims about noise."""

import pytest
import torch

from nnunet_kd.recon.physics.fourier import image_to_kspace, kspace_to_image
from nnunet_kd.recon.physics.noise import add_noise, estimate_noise

EMPTY = torch.zeros(4, 2, 64, 96) + 0j


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_noise_has_its_std_in_each_part_of_kspace_and_image() -> None:
    noise = add_noise(EMPTY, 0.3, generator=generator())
    for values in (noise, kspace_to_image(noise)):
        assert values.real.std().item() == pytest.approx(0.3, rel=0.02)
        assert values.imag.std().item() == pytest.approx(0.3, rel=0.02)


def test_noise_is_repeatable_and_of_the_samples_only() -> None:
    mask = torch.zeros(1, 96)
    mask[:, ::3] = 1
    noise = add_noise(EMPTY, 1.0, mask=mask, generator=generator())
    assert torch.equal(noise, add_noise(EMPTY, 1.0, mask=mask, generator=generator()))
    assert bool(((noise != 0) == (mask > 0)).all())


def test_the_estimate_is_the_std_beneath_an_image() -> None:
    image = torch.zeros(4, 2, 64, 96)
    image[..., 20:40, 30:60] = 5
    assert estimate_noise(add_noise(image_to_kspace(image), 0.3, generator=generator())) == pytest.approx(0.3, rel=0.1)
    assert estimate_noise(EMPTY) == 0


@pytest.mark.parametrize("std", [-1.0, float("nan")])
def test_a_bad_std_is_refused(std: float) -> None:
    with pytest.raises(ValueError, match="expected a standard deviation >= 0"):
        add_noise(EMPTY, std)
