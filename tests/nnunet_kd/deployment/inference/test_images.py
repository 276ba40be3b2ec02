"""Claims about reading and writing, against nnU-Net's classes on the same files."""

import gzip
import json
import struct
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import tifffile
from nnunetv2.imageio.reader_writer_registry import recursive_find_reader_writer_by_name
from skimage import io

from nnunet_kd.deployment.inference import readers
from nnunet_kd.deployment.inference.images import read_image, write_label_map
from nnunet_kd.errors import UsageError

SHAPE = (5, 6, 7)
ROTATED = (0.0, -1.0, 0.0, 0.96, 0.0, -0.28, 0.28, 0.0, 0.96)


def voxels(dtype: str = "int16", shape: tuple[int, ...] = SHAPE, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 200, size=shape).astype(dtype)


def write_itk(file: Path, array: np.ndarray) -> None:
    image = sitk.GetImageFromArray(array)
    n_axes = image.GetDimension()
    image.SetSpacing((0.7, 1.1, 3.3)[:n_axes])
    image.SetOrigin((-12.3, 4.56, 78.9)[:n_axes])
    if n_axes == 3:
        image.SetDirection(ROTATED)
    sitk.WriteImage(image, str(file))


def write_nifti(file: Path, array: np.ndarray) -> None:
    affine = np.array([[0, -1.1, 0, 5.0], [0.7, 0, 0.1, -3.0], [0, 0, -3.3, 9.0], [0, 0, 0, 1]])
    nibabel.save(nibabel.Nifti1Image(array, affine), file)


def write_tif(file: Path, array: np.ndarray) -> None:
    tifffile.imwrite(file, array)
    file.with_name(f"{file.stem[:-5]}.json").write_text(json.dumps({"spacing": [3.0, 0.5, 0.7]}))


def write_picture(file: Path, array: np.ndarray) -> None:
    io.imsave(str(file), array, check_contrast=False)


FORMATS = pytest.mark.parametrize(
    ("reader", "ending", "write", "array"),
    [
        ("SimpleITKIO", ".nii.gz", write_itk, voxels()),
        ("SimpleITKIO", ".nii.gz", write_itk, voxels("float32")),
        ("SimpleITKIO", ".nrrd", write_itk, voxels("uint8")),
        ("SimpleITKIO", ".mha", write_itk, voxels("int16", (6, 7))),
        ("SimpleITKIOWithReorient", ".nii.gz", write_itk, voxels()),
        ("NibabelIO", ".nii.gz", write_nifti, voxels()),
        ("NibabelIO", ".nii", write_nifti, voxels("float64")),
        ("NibabelIOWithReorient", ".nii.gz", write_nifti, voxels()),
        ("NaturalImage2DIO", ".png", write_picture, voxels("uint8", (6, 7))),
        ("NaturalImage2DIO", ".png", write_picture, voxels("uint8", (6, 7, 3))),
        ("Tiff3DIO", ".tif", write_tif, voxels("uint16")),
    ],
    ids=["itk", "itk-float", "nrrd", "itk-2d", "itk-ras", "nibabel", "nii", "nibabel-ras", "grey", "rgb", "tiff"],
)


def content(file: Path) -> bytes:
    return gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()


@FORMATS
def test_reads_and_writes_the_bytes_that_nnunet_does(
    reader: str, ending: str, write: Any, array: np.ndarray, tmp_path: Path
) -> None:
    files = [tmp_path / f"case_{channel:04d}{ending}" for channel in range(2)]
    write(files[0], array)
    write(files[1], array[::-1].copy())
    theirs = recursive_find_reader_writer_by_name(reader)()
    expected, properties = theirs.read_images([str(file) for file in files])
    image = read_image(files, reader)
    np.testing.assert_array_equal(image.array, expected)
    assert image.array.dtype == expected.dtype
    assert list(image.spacing) == list(properties["spacing"])
    assert image.is_planar == (expected.shape[1] == 1)
    labels = (expected[0] > 50).astype(np.uint8) + 2 * (expected[0] > 100).astype(np.uint8)
    theirs.write_seg(labels, str(tmp_path / f"theirs{ending}"), properties)
    write_label_map(labels, tmp_path / f"ours{ending}", image.without_voxels(), reader)
    assert content(tmp_path / f"ours{ending}") == content(tmp_path / f"theirs{ending}")
    if reader == "Tiff3DIO":
        assert json.loads((tmp_path / "ours.json").read_text()) == json.loads((tmp_path / "theirs.json").read_text())
        again, described = theirs.read_seg(str(tmp_path / f"ours{ending}"))
        assert list(read_image([tmp_path / f"ours{ending}"], reader).spacing) == list(described["spacing"])
        np.testing.assert_array_equal(again[0], labels)
    assert not list(tmp_path.glob(".*"))


def test_channels_in_one_file_are_written_as_one_volume(tmp_path: Path) -> None:
    channels = [sitk.GetImageFromArray(voxels(seed=seed)) for seed in range(3)]
    for channel in channels:
        channel.SetSpacing((0.7, 1.1, 3.3))
        channel.SetDirection(ROTATED)
    sitk.WriteImage(sitk.JoinSeries(channels), str(tmp_path / "case_0000.nii.gz"))
    image = read_image([tmp_path / "case_0000.nii.gz"], "SimpleITKIO")
    assert image.array.shape == (3, *SHAPE)
    assert image.spacing == pytest.approx((3.3, 1.1, 0.7))
    write_label_map(np.ones(SHAPE, dtype=np.uint8), tmp_path / "out.nii.gz", image, "SimpleITKIO")
    written = sitk.ReadImage(str(tmp_path / "out.nii.gz"))
    assert written.GetSize() == channels[0].GetSize()
    assert written.GetDirection() == pytest.approx(ROTATED)


