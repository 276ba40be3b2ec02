"""Claims about KiTS 2019, 2021 and 2023."""

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
from nnunet_kd.dataset_conversion.challenges import challenge
from nnunet_kd.dataset_conversion.kits import CHALLENGES
from nnunet_kd.errors import UsageError

# Folders and files as listed in https://github.com/neheller/kits19, https://github.com/neheller/kits21 ("Folder
# Structure") and https://github.com/neheller/kits23; test images of 2023 as its check_submission_folder.py reads them.
FOLDERS = {"kits19": "data", "kits21": "kits21/data", "kits23": "dataset"}
LABELS = {
    "kits19": ["segmentation.nii.gz"],
    "kits21": [f"aggregated_{rule}_seg.nii.gz" for rule in ("OR", "AND", "MAJ")],
    "kits23": ["segmentation.nii.gz"],
}
N_VALUES = {"kits19": 3, "kits21": 4, "kits23": 4}
SHAPE = (6, 7, 8)

Download = Callable[..., Path]


def _save(array: np.ndarray[Any, Any], path: Path, number: int) -> None:
    # the affine of the kits19 README: slices along the first axis, all axes turned
    width, thickness = 0.6 + number / 997, 0.5 + number % 5
    affine = np.array([[0, 0, -width, 0], [0, -width, 0, 0], [-thickness, 0, 0, 0], [0, 0, 0, 1]])
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, affine), path)


def _save_image(path: Path, number: int) -> None:
    _save(np.random.default_rng(number).normal(0, 300, SHAPE).astype(np.float32), path, number)


def _save_label(path: Path, number: int, n_values: int) -> None:
    _save(np.random.default_rng([number, len(path.name)]).integers(0, n_values, SHAPE).astype(np.uint8), path, number)


@pytest.fixture
def download(tmp_path: Path) -> Download:
    """Return a function that writes the clone of an organisers' repository after its download script has run."""

    def write(year: str, labelled: Any = range(3), unlabelled: Any = ()) -> Path:
        for number in (*labelled, *unlabelled):
            folder = tmp_path / "clone" / FOLDERS[year] / f"case_{number:05d}"
            _save_image(folder / "imaging.nii.gz", number)
            for name in LABELS[year] if number in labelled else ():
                _save_label(folder / name, number, N_VALUES[year])
        return tmp_path / "clone"

    return write


def _annotate(folder: Path, name: str, box: tuple[slice, slice, slice]) -> None:
    mask = np.zeros(SHAPE, np.uint8)
    mask[box] = 1
    _save(mask, folder / "segmentations" / f"{name}.nii.gz", int(folder.name[-5:]))


def _header(path: Path) -> tuple[bytes, ...]:
    """Return what says where voxels lie, bit by bit."""
    header = nibabel.load(path).header  # type: ignore[attr-defined]
    fields = ("pixdim", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y")
    return tuple(np.asarray(header[f]).tobytes() for f in (*fields, "qoffset_z", "srow_x", "srow_y", "srow_z"))


def _voxels(path: Path) -> np.ndarray[Any, Any]:
    return np.asanyarray(nibabel.load(path).dataobj)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "year", "label", "folder"),
    [
        ("kits19", "kits19", "segmentation", "Dataset064_KiTS2019"),
        ("kits21", "kits21", "aggregated_MAJ_seg", "Dataset135_KiTS2021"),
        ("kits21-or", "kits21", "aggregated_OR_seg", "Dataset135_KiTS2021_OR"),
        ("kits21-and", "kits21", "aggregated_AND_seg", "Dataset135_KiTS2021_AND"),
        ("kits23", "kits23", "segmentation", "Dataset220_KiTS2023"),
    ],
)
def test_clone_becomes_a_data_set(
    name: str, year: str, label: str, folder: str, download: Download, nnunet_raw: Path
) -> None:
    clone = download(year)
    assert cli.main(["convert", name, str(clone)]) == 0
    content = json.loads((nnunet_raw / folder / "dataset.json").read_text())
    assert content["channel_names"] == {"0": "CT"}
    assert content["numTraining"] == 3
    theirs = clone / FOLDERS[year] / "case_00002"
    for ours, source in [("imagesTr/case_00002_0000", "imaging"), ("labelsTr/case_00002", label)]:
        written, given = nnunet_raw / folder / f"{ours}.nii.gz", theirs / f"{source}.nii.gz"
        np.testing.assert_array_equal(_voxels(written), _voxels(given))
        assert _header(written) == _header(given)


