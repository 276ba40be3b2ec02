"""fastMRI's submissions: layout from its README and run_zero_filled.py, https://github.com/facebookresearch/fastMRI.

One HDF5 file per test volume under its name, in it ``reconstruction`` float32 (slices, 320, 320); all in a zip.
"""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from nnunet_kd import cli

HEADER = """<?xml version="1.0"?><ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><encoding>
<encodedSpace><matrixSize><x>640</x><y>{width}</y><z>1</z></matrixSize></encodedSpace>
<reconSpace><matrixSize><x>{rows}</x><y>{columns}</y><z>1</z></matrixSize><fieldOfView_mm><x>140.0</x></fieldOfView_mm>
</reconSpace></encoding></ismrmrdHeader>"""
# two knees, a brain of another size, and one of fewer columns than its header says
VOLUMES = {
    "file1000000_v2": ((2, 8, 368), (320, 320), (2, 320, 320)),
    "file1000017": ((1, 4, 2, 372), (320, 320), (1, 320, 320)),
    "file_brain_AXT2_200_2000019": ((1, 4, 2, 384), (384, 384), (1, 384, 384)),
    "file_brain_AXFLAIR_203_6000870": ((1, 4, 2, 213), (320, 320), (1, 213, 213)),
}
Submit = Callable[..., tuple[int, str]]


