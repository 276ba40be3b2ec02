"""Claims about priors and low resolution: zero where physics is met, and what they see where it is not."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from nnunet_kd.recon.physics.low_resolution import high_pass, low_pass_window, low_resolution
from nnunet_kd.recon.physics.operators import acquire, forward
from nnunet_kd.recon.physics.priors import background_image, consistency_image, phase_image

Scene = Callable[..., object]


@pytest.mark.parametrize("n_coils", [1, 3])
def test_the_true_image_is_consistent(n_coils: int, scene: Scene, shape: tuple[int, int]) -> None:
    image, measured = scene(shape, n_coils)  # type: ignore[misc]
    assert float(consistency_image(image, measured).abs().max()) < 1e-6
    assert float(consistency_image(0 * image, measured).abs().max()) > 0.1


def test_the_consistency_image_is_the_gradient_of_the_misfit(scene: Scene) -> None:
    image, measured = scene((8, 13), 3)  # type: ignore[misc]
    guess = (0.5 * image).requires_grad_()
    misfit = forward(guess, measured.mask, measured.sensitivities) - measured.kspace
    (0.5 * misfit.abs().square().sum()).backward()
    torch.testing.assert_close(consistency_image(guess.detach(), measured), guess.grad, rtol=1e-4, atol=1e-5)


def test_phase_and_background_are_zero_where_they_are_expected() -> None:
    low = torch.tensor([[[1 + 1j, 0.5j, 0, 0.001]]])
    along, across = 2 * low, 1j * low
    assert float(phase_image(along, low).abs().max()) < 1e-6
    torch.testing.assert_close(phase_image(across, low), low.abs())
    dark = background_image(torch.ones_like(low), low)[0, 0].real
    assert dark[0] < dark[1] < 1e-5
    assert 0.99 < dark[3] < dark[2] == 1


def test_low_and_high_frequencies_add_up(random_complex: Callable[..., Tensor], shape: tuple[int, int]) -> None:
    kspace = random_complex(2, 1, *shape)
    measured = acquire(kspace, torch.ones(shape))
    torch.testing.assert_close(low_resolution(measured) + high_pass(measured.image), measured.image)
    assert float(high_pass(torch.ones(2, *shape)).abs().max()) < 1e-5  # a constant has no texture
    assert high_pass(torch.ones(2, *shape)).dtype == torch.float32


def test_the_cutoff_is_where_the_window_has_fallen_to_a_half() -> None:
    window = low_pass_window(128, 64, cutoff=0.25)
    assert (float(window[64, 32]), float(window[64 + 16, 32]), float(window[64, 32 - 8])) == (1, 0.5, 0.5)


def test_an_empty_slice_has_finite_priors() -> None:
    nothing = torch.zeros(1, 4, 4, dtype=torch.complex64)
    assert float(phase_image(nothing, nothing).abs().max()) == 0
    assert float(background_image(nothing, nothing).abs().max()) == 0