@pytest.mark.parametrize("name", ["kits19", "kits21", "kits23"])
def test_nnunet_accepts_the_data_set_and_gets_the_labels_back_from_the_regions(
    name: str, download: Download, nnunet_raw: Path
) -> None:
    """Nested masks painted in the order of ``regions_class_order`` are the organisers' map."""
    import torch
    from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

    cli.main(["convert", name, str(download(name))])
    (folder,) = nnunet_raw.iterdir()
    verify_dataset_integrity(str(folder), 1)
    content = json.loads((folder / "dataset.json").read_text())
    manager = LabelManager(content["labels"], content["regions_class_order"])
    labels = torch.from_numpy(_voxels(folder / "labelsTr/case_00001.nii.gz").astype(np.int16))
    assert set(labels.unique().tolist()) == set(range(N_VALUES[name]))
    regions = [(r,) if isinstance(r, int) else r for r in manager.foreground_regions]
    masks = torch.stack([torch.isin(labels, torch.tensor(region)) for region in regions]).float()
    assert torch.equal(torch.as_tensor(manager.convert_probabilities_to_segmentation(masks)).to(labels), labels)


def test_late_cases_of_2019_without_a_label_are_test_cases(download: Download) -> None:
    """Case 209 is the last that must have one; a later case that has one is trained on."""
    cases = challenge("kits19").read_source(download("kits19", [208, 211], [209, 210, 299]))[1]
    assert [case.name for case in cases if case.label is None] == ["case_00210", "case_00299"]
    assert len(cases) == 5


@pytest.mark.parametrize("name", ["kits21", "kits23"])
@pytest.mark.parametrize("beside", [True, False], ids=["beside", "alone"])
def test_images_without_a_folder_are_test_cases(name: str, beside: bool, download: Download, tmp_path: Path) -> None:
    source = download(name) if beside else tmp_path
    for number in (600, 601):
        _save_image(source / ("test" if beside else ".") / f"case_{number:05d}.nii.gz", number)
    cases = challenge(name).read_source(source)[1]
    assert [case.name for case in cases if case.label is None] == ["case_00600", "case_00601"]
    assert len(cases) == (5 if beside else 2)


