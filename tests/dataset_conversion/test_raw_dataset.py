"""Claims about what any converter writes."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from nnunet_kd.cases import FaultyCasesError
from nnunet_kd.dataset_conversion.challenge import Case, DatasetDescription, Volume
from nnunet_kd.dataset_conversion.checking import check_case
from nnunet_kd.dataset_conversion.placing import Form
from nnunet_kd.dataset_conversion.raw_dataset import Job, write_raw_dataset
from nnunet_kd.errors import UsageError

DESCRIPTION = DatasetDescription(
    dataset_id=9,
    name="Toy",
    channel_names=("T1", "T2"),
    labels={"background": 0, "whole": (1, 2), "core": 2},
    regions_class_order=(1, 2),
    licence="CC0-1.0",
    reference="made here",
    release="1",
)


def _case(folder: Path, name: str, *, labelled: bool = True) -> Case:
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(len(name))
    paths = [folder / f"{name}_{kind}.nii.gz" for kind in ("t1", "t2", "seg")]
    for path in paths:
        voxels = rng.integers(0, 3, (4, 5, 6)).astype(np.float32)
        nibabel.save(nibabel.Nifti1Image(voxels, np.diag([1.0, 1.0, 3.0, 1.0])), path)
    return Case(name=name, images=tuple(Volume(path=path) for path in paths[:2]), label=paths[2] if labelled else None)


@pytest.fixture
def cases(tmp_path: Path) -> list[Case]:
    source = tmp_path / "source"
    return [_case(source, "a"), _case(source, "bb"), _case(source, "ccc", labelled=False)]


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Return the writer with the toy's description and folders."""
    raw = tmp_path / "raw"
    raw.mkdir()

    def run(cases: list[Case], **options: Any) -> Path:
        settings = {"description": DESCRIPTION, "raw_folder": raw, "source": tmp_path / "source"} | options
        return write_raw_dataset(Job(cases=cases, **settings))

    return run


def _rewrite(
    path: Path,
    *,
    shape: tuple[int, ...] = (4, 5, 6),
    fill: float = 0,
    shift: float = 0,
    edge: float = 1,
    dtype: Any = np.float32,
) -> None:
    affine = np.diag([edge, 1.0, 3.0, 1.0])
    affine[0, 3] = shift
    image = nibabel.Nifti1Image(np.full(shape, fill, dtype), None)
    image.set_sform(affine, 1)
    nibabel.save(image, path)


def test_files_get_the_names_that_nnunet_expects(cases: list[Case], write: Callable[..., Path]) -> None:
    folder = write(cases)
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*.nii.gz")) == [
        "imagesTr/a_0000.nii.gz",
        "imagesTr/a_0001.nii.gz",
        "imagesTr/bb_0000.nii.gz",
        "imagesTr/bb_0001.nii.gz",
        "imagesTs/ccc_0000.nii.gz",
        "imagesTs/ccc_0001.nii.gz",
        "labelsTr/a.nii.gz",
        "labelsTr/bb.nii.gz",
    ]
    assert (folder / "imagesTr/a_0001.nii.gz").read_bytes() == cases[0].images[1].path.read_bytes()


def test_description_is_complete(cases: list[Case], write: Callable[..., Path]) -> None:
    assert json.loads((write(cases) / "dataset.json").read_text()) == {
        "channel_names": {"0": "T1", "1": "T2"},
        "labels": {"background": 0, "whole": [1, 2], "core": 2},
        "regions_class_order": [1, 2],
        "numTraining": 2,
        "file_ending": ".nii.gz",
        "name": "Toy",
        "description": "",
        "licence": "CC0-1.0",
        "reference": "made here",
        "release": "1",
    }


def test_conversion_can_be_traced_to_its_source(cases: list[Case], write: Callable[..., Path]) -> None:
    record = json.loads((write(cases, command="typed") / "conversion.json").read_text())
    assert record["command"] == "typed"
    assert record["counts"] == {"training": 2, "test": 1, "skipped": 0, "written_anew": 2, "taken_over": 0}
    assert record["sha256"]["a_seg.nii.gz"] == hashlib.sha256(cases[0].label.read_bytes()).hexdigest()  # type: ignore[union-attr]
    assert len(record["sha256"]) == 8


def test_links_lead_to_the_source(cases: list[Case], write: Callable[..., Path]) -> None:
    link = write(cases, form=Form(transfer="link")) / "imagesTr" / "a_0000.nii.gz"
    assert link.is_symlink()
    assert link.resolve() == cases[0].images[0].path.resolve()


