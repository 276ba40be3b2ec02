"""Claims about LiTS 2017."""

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
from nnunet_kd.dataset_conversion.lits import CHALLENGES
from nnunet_kd.errors import UsageError

# The training archives of https://competitions.codalab.org/competitions/17094 unpack to these folders, spaces
# included; the test volumes lie in a folder of their own.
BATCHES = [f"media/nas/01_Datasets/CT/LITS/Training Batch {number}" for number in (1, 2)]
TESTS = "LITS-Challenge-Test-Data"

Download = Callable[..., Path]


def _save(array: np.ndarray[Any, Any], path: Path, number: int) -> None:
    # the first axis runs to the left in some volumes and to the right in others
    affine = np.diag([(-1) ** number * 0.7, 0.7, 1 + number / 7, 1])
    affine[:3, 3] = 208.9, -213.16 + number, -632.75
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, affine), path)


def _save_image(path: Path, number: int) -> None:
    _save(np.random.default_rng(number).normal(0, 300, (7, 6, 5)).astype(np.int16), path, number)


def _save_label(path: Path, number: int) -> None:
    _save(np.random.default_rng(number).integers(0, 3, (7, 6, 5)).astype(np.uint8), path, number)


@pytest.fixture
def download(tmp_path: Path) -> Path:
    """Both training batches and two test volumes; a test volume has the place of the training volume's number."""
    source = tmp_path / "download"
    for number, batch in ((0, BATCHES[0]), (1, BATCHES[0]), (28, BATCHES[1])):
        _save_image(source / batch / f"volume-{number}.nii", number)
        _save_label(source / batch / f"segmentation-{number}.nii", number)
    for number in (0, 1):
        _save_image(source / TESTS / f"test-volume-{number}.nii", number)
    return source


