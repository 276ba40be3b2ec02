"""The verb ``submit``: options, clean-up, archives checked again, and every challenge of the registry."""

import gzip
import io
import json
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

from nnunet_kd import cli
from nnunet_kd.dataset_conversion.challenge import Challenge, Submission
from nnunet_kd.dataset_conversion.challenges import MODULES, challenge
from nnunet_kd.dataset_conversion.outgoing.clean_up import CleanUp, prepare_clean_up
from nnunet_kd.dataset_conversion.outgoing.items import Group, Item, make_groups
from nnunet_kd.dataset_conversion.outgoing.submission import check_groups, write_submission
from nnunet_kd.errors import UsageError

AFFINE = np.array([[-0.9, 0.1, 0, 31.5], [0.1, 0.9, 0, -12.25], [0, 0, 2.0, 104.0], [0, 0, 0, 1]])
VALUES = {0: 0, 1: 2, 2: 1, 3: 4}
SUBMITTED = [name for name in MODULES if challenge(name).submission]


def _nifti(labels: np.ndarray, affine: np.ndarray = AFFINE) -> bytes:
    return gzip.compress(nibabel.Nifti1Image(labels, affine).to_bytes())


def _save(labels: np.ndarray, path: Path, affine: np.ndarray = AFFINE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_nifti(labels, affine))


@pytest.fixture
def submit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """Return a function that runs the verb in a folder with a toy challenge of two cases."""
    monkeypatch.chdir(tmp_path)
    for case in ("a", "b"):
        _save(np.zeros((3, 4, 5), np.float32), tmp_path / "imagesTs" / f"{case}_0000.nii.gz")

    def run(*words: str, **changes: Any) -> tuple[int, str]:
        rule = {"file_name": lambda case: f"{case}.nii.gz", "label_values": VALUES} | changes
        toy = Challenge(summary="", source="", read_source=lambda _: None, submission=Submission(**rule))
        monkeypatch.setitem(MODULES, "toy", "toy_challenge")
        monkeypatch.setitem(sys.modules, "toy_challenge", SimpleNamespace(CHALLENGES={"toy": toy}))
        status = cli.main(["submit", "toy", *words, "--images", "imagesTs", "-np", "1"])
        printed = capsys.readouterr()
        return status, printed.out + printed.err

    return run


