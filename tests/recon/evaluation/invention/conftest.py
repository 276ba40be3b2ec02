"""Phantoms with a planted invention: a disc in the null space of the sampling."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from nnunet_kd.recon.data.cases import Volume
from nnunet_kd.recon.data.phantoms import PhantomSettings, make_phantom
from nnunet_kd.recon.physics.fourier import image_to_kspace, kspace_to_image
from nnunet_kd.recon.physics.masks import SamplingSettings, make_mask, seed_of

SIZE, RATE = 96, 4
SLICE = 0  # where the disc is

Array = np.ndarray[Any, Any]


class Planted(NamedTuple):
    """A fully sampled case, its mask, the place of the disc, and reconstructions of it."""

    case: Volume
    mask: Array
    disc: Array
    invented: Array
    blurred: Array

    @property
    def target(self) -> Array:
        assert self.case.target is not None
        return self.case.target


def _plant(name: str, seed: int) -> Planted:
    case = make_phantom(name, PhantomSettings(n_slices=2, matrix=(SIZE, SIZE)), seed=seed)
    mask = make_mask(SamplingSettings(acceleration=(RATE,)), (SIZE, SIZE), seed=seed_of(name))
    y, x = np.mgrid[:SIZE, :SIZE]
    disc = np.clip(4.5 - np.hypot(y - 52, x - 44), 0, 1)
    truth = kspace_to_image(torch.from_numpy(case.kspace))[:, 0].numpy()
    added = image_to_kspace(torch.from_numpy(0.4 * disc * np.exp(1j * np.angle(truth[SLICE])))).numpy() * (1 - mask)
    invented = truth.copy()
    invented[SLICE] += kspace_to_image(torch.from_numpy(added)).numpy()
    blurred = gaussian_filter(case.target, (0, 1.2, 1.2))
    return Planted(case, mask, disc > 0.5, np.abs(invented).astype(np.float32), blurred)


@pytest.fixture(scope="session")
def plant() -> Callable[[str, int], Planted]:
    return _plant


@pytest.fixture(scope="session")
def planted() -> Planted:
    return _plant("phantom_0", 5)
