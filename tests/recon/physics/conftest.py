"""Small slices for the claims about physics: random ones, and what is measured of them."""

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from nnunet_kd.recon.physics.acquisition import Acquisition
from nnunet_kd.recon.physics.coils import coil_images
from nnunet_kd.recon.physics.fourier import image_to_kspace
from nnunet_kd.recon.physics.operators import acquire

# even and odd sizes, with primes among them
SHAPES = [(8, 8), (9, 8), (8, 13), (11, 7)]


class Scene(NamedTuple):
    """An image and a noise-free measurement of it."""

    image: Tensor
    acquisition: Acquisition


@pytest.fixture(params=SHAPES, ids=[f"{h}x{w}" for h, w in SHAPES])
def shape(request: pytest.FixtureRequest) -> tuple[int, int]:
    return request.param


@pytest.fixture
def random_complex() -> Callable[..., Tensor]:
    """Return a function that draws complex numbers of a shape, the same for the same seed."""

    def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.complex64) -> Tensor:
        return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))

    return draw


@pytest.fixture
def scene(random_complex: Callable[..., Tensor]) -> Callable[..., Scene]:
    """Return a function that draws two slices, a mask of columns and sensitivities of unit length, and measures."""

    def measure(shape: tuple[int, int], n_coils: int = 1, *, real: bool = False, n_lines: int = 4) -> Scene:
        image = random_complex(2, *shape)
        image = image.real + 0j if real else image
        sensitivities = random_complex(2, n_coils, *shape, seed=1) if n_coils > 1 else torch.ones(2, 1, *shape) + 0j
        sensitivities = sensitivities / torch.linalg.vector_norm(sensitivities, dim=1, keepdim=True)
        order = torch.randperm(shape[1], generator=torch.Generator().manual_seed(2))
        mask = torch.zeros(1, shape[1])
        mask[:, order[:n_lines]] = 1
        return Scene(image, acquire(image_to_kspace(coil_images(image, sensitivities)), mask, sensitivities))

    return measure


@pytest.fixture
def adjoint_error() -> Callable[..., float]:
    """Return a function that measures how far ``<A x, y>`` and ``<x, A^H y>`` are apart, relative to the vectors."""

    def measure(forward: Callable[..., Tensor], adjoint: Callable[..., Tensor], x: Tensor, y: Tensor) -> float:
        difference = torch.vdot(forward(x).flatten(), y.flatten()) - torch.vdot(x.flatten(), adjoint(y).flatten())
        return float(difference.abs() / (x.norm() * y.norm()))

    return measure
