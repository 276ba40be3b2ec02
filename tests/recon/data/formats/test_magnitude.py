"""Magnitude images: fitted, transformed, and put back into the scanner's space."""

from pathlib import Path
from typing import Any

import h5py
import nibabel
import numpy as np
import pytest

from nnunet_kd.errors import UsageError
from nnunet_kd.recon.data.arrays import to_images
from nnunet_kd.recon.data.formats.magnitude import FORMAT
from nnunet_kd.recon.data.formats.source import ReadOptions
from nnunet_kd.recon.data.nifti_slices import write_nifti

AFFINE = np.array([[0.9, 0, 0.1, -7], [0, -0.8, 0, 3], [0, 0, 2.0, 11], [0, 0, 0, 1]])


def _hdf5(path: Path, image: Any, key: str = "image") -> Path:
    with h5py.File(path, "w") as file:
        file[key] = image
        file["label"] = np.zeros((3, 8, 6), np.uint8)
    return path


def _volume(folder: Path, **options: Any) -> Any:
    (case,) = FORMAT.find(folder, ReadOptions())
    return FORMAT.read(case, ReadOptions(**options))


def test_the_patient_is_the_first_word_of_a_name(tmp_path: Path) -> None:
    for name in ("patient001_frame01.h5", "patient001_frame12.h5", "brain7_0000.nii.gz"):
        (tmp_path / name).touch()
    found = {case.name: case.patient for case in FORMAT.find(tmp_path, ReadOptions())}
    assert found == {"patient001_frame01": "patient001", "patient001_frame12": "patient001", "brain7_0000": "brain7"}


def test_the_image_is_the_target_and_k_space_its_transform(tmp_path: Path) -> None:
    images = np.random.default_rng(0).uniform(0, 1, (3, 8, 6)).astype(np.float32)
    _hdf5(tmp_path / "a.h5", images)
    volume = _volume(tmp_path)
    assert np.array_equal(volume.target, images)
    corner = np.fft.ifftshift(volume.kspace[:, 0], axes=(1, 2))
    assert np.allclose(np.fft.fftshift(np.fft.ifft2(corner, norm="ortho"), axes=(1, 2)), images, atol=1e-6)
    assert volume.header.source_format == "hdf5"


def test_a_simulated_phase_is_smooth_and_leaves_the_target(tmp_path: Path) -> None:
    images = np.random.default_rng(0).uniform(0.5, 1, (3, 16, 12)).astype(np.float32)
    _hdf5(tmp_path / "a.h5", images)
    _hdf5(tmp_path / "b.h5", images)
    first, second = (FORMAT.read(case, ReadOptions(phase=2.0)) for case in FORMAT.find(tmp_path, ReadOptions()))
    assert np.array_equal(first.target, images)
    for volume in (first, second):
        found = to_images(volume.kspace)[:, 0]
        assert np.allclose(np.abs(found), images, atol=1e-5)
        assert np.abs(np.angle(found)).max() == pytest.approx(2.0, abs=1e-4)
        assert max(np.abs(np.diff(np.unwrap(np.angle(found), axis=axis), axis=axis)).max() for axis in (1, 2)) < 1
    assert not np.allclose(first.kspace, second.kspace)