FAULTS: dict[str, tuple[Callable[[Case], object], str]] = {
    "missing image": (lambda case: case.images[0].path.unlink(), "a_t1.nii.gz in source: is missing"),
    "truncated label": (lambda case: case.label.write_bytes(case.label.read_bytes()[:60]), "a_seg.nii.gz"),  # type: ignore[union-attr]
    "other shape": (lambda case: _rewrite(case.images[1].path, shape=(4, 5, 7)), r"shapes \(4, 5, 7\) and \(4, 5, 6\)"),
    "four dimensions": (lambda case: _rewrite(case.images[1].path, shape=(4, 5, 6, 2)), "expected 3 dimensions, got 4"),
    "moved label": (lambda case: _rewrite(case.label, shift=0.5), "positions differ by up to 0.5 mm"),  # type: ignore[arg-type]
    "unknown label": (lambda case: _rewrite(case.label, fill=3), r"label values 3; expected only \[0, 1, 2\]"),  # type: ignore[arg-type]
    "broken label": (lambda case: _rewrite(case.label, fill=0.5), "label values 0.5"),  # type: ignore[arg-type]
    "no affine": (lambda case: _rewrite(case.images[0].path, shift=float("nan")), "no size or no place"),
    "flat affine": (lambda case: _rewrite(case.images[0].path, edge=0), "no size or no place"),
    "colours": (
        lambda case: _rewrite(case.images[0].path, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")]),
        "one number",
    ),
    "not finite": (lambda case: _rewrite(case.images[0].path, fill=float("nan")), "not finite"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_fault_is_named_and_nothing_is_written(
    fault: str, cases: list[Case], write: Callable[..., Path], tmp_path: Path
) -> None:
    plant, message = FAULTS[fault]
    plant(cases[0])
    with pytest.raises(FaultyCasesError, match=f"1 of 3 cases failed:\na: .*{message}"):
        write(cases)
    assert list((tmp_path / "raw").iterdir()) == []


def test_faulty_cases_can_be_left_out(cases: list[Case], write: Callable[..., Path]) -> None:
    cases[0].images[0].path.unlink()
    folder = write(cases, skip_faulty=True)
    assert [path.name for path in (folder / "labelsTr").iterdir()] == ["bb.nii.gz"]
    assert json.loads((folder / "dataset.json").read_text())["numTraining"] == 1
    assert "is missing" in json.loads((folder / "conversion.json").read_text())["skipped"]["a"]


def test_data_set_whose_training_cases_are_all_faulty_is_refused(
    cases: list[Case], write: Callable[..., Path]
) -> None:
    cases[0].images[0].path.unlink()
    with pytest.raises(UsageError, match="at least one faultless training case"):
        write([cases[0], cases[2]], skip_faulty=True)


def test_name_given_twice_is_a_fault(cases: list[Case], write: Callable[..., Path]) -> None:
    with pytest.raises(FaultyCasesError, match="name is given to 2 cases"):
        write([*cases, replace(cases[1], name="a")])


def test_missing_channel_is_a_fault(cases: list[Case], write: Callable[..., Path]) -> None:
    with pytest.raises(FaultyCasesError, match="expected 2 images, got 1"):
        write([*cases, Case(name="d", images=cases[0].images[:1], label=cases[0].label)])


def test_wrong_checksum_is_a_fault(tmp_path: Path) -> None:
    """In a file so large that nibabel does not come to its end."""
    voxels = np.random.default_rng(0).normal(size=(40, 40, 40)).astype(np.float32)
    path = tmp_path / "a.nii.gz"
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), path)
    data = bytearray(path.read_bytes())
    data[-8] ^= 255
    path.write_bytes(data)
    description = replace(DESCRIPTION, channel_names=("T1",))
    checked = check_case(
        Case(name="a", images=(Volume(path=path),), label=None), description=description, source=tmp_path
    )
    assert "CRC check failed" in checked.faults[0]


def test_image_as_its_own_label_is_a_fault(cases: list[Case], write: Callable[..., Path]) -> None:
    with pytest.raises(FaultyCasesError, match="the same file twice"):
        write([*cases, replace(cases[1], name="d", label=cases[1].images[0].path)])


@pytest.mark.parametrize("inside", ["", "download"])
def test_source_in_the_target_is_never_replaced(
    inside: str, cases: list[Case], write: Callable[..., Path], tmp_path: Path
) -> None:
    source = write(cases) / inside
    source.mkdir(exist_ok=True)
    before = sorted((tmp_path / "raw").rglob("*"))
    with pytest.raises(UsageError, match="outside of"):
        write(cases, source=source, overwrite=True, form=Form(transfer="link"))
    assert sorted((tmp_path / "raw").rglob("*")) == before


def test_somebody_elses_data_set_is_never_replaced(
    cases: list[Case], write: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "raw" / "Dataset009_Toy").mkdir()
    (tmp_path / "raw" / "Dataset009_Toy" / "thesis.txt").touch()
    with pytest.raises(UsageError, match="other things than a converted data set"):
        write(cases, overwrite=True)
    assert (tmp_path / "raw" / "Dataset009_Toy" / "thesis.txt").is_file()


def test_full_disk_gives_one_line_and_leaves_nothing(
    cases: list[Case],
    write: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfile", fail)
    with pytest.raises(UsageError, match=r"imagesTr.* No space left"):
        write(cases)
    assert list((tmp_path / "raw").iterdir()) == []
    assert not caplog.records


def test_interrupted_conversion_can_be_run_again(
    cases: list[Case], write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("shutil.copyfile", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write(cases)
    assert not list((tmp_path / "raw").glob("Dataset*"))
    assert [path.name for path in (write(cases)).parent.iterdir()] == ["Dataset009_Toy"]


def test_existing_data_set_is_replaced_only_when_asked(cases: list[Case], write: Callable[..., Path]) -> None:
    write(cases)
    with pytest.raises(UsageError, match="--overwrite"):
        write(cases[1:])
    assert len(list((write(cases[1:], overwrite=True) / "labelsTr").iterdir())) == 1


def test_number_of_another_data_set_is_refused(cases: list[Case], write: Callable[..., Path]) -> None:
    write(cases)
    with pytest.raises(UsageError, match="Dataset009_Toy has it"):
        write(cases, description=replace(DESCRIPTION, name="Other"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "a__b"}, "single '_'"),
        ({"labels": {"background": 1}}, "must be 0"),
        ({"labels": {"background": 0, "tumour": 2}}, "consecutive"),
    ],
    ids=str,
)
def test_description_that_nnunet_would_refuse_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(DESCRIPTION, **changes)