FAULTS: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "no label": ("kits23", lambda c: (c / "segmentation.nii.gz").unlink(), "segmentation.nii.gz in case_00001: is mi"),
    "no label 2019": ("kits19", lambda c: (c / "segmentation.nii.gz").unlink(), "segmentation.nii.gz in case_00001"),
    "no image": ("kits21", lambda c: (c / "imaging.nii.gz").unlink(), "imaging.nii.gz in case_00001: is missing"),
    "cyst in 2019": ("kits19", lambda c: _save_label(c / "segmentation.nii.gz", 1, 4), "label values 3; expected only"),
    "other place": ("kits23", lambda c: _save_label(c / "segmentation.nii.gz", 2, 4), "positions differ by up to"),
    "pointer": ("kits19", lambda c: (c / "segmentation.nii.gz").write_text("version https://git-lfs"), "segmentation"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_fault_is_listed_with_its_case(
    fault: str, download: Download, nnunet_raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    year, plant, message = FAULTS[fault]
    clone = download(year)
    plant(clone / FOLDERS[year] / "case_00001")
    assert cli.main(["convert", year, str(clone)]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.strip().startswith("case_")]
    assert line.strip().startswith("case_00001: ")
    assert message in line
    assert list(nnunet_raw.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "year", "spoil", "message"),
    [
        ("kits23", None, None, "there is no case_XXXXX"),
        ("kits23", "kits23", "imaging.nii.gz", "kits23_download_data"),
        ("kits21", "kits23", None, "expected aggregated_MAJ_seg.nii.gz"),
        ("kits21-single", "kits21", None, "type kits21"),
    ],
    ids=["empty", "not downloaded", "other year", "no annotations"],
)
def test_other_folders_get_one_line(
    name: str, year: str | None, spoil: str | None, message: str, download: Download, tmp_path: Path
) -> None:
    source = download(year) if year else tmp_path
    for path in source.rglob(spoil) if spoil else ():
        path.unlink()
    with pytest.raises(UsageError, match=message):
        challenge(name).read_source(source)


def test_cases_of_later_years_are_no_kits19(download: Download) -> None:
    with pytest.raises(UsageError, match=r"got case_00400; type kits23"):
        challenge("kits19").read_source(download("kits19", [1, 400]))


@pytest.fixture
def annotated(download: Download) -> Path:
    """A clone of KiTS21 whose cases have two kidneys, of which one was annotated twice, a cyst and a tumour."""
    clone = download("kits21", range(5))
    for folder in (clone / FOLDERS["kits21"]).iterdir():
        for number in (1, 2, 3):
            _annotate(folder, f"kidney_instance-1_annotation-{number}", np.s_[: 2 + number, :3, :])
            _annotate(folder, f"cyst_instance-1_annotation-{number}", np.s_[1:3, 1:5, 2:5])
            _annotate(folder, f"tumor_instance-1_annotation-{number}", np.s_[2:4, 2:3, :number])
            _annotate(folder, f"ureter_instance-1_annotation-{number}", np.s_[:, 6, :])  # in releases before 2.0
        for number in (2, 3):
            _annotate(folder, f"kidney_instance-2_annotation-{number}", np.s_[:, 5:6, number:])
    return clone


def _label_of(number: int) -> np.ndarray[Any, Any]:
    """Return what one annotation says, written out: kidney 1, then cyst 3, then tumour 2 over it."""
    expected = np.zeros(SHAPE, np.uint8)
    expected[: 2 + number, :3, :] = 1
    expected[:, 5:6, max(number, 2) :] = 1
    expected[1:3, 1:5, 2:5] = 3
    expected[2:4, 2:3, :number] = 2
    return expected


def test_single_annotations_are_painted_in_the_organisers_order_and_stay_in_one_fold(
    annotated: Path, nnunet_raw: Path
) -> None:
    assert cli.main(["convert", "kits21-single", str(annotated), "-np", "1"]) == 0
    folder = nnunet_raw / "Dataset135_KiTS2021_single"
    names = [f"case_00003_annotation-{number}" for number in (1, 2, 3)]
    for number, name in enumerate(names, start=1):
        written = folder / "labelsTr" / f"{name}.nii.gz"
        np.testing.assert_array_equal(_voxels(written), _label_of(number))
        assert _header(written) == _header(annotated / FOLDERS["kits21"] / "case_00003" / "imaging.nii.gz")
    splits = json.loads((folder / "splits_final.json").read_text())
    assert [sum(name in fold["val"] for name in names) for fold in splits].count(3) == 1
    assert all(not set(fold["train"]) & set(fold["val"]) for fold in splits)
    assert json.loads((folder / "dataset.json").read_text())["numTraining"] == 15


def test_annotation_that_is_no_file_is_a_fault_of_its_cases(
    annotated: Path, nnunet_raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (annotated / FOLDERS["kits21"] / "case_00003/segmentations/tumor_instance-1_annotation-2.nii.gz").write_bytes(b"")
    for path in (annotated / FOLDERS["kits21"] / "case_00004/segmentations").iterdir():
        path.unlink()
    assert cli.main(["convert", "kits21-single", str(annotated), "-np", "1"]) == 2
    shown = [line.strip() for line in capsys.readouterr().err.splitlines() if line.startswith("  ")]
    assert [line.partition(":")[0] for line in shown] == [
        "case_00003_annotation-2",
        *(f"case_00004_annotation-{number}" for number in (1, 2, 3)),
    ]
    assert "kidney_instance-1_annotation-3.nii.gz in segmentations: is missing" in shown[-1]


@pytest.mark.parametrize(
    ("name", "case", "file"),
    [
        ("kits19", "case_00210", "prediction_00210.nii.gz"),
        ("kits21", "case_00007", "case_00007.nii.gz"),
        ("kits23", "case_00600", "case_00600.nii.gz"),
    ],
)
def test_files_get_the_organisers_names(name: str, case: str, file: str) -> None:
    submission = challenge(name).submission
    assert submission is not None
    assert submission.file_name(case) == file
    assert submission.container == (name == "kits21")


def test_all_test_cases_of_2019_are_required() -> None:
    submission = challenge("kits19").submission
    assert submission is not None
    assert submission.cases is not None
    assert [submission.cases[0], submission.cases[-1], len(submission.cases)] == ["case_00210", "case_00299", 90]
    assert not submission.partial


@pytest.mark.parametrize(
    ("name", "prefix"), [("kits19", "prediction_"), ("kits21", "case_"), ("kits23", "case_")], ids=["19", "21", "23"]
)
def test_labels_come_out_of_the_submission_as_they_went_in(
    name: str, prefix: str, download: Download, nnunet_raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The converted labels as predictions for images of the same names."""
    found, clone = CHALLENGES[name], download(name, range(210, 213))
    assert found.submission is not None
    three = replace(found.submission, cases=[f"case_{number:05d}" for number in range(210, 213)])
    monkeypatch.setitem(CHALLENGES, name, replace(found, submission=three))
    assert cli.main(["convert", name, str(clone)]) == 0
    (folder,) = nnunet_raw.iterdir()
    archive = tmp_path / ("kits" if three.archive == "folder" else "kits.zip")
    typed = ["submit", name, str(folder / "labelsTr"), "-o", str(archive), "--images", str(folder / "imagesTr")]
    assert cli.main(typed) == 0
    if three.archive == "zip":
        with zipfile.ZipFile(archive) as opened:
            opened.extractall(tmp_path / "opened")
        archive = tmp_path / "opened"
    assert sorted(path.name for path in archive.glob("*.nii.gz")) == [f"{prefix}00{n}.nii.gz" for n in (210, 211, 212)]
    for number in range(210, 213):
        written, case = archive / f"{prefix}00{number}.nii.gz", clone / FOLDERS[name] / f"case_00{number}"
        np.testing.assert_array_equal(_voxels(written), _voxels(case / LABELS[name][-1]))
        assert _header(written) == _header(case / "imaging.nii.gz")
