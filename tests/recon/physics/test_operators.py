"""Claims about the forward operator and acquisition."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from nnunet_kd.recon.physics.operators import acquire, adjoint, forward

KSPACE = torch.ones(2, 3, 6, 8) + 0j
MASK = torch.ones(1, 8)


@pytest.mark.parametrize("n_coils", [1, 4], ids=["single", "multi"])
def test_the_adjoint_is_one(
    n_coils: int,
    shape: tuple[int, int],
    scene: Callable[..., tuple],
    random_complex: Callable[..., Tensor],
    adjoint_error: Callable[..., float],
) -> None:
    image, acquisition = scene(shape, n_coils)
    fixed = acquisition.mask, acquisition.sensitivities
    y = random_complex(2, n_coils, *shape, seed=5)
    assert adjoint_error(lambda a: forward(a, *fixed), lambda b: adjoint(b, *fixed), image, y) < 1e-6
    torch.testing.assert_close(forward(image, *fixed), acquisition.kspace)
    torch.testing.assert_close(adjoint(acquisition.kspace, *fixed), acquisition.image)


def test_full_sampling_gives_the_image_back(random_complex: Callable[..., Tensor]) -> None:
    image, sensitivities = random_complex(2, 7, 6), random_complex(2, 3, 7, 6, seed=1)
    sensitivities = sensitivities / torch.linalg.vector_norm(sensitivities, dim=1, keepdim=True)
    full = torch.ones(1, 6)
    torch.testing.assert_close(acquire(forward(image, full, sensitivities), full, sensitivities).image, image)


def test_an_acquisition_has_the_shapes_it_promises() -> None:
    context = torch.zeros(2, 2, 6, 8) + 0j
    for mask in (MASK, MASK[None], MASK.expand(2, 6, 8)):
        acquisition = acquire(KSPACE, mask, KSPACE, context)
        assert acquisition.mask.shape == (2, *mask.shape[-2:])
        assert acquisition.image.shape == (2, 6, 8)
        assert acquisition.context is context
    assert acquire(KSPACE[:, :1], MASK).context.shape == (2, 0, 6, 8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((KSPACE[0], MASK), r"shape \(B, C, H, W\), got \(3, 6, 8\)"),
        ((KSPACE[:, :1], MASK[:, :7]), r"mask of shape \(1, 7\) does not fit k-space of shape \(2, 1, 6, 8\)"),
        ((KSPACE[:, :1], MASK[0]), r"mask of shape \(8,\) does not fit"),
        ((KSPACE, MASK), "expected sensitivities for 3 coils, got none"),
        ((KSPACE, MASK, KSPACE[:, :2]), r"expected sensitivities of shape \(2, 3, 6, 8\), got \(2, 2, 6, 8\)"),
    ],
    ids=["axes", "mask's length", "mask's axes", "no sensitivities", "coils"],
)
def test_what_does_not_fit_is_refused(arguments: tuple[Tensor, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        acquire(*arguments)
