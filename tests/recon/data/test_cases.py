"""Case files: fastMRI's layout read and written, and every damage named in one line."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from nnunet_kd.errors import UsageError
from nnunet_kd.recon.data.cases import make_volume, read_header, read_volume, write_volume

# written from fastMRI's README and the ISMRMRD schema
XML = """<?xml version="1.0" encoding="utf-8"?>
<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><encoding>
<encodedSpace><matrixSize><x>12</x><y>10</y><z>1</z></matrixSize></encodedSpace>
<reconSpace><matrixSize><x>6</x><y>6</y><z>1</z></matrixSize></reconSpace>
<encodingLimits><kspace_encoding_step_1><minimum>0</minimum><maximum>7</maximum><center>4</center>
</kspace_encoding_step_1></encodingLimits></encoding></ismrmrdHeader>"""


def _kspace(*shape: int) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(0)
    return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)


@pytest.fixture
def multi_coil(tmp_path: Path) -> Path:
    with h5py.File(tmp_path / "file1000001.h5", "w") as file:
        file["kspace"] = _kspace(3, 2, 12, 10)
        file["reconstruction_rss"] = np.ones((3, 6, 6), np.float32)
        file["ismrmrd_header"] = XML
        file.attrs["acquisition"], file.attrs["max"], file.attrs["patient_id"] = "AXT2", 1.0, "7f"
    return tmp_path / "file1000001.h5"


def test_a_file_of_fastmris_is_a_case(multi_coil: Path) -> None:
    header = read_header(multi_coil)
    assert (header.name, header.patient, header.source_format) == ("file1000001", "7f", "fastmri")
    assert (header.n_slices, header.n_coils, header.matrix, header.target_shape) == (3, 2, (12, 10), (6, 6))
    assert header.attributes["acquisition"] == "AXT2"
    assert not header.has_mask


def test_padding_is_where_fastmri_finds_it(multi_coil: Path) -> None:
    """``10 // 2 - 4 = 1`` and ``1 + 7 + 1 = 9``: the first and the last column were never acquired."""
    assert read_header(multi_coil).padding == (1, 9)


