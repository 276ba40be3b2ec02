"""Claims about a phantom data set on disk."""

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

from nnunet_kd.errors import UsageError
from nnunet_kd.phantoms import Kind, write_phantom_dataset

SMALL = {"dataset_id": 7, "name": "Toy", "n_train": 3, "n_test": 2, "seed": 1, "shape": (10, 12, 14)}


def _write(folder: Path, **changes: object) -> Path:
    return write_phantom_dataset(folder, **{**SMALL, **changes})  # type: ignore[arg-type]


def _values(folder: Path, file: str) -> set[int]:
    return set(np.unique(nibabel.load(folder / file).get_fdata()).astype(int).tolist())


def test_nnunet_itself_finds_every_case(tmp_path: Path) -> None:
    from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

    folder = _write(tmp_path, n_channels=2)
    cases = get_filenames_of_train_images_and_targets(str(folder))
    assert sorted(cases) == ["phantom_000", "phantom_001", "phantom_002"]
    for case in cases.values():
        assert [Path(path).exists() for path in (*case["images"], case["label"])] == [True] * 3


@pytest.mark.parametrize("kind", ["labels", "regions", "ignore"])
def test_nnunet_accepts_the_integrity_of_every_kind(tmp_path: Path, kind: Kind) -> None:
    from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity

    verify_dataset_integrity(str(_write(tmp_path, kind=kind)), 1)


def test_spacing_and_shape_are_read_back_in_the_order_of_nnunet(tmp_path: Path) -> None:
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    folder = _write(tmp_path, spacing=(5.0, 0.8, 0.7))
    image, properties = SimpleITKIO().read_images([str(folder / "imagesTr" / "phantom_000_0000.nii.gz")])
    assert image.shape == (1, 10, 12, 14)
    assert properties["spacing"] == pytest.approx([5.0, 0.8, 0.7])


def test_regions_are_nested(tmp_path: Path) -> None:
    description = json.loads((_write(tmp_path, kind="regions") / "dataset.json").read_text())
    assert description["labels"] == {"background": 0, "whole": [1, 2], "core": 2}
    assert description["regions_class_order"] == [1, 2]


def test_ignore_label_is_in_training_labels_only(tmp_path: Path) -> None:
    folder = _write(tmp_path, kind="ignore", n_train=6, shape=(20, 20, 20))
    marked = [3 in _values(folder, f"labelsTr/phantom_{n:03d}.nii.gz") for n in range(6)]
    assert sum(marked) >= 3
    assert _values(folder, "labelsTs/phantom_test_000.nii.gz") == {0, 1, 2}


def test_same_seed_writes_the_same_voxels(tmp_path: Path) -> None:
    first, second = (_write(tmp_path / name) for name in "ab")
    for path in sorted(first.glob("*/*.nii.gz")):
        other = second / path.relative_to(first)
        np.testing.assert_array_equal(nibabel.load(path).get_fdata(), nibabel.load(other).get_fdata())


def test_training_and_test_cases_are_different(tmp_path: Path) -> None:
    folder = _write(tmp_path)
    train, test = (folder / f"labels{part}.nii.gz" for part in ("Tr/phantom_000", "Ts/phantom_test_000"))
    assert (nibabel.load(train).get_fdata() != nibabel.load(test).get_fdata()).any()


def test_few_cases_come_with_splits_that_hold_each_out_once(tmp_path: Path) -> None:
    splits = json.loads((_write(tmp_path) / "splits_final.json").read_text())
    assert sorted(name for fold in splits for name in fold["val"]) == ["phantom_000", "phantom_001", "phantom_002"]
    assert all(not set(fold["train"]) & set(fold["val"]) for fold in splits)


def test_enough_cases_leave_the_splits_to_nnunet(tmp_path: Path) -> None:
    assert not (_write(tmp_path, n_train=5) / "splits_final.json").exists()


def test_shapes_vary_when_asked(tmp_path: Path) -> None:
    folder = _write(tmp_path, n_train=6, shape_jitter=0.3)
    assert len({nibabel.load(path).shape for path in (folder / "labelsTr").iterdir()}) > 1


def test_existing_data_set_is_left_alone(tmp_path: Path) -> None:
    folder = _write(tmp_path)
    before = (folder / "dataset.json").stat().st_mtime_ns
    with pytest.raises(UsageError, match="--overwrite"):
        _write(tmp_path)
    assert (folder / "dataset.json").stat().st_mtime_ns == before
    assert _write(tmp_path, overwrite=True) == folder


def test_failed_writing_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="too small"):
        _write(tmp_path, shape=(2, 2, 2))
    assert list(tmp_path.iterdir()) == []
