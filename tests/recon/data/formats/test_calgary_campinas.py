"""Calgary-Campinas: alternating parts, hybrid axes, partial Fourier, centred or not."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from nnunet_kd.errors import UsageError
from nnunet_kd.recon.data.formats.calgary_campinas import FORMAT, centred
from nnunet_kd.recon.data.formats.source import ReadOptions, SourceCase

Array = np.ndarray[Any, Any]


def _blobs(shape: tuple[int, int]) -> Array:
    """Two images, one per coil, that are no mirror images of themselves."""
    y, x = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")
    return np.stack([np.exp(-((y - a) ** 2 + (x - b) ** 2) / 4) for a, b in ((5, 4), (9, 7))])


def _write(path: Path, kspace: Array) -> None:
    """Write ``(S, C, H, W)`` as the organisers do: coils last, real and imaginary parts in turn."""
    stored = np.empty((kspace.shape[0], *kspace.shape[2:], 2 * kspace.shape[1]), np.float32)
    stored[..., 0::2], stored[..., 1::2] = np.moveaxis(kspace.real, 1, -1), np.moveaxis(kspace.imag, 1, -1)
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["kspace"] = stored


@pytest.mark.parametrize("shape", [(16, 12), (15, 13)], ids=["even", "odd"])
@pytest.mark.parametrize("stored_centred", [True, False])
def test_images_are_the_organisers(tmp_path: Path, shape: tuple[int, int], stored_centred: bool) -> None:
    """Theirs: the root sum of squares of a plain ``ifft2``; ours are orthonormal, so larger by ``sqrt(H W)``."""
    kspace = np.fft.fft2(_blobs(shape))[None] * np.exp(0.3j)
    _write(tmp_path / "Train" / "a.h5", np.fft.fftshift(kspace, axes=(-2, -1)) if stored_centred else kspace)
    (case,) = FORMAT.find(tmp_path, ReadOptions())
    volume = FORMAT.read(case, ReadOptions())
    expected = np.sqrt((np.abs(np.fft.ifft2(kspace)) ** 2).sum(axis=1)) * np.sqrt(np.prod(shape))
    assert volume.target is not None
    assert np.allclose(volume.target, expected, atol=1e-3)
    assert np.abs(volume.kspace[0, 0]).argmax() == shape[0] // 2 * shape[1] + shape[1] // 2


def test_zeros_stay_zeros() -> None:
    kspace = np.fft.fftshift(np.fft.fft2(_blobs((16, 12)))[None], axes=(-2, -1))
    kspace[..., 10:] = 0
    assert not centred(kspace)[..., 10:].any()


def test_partial_fourier_is_padding_and_no_mask(tmp_path: Path) -> None:
    kspace = np.fft.fftshift(np.fft.fft2(_blobs((16, 12)))[None], axes=(-2, -1))
    kspace[..., 10:] = 0
    _write(tmp_path / "Val" / "a.h5", kspace)
    (case,) = FORMAT.find(tmp_path, ReadOptions())
    header = FORMAT.read(case, ReadOptions()).header
    assert (case.part, header.padding, header.has_mask, header.has_target) == ("val", (0, 10), False, True)


def test_a_test_file_has_a_mask_in_place_of_a_target(tmp_path: Path) -> None:
    kspace = np.fft.fftshift(np.fft.fft2(_blobs((16, 12)))[None], axes=(-2, -1))
    kspace[..., 3, 7] = 0
    _write(tmp_path / "Test-R=5" / "e14089s3_P53248.7.h5", kspace)
    (case,) = FORMAT.find(tmp_path, ReadOptions())
    assert (case.name, case.patient, case.part) == ("e14089s3_P53248.7_R5", "e14089", "test")
    volume = FORMAT.read(case, ReadOptions())
    assert volume.target is None
    assert volume.mask is not None
    assert np.argwhere(volume.mask == 0).tolist() == [[3, 7]]


@pytest.mark.parametrize(("shape", "message"), [((2, 8, 8, 3), "real and imaginary"), ((2, 8, 8), "expected 4 axes")])
def test_other_arrays_are_refused(tmp_path: Path, shape: tuple[int, ...], message: str) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["kspace"] = np.ones(shape, np.float32)
    with pytest.raises(UsageError, match=f"{message}.*key 'kspace'"):
        FORMAT.read(SourceCase(name="a", files=(tmp_path / "a.h5",)), ReadOptions())
