"""Names of files to cases and back, as nnU-Net has them."""

from pathlib import Path

import pytest
from nnunetv2.utilities.utils import get_identifiers_from_splitted_dataset_folder

from nnunet_kd.deployment.prediction.case_files import CaseFiles, find_cases, is_finished, part_of, split_list
from nnunet_kd.errors import UsageError

E = ".nii.gz"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("b_0000", "b_0001", "a_1_0000", "a_1_0001", "c_0000", "c_0002", "a,b_0000"):
        (folder / f"{name}{E}").touch()
    return folder


def test_a_folder_holds_the_cases_that_nnunet_finds(images: Path, tmp_path: Path) -> None:
    cases = find_cases([images], tmp_path / "out", ending=E, previous=images)
    assert [case.name for case in cases] == list(get_identifiers_from_splitted_dataset_folder(str(images), E))
    by_name = {case.name: case for case in cases}
    assert by_name["a_1"].files == (images / f"a_1_0000{E}", images / f"a_1_0001{E}")
    assert by_name["a_1"].output == tmp_path / "out" / f"a_1{E}"
    assert by_name["a_1"].previous == images / f"a_1{E}"
    assert {case.name for case in cases if case.fault} == {"c"}
    assert "0000, 0002" in by_name["c"].fault


@pytest.mark.parametrize(
    ("output", "expected", "name"),
    [("out", "out/b.nii.gz", "b"), ("sub/mask.nii.gz", "sub/mask.nii.gz", "mask")],
    ids=["folder", "file"],
)
def test_the_files_of_one_case(images: Path, tmp_path: Path, output: str, expected: str, name: str) -> None:
    (case,) = find_cases([images / f"b_0000{E}", images / f"b_0001{E}"], tmp_path / output, ending=E, previous=images)
    assert (case.output, case.name, len(case.files)) == (tmp_path / expected, name, 2)
    assert case.previous == images / f"b{E}"


def test_a_list_is_separated_by_spaces_or_commas(images: Path) -> None:
    odd = f"{images}/a,b_0000{E}"
    assert split_list([odd, "x.nii,y.nii", "~/z"]) == (Path(odd), Path("x.nii"), Path("y.nii"), Path.home() / "z")


def test_parts_cover_all_cases_once(images: Path, tmp_path: Path) -> None:
    cases = find_cases([images], tmp_path / "out", ending=E)
    assert part_of(cases, 3, 1) == cases[1::3]
    assert sorted(case.name for part in range(3) for case in part_of(cases, 3, part)) == [c.name for c in cases]


@pytest.mark.parametrize(
    ("sources", "output", "message"),
    [
        (["images"], "mask.nii.gz", "expected a folder for -o"),
        (["."], "out", "found 1 others, such as images"),
        (["absent"], "out", "found no file .*absent"),
        (["images/b_0000.nii.gz"], "mask.png", "ending in .nii.gz or a folder"),
        (["images/b_0000.nii.gz"], "images/b_0000.nii.gz", "would replace an input"),
        (["note.txt"], "out", "expected images ending in .nii.gz"),
    ],
    ids=["folder_to_file", "no_images", "absent", "other_output", "onto_itself", "other_input"],
)
def test_what_does_not_go_is_refused(
    images: Path, tmp_path: Path, sources: list[str], output: str, message: str
) -> None:
    if "note" in sources[0]:
        (tmp_path / "note.txt").touch()
    with pytest.raises(UsageError, match=message):
        find_cases([tmp_path / source for source in sources], tmp_path / output, ending=E)


def test_outputs_never_replace_the_previous_stage(images: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="would replace an input"):
        find_cases([images], tmp_path / "first", ending=E, previous=_made(tmp_path / "first"))


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


@pytest.mark.parametrize(("n", "part"), [(0, 0), (2, 2), (2, -1)])
def test_parts_that_are_not_there_are_refused(n: int, part: int) -> None:
    with pytest.raises(UsageError, match="-part_id from 0"):
        part_of([], n, part)


def test_a_torn_label_map_is_not_finished(images: Path, tmp_path: Path) -> None:
    case = CaseFiles(name="b", files=(), output=tmp_path / f"b{E}")
    for content, finished in ((None, False), (b"", False), (b"torn", False)):
        if content is not None:
            case.output.write_bytes(content)
        assert is_finished(case, probabilities=False) is finished
