"""Claims about ACDC 2017."""

import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from nnunet_kd import cli
from nnunet_kd.dataset_conversion.acdc import CHALLENGES
from nnunet_kd.errors import UsageError

# https://humanheart-project.creatis.insa-lyon.fr/database unpacks to database/training and database/testing with
# these files in patient001; the frames differ from patient to patient, and the end of diastole is not always the first.
INFO = "ED: {ED}\nES: {ES}\nGroup: DCM\nHeight: 184.0\nNbFrame: 30\nWeight: 95.0\n"
FRAMES = {"patient001": (1, 12), "patient002": (4, 11), "patient101": (1, 14), "patient102": (2, 9)}


def _save(array: np.ndarray[Any, Any], path: Path, number: int) -> None:
    # short axes: turned about the first axis
    turn = np.array([[1.0, 0, 0], [0, 0.8, -0.6], [0, 0.6, 0.8]]) @ np.diag([1.4 + number % 100 / 9, 1.5, 10.0])
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = turn, (3.1, number, -7)
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, affine), path)


def _save_patient(folder: Path, *, labelled: bool) -> None:
    number, phases = int(folder.name[-3:]), FRAMES[folder.name]
    rng = np.random.default_rng(number)
    _save(rng.normal(100, 20, (8, 7, 4, 3)).astype(np.float32), folder / f"{folder.name}_4d.nii.gz", number)
    for frame in phases:
        path = folder / f"{folder.name}_frame{frame:02d}.nii.gz"
        _save(rng.normal(100, 20, (8, 7, 4)).astype(np.float32), path, number)
        if labelled:
            truth = path.with_name(path.name.replace(".nii.gz", "_gt.nii.gz"))
            _save(rng.integers(0, 4, (8, 7, 4)).astype(np.uint8), truth, number)
    (folder / "Info.cfg").write_text(INFO.format(ED=phases[0], ES=phases[1]))


@pytest.fixture
def download(tmp_path: Path) -> Path:
    """Two patients to train on and two to be tested, all with labels as newer downloads have them."""
    source = tmp_path / "download" / "database"
    for name in FRAMES:
        _save_patient(source / ("training" if name < "patient101" else "testing") / name, labelled=True)
    (source / "MANDATORY_CITATION.md").touch()
    return source