def write(path: Path, **arrays: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    with h5py.File(path, "w") as file:
        for key, array in arrays.items():
            file[key] = array


@pytest.fixture
def submit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Submit:
    """Return a function that runs the verb in a folder of test files and faultless predictions."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name, (shape, (rows, columns), volume) in VOLUMES.items():
        header = HEADER.format(width=shape[-1], rows=rows, columns=columns).encode()
        write(tmp_path / "test" / f"{name}.h5", kspace=np.ones(shape, np.complex64), ismrmrd_header=header)
        values = np.round(rng.random(volume, np.float32), 1)
        write(tmp_path / "predictions" / f"{name}.h5", reconstruction=values)
    (tmp_path / "predictions" / "recon_prediction.json").write_text("{}")

    def run(*words: str) -> tuple[int, str]:
        status = cli.main(["submit", "fastmri", *words, "-np", "1"])
        printed = capsys.readouterr()
        return status, printed.out + printed.err

    return run


def test_volumes_go_out_as_they_are_under_their_names(submit: Submit, tmp_path: Path) -> None:
    status, printed = submit("predictions", "-o", "out.zip", "--images", "test")
    assert status == 0, printed
    assert "4 cases" in printed
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        assert sorted(archive.namelist()) == sorted(f"{name}.h5" for name in VOLUMES)
        for name in archive.namelist():
            with h5py.File(io.BytesIO(archive.read(name))) as out, h5py.File(tmp_path / "predictions" / name) as ours:
                assert list(out) == ["reconstruction"]
                assert out["reconstruction"].dtype == np.float32
                np.testing.assert_array_equal(out["reconstruction"], ours["reconstruction"])
    assert submit("out.zip", "--check", "--images", "test")[0] == 0


def test_the_same_values_give_the_same_archive(submit: Submit, tmp_path: Path) -> None:
    """Whatever the predictions' files have beside their values."""
    submit("predictions", "-o", "a.zip", "--images", "test")
    for file in (tmp_path / "predictions").glob("*.h5"):
        with h5py.File(file) as old:
            values = old["reconstruction"][()]
        with h5py.File(file, "w") as new:
            new.attrs["made"] = "later"
            new.create_dataset("reconstruction", data=values, compression="gzip", track_times=True)
    status, printed = submit("predictions", "-o", "b.zip", "--images", "test")
    assert status == 0, printed
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    assert "type --overwrite" in submit("predictions", "-o", "b.zip", "--images", "test")[1]
    assert submit("predictions", "-o", "b.zip", "--images", "test", "--overwrite")[0] == 0


GOOD = np.ones((2, 320, 320), np.float32)
NAN = np.where(np.arange(2)[:, None, None] == 1, np.nan, GOOD).astype(np.float32)
FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "key": ({"recon": GOOD}, "has the keys recon; expected the one data set 'reconstruction'"),
    "extra key": ({"reconstruction": GOOD, "mask": GOOD}, "has the keys mask, reconstruction; expected the one"),
    "empty": ({}, "has the keys none"),
    "type": ({"reconstruction": GOOD.astype(np.float64)}, "is stored as float64, expected float32"),
    "complex": ({"reconstruction": GOOD.astype(np.complex64)}, "is stored as complex64, expected float32"),
    "slices": ({"reconstruction": GOOD[:1]}, "has shape 1x320x320, expected 2x320x320 like its test file"),
    "size": ({"reconstruction": GOOD[:, 1:]}, "has shape 2x319x320, expected 2x320x320"),
    "axes": ({"reconstruction": GOOD[:, None]}, "has shape 2x1x320x320, expected slices of 320x320"),
    "values": ({"reconstruction": NAN}, "has NaN or infinity in slice 1"),
    "zero": ({"reconstruction": 0 * GOOD}, "is 0 everywhere"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_in_a_folder_and_in_an_archive(submit: Submit, tmp_path: Path, fault: str) -> None:
    arrays, text = FAULTS[fault]
    file = tmp_path / "predictions" / "file1000000_v2.h5"
    write(file, **arrays)
    status, printed = submit("predictions", "-o", "out.zip", "--images", "test")
    assert status == 2
    assert f"file1000000_v2: {text}" in printed
    assert not (tmp_path / "out.zip").exists()
    with zipfile.ZipFile(tmp_path / "by_hand.zip", "w") as archive:
        for each in sorted((tmp_path / "predictions").glob("*.h5")):
            archive.write(each, each.name)
    status, printed = submit("by_hand.zip", "--check", "--images", "test")
    assert status == 2
    assert f"file1000000_v2.h5: {text}" in printed


def test_names_are_those_of_the_test_files(submit: Submit, tmp_path: Path) -> None:
    """With their ``_v2``, none missing, none too many."""
    predictions = tmp_path / "predictions"
    (predictions / "file1000000_v2.h5").rename(predictions / "file1000000.h5")
    status, printed = submit("predictions", "--check", "--images", "test")
    assert status == 2
    assert "file1000000: is no case that the organisers ask for" in printed
    assert "file1000000_v2: has no prediction" in printed


def test_damage_is_told(submit: Submit, tmp_path: Path) -> None:
    file = tmp_path / "predictions" / "file1000017.h5"
    file.write_bytes(file.read_bytes()[:-1000])
    assert "file1000017: file1000017.h5 cannot be read as HDF5" in submit("predictions", "--check")[1]
    write(tmp_path / "test" / "file1000017.h5", image=GOOD)
    assert "a test file without the key 'kspace'" in submit("predictions", "--check", "--images", "test")[1]


def test_without_test_files_the_knees_size_is_asked_for(submit: Submit, tmp_path: Path) -> None:
    status, printed = submit("predictions", "--check")
    assert status == 2
    assert "file_brain_AXT2_200_2000019: has slices of 384x384, expected 320x320" in printed
    for name in VOLUMES:
        if "brain" in name:
            (tmp_path / "predictions" / f"{name}.h5").unlink()
    status, printed = submit("predictions", "--check")
    assert status == 0, printed
    assert "warning: missing cases and grids not checked" in printed


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["predictions", "--check", "--images", "predictions/none"], "expected test files (CASE.h5)"),
        (["test/none", "--check"], "expected a folder of predictions"),
        (["predictions", "--check", "--min-lesion", "3"], "are for label maps"),
        (["predictions", "--check", "--partial"], "take all cases or none"),
        (["--container", "out", "-m", "model"], "take no containers"),
    ],
    ids=["images", "predictions", "clean-up", "partial", "container"],
)
def test_a_mistake_costs_one_line(submit: Submit, words: list[str], text: str) -> None:
    status, printed = submit(*words)
    assert status == 2
    assert text in printed


def test_its_kspace_is_converted_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    assert cli.main(["convert", "fastmri", str(tmp_path)]) == 2
    assert "type: nnunet_kd recon convert fastmri" in capsys.readouterr().err
