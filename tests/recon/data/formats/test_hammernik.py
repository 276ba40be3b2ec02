"""Hammernik's knee: slices of a patient are one volume, from MATLAB files old and new."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from scipy.io import savemat

from nnunet_kd.errors import UsageError
from nnunet_kd.recon.data.formats.hammernik import FORMAT
from nnunet_kd.recon.data.formats.source import ReadOptions

Array = np.ndarray[Any, Any]


def _save(path: Path, arrays: dict[str, Array], *, new: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not new:
        savemat(path, arrays)
        return
    with h5py.File(path, "w") as file:  # MATLAB 7.3: axes reversed, complex numbers as named pairs
        for key, array in arrays.items():
            pairs = np.empty(array.T.shape, [("real", "f8"), ("imag", "f8")])
            pairs["real"], pairs["imag"] = array.T.real, array.T.imag
            file[key] = pairs if np.iscomplexobj(array) else array.T


def _write(folder: Path, number: int, *, new: bool = False, **others: Array) -> dict[str, Array]:
    rng = np.random.default_rng(number)
    arrays = {key: rng.normal(size=(8, 6, 3)) + 1j * rng.normal(size=(8, 6, 3)) for key in ("rawdata", "sensitivities")}
    arrays["reference"] = arrays["rawdata"].sum(axis=-1)
    _save(folder / f"rawdata{number}.mat", {"rawdata": arrays["rawdata"], **others}, new=new)
    _save(folder / f"espirit{number}.mat", {key: arrays[key] for key in ("sensitivities", "reference")}, new=new)
    return arrays


@pytest.mark.parametrize("new", [False, True], ids=["v5", "v7.3"])
def test_slices_are_stacked_in_the_order_of_their_numbers(tmp_path: Path, new: bool) -> None:
    slices = {number: _write(tmp_path / "coronal_pd" / "1", number, new=new) for number in (10, 2, 1)}
    (case,) = FORMAT.find(tmp_path, ReadOptions())
    volume = FORMAT.read(case, ReadOptions())
    assert case.name == "coronal_pd_01"
    assert volume.kspace.shape == (3, 3, 8, 6)
    assert volume.sensitivities is not None
    assert volume.target is not None
    for index, number in enumerate((1, 2, 10)):
        arrays = slices[number]
        assert np.allclose(volume.kspace[index], np.moveaxis(arrays["rawdata"], -1, 0), atol=1e-6)
        assert np.allclose(volume.sensitivities[index], np.moveaxis(arrays["sensitivities"], -1, 0), atol=1e-6)
        assert np.allclose(volume.target[index], np.abs(arrays["reference"]), atol=1e-6)


@pytest.mark.parametrize("inside", ["", "coronal_pd", "coronal_pd/1"])
def test_names_hold_sequence_and_patient_wherever_one_starts(tmp_path: Path, inside: str) -> None:
    _write(tmp_path / "coronal_pd" / "1", 1)
    assert [case.name for case in FORMAT.find(tmp_path / inside, ReadOptions())] == ["coronal_pd_01"]


def test_phase_oversampling_becomes_padding(tmp_path: Path) -> None:
    _write(tmp_path / "a" / "1", 1, padlength_left=np.array([[1]]), padlength_right=np.array([[2]]))
    (case,) = FORMAT.find(tmp_path, ReadOptions())
    assert FORMAT.read(case, ReadOptions()).header.padding == (1, 4)


@pytest.mark.parametrize(
    ("key", "shape", "message"),
    [
        ("sensitivities", (8, 6, 2), r"expected \(8, 6, 3\) in key 'sensitivities' of .*espirit1.mat"),
        ("reference", (8, 5), r"expected \(8, 6\) in key 'reference' of .*espirit1.mat"),
        ("reference", None, r"expected the key 'reference' in .*espirit1.mat"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, key: str, shape: tuple[int, ...] | None, message: str) -> None:
    arrays = _write(tmp_path / "a" / "1", 1)
    arrays = {name: array for name, array in arrays.items() if name != "rawdata" and (name != key or shape)}
    if shape:
        arrays[key] = np.ones(shape)
    _save(tmp_path / "a" / "1" / "espirit1.mat", arrays, new=False)
    (case,) = FORMAT.find(tmp_path, ReadOptions())
    with pytest.raises(UsageError, match=message):
        FORMAT.read(case, ReadOptions())


@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_a_damaged_file_is_named(tmp_path: Path, damage: str) -> None:
    _write(tmp_path / "a" / "1", 1)
    beside = tmp_path / "a" / "1" / "espirit1.mat"
    beside.write_bytes(beside.read_bytes()[:200]) if damage == "cut" else beside.unlink()
    (case,) = FORMAT.find(tmp_path, ReadOptions())
    with pytest.raises(UsageError, match=r"espirit1.mat"):
        FORMAT.read(case, ReadOptions())
