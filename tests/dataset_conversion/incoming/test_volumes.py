"""Claims about volumes that are read and written."""

import gzip
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from nnunet_kd.dataset_conversion.incoming.volumes import (
    as_labels,
    channel,
    parts,
    read_image,
    reoriented,
    write_image,
)

# a rotation about an oblique axis, three edges, the first axis towards the left: as a tilted scan has it
_C, _S = np.cos(0.3), np.sin(0.3)
AFFINE = np.array([[-0.9 * _C, -1.3 * _S, 0, 11.7], [-0.9 * _S, 1.3 * _C, 0, -42.3], [0, 0, 2.7, 5.9], [0, 0, 0, 1]])


def _save(path: Path, *, shape: tuple[int, ...] = (6, 7, 8), kind: Any = nibabel.Nifti1Image, **changes: Any) -> Path:
    """Write integers with a scale, sform and qform of different codes and a place that differs, units, a text."""
    voxels = np.random.default_rng(3).integers(-90, 900, shape).astype(changes.pop("dtype", "<i2"))
    image = kind(voxels, None)
    header = image.header
    moved = AFFINE.copy()
    moved[0, 3] += 0.25
    image.set_sform(AFFINE, 4)
    image.set_qform(moved, 1)
    header.set_xyzt_units("mm", "sec")
    header["descrip"] = b"of a scanner"
    header.set_dim_info(0, 1, 2)
    header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"kept"))
    nibabel.save(image, path)
    if changes:
        content = bytearray(path.read_bytes() if path.suffix == ".nii" else gzip.decompress(path.read_bytes()))
        edited = kind.header_class(bytes(content[: header.sizeof_hdr]), check=False)
        for key, value in changes.items():
            edited[key] = value
        content[: header.sizeof_hdr] = edited.binaryblock
        path.write_bytes(content if path.suffix == ".nii" else gzip.compress(content))
    return path


def _plain(path: Path) -> bytes:
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image], ids=["1", "2"])
@pytest.mark.parametrize("dtype", ["<i2", ">f4"])
def test_nifti_written_again_is_the_same_to_the_last_bit(tmp_path: Path, kind: Any, dtype: str) -> None:
    source = _save(tmp_path / "a.nii.gz", kind=kind, dtype=dtype, scl_slope=0.5, scl_inter=-3)
    for name in ("b.nii", "b.nii.gz"):
        write_image(read_image(source), tmp_path / name)
        assert _plain(tmp_path / name) == _plain(source)


def test_values_are_those_of_nibabel(tmp_path: Path) -> None:
    source = _save(tmp_path / "a.nii.gz", scl_slope=0.5, scl_inter=-3)
    np.testing.assert_array_equal(read_image(source).values(), nibabel.load(source).get_fdata())


def test_channel_keeps_everything_but_the_fourth_axis(tmp_path: Path) -> None:
    source = _save(tmp_path / "a.nii.gz", shape=(6, 7, 8, 3), scl_slope=2.0)
    write_image(channel(read_image(source), 1), tmp_path / "b.nii.gz")
    found, whole = nibabel.load(tmp_path / "b.nii.gz"), nibabel.load(source)
    np.testing.assert_array_equal(found.get_fdata(), whole.get_fdata()[..., 1])
    for key in set(whole.header.keys()) - {"dim"}:
        assert found.header[key].tobytes() == whole.header[key].tobytes(), key
    assert found.header["dim"].tolist() == [3, 6, 7, 8, 1, 1, 1, 1]


