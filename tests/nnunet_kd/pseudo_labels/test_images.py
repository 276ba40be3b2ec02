"""Claims about the check of every image, and about what copies are known by."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from numpy.typing import NDArray

from nnunet_kd.pseudo_labels.images import Requirements, check_scan, find_duplicates, voxel_hash
from nnunet_kd.pseudo_labels.pool import Scan

SHAPE = (6, 7, 8)
Edit = Callable[[NDArray[Any]], NDArray[Any]]


def volume(seed: int = 0) -> NDArray[np.float32]:
    """A body in an empty frame, as integers that every number type holds."""
    image = np.zeros(SHAPE, dtype=np.float32)
    image[1:5, 2:6, 1:7] = np.random.default_rng(seed).integers(1, 4000, (4, 4, 6))
    return image


def write(
    folder: Path, *channels: NDArray[Any], affines: dict[int, NDArray[Any]] | None = None, **options: Any
) -> Scan:
    files = []
    for number, voxels in enumerate(channels):
        files.append(folder / f"case_{number:04d}.nii.gz")
        affine = (affines or {}).get(number, np.diag([1.0, 1.0, 2.0, 1.0]))
        nibabel.save(nibabel.Nifti1Image(voxels, affine), files[-1])
    return Scan(name="case", files=tuple(files), order=tuple(range(len(files))), **options)


def check(scan: Scan, *, reader: type = SimpleITKIO, volumes: bool = True) -> Any:
    return check_scan(scan, needed=Requirements(reader=reader, volumes=volumes))


@pytest.mark.parametrize("reader", [SimpleITKIO, NibabelIO])
def test_a_whole_case_has_no_fault(tmp_path: Path, reader: type) -> None:
    checked = check(write(tmp_path, volume(), volume(1), n_channels=2), reader=reader)
    assert checked.faults == ()
    assert len(checked.voxels) == len(checked.files) == 64


EDITS: dict[str, Edit] = {
    "another number type": lambda x: x.astype(np.int16),
    "cropped": lambda x: x[1:5, 2:6, 1:7],
    "cropped otherwise": lambda x: x[:5, 1:, 1:],
    "padded": lambda x: np.pad(x, 3),
    "mirrored": lambda x: x[::-1, :, ::-1],
    "other order of axes": lambda x: x.transpose(2, 0, 1),
    "negative zeros": lambda x: np.where(x == 0, -0.0, x).astype(np.float32),
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_a_copy_is_known_again(tmp_path: Path, edit: Edit) -> None:
    """Through files, with another header and compression."""
    (tmp_path / "copy").mkdir()
    turned = {n: np.diag([-0.9, 1.1, 1.0, 1.0]) for n in range(2)}
    original = check(write(tmp_path, volume(), volume(1)))
    copy = check(write(tmp_path / "copy", edit(volume()), edit(volume(1)), affines=turned))
    assert original.voxels == copy.voxels
    assert original.files != copy.files


OTHERS: dict[str, Edit] = {
    "one voxel changed": lambda x: np.where(np.arange(x.size).reshape(x.shape) == 120, x + 1, x),
    "rescaled": lambda x: x * 2,
    "a slice of the body cut off": lambda x: x[:, :, :6],
    "another body of the same values": lambda x: np.sort(x.ravel())[::-1].reshape(x.shape),
}


@pytest.mark.parametrize("edit", OTHERS.values(), ids=OTHERS)
def test_another_image_is_not(edit: Edit) -> None:
    assert volume()[2, 1, 0] == 0
    assert voxel_hash([volume(), volume(1)]) != voxel_hash([edit(volume()), volume(1)])
    assert voxel_hash([volume(1), volume()]) != voxel_hash([volume(), volume(1)])


@pytest.mark.parametrize("value", [0, 3])
def test_images_that_show_nothing_are_nobodys_copies(value: int) -> None:
    assert not voxel_hash([np.full(SHAPE, value, dtype=np.float32)])
    assert voxel_hash([np.full(SHAPE, value, dtype=np.float32), volume()])
    assert find_duplicates({"a": "", "b": ""}, {"x": ""}) == {}


def _truncated(scan: Scan) -> None:
    scan.files[0].write_bytes(scan.files[0].read_bytes()[:200])


def _text(scan: Scan) -> None:
    scan.files[1].write_text("no image")


@pytest.mark.parametrize("damage", [_truncated, _text])
def test_a_damaged_file_is_named(tmp_path: Path, damage: Callable[[Scan], None]) -> None:
    scan = write(tmp_path, volume(), volume(1))
    damage(scan)
    (fault,) = check(scan).faults
    assert fault.startswith("case_000")
    assert "\n" not in fault


SHIFTED = np.array([[1, 0, 0, 5], [0, 1, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1.0]])
NAN = np.where(np.arange(volume().size).reshape(SHAPE) == 7, np.nan, volume())


@pytest.mark.parametrize("reader", [SimpleITKIO, NibabelIO])
@pytest.mark.parametrize(
    ("second", "affine", "fault"),
    [
        (volume()[:5], None, "shape"),
        (volume(), np.diag([1.0, 1.0, 2.1, 1.0]), "spacing|affine"),
        (volume(), SHIFTED, "origin|affine"),
        (volume(), np.diag([-1.0, -1.0, 2.0, 1.0]), "direction|affine"),
        (NAN, None, "not finite"),
        (np.stack([volume(), volume()], axis=-1), None, "one image per file|only 3d"),
    ],
)
def test_channels_that_do_not_lie_on_each_other_are_faults(
    tmp_path: Path, second: NDArray[Any], affine: NDArray[Any] | None, fault: str, reader: type
) -> None:
    affines = None if affine is None else {1: affine}
    faults = check(write(tmp_path, volume(), second.astype(np.float32), affines=affines), reader=reader).faults
    assert faults
    assert any(word in " ".join(faults) for word in fault.split("|"))


def test_rounding_in_a_header_is_no_fault(tmp_path: Path) -> None:
    assert check(write(tmp_path, volume(), volume(1), affines={1: np.diag([1.0, 1.0, 2.00001, 1.0])})).faults == ()


@pytest.mark.parametrize(
    ("n_channels", "order", "faults"),
    [
        (3, (0, 1), ("has 2 channels, expected 3",)),
        (1, (0,), ("has 2 channels, expected 1",)),
        (None, (0, 2), ("has 2 channels, expected at least 3",)),
        (None, (1,), ()),
    ],
)
def test_the_number_of_channels_is_checked(
    tmp_path: Path, n_channels: int | None, order: tuple[int, ...], faults: tuple[str, ...]
) -> None:
    files = write(tmp_path, volume(), volume(1)).files
    scan = Scan(name="case", files=files, order=order, n_channels=n_channels)
    assert check(scan).faults == faults


@pytest.mark.parametrize("volumes", [True, False])
def test_a_single_slice_is_nothing_for_a_teacher_of_volumes(tmp_path: Path, volumes: bool) -> None:
    assert bool(check(write(tmp_path, volume()[:, :, 3:4]), volumes=volumes).faults) == volumes


def test_a_changed_header_makes_other_files_of_the_same_voxels(tmp_path: Path) -> None:
    before = check(write(tmp_path, volume(), volume(1)))
    again = check(write(tmp_path, volume(), volume(1), affines={n: np.diag([1.0, 1, 3, 1]) for n in (0, 1)}))
    assert before.voxels == again.voxels
    assert before.files != again.files
