"""``nnunet_kd postprocess`` as it is typed, on small files."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from nnunet_kd.cli import main
from nnunet_kd.errors import UsageError
from nnunet_kd.postprocessing import brats, folder
from nnunet_kd.postprocessing.brats import TumourLabels, clean

LABELS = {"background": 0, "whole tumor": [1, 2, 3], "tumor core": [2, 3], "enhancing tumor": 3}
AFFINE = np.array([[-0.9, 0.1, 0, 3], [0.1, 1.1, 0, -7], [0, 0, 2.5, 11], [0, 0, 0, 1.0]])


def volume(n_enhancing: int) -> NDArray[np.uint8]:
    array = np.zeros((12, 10, 8), dtype=np.uint8)
    array[:5] = 1
    array[1:4, 2:8] = 2
    array[1].flat[20 : 20 + n_enhancing] = 3
    array[9, :3, :3] = 1
    return array


@pytest.fixture
def predictions(tmp_path: Path) -> Path:
    """Three cases as nnUNetv2_predict leaves them, one with too little enhancing tumour."""
    made = tmp_path / "predictions"
    made.mkdir()
    (made / "dataset.json").write_text(json.dumps({"labels": LABELS, "regions_class_order": [1, 2, 3]}))
    (made / "plans.json").write_text("{}")
    for number, n_enhancing in enumerate((10, 40, 50)):
        image = nib.Nifti1Image(volume(n_enhancing), AFFINE)
        image.header.set_xyzt_units("mm", "sec")
        nib.save(image, made / f"case_{number}.nii.gz")
    return made


@pytest.fixture
def run(predictions: Path, tmp_path: Path) -> Callable[..., int]:
    def postprocess(*options: str) -> int:
        return main(["postprocess", "-i", str(predictions), "-o", str(tmp_path / "out"), "-np", "1", *options])

    return postprocess


def state(place: Path) -> dict[str, tuple[bytes, int]]:
    return {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in place.iterdir()}


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    lines = [line for line in capsys.readouterr().err.splitlines() if "nnunet_kd postprocess: " in line]
    assert len(lines) == 1
    return lines[0]


def test_every_case_is_cleaned_and_keeps_its_header(
    run: Callable[..., int], predictions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = state(predictions)
    assert run() == 0
    assert state(predictions) == before
    labels = TumourLabels(edema=1, necrotic=2, enhancing=3)
    for number, n_enhancing in enumerate((10, 40, 50)):
        made = nib.load(tmp_path / "out" / f"case_{number}.nii.gz")
        given = nib.load(predictions / f"case_{number}.nii.gz")
        np.testing.assert_array_equal(made.dataobj, clean(volume(n_enhancing), labels=labels))
        np.testing.assert_array_equal(made.affine, given.affine)
        assert made.header == given.header
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        *(f"case_{number}.nii.gz" for number in range(3)), "dataset.json", folder.RECORD,
    ]  # fmt: skip
    assert not list(tmp_path.glob(".out*"))
    printed = capsys.readouterr().out
    assert "3 cases written" in printed
    assert "voxels relabelled in 1: case_0 (10)" in printed
    assert "voxels removed in 3: case_0 (9), case_1 (9), case_2 (9)" in printed


def test_the_rules_numbers_are_options(run: Callable[..., int], tmp_path: Path) -> None:
    assert run("--min-enhancing", "40", "--min-component", "0") == 0
    made = [np.asarray(nib.load(tmp_path / "out" / f"case_{number}.nii.gz").dataobj) for number in range(3)]
    assert [int((array == 3).sum()) for array in made] == [0, 0, 50]
    assert all((array[9] == 1).sum() == 9 for array in made)


def test_an_interrupted_run_is_continued(
    run: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = folder._save

    def full(labels: Any, like: Any, file: Path) -> None:
        if file.name == "case_1.nii.gz":
            file.write_bytes(b"half")
            raise OSError(28, "No space left on device")
        real(labels, like, file)

    monkeypatch.setattr(folder, "_save", full)
    assert run() == 2
    assert "case_1.nii.gz: No space left on device; free space" in one_line(capsys)
    assert not (tmp_path / "out" / "case_1.nii.gz").exists()
    begun = state(tmp_path / "out")
    monkeypatch.undo()
    assert run() == 0
    assert "1 cases written" in capsys.readouterr().out
    after = state(tmp_path / "out")
    assert {name: after[name] for name in begun} == begun
    assert run() == 0
    assert "every case was there already" in capsys.readouterr().out
    assert state(tmp_path / "out") == after


@pytest.mark.parametrize("what", ["settings", "predictions", "case"])
def test_other_results_are_replaced_only_when_told(
    run: Callable[..., int], predictions: Path, tmp_path: Path, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run() == 0
    options = ["--min-enhancing", "45"] if what == "settings" else []
    if what == "predictions":
        nib.save(nib.Nifti1Image(volume(60), AFFINE), predictions / "case_2.nii.gz")
    if what == "case":
        (predictions / "case_0.nii.gz").unlink()
    before = state(tmp_path / "out")
    assert run(*options) == 2
    assert "--overwrite" in one_line(capsys)
    assert state(tmp_path / "out") == before
    assert run(*options, "--overwrite") == 0
    assert {file.name for file in (tmp_path / "out").glob("*.nii.gz")} == {
        file.name for file in predictions.glob("*.nii.gz")
    }
    enhancing = int((np.asarray(nib.load(tmp_path / "out" / "case_2.nii.gz").dataobj) == 3).sum())
    assert enhancing == (60 if what == "predictions" else 50)


def test_labels_of_other_types_are_read_and_dataset_json_may_lie_elsewhere(
    run: Callable[..., int], predictions: Path, tmp_path: Path
) -> None:
    (predictions / "dataset.json").unlink()
    named = {"background": 0, "NCR": 1, "ED": 2, "ET": 4}
    (tmp_path / "brats.json").write_text(json.dumps({"labels": named}))
    array = np.array([0, 2, 1, 4], dtype=np.uint8)[volume(40)]
    for number, dtype in enumerate((np.float32, np.int16, np.int64)):
        nib.save(nib.Nifti1Image(array.astype(dtype), AFFINE, dtype=dtype), predictions / f"case_{number}.nii.gz")
    assert run("--dataset-json", str(tmp_path / "brats.json")) == 0
    expected = brats.clean(array, labels=TumourLabels(edema=2, necrotic=1, enhancing=4))
    made = [nib.load(tmp_path / "out" / f"case_{number}.nii.gz") for number in range(3)]
    for image in made:
        np.testing.assert_array_equal(np.asarray(image.dataobj), expected)
    assert [image.get_data_dtype() for image in made] == [np.uint8, np.int16, np.uint8]
    assert json.loads((tmp_path / "out" / "dataset.json").read_text())["labels"] == named


def _break(predictions: Path, what: str) -> None:
    file = predictions / "case_1.nii.gz"
    broken: dict[str, Callable[[], Any]] = {
        "empty": lambda: [entry.unlink() for entry in predictions.iterdir()],
        "png only": lambda: (predictions / "case_9.png").write_bytes(b"png"),
        "no dataset.json": (predictions / "dataset.json").unlink,
        "other names": lambda: (predictions / "dataset.json").write_text('{"labels": {"background": 0, "liver": 1}}'),
        "4-D": lambda: nib.save(nib.Nifti1Image(np.zeros((3, 3, 3, 2), np.uint8), AFFINE), file),
        "unknown label": lambda: nib.save(nib.Nifti1Image(volume(40) * 2, AFFINE), file),
        "no labels": lambda: nib.save(nib.Nifti1Image(volume(40) * 0.5, AFFINE), file),
        "truncated": lambda: file.write_bytes(file.read_bytes()[:-30]),
        "others' folder": lambda: (predictions.parent / "out").mkdir() or (predictions.parent / "out" / "a").touch(),
    }
    if what in broken:
        broken[what]()


@pytest.mark.parametrize(
    ("what", "options", "said"),
    [
        ("empty", [], "found none"),
        ("png only", [], "expected NIfTI label maps"),
        ("no dataset.json", [], "--dataset-json"),
        ("other names", [], "found liver 1"),
        ("4-D", [], "case_1.nii.gz: expected a label map of three axes, got shape (3, 3, 3, 2)"),
        ("unknown label", [], "case_1.nii.gz: expected only the labels that dataset.json names, found 4, 6"),
        ("no labels", [], "case_1.nii.gz: expected whole numbers"),
        ("truncated", [], "case_1.nii.gz: cannot be read"),
        ("others' folder", [], "holds other things than post-processed predictions"),
        ("", ["-i", "/no/where"], "/no/where"),
        ("", ["--dataset-json", "/no/file"], "/no/file"),
        ("", ["--min-enhancing", "-1"], "--min-enhancing"),
        ("", ["--min-component", "1"], "--min-component"),
        ("", ["--min-component", "nan"], "--min-component"),
        ("", ["-np", "0"], "-np"),
    ],
)
def test_bad_input_gets_one_line_and_writes_nothing(
    run: Callable[..., int],
    predictions: Path,
    what: str,
    options: list[str],
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _break(predictions, what)
    before = state(predictions)
    assert run(*options) == 2
    assert said in one_line(capsys)
    assert state(predictions) == before
    out = predictions.parent / "out"
    assert [file.name for file in out.iterdir()] == ["a"] if what == "others' folder" else not out.exists()


@pytest.mark.parametrize("place", ["predictions", "predictions/inside", "."])
def test_the_predictions_are_never_written_to(
    run: Callable[..., int], predictions: Path, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(predictions.iterdir())
    assert run("-o", str(predictions.parent / place), "--overwrite") == 2
    assert "expected an output outside" in one_line(capsys)
    assert sorted(predictions.iterdir()) == before


RGB = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])


@pytest.mark.parametrize(
    ("array", "name"),
    [(volume(9).astype(np.complex64) + np.complex64(5j), "complex64"), (volume(9).astype(RGB), "RGB")],
    ids=["complex", "colours"],
)
def test_voxels_that_are_no_numbers_are_refused(tmp_path: Path, array: NDArray[Any], name: str) -> None:
    nib.save(nib.Nifti1Image(array, AFFINE), tmp_path / "a.nii.gz")
    with pytest.raises(UsageError, match=f"found {name}; give label maps"):
        folder.read_label_map(tmp_path / "a.nii.gz")
