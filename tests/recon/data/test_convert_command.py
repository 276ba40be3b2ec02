"""``nnunet_kd recon convert``: whole conversions, and refusals that write nothing."""

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from nnunet_kd import cli
from nnunet_kd.recon.data.cases import read_volume
from nnunet_kd.recon.data.dataset import open_dataset
from nnunet_kd.recon.data.formats import FORMATS, source_format
from nnunet_kd.recon.data.phantoms import make_phantom_dataset


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "raw"
    folder.mkdir()
    monkeypatch.setenv("nnUNet_raw", str(folder))
    return folder


@pytest.fixture
def knee(tmp_path: Path) -> Path:
    """Fully sampled volumes in fastMRI's folders, one of them a test volume without target."""
    rng = np.random.default_rng(0)
    for number, part in enumerate(("train", "train", "val", "test")):
        path = tmp_path / "knee" / f"singlecoil_{part}" / f"file{number}.h5"
        path.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(path, "w") as file:
            kspace = rng.normal(size=(2, 8, 6)) + 1j * rng.normal(size=(2, 8, 6))
            file["kspace"] = kspace.astype(np.complex64)
            file.attrs["patient_id"] = f"p{number}"
            if part == "test":
                file["mask"] = np.array([0, 1, 1, 1, 0, 1])
            else:
                file["reconstruction_esc"] = np.ones((2, 4, 4), np.float32)
    return tmp_path / "knee"


def _convert(*words: object) -> int:
    return cli.main(["recon", "convert", *map(str, words)])


def _content(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "dataset.json").read_text())
    return content


@pytest.mark.parametrize("transfer", ["--copy", "--link"])
def test_fastmris_folder_becomes_a_data_set(raw: Path, knee: Path, transfer: str) -> None:
    assert _convert("fastmri", "-i", knee, "-d", 1, "-n", "Knee", transfer) == 0
    dataset = open_dataset("1")
    assert (list(dataset.training), list(dataset.test)) == (["file0", "file1", "file2"], ["file3"])
    assert dataset.patients["file1"] == "p1"
    assert dataset.splits == [{"train": ["file0", "file1"], "val": ["file2"]}]
    assert dataset.settings["sampling"] == {"mask": "random", "acceleration": 4, "center_fraction": 0.08}
    assert dataset.training["file0"].is_symlink() == (transfer == "--link")
    assert dataset.training["file0"].read_bytes() == (knee / "singlecoil_train" / "file0.h5").read_bytes()


def test_masks_tests_and_splits_are_chosen(raw: Path, knee: Path, tmp_path: Path) -> None:
    (tmp_path / "folds.json").write_text(json.dumps([{"train": ["p0"], "val": ["p2"]}]))
    words = ("--sampling", "equispaced:acceleration=8,center_fraction=0.04", "--test-patients", "p1")
    assert _convert("fastmri", "-i", knee, "-d", 1, "-n", "Knee", *words, "--splits", tmp_path / "folds.json") == 0
    content = _content(raw / "Dataset001_Knee")
    assert content["sampling"] == {"mask": "equispaced", "acceleration": 8, "center_fraction": 0.04}
    assert content["splits"] == [{"train": ["file0"], "val": ["file2"]}]
    assert sorted(path.name for path in (raw / "Dataset001_Knee" / "kspaceTs").iterdir()) == ["file1.h5", "file3.h5"]


def test_a_kd_mri_source_keeps_its_mask(raw: Path, tmp_path: Path) -> None:
    mask = np.array([1, 1, 0, 0, 0, 1])  # origin in the corner, whole columns
    for part in ("train", "validation"):
        path = tmp_path / "cardiac" / part / "acc_4x" / "0.h5"
        path.parent.mkdir(parents=True)
        image = np.random.default_rng(0).uniform(0.1, 1, (8, 6, 2))
        with h5py.File(path, "w") as file:
            file["volfs"] = image
            file["kspace_volus_4x"] = np.fft.fft2(image, axes=(0, 1), norm="ortho") * mask[:, None]
    assert _convert("kd_mri", "-i", tmp_path / "cardiac", "-d", 2, "-n", "Cardiac", "--acceleration", "4x") == 0
    dataset = open_dataset("2")
    assert dataset.settings["sampling"]["acceleration"] == 2
    assert np.load(dataset.settings["sampling"]["file"])[0].tolist() == [0, 0, 1, 1, 1, 0]
    assert dataset.splits == [{"train": ["train_0000"], "val": ["validation_0000"]}]


@pytest.mark.parametrize(
    ("phase", "label"), [((), "retrospective, magnitude-derived"), (("--phase", 1.5), "retrospective, simulated")]
)
def test_magnitude_images_become_labelled_k_space(
    raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], phase: tuple[object, ...], label: str
) -> None:
    (tmp_path / "acdc").mkdir()
    for name in ("patient001_frame01", "patient001_frame12", "patient002_frame01"):
        with h5py.File(tmp_path / "acdc" / f"{name}.h5", "w") as file:
            file["image"] = np.ones((2, 8, 6))
    words = ("--matrix", 6, 6, "--truncation", 2, 2, "--test-patients", "patient001")
    assert _convert("magnitude", "-i", tmp_path / "acdc", "-d", 3, "-n", "ACDC", *words, *phase) == 0
    dataset = open_dataset("3")
    assert (list(dataset.training), len(dataset.test)) == (["patient002_frame01"], 2)
    assert (dataset.settings["task"], dataset.settings["truncation"]) == ("super_resolution", {"factor": [2, 2]})
    assert dataset.settings["kspace"] == label
    assert read_volume(dataset.training["patient002_frame01"]).kspace.shape == (2, 1, 6, 6)
    assert f"k-space is {label}" in capsys.readouterr().out


