"""Claims about what any converter writes."""

import gzip
import hashlib
import json
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from nnunet_kd.cases import FaultyCasesError
from nnunet_kd.dataset_conversion.challenge import Case, DatasetDescription, Volume
from nnunet_kd.dataset_conversion.incoming.checking import check_case
from nnunet_kd.dataset_conversion.incoming.placing import Form
from nnunet_kd.dataset_conversion.incoming.raw_dataset import Job, write_raw_dataset
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


def _rescale(path: Path, slope: float, intercept: float) -> None:
    header = nibabel.Nifti1Header()
    header.set_data_shape((4, 5, 6))
    header.set_data_dtype(np.int16)
    header.set_sform(np.diag([1.0, 1.0, 3.0, 1.0]), 1)
    header["scl_slope"], header["scl_inter"], header["vox_offset"], header["magic"] = slope, intercept, 352, b"n+1"
    path.write_bytes(gzip.compress(header.binaryblock + bytes(4) + np.full((4, 5, 6), 2, np.int16).tobytes()))


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
    "no intercept": (lambda case: _rescale(case.images[0].path, 2, float("nan")), "invalid intercept"),
    "too large when scaled": (lambda case: _rescale(case.images[0].path, 3e38, 0), "not finite in 32 bits"),
    "no voxels": (lambda case: _rewrite(case.images[0].path, shape=(4, 0, 6)), "holds no voxels"),
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


def test_data_set_whose_training_cases_are_all_faulty_is_refused(cases: list[Case], write: Callable[..., Path]) -> None:
    cases[0].images[0].path.unlink()
    with pytest.raises(UsageError, match="at least one faultless training case"):
        write([cases[0], cases[2]], skip_faulty=True)


@pytest.mark.parametrize("name", ["a", "A"])
def test_name_given_twice_is_a_fault(cases: list[Case], write: Callable[..., Path], name: str) -> None:
    """Upper and lower case are one to some systems."""
    with pytest.raises(FaultyCasesError, match="name is given to 2 cases"):
        write([*cases, replace(cases[2], name=name)])


def test_label_map_of_two_cases_is_a_fault(cases: list[Case], write: Callable[..., Path]) -> None:
    with pytest.raises(FaultyCasesError, match=r"2 of 3 .*\n.*label map is that of 2 cases"):
        write([cases[0], replace(cases[1], label=cases[0].label), cases[2]])


@pytest.mark.parametrize("name", ["", "a\nb"])
def test_name_that_cannot_be_printed_is_refused(cases: list[Case], write: Callable[..., Path], name: str) -> None:
    with pytest.raises(UsageError, match="printable") as refused:
        write([replace(cases[0], name=name)], skip_faulty=True)
    assert "\n" not in str(refused.value)


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


def test_files_put_into_a_data_set_are_kept(cases: list[Case], write: Callable[..., Path]) -> None:
    mine = write(cases) / "imagesTr" / "thesis.txt"
    mine.touch()
    with pytest.raises(UsageError, match=r"1 other files, imagesTr/thesis\.txt"):
        write(cases, overwrite=True)
    assert mine.is_file()


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_appears_meanwhile_is_kept(
    cases: list[Case], write: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overwrite: bool
) -> None:
    mine, copy = tmp_path / "raw" / "Dataset009_Toy" / "thesis.txt", shutil.copyfile

    def copied(*paths: Any) -> None:
        mine.parent.mkdir(exist_ok=True)
        mine.touch()
        copy(*paths)

    monkeypatch.setattr("shutil.copyfile", copied)
    with pytest.raises(UsageError, match="other things"):
        write(cases, overwrite=overwrite)
    assert mine.is_file()


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


