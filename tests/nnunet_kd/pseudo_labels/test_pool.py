"""Claims about the folder of unlabelled scans and the order of their channels."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from nnunet_kd.errors import UsageError
from nnunet_kd.pseudo_labels.channels import by_name, parse_order
from nnunet_kd.pseudo_labels.pool import Scan, channel_files, count_channels, pool_channels, read_pool, unpack

ENDING = ".nii.gz"
BRATS = ["T1", "T1ce", "T2", "Flair"]
# as in the listing of Task01_BrainTumour, http://medicaldecathlon.com
DECATHLON = {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"}


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def listed(folder: Path, prefix: str = "") -> tuple[dict[str, list[str]], list[str]]:
    scans, faults = read_pool(folder, ENDING, (0,), n_channels=None, prefix=prefix)
    return {s.name: [f.name for f in s.files] for s in scans}, [f"{fault.case}: {fault.message}" for fault in faults]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["a_0000.nii.gz", "a_0001.nii.gz", "note.txt"], {"pa": ["a_0000.nii.gz", "a_0001.nii.gz"]}),
        (["BRATS_001.nii.gz", "._BRATS_001.nii.gz"], {"pBRATS_001": ["BRATS_001.nii.gz"]}),
        (
            ["imagesTr/a.nii.gz", "imagesTs/b_0000.nii.gz", "labelsTr/a.nii.gz", "c.nii.gz"],
            {"pa": ["a.nii.gz"], "pb": ["b_0000.nii.gz"]},
        ),
    ],
)
def test_cases_are_found_by_the_names_of_their_files(
    tmp_path: Path, files: list[str], expected: dict[str, list[str]]
) -> None:
    assert listed(touch(tmp_path, *files), prefix="p") == (expected, [])


@pytest.mark.parametrize(
    ("files", "fault"),
    [
        (["a_0000.nii.gz", "a_0002.nii.gz"], "a: expected channel 0001"),
        (["a_0001.nii.gz"], "a: expected channel 0000"),
        (["imagesTr/a_0000.nii.gz", "imagesTs/a_0000.nii.gz"], "have the same name"),
        (["a.nii.gz", "a_0000.nii.gz"], "have the same name"),
    ],
)
def test_cases_that_cannot_be_told_apart_or_lack_a_channel_are_faults(
    tmp_path: Path, files: list[str], fault: str
) -> None:
    _, faults = listed(touch(tmp_path, *files))
    assert len(faults) == 1
    assert fault in faults[0]


@pytest.mark.parametrize(("files", "found"), [(["a.mha", "b.nrrd"], ".mha, .nrrd"), ([], "found none")])
def test_an_empty_pool_is_refused_with_what_is_there(tmp_path: Path, files: list[str], found: str) -> None:
    with pytest.raises(UsageError, match=rf"expected images like CASE_0000.nii.gz in .*{found}"):
        listed(touch(tmp_path, *files))


@pytest.mark.parametrize("part", ["", "imagesTr", "imagesTs"])
def test_the_names_of_the_channels_stand_beside_the_images(tmp_path: Path, part: str) -> None:
    (tmp_path / part).mkdir(exist_ok=True)
    (tmp_path / "dataset.json").write_text(json.dumps({"modality": DECATHLON}))
    assert pool_channels(tmp_path / part) == ("FLAIR", "T1w", "t1gd", "T2w")


@pytest.mark.parametrize(
    ("pool", "order"),
    [
        (list(DECATHLON.values()), (1, 2, 3, 0)),
        (["t1n", "t1c", "t2w", "t2f"], (0, 1, 2, 3)),
        (["t2f", "adc", "T1-Gd", "T2", "t1"], (4, 2, 3, 0)),
    ],
)
def test_channels_are_matched_by_name_whatever_the_spelling(pool: Sequence[str], order: tuple[int, ...]) -> None:
    assert by_name(pool, BRATS) == order


def test_names_that_are_all_alike_in_both_are_taken_in_their_order() -> None:
    assert by_name(["MRI", "MRI"], ["mri", "mri"]) == (0, 1)


@pytest.mark.parametrize("pool", [["FLAIR", "T1w", "T2w"], ["T1", "t1n", "t1c", "t2", "flair"], ["MRI"] * 4])
def test_channels_that_cannot_be_told_are_refused(pool: Sequence[str]) -> None:
    with pytest.raises(UsageError, match="--channel-order 1,2,3,0"):
        by_name(pool, BRATS)


@pytest.mark.parametrize("text", ["1,2,3", "0,1,2,2", "a,b,c,d", "", "0,1,2,-3", "0,1,2,3,4"])
def test_an_order_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--channel-order: expected 4 different numbers"):
        parse_order(text, 4)


def test_a_packed_case_is_taken_apart_with_its_voxels_and_place(tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).integers(-5, 900, (4, 3, 5, 6)).astype(np.int16)
    singles = []
    for channel in voxels:
        single = SimpleITK.GetImageFromArray(channel)
        single.SetSpacing((1.5, 1.0, 3.0))
        single.SetOrigin((10, -20, 5))
        single.SetDirection((0, 1, 0, -1, 0, 0, 0, 0, 1))
        singles.append(single)
    path = tmp_path / "BRATS_001.nii.gz"
    SimpleITK.WriteImage(SimpleITK.JoinSeries(singles), str(path))
    scan = Scan(name="BRATS_001", files=(path,), order=(1, 2, 3, 0))
    assert count_channels(scan) == 4
    with channel_files(scan) as files:
        for number, file in zip(scan.order, files, strict=True):
            found = SimpleITK.ReadImage(str(file))
            np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(found), voxels[number])
            assert found.GetPixelID() == SimpleITK.sitkInt16
            for part in ("GetSpacing", "GetOrigin", "GetDirection"):
                np.testing.assert_allclose(getattr(found, part)(), getattr(singles[0], part)(), atol=1e-6)
    assert not any(file.exists() for file in files)


def test_a_disk_that_takes_half_a_channel_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ITK says nothing of it."""
    path, target = tmp_path / "a.nii.gz", tmp_path / "a_0000.nii"
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(np.ones((4, 5, 6), np.int16)), str(path))
    write = SimpleITK.WriteImage

    def torn(image: SimpleITK.Image, name: str, *options: object) -> None:
        write(image, name, *options)
        Path(name).write_bytes(Path(name).read_bytes()[:400])

    monkeypatch.setattr(SimpleITK, "WriteImage", torn)
    with pytest.raises(OSError, match="only 400 bytes were taken"):
        unpack(Scan(name="a", files=(path,), order=(0,)), [target])
