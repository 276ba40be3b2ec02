"""Claims about a demo's data."""

import json
from pathlib import Path

import pytest

from nnunet_kd.errors import UsageError
from nnunet_kd.phantoms.dataset import write_phantom_dataset
from nnunet_kd.phantoms.demo_data import hold_out, open_data


@pytest.fixture
def converted(tmp_path: Path) -> Path:
    """A raw data set of eleven training cases and one unlabelled test case."""
    folder = write_phantom_dataset(
        tmp_path / "raw", dataset_id=4, name="Toy", n_train=11, n_test=1, seed=0, shape=(8, 8, 8)
    )
    (folder / "labelsTs" / "phantom_test_000.nii.gz").unlink()
    (folder / "labelsTs").rmdir()
    return folder


def _names(folder: Path) -> list[str]:
    return sorted(path.name.removesuffix(".nii.gz") for path in folder.iterdir())


def test_listed_cases_are_held_out(converted: Path, tmp_path: Path) -> None:
    (tmp_path / "test_cases.txt").write_text("phantom_003\nphantom_007\n\n")
    hold_out(converted, tmp_path)
    assert _names(converted / "labelsTs") == ["phantom_003", "phantom_007"]
    assert _names(converted / "imagesTs") == ["phantom_003_0000", "phantom_007_0000"]
    assert len(_names(converted / "labelsTr")) == len(_names(converted / "imagesTr")) == 9
    assert json.loads((converted / "dataset.json").read_text())["numTraining"] == 9


def test_every_fifth_case_is_held_out_without_a_list(converted: Path, tmp_path: Path) -> None:
    hold_out(converted, tmp_path)
    assert _names(converted / "labelsTs") == ["phantom_000", "phantom_005", "phantom_010"]


def test_held_out_cases_are_in_no_split(converted: Path, tmp_path: Path) -> None:
    hold_out(converted, tmp_path)
    (split,) = json.loads((converted / "splits_final.json").read_text())
    assert sorted(split["train"] + split["val"]) == _names(converted / "labelsTr")
    assert split["val"]


def test_unknown_name_in_the_list_is_refused_before_anything_moves(converted: Path, tmp_path: Path) -> None:
    (tmp_path / "test_cases.txt").write_text("phantom_003\nhippocampus_001\n")
    with pytest.raises(UsageError, match="hippocampus_001"):
        hold_out(converted, tmp_path)
    assert len(_names(converted / "labelsTr")) == 11


def test_list_that_leaves_nothing_to_train_on_is_refused(converted: Path, tmp_path: Path) -> None:
    (tmp_path / "test_cases.txt").write_text("\n".join(_names(converted / "labelsTr")))
    with pytest.raises(UsageError, match="holds out 11 of 11"):
        hold_out(converted, tmp_path)


def test_data_set_is_read_back(converted: Path, tmp_path: Path) -> None:
    hold_out(converted, tmp_path)
    data = open_data(converted.parent)
    assert (data.folder, data.number, data.n_train, data.n_test) == (converted, 4, 8, 3)
