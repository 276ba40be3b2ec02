"""Which folders are taken for the same cases on the same grid."""

from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK

from nnunet_kd.errors import UsageError
from nnunet_kd.evaluation.cases import (
    case_name,
    check_same_cases,
    check_same_grid,
    find_cases,
    read_geometry,
    read_segmentation,
)

SaveLabels = Callable[..., Path]
LABELS = np.zeros((3, 4, 5), dtype=np.uint8)


@pytest.mark.parametrize("name", ["a.b.nii.gz", "a.b.NII", "a.b.mha", "folder/a.b.png"])
def test_a_case_is_the_file_without_its_ending(name: str) -> None:
    assert case_name(name) == "a.b"


def test_a_folder_holds_its_segmentations_in_order(tmp_path: Path, save_labels: SaveLabels) -> None:
    for name in ("b.nii.gz", "a.mha"):
        save_labels(tmp_path / name, LABELS)
    for other in ("summary.json", "a.npz", "plans.json", ".hidden.nii.gz"):
        (tmp_path / other).touch()
    assert list(find_cases(tmp_path)) == ["a", "b"]


def test_two_files_of_one_case_are_refused(tmp_path: Path, save_labels: SaveLabels) -> None:
    for name in ("a.nii.gz", "a.mha"):
        save_labels(tmp_path / name, LABELS)
    with pytest.raises(UsageError, match=r"'a' twice: a\.mha and a\.nii\.gz"):
        find_cases(tmp_path)


@pytest.mark.parametrize("exists", [True, False])
def test_folders_without_segmentations_are_named(tmp_path: Path, exists: bool) -> None:
    folder = tmp_path / "somewhere"
    if exists:
        folder.mkdir()
    with pytest.raises(UsageError, match="somewhere"):
        find_cases(folder)


def test_cases_missing_on_either_side_are_all_named() -> None:
    faults = check_same_cases(["a", "b", "c"], {"arm x": ["b", "d"], "arm y": ["a", "b", "c"], "arm z": ["a", "b"]})
    assert faults == [
        "arm x lacks a, c",
        "arm x has, and the reference has not, d",
        "arm z lacks c",
    ]


def test_long_lists_are_cut_and_counted() -> None:
    (fault,) = check_same_cases([str(i) for i in range(30)], {"arm": []})
    assert fault.endswith("11 and 18 more")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"spacing": (1.0, 1.0, 1.01)}, "spacing 1.01x1x1 instead of 1x1x1"),
        ({"origin": (0.0, 5.0, 0.0)}, "origin 0x5x0 instead of 0x0x0"),
        ({"direction": (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)}, "direction -1x0"),
        ({"array": np.zeros((5, 4, 3), dtype=np.uint8)}, "shape 3x4x5 instead of 5x4x3"),
    ],
)
def test_another_grid_is_named_with_case_and_values(
    tmp_path: Path, save_labels: SaveLabels, change: dict[str, object], said: str
) -> None:
    reference = {name: save_labels(tmp_path / f"{name}.mha", LABELS) for name in ("a", "b")}
    moved = save_labels(tmp_path / "moved.mha", **{"array": LABELS, **change})
    (fault,) = check_same_grid(reference, {"arm x": {"a": reference["a"], "b": moved}})
    assert fault.startswith("arm x has another grid in b (")
    assert said in fault


def test_rounding_of_headers_is_no_other_grid(tmp_path: Path, save_labels: SaveLabels) -> None:
    """The same grid through NIfTI's float32 and through MetaImage's decimals."""
    grid = {"spacing": (0.7, 1 / 3, 0.9375), "origin": (-123.456789, 98.7654321, 1 / 7)}
    first, second = (save_labels(tmp_path / f"a{ending}", LABELS, **grid) for ending in (".nii.gz", ".mha"))
    assert read_geometry(first) != read_geometry(second)
    assert check_same_grid({"a": first}, {"arm": {"a": second}}) == []


def test_labels_and_spacing_come_in_array_order(tmp_path: Path, save_labels: SaveLabels) -> None:
    labels = np.arange(60, dtype=np.uint8).reshape(3, 4, 5)
    array, spacing = read_segmentation(save_labels(tmp_path / "a.mha", labels, (3.0, 2.0, 1.0)))
    np.testing.assert_array_equal(array, labels)
    assert spacing == (3.0, 2.0, 1.0)


def test_whole_numbers_stored_as_floats_are_labels_and_others_are_not(tmp_path: Path, save_labels: SaveLabels) -> None:
    labels = np.array([[0.0, 1.0], [2.0, 0.0]], dtype=np.float32)
    array, _ = read_segmentation(save_labels(tmp_path / "a.mha", labels))
    assert np.issubdtype(array.dtype, np.integer)
    with pytest.raises(UsageError, match="whole numbers"):
        read_segmentation(save_labels(tmp_path / "b.mha", labels / 2))


def _truncate(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _flip_last(data: bytes) -> bytes:
    return data[:-5] + bytes([data[-5] ^ 255]) + data[-4:]  # in the checksum of a .gz


@pytest.mark.parametrize(("name", "damage"), [("a.nii.gz", _truncate), ("a.nii.gz", _flip_last), ("a.nii", _truncate)])
def test_damage_that_itk_reads_without_a_word_is_noticed(
    tmp_path: Path, save_labels: SaveLabels, name: str, damage: Callable[[bytes], bytes]
) -> None:
    labels = np.random.default_rng(0).integers(0, 3, (64, 64, 64)).astype(np.uint8)
    file = save_labels(tmp_path / name, labels)
    file.write_bytes(damage(file.read_bytes()))
    SimpleITK.ReadImage(str(file))
    with pytest.raises(UsageError, match="cannot read"):
        read_segmentation(file)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".mha"])
def test_values_that_are_no_labels_are_refused(
    tmp_path: Path, save_labels: SaveLabels, ending: str, value: float
) -> None:
    labels = LABELS.astype(np.float32)
    labels[0, 0, 0] = value
    with pytest.raises(UsageError, match=r"not finite|whole numbers"):
        read_segmentation(save_labels(tmp_path / f"a{ending}", labels))


@pytest.mark.parametrize("shape", [(3, 4, 5, 1), (3, 4, 5, 2)])
def test_label_maps_of_four_axes_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    """ITK leaves out a fourth axis of one voxel."""
    nibabel.save(nibabel.Nifti1Image(np.zeros(shape, np.uint8), np.eye(4)), tmp_path / "a.nii.gz")
    with pytest.raises(UsageError, match="two or three axes"):
        read_geometry(tmp_path / "a.nii.gz")


def test_colour_images_and_broken_files_are_refused(tmp_path: Path) -> None:
    SimpleITK.WriteImage(SimpleITK.Image([4, 4], SimpleITK.sitkVectorUInt8, 3), str(tmp_path / "colour.png"))
    with pytest.raises(UsageError, match="3 channels"):
        read_geometry(tmp_path / "colour.png")
    (tmp_path / "broken.nii.gz").write_bytes(b"nothing")
    with pytest.raises(UsageError, match=r"broken\.nii\.gz"):
        read_geometry(tmp_path / "broken.nii.gz")
