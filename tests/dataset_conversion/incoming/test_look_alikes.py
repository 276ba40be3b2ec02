"""Claims about folders and files that are named almost like cases: they are not passed over in silence."""

from collections.abc import Callable
from pathlib import Path

import pytest

from nnunet_kd.dataset_conversion.challenges import challenge
from nnunet_kd.errors import UsageError


def _images(*suffixes: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.mkdir(parents=True)
        for suffix in suffixes:
            (path / f"{suffix}.nii.gz").touch()

    return write


def _file(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


@pytest.mark.parametrize(
    ("name", "make", "right", "wrong"),
    [
        ("acdc", _images("x"), "training/patient001", "training/Patient002"),
        ("acdc", _images("x"), "training/patient001", "training/patient001 (1)"),
        ("kits23", _images("imaging", "segmentation"), "case_00000", "case_00001 (1)"),
        ("kits19", _images("imaging", "segmentation"), "case_00000", "Case_0001"),
        ("kits23", _file, "case_00000.nii.gz", "case_1.nii.gz"),
        ("lits17", _file, "a/volume-0.nii", "b/Volume-9.nii"),
        ("lits17", _file, "a/volume-0.nii", "b/segmentation-0 (1).nii"),
        ("brats2023", _images("x"), "a/BraTS-GLI-00000-000", "a/brats-gli-00001-000"),
        ("brats-pool", _images("x"), "a/BraTS-GLI-00000-000", "a/BraTS-GLI-00000-000 (1)"),
        ("brats2021", _images("x"), "BraTS2021_00000", "BraTS2021_001"),
    ],
)
def test_name_that_is_almost_a_case_is_refused(
    tmp_path: Path, name: str, make: Callable[[Path], None], right: str, wrong: str
) -> None:
    make(tmp_path / right)
    assert len(challenge(name).read_source(tmp_path)[1]) >= 1
    make(tmp_path / wrong)
    with pytest.raises(UsageError, match="rename it or move it away") as refused:
        challenge(name).read_source(tmp_path)
    assert repr(Path(wrong).name) in str(refused.value)
