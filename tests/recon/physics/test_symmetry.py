"""Claims about conjugate symmetry."""

from collections.abc import Callable

import torch
from torch import Tensor

from nnunet_kd.recon.physics.fourier import image_to_kspace, kspace_to_image
from nnunet_kd.recon.physics.symmetry import fill_conjugates, mirror


def test_a_real_image_is_its_own_conjugate_mirror(shape: tuple[int, int]) -> None:
    kspace = image_to_kspace(torch.rand(shape))
    torch.testing.assert_close(mirror(kspace).conj(), kspace)


def test_mirroring_twice_changes_nothing(shape: tuple[int, int], random_complex: Callable[..., Tensor]) -> None:
    values = random_complex(2, 3, *shape)
    assert torch.equal(mirror(mirror(values)), values)


def test_filling_adds_true_samples_only(shape: tuple[int, int], scene: Callable[..., tuple]) -> None:
    """On noise-free data of a real image, what is filled in is what would have been measured."""
    image, acquisition = scene(shape, real=True)
    filled, mask = fill_conjugates(acquisition.kspace, acquisition.mask)
    truth = torch.where(mask.unsqueeze(1) > 0, image_to_kspace(image).unsqueeze(1), 0)
    assert float((filled - truth).norm() / truth.norm()) < 1e-6
    assert bool((mask >= acquisition.mask).all())
    assert mask.sum() > acquisition.mask.sum()


def test_a_filled_image_is_real(scene: Callable[..., tuple]) -> None:
    _, acquisition = scene((8, 9))  # of a complex image, as noise would make it
    filled, _ = fill_conjugates(acquisition.kspace, acquisition.mask)
    assert float(kspace_to_image(filled).imag.abs().max()) < 1e-6
