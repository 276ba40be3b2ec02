"""KD-MRI's layout: read, its fixed mask, written, and its knee of single slices."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from nnunet_kd.errors import UsageError
from nnunet_kd.recon.data.formats.kd_mri import FORMAT, write
from nnunet_kd.recon.data.formats.source import ReadOptions

Array = np.ndarray[Any, Any]
ROWS = np.array([1, 1, 0, 0, 0, 1, 0, 1.0])[:, None] * np.ones((8, 6))  # origin in the corner, whole rows


def _write(path: Path, mask: Array = ROWS, slices: tuple[int, ...] = (3,)) -> Array:
    """Write a file as the published ones are: ``(H, W, S)``, or ``(H, W)``."""
    images = np.random.default_rng(0).uniform(0.1, 1, (*slices, 8, 6))
    kspace = np.fft.fft2(images, norm="ortho") * mask
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for key, array in (("volfs", images), ("kspace_volus_4x", kspace)):
            file[key] = np.moveaxis(array, 0, -1) if slices else array
    return images


def test_the_magnitude_is_the_target_and_its_transform_k_space(tmp_path: Path) -> None:
    images = _write(tmp_path / "train" / "acc_4x" / "0.h5")
    (case,) = FORMAT.find(tmp_path, ReadOptions())
    volume = FORMAT.read(case, ReadOptions())
    assert np.allclose(volume.target, images)
    corner = np.fft.ifftshift(volume.kspace[:, 0], axes=(1, 2))
    assert np.allclose(np.abs(np.fft.ifft2(corner, norm="ortho")), np.fft.ifftshift(images, axes=(1, 2)), atol=1e-5)


def test_parts_count_from_zero_and_do_not_clash(tmp_path: Path) -> None:
    for part in ("train", "validation"):
        _write(tmp_path / part / "acc_4x" / "0.h5")
    assert [(case.name, case.part) for case in FORMAT.find(tmp_path, ReadOptions())] == [
        ("train_0000", "train"),
        ("validation_0000", "val"),
    ]


def test_the_knees_files_are_single_slices(tmp_path: Path) -> None:
    _write(tmp_path / "acc_4x" / "0.h5", slices=())
    (case,) = FORMAT.find(tmp_path / "acc_4x", ReadOptions())
    assert FORMAT.read(case, ReadOptions()).kspace.shape == (1, 1, 8, 6)


def test_several_accelerations_need_a_choice(tmp_path: Path) -> None:
    for acceleration in ("4x", "5x"):
        _write(tmp_path / "train" / f"acc_{acceleration}" / "0.h5")
    with pytest.raises(UsageError, match=r"--acceleration .* 4x, 5x"):
        FORMAT.find(tmp_path, ReadOptions())
    assert len(FORMAT.find(tmp_path, ReadOptions(acceleration="5x"))) == 1


def test_the_fixed_mask_is_read_off_and_centred(tmp_path: Path) -> None:
    _write(tmp_path / "train" / "acc_4x" / "0.h5")
    assert FORMAT.fixed_mask is not None
    mask = FORMAT.fixed_mask(FORMAT.find(tmp_path, ReadOptions()), ReadOptions())
    # rows 0, 1, 5, 7 from the corner are 4, 5, 1, 3 from the centre's grid
    assert mask.any(axis=1).tolist() == [False, True, False, True, True, True, False, False]
    assert mask[4].all()


def test_two_masks_are_refused(tmp_path: Path) -> None:
    _write(tmp_path / "train" / "acc_4x" / "0.h5")
    _write(tmp_path / "train" / "acc_4x" / "1.h5", mask=1 - ROWS)
    assert FORMAT.fixed_mask is not None
    with pytest.raises(UsageError, match=r"key 'kspace_volus_4x' of .*1\.h5"):
        FORMAT.fixed_mask(FORMAT.find(tmp_path, ReadOptions()), ReadOptions())


def test_what_is_written_is_their_layout(tmp_path: Path) -> None:
    images = np.random.default_rng(1).uniform(0.1, 5, (3, 8, 6))
    write(tmp_path / "acc_5x" / "7.h5", images, np.fft.fftshift(ROWS), "5x")
    normalised = np.moveaxis(images / images.max(axis=(1, 2), keepdims=True), 0, -1)
    with h5py.File(tmp_path / "acc_5x" / "7.h5") as file:
        assert sorted(file) == ["img_volus_5x", "kspace_volus_5x", "volfs"]
        assert (file["volfs"].dtype, file["kspace_volus_5x"].dtype) == (np.float64, np.complex128)
        kspace = file["kspace_volus_5x"][()]
        assert np.array_equal(file["volfs"][()], normalised)
        assert np.allclose(kspace, np.fft.fft2(normalised, axes=(0, 1), norm="ortho") * ROWS[..., None])
        assert np.allclose(file["img_volus_5x"][()], np.abs(np.fft.ifft2(kspace, axes=(0, 1), norm="ortho")))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    mask = np.array([0, 1, 1, 1, 1, 0.0])
    images = np.random.default_rng(1).uniform(0.1, 1, (2, 8, 6))
    write(tmp_path / "train" / "acc_4x" / "0.h5", images, mask, "4x")
    cases = FORMAT.find(tmp_path, ReadOptions())
    assert FORMAT.fixed_mask is not None
    assert np.array_equal(FORMAT.fixed_mask(cases, ReadOptions()), np.broadcast_to(mask, (8, 6)))
    target = FORMAT.read(cases[0], ReadOptions()).target
    assert np.allclose(target, images / images.max(axis=(1, 2), keepdims=True))


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    path = tmp_path / "acc_4x" / "0.h5"
    _write(path)
    with h5py.File(path, "r+") as file:
        del file["volfs"]
    (case,) = FORMAT.find(path.parent, ReadOptions())
    with pytest.raises(UsageError, match=r"expected the key 'volfs' in .*0\.h5"):
        FORMAT.read(case, ReadOptions())
