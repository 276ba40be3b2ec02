"""Networks that give several images for one measurement: what is random in them, and what they have in common."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from nnunet_kd.recon.physics.acquisition import Acquisition

MEAN_SAMPLES = 4  # of which validation and prediction take the mean unless told otherwise


class Latent(NamedTuple):
    """The random numbers behind one image, standard normal.

    Attributes:
        vector: Of the whole image, ``(B, N)``.
        noise: Of each pixel, ``(B, 1, H, W)``.
    """

    vector: Tensor
    noise: Tensor


def draw_latent(acquisition: Acquisition, size: int, seed: int | None) -> Latent:
    """Draw random numbers for a batch.

    Args:
        acquisition: The batch.
        size: Of the vector.
        seed: Gives every slice the same numbers, whatever batch it is in and on every device. ``None`` gives each its
            own, from torch's generator.
    """
    n_slices, *shape = acquisition.image.shape
    device = acquisition.image.device
    if seed is None:
        return Latent(torch.randn(n_slices, size, device=device), torch.randn(n_slices, 1, *shape, device=device))
    generator = torch.Generator().manual_seed(seed)
    vector, noise = torch.randn(1, size, generator=generator), torch.randn(1, 1, *shape, generator=generator)
    return Latent(vector.to(device).expand(n_slices, -1), noise.to(device).expand(n_slices, -1, -1, -1))


class NoiseInjection(nn.Module):
    """Adds one map of noise to features, by a strength per channel that is learnt from 0 on.

    Args:
        channels: Of the features.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.strength = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, features: Tensor, noise: Tensor) -> Tensor:
        """Return the noisy features; ``noise`` is ``(B, 1, H, W)`` of their size."""
        return features + self.strength * noise


def halved_noise(noise: Tensor) -> Tensor:
    """Return noise of half the resolution and the same variance, ``(B, 1, H / 2, W / 2)``."""
    return 2 * nn.functional.avg_pool2d(noise, 2)


class GenerativeNetwork(nn.Module, ABC):
    """A reconstruction network with random numbers. What it adds to the measured image may be invented.

    In training each call draws new numbers; in evaluation it is the sample of seed 0.

    Attributes:
        latent_size: Length of the random vector.
    """

    latent_size: int

    @abstractmethod
    def parts(self, acquisition: Acquisition, latent: Latent) -> dict[str, Tensor]:
        """Return the image and what it is made of, by name.

        Args:
            acquisition: What was measured.
            latent: Random numbers.

        Returns:
            ``image``, ``baseline`` and ``detail``, complex64, ``(B, H, W)``, the first being the sum of the others;
            and what the network has beside them.
        """

    def latent(self, acquisition: Acquisition, seed: int | None = None) -> Latent:
        """Draw random numbers, see :func:`draw_latent`."""
        return draw_latent(acquisition, self.latent_size, seed)

    def forward(self, acquisition: Acquisition) -> Tensor:
        """Return an image, complex64, ``(B, H, W)``."""
        return self.sample(acquisition, None if self.training else 0)

    def sample(self, acquisition: Acquisition, seed: int | None) -> Tensor:
        """Return an image, complex64, ``(B, H, W)``: always the same for a seed, any for ``None``."""
        return self.parts(acquisition, self.latent(acquisition, seed))["image"]

    def samples(self, acquisition: Acquisition, seeds: Iterable[int | None]) -> Tensor:
        """Return one image per seed, complex64, ``(P, B, H, W)``; their mean over P is the mean image."""
        return torch.stack([self.sample(acquisition, seed) for seed in seeds])
