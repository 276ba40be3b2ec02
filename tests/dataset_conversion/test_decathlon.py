"""Claims about the converter of the Medical Segmentation Decathlon."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest

from nnunet_kd import cli
from nnunet_kd.dataset_conversion.decathlon import read_source
from nnunet_kd.errors import UsageError

Task = Callable[..., Path]


def _convert(source: Path, *options: str) -> int:
    return cli.main(["convert", "decathlon", str(source), *options])


def test_task_becomes_a_data_set_that_nnunet_accepts(decathlon_task: Task, nnunet_raw: Path) -> None:
    from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity

    assert _convert(decathlon_task()) == 0
    folder = nnunet_raw / "Dataset004_Hippocampus"
    verify_dataset_integrity(str(folder), 1)
    assert sorted(path.name for path in (folder / "imagesTr").iterdir()) == [
        "hippocampus_001_0000.nii.gz",
        "hippocampus_004_0000.nii.gz",
        "hippocampus_007_0000.nii.gz",
    ]
    assert len(list((folder / "imagesTs").iterdir())) == 2


def test_published_listing_is_understood(decathlon_task: Task, nnunet_raw: Path) -> None:
    """Labels are listed value first, the reference starts with a space and 'release' is misspelt."""
    _convert(decathlon_task())
    description = json.loads((nnunet_raw / "Dataset004_Hippocampus" / "dataset.json").read_text())
    assert description["labels"] == {"background": 0, "Anterior": 1, "Posterior": 2}
    assert description["reference"] == "Vanderbilt University Medical Center"
    assert description["release"] == "1.0 04/05/2018"
    assert description["licence"] == "CC-BY-SA 4.0"


@pytest.mark.parametrize(("modality", "scheme"), [("CT", "CTNormalization"), ("MRI", "ZScoreNormalization")])
def test_channel_name_selects_the_normalisation(decathlon_task: Task, modality: str, scheme: str) -> None:
    from nnunetv2.preprocessing.normalization.map_channel_name_to_normalization import get_normalization_scheme

    description, _ = read_source(decathlon_task(modality={"0": modality}))
    assert [get_normalization_scheme(name).__name__ for name in description.channel_names] == [scheme]


def test_missing_test_images_are_allowed(decathlon_task: Task, nnunet_raw: Path) -> None:
    source = decathlon_task()
    shutil.rmtree(source / "imagesTs")
    assert _convert(source) == 0
    assert not (nnunet_raw / "Dataset004_Hippocampus" / "imagesTs").exists()


def test_apple_double_files_are_no_cases(decathlon_task: Task) -> None:
    source = decathlon_task()
    listing = json.loads((source / "dataset.json").read_text())
    listing["training"].append({"image": "./imagesTr/._hippocampus_001.nii.gz", "label": "./labelsTr/._x.nii.gz"})
    (source / "dataset.json").write_text(json.dumps(listing))
    assert len(read_source(source)[1]) == 5


def test_number_can_be_chosen(decathlon_task: Task, nnunet_raw: Path) -> None:
    assert _convert(decathlon_task(), "-d", "77") == 0
    assert (nnunet_raw / "Dataset077_Hippocampus").is_dir()


def test_folder_of_another_name_needs_a_number(
    decathlon_task: Task, nnunet_raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = decathlon_task("unpacked")
    assert _convert(source) == 2
    assert "-d ID" in capsys.readouterr().err
    assert _convert(source, "-d", "5") == 0
    assert (nnunet_raw / "Dataset005_Hippocampus").is_dir()


# order of the published listings: Task01_BrainTumour and Task05_Prostate
@pytest.mark.parametrize(
    ("name", "channels"), [("Task01_BrainTumour", ("FLAIR", "T1w", "t1gd", "T2w")), ("Task05_Prostate", ("T2", "ADC"))]
)
def test_channels_of_a_file_become_files(
    decathlon_task: Task, nnunet_raw: Path, name: str, channels: tuple[str, ...]
) -> None:
    from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity

    source = decathlon_task(name, modality={str(n): channel for n, channel in enumerate(channels)})
    assert _convert(source, "--link") == 0
    folder = nnunet_raw / f"Dataset0{name[4:6]}_{name[7:]}"
    whole = nibabel.load(source / "imagesTr" / "hippocampus_001.nii.gz").get_fdata()
    for number in range(len(channels)):
        found = nibabel.load(folder / "imagesTr" / f"hippocampus_001_{number:04d}.nii.gz")
        np.testing.assert_array_equal(found.get_fdata(), whole[..., number])
    assert (folder / "labelsTr" / "hippocampus_001.nii.gz").is_symlink()
    listed = json.loads((folder / "dataset.json").read_text())["channel_names"]
    assert tuple(listed.values()) == channels
    verify_dataset_integrity(str(folder), 1)


@pytest.mark.parametrize("ending", ["tar", "zip"])
def test_archive_converts_to_the_same(
    decathlon_task: Task, nnunet_raw: Path, ending: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source = decathlon_task()
    archive = Path(shutil.make_archive(str(source), ending, source.parent, source.name))
    assert _convert(archive, "--link") == 2
    assert "unpack it" in capsys.readouterr().err
    assert _convert(archive) == 0
    assert _convert(source, "-d", "77") == 0
    first, second = (nnunet_raw / name for name in ("Dataset004_Hippocampus", "Dataset077_Hippocampus"))
    files = [{str(p.relative_to(f)): p.read_bytes() for p in f.rglob("*.nii.gz")} for f in (first, second)]
    assert files[0] == files[1]
    records = [json.loads((folder / "conversion.json").read_text()) for folder in (first, second)]
    assert records[0]["sha256"] == records[1]["sha256"]
    assert records[0]["source"] == str(archive)
    assert records[0]["source_sha256"] == hashlib.sha256(archive.read_bytes()).hexdigest()
    assert sorted(path.name for path in nnunet_raw.iterdir()) == [first.name, second.name]


def test_fault_in_an_archive_names_the_archive(
    decathlon_task: Task, nnunet_raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = decathlon_task()
    (source / "dataset.json").unlink()
    assert _convert(Path(shutil.make_archive(str(source), "tar", source.parent, source.name))) == 2
    assert f"there is no {source}.tar" in capsys.readouterr().err
    assert list(nnunet_raw.iterdir()) == []


def test_planted_fault_is_listed_with_its_case(
    decathlon_task: Task, nnunet_raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = decathlon_task()
    (source / "labelsTr" / "hippocampus_004.nii.gz").unlink()
    assert _convert(source) == 2
    assert "hippocampus_004: hippocampus_004.nii.gz in labelsTr: is missing" in capsys.readouterr().err
    assert list(nnunet_raw.iterdir()) == []
    assert _convert(source, "--skip-faulty") == 0
    assert "2 training cases, 2 test cases" in capsys.readouterr().out


def test_files_outside_the_task_are_refused(decathlon_task: Task) -> None:
    with pytest.raises(UsageError, match="expected files inside"):
        read_source(decathlon_task(test=["../../secret.nii.gz"]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "expected JSON"),
        ('{"name": "x"}', "modality, labels, training"),
        ('{"channel_names": {}}', "nnU-Net's own"),
        (None, "there is no"),
    ],
    ids=["broken", "incomplete", "nnU-Net's", "absent"],
)
def test_folder_that_is_no_task_is_refused(decathlon_task: Task, text: str | None, message: str) -> None:
    source = decathlon_task()
    (source / "dataset.json").unlink()
    if text is not None:
        (source / "dataset.json").write_text(text)
    with pytest.raises(UsageError, match=message):
        read_source(source)


@pytest.mark.parametrize(
    "changes",
    [
        *({"modality": value} for value in (["MRI"], 5, "MRI", {"1": "MRI"})),
        *({"labels": value} for value in (["a"], None, {"0": "background", "x": "a"}, {"0": "b", "1": "ignore"})),
        *({"labels": {"0": "background", "1": value}} for value in (None, ["a"], " ")),
        {"modality": {"0": None}},
        *({"training": value} for value in ({}, 5, None, [5], [{"image": "a\0b.nii.gz", "label": "c.nii.gz"}])),
        {"test": [{}]},
    ],
    ids=str,
)
def test_listing_of_another_form_gets_one_line(
    decathlon_task: Task, nnunet_raw: Path, changes: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    assert _convert(decathlon_task(**changes)) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "dataset.json" in line
    assert list(nnunet_raw.iterdir()) == []


def test_unset_folder_for_raw_data_is_named(
    decathlon_task: Task, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("nnUNet_raw", raising=False)
    assert _convert(decathlon_task()) == 2
    assert "nnUNet_raw" in capsys.readouterr().err


@pytest.fixture
def hippocampus() -> Path:
    """The real task in the folder named by NNUNET_KD_DATA."""
    folder = Path(os.environ.get("NNUNET_KD_DATA", ""), "Task04_Hippocampus")
    if not folder.is_dir():
        pytest.skip("NNUNET_KD_DATA does not name a folder with Task04_Hippocampus")
    return folder


@pytest.mark.realdata
def test_real_hippocampus_task_converts_without_a_fault(hippocampus: Path, nnunet_raw: Path) -> None:
    assert _convert(hippocampus, "--link") == 0
    listed = json.loads((hippocampus / "dataset.json").read_text())["training"]
    assert len(list((nnunet_raw / "Dataset004_Hippocampus" / "labelsTr").iterdir())) == len(listed) > 0