def test_a_single_coil_file_has_its_own_target_among_two(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["kspace"] = _kspace(2, 8, 8)
        file["reconstruction_rss"], file["reconstruction_esc"] = np.ones((2, 4, 4), "f4"), np.full((2, 4, 4), 2, "f4")
    volume = read_volume(tmp_path / "a.h5")
    assert volume.kspace.shape == (2, 1, 8, 8)
    assert volume.target is not None
    assert (volume.target == 2).all()


def test_challenge_files_bring_mask_and_acceleration(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "file2_v2.h5", "w") as file:
        file["kspace"], file["mask"] = _kspace(1, 8, 6), np.array([0, 1, 1, 1, 0, 1], bool)
        file.attrs["acceleration"], file.attrs["num_low_frequency"] = 4, 3
    volume = read_volume(tmp_path / "file2_v2.h5")
    assert volume.target is None
    assert volume.mask is not None
    assert volume.mask.tolist() == [0, 1, 1, 1, 0, 1]
    assert volume.header.attributes["acceleration"] == 4


@pytest.mark.parametrize("chosen", [slice(1, 3), 1, -1])
def test_some_slices_are_read_alone(multi_coil: Path, chosen: slice | int) -> None:
    whole = read_volume(multi_coil).kspace
    expected = whole[chosen] if isinstance(chosen, slice) else whole[chosen][None]
    assert np.array_equal(read_volume(multi_coil, chosen).kspace, expected)


@pytest.mark.parametrize("shape", [(2, 8, 6), (2, 3, 8, 6)], ids=["single", "multi"])
def test_what_is_written_is_read(tmp_path: Path, shape: tuple[int, ...]) -> None:
    maps = _kspace(*shape) if len(shape) == 4 else None
    volume = make_volume(
        "a",
        _kspace(*shape),
        patient="p",
        target=np.ones((2, 4, 4)),
        mask=np.ones((8, 6)),
        sensitivities=maps,
        padding=np.array([1, 5]),
        affine=np.arange(16.0),
    )
    write_volume(tmp_path / "a.h5", volume)
    found = read_volume(tmp_path / "a.h5")
    for name in ("kspace", "target", "mask", "sensitivities"):
        assert np.array_equal(getattr(found, name), getattr(volume, name)), name
    assert (found.header.patient, found.header.padding) == ("p", (1, 5))
    assert found.header.attributes["affine"].tolist() == list(range(16))
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5"]


def _damage(path: Path, kind: str) -> None:
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
        return
    with h5py.File(path, "r+") as file:
        kspace = file["kspace"][()]
        changes: dict[str, tuple[str, Any]] = {
            "missing": ("kspace", None),
            "group": ("kspace", {}),
            "real": ("kspace", np.abs(kspace)),
            "flat": ("kspace", kspace[0, 0]),
            "NaN": ("kspace", kspace * np.where(np.arange(10) == 4, np.nan, 1)),
            "empty": ("kspace", kspace * np.array([1, 1, 0])[:, None, None, None]),
            "target": ("reconstruction_rss", np.ones((2, 6, 6), "f4")),
            "mask": ("mask", np.ones(9)),
            "unsampled": ("mask", np.zeros(10)),
            "half-known": ("mask", np.where(np.arange(10) == 4, np.nan, 1)),
            "maps": ("sensitivities", kspace[:, :1]),
            "header": ("ismrmrd_header", "<ismrmrdHeader/>"),
            "entities": ("ismrmrd_header", "<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>"),
        }
        key, value = changes[kind]
        if key in file:
            del file[key]
        if isinstance(value, dict):
            file.create_group(key)
        elif value is not None:
            file[key] = value


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("truncated", "truncated"),
        ("missing", "expected the key 'kspace' in .*, found: ismrmrd_header, reconstruction_rss"),
        ("group", "expected an array in key 'kspace' of .*, found a group"),
        ("real", "expected complex numbers in key 'kspace' of .*, got float32"),
        ("flat", "expected 3 or 4 axes .* in key 'kspace'"),
        ("NaN", "finite numbers in key 'kspace'"),
        ("empty", "all is 0 in slice 2"),
        ("target", "at most .* in key 'reconstruction_rss'"),
        ("mask", "expected .10,. or .12, 10. in key 'mask' of .*, got .9,."),
        ("unsampled", "sampled positions in key 'mask'"),
        ("half-known", "finite numbers in key 'mask'"),
        ("maps", "in key 'sensitivities'"),
        ("header", "key 'ismrmrd_header' of .* has no number encoding/encodedSpace/matrixSize/x"),
        ("entities", "key 'ismrmrd_header' of .* declares a document type"),
    ],
)
def test_damage_is_named_with_file_and_key(multi_coil: Path, kind: str, message: str) -> None:
    _damage(multi_coil, kind)
    with pytest.raises(UsageError, match=message) as error:
        read_volume(multi_coil)
    assert str(multi_coil) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("padding", 3),
        ("padding", "left"),
        ("padding", [8, 99]),
        ("affine", np.ones(3)),
        ("affine", "none"),
        ("affine", np.full(16, np.nan)),
        ("slice_axis", 7),
        ("patient_id", np.arange(3)),
    ],
    ids=str,
)
def test_odd_attributes_are_named(multi_coil: Path, key: str, value: Any) -> None:
    with h5py.File(multi_coil, "r+") as file:
        file.attrs[key] = value
    with pytest.raises(UsageError, match=f"in the attribute '{key}' of .*, got"):
        read_volume(multi_coil)


def test_a_slice_keeps_its_number_in_the_message(multi_coil: Path) -> None:
    _damage(multi_coil, "empty")
    with pytest.raises(UsageError, match="all is 0 in slice 2"):
        read_volume(multi_coil, slice(1, 3))


def test_nothing_is_written_of_a_volume_with_nan(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="reconstruction_esc"):
        write_volume(tmp_path / "a.h5", make_volume("a", _kspace(1, 4, 4), target=np.full((1, 4, 4), np.nan)))
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_no_file_that_seems_whole(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    volume = make_volume("a", _kspace(2, 40, 40))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (24 * 1024, hard))  # writing fails there, as on a full disk
    try:
        with pytest.raises(OSError, match=r"File too large: .*a\.h5"):
            write_volume(tmp_path / "a.h5", volume)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


def test_a_header_of_another_grid_says_nothing_about_the_columns(multi_coil: Path) -> None:
    with h5py.File(multi_coil, "r+") as file:
        del file["kspace"]
        file["kspace"] = _kspace(3, 2, 12, 8)
    assert read_header(multi_coil).padding is None