def test_labels_are_mapped_to_uint8_and_keep_their_place(tmp_path: Path) -> None:
    """1 and 2 change places, so that mapping one after the other in place would merge them."""
    source = _save(tmp_path / "a.nii.gz")
    image = read_image(source)
    stored = np.random.default_rng(0).choice([0, 1, 2, 4], image.stored.shape).astype(np.float32)
    image.header.set_data_dtype(np.float32)
    write_image(as_labels(replace(image, stored=stored), {0: 0, 1: 2, 2: 1, 4: 3}), tmp_path / "b.nii.gz")
    found = nibabel.load(tmp_path / "b.nii.gz")
    assert found.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(np.asarray(found.dataobj), np.array([0, 2, 1, 9, 3])[stored.astype(int)])
    for key in ("srow_x", "qoffset_x", "quatern_b", "pixdim", "sform_code", "qform_code", "xyzt_units"):
        assert found.header[key].tobytes() == nibabel.load(source).header[key].tobytes()


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "SAL"])
def test_turned_voxels_stay_where_they_were(tmp_path: Path, orientation: str) -> None:
    source = _save(tmp_path / "a.nii.gz")
    write_image(reoriented(read_image(source), orientation), tmp_path / "b.nii.gz")
    found, whole = nibabel.load(tmp_path / "b.nii.gz"), nibabel.load(source)
    assert "".join(nibabel.aff2axcodes(found.affine)) == orientation
    data = found.get_fdata()
    for form in ("get_sform", "get_qform"):
        (new, new_code), (old, old_code) = (getattr(image.header, form)(coded=True) for image in (found, whole))
        assert new_code == old_code
        for index in ((0, 0, 0), (5, 0, 3), (2, 6, 7)):
            place = np.linalg.inv(new) @ old @ [*index, 1]
            rounded = np.rint(place[:3]).astype(int)
            np.testing.assert_allclose(place[:3], rounded, atol=1e-4)
            assert data[tuple(rounded)] == whole.get_fdata()[index]
    names = {int(axis): name for name, axis in zip("fps", found.header.get_dim_info(), strict=True)}
    assert [names["SAL".index(x)] for x in "LAS"] == ["f", "p", "s"] if orientation == "SAL" else True


@pytest.mark.parametrize("ending", [".nrrd", ".mha", ".nii"])
def test_other_kinds_keep_voxels_and_place(tmp_path: Path, ending: str) -> None:
    import SimpleITK

    source = _save(tmp_path / "a.nii.gz", qoffset_x=AFFINE[0, 3])
    write_image(read_image(source), tmp_path / f"b{ending}")
    write_image(read_image(tmp_path / f"b{ending}"), tmp_path / "c.nii.gz")
    found = nibabel.load(tmp_path / "c.nii.gz")
    np.testing.assert_array_equal(np.asarray(found.dataobj), np.asarray(nibabel.load(source).dataobj))
    np.testing.assert_allclose(found.affine, AFFINE, atol=1e-5)
    # and as ITK, which nnU-Net reads with, sees both
    itk = [SimpleITK.ReadImage(str(tmp_path / name)) for name in ("a.nii.gz", f"b{ending}")]
    for what in ("GetOrigin", "GetSpacing", "GetDirection"):
        first, second = (getattr(image, what)() for image in itk)
        np.testing.assert_allclose(first, second, atol=1e-5)


def test_header_with_its_voxels_elsewhere_names_both(tmp_path: Path) -> None:
    import SimpleITK

    image = SimpleITK.GetImageFromArray(np.arange(60, dtype=np.int16).reshape(3, 4, 5))
    SimpleITK.WriteImage(image, str(tmp_path / "a.mhd"))
    assert [path.name for path in parts(tmp_path / "a.mhd")] == ["a.mhd", "a.raw"]
    assert len(read_image(tmp_path / "a.mhd").sha256) == 2
    (tmp_path / "a.raw").unlink()
    with pytest.raises(FileNotFoundError, match=r"a\.raw beside it is missing"):
        read_image(tmp_path / "a.mhd")


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.mha", "a.nrrd"])
def test_cut_file_is_refused(tmp_path: Path, name: str) -> None:
    source = _save(tmp_path / "source.nii.gz")
    write_image(read_image(source), tmp_path / name)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[:-40])
    with pytest.raises((ValueError, EOFError), match="truncated: expected" if name == "a.nii" else ""):
        read_image(tmp_path / name)


def test_file_that_unpacks_to_more_than_its_header_says_is_not_read_whole(tmp_path: Path) -> None:
    source = _save(tmp_path / "a.nii.gz")
    source.write_bytes(gzip.compress(_plain(source) + bytes(64 << 20)))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="as its header says, got more"):
            read_image(source)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("content", [b"", b"abc", b"\x5c\x01\x00\x00" + bytes(344), b"x" * 400], ids=len)
def test_other_file_is_no_nifti(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.nii").write_bytes(content)
    with pytest.raises(ValueError, match="expected"):
        read_image(tmp_path / "a.nii")
