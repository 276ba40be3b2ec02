"""What the tests of the networks share: measurements of random objects, and weights that are the same everywhere."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from nnunet_kd.recon.physics.acquisition import Acquisition
from nnunet_kd.recon.physics.operators import acquire, forward


def wave(*shape: int, phase: float) -> Tensor:
    """Numbers in [-1, 1] without a visible pattern, the same on every machine, float64."""
    index = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    return torch.sin(12.9898 * index**2 + phase).reshape(shape)


@pytest.fixture
def fill() -> Callable[[nn.Module], nn.Module]:
    """Give a network weights that do not depend on the machine or on torch's generator."""

    def fill_weights(network: nn.Module) -> nn.Module:
        with torch.no_grad():
            for number, parameter in enumerate(network.parameters()):
                parameter.copy_(wave(*parameter.shape, phase=float(number)) / parameter[0].numel() ** 0.5)
        return network

    return fill_weights


@pytest.fixture
def acquisition() -> Callable[..., Acquisition]:
    """Measure every third line and a centre of 4 of two waves, which have phase unless ``real``; no symmetric mask."""

    def measure(
        shape: tuple[int, int] = (12, 10), *, coils: int = 1, context: int = 0, real: bool = False
    ) -> Acquisition:
        images = torch.complex(wave(2, *shape, phase=1.0), wave(2, *shape, phase=2.0) * (0.0 if real else 1.0)).to(
            torch.complex64
        )
        sensitivities = torch.polar(1.5 + wave(2, coils, *shape, phase=3.0), wave(2, coils, *shape, phase=4.0))
        sensitivities = sensitivities / torch.linalg.vector_norm(sensitivities, dim=1, keepdim=True)
        sensitivities = (torch.ones_like(sensitivities) if coils == 1 else sensitivities).to(torch.complex64)
        mask = torch.zeros(1, shape[1])
        mask[:, ::3] = 1
        mask[:, shape[1] // 2 - 2 : shape[1] // 2 + 2] = 1
        neighbours = torch.complex(wave(2, context, *shape, phase=5.0), wave(2, context, *shape, phase=6.0))
        kspace = forward(images, mask, sensitivities)
        return acquire(kspace, mask, sensitivities, neighbours.to(torch.complex64))

    return measure
