"""Phantoms: anatomy, phase, coils and noise of the stated size, the same for the same seed."""

from pathlib import Path

import numpy as np
import pytest

from nnunet_kd.errors import UsageError
from nnunet_kd.recon.data.cases import read_volume
from nnunet_kd.recon.data.dataset import open_dataset
from nnunet_kd.recon.data.phantoms import (
    PhantomSettings,
    coil_sensitivities,
    head,
    make_phantom,
    make_phantom_dataset,
    smooth_phase,
)

SMALL = PhantomSettings(n_slices=2, matrix=(32, 24))


def _images(kspace: np.ndarray) -> np.ndarray:
    shifted = np.fft.ifftshift(kspace, axes=(-2, -1))
    return np.fft.fftshift(np.fft.ifft2(shifted, norm="ortho"), axes=(-2, -1))


def test_heads_differ_and_repeat() -> None:
    first, again, other = (head(2, (32, 32), np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert np.abs(first - other).max() > 0.1
    assert first.min() == 0
    assert 0.5 < first.max() <= 1


def test_the_target_is_the_magnitude_of_what_was_measured() -> None:
    volume = make_phantom("a", PhantomSettings(n_slices=2, matrix=(32, 24), coils=3, noise=0.1), seed=0)
    expected = np.sqrt((np.abs(_images(volume.kspace)) ** 2).sum(axis=1))
    assert volume.target is not None
    assert np.allclose(volume.target, expected, atol=1e-6)


def test_noise_has_the_stated_size() -> None:
    clean, noisy = (make_phantom("a", PhantomSettings(noise=noise), seed=0).kspace for noise in (0.0, 0.05))
    assert np.std(noisy - clean) == pytest.approx(0.05, rel=0.05)


def test_phase_has_the_stated_size() -> None:
    assert np.abs(smooth_phase((32, 24), 0.7, np.random.default_rng(0))).max() == pytest.approx(0.7)


def test_sensitivities_keep_the_intensity() -> None:
    coils = coil_sensitivities(4, (32, 24), np.random.default_rng(0))
    assert np.allclose((np.abs(coils) ** 2).sum(axis=0), 1, atol=1e-5)
    assert np.abs(np.diff(coils, axis=-1)).max() < 0.3  # smooth


@pytest.mark.parametrize("coils", [1, 2])
def test_a_data_set_of_phantoms_opens(tmp_path: Path, coils: int) -> None:
    settings = PhantomSettings(n_slices=2, matrix=(32, 24), target_size=(16, 24), coils=coils)
    folder = tmp_path / "Dataset900_Phantom"
    make_phantom_dataset(folder, 4, n_test=1, cases_per_patient=2, settings=settings)
    dataset = open_dataset(folder)
    assert dataset.settings["acquisition"] == ("single_coil" if coils == 1 else "multi_coil")
    assert dataset.settings["kspace"] == "retrospective, simulated"
    assert len(set(dataset.patients.values())) == 3
    volume = read_volume(dataset.training["phantom_000"])
    assert volume.kspace.shape == (2, coils, 32, 24)
    assert volume.header.target_shape == (16, 24)


def test_a_data_set_for_super_resolution_says_so(tmp_path: Path) -> None:
    folder = make_phantom_dataset(tmp_path / "Dataset901_P", 1, n_test=0, settings=SMALL, truncation=(2, 2))
    assert open_dataset(folder).settings["truncation"] == {"factor": [2, 2]}


def test_nothing_is_left_of_a_refused_data_set(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        make_phantom_dataset(tmp_path / "Dataset901_P", 1, settings=SMALL, truncation=(0, 2))
    assert not list(tmp_path.iterdir())