def _zip(path: Path, files: list[tuple[str, bytes]]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files:
            archive.writestr(name, content)


THEIRS = np.array([0, 1, 2, 4], np.uint8)[np.arange(60).reshape(3, 4, 5) % 4]
RGB = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
FOUND = {
    "good": ([("a.nii.gz", _nifti(THEIRS)), ("b.nii.gz", _nifti(THEIRS))], ""),
    "missing": ([("a.nii.gz", _nifti(THEIRS))], "b.nii.gz: is missing"),
    "extra": (
        [("a.nii.gz", _nifti(THEIRS)), ("__MACOSX/._b.nii.gz", b"")],
        "._b.nii.gz: is no file that the organisers",
    ),
    "twice": ([("a.nii.gz", _nifti(THEIRS))] * 2, "a.nii.gz: is there 2 times"),
    "our values": (
        [("a.nii.gz", _nifti(np.full((3, 4, 5), 3, np.uint8)))],
        "a.nii.gz: has label values 3; expected only",
    ),
    "type": ([("a.nii.gz", _nifti(THEIRS.astype(np.int16)))], "a.nii.gz: is stored as int16, expected uint8"),
    "complex": ([("a.nii.gz", _nifti(THEIRS + np.complex64(5j)))], "a.nii.gz: is stored as complex64, expected uint8"),
    "colours": ([("a.nii.gz", _nifti(THEIRS.astype(RGB)))], "a.nii.gz: is stored as RGB, expected uint8"),
    "shape": ([("a.nii.gz", _nifti(THEIRS[:2]))], "a.nii.gz: has shape 2x4x5, expected 3x4x5"),
    "position": ([("a.nii.gz", _nifti(THEIRS, AFFINE * 1.1))], "a.nii.gz: has an affine that differs by up to 10"),
    "damaged": ([("a.nii.gz", _nifti(THEIRS)[:-9])], "a.nii.gz: cannot be read as NIfTI"),
}


@pytest.mark.parametrize("name", FOUND)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_archive_made_before_is_checked(submit: Callable[..., Any], tmp_path: Path, name: str) -> None:
    files, text = FOUND[name]
    _zip(tmp_path / "made.zip", files)
    before = sorted(tmp_path.rglob("*"))
    status, printed = submit("made.zip", "--check")
    assert status == (2 if text else 0), printed
    assert text in printed
    assert sorted(tmp_path.rglob("*")) == before


def test_links_and_damage_in_archives_are_told(submit: Callable[..., Any], tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "made.tar.gz", "w:gz") as archive:
        member = tarfile.TarInfo("a.nii.gz")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(member, io.BytesIO())
    assert "is a link" in submit("made.tar.gz", "--check", archive="tar.gz")[1]
    with zipfile.ZipFile(tmp_path / "made.zip", "w") as file:
        link = zipfile.ZipInfo("a.nii.gz")
        link.create_system, link.external_attr = 3, 0o120777 << 16
        file.writestr(link, "/etc/passwd")
    assert "is a link" in submit("made.zip", "--check")[1]
    (tmp_path / "made").mkdir()
    (tmp_path / "made.sha256").touch()
    (tmp_path / "made" / "a.nii.gz").symlink_to("/etc/passwd")
    assert "a.nii.gz is a link" in submit("made", "--check", archive="folder")[1]
    (tmp_path / "made.zip").write_bytes(b"PK\x03\x04")
    status, printed = submit("made.zip", "--check")
    assert status == 2
    assert "expected a whole archive" in printed
    assert "expected a zip for this challenge" in submit("made.tar.gz", "--check")[1]
    assert "type --check" in submit("made.zip", "-o", "other.zip")[1]


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "folder"])
def test_what_was_written_passes_its_own_check(submit: Callable[..., Any], tmp_path: Path, kind: str) -> None:
    for case in ("a", "b"):
        _save(np.full((3, 4, 5), 3, np.uint8), tmp_path / "predictions" / f"{case}.nii.gz")
    name = "out" if kind == "folder" else f"out.{kind}"
    assert submit("predictions", "-o", name, archive=kind)[0] == 0
    status, printed = submit(name, "--check", archive=kind)
    assert status == 0, printed
    assert "2 cases without fault" in printed
    assert submit(name, "--check", archive=kind, label_values={0: 0, 1: 1})[0] == 2


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], "expected a folder of predictions"),
        (["nowhere", "--check"], "found none at nowhere"),
        (["predictions"], "type -o ARCHIVE or --check"),
        (["predictions", "--check", "--min-lesion", "-1"], "--min-lesion -1; 0 keeps all"),
        (["predictions", "--check", "--min-lesion", "2"], "with --dataset-json"),
        (["imagesTs", "-o", "out.zip"], "a_0000: is no case"),
        (["imagesTs/a_0000.nii.gz", "--check"], "expected a zip for this challenge"),
    ],
    ids=["nothing", "nowhere", "no target", "number", "names", "images", "file"],
)
def test_a_mistake_costs_one_line(submit: Callable[..., Any], tmp_path: Path, words: list[str], text: str) -> None:
    _save(np.zeros((3, 4, 5), np.uint8), tmp_path / "predictions" / "a.nii.gz")
    status, printed = submit(*words)
    assert status == 2
    assert text in printed


@pytest.mark.parametrize(("voxels", "left"), [(0, 3), (3, 3), (4, 2)])
def test_few_voxels_of_enhancing_tumour_become_necrosis(
    submit: Callable[..., Any], tmp_path: Path, voxels: int, left: int
) -> None:
    """Three voxels are fewer than four, and not fewer than three."""
    labels = np.zeros((3, 4, 5), np.uint8)
    labels[0, 0, :3] = 3
    for case in ("a", "b"):
        _save(labels, tmp_path / "predictions" / f"{case}.nii.gz")
    (tmp_path / "predictions" / "dataset.json").write_text(
        '{"labels": {"background": 0, "whole tumor": [1, 2, 3], "tumor core": [2, 3], "enhancing tumor": 3}}'
    )
    status, printed = submit("predictions", "-o", "out", "--min-enhancing", str(voxels), archive="folder")
    assert status == 0, printed
    assert nibabel.load(tmp_path / "out" / "a.nii.gz").dataobj[0, 0, 0] == VALUES[left]
    assert ("necrotic in 2 cases: a.nii.gz (3 voxels)" in printed) == (left == 2)


@pytest.mark.parametrize(
    ("labels", "order", "given", "expected"),
    [
        # kidney with a speck of tumour in it, and an island of it: the first becomes kidney, the other nothing
        ({"kidney": [1, 2], "tumor": 2}, [1, 2], [1, 1, 2, 1, 0, 2, 0, 1, 2, 2], [1, 1, 1, 1, 0, 0, 0, 1, 2, 2]),
        # without regions nothing lies beneath
        ({"kidney": 1, "tumor": 2}, None, [1, 1, 2, 1, 1, 0, 2, 2, 0, 1], [1, 1, 0, 1, 1, 0, 2, 2, 0, 0]),
        # painted in another order than the values'
        ({"all": [1, 2, 3], "masses": [2, 3], "tumor": 2}, [1, 3, 2], [1, 2, 3, 3, 1, 3, 1], [1, 3, 3, 3, 1, 1, 1]),
    ],
    ids=["regions", "labels", "order"],
)
def test_small_lesions_become_what_lies_beneath(
    tmp_path: Path, labels: Mapping[str, Any], order: list[int] | None, given: list[int], expected: list[int]
) -> None:
    content = {"labels": {"background": 0, **labels}} | ({"regions_class_order": order} if order else {})
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    found, n_enhancing, n_lesion = prepare_clean_up(tmp_path / "dataset.json", min_lesion=2)(np.array(given))
    assert found.tolist() == expected
    assert (n_enhancing, n_lesion) == (0, sum(a != b for a, b in zip(given, expected, strict=True)))