def test_slices_are_cropped_and_padded_to_one_matrix(tmp_path: Path) -> None:
    _hdf5(tmp_path / "a.h5", np.ones((3, 8, 6)))
    volume = _volume(tmp_path, matrix=(6, 10), crop=(4, 8))
    assert volume.kspace.shape == (3, 1, 6, 10)
    assert volume.target.shape == (3, 4, 8)
    assert volume.target[0, 0].tolist() == [0, 1, 1, 1, 1, 1, 1, 0]


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize(("matrix", "crop"), [(None, None), ((4, 12), None), ((9, 5), (4, 4))])
def test_every_voxel_returns_to_its_place(tmp_path: Path, axis: int, matrix: Any, crop: Any) -> None:
    image = np.random.default_rng(0).uniform(0.1, 1, (7, 8, 6)).astype(np.float32)
    empty: list[Any] = [slice(None)] * 3
    empty[axis] = slice(0, 2)
    image[tuple(empty)] = 0
    nibabel.save(nibabel.Nifti1Image(image, AFFINE), tmp_path / "a.nii.gz")
    volume = _volume(tmp_path, axis=axis, matrix=matrix, crop=crop)
    header = volume.header
    assert header.attributes["first_slice"] == 2
    attributes = header.attributes
    write_nifti(tmp_path / "out.nii", volume.target, affine=attributes["affine"], axis=attributes["slice_axis"])
    written = nibabel.load(tmp_path / "out.nii")
    values = written.get_fdata()
    found = np.argwhere(values > 0)
    world = np.c_[found, np.ones(len(found))] @ written.affine.T
    voxels = np.rint(world @ np.linalg.inv(AFFINE).T)[:, :3].astype(int)
    assert len(found) > 50
    assert np.array_equal(values[tuple(found.T)].astype(np.float32), image[tuple(voxels.T)])


def test_empty_slices_at_the_ends_are_left_out_but_not_between(tmp_path: Path) -> None:
    images = np.ones((6, 8, 6))
    images[[0, 5]] = 0
    _hdf5(tmp_path / "a.h5", images)
    volume = _volume(tmp_path)
    assert (volume.kspace.shape[0], volume.header.attributes["source_slices"]) == (4, 6)
    images[3] = 0
    _hdf5(tmp_path / "a.h5", images)
    with pytest.raises(UsageError, match="all is 0 in slice 3"):
        _volume(tmp_path)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.full((2, 4, 4), np.nan), "expected finite numbers in key 'image' of .*a.h5"),
        (-np.ones((2, 4, 4)), "not negative, in key 'image' of .*a.h5"),
        (np.zeros((2, 4, 4)), "signal in key 'image' of .*a.h5"),
        (np.ones((2, 4, 4), complex), "key 'image' of .*a.h5, got complex128"),
        (np.ones(4), "2 or 3 axes .* key 'image' of .*a.h5"),
    ],
    ids=["NaN", "negative", "zero", "complex", "flat"],
)
def test_what_is_no_magnitude_is_named(tmp_path: Path, image: Any, message: str) -> None:
    _hdf5(tmp_path / "a.h5", image)
    with pytest.raises(UsageError, match=message):
        _volume(tmp_path)


def test_a_truncated_nifti_is_named(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(np.ones((40, 40, 40), np.float32), AFFINE), tmp_path / "a.nii")
    (tmp_path / "a.nii").write_bytes((tmp_path / "a.nii").read_bytes()[:-1000])
    with pytest.raises(UsageError, match=r"a\.nii as NIfTI .truncated"):
        _volume(tmp_path)


def test_complex_images_are_no_magnitudes(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(np.ones((4, 4, 4), np.complex64), AFFINE), tmp_path / "a.nii")
    with pytest.raises(UsageError, match=r"a\.nii as NIfTI .expected real numbers, got complex64"):
        _volume(tmp_path)


def test_a_nifti_lies_somewhere(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(np.ones((4, 4, 4), np.float32), AFFINE), tmp_path / "a.nii")
    content = bytearray((tmp_path / "a.nii").read_bytes())
    content[280:296] = np.full(4, np.nan, "<f4").tobytes()  # srow_x
    (tmp_path / "a.nii").write_bytes(content)
    with pytest.raises(UsageError, match=r"a\.nii as NIfTI .*sform or qform, is not finite"):
        _volume(tmp_path)


def test_a_link_to_nothing_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.h5").symlink_to(tmp_path / "gone")
    with pytest.raises(UsageError, match=r"expected a file at .*a\.h5, found a link to nothing"):
        FORMAT.find(tmp_path, ReadOptions())