def test_full_disk_while_checking_is_no_fault_of_a_case(
    cases: list[Case], write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("nnunet_kd.dataset_conversion.incoming.journal.Path.replace", fail)
    assert len(list((write(cases) / "labelsTr").iterdir())) == 2


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


def _die_after(n_files: int, write: Callable[..., Path], cases: list[Case], **options: Any) -> None:
    """Convert in a child process that gets kill -9 when it has copied so many files."""
    child = os.fork()
    if child == 0:
        copy, done = shutil.copyfile, []

        def counted(*paths: Any) -> None:
            if len(done) == n_files:
                os.kill(os.getpid(), signal.SIGKILL)
            done.append(copy(*paths))

        shutil.copyfile = counted  # type: ignore[assignment]
        write(cases, **options)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL


@pytest.mark.skipif(os.name == "nt", reason="no flock")
@pytest.mark.parametrize("meanwhile", ["nothing", "source changed", "written file damaged", "case gone", "other form"])
def test_killed_conversion_goes_on_where_nothing_has_changed(
    cases: list[Case], write: Callable[..., Path], tmp_path: Path, meanwhile: str
) -> None:
    plain = [replace(case, label=None) for case in cases]  # two files each, all copied
    _die_after(5, write, plain)
    assert not list((tmp_path / "raw").glob("Dataset*"))
    (work,) = (tmp_path / "raw").glob(".Dataset009_Toy.unfinished-*")
    if meanwhile == "source changed":
        _rewrite(cases[0].images[0].path, fill=5)
    elif meanwhile == "written file damaged":
        (work / "new" / "imagesTs" / "a_0001.nii.gz").write_bytes(b"torn")
    elif meanwhile == "case gone":
        plain = plain[1:]
    folder = write(plain, form=Form(transfer="link" if meanwhile == "other form" else "copy"))
    taken = {"nothing": 2, "other form": 0}.get(meanwhile, 1)
    assert json.loads((folder / "conversion.json").read_text())["counts"]["taken_over"] == taken
    files = {path.name: path.read_bytes() for path in (folder / "imagesTs").iterdir()}
    sources = {f"{c.name}_{n:04d}.nii.gz": v.path.read_bytes() for c in plain for n, v in enumerate(c.images)}
    assert files == sources
    assert [path.name for path in (tmp_path / "raw").iterdir()] == ["Dataset009_Toy"]


def test_unlabelled_cases_alone_are_a_pool(cases: list[Case], write: Callable[..., Path]) -> None:
    folder = write([replace(case, label=None) for case in cases])
    assert json.loads((folder / "dataset.json").read_text())["numTraining"] == 0
    assert {path.name for path in folder.iterdir()} == {"imagesTs", "dataset.json", "conversion.json"}


def test_patients_of_several_scans_get_folds(write: Callable[..., Path], tmp_path: Path) -> None:
    scans = [replace(_case(tmp_path / "source", f"p{n}_{m}"), patient=f"p{n}") for n in range(5) for m in range(2)]
    folder = write(scans, form=Form(transfer="link"))
    splits = json.loads((folder / "splits_final.json").read_text())
    assert [len(fold["val"]) for fold in splits] == [2] * 5
    assert json.loads((folder / "conversion.json").read_text())["folds"] == "5 over 5 patients"


MAPPED = replace(DESCRIPTION, label_values={0: 0, 1: 2, 2: 1})


@pytest.mark.parametrize("transfer", ["copy", "link", "recompress"])
def test_mapped_labels_are_written_whatever_the_transfer(
    cases: list[Case], write: Callable[..., Path], transfer: Any
) -> None:
    folder = write(cases[:1], description=MAPPED, form=Form(transfer=transfer))
    before = np.asarray(nibabel.load(cases[0].label).dataobj).astype(int)  # type: ignore[arg-type]
    after = nibabel.load(folder / "labelsTr" / "a.nii.gz")
    assert after.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(np.asarray(after.dataobj), np.array([0, 2, 1])[before])
    assert (folder / "imagesTr" / "a_0000.nii.gz").is_symlink() == (transfer == "link")
    record = json.loads((folder / "conversion.json").read_text())
    assert record["counts"]["written_anew"] == (3 if transfer == "recompress" else 1)
    assert "label values mapped" in record["changes"]["a"]
    assert record["label_values"] == {"0": 0, "1": 2, "2": 1}


def test_label_outside_the_mapping_is_a_fault(cases: list[Case], write: Callable[..., Path]) -> None:
    _rewrite(cases[0].label, fill=3)  # type: ignore[arg-type]
    with pytest.raises(FaultyCasesError, match="label values 3"):
        write(cases, description=replace(MAPPED, label_values={0: 0, 1: 2, 4: 1}))


def test_label_map_is_painted_from_masks(cases: list[Case], write: Callable[..., Path], tmp_path: Path) -> None:
    masks = [tmp_path / "source" / f"mask{n}.nii.gz" for n in range(2)]
    for n, path in enumerate(masks):
        voxels = np.zeros((4, 5, 6), np.uint8)
        voxels[n : n + 2] = 1
        nibabel.save(nibabel.Nifti1Image(voxels, np.diag([1.0, 1.0, 3.0, 1.0])), path)
    layered = replace(cases[0], label=masks[0], label_layers=((masks[0], 1), (masks[1], 2)))
    folder = write([layered])
    found = np.asarray(nibabel.load(folder / "labelsTr" / "a.nii.gz").dataobj)
    assert found[:, 0, 0].tolist() == [1, 2, 2, 0]
    assert len(json.loads((folder / "conversion.json").read_text())["sha256"]) == 4
    masks[1].unlink()
    with pytest.raises(FaultyCasesError, match=r"mask1.*is missing"):
        write([layered], overwrite=True)


@pytest.mark.parametrize("ending", [".nii", ".nrrd", ".mha"])
def test_other_ending_is_written_and_described(cases: list[Case], write: Callable[..., Path], ending: str) -> None:
    from nnunet_kd.dataset_conversion.incoming.volumes import read_image

    folder = write(cases, form=Form(transfer="link", ending=ending))
    assert json.loads((folder / "dataset.json").read_text())["file_ending"] == ending
    first, second = read_image(folder / "imagesTr" / f"a_0001{ending}"), read_image(cases[0].images[1].path)
    np.testing.assert_array_equal(first.values(), second.values())
    np.testing.assert_allclose(first.affine, second.affine)


def test_axes_are_turned_when_asked(cases: list[Case], write: Callable[..., Path]) -> None:
    folder = write(cases, form=Form(orientation="LPS"))
    for path in folder.rglob("*.nii.gz"):
        assert nibabel.aff2axcodes(nibabel.load(path).affine) == ("L", "P", "S")


@pytest.mark.parametrize("form", [{"ending": ".png"}, {"orientation": "RRS"}, {"orientation": "RA"}], ids=str)
def test_form_that_cannot_be_is_refused(form: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="expected --"):
        Form(**form)


@pytest.mark.parametrize(
    ("indices", "message"), [((0, 2), "expected channel 2"), ((0, -1), "channel -1"), ((0, 0), "same file twice")]
)
def test_channel_that_is_not_there_is_a_fault(
    cases: list[Case], write: Callable[..., Path], indices: tuple[int, int], message: str
) -> None:
    path = cases[0].images[0].path
    _rewrite(path, shape=(4, 5, 6, 2))
    with pytest.raises(FaultyCasesError, match=message):
        write([replace(cases[0], images=tuple(Volume(path=path, index=index) for index in indices))])


def test_existing_data_set_is_replaced_only_when_asked(cases: list[Case], write: Callable[..., Path]) -> None:
    write(cases)
    with pytest.raises(UsageError, match="--overwrite"):
        write(cases[1:])
    assert len(list((write(cases[1:], overwrite=True) / "labelsTr").iterdir())) == 1


def test_number_of_another_data_set_is_refused(cases: list[Case], write: Callable[..., Path]) -> None:
    write(cases)
    with pytest.raises(UsageError, match="Dataset009_Toy has it"):
        write(cases, description=replace(DESCRIPTION, name="Other"))
