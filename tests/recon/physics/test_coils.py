"""Claims about coils and their sensitivities."""

import builtins
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from nnunet_kd.errors import UsageError
from nnunet_kd.recon.physics.coils import coil_images, combine, estimate_sensitivities, root_sum_of_squares
from nnunet_kd.recon.physics.fourier import image_to_kspace
from nnunet_kd.recon.physics.masks import SamplingSettings, make_mask
from nnunet_kd.recon.physics.operators import forward
from nnunet_kd.recon.physics.sampling import apply_mask

SIZE = (48, 41)


@pytest.fixture
def smooth() -> tuple[Tensor, Tensor]:
    """A disc, ``(1, H, W)``, and four coils of unit length with phase at its corners, ``(1, 4, H, W)``."""
    rows, columns = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in SIZE), indexing="ij")
    image = (rows**2 + columns**2 < 0.6).float() * (1 + 0.3 * torch.cos(9 * rows)) + 0j
    corners = [(-1, -1), (-1, 1), (1, -1), (1, 1)]
    coils = [torch.polar(torch.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 3), y * columns + x) for y, x in corners]
    sensitivities = torch.stack(coils)
    return image[None], (sensitivities / torch.linalg.vector_norm(sensitivities, dim=0))[None]


def test_combination_is_the_adjoint(random_complex: Callable[..., Tensor], adjoint_error: Callable[..., float]) -> None:
    sensitivities = random_complex(2, 5, 6, 7)
    x, y = random_complex(2, 6, 7, seed=1), random_complex(2, 5, 6, 7, seed=2)
    assert (
        adjoint_error(lambda a: coil_images(a, sensitivities), lambda b: combine(b, sensitivities), x, y)
        < 1e-6 * sensitivities.abs().max()
    )


def test_the_root_sum_of_squares_is_the_modulus_of_unit_coils(smooth: tuple[Tensor, Tensor]) -> None:
    image, sensitivities = smooth
    torch.testing.assert_close(root_sum_of_squares(coil_images(image, sensitivities)), image.abs())


@pytest.mark.parametrize("method", ["lowres", "espirit"])
def test_estimates_explain_undersampled_data(method: str, smooth: tuple[Tensor, Tensor]) -> None:
    """What the estimates make of the combined image is what the coils saw, though phases may be shared out anew."""
    if method == "espirit":
        pytest.importorskip("sigpy", reason="the extra espirit")
    image, truth = smooth
    mask = torch.from_numpy(make_mask(SamplingSettings(center_fraction=0.4, acceleration=2), SIZE, seed=0))
    estimated = estimate_sensitivities(forward(image, mask, truth), n_calibration=16, method=method)
    seen = coil_images(image, truth)
    explained = coil_images(combine(seen, estimated), estimated)
    assert estimated.dtype == torch.complex64
    torch.testing.assert_close(root_sum_of_squares(estimated), torch.ones(1, *SIZE), rtol=1e-4, atol=1e-4)
    assert float((explained - seen).norm() / seen.norm()) < {"lowres": 0.05, "espirit": 0.02}[method]


def test_only_the_calibration_region_counts(random_complex: Callable[..., Tensor]) -> None:
    kspace = random_complex(3, 20, 21)
    block = torch.zeros(20, 21)
    block[6:14, 6:14] = 1
    torch.testing.assert_close(estimate_sensitivities(apply_mask(kspace, block), 8), estimate_sensitivities(kspace, 8))


def test_a_single_coil_has_ones_and_an_empty_slice_zeros() -> None:
    assert bool((estimate_sensitivities(image_to_kspace(torch.rand(2, 1, 8, 8))) == 1).all())
    assert not estimate_sensitivities(torch.zeros(2, 3, 8, 8) + 0j).any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "walsh"}, r"expected one of lowres, espirit, got 'walsh'"),
        ({"n_calibration": 0}, "n_calibration: expected a whole number >= 1, got 0"),
    ],
    ids=["method", "calibration"],
)
def test_bad_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        estimate_sensitivities(torch.zeros(1, 3, 8, 8) + 0j, **settings)  # type: ignore[arg-type]


def test_espirit_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    load = builtins.__import__

    def without_sigpy(name: str, *rest: object, **options: object) -> object:
        if name.startswith("sigpy"):
            raise ImportError(name)
        return load(name, *rest, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without_sigpy)
    with pytest.raises(UsageError, match=r"pip install 'nnunet-kd\[espirit\]'"):
        estimate_sensitivities(torch.zeros(1, 3, 8, 8) + 0j, method="espirit")


def test_espirit_needs_more_than_a_kernel() -> None:
    pytest.importorskip("sigpy", reason="the extra espirit")
    with pytest.raises(UsageError, match="more than 6 fully sampled central lines, got 6"):
        estimate_sensitivities(torch.ones(1, 3, 8, 8) + 0j, 6, method="espirit")
