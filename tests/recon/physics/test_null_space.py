"""Claims about the null space: nothing in it is seen by the measurement, and nothing unseen is lost."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from nnunet_kd.recon.physics.masks import MASKS, SamplingSettings, make_mask
from nnunet_kd.recon.physics.null_space import null_space, visible_share
from nnunet_kd.recon.physics.operators import acquire, forward

LINES_AND_POINTS = sorted(set(MASKS) - {"file"})


@pytest.mark.parametrize("axis", ["columns", "rows"])
@pytest.mark.parametrize("acceleration", [4, 8, 16, 32])
@pytest.mark.parametrize("family", LINES_AND_POINTS)
def test_the_measured_samples_are_unchanged_under_every_mask(
    family: str, acceleration: int, axis: str, random_complex: Callable[..., Tensor]
) -> None:
    settings = SamplingSettings(
        mask=family, acceleration=(acceleration,), axis=axis, n_calibration=max(1, 16 // acceleration)
    )
    mask = torch.from_numpy(make_mask(settings, (64, 64), seed=1))
    image, detail = random_complex(1, 64, 64), random_complex(1, 64, 64, seed=1)
    measured = acquire(forward(image, mask, torch.ones(1, 1, 64, 64)), mask)
    added = null_space(detail, measured)
    after = forward(image + added, measured.mask, measured.sensitivities)
    assert float((after - measured.kspace).norm() / measured.kspace.norm()) < 1e-6
    assert float(visible_share(added, measured)) < 1e-6
    assert float(added.norm()) > 0.5 * float(detail.norm())  # most of white noise lies where nothing is sampled


def test_it_is_a_projection_for_a_single_coil(
    scene: Callable[..., tuple[Tensor, object]], shape: tuple[int, int], random_complex: Callable[..., Tensor]
) -> None:
    measured = scene(shape).acquisition  # type: ignore[attr-defined]
    detail = random_complex(2, *shape, seed=3)
    once = null_space(detail, measured)
    torch.testing.assert_close(null_space(once, measured), once)
    seen = (detail - once).flatten(1)
    torch.testing.assert_close((seen.conj() * once.flatten(1)).sum(1).abs(), torch.zeros(2), atol=1e-5, rtol=0)


def dense(measured: object, shape: tuple[int, int]) -> Tensor:
    """The exact projection of the first slice, from the matrix of ``A`` in double precision."""
    pixels = torch.eye(shape[0] * shape[1], dtype=torch.complex128).reshape(-1, *shape)
    mask, coils = (part[:1].double() if not part.is_complex() else part[:1].to(torch.complex128) for part in
                   (measured.mask, measured.sensitivities))  # type: ignore[attr-defined]  # fmt: skip
    matrix = forward(pixels, mask, coils).flatten(1).T
    return torch.eye(len(pixels), dtype=torch.complex128) - torch.linalg.pinv(matrix, rtol=1e-10) @ matrix


@pytest.mark.parametrize("steps", [60, 300], ids=["enough", "far too many"])
def test_several_coils_agree_with_the_pseudo_inverse(
    steps: int, scene: Callable[..., object], random_complex: Callable[..., Tensor]
) -> None:
    measured = scene((8, 8), 2, n_lines=2).acquisition  # type: ignore[attr-defined]
    detail = random_complex(2, 8, 8, seed=3)
    expected = (dense(measured, (8, 8)) @ detail[0].flatten().to(torch.complex128)).reshape(8, 8)
    found = null_space(detail, measured, steps)[0]
    torch.testing.assert_close(found.to(torch.complex128), expected, rtol=1e-3, atol=1e-3)


def test_each_step_lets_several_coils_see_less(
    scene: Callable[..., object], random_complex: Callable[..., Tensor]
) -> None:
    measured = scene((8, 13), 3, n_lines=3).acquisition  # type: ignore[attr-defined]
    detail = random_complex(2, 8, 13, seed=3)
    shares = torch.stack([visible_share(null_space(detail, measured, steps), measured) for steps in (0, 2, 5, 20)])
    assert bool((shares[1:] < shares[:-1]).all())
    assert float(shares[-1].max()) < 0.05


@pytest.mark.parametrize("n_coils", [1, 3])
def test_gradients_are_projected_too(
    n_coils: int, scene: Callable[..., object], random_complex: Callable[..., Tensor]
) -> None:
    measured = scene((8, 8), n_coils, n_lines=2).acquisition  # type: ignore[attr-defined]
    detail, weights = random_complex(2, 8, 8, seed=3).requires_grad_(), random_complex(2, 8, 8, seed=4)
    (null_space(detail, measured, 60) * weights.conj()).real.sum().backward()
    assert detail.grad is not None
    torch.testing.assert_close(detail.grad, null_space(weights, measured, 60), rtol=1e-3, atol=1e-3)


def test_an_empty_slice_stays_finite(scene: Callable[..., object]) -> None:
    measured = scene((8, 8), 3).acquisition  # type: ignore[attr-defined]
    nothing = torch.zeros(2, 8, 8, dtype=torch.complex64)
    assert torch.equal(null_space(nothing, measured), nothing)
    empty = measured._replace(kspace=torch.zeros_like(measured.kspace))
    assert visible_share(nothing, empty).tolist() == [0, 0]