def test_simulated_k_space_stays_simulated(raw: Path, tmp_path: Path) -> None:
    made = make_phantom_dataset(tmp_path / "Dataset009_Phantoms", 2, n_test=1)
    assert _convert("fastmri", "-i", made, "-d", 3, "-n", "Again", "--copy") == 0
    assert open_dataset("3").settings["kspace"] == "retrospective, simulated"


@pytest.mark.parametrize("phase", [-1, 4, "nan"])
def test_a_phase_beyond_the_circle_is_refused(
    raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], phase: object
) -> None:
    assert _convert("magnitude", "-i", tmp_path, "-d", 3, "-n", "ACDC", "--phase", phase) == 2
    assert "expected --phase to be from 0 to pi" in capsys.readouterr().err


def test_a_truncation_beyond_the_matrix_is_refused(raw: Path, knee: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _convert("fastmri", "-i", knee, "-d", 1, "-n", "Knee", "--truncation", 2, 7) == 2
    assert "--truncation: expected at most the matrix 8 6, got 2 7" in capsys.readouterr().err
    assert not list(raw.iterdir())


def test_check_writes_nothing(raw: Path, knee: Path) -> None:
    assert _convert("fastmri", "-i", knee, "-d", 1, "-n", "Knee", "--check") == 0
    assert not list(raw.iterdir())


def _spoil(path: Path, kind: str) -> None:
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:-50])
        return
    with h5py.File(path, "r+") as file:
        kspace = file["kspace"][()]
        if kind == "patient":
            file.attrs["patient_id"] = "p2"
        elif kind == "target":
            del file["reconstruction_esc"]
        elif kind == "coils":
            del file["kspace"], file["reconstruction_esc"]
            file["kspace"], file["reconstruction_rss"] = kspace[:, None], np.ones((2, 4, 4), np.float32)
        else:
            file["kspace"][1] = np.nan if kind == "NaN" else 0


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("truncated", "(truncated)"),
        ("patient", "patient 'p2' is in train ('file0') and val ('file2')"),
        ("target", "expected a target in every training case"),
        ("coils", "axes in key 'kspace' of"),
        ("NaN", "finite numbers in key 'kspace' of"),
        ("empty", "all is 0 in slice 1"),
    ],
)
def test_one_line_and_nothing_written(
    raw: Path, knee: Path, capsys: pytest.CaptureFixture[str], kind: str, message: str
) -> None:
    _spoil(knee / "singlecoil_train" / "file0.h5", kind)
    assert _convert("fastmri", "-i", knee, "-d", 1, "-n", "Knee") == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert message in last
    assert "file0" in last
    assert not list(raw.iterdir())


def test_values_of_every_format_are_checked(raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "cardiac" / "acc_4x" / "0.h5"
    path.parent.mkdir(parents=True)
    with h5py.File(path, "w") as file:
        file["volfs"] = np.ones((8, 6, 2)) * [1, 0]
    words = ("-i", tmp_path / "cardiac", "-d", 2, "-n", "Cardiac", "--sampling", "random")
    assert _convert("kd_mri", *words, "--check") == 2
    assert "0.h5, all is 0 in slice 1" in capsys.readouterr().err.splitlines()[-1]


def test_every_fault_is_listed(raw: Path, knee: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in (0, 1):
        _spoil(knee / "singlecoil_train" / f"file{number}.h5", "NaN")
    assert _convert("fastmri", "-i", knee, "-d", 1, "-n", "Knee") == 2
    errors = capsys.readouterr().err
    assert "file0.h5" in errors
    assert "file1.h5" in errors


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--axis", 1), "--axis has no meaning for format fastmri, only for: magnitude"),
        (("--phase", 1), "--phase has no meaning for format fastmri, only for: magnitude"),
        (("--link", "--crop", 2, 2), "--link needs files that stay as they are"),
        (("--sampling", "sparkling"), "sampling, mask: expected one of"),
        (("--sampling", "random:speed=3"), "unknown key 'speed'"),
        (("--truncation", 1, 1), "--truncation: expected"),
        (("--crop", 9, 9), "type a smaller --crop"),
        (("--test-patients", "nobody"), "expected patients of the source"),
        (("-np", 0), "-np"),
    ],
)
def test_wrong_options_are_one_line(
    raw: Path, knee: Path, capsys: pytest.CaptureFixture[str], words: tuple[object, ...], message: str
) -> None:
    assert _convert("fastmri", "-i", knee, "-d", 1, "-n", "Knee", *words) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not list(raw.iterdir())


def test_a_data_set_is_replaced_only_when_asked(raw: Path, knee: Path) -> None:
    words = ("fastmri", "-i", knee, "-d", 1, "-n", "Knee")
    assert [_convert(*words), _convert(*words), _convert(*words, "--overwrite")] == [0, 2, 0]
    assert _convert("fastmri", "-i", knee, "-d", 1, "-n", "Other") == 2


def test_a_foreign_folder_is_never_replaced(raw: Path, knee: Path) -> None:
    (raw / "Dataset001_Knee").mkdir()
    (raw / "Dataset001_Knee" / "dataset.json").write_text('{"labels": {}}')
    assert _convert("fastmri", "-i", knee, "-d", 1, "-n", "Knee", "--overwrite") == 2
    assert _content(raw / "Dataset001_Knee") == {"labels": {}}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_refuses_an_empty_folder(raw: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    assert _convert(name, "-i", tmp_path / "empty", "-d", 1, "-n", "Knee") == 2
    assert source_format(name).name == name
    assert not list(raw.iterdir())