def test_clean_up_of_what_is_no_brain_tumour_is_refused(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text('{"labels": {"background": 0, "liver": 1}}')
    with pytest.raises(UsageError, match="edema, necrotic and enhancing"):
        prepare_clean_up(tmp_path / "dataset.json", min_enhancing=1)


@pytest.mark.parametrize("size", [1, 3, 6, 24, 48])
def test_a_lesion_of_just_enough_voxels_stays(size: int) -> None:
    """The shared rule takes a share, which is rounded: 3 / 187 * 187 is more than 3."""
    labels = np.zeros(400, np.uint8)
    labels[: 187 - size], labels[200 : 200 + size] = 1, 1
    for min_lesion, stays in ((size, True), (size + 1, False)):
        found, _, _ = CleanUp(min_lesion=min_lesion, structures=((1, (1,)),))(labels)
        assert bool(found[200]) == stays


# the organisers' own names of a case, as far as the challenges' pages print one
EXAMPLES = {
    "brats2018": "Brats18_CBICA_AAB_1",
    "brats2019": "BraTS19_CBICA_AAB_1",
    "brats2020": "BraTS20_Validation_001",
    "brats2021": "BraTS2021_00001",
    "brats2023": "BraTS-GLI-00001-000",
    "brats2024": "BraTS-GLI-00001-000",
}


def _example(name: str, submission: Submission) -> str:
    if submission.cases is not None:
        return submission.cases[0]
    year, _, tumour = name.partition("-")
    return EXAMPLES.get(year, "case_00001").replace("GLI", tumour.upper() or "GLI")


@pytest.mark.parametrize("name", [name for name in SUBMITTED if challenge(name).submission.label_values])
def test_every_challenge_of_the_registry_goes_round(name: str, tmp_path: Path) -> None:
    """Every value that a prediction may hold goes out as another one of theirs, under a name of its own."""
    submission = challenge(name).submission
    rules = submission.tasks or {"": submission.label_values}
    case = _example(name, submission)
    groups = []
    for task, values in rules.items():
        file = tmp_path / task / f"{case}.nii.gz"
        # on a small grid; what is fixed of a grid has its own tests
        _save(np.resize(np.array(sorted(values), np.uint8), (4, 5, 6)), file, np.array(submission.affine or AFFINE))
        member = f"{task}/{submission.file_name(case)}".lstrip("/")
        item = Item(case=case, member=member, prediction=file, image=file)
        rule = replace(submission, label_values=values, shape=None)
        groups.append(Group(name=task, submission=rule, predictions=tmp_path, items=(item,)))
    assert check_groups(groups, n_workers=0) == len(rules)
    target = tmp_path / f"out.{submission.archive}"
    written = write_submission(groups, [CleanUp()] * len(rules), target, submission=submission, n_workers=0)
    assert len(written.files) == len(rules)
    for group in groups:
        assert len(set(group.submission.label_values.values())) == len(group.submission.label_values)
        member = group.items[0].member
        content = (target / member).read_bytes() if target.is_dir() else zipfile.ZipFile(target).read(member)
        image = nibabel.Nifti1Image.from_bytes(gzip.decompress(content) if member.endswith(".gz") else content)
        back = {theirs: ours for ours, theirs in group.submission.label_values.items()}
        ours = np.asarray(nibabel.load(group.items[0].prediction).dataobj)
        np.testing.assert_array_equal(np.vectorize(back.get)(np.asarray(image.dataobj)), ours)
        assert image.affine.tobytes() == nibabel.load(group.items[0].prediction).affine.tobytes()


@pytest.mark.parametrize("name", [name for name in SUBMITTED if challenge(name).submission.cases])
def test_every_required_case_has_a_name_of_its_own(name: str) -> None:
    submission = challenge(name).submission
    names = {submission.file_name(case) for case in submission.cases}
    assert len(names) == len(submission.cases)
    groups = make_groups(challenge(name), submission, None, None, partial=False)
    assert {item.member for group in groups for item in group.items} == names
