"""Submissions of toy challenges: voxels, names and geometry go through unchanged, every fault is named."""

import gzip
import hashlib
import sys
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK

from nnunet_kd import cli
from nnunet_kd.dataset_conversion.challenge import Case, Challenge, DatasetDescription, Submission, Volume
from nnunet_kd.dataset_conversion.challenges import MODULES
from nnunet_kd.dataset_conversion.outgoing.clean_up import CleanUp
from nnunet_kd.dataset_conversion.outgoing.items import Group, Item
from nnunet_kd.dataset_conversion.outgoing.label_volumes import ENDINGS
from nnunet_kd.dataset_conversion.outgoing.submission import check_groups, write_submission
from nnunet_kd.errors import UsageError

CASES = ("case_1", "case_2", "case_3")
SHAPE = (6, 7, 8)
ANGLE = 0.3
# oblique, with a flipped axis and three voxel sizes
AFFINE = np.array(
    [
        [-1.1 * np.cos(ANGLE), 0.7 * np.sin(ANGLE), 0.0, 31.7],
        [1.1 * np.sin(ANGLE), 0.7 * np.cos(ANGLE), 0.0, -12.3],
        [0.0, 0.0, 2.9, 104.9],
        [0.0, 0.0, 0.0, 1.0],
    ]
)
GEOMETRY = (
    *("dim", "pixdim", "xyzt_units", "qform_code", "sform_code", "srow_x", "srow_y", "srow_z"),
    *("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
)


def labels_of(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 4, SHAPE).astype(np.uint8)


def save(array: np.ndarray, path: Path, affine: np.ndarray = AFFINE, codes: tuple[int, int] = (1, 2)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.name.endswith((".nii", ".nii.gz")):
        image = SimpleITK.GetImageFromArray(array.transpose())
        lps = np.diag([-1, -1, 1, 1]) @ affine
        spacing = np.linalg.norm(lps[:3, :3], axis=0)
        image.SetSpacing(spacing.tolist())
        image.SetOrigin(lps[:3, 3].tolist())
        image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
        SimpleITK.WriteImage(image, path)
        return
    image = nibabel.Nifti1Image(array, affine)
    image.set_qform(affine, code=codes[0])
    image.set_sform(affine, code=codes[1])
    nibabel.save(image, path)


def read_source(source: Path) -> tuple[DatasetDescription, list[Case]]:
    """The toy organisers' folder: SCAN_1.nii.gz is the image of case_1; case_1 to 3 are to be predicted."""
    files = sorted(source.glob("SCAN_*.nii.gz"))
    if not files:
        raise UsageError(f"expected SCAN_*.nii.gz in {source}; unpack it")
    cases = [
        Case(name=f"case_{file.name[5:-7]}", images=(Volume(path=file),), label=file if "9" in file.name else None)
        for file in files
    ]
    description = DatasetDescription(
        dataset_id=1,
        name="Toy",
        channel_names=("CT",),
        labels={"background": 0, "a": 1, "b": 2, "c": 3},
        licence="",
        reference="",
        release="",
    )
    return description, cases


def file_name(case: str) -> str:
    stem, number = case.split("_")
    if not number.isdecimal():
        raise ValueError("no number")
    return f"result/{stem.upper()}-{int(number):03d}.nii.gz"


SUBMISSION = Submission(file_name=file_name, label_values={0: 0, 1: 2, 2: 1, 3: 4})


def toy_challenge(**changes: Any) -> Challenge:
    submission = replace(SUBMISSION, **changes)
    return Challenge(summary="toy", source="a folder with SCAN_*", read_source=read_source, submission=submission)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Predictions of three cases with what nnU-Net writes beside them, and imagesTs of two channels."""
    predictions, images = tmp_path / "predictions", tmp_path / "imagesTs"
    for number, case in enumerate(CASES):
        save(labels_of(number), predictions / f"{case}.nii.gz", codes=(1, 1))
        for channel in range(2):
            save(np.zeros(SHAPE, np.float32), images / f"{case}_{channel:04d}.nii.gz")
    for name in ("dataset.json", "plans.json", "predict_from_raw_data_args.json"):
        (predictions / name).write_text("{}")
    (predictions / "case_1.npz").touch()
    (predictions / "._case_1.nii.gz").touch()
    return predictions, images


@pytest.fixture
def submit(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, Path]]:
    """Return a function that submits to a toy challenge and returns the status, what was printed, and the archive."""

    def run(
        *options: str | Path,
        name: str = "out.zip",
        given: Path | None = None,
        images: Path | None = folders[1],
        **how: Any,
    ) -> tuple[int, str, Path]:
        monkeypatch.setitem(MODULES, "toy", "toy_challenge")
        monkeypatch.setitem(sys.modules, "toy_challenge", SimpleNamespace(CHALLENGES={"toy": toy_challenge(**how)}))
        target = tmp_path / name
        places = ["-o", target, *(["--images", images] if images else [])]
        status = cli.main(list(map(str, ["submit", "toy", given or folders[0], *places, "-np", "1", *options])))
        printed = capsys.readouterr()
        return status, printed.out + printed.err, target

    return run


def _opened(archive: Path) -> dict[str, bytes]:
    if archive.is_dir():
        return {
            file.relative_to(archive).as_posix(): file.read_bytes() for file in archive.rglob("*") if file.is_file()
        }
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive) as file:
            return {name: file.read(name) for name in file.namelist()}
    with tarfile.open(archive) as file:
        return {member.name: file.extractfile(member).read() for member in file}


def _image(content: bytes) -> nibabel.Nifti1Image:
    return nibabel.Nifti1Image.from_bytes(gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content)


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "folder"])
@pytest.mark.parametrize("ending", [".nii.gz", ".nii"])
def test_voxels_names_and_geometry_go_through(
    submit: Callable[..., Any], folders: tuple[Path, Path], kind: str, ending: str
) -> None:
    name = "out" if kind == "folder" else f"out.{kind}"
    status, printed, archive = submit(
        name=name, archive=kind, file_name=lambda case: f"deep/er/{case}_x{ending}", note="mind the gap"
    )
    assert status == 0, printed
    opened = _opened(archive)
    assert sorted(opened) == [f"deep/er/{case}_x{ending}" for case in CASES]
    for number, case in enumerate(CASES):
        content = opened[f"deep/er/{case}_x{ending}"]
        assert (content[:2] == b"\x1f\x8b") == (ending == ".nii.gz")
        image, scan = _image(content), nibabel.load(folders[1] / f"{case}_0000.nii.gz")
        np.testing.assert_array_equal(np.asarray(image.dataobj), np.array([0, 2, 1, 4])[labels_of(number)])
        assert image.get_data_dtype() == np.uint8
        for field in GEOMETRY:
            assert image.header[field].tobytes() == scan.header[field].tobytes(), field
    assert "note: mind the gap" in printed
    assert kind == "folder" or hashlib.sha256(archive.read_bytes()).hexdigest() in printed


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_the_same_predictions_give_the_same_bytes(
    submit: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    _, _, first = submit(name=f"first.{kind}", archive=kind)
    monkeypatch.setattr("time.time", lambda: 2e9)
    _, _, second = submit(name=f"second.{kind}", archive=kind)
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("prediction_ending", ENDINGS)
@pytest.mark.parametrize("image_ending", ENDINGS)
def test_every_format_of_nnunet_lands_on_the_same_grid(
    tmp_path: Path, prediction_ending: str, image_ending: str
) -> None:
    prediction, image = tmp_path / f"p{prediction_ending}", tmp_path / f"i_0000{image_ending}"
    save(labels_of(0), prediction)
    save(np.zeros(SHAPE, np.float32), image)
    item = Item(case="p", member="p.nii.gz", prediction=prediction, image=image)
    group = Group(submission=SUBMISSION, predictions=tmp_path, items=(item,))
    assert check_groups([group], n_workers=0) == 1
    write_submission([group], [CleanUp()], tmp_path / "out.zip", submission=SUBMISSION, n_workers=0)
    found = _image(_opened(tmp_path / "out.zip")["p.nii.gz"])
    np.testing.assert_array_equal(np.asarray(found.dataobj), np.array([0, 2, 1, 4])[labels_of(0)])
    np.testing.assert_allclose(found.affine, AFFINE, atol=1e-5)


def _shift(path: Path) -> None:
    save(labels_of(0), path, AFFINE + np.array([[0, 0, 0, 0.002]] + [[0] * 4] * 3))


def _damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def _flatten(path: Path) -> None:
    """Give the third axis no length; nibabel would refuse to write that."""
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[312:328] = bytes(16)  # srow_z
    path.write_bytes(gzip.compress(content))


# what is done in the folder of both, and the beginning of the line that says so
FAULTS: Mapping[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda at: (at / "predictions/case_2.nii.gz").unlink(), "case_2: has no prediction"),
    "extra": (
        lambda at: save(labels_of(0), at / "predictions/case_7.nii.gz"),
        "case_7: is no case that the organisers",
    ),
    "twice": (lambda at: save(labels_of(0), at / "predictions/case_2.nii"), "case_2: is there 2 times"),
    "value": (
        lambda at: save(labels_of(0) + np.uint8(1), at / "predictions/case_1.nii.gz"),
        "case_1: has label values 4",
    ),
    "float": (lambda at: save(labels_of(0) / 2, at / "predictions/case_1.nii.gz"), "case_1: expected whole numbers"),
    "shape": (
        lambda at: save(labels_of(0)[:-1], at / "predictions/case_1.nii.gz"),
        "case_1: has shape 5x7x8, expected",
    ),
    "position": (
        lambda at: _shift(at / "predictions/case_1.nii.gz"),
        "case_1: has an affine that differs by up to 0.002",
    ),
    "axes": (
        lambda at: save(labels_of(0), at / "predictions/case_1.nii.gz", AFFINE @ np.diag([-1, -1, 1, 1])),
        "case_1: has the axes RPS, expected LAS",
    ),
    "truncated": (lambda at: _damage(at / "predictions/case_3.nii.gz"), "case_3: cannot be read"),
    "no place": (
        lambda at: _flatten(at / "predictions/case_1.nii.gz"),
        "case_1: has a header that gives the voxels no",
    ),
    "image": (lambda at: (at / "imagesTs/case_3_0000.nii.gz").write_bytes(b"x"), "case_3: case_3_0000.nii.gz cannot"),
    "name": (
        lambda at: (
            save(labels_of(0), at / "predictions/case_x.nii.gz"),
            save(labels_of(0), at / "imagesTs/case_x_0000.nii.gz"),
        ),
        "case_x: has a name that the organisers' cannot be made of (no number)",
    ),
    "same name": (
        lambda at: (
            save(labels_of(0), at / "predictions/case_01.nii.gz"),
            save(labels_of(0), at / "imagesTs/case_01_0000.nii.gz"),
        ),
        "case_1: would become result/CASE-001.nii.gz, as case_01 does",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_and_nothing_written(submit: Callable[..., Any], tmp_path: Path, fault: str) -> None:
    plant, text = FAULTS[fault]
    plant(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    status, printed, _ = submit()
    assert status == 2
    assert f"  {text}" in printed
    assert "nothing was written" in printed.splitlines()[-1]
    assert sorted(tmp_path.rglob("*")) == before


def test_all_faults_are_listed_at_once(submit: Callable[..., Any], tmp_path: Path) -> None:
    for fault in ("missing", "extra", "value", "truncated"):
        FAULTS[fault][0](tmp_path)
    status, printed, _ = submit("--check")
    assert status == 2
    assert all(f"  {FAULTS[fault][1]}" in printed for fault in ("missing", "extra", "value", "truncated"))
    assert "the 4 above" in printed
    assert "written" not in printed  # nothing was to be


@pytest.mark.parametrize(
    ("fixed", "text"),
    [
        ({"shape": (6, 7, 9)}, "has shape 6x7x8, expected 6x7x9 like every case"),
        ({"affine": tuple(map(tuple, np.diag([-1.0, -1.0, 1.0, 1.0])))}, "expected LPS like every case"),
    ],
    ids=["shape", "affine"],
)
def test_what_the_organisers_fix_is_checked(submit: Callable[..., Any], fixed: Mapping[str, Any], text: str) -> None:
    status, printed, archive = submit(**fixed)
    assert status == 2
    assert printed.count(text) == len(CASES)
    assert submit(shape=SHAPE, affine=tuple(map(tuple, AFFINE)))[0] == 0
    assert archive.exists()


def test_the_list_of_cases_counts_more_than_the_images(submit: Callable[..., Any]) -> None:
    _, printed, _ = submit(cases=("case_1", "case_2", "case_4"))
    assert "  case_3: is no case that the organisers ask for" in printed
    assert "  case_4: has no prediction" in printed
    assert submit(cases=CASES)[0] == 0


def test_partial_is_for_challenges_that_allow_it(submit: Callable[..., Any], tmp_path: Path) -> None:
    FAULTS["missing"][0](tmp_path)
    status, printed, _ = submit("--partial")
    assert status == 2
    assert "take all cases or none" in printed
    status, printed, archive = submit("--partial", partial=True)
    assert status == 0, printed
    assert sorted(_opened(archive)) == ["result/CASE-001.nii.gz", "result/CASE-003.nii.gz"]


def test_the_organisers_folder_serves_as_test_images(submit: Callable[..., Any], tmp_path: Path) -> None:
    """Its cases with a label are none to be predicted."""
    for number in (1, 2, 3, 9):
        save(np.zeros((*SHAPE, 2), np.float32), tmp_path / "theirs" / f"SCAN_{number}.nii.gz")
    status, printed, archive = submit(images=tmp_path / "theirs")
    assert status == 0, printed
    assert _image(_opened(archive)["result/CASE-001.nii.gz"]).shape == SHAPE
    status, printed, _ = submit("--check", images=tmp_path / "predictions")
    assert status == 2
    assert "expected nnU-Net's imagesTs (CASE_0000.nii.gz) or a folder with SCAN_*" in printed


def test_without_images_the_own_header_is_kept_and_it_is_said(submit: Callable[..., Any]) -> None:
    status, printed, archive = submit(images=None)
    assert status == 0
    assert "warning: missing cases and grids not checked" in printed
    image = _image(_opened(archive)["result/CASE-001.nii.gz"])
    assert image.header["sform_code"] == 1  # the prediction's; the image has 2
    np.testing.assert_allclose(image.affine, AFFINE, atol=1e-5)


def test_an_archive_is_replaced_only_when_asked(submit: Callable[..., Any]) -> None:
    for name, kind in (("out.zip", "zip"), ("out", "folder")):
        assert submit(name=name, archive=kind)[0] == 0
        status, printed, archive = submit(name=name, archive=kind)
        assert status == 2
        assert "--overwrite" in printed
        assert submit("--overwrite", name=name, archive=kind)[0] == 0
    (archive / "mine.txt").write_text("precious")
    status, printed, _ = submit("--overwrite", name="out", archive="folder")
    assert status == 2
    assert (archive / "mine.txt").exists()


@pytest.mark.parametrize("name", ["out.zip", "out", "out.sha256"])
def test_what_appears_meanwhile_is_kept(
    submit: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    from nnunet_kd.dataset_conversion.outgoing import submission

    def measured(*words: Any) -> Any:
        appeared.parent.mkdir(exist_ok=True)
        appeared.write_text("precious")
        return measure(*words)

    measure, appeared = submission._measure, tmp_path / name / ("" if "." in name else "mine.txt")
    monkeypatch.setattr(submission, "_measure", measured)
    kind = "zip" if name == "out.zip" else "folder"
    status, printed, _ = submit(name="out.zip" if kind == "zip" else "out", archive=kind)
    assert status == 2, printed
    assert appeared.read_text() == "precious"


def test_sums_of_others_are_kept(submit: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "out.sha256").write_text("precious")
    status, printed, _ = submit("--overwrite", name="out", archive="folder")
    assert status == 2
    assert "out.sha256 to be free" in printed
    assert (tmp_path / "out.sha256").read_text() == "precious"


@pytest.mark.parametrize(
    ("name", "kind", "text"),
    [
        ("out.zip", "tar.gz", "ends in .tar.gz"),
        ("out", "zip", "ends in .zip"),
        ("out.zip", "folder", "name of a folder"),
        ("predictions", "folder", "outside of"),
        ("imagesTs", "folder", "outside of"),
        (".", "folder", "outside of"),
    ],
)
def test_a_target_that_does_not_fit_is_refused(submit: Callable[..., Any], name: str, kind: str, text: str) -> None:
    status, printed, _ = submit("--overwrite", name=name, archive=kind)
    assert status == 2
    assert text in printed


def test_a_full_disk_leaves_nothing(
    submit: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("nnunet_kd.dataset_conversion.outgoing.submission.pack", fail)
    before = sorted(tmp_path.iterdir())
    status, printed, _ = submit()
    assert status == 2
    assert "No space left" in printed
    assert sorted(tmp_path.iterdir()) == before


def test_what_reads_back_otherwise_is_not_given_out(
    submit: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def flipped(archive: Path) -> Any:
        return ((name, content[:-1]) for name, content in _opened(archive).items())

    monkeypatch.setattr("nnunet_kd.dataset_conversion.outgoing.submission.members", flipped)
    status, printed, archive = submit()
    assert status == 2
    assert "reads back otherwise" in printed
    assert not archive.exists()


TASKS = {"Task01_Brain": {0: 0, 1: 1, 2: 2, 3: 3}, "Task02_Heart": {0: 0, 1: 1}}


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    """Predictions of two tasks, and converted data sets with their images; one number is another one."""
    for folder, values in (("Task01_Brain", 4), ("Dataset102_Heart", 2)):
        for case in ("x", "y"):
            labels = np.random.default_rng(1).integers(0, values, SHAPE).astype(np.uint8)
            save(labels, tmp_path / "all" / folder / f"{case}.nii.gz")
            save(np.zeros(SHAPE, np.float32), tmp_path / "raw" / folder / "imagesTs" / f"{case}_0000.nii.gz")
    return tmp_path / "all"


def _submit_tasks(submit: Callable[..., Any], tasks: Path, *options: str, given: str = "", **how: Any) -> Any:
    rule = {"tasks": TASKS, "file_name": lambda case: f"{case}.nii.gz"}
    return submit(*options, given=tasks / given, images=tasks.parent / "raw", **rule, **how)


def test_tasks_share_one_archive(submit: Callable[..., Any], tasks: Path) -> None:
    status, printed, archive = _submit_tasks(submit, tasks)
    assert status == 0, printed
    assert sorted(_opened(archive)) == [f"{task}/{case}.nii.gz" for task in TASKS for case in "xy"]
    assert _submit_tasks(submit, tasks, "--check", given="../out.zip")[0] == 0
    (tasks.parent / "raw" / "Dataset002_Heart").mkdir()
    assert "found two of Task02_Heart" in _submit_tasks(submit, tasks, "--check")[1]


def test_faults_of_tasks_are_named_with_the_task(submit: Callable[..., Any], tasks: Path) -> None:
    save(np.full(SHAPE, 2, np.uint8), tasks / "Dataset102_Heart" / "x.nii.gz")
    (tasks / "Task01_Brain" / "y.nii.gz").unlink()
    save(np.zeros(SHAPE, np.uint8), tasks / "Task01_Heart" / "x.nii.gz")
    status, printed, _ = _submit_tasks(submit, tasks)
    assert status == 2
    assert "  Task02_Heart: has two folders of predictions" in printed
    (tasks / "Task01_Heart" / "x.nii.gz").unlink()
    (tasks / "Task01_Heart").rmdir()
    _, printed, _ = _submit_tasks(submit, tasks)
    assert "  Task02_Heart/x: has label values 2" in printed
    assert "  Task01_Brain/y: has no prediction" in printed


def test_one_task_alone_is_partial_and_warned_of(submit: Callable[..., Any], tasks: Path) -> None:
    status, printed, _ = _submit_tasks(submit, tasks, given="Dataset102_Heart")
    assert status == 2
    assert "  Task01_Brain: has no folder of predictions" in printed
    status, printed, archive = _submit_tasks(submit, tasks, "--partial", given="Dataset102_Heart")
    assert status == 0, printed
    assert "warning: the archive holds 1 of 2 tasks; the organisers refuse such an archive" in printed
    assert sorted(_opened(archive)) == ["Task02_Heart/x.nii.gz", "Task02_Heart/y.nii.gz"]
    status, printed, _ = _submit_tasks(submit, tasks.parent, "--check")
    assert status == 2
    assert "expected folders called Task01_Brain" in printed


def test_an_archive_lacks_tasks_only_when_asked(submit: Callable[..., Any], tasks: Path) -> None:
    _submit_tasks(submit, tasks, "--partial", given="Dataset102_Heart")
    status, printed, archive = _submit_tasks(submit, tasks, "--check", given="../out.zip")
    assert status == 2
    assert "  Task01_Brain: has no file in the archive" in printed
    status, printed, _ = _submit_tasks(submit, tasks, "--check", "--partial", given="../out.zip")
    assert status == 0, printed
    assert "warning: the archive holds 1 of 2 tasks" in printed
    assert "not checked" not in printed
    with zipfile.ZipFile(archive, "w") as file:
        file.write(tasks / "Dataset102_Heart" / "x.nii.gz", "Task02_Heart/x.nii.gz")
    status, printed, _ = _submit_tasks(submit, tasks, "--check", "--partial", given="../out.zip")
    assert status == 2  # tasks may be left out, cases of a task not
    assert "  Task02_Heart/y.nii.gz: is missing" in printed


def test_a_task_without_images_is_named_with_the_folder(submit: Callable[..., Any], tasks: Path) -> None:
    (tasks.parent / "raw" / "Task01_Brain").rename(tasks.parent / "elsewhere")
    status, printed, _ = _submit_tasks(submit, tasks, "--check")
    assert status == 0, printed
    raw = tasks.parent / "raw"
    assert f"warning: Task01_Brain: missing cases and grids not checked, for want of its images in {raw}" in printed
