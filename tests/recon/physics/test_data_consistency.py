"""Claims about data consistency."""

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from nnunet_kd.errors import UsageError
from nnunet_kd.recon.physics.coils import coil_images
from nnunet_kd.recon.physics.data_consistency import DataConsistency, hard, hermitian, real_part, weighted
from nnunet_kd.recon.physics.fourier import image_to_kspace
from nnunet_kd.recon.physics.sampling import apply_mask

COILS = pytest.mark.parametrize("n_coils", [1, 4], ids=["single", "multi"])
OF_COMPLEX = ["hard", "weighted", "learnable"]
OF_REAL = ["hermitian", "real"]


def misfit(image: Tensor, acquisition) -> float:  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Return how far the samples of an image are from the measured ones, relative to these."""
    kspace = image_to_kspace(coil_images(image, acquisition.sensitivities))
    return float((apply_mask(kspace, acquisition.mask) - acquisition.kspace).norm() / acquisition.kspace.norm())


@pytest.fixture
def guess(random_complex: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda shape: random_complex(2, *shape, seed=7)


def test_hard_keeps_the_samples_and_the_rest(
    shape: tuple[int, int], scene: Callable[..., tuple], guess: Callable[..., Tensor]
) -> None:
    _, acquisition = scene(shape)
    result = hard(guess(shape), acquisition)
    assert misfit(result, acquisition) < 1e-6
    left = (1 - acquisition.mask) * (image_to_kspace(result) - image_to_kspace(guess(shape)))
    assert float(left.abs().max()) < 1e-5


def test_hard_of_several_coils_comes_nearer_step_by_step(
    scene: Callable[..., tuple], guess: Callable[..., Tensor]
) -> None:
    truth, acquisition = scene((9, 8), 4)
    image = guess((9, 8))
    misfits, errors = [misfit(image, acquisition)], [float((image - truth).norm())]
    for _ in range(40):
        image = hard(image, acquisition)
        misfits.append(misfit(image, acquisition))
        errors.append(float((image - truth).norm()))
    assert misfits[-1] < 0.02 * misfits[0]
    assert all(after <= before + 1e-6 for series in (misfits, errors) for before, after in pairwise(series))


@COILS
@pytest.mark.parametrize("mode", OF_COMPLEX)
def test_the_truth_stays_as_it_is(mode: str, n_coils: int, shape: tuple[int, int], scene: Callable[..., tuple]) -> None:
    truth, acquisition = scene(shape, n_coils)
    torch.testing.assert_close(DataConsistency(mode, noise_level=0.0)(truth, acquisition), truth)


@pytest.mark.parametrize("mode", OF_REAL)
def test_a_real_truth_stays_as_it_is(mode: str, shape: tuple[int, int], scene: Callable[..., tuple]) -> None:
    truth, acquisition = scene(shape, real=True)
    torch.testing.assert_close(DataConsistency(mode)(truth.real, acquisition), truth.real)


def test_hermitian_keeps_the_samples_where_the_real_part_does_not(
    shape: tuple[int, int], scene: Callable[..., tuple], guess: Callable[..., Tensor]
) -> None:
    truth, acquisition = scene(shape, real=True)
    image = guess(shape).real
    ours, published = hermitian(image, acquisition), real_part(image, acquisition)
    assert ours.dtype == published.dtype == torch.float32
    assert misfit(ours, acquisition) < 1e-6
    assert misfit(published, acquisition) > 0.05
    torch.testing.assert_close(published, hard(image, acquisition).real)
    assert float((ours - truth).norm()) < float((published - truth).norm())


@COILS
def test_the_noise_level_moves_from_the_samples_to_the_image(
    n_coils: int, scene: Callable[..., tuple], guess: Callable[..., Tensor]
) -> None:
    image, (_, acquisition) = guess((9, 8)), scene((9, 8), n_coils)
    exact = hard(image, acquisition)
    torch.testing.assert_close(weighted(image, acquisition, 0.0), exact)
    torch.testing.assert_close(weighted(image, acquisition, 1e4), image)
    torch.testing.assert_close(weighted(image, acquisition, 1.0), (exact + image) / 2)
    by_slice = weighted(image, acquisition, torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(by_slice, torch.stack([exact[0], (exact[1] + image[1]) / 2]))


def test_the_noise_level_is_the_one_of_the_smallest_error(random_complex: Callable[..., Tensor]) -> None:
    """Samples with noise of 0.5 and an image with errors of 1, in k-space: v = 0.5 beats its neighbours."""
    from nnunet_kd.recon.physics.operators import acquire  # the scene's measurements have no noise

    truth = random_complex(1, 64, 64)
    noisy = image_to_kspace(truth).unsqueeze(1) + 0.5 * random_complex(1, 1, 64, 64, seed=1)
    acquisition, image = acquire(noisy, torch.ones(1, 64)), truth + random_complex(1, 64, 64, seed=2)
    errors = {v: float((weighted(image, acquisition, v) - truth).norm()) for v in (0.0, 0.35, 0.5, 0.7, 2.0)}
    assert min(errors, key=errors.__getitem__) == 0.5


@COILS
def test_lambda_is_learnt_and_never_negative(
    n_coils: int, scene: Callable[..., tuple], guess: Callable[..., Tensor]
) -> None:
    _, acquisition = scene((8, 9), n_coils)
    layer = DataConsistency("learnable", initial_lambda=4.0)
    assert layer.weight().item() == pytest.approx(4.0)
    image = guess((8, 9))
    torch.testing.assert_close(layer(image, acquisition), weighted(image, acquisition, 0.5))
    layer(image, acquisition).abs().sum().backward()
    (parameter,) = layer.parameters()
    assert parameter.grad is not None
    assert parameter.grad.abs() > 0
    torch.nn.init.constant_(parameter, -50.0)
    assert 0 <= layer.weight() < 1e-9
    assert DataConsistency("learnable", initial_lambda=1e4).weight().item() == pytest.approx(1e4)


@pytest.mark.parametrize("n_coils", [1, 3], ids=["single", "multi"])
@pytest.mark.parametrize("mode", ["hard", "weighted", "learnable", "hermitian", "real"])
def test_gradients_are_those_of_finite_differences(
    mode: str, n_coils: int, scene: Callable[..., tuple], random_complex: Callable[..., Tensor]
) -> None:
    if mode in OF_REAL and n_coils > 1:
        pytest.skip("of a single coil only")
    _, acquisition = scene((4, 5), n_coils, n_lines=2)
    double = acquisition._replace(
        kspace=acquisition.kspace.to(torch.complex128), sensitivities=acquisition.sensitivities.to(torch.complex128)
    )
    image = random_complex(2, 4, 5, dtype=torch.complex128).requires_grad_()
    # weights in double precision, as finite differences need them
    layer = DataConsistency(mode, noise_level=1.0, initial_lambda=1.0)
    assert torch.autograd.gradcheck(lambda x: layer(x, double), (image,))


def test_samples_have_no_gradient_in_hard(scene: Callable[..., tuple], guess: Callable[..., Tensor]) -> None:
    _, acquisition = scene((8, 9))
    image = guess((8, 9)).requires_grad_()
    image_to_kspace(hard(image, acquisition)).abs().square().sum().backward()
    assert image.grad is not None
    gradient = image_to_kspace(image.grad)
    assert float((acquisition.mask * gradient).abs().max()) < 1e-5 < float(gradient.abs().max())


@pytest.mark.parametrize("mode", [*OF_COMPLEX, *OF_REAL])
def test_mixed_precision_leaves_data_consistency_in_float32(mode: str, scene: Callable[..., tuple]) -> None:
    _, acquisition = scene((8, 9), real=True)
    convolution = torch.nn.Conv2d(1, 1, 3, padding=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        image = convolution(acquisition.image.abs().unsqueeze(1)).squeeze(1)
        result = DataConsistency(mode)(image, acquisition)
    assert image.dtype == torch.bfloat16
    assert result.dtype == (torch.float32 if mode in OF_REAL else torch.complex64)
    torch.testing.assert_close(result, DataConsistency(mode)(image.float(), acquisition))


@pytest.mark.parametrize("mode", OF_REAL)
def test_several_coils_have_no_real_image(mode: str, scene: Callable[..., tuple]) -> None:
    truth, acquisition = scene((8, 8), 2)
    with pytest.raises(ValueError, match=f"'{mode}' is for magnitudes of a single coil, got 2 coils"):
        DataConsistency(mode)(truth, acquisition)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mode": "soft"}, "expected one of hard, weighted, learnable, hermitian, real, got 'soft'"),
        ({"mode": "weighted", "noise_level": -1.0}, "noise_level: expected a number >= 0, got -1.0"),
        ({"mode": "learnable", "initial_lambda": 0.0}, "initial_lambda: expected a number > 0, got 0.0"),
    ],
    ids=["mode", "noise_level", "initial_lambda"],
)
def test_bad_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        DataConsistency(**settings)  # type: ignore[arg-type]


def test_other_modes_learn_nothing() -> None:
    assert not list(DataConsistency("hard").parameters())
    with pytest.raises(ValueError, match="'hard' learns no weight"):
        DataConsistency("hard").weight()