def _bits(path: Path) -> bytes:
    """Return what says where voxels lie."""
    header = nibabel.load(path).header  # type: ignore[attr-defined]
    fields = ("pixdim", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y")
    return b"".join(header[f].tobytes() for f in (*fields, "qoffset_z", "srow_x", "srow_y", "srow_z"))


def _voxels(path: Path) -> np.ndarray[Any, Any]:
    return np.asanyarray(nibabel.load(path).dataobj)  # type: ignore[attr-defined]


def test_download_becomes_a_data_set_that_nnunet_accepts(download: Path, nnunet_raw: Path) -> None:
    from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity

    assert cli.main(["convert", "acdc", str(download)]) == 0
    folder = nnunet_raw / "Dataset027_ACDC"
    verify_dataset_integrity(str(folder), 1)
    content = json.loads((folder / "dataset.json").read_text())
    assert content["labels"] == {"background": 0, "RV": 1, "MYO": 2, "LV": 3}
    assert content["numTraining"] == 4
    assert sorted(path.name for path in (folder / "imagesTs").iterdir()) == [
        f"patient{number}_{phase}_0000.nii.gz" for number in (101, 102) for phase in ("ED", "ES")
    ]
    patient = download / "training" / "patient002"
    for ours, theirs in [("imagesTr/patient002_ED_0000", "frame04"), ("labelsTr/patient002_ES", "frame11_gt")]:
        written, given = folder / f"{ours}.nii.gz", patient / f"patient002_{theirs}.nii.gz"
        np.testing.assert_array_equal(_voxels(written), _voxels(given))
        assert _bits(written) == _bits(given)


@pytest.mark.parametrize("part", [".", "..", "training"])
def test_source_may_be_above_or_below(part: str, download: Path) -> None:
    cases = CHALLENGES["acdc"].read_source(download / part)[1]
    assert len(cases) == (4 if part == "training" else 8)


def test_both_phases_of_a_patient_stay_in_one_fold(download: Path) -> None:
    cases = CHALLENGES["acdc"].read_source(download)[1]
    assert [(case.name, case.patient) for case in cases[:4]] == [
        (f"patient00{number}_{phase}", f"patient00{number}") for number in (1, 2) for phase in ("ED", "ES")
    ]


def test_film_is_no_case_and_labels_of_test_patients_stay_out(download: Path) -> None:
    cases = CHALLENGES["acdc"].read_source(download)[1]
    assert not [case for case in cases if "4d" in case.images[0].path.name]
    assert {case.name[:10]: case.label is None for case in cases} == {name: name > "patient100" for name in FRAMES}


FAULTS: dict[str, tuple[Callable[[Path], object], list[str], str]] = {
    "no listing": (lambda p: (p / "Info.cfg").unlink(), ["ED", "ES"], "patient002_frame<no Info.cfg>.nii.gz in"),
    "no ED": (
        lambda p: (p / "Info.cfg").write_text("ES: 11\nGroup: NOR\n"),
        ["ED"],
        "patient002_frame<no ED in Info.cfg>.nii.gz in patient002: is missing",
    ),
    "no number": (lambda p: (p / "Info.cfg").write_text("ED: 4\nES: late\n"), ["ES"], "<no ES in Info.cfg>"),
    "no frame's number": (
        lambda p: (p / "Info.cfg").write_text(INFO.format(ED="9" * 5000, ES=11)),
        ["ED"],
        "<no ED in Info.cfg>",
    ),
    "no such frame": (
        lambda p: (p / "Info.cfg").write_text(INFO.format(ED=5, ES=11)),
        ["ED"],
        "patient002_frame05.nii.gz in patient002: is missing",
    ),
    "no label": (lambda p: (p / "patient002_frame11_gt.nii.gz").unlink(), ["ES"], "frame11_gt.nii.gz in patient002"),
    "label 4": (
        lambda p: _save(np.full((8, 7, 4), 4, np.uint8), p / "patient002_frame04_gt.nii.gz", 2),
        ["ED"],
        "label values 4; expected only [0, 1, 2, 3]",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_fault_is_listed_with_its_case(
    fault: str, download: Path, nnunet_raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plant, phases, message = FAULTS[fault]
    plant(download / "training" / "patient002")
    assert cli.main(["convert", "acdc", str(download)]) == 2
    shown = [line.strip() for line in capsys.readouterr().err.splitlines() if line.startswith("  ")]
    assert [line.partition(":")[0] for line in shown] == [f"patient002_{phase}" for phase in phases]
    assert all(message in line for line in shown)
    assert list(nnunet_raw.iterdir()) == []


def test_folder_without_patients_gets_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no folder of a patient"):
        CHALLENGES["acdc"].read_source(tmp_path)


def test_both_phases_of_fifty_patients_are_required() -> None:
    submission = CHALLENGES["acdc"].submission
    assert submission is not None
    assert submission.cases is not None
    names = [submission.file_name(case) for case in submission.cases]
    assert [names[0], names[1], names[-1]] == [
        "patient101_ED.nii.gz",
        "patient101_ES.nii.gz",
        "patient150_ES.nii.gz",
    ]
    assert len(set(names)) == 100


def test_labels_come_out_of_the_submission_as_they_went_in(
    download: Path, nnunet_raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The download's own labels of the test patients as predictions."""
    found, names = CHALLENGES["acdc"], [f"patient{number}_{phase}" for number in (101, 102) for phase in ("ED", "ES")]
    assert found.submission is not None
    four = replace(found, submission=replace(found.submission, cases=names))
    monkeypatch.setitem(CHALLENGES, "acdc", four)
    assert cli.main(["convert", "acdc", str(download)]) == 0
    (tmp_path / "predictions").mkdir()
    truth: dict[str, Path] = {}
    for name in names:
        patient, phase = name.split("_")
        frame = FRAMES[patient][phase == "ES"]
        truth[f"{name}.nii.gz"] = download / "testing" / patient / f"{patient}_frame{frame:02d}_gt.nii.gz"
        (tmp_path / "predictions" / f"{name}.nii.gz").write_bytes(truth[f"{name}.nii.gz"].read_bytes())
    archive, images = tmp_path / "acdc.zip", nnunet_raw / "Dataset027_ACDC" / "imagesTs"
    typed = ["submit", "acdc", str(tmp_path / "predictions"), "-o", str(archive), "--images", str(images)]
    assert cli.main(typed) == 0
    with zipfile.ZipFile(archive) as opened:
        assert sorted(opened.namelist()) == sorted(truth)
        opened.extractall(tmp_path / "opened")
    for name, given in truth.items():
        np.testing.assert_array_equal(_voxels(tmp_path / "opened" / name), _voxels(given))
        assert _bits(tmp_path / "opened" / name) == _bits(given.with_name(given.name.replace("_gt", "")))
