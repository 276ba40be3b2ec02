"""Claims about DC-CNN and VDSR: the published sizes, and what they compute, against slow loops in float64."""

from cmath import exp, pi
from collections.abc import Callable
from itertools import product

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from nnunet_kd.recon.networks import DCCNN, VDSR
from nnunet_kd.recon.networks.convolutions import middle_layer
from nnunet_kd.recon.physics.acquisition import Acquisition
from nnunet_kd.recon.physics.fourier import image_to_kspace

Array = npt.NDArray[np.float64]
Measure = Callable[..., Acquisition]
Fill = Callable[[nn.Module], nn.Module]


@pytest.mark.parametrize(
    ("network", "parameters"),
    [
        (DCCNN(cascades=5, convs=5, channels=32, complex_data=False), 141_765),
        (DCCNN(cascades=5, convs=3, channels=32, complex_data=False), 49_285),
        (VDSR(layers=11, channels=64), 333_569),
        (VDSR(layers=7, channels=64), 185_857),
    ],
    ids=["dc_cnn-teacher", "dc_cnn-student", "vdsr-teacher", "vdsr-student"],
)
def test_the_sizes_are_the_published_ones(network: nn.Module, parameters: int) -> None:
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


@pytest.mark.parametrize(("layers", "compared"), [(5, 3), (3, 2), (11, 6), (7, 4)])
def test_the_compared_convolutions_are_the_published_ones(layers: int, compared: int) -> None:
    """Teacher's third of five and student's second of three; sixth of eleven and fourth of seven, counted from 1."""
    assert middle_layer(layers) == compared - 1


def convolved(image: Array, weight: Array, bias: Array) -> Array:
    """3x3 convolution of ``(C, H, W)`` with zeros around it, written out."""
    n_out, (_, height, width) = len(weight), image.shape
    around = np.zeros((image.shape[0], height + 2, width + 2))
    around[:, 1:-1, 1:-1] = image
    output = np.empty((n_out, height, width))
    for o, r, c in product(range(n_out), range(height), range(width)):
        output[o, r, c] = bias[o] + (weight[o] * around[:, r : r + 3, c : c + 3]).sum()
    return output


def stacked(image: Array, stack: nn.Module) -> Array:
    layers = [module for module in stack.modules() if isinstance(module, nn.Conv2d)]
    for number, layer in enumerate(layers):
        image = convolved(image, layer.weight.detach().double().numpy(), layer.bias.detach().double().numpy())  # type: ignore[union-attr]
        image = np.maximum(image, 0) if number < len(layers) - 1 else image
    return image


def dft(image: npt.NDArray[np.complex128], sign: int) -> npt.NDArray[np.complex128]:
    """The centred, orthonormal transform, as a sum over pixels."""
    height, width = image.shape
    matrices = [
        np.array([[exp(sign * 2j * pi * (u - n // 2) * (x - n // 2) / n) for x in range(n)] for u in range(n)])
        for n in (height, width)
    ]
    return matrices[0] @ image @ matrices[1].T / np.sqrt(height * width)


def cascaded(network: DCCNN, measured: Acquisition, sample: int) -> npt.NDArray[np.complex128]:
    kspace, mask = measured.kspace[sample, 0].numpy(), measured.mask[sample].numpy()
    image = dft(kspace.astype(complex), +1)
    if not network.complex_data:
        image = abs(image).astype(complex)
    for stack in network.cascades:
        channels = np.stack([image.real, image.imag]) if network.complex_data else image.real[None]
        found = stacked(channels, stack)
        found_image = found[0] + (1j * found[1] if network.complex_data else 0)
        own = dft(image + found_image if network.residual else found_image, -1)
        image = dft(mask * kspace + (1 - mask) * own, +1)
        image = image if network.complex_data else image.real.astype(complex)
    return image


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("complex_data", [True, False], ids=["complex", "magnitude"])
def test_dc_cnn_agrees_with_loops(complex_data: bool, residual: bool, acquisition: Measure, fill: Fill) -> None:
    network = fill(DCCNN(2, 3, 3, complex_data=complex_data, residual=residual))
    measured = acquisition((6, 7), real=not complex_data)
    image = network(measured).detach().numpy()
    for sample in range(2):
        np.testing.assert_allclose(image[sample], cascaded(network, measured, sample), rtol=1e-4, atol=1e-5)


def test_vdsr_agrees_with_loops(acquisition: Measure, fill: Fill) -> None:
    network, measured = fill(VDSR(4, 3)), acquisition((6, 7))
    start = measured.image.abs().double().numpy()
    expected = [image + stacked(image[None], network)[0] for image in start]
    np.testing.assert_allclose(network(measured).detach().numpy(), expected, rtol=1e-4, atol=1e-5)


def misfit(image: Tensor, measured: Acquisition) -> float:
    """Return the largest difference from a measured sample, over the largest sample."""
    difference = measured.mask[:, None] * image_to_kspace(image.detach()[:, None]) - measured.kspace
    return float(difference.abs().max() / measured.kspace.abs().max())


def test_the_image_keeps_what_was_measured(acquisition: Measure, fill: Fill) -> None:
    measured = acquisition((24, 20))
    assert misfit(fill(DCCNN(2, 3, 4))(measured), measured) < 1e-6
    real = acquisition((24, 20), real=True)
    assert misfit(fill(DCCNN(2, 3, 4, complex_data=False, data_consistency="hermitian"))(real), real) < 1e-6
    published = fill(DCCNN(2, 3, 4, complex_data=False, data_consistency="real"))
    assert misfit(published(real), real) > 1e-3  # the published defect


def test_for_magnitudes_hard_is_the_published_real_part(acquisition: Measure, fill: Fill) -> None:
    measured = acquisition(real=True)
    hard, real = (fill(DCCNN(2, 3, 4, complex_data=False, data_consistency=mode)) for mode in ("hard", "real"))
    assert torch.equal(hard(measured), real(measured))


def test_noise_level_zero_is_hard_and_more_trusts_less(acquisition: Measure, fill: Fill) -> None:
    measured = acquisition()
    misfits = [
        misfit(fill(DCCNN(1, 3, 4, data_consistency="weighted", noise_level=level))(measured), measured)
        for level in (0.0, 0.5, 2.0)
    ]
    assert misfits[0] < 1e-6 < misfits[1] < misfits[2]