def _bits(path: Path) -> bytes:
    """Return what says where voxels lie."""
    header = nibabel.load(path).header  # type: ignore[attr-defined]
    fields = ("pixdim", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y")
    return b"".join(header[f].tobytes() for f in (*fields, "qoffset_z", "srow_x", "srow_y", "srow_z"))


def _voxels(path: Path) -> np.ndarray[Any, Any]:
    return np.asanyarray(nibabel.load(path).dataobj)  # type: ignore[attr-defined]


def _convert(source: Path) -> int:
    return cli.main(["convert", "lits17", str(source)])


def test_download_becomes_a_data_set_that_nnunet_accepts(download: Path, nnunet_raw: Path) -> None:
    from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity

    assert _convert(download) == 0
    folder = nnunet_raw / "Dataset029_LiTS2017"
    verify_dataset_integrity(str(folder), 1)
    content = json.loads((folder / "dataset.json").read_text())
    assert content["labels"] == {"background": 0, "liver": [1, 2], "lesion": 2}
    assert content["regions_class_order"] == [1, 2]
    assert content["channel_names"] == {"0": "CT"}
    assert content["file_ending"] == ".nii"
    assert sorted(path.name for path in folder.glob("*/*.nii")) == [
        "test-volume-0_0000.nii",
        "test-volume-1_0000.nii",
        "volume-0.nii",
        "volume-0_0000.nii",
        "volume-1.nii",
        "volume-1_0000.nii",
        "volume-28.nii",
        "volume-28_0000.nii",
    ]
    written, given = folder / "labelsTr/volume-28.nii", download / BATCHES[1] / "segmentation-28.nii"
    np.testing.assert_array_equal(_voxels(written), _voxels(given))
    assert _bits(written) == _bits(given)


def test_labels_may_lie_in_another_folder(download: Path) -> None:
    """As mirrors sort them; volumes may lie in folders of their own name."""
    for path in download.rglob("segmentation-*.nii"):
        path.rename(download / path.name)
    inner = download / "volume-7.nii" / "volume-7.nii"
    _save_image(inner, 7)
    _save_label(download / "segmentation-7.nii", 7)
    cases = CHALLENGES["lits17"].read_source(download)[1]
    assert [(case.name, case.label) for case in cases if case.label] == [
        (f"volume-{number}", download / f"segmentation-{number}.nii") for number in (0, 1, 7, 28)
    ]


def test_label_beside_the_volume_comes_first(download: Path) -> None:
    _save_label(download / "Another" / "segmentation-28.nii", 28)
    labels = {case.name: case.label for case in CHALLENGES["lits17"].read_source(download)[1]}
    assert labels["volume-28"] == download / BATCHES[1] / "segmentation-28.nii"


def _save_label_of_no_place(folder: Path) -> None:
    """A segmentation whose header is that of no scan, as LiTS has them (nnU-Net's issue 2751)."""
    affine = np.eye(4)
    affine[:3, 3] = 1
    nibabel.save(nibabel.Nifti1Image(np.ones((7, 6, 5), np.uint8), affine), folder / "segmentation-1.nii")


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no label": (lambda f: (f / "segmentation-1.nii").unlink(), "segmentation-1.nii in Training Batch 1: is missing"),
    "no volume": (lambda f: (f / "volume-1.nii").unlink(), "volume-1.nii in Training Batch 1: is missing"),
    "label of no place": (_save_label_of_no_place, "positions differ by up to"),
    "sign of an axis": (lambda f: _save_label(f / "segmentation-1.nii", 0), "positions differ by up to"),
    "volume twice": (lambda f: _save_image(f.parent / "copy" / "volume-1.nii", 1), "given to 2 cases"),
    "truncated": (lambda f: (f / "volume-1.nii").write_bytes((f / "volume-1.nii").read_bytes()[:500]), "volume-1.nii"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_fault_is_listed_with_its_case(
    fault: str, download: Path, nnunet_raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plant, message = FAULTS[fault]
    plant(download / BATCHES[0])
    assert _convert(download) == 2
    shown = [line.strip() for line in capsys.readouterr().err.splitlines() if line.startswith("  ")]
    assert {line.partition(":")[0] for line in shown} == {"volume-1"}
    assert message in shown[0]
    assert list(nnunet_raw.iterdir()) == []


def test_label_with_the_header_of_its_volume_is_accepted(download: Path, nnunet_raw: Path) -> None:
    """What the documentation says to do about such a label."""
    _save_label_of_no_place(download / BATCHES[0])
    path = download / BATCHES[0] / "segmentation-1.nii"
    image, label = nibabel.load(path.with_name("volume-1.nii")), nibabel.load(path)
    nibabel.save(nibabel.Nifti1Image(label.dataobj.get_unscaled(), image.affine), download / "mended-1.nii")  # type: ignore[attr-defined]
    (download / "mended-1.nii").replace(path)
    assert _convert(download) == 0


def test_folder_without_volumes_gets_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"volume-0\.nii.*unpack the archives"):
        CHALLENGES["lits17"].read_source(tmp_path)


def test_all_seventy_files_are_required_uncompressed_and_flat() -> None:
    submission = CHALLENGES["lits17"].submission
    assert submission is not None
    assert submission.cases is not None
    names = [submission.file_name(case) for case in submission.cases]
    assert names == [f"test-segmentation-{number}.nii" for number in range(70)]
    assert (submission.archive, submission.partial) == ("zip", False)


def test_labels_come_out_of_the_submission_as_they_went_in(
    download: Path, nnunet_raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The labels of volumes 0 and 1 as predictions for the test volumes of the same place."""
    found = CHALLENGES["lits17"]
    assert found.submission is not None
    two = replace(found, submission=replace(found.submission, cases=("test-volume-0", "test-volume-1")))
    monkeypatch.setitem(CHALLENGES, "lits17", two)
    assert _convert(download) == 0
    folder, predictions = nnunet_raw / "Dataset029_LiTS2017", tmp_path / "predictions"
    predictions.mkdir()
    for number in (0, 1):
        labels = (folder / f"labelsTr/volume-{number}.nii").read_bytes()
        (predictions / f"test-volume-{number}.nii").write_bytes(labels)
    archive, images = tmp_path / "lits.zip", folder / "imagesTs"
    assert cli.main(["submit", "lits17", str(predictions), "-o", str(archive), "--images", str(images)]) == 0
    with zipfile.ZipFile(archive) as opened:
        assert sorted(opened.namelist()) == ["test-segmentation-0.nii", "test-segmentation-1.nii"]
        opened.extractall(tmp_path / "opened")
    for number in (0, 1):
        written = tmp_path / "opened" / f"test-segmentation-{number}.nii"
        np.testing.assert_array_equal(_voxels(written), _voxels(download / BATCHES[0] / f"segmentation-{number}.nii"))
        assert _bits(written) == _bits(download / TESTS / f"test-volume-{number}.nii")