def test_many_labels_take_two_bytes(tmp_path: Path) -> None:
    write_itk(tmp_path / "a.nii.gz", voxels())
    image = read_image([tmp_path / "a.nii.gz"], "SimpleITKIO")
    write_label_map(np.full(SHAPE, 300, dtype=np.uint16), tmp_path / "out.nii.gz", image, "SimpleITKIO")
    assert read_image([tmp_path / "out.nii.gz"], "SimpleITKIO").array.max() == 300


def truncated(file: Path) -> None:
    write_itk(file, voxels("int16", (30, 30, 30)))
    file.write_bytes(file.read_bytes()[:-2000])


def cut_plain(file: Path) -> None:
    packed = file.with_name("whole.nii.gz")
    write_itk(packed, voxels())
    file.write_bytes(gzip.compress(gzip.decompress(packed.read_bytes())[:-40]))


def with_nan(file: Path) -> None:
    array = voxels("float32")
    array[2, 3, 4] = np.nan
    write_itk(file, array)


def without_spacing(file: Path) -> None:
    write_itk(file, voxels())
    content = bytearray(gzip.decompress(file.read_bytes()))
    struct.pack_into("<f", content, 80, 0.0)
    file.write_bytes(gzip.compress(content))


@pytest.mark.parametrize(
    ("break_file", "message"),
    [
        (lambda _: None, "found none"),
        (truncated, "cannot read"),
        (cut_plain, "truncated"),
        (with_nan, "not finite"),
        (without_spacing, "spacings above 0"),
        (lambda file: file.write_text("no image"), "cannot read"),
        (lambda file: file.write_bytes(b""), "cannot read"),
    ],
    ids=["missing", "truncated", "short", "nan", "spacing", "text", "empty"],
)
@pytest.mark.parametrize("reader", ["SimpleITKIO", "NibabelIO"])
def test_a_bad_file_is_one_line(break_file: Any, message: str, reader: str, tmp_path: Path) -> None:
    file = tmp_path / "case_0000.nii.gz"
    break_file(file)
    with pytest.raises(UsageError, match=message) as caught:
        read_image([file], reader)
    assert "\n" not in str(caught.value)
    assert file.name in str(caught.value)


def test_nan_is_found_in_other_formats(tmp_path: Path) -> None:
    with_nan(tmp_path / "case_0000.nrrd")
    with pytest.raises(UsageError, match="finite"):
        read_image([tmp_path / "case_0000.nrrd"], "SimpleITKIO")


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (sitk.GetImageFromArray(voxels("complex64")), "expected real numbers, got complex64"),
        (sitk.GetImageFromArray(voxels(shape=(*SHAPE, 3)), isVector=True), "one value per voxel, got 3"),
    ],
    ids=["complex", "colour"],
)
def test_voxels_that_are_no_numbers_are_refused(image: sitk.Image, message: str, tmp_path: Path) -> None:
    sitk.WriteImage(image, str(tmp_path / "case_0000.nii.gz"))
    with pytest.raises(UsageError, match=message):
        read_image([tmp_path / "case_0000.nii.gz"], "SimpleITKIO")


def test_a_direction_that_is_none_is_refused(tmp_path: Path) -> None:
    write_nifti(tmp_path / "case_0000.nii", voxels())
    content = bytearray((tmp_path / "case_0000.nii").read_bytes())
    struct.pack_into("<f", content, 280, np.nan)
    (tmp_path / "case_0000.nii").write_bytes(content)
    with pytest.raises(UsageError, match="finite position and direction"):
        read_image([tmp_path / "case_0000.nii"], "NibabelIO")


def test_channels_of_different_shape_are_refused(tmp_path: Path) -> None:
    files = [tmp_path / "a.nii.gz", tmp_path / "b.nii.gz"]
    write_itk(files[0], voxels())
    write_itk(files[1], voxels(shape=(5, 6, 8)))
    with pytest.raises(UsageError, match="one shape and spacing"):
        read_image(files, "SimpleITKIO")


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    write_itk(tmp_path / "a.nii.gz", voxels())
    image = read_image([tmp_path / "a.nii.gz"], "SimpleITKIO")
    with pytest.raises(UsageError, match="cannot write"):
        write_label_map(np.zeros(SHAPE, np.uint8), tmp_path / "none" / "b.nii.gz", image, "SimpleITKIO")
    (tmp_path / "b.nii.gz").mkdir()
    with pytest.raises(UsageError, match="cannot write"):
        write_label_map(np.zeros(SHAPE, np.uint8), tmp_path / "b.nii.gz", image, "SimpleITKIO")
    assert not list(tmp_path.glob(".*"))


def test_a_torn_label_map_is_not_kept_though_its_library_says_nothing(tmp_path: Path, monkeypatch: Any) -> None:
    def torn(labels: np.ndarray, file: Path, geometry: dict[str, Any]) -> None:
        readers.write_simple_itk(labels, file, geometry)
        file.write_bytes(file.read_bytes()[:40])  # as ITK leaves it on a full disk

    monkeypatch.setitem(readers.WRITE, "SimpleITKIO", torn)
    write_itk(tmp_path / "a.nii.gz", voxels())
    image = read_image([tmp_path / "a.nii.gz"], "SimpleITKIO")
    with pytest.raises(UsageError, match="only 40 bytes were taken; check the folder and the space left"):
        write_label_map(np.zeros(SHAPE, np.uint8), tmp_path / "b.nii.gz", image, "SimpleITKIO")
    assert {path.name for path in tmp_path.iterdir()} == {"a.nii.gz"}
